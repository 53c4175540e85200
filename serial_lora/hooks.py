"""How tokens reach the adapters of a model, and the record of it that the model carries.

Everything that is attached is a plain object, so deepcopy, pickle and torch.save go on working.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.attention import AttentionSite
from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.packed import PackedAttention, PackedForward


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


def attach(model: nn.Module, injection: Injection) -> None:
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


def detach(injection: Injection) -> None:
    _forget_compiled()
    while injection.hooks:
        injection.hooks.pop().handle.remove()


def _forget_compiled() -> None:
    """torch.compile does not notice that hooks come or go: have it look again."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
