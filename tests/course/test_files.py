"""Files are there whole or not at all, on a full disk too."""

import json
import os
import stat

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.files import refusals_told, write_json


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


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new" / "file")
    write_whole(link, b"new")
    assert link.is_symlink() and (tmp_path / "new" / "file").read_bytes() == b"new"


def test_an_empty_path_is_an_os_error_like_any_other():
    with pytest.raises(OSError, match="directory"):
        write_whole("", b"x")


def test_the_file_that_cannot_be_replaced_is_named_and_not_the_one_beside_it(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SerialLoRAError) as refused, refusals_told():
        write_whole(tmp_path / "folder", b"x")
    assert f"{tmp_path / 'folder'} " in str(refused.value) and os.listdir(tmp_path) == ["folder"]


def test_json_that_cannot_be_written_leaves_the_file(tmp_path):
    path = write_json(tmp_path / "a.json", {"é": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text("utf-8")) == {"é": 1} and os.listdir(tmp_path) == ["a.json"]
