"""None of a model's adapters, or one for each sample, for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.config import SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, require_names
from serial_lora.layers import low_rank
from serial_lora.sites import child_name, unwrapped_name
from serial_lora.state import (
    HERE,
    Injection,
    Override,
    adapter_shapes,
    adapters,
    injected,
    plain_context,
    with_values,
)
from serial_lora.values import read_pairs


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base model, for the length of a `with` block.

    Modules that learn beside the adapters have the base's own values. Blocks may be nested. Meanwhile
    other threads and asyncio tasks are refused, and a model is not copied or saved whole.

    Raises:
        SerialLoRAError: if there are no adapters, they are merged, or the model was rebuilt since.
    """
    root, injection = injected(model)
    injection.refuse_merged()
    with _standing_in(root, injection, dict.fromkeys(injection.pairs.values())):
        yield model


@contextmanager
def per_sample(model: nn.Module, names: Sequence[str | None]) -> Iterator[nn.Module]:
    """Another adapter for each sample of a batch, in one forward pass, for the length of a block.

    The outputs are those of separate passes, however many adapters there are. For inference: the
    adapters get no gradients. Meanwhile other threads and asyncio tasks are refused.

    Args:
        names: for each sample the name of its adapter, None for the base.

    Raises:
        SerialLoRAError: there is no adapter of such a name; the model is in training mode, merged
            or disabled; or modules learn beside the adapters, which the batch has in common. A
            batch of another size is refused as it enters the model.
    """
    root, injection = with_values(model)
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
        pairs = _gathered(root, injection, names)
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
        dimension: that of the samples in the tokens.
        windows: whether a sample may come as several windows of its tokens.
    """

    def __init__(
        self, adapter: nn.Module, pairs: list, index: Tensor, dimension: int, windows: bool
    ) -> None:
        self.kind, self.lora_A = type(adapter), adapter.lora_A
        rank = max(len(first) for first, _ in pairs)
        pad = nn.functional.pad
        self.A = torch.stack([pad(a, (0, 0, 0, rank - len(a))) for a, _ in pairs])
        self.B = torch.stack([pad(b, (0, rank - b.shape[1])) for _, b in pairs])
        self.index, self.dimension = index.to(self.A.device), dimension
        self.windows = windows

    def __call__(self, x: Tensor) -> Tensor:
        """As `SerialLoRA.forward` or `LoRA.forward`, with the change below."""
        return self.kind.forward(self, x)

    def misfit(self, sizes: Sequence[int]) -> SerialLoRAError:
        return SerialLoRAError(
            f"per_sample was given {len(self.index)} names, but a batch of sizes {tuple(sizes)} "
            "came; give one name for each sample of the batch, and run each tower by itself."
        )

    def count(self, model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Before the model runs: refuse a batch of another number of samples."""
        sizes = list(_sizes([*args, *kwargs.values()], self.dimension + 1))
        if sizes and len(self.index) not in sizes:
            raise self.misfit(sizes)

    def delta(self, x: Tensor) -> Tensor:
        samples, tokens = len(self.index), x.movedim(self.dimension, 0)
        if (
            x.ndim < 2 + self.dimension
            or len(tokens) % samples
            or (len(tokens) != samples and (x.ndim < 3 or not self.windows))
        ):
            raise self.misfit(x.shape)
        if len(tokens) != samples == tokens.shape[1]:
            raise SerialLoRAError(
                f"tokens of sizes {tuple(x.shape)} are windows of {samples} tokens, or {samples} "
                "samples with the tokens first, which per_sample cannot tell apart; run the "
                "samples of each adapter separately."
            )
        rows = tokens.reshape(samples, -1, x.shape[-1])  # windows are in the order of samples
        change = low_rank(rows, self.A[self.index], self.B[self.index])
        return change.reshape(*tokens.shape[:-1], -1).movedim(0, self.dimension)


def _sizes(arguments: Iterable, leading: int) -> Iterator[int]:
    """What may be the number of samples: sizes of tensors, in dicts too, and of lists."""
    for each in arguments:
        if isinstance(each, Tensor):
            yield from each.shape[:leading]
        elif isinstance(each, Mapping):
            yield from _sizes(each.values(), leading)
        elif isinstance(each, list):
            yield len(each)
            yield from _sizes([one for one in each if isinstance(one, Tensor)], leading)


def _gathered(
    root: nn.Module, injection: Injection, names: list[str | None]
) -> dict[nn.Module, SamplePairs]:
    kinds = list(dict.fromkeys(names))
    index = torch.tensor([kinds.index(name) for name in names])
    each = [read_pairs(injection, kind) for kind in kinds]
    there = injection.pairs
    stand_ins: dict[nn.Module, SamplePairs] = {}
    for site in injection.sites:
        layer = root.get_submodule(site.first.module)
        dimension = 0 if site.batch_first and getattr(layer, "batch_first", True) else 1
        serial = injection.config.method == SerialLoRAConfig.method
        # Windows are cut of pictures alone, and behind an entry.
        windows = not (site.stream or site.tower == "text" or (serial and site.entry))
        for own in adapter_shapes(site, injection.config):
            place = unwrapped_name(child_name(site.name, own))
            pairs = [one[place] for one in each]
            stand_ins[there[place]] = SamplePairs(there[place], pairs, index, dimension, windows)
    return stand_ins


@contextmanager
def _standing_in(
    root: nn.Module, injection: Injection, acting: Mapping[nn.Module, Callable | None]
) -> Iterator[None]:
    """These in place of adapters."""
    if injection.open:
        injection.open[-1].require_here()
    override = Override(acting)
    HERE.set((*HERE.get(), override))
    _now_open(root, injection, [*injection.open, override])
    try:
        yield
    finally:
        _now_open(root, injection, [other for other in injection.open if other is not override])
        HERE.set(tuple(other for other in HERE.get() if other is not override))


def _now_open(root: nn.Module, injection: Injection, overrides: list[Override]) -> None:
    """The innermost acts; while any is the base's, modules that learn have its values."""
    before, injection.open = injection.bare, overrides
    if injection.bare != before:
        with plain_context(root):
            injection.exchange()
    for adapted in injection.adapted:
        adapted.stand_in(overrides[-1] if overrides else None)
