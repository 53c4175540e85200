"""The figures of one optimizer step."""

import pandas as pd
import pytest

from serial_lora_course.lessons.l07_lora_plus.figures import plot_step_by_ratio, plot_step_by_width
from serial_lora_course.lessons.l07_lora_plus.steps import slope
from serial_lora_course.plots.style import describe


def test_the_ratio_with_the_largest_fall_and_those_where_the_loss_rises_are_told():
    steps = pd.DataFrame(
        {
            "ratio": [1, 5, 20],
            "B's part": [1.0, 5.0, 20.0],
            "A's part": [1.0] * 3,
            "both": [0.1, 0.5, 2.0],
            "promised": [-1.0, -3.0, -12.0],
            "loss changed by": [-1.0, -2.0, 4.0],
        }
    )
    figure = plot_step_by_ratio(steps)
    assert list(figure.axes[1].lines[1].get_ydata()) == [-1, -2, 4]
    assert "ratio of 5, 2.0 times" in describe(figure) and "rises at 20" in describe(figure)


def test_a_power_is_a_slope():
    widths = (8, 16, 64)
    effects = {
        title: [{"A": 3.0 * d**1.5, "B": 2.0 * d**0.5} for d in widths]
        for title in ("LoRA", "Serial LoRA")
    }
    assert slope(widths, [d**-2.0 for d in widths]) == pytest.approx(-2)
    words = describe(plot_step_by_width(widths, effects))
    assert words.count("d to the 1.50") == 2 and words.count("to the 0.50") == 2
