"""Files and folders that go wrong: full disks, cut-off writers, two writers at a time."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.files import write_json
from serial_lora_course.labs.records import Record, append_record, read_records, require_writable

RECORD = Record(
    "clip", "tiny", "food", "lora", 1, "shots", 1, 4, {"accuracy": 0.5}, {"bytes": 8}, 1.0
)


def no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_file_is_written_with_its_folder_for_everybody_to_read(tmp_path):
    path = write_whole(tmp_path / "a" / "b.bin", b"one")
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert write_whole(path, b"two").read_bytes() == b"two"
    assert os.listdir(path.parent) == ["b.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, call):
    path = write_whole(tmp_path / "b.bin", b"old")
    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["b.bin"]


def test_an_empty_path_is_an_os_error_like_any_other():
    with pytest.raises(OSError, match="directory"):
        write_whole("", b"x")


def test_json_that_cannot_be_written_leaves_the_file(tmp_path):
    path = write_json(tmp_path / "a.json", {"é": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text("utf-8")) == {"é": 1} and os.listdir(tmp_path) == ["a.json"]


# ------------------------------------------------------------------------------- records


@pytest.mark.parametrize("content", [b"my notes", b'{"a": 1}', b"\x89PNG\r\n\x1a\n\x00", b"[1]"])
def test_a_file_that_holds_something_else_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(SerialLoRAError, match="is not a record"):
        read_records(path)
    assert path.read_bytes() == content


def test_a_record_whose_newline_an_editor_took_is_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    append_record(path, RECORD)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read_records(path) == [RECORD]
    append_record(path, replace(RECORD, seed=2))
    assert read_records(path) == [RECORD, replace(RECORD, seed=2)]


def test_a_place_that_cannot_be_written_is_known_before_the_run(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "r.jsonl"):
        with pytest.raises(SerialLoRAError, match="cannot be written to .*--out"):
            require_writable(path)
    require_writable(tmp_path / "new" / "r.jsonl")
    assert read_records(tmp_path / "new" / "r.jsonl") == []


def test_runs_that_share_a_file_lose_no_record(tmp_path):
    path = tmp_path / "r.jsonl"

    def run(number):
        for seed in range(20):
            append_record(path, replace(RECORD, amount=number, seed=seed))

    with ThreadPoolExecutor(4) as pool:  # each append opens and locks the file for itself
        list(pool.map(run, range(4)))
    found = sorted((record.amount, record.seed) for record in read_records(path))
    assert found == [(number, seed) for number in range(4) for seed in range(20)]


def test_two_runs_of_the_same_thing_leave_one_record(tmp_path):
    path = tmp_path / "r.jsonl"
    append_record(path, RECORD)
    append_record(path, replace(RECORD, seconds=2.0, measures={"accuracy": 0.6}))
    assert read_records(path) == [RECORD]
