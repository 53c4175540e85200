"""Checks of the exercises on the paper's trial: RepAdapter's layer, a rule for a claim, a front."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn.functional import conv1d

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


@exercise("9.1", "B A equals the change of RepAdapter's layer, for one, two and three groups")
def serial_pair() -> Iterator[Case]:
    """B A is the change of RepAdapter's layer, a convolution in groups."""

    def read(found, *_) -> tuple:
        A, B = found
        fits = A.ndim == B.ndim == 2 and A.shape[0] == B.shape[1]
        return [tuple(A.shape), tuple(B.shape)], B @ A if fits else None

    for width, hidden, groups, scale in ((8, 4, 2, 0.7), (12, 6, 3, -2.0), (5, 2, 1, 0.1)):
        down = torch.randn(hidden, width)
        up = torch.randn(groups, width // groups, hidden // groups)
        what = f"the pair for d = {width}, h = {hidden}, {groups} group{'s' * (groups > 1)}"
        layer = conv1d(down.T[..., None], up.flatten(0, 1)[..., None], groups=groups)
        shapes, change = [(hidden, width), (width, hidden)], scale * layer.squeeze(-1).T
        expected = Parts({f"the shapes of A and B: {what}": shapes, f"B A of {what}": change})
        form = "return two tensors, A and B, in this order"
        yield Case(what, (down, up, scale), expected, read=read, form=form, error=form)


@exercise("9.2", "eleven verdicts are right, with ties, with and without a margin")
def judge() -> Iterator[Case]:
    """Against the cells in order: the worst that must be good enough."""
    for differences, margin, share in (
        ([0.4, 0.1, -0.2, -0.4], 0.0, 0.5),
        ([0.4, -0.1, -0.2, -0.3], 0.0, 0.5),
        ([2.0, 3.0, -0.5, -0.9], 1.0, 1.0),
        ([2.0, 3.0, 0.5, -1.2], 1.0, 1.0),
        ([-0.5, -0.4, -0.6, -9.0], 1.0, 0.75),
        ([0.0, 0.3, 0.2], 0.0, 1.0),
        ([-1.0, -1.0, 0.5, 0.1, 0.2], 1.0, 0.8),
        ([1.5, 1.2, 0.1, -3.0], 0.5, 0.7),
        ([1.5, 1.2, -0.6, -3.0], 0.5, 0.7),
        ([0.2, -0.1, -5.0, -2.0], 0.0, 0.3),
        ([0.2, 0.1, -5.0], 0.0, 0.3),
    ):
        needed = math.ceil(share * len(differences) - 1e-9)
        worst = sorted(differences, reverse=True)[needed - 1]
        yield Case(
            f"the verdict on {differences}, margin {margin}, share {share}",
            (differences, margin, share),
            "holds" if worst > -margin else "fails",
            form="return the word holds or the word fails",
        )


@exercise(
    "9.3",
    "the fronts of eight sets of methods agree with comparing every pair, unsorted and with ties",
)
def front() -> Iterator[Case]:
    """Against every pair of arms."""
    for arms in (
        [(4, 2.0), (1, 1.0), (2, 3.0), (8, 5.0), (3, 0.5)],
        [(3, 1.0), (3, 2.0), (1, 1.0), (5, 2.0), (6, 2.5)],
        [(1, 0.5), (3, 1.0), (3, 2.0)],
        [(9, -1.0), (2, -3.0), (2, -4.0), (9, -2.0)],
        [(1, 4.0), (2, 3.0), (3, 3.5), (4, 4.5), (0.5, 0.1)],
        [(3, 3.0), (1, 1.0), (2, 1.2)],
        [(1, 2.0), (9, 1.0), (2, 3.0)],
        [(7, 1.5)],
    ):
        costs, gains = [list(each) for each in zip(*arms, strict=True)]
        unbeaten = {
            i
            for i, (cost, gain) in enumerate(arms)
            if not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in arms)
        }
        yield Case(
            f"the front of costs {costs} and gains {gains}",
            (costs, gains),
            unbeaten,
            form="return a set of positions, such as {0, 2}",
        )
