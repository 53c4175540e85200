"""Fetching: resumed, verified, inside its folder, or not there at all; without a network."""

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, unquote

import pytest
import requests
import torch
from safetensors.torch import load_file, save_file
from torchvision.datasets import utils as vision

from data_scripts import download as downloads
from data_scripts import fetch
from data_scripts.download import CHUNK, download, unpack
from data_scripts.sources import PICTURES
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import DATASETS, PAPER_RELEASES, RELEASES
from serial_lora_course.files import alone
from tests.data import official
from tests.models.sd3_models import official_folder

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "https://example.org/a.bin"


class Serve(BaseHTTPRequestHandler):
    """A file by its address, from where it is asked for on, as long as it is the version asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        state, asked = self.server.state, self.headers.get("Range")
        state.ranges.append(asked)
        content = state.files.get(unquote(self.path[1:]))
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        same = asked and self.headers.get("If-Range") == tag
        start = int(asked.removeprefix("bytes=").rstrip("-")) if same else 0
        size, body = len(content), content[start:]
        status = 200 if not start else 206 if body else 416
        place = f"bytes {start}-{size - 1}/{size}" if body else f"bytes */{size}"
        headers = {"ETag": tag, "Content-Length": str(len(body))}
        headers |= {"Content-Range": place} if start else {}
        status, headers, body = state.lie(asked, status, headers, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: state.stop.pop(0) if state.stop else None])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Serves ``files`` by address; the next answers end after ``stop`` bytes; notes the ranges.

    ``lie`` may change what is answered: (what was asked for, status, headers, body) -> the last three.
    """
    state = SimpleNamespace(files={}, stop=[], ranges=[], lie=lambda asked, *answer: answer)
    here = ThreadingHTTPServer(("127.0.0.1", 0), Serve)
    here.state = state
    thread = threading.Thread(target=here.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    real, address = requests.get, f"http://127.0.0.1:{here.server_port}/"
    monkeypatch.setattr(
        downloads.requests, "get", lambda url, **more: real(address + quote(url, ""), **more)
    )
    yield state
    here.shutdown()
    here.server_close()


# --- a file --------------------------------------------------------------------------------------


def names_in(folder):
    return sorted(each.name for each in folder.iterdir())


def test_a_broken_download_goes_on_within_a_call_and_in_the_next(server, tmp_path):
    path, server.files[URL] = tmp_path / "new" / "a.bin", CONTENT
    server.stop = [2 * CHUNK, CHUNK, 0]  # twice it brings something, then nothing
    with pytest.raises(SerialLoRAError, match="goes on where it stopped"):
        download(URL, path, SHA256)
    assert server.ranges == [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert names_in(path.parent) == ["a.bin.part", "a.bin.part.version"]
    assert download(URL, path, SHA256).read_bytes() == CONTENT
    assert server.ranges[3:] == [f"bytes={3 * CHUNK}-"]
    assert names_in(path.parent) == ["a.bin"]
    download(URL, path, SHA256)  # there already: nothing is asked
    assert len(server.ranges) == 4


def test_another_file_than_expected_is_not_kept(server, tmp_path):
    server.files[URL] = CONTENT[:-1]
    with pytest.raises(SerialLoRAError, match=f"not the expected file.*{SHA256[:8]}"):
        download(URL, tmp_path / "a.bin", SHA256[:8])
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.bin").write_bytes(b"put there by hand")
    with pytest.raises(SerialLoRAError, match="move it away"):
        download(URL, tmp_path / "a.bin", SHA256)
    assert (tmp_path / "a.bin").read_bytes() == b"put there by hand"


OTHER = CONTENT[::-1]  # as long, and another file


def elsewhere(asked, status, headers, body):
    size = len(CONTENT)
    if not asked:
        return status, headers, body
    headers |= {"Content-Range": f"bytes 7-{size - 1}/{size}", "Content-Length": str(size - 7)}
    return 206, headers, CONTENT[7:]


def whatever(asked, status, headers, body):
    """As if no version had been asked for."""
    if not asked or status == 206:
        return status, headers, body
    size = len(OTHER)
    headers |= {"Content-Range": f"bytes {CHUNK}-{size - 1}/{size}"}
    return 206, headers | {"Content-Length": str(size - CHUNK)}, body[CHUNK:]


#: What a server does, what it has by then, and what a part holds that was begun before.
WEAK, NONE = (lambda _, s, h, body, tag=tag: (s, h | {"ETag": tag}, body) for tag in ('W/"1"', ""))
RESUMED = {
    "it is honest": (None, CONTENT, CONTENT[:CHUNK]),
    "it has another version": (None, OTHER, CONTENT[:CHUNK]),
    "it tells no version": (NONE, OTHER, CONTENT[:CHUNK]),
    "its versions are much the same": (WEAK, OTHER, CONTENT[:CHUNK]),
    "it sends the rest of another version": (whatever, OTHER, CONTENT[:CHUNK]),
    "it sends another part": (elsewhere, CONTENT, CONTENT[:CHUNK]),
    "the part is whole": (None, CONTENT, CONTENT),
    "the part is longer than the file": (None, CONTENT, CONTENT + b"more"),
}


@pytest.mark.parametrize("what", RESUMED)
def test_a_part_is_gone_on_with_only_where_the_rest_belongs_behind_it(server, tmp_path, what):
    """No hash is known here, as of no data set."""
    lie, now, part = RESUMED[what]
    server.lie = lie or server.lie
    server.files[URL], server.stop = CONTENT, [CHUNK, 0, 0]
    with pytest.raises(SerialLoRAError):
        download(URL, tmp_path / "a.bin")
    (tmp_path / "a.bin.part").write_bytes(part)
    server.files[URL], server.stop = now, []
    assert download(URL, tmp_path / "a.bin").read_bytes() == now
    assert names_in(tmp_path) == ["a.bin"]


def chunked(size):
    def lie(_, status, headers, body):
        return status, {"Transfer-Encoding": "chunked"}, b"%s\r\nabc\r\n0\r\n\r\n" % size

    return lie


SENSELESS = {
    "a length that is no number": lambda _, s, h, body: (s, h | {"Content-Length": "many"}, body),
    "a part that nobody asked for": lambda _, s, h, body: (206, h, body),
    "a range that nobody asked for": lambda _, s, h, body: (416, h, body),
    "a chunk of negative size": chunked(b"-3"),
    "a chunk of no size": chunked(b"x"),
    "an error": lambda _, s, h, body: (500, h, body),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_a_senseless_answer_is_one_sentence(server, tmp_path, what):
    server.files[URL], server.lie = CONTENT, SENSELESS[what]
    with pytest.raises(SerialLoRAError, match="cannot be had"):
        download(URL, tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()
    server.lie = lambda asked, *answer: answer
    assert download(URL, tmp_path / "a.bin").read_bytes() == CONTENT


def test_one_process_at_a_time_fetches_a_file(server, tmp_path):
    refused = []

    def another(_, *answer):  # begins while the first one is answered
        with pytest.raises(SerialLoRAError, match="another process") as told:
            download(URL, tmp_path / "a.bin")
        refused.append(told)
        return answer

    server.files[URL], server.lie = CONTENT, another
    assert download(URL, tmp_path / "a.bin").read_bytes() == CONTENT
    assert refused and names_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("name", ["a.bin", "a.bin.part"])
def test_a_pipe_is_not_waited_for(server, tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(SerialLoRAError, match="is no file"):
        download(URL, tmp_path / "a.bin")
    assert server.ranges == []


# --- an archive ----------------------------------------------------------------------------------

FILES = {"pets/cat.txt": b"miaow", "pets/dogs/dog.txt": b"woof" * 20_000, "readme": b""}


def tar(members, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def unpacked(tmp_path, content, **options):
    (tmp_path / "archive").write_bytes(content)
    unpack(tmp_path / "archive", tmp_path / "out", **options)
    found = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    return {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in found}


KINDS = [zipped({"/": b"", **FILES}), tar(FILES, "w"), tar(FILES)]


@pytest.mark.parametrize("content", KINDS, ids=["Dropbox's zip", "tar", "gz"])
def test_every_kind_of_archive_is_unpacked(tmp_path, content):
    assert unpacked(tmp_path, content, password="one that it does not need") == FILES


UNSAFE = [tar({"../evil": b"x"}), tar({"a": "..", "a/evil": b"x"}), zipped({"../evil": b"x"})]


@pytest.mark.parametrize("content", UNSAFE, ids=["tar", "through a link", "zip"])
def test_nothing_is_written_outside_the_folder(tmp_path, content):
    try:
        unpacked(tmp_path, content)
    except SerialLoRAError as error:
        assert "outside" in str(error)
    assert not (tmp_path / "evil").exists()


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


NOISE = {"a": b"".join(hashlib.sha256(bytes([n])).digest() for n in range(250)) * 4}
CUT = [tar(NOISE)[:5000], tar(NOISE, "w")[:5000], zipped(NOISE)[:5000]]
NAMELESS = zipped({"x": b""}).replace(b"x", b"\0")  # its only member
NUL = tar({101 * "x" + "\0": b""})  # of more than 100 letters, or the name ends there
DAMAGED = [*CUT, flipped(zipped(NOISE), 5000), flipped(tar(FILES), -6), b"<html>", NAMELESS, NUL]


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_a_damaged_archive_is_told(tmp_path, number):
    with pytest.raises(SerialLoRAError, match="damaged, not complete, or no archive") as told:
        unpacked(tmp_path, DAMAGED[number])
    assert "\n" not in str(told.value)


#: Three files locked with "right" in the traditional way (`zip -e -0`), which Python only reads.
LOCKED = Path(__file__).parent / "locked.zip"


@pytest.mark.parametrize("password", [None, "", "wrong"])
def test_a_locked_archive_asks_for_its_password(tmp_path, password):
    with pytest.raises(SerialLoRAError, match="--password"):
        unpacked(tmp_path, LOCKED.read_bytes(), password=password)
    assert set(unpacked(tmp_path, LOCKED.read_bytes(), password="right")) == set(FILES)


# --- data sets -----------------------------------------------------------------------------------


def archives(name):
    """Path below the folder of downloads -> content, made of the small data set."""
    members = official.OFFICIAL[name]()
    if name == "caltech101":
        inner = {path.removeprefix("caltech101/"): each for path, each in members.items()}
        outer = {"caltech-101/101_ObjectCategories.tar.gz": tar(inner), "__MACOSX/x": b"a Mac's"}
        return {"caltech101/caltech-101.zip": zipped(outer)}
    made, source = {}, PICTURES[name]
    for path in map(Path, source.files):
        inside = source.into or ("" if path.parent == Path() else path.parent.as_posix())
        some = {p: each for p, each in members.items() if p.startswith(inside)}
        if name == "oxford_pets":
            some = {p: each for p, each in some.items() if f"/{path.name.partition('.')[0]}/" in p}
        some = {p.removeprefix(inside).lstrip("/"): each for p, each in some.items()}
        made[path.as_posix()] = zipped(some) if path.suffix == ".zip" else tar(some)
    return made


@pytest.mark.parametrize("name", PICTURES)
def test_a_data_set_comes_whole_into_the_folder_of_the_labs(
    name, server, tmp_path, monkeypatch, capsys
):
    begun, source = tmp_path / "fetching" / name, PICTURES[name]
    for path, content in archives(name).items():
        server.files[source.files[path]] = content
        if not source.files[path]:  # only a browser gets it
            with pytest.raises(SerialLoRAError, match="drive.google.com"):
                fetch.fetch_pictures(name, tmp_path)
            begun.mkdir(parents=True)
            (begun / path).write_bytes(content)
    (begun / "half" / "unpacked").mkdir(parents=True)
    (begun / "half" / "unpacked" / "evil").write_text("of a command that was stopped")
    # The archives here are not the official ones, whose MD5 torchvision knows.
    monkeypatch.setattr(vision, "check_integrity", lambda path, md5=None: Path(path).is_file())
    folder = fetch.fetch_pictures(name, tmp_path)
    assert folder == tmp_path / RELEASES[name].folder and not begun.exists()
    assert "where its publisher has" in capsys.readouterr().out
    asked = len(server.ranges)
    assert not [*(tmp_path / "fetching").iterdir()]
    assert fetch.fetch_pictures(name, tmp_path) == folder and len(server.ranges) == asked
    for table in (scales["paper"] for scales in DATASETS.values()):
        for dataset, load in table.items():
            if PAPER_RELEASES[dataset] is RELEASES[name]:
                assert load(dataset, tmp_path).train[0] and not list(folder.rglob("evil"))


def test_one_process_at_a_time_fetches_a_data_set(server, tmp_path):
    (tmp_path / "fetching" / "eurosat").mkdir(parents=True)
    (tmp_path / "fetching" / "eurosat" / "unpacked").touch()  # by the other one
    with alone(tmp_path / "fetching" / ".eurosat.lock", ""):
        with pytest.raises(SerialLoRAError, match="another process"):
            fetch.fetch_pictures("eurosat", tmp_path)
    assert server.ranges == [] and names_in(tmp_path / "fetching" / "eurosat") == ["unpacked"]


# --- weights -------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's client, which brings what ``give`` writes into a folder, or raises."""
    hub = SimpleNamespace(give=None, asked=[])

    def bring(repository, *files, local_dir, **options):
        hub.asked.append((repository, files, options))
        local_dir.mkdir(parents=True, exist_ok=True)
        hub.give(local_dir)

    info = SimpleNamespace(sha="0123")
    monkeypatch.setattr(fetch, "HfApi", lambda: SimpleNamespace(model_info=lambda name: info))
    monkeypatch.setattr(fetch, "hf_hub_download", bring)
    monkeypatch.setattr(fetch, "snapshot_download", bring)
    return hub


def test_sd3_comes_checked_or_not_at_all(hub, tmp_path):
    def with_nan(folder):
        official_folder(folder)
        file = folder / "vae" / "diffusion_pytorch_model.safetensors"
        state = load_file(file)
        first = sorted(state)[0]
        save_file({**state, first: torch.full_like(state[first], torch.nan)}, file)

    hub.give = with_nan
    with pytest.raises(SerialLoRAError, match="not finite"):
        fetch.fetch_sd3(tmp_path)
    assert not (tmp_path / "weights").exists() and not (tmp_path / "fetching" / "sd3").exists()
    hub.give = official_folder
    assert fetch.fetch_sd3(tmp_path) == tmp_path / "weights" / "sd3" == fetch.fetch_sd3(tmp_path)
    (_, _, options) = hub.asked[-1]
    assert len(hub.asked) == 2 and options["revision"] == "0123"
    assert "text_encoder_3/*" not in options["ignore_patterns"]
