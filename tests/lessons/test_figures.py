"""Figures of the lessons draw the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

from serial_lora_course.lessons.l01_maths.figures import plot_misses
from serial_lora_course.lessons.l04_clip.figures import plot_gains
from serial_lora_course.lessons.l07_lora_plus.figures import plot_race, plot_sweep
from serial_lora_course.lessons.l08_how_sure.figures import plot_margins, plot_measurement
from serial_lora_course.lessons.l11_many.figures import plot_path
from serial_lora_course.lessons.l12_your_own.figures import show_predictions
from serial_lora_course.lessons.l13_not_learning.figures import plot_curves, plot_mended

GOOD, BASE = {"a": 80, "b": 50}, {"a": 30, "b": 40}
RACES = {"one rate": {"A": [0, 0, 1], "B": [0, 2, 3]}, "LoRA+": {"A": [0, 0, 4], "B": [0, 20, 30]}}
LINES = {  # the figure, what it is given, lines that must be there
    "misses": (
        plot_misses,
        [{"LoRA": [1, 0.5, 0.25], "noise": [1, 0.9, 0.8]}, (1, 2)],
        [[0.5, 0.25], [0.9, 0.8]],
    ),
    "path": (
        plot_path,
        [(0, 0.5, 1), {"sum": [GOOD, BASE, GOOD], "average": [BASE] * 3}, ("a", "b")],
        [[80, 30, 80], [30] * 3, [50, 40, 50], [40] * 3],
    ),
    "curves": (  # each step, and the mean over a sixth of the run
        plot_curves,
        [{"A": range(12), "B": [2, 4] * 6}],
        [list(range(12)), np.arange(0.5, 11), [3] * 11],
    ),
    "mended": (plot_mended, [[3] * 6, [3, 2, 1] * 2], [[3] * 6, [3, 2, 1] * 2]),
    "race": (plot_race, [RACES], [[0, 0, 1], [0, 2, 3], [0, 0, 4], [0, 20, 30]]),
}


@pytest.mark.parametrize(("plot", "arguments", "lines"), LINES.values(), ids=LINES)
def test_lines_are_the_numbers(plot, arguments, lines):
    figure = plot(*arguments)
    drawn = [list(line.get_ydata()) for axes in figure.axes for line in axes.lines]
    for expected in lines:
        assert any(found == pytest.approx(expected) for found in drawn if len(found) > 1), drawn


def test_a_sweep_draws_the_mean_over_sets_and_seeds():
    chance = np.random.default_rng(3)
    rows = [
        (dataset, "lora_plus", seed, lr, ratio, chance.uniform(0.3, 0.9))
        for dataset in ("food", "nature")
        for seed in (1, 2)
        for lr in (1e-3, 1e-2)
        for ratio in (1.0, 4.0)
    ]
    names = ["dataset", "method", "seed", "lr", "ratio", "accuracy"]
    runs = pd.DataFrame(rows, columns=names).assign(zero_shot_dataset=0.25)
    axes = plot_sweep(runs).axes[0]
    for line, lr in zip(axes.lines[1:], (1e-3, 1e-2), strict=True):  # the first is zero-shot
        x, y = line.get_data()
        assert list(x) == pytest.approx([lr, 4 * lr])
        own = runs[runs["lr"] == lr].groupby("ratio")["accuracy"].mean()
        assert list(y) == pytest.approx((100 * own).tolist())


def test_dots_are_the_runs_and_a_bar_is_their_mean():
    runs = {"ahead of one": pd.Series([1.0, -2.0, 4.0]), "ahead of none": pd.Series(dtype=float)}
    (axes,) = plot_gains("dots", runs).axes
    (dots,) = axes.collections
    assert dots.get_offsets()[:, 0].tolist() == [1, -2, 4]
    assert list(axes.lines[1].get_xdata()) == [1, 1]


def test_an_interval_is_drawn_over_runs_and_over_data_sets():
    chance = np.random.default_rng(4)
    index = pd.MultiIndex.from_product([("a", "b", "c"), (1, 2)], names=["dataset", "seed"])
    table = pd.DataFrame(chance.normal(size=(6, 2)), index, ["lora", "serial_lora"])
    figure = plot_measurement(table, "serial_lora", "lora")
    found = table["serial_lora"] - table["lora"]
    sets = stats.ttest_1samp(found.groupby("dataset").mean(), 0).confidence_interval(0.95)
    halves = [2 * found.sem(), (sets.high - sets.low) / 2]
    for bar, half in zip(figure.axes[2].containers, halves, strict=True):
        (ends,) = bar.lines[2][0].get_segments()
        assert ends[:, 1] == pytest.approx([found.mean() - half, found.mean() + half])
    judged = [("sam", rival, -0.4, 0.2, 1.0, "holds") for rival in ("lora", "lora_equal_budget")]
    (axes,) = plot_margins(judged).axes
    assert axes.patches[0].get_extents().x1 == pytest.approx(axes.transData.transform((-1, 0))[0])


def test_predictions_are_framed_by_whether_they_are_right():
    shares = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    pictures = [Image.new("RGB", (4, 4))] * 3
    figure = show_predictions(pictures, shares, torch.tensor([0, 1, 1]), ["a_b", "c"])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a b, 90%", "c, 70%", "a b, 60%"]
    colours = [axes.spines["top"].get_edgecolor() for axes in figure.axes[:3]]
    assert colours[0] == colours[1] != colours[2]
