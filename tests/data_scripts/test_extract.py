"""Archives: unpacked as a whole, inside their folder, or not at all."""

import errno
import io
import os
import stat
import tarfile
import zipfile

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import download as module
from serial_lora_course.data.download import extract
from tests.data_scripts.official_archives import locked_zip_bytes, tar_bytes, zip_bytes

FILES = {"pets/cat.txt": b"miaow", "pets/dogs/dog.txt": b"woof", "readme": b""}


def tar_with(*infos):
    """A tar whose members are given as TarInfo (links, devices) or name -> bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for info in infos:
            if isinstance(info, str):
                member = tarfile.TarInfo(info)
                member.size = 3
                archive.addfile(member, io.BytesIO(b"xyz"))
            else:
                archive.addfile(info)
    return stream.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def put(tmp_path, content):
    (tmp_path / "box").mkdir(exist_ok=True)
    path = tmp_path / "box" / "archive"
    path.write_bytes(content)
    return path


def assert_only_the_archive(tmp_path):
    found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert sorted(found) == ["box", "box/archive"]


@pytest.mark.parametrize(
    "content",
    [
        zip_bytes(FILES),
        tar_bytes(FILES, "w"),
        tar_bytes(FILES, "w:gz"),
        tar_bytes(FILES, "w:bz2"),
        tar_bytes(FILES, "w:xz"),
    ],
    ids=["zip", "tar", "gz", "bz2", "xz"],
)
def test_every_kind_unpacks(tmp_path, content):
    folder = extract(put(tmp_path, content), tmp_path / "box" / "out", progress=False)
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert sorted(path.name for path in folder.parent.iterdir()) == ["archive", "out"]


def test_links_inside_the_folder_are_fine(tmp_path):
    content = tar_with(
        "pets/cat.txt",
        link("pets/same.txt", "cat.txt"),
        link("hard.txt", "pets/cat.txt", tarfile.LNKTYPE),
    )
    folder = extract(put(tmp_path, content), tmp_path / "box" / "out", progress=False)
    assert (folder / "pets/same.txt").read_bytes() == b"xyz"
    assert (folder / "hard.txt").read_bytes() == b"xyz"


def zip_link(name, target):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return stream.getvalue()


fifo = tarfile.TarInfo("pipe")
fifo.type = tarfile.FIFOTYPE

UNSAFE = {
    "tar ..": tar_with("good.txt", "../evil.txt"),
    "tar .. inside": tar_with("good.txt", "a/b/../../../evil.txt"),
    "tar absolute": tar_with("good.txt", "/tmp/evil.txt"),
    "zip ..": zip_bytes({"good.txt": b"x", "../evil.txt": b"x"}),
    "zip absolute": zip_bytes({"good.txt": b"x", "/tmp/evil.txt": b"x"}),
    "zip backslash": zip_bytes({"good.txt": b"x", "..\\evil.txt": b"x"}),
    "zip drive": zip_bytes({"good.txt": b"x", "C:/evil.txt": b"x"}),
    "zip symlink": zip_link("link", "../../secret"),
    "symlink": tar_with("good.txt", link("link", "../secret")),
    "symlink deep": tar_with("good.txt", link("a/link", "../../secret")),
    "symlink absolute": tar_with("good.txt", link("link", "/etc/passwd")),
    "hardlink": tar_with("good.txt", link("link", "../secret", tarfile.LNKTYPE)),
    "through a link": tar_with(link("a", "."), "a/evil.txt"),
    "over a link": tar_with(link("a", "b"), "a"),
    "chain of links": tar_with(
        "sub/deep/good.txt", link("sub/deep/up", "../.."), link("sub/deep/up/out", "../")
    ),
    "device": tar_with("good.txt", fifo),
}


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE.keys())
def test_unsafe_members_are_refused_before_anything_is_written(tmp_path, content, monkeypatch):
    monkeypatch.setattr(module, "_unpack", lambda *arguments: pytest.fail("it began to unpack"))
    with pytest.raises(SerialLoRAError, match="not safe to unpack.*nothing was unpacked"):
        extract(put(tmp_path, content), tmp_path / "box" / "out", progress=False)
    assert_only_the_archive(tmp_path)


DAMAGED = {
    "half a tar.gz": tar_bytes({"a": os.urandom(50_000)})[:30_000],
    "half a tar": tar_bytes({"a": os.urandom(50_000)}, "w")[:30_000],
    "half a zip": zip_bytes({"a": os.urandom(50_000)})[:30_000],
    "half a tar.xz": tar_bytes({"a": os.urandom(50_000)}, "w:xz")[:30_000],
    "a web page": b"<html>Please log in</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_archives_leave_nothing(tmp_path, content):
    with pytest.raises(SerialLoRAError, match="damaged or not complete.*download it anew"):
        extract(put(tmp_path, content), tmp_path / "box" / "out", progress=False)
    assert_only_the_archive(tmp_path)


def test_a_flipped_byte_in_a_zip_is_seen(tmp_path):
    content = bytearray(zip_bytes({"a": bytes(1000), "b": bytes(1000)}))
    content[content.index(bytes(500)) + 10] ^= 1
    with pytest.raises(SerialLoRAError, match="damaged"):
        extract(put(tmp_path, bytes(content)), tmp_path / "box" / "out", progress=False)
    assert_only_the_archive(tmp_path)


def test_a_flipped_byte_in_a_gzip_is_seen(tmp_path):
    content = bytearray(tar_bytes({"a": os.urandom(20_000)}))
    content[10_000] ^= 1
    with pytest.raises(SerialLoRAError, match="damaged"):
        extract(put(tmp_path, bytes(content)), tmp_path / "box" / "out", progress=False)
    assert_only_the_archive(tmp_path)


def test_a_locked_zip_opens_with_its_password(tmp_path):
    archive = put(tmp_path, locked_zip_bytes(FILES, "pässword"))
    folder = extract(archive, tmp_path / "box" / "out", password="pässword", progress=False)
    assert (folder / "pets/cat.txt").read_bytes() == b"miaow"
    assert (folder / "readme").read_bytes() == b""


def test_a_locked_zip_without_its_password_says_so(tmp_path):
    """One wrong password of 256 passes the format's own check; what it unlocks tells then."""
    archive = put(tmp_path, locked_zip_bytes(FILES, "right"))
    for password in [None, "", *map(str, range(600))]:
        with pytest.raises(SerialLoRAError, match="password.*unpack .*by hand"):
            extract(archive, tmp_path / "box" / "out", password=password, progress=False)
    assert_only_the_archive(tmp_path)


