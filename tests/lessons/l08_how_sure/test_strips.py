"""A strip changes its colour where the verdict changes."""

import pytest
from matplotlib.colors import to_hex

from serial_lora_course.lessons.l08_how_sure.figures import VERDICTS, plot_strips


def test_each_verdict_has_its_part_of_the_strip():
    margins = [0.5, 1.0, 1.5, 2.0]
    strips = {"one": ["fails", "open", "open", "holds"], "two": ["holds"] * 4}
    (axes,) = plot_strips(margins, strips).axes
    parts = [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor())) for bar in axes.patches]
    expected = [(0, 0.5, "fails"), (0.5, 1, "open"), (1.5, 0.5, "holds"), (0, 2, "holds")]
    for (left, width, colour), (at, wide, verdict) in zip(parts, expected, strict=True):
        assert (left, width) == pytest.approx((at, wide))
        assert colour == VERDICTS[verdict]
