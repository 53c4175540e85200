"""Downloads: resumed, verified, and never half there."""

import errno
import hashlib
import json
import os
import socket

import numpy as np
import pooch
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import download as module
from serial_lora_course.data.download import FileFacts, ResumingDownloader, data_root, download
from serial_lora_course.files import write_json

CONTENT = np.random.default_rng(0).bytes(400_000)
FACTS = FileFacts(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
MD5 = FileFacts(md5=hashlib.md5(CONTENT).hexdigest())


def fetch(url, path, expected=FACTS, **options):
    return download(url, path, expected, progress=False, timeout=5, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("expected", [FACTS, MD5, FileFacts()])
def test_a_file_arrives_under_its_name_and_alone(server, tmp_path, expected):
    url = server.serve("pets.tar", CONTENT)
    path = fetch(url, tmp_path / "new" / "pets.tar", expected)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["pets.tar"]


def test_a_file_of_unstated_length_arrives(server, tmp_path):
    url = server.serve("pets.tar", CONTENT, announce_length=False)
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT


def test_a_file_that_is_there_is_verified_and_not_fetched_again(server, tmp_path):
    url = server.serve("pets.tar", CONTENT)
    (tmp_path / "pets.tar").write_bytes(CONTENT)
    fetch(url, tmp_path / "pets.tar")
    assert server.files["pets.tar"].requests == []


def test_a_wrong_file_put_there_by_hand_is_told_and_kept(server, tmp_path):
    url = server.serve("pets.tar", CONTENT)
    (tmp_path / "pets.tar").write_bytes(b"a login page")
    with pytest.raises(SerialLoRAError, match="not the expected file.*move it away"):
        fetch(url, tmp_path / "pets.tar")
    assert (tmp_path / "pets.tar").read_bytes() == b"a login page"


def test_404_names_the_address_and_the_steps_by_hand(server, tmp_path):
    with pytest.raises(SerialLoRAError) as caught:
        fetch(f"{server.url}/gone.tar", tmp_path / "gone.tar")
    assert "404" in str(caught.value)
    assert f"put it at {tmp_path / 'gone.tar'}" in str(caught.value)
    assert names(tmp_path) == []


def test_a_server_error_is_told(server, tmp_path):
    url = server.serve("pets.tar", CONTENT, status=503)
    with pytest.raises(SerialLoRAError, match="503"):
        fetch(url, tmp_path / "pets.tar")
    assert names(tmp_path) == []


def test_truncated_then_resumed_with_range(server, tmp_path):
    url = server.serve("pets.tar", CONTENT, stop_after=[200_000])
    with pytest.raises(SerialLoRAError, match="connection ended early.*goes on from there"):
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


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    url = server.serve("pets.tar", CONTENT, ranges=False, stop_after=[200_000])
    with pytest.raises(SerialLoRAError):
        fetch(url, tmp_path / "pets.tar", attempts=1)
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_not_glued_together(server, tmp_path):
    url = server.serve("pets.tar", bytes(400_000), stop_after=[200_000], etag='"old"')
    with pytest.raises(SerialLoRAError):
        fetch(url, tmp_path / "pets.tar", FileFacts(), attempts=1)
    server.serve("pets.tar", CONTENT, etag='"new"')
    assert fetch(url, tmp_path / "pets.tar", FileFacts()).read_bytes() == CONTENT


def test_a_complete_part_file_needs_no_more_bytes(server, tmp_path):
    url = server.serve("pets.tar", CONTENT)
    (tmp_path / "pets.tar.part").write_bytes(CONTENT)
    write_json(tmp_path / "pets.tar.part.json", {"url": url, "validator": '"one"'})
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert names(tmp_path) == ["pets.tar"]


def test_a_part_file_that_is_too_long_starts_anew(server, tmp_path):
    url = server.serve("pets.tar", CONTENT)
    (tmp_path / "pets.tar.part").write_bytes(CONTENT + b"too much")
    write_json(tmp_path / "pets.tar.part.json", {"url": url, "validator": '"one"'})
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert server.files["pets.tar"].requests == [f"bytes={len(CONTENT) + 8}-", None]


def test_a_part_file_from_another_address_is_not_continued(server, tmp_path):
    url = server.serve("pets.tar", CONTENT)
    (tmp_path / "pets.tar.part").write_bytes(b"from elsewhere")
    write_json(tmp_path / "pets.tar.part.json", {"url": f"{server.url}/old.tar"})
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert server.files["pets.tar"].requests == [None]


@pytest.mark.parametrize("expected", [FACTS, MD5])
def test_a_wrong_hash_leaves_nothing(server, tmp_path, expected):
    url = server.serve("pets.tar", CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(SerialLoRAError, match="(sha256|md5) is [0-9a-f]+ where [0-9a-f]+"):
        fetch(url, tmp_path / "pets.tar", expected)
    assert names(tmp_path) == []


def test_a_wrong_size_is_refused_before_the_first_byte(server, tmp_path):
    url = server.serve("pets.tar", CONTENT + b"!")
    with pytest.raises(SerialLoRAError, match="announces 400001 bytes where 400000"):
        fetch(url, tmp_path / "pets.tar")
    assert names(tmp_path) == []


def test_a_mirror_steps_in(server, tmp_path):
    wrong = server.serve("wrong.tar", bytes(len(CONTENT)))
    right = server.serve("right.tar", CONTENT)
    addresses = [f"{server.url}/gone.tar", wrong, right]
    assert fetch(addresses, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert names(tmp_path) == ["pets.tar"]


def test_no_network(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(SerialLoRAError, match="cannot be reached.*by hand"):
        fetch(f"http://127.0.0.1:{port}/pets.tar", tmp_path / "pets.tar")
    assert names(tmp_path) == []


def test_not_a_web_address(tmp_path):
    with pytest.raises(SerialLoRAError, match="not a web address"):
        fetch("mirror/pets.tar", tmp_path / "pets.tar")


def test_too_little_space_is_seen_before_the_first_byte(server, tmp_path, monkeypatch):
    url = server.serve("pets.tar", CONTENT)
    usage = type(module.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 999, 999))
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
        with pytest.raises(SerialLoRAError, match="no space is left.*free some space"):
            fetch(url, tmp_path / "pets.tar")
    assert not (tmp_path / "pets.tar").exists()
    assert fetch(url, tmp_path / "pets.tar").read_bytes() == CONTENT
    assert server.files["pets.tar"].requests[-1] == f"bytes={2 * module.CHUNK_SIZE}-"


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    url = server.serve("pets.tar", CONTENT)
    with pytest.raises(SerialLoRAError, match="cannot be written to"):
        fetch(url, tmp_path / "file" / "pets.tar")


def test_the_downloader_works_inside_pooch(server, tmp_path):
    url = server.serve("pets.tar", CONTENT)
    path = pooch.retrieve(
        url,
        known_hash=f"sha256:{FACTS.sha256}",
        fname="pets.tar",
        path=tmp_path,
        downloader=ResumingDownloader(progress=False),
    )
    assert open(path, "rb").read() == CONTENT
    assert names(tmp_path) == ["pets.tar"]


def test_the_progress_bar_goes_to_standard_error(server, tmp_path, capsys):
    url = server.serve("pets.tar", CONTENT)
    download(url, tmp_path / "pets.tar", FACTS, progress=True)
    printed = capsys.readouterr()
    assert printed.out == "" and "pets.tar" in printed.err


def test_data_root_order(tmp_path, monkeypatch):
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path / "environment"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "environment"
    monkeypatch.delenv("SERIAL_LORA_DATA")
    assert data_root().name == "serial-lora" and data_root().is_absolute()


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = write_json(tmp_path / "a" / "b.json", {"naïve": [1, 2]})
    assert json.loads(path.read_text("utf-8")) == {"naïve": [1, 2]}
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert json.loads(path.read_text("utf-8")) == {"naïve": [1, 2]}
    assert names(path.parent) == ["b.json"]
