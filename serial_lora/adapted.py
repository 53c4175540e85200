"""How tokens reach an adapter: a layer with an adapter is a layer of another class.

Called, it adapts the tokens that it reads (the cheap way). Its weight, read from outside, is the
merged one, W (I + s B A) or W + s B A (the exact way). So it does not matter whether a model calls
a layer or hands its weight to a function, and nothing has to find out. State dict, names and
`isinstance` stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.layers import LowRankPair, wide
from serial_lora.sites import Site, own_weight
from serial_lora.state import Injection, changed_parts

Acting = tuple[Any, ...]  # pairs, or what stands in for them: (tokens) -> tokens
KEY = "serial_lora_adapted"  # where a layer carries its `Adapted`


class Adapted:
    """What an adapted layer carries: its pairs, and what they do to tokens and to the weight.

    Attributes:
        name, layer: the layer's dotted name, and the layer.
        parameter: the name of the weight.
        pairs: that act here.
        now: the pairs, or what stands in for them; nothing where the model is its base.
        called, read: whether the model has called the layer, and read its weight.
        batch_first: whether samples are the first dimension of its tokens, or the second.
    """

    batch_first = True

    def __init__(self, name: str, layer: Any, parameter: str, pairs: tuple[Any, ...]) -> None:
        self.name, self.layer, self.parameter = name, layer, parameter
        self.pairs: Acting = pairs
        self.now: Acting = pairs
        self.called = self.read = False

    @property
    def own(self) -> nn.Parameter:
        """The base's own weight."""
        return own_weight(self.layer, self.parameter)

    def acting(self) -> Acting:
        """What acts now."""
        return self.now

    def stand_in(self, acting: Mapping[nn.Module, Any] | None) -> None:
        """Have these act in place of the pairs; None for the pairs themselves."""
        self.now = self.pairs
        if acting is not None:
            stand_ins = map(acting.__getitem__, self.pairs)
            self.now = tuple(each for each in stand_ins if each is not None)

    def before(self, tokens: Tensor) -> Tensor:
        """What the layer reads in place of these tokens."""
        return tokens

    def after(self, tokens: Tensor, output: Tensor) -> Tensor:
        """What the layer gives in place of this output."""
        return output

    def weight(self) -> Tensor:
        """The weight as somebody reads it: with the change of all that acts, in its number type."""
        acting = self.acting()
        for pair in acting:
            if not isinstance(pair, LowRankPair) or (pair.training and pair.dropout.p):
                raise SerialLoRAError(
                    f"the weight of {self.name} is read, and the layer not called, so neither "
                    "dropout nor an adapter for each sample can act; use dropout=0, or give the "
                    "samples of each adapter a batch of their own."
                )
        self.read = True
        with torch.autocast(self.own.device.type, enabled=False):
            return self.changed(wide(self.own), acting).to(self.own.dtype)

    def changed(self, base: Tensor, pairs: Acting) -> Tensor:
        """The base's weight, (outputs, inputs), with the change of these pairs."""
        weight = base
        for pair, start, rows in self.by_rows(pairs, len(base)):
            left, right = pair.factors(base.narrow(0, start, rows))
            gaps = (0, 0, start, len(base) - start - rows)  # left, right, above and below
            weight = weight + F.pad(left @ right, gaps)
        return weight

    def by_rows(self, pairs: Acting, outputs: int) -> list[tuple[Any, int, int]]:
        """Each pair, the first row of the weight that it is for, and how many are."""
        return [(pair, 0, outputs) for pair in pairs]

    def forget(self) -> None:
        """What was computed with values that are others now."""

    def put_on(self) -> None:
        base: Any = type(self.layer)
        self.layer.__class__ = adapted_class(base, self.parameter)
        vars(self.layer)[KEY] = self

    def is_on(self) -> bool:
        return vars(self.layer).get(KEY) is self

    def take_off(self) -> None:
        if self.is_on():
            del vars(self.layer)[KEY]
            self.layer.__class__ = type(self.layer).unadapted


class Before(Adapted):
    """Serial LoRA: the tokens go through the pair before the layer reads them.

    Attributes:
        shared: by the layers that read the same tokens.
        number: which of them this is.
    """

    def __init__(self, *about: Any, shared: AdaptedTokens, number: int) -> None:
        super().__init__(*about)
        self.shared, self.number = shared, number

    def before(self, tokens: Tensor) -> Tensor:
        acting = self.acting()
        return self.shared.read(acting, tokens, self.number) if acting else tokens

    def forget(self) -> None:
        self.shared.kept = None


