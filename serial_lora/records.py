"""What the model carries of its adapters: the record that `inject` leaves, and how it is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.sites import AttentionSite, Projection, child_name, unwrapped_name

DEFAULT = "default"  # the name of the adapter that `inject` makes


@dataclass
class Shelved:
    """An adapter that is not in force: its configuration, and its tensors under the file's names."""

    config: AdapterConfig
    tensors: dict[str, Tensor]


@dataclass(eq=False)
class Block:
    """A `with` block of `disabled` or `per_sample`.

    Attributes:
        record: of the model it is for.
        acting: for each adapter what acts in its place: nothing, or a pair for each sample.
        open: False from its end on.
    """

    record: object
    acting: Mapping[nn.Module, Callable | None]
    open: bool = True

    @property
    def base(self) -> bool:
        """Whether nothing acts, so the model is its base."""
        return None in self.acting.values()


BLOCKS: ContextVar[tuple[Block, ...]] = ContextVar("BLOCKS", default=())
"""Those of this thread or asyncio task, the innermost last."""


@dataclass
class Injection:
    """What `inject` did to a model: kept on the model, so that it can be undone.

    Attributes:
        config: of the adapter in force, with the scale that is in force.
        sites: where the adapters are.
        required_grad: for every base parameter, whether it was trainable before.
        name: of the adapter in force, whose values are in the model.
        pairs: the adapters in the model, by the names that their tensors begin with in a file.
        shelf: the other adapters by name; all go to the same places.
        also_train: the modules that learn beside the adapters, by their dotted names.
        own: the base's own values of those; while `bare`, what they have learned.
        hooks: what sends tokens through the adapters, except while merged.
        handles: what else is put on and taken off with the hooks.
        trainable: what stays on, merged or not: see `serial_lora.stored.kept_trainable`.
        originals: while merged, what the base's own weights consist of, keyed (module, parameter).
        open: the `disabled` and `per_sample` blocks of all threads, the latest last.
    """

    config: AdapterConfig
    sites: list[AttentionSite]
    required_grad: dict[str, bool]
    name: str = DEFAULT
    pairs: dict[str, SerialLoRA | LoRA] = field(default_factory=dict)
    shelf: dict[str, Shelved] = field(default_factory=dict)
    also_train: dict[str, nn.Module] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    hooks: list[Any] = field(default_factory=list)
    handles: list[Any] = field(default_factory=list)
    trainable: list[Any] = field(default_factory=list)
    originals: dict[tuple[str, str], list[Tensor]] | None = None
    open: list[Block] = field(default_factory=list)

    @property
    def merged(self) -> bool:
        """Whether the adapters are in the weights."""
        return self.originals is not None

    @property
    def bare(self) -> bool:
        """Whether a `disabled` block is open, of whichever thread."""
        return any(block.base for block in self.open)

    def learned(self) -> dict[str, Tensor]:
        """Parameters and buffers of the modules that learn beside the adapters, each once."""
        found: dict[int, tuple[str, Tensor]] = {}
        for name, module in self.also_train.items():
            for key, tensor in module.state_dict(keep_vars=True).items():
                if isinstance(tensor, Tensor):
                    found.setdefault(id(tensor), (child_name(name, unwrapped_name(key)), tensor))
        return dict(found.values())

    @torch.no_grad()
    def exchange(self) -> None:
        """What those modules have learned for the base's own values, or back."""
        for name, tensor in self.learned().items():
            kept, self.own[name] = self.own[name], tensor.data
            tensor.data = kept.to(tensor)

    def __getstate__(self) -> dict[str, Any]:
        self.refuse_inside()
        return vars(self)

    def refuse_inside(self) -> None:
        """Refuse to change or copy a model inside a `with` block, of whichever thread."""
        if self.open:
            raise SerialLoRAError(
                "the adapters are disabled or given for each sample; leave that `with` block first."
            )


RECORD = "serial_lora_injection"


def records(model: nn.Module) -> list[tuple[nn.Module, Injection]]:
    """Every (module, record) that `inject` left in the model, be it wrapped (DDP, compile) or not."""
    require_model(model)
    return [(m, vars(m)[RECORD]) for m in model.modules() if RECORD in vars(m)]


def unwrapped_modules(root: nn.Module) -> dict[str, nn.Module]:
    """Every module by its name without the wrappers that torch.compile puts around some."""
    return {unwrapped_name(n): m for n, m in root.named_modules(remove_duplicate=False)}


