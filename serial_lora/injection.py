"""Adapters into a model and out of it again: inject, eject, disabled, set_scale.

`inject` freezes the model, makes one adapter for each place it found, and attaches the hooks of
`serial_lora.hooks` that send the tokens through them. `eject` is the way back.

Nothing of the model's own is renamed or wrapped: its state dict keeps every key, and the adapters
are further keys under their block, such as `...resblocks.0.serial_lora.lora_A`. Everything that is
attached is a plain object, so deepcopy, pickle and torch.save go on working.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from serial_lora.attention import find_attention_sites
from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.hooks import RECORD, Injection, adapters, attach, detach, injections
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.merging import merge, refuse_when_disabled, unmerge, weight_at, write_weights
from serial_lora.packed import PackedAttention
from serial_lora.sites import AttentionSite, attention_layers, shared_weights


def inject(model: nn.Module, config: SerialLoRAConfig | LoRAConfig) -> nn.Module:
    """Freeze the model and put adapters into it, in place.

    A fresh adapter changes nothing: the model's outputs are as before, up to the rounding of a
    faster attention where the model has nn.MultiheadAttention layers (see `PackedAttention`).

    Args:
        model: any module that holds attention, at any depth (see `serial_lora.attention`).
        config: what to put in, and where.

    Returns:
        The same model. Only adapters require gradients now.

    Raises:
        SerialLoRAError: if the model has adapters already, has no attention that fits, or the
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
        for layer in attention_layers(root, site):
            if type(layer) is nn.MultiheadAttention:
                layer.__class__ = PackedAttention
    attach(root, injection)
    setattr(root, RECORD, injection)
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
            for layer in attention_layers(model, site):
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
    refuse_when_disabled(injections(model))
    if keep_merged:
        merge(model)
    else:
        unmerge(model)
    for root, injection in injections(model):
        detach(injection)
        for site in injection.sites:
            block = root.get_submodule(site.name)
            for name in adapter_shapes(site, injection.config):
                delattr(block, name)
            for layer in attention_layers(root, site):
                if type(layer) is PackedAttention:
                    layer.__class__ = nn.MultiheadAttention
        for name, parameter in root.named_parameters():
            if name in injection.required_grad:
                parameter.requires_grad_(injection.required_grad[name])
        delattr(root, RECORD)
    return model


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
        kept = {key: weight_at(root, key).detach().clone() for key in injection.originals}
        write_weights(root, injection.originals)
        injection.originals = kept
