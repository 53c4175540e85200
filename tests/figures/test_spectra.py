"""Figures of spectra: what is drawn is what the tables hold, and every figure is in words."""

import numpy as np
import pandas as pd
import pytest

from serial_lora_course.lessons.l10_inside.figures import (
    SMALLEST,
    plot_depth,
    plot_positions,
    plot_spectra,
)
from serial_lora_course.measures.spectra import ADAPTED, CHANGE, WEIGHT

BLOCKS, RANK, WIDTH = 5, 3, 8
BASE = np.linspace(4, 0.5, WIDTH)
CHANGES = {"lora": [2.0, 0.5, 1e-9], "serial_lora": [1.0, 0.8, 0.6]}


def frame(name: str, towers=("image", "text"), depth=BLOCKS) -> pd.DataFrame:
    """A spectra frame whose W + dW is above W's by a tenth (LoRA) or a twentieth (Serial LoRA)."""
    factor = 1.1 if name == "lora" else 1.05
    rows = [
        (tower, block, part, matrix, i, value)
        for tower in towers
        for block in range(depth)
        for part in "qkv"
        for matrix, values in (
            (WEIGHT, (1 + block) * BASE),
            (ADAPTED, factor * (1 + block) * BASE),
            (CHANGE, CHANGES[name]),
        )
        for i, value in enumerate(values, start=1)
    ]
    names = ["tower", "block", "projection", "matrix", "index", "value"]
    return pd.DataFrame(rows, columns=names)


FRAMES = {name: frame(name) for name in CHANGES}


def curves(axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.get_lines()}


def test_every_spectrum_is_drawn_as_it_is():
    figure = plot_spectra(FRAMES)
    assert [axes.get_title("left") for axes in figure.axes] == [
        f"block {block}, {part}" for block in (0, 2, 4) for part in "qkv"
    ]
    for axes, block in zip(figure.axes, np.repeat([0, 2, 4], 3), strict=True):
        drawn = curves(axes)
        assert axes.get_yscale() == "log"
        assert np.allclose(drawn["W"][1], (1 + block) * BASE)
        assert np.allclose(drawn["W + dW, LoRA"][1], 1.1 * (1 + block) * BASE)
        assert np.allclose(drawn["W + dW, Serial LoRA"][1], 1.05 * (1 + block) * BASE)
        assert drawn["dW, Serial LoRA"][1].tolist() == CHANGES["serial_lora"]
        kept = [value for value in CHANGES["lora"] if value > SMALLEST * BASE[0]]
        assert drawn["dW, LoRA"][1].tolist() == kept == [2.0, 0.5]
        assert drawn["W"][0].tolist() == list(range(1, WIDTH + 1))
    assert "4 to 20" in figure.alt_text  # W's largest in the blocks shown


def depth_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": method,
            "seed": seed,
            "block": block,
            "projection": part,
            "effective_rank": 2 + block + (method == "lora") + seed / 10,
        }
        for method in CHANGES
        for seed in (1, 2, 3)
        for block in range(4)
        for part in "qk"
    )


def test_depth_shows_mean_and_range_over_seeds():
    figure = plot_depth(depth_table(), "effective_rank", "effective rank", reference=(6, "random"))
    assert [axes.get_title("left") for axes in figure.axes] == ["q", "k"]
    for axes in figure.axes:
        drawn = curves(axes)
        assert np.allclose(drawn["Serial LoRA"][1], [2.2, 3.2, 4.2, 5.2])
        assert np.allclose(drawn["LoRA"][1], [3.2, 4.2, 5.2, 6.2])
        assert list(drawn["random"][1]) == [6, 6]
        bands = [path.vertices[:, 1] for band in axes.collections for path in band.get_paths()]
        assert any(b.min() == pytest.approx(2.1) and b.max() == pytest.approx(5.3) for b in bands)
        assert axes.get_ylim()[0] == 0
    assert "2.20 to 5.20" in figure.alt_text and "6.00" in figure.alt_text


def test_positions_show_every_dot_and_the_mean():
    rows = [("clip", "serial_lora", share) for share in (0.2, 0.4, 0.9)]
    rows += [("sam", "serial_lora_plus", share) for share in (0.1, 0.3)]
    table = pd.DataFrame(rows, columns=["lab", "method", "between"])
    figure = plot_positions(table, "between", "share\nbetween", chance=0.25, needed=0.9)
    (axes,) = figure.axes
    dots = [points.get_offsets() for points in axes.collections]
    assert [np.sort(d[:, 1]).tolist() for d in dots] == [[0.2, 0.4, 0.9], [0.1, 0.3]]
    assert [np.rint(d[:, 0]).max() for d in dots] == [0, 1]
    bars = [line.get_ydata() for line in axes.get_lines()[2:]]
    assert np.allclose(bars, [[0.5, 0.5], [0.2, 0.2]])
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["CLIP\nSerial LoRA", "SAM\nSerial LoRA+"]
    assert "mean 50%, from 20% to 90%" in figure.alt_text and "25%" in figure.alt_text
    without = plot_positions(table, "between", "share", chance=None, needed=0.9)
    assert len(without.axes[0].get_lines()) == 3
