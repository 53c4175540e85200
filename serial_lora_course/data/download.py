"""Files that come over the network: fetched, resumed, verified, unpacked, or not there at all.

Three promises, each a test:

* A file appears under its final name only when its size and hash are right (one atomic rename).
  Until then it is ``NAME.part``, which the next run continues with an HTTP ``Range`` request.
* An archive becomes a folder only as a whole; a member that would land outside the folder is
  refused before anything is written.
* Whatever goes wrong is one :class:`~serial_lora.errors.SerialLoRAError` that says what to do,
  the steps by hand included.
"""

from __future__ import annotations

import errno
import json
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import write_json

#: Bytes read at a time. At most this much of a connection that breaks is lost.
CHUNK_SIZE = 64 * 1024
NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds every downloaded or built data set; it need not exist yet.

    ``root`` if given, else the environment variable ``SERIAL_LORA_DATA``, else the user's data
    folder of this platform (``~/.local/share/serial-lora`` on Linux).
    """
    chosen = root or os.environ.get("SERIAL_LORA_DATA")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("serial-lora", appauthor=False))


# --- what a file should be -----------------------------------------------------------------------


@dataclass(frozen=True)
class FileFacts:
    """What is known about a file: its size in bytes and its hashes in hex; ``None`` is unknown."""

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileFacts:
        """Size and SHA-256 of a file that is there."""
        import pooch

        return cls(size=Path(path).stat().st_size, sha256=pooch.file_hash(str(path), "sha256"))

    def known(self) -> dict[str, int | str]:
        """The facts that are known, as a dictionary for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def mismatch(self, path: str | os.PathLike[str]) -> str | None:
        """How the file differs from these facts, in words, or ``None`` when it does not."""
        import pooch

        size = Path(path).stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes where {self.size} are expected"
        for algorithm in ("sha256", "md5"):
            expected = getattr(self, algorithm)
            if expected is None:
                continue
            found = pooch.file_hash(str(path), algorithm)
            if found != expected.lower():
                return f"its {algorithm} is {found} where {expected} is expected"
        return None


# --- fetching ------------------------------------------------------------------------------------


class SourceError(SerialLoRAError):
    """One address did not give the file; another one may."""


class Interrupted(SourceError):
    """The connection ended before the file did; what came is kept in the ``.part`` file."""


