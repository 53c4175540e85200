"""Right and wrong answers to the exercises of lesson 06."""

import torch
import torch.nn.functional as F
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from segment_anything.utils.transforms import ResizeLongestSide

from serial_lora_course.measures.metrics import dice, dice_ce

# ------------------------------------------------------------------------------- 6.1 the frame


def frame(size, boxes, side):
    """By segment-anything's own predictor."""
    resize = ResizeLongestSide(side)
    return resize.get_preprocess_shape(*size, side), resize.apply_boxes_torch(boxes, size)


def changed_frame(size_of=None, boxes_of=None):
    """One thing changed: ``size_of(size, new, side)`` or ``boxes_of(size, new, boxes)``."""

    def attempt(size, boxes, side):
        new, scaled = frame(size, boxes, side)
        if boxes_of is not None:
            scaled = boxes_of(size, new, boxes)
        return (new if size_of is None else size_of(size, new, side)), scaled

    return attempt


def by(*factors):
    return torch.tensor(factors)


def boxes_before_rounding(size, new, boxes):
    return boxes * (max(new) / max(size))


def boxes_by_sides(size, new, boxes):
    return boxes * by(new[1] / size[1], new[0] / size[0]).repeat(2)


# -------------------------------------------------------------------------------- 6.2 Dice


def dice_of(change):
    """Dice with one thing changed: ``change(both, found, truth, masks)`` gives the number."""

    def attempt(found, truth):
        if not found.any() and not truth.any():
            return 1.0
        both, one, other = ((m.sum().item()) for m in (found & truth, found, truth))
        return change(both, one, other, (found, truth))

    return attempt


def dice_without_a_case_for_nothing(found, truth):
    return (2 * (found & truth).sum() / (found.sum() + truth.sum())).item()


def dice_that_divides_by_zero(found, truth):
    return 2 * (found & truth).sum().item() / (found.sum().item() + truth.sum().item())


# ------------------------------------------------------------------- 6.3 adapter and windows


def windows(block, adapter, x, adapt=True, before_norm=False, late=False, partition=True):
    """The attention half with the adapter in one place or another."""
    tokens = block.norm1(adapter(x) if before_norm else x)
    if adapt and not late and not before_norm:
        tokens = adapter(tokens)
    if not block.window_size or not partition:
        return block.attn(adapter(tokens) if late else tokens)
    cut, padded = window_partition(tokens, block.window_size)
    cut = adapter(cut) if late else cut
    return window_unpartition(block.attn(cut), block.window_size, padded, tuple(x.shape[1:3]))


def padded_at_the_border(block, adapter, x):
    """A right answer of another kind: pad, unfold into windows, fold back."""
    tokens, side = adapter(block.norm1(x)), block.window_size
    if not side:
        return x + block.attn(tokens)
    height, width = x.shape[1:3]
    tokens = F.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
    rows = [
        torch.cat([block.attn(cut) for cut in strip.split(side, dim=2)], dim=2)
        for strip in tokens.split(side, dim=1)
    ]
    return x + torch.cat(rows, dim=1)[:, :height, :width]


def always_in_windows(block, adapter, x):
    cut, padded = window_partition(adapter(block.norm1(x)), block.window_size)
    return x + window_unpartition(block.attn(cut), block.window_size, padded, tuple(x.shape[1:3]))


def uncropped(block, adapter, x):
    tokens = adapter(block.norm1(x))
    if not block.window_size:
        return x + block.attn(tokens)
    cut, padded = window_partition(tokens, block.window_size)
    return x + window_unpartition(block.attn(cut), block.window_size, padded, padded)


def height_and_width_exchanged(block, adapter, x):
    tokens = adapter(block.norm1(x))
    if not block.window_size:
        return x + block.attn(tokens)
    cut, padded = window_partition(tokens, block.window_size)
    exchanged = (x.shape[2], x.shape[1])
    return x + window_unpartition(block.attn(cut), block.window_size, padded, exchanged)


def in_place_on_the_stream(block, adapter, x):
    x += windows(block, adapter, x)
    return x


# ---------------------------------------------------------------------------- 6.4 the edit


def edit(q=1.0, k_of=None, v=1.0):
    """Out of place, with other amounts: ``k_of(dq, dv)`` is what k gets."""

    def attempt(qkv, dq, dv):
        middle = torch.zeros_like(dq) if k_of is None else k_of(dq, dv)
        return qkv + torch.cat([q * dq, middle, v * dv], dim=-1)

    return attempt


def in_place(qkv, dq, dv):
    qkv[:, :, :, : dq.shape[-1]] += dq
    qkv[:, :, :, -dv.shape[-1] :] += dv
    return qkv


