"""How a training step of SAM takes less memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def save_memory(encoder: nn.Module, precision: torch.autocast) -> None:
    """Run an image encoder in that precision, and let each block keep nothing but its input.

    What a block computed is computed again on the way back. Not by the re-entrant kind of checkpoint, which
    gives no gradient to an adapter behind a frozen stem.
    """
    encoder.forward = precision(encoder.forward)
    for block in encoder.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
