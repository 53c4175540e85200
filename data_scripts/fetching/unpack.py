"""Archives: unpacked whole, inside their folder, or not at all."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from data_scripts.fetching.disk import disk_errors, progress_bar, require_space
from serial_lora.errors import SerialLoRAError

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
)
Tick = Callable[[int], None]


def extract(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    password: str | None = None,
    progress: bool = True,
) -> Path:
    """Unpack a zip or tar file into a new folder, all of it or nothing.

    The members go to a hidden folder beside ``folder``, which gets its name when the last is
    there. A path that leaves the folder is refused, and so is whatever is neither file nor folder:
    no published data set here needs a link, and links are how archives get out of their folder.

    Args:
        archive: a zip file or a tar file (plain, gz, bz2 or xz), recognised by its content.
        folder: the folder to make; it must not exist.
        password: of a locked zip file; one that is not locked needs none and minds none.
        progress: show a progress bar on standard error.

    Raises:
        SerialLoRAError: the archive is damaged, unsafe or locked with another password, the
            folder exists, or the disk is full.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise SerialLoRAError(f"{folder} exists already; remove it to unpack {archive.name} anew.")
    if not archive.is_file():
        raise SerialLoRAError(f"there is no archive at {archive}.")
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        with disk_errors(folder):
            temporary.mkdir(parents=True)
            if zipfile.is_zipfile(archive):
                _unzip(archive, temporary, password, progress)
            else:
                _untar(archive, temporary, progress)
            os.replace(temporary, folder)
    except DAMAGED as error:
        raise SerialLoRAError(
            f"{archive} is damaged or not complete ({error}); delete it and run the same command "
            "again to download it anew."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _unzip(archive: Path, folder: Path, password: str | None, progress: bool) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = [m for m in opened.infolist() if m.filename != "/"]  # Dropbox lists the folder
        for member in members:
            plain = not stat.S_ISLNK(member.external_attr >> 16)
            _refuse_unsafe(archive, member.orig_filename, plain)
        locked = [member for member in members if member.flag_bits & 0x1 and member.file_size]
        if locked:
            _unlock(opened, min(locked, key=lambda member: member.file_size), password)
        total = sum(member.file_size for member in members)
        require_space(folder, total, f"unpacking {archive.name}")
        with progress_bar(f"unpacking {archive.name}", total, 0, progress) as tick:
            for member in members:
                opened.extract(member, folder)
                tick(member.file_size)


def _unlock(opened: zipfile.ZipFile, member: zipfile.ZipInfo, password: str | None) -> None:
    """Set the password, and read one member with it so that a wrong one is told from damage."""
    if password is None:
        raise SerialLoRAError(
            f"{opened.filename} is locked with a password; give the one that its publisher prints "
            "with --password, or unpack it by hand."
        )
    opened.setpassword(password.encode())
    try:
        opened.read(member)
    except (RuntimeError, *DAMAGED) as error:  # of 256 wrong passwords one passes for right
        raise SerialLoRAError(
            f"{opened.filename} does not open with this password ({error}); check it at its "
            "publisher's, or unpack the file by hand."
        ) from error


def _untar(archive: Path, folder: Path, progress: bool) -> None:
    require_space(folder, archive.stat().st_size, f"unpacking {archive.name}")
    # A second line of defence, where this version of Python has it.
    filtered = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        with (
            tarfile.open(archive) as opened,
            progress_bar(f"unpacking {archive.name}", None, 0, progress) as tick,
        ):
            for member in opened:
                _refuse_unsafe(archive, member.name, member.isreg() or member.isdir())
                opened.extract(member, folder, **filtered)
                tick(member.size)
            # tarfile stops at the end of the tar; gzip's and xz's checksums come after it.
            while opened.fileobj.read(2**20):
                pass
    except OSError as error:
        if error.errno is None:  # gzip's complaints are OSErrors without a number
            raise tarfile.ReadError(str(error)) from error
        raise


def _refuse_unsafe(archive: Path, name: str, plain: bool) -> None:
    """Refuse what is neither file nor folder, or would leave the folder on any system."""
    posix, windows = PurePosixPath(name.replace("\\", "/")), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or ".." in posix.parts:
        problem = "would be written outside the folder"
    elif not plain:
        problem = "is a link or a device"
    else:
        return
    raise SerialLoRAError(
        f"{archive} is not safe to unpack: its member {name!r} {problem}; nothing was kept, so "
        "delete the file and fetch it from its official source."
    )
