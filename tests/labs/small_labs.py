"""The three labs, small enough to run in a blink: models of a few blocks, sets of a few pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from serial_lora_course.data.types import ClassificationData, Pictures, StyleData, StyleExample
from serial_lora_course.labs import clip, sam, sd3
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.lab import Lab
from tests.labs.lab_models import register_small, weights_file
from tests.models.sam_models import make_small_sam_the_tiny_one, sam_weights_file, segmentation_data
from tests.models.sd3_models import make_small_sd3_the_tiny_one

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 200, 60), (90, 90, 90)]
QUICK = {"rank": 4, "epochs": 1, "min_steps": 2, "batch_size": 4}


def coloured_part(counts: list[int], part: str) -> Pictures:
    """Plain pictures whose colour is their class."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]

    def painted(index: int) -> Image.Image:
        shade = (max(0, min(255, c + 7 * (index % 5) - 14)) for c in COLOURS[labels[index]])
        return Image.new("RGB", (20, 20), tuple(shade))

    names = [f"{part}-{number}" for number in range(len(labels))]
    return Pictures(names, painted, range(len(labels)), labels)


def coloured(name: str = "coloured") -> ClassificationData:
    return ClassificationData(
        name=name,
        class_names=["red", "green", "blue"],
        template="a {} thing.",
        train=coloured_part([5, 4, 4], "train"),
        test=coloured_part([4, 4, 4], "test"),
    )


def captioned(part: str, count: int) -> Pictures:
    """Captioned pictures of one colour each."""

    def painted(index: int) -> StyleExample:
        picture = Image.new("RGB", (16, 16), COLOURS[index % 5])
        return StyleExample(picture, f"colour {index % 5}", f"{part} {index}")

    return Pictures([f"{part} {index}" for index in range(count)], painted, range(count))


def style_data(name: str = "colours") -> StyleData:
    return StyleData(name=name, train=captioned("train", 10), test=captioned("test", 6))


class ColourJudge:
    """Judges by the mean colour: the darker, the more in style."""

    def networks(self):
        return []

    def picture_features(self, pictures):
        return torch.stack([torch.tensor(np.asarray(p)).float().mean((0, 1)) for p in pictures])

    def clip_scores(self, pictures, captions):
        assert len(pictures) == len(captions)
        return self.picture_features(pictures).mean(1) / 255

    def style_share(self, pictures, style):
        dark = self.picture_features(pictures).mean(1) < 128
        return dark.float().mean().item()


@dataclass
class SmallLab:
    """A lab with two small data sets, "one" and "two".

    Attributes:
        objective: the class of its objective.
        amounts: two amounts of training data.
        options: of `run_lab`, so that a run takes a blink.
        blocks, width: of the model's attention, all towers together.
    """

    kind: type[Lab]
    objective: type[torch.nn.Module]
    amounts: tuple[int, int]
    sets: dict[str, Any]
    blocks: int
    width: int = 16
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, datasets=("one",), methods=("serial_lora",), amounts=None, **options):
        """`run_lab`, one seed and one amount unless something else is asked for."""
        amounts = self.amounts[:1] if amounts is None else amounts
        some = {"seeds": [1], "progress": False} | self.options | options
        return run_lab(self.kind.name, datasets, methods, amounts, **some)

    def lab(self, **changes) -> Lab:
        """The lab on set "one", with a model of its own."""
        known = {k: v for k, v in self.options.items() if k != "weights"}
        config = self.kind.configured("tiny", **known | changes)
        backbone = self.kind.load_backbone(config, "tiny", self.options.get("weights", "default"))
        return self.kind(backbone, self.sets["one"], config, **self.kind.load_tools("tiny"))


def small_lab(name: str, monkeypatch, folder: Path) -> SmallLab:
    """One of them; what it loads takes the place of the tiny model and the tiny sets."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "clip":
        model = register_small(folder / "configs", "small-lab-clip")
        options = {"model_name": model, "weights": weights_file(folder / "clip.safetensors", model)}
        sets = {each: coloured(name=each) for each in ("one", "two")}
        small = SmallLab(clip.CLIPLab, clip.CLIPObjective, (2, 4), sets, 2)
    elif name == "sam":
        make_small_sam_the_tiny_one(monkeypatch)
        options = {"weights": sam_weights_file(folder / "sam.safetensors")}
        sets = {each: segmentation_data(name=each) for each in ("one", "two")}
        small = SmallLab(sam.SamLab, sam.SamObjective, (50, 100), sets, 3)
    else:
        make_small_sd3_the_tiny_one(monkeypatch, folder / "tiny")
        options = {"resolution": 16, "drawing_steps": 2}
        sets = {each: style_data(name=each) for each in ("one", "two")}
        monkeypatch.setattr(sd3, "load_judge", lambda scale: ColourJudge())
        small = SmallLab(sd3.Sd3Lab, sd3.StyleObjective, (50, 100), sets, 2)
    small.options = QUICK | options
    monkeypatch.setattr(small.kind, "load_data", staticmethod(lambda name, *_: sets[name]))
    return small
