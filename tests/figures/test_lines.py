"""Figures of plain lines draw the numbers that they are given, and tell them in words."""

import pytest

from serial_lora_course.lessons.l03_build.figures import plot_losses
from serial_lora_course.lessons.l05_sam.figures import plot_dice_by_scale
from serial_lora_course.lessons.l10_inside.figures import plot_shifts
from serial_lora_course.lessons.l11_many.figures import plot_path
from serial_lora_course.lessons.l12_your_own.figures import plot_validation
from serial_lora_course.plots.style import describe
from tests.figures.test_mixtures import BASE, GOOD
from tests.figures.test_spectra import FRAMES, WIDTH

ROUNDS = {3: {"loss": 1.5, "accuracy": 0.25}, 6: {"loss": 0.5, "accuracy": 0.75}}
PATH = {"sum": [GOOD, BASE, GOOD], "average": [BASE, BASE, BASE]}
LINES = [  # the figure, what it is given, lines that must be there, words
    (plot_losses, [{1: [1, 0.5], 4: [1, 1e-3]}, "x"], [[1, 0.5], [1, 1e-3]], "4 ends at 1.0e-03"),
    (
        plot_dice_by_scale,
        [{"a": [0.2, 0.4], "b": [0.4, 0.8]}, "lora", (0.0, 1.0)],
        [[0.2, 0.4], [0.4, 0.8], [0.3, 0.6]],
        "0.60 at 1",
    ),
    (
        plot_path,
        [(0, 0.5, 1), PATH, ("a", "b")],
        [[80, 30, 80], [30] * 3, [50, 40, 50], [40] * 3],
        "sum, a: 80, 30, 80",
    ),
    (plot_validation, [ROUNDS, 6], [[1.5, 0.5], [25, 75]], "step 6 with 0.50"),
    (plot_shifts, [FRAMES], [[10] * WIDTH, [5] * WIDTH], "+10.0% to +10.0%"),
]


@pytest.mark.parametrize(("plot", "arguments", "lines", "words"), LINES)
def test_lines_are_the_numbers(plot, arguments, lines, words):
    figure = plot(*arguments)
    drawn = [list(line.get_ydata()) for axes in figure.axes for line in axes.lines]
    for expected in lines:
        assert any(found == pytest.approx(expected) for found in drawn if len(found) > 1), drawn
    assert words in describe(figure)
