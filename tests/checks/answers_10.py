"""Right and wrong answers to the exercises of lesson 10."""

import hashlib

import torch

from serial_lora.sites import AttentionSite, Projection
from serial_lora_course.models.parallel_vit import ParallelBlock, ParallelViT

# ------------------------------------------------------------------------- 10.1


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
    cut=False,
    exchanged=False,
    names=False,
    lost=False,
    both=False,
):
    """Objects ordered by a hash of their names, with one thing changed."""

    def chosen(items):
        items = list(dict.fromkeys(items))
        if order:
            items.sort(key=lambda item: hashlib.sha256(str(item).encode()).hexdigest())
        count = int(share * len(items)) if cut else round(share * len(items))
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


def whole_classes(groups, labels, share):
    test = [i for i, label in enumerate(labels) if label == max(labels)]
    return [i for i in range(len(labels)) if i not in test], test


# ------------------------------------------------------------------------- 10.2


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


# ------------------------------------------------------------------------- 10.3


def pair(weight, lora_A, lora_B, scale):
    return lora_A.clone(), torch.einsum("oi,ir->or", weight, scale * lora_B)


# ------------------------------------------------------------------------- 10.4


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
    "10.1": split,
    "10.2": proof,
    "10.3": pair,
    "10.4": lambda model: iter(sites(model)),
}

WRONG = {
    "10.1": {
        "by picture": (changed(by_picture=True), "pictures are divided, not objects"),
        "over all classes": (changed(by_class=False), "choose within each class|never tested"),
        "not at least one": (changed(least=False, cut=True), "cut off|never tested"),
        "no bound below": (changed(least=False), "never tested"),
        "all but none left": (changed(most=False), "nothing is left"),
        "order of files": (changed(order=False), "order in which files are listed"),
        "exchanged": (changed(exchanged=True), "sides are exchanged"),
        "names": (changed(names=True), "positions in the list are wanted"),
        "lost": (changed(lost=True), "pictures are lost"),
        "on both": (changed(both=True), "on both sides: the plainest"),
        "one list": (lambda g, y, s: split(g, y, s)[1], "return the two lists"),
        "one class tests": (whole_classes, "never tested|nothing is left"),
    },
    "10.2": {
        "no effect asked": (
            lambda b, a, m, t: bool((a - m).abs().max() <= limit(a, t)),
            "nothing is proved",
        ),
        "against the base": (
            lambda b, a, m, t: bool((b - m).abs().max() <= limit(a, t)) and effect(b, a, t),
            "gives the base's outputs",
        ),
        "a mean": (
            lambda b, a, m, t: bool((a - m).abs().mean() <= 0.1) and effect(b, a, t),
            "a mean hides|plain limit",
        ),
        "each by itself": (
            lambda b, a, m, t: torch.allclose(a, m, rtol=t, atol=0) and effect(b, a, t),
            "measured by itself",
        ),
        "largest without abs": (
            lambda b, a, m, t: bool((a - m).abs().max() <= t * a.max()) and effect(b, a, t),
            "furthest from zero",
        ),
        "any effect": (
            lambda b, a, m, t: bool((a - m).abs().max() <= limit(a, t)) and not torch.equal(a, b),
            "within rounding",
        ),
        "a share's mean": (
            lambda b, a, m, t: bool((a - m).abs().mean() <= limit(a, t)) and effect(b, a, t),
            "a mean hides",
        ),
        "no abs": (
            lambda b, a, m, t: bool((a - m).max() <= limit(a, t)) and effect(b, a, t),
            "abs\\(\\) before max",
        ),
        "no abs the other way": (
            lambda b, a, m, t: bool((m - a).max() <= limit(a, t)) and effect(b, a, t),
            "a mean hides|abs\\(\\) before max",
        ),
        "absolute": (
            lambda b, a, m, t: bool((a - m).abs().max() <= t) and bool((a - b).abs().max() > t),
            "tolerance is a share",
        ),
        "to the bit": (
            lambda b, a, m, t: torch.equal(a, m) and not torch.equal(a, b),
            "to the last bit",
        ),
        "above, not within": (
            lambda b, a, m, t: not bool((a - m).abs().max() > limit(a, t)) and effect(b, a, t),
            "comparison with nan",
        ),
        "a tensor": (
            lambda b, a, m, t: ((a - m).abs() <= limit(a, t)).all() & ((a - b).abs().max() > 0),
            "a plain True or False",
        ),
        "in place": (in_place, "changed in place"),
    },
    "10.3": {
        "the pair itself": (lambda w, a, b, s: (a, s * b), "own change|W has to act on it"),
        "no scale": (lambda w, a, b, s: (a, w @ b), "the scale is lost"),
        "scale twice": (lambda w, a, b, s: (s * a, s * w @ b), "in both factors"),
        "exchanged": (lambda w, a, b, s: (s * w @ b, a), "factors are exchanged"),
        "turned round": (lambda w, a, b, s: (a, (s * w @ b).T), "turned round"),
        "W turned": (lambda w, a, b, s: (a, s * w.T @ b), "W is turned round|do not fit"),
        "one matrix": (lambda w, a, b, s: s * w @ b @ a, "both factors"),
        "dense": (lambda w, a, b, s: (b @ a, s * w), "two thin factors"),
    },
    "10.4": {
        "at the norm": (other(entry="norm", argument=None), "the MLP reads the norm's output"),
        "at the block": (other(entry="", argument="x"), "residual stream, before the norm"),
        "the output": (other(argument=None), "without an argument"),
        "another keyword": (other(argument="x"), "attention\\(tokens=\\.\\.\\.\\)"),
        "always block 0": (other(block=False), "every site says it is block 0"),
        "the first only": (other(first=True), "only the first block"),
        "named by attention": (other(layer=".attention"), "that is the attention's name"),
        "whole weight": (other(kv=((0, 2), (0, 2))), "that is the whole weight"),
        "v is k": (other(kv=((0, 1), (0, 1))), "v begins below k"),
        "k is v": (other(kv=((1, 1), (0, 1))), "k and v are exchanged"),
        "no out": (other(parts="q k v"), "out is left out"),
        "one returned": (lambda model: next(iter(sites(model)), None), "yield each site instead"),
        "end row": (other(kv=((0, 1), (1, 2))), "not the row where they end"),
        "no projections": (
            lambda model: [AttentionSite(name="b", tower="image", block=0, width=12, entry="b")],
            "names what is missing",
        ),
        "no prefix": (other(prefix=False), "entry is a dotted name|begins with the block's"),
        "the bias": (other(parameter="bias"), "name of the weight inside"),
        "fixed names": (lambda model: sites(ParallelViT(8, 4, 12, 3)), "inside another one"),
        "none found": (lambda model: [], "no block is found"),
    },
}
