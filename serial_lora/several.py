"""Several adapters by name on one base, and none of them or one for each sample during a `with` block.

One adapter is in force: its values are in the model's pairs. The others lie on a shelf in the
record, and activating one copies its values into the pairs in place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, require_name, require_names, require_number
from serial_lora.injection import check_rank, new_adapter
from serial_lora.layers import low_rank
from serial_lora.merging import exactly
from serial_lora.records import (
    BLOCKS,
    Block,
    Injection,
    Shelved,
    adapter_shapes,
    adapters,
    injected,
    pair_shapes,
    require_finite,
    tensors_in_force,
    with_values,
)
from serial_lora.sites import child_name, unwrapped_name
from serial_lora.stored import refuse_deaf

Pair = tuple[Tensor, Tensor]  # A (r, inputs) and B (outputs, r)


def adapter_names(model: nn.Module) -> list[str]:
    """The names of the model's adapters, the one in force first."""
    _, injection = with_values(model)
    return [injection.name, *injection.shelf]


def add_adapter(model: nn.Module, name: str, config: AdapterConfig | None = None) -> nn.Module:
    """One more adapter, fresh and in force; modules that learn beside it begin at the base's values.

    Args:
        config: rank, scale and dropout may be others; None for those of the adapter in force.

    Raises:
        SerialLoRAError: there is an adapter of this name, the method or the places are others, no gradient
            passes the base, the adapters are merged or disabled. The model is then as it was.
    """
    root, injection = ready_to_change(model)
    refuse_deaf(root)  # what is fresh is there to be trained
    config = injection.config if config is None else config
    refuse_misfit(injection, name, config)
    with exactly(root):
        fresh = {
            f"{path}.{which}": tensor.detach()
            for path, shape in pair_shapes(injection).items()
            for which, tensor in new_adapter(shape, config).named_parameters()
        }
        own = {key: tensor.clone() for key, tensor in injection.own.items()}
        put_in_force(injection, config, fresh | own, name)
    return model


def activate(model: nn.Module, name: str) -> nn.Module:
    """Put another of the model's adapters in force, and what learned beside it.

    With equal ranks compiled code, DistributedDataParallel and an optimizer go on (the optimizer with
    the moments of the one before: have one for each adapter). Another rank gives the pairs another
    shape: code is compiled once more, and an optimizer must be made anew. Gradients are forgotten.

    Raises:
        SerialLoRAError: there is no such adapter, or they are merged or disabled.
    """
    root, injection = ready_to_change(model)
    chosen = read_adapter(injection, name)
    if name != injection.name:
        with torch.inference_mode(False):  # nothing is computed here
            put_in_force(injection, chosen.config, chosen.tensors, name)
    return model


def remove_adapter(model: nn.Module, name: str) -> nn.Module:
    """Forget an adapter that is not in force.

    Raises:
        SerialLoRAError: there is no such adapter, or it is the one in force.
    """
    _, injection = with_values(model)
    read_adapter(injection, name)  # or refuse
    if name == injection.name:
        raise SerialLoRAError(
            f"{name!r} is in force; activate another adapter first, or eject(model) to take all out."
        )
    del injection.shelf[name]
    return model


def combine(model: nn.Module, weights: Mapping[str, float], name: str) -> nn.Module:
    """The weighted sum of adapters as one more adapter, exact and in force.

    A sum of products is a product of stacked matrices, w_1 B_1 A_1 + w_2 B_2 A_2 = [w_1 B_1, w_2 B_2]
    [A_1; A_2], so its rank is the sum of the ranks.

    Args:
        weights: for each adapter its weight, beside its own scale.
        name: of the new adapter.

    Raises:
        SerialLoRAError: there is no such adapter, a weight is not finite, the ranks are too many, or
            modules learn beside the adapters, which have no exact sum. The model is as it was.
    """
    if not isinstance(weights, Mapping):
        raise SerialLoRAError(
            f"weights are a number for each adapter's name, not {weights!r}; name them with a dict."
        )
    for which, weight in weights.items():
        require_number(f"the weight of {which}", weight)

    def add(pairs: list[Pair]) -> Pair:
        weighted = [weight * B for weight, (_, B) in zip(weights.values(), pairs, strict=True)]
        return torch.cat([A for A, _ in pairs]), torch.cat(weighted, dim=1)

    return _put_stacked(model, list(weights), name, add)


def chain(model: nn.Module, names: Sequence[str], name: str) -> nn.Module:
    """Adapters one after the other as one more adapter, exact and in force.

    Tokens pass the first, then the second: (I + B_2 A_2)(I + B_1 A_1) = I + [B_1, B_2]
    [A_1; A_2 + A_2 B_1 A_1]. This is not their sum, and another order gives another adapter.

    Raises:
        SerialLoRAError: as `combine`; or the method is LoRA, whose pairs stand beside the weights,
            so that one after the other is the sum.
    """
    if with_values(model)[1].config.method != SerialLoRAConfig.method:
        raise SerialLoRAError(
            "LoRA's pairs stand beside a weight, where one after the other is the sum; use combine."
        )

    def then(first: Pair, second: Pair) -> Pair:
        (A1, B1), (A2, B2) = first, second
        return torch.cat([A1, A2 + A2 @ B1 @ A1]), torch.cat([B1, B2], dim=1)

    return _put_stacked(model, names, name, lambda pairs: reduce(then, pairs))


