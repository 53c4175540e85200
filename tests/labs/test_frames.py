"""Records as tables: means as numpy has them, and how they were made."""

import statistics
from dataclasses import replace

import numpy as np

from serial_lora_course.labs.frames import frame, methods_table
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
