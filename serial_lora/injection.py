"""Adapters into a model and out of it again: inject, eject, merge, unmerge, disabled.

Read from the top: `inject` freezes the model, makes one adapter for each place it found, and
registers the hooks that send the tokens through them. The hooks come next, then the ways back.

Nothing of the model's own is renamed or wrapped: its state dict keeps every key, and the adapters
are further keys under their block, such as `...resblocks.0.serial_lora.lora_A`. Everything that is
attached is a plain object, so deepcopy, pickle and torch.save go on working.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.attention import (
    AttentionSite,
    PackedAttention,
    PackedForward,
    Projection,
    find_attention_sites,
)
from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA

# ------------------------------------------------------------------------------------- inject


def inject(model: nn.Module, config: SerialLoRAConfig | LoRAConfig) -> nn.Module:
    """Freeze the model and put adapters into it, in place.

    A fresh adapter changes nothing: the model's outputs are as before, up to the rounding of a
    faster attention where the model has nn.MultiheadAttention layers (see `PackedAttention`).

    Args:
        model: a model of a known family, or any module that holds one.
        config: what to put in, and where.

    Returns:
        The same model. Only adapters require gradients now.

    Raises:
        SerialLoRAError: if the model has adapters already, has no attention that is known, or the
            configuration does not fit it. The model is then as it was.
    """
    if not isinstance(config, SerialLoRAConfig | LoRAConfig):
        raise SerialLoRAError(
            f"inject needs a SerialLoRAConfig or a LoRAConfig, not a {type(config).__name__}."
        )
    root = unwrapped(model)
    if adapters(model):
        raise SerialLoRAError("the model has adapters already; call eject(model) first.")
    sites = find_attention_sites(root, config.towers, config.blocks, config.stream)
    check_fit(root, sites, config)

    injection = Injection(
        config, sites, {name: p.requires_grad for name, p in root.named_parameters()}
    )
    root.requires_grad_(False)
    for site in sites:
        block = root.get_submodule(site.name)
        weight = site.projections["q"].weight(root)
        for name, shape in adapter_shapes(site, config).items():
            adapter = _new_adapter(shape, config)
            block.add_module(name, adapter.to(weight.device).train(block.training))
        for layer in _attention_layers(root, site):
            if type(layer) is nn.MultiheadAttention:
                layer.__class__ = PackedAttention
    _attach(root, injection)
    setattr(root, _RECORD, injection)
    return model


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of torch.compile and of data parallelism.

    So names do not depend on how a model happened to be wrapped when they were written down.

    Raises:
        SerialLoRAError: if this is no model at all.
    """
    if not isinstance(model, nn.Module):
        raise SerialLoRAError(f"a model is an nn.Module, not a {type(model).__name__}; pass one.")
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def refuse_without_values(model: nn.Module) -> None:
    """Refuse a model on the meta device, which has shapes and nothing to compute with."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SerialLoRAError(
            "the model is on the meta device and has no values; load its weights first."
        )


def check_fit(model: nn.Module, sites: list[AttentionSite], config: AdapterConfig) -> None:
    """Refuse a configuration that cannot go to these sites: the first half of `inject`."""
    narrowest = min(min(p.rows, p.columns) for site in sites for p in site.projections.values())
    if config.rank > narrowest:
        raise SerialLoRAError(
            f"rank {config.rank} is above {narrowest}, the width of this model's attention; "
            f"choose a rank of at most {narrowest}."
        )
    if config.method == LoRAConfig.method:
        if shared_weights(model, sites):
            raise SerialLoRAError(
                "blocks of this model share their attention weights, where LoRA would act once for "
                "every sharer; choose one of them with blocks=[...]."
            )
        for site in sites:
            for layer in _attention_layers(model, site):
                if isinstance(layer, nn.MultiheadAttention) and type(layer) not in (
                    nn.MultiheadAttention,
                    PackedAttention,
                ):
                    raise SerialLoRAError(
                        f"LoRA cannot reach the projections inside a {type(layer).__name__}; "
                        "only nn.MultiheadAttention itself is known."
                    )


def adapter_shapes(site: AttentionSite, config: AdapterConfig) -> dict[str, tuple[int, int]]:
    """The adapters of one site: the name each has in its block, and (inputs, outputs)."""
    if config.method == SerialLoRAConfig.method:
        return {f"serial_lora{site.suffix}": (site.width, site.width)}
    return {
        f"lora_{part}{site.suffix}": (projection.columns, projection.rows)
        for part, projection in site.projections.items()
    }


def _new_adapter(shape: tuple[int, int], config: AdapterConfig) -> SerialLoRA | LoRA:
    inputs, outputs = shape
    if config.method == SerialLoRAConfig.method:
        return SerialLoRA(inputs, config.rank, config.scale, config.dropout)
    return LoRA(inputs, outputs, config.rank, config.scale, config.dropout)


def _attention_layers(model: nn.Module, site: AttentionSite) -> list[nn.Module]:
    """The layers whose own raw parameters hold a projection (not nn.Linear layers)."""
    owners = dict.fromkeys(projection.module for projection in site.projections.values())
    layers = [model.get_submodule(name) for name in owners]
    return [layer for layer in layers if not isinstance(layer, nn.Linear)]


def shared_weights(model: nn.Module, sites: list[AttentionSite]) -> bool:
    """Whether one weight serves as a projection at two sites."""
    places = [
        (id(projection.weight(model)), projection.start)
        for site in sites
        for projection in site.projections.values()
    ]
    return len(places) != len(set(places))


@dataclass
class Injection:
    """What `inject` did to a model: kept on the model, so that it can be undone.

    Attributes:
        config: the configuration, with the scale that is in force.
        sites: where the adapters are.
        required_grad: for every base parameter, whether it was trainable before.
        hooks: what sends tokens through the adapters; empty while merged.
        originals: while merged, the base's own weights, keyed (module, parameter).
        disabled: how many `disabled` blocks are open.
    """

    config: AdapterConfig
    sites: list[AttentionSite]
    required_grad: dict[str, bool]
    hooks: list[_Hook] = field(default_factory=list)
    originals: dict[tuple[str, str], Tensor] | None = None
    disabled: int = 0


_RECORD = "serial_lora_injection"


def injections(model: nn.Module) -> list[tuple[nn.Module, Injection]]:
    """Every (module, record) that `inject` left in the model, be it wrapped (DDP, compile) or not.

    Raises:
        SerialLoRAError: if there is none.
    """
    found = [(m, vars(m)[_RECORD]) for m in model.modules() if _RECORD in vars(m)]
    if not found:
        raise SerialLoRAError("the model has no adapters; call inject(model, config) first.")
    return found


# -------------------------------------------------------------------------------------- hooks


class _Hook:
    """Something attached to a layer. `handle` takes it off again.

    Hooks keep their own handle because a pickled handle takes care, when it is loaded, that new
    hooks get other numbers than the loaded ones.
    """

    handle: Any

    def __init__(self, *adapters: nn.Module) -> None:
        self.adapters = adapters

    @property
    def enabled(self) -> bool:
        return self.adapters[0].enabled


class AdaptOutput(_Hook):
    """Serial LoRA after a norm layer: the normed tokens go through the adapter."""

    def __call__(self, layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return self.adapters[0](output) if self.enabled else output


class AdaptArgument(_Hook):
    """Serial LoRA before an attention layer that is called with tokens by keyword (SD3)."""

    argument: str

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if not self.enabled:
            return args, kwargs
        if self.argument not in kwargs:
            raise SerialLoRAError(
                f"{type(layer).__name__} was called without {self.argument}=..., so the adapter "
                "cannot see its tokens; pass them by keyword."
            )
        return args, kwargs | {self.argument: self.adapters[0](kwargs[self.argument])}


class AddDelta(_Hook):
    """LoRA beside a projection, or beside q, k and v that share one weight."""

    def __call__(self, layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
        if not self.enabled:
            return output
        deltas = [adapter(args[0]) for adapter in self.adapters]
        delta = deltas[0] if len(deltas) == 1 else torch.cat(deltas, dim=-1)
        return output + delta.to(output.dtype)


class _AttributeHandle:
    """Takes an attribute off a layer again."""

    def __init__(self, layer: nn.Module, name: str, value: Any) -> None:
        self.layer, self.name = layer, name
        setattr(layer, name, value)

    def remove(self) -> None:
        vars(self.layer).pop(self.name, None)


def _attach(model: nn.Module, injection: Injection) -> None:
    _forget_compiled()
    for site in injection.sites:
        block = model.get_submodule(site.name)
        if injection.config.method == SerialLoRAConfig.method:
            adapter = block.get_submodule(f"serial_lora{site.suffix}")
            injection.hooks.append(_attach_serial(model.get_submodule(site.entry), site, adapter))
            continue
        by_layer: dict[str, list[nn.Module]] = {}
        for part, projection in site.projections.items():
            adapter = block.get_submodule(f"lora_{part}{site.suffix}")
            by_layer.setdefault(projection.module, []).append(adapter)
        for name, beside in by_layer.items():
            injection.hooks.append(_attach_lora(model.get_submodule(name), beside))


def _attach_serial(entry: nn.Module, site: AttentionSite, adapter: nn.Module) -> _Hook:
    if site.argument is None:
        hook: _Hook = AdaptOutput(adapter)
        hook.handle = entry.register_forward_hook(hook)
    else:
        hook = AdaptArgument(adapter)
        hook.argument = site.argument
        hook.handle = entry.register_forward_pre_hook(hook, with_kwargs=True)
    return hook


def _attach_lora(layer: nn.Module, beside: list[nn.Module]) -> _Hook:
    hook = AddDelta(*beside)
    if isinstance(layer, nn.Linear):
        hook.handle = layer.register_forward_hook(hook)
    elif isinstance(layer, PackedAttention):
        hook.handle = _AttributeHandle(layer, "after_in_proj", hook)
    else:
        hook.handle = _AttributeHandle(layer, "forward", PackedForward(layer, hook))
    return hook


def _detach(injection: Injection) -> None:
    _forget_compiled()
    while injection.hooks:
        injection.hooks.pop().handle.remove()


def _forget_compiled() -> None:
    """torch.compile does not notice that hooks come or go: have it look again."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


