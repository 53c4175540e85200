"""Checks of lesson 07: the flow path, the two streams, the cache, guidance, CLIP-Score.

Every expected value is reached another way than in the lesson: one picture or one number at a time,
by finite differences, or by asking a model for the names of its layers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from serial_lora_course.checking.message import likely, require
from serial_lora_course.checks.cases import Case, Part, call, compare
from serial_lora_course.checks.checking import exercise
from serial_lora_course.data.types import StyleExample

# ------------------------------------------------------------------- 7.1 the path and its velocity


def point_between(latent: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Where one picture is when it has gone the share ``sigma`` of its way to the noise."""
    return torch.lerp(latent.double(), noise.double(), sigma)


def speed_at(latent: Tensor, noise: Tensor, sigma: float, step: float = 1e-3) -> Tensor:
    """How fast it goes there, by finite differences."""
    ahead, behind = (point_between(latent, noise, sigma + s) for s in (step, -step))
    return (ahead - behind) / (2 * step)


@exercise(
    "7.1",
    "equal to one picture at a time, and the velocity to finite differences, at both ends too",
)
def flow_path() -> Iterator[Case]:
    """Points and velocities of batches whose width does, and does not, equal their size."""
    batches = ((2, 3, 4), [0.25, 0.5, 0.9, 0.0]), ((2, 4, 5), [0.7, 0.1]), ((2, 3, 3), [1.0])
    for sizes, sigmas in batches:
        x, n = torch.randn(2, len(sigmas), *sizes)
        what = f"{len(sigmas)} latents of {' x '.join(map(str, sizes))}, sigmas {sigmas}"
        each = list(zip(x, n, sigmas, strict=True))
        points = torch.stack([point_between(*one) for one in each]).float()
        speeds = torch.stack([speed_at(*one) for one in each]).float()
        levels = torch.tensor(sigmas)
        s, mean = levels[:, None, None, None], levels.mean()
        path = {
            "the ends are exchanged: sigma 0 is the picture, 1 the noise": s * x + (1 - s) * n,
            "the picture is not taken away as noise comes in: at sigma 1 it is gone": x + s * n,
            "that is the curved path of older diffusion models: here the way is straight": (
                (1 - s.square()).sqrt() * x + s * n
            ),
            "one noise level for all: every picture has a sigma of its own": x + s[0] * (n - x),
            "the mean noise level for all: every picture has a sigma of its own": (
                x + mean * (n - x)
            ),
            "the velocity came first: return the points, then the velocity": speeds,
            "only the noise's part: the picture's is missing": s * n,
            "the noise comes in whole: its share is sigma": (1 - s) * x + n,
            "sigmas ran along the width, since it has as many columns as there are pictures, and "
            "nothing complained: give them the shape (B, 1, 1, 1)": (
                lambda x=x, n=n, levels=levels: (1 - levels) * x + levels * n
            ),
        }
        velocity = {
            "the sign: sigma grows from the picture to the noise, so the way leads there": x - n,
            "that is the way gone so far: the velocity is the same everywhere": s * (n - x),
            "that is the way still to go: the velocity is the same everywhere": (1 - s) * (n - x),
            "that is the noise, which older diffusion models predict: the picture is subtracted": n,
            "that is the picture: the velocity is a difference": x,
            "that is half of it: noise minus picture, not their middle": (n - x) / 2,
        }
        parts = [
            Part(f"the points of {what}", points, path),
            Part(
                f"the velocity of {what}",
                speeds,
                velocity,
                tolerance=1e-4,
                nan="divided by sigma, which may be 0: the velocity is the end minus the beginning",
            ),
        ]
        yield Case(
            what,
            (x, n, levels),
            parts,
            form="return both, the points first",
            error="sigmas are (B,): give them the shape (B, 1, 1, 1) before they meet a picture",
        )


# ------------------------------------------------------------------------------ 7.2 two streams


@cache
def small_transformer(layers: int) -> nn.Module:
    """SD3's own transformer with narrow tokens."""
    from diffusers import SD3Transformer2DModel  # takes seconds to import

    sizes = {"sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 4}
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "pos_embed_max_size": 8}
    widths = {"joint_attention_dim": 12, "caption_projection_dim": 16, "pooled_projection_dim": 8}
    return SD3Transformer2DModel(num_layers=layers, **sizes, **heads, **widths)


def linear_names(transformer: nn.Module, stream: str) -> set[str]:
    """The linear layers that read or write one stream's tokens inside an attention layer.

    diffusers calls those of the text stream "added".
    """
    inside = {
        name
        for name, layer in transformer.named_modules()
        if isinstance(layer, nn.Linear) and ".attn." in name
    }
    text = {name for name in inside if "add" in name.rpartition(".attn.")[2]}
    return {"image": inside - text, "text": text, "both": inside}[stream]


