"""What a place for an adapter is: where tokens enter attention, and the weights that read them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from serial_lora.errors import SerialLoRAError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Run every child that they have, so an adapter may not become one."""


@dataclass(frozen=True)
class Projection:
    """One of q, k, v, out: `rows` rows of a weight, from row `start` on.

    Attributes:
        module: dotted name of the module that owns the weight.
        parameter: the weight's name in that module.
        start: first row (0, but for k and v in a fused qkv weight).
        rows: number of rows, the projection's outputs.
        columns: number of columns, the projection's inputs.
    """

    module: str
    parameter: str
    start: int
    rows: int
    columns: int

    def weight(self, model: nn.Module) -> nn.Parameter:
        """The whole weight these rows belong to."""
        return getattr(model.get_submodule(self.module), self.parameter)

    @property
    def row_slice(self) -> slice:
        return slice(self.start, self.start + self.rows)


@dataclass(frozen=True)
class AttentionSite:
    """One place where one stream of tokens enters attention.

    Attributes:
        name: dotted name of the transformer block; adapters become its children.
        tower: "image" or "text".
        block: the block's index in its tower, counted from 0.
        width: d, the size of a token.
        entry: dotted name of the module at which the normed tokens can be seen; None where q, k
            and v read them.
        argument: None if they are the entry's output (a norm layer); otherwise the name of the
            entry's keyword argument that carries them (an attention layer).
        stream: "image" or "text" where one block attends over both (SD3), else None.
        suffix: "", "_text" or "_2"; tells the adapters of a block with several sites apart.
        projections: "q", "k", "v" and, where the block has one, "out".
    """

    name: str
    tower: str
    block: int
    width: int
    entry: str | None
    projections: dict[str, Projection]
    argument: str | None = None
    stream: str | None = None
    suffix: str = ""

    @property
    def label(self) -> str:
        """A name that is unique in the model, such as "transformer_blocks.0_text"."""
        return unwrapped_name(self.name) + self.suffix


def unwrapped_name(name: str) -> str:
    """A dotted name without the wrappers that torch.compile puts around blocks."""
    if "_orig_mod" not in name:
        return name
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def child_name(name: str, path: str) -> str:
    return f"{name}.{path}" if name else path


def linear_projection(block: nn.Module, name: str, path: str) -> Projection:
    """The projection made by a plain linear layer of the block."""
    layer = block.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise SerialLoRAError(
            f"{child_name(name, path)} is a {type(layer).__name__}, not a plain nn.Linear, so it "
            "cannot be adapted exactly; if something wraps it, such as another adapter, take that off."
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


def shared_weights(model: nn.Module, sites: list[AttentionSite]) -> bool:
    """Whether one weight serves as a projection at two sites."""
    projections = [projection for site in sites for projection in site.projections.values()]
    weights = [p.weight(model) for p in projections]  # alive, so no id comes twice
    places = {(id(w), p.start) for w, p in zip(weights, projections, strict=True)}
    return len(places) != len(projections)
