"""Right and wrong answers to the exercises of lesson 07."""

import torch
import torch.nn.functional as F

from serial_lora.attention import find_attention_sites
from serial_lora.flow import add_noise, guide, velocity
from serial_lora.picture_metrics import clip_score

# ------------------------------------------------------------------------- 7.1 path and velocity


def path(point=None, speed=None):
    """The path with one thing changed; each takes (x, n, s) with s of shape (B, 1, 1, 1)."""

    def attempt(x, n, sigmas):
        s = sigmas.view(-1, 1, 1, 1)
        points = add_noise(x, n, sigmas) if point is None else point(x, n, s)
        return points, velocity(x, n) if speed is None else speed(x, n, s)

    return attempt


def not_broadcast(x, n, sigmas):
    return (1 - sigmas) * x + sigmas * n, n - x


def path_in_place(x, n, sigmas):
    s, speed = sigmas.view(-1, 1, 1, 1), n - x
    return x.mul_(1 - s).add_(s * n), speed


# --------------------------------------------------------------------------------- 7.2 streams


def by_sites(transformer, stream):
    """By the package's own walk."""
    sites = find_attention_sites(transformer, stream=stream)
    return [each.module for site in sites for each in site.projections.values()]


IMAGE = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def names(image=IMAGE, text=TEXT, blocks=slice(None), start="transformer_blocks."):
    """Written down: these layers of these blocks, whether the model has them or not."""

    def attempt(transformer, stream):
        chosen = {"image": image, "text": text, "both": image + text}[stream]
        indices = range(len(transformer.transformer_blocks))[blocks]
        return [f"{start}{index}.attn.{name}" for index in indices for name in chosen]

    return attempt


def six_blocks(transformer, stream):
    """The tiny model's image stream, whatever the model is."""
    return [f"transformer_blocks.{index}.attn.{name}" for index in range(6) for name in IMAGE]


def other_stream(transformer, stream):
    return by_sites(transformer, {"image": "text", "text": "image"}.get(stream, stream))


def with_feed_forward(transformer, stream):
    blocks = range(len(transformer.transformer_blocks))
    inner = [f"transformer_blocks.{index}.ff.net.2" for index in blocks]
    return by_sites(transformer, stream) + inner


# ----------------------------------------------------------------------------------- 7.3 cache


class Kept:
    """A right cache, and with other keys a wrong one."""

    def __init__(self, encode):
        self.encode, self.kept = encode, {}

    def key(self, position, example):
        return example.picture_id

    def batch(self, examples):
        keys = [self.key(position, example) for position, example in enumerate(examples)]
        for key, example in zip(keys, examples, strict=True):
            if key not in self.kept:
                self.kept[key] = self.encode(example)
        return self.answer(keys)

    def answer(self, keys):
        return torch.cat([self.kept[key][None] for key in keys])


class ByPosition(Kept):
    def key(self, position, example):
        return position


class ByCaption(Kept):
    def key(self, position, example):
        return example.caption


class ByAddress(Kept):
    def key(self, position, example):
        return id(example)


class InItsOwnOrder(Kept):
    def answer(self, keys):
        return torch.stack([kept for key, kept in self.kept.items() if key in keys])


class Everything(Kept):
    def answer(self, keys):
        return torch.stack(list(self.kept.values()))


class AsAList(Kept):
    def answer(self, keys):
        return [self.kept[key] for key in keys]


class HandsOutItsOwn(Kept):
    def answer(self, keys):
        return self.kept[keys[0]][None] if len(keys) == 1 else super().answer(keys)


class NotKept(Kept):
    def batch(self, examples):
        return torch.stack([self.encode(example) for example in examples])


class NewOnesAtOnce(Kept):
    def batch(self, examples):
        new = [each for each in examples if each.picture_id not in self.kept]
        self.kept |= {each.picture_id: self.encode(each) for each in new}
        return self.answer([each.picture_id for each in examples])


