"""What the model carries of its adapters: the record that `inject` leaves, and how it is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.handles import AttributeHandle
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.sites import AttentionSite


@dataclass
class Injection:
    """What `inject` did to a model: kept on the model, so that it can be undone.

    Attributes:
        config: the configuration, with the scale that is in force.
        sites: where the adapters are.
        required_grad: for every base parameter, whether it was trainable before.
        hooks: what sends tokens through the adapters, except while merged.
        handles: what else is put on and taken off with the hooks.
        originals: while merged, the base's own weights, keyed (module, parameter).
        disabled: how many `disabled` blocks are open, in all threads.
        set_aside: the merged weights, while a `disabled` block keeps them out of the model.
    """

    config: AdapterConfig
    sites: list[AttentionSite]
    required_grad: dict[str, bool]
    hooks: list[Any] = field(default_factory=list)
    handles: list[AttributeHandle] = field(default_factory=list)
    originals: dict[tuple[str, str], Tensor] | None = None
    disabled: int = 0
    set_aside: dict[tuple[str, str], Tensor] | None = None

    @property
    def merged(self) -> bool:
        """Whether the adapters are in the weights, outside any `disabled` block at least."""
        return self.originals is not None or self.set_aside is not None

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a file made inside `disabled` is outside of it."""
        return vars(self) | {"disabled": 0, "set_aside": None}


RECORD = "serial_lora_injection"


def records(model: nn.Module) -> list[tuple[nn.Module, Injection]]:
    """Every (module, record) that `inject` left in the model, be it wrapped (DDP, compile) or not."""
    return [(m, vars(m)[RECORD]) for m in model.modules() if RECORD in vars(m)]


def injections(model: nn.Module) -> list[tuple[nn.Module, Injection]]:
    """The records, after a look whether the model still is what they say.

    Raises:
        SerialLoRAError: there is none, or modules were added, removed or replaced since `inject`.
    """
    found = records(model)
    if not found and adapters(model):
        raise SerialLoRAError(
            "these adapters were put in by way of a larger model; pass the one that inject was given."
        )
    if not found:
        raise SerialLoRAError("the model has no adapters; call inject(model, config) first.")
    for root, injection in found:
        _refuse_rebuilt(root, injection)
    return found


def adapters(model: nn.Module) -> dict[str, SerialLoRA | LoRA]:
    """Every adapter in the model under its dotted name; empty if there is none."""
    return {n: m for n, m in model.named_modules() if isinstance(m, SerialLoRA | LoRA)}


def adapter_shapes(site: AttentionSite, config: AdapterConfig) -> dict[str, tuple[int, int]]:
    """The adapters of one site: the name each has in its block, and (inputs, outputs)."""
    if config.method == SerialLoRAConfig.method:
        return {f"serial_lora{site.suffix}": (site.width, site.width)}
    return {
        f"lora_{part}{site.suffix}": (projection.columns, projection.rows)
        for part, projection in site.projections.items()
    }


def refuse_without_values(model: nn.Module) -> None:
    """Refuse a model on the meta device, which has shapes and nothing to compute with."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SerialLoRAError(
            "the model is on the meta device and has no values; load its weights first."
        )


def _refuse_rebuilt(root: nn.Module, injection: Injection) -> None:
    """Refuse a model whose blocks or layers are no longer those that `inject` found."""
    try:
        for site in injection.sites:
            place = site.name
            for name in adapter_shapes(site, injection.config):
                if not isinstance(
                    root.get_submodule(site.name).get_submodule(name), SerialLoRA | LoRA
                ):
                    raise AttributeError(name)
            for projection in site.projections.values():
                place = projection.module
                root.get_submodule(place)
        for hook in injection.hooks:
            place = hook.layer
            layer = root.get_submodule(place)
            same = (
                getattr(layer, "_orig_mod", layer) is hook.handle.layer
            )  # compiled since, perhaps
            if not (same and (injection.originals is not None or hook.handle.is_on())):
                raise AttributeError(place)
    except AttributeError as error:
        raise SerialLoRAError(
            f"{place or type(root).__name__} is not what inject found there: modules were added, "
            "removed or replaced since; put the old ones back, or build the model anew."
        ) from error
