"""What the pairs of a model read while something runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def tokens_read(
    pairs: Mapping[str, nn.Module], run: Callable[[], object], most: int = 1000
) -> dict[str, Tensor]:
    """Some evenly spaced tokens (n, d) of all that come to each pair while ``run`` runs the model."""
    read: dict[str, list[Tensor]] = {place: [] for place in pairs}
    hooks = [
        pair.register_forward_pre_hook(
            lambda _, inputs, kept=read[place]: kept.append(inputs[0].detach().flatten(0, -2))
        )
        for place, pair in pairs.items()
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    every = {place: torch.cat(kept) for place, kept in read.items()}
    return {place: tokens[:: 1 + len(tokens) // most] for place, tokens in every.items()}
