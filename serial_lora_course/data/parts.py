"""Data sets in two parts, pictures to learn from and pictures to measure on, and shares of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.fewshot import hash_order


class NamedPictures(Protocol):
    """A map-style data set of any kind; ``picture_ids[i]`` belongs to item ``i``."""

    picture_ids: list[str]

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class DividedData:
    """What data sets for different tasks have in common.

    Attributes:
        name: of the data set; scale: ``"tiny"`` or ``"paper"``.
        train, test: pictures to learn from, and to measure on; no picture is in both.
        description: in words, what there is to see.
        attribution: whose pictures they are.
        split: in words, where the division into train and test comes from.
        content: what, beside their names, decides what the pictures are and what belongs to them.
        folder: where the data lie, when they are files.
    """

    name: str
    train: NamedPictures
    test: NamedPictures
    scale: str = "tiny"
    description: str = ""
    attribution: str = ""
    split: str = ""
    content: str = ""
    folder: Path | None = None

    #: Keeps the orders of different tasks apart; see :func:`serial_lora_course.data.fewshot.hash_order`.
    purpose: ClassVar[str]

    def __post_init__(self) -> None:
        for part_name, part in (("train", self.train), ("test", self.test)):
            if not part.picture_ids:
                raise SerialLoRAError(
                    f"{self.name} has no {part_name} pictures; it is not complete, so prepare it "
                    "anew."
                )
        shared = set(self.train.picture_ids).intersection(self.test.picture_ids)
        if shared:
            raise SerialLoRAError(
                f"{self.name} has the picture {min(shared)!r} in train and in test; take it out "
                "of one of them."
            )

    def fingerprint(self) -> str:
        """SHA-256 over name, content and the pictures' names in train and test (not pixels)."""
        digest = hashlib.sha256(f"{self.scale}\t{self.name}\n{self.content}\n".encode())
        for part_name, part in (("train", self.train), ("test", self.test)):
            for picture_id in sorted(part.picture_ids):
                digest.update(f"{part_name}\t{picture_id}\n".encode())
        return digest.hexdigest()


def training_subset(data: DividedData, percent: int, seed: int) -> list[int]:
    """Positions of ``percent`` % of the training pictures, rounded, at least one.

    They are the first in an order that seed and picture names alone decide (see
    :mod:`serial_lora_course.data.fewshot`), so subsets of one seed are nested: 20% is part of 50%.

    Raises:
        SerialLoRAError: ``percent`` is not between 1 and 100.
    """
    if not 1 <= percent <= 100:
        raise SerialLoRAError(f"percent must lie between 1 and 100, not {percent}.")
    count = max(1, round(len(data.train) * percent / 100))
    return hash_order(data.train.picture_ids, seed, data.purpose)[:count]
