"""Records: appended whole or not at all, read back as they were, averaged as numpy averages."""

import json
import os
import statistics
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.frames import (
    as_text,
    describe_records,
    frame,
    methods_table,
    paired_difference,
    summary,
)
from serial_lora_course.labs.records import (
    Record,
    append_record,
    environment,
    read_records,
    shipped_records,
)

RECORD = Record(
    task="clip",
    scale="tiny",
    dataset="nature",
    method="serial_lora",
    amount=4,
    unit="shots",
    seed=1,
    rank=16,
    measures={"accuracy": 0.5, "zero_shot_dataset": 1 / 3},
    sizes={"parameters": 61440, "bytes": 245760},
    seconds=1.25,
    settings={"lr": 1e-3, "towers": None, "model_name": "tiny-clip"},
    environment={"torch": "2"},
)


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "new" / "folder" / "records.jsonl"
    records = [replace(RECORD, seed=seed, measures={"accuracy": seed / 7}) for seed in (1, 2, 3)]
    for record in records:
        append_record(path, record)
    assert read_records(path) == records
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        asdict(record) for record in records
    ]


def test_no_file_holds_no_records(tmp_path):
    assert read_records(tmp_path / "none.jsonl") == []


def test_half_a_line_is_named_and_kept(tmp_path):
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    content = path.read_bytes()
    path.write_bytes(content + content[:-20])
    with pytest.raises(SerialLoRAError, match="Line 2"):
        append_record(path, replace(RECORD, seed=3))
    assert path.read_bytes() == content + content[:-20]


def test_records_of_before_are_read_and_kept(tmp_path):
    """They called every amount ``shots`` and had no command."""
    path = tmp_path / "records.jsonl"
    sam = replace(RECORD, task="sam", unit="percent")
    for record in (RECORD, sam):
        append_record(path, record)
    old = [json.loads(line) for line in path.read_text().splitlines()]
    for content in old:
        content["shots"] = content.pop("amount")
        del content["unit"], content["command"]
    path.write_text("\n".join(map(json.dumps, old)))
    assert read_records(path) == [RECORD, sam]
    append_record(path, replace(RECORD, seconds=9.0))  # is in already
    append_record(path, replace(sam, seed=9))
    assert read_records(path) == [RECORD, sam, replace(sam, seed=9)]


@pytest.mark.parametrize(
    "middle", [b"not json", b"", b"5", b"[]", b'{"task": "clip"}', b"\xff\xfe\x00"]
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, middle):
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    content = path.read_bytes() + middle + b"\n" + path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(SerialLoRAError, match="Line 2 of .*records.jsonl"):
        read_records(path)
    assert path.read_bytes() == content


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(SerialLoRAError, match="cannot be read"):
        read_records(tmp_path)
    with pytest.raises(SerialLoRAError, match="cannot be written"):
        append_record(tmp_path, RECORD)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    content = path.read_bytes()

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SerialLoRAError, match="No space left.*--out"):
        append_record(path, replace(RECORD, seed=2))
    assert path.read_bytes() == content


