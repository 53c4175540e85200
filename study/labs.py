"""The labs as the study runs them: its own sets, what each test picture came to, and what was kept.

Beside the lab's measure of the new pictures stands the same measure of pictures that pretraining knew
(``kept_...``): how much of what the model could do before it still can. It is left out where a rate is
chosen, and of SD3, which draws nothing that it had been tuned away from.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from torch import Tensor

from serial_lora_course.data.emoji_sets import load_emoji_set
from serial_lora_course.data.subsets import with_few_tests
from serial_lora_course.labs import clip, sam, sd3
from serial_lora_course.labs.device import autocast
from serial_lora_course.labs.lab import Lab, Outcomes
from serial_lora_course.measures.metrics import accuracy
from study.sets import (
    CLIP_SETS,
    SAM_SETS,
    SD3_SETS,
    VALIDATION,
    kept_scenes,
    load_classes,
    load_scenes,
    load_study_style,
)

STEPS = 60  # of every run, whatever the method and the amount of data
SD3_STEPS = 180  # of a style: after a third of them hardly a drawing is in it
KEPT_PICTURES = 200  # of those that CLIP's pretraining knew
SAME_FOR_ALL = {
    "epochs": 1,
    "min_steps": STEPS,
    "dropout": 0.0,
    "plus_lr": None,
    "precision": "bf16",
}


def is_choosing(lab: Lab) -> bool:
    """Whether it measures validation pictures, so that a rate may be chosen."""
    return lab.data.name.endswith(VALIDATION)


class ClipStudy(clip.CLIPLab):
    """Few shots of an unseen designer's drawings; kept: OpenMoji's drawings of everything."""

    configs = {"tiny": replace(clip.TINY, **SAME_FOR_ALL)}
    base_names = ("zero_shot_", "base_")
    datasets = staticmethod(lambda scale: CLIP_SETS)
    load_data = staticmethod(lambda name, scale="tiny", root=None: load_classes(name))

    def measure(self) -> tuple[dict[str, float], Outcomes]:
        scores, labels = clip.classify(self.backbone, self.data, self._template)
        reached, seen = _told(scores, labels)
        if is_choosing(self):
            return reached, seen
        before, known = clip.classify(self.backbone, self.kept, self._template)
        right = {"kept_accuracy": (before.argmax(-1) == known).numpy()}
        return reached | {"kept_accuracy": accuracy(before, known)}, seen | right

    @property
    def _template(self) -> str:
        return clip.prompt_template(self.data, self.config.prompt)

    @cached_property
    def kept(self) -> clip.ClassificationData:
        return with_few_tests(load_emoji_set("everything"), KEPT_PICTURES)

    def measure_base(self) -> dict[str, float]:
        reached, _ = self.measure()
        return super().measure_base() | {f"base_{name}": value for name, value in reached.items()}


def _told(scores: Tensor, labels: Tensor) -> tuple[dict[str, float], Outcomes]:
    """Accuracy and the mean probability of the right class; and both of each picture."""
    chances = scores.softmax(-1)[range(len(labels)), labels]
    return {"accuracy": accuracy(scores, labels), "probability": chances.mean().item()}, {
        "accuracy": (scores.argmax(-1) == labels).numpy(),
        "probability": chances.numpy().astype(np.float16),
    }


class SamStudy(sam.SamLab):
    """Boxed objects in a hand that pretraining has not seen; kept: scenes in the hand that it has."""

    configs = {"tiny": replace(sam.TINY, **SAME_FOR_ALL)}
    datasets = staticmethod(lambda scale: tuple(SAM_SETS))
    load_data = staticmethod(lambda name, scale="tiny", root=None: load_scenes(name))

    def measure(self) -> tuple[dict[str, float], Outcomes]:
        reached, scores = super().measure()
        seen = {"dice": scores["dice"].astype(np.float32)}
        if is_choosing(self):
            return reached, seen
        with autocast(self.backbone.model.device, self.config.precision):
            before = sam.picture_scores(self.backbone, kept_scenes())
        seen["kept_dice"] = before["dice"].astype(np.float32)
        return reached | {"kept_dice": float(seen["kept_dice"].mean())}, seen

    def measure_base(self) -> dict[str, float]:
        base = super().measure_base()
        reached, _ = self.measure()
        return base | {f"base_{n}": v for n, v in reached.items() if n.startswith("kept_")}


class Sd3Study(sd3.Sd3Lab):
    """A style, of which a classifier that looks at colours and detail alone knows each drawing's chance."""

    configs = {"tiny": replace(sd3.TINY, **SAME_FOR_ALL | {"min_steps": SD3_STEPS})}
    datasets = staticmethod(lambda scale: SD3_SETS)
    load_data = staticmethod(lambda name, scale="tiny", root=None: load_study_style(name))

    def measure(self) -> tuple[dict[str, float], Outcomes]:
        drawn = self.draw()
        style = self.data.name.removesuffix(VALIDATION)
        chances = self.judge.style_probabilities(drawn)
        place = self.judge.styles.index(style)
        seen = {
            "style_share": (chances.argmax(1) == place).numpy(),
            "style_probability": chances[:, place].numpy().astype(np.float16),
        }
        reached = self.score(drawn, style)
        return reached | {"style_probability": chances[:, place].mean().item()}, seen

    def measure_base(self) -> dict[str, float]:
        return {f"base_{name}": value for name, value in self.measure()[0].items()}


STUDIES: dict[str, type[Lab]] = {"sam": SamStudy, "clip": ClipStudy, "sd3": Sd3Study}
