"""Every figure is described in words wherever it goes, and looks the same each time."""

import io

import numpy as np
import pytest
from PIL import Image

from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.lessons.l02_count.figures import plot_quarter
from serial_lora_course.plots import style
from serial_lora_course.plots.drawings import plot_drawings


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_saved_figure_is_described_and_the_same_file_every_time(tmp_path, suffix):
    figures = [plot_quarter(width=8, rank=1) for _ in range(2)]
    first, second = (
        style.save_figure(figure, tmp_path / f"{number}.{suffix}", dpi=50).read_bytes()
        for number, figure in enumerate(figures)
    )
    description = style.describe(figures[0])
    assert description and description.encode() in first and first == second


def test_a_flat_colour_keeps_its_tone_beside_many_others():
    """A designer's yellow, in a sheet with drawings that a model could have made."""
    drawings, chance = load_emoji("openmoji"), np.random.default_rng(0)
    names = ("neutral face", "peacock", "turtle", "lemon", "owl", "boar", "face with tears of joy")
    drawn = [
        np.asarray(drawings.picture(drawings.names.index(name)).convert("RGB")) for name in names
    ]
    noisy = [(each + chance.normal(0, 12, each.shape)).clip(0, 255).astype("u1") for each in drawn]
    rows = {row: list(map(Image.fromarray, each)) for row, each in {"a": noisy, "b": drawn}.items()}
    figure = plot_drawings(rows | {"c": rows["a"]}, names)
    exact = io.BytesIO()
    with style.house_style():
        figure.savefig(exact, format="png", dpi=style.SCREEN_DPI)
    before, after = (
        np.asarray(Image.open(each).convert("RGB")).astype(int)
        for each in (exact, io.BytesIO(style.figure_png(figure)))
    )
    yellow = (before == drawn[0][32, 10]).all(-1)
    assert exact.tell() > style.LARGE and yellow.sum() > 1000
    assert abs(after[yellow] - before[yellow]).max() <= 8
