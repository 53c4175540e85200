"""Several processes on one records file: each run is done by one of them, and none is lost with it."""

import threading

import pytest

from serial_lora_course.labs.grid import Run, make_grid, run_lab
from serial_lora_course.labs.records import Kept, read_records
from serial_lora_course.labs.registry import LABS
from tests.labs.lab_models import calls

ASKED = dict(methods=["lora", "serial_lora"], amounts=[50, 100], seeds=1, min_steps=2)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(LABS, "halves", ("tests.labs.fourth_lab", "Bright halves of pictures."))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "halves.jsonl"


def test_a_run_that_another_process_is_at_is_done_once_and_found_by_both(out, monkeypatch):
    """The other one, a thread here, is at the first run until nothing else is left to do."""
    (source, (run, *_)), other = make_grid("halves", "halves", **ASKED), Kept(out)
    key = run.key(source.open("halves"))
    done, seen = calls(monkeypatch, Run, "do"), []
    begun, rest_is_done = threading.Event(), threading.Event()

    def another():
        with other.claim(key):
            begun.set()
            rest_is_done.wait(60)
            other.add(key, run.do(source.open("halves"), progress=False))

    def on_record(record, is_new):
        seen.append((record, is_new))
        if len(seen) == 3:
            rest_is_done.set()

    thread = threading.Thread(target=another)
    thread.start()
    begun.wait(60)
    records = run_lab("halves", "halves", out=out, progress=False, on_record=on_record, **ASKED)
    thread.join()
    assert len(done) == len(records) == 4
    assert [is_new for _, is_new in seen] == [True] * 3 + [False] and seen[-1][0] == records[0]
    assert sorted(r.key for r in read_records(out)) == sorted({r.key for r in records})
