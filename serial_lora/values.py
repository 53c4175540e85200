"""The values of a model's adapters: read, and put into its pairs, all of them or none.

One adapter is active: its values are in the model's pairs. The others are kept in the record, and
activating one copies its values into the pairs in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig
from serial_lora.errors import SerialLoRAError, cut, require_finite, require_name
from serial_lora.state import InactiveAdapter, Injection, check_rank, injected

Pair = tuple[Tensor, Tensor]  # A (r, inputs) and B (outputs, r)


def read_adapter(injection: Injection, name: str) -> InactiveAdapter:
    """The adapter of this name; if it is the active one, with the model's own tensors."""
    if name == injection.name:
        return InactiveAdapter(injection.config, injection.active_tensors())
    there = [injection.name, *injection.inactive]
    if name not in there:
        raise SerialLoRAError(
            f"there is no adapter named {name!r}; the model has: {', '.join(there)}."
        )
    return injection.inactive[name]


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
    """The record, unless adapters are merged, disabled, given for each sample, or without values."""
    root, injection = injected(model)
    injection.refuse_inside()
    injection.refuse_merged()
    if any(pair.lora_A.is_meta for pair in injection.pairs.values()):
        raise SerialLoRAError(
            "the adapters are on the meta device and have no values; load the base's weights, "
            'then call to_empty(device="cpu") on each of adapters(model).values(), which makes '
            "them fresh."
        )
    return root, injection


def refuse_misfit(injection: Injection, name: str, config: AdapterConfig) -> None:
    """Refuse one more adapter of this name and configuration."""
    require_name(name)
    if name in (injection.name, *injection.inactive):
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


def require_fitting(
    path: Path, tensors: Mapping[str, Tensor], injection: Injection, rank: int
) -> None:
    """Refuse tensors that are not those of an adapter of this rank in this model, or not finite."""
    learned = injection.learned()
    expected = {name: tuple(tensor.shape) for name, tensor in learned.items()}
    for place, pair in injection.pairs.items():
        expected[f"{place}.lora_A"] = (rank, pair.lora_A.shape[1])
        expected[f"{place}.lora_B"] = (len(pair.lora_B), rank)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    odd = sorted(n for n in shapes | expected if shapes.get(n) != expected.get(n))
    if odd:
        raise SerialLoRAError(
            f"{cut(odd[0])} in {path} has shape {shapes.get(odd[0])}, and {expected.get(odd[0])} in this "
            "model: the file is of another model, method or rank, or of other places or modules; load it "
            "into a plain model, under a name of its own, or without its modules (heads=False)."
        )
    for name, tensor in tensors.items():
        counts = name in learned and not learned[name].is_floating_point()
        if tensor.is_floating_point() == counts:
            raise SerialLoRAError(
                f"{cut(name)} in {path} holds numbers of type {tensor.dtype}; save the adapter again."
            )
    require_finite(tensors, "loaded")


@torch.no_grad()
def put_in(
    injection: Injection,
    config: AdapterConfig,
    tensors: Mapping[str, Tensor],
    name: str | None = None,
) -> None:
    """These settings and values into the model's pairs; on an error nothing.

    Args:
        name: of the adapter that they are, which is the active one then; None for the one that is.
    """
    here = injection.active_tensors()
    kept = {key: tensor.detach().clone() for key, tensor in here.items()}
    values = {
        key: tensors[key].to(old, copy=tensors[key].is_inference()) for key, old in here.items()
    }
    before = injection.name, injection.config, injection.inactive
    others = {other: old for other, old in injection.inactive.items() if other != name}
    if name not in (None, injection.name):
        others[injection.name] = InactiveAdapter(injection.config, kept)
    try:
        _write(injection, (name or injection.name, config, others), values)
    except BaseException:  # Ctrl-C too
        _write(injection, before, kept)
        raise
    injection.forget()
    for tensor in here.values():
        tensor.grad = None


def _write(
    injection: Injection,
    record: tuple[str, AdapterConfig, dict[str, InactiveAdapter]],
    values: Mapping[str, Tensor],
) -> None:
    injection.name, injection.config, injection.inactive = record
    for key, tensor in injection.active_tensors().items():
        if tensor.shape == values[key].shape:
            tensor.copy_(values[key])
        else:
            tensor.data = values[key]
    for pair in injection.pairs.values():
        pair.factor.fill_(injection.config.scale)
        pair.dropout.p = injection.config.dropout
