"""What to put into a model, and where: the two configurations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from serial_lora.errors import SerialLoRAError, require_choice, require_number

TOWERS = ("image", "text")
PLACES = {"attention": ("q", "k", "v", "out"), "feed_forward": ("fc1", "fc2")}
"""Where adapters go, and the parts of each place; fc1 is every layer that reads the tokens there."""
PARTS = PLACES["attention"]
STREAMS = ("image", "text", "both")


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

    Raises:
        SerialLoRAError: if a value is outside its range.
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

    def __post_init__(self) -> None:
        require_number("rank", self.rank, whole=True, least=1)
        require_number("scale", self.scale)
        require_number("dropout", self.dropout, least=0, below=1)
        require_choice("stream", self.stream, STREAMS)
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "dropout", float(self.dropout))
        if self.towers is not None:
            object.__setattr__(self, "towers", _some("towers", self.towers, TOWERS))
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

    parts: tuple[str, ...] = PARTS

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


def _block_indices(blocks: Collection[int] | None) -> tuple[int, ...] | None:
    if blocks is None:
        return None
    chosen = tuple(blocks) if isinstance(blocks, Collection) else ()
    wrong = [b for b in chosen if isinstance(b, bool) or not isinstance(b, int) or b < 0]
    if not chosen or wrong:
        raise SerialLoRAError(
            f"blocks must be a list of block indices counted from 0, not {blocks!r}."
        )
    return tuple(sorted(set(chosen)))
