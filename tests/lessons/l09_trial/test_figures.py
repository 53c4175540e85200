"""The ladder shows the study's own numbers; the corners show both runs, and tint what costs in the study."""

import pytest
import torch
from matplotlib.colors import to_hex

from serial_lora_course.lessons.l09_trial.figures import (
    COSTS,
    ONE_B,
    STEPS,
    plot_corners,
    plot_ladder,
    plot_stretch,
)
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


def test_a_corner_is_tinted_where_the_whole_interval_of_the_study_is_below_zero():
    own = (0.25, 0.1)
    theirs = {"one": (0.1, 0.2), "two": (-0.1, 0.2), "three": (0.5, 0.2), "four": (-0.5, 0.2)}
    figure = plot_corners({name: (own, study) for name, study in theirs.items()})
    assert [to_hex(axes.get_facecolor()) == COSTS for axes in figure.axes] == [0, 0, 0, 1]
    for axes, (mean, half) in zip(figure.axes, theirs.values(), strict=True):
        drawn = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", "s")]
        assert drawn == [0.25, mean]
        assert f"{mean:+.2f} ± {half:.2f}" in axes.texts[1].get_text()


def test_the_matrices_and_the_rotations_are_all_drawn():
    values = torch.tensor([[2.0, 1.0, 0.5], [3.0, 0.5, 0.1], [2.5, 0.7, 0.2]])
    figure = plot_stretch(values, torch.ones(2, 3))
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert lines[:3] == values.tolist()
    assert lines[3] == pytest.approx([2.5, 0.7, 0.2]) and lines[4:] == [[1, 1, 1]] * 2
