"""Serial LoRA as one of PEFT's own methods: `import serial_lora.peft` registers it.

PEFT puts a layer of its own around a layer that it adapts. Inside, the layer is adapted as `inject`
does it; around it, it has the names that PEFT looks for. q, k and v of one attention have one pair
between them, and one such layer, around q: so the pair is counted once and saved once, under
`...q_proj.serial_lora_pairs.lora_A`, and k and v are adapted where they are. The rest is PEFT's:
adapters by name, `modules_to_save`, files, transformers' `load_adapter` and `Trainer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.adapted import Acting, AdaptedTokens, Before
from serial_lora.attention import every_site, find_sites
from serial_lora.config import PLACES, refuse_unknown
from serial_lora.config import SerialLoRAConfig as Settings
from serial_lora.errors import SerialLoRAError, require_finite
from serial_lora.layers import SerialLoRA, wide
from serial_lora.sites import Site, require_own_weight
from serial_lora.state import check_rank, plain_context

try:
    import peft
    from packaging.version import Version
    from peft import PeftConfig, PeftType
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
    from peft.utils import register_peft_method

    if Version(peft.__version__) < Version("0.21"):
        raise ImportError(f"PEFT {peft.__version__} is older")
except ImportError as error:
    raise SerialLoRAError(
        f'serial_lora.peft needs PEFT 0.21 or newer ({error}); call pip install -U "peft>=0.21".'
    ) from error

NAME = "serial_lora"


def _name_in_enum(name: str) -> None:
    """PEFT keeps its methods in an Enum; one from outside has no other way than into its tables."""
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    setattr(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = PeftType._value2member_map_[name] = member


@dataclass
class SerialLoRAConfig(PeftConfig):
    """One pair in front of q, k and v of every attention, or of the feed-forward, for `get_peft_model`.

    Attributes:
        r, scale, dropout, places: as rank, scale, ... of `serial_lora.SerialLoRAConfig`.
        target_modules: names of layers, as in every configuration of PEFT's; q, k and v of an attention
            belong together. None for all that the model's structure shows at these places.
        exclude_modules: names of layers to pass over.
        modules_to_save: names of modules that learn beside the pairs and are saved with them.
    """

    r: int = 8
    scale: float = 1.0
    dropout: float = 0.0
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    places: list[str] = field(default_factory=lambda: list(Settings.places))

    def __new__(cls, *_: Any, **settings: Any) -> SerialLoRAConfig:
        refuse_unknown(cls, settings)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[NAME.upper()]
        self.places = list(self.settings.places)

    @property
    def settings(self) -> Settings:
        """What it says that `inject` takes too; refuses what is out of range."""
        return Settings(self.r, self.scale, self.dropout, places=tuple(self.places))


class ActivePairs(Before):
    """The pairs of PEFT's active adapters, which add up."""

    def __init__(self, around: SerialLoRALayer, base: nn.Module, **shared: Any) -> None:
        super().__init__(type(base).__name__, base, "weight", (), **shared)
        self.around = around

    def acting(self) -> Acting:
        off = self.around.disable_adapters or self.around.merged
        return () if off else self.around.pairs(self.around.active_adapters)


