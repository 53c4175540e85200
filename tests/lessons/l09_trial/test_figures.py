"""The ladder shows the study's own numbers; rivals and rates are drawn where they are."""

import pandas as pd
import pytest
import torch

from serial_lora_course.lessons.l09_trial.figures import (
    ONE_B,
    STEPS,
    plot_ladder,
    plot_rates,
    plot_rivals,
    plot_stretch,
)
from serial_lora_course.lessons.l09_trial.tables import load_found

FOUND = load_found()


def test_each_step_of_the_ladder_is_what_two_arms_came_to():
    texts = [text.get_text() for text in plot_ladder(FOUND).axes[0].texts]
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


def test_a_rival_is_drawn_where_both_runs_have_it():
    own, theirs = {"one": (0.25, 0.1), "two": (1.5, 0.4)}, {"one": (-0.1, 0.2), "two": None}
    figure = plot_rivals({name: (own[name], theirs[name], 1) for name in own}, second=0.7)
    drawn = [
        (line.get_marker(), line.get_xdata()[0])
        for line in figure.axes[0].lines
        if line.get_marker() in ("o", "s")
    ]
    assert drawn == [("o", 0.25), ("s", -0.1), ("o", 1.5)]
    assert 0.7 in [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert "one: yours +0.25 ± 0.10, the study's -0.10 ± 0.20" in figure.alt_text


def test_each_method_is_circled_at_its_best_rate_in_each_search():
    search = pd.DataFrame({"a": [1.0, 3.0, 2.0], "b": [1.0, 2.0, 4.0]}, index=[0.1, 0.3, 0.9])
    panels = plot_rates({"one": search, "the other": search[::-1] * -1}, shared=0.3).axes
    circled = [
        [float(line.get_xdata()[0]) for line in axes.lines if line.get_markerfacecolor() == "none"]
        for axes in panels
    ]
    assert circled == [[0.3, 0.9], [0.1, 0.1]]
    assert [axes.get_title(loc="left") or axes.get_title() for axes in panels] == [
        "one",
        "the other",
    ]


def test_the_matrices_and_the_rotations_are_all_drawn():
    values = torch.tensor([[2.0, 1.0, 0.5], [3.0, 0.5, 0.1], [2.5, 0.7, 0.2]])
    figure = plot_stretch(values, torch.ones(2, 3))
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert lines[:3] == values.tolist()
    assert lines[3] == pytest.approx([2.5, 0.7, 0.2]) and lines[4:] == [[1, 1, 1]] * 2