class Beside(Adapted):
    """LoRA: each pair's change is added to its rows of what the layer gives.

    Attributes:
        starts: for each pair the first row of the weight that it is for, in order.
        gaps: for each pair how many of the layer's outputs before and behind its own have none.
    """

    def __init__(self, *about: Any, starts: tuple[int, ...]) -> None:
        super().__init__(*about)
        self.starts, outputs = starts, len(self.own)
        stops = [start + rows for _, start, rows in self.by_rows(self.pairs, outputs)]
        self.gaps = [
            [start - stop, 0] for start, stop in zip(starts, [0, *stops[:-1]], strict=True)
        ]
        self.gaps[-1][1] = outputs - stops[-1]

    def by_rows(self, pairs: Acting, outputs: int) -> list[tuple[Any, int, int]]:
        each = zip(pairs, self.starts, strict=True)
        return [(pair, start, len(pair.lora_B)) for pair, start in each]

    def after(self, tokens: Tensor, output: Tensor) -> Tensor:
        acting = self.acting()
        if not acting:
            return output
        deltas = [
            F.pad(pair(tokens), gap) if any(gap) else pair(tokens)
            for pair, gap in zip(acting, self.gaps, strict=True)
        ]
        change = deltas[0] if len(deltas) == 1 else torch.cat(deltas, dim=-1)
        return output + change.to(output.dtype)


class AdaptedTokens:
    """The adapted tokens of one block: computed once where q, k and v read the same tensor.

    Attributes:
        readers: how many read them in one forward pass.
        kept: None, or tokens and their version, what acted on them, what became of them, and who
            has read that; one value, replaced as a whole, so that threads cannot mix theirs.
    """

    def __init__(self, readers: int) -> None:
        self.readers = readers
        self.kept: tuple[Tensor, int, Acting, Tensor, tuple[int, ...]] | None = None

    def read(self, acting: Acting, tokens: Tensor, reader: int) -> Tensor:
        """Adapted tokens for one reader; kept until each of them has had them.

        Tokens that were changed in place since are other tokens. Tensors of inference mode do not
        tell, and compiled code cannot ask, so they are not kept but where autograd would tell.
        """
        compiled = torch.compiler.is_compiling()
        told = torch.is_grad_enabled() if compiled else not tokens.is_inference()
        if self.readers == 1 or not told:
            return _through(acting, tokens)
        kept, version = self.kept, 0 if compiled else tokens._version
        same = kept is not None and kept[0] is tokens and kept[1:3] == (version, acting)
        if kept is not None and same and reader not in kept[4]:
            adapted, served = kept[3], (*kept[4], reader)
        else:
            adapted, served = _through(acting, tokens), (reader,)
        everyone = len(served) == self.readers
        self.kept = None if everyone else (tokens, version, acting, adapted, served)
        return adapted

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"kept": None}


def _through(acting: Acting, tokens: Tensor) -> Tensor:
    """x + the sum of the changes of these pairs; there is one, but for several adapters in PEFT."""
    adapted = acting[0](tokens)
    for pair in acting[1:]:
        change = pair.delta(tokens.to(pair.lora_A.dtype))
        adapted = adapted + change.to(adapted.dtype)
    return adapted


# ------------------------------------------------------------------------------ the other class


def project(layer: nn.Module, parameter: str, tokens: Tensor, bias: Tensor | None) -> Tensor:
    """Tokens times this weight of a layer, adapted if the layer is."""
    weight, adapted = own_weight(layer, parameter), getattr(layer, KEY, None)
    if adapted is None:
        return F.linear(tokens, weight, bias)
    return adapted.after(tokens, F.linear(adapted.before(tokens), weight, bias))


