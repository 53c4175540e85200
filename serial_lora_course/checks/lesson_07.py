"""Checks of lesson 07: the flow path, the two streams, the cache, guidance, CLIP-Score.

Every expected value is reached another way than in the lesson: one picture or one number at a time,
by finite differences, or by asking a model for the names of its layers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from serial_lora_course.checks.checking import call, exercise, require, require_close
from serial_lora_course.data.styles import StyleExample

# ------------------------------------------------------------------- 7.1 the path and its velocity


def point_between(latent: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Where one picture is when it has gone the share ``sigma`` of its way to the noise."""
    return torch.lerp(latent.double(), noise.double(), sigma)


def speed_at(latent: Tensor, noise: Tensor, sigma: float, step: float = 1e-3) -> Tensor:
    """How fast it goes there, by finite differences."""
    ahead, behind = (point_between(latent, noise, sigma + s) for s in (step, -step))
    return (ahead - behind) / (2 * step)


@exercise("7.1")
def flow_path(attempt) -> str:
    """Points and velocities of batches whose width does, and does not, equal their size."""
    levels = ([0.25, 0.5, 0.9, 0.0], [0.7, 0.1], [1.0])
    for sizes, sigmas in zip(((2, 3, 4), (3, 4, 5), (2, 3, 3)), levels, strict=True):
        shape = (len(sigmas), *sizes)
        latents, noise = torch.randn(shape), torch.randn(shape)
        what = f"{shape[0]} latents of {' x '.join(map(str, sizes))}, sigmas {sigmas}"
        given = latents.clone(), noise.clone(), torch.tensor(sigmas)
        got = call(
            attempt,
            *given,
            what=what,
            cause="sigmas are (B,): give them the shape (B, 1, 1, 1) before they meet a picture",
        )
        require(
            isinstance(got, tuple | list) and len(got) == 2,
            f"what comes back for {what}",
            "the points and the velocity",
            got,
            "return both, the points first",
        )
        for name, now, before in zip(("latents", "noise"), given, (latents, noise), strict=False):
            require(
                torch.equal(now, before),
                f"the {name} after the call",
                "as before",
                "changed",
                "edited in place (mul_, +=): whoever kept that tensor now has another one",
            )
        each = list(zip(latents, noise, sigmas, strict=True))
        points = torch.stack([point_between(*one) for one in each]).float()
        speeds = torch.stack([speed_at(*one) for one in each]).float()
        suspects = _path_suspects(latents, noise, torch.tensor(sigmas), speeds)
        require_close(f"the points of {what}", got[0], points, _unlike(suspects, points))
        suspects = _velocity_suspects(latents, noise, torch.tensor(sigmas))
        require_close(
            f"the velocity of {what}", got[1], speeds, _unlike(suspects, speeds), tolerance=1e-4
        )
    return (
        "equal to one picture at a time, and the velocity to finite differences, at both ends too"
    )


def _path_suspects(x: Tensor, n: Tensor, sigmas: Tensor, speeds: Tensor) -> dict[str, Tensor]:
    s = sigmas[:, None, None, None]
    suspects = {
        "the ends are exchanged: sigma 0 is the picture, sigma 1 is the noise": s * x + (1 - s) * n,
        "the picture is not taken away as noise comes in: at sigma 1 nothing of it is left": (
            x + s * n
        ),
        "that is the curved path of older diffusion models: here the way is straight": (
            (1 - s.square()).sqrt() * x + s * n
        ),
        "one noise level for all: every picture has a sigma of its own": (
            (1 - sigmas[0]) * x + sigmas[0] * n
        ),
        "the mean noise level for all: every picture has a sigma of its own": (
            (1 - sigmas.mean()) * x + sigmas.mean() * n
        ),
        "the velocity came first: return the points, then the velocity": speeds,
        "only the noise's part: the picture's is missing": s * n,
    }
    if x.shape[-1] == len(sigmas):
        suspects[
            "sigmas ran along the width, since it has as many columns as there are pictures, and "
            "nothing complained: give them the shape (B, 1, 1, 1)"
        ] = (1 - sigmas) * x + sigmas * n
    return suspects


def _velocity_suspects(x: Tensor, n: Tensor, sigmas: Tensor) -> dict[str, Tensor]:
    s = sigmas[:, None, None, None]
    return {
        "the sign: sigma grows from the picture to the noise, so the way leads there": x - n,
        "that is the way gone so far: the velocity is the same everywhere on the path": s * (n - x),
        "that is the way still to go: the velocity is the same everywhere on the path": (
            (1 - s) * (n - x)
        ),
        "that is the noise, which older diffusion models predict: the picture is subtracted": n,
        "that is the picture: the velocity is a difference": x,
        "that is half of it: noise minus picture, not their middle": (n - x) / 2,
    }


