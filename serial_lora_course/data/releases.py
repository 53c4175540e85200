"""Data sets as their publishers lay them out: where they lie, and what is in them.

A release is described once, by the file that reads it; ``data_scripts/fetch.py`` fetches it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import expanded


def data_root() -> Path:
    """The folder that holds every downloaded or built data set; it need not exist yet.

    What the environment variable ``SERIAL_LORA_DATA`` names, else the user's data folder of this
    platform (``~/.local/share/serial-lora`` on Linux).
    """
    if chosen := os.environ.get("SERIAL_LORA_DATA"):
        return expanded(chosen).absolute()
    return Path(platformdirs.user_data_dir("serial-lora", appauthor=False))


@dataclass(frozen=True)
class ReleasedPicture:
    """One picture of a release.

    ``masks`` are paths of the mask whose pixels are class numbers and, where objects of one class are
    numbered too, of the mask with those numbers.
    """

    picture_id: str  # its path below the release's folder of pictures
    part: str | None = None  # "train" or "test", where the release is divided
    text: str = ""  # the name of its class, or a caption
    masks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Release:
    """A published data set.

    ``list_pictures`` says what is in its folder (and in which style, where there are several).
    """

    name: str  # under which it is fetched
    title: str  # for people
    folder: str  # below the data root, laid out as its publisher does
    pictures: str = ""  # the folder of its pictures, below that
    list_pictures: Callable[..., list[ReleasedPicture]]

    def listed(self, root: Path, *which: str) -> list[ReleasedPicture]:
        """All its pictures below the data root; ``which`` of them, where there are several styles."""
        folder = root / self.folder
        command = f"`python data_scripts/fetch.py {self.name}`"
        if not (folder / self.pictures).is_dir():
            raise SerialLoRAError(f"{self.title} is not at {folder}; fetch it with {command}.")
        try:
            return self.list_pictures(folder, *which)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SerialLoRAError(
                f"{folder} is not complete ({error}); move it away and run {command} again."
            ) from error
