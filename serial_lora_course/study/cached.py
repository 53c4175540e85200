"""Methods that adapt CLIP without an adapter: they train on what its frozen picture tower makes of the shots.

That is computed once, of each picture as the tests see it, so that a run takes a blink. Each method has as
many steps as the adapters and, as they have, a rate that is chosen; all shots are in every batch. What
else its authors tune, and the pictures that they turn and crop, are left out.

==================  ===================================================================================
``tip_adapter_f``   zero-shot scores, and those of near shots, whose features learn (Zhang et al. 2022,
                    arXiv 2207.09519)
``lp_plus_plus``    a linear probe that starts at the classes' mean shots, plus each class's prompt times
                    a number that learns (Huang et al. 2024, arXiv 2404.02285); by AdamW, not by its
                    authors' own steps
``prolip``          the matrix that projects pooled tokens to features learns, held to where it was
                    (Fahes et al. 2024, arXiv 2410.05270)
==================  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs.clip import picture_features, prompt_template, prompt_tokens
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.resume import TrainingHistory
from serial_lora_course.labs.training import ExampleStream, train
from serial_lora_course.models.clip import CLIPBackbone, encode_prompts

BETA, ALPHA = 5.5, 1.0  # Tip-Adapter's: how near a shot must be, how much shots count


class Head(nn.Module):
    """Pooled tokens of pictures (N, width) to scores (N, classes).

    Args:
        projection: (width, embed_dim), CLIP's own.
        classes: normalised features (classes, embed_dim) of their prompts.
        scale: of CLIP's cosines.
        pooled, labels: of the shots, (K, width) and (K,).
    """

    def __init__(
        self, projection: Tensor, classes: Tensor, scale: Tensor, pooled: Tensor, labels: Tensor
    ) -> None:
        super().__init__()
        self.projection, self.classes, self.scale = map(_fixed, (projection, classes, scale))
        self.start(self.features(pooled), labels)

    def start(self, shots: Tensor, labels: Tensor) -> None:
        """Make what learns, of the shots' features (K, embed_dim)."""

    def features(self, pooled: Tensor) -> Tensor:
        return normalize(pooled @ self.projection, dim=-1)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.scale * self.features(pooled) @ self.classes.T

    def penalty(self) -> Tensor | float:
        """What a step makes small besides the cross-entropy."""
        return 0.0


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)


class TipAdapterF(Head):
    def start(self, shots: Tensor, labels: Tensor) -> None:
        self.keys = nn.Parameter(shots.detach().clone())
        self.values = _fixed(one_hot(labels, len(self.classes)).float())

    def forward(self, pooled: Tensor) -> Tensor:
        near = torch.exp(BETA * (self.features(pooled) @ self.keys.T - 1))  # (N, K)
        return super().forward(pooled) + ALPHA * near @ self.values


class LPPlusPlus(Head):
    def start(self, shots: Tensor, labels: Tensor) -> None:
        members = one_hot(labels, len(self.classes)).float().T  # (classes, K)
        means = members @ shots / members.sum(1, keepdim=True)
        self.weights = nn.Parameter(means.detach())
        self.shares = nn.Parameter(torch.ones(len(self.classes), 1))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.scale * self.features(pooled) @ (self.weights + self.shares * self.classes).T


class ProLIP(Head):
    def start(self, shots: Tensor, labels: Tensor) -> None:
        self.before = _fixed(self.projection)
        self.projection.requires_grad_(True)
        self.strength = 1 / len(shots)

    def penalty(self) -> Tensor:
        return self.strength * (self.projection - self.before).square().sum()


HEADS: dict[str, type[Head]] = {
    "tip_adapter_f": TipAdapterF,
    "lp_plus_plus": LPPlusPlus,
    "prolip": ProLIP,
}


class HeadObjective(nn.Module):
    """``forward((pooled tokens, labels)) -> loss``."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pooled, labels = batch
        return cross_entropy(self.head(pooled), labels) + self.head.penalty()


def train_head(
    lab: Lab,
    name: str,
    pooled: Tensor,
    labels: Tensor,
    seed: int,
    steps: int,
    after_step: Callable[[int], bool] | None = None,
) -> tuple[Head, TrainingHistory]:
    """A head of `HEADS`, trained with the lab's rate on some shots, (K, width) and (K,)."""
    model = lab.backbone.model
    prompts = lab.data.prompts(prompt_template(lab.data, lab.config.prompt))
    with torch.no_grad():
        classes = encode_prompts(model, prompt_tokens(lab.backbone, prompts))
        head = HEADS[name](model.visual.proj, classes, model.logit_scale.exp(), pooled, labels)
    shots = list(zip(pooled, labels.tolist(), strict=True))
    stream = ExampleStream(shots, range(len(shots)), tuple, seed, len(shots), steps)
    training = replace(lab.config.training(steps, seed=seed), precision="no")
    objective = HeadObjective(head)
    return head, train(objective, stream, training, progress=False, after_step=after_step)


@torch.no_grad()
def pooled_tokens(backbone: CLIPBackbone, data: ClassificationData) -> tuple[Tensor, Tensor]:
    """What the picture tower has of each test picture before its last matrix, (N, width), but for its
    length, which scores do not see; and the labels."""
    with last_matrix(backbone.model, None):
        return picture_features(backbone, data)


@contextmanager
def last_matrix(model: nn.Module, matrix: Tensor | None) -> Iterator[None]:
    """Another matrix, or none, behind the picture tower for the length of the block."""
    own = model.visual.proj
    model.visual.proj = None if matrix is None else nn.Parameter(matrix, requires_grad=False)
    try:
        yield
    finally:
        model.visual.proj = own
