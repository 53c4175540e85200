"""Charts of results draw the means over seeds, per data set and over all of them."""

import numpy as np
import pandas as pd
import pytest

from serial_lora_course.plots.results import (
    plot_accuracy_by_shots,
    plot_dice_by_percent,
    plot_fid_by_percent,
)

# How each is drawn, its columns with the measure and the grey lines, and its factor on the axis.
CHARTS = {
    "accuracy": (plot_accuracy_by_shots, ("accuracy", "zero_shot_dataset"), 100),
    "dice": (plot_dice_by_percent, ("dice", "base_dice", "box_dice"), 1),
    "fid": (plot_fid_by_percent, ("fid", "base_fid", "real_fid"), 1),
}
GREY = {"zero-shot": 0.75, "not adapted": 0.75, "box filled in": 0.625, "real pictures": 0.625}


def results(measure="accuracy", datasets=("animals", "food"), methods=("lora", "serial_lora")):
    """Made-up runs: the measure rises with shots, and by a little with the method and the seed."""
    frame = pd.DataFrame(
        [
            (dataset, method, shots, seed, (20 + 2 * shots + m + seed / 2) / 100)
            for dataset in datasets
            for m, method in enumerate(methods)
            for shots in (1, 4, 16)
            for seed in range(3)
        ],
        columns=["dataset", "method", "amount", "seed", measure],
    )
    grey = dict(zip(CHARTS[measure][1][1:], (0.75, 0.625), strict=False))
    return frame.assign(**grey)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


@pytest.mark.parametrize("measure", CHARTS)
def test_lines_are_the_means_over_seeds(measure):
    draw, _, unit = CHARTS[measure]
    frame = results(measure)
    figure = draw(frame)
    average = ["average over data sets"] * (measure != "fid")
    assert titles(figure) == ["animals", "food", *average]
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[1].lines}
    for method, title in (("lora", "LoRA"), ("serial_lora", "Serial LoRA")):
        part = frame[(frame["dataset"] == "food") & (frame["method"] == method)]
        expected = [unit * part[part["amount"] == s][measure].mean() for s in (1, 4, 16)]
        np.testing.assert_allclose(lines.pop(title), expected)
    for label, heights in lines.items():
        assert heights[0] == unit * GREY[label]
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == (["1", "4", "16"] if measure == "accuracy" else ["1%", "4%", "16%"])
    assert ("higher" if measure == "dice" else "lower" if measure == "fid" else "%") in (
        figure.get_supylabel()
    )
    said = figure.alt_text.partition("food, ")[2]
    assert ("Serial LoRA 53.5%" if unit == 100 else "Serial LoRA 0.535") in said


def test_every_style_has_an_axis_of_its_own_with_numbers_to_read():
    frame = results("fid")
    frame.loc[frame["dataset"] == "food", list(CHARTS["fid"][1])] *= 100
    figure = plot_fid_by_percent(frame)
    animals, meals = figure.axes
    assert animals.get_yscale() == meals.get_yscale() == "log"
    assert animals.get_ylim()[1] < 1 < meals.get_ylim()[0]
    figure.draw_without_rendering()
    for axes in figure.axes:  # at least two numbers to read it by, without powers of ten
        low, high = axes.get_ylim()
        ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        shown = [(value, label.get_text()) for value, label in ticks if low <= value <= high]
        assert len(shown) >= 2 and all(float(text) == pytest.approx(v) for v, text in shown)
