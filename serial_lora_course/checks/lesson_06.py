"""Checks of lesson 06: SAM's input frame, Dice, the adapter and the windows, the edit, the loss.

Every expected value is reached another way than in the lesson: with fractions, with sets of pixels,
with one window or one pixel at a time.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from serial_lora_course.checks.checking import (
    call,
    exercise,
    require,
    require_close,
    require_equal,
    require_returned,
)

# ---------------------------------------------------------------------- 6.1 a picture's way in


def frame_by_fractions(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) after the longer side became ``side``, rounded to the nearest pixel."""
    longer = max(size)
    return tuple(math.floor(Fraction(edge * side, longer) + Fraction(1, 2)) for edge in size)


@exercise("6.1")
def to_model_frame(attempt) -> str:
    """Sizes and boxes of lying, standing and square pictures, larger and smaller than the frame."""
    boxes = torch.tensor([[10.0, 4.0, 60.0, 31.0], [0.0, 0.0, 20.5, 40.0]])
    sizes = ((97, 160), 128), ((151, 103), 128), ((50, 83), 128), ((64, 64), 32), ((5, 256), 128)
    for size, side in sizes:
        what = f"a picture {size[0]} high and {size[1]} wide in a frame of {side}"
        got = call(attempt, size, boxes.clone(), side, what=what)
        require(
            isinstance(got, tuple | list) and len(got) == 2 and not isinstance(got[0], int),
            f"what comes back for {what}",
            "the new (height, width) and the boxes",
            got,
            "return both: the new size as a tuple, and the boxes",
        )
        _require_size(what, got[0], size, side)
        _require_boxes(what, got[1], boxes, size, side)
    return "sizes to the pixel and boxes to match, for lying, standing and square pictures"


def _require_size(what: str, got, size: tuple[int, int], side: int) -> None:
    expected, shorter = frame_by_fractions(size, side), min(size)
    by_shorter = tuple(math.floor(Fraction(e * side, shorter) + Fraction(1, 2)) for e in size)
    suspects = {
        "that is a squash: both sides get the same factor, the rest is padding": (side, side),
        "turned round: (height, width), as arrays and tensors have it": expected[::-1],
        "the shorter side fills the frame, so the longer one does not fit: divide by the longer": (
            by_shorter
        ),
        "a half was rounded to the even number, as round() does: here a half goes up": tuple(
            round(Fraction(e * side, max(size))) for e in size
        ),
        "rounded down: SAM takes the nearest whole number": tuple(
            e * side // max(size) for e in size
        ),
        "the picture keeps its size: its longer side becomes the frame's": size,
    }
    got = tuple(got) if isinstance(got, list | torch.Size) else got
    require_equal(
        f"the size of {what}",
        got,
        expected,
        suspects,
        otherwise="multiply height and width by side / max(height, width), then round",
    )
    require(
        all(isinstance(edge, int) for edge in got),
        f"the size of {what}",
        "two whole numbers",
        got,
        "right in value; pixels are counted, so int(...)",
    )


