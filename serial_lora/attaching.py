"""Hooks onto the layers of a model and off again: `attach` and `detach`."""

from __future__ import annotations

from types import MethodType

from torch import nn

from serial_lora.config import SerialLoRAConfig
from serial_lora.handles import AttributeHandle, HookHandle
from serial_lora.hooks import AdaptInput, AdaptOutput, AddDelta, Hook, NoneIsDead, OnceABlock
from serial_lora.packed import PackedAttention, PackedForward, reads_past
from serial_lora.records import Injection
from serial_lora.sites import AttentionSite


def attach(model: nn.Module, injection: Injection) -> None:
    """Send tokens through the adapters. What an error leaves attached is in the record."""
    serial = injection.config.method == SerialLoRAConfig.method
    if not injection.hooks:
        for site in injection.sites:
            hooks = _serial_hooks(model, site) if serial else _lora_hooks(model, site)
            injection.hooks += hooks + _guards(model, site, hooks)
            injection.handles += _seen_by_compile(hooks) + _without_shortcuts(model, site)
    for handle in _handles(injection):
        handle.put_on()


def detach(injection: Injection) -> None:
    """The way back. The hooks stay in the record, for `attach`."""
    for handle in reversed(_handles(injection)):
        handle.take_off()


def _handles(injection: Injection) -> list[HookHandle | AttributeHandle]:
    return [hook.handle for hook in injection.hooks] + injection.handles


def _guards(model: nn.Module, site: AttentionSite, hooks: list[Hook]) -> list[Hook]:
    """The hooks that look whether the others have run: on the attention, and on the block."""
    inside = site.projections["q"].module
    if isinstance(model.get_submodule(inside), nn.Linear):
        inside = inside.rpartition(".")[0]
    within = [
        hook
        for hook in hooks
        if isinstance(hook, AdaptInput | AddDelta)
        and (hook.layer == inside or hook.layer.startswith(f"{inside}." if inside else ""))
    ]
    guards: list[Hook] = [NoneIsDead(inside, within)] if within else []
    guards.append(NoneIsDead(site.name, hooks, warn=True))
    for guard in guards:
        name = f"{'block' if guard.warn else 'attention'} {site.label}"
        guard.handle = HookHandle(model.get_submodule(guard.layer), name, guard)
    return guards


def _serial_hooks(model: nn.Module, site: AttentionSite) -> list[Hook]:
    adapter = model.get_submodule(site.name).get_submodule(f"serial_lora{site.suffix}")
    name = f"serial_lora {site.label}"
    if site.entry is not None and site.argument is None:
        hook = AdaptOutput(site.entry, adapter)
        hook.handle = HookHandle(model.get_submodule(site.entry), name, hook)
        return [hook]
    found = site.entry is None  # otherwise it is an argument of the layer that the family names
    read = {site.entry: (site.argument,)}
    if found:
        paths = dict.fromkeys(site.projections[part].module for part in "qkv")
        packed = [isinstance(model.get_submodule(path), nn.MultiheadAttention) for path in paths]
        several = ("query", "key", "value")
        read = {path: several if p else ("input",) for path, p in zip(paths, packed, strict=True)}
    shared, hooks = OnceABlock(sum(map(len, read.values()))), []
    for number, (path, names) in enumerate(read.items()):
        hook = AdaptInput(path, adapter, names, len(names) if found else 0, number, shared)
        watch = _watch(model, path, hook) if found and len(read) == 1 else None
        hook.handle = watch or HookHandle(model.get_submodule(path), name, hook, before=True)
        hooks.append(hook)
    return hooks


def _lora_hooks(model: nn.Module, site: AttentionSite) -> list[Hook]:
    block = model.get_submodule(site.name)
    by_layer: dict[str, list[nn.Module]] = {}
    for part, projection in site.projections.items():
        adapter = block.get_submodule(f"lora_{part}{site.suffix}")
        by_layer.setdefault(projection.module, []).append(adapter)
    hooks: list[Hook] = []
    for name, beside in by_layer.items():
        layer, hook = model.get_submodule(name), AddDelta(name, *beside)
        if isinstance(layer, nn.Linear):
            watch = _watch(model, name, hook) if len(beside) == 3 else None
            hook.handle = watch or HookHandle(layer, f"lora {site.label}", hook)
        elif isinstance(layer, PackedAttention):
            hook.handle = AttributeHandle(layer, "after_in_proj", hook)
        else:
            watched = PackedForward(layer, layer, "in_proj_weight", hook)
            hook.handle = AttributeHandle(layer, "forward", watched)
        hooks.append(hook)
    return hooks


def _watch(model: nn.Module, path: str, hook: Hook) -> AttributeHandle | None:
    """For the one layer of q, k and v whose weight the attention reads without calling the layer."""
    around, _, own = path.rpartition(".")
    attention = model.get_submodule(around)
    if isinstance(attention, nn.MultiheadAttention) or not reads_past(attention, own):
        return None
    hook.layer = around
    watched = PackedForward(attention, model.get_submodule(path), "weight", hook)
    return AttributeHandle(attention, "forward", watched)


def _seen_by_compile(hooks: list[Hook]) -> list[AttributeHandle]:
    """A layer's own forward as an attribute of the layer.

    torch.compile does not look whether a layer has hooks by now that it once had not, nor whether
    another model's layer has some; it looks whether there is such an attribute.
    """
    return [
        AttributeHandle(layer, "forward", MethodType(type(layer).forward, layer))
        for layer in {h.handle.layer: None for h in hooks if isinstance(h.handle, HookHandle)}
        if not isinstance(layer, PackedAttention) and "forward" not in vars(layer)
    ]


def _without_shortcuts(model: nn.Module, site: AttentionSite) -> list[AttributeHandle]:
    """Keep nn.TransformerEncoder from its shortcut in evaluation, which reads weights itself."""
    parts, handles = site.projections["q"].module.split("."), []
    for depth in range(len(parts)):
        around = model.get_submodule(".".join(parts[:depth]))
        if isinstance(around, nn.TransformerEncoderLayer):
            handles.append(AttributeHandle(around, "activation_relu_or_gelu", 0))
        elif isinstance(around, nn.TransformerEncoder):
            handles.append(AttributeHandle(around, "use_nested_tensor", False))
    return handles