def in_place_any_dimensions(qkv, dq, dv):
    qkv[..., : dq.shape[-1]] += dq
    qkv[..., -dv.shape[-1] :] += dv
    return qkv


def copied_but_four_dimensions(qkv, dq, dv):
    return in_place(qkv.clone(), dq, dv)


def changes_in_place(qkv, dq, dv):
    d = dq.shape[-1]
    dq += qkv[..., :d]
    dv += qkv[..., -d:]
    return torch.cat([dq, qkv[..., d : 2 * d], dv], -1)


# ---------------------------------------------------------------------------- 6.5 the loss


def loss(dice_part=None, entropy_part=None, reduce=torch.mean):
    """The loss with one part changed; each takes (logits, truth as floats)."""

    def attempt(logits, truth):
        g = truth.float()
        one = (dice_part or soft_dice)(logits, g)
        other = (entropy_part or entropy)(logits, g)
        return reduce(one + other)

    return attempt


def soft_dice(x, g, power=2, over=(1, 2), p=None, areas=None, smoothing=1e-5):
    p = x.sigmoid() if p is None else p
    areas = p**power if areas is None else areas
    return 1 - (2 * (p * g).sum(over) + smoothing) / ((areas + g).sum(over) + smoothing)


def entropy(logits, g, over="mean"):
    each = F.binary_cross_entropy_with_logits(logits, g, reduction="none")
    return getattr(each, over)((1, 2))


@torch.no_grad()
def loss_without_gradient(logits, truth):
    return dice_ce(logits, truth).mean()


RIGHT = {
    "6.1": frame,
    "6.2": lambda found, truth: dice(found, truth).item(),
    "6.3": padded_at_the_border,
    "6.4": edit(),
    "6.5": lambda logits, truth: dice_ce(logits, truth).mean(),
}