def require_model(model: object) -> None:
    """Refuse what is no module."""
    if not isinstance(model, nn.Module):
        raise SerialLoRAError(f"a model is an nn.Module, not a {type(model).__name__}; pass one.")


def injected(model: nn.Module, to_change: bool = False) -> tuple[nn.Module, Injection]:
    """The record, after a look whether the model still is what it says, and may be changed."""
    found = records(model)
    if not found:
        raise SerialLoRAError(
            "the model has no adapters; call inject(model, config) first, or pass the larger model "
            "that inject was given."
        )
    if len(found) > 1:
        raise SerialLoRAError(
            f"adapters were put into {len(found)} parts of this model separately; pass the part "
            "whose adapters are meant."
        )
    root, injection = found[0]
    _refuse_rebuilt(root, injection)
    if to_change:
        injection.refuse_inside()
    return root, injection


def with_values(model: nn.Module) -> tuple[nn.Module, Injection]:
    """The record of a model that is not on the meta device, where tensors have shapes alone."""
    root, injection = injected(model)
    if any(pair.lora_A.is_meta for pair in injection.pairs.values()):  # they are where the base is
        raise SerialLoRAError(
            "the model is on the meta device and has no values; load its weights first."
        )
    return root, injection


def adapters(model: nn.Module) -> dict[str, SerialLoRA | LoRA]:
    """Every adapter in the model under its dotted name; empty if there is none."""
    require_model(model)
    return {n: m for n, m in model.named_modules() if isinstance(m, SerialLoRA | LoRA)}


def pair_shapes(injection: Injection) -> dict[str, tuple[int, int]]:
    """For every adapter the name that its tensors begin with in a file, and (inputs, outputs)."""
    pairs = injection.pairs.items()
    return {name: (pair.lora_A.shape[1], pair.lora_B.shape[0]) for name, pair in pairs}


def tensors_in_force(injection: Injection) -> dict[str, Tensor]:
    """All that the adapter in force consists of, by the names that it has in a file."""
    tensors = {
        f"{name}.{which}": getattr(pair, which)
        for name, pair in injection.pairs.items()
        for which in ("lora_A", "lora_B")
    }
    return tensors | (injection.own if injection.bare else injection.learned())


def adapter_shapes(site: AttentionSite, config: AdapterConfig) -> dict[str, tuple[int, int]]:
    """The adapters of one site: the name each has in its block, and (inputs, outputs)."""
    if config.method == SerialLoRAConfig.method:
        return {site.pair_name(): (site.width, site.width)}
    return {
        site.pair_name(part): (projection.columns, projection.rows)
        for part, projection in changed_parts(site, config).items()
    }


def changed_parts(site: AttentionSite, config: AdapterConfig) -> dict[str, Projection]:
    """The projections an adapter acts on."""
    if config.method == SerialLoRAConfig.method:
        return site.readers
    asked = {*config.parts, *(("gate",) if "fc1" in config.parts else ())}
    return {part: p for part, p in site.projections.items() if part in asked}


def require_finite(tensors: Mapping[str, Tensor], done: str) -> None:
    """Refuse values that are not finite in the number type that adapters are kept in."""
    for name, tensor in tensors.items():
        if not tensor.float().isfinite().all():
            raise SerialLoRAError(
                f"{name} holds values that are not finite numbers, so the training diverged and "
                f"nothing was {done}; train again with a smaller learning rate."
            )


def _refuse_rebuilt(root: nn.Module, injection: Injection) -> None:
    """Refuse a model whose blocks or layers are no longer those that `inject` found."""
    there = unwrapped_modules(root)
    expected = dict(injection.pairs | injection.also_train)
    expected |= {hook.layer: hook.handle.layer for hook in injection.hooks}
    gone = [
        place
        for place, module in expected.items()
        if there.get(unwrapped_name(place)) is not getattr(module, "_orig_mod", module)
    ]
    layers = [p.module for site in injection.sites for p in site.projections.values()]
    gone += [layer for layer in layers if unwrapped_name(layer) not in there]
    if injection.originals is None:
        gone += [hook.layer for hook in injection.hooks if not hook.handle.is_on()]
    learned, own = injection.learned(), injection.own
    if {n: t.shape for n, t in learned.items()} != {n: t.shape for n, t in own.items()}:
        gone += injection.also_train
    if gone:
        raise SerialLoRAError(
            f"{gone[0] or type(root).__name__} is not what inject found there: modules were added, "
            "removed or replaced since; put the old ones back, or build the model anew."
        )