class ResumingDownloader:
    """A downloader in pooch's calling convention that goes on where a broken one stopped.

    pooch's own ``HTTPDownloader`` starts from zero each time. This one continues ``output_file``
    if a file of that name exists and was begun from the same address, asking for the rest with
    ``Range`` and ``If-Range`` (RFC 9110, sections 13.1.5 and 14.2), so that a file which changed
    on the server in between is fetched anew instead of being glued together.

    Args:
        progress: show a progress bar on standard error.
        timeout: seconds without a byte after which a connection counts as broken.
        attempts: how often a broken connection is taken up again within one call, as long as each
            attempt brought something.
        expected_size: bytes the file should have; an address that announces another size is
            refused before its first byte is written.
    """

    def __init__(
        self,
        progress: bool = True,
        timeout: float = 30.0,
        attempts: int = 3,
        expected_size: int | None = None,
    ) -> None:
        self.progress = progress
        self.timeout = timeout
        self.attempts = attempts
        self.expected_size = expected_size

    def __call__(self, url: str, output_file: str | os.PathLike[str], pooch: Any = None) -> None:
        """Fetch ``url`` into ``output_file``.

        Raises:
            SourceError: the address cannot be reached, says no, or stops early.
            SerialLoRAError: the disk is full.
        """
        path = Path(output_file)
        for attempt in range(1, self.attempts + 1):
            before = _size(path)
            try:
                self._fetch(url, path)
                _state_path(path).unlink(missing_ok=True)
                return
            except Interrupted:
                if attempt == self.attempts or _size(path) <= before:
                    raise

    def _fetch(self, url: str, path: Path) -> None:
        import requests

        headers = {"Accept-Encoding": "identity"}  # the bytes of the file, not a packed copy
        state = _read_state(path)
        start = _size(path) if state.get("url") == url else 0
        if start:
            headers["Range"] = f"bytes={start}-"
            if state.get("validator"):
                headers["If-Range"] = state["validator"]
        writing = False
        try:
            with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
                if response.status_code == 416 and _total(response) == start:
                    return  # nothing is missing: the last run ended between the end and the check
                if response.status_code == 416:
                    path.unlink(missing_ok=True)  # longer than the file on the server: start anew
                    return self._fetch(url, path)
                if response.status_code not in (200, 206):
                    reason = f"the server answers {response.status_code} {response.reason}"
                    raise SourceError(reason.strip())
                continued = response.status_code == 206 and _range_start(response) == start
                if response.status_code == 206 and not continued:
                    raise SourceError("the server sends another part of the file than asked for")
                writing = True
                self._write(response, path, url, start if continued else 0)
        except requests.exceptions.SSLError as error:
            raise SourceError(f"the certificate of {_host(url)} is not accepted") from error
        except (
            requests.exceptions.MissingSchema,
            requests.exceptions.InvalidSchema,
            requests.exceptions.InvalidURL,
        ) as error:
            raise SourceError(f"{url!r} is not a web address (http:// or https://)") from error
        except requests.exceptions.RequestException as error:
            if writing:
                raise Interrupted(_broken(path, None)) from error
            raise SourceError(f"{_host(url)} cannot be reached (is there a network?)") from error

    def _write(self, response: Any, path: Path, url: str, start: int) -> None:
        total = _total(response)
        if self.expected_size is not None and total not in (None, self.expected_size):
            raise SourceError(
                f"the server announces {total} bytes where {self.expected_size} are expected"
            )
        if total is not None:
            require_space(path.parent, total - start, path.name.removesuffix(".part"))
        etag = response.headers.get("ETag", "")
        validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
        validator = validator or response.headers.get("Last-Modified")
        with _disk_errors(path):
            write_json(_state_path(path), {"url": url, "validator": validator})
            with (
                open(path, "ab" if start else "wb") as stream,
                _progress_bar(path.name.removesuffix(".part"), total, start, self.progress) as tick,
            ):
                for chunk in response.iter_content(CHUNK_SIZE):
                    stream.write(chunk)
                    tick(len(chunk))
        if total is not None and _size(path) < total:
            raise Interrupted(_broken(path, total))


def download(
    urls: str | Sequence[str],
    destination: str | os.PathLike[str],
    expected: FileFacts | None = None,
    *,
    progress: bool = True,
    attempts: int = 3,
    timeout: float = 30.0,
) -> Path:
    """Fetch a file from the first address that gives it, verify it, then let it appear.

    A file that is already at ``destination`` (fetched before, or put there by hand) is verified
    and left alone.

    Args:
        urls: one address, or several that offer the same file, tried in this order.
        destination: the final path; its folder is made.
        expected: size and hashes to hold the file against; unknown ones are not checked.
        progress: show a progress bar on standard error.
        attempts: see :class:`ResumingDownloader`.
        timeout: seconds without a byte after which a connection counts as broken.

    Returns:
        The path of the verified file.

    Raises:
        SerialLoRAError: no address gave the file, it differs from ``expected``, or the disk is
            full. Nothing is at ``destination`` then; a ``.part`` file stays only where the next
            run can go on with it.
    """
    addresses = [urls] if isinstance(urls, str) else list(urls)
    destination = Path(destination)
    expected = expected or FileFacts()
    if destination.exists():
        _refuse_wrong_file(destination, expected)
        return destination

    part = destination.with_name(destination.name + ".part")
    with _disk_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
    fetch = ResumingDownloader(progress, timeout, attempts, expected.size)
    failures = []
    for url in addresses:
        try:
            fetch(url, part)
            mismatch = expected.mismatch(part)
            if mismatch:
                part.unlink()
                raise SourceError(f"the file is not the expected one: {mismatch}")
            os.replace(part, destination)
            return destination
        except SourceError as error:
            failures.append(f"{url}: {error}")
    if _size(part) == 0:  # nothing came, so there is nothing to go on with
        part.unlink(missing_ok=True)
        _state_path(part).unlink(missing_ok=True)
    raise SerialLoRAError(
        f"{destination.name} could not be downloaded ({'; '.join(failures)}); run the same command "
        f"again later, or download the file by hand, put it at {destination} and run the same "
        "command again."
    )


