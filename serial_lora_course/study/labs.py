"""The labs as the study runs them: its own sets, what each test picture came to, and what was kept.

Beside the lab's measure of the new pictures stands the same measure of pictures that pretraining knew
(``kept_...``): how much of what the model could do before it still can.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from serial_lora.metrics import accuracy
from serial_lora_course.data.emoji_sets import load_emoji_set
from serial_lora_course.labs import clip, sam
from serial_lora_course.labs.keep import Outcomes
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.precision import autocast
from serial_lora_course.study.sets import (
    CLIP_SETS,
    SAM_SETS,
    kept_scenes,
    load_classes,
    load_scenes,
)

STEPS = 60  # of every run, whatever the method and the amount of data
SAME_FOR_ALL = {
    "epochs": 1,
    "min_steps": STEPS,
    "dropout": 0.0,
    "plus_lr": None,
    "precision": "bf16",
}


class ClipStudy(clip.CLIPLab):
    """Few shots of an unseen designer's drawings; kept: OpenMoji's drawings of everything."""

    configs = {"tiny": replace(clip.TINY, **SAME_FOR_ALL)}
    base_names = ("zero_shot_", "base_")
    datasets = staticmethod(lambda scale: CLIP_SETS)
    load_data = staticmethod(lambda name, scale="tiny", root=None: load_classes(name))

    def measure(self) -> tuple[dict[str, float], Outcomes]:
        template = clip.prompt_template(self.data, self.config.prompt)
        scores, labels = clip.classify(self.backbone, self.data, template)
        before, known = clip.classify(self.backbone, self.kept, template)
        chances = scores.softmax(-1)[range(len(labels)), labels]
        return {
            "accuracy": accuracy(scores, labels),
            "probability": chances.mean().item(),
            "kept_accuracy": accuracy(before, known),
        }, {
            "accuracy": (scores.argmax(-1) == labels).numpy(),
            "probability": chances.numpy().astype(np.float16),
            "kept_accuracy": (before.argmax(-1) == known).numpy(),
        }

    @cached_property
    def kept(self) -> clip.ClassificationData:
        return load_emoji_set("everything")

    def measure_base(self) -> dict[str, float]:
        reached, _ = self.measure()
        return super().measure_base() | {f"base_{name}": value for name, value in reached.items()}


class SamStudy(sam.SamLab):
    """Boxed objects in a hand that pretraining has not seen; kept: scenes in the hand that it has."""

    configs = {"tiny": replace(sam.TINY, **SAME_FOR_ALL)}
    datasets = staticmethod(lambda scale: tuple(SAM_SETS))
    load_data = staticmethod(lambda name, scale="tiny", root=None: load_scenes(name))

    def measure(self) -> tuple[dict[str, float], Outcomes]:
        reached, scores = super().measure()
        with autocast(self.backbone.model.device, self.config.precision):
            before = sam.picture_scores(self.backbone, kept_scenes())
        seen = {
            "dice": np.array([score.dice for score in scores], np.float32),
            "kept_dice": np.array([score.dice for score in before], np.float32),
        }
        return reached | {"kept_dice": float(seen["kept_dice"].mean())}, seen

    def measure_base(self) -> dict[str, float]:
        base = super().measure_base()
        reached, _ = self.measure()
        return base | {"base_kept_dice": reached["kept_dice"]}


STUDIES: dict[str, type[Lab]] = {"sam": SamStudy, "clip": ClipStudy}


def fresh_lab(name: str, dataset: str, backbone: Any = None) -> Lab:
    """A lab of the study on one of its sets.

    Args:
        backbone: the model, where it is loaded already.
    """
    kind = STUDIES[name]
    config = kind.configs["tiny"]
    backbone = backbone or kind.load_backbone(config, "tiny", "default")
    return kind(backbone, kind.load_data(dataset), config)
