"""Records: appended whole or not at all, by one run or several, and read back as they were."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest

from serial_lora_course.labs.records import Record, append_record, read_records, shipped_records

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
    command="serial-lora lab clip --dataset nature",
)


@pytest.fixture
def path(tmp_path):
    """A file with one record."""
    append_record(tmp_path / "new" / "records.jsonl", RECORD)
    return tmp_path / "new" / "records.jsonl"


def test_what_is_appended_is_read_back_once(path):
    records = [RECORD, *(replace(RECORD, seed=n, measures={"accuracy": n / 7}) for n in (2, 3))]
    for record in records:
        append_record(path, record)
    append_record(path, replace(RECORD, seconds=2.0, measures={}))  # the same run again
    assert read_records(path) == records
    assert [json.loads(line) for line in path.read_text().splitlines()] == list(
        map(asdict, records)
    )
    path.write_text(path.read_text().rstrip("\n"))  # an editor took the last newline
    append_record(path, replace(RECORD, seed=4))
    assert read_records(path) == [*records, replace(RECORD, seed=4)]
    assert read_records(path.with_name("none.jsonl")) == [] == shipped_records("no-such-lab")


def test_runs_that_share_a_file_lose_no_record(path):
    def run(number):
        for seed in range(10):
            append_record(path, replace(RECORD, amount=number, seed=seed))

    path.unlink()
    with ThreadPoolExecutor(4) as pool:  # each append locks the file for itself
        list(pool.map(run, range(4)))
    found = sorted((record.amount, record.seed) for record in read_records(path))
    assert found == [(number, seed) for number in range(4) for seed in range(10)]