WRONG = {
    "6.1": {
        ("squash", "that is a squash"): changed_frame(lambda s, n, side: (side, side)),
        ("turned", "turned round"): changed_frame(lambda s, n, side: n[::-1]),
        ("half to even", "a half goes up"): changed_frame(
            lambda s, n, side: tuple(round(e * side / max(s)) for e in s)
        ),
        ("shorter side", "shorter side fills the frame"): changed_frame(
            lambda s, n, side: tuple(int(e * side / min(s) + 0.5) for e in s)
        ),
        ("rounded down", "rounded down"): changed_frame(
            lambda s, n, side: tuple(e * side // max(s) for e in s)
        ),
        ("not resized", "keeps its size"): changed_frame(lambda s, n, side: s),
        ("floats", "a whole number is wanted"): changed_frame(
            lambda s, n, side: tuple(map(float, n))
        ),
        ("boxes forgotten", "where they were"): changed_frame(boxes_of=lambda s, n, b: b),
        ("x and y", "x and y are exchanged"): changed_frame(
            boxes_of=lambda s, n, b: b * by(n[0] / s[0], n[1] / s[1]).repeat(2)
        ),
        ("before rounding", "before rounding"): changed_frame(boxes_of=boxes_before_rounding),
        ("divided", "divided instead"): changed_frame(
            boxes_of=lambda s, n, b: b / by(n[1] / s[1], n[0] / s[0]).repeat(2)
        ),
        ("one corner", "only one corner"): changed_frame(
            boxes_of=lambda s, n, b: b * by(n[1] / s[1], n[0] / s[0], 1, 1)
        ),
        ("squashed boxes", "boxes of a squashed picture"): changed_frame(
            boxes_of=lambda s, n, b: b * by(max(n) / s[1], max(n) / s[0]).repeat(2)
        ),
        ("rounded up", "rounded up"): changed_frame(
            lambda s, n, side: tuple(-(-e * side // max(s)) for e in s)
        ),
        ("never enlarged", "enlarged as well"): changed_frame(
            lambda s, n, side: s if max(s) < side else n
        ),
        ("boxes rounded", "fractions of a pixel"): changed_frame(
            boxes_of=lambda s, n, b: boxes_by_sides(s, n, b).round()
        ),
        ("whole numbers", "fractions of a pixel"): changed_frame(
            boxes_of=lambda s, n, b: boxes_by_sides(s, n, b).long()
        ),
        ("into the middle", "moved into the middle"): changed_frame(
            boxes_of=lambda s, n, b: (
                boxes_by_sides(s, n, b) + by((max(n) - n[1]) // 2, (max(n) - n[0]) // 2).repeat(2)
            )
        ),
        ("only the size", "return both"): lambda s, b, side: frame(s, b, side)[0],
    },
    "6.2": {
        ("IoU", "that is IoU"): dice_of(lambda x, a, b, m: x / (a + b - x)),
        ("or", "is 'or'"): dice_of(lambda x, a, b, m: 2 * x / (m[0] + m[1]).sum().item()),
        ("no two", "the 2 is missing"): dice_of(lambda x, a, b, m: x / (a + b)),
        ("a loss", "that is 1 - Dice"): dice_of(lambda x, a, b, m: 1 - 2 * x / (a + b)),
        ("pixels", "over all pixels"): dice_of(
            lambda x, a, b, m: (m[0] == m[1]).float().mean().item()
        ),
        ("smoothed", "belongs in the loss"): dice_of(
            lambda x, a, b, m: (2 * x + 1e-5) / (a + b + 1e-5)
        ),
        ("a count", "not a share"): dice_of(lambda x, a, b, m: x),
        ("precision", "prediction that is right"): dice_of(lambda x, a, b, m: x / max(a, 1)),
        ("recall", "truth that was found"): dice_of(lambda x, a, b, m: x / max(b, 1)),
        ("by the larger area", "the larger area"): dice_of(lambda x, a, b, m: x / max(a, b)),
        ("with the ground", "Dice of the ground"): lambda a, b: (
            (dice(a, b) + dice(~a, ~b)).item() / 2
        ),
        ("not a number", "0 / 0"): dice_without_a_case_for_nothing,
        ("division by zero", "0 / 0"): dice_that_divides_by_zero,
        ("nothing is 0", "nothing is wrong, so 1"): lambda a, b: (
            dice(a, b).item() if a.any() or b.any() else 0.0
        ),
        ("any empty is 1", "nothing agrees, so 0"): lambda a, b: (
            dice(a, b).item() if a.any() and b.any() else 1.0
        ),
        ("one a row", "one number is wanted"): lambda a, b: (a & b).sum(1),
        ("a tensor", "still a tensor"): dice,
    },
    "6.3": {
        ("no adapter", "adapter is missing"): lambda b, a, x: x + windows(b, a, x, adapt=False),
        ("behind the padding", "behind the padding"): lambda b, a, x: (
            x + windows(b, a, x, late=True)
        ),
        ("before the norm", "before the norm"): lambda b, a, x: (
            x + windows(b, a, x, before_norm=True)
        ),
        ("on the stream", "changes the stream"): lambda b, a, x: (
            a(x) + windows(b, a, x, before_norm=True)
        ),
        ("on the output", "attention's output"): lambda b, a, x: (
            x + a(windows(b, a, x, adapt=False))
        ),
        ("stream lost", "x itself is lost"): lambda b, a, x: windows(b, a, x),
        ("no windows", "windows are forgotten"): lambda b, a, x: (
            x + windows(b, a, x, partition=False)
        ),
        ("always windows", "window_size 0 means"): always_in_windows,
        ("not cropped", "x.shape\\[1:3\\]"): uncropped,
        ("in place", "changed in place"): in_place_on_the_stream,
        ("no gradient", "no gradient reaches"): lambda b, a, x: windows(b, a, x).detach() + x,
        ("branch detached", "a part of the way from x"): lambda b, a, x: (
            x + windows(b, a, x.detach())
        ),
        ("adapted added", "adapted tokens are added"): lambda b, a, x: (
            a(b.norm1(x)) + windows(b, a, x)
        ),
        ("twice", "acts twice"): lambda b, a, x: x + windows(b, lambda t: a(a(t)), x),
        ("added again", "added again"): lambda b, a, x: x + windows(b, lambda t: t + a(t), x),
        ("turned round", "x.shape\\[1:3\\]"): height_and_width_exchanged,
        ("global blocks forgotten", "adapter is missing"): lambda b, a, x: (
            x + windows(b, a, x, adapt=bool(b.window_size))
        ),
        ("normed added", "normed tokens are added"): lambda b, a, x: b.norm1(x) + windows(b, a, x),
    },
    "6.4": {
        ("in place", "changed in place"): in_place,
        ("in place, any dimensions", "changed in place"): in_place_any_dimensions,
        ("four dimensions", "four dimensions, or one width"): copied_but_four_dimensions,
        ("nothing added", "nothing is added"): lambda qkv, dq, dv: qkv.clone(),
        ("v to k", "v is the last third"): edit(v=0, k_of=lambda dq, dv: dv),
        ("exchanged", "exchanged"): lambda qkv, dq, dv: edit()(qkv, dv, dq),
        ("one width", "one width, are taken for granted"): lambda qkv, dq, dv: edit()(
            torch.cat(qkv.split(4, dim=-1)[:3], dim=-1), dq, dv
        ),
        ("q's to v", "v gets q's change"): lambda qkv, dq, dv: edit()(qkv, dq, dq),
        ("subtracted", "subtracted"): edit(q=-1, v=-1),
        ("v first", "order is q, k, v"): lambda qkv, dq, dv: torch.cat(
            edit()(qkv, dq, dv).chunk(3, -1)[::-1], -1
        ),
        ("only q", "only q"): edit(v=0),
        ("only v", "only v"): edit(q=0),
        ("k too", "k is changed too"): edit(k_of=lambda dq, dv: dq),
        ("k as v", "k gets v's change"): edit(k_of=lambda dq, dv: dv),
        ("in turns", "not in turns"): lambda qkv, dq, dv: (
            qkv + torch.stack([dq, 0 * dq, dv], -1).flatten(-2)
        ),
        ("twice", "edit is made twice"): edit(q=2, v=2),
        ("k lost", "k is lost"): lambda qkv, dq, dv: torch.cat(
            [qkv.chunk(3, -1)[0] + dq, qkv.chunk(3, -1)[2] + dv], -1
        ),
        ("changes only", "only the changes are returned"): lambda qkv, dq, dv: torch.cat(
            [dq, 0 * dq, dv], -1
        ),
        ("replaced", "take the projections' place"): lambda qkv, dq, dv: torch.cat(
            [dq, qkv.chunk(3, -1)[1], dv], -1
        ),
        ("changes edited", "changed in place"): changes_in_place,
        ("no gradient", "no gradient reaches"): lambda qkv, dq, dv: edit()(
            qkv.detach(), dq.detach(), dv.detach()
        ),
        ("one cut off", "v_change gets no gradient"): lambda qkv, dq, dv: edit()(
            qkv, dq, dv.detach()
        ),
    },
    "6.5": {
        ("sigmoid twice", "sigmoid is taken twice: the"): loss(
            entropy_part=lambda x, g: entropy(x.sigmoid(), g)
        ),
        ("sigmoid twice in both", "twice in both parts"): (
            loss(
                lambda x, g: soft_dice(x, g, p=x.sigmoid().sigmoid()),
                lambda x, g: entropy(x.sigmoid(), g),
            )
        ),
        ("sigmoid twice in Dice", "twice in the Dice part"): loss(
            lambda x, g: soft_dice(x, g, p=x.sigmoid().sigmoid())
        ),
        ("no sigmoid", "takes logits for probabilities"): loss(lambda x, g: soft_dice(x, g, p=x)),
        ("hard masks", "masks of True and False"): loss(
            lambda x, g: soft_dice(x, g, p=(x > 0).float())
        ),
        ("hard masks alone", "none of the usual|True and False"): lambda x, t: (
            1 - dice(x > 0, t)
        ).mean(),
        ("no squares", "squares are missing"): loss(lambda x, g: soft_dice(x, g, power=1)),
        ("Dice added", "Dice is added"): loss(lambda x, g: 1 - soft_dice(x, g)),
        ("minus Dice", "minus Dice"): loss(lambda x, g: soft_dice(x, g) - 1),
        ("epsilon of 1", "not 1"): loss(lambda x, g: soft_dice(x, g, smoothing=1)),
        ("IoU", "that is 1 - IoU"): loss(
            lambda x, g: 1 - (1 - soft_dice(x, g)) / (1 + soft_dice(x, g))
        ),
        ("logarithm", "logarithm of Dice"): loss(lambda x, g: -(1 - soft_dice(x, g)).log()),
        ("averaged", "they are added"): loss(
            lambda x, g: soft_dice(x, g) / 2, lambda x, g: entropy(x, g) / 2
        ),
        ("softmax", "softmax over the pixels"): loss(
            lambda x, g: soft_dice(x, g, p=x.flatten(1).softmax(-1).view_as(x))
        ),
        ("areas detached", "a part of the way"): loss(
            lambda x, g: soft_dice(x, g, areas=x.sigmoid().square().detach())
        ),
        ("only Dice", "only the Dice part"): loss(entropy_part=lambda x, g: 0),
        ("only entropy", "only the cross-entropy"): loss(lambda x, g: 0),
        ("entropy summed", "summed over pixels"): loss(
            entropy_part=lambda x, g: entropy(x, g, "sum")
        ),
        ("one an object", "one loss an object|no gradient"): loss(reduce=lambda each: each),
        ("summed", "losses of the objects are summed"): loss(reduce=torch.sum),
        ("as one", "counted as one"): loss(lambda x, g: soft_dice(x, g, over=(0, 1, 2))),
        ("no two", "2 above the line"): loss(lambda x, g: (1 + soft_dice(x, g)) / 2),
        ("no gradient", "no gradient reaches"): loss_without_gradient,
        ("a number", "leave .item\\(\\) away"): lambda x, t: dice_ce(x, t).mean().item(),
    },
}
