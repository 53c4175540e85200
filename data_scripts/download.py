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

CHUNK = 64 * 1024  # bytes read at a time; at most this much of a connection that breaks is lost
PATIENCE = 30.0  # seconds without a byte after which a connection counts as broken
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
)


def download(url: str, path: Path, sha256: str = "") -> Path:
    """Fetch a file, or go on with it; it appears at ``path`` when it is whole and verified.

    Until then it is ``NAME.part``, which the next call continues by HTTP ``Range``. A file that is
    at ``path`` already is verified and left alone.

    Args:
        sha256: its first digits at least; nothing is compared where that is empty.

    Raises:
        SerialLoRAError: it cannot be had, or is not the expected file; nothing is at ``path`` then.
    """
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _verify(path, sha256)
    while not path.exists():
        before = part.stat().st_size if part.exists() else 0
        try:
            _bring_the_rest(url, part, before)
        except requests.RequestException as error:
            if part.exists() and part.stat().st_size > before:
                continue  # the connection broke, but had brought something
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
    return path


def _bring_the_rest(url: str, part: Path, start: int) -> None:
    """Append to ``part`` what it lacks.

    Raises:
        requests.RequestException: the server does not answer, or stopped before the end.
    """
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file, not a packed copy
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        if answer.status_code == 416:  # not a byte is missing
            return
        answer.raise_for_status()
        start = start if answer.status_code == 206 else 0
        total = start + int(answer.headers.get("Content-Length", 0))
        bar = tqdm(
            desc=part.stem,
            initial=start,
            total=total or None,  # what is packed while it is sent has no length
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with open(part, "ab" if start else "wb") as file, bar:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if part.stat().st_size < total:
        raise requests.ConnectionError("the connection ended early")


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
        raise SerialLoRAError(
            f"{archive} is damaged, not complete, or no archive ({error}); delete it and run the "
            "same command again to download it anew."
        ) from error
