"""Checks of the exercises on SAM: its input frame, Dice, the adapter and the windows, the edit, the loss.

Every expected value is reached another way than in the lesson: with fractions, with sets of pixels,
with one window or one pixel at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import torch
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor
from torch.nn import functional as F

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise
from serial_lora_course.lessons.l05_sam.blocks import Change, WindowBlock, one_window_at_a_time

# ---------------------------------------------------------------------- 6.1 a picture's way in

BOTH = "return both: the new size as a tuple, and the boxes"


def frame_by_fractions(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) after the longer side became ``side``, rounded to the nearest pixel."""
    return tuple(math.floor(Fraction(edge * side, max(size)) + Fraction(1, 2)) for edge in size)


def frame_with(
    size_of: Callable = lambda size, new, side: new,
    factors: Callable = lambda across, down: (across, down, across, down),
    end: Callable = lambda boxes, new, side: boxes,
) -> Callable:
    """A frame with one thing changed."""

    def attempt(size, boxes, side):
        new = tuple(int(edge * side / max(size) + 0.5) for edge in size)
        by = torch.tensor(factors(new[1] / size[1], new[0] / size[0]))
        return size_of(size, new, side), end(boxes * by, new, side)

    return attempt


def middle(boxes, new, side):
    """As if the padding stood on all sides."""
    return boxes + torch.tensor([(side - new[1]) // 2, (side - new[0]) // 2]).repeat(2)


@exercise(
    "5.1",
    "sizes to the pixel and boxes to match, for lying, standing and square pictures",
    {
        "that is a squash: both sides get the same factor, the rest is padding": (
            frame_with(lambda size, new, side: (side, side))
        ),
        "turned round: (height, width), as arrays and tensors have it": (
            frame_with(lambda size, new, side: new[::-1])
        ),
        "the shorter side fills the frame, so the longer one does not fit: divide by the longer": (
            frame_with(lambda size, new, side: tuple(int(e * side / min(size) + 0.5) for e in size))
        ),
        "a half was rounded to the even number, as round() does: here a half goes up": (
            frame_with(lambda size, new, side: tuple(round(e * side / max(size)) for e in size))
        ),
        "rounded down, not to the nearest": (
            frame_with(lambda size, new, side: tuple(e * side // max(size) for e in size))
        ),
        "rounded up, not to the nearest": (
            frame_with(lambda size, new, side: tuple(-(-e * side // max(size)) for e in size))
        ),
        "a picture that is smaller than the frame is enlarged as well": (
            frame_with(lambda size, new, side: size if max(size) < side else new)
        ),
        "the picture keeps its size: its longer side becomes the frame's": (
            frame_with(lambda size, new, side: size)
        ),
        "the boxes are where they were: they move with the picture": (
            frame_with(factors=lambda across, down: (1, 1, 1, 1))
        ),
        "x and y are exchanged: in a box x, along the width, comes first": (
            frame_with(factors=lambda across, down: (down, across, down, across))
        ),
        "scaled by the factor before rounding: the sides differ a little": (
            lambda size, boxes, side: (
                frame_with()(size, boxes, side)[0],
                boxes * side / max(size),
            )
        ),
        "divided instead of multiplied": (
            frame_with(factors=lambda across, down: (1 / across, 1 / down, 1 / across, 1 / down))
        ),
        "only one corner moved: a box has two": (
            frame_with(factors=lambda across, down: (across, down, 1, 1))
        ),
        "rounded: a box keeps its fractions of a pixel": (
            frame_with(end=lambda boxes, new, side: boxes.round())
        ),
        "cut to whole numbers: a box keeps its fractions of a pixel": (
            frame_with(end=lambda boxes, new, side: boxes.trunc()),
            frame_with(end=lambda boxes, new, side: boxes.long()),
        ),
        "moved into the middle: the padding comes after the picture, so nothing is added": (
            frame_with(end=middle)
        ),
        "boxes of a squashed picture: each side has the frame's factor here": (
            lambda size, boxes, side: (
                frame_with()(size, boxes, side)[0],
                boxes * torch.tensor([side / size[1], side / size[0]]).repeat(2),
            )
        ),
        "boxes are cut at the frame's last pixel: an edge may lie on the border": (
            frame_with(end=lambda boxes, new, side: boxes.clamp(max=side - 1))
        ),
    },
)
def to_model_frame() -> Iterator[Case]:
    """Sizes and boxes of lying, standing and square pictures, larger and smaller than the frame."""
    sizes = ((97, 160), 128), ((151, 103), 128), ((50, 83), 128), ((64, 64), 32), ((5, 256), 128)
    for (height, width), side in sizes:
        boxes = torch.tensor(
            [[10.0, 4.0, 60.0, 31.0], [0.0, 0.0, 20.5, 40.0], [0.0, 0.0, width, height]]
        )
        what = f"a picture {height} high and {width} wide in a frame of {side}"
        new = frame_by_fractions((height, width), side)
        down, across = new[0] / height, new[1] / width
        moved = boxes * torch.tensor([across, down, across, down])
        size = f"the size of {what}"
        yield Case(
            what,
            ((height, width), boxes, side),
            Parts({size: new, f"the boxes of {what}": moved}),
            form=BOTH,
            advice={size: "multiply height and width by side / max(height, width), then round"},
            tolerance=1e-6,
        )


# ------------------------------------------------------------------------------------ 6.2 Dice


def pixels(mask: Tensor) -> set[tuple[int, int]]:
    """The (row, column) of every pixel that belongs to a mask."""
    rows = mask.tolist()
    return {(r, c) for r, row in enumerate(rows) for c, inside in enumerate(row) if inside}


def dice_of_sets(one: set, other: set) -> float:
    """2 |A and B| / (|A| + |B|); of two empty sets 1."""
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def rectangle(top: int, left: int, height: int, width: int) -> Tensor:
    """A mask (7, 9), or larger, with one rectangle in it."""
    mask = torch.zeros(max(7, top + height), max(9, left + width), dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def dice_with(
    change: Callable, of_nothing: Callable = lambda a, b: not (a.any() or b.any())
) -> Callable:
    """Dice with one thing changed: ``change(both, found, truth, masks)`` gives the number."""

    def attempt(found, truth):
        if of_nothing(found, truth):
            return 1.0
        counts = [mask.sum().item() for mask in (found & truth, found, truth)]
        return change(*counts, (found, truth))

    return attempt


def right_dice(both, found, truth, masks):
    """2 |A and B| / (|A| + |B|)."""
    return 2 * both / (found + truth)


@exercise(
    "5.2",
    "equal to counting sets of pixels in eight cases, three of them with an empty mask",
    {
        "that is IoU: Dice is twice the overlap over the sum of both areas": (
            dice_with(lambda both, a, b, masks: both / (a + b - both))
        ),
        "+ of two bool masks is 'or': add their sums instead": (
            dice_with(lambda both, a, b, masks: 2 * both / (masks[0] + masks[1]).sum().item())
        ),
        "the 2 is missing: two equal masks would have 0.5": (
            dice_with(lambda both, a, b, masks: both / (a + b))
        ),
        "that is 1 - Dice: here higher is better": (
            dice_with(lambda both, a, b, masks: 1 - 2 * both / (a + b))
        ),
        "that is right pixels over all pixels: the ground counts too, and it is large": (
            dice_with(lambda both, a, b, masks: (masks[0] == masks[1]).float().mean().item())
        ),
        "that is how many pixels agree, not a share": dice_with(lambda both, a, b, masks: both),
        "that is the share of the prediction that is right": (
            dice_with(lambda both, a, b, masks: both / max(a, 1))
        ),
        "that is the share of the truth that was found": (
            dice_with(lambda both, a, b, masks: both / max(b, 1))
        ),
        "divided by the larger area: Dice is twice the overlap over the sum of both": (
            dice_with(lambda both, a, b, masks: both / max(a, b))
        ),
        "the Dice of the ground is averaged in: only the object counts": (
            lambda found, truth: (
                (dice_with(right_dice)(found, truth) + dice_with(right_dice)(~found, ~truth)) / 2
            )
        ),
        "a smoothing constant belongs in the loss: masks that do not meet have exactly 0": (
            dice_with(lambda both, a, b, masks: (2 * both + 1e-5) / (a + b + 1e-5))
        ),
        "0 / 0: two empty masks agree, so 1": (
            dice_with(right_dice, lambda a, b: False),
            lambda a, b: (2 * (a & b).sum() / (a.sum() + b.sum())).item(),
        ),
        "two empty masks agree: nothing is wrong, so 1": (
            lambda a, b: dice_with(right_dice)(a, b) if a.any() or b.any() else 0.0
        ),
        "one mask is empty and the other is not: nothing agrees, so 0": (
            dice_with(right_dice, lambda a, b: not (a.any() and b.any())),
            dice_with(right_dice, lambda a, b: not a.any()),
            dice_with(right_dice, lambda a, b: not b.any()),
        ),
        "True and False have no mean and no difference: & and sum() count them": (
            lambda a, b: (2 * (a & b).mean() / (a.mean() + b.mean())).item(),
            lambda a, b: 1 - (a - b).sum().item() / (a.sum() + b.sum()).item(),
        ),
        "numbers above 255 do not fit into uint8: leave the kind of the sum alone": (
            lambda a, b: dice_with(
                lambda both, one, other, masks: 2 * (both % 256) / max(1, one % 256 + other % 256)
            )(a, b)
        ),
    },
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
        "two masks of some hundred pixels": (rectangle(2, 2, 18, 18), rectangle(0, 0, 20, 20)),
    }
    for what, masks in cases.items():
        empty = "0 / 0: two empty masks agree, so 1"
        expected = dice_of_sets(*map(pixels, masks))
        yield Case(f"Dice of {what}", masks, expected, nan=empty)


# --------------------------------------------------------------- 6.3 the adapter and the windows


def in_windows(block, tokens, adapt=lambda cut: cut, shape=None):
    """Attention in windows, as segment-anything cuts them; ``adapt`` acts behind the padding."""
    if not block.window_size:
        return block.attn(adapt(tokens))
    cut, padded = window_partition(tokens, block.window_size)
    shape = tuple(tokens.shape[1:3]) if shape is None else shape(tokens, padded)
    return window_unpartition(block.attn(adapt(cut)), block.window_size, padded, shape)


def always_in_windows(block, adapter, x):
    """Windows of side 0 too."""
    cut, padded = window_partition(adapter(block.norm1(x)), block.window_size)
    return x + window_unpartition(block.attn(cut), block.window_size, padded, tuple(x.shape[1:3]))


CROP = "window_unpartition's last argument is height and width of the tokens before padding, x.shape[1:3]"


@exercise(
    "5.3",
    "equal to one window at a time, with and without padding, in a global block too, gradients "
    "included, and with padding that stays zero even for an adapter that has a bias",
    {
        "the adapter is missing": lambda block, adapter, x: x + in_windows(block, block.norm1(x)),
        "the adapter is missing in global blocks: all blocks have one": lambda block, adapter, x: (
            x + in_windows(block, (adapter if block.window_size else lambda t: t)(block.norm1(x)))
        ),
        "the adapter sits behind the padding: with a bias its zeros do not stay zero": (
            lambda block, adapter, x: x + in_windows(block, block.norm1(x), adapter)
        ),
        "the adapter is before the norm, not after it": (
            lambda block, adapter, x: x + in_windows(block, block.norm1(adapter(x)))
        ),
        "the adapter changes the stream itself": (
            lambda block, adapter, x: adapter(x) + in_windows(block, block.norm1(adapter(x)))
        ),
        "the adapter is on attention's output: it belongs in front of q, k and v": (
            lambda block, adapter, x: x + adapter(in_windows(block, block.norm1(x)))
        ),
        "x itself is lost: attention's output is added to it": (
            lambda block, adapter, x: in_windows(block, adapter(block.norm1(x)))
        ),
        "the norm is left out": lambda block, adapter, x: x + in_windows(block, adapter(x)),
        "the windows are forgotten: every token attends to the whole picture": (
            lambda block, adapter, x: x + block.attn(adapter(block.norm1(x)))
        ),
        "window_size 0 means no windows: all tokens attend": always_in_windows,
        CROP: (
            lambda block, adapter, x: (
                x + in_windows(block, adapter(block.norm1(x)), shape=lambda tokens, padded: padded)
            ),
            lambda block, adapter, x: (
                x
                + in_windows(
                    block,
                    adapter(block.norm1(x)),
                    shape=lambda tokens, padded: tokens.shape[2:0:-1],
                )
            ),
            lambda block, adapter, x: (
                x
                + in_windows(
                    block, adapter(block.norm1(x)), shape=lambda tokens, padded: tokens.shape
                )
            ),
        ),
        "the normed tokens are added, not x": (
            lambda block, adapter, x: block.norm1(x) + in_windows(block, adapter(block.norm1(x)))
        ),
        "the adapted tokens are added, not x": (
            lambda block, adapter, x: (
                adapter(block.norm1(x)) + in_windows(block, adapter(block.norm1(x)))
            )
        ),
        "the adapter acts twice": (
            lambda block, adapter, x: x + in_windows(block, adapter(adapter(block.norm1(x))))
        ),
        "the adapter's result holds the tokens already, and they are added again": (
            lambda block, adapter, x: (
                x + in_windows(block, block.norm1(x) + adapter(block.norm1(x)))
            )
        ),
        "the block's second half is not asked for: norm2 and mlp stay out": (
            lambda block, adapter, x: x + block.mlp(block.norm2(x)),
            lambda block, adapter, x: x + block.mlp(x),
        ),
    },
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
            where = f"windows of {side}" if side else "a global block"
            kind = "an adapter that has a bias" if bias else "a Serial LoRA pair"
            yield Case(
                f"{where} on {size[0]} x {size[1]} tokens with {kind}",
                (block, adapter, x),
                x + one_window_at_a_time(block.attn, adapter(block.norm1(x)), side),
                leaves=trainable,
            )


# ------------------------------------------------------------------------ 6.4 out of place


def edit(q=1, k=lambda dq, dv: 0 * dq, v=1) -> Callable:
    """Out of place, with other amounts: ``k(dq, dv)`` is what k gets."""
    return lambda qkv, dq, dv: qkv + torch.cat([q * dq, k(dq, dv), v * dv], dim=-1)


def by_columns(qkv, dq, dv):
    """Four dimensions are taken for granted."""
    copied = qkv.clone()
    copied[:, :, :, : dq.shape[-1]] += dq
    copied[:, :, :, -dv.shape[-1] :] += dv
    return copied


LAST = (
    "four dimensions, or one width, are taken for granted: `...` or dim=-1 finds the last of any "
    "number, and chunk(3, dim=-1) cuts it into thirds"
)


@exercise(
    "5.4",
    "the right columns, at three numbers of dimensions, nothing changed in place, all gradients",
    {
        "nothing is added": lambda qkv, dq, dv: qkv.clone(),
        "v's change went to k: v is the last third": edit(v=0, k=lambda dq, dv: dv),
        "the two changes are exchanged": lambda qkv, dq, dv: edit()(qkv, dv, dq),
        "only q is changed": edit(v=0),
        "only v is changed": edit(q=0),
        "k is changed too: here only q and v have a pair": edit(k=lambda dq, dv: dq),
        "k gets v's change too: only q and v have a pair": edit(k=lambda dq, dv: dv),
        "q, k and v lie side by side, each a third of the last dimension, not in turns": (
            lambda qkv, dq, dv: qkv + torch.stack([dq, 0 * dq, dv], -1).flatten(-2)
        ),
        "k is lost: the result has three parts": lambda qkv, dq, dv: torch.cat(
            [qkv.chunk(3, -1)[0] + dq, qkv.chunk(3, -1)[2] + dv], -1
        ),
        "v gets q's change": lambda qkv, dq, dv: edit()(qkv, dq, dq),
        "the changes are subtracted": edit(q=-1, v=-1),
        "v comes first in the result: the order is q, k, v": (
            lambda qkv, dq, dv: torch.cat(edit()(qkv, dq, dv).chunk(3, -1)[::-1], -1)
        ),
        "only the changes are returned: add them": (
            lambda qkv, dq, dv: torch.cat([dq, 0 * dq, dv], -1)
        ),
        "the changes take the projections' place: add them": (
            lambda qkv, dq, dv: torch.cat([dq, qkv.chunk(3, -1)[1], dv], -1)
        ),
        "the edit is made twice": edit(q=2, v=2),
        "a change is detached: whoever made it would not learn": (
            lambda qkv, dq, dv: edit()(qkv, dq.detach(), dv.detach()),
            lambda qkv, dq, dv: edit()(qkv, dq, dv.detach()),
            lambda qkv, dq, dv: edit()(qkv, dq.detach(), dv),
        ),
        LAST: (
            by_columns,
            lambda qkv, dq, dv: edit()(torch.cat(qkv.split(4, dim=-1)[:3], dim=-1), dq, dv),
            lambda qkv, dq, dv: torch.cat(
                [part + by for part, by in zip(qkv.chunk(3, 1), (dq, 0, dv), strict=True)], 1
            ),
        ),
    },
)
def add_to_q_and_v() -> Iterator[Case]:
    """Values, any number of dimensions, and gradients through all three."""
    for d, *shape in ((4, 2, 3, 4), (5, 2, 5), (3, 7), (4, 2, 5)):
        inputs = tuple(torch.randn(*shape, width) for width in (3 * d, d, d))
        what = f"qkv of shape {tuple(inputs[0].shape)}"
        yield Case(what, inputs, edited_by_column(*inputs), error=LAST if len(shape) != 3 else "")
    asking = tuple(tensor.requires_grad_() for tensor in inputs)
    yield Case(
        "a call whose tensors all ask for a gradient",
        asking,
        edited_by_column(*asking),
        leaves=lambda *asking: dict(zip(("qkv", "q_change", "v_change"), asking, strict=True)),
        error="autograd refuses to have such a tensor edited in place: build a new one",
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
    for object_logits, object_truth in zip(logits.double(), truth.tolist(), strict=True):
        overlap = area = entropy = 0
        for row, inside in zip(object_logits, object_truth, strict=True):
            for logit, g in zip(row, inside, strict=True):
                p = 1 / (1 + torch.exp(-logit))
                overlap, area = overlap + p * g, area + p * p + g
                entropy = entropy + torch.log1p(torch.exp(-logit if g else logit))
        soft_dice = 1 - (2 * overlap + smoothing) / (area + smoothing)
        losses.append(soft_dice + entropy / object_logits.numel())
    return (sum(losses) / len(losses)).to(logits.dtype)


def soft_dice(x, g, p=torch.sigmoid, power=2, over=(1, 2), above=1e-5, below=1e-5, shared=2):
    """The Dice part with one thing changed."""
    p = p(x)
    areas = (p**power).sum(over) + g.sum(over)
    return 1 - (shared * (p * g).sum(over) + above) / (areas + below)


def entropy(x, g, over="mean", of=lambda x: x):
    """The cross-entropy part with one thing changed."""
    each = F.binary_cross_entropy_with_logits(of(x), g, reduction="none")
    return getattr(each, over)((1, 2))


def by_logarithms(x, g):
    """The cross-entropy written out: 0 * log 0 is not a number."""
    p = x.sigmoid()
    return -(g * p.log() + (1 - g) * (1 - p).log()).mean((1, 2))


def loss_with(
    dice: Callable = soft_dice,
    cross: Callable = entropy,
    join: Callable = lambda dice, cross: (dice + cross).mean(),
) -> Callable:
    """The loss with one part changed."""

    def attempt(logits, truth):
        g = truth.float()
        return join(dice(logits, g), cross(logits, g))

    return attempt


def dice_by(**changed) -> Callable:
    """The loss with one thing in its Dice part changed."""
    return loss_with(lambda x, g: soft_dice(x, g, **changed))


def softmaxed(x: Tensor) -> Tensor:
    """Probabilities that share one sum."""
    return x.flatten(1).softmax(-1).view_as(x)


@exercise(
    "5.5",
    "equal to one pixel at a time, for sure logits and for an object that is not there too, and so is "
    "the gradient",
    {
        "sigmoid is taken twice: the cross-entropy takes logits, not probabilities": (
            loss_with(cross=lambda x, g: entropy(x, g, of=torch.sigmoid))
        ),
        "sigmoid is taken twice in both parts": loss_with(
            lambda x, g: soft_dice(x.sigmoid(), g), lambda x, g: entropy(x, g, of=torch.sigmoid)
        ),
        "sigmoid is taken twice in the Dice part": dice_by(p=lambda x: x.sigmoid().sigmoid()),
        "the Dice part takes logits for probabilities": dice_by(p=lambda x: x),
        "the Dice part counts masks of True and False: that has no gradient, use probabilities": (
            dice_by(p=lambda x: (x > 0).float())
        ),
        "the squares are missing in the denominator": dice_by(power=1),
        "Dice is added, not 1 - Dice: the loss would reward a wrong mask": (
            loss_with(lambda x, g: 1 - soft_dice(x, g))
        ),
        "minus Dice instead of 1 - Dice: a loss ends at 0": (
            loss_with(lambda x, g: soft_dice(x, g) - 1)
        ),
        "only the Dice part": loss_with(cross=lambda x, g: 0),
        "only the cross-entropy": loss_with(lambda x, g: 0),
        "the cross-entropy is summed over pixels": (
            loss_with(cross=lambda x, g: entropy(x, g, "sum"))
        ),
        "the 2 above the line is missing": (
            dice_by(shared=1),
            loss_with(lambda x, g: (1 + soft_dice(x, g)) / 2),
        ),
        "epsilon is 0.00001, not 1": dice_by(above=1, below=1),
        "epsilon is missing, above the line or below it": (
            dice_by(above=0, below=0),
            dice_by(above=0),
            dice_by(below=0),
        ),
        "that is 1 - IoU: Dice has twice the overlap, over the sum of both areas": (
            loss_with(lambda x, g: 1 - (1 - soft_dice(x, g)) / (1 + soft_dice(x, g)))
        ),
        "the logarithm of Dice: the sum needs 1 - Dice": (
            loss_with(lambda x, g: -(1 - soft_dice(x, g)).log())
        ),
        "the two parts are averaged: they are added": (
            loss_with(join=lambda dice, cross: (dice + cross).mean() / 2)
        ),
        "softmax over the pixels: each has a probability of its own, by the sigmoid": (
            dice_by(p=softmaxed)
        ),
        "the losses of the objects are summed: their mean is wanted": (
            loss_with(join=lambda dice, cross: (dice + cross).sum())
        ),
        "all objects are counted as one, and large ones outweigh small ones: Dice of each": (
            dice_by(over=(0, 1, 2))
        ),
        "the Dice part sums over one side of the picture: over both, dims (1, 2)": (
            loss_with(
                join=lambda dice, cross: dice.mean() + cross.mean(),
                dice=lambda x, g: soft_dice(x, g, over=2),
            ),
            loss_with(
                join=lambda dice, cross: dice.mean() + cross.mean(),
                dice=lambda x, g: soft_dice(x, g, over=1),
            ),
        ),
        "that is one loss an object: take the mean over the objects": (
            loss_with(join=lambda dice, cross: dice + cross)
        ),
        "0 * log 0 is not a number: F.binary_cross_entropy_with_logits takes logits of any size": (
            loss_with(cross=by_logarithms)
        ),
        "F.binary_cross_entropy of probabilities gives up at sure logits: take ..._with_logits": (
            loss_with(
                cross=lambda x, g: F.binary_cross_entropy(x.sigmoid(), g, reduction="none").mean(
                    (1, 2)
                )
            )
        ),
        "truth is of True and False: make numbers of it first, truth.float()": (
            lambda x, truth: F.binary_cross_entropy_with_logits(x, truth),
            lambda x, truth: 1 - truth,
        ),
        "half precision is too coarse for a loss: keep the kind of numbers that came in": (
            lambda x, truth: loss_with()(x.half(), truth).float(),
            lambda x, truth: loss_with()(x.bfloat16().float(), truth),
        ),
    },
)
def segmentation_loss() -> Iterator[Case]:
    """The value for one object and for several of unlike sizes, and the gradient of every logit."""
    for what, count, height, width in (
        ("one object", 1, 4, 5),
        ("three objects", 3, 5, 4),
        ("two objects, sure of every pixel and wrong in one,", 2, 4, 5),
        ("two objects, one of which is not there,", 2, 4, 5),
    ):
        logits = 2 * torch.randn(count, height, width)
        truth = torch.zeros(count, height, width, dtype=torch.bool)
        for index in range(count):  # objects of 2, 6, 12 pixels: the mean is not the sum's ratio
            truth[index, : index + 1, : 2 + index] = True
        if "sure" in what:
            logits = torch.where(truth, 30.0, -30.0)
            logits[0, 3, 3] = 30.0
        if "not there" in what:
            truth[0], logits[0] = False, -30.0
        logits.requires_grad_()
        yield Case(
            f"the loss of {what} of {height} x {width} pixels",
            (logits, truth),
            loss_of_pixels(logits, truth),
            leaves=lambda logits, _: {"the logits": logits},
        )
