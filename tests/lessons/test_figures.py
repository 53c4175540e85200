"""Figures of the lessons draw the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest
import torch

from serial_lora_course.lessons.l00_start.figures import plot_shares
from serial_lora_course.lessons.l01_maths.figures import (
    plot_layers,
    plot_misses,
    plot_token_moves,
)
from serial_lora_course.lessons.l02_count.figures import plot_counts
from serial_lora_course.lessons.l03_build.figures import plot_losses
from serial_lora_course.lessons.l04_clip.figures import plot_confusion
from serial_lora_course.lessons.l05_sam.figures import (
    plot_dice_by_scale,
    plot_dice_per_picture,
    plot_windows,
)
from serial_lora_course.lessons.l07_lora_plus.figures import (
    plot_ratio_sweep,
    plot_step_by_ratio,
    plot_step_by_width,
)
from serial_lora_course.lessons.l08_how_sure.figures import plot_rank_sweep
from serial_lora_course.lessons.l11_many.figures import plot_path
from serial_lora_course.lessons.l12_your_own.figures import plot_validation
from serial_lora_course.measures.lowrank import misses_by_method

GOOD, BASE = {"a": 80, "b": 50}, {"a": 30, "b": 40}
ROUNDS = {3: {"loss": 1.5, "accuracy": 0.25}, 6: {"loss": 0.5, "accuracy": 0.75}}
STEPS = pd.DataFrame({"ratio": [1, 5], "B's part": [1.0, 5.0], "A's part": [1.0, 1.0]})
STEPS = STEPS.assign(both=[0.1, 0.5], promised=[-1.0, -3.0]).assign(**{"loss changed by": [-1, 4]})
WIDE = {title: [{"A": d**1.5, "B": d**0.5} for d in (8, 64)] for title in ("LoRA", "Serial LoRA")}
LINES = {  # the figure, what it is given, lines that must be there
    "losses": (plot_losses, [{1: [1, 0.5], 4: [1, 1e-3]}, "x"], [[1, 0.5], [1, 1e-3]]),
    "scales": (
        plot_dice_by_scale,
        [{"a": [0.2, 0.4], "b": [0.4, 0.8]}, "lora", (0.0, 1.0)],
        [[0.2, 0.4], [0.4, 0.8], [0.3, 0.6]],
    ),
    "path": (
        plot_path,
        [(0, 0.5, 1), {"sum": [GOOD, BASE, GOOD], "average": [BASE] * 3}, ("a", "b")],
        [[80, 30, 80], [30] * 3, [50, 40, 50], [40] * 3],
    ),
    "validation": (plot_validation, [ROUNDS, 6], [[1.5, 0.5], [25, 75]]),
    "one step": (plot_step_by_ratio, [STEPS], [[1, 5], [-1, -3], [-1, 4]]),
    "widths": (plot_step_by_width, [(8, 64), WIDE], [[8**1.5, 64**1.5], [8**0.5, 8]]),
}


@pytest.mark.parametrize(("plot", "arguments", "lines"), LINES.values(), ids=LINES)
def test_lines_are_the_numbers(plot, arguments, lines):
    figure = plot(*arguments)
    drawn = [list(line.get_ydata()) for axes in figure.axes for line in axes.lines]
    for expected in lines:
        assert any(found == pytest.approx(expected) for found in drawn if len(found) > 1), drawn


def test_layers_are_drawn_as_they_add_up():
    matrix = torch.rand(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    figure = plot_layers(matrix, count=3)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    layers, sums = pictures[0::2], pictures[1::2]
    _, axes = torch.linalg.eigh(matrix.T @ matrix)  # the best matrix of a rank, in another way
    for i, layer in enumerate(layers):
        assert torch.linalg.matrix_rank(torch.tensor(layer)).item() == 1
        kept = axes[:, 7 - i :]
        torch.testing.assert_close(torch.tensor(sums[i]), (matrix @ kept @ kept.T).clamp(0, 1))


def test_misses_are_drawn_where_they_are():
    weights, wanted = (
        {part: torch.randn(8, 8, generator=torch.Generator().manual_seed(i)) for part in "qkv"}
        for i in (0, 50)
    )
    curves, ranks = misses_by_method(weights, wanted), [1, 2, 4, 8]
    (axes,) = plot_misses({"one wish": curves}, ranks).axes
    for line, curve in zip(axes.lines, curves.values(), strict=True):
        assert list(line.get_ydata()) == [float(curve[rank]) for rank in ranks]


def test_moves_are_drawn_from_before_to_after():
    before = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])
    after = before + torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, -0.1]])
    (axes,) = plot_token_moves({"lora": {"q": (before, after)}}, {"lora": "W x + B A x"}).axes
    arrows = [text.xy for text in axes.texts if not text.get_text()]
    assert [list(end) for end in arrows] == [after[i].tolist() for i in (0, 2)]


def test_shares_print_the_largest_of_each_row_in_bold():
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]])
    figure = plot_shares([np.eye(4)] * 2, ["a cat", "a dog", "a key"], shares)
    bold = {t.get_text() for t in figure.axes[0].texts if t.get_fontweight() == "bold"}
    assert bold == {"70%", "80%"}


def test_counts_are_written_on_their_bars():
    words = [text.get_text() for text in plot_counts().axes[0].texts]
    assert words == ["3,932,160", "983,040", "4,718,592", "1,179,648", "18,874,368", "4,718,592"]


def test_a_confusion_matrix_counts_what_is_said():
    labels, guesses = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    (axes,) = plot_confusion(labels, {"one": guesses}, ["a", "b"]).axes
    assert axes.images[0].get_array().tolist() == [[1, 1], [0, 1]]


def test_every_picture_is_drawn_before_and_after():
    before, after = [0.2, 0.5, 0.9, 0.4], [0.3, 0.5, 0.8, 0.7]
    strip, pairs = plot_dice_per_picture(before, after, "serial_lora").axes
    heights = [np.asarray(points.get_offsets())[:, 1].tolist() for points in strip.collections]
    assert heights == [before, after]
    assert [line.get_ydata()[0] for line in strip.lines] == pytest.approx([0.45, 0.6])
    better, worse = (len(points.get_offsets()) for points in pairs.collections)
    assert (better, worse) == (3, 1)


def test_what_a_token_does_not_see_is_veiled():
    seen = {"window": np.kron([[0, 1], [0, 0]], np.ones((2, 2))) > 0, "all": np.ones((4, 4), bool)}
    figure = plot_windows(np.zeros((8, 8, 3)), seen, (0, 3))
    veils = [axes.images[1].get_array()[..., 3] for axes in figure.axes]
    assert (veils[0] > 0).sum() == 12 and not veils[1].any()


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
    axes = plot_ratio_sweep(runs).axes[0]
    for bars, lr in zip(axes.containers, (1e-3, 1e-2), strict=True):
        x, y = bars.lines[0].get_data()
        assert list(x) == pytest.approx([lr, 4 * lr])
        own = runs[runs["lr"] == lr].groupby("ratio")["accuracy"].mean()
        assert list(y) == pytest.approx((100 * own).tolist())
    ranks = runs.assign(rank=runs["ratio"].astype(int), parameters=1000 * runs["ratio"])
    ranks = ranks[ranks["lr"] == 1e-3]
    for axes in plot_rank_sweep(ranks).axes:
        heights = axes.containers[0].lines[0].get_data()[1]
        means = 100 * ranks.groupby("rank")["accuracy"].mean()
        assert list(heights) == pytest.approx(means.tolist())
