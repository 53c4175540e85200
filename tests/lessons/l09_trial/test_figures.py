"""The ladder shows the study's own numbers."""

import pytest

from serial_lora_course.lessons.l09_trial.figures import ONE_B, STEPS, plot_ladder
from serial_lora_course.lessons.l09_trial.tables import load_found

FOUND = load_found()


def test_each_step_of_the_ladder_is_what_two_arms_came_to():
    texts = [text.get_text() for text in plot_ladder(FOUND).axes[1].texts]
    drawn = [float(text.split()[0]) for text in texts if text.startswith(("+", "-"))]
    gains = FOUND.arms["sam"].set_index("arm")["gain"]
    rungs = ["lora_qkv-4", "lora_tied-6", "serial_random-12", "serial_lora-12"]
    steps = [gains[new] - gains[old] for old, new in zip(rungs, rungs[1:], strict=False)]
    steps.append(gains["repadapter-4"] - gains["serial_lora-4"])
    for (_, asks, _), step in zip(STEPS, steps, strict=True):
        if asks == ONE_B:
            like = FOUND.described["sam", *ONE_B]
        else:
            (answer,) = [each for each in FOUND.answers if (each.lab, each.asks) == ("sam", asks)]
            like = answer.like
        assert abs(like.mean) == pytest.approx(abs(step), abs=0.01)
        assert any(number == pytest.approx(step, abs=0.01) for number in drawn), (step, drawn)