@exercise("7.2")
def projections_of(attempt) -> str:
    """The names for every stream, in transformers of one, two and four blocks."""
    for layers in (2, 4, 1):
        transformer = small_transformer(layers)
        for stream in ("image", "text", "both"):
            what = f'stream "{stream}" of {layers} block{"s" * (layers > 1)}'
            _require_names(what, call(attempt, transformer, stream, what=what), transformer, stream)
    return "the names that the model itself gives those layers, for three depths and all streams"


PREFIX = "the model has no layers of these names: they begin with transformer_blocks.0.attn"


def _require_names(what: str, got, transformer: nn.Module, stream: str) -> None:
    missing = "the function returns nothing: is `return` missing?"
    listed = isinstance(got, list | tuple | set)
    kind = likely(
        {"make a list of the names": isinstance(got, Iterable) and not listed},
        "names are wanted, such as those that named_modules() gives, not layers",
    )
    names = listed and all(isinstance(name, str) for name in got)
    require(names, what, "a list of names", got, missing if got is None else kind)
    repeated = [name for name, count in Counter(got).items() if count > 1]
    layers, blocks = dict(transformer.named_modules()), len(transformer.transformer_blocks)
    cause = likely(
        {PREFIX: not set(got) & set(layers)},
        "a layer is listed twice: one pair would be counted twice",
    )
    require(not repeated, what, "every name once", ", ".join(repeated[:2]), cause)
    expected, found = linear_names(transformer, stream), set(got)
    image, text = (linear_names(transformer, each) for each in ("image", "text"))
    extra, missing = sorted(found - expected), sorted(expected - found)
    numbers = [re.match(r"transformer_blocks\.(\d+)\.", name) for name in found - set(layers)]
    conditions = {
        "the blocks are not always as many: len(transformer.transformer_blocks) counts them": any(
            number and int(number[1]) >= blocks for number in numbers
        ),
        "the last block has no to_add_out: the text tokens end there, nobody reads them": (
            f"transformer_blocks.{blocks - 1}.attn.to_add_out" in found
        ),
        "to_out is a list of a linear layer and a dropout: the layer is to_out.0": any(
            name.endswith("to_out") for name in found
        ),
        "those are parameters: the layers' names end before .weight and .bias": all(
            name.endswith((".weight", ".bias")) for name in found
        ),
        PREFIX: not found & set(layers),
        "that is the other stream: the text stream's layers have add in their names": (
            found in (image, text) and stream != "both"
        ),
        "both means the layers of the two streams together": found in (image, text),
        "those are both streams: take the one that is asked for": found == image | text,
        "layers outside attention are listed: norms and feed-forward layers have no pair": any(
            ".attn." not in name for name in extra
        ),
        "to_add_out belongs to the text stream, though to_ is in its name": any(
            name.endswith("to_add_out") for name in extra
        ),
        "the output projection is missing: LoRA stands beside q, k, v and out": (
            bool(missing) and all(name.endswith(("to_out.0", "to_add_out")) for name in missing)
        ),
        "some blocks or layers are left out: every block has its own": not extra,
    }
    surplus = f"; not wanted: {extra[0]}" if extra else ""
    lacking = f"; missing: {missing[0]}" if missing else ""
    said = f"{len(found)} names{surplus}{lacking}"
    cause = likely(conditions, "compare with the names that named_modules() gives")
    require(found == expected, what, f"{len(expected)} names", said, cause)


# ------------------------------------------------------------------- 7.3 kept under the right name


class Pictures:
    """Six pictures, two of them with one caption, two that look alike; each access is a new object.

    ``encode`` answers with the picture's grey and the caption's length, and counts.
    """

    captions = ("a cat", "a clock", "a hot pepper", "a cat", "an owl at night", "rain")
    greys = (10, 50, 90, 130, 170, 10)

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.alive: list[StyleExample] = []  # else addresses in memory would be used again

    def some(self, indices: Sequence[int]) -> list[StyleExample]:
        """These pictures, each as a new object."""
        examples = []
        for index in indices:
            picture = Image.new("RGB", (2, 2), (self.greys[index],) * 3)
            examples.append(StyleExample(picture, self.captions[index], f"picture-{index}"))
        self.alive += examples
        return examples

    def encode(self, example: StyleExample) -> Tensor:
        """(2,): the picture's grey, and how long its caption is."""
        self.encoded.append(example.picture_id)
        return torch.tensor([float(example.picture.getpixel((0, 0))[0]), len(example.caption)])

    def truth(self, indices: Sequence[int]) -> Tensor:
        """(B, 2), what a batch of these pictures is to hold."""
        return torch.tensor([[float(self.greys[i]), len(self.captions[i])] for i in indices])


