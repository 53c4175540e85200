"""The ladder shows the study's own numbers; rivals, rates and sets are drawn where they are."""

import pandas as pd
import pytest
import torch

from serial_lora_course.lessons.l09_trial.figures import (
    STEPS,
    plot_ladder,
    plot_layers,
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
    steps = [gains[new] - gains[old] for _, new, old in STEPS]
    assert drawn == pytest.approx(steps, abs=0.01)
    assert [new for _, new, _ in STEPS[:-1]] == [old for _, _, old in STEPS[1:]]


def test_layers_are_drawn_with_what_is_said_of_them():
    figure = plot_layers({"Serial LoRA": "one pair", "RepAdapter": "two groups"})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"one pair", "two groups", "$B_1$", "$B_2$"} <= {*texts} and texts.count("B") == 1
    assert "RepAdapter: W_p(x + B(Ax + a) + b) (two groups)" in figure.alt_text


def test_a_rival_is_drawn_where_each_run_has_it():
    own = {"one": (0.25, 0.1), "two": (1.5, 0.4), "hollow": (2.0, 0.3)}
    theirs = {"one": (-0.1, 0.2), "two": (9.0, 1.0)}
    bars = {"one": 1, "two": -1}
    figure = plot_rivals({"yours": own, "theirs": theirs}, bars)
    drawn = [
        [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        for axes in figure.axes
    ]
    assert drawn == [[0.25, 1.5, 2.0], [-0.1, 9.0]]
    for axes, leads in zip(figure.axes, (own, theirs), strict=True):
        starts = [patch.get_x() for patch in axes.patches]
        assert starts == [1, -1]
        assert axes.get_xlim()[1] >= max(lead + half for lead, half in leads.values())
        words = [text.get_text() for text in axes.texts]
        assert words[:2] == ["holds", "falls"] and words[2:] in ([], ["+2.00 ± 0.30"])
    assert "yours, one: +0.25 ± 0.10" in figure.alt_text
    plain = plot_rivals({"cut": {"all": (-1.0, 0.5)}}, {}, "points (orange: none)")
    assert [text.get_text() for text in plain.axes[0].texts] == ["-1.00 ± 0.50"]
    assert plain.axes[0].get_xlabel() == "points (orange: none)"


def test_each_method_is_circled_at_the_rate_that_was_chosen_for_it():
    search = pd.DataFrame({"a": [1.0, 3.0, 2.0], "b": [1.0, 2.0, 4.0]}, index=[0.1, 0.3, 0.9])
    searches = {"one": search, "the other": search * 3}
    sure = [{"both at 0.9": 0.5}, {}]
    panels = plot_rates(searches, [{"a": 0.3, "b": 0.9}, {"a": 0.1, "b": 0.1}], sure)
    circled = [
        [float(line.get_xdata()[0]) for line in axes.lines if line.get_markerfacecolor() == "none"]
        for axes in panels.axes
    ]
    assert circled == [[0.3, 0.9], [0.1, 0.1]]
    assert "both at 0.9: b +2.0 ± 0.5" in panels.alt_text  # 4 beside 2, in the first panel
    assert "each at its own: b +1.0" in panels.alt_text
    heights = [axes.get_ylim()[1] - axes.get_ylim()[0] for axes in panels.axes]
    assert heights[0] == pytest.approx(heights[1]) and heights[0] > 9


def test_the_matrices_and_where_changes_go_are_drawn():
    values = torch.tensor([[2.0, 1.0, 0.5], [3.0, 0.5, 0.1], [2.5, 0.7, 0.2]])
    firsts = {"a": 0.9, "b": 0.5, "c": 0.4}
    reached = {name: torch.tensor([first, 0.95, 1.0]) for name, first in firsts.items()}
    figure = plot_stretch(values, reached, 1)
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines[:3]] == values.tolist()
    assert list(left.lines[3].get_ydata()) == pytest.approx([2.5, 0.7, 0.2])
    assert list(right.lines[1].get_ydata()) == pytest.approx([90, 95, 100])
    assert "a: 90%; b: 50%" in figure.alt_text
