"""The real models that lessons and tests count, built on the meta device: shapes without memory.

The first three are the paper's Table I.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

import pandas as pd
import torch
from torch import nn

from serial_lora_course.measures.counts import lora_count, pair_count, serial_lora_count


@dataclass(frozen=True)
class Tower:
    """A stack of attention blocks of one width.

    Attributes:
        name: what the tower reads, such as "image" or "text".
        width: the size of a token, d.
        depth: the number of attention blocks.
    """

    name: str
    width: int
    depth: int


@dataclass(frozen=True)
class Architecture:
    """A real model, described by its towers and by how to build it on the meta device.

    Attributes:
        title: the model's name for people.
        towers: its stacks of attention blocks.
        rank: the rank that the paper uses, or a usual one where the paper does not use the model.
        build: builds the real class; called under `torch.device("meta")`.
        stream: which tokens are adapted, for models with two kinds of them (SD3).
        in_paper: whether Table I lists it.
    """

    title: str
    towers: tuple[Tower, ...]
    rank: int
    build: Callable[[], nn.Module] = field(repr=False)
    stream: str = "image"
    in_paper: bool = False

    def serial_lora(self, rank: int | None = None) -> int:
        """Serial LoRA's parameters, by the closed form, summed over the towers."""
        rank = self.rank if rank is None else rank
        return sum(serial_lora_count(tower.width, tower.depth, rank) for tower in self.towers)

    def lora(self, rank: int | None = None) -> int:
        """LoRA's parameters, by the closed form, summed over the towers."""
        rank = self.rank if rank is None else rank
        return sum(lora_count(tower.width, tower.depth, rank) for tower in self.towers)

    def on_meta(self) -> nn.Module:
        """Build the real model with shapes only: no weights, no memory, no download."""
        with torch.device("meta"):
            return self.build()


# --- real models ---------------------------------------------------------------------------------
# Each builder imports its own library: all of them together take seconds, and a count needs none.


def _open_clip(name: str) -> nn.Module:
    import open_clip

    return open_clip.CLIP(**open_clip.get_model_config(name))


def _segment_anything(name: str) -> nn.Module:
    from segment_anything import sam_model_registry

    return sam_model_registry[name]()


def _sd3_medium() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    )


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def _dinov2_base() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config())


ARCHITECTURES: dict[str, Architecture] = {
    "clip": Architecture(
        "CLIP ViT-B/16, both towers",
        (Tower("image", 768, 12), Tower("text", 512, 12)),
        rank=32,
        build=partial(_open_clip, "ViT-B-16-quickgelu"),
        in_paper=True,
    ),
    "sam": Architecture(
        "SAM ViT-B, image encoder",
        (Tower("image", 768, 12),),
        rank=64,
        build=partial(_segment_anything, "vit_b"),
        in_paper=True,
    ),
    "sd3": Architecture(
        "SD3 medium, image stream",
        (Tower("image", 1536, 24),),
        rank=64,
        build=_sd3_medium,
        in_paper=True,
    ),
    "clip-large": Architecture(
        "CLIP ViT-L/14, both towers",
        (Tower("image", 1024, 24), Tower("text", 768, 12)),
        rank=32,
        build=partial(_open_clip, "ViT-L-14-quickgelu"),
    ),
    "sam-huge": Architecture(
        "SAM ViT-H, image encoder",
        (Tower("image", 1280, 32),),
        rank=64,
        build=partial(_segment_anything, "vit_h"),
    ),
    "vit-base": Architecture(
        "ViT-B/16 (timm)",
        (Tower("image", 768, 12),),
        rank=16,
        build=partial(_timm, "vit_base_patch16_224"),
    ),
    "dinov2-base": Architecture(
        "DINOv2 ViT-B/14 (transformers)",
        (Tower("image", 768, 12),),
        rank=16,
        build=_dinov2_base,
    ),
}
"""The real models that lessons and tests count. The first three are the paper's Table I."""


# --- the ratio -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """A way to put LoRA on one attention block: which matrices get a pair, and of what shape.

    Attributes:
        name: what is adapted.
        shapes: for a width d, the (inputs, outputs) of every matrix that gets a pair.
        note: who does it this way.
    """

    name: str
    shapes: Callable[[int], list[tuple[int, int]]] = field(repr=False)
    note: str = ""

    def count(self, width: int, rank: int) -> int:
        """Parameters in one block."""
        return sum(pair_count(inputs, outputs, rank) for inputs, outputs in self.shapes(width))


def size_ratio(shapes: Iterable[tuple[int, int]], width: int) -> Fraction:
    """LoRA's parameters on matrices of (inputs, outputs) over Serial LoRA's at a width, at equal rank."""
    return Fraction(sum(pair_count(*shape, 1) for shape in shapes), pair_count(width, width, 1))


BASELINES: tuple[Baseline, ...] = (
    Baseline(
        "q, k, v and out, a pair each",
        lambda d: [(d, d)] * 4,
        "the paper's baseline (Fig. 1, eq. 2)",
    ),
    Baseline("q, k and v, a pair each", lambda d: [(d, d)] * 3, "CLIP-LoRA's default"),
    Baseline("q and v, a pair each", lambda d: [(d, d)] * 2, "LoRA's own experiments"),
    Baseline(
        "fused qkv, one pair",
        lambda d: [(d, 3 * d)],
        "PEFT on a linear layer named qkv: A is shared by q, k and v",
    ),
    Baseline(
        "fused qkv, one pair, and out",
        lambda d: [(d, 3 * d), (d, d)],
        "PEFT on torch.nn.MultiheadAttention",
    ),
    Baseline(
        "q, k, v and out, four query heads to one key head",
        lambda d: [(d, d), (d, d // 4), (d, d // 4), (d, d)],
        "grouped-query attention: k and v are rectangular",
    ),
    Baseline(
        "q, k, v and out, attention half as wide as the tokens",
        lambda d: [(d, d // 2)] * 3 + [(d // 2, d)],
        "an inner width that differs from the token width",
    ),
)
"""Ways to place LoRA on a block. Only the first is exactly four times Serial LoRA."""


def ratio_frame(
    width: int = 768, rank: int = 32, ratio_of: Callable[..., Fraction] = size_ratio
) -> pd.DataFrame:
    """LoRA's size over Serial LoRA's in one block, under every placement of `BASELINES`.

    The last row keeps the paper's placement and gives LoRA a quarter of the rank: equal budget.

    Args:
        ratio_of: as :func:`size_ratio`.
    """
    serial, quarter = serial_lora_count(width, 1, rank), max(1, rank // 4)
    rows = [
        (b.name, rank, b.count(width, rank), float(ratio_of(b.shapes(width), width)), b.note)
        for b in BASELINES
    ]
    count, note = lora_count(width, 1, quarter), "LoRA at Serial LoRA's budget"
    rows.append((BASELINES[0].name, quarter, count, count / serial, note))
    table = pd.DataFrame(rows, columns=["LoRA on", "rank", "LoRA", "ratio", "who does this"])
    table.insert(3, "Serial LoRA", serial)
    return table
