"""A fourth lab, all of it: which half of a picture is bright, seen by a small ViT."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs.config import LabConfig, setting
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.report import Report, beginning
from serial_lora_course.labs.training import ExampleStream
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.weights import Backbone


class Halves(list):
    """Noise (3, 16, 16), brighter on the left (label 0) or on the right (label 1)."""

    def __init__(self, count: int, seed: int) -> None:
        noise = np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(np.float32)
        noise[::2, ..., :8] += 1
        noise[1::2, ..., 8:] += 1
        super().__init__((torch.from_numpy(picture), i % 2) for i, picture in enumerate(noise))
        self.picture_ids = [f"{seed}-{i}" for i in range(count)]


class HalvesData(DividedData):
    purpose = "halves"


@dataclass(frozen=True)
class HalvesConfig(LabConfig):
    """Every choice of a run."""

    rank: int = 4
    lr: float = 1e-2
    batch_size: int = 8
    noise: float = setting(0.1, "added to a training picture")


class SmallViT(nn.Module):
    """Four patches, two of PyTorch's blocks, a head over all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, kernel_size=8, stride=8)
        block = nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2)
        self.head = nn.Linear(4 * 16, 2)

    def forward(self, pictures):
        tokens = self.patches(pictures).flatten(2).mT  # (N, 4, 16)
        return self.head(self.blocks(tokens).flatten(1))


class HalvesObjective(nn.Sequential):
    def forward(self, batch):
        pictures, labels = batch
        return nn.functional.cross_entropy(super().forward(pictures).float(), labels)


class HalvesLab(Lab):
    """Bright halves; the amount is a share of the training pictures."""

    name, unit, amount = "halves", "percent", 100
    configs = {"tiny": HalvesConfig(min_steps=20), "paper": HalvesConfig(min_steps=100)}
    help = {"weights": "not used"}
    report = Report(
        title="Bright halves",
        result=lambda record: f"{record.measures['accuracy']:.0%}",
        columns={"accuracy": ("{:.0%}", itemgetter("accuracy"))},
        baselines={"not adapted": beginning("base_")},
    )

    datasets = staticmethod(lambda scale: ["halves"])
    indices = staticmethod(training_subset)

    @staticmethod
    def load_data(name, scale):
        return HalvesData(name=name, train=Halves(32, 1), test=Halves(16, 2), scale=scale)

    @staticmethod
    def load_backbone(config, scale, weights):
        torch.manual_seed(0)
        return Backbone(SmallViT().eval(), "small-vit", scale)

    def objective(self):
        return HalvesObjective(self.backbone.model)

    def stream(self, indices, seed):
        def noisy(example):
            return example[0] + self.config.noise * torch.randn(3, 16, 16), example[1]

        size, steps = self.config.batch_size, self.config.steps(len(indices))
        return ExampleStream(self.data.train, indices, noisy, seed, size, steps)

    @torch.no_grad()
    def measure(self):
        pictures, labels = zip(*self.data.test, strict=True)
        scores = self.backbone.model.eval()(torch.stack(pictures))
        return {"accuracy": accuracy(scores, torch.tensor(labels))}, scores


LAB = HalvesLab


def dies_once_and_fails_once(folder: Path, lab, method, seen, name):
    """In a worker, when a run was measured: the first kills it, and one never gets its record."""
    if name.startswith("halves-50-lora"):
        raise SerialLoRAError("This one fails.")
    try:
        (folder / "killed").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