def test_a_disk_that_takes_half_a_line_leaves_the_file_as_it_was(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    content = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 30, hard))
    try:
        with pytest.raises(SerialLoRAError, match="cannot be written"):
            append_record(path, replace(RECORD, seed=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == content


def test_a_key_changes_with_everything_a_run_depends_on():
    others = [
        replace(RECORD, **change)
        for change in (
            {"task": "sam"},
            {"scale": "paper"},
            {"dataset": "food"},
            {"method": "lora"},
            {"amount": 1},
            {"seed": 2},
            {"rank": 8},
            {"settings": {**RECORD.settings, "lr": 2e-3}},
            {"settings": {**RECORD.settings, "towers": ["image"]}},
            {"settings": {**RECORD.settings, "more": 1}},
        )
    ]
    assert len({record.key for record in [RECORD, *others]}) == len(others) + 1


def test_a_key_does_not_change_with_what_a_run_found(tmp_path):
    found = replace(RECORD, measures={}, sizes={}, seconds=9.0, environment={})
    assert found.key == RECORD.key
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    assert read_records(path)[0].key == RECORD.key


def test_a_frame_has_a_row_for_each_record():
    rows = frame([RECORD, replace(RECORD, seed=2)])
    assert list(rows["seed"]) == [1, 2]
    assert rows.loc[0, "accuracy"] == 0.5 and rows.loc[0, "parameters"] == 61440


def test_the_summary_is_numpys_mean_and_spread():
    numbers = np.random.default_rng(0).random((2, 5))
    records = [
        replace(RECORD, method=method, seed=seed, measures={"accuracy": float(numbers[k, seed])})
        for k, method in enumerate(("lora", "serial_lora"))
        for seed in range(5)
    ]
    table = summary(records, "accuracy").set_index("method")
    for k, method in enumerate(("lora", "serial_lora")):
        assert table.loc[method, "mean"] == pytest.approx(numbers[k].mean())
        assert table.loc[method, "std"] == pytest.approx(numbers[k].std(ddof=1))
        assert table.loc[method, "count"] == 5


def test_the_environment_names_versions_date_and_device():
    import torch

    facts = environment()
    assert facts["torch"] == torch.__version__ and facts["device"]
    assert len(facts["date"].split("-")) == 3


def test_unknown_tasks_ship_no_records():
    assert shipped_records("no-such-task") == []


# ------------------------------------------------------------------------- methods beside methods


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


def test_a_paired_difference_is_what_statistics_says_of_the_pairs():
    records = some_records()
    table = paired_difference(frame(records), "serial_lora", "lora", "dice").set_index("amount")
    assert list(table["methods"].unique()) == ["Serial LoRA against LoRA"]
    for shots in (20, 100):
        differences = [
            dice_of(records, dataset=dataset, amount=shots, seed=seed, method="serial_lora")
            - dice_of(records, dataset=dataset, amount=shots, seed=seed, method="lora")
            for dataset in ("food", "people")
            for seed in (1, 2, 3)
        ]
        assert table.loc[shots, "mean"] == pytest.approx(statistics.mean(differences))
        error = statistics.stdev(differences) / len(differences) ** 0.5
        assert table.loc[shots, "sem"] == pytest.approx(error)
        assert table.loc[shots, "count"] == 6


def test_a_run_without_a_partner_is_left_out():
    records = some_records()
    alone = [r for r in records if (r.method, r.amount, r.seed) != ("lora", 20, 1)]
    table = paired_difference(frame(alone), "serial_lora", "lora", "dice")
    assert list(table["count"]) == [4, 6]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((0.10, 0.11, 0.12), "ahead"),
        ((-0.10, -0.11, -0.12), "behind"),
        ((0.10, -0.11, 0.12), "not told apart"),
        ((0.0, 0.0, 0.0), "not told apart"),
        ((0.25,), "not told apart"),  # one pair has no error to compare with
    ],
)
def test_a_verdict_needs_more_than_two_standard_errors(differences, verdict):
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


def test_records_say_how_they_were_made():
    command = "serial-lora lab sam --dataset all --percent 20,100"
    said = describe_records([replace(r, command=command) for r in some_records()]).splitlines()
    assert said[0].startswith("24 runs: 2 data sets, 2 methods, percent [20, 100], 3 seeds, ")
    assert said[1:] == [
        f"command: {command}",
        "settings:",
        '{"lr": 0.001}',
        "machine: CPU, 2 threads",
    ]


def test_no_records_are_not_described():
    with pytest.raises(SerialLoRAError, match="no records"):
        describe_records([])


def test_columns_are_written_out_each_in_its_own_format():
    table = pd.DataFrame({"share": [0.125, 1.0], "count": [1000, 2], "name": ["a", "b"]})
    written = as_text(table, {"share": "{:.1%}", "count": "{:,}"})
    assert written.to_dict("list") == {
        "share": ["12.5%", "100.0%"],
        "count": ["1,000", "2"],
        "name": ["a", "b"],
    }
    assert table["share"].dtype == float