@cache
def adapted_class(base: Any, parameter: str) -> Any:
    """The class of layers of ``base`` whose weight of this name is adapted."""

    def input_adapted(self: Any, input: Tensor) -> Tensor:
        adapted = getattr(self, KEY, None)
        if adapted is not None:
            adapted.called = True
        return project(self, parameter, input, self.bias)

    def get(self: nn.Module) -> Tensor:
        weight, adapted = own_weight(self, parameter), getattr(self, KEY, None)
        if hasattr(weight, "full_tensor"):  # FSDP asks here for what it has made of the weight
            raise SerialLoRAError(
                "FSDP has spread the model over processes, where adapters cannot act; use "
                "DistributedDataParallel."
            )
        if adapted is None or not adapted.acting():
            return weight
        return adapted.weight() if torch.compiler.is_compiling() else ReadWeight.of(adapted)

    def register_parameter(self: nn.Module, name: str, value: nn.Parameter | None) -> None:
        before = self._parameters.get(name)
        if name == parameter and before is not None and not before.is_meta:
            raise SerialLoRAError(
                f"the weight of {vars(self)[KEY].name} was to be replaced while an adapter acts on "
                "it; call eject(model) first, and load or inject again afterwards."
            )
        base.register_parameter(self, name, value)

    def reduce(self: Any, protocol: int) -> tuple:
        return _new, (base, parameter), *base.__reduce_ex__(self, protocol)[2:]

    body: dict[str, Any] = {"unadapted": base, "__reduce_ex__": reduce}
    body |= {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    body |= {parameter: property(get), "register_parameter": register_parameter}
    if base.forward is nn.Linear.forward:  # one of its own reads the weight
        body["forward"] = input_adapted
    return type(base.__name__, (base,), body)


def _new(*key: Any) -> Any:
    kind = adapted_class(*key)
    return kind.__new__(kind)


class ReadWeight(Tensor):
    """An adapted layer's weight, as somebody has read it who did not call the layer.

    `F.linear` with it does what the layer would do, and is as cheap. Any other function computes
    with the merged weight. What tells about a tensor tells about the base's own, and what writes
    into one writes there.
    """

    adapted: Adapted

    @classmethod
    def of(cls, adapted: Adapted) -> ReadWeight:
        read = _EMPTY.as_subclass(cls)
        read.adapted = adapted
        return read

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.linear:
            call = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            if isinstance(weight := call["weight"], cls):
                read = weight.adapted
                read.read = True
                return project(read.layer, read.parameter, call["input"], call.get("bias"))
        if function == _DATA:  # to be read, or to be written? It cannot be right for both
            raise SerialLoRAError(
                "the .data of a weight was asked for while an adapter acts on it; call eject(model) "
                "first, or merge(model)."
            )
        name = getattr(function, "__name__", "")
        writes = name in ("__set__", "__setitem__") or (name.endswith("_") and name[-2:] != "__")
        first = [*args, *kwargs.values()][0] if writes else None

        def plain(value: Any) -> Any:
            if not isinstance(value, cls):
                return value
            own = value is first or function in _FACTS
            return value.adapted.own if own else value.adapted.weight()

        args, kwargs = tree_map(plain, (args, kwargs))
        return function(*args, **kwargs)


_EMPTY = torch.empty(0)
_ATTRIBUTES = ("device", "dtype", "is_meta", "layout", "ndim", "requires_grad", "shape")
_DATA, *_GETTERS = (getattr(Tensor, name).__get__ for name in ("data", *_ATTRIBUTES))
_FACTS = {*_GETTERS, Tensor.dim, Tensor.is_floating_point, Tensor.numel, Tensor.size}


# ----------------------------------------------------------------------------- onto a whole model


def attach(model: nn.Module, injection: Injection) -> None:
    """Send tokens through the adapters. What an error leaves attached is in the record."""
    if not injection.adapted:
        for site in injection.sites:
            injection.adapted += _adapted(model, site, injection.config)
    for adapted in injection.adapted:
        adapted.put_on()


def detach(injection: Injection) -> None:
    """The way back. What was attached stays in the record, for `attach`."""
    for adapted in reversed(injection.adapted):
        adapted.take_off()


def _adapted(model: nn.Module, site: Site, config: AdapterConfig) -> list[Adapted]:
    """Serial LoRA's pair in front of each layer that reads the tokens, or LoRA's beside each projection.

    Where one weight has several projections, there are several pairs beside it.
    """
    weights: dict[tuple[str, str], dict[int, str]] = {}
    for part, projection in changed_parts(site, config).items():
        parts = weights.setdefault((projection.module, projection.parameter), {})
        parts[projection.start] = part
    block, shared = model.get_submodule(site.name), AdaptedTokens(len(weights))
    adapted: list[Adapted] = []
    for number, ((name, parameter), parts) in enumerate(weights.items()):
        layer, starts = model.get_submodule(name), tuple(sorted(parts))
        if config.method == SerialLoRAConfig.method:
            pair = block.get_submodule(site.pair_name())
            adapted.append(Before(name, layer, parameter, (pair,), shared=shared, number=number))
            continue
        pairs = tuple(block.get_submodule(site.pair_name(parts[start])) for start in starts)
        adapted.append(Beside(name, layer, parameter, pairs, starts=starts))
    for each in adapted:
        each.batch_first = site.batch_first
    return adapted
