"""What is drawn are the numbers that were handed in."""

import numpy as np
import pandas as pd

from serial_lora_course.lessons.l10_inside.figures import (
    plot_depth,
    plot_positions,
    plot_shifts,
    plot_spectra,
)
from serial_lora_course.measures.spectra import ADAPTED, CHANGE, WEIGHT

BASE = np.array([8.0, 4.0, 2.0, 1.0])
FACTORS = {"lora": 1.1, "serial_lora": 1.05}


def frame(factor):
    values = {WEIGHT: BASE, ADAPTED: factor * BASE, CHANGE: [2.0, 1e-7]}
    return pd.DataFrame(
        {"tower": "image", "block": 1, "projection": part}
        | {"matrix": matrix, "index": range(1, len(some) + 1), "value": some}
        for part in "qkv"
        for matrix, some in values.items()
    ).explode(["index", "value"])


FRAMES = {name: frame(factor) for name, factor in FACTORS.items()}


def curves(axes):
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in axes.get_lines()}


def test_every_spectrum_is_drawn_as_it_is():
    figure = plot_spectra(FRAMES, block=1)
    for axes in figure.axes:
        drawn = curves(axes)
        assert np.allclose(drawn["W"], BASE)
        assert np.allclose(drawn["W + dW, LoRA"], 1.1 * BASE)
        assert np.allclose(drawn["dW, Serial LoRA"], [2.0])  # the second is rounding
    for axes in plot_shifts(FRAMES, block=1).axes:
        drawn = curves(axes)
        assert np.allclose(drawn["LoRA"], 10) and np.allclose(drawn["Serial LoRA"], 5)


def test_depth_shows_mean_and_range():
    table = pd.DataFrame(
        {"line": "one", "block": block, "part": part, "rank": 2 + block + seed / 10}
        for seed in (1, 2, 3)
        for block in range(4)
        for part in "qk"
    )
    figure = plot_depth(table, "rank", "effective rank", "part", (6, "random"))
    for axes in figure.axes:
        drawn = curves(axes)
        assert np.allclose(drawn["one"], [2.2, 3.2, 4.2, 5.2]) and list(drawn["random"]) == [6, 6]
        (band,) = [path.vertices[:, 1] for c in axes.collections for path in c.get_paths()]
        assert np.allclose([band.min(), band.max()], [2.1, 5.3])


def test_positions_show_every_dot_and_the_mean():
    rows = [("clip", "serial_lora", share) for share in (0.2, 0.4, 0.9)]
    rows += [("sam", "serial_lora_plus", share) for share in (0.1, 0.3)]
    table = pd.DataFrame(rows, columns=["lab", "method", "between"])
    (axes,) = plot_positions(table, "between", "share", chance=0.25, needed=0.9).axes
    dots = [np.sort(points.get_offsets()[:, 1]).tolist() for points in axes.collections]
    assert dots == [[0.2, 0.4, 0.9], [0.1, 0.3]]
    assert np.allclose([line.get_ydata() for line in axes.get_lines()[2:]], [[0.5] * 2, [0.2] * 2])
