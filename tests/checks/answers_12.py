"""Right and wrong answers to the exercises of lesson 12."""

import hashlib
import math

import torch

from serial_lora.sites import AttentionSite, Projection
from serial_lora_course.models.parallel_vit import ParallelBlock, ParallelViT

# ------------------------------------------------------------------------- 12.1


def split(
    groups,
    labels,
    share,
    *,
    by_picture=False,
    by_class=True,
    least=True,
    most=True,
    order=True,
    as_set=False,
    cut=False,
    up=False,
    exchanged=False,
    names=False,
    lost=False,
    both=False,
):
    """Objects ordered by a hash of their names, with one thing changed."""

    def chosen(items):
        items = list(set(items) if as_set else dict.fromkeys(items))
        if order:
            items.sort(key=lambda item: hashlib.sha256(str(item).encode()).hexdigest())
        rounded = int if cut else math.ceil if up else round
        count = rounded(share * len(items))
        count = max(count, 1) if least else count
        return items[: min(count, len(items) - 1) if most else len(items)]

    held = set()
    for label in sorted(set(labels)) if by_class else [None]:
        own = [i for i, of in enumerate(labels) if label is None or of == label]
        picked = chosen(own if by_picture else [groups[i] for i in own])
        held |= {i for i in own if (i if by_picture else groups[i]) in set(picked)}
    test = sorted(held)
    train = [i for i in range(len(groups)) if both or i not in held]
    if lost:
        test = test[::2]
    if names:
        train, test = [groups[i] for i in train], [groups[i] for i in test]
    return (test, train) if exchanged else (train, test)


def changed(**options):
    return lambda groups, labels, share: split(groups, labels, share, **options)


def share_of_pictures(groups, labels, share):
    """Objects are held out until they have that share of the class's pictures."""
    held = set()
    for label in set(labels):
        own = [name for name, of in zip(groups, labels, strict=True) if of == label]
        for name in sorted(set(own))[:-1]:
            if sum(each in held for each in own) < share * len(own):
                held.add(name)
    test = [i for i, name in enumerate(groups) if name in held]
    return [i for i in range(len(groups)) if i not in test], test


def whole_classes(groups, labels, share):
    test = [i for i, label in enumerate(labels) if label == max(labels)]
    return [i for i in range(len(labels)) if i not in test], test


# ------------------------------------------------------------------------- 12.2


def proof(base, adapted, merged, tolerance):
    return torch.allclose(
        merged, adapted, rtol=0, atol=tolerance * float(adapted.abs().amax())
    ) and not torch.allclose(base, adapted, rtol=0, atol=tolerance * float(adapted.abs().amax()))


def limit(adapted, tolerance):
    return tolerance * adapted.abs().max()


def effect(base, adapted, tolerance):
    return bool((adapted - base).abs().max() > limit(adapted, tolerance))


def in_place(base, adapted, merged, tolerance):
    allowed = limit(adapted, tolerance)
    seen = effect(base, adapted, tolerance)
    return bool(merged.sub_(adapted).abs().max() <= allowed) and seen


# ------------------------------------------------------------------------- 12.3


def pair(weight, lora_A, lora_B, scale):
    return lora_A.clone(), torch.einsum("oi,ir->or", weight, scale * lora_B)


# ------------------------------------------------------------------------- 12.4


def sites(
    model,
    *,
    entry="attention",
    argument="tokens",
    block=True,
    prefix=True,
    first=False,
    layer="",
    kv=((0, 1), (1, 1)),
    parts="q k v out",
    parameter="weight",
):
    """The sites of a ParallelViT, with one thing changed."""
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, ParallelBlock):
            continue
        width = module.norm.normalized_shape[0]
        before = f"{name}." if prefix else ""

        def of(path, start=0, rows=width, before=before, width=width):
            return Projection(f"{before}attention.{path}", parameter, start, rows, width)

        (k, k_rows), (v, v_rows) = kv
        every = {
            "q": of("query"),
            "k": of("key_value", k * width, k_rows * width),
            "v": of("key_value", v * width, v_rows * width),
            "out": of("collect"),
        }
        found.append(
            AttentionSite(
                name=name + layer if prefix else name.split(".", name.count(".") - 1)[-1],
                tower="image",
                block=int(name.split(".")[-1]) if block else 0,
                width=width,
                entry=f"{before}{entry}" if entry else name,
                argument=argument,
                projections={part: every[part] for part in parts.split()},
            )
        )
        if first:
            break
    return found


def other(**options):
    return lambda model: sites(model, **options)


RIGHT = {
    "12.1": split,
    "12.2": proof,
    "12.3": pair,
    "12.4": lambda model: iter(sites(model)),
}