def _unlike(suspects: dict[str, Tensor], expected: Tensor) -> dict[str, Tensor]:
    """The suspects that can be told from what is expected."""
    return {
        cause: value
        for cause, value in suspects.items()
        if value.shape != expected.shape or not torch.allclose(value, expected, rtol=0, atol=1e-3)
    }


# ------------------------------------------------------------------------------ 7.2 two streams


def small_transformer(layers: int) -> nn.Module:
    """SD3's own transformer with narrow tokens."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
    )


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
            got = call(attempt, transformer, stream, what=what)
            _require_names(what, got, transformer, stream)
    return "the names that the model itself gives those layers, for three depths and all streams"


def _require_names(what: str, got, transformer: nn.Module, stream: str) -> None:
    require(
        isinstance(got, list | tuple | set) and all(isinstance(name, str) for name in got),
        what,
        "a list of names",
        got,
        "the function returns nothing: is `return` missing?"
        if got is None
        else "names are wanted, such as those that named_modules() gives, not layers",
    )
    expected, found = linear_names(transformer, stream), set(got)
    repeated = [name for name, count in Counter(got).items() if count > 1]
    require(
        not repeated,
        what,
        "every name once",
        ", ".join(repeated[:2]),
        "a layer is listed twice: one pair would be counted twice",
    )
    if found == expected:
        return
    layers = dict(transformer.named_modules())
    image, text = (linear_names(transformer, each) for each in ("image", "text"))
    last = f"transformer_blocks.{len(transformer.transformer_blocks) - 1}.attn.to_add_out"
    unknown = sorted(found - set(layers))
    extra, missing = sorted(found - expected), sorted(expected - found)
    blocks = len(transformer.transformer_blocks)
    numbers = [re.match(r"transformer_blocks\.(\d+)\.", name) for name in unknown]
    if any(number and int(number[1]) >= blocks for number in numbers):
        cause = "the blocks are not always as many: len(transformer.transformer_blocks) counts them"
    elif last in found:
        cause = "the last block has no to_add_out: the text tokens end there, nobody reads them"
    elif any(name.endswith("to_out") for name in found):
        cause = "to_out is a list of a linear layer and a dropout: the layer is to_out.0"
    elif unknown and not found & set(layers):
        cause = "the model has no layers of these names: they begin with transformer_blocks.0.attn"
    elif found in (image, text) and stream != "both":
        cause = "that is the other stream: the text stream's layers have add in their names"
    elif found in (image, text):
        cause = "both means the layers of the two streams together"
    elif found == image | text:
        cause = "those are both streams: take the one that is asked for"
    elif any(".attn." not in name for name in extra):
        cause = "layers outside attention are listed: norms and feed-forward layers have no pair"
    elif missing and all(name.endswith(("to_out.0", "to_add_out")) for name in missing):
        cause = "the output projection is missing: LoRA stands beside q, k, v and out"
    elif {name.split(".")[1] for name in missing} and not extra:
        cause = "some blocks or layers are left out: every block has its own"
    else:
        cause = "compare with the names that named_modules() gives"
    surplus = f"; not wanted: {extra[0]}" if extra else ""
    lacking = f"; missing: {missing[0]}" if missing else ""
    require(False, what, f"{len(expected)} names", f"{len(found)} names{surplus}{lacking}", cause)


# ------------------------------------------------------------------- 7.3 kept under the right name


class Pictures:
    """Six pictures, two of them with one caption; each access makes a new object.

    ``encode`` answers with the picture's grey and the caption's length, and counts.
    """

    captions = ("a cat", "a clock", "a hot pepper", "a cat", "an owl at night", "rain")

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.alive: list[StyleExample] = []  # else addresses in memory would be used again

    def __getitem__(self, index: int) -> StyleExample:
        grey = 40 * index + 10
        picture = Image.new("RGB", (2, 2), (grey, grey, grey))
        self.alive.append(StyleExample(picture, self.captions[index], f"picture-{index}"))
        return self.alive[-1]

    def some(self, indices: Sequence[int]) -> list[StyleExample]:
        """These pictures, each as a new object."""
        return [self[index] for index in indices]

    def encode(self, example: StyleExample) -> Tensor:
        """(2,): the picture's grey, and how long its caption is."""
        self.encoded.append(example.picture_id)
        return torch.tensor([float(example.picture.getpixel((0, 0))[0]), len(example.caption)])

    def truth(self, indices: Sequence[int]) -> Tensor:
        """(B, 2), what a batch of these pictures is to hold."""
        return torch.tensor([[40.0 * i + 10, len(self.captions[i])] for i in indices])


