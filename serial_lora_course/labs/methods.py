"""The methods that every lab compares: the paper's four, and LoRA at Serial LoRA's budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from serial_lora.config import PLACES, AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, require_choice, require_number

LORA_PLUS_RATIO = 20.0  # the paper's "1:20" between the rates of A and B


@dataclass(frozen=True)
class Method:
    """A way to adapt: which adapter, the rate of B over that of A, the share of the rank.

    LoRA has four pairs per block where Serial LoRA has one, so LoRA at a quarter of the rank has
    Serial LoRA's number of parameters.

    Attributes:
        label: how people write the name.
        kind: makes the adapter's configuration, of a rank and what every configuration takes.
        size: how people write what is called its rank here; empty for a method of one size.
        plus: whether it is LoRA+, at whatever ratio: a ratio of 1 gives A and B one rate.
    """

    name: str
    label: str
    kind: Callable[..., AdapterConfig]
    ratio: float = 1.0
    rank_share: float = 1.0
    size: str = "rank {}"
    plus: bool = False

    def sized(self, rank: int) -> str:
        """Its name with its size, such as "LoRA, rank 16" or "OFT, blocks of 4"."""
        return ", ".join(filter(None, (self.label, self.size.format(rank))))

    def parts(self, places: Collection[str]) -> dict[str, tuple[str, ...]]:
        """What its configuration is told of the places that adapters go to, but for the usual one."""
        if tuple(places) == SerialLoRAConfig.places:
            return {}
        if self.kind is SerialLoRAConfig:
            return {"places": tuple(places)}
        if self.kind is LoRAConfig:
            return {"parts": tuple(part for place in places for part in PLACES[place])}
        raise SerialLoRAError(f"{self.label} has a place of its own; leave places out.")

    @property
    def settings(self) -> dict[str, float]:
        """What a record says of it beside its name: the ratio, unless it is the method's usual."""
        usual = LORA_PLUS_RATIO if self.plus else 1.0
        return {} if self.ratio == usual else {"ratio": self.ratio}

    def with_ratio(self, ratio: float) -> Method:
        """The same with another rate of B over that of A; a method without a plus stays as it is."""
        require_number("ratio", ratio, above=0)
        return replace(self, ratio=float(ratio)) if self.plus else self

    def rank(self, rank: int) -> int:
        """The adapter's rank in a lab of rank ``rank``."""
        share = rank * self.rank_share
        if share < 1 or share != int(share):
            raise SerialLoRAError(
                f"{self.label} needs a rank that four divides, not {rank}; choose such a rank."
            )
        return int(share)


METHODS = {
    method.name: method
    for method in (
        Method("lora", "LoRA", LoRAConfig),
        Method("serial_lora", "Serial LoRA", SerialLoRAConfig),
        Method("lora_plus", "LoRA+", LoRAConfig, LORA_PLUS_RATIO, plus=True),
        Method("serial_lora_plus", "Serial LoRA+", SerialLoRAConfig, LORA_PLUS_RATIO, plus=True),
        Method("lora_equal_budget", "LoRA at equal budget", LoRAConfig, rank_share=0.25),
    )
}
"""What a lab runs if it is told to run all: four of the paper's, and the last one ours."""

METHOD_TITLES = {name: method.label for name, method in METHODS.items()}
"""How people write the methods' names; the last one is ours, not the paper's."""


def get_method(name: str) -> Method:
    """The method called ``name``."""
    require_choice("method", name, METHODS)
    return METHODS[name]


def with_ratios(methods: Iterable[Method], ratios: Iterable[float]) -> list[Method]:
    """Each LoRA+ method once for each rate of B over that of A, the others as they are."""
    methods = list(methods)
    if not any(method.plus for method in methods):
        raise SerialLoRAError(
            "The ratio is LoRA+'s, and no LoRA+ method was chosen; add lora_plus or "
            "serial_lora_plus to the methods."
        )
    return list(dict.fromkeys(method.with_ratio(ratio) for method in methods for ratio in ratios))
