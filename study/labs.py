"""The labs as the study runs them: its own sets, what each test picture came to, and what was kept.

Beside the lab's measure of the new pictures stands the same measure of pictures that pretraining knew
(``kept_...``): how much of what the model could do before it still can. It is left out where a rate is
chosen, and of SD3, which draws nothing that it had been tuned away from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from serial_lora_course.data.emoji_sets import load_emoji_set
from serial_lora_course.data.subsets import with_few_tests
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs import clip, sam, sd3
from serial_lora_course.labs.device import autocast
from serial_lora_course.labs.lab import Lab, Outcomes
from serial_lora_course.measures.metrics import accuracy
from study.sets import SETS, VALIDATION, kept_scenes, load_set

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


class StudyLab(Lab):
    """What the three have in common: the study's sets, and a base that is measured as an arm is."""

    @classmethod
    def datasets(cls, scale: str) -> Sequence[str]:
        return SETS[cls.name][0]

    @classmethod
    def load_data(cls, name: str, *_: Any) -> DividedData:
        return load_set(cls.name, name)

    def measure_base(self) -> dict[str, float]:
        return super().measure_base() | Lab.measure_base(self)


class ClipStudy(StudyLab, clip.CLIPLab):
    """Few shots of an unseen designer's drawings; kept: Twemoji's drawings of everything."""

    configs = {"tiny": replace(clip.TINY, **SAME_FOR_ALL)}

    def measure(self) -> tuple[dict[str, float], Outcomes]:
        template = clip.prompt_template(self.data, self.config.prompt)
        scores, labels = clip.classify(self.backbone, self.data, template)
        chances = scores.softmax(-1)[range(len(labels)), labels]  # of the right class
        reached = {"accuracy": accuracy(scores, labels), "probability": chances.mean().item()}
        seen = {
            "accuracy": (scores.argmax(-1) == labels).numpy(),
            "probability": chances.numpy().astype(np.float16),
        }
        if not self.data.name.endswith(VALIDATION):
            known = with_few_tests(load_emoji_set("everything", drawn_by="twemoji"), KEPT_PICTURES)
            scores, labels = clip.classify(self.backbone, known, template)
            reached["kept_accuracy"] = accuracy(scores, labels)
        return reached, seen


class SamStudy(StudyLab, sam.SamLab):
    """Boxed objects in a hand that pretraining has not seen; kept: scenes in the hand that it has."""

    configs = {"tiny": replace(sam.TINY, **SAME_FOR_ALL)}

    def measure(self) -> tuple[dict[str, float], Outcomes]:
        reached, scores = super().measure()
        if not self.data.name.endswith(VALIDATION):
            with autocast(self.backbone.model.device, self.config.precision):
                known = sam.picture_scores(self.backbone, kept_scenes())
            reached["kept_dice"] = float(known["dice"].astype(np.float32).mean())
        return reached, {"dice": scores["dice"].astype(np.float32)}


class Sd3Study(StudyLab, sd3.Sd3Lab):
    """A style, of which a classifier that looks at colours and detail alone knows each drawing's chance."""

    configs = {"tiny": replace(sd3.TINY, **SAME_FOR_ALL | {"min_steps": SD3_STEPS})}

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

    measure_base = Lab.measure_base


STUDIES: dict[str, type[Lab]] = {"sam": SamStudy, "clip": ClipStudy, "sd3": Sd3Study}