WRONG = {
    "12.1": {
        ("by picture", "pictures are divided, not objects"): changed(by_picture=True),
        ("over all classes", "choose within each class|never tested"): changed(by_class=False),
        ("not at least one", "cut off|never tested"): changed(least=False, cut=True),
        ("no bound below", "never tested"): changed(least=False),
        ("all but none left", "nothing is left"): changed(most=False),
        ("an unsorted set", "order in which files are listed"): changed(order=False, as_set=True),
        ("share of pictures", "not of its pictures|or it is of the pictures"): share_of_pictures,
        ("order of files", "order in which files are listed"): changed(order=False),
        ("exchanged", "sides are exchanged"): changed(exchanged=True),
        ("rounded up", "rounded up"): changed(up=True),
        ("names", "positions in the list are wanted"): changed(names=True),
        ("lost", "pictures are lost"): changed(lost=True),
        ("on both", "on both sides: the plainest"): changed(both=True),
        ("one list", "return the two lists"): lambda g, y, s: split(g, y, s)[1],
        ("sorted in place", "changed in place"): lambda g, y, s: (g.sort(), split(g, y, s))[1],
        ("one class tests", "never tested|nothing is left"): whole_classes,
    },
    "12.2": {
        ("no effect asked", "nothing is proved"): lambda b, a, m, t: bool(
            (a - m).abs().max() <= limit(a, t)
        ),
        ("against the base", "gives the base's outputs"): lambda b, a, m, t: (
            bool((b - m).abs().max() <= limit(a, t)) and effect(b, a, t)
        ),
        ("merged and base", "not the merged one"): lambda b, a, m, t: (
            bool((a - m).abs().max() <= limit(a, t)) and effect(b, m, t)
        ),
        ("effect by the mean", "is an effect, up or down"): lambda b, a, m, t: bool(
            (a - m).abs().max() <= limit(a, t) and (a - b).abs().mean() > limit(a, t)
        ),
        ("root mean square", "a mean hides"): lambda b, a, m, t: (
            bool((a - m).square().mean().sqrt() <= limit(a, t)) and effect(b, a, t)
        ),
        ("nan to 0", "comparison with nan"): lambda b, a, m, t: (
            bool((a - m.nan_to_num()).abs().max() <= limit(a, t)) and effect(b, a, t)
        ),
        ("a mean", "a mean hides|plain limit"): lambda b, a, m, t: (
            bool((a - m).abs().mean() <= 0.1) and effect(b, a, t)
        ),
        ("each by itself", "measured by itself"): lambda b, a, m, t: (
            torch.allclose(a, m, rtol=t, atol=0) and effect(b, a, t)
        ),
        ("largest without abs", "furthest from zero"): lambda b, a, m, t: (
            bool((a - m).abs().max() <= t * a.max()) and effect(b, a, t)
        ),
        ("norms", "no norm"): lambda b, a, m, t: (
            bool((a - m).norm() <= t * a.norm()) and effect(b, a, t)
        ),
        ("any effect", "within rounding"): lambda b, a, m, t: (
            bool((a - m).abs().max() <= limit(a, t)) and not torch.equal(a, b)
        ),
        ("a share's mean", "a mean hides"): lambda b, a, m, t: (
            bool((a - m).abs().mean() <= limit(a, t)) and effect(b, a, t)
        ),
        ("no abs", "abs\\(\\) before max"): lambda b, a, m, t: (
            bool((a - m).max() <= limit(a, t)) and effect(b, a, t)
        ),
        ("no abs the other way", "a mean hides|abs\\(\\) before max"): lambda b, a, m, t: (
            bool((m - a).max() <= limit(a, t)) and effect(b, a, t)
        ),
        ("absolute", "tolerance is a share"): lambda b, a, m, t: (
            bool((a - m).abs().max() <= t) and bool((a - b).abs().max() > t)
        ),
        ("to the bit", "to the last bit"): lambda b, a, m, t: (
            torch.equal(a, m) and not torch.equal(a, b)
        ),
        ("above, not within", "comparison with nan"): lambda b, a, m, t: (
            not bool((a - m).abs().max() > limit(a, t)) and effect(b, a, t)
        ),
        ("a tensor", "a plain True or False"): lambda b, a, m, t: (
            ((a - m).abs() <= limit(a, t)).all() & ((a - b).abs().max() > 0)
        ),
        ("in place", "changed in place"): in_place,
    },
    "12.3": {
        ("the pair itself", "own change|W has to act on it"): lambda w, a, b, s: (a, s * b),
        ("no scale", "the scale is lost"): lambda w, a, b, s: (a, w @ b),
        ("scale twice", "in both factors"): lambda w, a, b, s: (s * a, s * w @ b),
        ("over the rank", "divided by the rank"): lambda w, a, b, s: (a, s / len(a) * w @ b),
        ("exchanged", "factors are exchanged"): lambda w, a, b, s: (s * w @ b, a),
        ("turned round", "turned round"): lambda w, a, b, s: (a, (s * w @ b).T),
        ("W turned", "W is turned round|do not fit"): lambda w, a, b, s: (a, s * w.T @ b),
        ("one matrix", "both factors"): lambda w, a, b, s: s * w @ b @ a,
        ("dense", "two thin factors"): lambda w, a, b, s: (b @ a, s * w),
    },
    "12.4": {
        ("at the norm", "the MLP reads the norm's output"): other(entry="norm", argument=None),
        ("at the block", "residual stream, before the norm"): other(entry="", argument="x"),
        ("the output", "without an argument"): other(argument=None),
        ("another keyword", "attention\\(tokens=\\.\\.\\.\\)"): other(argument="x"),
        ("always block 0", "every site says it is block 0"): other(block=False),
        ("the first only", "only the first block"): other(first=True),
        ("named by attention", "that is the attention's name"): other(layer=".attention"),
        ("whole weight", "that is the whole weight"): other(kv=((0, 2), (0, 2))),
        ("v is k", "v begins below k"): other(kv=((0, 1), (0, 1))),
        ("k is v", "k and v are exchanged"): other(kv=((1, 1), (0, 1))),
        ("no out", "out is left out"): other(parts="q k v"),
        ("one returned", "yield each site instead"): lambda model: next(iter(sites(model)), None),
        ("end row", "not the row where they end"): other(kv=((0, 1), (1, 2))),
        ("no projections", "names what is missing"): lambda model: [
            AttentionSite(name="b", tower="image", block=0, width=12, entry="b")
        ],
        ("no prefix", "entry is a dotted name|begins with the block's"): other(prefix=False),
        ("the bias", "name of the weight inside"): other(parameter="bias"),
        ("fixed names", "inside another one"): lambda model: sites(ParallelViT(8, 4, 12, 3)),
        ("none found", "no block is found"): lambda model: [],
    },
}