TWICE = "a picture that is in the batch twice"
ROUNDS = {
    "known pictures in another order, and a new one": (2, 0, 3),
    "the first pictures, shuffled": (1, 2, 0),
    "only one of them": (1,),
    "another new one among known ones": (3, 4, 1),
    TWICE: (5, 5, 0),
    "all of them, shuffled": (3, 5, 1, 0, 4, 2),
}


@exercise("7.3")
def encoded_once(attempt: Callable) -> str:
    """Batches in order, shuffled, in part, with repetitions; counts of encoding; two caches."""
    data = Pictures()
    cache = call(attempt, data.encode, what="EncodedOnce(encode)")
    cause = "keep the class and its two methods as the stub has them"
    has = hasattr(cache, "batch")
    require(has, "EncodedOnce(encode)", "an object with a method batch", cache, cause)
    first = data.some((0, 1, 2))
    _require_batch("the first batch", cache, first, (0, 1, 2), data)
    _require_batch("the very same batch again", cache, first, (0, 1, 2), data)
    known = "what is known is encoded again: look it up first"
    _require_count("a batch that came again", data, known)
    for what, order in ROUNDS.items():
        _require_batch(what, cache, data.some(order), order, data)
        cause = (
            "a picture that is twice in one batch is encoded twice: look it up before each"
            if what == TWICE
            else "a known picture was encoded again: the key is its picture_id, not the object, not "
            "where it lies in memory, not the whole batch; and nothing is forgotten between batches"
        )
        _require_count(what, data, cause)
    single = cache.batch(data.some((2,)))
    single += 1000
    what = "a picture whose batch was changed afterwards"
    _require_batch(what, cache, data.some((2,)), (2,), data)
    negative = call(attempt, lambda example: -data.encode(example), what="a second EncodedOnce")
    got = call(negative.batch, data.some((1, 0)), what="batch() of a second EncodedOnce")
    truth = data.truth((1, 0))
    shared = {"two caches share what they keep: make the dictionary in __init__": truth}
    compare("the batch of a second cache, with another encode", got, -truth, shared)
    return "right for every order and every part, each picture encoded once"


def _require_batch(what: str, cache, examples: list, order: Sequence[int], data: Pictures) -> None:
    got, truth = call(cache.batch, examples, what=f"batch() of {what}"), data.truth(order)
    cause = "a list of tensors: torch.stack makes one of them"
    require(not isinstance(got, list), f"the batch of {what}", "one tensor, (B, ...)", got, cause)
    compare(
        f"the batch of {what}",
        got,
        truth,
        {
            "kept by position in the batch: shuffled, position 0 holds another picture": (
                data.truth(range(len(order)))
            ),
            "kept under the caption: two pictures may share one, and here two do": (
                data.truth([data.captions.index(data.captions[index]) for index in order])
            ),
            "kept under the pixels: two pictures may look alike, and here two do": (
                data.truth([data.greys.index(data.greys[index]) for index in order])
            ),
            "the order is the cache's own: give the answers in the batch's order": (
                data.truth(sorted(set(order)))
            ),
            "all that is known comes back: only the batch's pictures are wanted": (
                data.truth([int(name[-1]) for name in dict.fromkeys(data.encoded)])
            ),
            "a repeated picture is left out: a batch of B gives B answers": (
                data.truth(list(dict.fromkeys(order)))
            ),
            "what was handed out is what is kept, so whoever changes a batch changes the cache: "
            "stack makes a new tensor": truth + 1000,
        },
        form="a batch has one dimension more than encode gives: torch.stack adds it, torch.cat "
        "does not",
        otherwise="a picture came with the wrong answer: the key must say which picture it is, "
        "whatever order the pictures come in",
    )


def _require_count(what: str, data: Pictures, cause: str) -> None:
    expected, found = len(set(data.encoded)), len(data.encoded)
    what = f"how often encode was called by then ({what})"
    require(found == expected, what, expected, found, cause)


# --------------------------------------------------------------------------------- 7.4 guidance