@exercise("7.3")
def encoded_once(attempt: Callable) -> str:
    """Batches in order, shuffled, in part, with repetitions; counts of encoding; two caches."""
    data = Pictures()
    cache = call(attempt, data.encode, what="EncodedOnce(encode)")
    require(
        hasattr(cache, "batch"),
        "EncodedOnce(encode)",
        "an object with a method batch",
        cache,
        "keep the class and its two methods as the stub has them",
    )
    first = data.some((0, 1, 2))
    _require_batch("the first batch", cache, first, (0, 1, 2), data)
    _require_batch("the very same batch again", cache, first, (0, 1, 2), data)
    _require_count(
        "a batch that came again", data, "what is known is encoded again: look it up first"
    )
    rounds = {
        "known pictures in another order, and a new one": (2, 0, 3),
        "the first pictures, shuffled": (1, 2, 0),
        "only one of them": (1,),
        "another new one among known ones": (3, 4, 1),
        "a picture that is in the batch twice": (5, 5, 0),
        "all of them, shuffled": (3, 5, 1, 0, 4, 2),
    }
    for what, order in rounds.items():
        _require_batch(what, cache, data.some(order), order, data)
        _require_count(
            what,
            data,
            "a known picture was encoded again when it came as another object: the key is "
            "picture_id, not the object and not where it lies in memory"
            if what != "a picture that is in the batch twice"
            else "a picture that is twice in one batch is encoded twice: look it up before each",
        )
    single = cache.batch(data.some((2,)))
    single += 1000
    _require_batch(
        "a picture whose batch was changed afterwards", cache, data.some((2,)), (2,), data
    )
    negative = call(attempt, lambda example: -data.encode(example), what="a second EncodedOnce")
    got = call(negative.batch, data.some((1, 0)), what="batch() of a second EncodedOnce")
    require_close(
        "the batch of a second cache, with another encode",
        got,
        -data.truth((1, 0)),
        {"two caches share what they keep: make the dictionary in __init__": data.truth((1, 0))},
    )
    return "right for every order and every part, each picture encoded once"


def _require_batch(what: str, cache, examples: list, order: Sequence[int], data: Pictures) -> None:
    got = call(cache.batch, examples, what=f"batch() of {what}")
    truth = data.truth(order)
    own = list(range(len(order)))
    by_caption = [Pictures.captions.index(Pictures.captions[index]) for index in order]
    suspects = {
        "kept by position in the batch: shuffled, position 0 holds another picture": (
            data.truth(own)
        ),
        "kept under the caption: two pictures may share one, and here two do": (
            data.truth(by_caption)
        ),
        "the order is the cache's own: give the answers in the batch's order": (
            data.truth(sorted(set(order)))
        ),
        "the order is the cache's own: the batch's was lost": data.truth(sorted(order)),
        "all that is known comes back: only the batch's pictures are wanted": (
            data.truth([int(name[-1]) for name in dict.fromkeys(data.encoded)])
        ),
        "a repeated picture is left out: a batch of B gives B answers": (
            data.truth(list(dict.fromkeys(order)))
        ),
        "what was handed out is what is kept, so whoever changes a batch changes the cache: "
        "stack makes a new tensor": truth + 1000,
    }
    suspects = {
        cause: value
        for cause, value in suspects.items()
        if value.shape != truth.shape or not torch.equal(value, truth)
    }
    require(
        not isinstance(got, list),
        f"what batch() gives for {what}",
        "one tensor, (B, ...)",
        got,
        "a list of tensors: torch.stack makes one of them",
    )
    require(
        not isinstance(got, Tensor) or got.ndim == truth.ndim,
        f"the shape of the batch of {what}",
        tuple(truth.shape),
        tuple(getattr(got, "shape", ())),
        "a batch has one dimension more than what encode gives: torch.stack adds it, torch.cat "
        "does not",
    )
    require_close(
        f"the batch of {what}",
        got,
        truth,
        suspects,
        otherwise="a picture came with the wrong answer: the key must say which picture it is, "
        "whatever order the pictures come in",
    )


def _require_count(what: str, data: Pictures, cause: str) -> None:
    expected, found = len(set(data.encoded)), len(data.encoded)
    require(
        found == expected, f"how often encode was called by then ({what})", expected, found, cause
    )


# --------------------------------------------------------------------------------- 7.4 guidance


def guided_number(empty: float, prompted: float, guidance: float) -> float:
    """The point on the line through both answers where the empty one is 0 and the other is 1."""
    return (1 - guidance) * empty + guidance * prompted


