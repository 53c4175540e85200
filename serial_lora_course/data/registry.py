"""Every data set by its name: which there are for each task at each scale, and how to load one.

    data = load_classification("nature")                     # tiny: nothing to download
    data = load_classification("eurosat", scale="paper")     # after fetch.py eurosat
    data.train[0], data.class_names, data.prompts()          # see serial_lora_course.data.types
    data = load_segmentation("food")
    data = load_style("night")

A new data set is one entry in the table that the loader of its task and scale reads.
"""

from __future__ import annotations

import os

from serial_lora.errors import SerialLoRAError, require_choice
from serial_lora_course.data.classification_files import (
    CLASSIFICATION_RELEASES,
    load_classification_files,
)
from serial_lora_course.data.emoji_sets import EMOJI_SETS, load_emoji_set
from serial_lora_course.data.folder import load_folder
from serial_lora_course.data.photographs import PHOTOGRAPHS, load_photograph_classes
from serial_lora_course.data.releases import Release, data_root
from serial_lora_course.data.segmentation_files import MASKED_SETS, load_segmentation_files
from serial_lora_course.data.segmentation_sets import (
    SCENE_SETS,
    load_photograph_scenes,
    load_scene_set,
)
from serial_lora_course.data.style_files import RELEASE_OF, load_style_files
from serial_lora_course.data.style_sets import TINY_STYLES, load_tiny_style
from serial_lora_course.data.types import (
    ClassificationData,
    DividedData,
    SegmentationData,
    StyleData,
)
from serial_lora_course.files import expanded, refusals_told

#: Task -> scale -> each of its data sets, and what loads it by its name.
DATASETS = {
    "classification": {
        "tiny": dict.fromkeys(EMOJI_SETS, load_emoji_set) | {PHOTOGRAPHS: load_photograph_classes},
        "paper": dict.fromkeys(CLASSIFICATION_RELEASES, load_classification_files),
    },
    "segmentation": {
        "tiny": dict.fromkeys(SCENE_SETS, load_scene_set) | {PHOTOGRAPHS: load_photograph_scenes},
        "paper": dict.fromkeys(MASKED_SETS, load_segmentation_files),
    },
    "style": {
        "tiny": dict.fromkeys(TINY_STYLES, load_tiny_style),
        "paper": dict.fromkeys(RELEASE_OF, load_style_files),
    },
}
#: Each of the paper's data sets -> the release it comes from.
PAPER_RELEASES: dict[str, Release] = {
    **CLASSIFICATION_RELEASES,
    **{name: release for name, (release, _) in MASKED_SETS.items()},
    **RELEASE_OF,
}
#: Every published data set by the name of the script that fetches it.
RELEASES = {release.name: release for release in PAPER_RELEASES.values()}


def dataset_names(task: str, scale: str = "tiny") -> tuple[str, ...]:
    """The names of the data sets for ``"classification"``, ``"segmentation"`` or ``"style"``."""
    require_choice("scale", scale, DATASETS[task])
    return tuple(DATASETS[task][scale])


def load_classification(name: str, scale: str = "tiny") -> ClassificationData:
    """A data set by its name, or a folder of one's own by its path.

    Args:
        name: one of :func:`dataset_names`, or the path of a folder with one sub-folder per class
            (see :func:`serial_lora_course.data.folder.load_folder`).
        scale: ``"tiny"`` (emoji and photographs, nothing to download) or ``"paper"`` (files in
            :func:`serial_lora_course.data.releases.data_root`).

    Raises:
        SerialLoRAError: unknown name or scale, data not there (says which command fetches them),
            or not complete.
    """
    is_path = os.sep in name or os.path.isdir(expanded(name))
    if is_path and name not in dataset_names("classification", scale):
        return load_folder(name)
    return _load("classification", name, scale)


def load_segmentation(name: str, scale: str = "tiny") -> SegmentationData:
    """Pictures with the masks of what is in them, by name; see :func:`load_classification`."""
    return _load("segmentation", name, scale)


def load_style(name: str, scale: str = "tiny") -> StyleData:
    """Pictures with captions in one style, by name; see :func:`load_classification`."""
    return _load("style", name, scale)


@refusals_told()
def _load(task: str, name: str, scale: str) -> DividedData:
    names = dataset_names(task, scale)
    if name not in names:
        other = "paper" if scale == "tiny" else "tiny"
        elsewhere = name in dataset_names(task, other)
        there = f' ({name} is there with scale "{other}")' if elsewhere else ""
        folder = ", or the path of a folder of class folders" if task == "classification" else ""
        raise SerialLoRAError(
            f"unknown data set {name!r}{there}; for {task} at {scale} scale there are "
            f"{', '.join(names)}{folder}."
        )
    load = DATASETS[task][scale][name]
    return load(name) if scale == "tiny" else load(name, data_root())
