"""Fetching: verified, inside its folder, or not there at all; without a network."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.datasets import utils as vision

from data_scripts import download as downloads
from data_scripts import fetch
from data_scripts.download import download, unpack
from data_scripts.sources import PICTURES
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import DATASETS, PAPER_RELEASES, RELEASES
from serial_lora_course.files import alone
from tests.data import official
from tests.models.sd3_models import official_folder

URL = "https://example.org/a.bin"


@pytest.fixture
def server(monkeypatch, tmp_path_factory):
    """Serves ``files`` by address, out of a folder; notes what was ``asked`` for."""
    folder, real = tmp_path_factory.mktemp("served"), downloads.download_url_to_file
    state = SimpleNamespace(files={}, asked=[])

    def fetched(url, path, sha256):
        state.asked.append(url)
        if url not in state.files:
            raise HTTPError(url, 404, "Not Found", None, None)
        (folder / "file").write_bytes(state.files[url])
        real((folder / "file").as_uri(), path, sha256, progress=False)

    monkeypatch.setattr(downloads, "download_url_to_file", fetched)
    return state


# --- a file --------------------------------------------------------------------------------------


def test_only_the_expected_file_is_kept_and_what_is_there_is_left_alone(server, tmp_path):
    path, sha256 = tmp_path / "new" / "a.bin", hashlib.sha256(b"whole").hexdigest()
    with pytest.raises(SerialLoRAError, match="404.*a.bin by hand"):
        download(URL, path, sha256)
    server.files[URL] = b"another"
    with pytest.raises(SerialLoRAError, match=sha256[:8]):
        download(URL, path, sha256[:8])
    assert not list(path.parent.iterdir())
    server.files[URL] = b"whole"
    assert download(URL, path, sha256).read_bytes() == b"whole"
    assert download(URL, path) == path and len(server.asked) == 3


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
DAMAGED = [*CUT, flipped(zipped(NOISE), 5000), flipped(tar(FILES), -6), b"<html>"]


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
    asked = len(server.asked)
    assert not [*(tmp_path / "fetching").iterdir()]
    assert fetch.fetch_pictures(name, tmp_path) == folder and len(server.asked) == asked
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
    assert server.asked == [] and (tmp_path / "fetching" / "eurosat" / "unpacked").exists()


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
