"""Several adapters by name on one base: added, switched, summed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig
from serial_lora.errors import SerialLoRAError, require_finite, require_number
from serial_lora.sites import child_name, unwrapped_name
from serial_lora.state import injected, new_pairs, plain_context
from serial_lora.values import put_in, read_adapter, read_pairs, ready_to_change, refuse_misfit


def adapter_names(model: nn.Module) -> list[str]:
    """The names of the model's adapters, the active one first."""
    _, injection = injected(model)
    return [injection.name, *injection.inactive]


def add_adapter(model: nn.Module, name: str, config: AdapterConfig | None = None) -> nn.Module:
    """One more adapter, fresh and active; modules that learn beside it begin at the base's values.

    Args:
        config: rank, scale and dropout may be others; None for those of the active adapter.

    Raises:
        SerialLoRAError: there is an adapter of this name, or the method or the places are others.
    """
    root, injection = ready_to_change(model)
    config = injection.config if config is None else config
    refuse_misfit(injection, name, config)
    with plain_context(root):
        fresh = {
            unwrapped_name(child_name(site.name, f"{pair}.{which}")): tensor.detach()
            for site in injection.sites
            for pair, adapter in new_pairs(site, config).items()
            for which, tensor in adapter.named_parameters()
        }
        own = {key: tensor.clone() for key, tensor in injection.own.items()}
        put_in(injection, config, fresh | own, name)
    return model


def activate(model: nn.Module, name: str) -> nn.Module:
    """Make another of the model's adapters the active one, with what learned beside it.

    With equal ranks compiled code, DistributedDataParallel and an optimizer go on (the optimizer with
    the moments of the one before: have one for each adapter). Another rank gives the pairs another
    shape: code is compiled once more, and an optimizer must be made anew. Gradients are forgotten.
    """
    root, injection = ready_to_change(model)
    chosen = read_adapter(injection, name)
    if name != injection.name:
        with torch.inference_mode(False):  # nothing is computed here
            put_in(injection, chosen.config, chosen.tensors, name)
    return model


def remove_adapter(model: nn.Module, name: str) -> nn.Module:
    """Forget an adapter that is not active."""
    _, injection = injected(model)
    read_adapter(injection, name)  # or refuse
    if name == injection.name:
        raise SerialLoRAError(
            f"{name!r} is active; activate another adapter first, or eject(model) to take all out."
        )
    del injection.inactive[name]
    return model


def combine(model: nn.Module, weights: Mapping[str, float], name: str) -> nn.Module:
    """The weighted sum of adapters as one more adapter, exact and active.

    A sum of products is a product of stacked matrices, w_1 B_1 A_1 + w_2 B_2 A_2 = [w_1 B_1, w_2 B_2]
    [A_1; A_2], so its rank is the sum of the ranks.

    Args:
        weights: for each adapter its weight, beside its own scale.
        name: of the new adapter.

    Raises:
        SerialLoRAError: there is no such adapter, a weight is not finite, the ranks are too many, or
            modules learn beside the adapters, which have no exact sum.
    """
    if not isinstance(weights, Mapping) or not weights:
        raise SerialLoRAError(
            f"weights are a number for each adapter's name, not {weights!r}; name them with a dict."
        )
    for which, weight in weights.items():
        require_number(f"the weight of {which}", weight)

    root, injection = ready_to_change(model)
    if injection.also_train:
        raise SerialLoRAError(
            f"{next(iter(injection.also_train))} learned beside each adapter, and such modules have "
            "no exact sum; activate one adapter at a time."
        )
    rank = sum(read_adapter(injection, which).config.rank for which in weights)
    config = replace(injection.config, rank=rank, scale=1.0, dropout=0.0)
    refuse_misfit(injection, name, config)
    with plain_context(root):
        pairs = [read_pairs(injection, which) for which in weights]
        tensors: dict[str, Tensor] = {}
        for place in injection.pairs:
            first, second = zip(*(one[place] for one in pairs), strict=True)
            weighted = [w * B.double() for w, B in zip(weights.values(), second, strict=True)]
            tensors[f"{place}.lora_A"] = torch.cat(first)
            tensors[f"{place}.lora_B"] = torch.cat(weighted, dim=1)
        require_finite(tensors, "put together")
        put_in(injection, config, tensors, name)
    return model
