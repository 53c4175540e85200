"""Fetching: resumed, verified, inside its folder, or not there at all; from a server on localhost."""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.datasets import utils as vision

from data_scripts import fetch
from data_scripts.download import CHUNK, download, unpack
from data_scripts.sources import PICTURES
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import DATASETS, RELEASES
from tests.data import official
from tests.models.sd3_models import official_folder

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Serves ``files``; the next answers end after ``stop`` bytes; notes the ranges asked for."""
    state = SimpleNamespace(files={}, stop=[], ranges=[], etag='"one"')

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content, asked = state.files.get(self.path[1:]), self.headers.get("Range")
            state.ranges.append(asked)
            if content is None:
                return self.send_error(404)
            start = 0
            if asked and self.headers.get("If-Range") == state.etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", state.etag)
            self.end_headers()
            self.wfile.write(content[start:][: state.stop.pop(0) if state.stop else None])

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield state
        running.shutdown()


# --- a file --------------------------------------------------------------------------------------


def test_a_broken_download_goes_on_within_a_call_and_in_the_next(server, tmp_path):
    path, server.files["a.bin"] = tmp_path / "new" / "a.bin", CONTENT
    server.stop = [2 * CHUNK, CHUNK, 0]  # twice it brings something, then nothing
    with pytest.raises(SerialLoRAError, match="goes on where it stopped"):
        download(f"{server.url}/a.bin", path, SHA256, quiet=True)
    assert (
        server.ranges == [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"] and not path.exists()
    )
    assert download(f"{server.url}/a.bin", path, SHA256, quiet=True).read_bytes() == CONTENT
    assert server.ranges[3:] == [f"bytes={3 * CHUNK}-"]
    assert [each.name for each in path.parent.iterdir()] == ["a.bin"]
    download(f"{server.url}/a.bin", path, SHA256, quiet=True)  # there already: nothing is asked
    assert len(server.ranges) == 4


def test_a_file_that_changed_on_the_server_is_not_glued_together(server, tmp_path):
    path, server.files["a.bin"], server.stop = tmp_path / "a.bin", CONTENT, [CHUNK, 0]
    with pytest.raises(SerialLoRAError):
        download(f"{server.url}/a.bin", path, quiet=True)
    server.files["a.bin"], server.etag = CONTENT[::-1], '"two"'
    assert download(f"{server.url}/a.bin", path, quiet=True).read_bytes() == CONTENT[::-1]


def test_another_file_than_expected_is_not_kept(server, tmp_path):
    server.files["a.bin"] = CONTENT[:-1]
    with pytest.raises(SerialLoRAError, match=f"not the expected file.*{SHA256[:8]}"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", SHA256[:8], quiet=True)
    assert not (tmp_path / "a.bin").exists() and not (tmp_path / "a.bin.part").exists()
    (tmp_path / "a.bin").write_bytes(b"put there by hand")
    with pytest.raises(SerialLoRAError, match="move it away"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", SHA256, quiet=True)
    assert (tmp_path / "a.bin").read_bytes() == b"put there by hand"


# --- an archive ----------------------------------------------------------------------------------

FILES = {"pets/cat.txt": b"miaow", "pets/dogs/dog.txt": b"woof" * 20_000, "readme": b""}


def tar(members, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else 0
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return stream.getvalue()


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def link(name, target="../secret", kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link():
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return zipped({info: "../../secret"})


def unpacked(tmp_path, content, **options):
    (tmp_path / "archive").write_bytes(content)
    unpack(tmp_path / "archive", tmp_path / "out", **options)
    found = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    return {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in found}


KINDS = [zipped(FILES), zipped({"/": b"", **FILES})] + [
    tar(FILES, f"w{c}") for c in ("", ":gz", ":xz")
]


@pytest.mark.parametrize("content", KINDS, ids=["zip", "Dropbox's zip", "tar", "gz", "xz"])
def test_every_kind_of_archive_is_unpacked(tmp_path, content):
    assert unpacked(tmp_path, content, password="one that it does not need") == FILES


UNSAFE = {
    "tar ..": tar({"good": b"x", "../evil": b"x"}),
    "zip ..": zipped({"good": b"x", "../evil": b"x"}),
    "zip backslash": zipped({"..\\evil": b"x"}),
    "zip link": zip_link(),
    "link": tar({"link": link("link")}),
    "through a link": tar({"a": link("a", ".."), "a/evil": b"x"}),
    "device": tar({"pipe": link("pipe", "", tarfile.FIFOTYPE)}),
}


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE)
def test_what_would_leave_its_folder_is_refused(tmp_path, content):
    with pytest.raises(SerialLoRAError, match="not safe to unpack"):
        unpacked(tmp_path, content)
    assert not list(tmp_path.parent.rglob("evil")) and not list(tmp_path.rglob("link"))


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


NOISE = {"a": b"".join(hashlib.sha256(bytes([n])).digest() for n in range(250)) * 4}
CUT = [tar(NOISE)[:5000], tar(NOISE, "w")[:5000], tar(NOISE, "w:xz")[:3000], zipped(NOISE)[:5000]]
DAMAGED = [*CUT, flipped(zipped(NOISE), 5000), flipped(tar(FILES), -6), b"<html>", b""]


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_a_damaged_archive_is_told(tmp_path, number):
    with pytest.raises(SerialLoRAError, match="damaged, not complete, or no archive"):
        unpacked(tmp_path, DAMAGED[number])


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
    for path in source.files:
        below = Path(path).parent.as_posix().replace(".", "", 1)
        inside = f"{source.into or below}/".lstrip("/")
        some = {p.removeprefix(inside): each for p, each in members.items() if p.startswith(inside)}
        if name == "oxford_pets":
            part = Path(path).name.partition(".")[0]
            some = {p: each for p, each in some.items() if p.startswith(part)}
        some = {p: each for p, each in some.items() if not p.endswith(".csv")}
        made[path] = members[path] if path.endswith(".csv") else tar(some)
        if path.endswith(".zip"):
            made[path] = zipped(some)
    return made


def load(name, root):
    for task in DATASETS.values():
        table, read = task["paper"]
        for wanted, entry in table.items():
            if name in (wanted, getattr(entry, "release", None), getattr(entry, "name", None)):
                return read(wanted, root)


@pytest.mark.parametrize("name", PICTURES)
def test_a_data_set_comes_whole_into_the_folder_of_the_labs(
    name, server, tmp_path, monkeypatch, capsys
):
    content = archives(name)
    server.files = {Path(path).name: each for path, each in content.items()}
    addresses = {
        path: PICTURES[name].files[path] and f"{server.url}/{Path(path).name}" for path in content
    }
    monkeypatch.setitem(fetch.PICTURES, name, replace(PICTURES[name], files=addresses))
    begun = tmp_path / "fetching" / name
    for path in (path for path, url in addresses.items() if not url):  # only a browser gets it
        with pytest.raises(SerialLoRAError, match="drive.google.com"):
            fetch.fetch_pictures(name, tmp_path)
        (begun / path).parent.mkdir(parents=True)
        (begun / path).write_bytes(content[path])
    (begun / "half" / "unpacked").mkdir(parents=True)
    (begun / "half" / "unpacked" / "evil").write_text("of a command that was stopped")
    # The archives here are not the official ones, whose MD5 torchvision knows.
    monkeypatch.setattr(vision, "check_integrity", lambda path, md5=None: Path(path).is_file())
    folder = fetch.fetch_pictures(name, tmp_path, quiet=True)
    assert folder == tmp_path / RELEASES[name].folder and not begun.exists()
    assert "where its publisher has" in capsys.readouterr().out
    assert load(name, tmp_path).train[0] and not list(folder.rglob("evil"))
    asked = len(server.ranges)
    assert (
        fetch.fetch_pictures(name, tmp_path, quiet=True) == folder and len(server.ranges) == asked
    )


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
