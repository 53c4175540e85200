"""The figures show the numbers that they are given."""

import numpy as np
import pandas as pd

from serial_lora_course.lessons.l08_how_sure.figures import plot_margins, plot_pairs


def test_intervals_are_drawn_in_margins():
    table = pd.DataFrame(
        {"mean": [0.5, -1.0], "half": [0.25, 0.5], "margin": [1.0, 2.0], "unit": "points"},
        index=["CLIP", "SAM"],
    )
    (axes,) = plot_margins({"equal rank": table, "equal budget": table}).axes
    assert len(axes.containers) == 2
    for bars in axes.containers:
        assert list(bars[0].get_xdata()) == [0.5, -0.5]
        segments = np.array(bars[2][0].get_segments())[:, :, 0]
        np.testing.assert_allclose(segments.astype(float), [[0.25, 0.75], [-0.75, -0.25]])


def test_pairs_join_what_shares_a_seed():
    index = pd.MultiIndex.from_product([["food", "symbols"], [1, 2]], names=["dataset", "seed"])
    table = pd.DataFrame({"lora": [1.0, 2, 3, 4], "serial_lora": [2.0, 1, 5, 7]}, index=index)
    figure = plot_pairs(table, "points", half=3.0)
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == table.to_numpy().tolist()
    assert left.lines[0].get_color() == left.lines[1].get_color() != left.lines[2].get_color()
    (bar,) = right.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [1.25 - 3, 1.25 + 3])
    means = [lines.get_segments()[0][0, 1] for lines in right.collections[:2]]
    assert means == [0, 2.5]  # of each data set
