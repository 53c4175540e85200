"""Downloads: resumed, verified, and never half there."""

import errno
import hashlib
import os
import socket

import numpy as np
import pytest

from data_scripts.fetching import disk
from data_scripts.fetching import download as module
from data_scripts.fetching.download import FileFacts, download
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folders import data_root
from serial_lora_course.files import write_json

CONTENT = np.random.default_rng(0).bytes(400_000)
FACTS = FileFacts(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
MD5 = FileFacts(md5=hashlib.md5(CONTENT).hexdigest())


def fetch(url, path, expected=FACTS, **options):
    return download(url, path, expected, progress=False, timeout=5, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


LENGTH = {"announced": {}, "chunked": {"chunked": True}, "unknown": {"announce_length": False}}


@pytest.mark.parametrize("expected", [FACTS, MD5, FileFacts()])
@pytest.mark.parametrize("length", LENGTH)
def test_a_file_arrives_under_its_name_and_alone(server, tmp_path, expected, length):
    url = server.serve("pets.tar", CONTENT, **LENGTH[length])
    if length == "unknown" and not expected.known():  # half of it would look whole
        with pytest.raises(SerialLoRAError, match="how long"):
            fetch(url, tmp_path / "pets.tar", expected)
        assert not names(tmp_path)
        return
    path = fetch(url, tmp_path / "new" / "pets.tar", expected)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["pets.tar"]
    fetch(url, path, expected)  # verified, and not fetched again
    assert len(server.files["pets.tar"].requests) == 1


def test_a_wrong_file_put_there_by_hand_is_refused_and_kept(server, tmp_path):
    url = server.serve("pets.tar", CONTENT)
    (tmp_path / "pets.tar").write_bytes(b"a login page")
    with pytest.raises(SerialLoRAError, match="not the expected file"):
        fetch(url, tmp_path / "pets.tar")
    assert (tmp_path / "pets.tar").read_bytes() == b"a login page"


@pytest.mark.parametrize("expected", [FACTS, FileFacts()])
@pytest.mark.parametrize("length", ["announced", "chunked"])
def test_half_a_file_is_never_taken_for_the_whole(server, tmp_path, expected, length):
    """And the next run goes on from there."""
    url = server.serve("pets.tar", CONTENT, stop_after=[150_000] * 2, **LENGTH[length])
    with pytest.raises(SerialLoRAError, match="ended early"):
        fetch(url, tmp_path / "pets.tar", expected, attempts=1)
    assert not (tmp_path / "pets.tar").exists()
    assert fetch(url, tmp_path / "pets.tar", expected).read_bytes() == CONTENT


FLIPPED = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
REFUSED = {  # content, how the server behaves, what is expected, what the sentence names
    "gone": (CONTENT, {"status": 404}, FACTS, "404.*by hand"),
    "a server error": (CONTENT, {"status": 503}, FACTS, "503"),
    "another SHA-256": (FLIPPED, {}, FACTS, "sha256 is"),
    "another MD5": (FLIPPED, {}, MD5, "md5 is"),
    "another size": (CONTENT + b"!", {}, FACTS, "400001 bytes where 400000"),
}


@pytest.mark.parametrize("content, behaviour, expected, named", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(server, tmp_path, content, behaviour, expected, named):
    url = server.serve("pets.tar", content, **behaviour)
    with pytest.raises(SerialLoRAError, match=named):
        fetch(url, tmp_path / "pets.tar", expected)
    assert names(tmp_path) == []


def test_without_a_network_or_an_address(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for url, named in (
        (f"http://127.0.0.1:{port}/pets.tar", "cannot be reached.*by hand"),
        ("mirror/pets.tar", "not a web address"),
    ):
        with pytest.raises(SerialLoRAError, match=named):
            fetch(url, tmp_path / "pets.tar")
        assert names(tmp_path) == []


def test_a_mirror_steps_in(server, tmp_path):
    wrong = server.serve("wrong.tar", bytes(len(CONTENT)))
    right = server.serve("right.tar", CONTENT)
    addresses = [f"{server.url}/gone.tar", wrong, right]
    assert fetch(addresses, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert names(tmp_path) == ["pets.tar"]


# --- going on ------------------------------------------------------------------------------------


def test_truncated_then_resumed_with_range(server, tmp_path):
    url = server.serve("pets.tar", CONTENT, stop_after=[200_000])
    with pytest.raises(SerialLoRAError, match="goes on from there"):
        fetch(url, tmp_path / "pets.tar", attempts=1)
    assert names(tmp_path) == ["pets.tar.part", "pets.tar.part.json"]
    kept = (tmp_path / "pets.tar.part").stat().st_size
    assert 0 < kept <= 200_000

    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert server.files["pets.tar"].requests == [None, f"bytes={kept}-"]
    assert names(tmp_path) == ["pets.tar"]


def test_a_broken_connection_is_taken_up_again_within_one_call(server, tmp_path):
    url = server.serve("pets.tar", CONTENT, stop_after=[150_000, 150_000])
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert len(server.files["pets.tar"].requests) == 3


@pytest.mark.parametrize("ranges, etag", [(False, '"one"'), (True, '"new"')])
def test_what_cannot_be_continued_is_fetched_whole(server, tmp_path, ranges, etag):
    """A server that knows no ranges, and a file that changed: nothing is glued together."""
    url = server.serve("pets.tar", bytes(400_000), stop_after=[200_000])
    with pytest.raises(SerialLoRAError):
        fetch(url, tmp_path / "pets.tar", FileFacts(), attempts=1)
    server.serve("pets.tar", CONTENT, ranges=ranges, etag=etag)
    assert fetch(url, tmp_path / "pets.tar", FileFacts()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "part, address, requests",
    [
        (CONTENT, "pets.tar", [f"bytes={len(CONTENT)}-"]),  # complete: no more bytes
        (CONTENT + b"too much", "pets.tar", [f"bytes={len(CONTENT) + 8}-", None]),
        (b"from elsewhere", "old.tar", [None]),
    ],
)
def test_a_part_file_is_continued_only_where_it_fits(server, tmp_path, part, address, requests):
    url = server.serve("pets.tar", CONTENT)
    (tmp_path / "pets.tar.part").write_bytes(part)
    state = {"url": f"{server.url}/{address}", "validator": '"one"'}
    write_json(tmp_path / "pets.tar.part.json", state)
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert [r for r in server.files["pets.tar"].requests] == requests
    assert names(tmp_path) == ["pets.tar"]


# --- the disk ------------------------------------------------------------------------------------


def test_too_little_space_is_seen_before_the_first_byte(server, tmp_path, monkeypatch):
    url = server.serve("pets.tar", CONTENT)
    usage = type(disk.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 999, 999))
    with pytest.raises(SerialLoRAError, match="needs 400.0 kB but only 999 bytes are free"):
        fetch(url, tmp_path / "pets.tar")
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_is_told_and_the_download_goes_on_later(server, tmp_path, monkeypatch):
    url = server.serve("pets.tar", CONTENT)

    class FullAfterTwoChunks:
        def __init__(self, *arguments, **options):
            self.stream, self.written = open(*arguments, **options), 0

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.stream.close()

        def write(self, chunk):
            if self.written == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.written += 1
            return self.stream.write(chunk)

    with monkeypatch.context() as patched:
        patched.setattr(module, "open", FullAfterTwoChunks, raising=False)
        with pytest.raises(SerialLoRAError, match="no space is left"):
            fetch(url, tmp_path / "pets.tar")
    assert not (tmp_path / "pets.tar").exists()
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert server.files["pets.tar"].requests[-1] == f"bytes={2 * module.CHUNK_SIZE}-"


def test_data_root_order(tmp_path, monkeypatch):
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path / "environment"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "environment"
    monkeypatch.delenv("SERIAL_LORA_DATA")
    assert data_root().name == "serial-lora" and data_root().is_absolute()
