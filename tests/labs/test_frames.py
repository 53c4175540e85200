"""Records as tables: pairs as statistics has them, means as numpy has them, how they were made."""

import statistics
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.frames import (
    describe_records,
    frame,
    methods_table,
    paired_difference,
)
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


def test_a_paired_difference_is_what_statistics_says_of_the_sets():
    records = some_records()
    table = paired_difference(frame(records), "serial_lora", "lora", "dice").set_index("amount")
    assert list(table["methods"].unique()) == ["Serial LoRA against LoRA"]
    for shots in (20, 100):
        differences = [
            statistics.mean(
                dice_of(records, dataset=dataset, amount=shots, seed=seed, method="serial_lora")
                - dice_of(records, dataset=dataset, amount=shots, seed=seed, method="lora")
                for seed in (1, 2, 3)
            )
            for dataset in ("food", "people")
        ]
        assert table.loc[shots, "mean"] == pytest.approx(statistics.mean(differences))
        error = statistics.stdev(differences) / len(differences) ** 0.5
        assert table.loc[shots, "sem"] == pytest.approx(error)
        assert table.loc[shots, "sample"] == "2 sets"


def test_a_run_without_a_partner_is_left_out():
    records = some_records()
    alone = [r for r in records if (r.method, r.amount, r.seed) != ("lora", 20, 1)]
    alone = [record for record in alone if record.dataset == "food"]
    table = paired_difference(frame(alone), "serial_lora", "lora", "dice")
    assert list(table["sample"]) == ["2 seeds", "3 seeds"]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((0.10, 0.11, 0.12), "ahead"),
        ((-0.10, -0.11, -0.12), "behind"),
        ((0.10, -0.11, 0.12), "not significant"),
        (
            (0.10, 0.02, 0.09),
            "not significant",
        ),  # 2.8 standard errors, and Student's t asks for 4.3
        ((0.0, 0.0, 0.0), "not significant"),
        ((0.25,), "not significant"),  # one pair has no error to compare with
    ],
)
def test_a_verdict_is_of_the_interval_by_students_t(differences, verdict):
    records = [
        replace(RECORD, method=method, seed=seed, measures={"dice": 0.5 + gain * is_serial})
        for seed, gain in enumerate(differences)
        for is_serial, method in enumerate(("lora", "serial_lora"))
    ]
    table = paired_difference(frame(records), "serial_lora", "lora", "dice")
    assert list(table["verdict"]) == [verdict]


@pytest.mark.parametrize("other", ["lora", "lora_plus"])  # one never ran on the same, one never ran
def test_methods_without_a_common_run_are_refused(other):
    apart = {"serial_lora": 20, "lora": 100}
    records = [record for record in some_records() if record.amount == apart[record.method]]
    with pytest.raises(SerialLoRAError, match="no run with the same data set, amount and seed"):
        paired_difference(frame(records), "serial_lora", other, "dice")


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
