"""Checks of the exercises on Stable Diffusion 3: the path, the streams, the cache, guidance, CLIP-Score.

Every expected value is reached another way than in the lesson: one picture or one number at a time,
by finite differences, or by asking a model for the names of its layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise
from serial_lora_course.data.types import StyleExample

# ------------------------------------------------------------------- 7.1 the path and its velocity


def point_between(latent: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Where one picture is when it has gone the share ``sigma`` of its way to the noise."""
    return torch.lerp(latent.double(), noise.double(), sigma)


def speed_at(latent: Tensor, noise: Tensor, sigma: float, step: float = 1e-3) -> Tensor:
    """How fast it goes there, by finite differences."""
    ahead, behind = (point_between(latent, noise, sigma + s) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def path(
    point: Callable = lambda x, n, s: (1 - s) * x + s * n,
    speed: Callable = lambda x, n, s: n - x,
    shape: Callable = lambda sigmas: sigmas.view(-1, 1, 1, 1),
) -> Callable:
    """Points and velocities with one thing changed."""
    return lambda x, n, sigmas: (point(x, n, shape(sigmas)), speed(x, n, shape(sigmas)))


@exercise(
    "6.1",
    "equal to one picture at a time, and the velocity to finite differences, at both ends too",
    {
        "the ends are exchanged: sigma 0 is the picture, 1 the noise": path(
            lambda x, n, s: s * x + (1 - s) * n
        ),
        "the picture is not taken away as noise comes in: at sigma 1 it is gone": path(
            lambda x, n, s: x + s * n
        ),
        "that is the curved path of older diffusion models: here the way is straight": path(
            lambda x, n, s: (1 - s**2).sqrt() * x + s * n
        ),
        "one noise level for all: every picture has a sigma of its own": (
            path(lambda x, n, s: x + s[0] * (n - x)),
            path(lambda x, n, s: x + s.mean() * (n - x)),
        ),
        "the velocity came first: return the points, then the velocity": lambda *given: path()(
            *given
        )[::-1],
        "only the noise's part: the picture's is missing": path(lambda x, n, s: s * n),
        "the noise comes in whole: its share is sigma": path(lambda x, n, s: (1 - s) * x + n),
        "sigmas ran along the width, since it has as many columns as there are pictures, and "
        "nothing complained: give them the shape (B, 1, 1, 1)": path(shape=lambda sigmas: sigmas),
        "sigmas are (B,): give them the shape (B, 1, 1, 1) before they meet a picture": path(
            shape=lambda sigmas: sigmas.view(-1, 1, 1)
        ),
        "the sign: sigma grows from the picture to the noise, so the way leads there": path(
            speed=lambda x, n, s: x - n
        ),
        "that is the way gone so far: the velocity is the same everywhere": path(
            speed=lambda x, n, s: s * (n - x)
        ),
        "that is the way still to go: the velocity is the same everywhere": path(
            speed=lambda x, n, s: (1 - s) * (n - x)
        ),
        "divided by sigma, which may be 0: the velocity is the end minus the beginning": path(
            speed=lambda x, n, s: (s * (n - x)) / s
        ),
        "that is the noise, which older diffusion models predict: the picture is subtracted": path(
            speed=lambda x, n, s: n
        ),
        "that is the picture: the velocity is a difference": path(speed=lambda x, n, s: x),
        "that is half of it: noise minus picture, not their middle": path(
            speed=lambda x, n, s: (n - x) / 2
        ),
    },
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
        yield Case(
            what,
            (x, n, torch.tensor(sigmas)),
            Parts({f"the points of {what}": points, f"the velocity of {what}": speeds}),
            tolerance=1e-4,
            nan="divided by sigma, which may be 0: the velocity is the end minus the beginning",
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


def linear_names(transformer: nn.Module, stream: str) -> list[str]:
    """The linear layers that read or write one stream's tokens inside an attention layer.

    diffusers calls those of the text stream "added".
    """
    inside = {
        name
        for name, layer in transformer.named_modules()
        if isinstance(layer, nn.Linear) and ".attn." in name
    }
    text = {name for name in inside if "add" in name.rpartition(".attn.")[2]}
    return sorted({"image": inside - text, "text": text, "both": inside}[stream])


IMAGE = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def written_down(
    image: Sequence[str] = IMAGE,
    text: Sequence[str] = TEXT,
    blocks: Callable = lambda transformer: len(transformer.transformer_blocks),
    start: str = "transformer_blocks.",
) -> Callable:
    """These layers of these blocks; of the last, to_add_out only where the model has it."""

    def attempt(transformer, stream):
        chosen = {"image": image, "text": text, "both": (*image, *text)}[stream]
        names = [
            f"{start}{index}.attn.{name}" for index in range(blocks(transformer)) for name in chosen
        ]
        last = f".{len(transformer.transformer_blocks) - 1}.attn.to_add_out"
        return [name for name in names if not name.endswith(last)]

    return attempt


def streams(**other: str) -> Callable:
    """The right names of another stream than was asked for."""
    return lambda transformer, stream: linear_names(transformer, other.get(stream, stream))


def of_small(attempt: Callable) -> Callable:
    """An answer for a transformer of so many layers, which is made once."""
    return lambda layers, stream: attempt(small_transformer(layers), stream)


def read_names(got: Any, layers: int, stream: str) -> dict[str, Any]:
    """What is wrong with some names: those missing, those not wanted, those twice."""
    listed = isinstance(got, list | tuple | set)
    if not listed or not all(isinstance(name, str) for name in got):
        iterable = isinstance(got, Iterable) and not listed
        names = "names are wanted, such as those that named_modules() gives, not layers"
        cause = "make a list of the names" if iterable else names
        raise CheckFailed("the names", "a list of names", got, cause, sure=True)
    expected = linear_names(small_transformer(layers), stream)
    return {
        "names that are missing": sorted(set(expected) - set(got)),
        "names that are not wanted": sorted(set(got) - set(expected)),
        "names that are listed twice": sorted(n for n in set(got) if list(got).count(n) > 1),
    }


@exercise(
    "6.2",
    "the names that the model itself gives those layers, for three depths and all streams",
    {
        "the last block has no to_add_out: the text tokens end there, nobody reads them": (
            lambda transformer, stream: [
                *linear_names(transformer, stream),
                *[f"transformer_blocks.{len(transformer.transformer_blocks) - 1}.attn.to_add_out"]
                * (stream != "image"),
            ]
        ),
        "the blocks are not always as many: len(transformer.transformer_blocks) counts them": (
            written_down(blocks=lambda transformer: 6),
            written_down(blocks=lambda transformer: 24),
        ),
        "that is the other stream: the text stream's layers have add in their names": (
            streams(image="text", text="image"),
            streams(text="image", both="image"),
        ),
        "both means the layers of the two streams together": (
            streams(both="image"),
            streams(both="text"),
        ),
        "those are both streams: take the one that is asked for": streams(
            image="both", text="both"
        ),
        "to_out is a list of a linear layer and a dropout: the layer is to_out.0": written_down(
            ("to_q", "to_k", "to_v", "to_out")
        ),
        "the output projection is missing: LoRA stands beside q, k, v and out": written_down(
            IMAGE[:3], TEXT[:3]
        ),
        "some blocks or layers are left out: every block has its own": (
            written_down(("to_q", "to_k", "to_out.0")),
            written_down(blocks=lambda transformer: 1),
        ),
        "layers outside attention are listed: norms and feed-forward layers have no pair": (
            lambda transformer, stream: [
                *linear_names(transformer, stream),
                *[
                    f"transformer_blocks.{index}.ff.net.2"
                    for index in range(len(transformer.transformer_blocks))
                ],
            ]
        ),
        "to_add_out belongs to the text stream, though to_ is in its name": (
            lambda transformer, stream: [
                name
                for name in linear_names(transformer, "both")
                if {"image": "to_", "text": "add_"}.get(stream, "attn") in name
            ]
        ),
        "those are parameters: the layers' names end before .weight and .bias": (
            lambda transformer, stream: [f"{n}.weight" for n in linear_names(transformer, stream)]
        ),
        "the model has no layers of these names: they begin with transformer_blocks.0.attn": (
            written_down(start="blocks.")
        ),
        "a layer is listed twice: one pair would be counted twice": lambda transformer, stream: (
            2 * linear_names(transformer, stream)
        ),
    },
    through=of_small,
)
def projections_of() -> Iterator[Case]:
    """The names for every stream, in transformers of one, two and four blocks."""
    nothing = ("names that are missing", "names that are not wanted", "names that are listed twice")
    for layers in (2, 4, 1):
        for stream in ("image", "text", "both"):
            yield Case(
                f'stream "{stream}" of {layers} block{"s" * (layers > 1)}',
                (layers, stream),
                Parts({part: [] for part in nothing}),
                read=read_names,
                advice="compare with the names that named_modules() gives",
            )


# ------------------------------------------------------------------- 7.3 kept under the right name


class Pictures:
    """Six pictures, two of them with one caption, two that look alike; each access is a new object.

    ``encode`` answers with the picture's grey and the caption's length, and counts.
    """

    captions = ("a cat", "a clock", "a hot pepper", "a cat", "an owl at night", "rain")
    greys = (10, 50, 90, 130, 170, 10)

    def __init__(self) -> None:
        self.calls = 0
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
        self.calls += 1
        return torch.tensor([float(example.picture.getpixel((0, 0))[0]), len(example.caption)])

    def truth(self, indices: Sequence[int]) -> Tensor:
        """(B, 2), what a batch of these pictures is to hold."""
        return torch.tensor([[float(self.greys[i]), len(self.captions[i])] for i in indices])


ROUNDS = {
    "the first pictures": (0, 1, 2),
    "the very same batch again": (0, 1, 2),
    "the same pictures, opened anew": (0, 1, 2),
    "known pictures in another order, and a new one": (2, 0, 3),
    "the first pictures, shuffled": (1, 2, 0),
    "another new one among known ones": (3, 4, 1),
    "a picture that is in the batch twice": (5, 5, 0),
    "all of them, shuffled": (3, 5, 1, 0, 4, 2),
}
CHANGED = "the batch of a picture whose batch was changed afterwards"
SECOND = "the batch of a second cache, with another encode"


def part_names(what: str) -> tuple[str, str]:
    """What is compared of a round."""
    return f"the batch of {what}", f"how often encode was called by then ({what})"


def in_rounds(attempt: Callable) -> Callable:
    """What a cache answers in all rounds, and how often it encoded."""

    def ask(rounds: dict[str, Sequence[int]]) -> dict[str, Any]:
        data, answers = Pictures(), {}
        cache = attempt(data.encode)
        if not hasattr(cache, "batch"):
            cause = "keep the class and its two methods as the stub has them"
            wanted = "an object with a method batch"
            raise CheckFailed("EncodedOnce(encode)", wanted, cache, cause, sure=True)
        examples: list[StyleExample] = []
        for what, order in rounds.items():
            batch, calls = part_names(what)
            examples = examples if "very same" in what else data.some(order)
            answers |= {batch: cache.batch(examples), calls: data.calls}
        single = cache.batch(data.some((2,)))
        if isinstance(single, Tensor):
            single += 1000
        answers[CHANGED] = cache.batch(data.some((2,)))
        answers[SECOND] = attempt(lambda example: -data.encode(example)).batch(data.some((1, 0)))
        return answers

    return ask


class Kept:
    """A right cache, which others below change in one thing."""

    def __init__(self, encode):
        self.encode, self.kept = encode, {}

    def key(self, position, example):
        """Under which name an answer is kept."""
        return example.picture_id

    def batch(self, examples):
        """The answers of a batch."""
        keys = [self.key(position, example) for position, example in enumerate(examples)]
        for key, example in zip(keys, examples, strict=True):
            if key not in self.kept:
                self.kept[key] = self.encode(example)
        return self.answer(keys)

    def answer(self, keys):
        """What is handed out."""
        return torch.stack([self.kept[key] for key in keys])


def keyed(key: Callable) -> Callable:
    """A cache whose key is of a position and an example."""
    return type("Keyed", (Kept,), {"key": lambda self, position, example: key(position, example)})


def answering(answer: Callable) -> Callable:
    """A cache that hands out something else of what it keeps."""
    return type("Answering", (Kept,), {"answer": lambda self, keys: answer(self.kept, keys)})


class ByBatch(Kept):
    """The whole batch is the key."""

    def batch(self, examples):
        key = tuple(example.picture_id for example in examples)
        if key not in self.kept:
            self.kept[key] = torch.stack([self.encode(example) for example in examples])
        return self.kept[key].clone()


class Forgets(Kept):
    """What is not in a batch is forgotten."""

    def batch(self, examples):
        ids = {example.picture_id for example in examples}
        self.kept = {key: kept for key, kept in self.kept.items() if key in ids}
        return super().batch(examples)


class NotKept(Kept):
    """Every picture is encoded every time."""

    def batch(self, examples):
        return torch.stack([self.encode(example) for example in examples])


class NewOnesAtOnce(Kept):
    """What is new in a batch is encoded before any of it is kept."""

    def batch(self, examples):
        new = [each for each in examples if each.picture_id not in self.kept]
        self.kept |= {each.picture_id: self.encode(each) for each in new}
        return self.answer([each.picture_id for each in examples])


class SharedByAll(Kept):
    """One dictionary for all caches; it is emptied for the first of a check."""

    kept: dict[str, Tensor] = {}

    def __init__(self, encode):
        self.encode = encode
        if hasattr(encode, "__self__"):
            SharedByAll.kept = {}


@exercise(
    "6.3",
    "right for every order and every part, each picture encoded once",
    {
        "what is known is encoded again: look it up first": NotKept,
        "kept by position in the batch: shuffled, position 0 holds another picture": keyed(
            lambda position, example: position
        ),
        "kept under the caption: two pictures may share one, and here two do": keyed(
            lambda position, example: example.caption
        ),
        "kept under the pixels: two pictures may look alike, and here two do": keyed(
            lambda position, example: example.picture.tobytes()
        ),
        "the key is the picture_id: the object, and where it lies in memory, is a new one at every "
        "access": keyed(lambda position, example: id(example)),
        "the whole batch is the key: shuffled, or in part, it is another one": ByBatch,
        "what is not in a batch is forgotten: keep it for the next ones": Forgets,
        "the order is the cache's own: give the answers in the batch's order": answering(
            lambda kept, keys: torch.stack([kept[key] for key in kept if key in keys])
        ),
        "all that is known comes back: only the batch's pictures are wanted": answering(
            lambda kept, keys: torch.stack(list(kept.values()))
        ),
        "a repeated picture is left out: a batch of B gives B answers": answering(
            lambda kept, keys: torch.stack([kept[key] for key in dict.fromkeys(keys)])
        ),
        "a picture that is twice in one batch is encoded twice: look it up before each": (
            NewOnesAtOnce
        ),
        "what was handed out is what is kept, so whoever changes a batch changes the cache: stack "
        "makes a new tensor": answering(
            lambda kept, keys: (
                kept[keys[0]][None] if len(keys) == 1 else torch.stack([kept[key] for key in keys])
            )
        ),
        "two caches share what they keep: make the dictionary in __init__": SharedByAll,
        "a list of tensors: torch.stack makes one of them": answering(
            lambda kept, keys: [kept[key] for key in keys]
        ),
        "a batch has one dimension more than encode gives: torch.stack adds it, torch.cat does not": (
            answering(lambda kept, keys: torch.cat([kept[key] for key in keys]))
        ),
    },
    through=in_rounds,
)
def encoded_once() -> Iterator[Case]:
    """Batches in order, shuffled, in part, with repetitions; counts of encoding; two caches."""
    data, seen, expected = Pictures(), set(), Parts()
    for what, order in ROUNDS.items():
        seen |= set(order)
        batch, calls = part_names(what)
        expected |= {batch: data.truth(order), calls: len(seen)}
    expected |= {CHANGED: data.truth((2,)), SECOND: -data.truth((1, 0))}
    yield Case(
        "EncodedOnce over some batches",
        (ROUNDS,),
        Parts(expected),
        read=lambda answers, _: answers,
        form="a batch has one dimension more than encode gives: torch.stack adds it",
        advice="the key must say which picture it is, whatever order the pictures come in",
    )


# --------------------------------------------------------------------------------- 7.4 guidance


@exercise(
    "6.4",
    "equal to one number at a time, for guidance below one, at one, and above",
    {
        "the two answers are exchanged: it leads away from the prompt": lambda e, p, w: (
            p + w * (e - p)
        ),
        "off by one: that starts at the prompt's answer; start at the empty prompt's": (
            lambda e, p, w: p + w * (p - e)
        ),
        "that is an average, never past the prompt's answer": lambda e, p, w: (e + w * p) / (1 + w),
        "the difference alone: it is added to the empty prompt's answer": lambda e, p, w: (
            w * (p - e)
        ),
        "the prompt's answer is scaled: the difference of the two is": lambda e, p, w: e + w * p,
        "the empty prompt's answer plays no part": lambda e, p, w: w * p,
        "the sign of the difference: prompted minus empty": lambda e, p, w: e + w * (e - p),
        "one too little: at guidance 1 it should be the prompt's answer": lambda e, p, w: (
            e + (w - 1) * (p - e)
        ),
        "kept between the two answers: more than 1 is meant to go beyond": lambda e, p, w: (
            e + min(w, 1) * (p - e)
        ),
        "guidance plays no part": lambda e, p, w: p,
        "below 1 the prompt's answer alone is given: the formula holds there too": (
            lambda e, p, w: p if w < 1 else e + w * (p - e)
        ),
    },
)
def guided_velocity() -> Iterator[Case]:
    """The point on the line through both answers, one number at a time."""
    for w in (3.0, 1.0, 7.0, 0.0, 0.5):
        e, p = torch.randn(2, 2, 3, 4, 4)
        pairs = zip(e.flatten().tolist(), p.flatten().tolist(), strict=True)
        numbers = [(1 - w) * empty + w * prompted for empty, prompted in pairs]
        expected = torch.tensor(numbers).view_as(e)
        yield Case(f"the velocity at guidance {w:g}", (e, p, w), expected)


# ------------------------------------------------------------------------------- 7.5 CLIP-Score


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two lists of numbers, summed one product at a time."""
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def unit(features: Tensor, dim: int = -1) -> Tensor:
    """Rows of length one."""
    return normalize(features, dim=dim)


def of_cosines(change: Callable, cosines: Callable = cosine_similarity) -> Callable:
    """A change of the pairs' cosines."""
    return lambda images, texts: change(cosines(images, texts))


def score(cosines: Tensor) -> Tensor:
    """2.5 max(cos, 0)."""
    return 2.5 * cosines.clamp(min=0)


@exercise(
    "6.5",
    "equal to one product at a time, for pairs that fit and pairs that point away",
    {
        "softmax over a single score: 1, whatever the picture shows": of_cosines(torch.ones_like),
        "that is softmax over the captions: a score belongs to one pair": (
            lambda i, t: (unit(i) @ unit(t).T).softmax(-1).diag(),
            lambda i, t: (100 * unit(i) @ unit(t).T).softmax(-1).diag(),
        ),
        "softmax over the pairs: one pair's score must not depend on the others": (
            of_cosines(lambda c: c.softmax(-1)),
            of_cosines(lambda c: (100 * c).softmax(-1)),
        ),
        "compared column by column: a picture is a row, so dim=-1": of_cosines(
            score, lambda i, t: cosine_similarity(i, t, dim=0)
        ),
        "every picture with every caption: picture i belongs to caption i": of_cosines(
            score, lambda i, t: unit(i) @ unit(t).T
        ),
        "the factor 2.5 is missing": of_cosines(lambda c: c.clamp(min=0)),
        "negative cosines count as 0": of_cosines(lambda c: 2.5 * c),
        "the size without the sign: negative cosines count as 0": of_cosines(
            lambda c: 2.5 * c.abs()
        ),
        "moved to between 0 and 1: negative cosines count as 0": of_cosines(
            lambda c: 2.5 * (c + 1) / 2
        ),
        "the features are not normalised": of_cosines(score, lambda i, t: (i * t).sum(-1)),
        "only the pictures' features are normalised": of_cosines(
            score, lambda i, t: (unit(i) * t).sum(-1)
        ),
        "only the captions' features are normalised": of_cosines(
            score, lambda i, t: (i * unit(t)).sum(-1)
        ),
        "normalised along the batch: every row gets length one, so dim=-1": of_cosines(
            score, lambda i, t: (unit(i, 0) * unit(t, 0)).sum(-1)
        ),
        "divided by the norm of the whole batch: each row has its own, so dim=-1": of_cosines(
            score, lambda i, t: (i * t).sum(-1) / (i.norm() * t.norm())
        ),
        "a hundredfold cosine is another convention": of_cosines(lambda c: 100 * c.clamp(min=0)),
        "that is the mean: a score for each picture is wanted": of_cosines(
            lambda c: score(c).mean()
        ),
        "cut off at 1 as well: a cosine of 1 is worth 2.5": of_cosines(
            lambda c: score(c).clamp(max=1)
        ),
    },
)
def clip_scores() -> Iterator[Case]:
    """Pairs that fit, that do not, and that point away from each other, of unequal lengths."""
    for count, width in ((4, 4), (5, 3), (1, 6)):
        images = torch.randn(count, width) * torch.linspace(0.5, 3, count)[:, None]
        texts = torch.randn(count, width) * torch.linspace(2, 0.3, count)[:, None]
        texts[0] = images[0] + 0.3 * texts[0]  # one pair that fits
        if count > 1:
            texts[1] = -images[1] + 0.1 * texts[1]  # and one that points away
        pairs = zip(images.tolist(), texts.tolist(), strict=True)
        expected = torch.tensor([2.5 * max(cosine(*pair), 0.0) for pair in pairs])
        what = f"the scores of {count} picture{'s' * (count > 1)} and as many captions"
        yield Case(what, (images, texts), expected)