# ------------------------------------------------------------------------------ looking at them


def adapters(model: nn.Module) -> dict[str, SerialLoRA | LoRA]:
    """Every adapter in the model under its dotted name; empty if there is none."""
    return {n: m for n, m in model.named_modules() if isinstance(m, SerialLoRA | LoRA)}


def adapter_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The tensors lora_A and lora_B of every adapter, for an optimizer or for counting."""
    for adapter in adapters(model).values():
        yield from adapter.parameters()


def set_scale(model: nn.Module, scale: float) -> None:
    """Set the scale of every adapter: 0 is the base, 1 is as trained (if trained so).

    Raises:
        SerialLoRAError: if there are no adapters, they are merged, or the scale is not finite.
    """
    found = injections(model)
    if any(injection.originals is not None for _, injection in found):
        raise SerialLoRAError("the adapters are merged; call unmerge(model) before set_scale.")
    configs = [replace(injection.config, scale=scale) for _, injection in found]
    for (root, injection), config in zip(found, configs, strict=True):
        injection.config = config
        for adapter in adapters(root).values():
            adapter.scale = config.scale


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base model, for the length of a `with` block; merged adapters are taken out as well.

    Blocks may be nested, and an exception ends them like anything else.

    Raises:
        SerialLoRAError: if there are no adapters.
    """
    found = injections(model)
    for root, injection in found:
        injection.disabled += 1
        if injection.disabled == 1:
            _show_base(root, injection, True)
    try:
        yield model
    finally:
        for root, injection in found:
            injection.disabled -= 1
            if injection.disabled == 0:
                _show_base(root, injection, False)


