"""What a place for an adapter is: which rows of which weights read the tokens of a block."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from serial_lora.errors import SerialLoRAError

# These run every child that they have, so an adapter may not become one.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Projection:
    """One of q, k, v, out: `rows` rows of a weight, from row `start` on.

    Attributes:
        module, parameter: dotted name of the module that owns the weight, and the weight's name there.
        start: first row (0, but for k and v in a fused qkv weight).
        rows, columns: how many there are, the projection's outputs and inputs.
    """

    module: str
    parameter: str
    start: int
    rows: int
    columns: int

    def weight(self, model: nn.Module) -> nn.Parameter:
        """The whole weight these rows belong to, the base's own."""
        return own_weight(model.get_submodule(self.module), self.parameter)

    @property
    def row_slice(self) -> slice:
        return slice(self.start, self.start + self.rows)


@dataclass(frozen=True)
class Site:
    """One place where one stream of tokens enters attention, or a feed-forward.

    Attributes:
        name: dotted name of the transformer block; adapters become its children.
        tower: "image" or "text".
        block: the block's index in its tower, counted from 0.
        stream: "image" or "text" where one block attends over both (SD3), else None.
        suffix: "", "_text" or "_2"; tells the adapters of a block with several sites apart.
        projections: "q", "k", "v" and, where the block has one, "out"; of a feed-forward "fc1", where a
            layer of its own gates that "gate", and "fc2".
        place: "attention" or "feed_forward".
        batch_first: whether samples are the first dimension of its tokens, or the second.
    """

    name: str
    tower: str
    block: int
    projections: dict[str, Projection]
    stream: str | None = None
    suffix: str = ""
    place: str = "attention"
    batch_first: bool = True

    @property
    def label(self) -> str:
        """A name that is unique in the model, such as "transformer_blocks.0_text"."""
        return unwrapped_name(self.name) + self._mark + self.suffix

    @property
    def readers(self) -> dict[str, Projection]:
        """The projections that read the tokens."""
        behind = ("out", "fc2")
        return {part: each for part, each in self.projections.items() if part not in behind}

    @property
    def first(self) -> Projection:
        """One that reads the tokens: q, or fc1."""
        return self.projections["q" if self.place == "attention" else "fc1"]

    @property
    def width(self) -> int:
        """d, the size of a token."""
        return self.first.columns

    def pair_name(self, part: str | None = None) -> str:
        """What a pair is called in the block: LoRA's beside a part, or Serial LoRA's one before all."""
        return (f"lora_{part}" if part else f"serial_lora{self._mark}") + self.suffix

    @property
    def _mark(self) -> str:
        return "_ff" if self.place == "feed_forward" else ""


def unwrapped_name(name: str) -> str:
    """A dotted name without the wrappers that torch.compile puts around blocks."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def child_name(name: str, path: str) -> str:
    return f"{name}.{path}" if name else path


def is_inside(name: str, around: str) -> bool:
    """Whether a dotted name is another one, or that of something inside it."""
    return not around or f"{name}.".startswith(f"{around}.")


def own_weight(layer: nn.Module, parameter: str) -> nn.Parameter:
    """The base's own weight, of a layer whose adapted class answers with the merged one too."""
    weight = layer._parameters[parameter]
    assert weight is not None
    return weight


def require_own_weight(name: str, layer: nn.Module, parameter: str) -> None:
    """Refuse a weight that is computed anew at each call, kept elsewhere, or no matrix of numbers."""
    weight = layer._parameters.get(parameter)
    if weight is None:
        raise SerialLoRAError(
            f"{name}.{parameter} is computed anew from other tensors (weight_norm, spectral_norm, "
            "pruning); make it an ordinary parameter first."
        )
    if weight.is_meta and hasattr(layer, "_hf_hook"):
        raise SerialLoRAError(
            f"the weights of {name} are offloaded by accelerate, where adapters would have no values; "
            "load the model without offloading."
        )
    few_bits = type(weight).__module__.startswith(("bitsandbytes.", "torchao."))
    if few_bits or weight.itemsize < 2 or hasattr(weight, "full_tensor"):
        raise SerialLoRAError(
            f"{name}.{parameter} is no plain matrix of numbers (kept in 8 or 4 bits, or spread over "
            "processes by FSDP); load the base in bfloat16 or float32, or use PEFT's LoRA."
        )


def linear_projection(block: nn.Module, name: str, path: str) -> Projection:
    """The projection made by a plain linear layer of the block."""
    layer = block.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise SerialLoRAError(
            f"{child_name(name, path)} is a {type(layer).__name__} (of {type(layer).__module__}), not a "
            "plain nn.Linear, so it cannot be adapted exactly; if something wraps it, such as another "
            "adapter, take that off."
        )
    return Projection(child_name(name, path), "weight", 0, layer.out_features, layer.in_features)


def stacked(whole: Projection, parts: str = "qkv") -> dict[str, Projection]:
    """Projections out of one weight that holds them one below the other, all of one height."""
    if whole.rows % len(parts):
        raise SerialLoRAError(
            f"{whole.module} has {whole.rows} rows, which are not {' and '.join(parts)} of one width; "
            "this model's attention cannot be adapted."
        )
    rows = whole.rows // len(parts)
    return {
        part: Projection(whole.module, whole.parameter, place * rows, rows, whole.columns)
        for place, part in enumerate(parts)
    }


def index_of(name: str) -> int:
    """A block's position in its tower: the last number in its name."""
    numbers = [part for part in name.split(".") if part.isdigit()] or re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else 0
