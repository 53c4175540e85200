"""Disk space, disk errors and progress: what downloading and unpacking have in common."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from serial_lora.errors import SerialLoRAError

NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def require_space(folder: str | os.PathLike[str], needed: int, what: str) -> None:
    """Raise unless ``needed`` bytes are free where ``folder`` is (or will be)."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise SerialLoRAError(
            f"{what} needs {decimal(needed)} but only {decimal(free)} are free at {existing}; "
            "free some space, or choose another disk with --root or SERIAL_LORA_DATA, and run the "
            "same command again."
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a full or forbidden disk raises into a sentence."""
    try:
        yield
    except OSError as error:
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
        raise  # also the network's errors, which requests derives from OSError


@contextmanager
def one_at_a_time(path: Path, name: str) -> Iterator[None]:
    """Two runs of one script must not write the same files; the second says so and ends."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path, blocking=False).acquire()
    except Timeout as error:
        raise SerialLoRAError(
            f"another run is preparing {name} in {path.parent}; wait for it to end."
        ) from error
    with lock:
        yield


@contextmanager
def progress_bar(
    description: str, total: int | None, completed: int, enabled: bool
) -> Iterator[Callable[[int], None]]:
    """A bar in bytes on standard error; yields the function that moves it on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not enabled) as bar:
        task = bar.add_task(description, total=total, completed=completed)
        yield lambda count: bar.advance(task, count)