class SerialLoRALayer(nn.Module, BaseTunerLayer):
    """The first of the linear layers that read the same tokens, with the pairs before all of them.

    Attributes:
        serial_lora_pairs: the pairs by the names of their adapters.
        adapted: what adapts these layers, this one and those beside it, which PEFT leaves alone.
        originals: while merged, the base's own weights of these layers.
    """

    adapter_layer_names = ("serial_lora_pairs",)
    in_features: int

    def __init__(self, base_layer: Any, beside: Iterable[nn.Module]) -> None:
        super().__init__()
        self.base_layer, layers = base_layer, [base_layer, *beside]
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.merged_adapters: list[str] = []
        self.originals: list[Tensor] = []
        self.serial_lora_pairs = nn.ModuleDict()
        shared = AdaptedTokens(len(layers))
        self.adapted = [
            ActivePairs(self, layer, shared=shared, number=number)
            for number, layer in enumerate(layers)
        ]
        for adapted in self.adapted:
            adapted.put_on()

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """(..., d) -> (..., outputs): the base layer's answer to x + the sum of scale * B A x."""
        return self.base_layer(x, *args, **kwargs)

    def enable_adapters(self, enabled: bool) -> None:
        """On or off; off is the base's own weight, of a layer too that is read and never called."""
        if not enabled:
            self.unmerge()
        super().enable_adapters(enabled)

    def pairs(self, names: list[str]) -> Acting:
        there = self.serial_lora_pairs
        return tuple(there[name] for name in names if name in there)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """W (I + the sum of scale * B A), computed in float32 from the base's own W and rounded once."""
        names = check_adapters_to_merge(self, adapter_names)
        names = [name for name in names if name in self.serial_lora_pairs]
        if not names:
            return
        pairs = self.pairs([*self.merged_adapters, *names])
        with plain_context(self):
            originals = self.originals or [each.own.detach().clone() for each in self.adapted]
            for adapted, original in zip(self.adapted, originals, strict=True):
                changed = adapted.changed(wide(original), pairs).to(original.dtype)
                if safe_merge:
                    require_finite({", ".join(names): changed}, "merged")
                adapted.own.copy_(changed)
        self.originals = originals
        self.merged_adapters += names

    @torch.no_grad()
    def unmerge(self) -> None:
        """The base's own weights again, every bit of them."""
        for adapted, original in zip(self.adapted, self.originals, strict=False):
            adapted.own.copy_(original)
        self.originals, self.merged_adapters = [], []

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The layer inside, as it was, or with its adapters in its weight."""
        if merge:
            self.merge(safe_merge, adapter_names)
        for adapted in self.adapted:
            adapted.take_off()
        return self.base_layer


class SerialLoRAModel(BaseTuner):
    """Puts `SerialLoRALayer`s into a model, for PEFT."""

    prefix = f"{NAME}_"
    tuner_layer_cls = SerialLoRALayer

    def inject_adapter(self, *args, state_dict: dict | None = None, **kwargs) -> None:
        """By the configuration: a file names q alone, as k and v have no tensors of their own."""
        super().inject_adapter(*args, **kwargs)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> Any:
        """Say which layers are meant, looking at the model as it is without PEFT's layers."""
        layers = {n: m for n, m in self.model.named_modules() if isinstance(m, SerialLoRALayer)}
        try:
            for name, layer in layers.items():
                self.model.set_submodule(name, layer.base_layer)
            self._choose(peft_config)
        finally:
            for name, layer in layers.items():
                self.model.set_submodule(name, layer)
        return peft_config

    def _choose(self, config: SerialLoRAConfig) -> None:
        """Refuse what no pair can stand before; remember which layers read the same tokens."""
        if config.target_modules is None:
            sites = find_sites(self.model, places=config.places)
            config.target_modules = [name for site in sites for name in _layers_of(site)]
        names = [name for name, _ in self.model.named_modules()]
        chosen = {name for name in names if self._check_target_module_exists(config, name)}
        sites = [s for s in every_site(self.model) if not chosen.isdisjoint(_layers_of(s))]
        self.readers = {name: _layers_of(site) for site in sites for name in _layers_of(site)}
        others = sorted(chosen - set(self.readers))
        if others or not chosen:
            raise SerialLoRAError(
                f"{others[0] if others else config.target_modules} is no layer that makes q, k or v, or "
                "begins a feed-forward; name only such layers in target_modules, or leave it out."
            )
        for name in self.readers:
            if name not in chosen:
                raise SerialLoRAError(
                    f"{name} is left out, but one pair stands before all layers that read the same "
                    "tokens, such as q, k and v; name them together."
                )
            layer = self.model.get_submodule(name)
            if not isinstance(layer, nn.Linear):
                raise SerialLoRAError(
                    f"{name} is no linear layer, and PEFT's layers stand for such alone; use "
                    "serial_lora.inject for this model, or exclude_modules."
                )
            require_own_weight(name, layer, "weight")
        for name in config.modules_to_save or ():
            if not any(f".{there}".endswith(f".{name}") for there in names):
                raise SerialLoRAError(
                    f"there is no module {name!r} to save; modules_to_save names modules of the model."
                )
        config.places = [place for place in PLACES if any(s.place == place for s in sites)]
        check_rank(sites, config.settings)

    def _enable_peft_forward_hooks(self, *args, adapter_names: list | None = None, **kwargs):
        """Before a forward pass: refuse adapters for samples, which PEFT leaves out without a word."""
        if adapter_names is not None:
            raise SerialLoRAError(
                "adapter_names does not reach Serial LoRA inside PEFT; run a batch for each adapter, or "
                "use serial_lora.inject with per_sample."
            )
        return nullcontext()

    def _create_and_replace(self, config, name, target, target_name, parent, current_key):  # type: ignore[override]
        """One more adapter's pair around this layer, if it is the first of those that read the same."""
        first, *beside = self.readers[current_key]
        if current_key != first:
            return
        if not isinstance(target, SerialLoRALayer):
            layer = SerialLoRALayer(target, map(self.model.get_submodule, beside))
            self._replace_module(parent, target_name, layer, target)
            target = layer
        pair = SerialLoRA(target.in_features, config.r, config.scale, config.dropout)
        target.serial_lora_pairs[name] = pair
        target._move_adapter_to_device_of_base_layer(name)

    def _check_merge_allowed(self) -> None:
        super()._check_merge_allowed()
        named = self.model.named_parameters()
        require_finite({name: p for name, p in named if self.prefix in name}, "merged")


def _layers_of(site: Site) -> tuple[str, ...]:
    """The layers that read the tokens, q or fc1 first."""
    return tuple(dict.fromkeys(p.module for p in (site.first, *site.readers.values())))


if NAME.upper() not in PeftType.__members__:  # else this module is loaded anew
    _name_in_enum(NAME.upper())
    register_peft_method(name=NAME, config_cls=SerialLoRAConfig, model_cls=SerialLoRAModel)
