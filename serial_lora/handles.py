"""Putting something on a layer and taking it off again, as often as a model is merged and unmerged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from serial_lora.packed import PackedForward


class HookHandle:
    """Puts a hook on a layer and takes it off again.

    Under a name, where PyTorch gives a number that is new each time: so what torch.compile made
    for it serves again, and a loaded hook cannot be displaced.
    """

    def __init__(self, layer: nn.Module, name: str, hook: Callable, before: bool = False) -> None:
        self.layer, self.name, self.hook, self.before = layer, name, hook, before

    def _hooks(self) -> dict[str, Callable]:
        return self.layer._forward_pre_hooks if self.before else self.layer._forward_hooks

    def put_on(self) -> None:
        self._hooks()[self.name] = self.hook
        if self.before:
            self.layer._forward_pre_hooks_with_kwargs[self.name] = True

    def is_on(self) -> bool:
        return self._hooks().get(self.name) is self.hook

    def take_off(self) -> None:
        self._hooks().pop(self.name, None)
        if self.before:
            self.layer._forward_pre_hooks_with_kwargs.pop(self.name, None)


class AttributeHandle:
    """Gives a layer an attribute and takes it back again."""

    def __init__(self, layer: nn.Module, name: str, value: Any) -> None:
        self.layer, self.name, self.value = layer, name, value
        self.before: Any = None
        self.there = False  # stays so where the user has put a forward around this one

    def put_on(self) -> None:
        if isinstance(self.value, PackedForward):
            self.value.acts = True
        if not self.there:
            self.before, self.there = vars(self.layer).get(self.name), True
            setattr(self.layer, self.name, self.value)

    def is_on(self) -> bool:
        return self.there

    def take_off(self) -> None:
        if isinstance(self.value, PackedForward):
            self.value.acts = False
        if not self.there or vars(self.layer).get(self.name) is not self.value:
            return
        self.there = False
        if self.before is None:
            vars(self.layer).pop(self.name)
        else:
            setattr(self.layer, self.name, self.before)
