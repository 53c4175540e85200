"""Data sets as their publishers lay them out: where they lie, what is in them, how many.

A release is described once, by the file that reads it; the data script of its name fetches it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serial_lora.errors import SerialLoRAError


@dataclass(frozen=True)
class ReleasedPicture:
    """One picture of a release.

    Attributes:
        picture_id: its path below the release's folder of pictures.
        part: the official part it belongs to (``"train"``, ``"validation"``, ``"test"``), if any.
        text: what the release says of it: the name of its class, or a caption; empty if nothing.
        masks: paths of the mask whose pixels are class numbers and, where objects of one class
            are numbered too, of the mask with those numbers.
    """

    picture_id: str
    part: str | None = None
    text: str = ""
    masks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Release:
    """A published data set.

    Attributes:
        name: of the data script that fetches it.
        title: for people.
        folder: its folder below the data root, laid out as its publisher does.
        pictures: the folder of its pictures, below ``folder``.
        list_pictures: ``folder`` (and what else a kind of release asks for) -> its pictures.
        attribution: whose pictures they are.
        split: in words, what is train and what is test.
    """

    name: str
    title: str
    folder: str
    pictures: str = ""
    list_pictures: Callable[..., list[ReleasedPicture]]
    attribution: str = ""
    split: str = ""

    def listed(self, root: Path, *which: str) -> list[ReleasedPicture]:
        """All its pictures below the data root; ``which`` of them, where a release asks.

        Raises:
            SerialLoRAError: the folder is not there, or not complete.
        """
        folder = root / self.folder
        if not (folder / self.pictures).is_dir():
            raise SerialLoRAError(
                f"{self.title} is not at {folder}; fetch it with {self._command(root)}."
            )
        listed = self.read(root, lambda: self.list_pictures(folder, *which))
        self.require(root, (path for row in listed for path in (row.picture_id, *row.masks)))
        return listed

    def read(self, root: Path, reader: Callable[[], list | dict]) -> list | dict:
        """What ``reader`` returns; its complaints become one sentence."""
        try:
            return reader()
        except SerialLoRAError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise SerialLoRAError(
                f"{root / self.folder} is not complete ({error}); move it away and run "
                f"{self._command(root)} again."
            ) from error

    def require(self, root: Path, paths: Iterable[str]) -> None:
        """Refuse if one of the files, by paths below the folder of pictures, is not there.

        One look into each folder instead of one question per file. What a list has outside the
        folder counts as missing.
        """
        pictures = root / self.folder / self.pictures
        there: dict[str, set[str]] = {}
        missing = []
        for path in paths:
            pure = PurePosixPath(path)
            parent = str(pure.parent)
            if parent not in there:
                outside = pure.is_absolute() or ".." in pure.parts
                is_folder = not outside and (pictures / parent).is_dir()
                there[parent] = set(os.listdir(pictures / parent)) if is_folder else set()
            if pure.name not in there[parent]:
                missing.append(path)
        if missing:
            raise SerialLoRAError(
                f"{len(missing)} files of {self.title} are missing, {pictures / missing[0]} the "
                f"first; restore them, or move {root / self.folder} away and run "
                f"{self._command(root)} again."
            )

    def count(self, root: Path) -> tuple[int, int]:
        """How many pictures and classes the labs find below the data root.

        Raises:
            SerialLoRAError: the folder is not there, or not complete.
        """
        listed = self.listed(root)
        return len(listed), len({row.text for row in listed})

    def describe(self, pictures: int, classes: int) -> str:
        """So many pictures and classes in words."""
        return f"{pictures:,} pictures in {classes} classes"

    def _command(self, root: Path) -> str:
        return f"`python data_scripts/{self.name}.py --root {root}`"