def require_space(folder: str | os.PathLike[str], needed: int, what: str) -> None:
    """Raise unless ``needed`` bytes are free where ``folder`` is (or will be)."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise SerialLoRAError(
            f"{what} needs {_readable(needed)} but only {_readable(free)} are free at {existing}; "
            "free some space, or choose another disk with --root or SERIAL_LORA_DATA, and run the "
            "same command again."
        )


def _refuse_wrong_file(path: Path, expected: FileFacts) -> None:
    mismatch = expected.mismatch(path)
    if mismatch:
        raise SerialLoRAError(
            f"{path} is not the expected file: {mismatch}; move it away and run the same command "
            "again to download it, or put the right file in its place."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _state_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_state(path: Path) -> dict[str, Any]:
    """From which address the partial file came, and how the server named its version."""
    try:
        state = json.loads(_state_path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _total(response: Any) -> int | None:
    """The size of the whole file as the server states it, also in an answer to ``Range``."""
    if response.status_code in (206, 416):
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _range_start(response: Any) -> int | None:
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() else None


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _broken(path: Path, total: int | None) -> str:
    of_total = f" of {total}" if total is not None else ""
    return (
        f"the connection ended early, after {_size(path)}{of_total} bytes, which are kept in "
        f"{path.name} so that the next run goes on from there"
    )


def _readable(size: int) -> str:
    for unit, divisor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= divisor:
            return f"{size / divisor:.1f} {unit}"
    return f"{size} bytes"


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what a full or forbidden disk raises into a sentence."""
    try:
        yield
    except OSError as error:
        # requests' own errors are OSErrors too; those are the network's business.
        if type(error).__module__.startswith("requests"):
            raise
        if error.errno in NO_SPACE:
            raise SerialLoRAError(
                f"no space is left at {path.parent} while writing {path.name}; free some space, "
                "or choose another disk with --root or SERIAL_LORA_DATA, and run the same command "
                "again."
            ) from error
        if isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)):
            raise SerialLoRAError(
                f"{path.parent} cannot be written to ({error.strerror}); choose another folder "
                "with --root or SERIAL_LORA_DATA."
            ) from error
        raise


@contextmanager
def _progress_bar(
    description: str, total: int | None, completed: int, enabled: bool
) -> Iterator[Any]:
    """A bar in bytes on standard error; yields the function that moves it on."""
    if not enabled:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=completed)
        yield lambda count: bar.advance(task, count)


# --- unpacking -----------------------------------------------------------------------------------

_CORRUPT = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
)


@dataclass(frozen=True)
class _Member:
    """What the safety check needs to know of a member, whether of a zip or of a tar file."""

    name: str
    size: int
    kind: str  # "file", "folder", "symlink", "hardlink" or "special"
    target: str = ""