class ByStep(Kept):
    """A round of one step: what was encoded at that step of the first round comes back."""

    def batch(self, examples):
        if "step 0" not in self.kept:
            self.kept["step 0"] = torch.stack([self.encode(example) for example in examples])
        return self.kept["step 0"]


class SharedByAll(Kept):
    kept = {}

    def __init__(self, encode):
        self.encode = encode


class OneAfterTheOther(Kept):
    def answer(self, keys):
        return torch.cat([self.kept[key] for key in keys])


class Unfinished(Kept):
    def batch(self, examples):
        super().batch(examples)


# -------------------------------------------------------------------------------- 7.5 CLIP-Score


def score(change):
    """``change(cosines)`` of the pairs' cosines (N,)."""
    return lambda images, texts: change(torch.cosine_similarity(images, texts, dim=-1))


def score_in_place(images, texts):
    images /= images.norm(dim=-1, keepdim=True)
    texts /= texts.norm(dim=-1, keepdim=True)
    return 2.5 * (images * texts).sum(-1).clamp(min=0)


def unit(x, dim=-1):
    return F.normalize(x, dim=dim)


RIGHT = {
    "7.1": lambda x, n, s: (add_noise(x, n, s), velocity(x, n)),
    "7.2": by_sites,
    "7.3": Kept,
    "7.4": guide,
    "7.5": clip_score,
}

