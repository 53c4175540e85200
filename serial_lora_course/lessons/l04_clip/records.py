"""The shipped records of CLIP as a table of accuracies, with the settings of each method."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from serial_lora_course.labs.frames import frame, separate_sets
from serial_lora_course.labs.records import shipped_records

RUN = ["shots", "dataset", "seed"]
METHODS = {"serial_lora": "Serial LoRA", "lora": "LoRA"}


def read_runs(more: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies in percent, a row for each (shots, dataset, seed); and what each method was trained with.

    Args:
        more: further methods, and what to call them.
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
