"""Checks of lesson 06: SAM's input frame, Dice, the adapter and the windows, the edit, the loss.

Every expected value is reached another way than in the lesson: with fractions, with sets of pixels,
with one window or one pixel at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from serial_lora_course.checks.cases import Case, Part
from serial_lora_course.checks.checking import exercise
from serial_lora_course.lessons.l05_sam.blocks import Change, WindowBlock, one_window_at_a_time

# ---------------------------------------------------------------------- 6.1 a picture's way in


BOTH = "return both: the new size as a tuple, and the boxes"


def frame_by_fractions(size: tuple[int, int], side: int, longer: int = 0) -> tuple[int, int]:
    """(height, width) after the longer side became ``side``, rounded to the nearest pixel."""
    longer = longer or max(size)
    return tuple(math.floor(Fraction(edge * side, longer) + Fraction(1, 2)) for edge in size)


@exercise("6.1", "sizes to the pixel and boxes to match, for lying, standing and square pictures")
def to_model_frame() -> Iterator[Case]:
    """Sizes and boxes of lying, standing and square pictures, larger and smaller than the frame."""
    boxes = torch.tensor([[10.0, 4.0, 60.0, 31.0], [0.0, 0.0, 20.5, 40.0]])
    sizes = ((97, 160), 128), ((151, 103), 128), ((50, 83), 128), ((64, 64), 32), ((5, 256), 128)
    for size, side in sizes:
        what = f"a picture {size[0]} high and {size[1]} wide in a frame of {side}"
        new, factor = frame_by_fractions(size, side), side / max(size)
        down, across = new[0] / size[0], new[1] / size[1]

        def scaled(x: float, y: float, x1: float = 0, y1: float = 0, boxes=boxes) -> Tensor:
            return boxes * torch.tensor([x, y, x1 or x, y1 or y])

        size_part = Part(
            f"the size of {what}",
            new,
            {
                "that is a squash: both sides get the same factor, the rest is padding": (
                    side,
                    side,
                ),
                "turned round: (height, width), as arrays and tensors have it": new[::-1],
                "the shorter side fills the frame, so the longer one does not fit: divide by the "
                "longer": frame_by_fractions(size, side, longer=min(size)),
                "a half was rounded to the even number, as round() does: here a half goes up": (
                    tuple(round(Fraction(e * side, max(size))) for e in size)
                ),
                "rounded down, not to the nearest": tuple(e * side // max(size) for e in size),
                "rounded up, not to the nearest": tuple(-(-e * side // max(size)) for e in size),
                "a picture that is smaller than the frame is enlarged as well": (
                    size if max(size) < side else new
                ),
                "the picture keeps its size: its longer side becomes the frame's": size,
            },
            form=BOTH,
            otherwise="multiply height and width by side / max(height, width), then round",
        )
        boxes_part = Part(
            f"the boxes of {what}",
            scaled(across, down),
            {
                "the boxes are where they were: they move with the picture": boxes,
                "x and y are exchanged: in a box x, along the width, comes first": scaled(
                    down, across
                ),
                "scaled by the factor before rounding: the sides differ a little": scaled(
                    factor, factor
                ),
                "divided instead of multiplied": scaled(1 / across, 1 / down),
                "only one corner moved: a box has two": scaled(across, down, 1, 1),
                "rounded: a box keeps its fractions of a pixel": scaled(across, down).round(),
                "cut to whole numbers: a box keeps its fractions of a pixel": (
                    scaled(across, down).trunc()
                ),
                "moved into the middle: the padding comes after the picture, so nothing is added": (
                    scaled(across, down)
                    + torch.tensor([(side - new[1]) // 2, (side - new[0]) // 2]).repeat(2)
                ),
                "boxes of a squashed picture: each side has the frame's factor here": scaled(
                    side / size[1], side / size[0]
                ),
            },
            tolerance=1e-6,
        )
        yield Case(what, (size, boxes, side), [size_part, boxes_part], form=BOTH)


# ------------------------------------------------------------------------------------ 6.2 Dice


def pixels(mask: Tensor) -> set[tuple[int, int]]:
    """The (row, column) of every pixel that belongs to a mask."""
    rows = mask.tolist()
    return {(r, c) for r, row in enumerate(rows) for c, inside in enumerate(row) if inside}


def dice_of_sets(one: set, other: set) -> float:
    """2 |A and B| / (|A| + |B|); of two empty sets 1."""
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def rectangle(top: int, left: int, height: int, width: int) -> Tensor:
    """A mask (7, 9) with one rectangle in it."""
    mask = torch.zeros(7, 9, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


@exercise(
    "6.2", "equal to counting sets of pixels in seven cases, three of them with an empty mask"
)
def dice_by_hand() -> Iterator[Case]:
    """Dice of overlapping, nested, equal, disjoint and empty masks, from sets of pixels."""
    nothing = rectangle(0, 0, 0, 0)
    cases = {
        "two rectangles that overlap": (rectangle(0, 0, 4, 5), rectangle(2, 1, 4, 3)),
        "a mask inside the truth": (rectangle(2, 2, 2, 2), rectangle(1, 1, 5, 4)),
        "two equal masks": (rectangle(1, 1, 3, 3), rectangle(1, 1, 3, 3)),
        "two masks that do not meet": (rectangle(0, 0, 2, 2), rectangle(4, 4, 3, 3)),
        "two empty masks (nothing to find, nothing found)": (nothing, nothing),
        "an empty prediction of something": (nothing, rectangle(1, 1, 3, 3)),
        "something found where there is nothing": (rectangle(1, 1, 3, 3), nothing),
    }
    for what, masks in cases.items():
        found, truth = map(pixels, masks)
        both, either, sizes = len(found & truth), len(found | truth), len(found) + len(truth)
        area = masks[0].numel()
        if not sizes:
            causes = {"two empty masks agree: nothing is wrong, so 1": 0.0}
        elif not found or not truth:
            causes = {"one mask is empty and the other is not: nothing agrees, so 0": 1.0}
        else:
            causes = {
                "that is IoU: Dice is twice the overlap over the sum of both areas": both / either,
                "+ of two bool masks is 'or': add their sums instead": 2 * both / either,
                "the 2 is missing: two equal masks would have 0.5": both / sizes,
                "that is 1 - Dice: here higher is better": 1 - 2 * both / sizes,
                "that is right pixels over all pixels: the ground counts too, and it is large": (
                    (area - len(found ^ truth)) / area
                ),
                "that is how many pixels agree, not a share": float(both),
                "that is the share of the prediction that is right": both / len(found),
                "that is the share of the truth that was found": both / len(truth),
                "divided by the larger area: Dice is twice the overlap over the sum of both": (
                    both / max(len(found), len(truth))
                ),
                "the Dice of the ground is averaged in: only the object counts": (
                    both / sizes + (area - len(found | truth)) / (2 * area - sizes)
                ),
                "a smoothing constant belongs in the loss: masks that do not meet have exactly 0": (
                    (2 * both + 1e-5) / (sizes + 1e-5)
                ),
            }
        empty = "0 / 0: two empty masks agree, so 1"
        advice = {"error": "" if sizes else empty, "nan": empty}
        yield Case(f"Dice of {what}", masks, dice_of_sets(found, truth), causes, **advice)


# --------------------------------------------------------------- 6.3 the adapter and the windows


@exercise(
    "6.3",
    "equal to one window at a time, with and without padding, in a global block too, gradients "
    "included, and with padding that stays zero even for an adapter that has a bias",
)
def adapted_windows() -> Iterator[Case]:
    """Windows that fit, windows that need padding, no windows; a pair, and one with a bias."""

    def trainable(block, adapter, x: Tensor) -> dict[str, Tensor]:
        pair = {"lora_A": adapter.lora_A, "lora_B": adapter.lora_B}
        return pair | ({"x": x} if x.requires_grad else {})

    for bias in (False, True):
        for side, size in ((3, (6, 9)), (4, (7, 6)), (0, (5, 4))):
            block, adapter = WindowBlock(6, side), Change(6, bias)
            x = torch.randn(2, *size, 6).requires_grad_(bias)
            normed, stream = block.norm1(x), adapter(x)
            before_norm = block.norm1(stream)

            def attend(tokens: Tensor, side: int = side, adapt=None, block=block) -> Tensor:
                return one_window_at_a_time(block.attn, tokens, side, adapt)

            inside = attend(adapter(normed))
            where = f"windows of {side}" if side else "a global block"
            kind = "an adapter that has a bias" if bias else "a Serial LoRA pair"
            causes = {
                "the adapter is missing": x + attend(normed),
                "the adapter sits behind the padding: with a bias its zeros do not stay zero": (
                    x + attend(normed, adapt=adapter)
                ),
                "the adapter is before the norm, not after it": x + attend(before_norm),
                "the adapter changes the stream itself": stream + attend(before_norm),
                "the adapter is on attention's output: it belongs in front of q, k and v": (
                    x + adapter(attend(normed))
                ),
                "x itself is lost: attention's output is added to it": inside,
                "the norm is left out": x + attend(adapter(x)),
                "the windows are forgotten: every token attends to the whole picture": (
                    x + attend(adapter(normed), side=0)
                ),
                "the normed tokens are added, not x": inside + normed,
                "the adapted tokens are added, not x": inside + adapter(normed),
                "the adapter acts twice": x + attend(adapter(adapter(normed))),
                "the adapter's result holds the tokens already, and they are added again": (
                    x + attend(normed + adapter(normed))
                ),
            }
            what = f"{where} on {size[0]} x {size[1]} tokens with {kind}"
            error = (
                "possibly the last argument of window_unpartition: it takes height and width of the "
                "tokens before padding, x.shape[1:3]"
                if side
                else "window_size 0 means no windows: all tokens attend"
            )
            yield Case(what, (block, adapter, x), x + inside, causes, error=error, leaves=trainable)


# ------------------------------------------------------------------------ 6.4 out of place


@exercise(
    "6.4",
    "the right columns, at three numbers of dimensions, nothing changed in place, all gradients",
)
def add_to_q_and_v() -> Iterator[Case]:
    """Values, any number of dimensions, and gradients through all three."""
    for d, *shape in ((4, 2, 3, 4), (5, 2, 5), (3, 7), (4, 2, 5)):
        qkv, dq, dv = (torch.randn(*shape, width) for width in (3 * d, d, d))
        expected = edited_by_column(qkv, dq, dv)
        q, k, v = qkv.split(d, dim=-1)

        def joined(q_added=0, k_added=0, v_added=0, q=q, k=k, v=v) -> Tensor:
            return torch.cat([q + q_added, k + k_added, v + v_added], -1)

        causes = {
            "nothing is added": qkv,
            "v's change went to k: v is the last third": joined(dq, dv),
            "the two changes are exchanged": joined(dv, 0, dq),
            "only q is changed": joined(dq),
            "only v is changed": joined(0, 0, dv),
            "k is changed too: here only q and v have a pair": joined(dq, dq, dv),
            "k gets v's change too: only q and v have a pair": joined(dq, dv, dv),
            "q, k and v lie side by side, each a third of the last dimension, not in turns": (
                qkv + torch.stack([dq, 0 * dq, dv], -1).flatten(-2)
            ),
            "k is lost: the result has three parts": torch.cat([q + dq, v + dv], -1),
            "v gets q's change": joined(dq, 0, dq),
            "the changes are subtracted": joined(-dq, 0, -dv),
            "v comes first in the result: the order is q, k, v": torch.cat([v + dv, k, q + dq], -1),
            "only the changes are returned: add them": torch.cat([dq, 0 * dq, dv], -1),
            "the changes take the projections' place: add them": torch.cat([dq, k, dv], -1),
            "the edit is made twice": joined(2 * dq, 0, 2 * dv),
        }
        what = f"qkv of shape {tuple(qkv.shape)}"
        error = (
            ""
            if len(shape) == 3
            else "four dimensions, or one width, are taken for granted: `...` or dim=-1 finds the "
            "last of any number, and chunk(3, dim=-1) cuts it into thirds"
        )
        yield Case(what, (qkv, dq, dv), expected, causes, error=error)
    asking = tuple(tensor.requires_grad_() for tensor in (qkv, dq, dv))
    error = "autograd refuses to have such a tensor edited in place: build a new one"
    yield Case(
        "a call whose tensors all ask for a gradient",
        asking,
        edited_by_column(*asking),
        leaves=lambda *asking: dict(zip(("qkv", "q_change", "v_change"), asking, strict=True)),
        error=error,
    )


def edited_by_column(qkv: Tensor, dq: Tensor, dv: Tensor) -> Tensor:
    """qkv with the changes of q and v, one column after another."""
    columns = list(qkv.unbind(-1))
    width = dq.shape[-1]
    for at in range(width):
        columns[at] = columns[at] + dq[..., at]
        columns[2 * width + at] = columns[2 * width + at] + dv[..., at]
    return torch.stack(columns, -1)


# -------------------------------------------------------------------------------- 6.5 the loss


def loss_of_pixels(logits: Tensor, truth: Tensor, smoothing: float = 1e-5) -> Tensor:
    """Soft Dice with squares plus cross-entropy of (N, h, w), one pixel at a time, averaged."""
    losses = []
    for object_logits, object_truth in zip(logits, truth.tolist(), strict=True):
        overlap = area = entropy = 0
        for row, inside in zip(object_logits, object_truth, strict=True):
            for logit, g in zip(row, inside, strict=True):
                p = 1 / (1 + torch.exp(-logit))
                overlap, area = overlap + p * g, area + p * p + g
                entropy = entropy - torch.log(p if g else 1 - p)
        soft_dice = 1 - (2 * overlap + smoothing) / (area + smoothing)
        losses.append(soft_dice + entropy / object_logits.numel())
    return sum(losses) / len(losses)


@exercise(
    "6.5", "equal to one pixel at a time for one object and for three, and so is the gradient"
)
def segmentation_loss() -> Iterator[Case]:
    """The value for one object and for several of unlike sizes, and the gradient of every logit."""
    for count, height, width in ((1, 4, 5), (3, 5, 4)):
        logits = (2 * torch.randn(count, height, width)).requires_grad_()
        truth = torch.zeros(count, height, width, dtype=torch.bool)
        for index in range(count):  # objects of 2, 6, 12 pixels: the mean is not the sum's ratio
            truth[index, : index + 1, : 2 + index] = True
        g, p, dims = truth.float(), logits.sigmoid(), (1, 2)

        def dice_part(p: Tensor, power: int = 2, over=dims, smoothing=1e-5, g=g) -> Tensor:
            areas = (p**power).sum(over) + g.sum(over)
            return 1 - (2 * (p * g).sum(over) + smoothing) / (areas + smoothing)

        def pixelwise(scores: Tensor, g=g) -> Tensor:
            return binary_cross_entropy_with_logits(scores, g, reduction="none")

        entropy, soft = pixelwise(logits).mean(dims), dice_part(p)
        twice = pixelwise(p).mean(dims)
        shared, areas = (p * g).sum(dims), (p * p + g).sum(dims)
        causes = {
            "sigmoid is taken twice: the cross-entropy takes logits, not probabilities": (
                soft + twice
            ),
            "sigmoid is taken twice in both parts": dice_part(p.sigmoid()) + twice,
            "sigmoid is taken twice in the Dice part": dice_part(p.sigmoid()) + entropy,
            "the Dice part takes logits for probabilities": dice_part(logits) + entropy,
            "the Dice part counts masks of True and False: that has no gradient, use "
            "probabilities": dice_part((logits > 0).float()) + entropy,
            "the squares are missing in the denominator": dice_part(p, power=1) + entropy,
            "Dice is added, not 1 - Dice: the loss would reward a wrong mask": 1 - soft + entropy,
            "minus Dice instead of 1 - Dice: a loss ends at 0": soft - 1 + entropy,
            "only the Dice part": soft,
            "only the cross-entropy": entropy,
            "the cross-entropy is summed over pixels": soft + pixelwise(logits).sum(dims),
            "the 2 above the line is missing": (1 + soft) / 2 + entropy,
            "epsilon is 0.00001, not 1": dice_part(p, smoothing=1) + entropy,
            "that is 1 - IoU: Dice has twice the overlap, over the sum of both areas": (
                1 - shared / (areas - shared) + entropy
            ),
            "the logarithm of Dice: the sum needs 1 - Dice": -(1 - soft).log() + entropy,
            "the two parts are averaged: they are added": (soft + entropy) / 2,
            "softmax over the pixels: each has a probability of its own, by the sigmoid": (
                dice_part(logits.flatten(1).softmax(-1).view_as(logits)) + entropy
            ),
            "the losses of the objects are summed: their mean is wanted": count * (soft + entropy),
            "all objects are counted as one, and large ones outweigh small ones: Dice of each": (
                dice_part(p, over=(0, 1, 2)) + entropy
            ),
        }
        causes = {cause: each.mean() for cause, each in causes.items()}
        causes["that is one loss an object: take the mean over the objects"] = soft + entropy
        yield Case(
            f"the loss of {count} object{'s' * (count > 1)} of {height} x {width} pixels",
            (logits, truth),
            loss_of_pixels(logits, truth),
            causes,
            leaves=lambda logits, _: {"the logits": logits},
            tolerance=1e-4,
        )