def _put_stacked(
    model: nn.Module, names: Sequence[str], name: str, stacked: Callable[[list[Pair]], Pair]
) -> nn.Module:
    root, injection = ready_to_change(model)
    each = [read_adapter(injection, which) for which in require_names("adapters", names)]
    if injection.also_train:
        raise SerialLoRAError(
            f"{next(iter(injection.also_train))} learned beside each adapter, and such modules have "
            "no exact sum or product; activate one adapter at a time."
        )
    rank = sum(adapter.config.rank for adapter in each)
    config = replace(injection.config, rank=rank, scale=1.0, dropout=0.0)
    refuse_misfit(injection, name, config)
    with exactly(root):
        pairs = [read_pairs(injection, which) for which in names]
        tensors = {}
        for place in injection.pairs:
            A, B = stacked([(A.double(), B.double()) for A, B in (one[place] for one in pairs)])
            tensors |= {f"{place}.lora_A": A, f"{place}.lora_B": B}
        require_finite(tensors, "put together")
        put_in_force(injection, config, tensors, name)
    return model


# ------------------------------------------------------------------ values, and where they are put


def read_adapter(injection: Injection, name: str) -> Shelved:
    """The adapter of this name; if it is the one in force, with the model's own tensors."""
    if name == injection.name:
        return Shelved(injection.config, tensors_in_force(injection))
    there = [injection.name, *injection.shelf]
    if name not in there:
        raise SerialLoRAError(
            f"there is no adapter named {name!r}; the model has: {', '.join(there)}."
        )
    return injection.shelf[name]


def read_pairs(injection: Injection, name: str | None) -> dict[str, Pair]:
    """A and scale * B of every pair of the adapter of this name; zeros for None, the base."""
    adapter = read_adapter(injection, injection.name if name is None else name)
    scale = 0.0 if name is None else adapter.config.scale
    pairs = {}
    for place, here in injection.pairs.items():
        A, B = (adapter.tensors[f"{place}.{which}"].detach() for which in ("lora_A", "lora_B"))
        pairs[place] = A.to(here.lora_A), scale * B.to(here.lora_B)
    return pairs


def ready_to_change(model: nn.Module) -> tuple[nn.Module, Injection]:
    """The record, unless adapters are merged, disabled, given for each sample or sharded."""
    root, injection = with_values(model)
    injection.refuse_inside()
    if injection.merged:
        raise SerialLoRAError(
            "the model's adapters are merged; call unmerge(model) or eject(model) first."
        )
    if any(hasattr(parameter, "full_tensor") for parameter in root.parameters()):
        raise SerialLoRAError(
            "FSDP has spread the model over processes; load, add and switch adapters before that."
        )
    return root, injection


@torch.no_grad()
def put_in_force(
    injection: Injection,
    config: AdapterConfig,
    tensors: Mapping[str, Tensor],
    name: str | None = None,
) -> None:
    """These settings and values into the model's pairs, the former to the shelf; on an error nothing."""
    here = tensors_in_force(injection)
    kept = {key: tensor.detach().clone() for key, tensor in here.items()}
    values = {
        key: tensors[key].to(old, copy=tensors[key].is_inference()) for key, old in here.items()
    }
    before = injection.name, injection.config, injection.shelf
    shelf = {other: adapter for other, adapter in injection.shelf.items() if other != name}
    if name not in (None, injection.name):
        shelf[injection.name] = Shelved(injection.config, kept)
    try:
        _write(injection, (name or injection.name, config, shelf), values)
    except BaseException:  # Ctrl-C too
        _write(injection, before, kept)
        raise
    for tensor in here.values():
        tensor.grad = None


def _write(
    injection: Injection,
    record: tuple[str, AdapterConfig, dict[str, Shelved]],
    values: Mapping[str, Tensor],
) -> None:
    injection.name, injection.config, injection.shelf = record
    for key, tensor in tensors_in_force(injection).items():
        if tensor.shape == values[key].shape:
            tensor.copy_(values[key])
        else:
            tensor.data = values[key]
    for pair in injection.pairs.values():
        pair.scale, pair.dropout.p = injection.config.scale, injection.config.dropout


def refuse_misfit(injection: Injection, name: str, config: AdapterConfig) -> None:
    """Refuse one more adapter of this name and configuration."""
    require_name(name)
    if name in (injection.name, *injection.shelf):
        raise SerialLoRAError(
            f"there is an adapter named {name!r} already; choose another name, or remove it first."
        )
    own = {key: getattr(injection.config, key) for key in ("rank", "scale", "dropout")}
    if not isinstance(config, AdapterConfig) or injection.config != replace(config, **own):
        raise SerialLoRAError(
            "the adapters of one model have one method and the same places, as in "
            f"{injection.config}; call eject(model) to begin with others."
        )
    check_rank(injection.sites, config)