def _require_boxes(what: str, got, boxes: Tensor, size: tuple[int, int], side: int) -> None:
    new = frame_by_fractions(size, side)
    down, across = new[0] / size[0], new[1] / size[1]

    def scaled(*factors: float) -> Tensor:
        rows = [[float(e) * f for e, f in zip(box, factors, strict=True)] for box in boxes.tolist()]
        return torch.tensor(rows)

    expected, factor = scaled(across, down, across, down), side / max(size)
    suspects = {
        "the boxes are where they were: they move with the picture": boxes,
        "x and y are exchanged: a box is x0, y0, x1, y1, and x goes with the width": (
            scaled(down, across, down, across)
        ),
        "scaled by the factor before rounding: use what the sides really became": (
            scaled(factor, factor, factor, factor)
        ),
        "divided instead of multiplied": scaled(1 / across, 1 / down, 1 / across, 1 / down),
        "only one corner moved: a box has two": scaled(across, down, 1, 1),
        "boxes of a squashed picture: each side has the frame's factor here": (
            scaled(side / size[1], side / size[0], side / size[1], side / size[0])
        ),
    }
    require_close(
        f"the boxes of {what}",
        got,
        expected,
        {c: v for c, v in suspects.items() if not torch.allclose(v, expected, rtol=0, atol=1e-4)},
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
    """A mask (7, 9) with one rectangle in it."""
    mask = torch.zeros(7, 9, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


@exercise("6.2")
def dice_by_hand(attempt) -> str:
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
    for what, (found, truth) in cases.items():
        got = call(
            attempt,
            found.clone(),
            truth.clone(),
            what=f"Dice of {what}",
            cause="" if found.any() or truth.any() else "0 / 0: two empty masks agree, so 1",
        )
        value = _one_number(f"Dice of {what}", got)
        require(
            not math.isnan(value), f"Dice of {what}", 1.0, got, "0 / 0: two empty masks agree, so 1"
        )
        expected = dice_of_sets(pixels(found), pixels(truth))
        suspects = {
            cause: torch.tensor(float(number))
            for cause, number in _dice_suspects(pixels(found), pixels(truth), found.numel()).items()
            if not math.isclose(number, expected)
        }
        require_close(f"Dice of {what}", torch.tensor(value), torch.tensor(expected), suspects)
        require(
            isinstance(got, int | float),
            "the kind of result",
            "a plain number",
            got,
            "right, but still a tensor: .item() makes a plain number of it",
        )
    return "equal to counting sets of pixels in seven cases, three of them with an empty mask"


def _dice_suspects(found: set, truth: set, area: int) -> dict[str, float]:
    """What known mistakes would give; with an empty mask only those that are about empty masks."""
    if not found and not truth:
        return {"two empty masks agree: nothing is wrong, so 1": 0.0}
    if not found or not truth:
        return {"one mask is empty and the other is not: nothing agrees, so 0": 1.0}
    both, either, sizes = len(found & truth), len(found | truth), len(found) + len(truth)
    return {
        "that is IoU: Dice is twice the overlap over the sum of both areas": both / either,
        "+ of two bool masks is 'or', so the overlap counts once: add the two sums": (
            2 * both / either
        ),
        "the 2 is missing: two equal masks would have 0.5": both / sizes,
        "that is 1 - Dice: here higher is better": 1 - 2 * both / sizes,
        "that is right pixels over all pixels: the ground counts too, and it is large": (
            (area - len(found ^ truth)) / area
        ),
        "that is how many pixels agree, not a share": float(both),
        "that is the share of the prediction that is right: the truth's area counts too": (
            both / len(found)
        ),
        "that is the share of the truth that was found: the prediction's area counts too": (
            both / len(truth)
        ),
    }


def _one_number(what: str, got) -> float:
    require_returned(what, got, "a number")
    require(
        isinstance(got, int | float) or (isinstance(got, Tensor) and got.numel() == 1),
        what,
        "one number",
        got,
        "one number for the whole mask: sum over rows and columns",
    )
    return float(got)


# --------------------------------------------------------------- 6.3 the adapter and the windows


class WindowBlock(nn.Module):
    """The attention half of a SAM block: norm1, attn and window_size, on a random start.

    ``attn`` takes any number of windows (N, side, side, d) and lets the tokens of each attend to
    one another, with a bias in every projection, so that a zero token does not stay zero.
    """

    def __init__(self, width: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(width)
        nn.init.normal_(self.norm1.weight)
        nn.init.normal_(self.norm1.bias)
        self.attn = WindowAttention(width)


class WindowAttention(nn.Module):
    """One head over the tokens of each window, in plain sums."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("q", "k", "v", "out"):
            layer = nn.Linear(width, width)
            nn.init.normal_(layer.weight, std=0.5)
            nn.init.normal_(layer.bias)
            setattr(self, name, layer)

    def forward(self, windows: Tensor) -> Tensor:
        """(N, height, width, d) -> the same shape."""
        tokens = windows.flatten(1, 2)
        scores = torch.einsum("nad,nbd->nab", self.q(tokens), self.k(tokens))
        weights = (scores / tokens.shape[-1] ** 0.5).softmax(-1)
        mixed = torch.einsum("nab,nbd->nad", weights, self.v(tokens))
        return self.out(mixed).view_as(windows)


class Change(nn.Module):
    """x + B A x + bias, the bias being zero for a Serial LoRA pair."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.randn(2, width))
        self.lora_B = nn.Parameter(torch.randn(width, 2))
        self.bias = nn.Parameter(torch.randn(width) * bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return x + torch.einsum("...i,ri,or->...o", x, self.lora_A, self.lora_B) + self.bias


def one_window_at_a_time(attn, tokens: Tensor, side: int, adapt=None) -> Tensor:
    """Attention within windows of (B, H, W, d), each cut out, filled up with zeros and put back.

    ``adapt`` is applied to what a window was filled up to, zeros included.
    """
    result = torch.zeros_like(tokens)
    _, height, width, _ = tokens.shape
    for top in range(0, height, side or height):
        for left in range(0, width, side or width):
            rows = slice(top, min(top + (side or height), height))
            columns = slice(left, min(left + (side or width), width))
            cut = tokens[:, rows, columns]
            tall, wide = cut.shape[1:3]
            full = tokens.new_zeros(len(tokens), side or height, side or width, tokens.shape[-1])
            full[:, :tall, :wide] = cut
            full = full if adapt is None else adapt(full)
            result[:, rows, columns] = attn(full)[:, :tall, :wide]
    return result


@exercise("6.3")
def adapted_windows(attempt) -> str:
    """Windows that fit, windows that need padding, no windows; a pair, and one with a bias."""
    for bias in (False, True):
        for side, size in ((3, (6, 9)), (4, (7, 6)), (0, (5, 4))):
            block, adapter = WindowBlock(6, side), Change(6, bias)
            x = torch.randn(2, *size, 6)
            where = f"windows of {side}" if side else "a global block"
            kind = "an adapter that has a bias" if bias else "a Serial LoRA pair"
            what = f"{where} on {size[0]} x {size[1]} tokens with {kind}"
            given = x.clone()
            with torch.no_grad():
                got = call(
                    attempt,
                    block,
                    adapter,
                    given,
                    what=what,
                    cause="" if side else "window_size 0 means no windows: all tokens attend",
                )
                expected = x + one_window_at_a_time(block.attn, adapter(block.norm1(x)), side)
                require_close(
                    what, got, expected, _window_suspects(block, adapter, x, side, expected)
                )
            require(
                torch.equal(given, x),
                "the tokens that came in",
                "as before",
                "changed",
                "x is changed in place (+=): make a new tensor",
            )
    return (
        "equal to one window at a time, with and without padding, in a global block too, and "
        "with padding that stays zero even for an adapter that has a bias"
    )


def _window_suspects(block, adapter, x: Tensor, side: int, expected: Tensor) -> dict[str, Tensor]:
    normed, attn = block.norm1(x), block.attn
    stream = adapter(x)
    suspects = {
        "the adapter is missing": x + one_window_at_a_time(attn, normed, side),
        "the adapter sits behind the padding: with a bias its zeros do not stay zero": (
            x + one_window_at_a_time(attn, normed, side, adapter)
        ),
        "the adapter is before the norm: it belongs after it": (
            x + one_window_at_a_time(attn, block.norm1(stream), side)
        ),
        "the adapter changes the stream itself: only what attention reads": (
            stream + one_window_at_a_time(attn, block.norm1(stream), side)
        ),
        "the adapter is on attention's output: it belongs in front of q, k and v": (
            x + adapter(one_window_at_a_time(attn, normed, side))
        ),
        "x itself is lost: attention's output is added to it": expected - x,
        "the norm is left out": x + one_window_at_a_time(attn, adapter(x), side),
        "the windows are forgotten: every token attends to the whole picture": (
            x + one_window_at_a_time(attn, adapter(normed), 0)
        ),
        "the normed tokens are added, not x": expected - x + normed,
    }
    return {
        cause: value for cause, value in suspects.items() if not torch.allclose(value, expected)
    }


# ------------------------------------------------------------------------ 6.4 out of place


@exercise("6.4")
def add_to_q_and_v(attempt) -> str:
    """Values, untouched inputs, any number of dimensions, and gradients through all three."""
    for shape in ((2, 3, 4), (2, 5), (7,)):
        d = 4
        qkv, dq, dv = (torch.randn(*shape, width) for width in (3 * d, d, d))
        given = [tensor.clone() for tensor in (qkv, dq, dv)]
        what = f"qkv of shape {tuple(qkv.shape)}"
        got = call(
            attempt,
            *given,
            what=what,
            cause=""
            if len(shape) == 3
            else "four dimensions are taken for granted: `...` or dim=-1 finds the last of any number",
        )
        require(
            isinstance(got, Tensor),
            what,
            "a tensor",
            got,
            "the function returns nothing: return?" if got is None else "return a tensor",
        )
        expected = qkv.clone()
        for at in range(d):  # one column at a time
            expected.select(-1, at).copy_(qkv.select(-1, at) + dq.select(-1, at))
            place = 2 * d + at
            expected.select(-1, place).copy_(qkv.select(-1, place) + dv.select(-1, at))
        require_close(
            f"the result for {what}", got, expected, _edit_suspects(qkv, dq, dv, expected)
        )
        for name, now, before in zip(
            ("qkv", "q_change", "v_change"), given, (qkv, dq, dv), strict=True
        ):
            require(
                torch.equal(now, before),
                f"{name} after the call",
                "as before",
                "changed",
                "edited in place: whoever kept that tensor now has another one; build a new one",
            )
    _require_edit_gradients(attempt)
    return (
        "the right columns, at three numbers of dimensions, nothing changed in place, all gradients"
    )


def _edit_suspects(qkv: Tensor, dq: Tensor, dv: Tensor, expected: Tensor) -> dict[str, Tensor]:
    d = dq.shape[-1]
    parts = {"q": qkv[..., :d], "k": qkv[..., d : 2 * d], "v": qkv[..., 2 * d :]}

    def joined(**added: Tensor) -> Tensor:
        return torch.cat([parts[name] + added.get(name, 0) for name in "qkv"], -1)

    suspects = {
        "nothing is added": qkv,
        "v's change went to k: v is the last third": joined(q=dq, k=dv),
        "the two changes are exchanged": joined(q=dv, v=dq),
        "only q is changed": joined(q=dq),
        "only v is changed": joined(v=dv),
        "k is changed too: here only q and v have a pair": joined(q=dq, k=dq, v=dv),
        "k is lost: the result has three parts": torch.cat([parts["q"] + dq, parts["v"] + dv], -1),
        "only the changes are returned: add them": torch.cat([dq, torch.zeros_like(dq), dv], -1),
        "the changes take the projections' place: add them": torch.cat([dq, parts["k"], dv], -1),
        "the edit is made twice": joined(q=2 * dq, v=2 * dv),
    }
    return {
        cause: value
        for cause, value in suspects.items()
        if value.shape != expected.shape or not torch.allclose(value, expected)
    }


def _require_edit_gradients(attempt) -> None:
    qkv, dq, dv = (torch.randn(2, 5, width, requires_grad=True) for width in (12, 4, 4))
    weights = torch.randn(2, 5, 12)
    what = "a call whose tensors all ask for a gradient"
    result = call(
        attempt,
        qkv,
        dq,
        dv,
        what=what,
        cause="autograd refuses to have such a tensor edited in place: build a new one",
    )
    require(
        result.requires_grad,
        "the gradient",
        "one that flows back",
        "none",
        "no_grad, detach or .data cuts the result off: the pairs would never learn",
    )
    found = torch.autograd.grad((result * weights).sum(), (qkv, dq, dv), allow_unused=True)
    wanted = (weights, weights[..., :4], weights[..., 8:])
    for name, gradient, right in zip(("qkv", "q_change", "v_change"), found, wanted, strict=True):
        require(
            gradient is not None,
            f"the gradient of {name}",
            "one",
            "none",
            f"{name} is cut off from the result: leave detach, .data and no_grad away",
        )
        require_close(f"the gradient of {name}", gradient, right)


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


@exercise("6.5")
def segmentation_loss(attempt) -> str:
    """The value for one object and for several of unlike sizes, and the gradient of every logit."""
    for count, height, width in ((1, 4, 5), (3, 5, 4)):
        logits = (2 * torch.randn(count, height, width)).requires_grad_()
        truth = torch.zeros(count, height, width, dtype=torch.bool)
        for index in range(count):  # objects of 2, 6, 12 pixels: the mean is not the sum's ratio
            truth[index, : index + 1, : 2 + index] = True
        what = f"the loss of {count} object{'s' * (count > 1)} of {height} x {width} pixels"
        got = call(attempt, logits, truth, what=what)
        require_returned(what, got, "a scalar")
        require(
            isinstance(got, Tensor),
            what,
            "a tensor that gradients can flow back from",
            got,
            "a plain number has no gradient: leave .item() away",
        )
        expected = loss_of_pixels(logits, truth)
        with torch.no_grad():
            suspects = _loss_suspects(logits, truth)
        require_close(what, got, expected.detach(), suspects, tolerance=1e-4)
        require(
            got.requires_grad,
            f"the gradient of {what}",
            "one",
            "none",
            "masks of True and False, no_grad or detach let no gradient through: use probabilities",
        )
        (wanted,) = torch.autograd.grad(expected, logits)
        (found,) = torch.autograd.grad(got, logits)
        require_close(f"the gradient of {what}", found, wanted, tolerance=1e-4)
    return "equal to one pixel at a time for one object and for three, and so is the gradient"


def _loss_suspects(logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
    g, p, dims = truth.float(), logits.sigmoid(), (1, 2)
    bce = nn.functional.binary_cross_entropy_with_logits

    def soft(probability: Tensor, squared: bool = True, over=dims) -> Tensor:
        """The Dice part that is subtracted from 1, one value an object."""
        power = 2 if squared else 1
        area = (probability**power).sum(over) + g.sum(over)
        return 2 * (probability * g).sum(over) / area

    def entropy(scores: Tensor) -> Tensor:
        return bce(scores, g, reduction="none").mean(dims)

    right = 1 - soft(p) + entropy(logits)
    hard = (logits > 0).float()
    suspects = {
        "sigmoid is taken twice: the cross-entropy takes logits, not probabilities": (
            (1 - soft(p) + entropy(p)).mean()
        ),
        "sigmoid is taken twice in both parts: take it once, for Dice alone": (
            (1 - soft(p.sigmoid()) + entropy(p)).mean()
        ),
        "sigmoid is taken twice in the Dice part": (1 - soft(p.sigmoid()) + entropy(logits)).mean(),
        "the Dice part takes logits for probabilities: sigmoid first": (
            (1 - soft(logits) + entropy(logits)).mean()
        ),
        "the Dice part counts masks of True and False: that has no gradient, use probabilities": (
            (1 - soft(hard) + entropy(logits)).mean()
        ),
        "the squares are missing: sum(p^2) + sum(g^2) in the denominator": (
            (1 - soft(p, squared=False) + entropy(logits)).mean()
        ),
        "Dice is added, not 1 - Dice: the loss would reward a wrong mask": (
            (soft(p) + entropy(logits)).mean()
        ),
        "minus Dice instead of 1 - Dice: right up to a constant, but a loss ends at 0": (
            (entropy(logits) - soft(p)).mean()
        ),
        "only the Dice part": (1 - soft(p)).mean(),
        "only the cross-entropy": entropy(logits).mean(),
        "the cross-entropy is summed over pixels: take its mean": (
            (1 - soft(p) + bce(logits, g, reduction="none").sum(dims)).mean()
        ),
        "the 2 above the line is missing": (1 - soft(p) / 2 + entropy(logits)).mean(),
        "that is one loss an object: take the mean over the objects": right,
        "the losses of the objects are summed: their mean is wanted": right.sum(),
        "all objects are counted as one, and large ones outweigh small ones: Dice of each": (
            (1 - soft(p, over=(0, 1, 2)) + entropy(logits)).mean()
        ),
    }
    expected = right.mean()
    return {
        cause: value
        for cause, value in suspects.items()
        if value.shape != expected.shape or not torch.isclose(value, expected, rtol=0, atol=1e-3)
    }
