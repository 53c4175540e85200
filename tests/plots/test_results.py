"""Charts of results draw the means over seeds; only what ran on every set is averaged."""

import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora_course.plots.results import (
    average_over_datasets,
    plot_accuracy_by_shots,
    plot_dice_by_percent,
    plot_fid_by_percent,
)

# How each is drawn, its columns with the measure and the grey lines, and its factor on the axis.
CHARTS = {
    "accuracy": (plot_accuracy_by_shots, ["zero_shot_dataset"], 100),
    "dice": (plot_dice_by_percent, ["base_dice", "box_dice"], 1),
    "fid": (plot_fid_by_percent, ["base_fid", "real_fid"], 1),
}


def results(measure: str) -> pd.DataFrame:
    """Made-up runs: the measure rises with shots, and by a little with the method and the seed."""
    rows = [
        (dataset, method, shots, seed, (20 + 2 * shots + m + seed / 2) / 100)
        for dataset in ("animals", "food")
        for m, method in enumerate(("lora", "serial_lora"))
        for shots in (1, 4, 16)
        for seed in range(3)
    ]
    frame = pd.DataFrame(rows, columns=["dataset", "method", "amount", "seed", measure])
    return frame.assign(**dict(zip(CHARTS[measure][1], (0.75, 0.625), strict=False)))


@given(st.lists(st.booleans(), min_size=12, max_size=12).filter(any))
@settings(deadline=None, max_examples=30)
def test_only_what_ran_on_every_data_set_is_averaged(kept):
    cells = [(d, r, s) for d in ("food", "nature") for r in (1, 4) for s in (1, 2, 3)]
    runs = pd.DataFrame(cells, columns=["dataset", "ratio", "seed"])
    runs["accuracy"] = np.random.default_rng(3).uniform(size=12)
    runs = runs[kept]
    expected = {}
    for row in runs.to_dict("records"):
        expected.setdefault((row["ratio"], row["seed"]), []).append(row["accuracy"])
    wanted = runs["dataset"].nunique()
    expected = {k: statistics.mean(v) for k, v in expected.items() if len(v) == wanted}
    table = average_over_datasets(runs, ["ratio", "seed"], ["accuracy"])
    found = table.set_index(["ratio", "seed"])["accuracy"].to_dict()
    assert found == pytest.approx(expected)
