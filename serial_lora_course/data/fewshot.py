"""Which pictures a few-shot run learns from: the same ones on every machine, for ever.

The field's scripts draw the shots from Python's global random state, so the same seed gives other
pictures when another draw comes first (CoOp draws the training shots first, CLIP-LoRA the
validation shots). Here nothing is drawn. The pictures of a class are *ordered* by
``sha256("shots:SEED:PICTURE_ID")`` and the first ``shots`` are taken, which gives three things:

* the order depends on nothing but the seed and the picture's own name: not on the platform, the
  library version, the order of files, or the other pictures (one more picture in the folder
  changes at most one of the shots of its class);
* shot sets are nested: the 16 shots of a seed contain its 4 shots. A curve over shots then shows
  what more pictures bring, instead of mixing that with the luck of other pictures;
* seeds are independent of each other, as SHA-256 makes them.

The result is also shipped as data, one index file for each tiny data set, so that a run can be
checked without running this code.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import write_json

if TYPE_CHECKING:
    from serial_lora_course.data.classification import ClassificationData

#: The shots of the paper's Table III and in between; index files hold these for every seed.
SHOTS = (1, 2, 4, 8, 16)
SEEDS = (1, 2, 3, 4, 5)
FORMAT = "serial-lora few-shot index 1"


@dataclass(frozen=True)
class FewShotSplit:
    """The pictures to learn from, and the classes that had too few of them.

    Attributes:
        indices: positions in the training data set, by class, then in the order of the draw.
        shots: pictures asked for per class.
        seed: of the draw.
        short_classes: class name -> number of pictures it has, for classes with fewer than
            ``shots``. All their pictures are in ``indices``.
    """

    indices: list[int]
    shots: int
    seed: int
    short_classes: dict[str, int]


def hash_order(picture_ids: Sequence[str], seed: int, purpose: str = "shots") -> list[int]:
    """Positions of ``picture_ids`` in the order that a seed gives them.

    Args:
        picture_ids: unique names.
        seed: another seed, another order.
        purpose: keeps orders for different uses apart (the split into train and test must not
            foretell which training pictures become shots).
    """
    keys = [
        hashlib.sha256(f"{purpose}:{seed}:{picture_id}".encode()).digest()
        for picture_id in picture_ids
    ]
    return sorted(range(len(keys)), key=lambda position: (keys[position], picture_ids[position]))


def few_shot_indices(
    labels: Sequence[int], shots: int, seed: int, picture_ids: Sequence[str] | None = None
) -> list[int]:
    """Up to ``shots`` positions per class, by class and then in the order of the draw.

    Args:
        labels: (N,) class of each picture.
        shots: pictures per class; a class with fewer gives all it has.
        seed: of the draw.
        picture_ids: (N,) unique names of the pictures. Without them the position stands in, and
            then adding a picture in front does change the draw.

    Raises:
        SerialLoRAError: ``shots`` is not a whole number of at least one, or names repeat.
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise SerialLoRAError(f"shots must be a whole number of at least 1, not {shots!r}.")
    if picture_ids is None:
        picture_ids = [str(position) for position in range(len(labels))]
    if len(picture_ids) != len(labels):
        raise SerialLoRAError(
            f"there are {len(picture_ids)} picture names for {len(labels)} labels; give one each."
        )
    if len(set(picture_ids)) != len(picture_ids):
        twice = Counter(picture_ids).most_common(1)[0][0]
        raise SerialLoRAError(f"the picture name {twice!r} occurs twice; names must be unique.")
    members: dict[int, list[int]] = {}
    for position in hash_order(picture_ids, seed):
        members.setdefault(labels[position], []).append(position)
    return [position for label in sorted(members) for position in members[label][:shots]]


def few_shot_split(data: ClassificationData, shots: int, seed: int) -> FewShotSplit:
    """The shots of a data set: from its index file where that fits, else computed.

    Both give the same pictures; a test holds them together. Where the pictures are not exactly
    those the file was made for (another version of the emoji fonts draws a few more or fewer, or
    CoOp's split list came later), the rule is applied to the pictures that are here and a warning
    says so: almost all shots stay the same, since each depends on its own name only.

    Raises:
        SerialLoRAError: ``shots`` is not at least one, or the index file is damaged.
    """
    labels, picture_ids = data.train.labels, data.train.picture_ids
    index = find_index_file(data)
    fits = index is not None and index.fingerprint == data.fingerprint()
    if index is not None and not fits:
        warnings.warn(index.explain_difference(data), stacklevel=2)
    if index is not None and fits and index.covers(shots, seed):
        position_of = {picture_id: position for position, picture_id in enumerate(picture_ids)}
        indices = [
            position_of[picture_id]
            for class_name in data.class_names
            for picture_id in index.order[seed].get(class_name, [])[:shots]
        ]
    else:
        indices = few_shot_indices(labels, shots, seed, picture_ids)
    available = Counter(labels)
    short = {
        name: available[label]
        for label, name in enumerate(data.class_names)
        if available[label] < shots
    }
    return FewShotSplit(indices, shots, seed, short)