@exercise("7.4", "equal to one number at a time, for guidance below one, at one, and above")
def guided_velocity() -> Iterator[Case]:
    """The point on the line through both answers, below one, at one, and above."""
    for w in (3.0, 1.0, 7.0, 0.0, 0.5):
        e, p = torch.randn(2, 2, 3, 4, 4)
        pairs = zip(e.flatten().tolist(), p.flatten().tolist(), strict=True)
        numbers = [(1 - w) * empty + w * prompted for empty, prompted in pairs]
        causes = {
            "the two answers are exchanged: it leads away from the prompt": p + w * (e - p),
            "off by one: that starts at the prompt's answer, so 1 would overshoot already; "
            "start at the empty prompt's": p + w * (p - e),
            "that is an average, never past the prompt's answer": (e + w * p) / (1 + w),
            "the difference alone: it is added to the empty prompt's answer": w * (p - e),
            "the prompt's answer is scaled: the difference of the two is": e + w * p,
            "the empty prompt's answer plays no part": w * p,
            "the sign of the difference: prompted minus empty": e + w * (e - p),
            "one too little: at guidance 1 it should be the prompt's answer": e + (w - 1) * (p - e),
            "kept between the two answers: more than 1 is meant to go beyond": (
                e + min(w, 1) * (p - e)
            ),
            "guidance plays no part": p,
            "below 1 the prompt's answer alone is given: the formula holds there too": (
                p if w < 1 else e + w * (p - e)
            ),
        }
        what = f"the velocity at guidance {w:g}"
        expected = torch.tensor(numbers).view_as(e)
        yield Case(what, (e, p, w), expected, causes)


# ------------------------------------------------------------------------------- 7.5 CLIP-Score


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two lists of numbers, summed one product at a time."""
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


@exercise("7.5", "equal to one product at a time, for pairs that fit and pairs that point away")
def clip_scores() -> Iterator[Case]:
    """Pairs that fit, that do not, and that point away from each other, of unequal lengths."""
    for count, width in ((4, 4), (5, 3), (1, 6)):
        images = torch.randn(count, width) * torch.linspace(0.5, 3, count)[:, None]
        texts = torch.randn(count, width) * torch.linspace(2, 0.3, count)[:, None]
        texts[0] = images[0] + 0.3 * texts[0]  # one pair that fits
        if count > 1:
            texts[1] = -images[1] + 0.1 * texts[1]  # and one that points away
        pairs = zip(images.tolist(), texts.tolist(), strict=True)
        own = cosine_similarity(images, texts, dim=-1)  # (N,)
        every = normalize(images, dim=-1) @ normalize(texts, dim=-1).T  # (N, N)

        def score(cosines: Tensor) -> Tensor:
            return 2.5 * cosines.clamp(min=0)

        causes = {
            "softmax over a single score: 1, whatever the picture shows": torch.ones_like(own),
            "that is softmax over the captions: a score belongs to one pair": (
                every.softmax(-1).diag()
            ),
            "that is softmax over the captions: a score is no probability": (
                (100 * every).softmax(-1).diag()
            ),
            "softmax over the pairs: one pair's score must not depend on the others": (
                own.softmax(-1)
            ),
            "softmax over the pairs: a score is no probability": (100 * own).softmax(-1),
            "compared column by column: a picture is a row, so dim=-1": score(
                cosine_similarity(images, texts, dim=0)
            ),
            "every picture with every caption: picture i belongs to caption i": score(every),
            "2.5 is missing": own.clamp(min=0),
            "negative cosines count as 0": 2.5 * own,
            "the features are not normalised": score((images * texts).sum(-1)),
            "only the pictures' features are normalised": score(
                (normalize(images, dim=-1) * texts).sum(-1)
            ),
            "only the captions' features are normalised": score(
                (images * normalize(texts, dim=-1)).sum(-1)
            ),
            "normalised along the batch: every row gets length one, so dim=-1": score(
                (normalize(images, dim=0) * normalize(texts, dim=0)).sum(-1)
            ),
            "divided by the norm of the whole batch: each row has its own, so dim=-1": score(
                (images * texts).sum(-1) / (images.norm() * texts.norm())
            ),
            "moved to between 0 and 1: negative cosines count as 0": 2.5 * (own + 1) / 2,
            "the size without the sign: negative cosines count as 0": 2.5 * own.abs(),
            "a hundredfold cosine is another convention": 100 * own.clamp(min=0),
            "that is the mean: a score for each picture is wanted": score(own).mean(),
            "cut off at 1 as well: a cosine of 1 is worth 2.5": score(own).clamp(max=1),
        }
        what = f"the scores of {count} picture{'s' * (count > 1)} and as many captions"
        expected = torch.tensor([2.5 * max(cosine(*pair), 0.0) for pair in pairs])
        yield Case(what, (images, texts), expected, causes)
