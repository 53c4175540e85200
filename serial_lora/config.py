"""What to put into a model, and where: the two configurations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from serial_lora.errors import SerialLoRAError, require_choice, require_number

TOWERS = ("image", "text")
PLACES = {"attention": ("q", "k", "v", "out"), "feed_forward": ("fc1", "fc2")}
"""Where adapters go, and the parts of each place; fc1 is every layer that reads the tokens there."""
STREAMS = ("image", "text", "both")
# What other libraries call these settings.
_ELSEWHERE = {
    "r": "rank=...",
    "alpha": "scale=... (elsewhere alpha / r)",
    "lora_alpha": "scale=... (PEFT's lora_alpha / r)",
    "lora_dropout": "dropout=...",
    "target_modules": "towers=..., blocks=... and places=... (parts=... of LoRAConfig)",
    "modules_to_save": "also_train=... of inject",
    "parts": "places=... (LoRAConfig has parts)",
    "places": "parts=... (fc1 and fc2 are of the feed-forward)",
    "use_rslora": "scale=... (PEFT's lora_alpha / sqrt(r) then)",
    "use_dora": "nothing (the methods are Serial LoRA and LoRA)",
    "bias": "also_train=... of inject, modules_to_save=... in PEFT (modules, with their biases)",
    "rank_pattern": "one rank (inject parts of a model by themselves for several)",
    "alpha_pattern": "one scale (inject parts of a model by themselves for several)",
    "layers_to_transform": "blocks=..., target_modules=... in PEFT",
    "init_lora_weights": "nothing (A is drawn, B is zero)",
}


def refuse_unknown(kind: type, settings: Collection[str]) -> None:
    """Refuse settings that a configuration does not have; tell what it has in their place."""
    known = [field.name for field in fields(kind)]
    for name in settings:
        if name not in known:
            here = _ELSEWHERE.get(name)
            what = f"{name} is {here} here" if here else f"there is no {name} here"
            raise SerialLoRAError(f"{what}; {kind.__name__} takes {', '.join(known)}.")


@dataclass(frozen=True)
class AdapterConfig:
    """What to put into a model. Use `SerialLoRAConfig` or `LoRAConfig`.

    Attributes:
        rank: r, the width of the bottleneck; at least 1.
        scale: what the adapter's contribution is multiplied by (the paper uses none, which is 1).
        dropout: share of the adapter's input that is dropped in training; the base never is.
        towers: "image", "text" or both; None adapts every tower the model has.
        blocks: indices of the blocks to adapt in each tower; None adapts them all.
        stream: which tokens of a two-stream transformer (SD3) to adapt: "image", "text", "both".
    """

    rank: int
    scale: float = 1.0
    dropout: float = 0.0
    towers: tuple[str, ...] | None = None
    blocks: tuple[int, ...] | None = None
    stream: str = "image"

    method: ClassVar[str]

    @property
    def places(self) -> tuple[str, ...]:
        """What adapters go to: "attention", "feed_forward" or both."""
        return ("attention",)

    @property
    def where(self) -> tuple:
        """Towers, blocks, stream and places: what `find_sites` takes."""
        return self.towers, self.blocks, self.stream, self.places

    def __new__(cls, *_: Any, **settings: Any) -> AdapterConfig:
        refuse_unknown(cls, settings)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        require_number("rank", self.rank, whole=True, least=1)
        require_number("scale", self.scale)
        require_number("dropout", self.dropout, least=0, below=1)
        require_choice("stream", self.stream, STREAMS)
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "dropout", float(self.dropout))
        if self.towers is not None:
            object.__setattr__(self, "towers", _some("towers", self.towers, TOWERS))
        if self.blocks is not None:
            object.__setattr__(self, "blocks", _block_indices(self.blocks))


@dataclass(frozen=True)
class SerialLoRAConfig(AdapterConfig):
    """One pair a block and place, in front of what reads the tokens there: 2 * d * r parameters.

    Attributes:
        places: "attention" (the paper's), where q, k and v read the tokens; "feed_forward", where its
            first layers do; or both, with a pair for each.
    """

    places: tuple[str, ...] = ("attention",)

    method: ClassVar[str] = "serial_lora"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "places", _some("places", self.places, tuple(PLACES)))


@dataclass(frozen=True)
class LoRAConfig(AdapterConfig):
    """A pair for each part; on q, k, v and out, the paper's baseline, 8 * d * r parameters a block.

    Attributes:
        parts: which layers get a pair: "q", "k", "v", "out" of attention, and "fc1", "fc2" of the
            feed-forward, where a gated one has two first layers and so two pairs for fc1.
    """

    parts: tuple[str, ...] = PLACES["attention"]

    method: ClassVar[str] = "lora"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = tuple(part for parts in PLACES.values() for part in parts)
        object.__setattr__(self, "parts", _some("parts", self.parts, known))

    @property
    def places(self) -> tuple[str, ...]:
        """Where these parts are."""
        return tuple(p for p, parts in PLACES.items() if not set(parts).isdisjoint(self.parts))


def _some(what: str, names: Collection[str] | str, known: tuple[str, ...]) -> tuple[str, ...]:
    chosen = tuple(names) if isinstance(names, Collection) else ()
    if isinstance(names, str):
        chosen = (names,)
    if not chosen or any(name not in known for name in chosen):
        raise SerialLoRAError(f"{what} must name some of {', '.join(known)}, not {names!r}.")
    return tuple(name for name in known if name in chosen)


def _block_indices(blocks: Collection[int]) -> tuple[int, ...]:
    chosen = tuple(blocks) if isinstance(blocks, Collection) else ()
    for block in chosen or (None,):
        require_number("each block's index in blocks=[...]", block, whole=True, least=0)
    return tuple(sorted(set(chosen)))
