"""The study's front, of made-up arms."""

import pandas as pd
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.study import plot_budget, plot_front
from serial_lora_course.figures.style import describe
from serial_lora_course.labs.frames import on_front

ARMS = pd.DataFrame(
    {
        "arm": ["lora-1", "serial_lora-4", "lora-16", "oft-64", "lora-4"],
        "title": [
            "LoRA, rank 1",
            "Serial LoRA, rank 4",
            "LoRA, rank 16",
            "OFT, blocks of 64",
            "LoRA, rank 4",
        ],
        "method": ["lora", "serial_lora", "lora", "oft", "lora"],
        "parameters": [10, 10, 100, 90, 40],
        "gain": [2.0, 3.0, 5.0, 5.5, 2.5],
        "half-width": 5.0,
        "above LoRA": [-3.0, -2.0, 0.0, 0.5, -2.5],
        "above LoRA, half-width": [0.4, 0.4, 0.0, 0.3, 0.4],
        "ms a step": [9.0, 5.0, 9.0, 50.0, float("nan")],
        "activations, MB": 30.0,
    }
)


def test_on_the_front_is_what_nothing_smaller_beats():
    assert on_front(ARMS, "gain")["arm"].tolist() == ["serial_lora-4", "oft-64"]
    quick = on_front(ARMS, "gain", "ms a step")["arm"].tolist()
    assert quick == ["serial_lora-4", "lora-16", "oft-64"]


def test_the_figure_shows_every_arm_and_tells_the_front():
    figure = plot_front({"sam": ARMS}, {"sam": "hundredths of Dice"})
    axis, by_time, by_memory = figure.axes
    assert len(by_time.texts) == len(ARMS) - 1  # one was not timed
    assert by_memory.lines[0].get_xydata().tolist() == [[30, 5.5]]
    assert {text.get_text() for text in axis.texts} == set(
        ARMS["title"]
    )  # on the front, or (serial) LoRA
    line = axis.lines[0].get_xydata().tolist()
    assert line == [[10, 3.0], [90, 5.5]]
    assert "Serial LoRA, rank 4 +3.0; OFT, blocks of 64 +5.5" in describe(figure)
    assert "hundredths of Dice" in axis.get_ylabel()


def test_one_cost_has_the_labs_side_by_side():
    axes = plot_front(
        {"sam": ARMS, "sd3": ARMS}, {"sam": "Dice", "sd3": "points"}, ["parameters"]
    ).axes
    assert [axis.get_title(loc="left") or axis.get_title() for axis in axes] == ["SAM", "SD3"]
    assert axes[0].get_position().y0 == pytest.approx(axes[1].get_position().y0)


def test_a_budget_has_its_best_arm_and_what_is_cheaper_than_all_is_refused():
    figure = plot_budget(ARMS, "points", "parameters", 95)
    assert describe(figure).startswith(
        "Up to 95 trained parameters: best is OFT, blocks of 64, +5.5 points; "
    )
    assert "Serial LoRA, rank 4, +3.0" in describe(figure)
    with pytest.raises(SerialLoRAError, match="No arm"):
        plot_budget(ARMS, "points", "parameters", 9)
