"""The figures show the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest

from serial_lora_course.lessons.l08_how_sure.figures import Interval, plot_intervals, plot_pairs


def intervals() -> list[Interval]:
    return [
        Interval("CLIP", "equal rank", 0.5, 0.25, 1.0, "points"),
        Interval("SAM", "equal rank", -1.0, 0.5, 2.0, "hundredths"),
        Interval("SAM", "equal budget", 0.2, 0.1, 2.0, "hundredths"),
    ]


def test_intervals_are_drawn_in_margins():
    figure = plot_intervals(intervals())
    (axes,) = figure.axes
    drawn = [(bar[0].get_xdata()[0], bar[2][0].get_segments()[0]) for bar in axes.containers]
    for each, (middle, segment) in zip(intervals(), drawn, strict=True):
        assert middle == pytest.approx(each.mean / each.margin)
        ends = [(each.mean + sign * each.half) / each.margin for sign in (-1, 1)]
        np.testing.assert_allclose(segment[:, 0], ends)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["CLIP", "SAM", "SAM"]
    for looks in (
        [bar[0].get_color() for bar in axes.containers],
        [bar[0].get_marker() for bar in axes.containers],
    ):
        assert looks[0] == looks[1] != looks[2]
    assert "+0.20 ± 0.10 hundredths, margin 2" in figure.alt_text


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
    assert "above LoRA in 3" in figure.alt_text and "-1.75 to +4.25" in figure.alt_text
