"""What a lesson on CLIP, SAM or SD3 works with, at either scale: the one place where they differ.

    lesson = open_lesson("clip", SCALE, LENGTH)
    lesson.backbone, lesson.data, lesson.config          # loaded; fitted to the card

``tiny`` needs nothing, ``paper`` the paper's model and one of its data sets, which the data scripts
have fetched before. What is missing is said in one sentence; nothing is fetched here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from serial_lora.errors import SerialLoRAError, require_choice
from serial_lora_course.data.subsets import with_few_tests
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs.device import LOOKING, MissingError, autocast, free_memory, this_device
from serial_lora_course.labs.fit import fitted
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.models.weights import Backbone, require_scale


@dataclass(frozen=True)
class Length:
    """How long a lesson's runs are.

    Attributes:
        amount: of training data, in the lab's unit.
        tests: test pictures, or drawings, that a model is measured with; None for all.
        changes: of the scale's settings.
    """

    amount: int
    tests: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


_FEW = {"epochs": 1, "min_steps": 2}

SETTINGS: dict[tuple[str, str], tuple[str, Length, Length, Length]] = {
    ("clip", "tiny"): (
        "symbols",
        Length(2, 40, _FEW),
        Length(16, changes={"epochs": 16, "min_steps": 30}),  # two thirds of the lab's steps
        Length(16),
    ),
    ("clip", "paper"): (
        "eurosat",
        Length(2, 20, _FEW),
        Length(16, 500, {"epochs": 20}),
        Length(16),
    ),
    ("sam", "tiny"): (
        "photographs",
        Length(10, 4, _FEW),
        Length(83, changes={"epochs": 2}),  # a hundred scenes
        Length(100),
    ),
    ("sam", "paper"): (
        "icecream",
        Length(1, 2, _FEW),
        Length(20, 24, {"epochs": 1}),
        Length(100),
    ),
    ("sd3", "tiny"): (
        "openmoji",
        Length(5, 3, _FEW),
        Length(100, 40, {"epochs": 4}),  # a third of the rounds, as it starts from words that help
        Length(100),
    ),
    ("sd3", "paper"): (
        "art_nouveau",
        Length(2, 3, _FEW | {"drawing_steps": 10}),
        Length(5, 16, {"epochs": 2, "drawing_steps": 14}),
        Length(100, 100),
    ),
}
"""Lab and scale -> the data set to adapt to, and its `LENGTHS`."""
LENGTHS = ("dry", "class", "full")  # dry: a few steps, to see that all of it runs here


def open_lesson(lab: str, scale: str = "tiny", length: str = "class") -> Lesson:
    """Load what a lesson works with, and fit its settings to the card.

    Args:
        lab: clip, sam or sd3.
        scale: tiny or paper.
        length: of its runs: dry, class or full.

    Raises:
        MissingError: weights, data or memory that this scale needs are not here.
    """
    get_lab(lab)
    require_scale(scale)
    require_choice("length", length, LENGTHS)
    try:
        return Lesson(lab, scale, length)
    except SerialLoRAError as error:
        raise MissingError(str(error)) from error


class Lesson:
    """A model, its data sets and its settings; see :func:`open_lesson`.

    Attributes:
        backbone, model: on the card; the model is the part that is adapted.
        sets: name -> data set; ``data`` is the one to adapt to.
        config: the settings of a run, and ``amount`` of training data.
        tests: drawings that an SD3 is measured with; None for one of each held-out picture.
        judge: what measures the drawings of an SD3.
        device: what it computes on.
        precision: of what a lesson computes with the model itself.
    """

    def __init__(self, lab: str, scale: str, length: str) -> None:
        adapt_to, *lengths = SETTINGS[lab, scale]
        long = lengths[LENGTHS.index(length)]
        self.kind, self.scale, self.precision = get_lab(lab), scale, LOOKING[scale]
        self.amount, self.tests = long.amount, long.tests
        self.device = this_device()
        free = free_memory(self.device)  # before anything is loaded
        few = None if lab == "sd3" else self.tests  # SD3's are drawn, of all held-out ones
        looked_at = self.kind.datasets(scale) if (lab, scale) == ("clip", "tiny") else [adapt_to]
        self.sets: dict[str, DividedData] = {
            name: with_few_tests(self.kind.load_data(name, scale), few) for name in looked_at
        }
        self.data = self.sets[adapt_to]
        wished = self.kind.configured(scale, **long.changes)
        self.backbone = self.kind.load_backbone(wished, scale, "default")
        self.judge = self.kind.load_tools(scale).get("judge")
        self.config = fitted(lab, scale, wished, free)
        self.model = self.backbone.model.to(self.device)

    def twin(self) -> Backbone:
        """The model once more, for an adapter of its own, on the *same* frozen weights.

        It takes no memory. What changes weights in one (merging) changes them in the other.
        """
        weights = [*self.model.parameters(), *self.model.buffers()]
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in weights})
        return self.backbone.around(model)

    def autocast(self) -> torch.autocast:
        """That precision, for the length of a block."""
        return autocast(self.device, self.precision, self.model)