# -------------------------------------------------------------------- none, or one for each sample

_LOCK = threading.RLock()


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base model, for the length of a `with` block.

    Modules that learn beside the adapters have the base's own values. Blocks may be nested. Other
    threads and asyncio tasks go on with the adapters; code that torch.compile made is without them in
    every thread. A model is not copied or saved whole inside.

    Raises:
        SerialLoRAError: if there are no adapters, they are merged, or the model was rebuilt since.
    """
    root, injection = injected(model)
    if injection.merged:
        raise SerialLoRAError("the adapters are merged; call unmerge(model) first.")
    with _standing_in(root, injection, dict.fromkeys(adapters(root).values())):
        yield model


@contextmanager
def per_sample(model: nn.Module, names: Sequence[str | None]) -> Iterator[nn.Module]:
    """Another adapter for each sample of a batch, in one forward pass, for the length of a block.

    The outputs are those of separate passes, however many adapters there are. For inference: the
    adapters get no gradients. Other threads and asyncio tasks may have blocks of their own at the same
    time, unless torch.compile has made code of the model, which has one for all.

    Args:
        names: for each sample the name of its adapter, None for the base.

    Raises:
        SerialLoRAError: there is no adapter of such a name; the model is in training mode, merged
            or disabled; or modules learn beside the adapters, which the batch has in common. A
            batch of another size is refused as it enters the model.
    """
    root, injection = with_values(model)
    names = require_names("the adapters of samples", names, or_none=True)
    if not names:
        raise SerialLoRAError(
            "per_sample was given no names; give one for each sample of the batch."
        )
    if any(block.open and block.record is injection for block in BLOCKS.get()):
        injection.refuse_inside()
    if injection.merged or any(adapter.training for adapter in adapters(root).values()):
        raise SerialLoRAError(
            "adapters for each sample are for inference with unmerged adapters; call "
            "unmerge(model) and model.eval() first."
        )
    if injection.also_train:
        raise SerialLoRAError(
            f"the samples of a batch share {next(iter(injection.also_train))}, which learned "
            "beside the adapters; run those of each adapter separately, or load the files with heads=False "
            "and give each sample's features to its own head."
        )
    with exactly(root):
        pairs = _gathered(root, injection, names)
    with _standing_in(root, injection, pairs):
        yield model


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
            f"per_sample was given {len(self.index)} names, but a batch of sizes {tuple(sizes)} came; "
            "give one name for each sample of the batch, and run each tower by itself."
        )

    def delta(self, x: Tensor) -> Tensor:
        samples, tokens = len(self.index), x.movedim(self.dimension, 0)
        if (
            x.ndim < 2 + self.dimension
            or len(tokens) % samples
            or (len(tokens) != samples and (x.ndim < 3 or not self.windows))
        ):
            raise self.misfit(x.shape)
        rows = tokens.reshape(samples, -1, x.shape[-1])  # windows are in the order of samples
        change = low_rank(rows, self.A[self.index], self.B[self.index])
        return change.reshape(*tokens.shape[:-1], -1).movedim(0, self.dimension)


def _gathered(
    root: nn.Module, injection: Injection, names: list[str | None]
) -> dict[nn.Module, SamplePairs]:
    kinds = list(dict.fromkeys(names))
    index = torch.tensor([kinds.index(name) for name in names])
    each = [read_pairs(injection, kind) for kind in kinds]
    there, stand_ins = injection.pairs, {}
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
    """These in place of adapters: in this thread or task, and in compiled code of all threads."""
    block = Block(injection, acting)
    with _LOCK:
        elsewhere = [other for other in injection.open if other not in BLOCKS.get()]
        mixed = elsewhere and not all(other.base for other in (*elsewhere, block))
        if mixed and any(hook.traced for hook in injection.hooks):
            raise SerialLoRAError(
                "torch.compile has made code of this model, which serves one per_sample block at a time; "
                "wait for that of the other thread."
            )
        _now_open(root, injection, [*injection.open, block])
    BLOCKS.set((*BLOCKS.get(), block))
    try:
        yield
    finally:
        with _LOCK:
            block.open = False
            _now_open(root, injection, [other for other in injection.open if other.open])
        BLOCKS.set(tuple(other for other in BLOCKS.get() if other.open))


def _now_open(root: nn.Module, injection: Injection, blocks: list[Block]) -> None:
    """Give modules that learn the base's own values while any block is the base's; tell compiled code."""
    before, injection.open = injection.bare, blocks
    if injection.bare != before:
        with exactly(root):
            injection.exchange()
    acting = blocks[-1].acting if blocks else {}
    for hook in injection.hooks:
        hook.compiled = tuple(acting.get(adapter, adapter) for adapter in hook.adapters)