def extract(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    password: str | None = None,
    progress: bool = True,
) -> Path:
    """Unpack a zip or tar file into a new folder, all of it or nothing.

    Every member is checked first: a path, symbolic link or hard link that leaves the folder, a
    path that goes through a link, and a device file are refused before anything is written. The
    members go to a hidden folder beside ``folder``, which gets its name when the last is there.

    Args:
        archive: a zip file or a tar file (plain, gz, bz2 or xz), told by its content.
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
    try:
        with _open_archive(archive, password) as opened:
            with _progress_bar(f"checking {archive.name}", None, 0, progress) as tick:
                members = _members(opened, tick)
            for member in members:
                _refuse_unsafe(member, archive)
            _refuse_paths_through_links(members, archive)
            total = sum(member.size for member in members)
            require_space(folder.parent, total, f"unpacking {archive.name}")
            with _disk_errors(folder):
                shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
                temporary.mkdir(parents=True)
                with _progress_bar(f"unpacking {archive.name}", total, 0, progress) as tick:
                    _unpack(opened, temporary, tick)
                os.replace(temporary, folder)
    except _CORRUPT as error:
        raise SerialLoRAError(
            f"{archive} is damaged or not complete ({error}); delete it and run the same command "
            "again to download it anew."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextmanager
def _open_archive(
    archive: Path, password: str | None
) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            locked = [i for i in opened.infolist() if i.flag_bits & 0x1 and i.file_size]
            if locked:
                _unlock(opened, min(locked, key=lambda info: info.file_size), password)
            yield opened
        return
    try:
        opened = tarfile.open(archive)
    except (OSError, tarfile.TarError) as error:
        raise tarfile.ReadError("it opens neither as zip nor as tar") from error
    with opened:
        yield opened


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
    except (RuntimeError, *_CORRUPT) as error:  # of 256 wrong passwords one passes for right
        raise SerialLoRAError(
            f"{opened.filename} does not open with this password ({error}); check it at its "
            "publisher's, or unpack the file by hand."
        ) from error


def _members(opened: zipfile.ZipFile | tarfile.TarFile, tick: Any) -> list[_Member]:
    if isinstance(opened, zipfile.ZipFile):
        return [_zip_member(opened, info) for info in _zip_infos(opened)]
    members = []
    try:
        for info in opened:  # a packed tar is read to its end for this, which can take a minute
            members.append(_tar_member(info))
            tick(members[-1].size)
        # tarfile stops at the end of the tar; gzip's and xz's checksums come after it.
        while opened.fileobj.read(CHUNK_SIZE):
            pass
    except OSError as error:  # gzip's complaints are OSErrors without a number
        if error.errno is not None:
            raise
        raise tarfile.ReadError(str(error)) from error
    return members


def _zip_infos(opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """All members but the folder itself, which Dropbox lists as "/"."""
    return [info for info in opened.infolist() if info.filename != "/"]


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    if stat.S_ISLNK(info.external_attr >> 16):
        return _Member(info.filename, 0, "symlink", opened.read(info).decode("utf-8", "replace"))
    return _Member(info.filename, info.file_size, "folder" if info.is_dir() else "file")


def _tar_member(info: tarfile.TarInfo) -> _Member:
    if info.isdir():
        kind = "folder"
    elif info.issym():
        kind = "symlink"
    elif info.islnk():
        kind = "hardlink"
    else:
        kind = "file" if info.isreg() else "special"
    return _Member(info.name, info.size if kind == "file" else 0, kind, info.linkname)


def _refuse_unsafe(member: _Member, archive: Path) -> None:
    """Refuse a member that is not an ordinary part of the folder."""
    problem = None
    if member.kind == "special":
        problem = "is a device or a pipe"
    elif _leaves_folder(member.name):
        problem = "would be written outside the folder"
    elif member.kind == "symlink" and _leaves_folder(
        posixpath.join(posixpath.dirname(_slashes(member.name)), _slashes(member.target)),
        _slashes(member.target),
    ):
        problem = f"is a link to {member.target!r}, outside the folder"
    elif member.kind == "hardlink" and _leaves_folder(member.target):
        problem = f"is a link to {member.target!r}, outside the folder"
    if problem:
        raise SerialLoRAError(
            f"{archive} is not safe to unpack: its member {member.name!r} {problem}; nothing was "
            "unpacked, so delete the file and fetch it from its official source."
        )


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _leaves_folder(*paths: str) -> bool:
    """Whether any of the paths is absolute (on any system) or climbs out through ``..``."""
    for path in map(_slashes, paths):
        if path.startswith("/") or (len(path) > 1 and path[1] == ":") or "\0" in path:
            return True
    normal = posixpath.normpath(_slashes(paths[0]))
    return normal == ".." or normal.startswith("../")


def _refuse_paths_through_links(members: list[_Member], archive: Path) -> None:
    """A link inside the folder is harmless until another member is written through it."""
    links = {posixpath.normpath(member.name) for member in members if member.kind == "symlink"}
    for member in members if links else ():
        parts = posixpath.normpath(_slashes(member.name)).split("/")
        parents = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        written_over = member.kind != "symlink" and "/".join(parts) in links
        if parents & links or written_over:
            raise SerialLoRAError(
                f"{archive} is not safe to unpack: its member {member.name!r} would be written "
                "through a link; nothing was unpacked, so delete the file and fetch it from its "
                "official source."
            )


def _unpack(opened: zipfile.ZipFile | tarfile.TarFile, folder: Path, tick: Any) -> None:
    if isinstance(opened, zipfile.ZipFile):
        for info in _zip_infos(opened):
            opened.extract(info, folder)
            tick(info.file_size)
        return
    # Python's own filter is a second line of defence where this version of Python has it.
    filtered = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    for info in opened.getmembers():
        try:
            opened.extract(info, folder, **filtered)
        except OSError as error:
            if error.errno is not None:
                raise
            raise tarfile.ReadError(str(error)) from error
        tick(info.size if info.isreg() else 0)
