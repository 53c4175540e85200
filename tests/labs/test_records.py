"""Records: appended whole or not at all, read back as they were, averaged as numpy averages."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora.results import (
    Record,
    append_record,
    environment,
    frame,
    read_records,
    shipped_records,
    summary,
)

RECORD = Record(
    task="clip",
    scale="tiny",
    dataset="nature",
    method="serial_lora",
    shots=4,
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


def test_half_a_line_is_dropped_and_the_next_append_repairs(tmp_path):
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    append_record(path, replace(RECORD, seed=2))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert read_records(path) == [RECORD]
    append_record(path, replace(RECORD, seed=3))
    assert [record.seed for record in read_records(path)] == [1, 3]


def test_half_a_first_line_is_dropped_too(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"task": "cl')
    assert read_records(path) == []
    append_record(path, RECORD)
    assert read_records(path) == [RECORD]


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
            {"shots": 1},
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
