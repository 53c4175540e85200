"""The frozen blocks before the first adapted one, computed once for each input.

With adapters in the last blocks only (the setting ``blocks``), what the blocks before them make of a
picture or a prompt is the same at every step. A step whose inputs were all seen before goes on from
there. Its result is the same and so are its gradients, which never pass such a block.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

import psutil
import torch
from torch import Tensor, nn

from serial_lora.records import adapters
from serial_lora_course.labs.processes import process_state


class FrozenPrefix:
    """What a tower's frozen blocks gave, kept for each input under the input's name.

        prefix = FrozenPrefix(model.visual.transformer.resblocks)
        with prefix.once(picture_ids):
            features = model.encode_image(pictures)

    Args:
        blocks: of the tower, in order from its first one; those before the first that is adapted or
            trained count. Each maps tokens (B, ...) to tokens (B, ...), and computes in training what
            it computes in evaluation.
        limit: bytes that are kept at most, in the CPU's memory; what does not fit is computed anew
            each time. None for a quarter of the memory that is free now.
    """

    def __init__(self, blocks: Iterable[nn.Module] = (), limit: int | None = None) -> None:
        self.blocks = list(blocks)
        free = psutil.virtual_memory().available // process_state().num_processes
        self.left = free // 4 if limit is None else limit
        self.kept: dict[tuple[Hashable, ...], Tensor] = {}

    @contextmanager
    def once(self, names: Iterable[Hashable]) -> Iterator[None]:
        """In the block, the tower runs on inputs with these names, one for each row of the batch."""
        frozen = list(takewhile(_is_frozen, self.blocks))
        if not frozen:
            yield
            return
        device = next(frozen[-1].parameters()).device
        keys = [(name, len(frozen), _precision(device)) for name in names]
        if not all(key in self.kept for key in keys):
            handle = frozen[-1].register_forward_hook(
                lambda block, args, tokens: self._keep(keys, tokens)
            )
            try:
                yield
            finally:
                handle.remove()
            return
        tokens = torch.stack([self.kept[key] for key in keys]).to(device)
        for block in frozen:
            block.forward = lambda *args, **kwargs: tokens
        try:
            yield
        finally:
            for block in frozen:
                del block.forward

    def _keep(self, keys: Sequence[tuple[Hashable, ...]], tokens: Tensor) -> None:
        for key, row in zip(keys, tokens.detach(), strict=True):
            if key not in self.kept and row.nbytes <= self.left:
                self.kept[key] = row.to("cpu", copy=True)
                self.left -= row.nbytes


def _is_frozen(block: nn.Module) -> bool:
    return not adapters(block) and not any(p.requires_grad for p in block.parameters())


def _precision(device: torch.device) -> torch.dtype | None:
    """What autocast computes products in, None where it is off."""
    on = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else None
