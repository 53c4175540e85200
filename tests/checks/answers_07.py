"""Right and wrong answers to the exercises of lesson 07."""

import torch
import torch.nn.functional as F

from serial_lora.attention import find_attention_sites
from serial_lora_course.measures.flow import add_noise, guide, velocity
from serial_lora_course.measures.pictures import clip_score

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


class ByPixels(Kept):
    def key(self, position, example):
        return example.picture.tobytes()


class ByBatch(Kept):
    def batch(self, examples):
        key = tuple(example.picture_id for example in examples)
        if key not in self.kept:
            self.kept[key] = torch.stack([self.encode(example) for example in examples])
        return self.kept[key].clone()


class Forgets(Kept):
    def batch(self, examples):
        ids = {example.picture_id for example in examples}
        self.kept = {key: kept for key, kept in self.kept.items() if key in ids}
        return super().batch(examples)


class SetDefault(Kept):
    def batch(self, examples):
        each = (self.kept.setdefault(e.picture_id, self.encode(e)) for e in examples)
        return torch.stack(list(each))


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
        ("ends exchanged", "ends are exchanged"): path(lambda x, n, s: s * x + (1 - s) * n),
        ("noise on top", "not taken away"): path(lambda x, n, s: x + s * n),
        ("curved", "curved path"): path(lambda x, n, s: (1 - s**2).sqrt() * x + s * n),
        ("along the width", "ran along the width"): not_broadcast,
        ("one level", "one noise level for all"): path(lambda x, n, s: x + s[0] * (n - x)),
        ("mean level", "mean noise level"): path(lambda x, n, s: x + s.mean() * (n - x)),
        ("only noise", "only the noise's part"): path(lambda x, n, s: s * n),
        ("whole noise", "noise comes in whole"): path(lambda x, n, s: (1 - s) * x + n),
        ("along the channels", "\\(B, 1, 1, 1\\)"): lambda x, n, s: (
            x + s[:, None, None] * (n - x),
            n - x,
        ),
        ("divided", "divided by sigma"): path(speed=lambda x, n, s: s * (n - x) / s),
        ("velocity first", "velocity came first"): lambda x, n, s: path()(x, n, s)[::-1],
        ("points only", "return both"): lambda x, n, s: path()(x, n, s)[0],
        ("in place", "changed in place"): path_in_place,
        ("sign", "the sign"): path(speed=lambda x, n, s: x - n),
        ("gone so far", "way gone so far"): path(speed=lambda x, n, s: s * (n - x)),
        ("still to go", "way still to go"): path(speed=lambda x, n, s: (1 - s) * (n - x)),
        ("the noise", "older diffusion models predict"): path(speed=lambda x, n, s: n),
        ("the picture", "that is the picture"): path(speed=lambda x, n, s: x),
        ("half", "half of it"): path(speed=lambda x, n, s: (n - x) / 2),
    },
    "7.2": {
        ("last block", "no to_add_out"): names(),
        ("other stream", "other stream"): other_stream,
        ("always image", "other stream"): lambda t, stream: by_sites(t, "image"),
        ("always both", "those are both streams"): lambda t, stream: by_sites(t, "both"),
        ("both is image", "two streams together"): lambda t, stream: by_sites(
            t, "image" if stream == "both" else stream
        ),
        ("to_out", "the layer is to_out.0"): names(image=("to_q", "to_k", "to_v", "to_out")),
        ("no out", "output projection is missing"): names(IMAGE[:3], TEXT[:3]),
        ("no v", "some blocks or layers are left out"): names(("to_q", "to_k", "to_out.0")),
        ("first block", "some blocks or layers are left out"): names(blocks=slice(1)),
        ("feed-forward", "layers outside attention"): with_feed_forward,
        ("six blocks", "not always as many"): six_blocks,
        ("short names", "no layers of these names"): names(start="blocks."),
        ("twice", "listed twice"): lambda t, stream: by_sites(t, stream) * 2,
        ("layers", "names are wanted"): lambda t, stream: [
            t.get_submodule(name) for name in by_sites(t, stream)
        ],
        ("a number", "names are wanted"): lambda t, stream: len(by_sites(t, stream)),
        ("a generator", "make a list"): lambda t, stream: (n for n in by_sites(t, stream)),
        ("keys", "make a list"): lambda t, stream: dict.fromkeys(by_sites(t, stream)).keys(),
        ("one text", "make a list"): lambda t, stream: " ".join(by_sites(t, stream)),
        ("parameters", "before .weight"): lambda t, stream: [
            f"{name}.weight" for name in by_sites(t, stream)
        ],
        ("by to_", "belongs to the text stream"): lambda t, stream: [
            name
            for name in by_sites(t, "both")
            if {"image": "to_", "text": "add_"}.get(stream, "attn") in name
        ],
    },
    "7.3": {
        ("by position", "kept by position"): ByPosition,
        ("by step", "kept by position"): ByStep,
        ("by caption", "kept under the caption"): ByCaption,
        ("by address", "not the object"): ByAddress,
        ("by pixels", "kept under the pixels"): ByPixels,
        ("by batch", "not the whole batch"): ByBatch,
        ("forgets", "nothing is forgotten"): Forgets,
        ("setdefault", "what is known is encoded again"): SetDefault,
        ("own order", "order is the cache's own"): InItsOwnOrder,
        ("everything", "all that is known comes back"): Everything,
        ("a list", "a list of tensors"): AsAList,
        ("its own tensor", "what was handed out"): HandsOutItsOwn,
        ("not kept", "what is known is encoded again"): NotKept,
        ("shared", "two caches share"): SharedByAll,
        ("cat", "one dimension more"): OneAfterTheOther,
        ("twice in a batch", "encoded twice"): NewOnesAtOnce,
        ("nothing", "is `return` missing"): Unfinished,
        ("a function", "keep the class"): lambda encode: encode,
    },
    "7.4": {
        ("exchanged", "two answers are exchanged"): lambda e, p, w: p + w * (e - p),
        ("off by one", "off by one"): lambda e, p, w: (1 + w) * p - w * e,
        ("average", "an average"): lambda e, p, w: (e + w * p) / (1 + w),
        ("difference", "difference alone"): lambda e, p, w: w * (p - e),
        ("prompt scaled", "prompt's answer is scaled"): lambda e, p, w: e + w * p,
        ("no empty", "empty prompt's answer plays no part"): lambda e, p, w: w * p,
        ("no guidance", "guidance plays no part|kept between"): lambda e, p, w: p,
        ("only above 1", "below 1 the prompt's"): lambda e, p, w: guide(e, p, w) if w > 1 else p,
        ("sign", "sign of the difference"): lambda e, p, w: e + w * (e - p),
        ("one too little", "one too little"): lambda e, p, w: guide(e, p, w - 1),
        ("kept between", "plays no part|kept between"): lambda e, p, w: guide(e, p, min(w, 1)),
        ("in place", "changed in place"): lambda e, p, w: e.add_(w * (p - e)),
    },
    "7.5": {
        ("softmax of one", "softmax over a single"): score(lambda c: c[:, None].softmax(-1)[:, 0]),
        ("softmax over captions", "softmax over the captions"): lambda i, t: (
            (unit(i) @ unit(t).T).softmax(-1).diag()
        ),
        ("all pairs", "every picture with every"): lambda i, t: (
            2.5 * (unit(i) @ unit(t).T).clamp(min=0)
        ),
        ("no factor", "2.5 is missing"): score(lambda c: c.clamp(min=0)),
        ("negative", "count as 0"): score(lambda c: 2.5 * c),
        ("absolute", "size without the sign"): score(lambda c: 2.5 * c.abs()),
        ("softmax over pairs", "softmax over the pairs"): score(lambda c: (100 * c).softmax(-1)),
        ("columns", "column by column"): lambda i, t: (
            2.5 * torch.cosine_similarity(i, t, dim=0).clamp(min=0)
        ),
        ("in place", "changed in place"): score_in_place,
        ("not normalised", "features are not"): lambda i, t: 2.5 * (i * t).sum(-1).clamp(min=0),
        ("only pictures", "only the pictures'"): lambda i, t: (
            2.5 * (unit(i) * t).sum(-1).clamp(min=0)
        ),
        ("only captions", "only the captions'"): lambda i, t: (
            2.5 * (i * unit(t)).sum(-1).clamp(min=0)
        ),
        ("along the batch", "along the batch"): lambda i, t: (
            2.5 * (unit(i, 0) * unit(t, 0)).sum(-1).clamp(min=0)
        ),
        ("hundredfold", "another convention"): score(lambda c: 100 * c.clamp(min=0)),
        ("mean", "that is the mean"): score(lambda c: 2.5 * c.clamp(min=0).mean()),
        ("one norm for all", "norm of the whole batch"): lambda i, t: (
            2.5 * ((i * t).sum(-1) / (i.norm() * t.norm())).clamp(min=0)
        ),
        ("moved", "moved to between 0 and 1"): score(lambda c: 2.5 * (c + 1) / 2),
        ("cut at 1", "cut off at 1"): score(lambda c: (2.5 * c).clamp(0, 1)),
    },
}
