"""Adapters into a model and out of it again: inject, eject, set_scale.

Nothing of the model's own is renamed or wrapped: its state dict keeps every key, and the adapters
are further keys under their block, such as `...resblocks.0.serial_lora.lora_A`. Everything that is
attached is a plain object, so deepcopy, pickle and torch.save go on working.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from serial_lora.adapted import attach, detach
from serial_lora.attention import find_sites
from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, cut, require_name, require_names
from serial_lora.left_out import not_adapted
from serial_lora.merging import merge, unmerge
from serial_lora.packed import PackedAttention
from serial_lora.sites import (
    CONTAINERS,
    Site,
    child_name,
    is_inside,
    require_own_weight,
    unwrapped_name,
)
from serial_lora.state import (
    DEFAULT,
    RECORD,
    Injection,
    adapters,
    changed_parts,
    check_rank,
    injected,
    new_pairs,
    plain_context,
    records,
    require_model,
    unwrapped_modules,
)


def inject(
    model: nn.Module, config: AdapterConfig, also_train: Collection[str] = (), name: str = DEFAULT
) -> nn.Module:
    """Freeze the model and put adapters into it, in place.

    A fresh adapter changes nothing: the model's outputs are as before, up to the rounding of a
    faster attention where the model has nn.MultiheadAttention layers (see `PackedAttention`).

    Args:
        model: any module that holds attention, at any depth (see `serial_lora.attention`).
        config: what to put in, and where.
        also_train: dotted names of modules that learn beside the adapters, such as a new classifier.
            They are saved and loaded with the adapter, and `eject` gives them their values back.
        name: of the adapter, where several are to come (`serial_lora.several`).

    Returns:
        The same model. Only adapters and those modules require gradients now. Warnings name towers and
        attention without an adapter, and BatchNorms whose statistics go on changing.

    Raises:
        SerialLoRAError: if the model has adapters already, has no attention that fits, or the
            configuration does not fit it.
    """
    if not isinstance(config, SerialLoRAConfig | LoRAConfig):
        raise SerialLoRAError(
            f"inject needs a SerialLoRAConfig or a LoRAConfig, not a {type(config).__name__}."
        )
    require_name(name)
    root = unwrapped(model)
    if adapters(model) or records(model):
        raise SerialLoRAError("the model has adapters already; call eject(model) first.")

    sites = find_sites(root, *config.where)
    check_fit(root, sites, config)

    required_grad = {unwrapped_name(n): p.requires_grad for n, p in root.named_parameters()}
    injection = Injection(config, sites, required_grad, name)
    injection.also_train = also_trained(root, sites, also_train)
    try:
        with torch.inference_mode(False), torch.device("cpu"):  # not those around the call
            _put_in(root, injection)
        for warning in not_adapted(root, injection):
            warnings.warn(warning, stacklevel=2)
    except BaseException:
        _take_out(root, injection)
        raise
    return model


def _put_in(root: nn.Module, injection: Injection) -> None:
    root.requires_grad_(False)
    for layer in root.modules():
        # It packs padded tokens for a shortcut that adapted layers do not take.
        if isinstance(layer, nn.TransformerEncoder) and layer.use_nested_tensor:
            injection.switched.append((layer, "use_nested_tensor", True))
            layer.use_nested_tensor = False
    for key, tensor in injection.learned().items():
        injection.own[key] = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            tensor.requires_grad_(True)
    for site in injection.sites:
        block = root.get_submodule(site.name)
        weight = site.first.weight(root)
        for name, adapter in new_pairs(site, injection.config).items():
            adapter.to(weight.device).train(block.training)
            if weight.dtype == torch.float64:
                adapter.double()  # in float32 it would round the tokens
            block.add_module(name, adapter)
            injection.pairs[unwrapped_name(child_name(site.name, name))] = adapter
        for projection in site.projections.values():
            layer = root.get_submodule(projection.module)
            if type(layer) is nn.MultiheadAttention:
                injection.switched.append((layer, "__class__", nn.MultiheadAttention))
                layer.__class__ = PackedAttention
    setattr(root, RECORD, injection)
    attach(root, injection)
    root._load_state_dict_pre_hooks[RECORD] = partial(_refuse_renamed, root)  # type: ignore[index]


def _refuse_renamed(root: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state dict is loaded: refuse adapters in it that are not in this model, or fewer.

    transformers writes a checkpoint under the hub's names of layers, and its Trainer reads it back by
    the model's own, without an error where the two differ. A frozen base has its values already, but
    adapters would stay as they were.
    """
    ends = (".lora_A", ".lora_B")
    here = {prefix + name for name, _ in root.named_parameters() if name.endswith(ends)}
    there = {name for name in state if name.startswith(prefix) and name.endswith(ends)}
    odd = sorted(here ^ there)
    if there and odd:
        raise SerialLoRAError(
            f"{cut(odd[0])} is in the model or in this state dict, and not in both: its adapters have "
            "other names (as transformers' Trainer writes some), or are of another model or other "
            "places; use save_adapter and load_adapter."
        )


