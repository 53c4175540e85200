"""Checks of lesson 02: the size of any LoRA, its rank at Serial LoRA's size, and what a model lacks."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise


def numel_of(shapes: list[tuple[int, int]], rank: int) -> int:
    """The elements of all pairs, counted by PyTorch on the meta device."""
    sizes = [size for i, o in shapes for size in ((rank, i), (o, rank))]
    return sum(torch.empty(size, device="meta").numel() for size in sizes)


@exercise("2.1", "the formula equals numel() for one matrix and for several, square or not")
def lora_parameters() -> Iterator[Case]:
    """The formula against numel() of tensors with these shapes."""
    for shapes, rank in (
        ([(3, 3), (6, 3), (2, 5)], 2),
        ([(512, 2048)], 8),
        ([(4, 6)], 9),  # a rank above both sides
        ([(6, 3), (3, 3)], 1),
        ([(768, 768)] * 4, 32),
        ([(768, 2304), (768, 768)], 5),
    ):
        what = f"the parameters of pairs of rank {rank} for {shapes}"
        yield Case(what, (shapes, rank), numel_of(shapes, rank))


@exercise(
    "2.2", "the rank fits and the next larger one does not, for square and rectangular matrices"
)
def rank_of_equal_size() -> Iterator[Case]:
    """The largest rank that fits, against trying them all, one after the other."""
    for shapes, width, rank in (
        ([(48, 48)] * 4, 48, 8),
        ([(12, 12)], 48, 20),  # smaller than the pair: a rank far above Serial LoRA's
        ([(20, 36), (36, 20)], 48, 7),
        ([(48, 48)] * 3, 48, 80),
        ([(48, 120), (48, 96)], 48, 70),
        ([(48, 24)] * 3 + [(24, 48)], 48, 50),
        ([(48, 12), (40, 48)], 48, 90),
        ([(48, 48)] * 4, 48, 3),
        ([(8, 9)], 48, 3),  # one parameter less than rank 17 has
    ):
        budget, fits = numel_of([(width, width)], rank), 0
        while numel_of(shapes, fits + 1) <= budget:
            fits += 1
        what = f"the rank of equal size for {shapes}, width {width}, Serial LoRA's rank {rank}"
        yield Case(what, (shapes, width, rank), fits)


@functools.cache
def attention_of_sd3() -> tuple[str, ...]:
    """The names of its attention's weights."""
    from diffusers import SD3Transformer2DModel  # heavy, and the lesson has it already

    with torch.device("meta"):
        model = SD3Transformer2DModel(num_layers=24)
    named = model.named_parameters()
    return tuple(name for name, _ in named if ".attn." in name and name.endswith("weight"))


@exercise(
    "2.3",
    "what a block lacks is found wherever the block is; SD3 medium lacks transformer_blocks.23.attn.to_add_out.weight",
)
def absent() -> Iterator[Case]:
    """Names that are taken out of a full list, and SD3's own."""
    for what, count, gone in (
        ("one matrix of the last block is missing", 3, ["blocks.2.attn.to_q.weight"]),
        ("one matrix of the first block is missing", 3, ["blocks.0.attn.to_k.weight"]),
        ("nothing is missing", 2, []),
        (
            "one of twelve blocks lacks two",
            12,
            ["layers.10.attn.to_k.weight", "layers.10.attn.to_q.weight"],
        ),
        ("two blocks lack the same", 4, ["blocks.1.attn.to_q.weight", "blocks.3.attn.to_q.weight"]),
        ("only one block has it", 3, ["blocks.0.attn.to_q.weight", "blocks.1.attn.to_q.weight"]),
    ):
        stack = gone[0].split(".")[0] if gone else "blocks"
        full = [
            f"{stack}.{i}.attn.to_{m}.weight" for i in range(count) for m in ("q", "k", "out.0")
        ]
        yield Case(f"names of which {what}", ([name for name in full if name not in gone],), gone)
    lacks = ["transformer_blocks.23.attn.to_add_out.weight"]
    yield Case("SD3's names", ([*attention_of_sd3()],), lacks)
