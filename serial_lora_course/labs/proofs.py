"""What lesson 12 asks for, for whoever skips an exercise: a split, a proof, a pair, sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor, nn

from serial_lora.sites import AttentionSite, Projection
from serial_lora_course.data.subsets import hash_order
from serial_lora_course.models.parallel_vit import ParallelBlock


def split_by_object(
    objects: Sequence[str], labels: Sequence[int], share: float
) -> tuple[list[int], list[int]]:
    """Positions to train and to test: a share of each class's objects tests, whole, by a hash."""
    places, of_class = np.asarray(objects), np.asarray(labels)
    held: list[str] = []
    for label in np.unique(of_class):
        own = np.unique(places[of_class == label]).tolist()
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        held += [own[position] for position in hash_order(own, 0, "objects")[:count]]
    tests = np.isin(places, held)
    return np.flatnonzero(~tests).tolist(), np.flatnonzero(tests).tolist()


def merge_is_proved(base: Tensor, adapted: Tensor, merged: Tensor, tolerance: float) -> bool:
    """Whether merged outputs (B, d) equal the adapted ones to rounding, and the base's do not."""
    largest = adapted.abs().max()
    away, effect = ((each - adapted).abs().max() / largest for each in (merged, base))
    return bool(away <= tolerance < effect)


def ordinary_pair(
    weight: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """A (r, d) and B (out, r) of the LoRA beside a weight (out, d) that equals Serial LoRA's pair."""
    return lora_A, weight @ (scale * lora_B)


def parallel_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """One site for each `ParallelBlock`, at any depth of the model."""
    for name, block in model.named_modules():
        if isinstance(block, ParallelBlock):
            yield _parallel_site(name, block)


def _parallel_site(name: str, block: ParallelBlock) -> AttentionSite:
    width, attention = block.attention.query.in_features, f"{name}.attention"
    rows = {"q": ("query", 0), "k": ("key_value", 0), "v": ("key_value", width)}
    return AttentionSite(
        name=name,
        tower="image",
        block=int(name.rpartition(".")[2]),
        width=width,
        entry=attention,
        argument="tokens",
        projections={
            part: Projection(f"{attention}.{layer}", "weight", start, width, width)
            for part, (layer, start) in (rows | {"out": ("collect", 0)}).items()
        },
    )
