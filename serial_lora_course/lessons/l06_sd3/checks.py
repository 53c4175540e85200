"""Checks of the exercises on Stable Diffusion 3: the loss, the sampler, guidance by one model and by two.

Every expected value is reached another way than in the lesson: one picture or one number at a time,
or by finite differences.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise


class Toy(nn.Module):
    """A velocity with one weight a channel: of points (B, 2, h, w) and levels (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -1.3]))

    def forward(self, points: Tensor, levels: Tensor) -> Tensor:
        """As a transformer does, it wants one level for each picture."""
        if levels.shape != points.shape[:1]:
            raise ValueError(
                f"the model takes one level per picture, not levels of shape {tuple(levels.shape)}"
            )
        return self.weight.view(1, 2, 1, 1) * points + levels.view(-1, 1, 1, 1) ** 2


@exercise(
    "6.1", "the loss and the gradient of the model's weights equal those of one picture at a time"
)
def flow_loss() -> Iterator[Case]:
    """A toy model's loss, one picture after another."""
    for sizes, sigmas in (
        ((2, 3, 4), [0.2, 0.6, 0.9]),
        ((2, 5, 2), [0.4]),
        ((2, 2, 2), [1.0, 0.0]),
    ):
        ask = Toy()
        x, n = torch.randn(2, len(sigmas), *sizes)
        errors = []
        for latent, noise, sigma in zip(x, n, sigmas, strict=True):
            point = torch.lerp(latent, noise, sigma)[None]
            gap = ask(point, torch.tensor([sigma]))[0] - noise + latent
            errors += [gap.flatten() @ gap.flatten() / gap.numel()]
        yield Case(
            f"the loss of {len(sigmas)} latents of {' x '.join(map(str, sizes))}, sigmas {sigmas}",
            (ask, x, n, torch.tensor(sigmas)),
            sum(errors) / len(errors),
            leaves=lambda ask, *_: {"the model's weights": ask.weight},
            form="return one number, the mean over everything, as a tensor, so without .item()",
        )


def drifting(points: Tensor, level: float) -> Tensor:
    """A velocity that depends on where one is, and on the level."""
    return points * (0.5 + level) - level


@exercise(
    "6.2",
    "the sample equals one computed number by number, for even and uneven levels and for a single step",
)
def sample() -> Iterator[Case]:
    """Walks along a drifting velocity, one number at a time."""
    for levels in ([1.0, 0.7, 0.2, 0.0], [1.0, 0.75, 0.5, 0.25, 0.0], [1.0, 0.0]):
        noise = torch.randn(2, 1, 2, 3)
        numbers = []
        for number in noise.flatten().tolist():
            for place in range(1, len(levels)):
                level = levels[place - 1]
                number -= (level - levels[place]) * (number * (0.5 + level) - level)
            numbers.append(number)
        yield Case(
            f"the walk along the levels {levels}",
            (drifting, noise, levels),
            torch.tensor(numbers).view_as(noise),
        )


def resting(points: Tensor, level: float) -> Tensor:
    """Another one, with the empty prompt."""
    return level - 0.3 * points


def bending(points: Tensor, level: float) -> Tensor:
    """The other model's, with the prompt."""
    return points * points + level


def fading(points: Tensor, level: float) -> Tensor:
    """And with the empty one."""
    return level * points - 0.2


@exercise("6.3", "it equals guidance that is computed number by number, for four values of w")
def guided() -> Iterator[Case]:
    """How often each of the two answers is in it, one number at a time."""
    for w, level in ((3.0, 0.7), (0.0, 0.2), (1.0, 0.9), (7.0, 0.4)):
        points = torch.randn(2, 3, 4, 4)
        numbers = [
            w * (number * (0.5 + level) - level) + (1 - w) * (level - 0.3 * number)
            for number in points.flatten().tolist()
        ]
        yield Case(
            f"the velocity at guidance {w:g}",
            (drifting, resting, w, points, level),
            torch.tensor(numbers).view_as(points),
        )


@exercise(
    "6.4",
    "it equals the mix of both pulls, computed number by number, for five pairs of w and share",
)
def guided_by_two() -> Iterator[Case]:
    """How often each of the four answers is in it, one number at a time."""
    for w, share, level in (
        (3.0, 0.5, 0.7),
        (3.0, 0.0, 0.2),
        (5.0, 1.0, 0.9),
        (1.0, 0.3, 0.4),
        (2.0, 0.25, 0.6),
    ):
        points = torch.randn(2, 3, 4, 4)
        numbers = [
            (w - (w - 1) * share) * (number * (0.5 + level) - level)
            - (w - 1) * (1 - share) * (level - 0.3 * number)
            + (w - 1) * share * (number * number + level)
            - (w - 1) * share * (level * number - 0.2)
            for number in points.flatten().tolist()
        ]
        yield Case(
            f"the velocity at guidance {w:g} with the share {share:g}",
            ((drifting, resting), (bending, fading), w, share, points, level),
            torch.tensor(numbers).view_as(points),
        )
