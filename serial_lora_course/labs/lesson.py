"""What a lesson on CLIP, SAM or SD3 works with, at either scale: the one place where they differ.

    lesson = open_lesson("clip", SCALE, LENGTH)
    lesson.backbone, lesson.data, lesson.config          # loaded; fitted to the card

``tiny`` needs nothing, ``paper`` the paper's model and one of its data sets, which the data scripts
have fetched before. What is missing is said in one sentence; nothing is fetched here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from serial_lora.errors import require_choice
from serial_lora_course.data.registry import PAPER_RELEASES
from serial_lora_course.data.releases import data_root
from serial_lora_course.data.subsets import with_few_tests
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs.card import MissingError, look_at_card
from serial_lora_course.labs.config import LabConfig
from serial_lora_course.labs.fit import fit
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.precision import LOOKING, autocast
from serial_lora_course.labs.processes import process_state
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.models.clip import PAPER_MODEL, openai_file
from serial_lora_course.models.inception import INCEPTION_FILE
from serial_lora_course.models.judges import PAPER_CLIP
from serial_lora_course.models.sam import PAPER_FILE
from serial_lora_course.models.sd3 import PAPER_FOLDER
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


@dataclass(frozen=True)
class Setting:
    """What a lesson works with at one scale.

    Attributes:
        adapt_to: the data set to adapt to.
        lengths: "dry" (a few steps, to see that all of it runs here), "class" and "full".
        datasets: all that the lesson looks at; all of the scale where None.
        needs: file or folder below the data root -> what it is, and the command that brings it.
    """

    adapt_to: str
    lengths: Mapping[str, Length]
    datasets: tuple[str, ...] | None = None
    needs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def _weights(name: str, what: str, command: str) -> dict[str, tuple[str, str]]:
    return {f"weights/{name}": (what, f"python data_scripts/fetch.py {command}")}


_FEW = {"epochs": 1, "min_steps": 2}

SETTINGS: dict[tuple[str, str], Setting] = {
    ("clip", "tiny"): Setting(
        adapt_to="symbols",
        lengths={"dry": Length(2, 40, _FEW), "class": Length(16), "full": Length(16)},
    ),
    ("clip", "paper"): Setting(
        adapt_to="eurosat",
        datasets=("eurosat",),
        lengths={
            "dry": Length(2, 20, _FEW),
            "class": Length(16, 500, {"epochs": 20}),
            "full": Length(16),
        },
        needs=_weights(openai_file(PAPER_MODEL), "OpenAI's CLIP ViT-B/16", "clip"),
    ),
    ("sam", "tiny"): Setting(
        adapt_to="lines",
        datasets=("lines",),
        lengths={"dry": Length(10, 4, _FEW), "class": Length(100), "full": Length(100)},
    ),
    ("sam", "paper"): Setting(
        adapt_to="icecream",
        datasets=("icecream",),
        lengths={
            "dry": Length(1, 2, _FEW),
            "class": Length(20, 24, {"epochs": 1}),
            "full": Length(100),
        },
        needs=_weights(PAPER_FILE, "Meta's SAM ViT-B", "sam"),
    ),
    ("sd3", "tiny"): Setting(
        adapt_to="openmoji",
        datasets=("openmoji",),
        lengths={"dry": Length(5, 3, _FEW), "class": Length(50, 64), "full": Length(100)},
    ),
    ("sd3", "paper"): Setting(
        adapt_to="art_nouveau",
        datasets=("art_nouveau",),
        lengths={
            "dry": Length(2, 3, _FEW | {"drawing_steps": 10}),
            "class": Length(5, 16, {"epochs": 2, "drawing_steps": 14}),
            "full": Length(100, 100),
        },
        needs={
            **_weights(
                PAPER_FOLDER,
                "SD3 medium (accept its licence on the model's page, then `hf auth login`)",
                "sd3",
            ),
            **_weights(
                openai_file(PAPER_CLIP),
                "OpenAI's CLIP ViT-B/32, for CLIP-Score",
                f"clip --model {PAPER_CLIP}",
            ),
            **_weights(
                INCEPTION_FILE, 'Inception, for FID (pip install ".[paper]" as well)', "inception"
            ),
        },
    ),
}


def open_lesson(
    lab: str, scale: str = "tiny", length: str = "class", dataset: str | None = None
) -> Lesson:
    """Load what a lesson works with, and fit its settings to the card.

    Args:
        lab: clip, sam or sd3.
        scale: tiny or paper.
        length: of its runs: dry, class or full.
        dataset: another of the scale's data sets to adapt to.

    Raises:
        MissingError: weights, data or memory that this scale needs are not here.
        SerialLoRAError: no such lab, scale, length or data set.
    """
    names = get_lab(lab).datasets(scale)
    require_scale(scale)
    setting = SETTINGS[lab, scale]
    require_choice("length", length, setting.lengths)
    if dataset is not None:
        require_choice("data set", dataset, names)
        setting = replace(setting, adapt_to=dataset, datasets=(dataset,))
    return Lesson(lab, scale, length, setting)


class Lesson:
    """A model, its data sets and its settings; see :func:`open_lesson`.

    Attributes:
        backbone, model: on the card; the model is the part that is adapted.
        sets: name -> data set; ``data`` is the one to adapt to.
        config: the settings of a run, and ``amount`` of training data.
        tests: drawings that an SD3 is measured with; None for one of each held-out picture.
        device, card, plan: what it computes on, what is free there, and what was chosen to fit.
    """

    def __init__(self, lab: str, scale: str, length: str, setting: Setting) -> None:
        self.kind, self.scale, self.length, self.setting = get_lab(lab), scale, length, setting
        chosen = setting.lengths[length]
        self.amount, self.tests = chosen.amount, chosen.tests
        self.device = process_state().device
        self.card = look_at_card(self.device)
        names = setting.datasets or self.kind.datasets(scale)
        self._require(names)
        few = None if lab == "sd3" else chosen.tests  # SD3's are drawn, the first of the held-out
        self.sets: dict[str, DividedData] = {
            name: with_few_tests(self.kind.load_data(name, scale, None), few) for name in names
        }
        self.data = self.sets[setting.adapt_to]
        wished = self.kind.configured(scale, **chosen.changes)
        self.backbone = self.kind.load_backbone(wished, scale, "default")
        self.plan = fit(lab, scale, wished, self.card)
        self.config = self.plan.config
        self.model = self.backbone.model.to(self.device)

    def _require(self, names: Iterable[str]) -> None:
        """Refuse, in one sentence, if something has to be fetched first."""
        needs = dict(self.setting.needs)
        for name in names if self.scale == "paper" else ():
            release = PAPER_RELEASES[name]
            needs[release.folder] = (release.title, f"python data_scripts/fetch.py {release.name}")
        missing = [need for path, need in needs.items() if not _is_here(path)]
        if missing:
            raise MissingError(
                f"Not in {data_root()} yet: {'; '.join(what for what, _ in missing)}. Where there is "
                "a network, run in the course's folder:\n"
                + "".join(f"\n    {command}" for _, command in missing)
            )

    @cached_property
    def tools(self) -> dict[str, Any]:
        """What the lab needs besides: for SD3, a judge."""
        return self.kind.load_tools(self.scale)

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in self.plan.chosen.items())
        needed = self.plan.needed
        takes = (
            f" A training step takes about {needed:.1f} GiB, counted from shapes." if needed else ""
        )
        return (
            f"{self.scale} scale, {self.length} length, on {self.card}.\n"
            f"Settings that fit: {chosen or 'as they are'}.{takes}"
        )

    # ------------------------------------------------------------------ models and labs of them

    def lab(
        self,
        backbone: Backbone | None = None,
        config: LabConfig | None = None,
        base: dict[str, float] | None = None,
        **options: Any,
    ) -> Lab:
        """The lesson's lab, on its data."""
        some = backbone or self.backbone, self.data, config or self.config, base
        lab = self.kind(*some, **self.tools | options)
        # All have the same weights and pictures, which are read whole, once.
        lab.contents, lab.train_pictures = self._first.contents, self._first.train_pictures
        return lab

    @cached_property
    def _first(self) -> Lab:
        return self.kind(self.backbone, self.data, self.config, **self.tools)

    def twin(self) -> Backbone:
        """The model once more, for an adapter of its own, on the *same* frozen weights.

        It takes no memory. What changes weights in one (merging) changes them in the other.
        """
        weights = [*self.model.parameters(), *self.model.buffers()]
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in weights})
        return self.backbone.around(model)

    @property
    def judge(self) -> Any:
        """What measures the drawings of an SD3."""
        return self.tools["judge"]

    @property
    def precision(self) -> str:
        """Of what a lesson computes with the model itself."""
        return LOOKING[self.scale]

    def autocast(self) -> torch.autocast:
        """That precision, for the length of a block."""
        return autocast(self.device, self.precision, self.model)


def _is_here(path: str) -> bool:
    """Whether a file or folder lies below the data root, or where torch's hub keeps files."""
    hub = Path(torch.hub.get_dir(), "checkpoints")
    return (data_root() / path).exists() or (hub / PurePosixPath(path).name).is_file()
