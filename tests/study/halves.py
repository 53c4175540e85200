"""A lab of the study that runs in a blink: two sets, two arms."""

from dataclasses import replace

import numpy as np

from study.plan import PLANS, Arm
from tests.labs.fourth_lab import Halves, HalvesData, HalvesLab

PLAN = replace(
    PLANS["sam"],
    arms=(Arm("lora", 2, seeds=1), Arm("serial_lora", 2, seeds=2)),
    chosen_on=("one",),
    reference="lora-2",
)


class HalvesStudy(HalvesLab):
    configs = {"tiny": replace(HalvesLab.configs["tiny"], min_steps=3, precision="no")}
    datasets = staticmethod(lambda scale: ("one", "two"))

    @staticmethod
    def load_data(name, scale="tiny", root=None):
        first = 2 if name.startswith("one") else 3
        test = Halves(16, first + 10 * name.endswith("/validation"))
        return HalvesData(name=name, train=Halves(32, 1), test=test, scale=scale)

    def measure(self):
        reached, scores = super().measure()
        right = scores.argmax(-1).numpy() == np.arange(len(scores)) % 2
        return {"dice": reached["accuracy"]}, {"dice": right.astype(np.float32)}
