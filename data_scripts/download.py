"""Files from the network, resumed and verified; archives, unpacked inside their folder or not at all."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from pathlib import Path

import requests
from tqdm import tqdm

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import alone

CHUNK = 64 * 1024  # bytes read at a time; at most this much of a connection that breaks is lost
UNFINISHED = (".part", ".part.version")  # of a file that is being fetched
PATIENCE = 30.0  # seconds without a byte after which a connection counts as broken
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    IndexError,  # of a member without a name
    ValueError,  # the same, in later versions of Python
)


def download(url: str, path: Path, sha256: str = "") -> Path:
    """Fetch a file, or go on with it; it appears at ``path`` when it is whole and verified.

    Until then it is ``NAME.part``, which the next call continues by HTTP ``Range`` where the server has
    the same version of it still (``NAME.part.version`` keeps its ETag or date). A file that is at
    ``path`` already is verified and left alone.

    Args:
        sha256: its first digits at least; nothing is compared where that is empty.

    Raises:
        SerialLoRAError: it cannot be had, is not the expected file, or another process is fetching it;
            nothing appears at ``path`` then.
    """
    part, version = (path.with_name(f"{path.name}{ending}") for ending in UNFINISHED)
    path.parent.mkdir(parents=True, exist_ok=True)
    for place in (path, part, version):
        if place.exists() and not place.is_file():  # a pipe would be waited for
            raise SerialLoRAError(f"{place} is no file; move it away.")
    told = f"another process is fetching {path}; run the same command again when that has ended."
    with alone(path.with_name(f".{path.name}.lock"), told):
        if path.exists():
            _verify(path, sha256)
        while not path.exists():
            before = part.stat().st_size if part.exists() else 0
            try:
                _bring_the_rest(url, part, version)
            except (requests.RequestException, ValueError) as error:
                if part.exists() and part.stat().st_size > before:
                    continue  # the connection broke, but had brought something
                answer = getattr(error, "response", None)
                reason = type(error).__name__ if answer is None else answer.status_code
                raise SerialLoRAError(
                    f"{path.name} cannot be had from {url} ({reason}); run the same command again "
                    f"later, and it goes on where it stopped, or put the file at {path} by hand."
                ) from error
            version.unlink(missing_ok=True)
            try:
                _verify(part, sha256)
            except SerialLoRAError:
                part.unlink()
                raise
            os.replace(part, path)
    return path


def _bring_the_rest(url: str, part: Path, version: Path) -> None:
    """Append to ``part`` what it lacks, or bring all of it where the server has another version.

    Raises:
        requests.RequestException: the server does not answer, or not with this, or stopped early.
        ValueError: what it says of a length is no number.
    """
    known = version.read_text("latin-1") if version.exists() else ""
    start = part.stat().st_size if known and part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file, not a packed copy
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known}
    with requests.get(url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        status, place = answer.status_code, answer.headers.get("Content-Range", "")
        if start and status == 416 and place == f"bytes */{start}":
            return  # not a byte is missing
        same = _version(answer) in ("", known)  # some send the rest of whatever they have
        goes_on = status == 206 and same and place.startswith(f"bytes {start}-")
        if status in (206, 416) and not goes_on:  # it does not belong behind what is there
            if not start:
                raise requests.RequestException("no part was asked for", response=answer)
            part.unlink()
            return _bring_the_rest(url, part, version)
        answer.raise_for_status()
        total = _total(answer)
        if not goes_on:
            start = 0
            part.unlink(missing_ok=True)  # not a moment beside the version of another
            version.write_text(_version(answer), "latin-1")
        bar = tqdm(
            desc=part.stem,
            initial=start,
            total=total,
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with open(part, "ab") as file, bar:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size > total:
        part.unlink()
    if total is not None and size != total:
        raise requests.ConnectionError(f"{size} bytes of {total} came")


def _total(answer: requests.Response) -> int | None:
    """Bytes of the whole file; None where nobody says, or it is packed while it is sent."""
    place, length = (answer.headers.get(f"Content-{name}", "") for name in ("Range", "Length"))
    said = place.rpartition("/")[2] if answer.status_code == 206 else length
    return None if said in ("", "*") or _is_packed(answer) else int(said)


def _version(answer: requests.Response) -> str:
    """What tells this version of the file from others, byte for byte; empty where nothing does."""
    tag = answer.headers.get("ETag", "")
    if _is_packed(answer):
        return ""
    return answer.headers.get("Last-Modified", "") if tag[:2] in ("", "W/") else tag


def _is_packed(answer: requests.Response) -> bool:
    return answer.headers.get("Content-Encoding", "identity") != "identity"


def _verify(path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while sha256 and (chunk := file.read(2**20)):
            digest.update(chunk)
    if sha256 and not digest.hexdigest().startswith(sha256):
        raise SerialLoRAError(
            f"{path.name.removesuffix('.part')} is not the expected file: its SHA-256 is "
            f"{digest.hexdigest()} and should begin with {sha256}; if it was put at {path} by "
            "hand, move it away, and run the same command again."
        )


def unpack(archive: Path, folder: Path, password: str | None = None) -> None:
    """Unpack a zip or tar file, recognised by its content; nothing is written outside the folder.

    Raises:
        SerialLoRAError: the archive is damaged, leads out of the folder, or is locked with another
            password. What was unpacked before stays, so unpack into a folder that is nobody's yet.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder, pwd=password.encode() if password else None)
            return
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
            while packed.fileobj.read(2**20):  # checksums come after the end of the tar
                pass
    except RuntimeError as error:
        raise SerialLoRAError(
            f"{archive} is locked and does not open with this password ({error}); give the one "
            "that its publisher prints with --password, or unpack it by hand."
        ) from error
    except DAMAGED as error:
        reason = str(error).partition("\n")[0]  # a list of what was tried follows
        raise SerialLoRAError(
            f"{archive} is damaged, not complete, or no archive ({reason}); delete it and run the "
            "same command again to download it anew."
        ) from error