def test_a_password_does_no_harm_where_none_is_needed(tmp_path):
    archive = put(tmp_path, zip_bytes(FILES))
    extract(archive, tmp_path / "box" / "out", password="any", progress=False)
    assert (tmp_path / "box" / "out" / "pets" / "dogs" / "dog.txt").read_bytes() == b"woof"


def test_the_folder_itself_may_be_listed_as_dropbox_does(tmp_path):
    archive = put(tmp_path, zip_bytes({"/": b"", **FILES}))
    folder = extract(archive, tmp_path / "box" / "out", progress=False)
    assert sorted(path.name for path in folder.iterdir()) == ["pets", "readme"]


@pytest.mark.parametrize("content", [zip_bytes(FILES), tar_bytes(FILES)], ids=["zip", "tar"])
def test_no_space_left_while_unpacking(tmp_path, content, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    monkeypatch.setattr(tarfile, "copyfileobj", full)
    with pytest.raises(SerialLoRAError, match="no space is left"):
        extract(put(tmp_path, content), tmp_path / "box" / "out", progress=False)
    assert_only_the_archive(tmp_path)


def test_too_little_space_is_seen_before_unpacking(tmp_path, monkeypatch):
    usage = type(module.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(9, 5, 4))
    with pytest.raises(SerialLoRAError, match="needs 9 bytes but only 4 bytes are free"):
        extract(put(tmp_path, tar_bytes(FILES)), tmp_path / "box" / "out", progress=False)
    assert_only_the_archive(tmp_path)


def test_an_interrupted_run_leaves_nothing_and_a_killed_one_is_cleaned_up(tmp_path, monkeypatch):
    archive = put(tmp_path, tar_bytes(FILES))

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "_unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(archive, tmp_path / "box" / "out", progress=False)
    assert_only_the_archive(tmp_path)

    left = tmp_path / "box" / ".out.unpacking"
    left.mkdir()
    (left / "half").write_text("of a killed run")
    folder = extract(archive, tmp_path / "box" / "out", progress=False)
    assert not (folder / "half").exists() and not left.exists()


def test_a_folder_that_exists_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(SerialLoRAError, match="exists already"):
        extract(put(tmp_path, tar_bytes(FILES)), tmp_path / "out", progress=False)
    assert os.listdir(tmp_path / "out") == ["mine"]


def test_a_missing_archive_is_told(tmp_path):
    with pytest.raises(SerialLoRAError, match="no archive at"):
        extract(tmp_path / "none.zip", tmp_path / "out", progress=False)