# --- index files ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FewShotIndex:
    """What an index file holds.

    Attributes:
        dataset: name of the data set; scale: ``"tiny"`` or ``"paper"``.
        fingerprint: of the names and labels of all its pictures, see
            :meth:`ClassificationData.fingerprint`.
        shots: the numbers of shots it covers.
        order: seed -> class name -> picture ids in the order of the draw; the first k of a class
            are its k shots.
        test: picture ids of the test set.
        made_with: versions of the packages that drew the pictures, where it matters.
    """

    dataset: str
    scale: str
    fingerprint: str
    shots: tuple[int, ...]
    order: dict[int, dict[str, list[str]]]
    test: list[str]
    made_with: dict[str, str] = field(default_factory=dict)

    def covers(self, shots: int, seed: int) -> bool:
        """Whether the file answers for these shots and this seed."""
        return seed in self.order and isinstance(shots, int) and 1 <= shots <= max(self.shots)

    def explain_difference(self, data: ClassificationData) -> str:
        """A sentence on the pictures that differ from those the file was made for."""
        listed = {
            picture_id
            for classes in self.order.values()
            for picture_ids in classes.values()
            for picture_id in picture_ids
        }
        gone = len(listed.difference(data.train.picture_ids))
        root = f" --root {data.folder.parent}" if data.folder is not None else ""
        made_with = ", ".join(f"{name} {version}" for name, version in self.made_with.items())
        return (
            f"the few-shot index file of {self.dataset} was made for slightly other pictures"
            f"{f' ({made_with})' if made_with else ''}: {gone} of its {len(listed)} shots are not "
            "training pictures here, so the shots are drawn from what is here; to renew the file "
            f"run `python -m data_scripts.few_shot_indices --scale {self.scale} --dataset "
            f"{self.dataset}{root}`."
        )


def find_index_file(data: ClassificationData) -> FewShotIndex | None:
    """The index file shipped for a tiny data set, or kept beside a paper data set, if any."""
    path = index_path(data)
    return read_index_file(path) if path is not None and path.is_file() else None


def index_path(data: ClassificationData) -> Path | None:
    """Where the index file of a data set belongs; ``None`` for a folder of one's own."""
    if data.scale == "tiny":
        return shipped_index_folder() / f"{data.name}.json"
    return data.folder / "few_shot.json" if data.folder is not None else None


def shipped_index_folder() -> Path:
    """The folder of the package that holds the index files of the tiny data sets."""
    return Path(str(files("serial_lora_course") / "assets" / "fewshot"))


def write_index_file(
    path: str | os.PathLike[str],
    data: ClassificationData,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    made_with: Mapping[str, str] | None = None,
) -> Path:
    """Write the shots of a data set for several seeds as JSON.

    ``made_with`` names the packages, and their versions, that decide which pictures there are.
    """
    labels, picture_ids = data.train.labels, data.train.picture_ids
    order: dict[str, dict[str, list[str]]] = {}
    for seed in seeds:
        drawn = few_shot_indices(labels, max(shots), seed, picture_ids)
        by_class: dict[str, list[str]] = {name: [] for name in data.class_names}
        for position in drawn:
            by_class[data.class_names[labels[position]]].append(picture_ids[position])
        order[str(seed)] = by_class
    content = {
        "format": FORMAT,
        "dataset": data.name,
        "scale": data.scale,
        "rule": "by class, ordered by sha256('shots:SEED:PICTURE_ID'); the first k are k shots",
        "split": data.split,
        "made_with": dict(made_with or {}),
        "fingerprint": data.fingerprint(),
        "shots": list(shots),
        "order": order,
        "test": list(data.test.picture_ids),
    }
    _index_from(content, str(path))  # what cannot be read must not be written
    return write_json(path, content)


def read_index_file(path: str | os.PathLike[str]) -> FewShotIndex:
    """Read an index file and check that no picture is both shot and test.

    Raises:
        SerialLoRAError: the file is missing, not an index file, or holds a test picture among the
            shots.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise SerialLoRAError(f"there is no few-shot index file at {path}.") from error
    except (OSError, ValueError) as error:
        raise SerialLoRAError(
            f"{path} cannot be read as a few-shot index file ({error}); make it anew with "
            "`python -m data_scripts.few_shot_indices`."
        ) from error
    return _index_from(content, str(path))


def _index_from(content: Any, path: str) -> FewShotIndex:
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        index = FewShotIndex(
            dataset=content["dataset"],
            scale=content["scale"],
            fingerprint=content["fingerprint"],
            shots=tuple(int(number) for number in content["shots"]),
            order={int(seed): dict(classes) for seed, classes in content["order"].items()},
            test=list(content["test"]),
            made_with=dict(content.get("made_with", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SerialLoRAError(
            f"{path} is not a few-shot index file ({error}); make it anew with "
            "`python -m data_scripts.few_shot_indices`."
        ) from error
    test = set(index.test)
    for seed, classes in index.order.items():
        for class_name, picture_ids in classes.items():
            shared = test.intersection(picture_ids)
            if shared:
                raise SerialLoRAError(
                    f"{path}: the picture {min(shared)!r} of class {class_name!r}, seed {seed}, is "
                    "in the test set too; make the file anew with "
                    "`python -m data_scripts.few_shot_indices`."
                )
    return index
