"""The trial's pictures show the study's own numbers."""

import pytest

from serial_lora_course.labs.frames import on_front
from serial_lora_course.lessons.l09_trial.figures import NAMED, STEPS, plot_front, plot_ladder
from serial_lora_course.lessons.l09_trial.tables import load_found

FOUND = load_found()


def test_each_step_of_the_ladder_is_what_two_arms_came_to():
    words = [text.get_text() for text in plot_ladder(FOUND.answers).axes[1].texts]
    gains = FOUND.arms["sam"].set_index("arm")["gain"]
    steps = [
        gains["lora_tied-6"] - gains["lora_qkv-4"],
        gains["serial_lora-12"] - gains["lora_tied-6"],
        gains["repadapter-4"] - gains["serial_lora-4"],
    ]
    for (_, asks, _), step in zip(STEPS, steps, strict=True):
        (answer,) = [each for each in FOUND.answers if (each.lab, each.asks) == ("sam", asks)]
        assert abs(answer.like.mean) == pytest.approx(abs(step), abs=0.01)
        assert any(word.startswith(f"{step:+.1f}") for word in words), (step, words)
    assert len(plot_ladder().axes) == 1


def test_the_front_names_eight_arms_that_the_study_has():
    arms = FOUND.whole("sam")
    figure = plot_front(arms, on_front(arms, "above LoRA").index, "hundredths")
    (axes,) = figure.axes
    assert set(NAMED) <= set(arms["arm"]) and len(NAMED) == 8
    drawn = {float(bar.lines[0].get_ydata()[0]) for bar in axes.containers}
    assert drawn == set(arms[arms["arm"].isin(NAMED)]["above LoRA"])
    assert not arms["arm"].str.contains("-of-|blocks").any()
