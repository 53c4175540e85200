"""What the model carries of its adapters: the record that `inject` leaves, and how it is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.errors import NO_ADAPTERS, SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.sites import Projection, Site, child_name, unwrapped_name

DEFAULT = "default"  # the name of the adapter that `inject` makes


@dataclass
class InactiveAdapter:
    """An adapter that is not active: its configuration, and its tensors under the file's names."""

    config: AdapterConfig
    tensors: dict[str, Tensor]


@dataclass
class Injection:
    """What `inject` did to a model: kept on the model, so that it can be undone.

    Attributes:
        config: of the active adapter, with the scale that it has now.
        sites: where the adapters are.
        required_grad: for every base parameter, whether it was trainable before.
        name: of the active adapter, whose values are in the model.
        pairs: the adapters in the model, by the names that their tensors begin with in a file.
        inactive: the other adapters by name; all go to the same places.
        also_train: the modules that learn beside the adapters, by their dotted names.
        own: the base's own values of those; while `bare`, what they have learned.
        adapted: the layers whose tokens or weights go through adapters, except while merged.
        switched: attributes that are others as long as there are adapters, and what they were.
        originals: while merged, the base's own weights, keyed (module, parameter).
        open: what acts in place of each pair in `disabled` and `per_sample` blocks, the innermost last.
    """

    config: AdapterConfig
    sites: list[Site]
    required_grad: dict[str, bool]
    name: str = DEFAULT
    pairs: dict[str, SerialLoRA | LoRA] = field(default_factory=dict)
    inactive: dict[str, InactiveAdapter] = field(default_factory=dict)
    also_train: dict[str, nn.Module] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    adapted: list[Any] = field(default_factory=list)
    switched: list[tuple[nn.Module, str, Any]] = field(default_factory=list)
    originals: dict[tuple[str, str], Tensor] | None = None
    open: list[Mapping[nn.Module, Any]] = field(default_factory=list)

    @property
    def merged(self) -> bool:
        """Whether the adapters are in the weights."""
        return self.originals is not None

    @property
    def bare(self) -> bool:
        """Whether a `disabled` block is open."""
        return any(None in acting.values() for acting in self.open)

    def learned(self) -> dict[str, Tensor]:
        """Parameters and buffers of the modules that learn beside the adapters, each once."""
        found: dict[int, tuple[str, Tensor]] = {}
        for name, module in self.also_train.items():
            for key, tensor in module.state_dict(keep_vars=True).items():
                if isinstance(tensor, Tensor):
                    found.setdefault(id(tensor), (child_name(name, unwrapped_name(key)), tensor))
        return dict(found.values())

    def active_tensors(self) -> dict[str, Tensor]:
        """All that the active adapter consists of, by the names that it has in a file."""
        tensors = {
            f"{name}.{which}": getattr(pair, which)
            for name, pair in self.pairs.items()
            for which in ("lora_A", "lora_B")
        }
        return tensors | (self.own if self.bare else self.learned())

    def forget(self) -> None:
        """What the adapted layers have computed with values that are others now."""
        for adapted in self.adapted:
            adapted.forget()

    @torch.no_grad()
    def exchange(self) -> None:
        """What the modules beside the adapters have learned for the base's own values, or back."""
        for name, tensor in self.learned().items():
            kept, self.own[name] = self.own[name], tensor.data
            tensor.data = kept.to(tensor)

    def __getstate__(self) -> dict[str, Any]:
        self.refuse_inside()
        return vars(self)

    def refuse_inside(self) -> None:
        """Refuse to change or copy a model inside a `with` block."""
        if self.open:
            raise SerialLoRAError(
                "the adapters are disabled or given for each sample; leave that `with` block first."
            )

    def refuse_merged(self) -> None:
        if self.merged:
            raise SerialLoRAError(
                "the model's adapters are merged; call unmerge(model) or eject(model) first."
            )


RECORD = "serial_lora_injection"


