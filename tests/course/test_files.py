"""Files are there whole or not at all, on a full disk too."""

import json
import os
import socket
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_regular_file_is_written_into_or_refused_and_never_replaced(tmp_path):
    pipe, listener = tmp_path / "pipe", socket.socket(socket.AF_UNIX)
    os.mkfifo(pipe)
    listener.bind(str(tmp_path / "socket"))
    with listener:
        for path in (pipe, tmp_path / "socket", "/dev/full"):  # nobody reads, or it takes nothing
            with pytest.raises(OSError, match="No such device|No space"):
                write_whole(path, b"new")
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"new")
    write_whole("/dev/null", b"new")
    assert os.read(descriptor, 9) == b"new"
    os.close(descriptor)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices"
)
def test_root_breaks_no_device(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:
        pytest.skip("no devices are made here")
    try:
        write_whole(device, b"new")
    except PermissionError:
        pass  # where devices do not work in this folder
    assert stat.S_ISCHR(device.stat().st_mode)


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