def _take_out(root: nn.Module, injection: Injection) -> None:
    """Everything that `_put_in` did, or had done before it failed, undone."""
    detach(injection)
    root._load_state_dict_pre_hooks.pop(RECORD, None)  # type: ignore[call-overload]
    for layer, name, before in injection.switched:
        setattr(layer, name, before)
    there = unwrapped_modules(root)  # blocks that were compiled since are inside wrappers
    for place in injection.pairs:
        block, _, own = place.rpartition(".")
        del there[block]._modules[own]
    for name, parameter in root.named_parameters():
        required = injection.required_grad.get(unwrapped_name(name))
        if required is not None:
            parameter.requires_grad_(required)
    vars(root).pop(RECORD, None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of torch.compile and of data parallelism."""
    require_model(model)
    inside: Any = model
    parallel = nn.DataParallel | nn.parallel.DistributedDataParallel
    while isinstance(inside, parallel) or hasattr(inside, "_orig_mod"):
        inside = inside.module if isinstance(inside, parallel) else inside._orig_mod
    return inside


def check_fit(model: nn.Module, sites: list[Site], config: AdapterConfig) -> None:
    """Refuse a configuration that cannot go to these sites: the first half of `inject`."""
    check_rank(sites, config)
    lora, seen = config.method == LoRAConfig.method, set()
    for site in sites:
        block = model.get_submodule(site.name)
        parts = changed_parts(site, config)
        if not parts:  # LoRA's alone may be
            asked = getattr(config, "parts", ())
            raise SerialLoRAError(
                f"{site.label or 'the model'} has no {' or '.join(asked)} to adapt; name other parts."
            )
        for name in map(site.pair_name, parts) if lora else (site.pair_name(),):
            place = child_name(site.name, name)
            if isinstance(block, CONTAINERS) or hasattr(block, name) or place in seen:
                raise SerialLoRAError(
                    f"{site.name or 'the model'}, a {type(block).__name__}, cannot have a child named "
                    f"{name}, the adapter: it has one already, or runs every child that it has; name "
                    "that otherwise, or what is inside."
                )
            seen.add(place)
        for projection in site.projections.values():
            layer = model.get_submodule(projection.module)
            require_own_weight(projection.module, layer, projection.parameter)


def eject(model: nn.Module, keep_merged: bool = False) -> nn.Module:
    """Take the adapters out and leave the base as `inject` found it, bit for bit.

    Args:
        keep_merged: fold the active adapter into the weights for good instead: what remains is an
            ordinary model of its own class that behaves like the adapted one.

    Returns:
        The same model. Parameters are trainable again where they were before `inject`.
    """
    root, injection = injected(model)
    injection.refuse_inside()
    if keep_merged:
        merge(model)
    else:
        unmerge(model)
        with plain_context(root):
            injection.exchange()
    _take_out(root, injection)
    return model


def set_scale(model: nn.Module, scale: float) -> None:
    """Set the scale of the active adapter: 0 is the base, 1 is as trained (if trained so)."""
    _, injection = injected(model)
    injection.refuse_merged()
    injection.config = replace(injection.config, scale=scale)
    for pair in injection.pairs.values():
        pair.factor.fill_(injection.config.scale)
    injection.forget()


def also_trained(
    root: nn.Module, sites: Collection[Site], names: Collection[str]
) -> dict[str, nn.Module]:
    """The modules of these names."""
    modules = dict(root.named_modules())
    names = [names] if isinstance(names, str) else names
    names = require_names("modules to train beside the adapters", names) if names else []
    adapted = [p.module for site in sites for p in site.projections.values()]
    for name in dict.fromkeys(names):
        learners = list(modules[name].parameters()) if name and name in modules else []
        if not any(parameter.is_floating_point() for parameter in learners):
            raise SerialLoRAError(
                f"there is no module {cut(repr(name))} with parameters that can be trained beside the "
                "adapters; name another (load_adapter takes the pairs alone with heads=False)."
            )
        inside = [other for other in adapted if is_inside(other, name)]
        if inside:
            raise SerialLoRAError(
                f"{name} holds {inside[0]}, which is adapted, so it cannot be trained beside the "
                "adapters; name what is outside of that."
            )
    return {name: modules[name] for name in names}
