"""How tokens reach the adapters of a model, and the record of it that the model carries.

From the top: the record, then one hook for each way in which an adapter acts, then `attach` and
`detach`. Everything that is attached is a plain object, so deepcopy, pickle and torch.save go on
working.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.packed import PackedAttention, PackedForward
from serial_lora.sites import AttentionSite


@dataclass
class Injection:
    """What `inject` did to a model: kept on the model, so that it can be undone.

    Attributes:
        config: the configuration, with the scale that is in force.
        sites: where the adapters are.
        required_grad: for every base parameter, whether it was trainable before.
        hooks: what sends tokens through the adapters; empty while merged.
        handles: what else is to be taken back when the hooks go.
        originals: while merged, the base's own weights, keyed (module, parameter).
        disabled: how many `disabled` blocks are open.
    """

    config: AdapterConfig
    sites: list[AttentionSite]
    required_grad: dict[str, bool]
    hooks: list[_Hook] = field(default_factory=list)
    handles: list[_AttributeHandle] = field(default_factory=list)
    originals: dict[tuple[str, str], Tensor] | None = None
    disabled: int = 0


RECORD = "serial_lora_injection"


def injections(model: nn.Module) -> list[tuple[nn.Module, Injection]]:
    """Every (module, record) that `inject` left in the model, be it wrapped (DDP, compile) or not.

    Raises:
        SerialLoRAError: if there is none.
    """
    found = [(m, vars(m)[RECORD]) for m in model.modules() if RECORD in vars(m)]
    if not found:
        raise SerialLoRAError("the model has no adapters; call inject(model, config) first.")
    return found


def adapters(model: nn.Module) -> dict[str, SerialLoRA | LoRA]:
    """Every adapter in the model under its dotted name; empty if there is none."""
    return {n: m for n, m in model.named_modules() if isinstance(m, SerialLoRA | LoRA)}


def refuse_without_values(model: nn.Module) -> None:
    """Refuse a model on the meta device, which has shapes and nothing to compute with."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SerialLoRAError(
            "the model is on the meta device and has no values; load its weights first."
        )


class _Hook:
    """Something attached to a layer. `handle` takes it off again.

    Hooks keep their own handle because a pickled handle takes care, when it is loaded, that new
    hooks get other numbers than the loaded ones.

    Attributes:
        layer: the dotted name of what it is attached to.
        acted: whether it has ever run, on a linear layer; see `NoneIsDead`.
    """

    handle: Any

    def __init__(self, layer: str, *adapters: nn.Module) -> None:
        self.layer, self.adapters, self.acted = layer, adapters, False

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


class OnceABlock:
    """The adapted tokens of one block: computed once where q, k and v read the same tensor.

    Attributes:
        kept: None, or tokens, what became of them, and who has read that; one value, replaced as a
            whole, so that threads which run one model cannot mix theirs.
    """

    def __init__(self, adapter: nn.Module) -> None:
        self.adapter = adapter
        self.kept: tuple[Tensor, Tensor, tuple[str, ...]] | None = None

    def read(self, tokens: Tensor, reader: str, readers: int) -> Tensor:
        """Adapted tokens for one of so many readers; kept until each of them has had them."""
        kept = self.kept
        if kept is not None and kept[0] is tokens and reader not in kept[2]:
            adapted, served = kept[1], (*kept[2], reader)
        else:
            adapted, served = self.adapter(tokens), (reader,)
        self.kept = None if len(served) == readers else (tokens, adapted, served)
        return adapted

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"kept": None}


class AdaptInput(_Hook):
    """Serial LoRA before a layer that projects tokens: what the layer reads is adapted.

    Attributes:
        names: the layer's arguments that are tokens.
    """

    def __init__(
        self, layer: str, shared: OnceABlock, names: tuple[str, ...], readers: int
    ) -> None:
        super().__init__(layer, shared.adapter)
        self.shared, self.names, self.readers = shared, names, readers

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.acted = True
        if not self.enabled:
            return args, kwargs
        places = [*enumerate(args[: len(self.names)]), *kwargs.items()]
        adapted = {
            place: self.shared.read(tokens, f"{self.layer} {place}", self.readers)
            for place, tokens in places
            if isinstance(place, int) or place in self.names
        }
        args = tuple(adapted.get(place, argument) for place, argument in enumerate(args))
        return args, {name: adapted.get(name, argument) for name, argument in kwargs.items()}


