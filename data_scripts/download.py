"""Files from the network by PyTorch's own download; archives, unpacked inside their folder or not at all."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path

from torch.hub import download_url_to_file

from serial_lora.errors import SerialLoRAError

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
)


def download(url: str, path: Path, sha256: str = "") -> Path:
    """Fetch a file, which appears at the end; one that is there already is left alone.

    Args:
        sha256: its first digits at least; nothing is compared where that is empty.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(url, str(path), sha256 or None)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        raise SerialLoRAError(
            f"{path.name} cannot be had from {url} ({error}); run the same command again later, or "
            f"put the file at {path} by hand."
        ) from error
    return path


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
