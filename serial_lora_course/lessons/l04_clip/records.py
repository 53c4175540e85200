"""Recorded runs of the lesson's own cells, one data set after another.

To make a row of ``runs.csv`` again, put another data set into ``data`` (`load_classification`), set ``SEED`` and, for
four shots, ``SHOTS``, and run the cells from there on. For ``rates.csv``, train on ``picked[SHOTS]`` of seed 1
without its ``[3::4]``, and score on these.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent

TWO_ANSWERS = {
    "Ada": [*map(int, "7777777777000000005555441115333300231366666166164221411111122222222222222")],
    "Ben": [*map(int, "7777577777000300005155441144733733253366666151104221411111122222222222222")],
}
"""The class that two methods of an earlier run of the lesson gave each test drawing of `symbols`."""


def read_runs() -> pd.DataFrame:
    """Accuracies in percent: a row for each (shots, dataset, seed), a column for each method."""
    runs = pd.read_csv(HERE / "runs.csv")
    runs["share"] = 100 * runs["right"] / runs["pictures"]
    return runs.pivot(index=["shots", "dataset", "seed"], columns="method", values="share")


def read_rates() -> pd.DataFrame:
    """Held-out training pictures that each method has right at each rate, of all data sets together."""
    runs = pd.read_csv(HERE / "rates.csv")
    right = runs.groupby(["method", "rate"], sort=False)["right"].sum()
    count = runs.groupby(["method", "rate"])["pictures"].sum().iloc[0]
    rows = {
        method: ", ".join(f"{rate:g}: {right[method, rate]}" for rate in right[method].index)
        for method in right.index.unique("method")
    }
    return pd.DataFrame({f"rate: right of {count} held-out pictures": rows})


def read_unseen() -> pd.Series:
    """What training on half of the kinds changes on the other half, in points: (method, dataset, picture).

    In the file, each test picture has a + where only the trained CLIP is right, a - where only zero-shot is.
    """
    runs = pd.read_csv(HERE / "unseen.csv", dtype=str)
    found = {
        (run.method, run.dataset, run.seed, i): 100 * ("-.+".index(sign) - 1)
        for run in runs.itertuples()
        for i, sign in enumerate(run.change)
    }
    each = pd.Series(found).rename_axis(["method", "dataset", "seed", "picture"])
    return each.groupby(["method", "dataset", "picture"], sort=False).mean()