def _show_base(root: nn.Module, injection: Injection, shown: bool) -> None:
    for adapter in adapters(root).values():
        adapter.enabled = not shown
    if injection.originals is not None:  # merged: what is kept and what is used change places
        kept = {key: _weight(root, key).detach().clone() for key in injection.originals}
        _write(root, injection.originals)
        injection.originals = kept


# --------------------------------------------------------------------------- merge and unmerge


def merge(model: nn.Module) -> nn.Module:
    """Fold the adapters into the base's weights: the same outputs at the base's speed.

    Serial LoRA turns each of W_q, W_k, W_v into W (I + scale * B A); LoRA turns each projection
    into W + scale * B A. Computed in float32 whatever the base's type, and rounded once. The
    original weights are kept, so that `unmerge` and `eject` bring back every bit. Merging a merged
    model does nothing.

    The state dict of a merged model holds the merged weights *and* the adapters: save one with
    `save_adapter`, or call `eject(model, keep_merged=True)` for a plain model to save whole. Load
    other weights before merging: `unmerge` brings back those that were there.

    Returns:
        The same model.

    Raises:
        SerialLoRAError: if there are no adapters, a merged weight would not be finite, or blocks
            share weights but not adapters. The model is then as it was.
    """
    found = [(root, i) for root, i in injections(model) if i.originals is None]
    _refuse_when_disabled(found)
    plans = [(root, injection, _merged_weights(root, injection)) for root, injection in found]
    for root, injection, merged in plans:
        injection.originals = {key: _weight(root, key).detach().clone() for key in merged}
        _detach(injection)
        _write(root, merged)
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Take merged adapters out of the weights, bit for bit; does nothing if none are merged.

    Raises:
        SerialLoRAError: if there are no adapters.
    """
    found = [(root, i) for root, i in injections(model) if i.originals is not None]
    _refuse_when_disabled(found)
    for root, injection in found:
        _write(root, injection.originals)
        injection.originals = None
        _attach(root, injection)
    return model


def eject(model: nn.Module, keep_merged: bool = False) -> nn.Module:
    """Take the adapters out and leave the base as `inject` found it, bit for bit.

    Args:
        model: a model that has adapters, merged or not.
        keep_merged: fold them into the weights for good instead: what remains is an ordinary
            model of its own class that behaves like the adapted one.

    Returns:
        The same model. Parameters are trainable again where they were before `inject`.

    Raises:
        SerialLoRAError: as `merge` does.
    """
    _refuse_when_disabled(injections(model))
    if keep_merged:
        merge(model)
    else:
        unmerge(model)
    for root, injection in injections(model):
        _detach(injection)
        for site in injection.sites:
            block = root.get_submodule(site.name)
            for name in adapter_shapes(site, injection.config):
                delattr(block, name)
            for layer in _attention_layers(root, site):
                if type(layer) is PackedAttention:
                    layer.__class__ = nn.MultiheadAttention
        for name, parameter in root.named_parameters():
            if name in injection.required_grad:
                parameter.requires_grad_(injection.required_grad[name])
        delattr(root, _RECORD)
    return model


def base_weight(root: nn.Module, injection: Injection, projection: Projection) -> Tensor:
    """The base's own rows for a projection, (rows, columns), even while adapters are merged."""
    key = (projection.module, projection.parameter)
    kept = None if injection.disabled else (injection.originals or {}).get(key)
    whole = _weight(root, key).detach() if kept is None else kept
    return whole[projection.row_slice]


