"""Files from the network: resumed, verified, or not there at all.

A file appears under its final name only when its size and hash are right (one atomic rename).
Until then it is ``NAME.part``, which the next run continues with an HTTP ``Range`` request; no
library here does that (pooch and torchvision start from zero).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from data_scripts.fetching.disk import disk_errors, progress_bar, require_space
from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import write_json

#: Bytes read at a time. At most this much of a connection that breaks is lost.
CHUNK_SIZE = 64 * 1024


@dataclass(frozen=True)
class FileFacts:
    """What is known about a file: its size in bytes and its hashes in hex; ``None`` is unknown."""

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileFacts:
        """Size and SHA-256 of a file that is there."""
        return cls(size=Path(path).stat().st_size, sha256=pooch.file_hash(str(path), "sha256"))

    def known(self) -> dict[str, int | str]:
        """The facts that are known, as a dictionary for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def mismatch(self, path: str | os.PathLike[str]) -> str | None:
        """How the file differs from these facts, in words, or ``None`` when it does not."""
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


class SourceError(SerialLoRAError):
    """One address did not give the file; another one may."""


class Interrupted(SourceError):
    """The connection ended before the file did; what came is kept in the ``.part`` file."""


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
        attempts: how often a broken connection is taken up again within one call, as long as each
            attempt brought something.
        timeout: seconds without a byte after which a connection counts as broken.

    Returns:
        The path of the verified file.

    Raises:
        SerialLoRAError: no address gave the file, it differs from ``expected``, or the disk is
            full. Nothing is at ``destination`` then; a ``.part`` file stays only where the next
            run can go on with it.
    """
    addresses = [urls] if isinstance(urls, str) else list(urls)
    destination, expected = Path(destination), expected or FileFacts()
    if destination.exists():
        mismatch = expected.mismatch(destination)
        if mismatch:
            raise SerialLoRAError(
                f"{destination} is not the expected file: {mismatch}; move it away and run the "
                "same command again to download it, or put the right file in its place."
            )
        return destination
    part = destination.with_name(destination.name + ".part")
    with disk_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in addresses:
        try:
            _fetch(url, part, expected, attempts, timeout, progress)
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


def _fetch(
    url: str, part: Path, expected: FileFacts, attempts: int, timeout: float, progress: bool
) -> None:
    """Bring ``part`` to its end, taking a broken connection up again."""
    for attempt in range(1, attempts + 1):
        before = _size(part)
        try:
            _request(url, part, expected, timeout, progress)
            _state_path(part).unlink(missing_ok=True)
            return
        except Interrupted:
            if attempt == attempts or _size(part) <= before:
                raise


def _request(url: str, part: Path, expected: FileFacts, timeout: float, progress: bool) -> None:
    """One request, for the rest of ``part`` where that was begun from the same address.

    ``Range`` and ``If-Range`` (RFC 9110, sections 13.1.5 and 14.2): a file which changed on the
    server in between is fetched anew instead of being glued together.
    """
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file, not a packed copy
    state = _read_state(part)
    start = _size(part) if state.get("url") == url else 0
    if start:
        headers["Range"] = f"bytes={start}-"
        if state.get("validator"):
            headers["If-Range"] = state["validator"]
    writing = False
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            status, total = response.status_code, _total(response)
            if status == 416 and total == start:
                return  # nothing is missing: the last run ended between the end and the check
            if status == 416:
                part.unlink(missing_ok=True)  # longer than the file on the server: start anew
                return _request(url, part, expected, timeout, progress)
            if status not in (200, 206):
                raise SourceError(f"the server answers {status} {response.reason}".strip())
            if status == 206 and _range_start(response) != start:
                raise SourceError("the server sends another part of the file than asked for")
            if expected.size is not None and total not in (None, expected.size):
                raise SourceError(
                    f"the server announces {total} bytes where {expected.size} are expected"
                )
            # A chunked answer has an end of its own, and its early end is an error.
            chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
            if total is None and not chunked and not expected.known():
                raise SourceError("nobody says how long the file is, so half of it would pass")
            writing = True
            _write(response, part, url, start if status == 206 else 0, total, progress)
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema) as error:
        raise SourceError(f"{url!r} is not a web address (http:// or https://)") from error
    except requests.exceptions.SSLError as error:
        raise SourceError(f"the certificate of {urlsplit(url).netloc} is not accepted") from error
    except requests.exceptions.InvalidURL as error:
        raise SourceError(f"{url!r} is not a web address (http:// or https://)") from error
    except requests.exceptions.RequestException as error:
        if writing:
            raise Interrupted(_broken(part, None)) from error
        raise SourceError(
            f"{urlsplit(url).netloc} cannot be reached (is there a network?)"
        ) from error


def _write(
    response: requests.Response,
    part: Path,
    url: str,
    start: int,
    total: int | None,
    progress: bool,
) -> None:
    """Append what the server sends, after a note of where it came from."""
    name = part.name.removesuffix(".part")
    if total is not None:
        require_space(part.parent, total - start, name)
    etag = response.headers.get("ETag", "")
    weak = not etag or etag.startswith("W/")
    validator = response.headers.get("Last-Modified") if weak else etag
    with disk_errors(part):
        write_json(_state_path(part), {"url": url, "validator": validator})
        with (
            open(part, "ab" if start else "wb") as stream,
            progress_bar(name, total, start, progress) as tick,
        ):
            for chunk in response.iter_content(CHUNK_SIZE):
                stream.write(chunk)
                tick(len(chunk))
    if total is not None and _size(part) < total:
        raise Interrupted(_broken(part, total))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_state(part: Path) -> dict:
    """From which address the partial file came, and how the server named its version."""
    try:
        state = json.loads(_state_path(part).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _total(response: requests.Response) -> int | None:
    """The size of the whole file as the server states it, also in an answer to ``Range``."""
    if response.status_code in (206, 416):
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _range_start(response: requests.Response) -> int | None:
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() else None


def _broken(part: Path, total: int | None) -> str:
    of_total = f" of {total}" if total is not None else ""
    return (
        f"the connection ended early, after {_size(part)}{of_total} bytes, which are kept in "
        f"{part.name} so that the next run goes on from there"
    )
