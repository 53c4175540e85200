"""Files from the network, resumed and verified; archives, unpacked inside their folder or not at all."""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import requests
from tqdm import tqdm

from serial_lora.errors import SerialLoRAError

CHUNK = 64 * 1024  # bytes read at a time; at most this much of a connection that breaks is lost
PATIENCE = 30.0  # seconds without a byte after which a connection counts as broken
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


@contextmanager
def disk_told(place: Path) -> Iterator[None]:
    """What a full or forbidden disk raises, in one sentence."""
    try:
        yield
    except requests.RequestException:  # an OSError too, and not the disk's
        raise
    except OSError as error:
        raise SerialLoRAError(
            f"{place} cannot be written ({error.strerror or error}); free some space, or choose "
            "another folder with --root or SERIAL_LORA_DATA, and run the same command again."
        ) from error


def download(url: str, path: Path, sha256: str = "", quiet: bool = False) -> Path:
    """Fetch a file, or go on with it; it appears at ``path`` when it is whole and verified.

    Until then it is ``NAME.part``, which the next call continues by HTTP ``Range``, if the server
    says that its file is still the same (``If-Range``, RFC 9110, section 13.1.5). A file that is
    at ``path`` already is verified and left alone.

    Args:
        sha256: its first digits at least; nothing is compared where that is empty.

    Raises:
        SerialLoRAError: it cannot be had, or is not the expected file; nothing is at ``path`` then.
    """
    if path.exists():
        _verify(path, sha256)
        return path
    part = path.with_name(f"{path.name}.part")
    with disk_told(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    before = -1
    while True:
        try:
            _bring_the_rest(url, part, quiet)
            break
        except requests.RequestException as error:
            came = part.stat().st_size if part.exists() else 0
            if came > before and came:  # the connection broke, but had brought something
                before = came
                continue
            reason = getattr(error.response, "status_code", None) or type(error).__name__
            raise SerialLoRAError(
                f"{path.name} cannot be had from {url} ({reason}); run the same command again "
                f"later, and it goes on where it stopped, or put the file at {path} by hand."
            ) from error
    try:
        _verify(part, sha256)
    except SerialLoRAError:
        part.unlink()
        raise
    os.replace(part, path)
    _version_of(part).unlink(missing_ok=True)
    return path


def _bring_the_rest(url: str, part: Path, quiet: bool) -> None:
    """Append to ``part`` what it lacks.

    Raises:
        requests.RequestException: the server does not answer, or stopped before the end.
    """
    version = _version_of(part)
    start = part.stat().st_size if part.exists() and version.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file, not a packed copy
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        if answer.status_code == 416:  # not a byte is missing, or there are too many
            if answer.headers.get("Content-Range", "").endswith(f"/{start}"):
                return
            part.unlink()
        answer.raise_for_status()
        start = start if answer.status_code == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        with disk_told(part), open(part, "ab" if start else "wb") as file:
            etag = answer.headers.get("ETag", "W/")
            same = answer.headers.get("Last-Modified") if etag.startswith("W/") else etag
            version.write_text(same) if same else version.unlink(missing_ok=True)
            with tqdm(
                desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=quiet
            ) as bar:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise requests.ConnectionError("the connection ended early")


def _version_of(part: Path) -> Path:
    """The file that keeps the server's name for the version that a partial file is of."""
    return part.with_name(f"{part.name}.version")


def _verify(path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while sha256 and (chunk := file.read(2**20)):
            digest.update(chunk)
    if not digest.hexdigest().startswith(sha256) and sha256:
        raise SerialLoRAError(
            f"{path.name.removesuffix('.part')} is not the expected file: its SHA-256 is "
            f"{digest.hexdigest()} and should begin with {sha256}; if it was put at {path} by "
            "hand, move it away, and run the same command again."
        )


# --- archives ------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path, password: str | None = None) -> None:
    """Unpack a zip or tar file, recognised by its content.

    A path that leaves the folder is refused, and so is whatever is neither file nor folder: no
    data set here needs a link, and links are how archives get out of their folder.

    Raises:
        SerialLoRAError: the archive is damaged, unsafe, or locked with another password. What was
            unpacked before stays, so unpack into a folder that is nobody's yet.
    """
    try:
        with disk_told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if zipfile.is_zipfile(archive):
                _unzip(archive, folder, password)
            else:
                _untar(archive, folder)
    except DAMAGED as error:
        raise SerialLoRAError(
            f"{archive} is damaged, not complete, or no archive ({error}); delete it and run the "
            "same command again to download it anew."
        ) from error


def _unzip(archive: Path, folder: Path, password: str | None) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = [m for m in opened.infolist() if m.filename != "/"]  # Dropbox lists the folder
        for member in members:
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            _refuse_unsafe(archive, member.orig_filename, is_link)
        opened.setpassword(password.encode() if password else None)
        try:
            for member in members:
                opened.extract(member, folder)
        except (RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            if not any(member.flag_bits & 0x1 for member in members):
                raise zipfile.BadZipFile(str(error)) from error
            raise SerialLoRAError(
                f"{archive} is locked and does not open with this password ({error}); give the one "
                "that its publisher prints with --password, or unpack it by hand."
            ) from error


def _untar(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                _refuse_unsafe(archive, member.name, not (member.isreg() or member.isdir()))
                opened.extract(member, folder)
            while opened.fileobj.read(2**20):  # checksums come after the end of the tar
                pass
    except OSError as error:
        if error.errno is None:  # gzip's complaints are OSErrors without a number
            raise tarfile.ReadError(str(error)) from error
        raise


def _refuse_unsafe(archive: Path, name: str, odd: bool) -> None:
    """Refuse what is neither file nor folder, or would leave the folder on any system."""
    posix, windows = PurePosixPath(name.replace("\\", "/")), PureWindowsPath(name)
    if odd or posix.is_absolute() or windows.drive or ".." in posix.parts:
        raise SerialLoRAError(
            f"{archive} is not safe to unpack: {name!r} is a link, or would be written outside the "
            "folder; delete the file and fetch it from its official source."
        )
