"""None of a model's adapters, or one for each sample, for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError, require_names
from serial_lora.layers import low_rank
from serial_lora.state import Injection, adapters, injected, plain_context
from serial_lora.values import read_pairs


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base model, for the length of a `with` block.

    Modules that learn beside the adapters have the base's own values. Blocks may be nested. Meanwhile
    the model is its base for every thread and asyncio task, and is not copied or saved whole.
    """
    root, injection = injected(model)
    injection.refuse_merged()
    with _standing_in(root, injection, dict.fromkeys(injection.pairs.values())):
        yield model


@contextmanager
def per_sample(model: nn.Module, names: Sequence[str | None]) -> Iterator[nn.Module]:
    """Another adapter for each sample of a batch, in one forward pass, for the length of a block.

    The outputs are those of separate passes, however many adapters there are. For inference: the
    adapters get no gradients. Every thread and asyncio task has them meanwhile.

    Args:
        names: for each sample the name of its adapter, None for the base.

    Raises:
        SerialLoRAError: there is no adapter of such a name; the model is in training mode, merged
            or disabled; or modules learn beside the adapters, which the batch has in common. A
            batch of another size is refused as it enters the model, if it is in tensors.
    """
    root, injection = injected(model)
    names = require_names("the adapters of samples", names, or_none=True)
    injection.refuse_inside()
    if injection.merged or any(adapter.training for adapter in adapters(root).values()):
        raise SerialLoRAError(
            "adapters for each sample are for inference with unmerged adapters; call "
            "unmerge(model) and model.eval() first."
        )
    if injection.also_train:
        raise SerialLoRAError(
            f"the samples of a batch share {next(iter(injection.also_train))}, which learned "
            "beside the adapters; run those of each adapter separately, or load the files with "
            "heads=False and give each sample's features to its own head."
        )
    with plain_context(root):
        pairs = _gathered(injection, names)
    counted = root.register_forward_pre_hook(next(iter(pairs.values())).count, with_kwargs=True)
    try:
        with _standing_in(root, injection, pairs):
            yield model
    finally:
        counted.remove()


class SamplePairs:
    """In place of one adapter: as many pairs as there are names, and which one each sample has.

    Attributes:
        A, B: (names, r, inputs) and (names, outputs, r), scale within; zeros pad smaller ranks.
        index: (samples,), for each its place among the names.
        dimension: that of the samples in the tokens, where a sample may be several windows.
    """

    def __init__(self, adapter: nn.Module, pairs: list, index: Tensor, dimension: int) -> None:
        self.kind, self.lora_A = type(adapter), adapter.lora_A
        rank = max(len(first) for first, _ in pairs)
        pad = nn.functional.pad
        self.A = torch.stack([pad(a, (0, 0, 0, rank - len(a))) for a, _ in pairs])
        self.B = torch.stack([pad(b, (0, rank - b.shape[1])) for _, b in pairs])
        self.index, self.dimension = index.to(self.A.device), dimension

    def __call__(self, x: Tensor) -> Tensor:
        """As `SerialLoRA.forward` or `LoRA.forward`, with the change below."""
        return self.kind.forward(self, x)

    def misfit(self, sizes: Sequence[int]) -> SerialLoRAError:
        return SerialLoRAError(
            f"per_sample was given {len(self.index)} names, but a batch of sizes {tuple(sizes)} "
            "came, of other samples or with the tokens first; give one name for each sample of the "
            "batch, and run each tower by itself."
        )

    def count(self, model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Before the model runs: refuse a batch of another number of samples."""
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        sizes = [size for tensor in tensors for size in tensor.shape[: self.dimension + 1]]
        if sizes and len(self.index) not in sizes:
            raise self.misfit(sizes)

    def delta(self, x: Tensor) -> Tensor:
        samples, tokens = len(self.index), x.movedim(self.dimension, 0)
        in_windows = len(tokens) != samples
        fits = x.ndim >= 2 + self.dimension + in_windows and len(tokens) % samples == 0
        if not fits or (in_windows and tokens.shape[1] == samples):  # or are these the samples?
            raise self.misfit(x.shape)
        rows = tokens.reshape(samples, -1, x.shape[-1])  # windows are in the order of samples
        change = low_rank(rows, self.A[self.index], self.B[self.index])
        return change.reshape(*tokens.shape[:-1], -1).movedim(0, self.dimension)


def _gathered(injection: Injection, names: list[str | None]) -> dict[nn.Module, SamplePairs]:
    kinds = list(dict.fromkeys(names))
    index = torch.tensor([kinds.index(name) for name in names])
    each = [read_pairs(injection, kind) for kind in kinds]
    batch_first = {pair: one.batch_first for one in injection.adapted for pair in one.pairs}
    stand_ins: dict[nn.Module, SamplePairs] = {}
    for place, own in injection.pairs.items():
        pairs, dimension = [one[place] for one in each], 0 if batch_first[own] else 1
        stand_ins[own] = SamplePairs(own, pairs, index, dimension)
    return stand_ins


@contextmanager
def _standing_in(
    root: nn.Module, injection: Injection, acting: Mapping[nn.Module, SamplePairs | None]
) -> Iterator[None]:
    """These in place of adapters."""

    def open_now(blocks: list[Mapping[nn.Module, Any]]) -> None:
        """The innermost acts; while any is the base's, modules that learn have its values."""
        before, injection.open = injection.bare, blocks
        if injection.bare != before:
            with plain_context(root):
                injection.exchange()
        for adapted in injection.adapted:
            adapted.stand_in(blocks[-1] if blocks else None)

    outer = injection.open
    open_now([*outer, acting])
    try:
        yield
    finally:
        open_now(outer)
