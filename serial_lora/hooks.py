"""How tokens reach the adapters of a model: one hook for each way, put on and taken off again."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora.config import SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.packed import PackedAttention, WatchedForward, passed_by
from serial_lora.records import BLOCKS, Injection, changed_parts
from serial_lora.sites import AttentionSite, Projection


@dataclass(eq=False)
class HookHandle:
    """Puts a hook on a layer and takes it off again, under a name where PyTorch gives a new number.

    So what torch.compile made for it serves again, and a loaded hook cannot be displaced.
    """

    layer: nn.Module
    name: str
    hook: Callable
    before: bool = False

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
        if isinstance(self.value, WatchedForward):
            self.value.acts = True
        if not self.there:
            self.before, self.there = vars(self.layer).get(self.name), True
            setattr(self.layer, self.name, self.value)

    def is_on(self) -> bool:
        return self.there

    def take_off(self) -> None:
        if isinstance(self.value, WatchedForward):
            self.value.acts = False
        if not self.there or vars(self.layer).get(self.name) is not self.value:
            return
        self.there = False
        if self.before is None:
            vars(self.layer).pop(self.name)
        else:
            setattr(self.layer, self.name, self.before)


class Hook:
    """Something attached to a layer. `handle` takes it off again.

    Attributes:
        layer: the dotted name of what it is attached to.
        ran: the threads in which it has run in this forward pass; see `NoneIsDead`.
        traced: whether it has ever run in compiled code.
        compiled: what compiled code goes by, in every thread, as it cannot read a context variable.
    """

    handle: HookHandle | AttributeHandle

    def __init__(self, layer: str, *adapters: nn.Module) -> None:
        self.layer, self.adapters = layer, adapters
        self.ran: set[int] = set()
        self.traced = False
        self.compiled: tuple[Callable | None, ...] = adapters

    @property
    def acting(self) -> tuple[Callable | None, ...]:
        """The adapters, or what stands in for them."""
        if torch.compiler.is_compiling():
            return self.compiled
        acting = self.adapters
        for block in BLOCKS.get():
            if block.open and self.adapters[0] in block.acting:
                acting = tuple(map(block.acting.__getitem__, self.adapters))
        return acting

    def mark(self) -> None:
        """Remember that this has run, be the adapter enabled or not."""
        if torch.compiler.is_compiling():
            self.traced = True
        else:
            self.ran.add(threading.get_ident())

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"ran": set()}


class AdaptOutput(Hook):
    """Serial LoRA after a norm layer: the normed tokens go through the adapter."""

    def __call__(self, layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
        self.mark()
        (adapter,) = self.acting
        return output if adapter is None else adapter(output)


class OnceABlock:
    """The adapted tokens of one block: computed once where q, k and v read the same tensor.

    Attributes:
        readers: how many read them in one forward pass.
        kept: None, or tokens, by what adapter, what became of them, and who has read that; one value,
            replaced as a whole, so that threads which run one model cannot mix theirs.
    """

    def __init__(self, readers: int) -> None:
        self.readers = readers
        self.kept: tuple[Tensor, Callable, Tensor, tuple[tuple[int, int | str], ...]] | None = None

    def read(self, adapter: Callable, tokens: Tensor, reader: tuple[int, int | str]) -> Tensor:
        """Adapted tokens for one reader; kept until each of them has had them."""
        kept = self.kept
        same = kept is not None and kept[0] is tokens and kept[1] == adapter
        if same and reader not in kept[3]:
            adapted, served = kept[2], (*kept[3], reader)
        else:
            adapted, served = adapter(tokens), (reader,)
        self.kept = None if len(served) == self.readers else (tokens, adapter, adapted, served)
        return adapted

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"kept": None}


class AdaptInput(Hook):
    """Serial LoRA before a layer: the tokens that it is called with are adapted.

    Attributes:
        names: the layer's arguments that are tokens, its first ones.
        number: the layer's, in its block: alike in all blocks, so that compiled code serves them all.
    """

    def __init__(
        self,
        layer: str,
        adapter: nn.Module,
        names: tuple[str, ...],
        number: int,
        shared: OnceABlock,
    ) -> None:
        super().__init__(layer, adapter)
        self.names, self.number, self.shared = names, number, shared

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.mark()
        (adapter,) = self.acting
        if adapter is None:
            return args, kwargs
        named = [(name, argument) for name, argument in kwargs.items() if name in self.names]
        adapted = {
            place: self.shared.read(adapter, tokens, (self.number, place))
            for place, tokens in [*enumerate(args[: len(self.names)]), *named]
        }
        args = tuple(adapted.get(place, argument) for place, argument in enumerate(args))
        return args, {name: adapted.get(name, argument) for name, argument in kwargs.items()}

    def around(self, layer: nn.Module, tokens: Tensor, call: dict[str, Any]) -> Tensor:
        """`F.linear` with what a layer with such a hook would read."""
        (tokens,), _ = self(layer, (tokens,), {})
        return F.linear(tokens, **call)


class AddDelta(Hook):
    """LoRA beside a projection, or beside some of q, k and v that share one weight.

    Attributes:
        gaps: for each adapter how many of the layer's outputs before and behind its own have none.
    """

    def __init__(self, layer: str, outputs: int, beside: Mapping[Projection, nn.Module]) -> None:
        in_order = sorted(beside, key=lambda projection: projection.start)
        super().__init__(layer, *map(beside.__getitem__, in_order))
        ends = [0, *(projection.row_slice.stop for projection in in_order)]
        self.gaps = [[p.start - end, 0] for p, end in zip(in_order, ends, strict=False)]
        self.gaps[-1][1] = outputs - ends[-1]

    def __call__(self, layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
        self.mark()
        acting = self.acting
        if acting[0] is None:
            return output
        if not args:
            raise SerialLoRAError(
                f"{self.layer} was called with its input by keyword, where LoRA cannot see it; call it "
                "with the input alone."
            )
        deltas = [
            F.pad(adapter(args[0]), gap) if any(gap) else adapter(args[0])
            for adapter, gap in zip(acting, self.gaps, strict=True)
        ]
        whole = deltas[0] if len(deltas) == 1 else torch.cat(deltas, dim=-1)
        return output + whole.to(output.dtype)

    def around(self, layer: nn.Module, tokens: Tensor, call: dict[str, Any]) -> Tensor:
        """What a layer with such a hook would give for `F.linear`."""
        return self(layer, (tokens,), F.linear(tokens, **call))


class CountSamples(Hook):
    """Before the model runs inside `per_sample`: refuse a batch of another number of samples."""

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        pairs = self.acting[0]
        if torch.compiler.is_compiling() or not hasattr(pairs, "index"):
            return
        sizes = list(self._sizes([*args, *kwargs.values()], pairs.dimension + 1))
        if sizes and len(pairs.index) not in sizes:
            raise pairs.misfit(sizes)

    def _sizes(self, arguments: Iterable, leading: int) -> Iterator[int]:
        """What may be the number of samples: sizes of tensors, in dicts too, and of lists."""
        for each in arguments:
            if isinstance(each, Tensor):
                yield from each.shape[:leading]
            elif isinstance(each, Mapping):
                yield from self._sizes(each.values(), leading)
            elif isinstance(each, list):
                yield len(each)
                yield from self._sizes([one for one in each if isinstance(one, Tensor)], leading)


class NoneIsDead(Hook):
    """After an attention module has run: refuse one that reads a weight past its layer.

    After the block around it has run, where a call may do without attention: say so, once.
    """

    def __init__(self, layer: str, hooks: list[Hook], block: bool = False) -> None:
        super().__init__(layer, *hooks[0].adapters)
        self.hooks, self.block, self.warned = hooks, block, False

    def __call__(self, layer: nn.Module, args: tuple, output: Any) -> None:
        thread = None if torch.compiler.is_compiling() else threading.get_ident()
        dead = [h.layer for h in self.hooks if not h.traced and thread not in h.ran]
        for hook in self.hooks if thread and self.block else ():
            hook.ran.discard(thread)
        if not dead or self.warned or self.acting[0] is None:
            return
        if not self.block:
            raise SerialLoRAError(
                f"{self.layer} reads the weight of {dead[0]} without calling that layer, so its "
                "adapter does not act; call eject(model), and register_family with another entry."
            )
        self.warned = True
        warnings.warn(
            f"{self.layer} ran without calling {dead[0]}, so its adapter did not act; let the block "
            "call that layer, or register_family with another entry.",
            stacklevel=2,
        )


def attach(model: nn.Module, injection: Injection) -> None:
    """Send tokens through the adapters. What an error leaves attached is in the record."""
    serial = injection.config.method == SerialLoRAConfig.method
    if not injection.hooks:
        for site in injection.sites:
            hooks = _serial_hooks(model, site) if serial else _lora_hooks(model, site, injection)
            injection.hooks += hooks + _guards(model, site, hooks)
            injection.handles += _seen_by_compile(hooks) + _without_shortcuts(model, site)
        count = CountSamples("", *injection.hooks[0].adapters)
        count.handle = HookHandle(model, "serial_lora samples", count, before=True)
        injection.hooks.append(count)
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
    inside = site.first.module
    if isinstance(model.get_submodule(inside), nn.Linear):
        inside = inside.rpartition(".")[0]
    within = [h for h in hooks if not inside or f"{h.layer}.".startswith(f"{inside}.")]
    guards = [NoneIsDead(inside, within)] if within else []
    guards.append(NoneIsDead(site.name, hooks, block=True))
    for guard in guards:
        name = f"{'block' if guard.block else 'attention'} {site.label}"
        guard.handle = HookHandle(model.get_submodule(guard.layer), name, guard)
    return guards


def _serial_hooks(model: nn.Module, site: AttentionSite) -> list[Hook]:
    adapter = model.get_submodule(site.name).get_submodule(site.pair_name())
    name = f"serial_lora {site.label}"
    if site.entry is not None:
        hook = AdaptOutput(site.entry, adapter)
        hook.handle = HookHandle(model.get_submodule(site.entry), name, hook)
        return [hook]
    paths = {projection.module: ("input",) for projection in site.readers.values()}
    for path in paths:
        if isinstance(model.get_submodule(path), nn.MultiheadAttention):
            paths[path] = ("query", "key", "value")
    shared, hooks, watched = OnceABlock(sum(map(len, paths.values()))), [], {}
    for number, (path, names) in enumerate(paths.items()):
        hook = AdaptInput(path, adapter, names, number, shared)
        hook.handle = _watch_layer(model, path, hook, watched) or HookHandle(
            model.get_submodule(path), name, hook, before=True
        )
        hooks.append(hook)
    return hooks


def _lora_hooks(model: nn.Module, site: AttentionSite, injection: Injection) -> list[Hook]:
    block = model.get_submodule(site.name)
    by_layer: dict[str, dict[Projection, nn.Module]] = {}
    for part, projection in changed_parts(site, injection.config).items():
        adapter = block.get_submodule(site.pair_name(part))
        by_layer.setdefault(projection.module, {})[projection] = adapter
    hooks, watched = [], {}
    for name, beside in by_layer.items():
        layer, weight = model.get_submodule(name), next(iter(beside)).weight(model)
        hook = AddDelta(name, getattr(layer, "out_features", len(weight)), beside)
        if isinstance(layer, nn.Linear):
            hook.handle = _watch_layer(model, name, hook, watched) or HookHandle(
                layer, f"lora {site.label}", hook
            )
        elif isinstance(layer, PackedAttention):
            hook.handle = AttributeHandle(layer, "after_in_proj", hook)
        else:
            hook.handle = _watch(watched, layer, layer, "in_proj_weight", hook)
        hooks.append(hook)
    return hooks


def _watch(
    watched: dict[nn.Module, AttributeHandle],
    attention: nn.Module,
    owner: nn.Module,
    parameter: str,
    hook: Hook,
) -> AttributeHandle:
    """What watches this attention for this weight, and perhaps others of the site."""
    if attention not in watched:
        watched[attention] = AttributeHandle(attention, "forward", WatchedForward(attention))
    watched[attention].value.hooks.append((owner, parameter, hook))
    return watched[attention]


def _watch_layer(
    model: nn.Module, path: str, hook: Hook, watched: dict[nn.Module, AttributeHandle]
) -> AttributeHandle | None:
    """For a layer whose weight the attention around it reads without calling it."""
    around = path.rpartition(".")[0]
    attention = model.get_submodule(around)
    if isinstance(attention, nn.MultiheadAttention) or not passed_by(model, path):
        return None
    hook.layer = around
    return _watch(watched, attention, model.get_submodule(path), "weight", hook)


def _seen_by_compile(hooks: list[Hook]) -> list[AttributeHandle]:
    """A layer's own forward as an attribute of the layer.

    torch.compile does not look whether a layer has hooks by now that it once had not, nor whether
    another model's layer has some; it looks whether there is such an attribute.
    """
    return [
        AttributeHandle(layer, "forward", MethodType(type(layer).forward, layer))
        for layer in {h.handle.layer: None for h in hooks if isinstance(h.handle, HookHandle)}
        if "forward" not in vars(layer)
    ]


def _without_shortcuts(model: nn.Module, site: AttentionSite) -> list[AttributeHandle]:
    """Keep nn.TransformerEncoder from its shortcut in evaluation, which reads weights itself."""
    parts, handles = site.first.module.split("."), []
    for depth in range(len(parts)):
        around = model.get_submodule(".".join(parts[:depth]))
        if isinstance(around, nn.TransformerEncoderLayer):
            handles.append(AttributeHandle(around, "activation_relu_or_gelu", 0))
        elif isinstance(around, nn.TransformerEncoder):
            handles.append(AttributeHandle(around, "use_nested_tensor", False))
    return handles