class AddDelta(_Hook):
    """LoRA beside a projection, or beside q, k and v that share one weight."""

    def __call__(self, layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
        self.acted = True
        if not self.enabled:
            return output
        deltas = [adapter(args[0]) for adapter in self.adapters]
        delta = deltas[0] if len(deltas) == 1 else torch.cat(deltas, dim=-1)
        return output + delta.to(output.dtype)

    def dense(self) -> Tensor:
        """The change as one matrix, (outputs, inputs), for a weight that is read as a whole."""
        if any(adapter.training and adapter.dropout.p for adapter in self.adapters):
            raise SerialLoRAError(
                f"LoRA with dropout cannot be trained where {self.layer} returns attention weights "
                "or attends elsewhere; call it with need_weights=False, or set dropout to 0."
            )
        return torch.cat([a.scale * (a.lora_B @ a.lora_A) for a in self.adapters])


class NoneIsDead(_Hook):
    """After an attention module has run: refuse one that reads a weight past its layer."""

    def __init__(self, layer: str, hooks: list[_Hook]) -> None:
        super().__init__(layer, *hooks[0].adapters)
        self.hooks = hooks

    def __call__(self, layer: nn.Module, args: tuple, output: Any) -> None:
        dead = [hook.layer for hook in self.hooks if not hook.acted]
        if dead:
            raise SerialLoRAError(
                f"{self.layer} reads the weight of {dead[0]} without calling that layer, so its "
                "adapter does not act; call eject(model), and register_family with another entry."
            )


class _AttributeHandle:
    """Gives a module an attribute, until it is taken off again."""

    def __init__(self, module: nn.Module, name: str, value: Any) -> None:
        self.module, self.name = module, name
        self.before = vars(module).get(name)
        setattr(module, name, value)

    def remove(self) -> None:
        if self.before is None:
            vars(self.module).pop(self.name, None)
        else:
            setattr(self.module, self.name, self.before)


# ----------------------------------------------------------------------------- attach and detach


def attach(model: nn.Module, injection: Injection) -> None:
    _forget_compiled()
    serial = injection.config.method == SerialLoRAConfig.method
    for site in injection.sites:
        block = model.get_submodule(site.name)
        if serial:
            adapter = block.get_submodule(f"serial_lora{site.suffix}")
            hooks = _attach_serial(model, site, adapter)
        else:
            hooks = _attach_lora(model, site, block)
        injection.hooks += _guard(model, site, hooks)
        injection.hooks += hooks
        injection.handles += _without_shortcuts(model, site)


def _guard(model: nn.Module, site: AttentionSite, hooks: list[_Hook]) -> list[_Hook]:
    """The hook that looks whether those on the linear layers of this attention have run."""
    inside = site.projections["q"].module.rpartition(".")[0]
    watched = [
        hook
        for hook in hooks
        if isinstance(hook, AdaptInput | AddDelta)
        and hook.layer.startswith(f"{inside}." if inside else "")
        and isinstance(model.get_submodule(hook.layer), nn.Linear)
    ]
    if not watched:
        return []
    guard = NoneIsDead(inside, watched)
    guard.handle = model.get_submodule(inside).register_forward_hook(guard)
    return [guard]


def _attach_serial(model: nn.Module, site: AttentionSite, adapter: nn.Module) -> list[_Hook]:
    if site.entry is None:
        layers = list(dict.fromkeys(site.projections[part].module for part in "qkv"))
        shared, hooks = OnceABlock(adapter), []
        for name in layers:
            layer = model.get_submodule(name)
            several = isinstance(layer, nn.MultiheadAttention)
            names = ("query", "key", "value") if several else ("input",)
            hook = AdaptInput(name, shared, names, len(layers) * len(names))
            hook.handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
            hooks.append(hook)
        return hooks
    entry = model.get_submodule(site.entry)
    if site.argument is None:
        hook: _Hook = AdaptOutput(site.entry, adapter)
        hook.handle = entry.register_forward_hook(hook)
    else:
        hook = AdaptArgument(site.entry, adapter)
        hook.argument = site.argument
        hook.handle = entry.register_forward_pre_hook(hook, with_kwargs=True)
    return [hook]


def _attach_lora(model: nn.Module, site: AttentionSite, block: nn.Module) -> list[_Hook]:
    by_layer: dict[str, list[nn.Module]] = {}
    for part, projection in site.projections.items():
        adapter = block.get_submodule(f"lora_{part}{site.suffix}")
        by_layer.setdefault(projection.module, []).append(adapter)
    hooks = []
    for name, beside in by_layer.items():
        layer, hook = model.get_submodule(name), AddDelta(name, *beside)
        if isinstance(layer, nn.Linear):
            hook.handle = layer.register_forward_hook(hook)
        elif isinstance(layer, PackedAttention):
            hook.handle = _AttributeHandle(layer, "after_in_proj", hook)
        else:
            hook.handle = _AttributeHandle(layer, "forward", PackedForward(layer, hook))
        hooks.append(hook)
    return hooks


def _without_shortcuts(model: nn.Module, site: AttentionSite) -> list[_AttributeHandle]:
    """Keep nn.TransformerEncoder from its shortcut in evaluation, which reads weights itself."""
    parts, handles = site.projections["q"].module.split("."), []
    for depth in range(len(parts)):
        around = model.get_submodule(".".join(parts[:depth]))
        if isinstance(around, nn.TransformerEncoderLayer):
            handles.append(_AttributeHandle(around, "activation_relu_or_gelu", 0))
        elif isinstance(around, nn.TransformerEncoder):
            handles.append(_AttributeHandle(around, "use_nested_tensor", False))
    return handles


def detach(injection: Injection) -> None:
    _forget_compiled()
    while injection.hooks:
        injection.hooks.pop().handle.remove()
    while injection.handles:
        injection.handles.pop().remove()


def _forget_compiled() -> None:
    """torch.compile does not notice that hooks come or go: have it look again."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