@exercise("7.4")
def guided_velocity(attempt) -> str:
    """Below one, one, and above, one number at a time."""
    for guidance in (3.0, 1.0, 7.0, 0.0, 0.5):
        empty, prompted = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
        given = empty.clone(), prompted.clone()
        what = f"guidance {guidance:g}"
        got = call(attempt, *given, guidance, what=what)
        numbers = [
            guided_number(e, p, guidance)
            for e, p in zip(empty.flatten().tolist(), prompted.flatten().tolist(), strict=True)
        ]
        expected = torch.tensor(numbers).view_as(empty)
        suspects = _guidance_suspects(empty, prompted, guidance)
        require_close(f"the velocity at {what}", got, expected, _unlike(suspects, expected))
        for name, now, before in zip(("empty", "prompted"), given, (empty, prompted), strict=True):
            require(
                torch.equal(now, before),
                f"{name} after the call",
                "as before",
                "changed",
                "edited in place: build a new tensor",
            )
    return "equal to one number at a time, for guidance below one, at one, and above"


def _guidance_suspects(e: Tensor, p: Tensor, w: float) -> dict[str, Tensor]:
    suspects = {
        "the two answers are exchanged: it leads away from the prompt": p + w * (e - p),
        "off by one: that starts at the prompt's answer, so 1 would overshoot already; start at "
        "the empty prompt's": p + w * (p - e),
        "that is an average, which never gets past the prompt's answer: no division": (
            (e + w * p) / (1 + w)
        ),
        "the difference alone: it is added to the empty prompt's answer": w * (p - e),
        "the prompt's answer is scaled: the difference of the two is": e + w * p,
        "the empty prompt's answer plays no part": w * p,
        "the sign of the difference: prompted minus empty": e + w * (e - p),
        "one too little: at guidance 1 it should be the prompt's answer": e + (w - 1) * (p - e),
    }
    if w > 1:
        suspects["kept between the two answers: more than 1 is meant to go beyond"] = p
    else:
        suspects["guidance plays no part"] = p
    return suspects


# ------------------------------------------------------------------------------- 7.5 CLIP-Score


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two lists of numbers, summed one product at a time."""
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


@exercise("7.5")
def clip_scores(attempt) -> str:
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
        given = images.clone(), texts.clone()
        got = call(attempt, *given, what=what)
        suspects = _score_suspects(images, texts)
        require_close(what, got, expected, _unlike(suspects, expected))
        for name, now, before in zip(("image", "text"), given, (images, texts), strict=True):
            require(
                torch.equal(now, before),
                f"the {name} features after the call",
                "as before",
                "changed",
                "edited in place (/=, div_): whoever kept that tensor now has another",
            )
    return "equal to one product at a time, for pairs that fit and pairs that point away"


def _score_suspects(images: Tensor, texts: Tensor) -> dict[str, Tensor]:
    unit = nn.functional.normalize
    own = torch.cosine_similarity(images, texts, dim=-1)  # (N,)
    every = unit(images, dim=-1) @ unit(texts, dim=-1).T  # (N, N)
    right = 2.5 * own.clamp(min=0)
    return {
        "softmax over a single score: that is 1 for every picture, whatever it shows": (
            torch.ones_like(own)
        ),
        "that is softmax over the captions: a score belongs to one pair": every.softmax(-1).diag(),
        "softmax over the pairs: one pair's score must not depend on the others": own.softmax(-1),
        "softmax over the pairs: a score is no probability": (100 * own).softmax(-1),
        "compared column by column: a picture is a row, so dim=-1": (
            2.5 * torch.cosine_similarity(images, texts, dim=0).clamp(min=0)
        ),
        "every picture with every caption: picture i belongs to caption i": (
            2.5 * every.clamp(min=0)
        ),
        "2.5 is missing": own.clamp(min=0),
        "negative cosines count as 0": 2.5 * own,
        "the features are not normalised": 2.5 * (images * texts).sum(-1).clamp(min=0),
        "only the pictures' features are normalised": (
            2.5 * (unit(images, dim=-1) * texts).sum(-1).clamp(min=0)
        ),
        "only the captions' features are normalised": (
            2.5 * (images * unit(texts, dim=-1)).sum(-1).clamp(min=0)
        ),
        "normalised along the batch: every row gets length one, so dim=-1": (
            2.5 * (unit(images, dim=0) * unit(texts, dim=0)).sum(-1).clamp(min=0)
        ),
        "the size without the sign: negative cosines count as 0": 2.5 * own.abs(),
        "a hundredfold cosine is another convention": 100 * own.clamp(min=0),
        "that is the mean: a score for each picture is wanted": right.mean(),
        "cut off at 1 as well: a cosine of 1 is worth 2.5": right.clamp(max=1),
        "that is softmax over the captions: a score is no probability": (
            (100 * every).softmax(-1).diag()
        ),
    }
