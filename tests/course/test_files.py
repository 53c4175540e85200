"""Files are there whole; on a full disk, see tests/labs/test_full_disk.py."""

import os
import stat

import pytest

from serial_lora.files import write_whole


def test_a_file_is_written_with_its_folder_for_everybody_to_read(tmp_path):
    path = write_whole(tmp_path / "a" / "b.bin", b"one")
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert write_whole(path, b"two").read_bytes() == b"two"
    assert os.listdir(path.parent) == ["b.bin"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/null"):
        with pytest.raises(OSError, match="no file"):
            write_whole(path, b"new")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)
