"""Recorded runs on CLIP: the lab's, and those that the lesson's own cells make, one data set after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from serial_lora_course.labs.frames import frame, separate_sets
from serial_lora_course.labs.records import shipped_records

RUN = ["shots", "dataset", "seed"]
METHODS = {"serial_lora": "Serial LoRA"}
HERE = Path(__file__).parent

TWO_ANSWERS = {
    "A": [*map(int, "7777777777000000005555441115333300231366666166164221411111122222222222222")],
    "B": [*map(int, "7777577777000300005155441144733733253366666151104221411111122222222222222")],
}
"""The class that two methods of an earlier run of the lesson gave each test drawing of `symbols`."""


def read_runs(more: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies in percent, a row for each (shots, dataset, seed); and what each method was trained with.

    Args:
        more: methods besides Serial LoRA, and what to call them.
    """
    titles, records = METHODS | dict(more), shipped_records("clip")
    runs = frame(records).rename(columns={"amount": "shots"})
    runs["batch"] = [min(r.settings["batch_size"], r.sizes["training_pictures"]) for r in records]
    runs = separate_sets(runs[runs["method"].isin(titles)]).replace({"method": titles})
    accuracy = 100 * runs.pivot(index=RUN, columns="method", values="accuracy")
    accuracy["zero-shot"] = 100 * runs.groupby(RUN)["zero_shot_dataset"].first()
    found = runs.groupby("method")
    columns = {name: found[name].max() for name in ("parameters", "rank", "lr")}
    for name in ("batch", "steps"):
        ends = found[name].agg(["min", "max"])
        columns[name] = [f"{low} to {high}" for low, high in ends.itertuples(index=False)]
    return accuracy, pd.DataFrame(columns).rename(columns={"lr": "rate"})


def read_full() -> pd.Series:
    """Full fine-tuning by the lesson's `adapt`, in percent: (shots, dataset, seed)."""
    runs = pd.read_csv(HERE / "full.csv").set_index(RUN)
    return 100 * runs["right"] / runs["pictures"]


def read_unseen() -> pd.DataFrame:
    """The lesson's last cell on each data set: points gained on kinds that were trained, and on the others."""
    runs = pd.read_csv(HERE / "unseen.csv")
    for kinds in ("trained", "unseen"):
        runs[kinds] *= 100 / runs.pop(f"{kinds}_pictures")
    return runs
