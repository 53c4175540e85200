"""The pictures to learn from, cropped anew whenever one is asked for."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchvision import transforms

from serial_lora_course.models.clip import CLIPBackbone


class Shots(list):
    """(Picture, class) pairs as a model learns from them: a random crop (3, H, W) and its class, on the device.

    No crop is mirrored, because a letter in a mirror is no letter.
    """

    def __init__(self, pairs: Iterable, backbone: CLIPBackbone, device: torch.device):
        super().__init__(pairs)
        steps = backbone.train_transform.transforms  # crop, flip, to a tensor, normalise
        mirror = transforms.RandomHorizontalFlip
        self.crop = transforms.Compose([step for step in steps if not isinstance(step, mirror)])
        self.device = device

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        picture, label = super().__getitem__(i)
        return self.crop(picture).to(self.device), torch.tensor(label, device=self.device)
