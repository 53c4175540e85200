"""Every figure is described in words wherever it goes, and looks the same each time."""

import pytest

from serial_lora_course.lessons.l02_count.figures import plot_quarter
from serial_lora_course.plots import style


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_saved_figure_is_described_and_the_same_file_every_time(tmp_path, suffix):
    figures = [plot_quarter(width=8, rank=1) for _ in range(2)]
    first, second = (
        style.save_figure(figure, tmp_path / f"{number}.{suffix}", dpi=50).read_bytes()
        for number, figure in enumerate(figures)
    )
    description = style.describe(figures[0])
    assert description and description.encode() in first and first == second
