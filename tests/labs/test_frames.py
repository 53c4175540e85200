"""Records as tables: means as numpy has them, and how they were made."""

import statistics
from dataclasses import replace

import numpy as np
import pandas as pd

from serial_lora_course.labs.frames import describe_records, frame, methods_table
from tests.labs.test_records import RECORD


def some_records(methods=("lora", "serial_lora"), datasets=("food", "people"), seeds=(1, 2, 3)):
    """Runs of a Dice lab at two amounts; every number is drawn, so none equals another."""
    chance = np.random.default_rng(1)
    return [
        replace(
            RECORD,
            task="sam",
            unit="percent",
            dataset=dataset,
            method=method,
            amount=shots,
            seed=seed,
            measures={"dice": float(chance.random())},
            sizes={"parameters": 4096 if method == "lora" else 1024},
            settings={"lr": 1e-3, "data": dataset},
            environment={"device": "CPU, 2 threads"},
        )
        for dataset in datasets
        for shots in (20, 100)
        for seed in seeds
        for method in methods
    ]


def dice_of(records, **wanted):
    """The Dice of the one record with these fields."""
    (found,) = [r for r in records if all(getattr(r, k) == v for k, v in wanted.items())]
    return found.measures["dice"]


def test_the_table_of_methods_averages_sets_and_spreads_over_seeds():
    records = some_records()
    table = methods_table(frame(records), "dice", lambda mean, spread: f"{mean:.6f} {spread:.6f}")
    assert list(table.index) == ["LoRA", "Serial LoRA"]
    assert list(table["parameters"]) == ["4,096", "1,024"]
    for label, method in (("LoRA", "lora"), ("Serial LoRA", "serial_lora")):
        for shots in (20, 100):
            by_seed = [
                statistics.mean(
                    dice_of(records, dataset=dataset, amount=shots, seed=seed, method=method)
                    for dataset in ("food", "people")
                )
                for seed in (1, 2, 3)
            ]
            expected = f"{statistics.mean(by_seed):.6f} {statistics.stdev(by_seed):.6f}"
            assert table.loc[label, shots] == expected


def test_the_table_of_methods_averages_what_all_of_them_ran():
    records = some_records()
    extra = replace(records[0], dataset="lines", measures={"dice": 99.0})
    both = [methods_table(frame(r), "dice", "{:.6f}".format) for r in (records, [*records, extra])]
    pd.testing.assert_frame_equal(*both)


def test_only_what_all_records_share_is_told_as_their_settings():
    """What was swept is in the command; a rate that no run used is no setting of theirs."""
    plus = replace(
        RECORD, command="", method="lora_plus", settings={"lr": 3e-3, "plus_lr": 1e-3, "rank": 4}
    )
    swept = [plus, replace(plus, settings=plus.settings | {"plus_lr": 1e-2, "ratio": 5.0})]
    assert describe_records(swept).splitlines()[1:4] == [
        "command: not noted",
        "settings:",
        '{"rank": 4}',
    ]
    one_rate = replace(plus, settings={"lr": 3e-3, "plus_lr": None})
    assert '"lr": 0.003' in describe_records([one_rate])
