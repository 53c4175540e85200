"""Archives: unpacked as a whole, inside their folder, or not at all."""

import errno
import io
import os
import stat
import tarfile
import zipfile

import pytest

from data_scripts.fetching import disk
from data_scripts.fetching.unpack import extract
from serial_lora.errors import SerialLoRAError
from tests.data_scripts.official_archives import locked_zip_bytes, tar_bytes, zip_bytes

FILES = {"pets/cat.txt": b"miaow", "pets/dogs/dog.txt": b"woof", "readme": b""}
KINDS = {
    "zip": zip_bytes(FILES),
    "tar": tar_bytes(FILES, "w"),
    "gz": tar_bytes(FILES, "w:gz"),
    "bz2": tar_bytes(FILES, "w:bz2"),
    "xz": tar_bytes(FILES, "w:xz"),
    "locked zip": locked_zip_bytes(FILES, "pässword"),
    "zip from Dropbox": zip_bytes({"/": b"", **FILES}),
}


def unpacked(tmp_path, content, password=None):
    """Unpack bytes; the folder that they went to."""
    (tmp_path / "box").mkdir(exist_ok=True)
    (tmp_path / "box" / "archive").write_bytes(content)
    return extract(
        tmp_path / "box" / "archive", tmp_path / "box" / "out", password=password, progress=False
    )


def assert_only_the_archive(tmp_path):
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert sorted(found) == ["box", "box/archive"]


@pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)
def test_every_kind_unpacks_whatever_a_password_does(tmp_path, content):
    left = tmp_path / "box" / ".out.unpacking"
    left.mkdir(parents=True)
    (left / "half").write_text("of a killed run")
    folder = unpacked(tmp_path, content, password="pässword")
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert sorted(path.name for path in folder.parent.iterdir()) == ["archive", "out"]


# --- what would leave the folder -----------------------------------------------------------------


def tar_with(*members):
    """A tar of files (by name) and of links and devices (as TarInfo)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = 3 if isinstance(member, str) else 0
            archive.addfile(info, io.BytesIO(b"xyz"))
    return stream.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name, target):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return stream.getvalue()


UNSAFE = {
    "tar ..": tar_with("good.txt", "../evil.txt"),
    "tar .. inside": tar_with("good.txt", "a/b/../../../evil.txt"),
    "tar absolute": tar_with("good.txt", "/tmp/evil.txt"),
    "zip ..": zip_bytes({"good.txt": b"x", "../evil.txt": b"x"}),
    "zip absolute": zip_bytes({"good.txt": b"x", "/tmp/evil.txt": b"x"}),
    "zip backslash": zip_bytes({"good.txt": b"x", "..\\evil.txt": b"x"}),
    "zip drive": zip_bytes({"good.txt": b"x", "C:/evil.txt": b"x"}),
    "zip link": zip_link("link", "../../secret"),
    "link": tar_with("good.txt", special("link", tarfile.SYMTYPE, "../secret")),
    "hard link": tar_with("good.txt", special("link", tarfile.LNKTYPE, "../secret")),
    "through a link": tar_with(special("a", tarfile.SYMTYPE, ".."), "a/evil.txt"),
    "device": tar_with("good.txt", special("pipe", tarfile.FIFOTYPE)),
}


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE)
def test_unsafe_members_are_refused_and_nothing_stays(tmp_path, content):
    with pytest.raises(SerialLoRAError, match="not safe to unpack"):
        unpacked(tmp_path, content)
    assert_only_the_archive(tmp_path)


# --- damage, passwords, disks --------------------------------------------------------------------


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


NOISE = {"a": os.urandom(50_000)}
PLAIN_ZIP = zip_bytes({"a": bytes(1000), "b": bytes(1000)})
DAMAGED = {
    "half a tar.gz": tar_bytes(NOISE)[:30_000],
    "half a tar": tar_bytes(NOISE, "w")[:30_000],
    "half a zip": zip_bytes(NOISE)[:30_000],
    "half a tar.xz": tar_bytes(NOISE, "w:xz")[:30_000],
    "a flipped bit in a zip": flipped(PLAIN_ZIP, PLAIN_ZIP.index(bytes(500)) + 10),
    "a flipped bit in a gzip": flipped(tar_bytes(NOISE), 10_000),
    "a web page": b"<html>Please log in</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_archives_leave_nothing(tmp_path, content):
    with pytest.raises(SerialLoRAError, match="damaged or not complete"):
        unpacked(tmp_path, content)
    assert_only_the_archive(tmp_path)


def passes(archive, password):
    """Whether the format's own check lets a password through."""
    try:
        archive.open("pets/dogs/dog.txt", pwd=password.encode()).close()
    except RuntimeError:
        return False
    return True


def test_a_locked_zip_without_its_password_says_so(tmp_path):
    """One wrong password of 256 passes the format's own check; what it unlocks tells then."""
    locked = locked_zip_bytes(FILES, "right")
    with zipfile.ZipFile(io.BytesIO(locked)) as archive:
        passing = next(p for p in map(str, range(10_000)) if passes(archive, p))
    for password in (None, "", "wrong", passing):
        with pytest.raises(SerialLoRAError, match="password"):
            unpacked(tmp_path, locked, password)
    assert_only_the_archive(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_no_space_left_while_unpacking(tmp_path, kind, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module in (zipfile.shutil, tarfile):
        monkeypatch.setattr(module, "copyfileobj", full)
    with pytest.raises(SerialLoRAError, match="no space is left"):
        unpacked(tmp_path, KINDS[kind])
    assert_only_the_archive(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_too_little_space_is_seen_before_unpacking(tmp_path, kind, monkeypatch):
    usage = type(disk.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(9, 5, 4))
    with pytest.raises(SerialLoRAError, match="only 4 bytes are free"):
        unpacked(tmp_path, KINDS[kind])
    assert_only_the_archive(tmp_path)


def test_folders_that_exist_and_archives_that_do_not(tmp_path):
    (tmp_path / "box" / "out").mkdir(parents=True)
    (tmp_path / "box" / "out" / "mine").write_text("keep")
    with pytest.raises(SerialLoRAError, match="exists already"):
        unpacked(tmp_path, KINDS["zip"])
    assert os.listdir(tmp_path / "box" / "out") == ["mine"]
    with pytest.raises(SerialLoRAError, match="no archive at"):
        extract(tmp_path / "none.zip", tmp_path / "out", progress=False)
