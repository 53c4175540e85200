"""What a data set is, for each of the three tasks: the types that every other file here fills.

data.train[0]          # classification: (picture, label); else an example, see below
data.fingerprint()     # what decides which pictures there are; every record keeps it
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.scenes import box_of

#: The prompt that CLIP-LoRA, and so the paper, uses for every data set.
GENERIC_TEMPLATE = "a photo of a {}."


class Pictures:
    """A map-style data set of named pictures, each made or read when it is asked for.

    Item ``i`` is what ``read`` makes of its source: an example or, where there are labels, a PIL
    picture in RGB, which comes with ``labels[i]``.

    Args:
        picture_ids: (N,) names, unique and unchanging.
        read: what makes a picture or an example of its source.
        sources: (N,) what the items are made of; their names when left out. A path, or each path in a
            tuple, is a file that the item is read from.
        labels: (N,) their classes, if they have any.
    """

    def __init__(
        self,
        picture_ids: Sequence[str],
        read: Callable[[Any], Any],
        sources: Sequence[Any] | None = None,
        labels: Sequence[int] | None = None,
    ) -> None:
        self.picture_ids, self.read = list(picture_ids), read
        self.sources = self.picture_ids if sources is None else list(sources)
        self.labels = None if labels is None else list(labels)

    def __len__(self) -> int:
        return len(self.picture_ids)

    def __getitem__(self, index: int) -> Any:
        item = self.read(self.sources[index])
        return item if self.labels is None else (item, self.labels[index])

    def some(self, positions: Sequence[int]) -> Pictures:
        """Only those at some positions, under the names that they have here."""
        names, sources, labels = (
            each and [each[position] for position in positions]
            for each in (self.picture_ids, self.sources, self.labels)
        )
        return Pictures(names, self.read, sources, labels)


@dataclass(frozen=True, kw_only=True)
class DividedData:
    """What data sets for different tasks have in common.

    No picture's name is in train and in test, or twice in one of them.
    """

    name: str
    train: Pictures  # to learn from
    test: Pictures  # to measure on
    scale: str = "tiny"  # "paper", or "folder" for one's own
    attribution: str = ""  # whose drawings they are
    split: str = ""  # in words, where the division of one's own folder comes from
    content: str = ""  # what, beside their names, decides what the pictures are

    #: Keeps the orders of different tasks apart; see :func:`serial_lora_course.data.subsets.hash_order`.
    purpose: ClassVar[str]

    def __post_init__(self) -> None:
        for part_name, part in self.parts().items():
            if not part.picture_ids:
                raise SerialLoRAError(
                    f"{self.name} has no {part_name} pictures; it is not complete."
                )
            if twice := _repeated(part.picture_ids):
                raise SerialLoRAError(f"{self.name} has the picture {twice!r} twice; list it once.")
        shared = set(self.train.picture_ids).intersection(self.test.picture_ids)
        if shared:
            raise SerialLoRAError(
                f"{self.name} has the picture {min(shared)!r} in train and in test; take it out "
                "of one of them."
            )

    def parts(self) -> dict[str, Pictures]:
        """Train and test by name."""
        return {"train": self.train, "test": self.test}

    def fingerprint(self) -> str:
        """SHA-256 over name, content and the pictures' names in train and test (not pixels)."""
        digest = hashlib.sha256(f"{self.scale}\t{self.name}\n{self.content}\n".encode())
        for part_name, part in self.parts().items():
            for picture_id in sorted(part.picture_ids):
                digest.update(f"{part_name}\t{picture_id}\n".encode())
        return digest.hexdigest()

    def picture_fingerprint(self, opened: Mapping[str, Any] | None = None) -> str:
        """SHA-256 over every picture in train and test, with its mask or caption; records keep it.

        Args:
            opened: part of the data -> what to take its items from, where they may be made already.
        """
        opened = self.parts() | (opened or {})
        digest = hashlib.sha256(self.fingerprint().encode())
        for part_name, part in self.parts().items():
            for picture_id, index in sorted(zip(part.picture_ids, range(len(part)), strict=True)):
                digest.update(f"{part_name}\t{picture_id}\n".encode())
                digest.update(_content(part, index, opened[part_name]))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ClassificationData(DividedData):
    """A data set for few-shot classification."""

    class_names: list[str]  # one a label
    template: str = GENERIC_TEMPLATE  # a prompt with {} for the class name, fitting this data set
    generic_template: str = GENERIC_TEMPLATE  # the same for every data set
    purpose = "shots"

    def __post_init__(self) -> None:
        super().__post_init__()
        if twice := _repeated(self.class_names):
            raise SerialLoRAError(f"{self.name} has two classes called {twice!r}; rename one.")

    def prompts(self, template: str | None = None) -> list[str]:
        """One prompt per class, from this data set's template or another one."""
        template = self.template if template is None else template
        if template.count("{}") != 1:
            raise SerialLoRAError(
                f"the prompt template {template!r} needs exactly one {{}} for the class name."
            )
        return [template.format(name) for name in self.class_names]

    def fingerprint(self) -> str:
        """SHA-256 over templates, class names, picture names and labels (not pixels)."""
        digest = hashlib.sha256(f"{self.template}\n{self.generic_template}\n".encode())
        for name in self.class_names:
            digest.update(f"class\t{name}\n".encode())
        for part_name, part in self.parts().items():
            for picture_id, label in sorted(zip(part.picture_ids, part.labels, strict=True)):
                digest.update(f"{part_name}\t{picture_id}\t{label}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class SegmentationExample:
    """A picture and its objects; equal to itself alone."""

    picture: Image.Image  # RGB, of (width, height) W, H
    masks: np.ndarray  # bool, (N, H, W), N at least 1, each with at least one pixel
    names: tuple[str, ...]  # what each mask shows
    picture_id: str  # unique in the data set and unchanging

    def __post_init__(self) -> None:
        width, height = self.picture.size
        fitting = self.masks.shape == (len(self.names), height, width) and self.masks.dtype == bool
        if not fitting or not self.names or not self.masks.any((1, 2)).all():
            raise SerialLoRAError(
                f"{self.picture_id} needs masks of {height} x {width} bools, one a name and none empty, "
                f"and has {self.masks.dtype} of {self.masks.shape}; mend them, or leave it out."
            )

    @cached_property
    def boxes(self) -> np.ndarray:
        """The tightest box round each mask: x0, y0, x1, y1 at pixel edges, float32 (N, 4).

        The prompt that an exact annotator would draw.
        """
        return np.stack([box_of(mask) for mask in self.masks])


@dataclass(frozen=True, kw_only=True)
class SegmentationData(DividedData):
    """Items are :class:`SegmentationExample`."""

    purpose = "segmentation"


@dataclass(frozen=True)
class StyleExample:
    """A picture and what is to be seen in it.

    The caption is without the style, which a model can then show only by having learnt it.
    """

    picture: Image.Image  # RGB, of any size
    caption: str
    picture_id: str  # unique in the data set and unchanging


@dataclass(frozen=True, kw_only=True)
class StyleData(DividedData):
    """Pictures with captions in one style; items are :class:`StyleExample`.

    The captions of the test pictures are the prompts of the evaluation, and those pictures are
    what FID and KID compare with.
    """

    purpose = "styles"


def _repeated(names: list[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _content(pictures: Pictures, index: int, items: Any) -> bytes:
    """An item's files as they lie; else its size, its pixels, and masks or caption of an example."""
    source = pictures.sources[index] if isinstance(pictures, Pictures) else ()
    parts = source if isinstance(source, tuple) else (source,)
    if files := [each for each in parts if isinstance(each, Path)]:
        with suppress(OSError):  # opening the picture says in a sentence what is wrong
            return b"".join(path.read_bytes() for path in files)
    item = items[index]
    picture = np.asarray(item[0] if isinstance(item, tuple) else item.picture)
    content = repr(picture.shape).encode() + picture.tobytes()
    if isinstance(item, SegmentationExample):
        content += repr(item.names).encode() + np.packbits(item.masks).tobytes()
    elif isinstance(item, StyleExample):
        content += item.caption.encode()
    return content