def change_factors(
    root: nn.Module,
    injection: Injection,
    site: AttentionSite,
    part: str,
    least: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """What an adapter adds to the weight of one projection, as the two factors of a product.

    LoRA's are s B_p and A_p, Serial LoRA's s W_p B and A (the paper's equations 4 and 5).

    Args:
        least: the number type of both, unless that of what they are made from is wider: LoRA's
            own tensors, or the base's weight for Serial LoRA.

    Returns:
        (rows, rank) and (rank, columns); the scale is in the first.
    """
    block = root.get_submodule(site.name)
    if injection.config.method == LoRAConfig.method:
        lora = block.get_submodule(f"lora_{part}{site.suffix}")
        return lora.scale * wide(lora.lora_B, least), wide(lora.lora_A, least)
    serial = block.get_submodule(f"serial_lora{site.suffix}")
    weight = wide(base_weight(root, injection, site.projections[part]), least)
    left = serial.scale * (weight @ serial.lora_B.to(weight.dtype))
    return left, serial.lora_A.to(weight.dtype)


def wide(tensor: Tensor, least: torch.dtype = torch.float32) -> Tensor:
    """The tensor in at least this number type, or in its own if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, least))


def changed_parts(site: AttentionSite, config: AdapterConfig) -> dict[str, Projection]:
    """The projections an adapter acts on: all of them for LoRA, but not out for Serial LoRA."""
    serial = config.method == SerialLoRAConfig.method
    return {
        part: projection
        for part, projection in site.projections.items()
        if not (serial and part == "out")
    }


@torch.no_grad()
def _merged_weights(root: nn.Module, injection: Injection) -> dict[tuple[str, str], Tensor]:
    refuse_without_values(root)
    if shared_weights(root, injection.sites):
        raise SerialLoRAError(
            "blocks of this model share their attention weights but have an adapter each, so there "
            "is no one weight to merge into; use the adapters unmerged."
        )
    merged: dict[tuple[str, str], Tensor] = {}
    for site in injection.sites:
        for part, projection in changed_parts(site, injection.config).items():
            key = (projection.module, projection.parameter)
            whole = merged.setdefault(key, _weight(root, key).detach().clone())
            rows = whole[projection.row_slice]
            left, right = change_factors(root, injection, site, part)
            rows.copy_(wide(rows) + left @ right)
    broken = [module for (module, _), weight in merged.items() if not weight.isfinite().all()]
    if broken:
        raise SerialLoRAError(
            f"merging would put values that are not finite into {broken[0]}; the adapter has "
            "diverged, or the base's number type is too narrow: nothing was merged."
        )
    return merged


def _weight(root: nn.Module, key: tuple[str, str]) -> nn.Parameter:
    module, parameter = key
    return getattr(root.get_submodule(module), parameter)


@torch.no_grad()
def _write(root: nn.Module, weights: dict[tuple[str, str], Tensor]) -> None:
    for key, values in weights.items():
        _weight(root, key).copy_(values)


def _refuse_when_disabled(found: list[tuple[nn.Module, Injection]]) -> None:
    if any(injection.disabled for _, injection in found):
        raise SerialLoRAError("the adapters are disabled; leave the disabled(model) block first.")
