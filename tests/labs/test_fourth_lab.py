"""A lab of one's own is one file and one line: command line, records, sweeps and tables come along."""

import pytest

from serial_lora_course.labs import lab as labs
from serial_lora_course.labs.frames import describe_records
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.registry import LABS
from tests.labs.lab_models import calls


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(LABS, "halves", ("tests.labs.fourth_lab", "Bright halves of pictures."))
    monkeypatch.setenv("COLUMNS", "200")


def test_a_sweep_leaves_records_and_a_table_and_is_found_again(run, tmp_path, monkeypatch):
    out = tmp_path / "halves.jsonl"
    command = "lab halves --methods lora,serial_lora_plus --percent 50,100 --seeds 1 --rank 2,4"
    words = [*command.split(), "--ratio", "5", "--min-steps", "3", "--out", str(out)]
    code, printed, _ = run(*words)
    assert code == 0 and printed.startswith("Settings: HalvesConfig(rank=2")
    records = read_records(out)
    assert [(r.amount, r.unit, r.rank, r.method) for r in records] == [
        (amount, "percent", rank, method)
        for amount in (50, 100)
        for rank in (2, 4)
        for method in ("lora", "serial_lora_plus")
    ]
    rows = [line for line in printed.splitlines() if line.strip().startswith("halves ")]
    assert (
        len(rows) == 1 + len(records) and "not adapted" in rows[0]
    )  # the table, its baseline first
    assert "--percent 50,100 --seeds 1 --rank 2,4 --min-steps 3 --ratio 5" in records[0].command
    assert describe_records(records).splitlines()[1] == f"command: {records[0].command}"

    trained = calls(monkeypatch, labs, "train")
    code, again, _ = run(*words)
    assert code == 0 and again.count("already in the records") == len(records)
    assert not trained and read_records(out) == records
