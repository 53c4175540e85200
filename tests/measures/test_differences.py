"""Differences between methods: pairs as the standard library's statistics has them."""

import statistics
from dataclasses import replace

import pytest

from serial_lora_course.labs.frames import frame
from serial_lora_course.measures.differences import compare
from tests.labs.test_frames import dice_of, some_records
from tests.labs.test_records import RECORD


def test_a_paired_difference_is_what_statistics_says_of_the_sets():
    records = some_records()
    table = compare(frame(records), "serial_lora", "lora", "dice").set_index("amount")
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
    table = compare(frame(alone), "serial_lora", "lora", "dice")
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
    table = compare(frame(records), "serial_lora", "lora", "dice")
    assert list(table["verdict"]) == [verdict]