WRONG = {
    "7.1": {
        "ends exchanged": (path(lambda x, n, s: s * x + (1 - s) * n), "ends are exchanged"),
        "noise on top": (path(lambda x, n, s: x + s * n), "not taken away"),
        "curved": (path(lambda x, n, s: (1 - s**2).sqrt() * x + s * n), "curved path"),
        "along the width": (not_broadcast, "ran along the width"),
        "one level": (path(lambda x, n, s: x + s[0] * (n - x)), "one noise level for all"),
        "mean level": (path(lambda x, n, s: x + s.mean() * (n - x)), "mean noise level"),
        "only noise": (path(lambda x, n, s: s * n), "only the noise's part"),
        "velocity first": (lambda x, n, s: path()(x, n, s)[::-1], "velocity came first"),
        "points only": (lambda x, n, s: path()(x, n, s)[0], "return both"),
        "in place": (path_in_place, "changed in place"),
        "sign": (path(speed=lambda x, n, s: x - n), "the sign"),
        "gone so far": (path(speed=lambda x, n, s: s * (n - x)), "way gone so far"),
        "still to go": (path(speed=lambda x, n, s: (1 - s) * (n - x)), "way still to go"),
        "the noise": (path(speed=lambda x, n, s: n), "older diffusion models predict"),
        "the picture": (path(speed=lambda x, n, s: x), "that is the picture"),
        "half": (path(speed=lambda x, n, s: (n - x) / 2), "half of it"),
    },
    "7.2": {
        "last block": (names(), "no to_add_out"),
        "other stream": (other_stream, "other stream"),
        "always image": (lambda t, stream: by_sites(t, "image"), "other stream"),
        "always both": (lambda t, stream: by_sites(t, "both"), "those are both streams"),
        "both is image": (
            lambda t, stream: by_sites(t, "image" if stream == "both" else stream),
            "two streams together",
        ),
        "to_out": (names(image=("to_q", "to_k", "to_v", "to_out")), "the layer is to_out.0"),
        "no out": (names(IMAGE[:3], TEXT[:3]), "output projection is missing"),
        "no v": (names(("to_q", "to_k", "to_out.0")), "some blocks or layers are left out"),
        "first block": (names(blocks=slice(1)), "some blocks or layers are left out"),
        "feed-forward": (with_feed_forward, "layers outside attention"),
        "six blocks": (six_blocks, "not always as many"),
        "short names": (names(start="blocks."), "no layers of these names"),
        "twice": (lambda t, stream: by_sites(t, stream) * 2, "listed twice"),
        "layers": (
            lambda t, stream: [t.get_submodule(name) for name in by_sites(t, stream)],
            "names are wanted",
        ),
        "a number": (lambda t, stream: len(by_sites(t, stream)), "names are wanted"),
    },
    "7.3": {
        "by position": (ByPosition, "kept by position"),
        "by step": (ByStep, "kept by position"),
        "by caption": (ByCaption, "kept under the caption"),
        "by address": (ByAddress, "not the object"),
        "own order": (InItsOwnOrder, "order is the cache's own"),
        "everything": (Everything, "all that is known comes back"),
        "a list": (AsAList, "a list of tensors"),
        "its own tensor": (HandsOutItsOwn, "what was handed out"),
        "not kept": (NotKept, "what is known is encoded again"),
        "shared": (SharedByAll, "two caches share"),
        "cat": (OneAfterTheOther, "one dimension more"),
        "twice in a batch": (NewOnesAtOnce, "encoded twice"),
        "nothing": (Unfinished, "is `return` missing"),
        "a function": (lambda encode: encode, "keep the class"),
    },
    "7.4": {
        "exchanged": (lambda e, p, w: p + w * (e - p), "two answers are exchanged"),
        "off by one": (lambda e, p, w: (1 + w) * p - w * e, "off by one"),
        "average": (lambda e, p, w: (e + w * p) / (1 + w), "an average"),
        "difference": (lambda e, p, w: w * (p - e), "difference alone"),
        "prompt scaled": (lambda e, p, w: e + w * p, "prompt's answer is scaled"),
        "no empty": (lambda e, p, w: w * p, "empty prompt's answer plays no part"),
        "no guidance": (lambda e, p, w: p, "guidance plays no part|kept between"),
        "sign": (lambda e, p, w: e + w * (e - p), "sign of the difference"),
        "one too little": (lambda e, p, w: guide(e, p, w - 1), "one too little"),
        "kept between": (lambda e, p, w: guide(e, p, min(w, 1)), "plays no part|kept between"),
        "in place": (lambda e, p, w: e.add_(w * (p - e)), "changed in place"),
    },
    "7.5": {
        "softmax of one": (score(lambda c: c[:, None].softmax(-1)[:, 0]), "softmax over a single"),
        "softmax over captions": (
            lambda i, t: (unit(i) @ unit(t).T).softmax(-1).diag(),
            "softmax over the captions",
        ),
        "all pairs": (
            lambda i, t: 2.5 * (unit(i) @ unit(t).T).clamp(min=0),
            "every picture with every",
        ),
        "no factor": (score(lambda c: c.clamp(min=0)), "2.5 is missing"),
        "negative": (score(lambda c: 2.5 * c), "count as 0"),
        "absolute": (score(lambda c: 2.5 * c.abs()), "size without the sign"),
        "softmax over pairs": (score(lambda c: (100 * c).softmax(-1)), "softmax over the pairs"),
        "columns": (
            lambda i, t: 2.5 * torch.cosine_similarity(i, t, dim=0).clamp(min=0),
            "column by column",
        ),
        "in place": (score_in_place, "changed in place"),
        "not normalised": (lambda i, t: 2.5 * (i * t).sum(-1).clamp(min=0), "features are not"),
        "only pictures": (
            lambda i, t: 2.5 * (unit(i) * t).sum(-1).clamp(min=0),
            "only the pictures'",
        ),
        "only captions": (
            lambda i, t: 2.5 * (i * unit(t)).sum(-1).clamp(min=0),
            "only the captions'",
        ),
        "along the batch": (
            lambda i, t: 2.5 * (unit(i, 0) * unit(t, 0)).sum(-1).clamp(min=0),
            "along the batch",
        ),
        "hundredfold": (score(lambda c: 100 * c.clamp(min=0)), "another convention"),
        "mean": (score(lambda c: 2.5 * c.clamp(min=0).mean()), "that is the mean"),
        "cut at 1": (score(lambda c: (2.5 * c).clamp(0, 1)), "cut off at 1"),
    },
}