def records(model: nn.Module) -> list[tuple[nn.Module, Injection]]:
    """Every (module, record) that `inject` left in the model, wrapped (DDP, compile) or not."""
    require_model(model)
    return [(m, vars(m)[RECORD]) for m in model.modules() if RECORD in vars(m)]


def unwrapped_modules(root: nn.Module) -> dict[str, nn.Module]:
    """Every module by its name without the wrappers that torch.compile puts around some."""
    return {unwrapped_name(n): m for n, m in root.named_modules(remove_duplicate=False)}


def require_model(model: object) -> None:
    """Refuse what is no module."""
    if not isinstance(model, nn.Module):
        raise SerialLoRAError(f"a model is an nn.Module, not a {type(model).__name__}; pass one.")


def injected(model: nn.Module) -> tuple[nn.Module, Injection]:
    """The record, after a look whether the model still is what it says."""
    found = records(model)
    if not found:
        raise SerialLoRAError(NO_ADAPTERS)
    if len(found) > 1:
        raise SerialLoRAError(
            f"adapters were put into {len(found)} parts of this model separately; pass the part "
            "whose adapters are meant."
        )
    root, injection = found[0]
    _refuse_rebuilt(root, injection)
    return root, injection


def adapters(model: nn.Module) -> dict[str, SerialLoRA | LoRA]:
    """Every adapter in the model under its dotted name; empty if there is none."""
    require_model(model)
    return {n: m for n, m in model.named_modules() if isinstance(m, SerialLoRA | LoRA)}


def changed_parts(site: Site, config: AdapterConfig) -> dict[str, Projection]:
    """The projections an adapter acts on."""
    if not isinstance(config, LoRAConfig):
        return site.readers
    asked = {*config.parts, *(("gate",) if "fc1" in config.parts else ())}
    return {part: p for part, p in site.projections.items() if part in asked}


def new_pairs(site: Site, config: AdapterConfig) -> dict[str, SerialLoRA | LoRA]:
    """Fresh adapters for one site, by the names that they have in its block."""
    settings = config.rank, config.scale, config.dropout
    if config.method == SerialLoRAConfig.method:
        return {site.pair_name(): SerialLoRA(site.width, *settings)}
    return {
        site.pair_name(part): LoRA(projection.columns, projection.rows, *settings)
        for part, projection in changed_parts(site, config).items()
    }


def check_rank(sites: list[Site], config: AdapterConfig) -> None:
    narrowest = min(min(p.rows, p.columns) for site in sites for p in site.projections.values())
    if config.rank > narrowest:
        raise SerialLoRAError(
            f"rank {config.rank} is above {narrowest}, the width of this model's layers; "
            f"choose a rank of at most {narrowest}."
        )


@contextmanager
def plain_context(model: nn.Module) -> Iterator[None]:
    """Computed as it stands whatever surrounds it: no autocast, inference or default device."""
    with ExitStack() as stack, torch.device("cpu"), torch.inference_mode(False), torch.no_grad():
        for kind in {parameter.device.type for parameter in model.parameters()} - {"meta"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _refuse_rebuilt(root: nn.Module, injection: Injection) -> None:
    """Refuse a model whose blocks or layers are no longer those that `inject` found."""
    there = unwrapped_modules(root)
    expected: dict[str, nn.Module] = {**injection.pairs, **injection.also_train}
    expected |= {adapted.name: adapted.layer for adapted in injection.adapted}
    gone = [
        place
        for place, module in expected.items()
        if there.get(unwrapped_name(place)) is not getattr(module, "_orig_mod", module)
    ]
    if not injection.merged:
        gone += [adapted.name for adapted in injection.adapted if not adapted.is_on()]
    if gone:
        raise SerialLoRAError(
            f"{gone[0] or type(root).__name__} is not what inject found there: modules were added, "
            "removed or replaced since; put the old ones back, or build the model anew."
        )
