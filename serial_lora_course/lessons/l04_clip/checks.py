"""Checks of the exercises on CLIP: class scores, zero-shot accuracy, the loss, cut prompts, equal budget.

The towers here are two small tables of numbers, and every expected value is computed one entry at
a time, apart from the lesson's matrix products.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


def cosine_table(pictures: Tensor, classes: Tensor) -> Tensor:
    """Cosines of every row of ``pictures`` (B, D) with every row of ``classes`` (C, D): (B, C)."""
    return torch.stack(
        [torch.cosine_similarity(picture.unsqueeze(0), classes, dim=1) for picture in pictures]
    )


def unit(features: Tensor, dim: int = -1) -> Tensor:
    """The vectors along a dimension, each divided by its length."""
    return features / features.pow(2).sum(dim, keepdim=True).sqrt()


@exercise(
    "4.1",
    "the scaled cosine of every pair, for features of unequal lengths, and its gradients",
    {
        "turned round: a row is a picture, a column is a class": (
            lambda image, text, s: s.exp() * unit(text) @ unit(image).T
        ),
        "the scale is forgotten": lambda image, text, s: unit(image) @ unit(text).T,
        "logit_scale is the logarithm of the scale: take exp() of it": (
            lambda image, text, s: s * unit(image) @ unit(text).T
        ),
        "the cosine is divided by the scale: it is a factor": (
            lambda image, text, s: unit(image) @ unit(text).T / s.exp()
        ),
        "neither side is normalised: so long vectors win": (
            lambda image, text, s: s.exp() * image @ text.T
        ),
        "only the pictures are normalised, not the classes": (
            lambda image, text, s: s.exp() * unit(image) @ text.T
        ),
        "only the classes are normalised, not the pictures": (
            lambda image, text, s: s.exp() * image @ unit(text).T
        ),
        "normalised along the wrong dimension: every row gets length one, so dim=-1": (
            lambda image, text, s: s.exp() * unit(image, 0) @ unit(text, 0).T
        ),
        "normalised by the length of all rows together: each row by its own, dim=-1": (
            lambda image, text, s: s.exp() * (image / image.norm()) @ (text / text.norm()).T
        ),
        "that is 100, CLIP's usual scale: take the logit_scale that came in": (
            lambda image, text, s: 100 * unit(image) @ unit(text).T
        ),
        "the scale is cut off at 100: take the logit_scale that came in": (
            lambda image, text, s: s.exp().clamp(max=100) * unit(image) @ unit(text).T
        ),
        "softmax is not wanted here: these are scores": (
            lambda image, text, s: (s.exp() * unit(image) @ unit(text).T).softmax(-1)
        ),
        "two matrices do not fit: (B, D) meets (D, C), so transpose the classes": (
            lambda image, text, s: s.exp() * unit(image) @ unit(text)
        ),
        "a plain number has no gradient: logit_scale.exp() without .item()": (
            lambda image, text, s: s.exp().item() * unit(image) @ unit(text).T
        ),
    },
)
def similarity_scores() -> Iterator[Case]:
    """exp(logit_scale) times the cosine, pictures in rows and classes in columns."""
    for batch, count, dim, log_scale in ((4, 4, 6, 1.7), (5, 3, 8, 5.3)):
        pictures = torch.randn(batch, dim) * torch.linspace(0.5, 3, batch).unsqueeze(1)
        classes = torch.randn(count, dim) * torch.linspace(4, 0.5, count).unsqueeze(1)
        inputs = (pictures, classes, torch.tensor(log_scale))
        if batch != count:
            inputs = tuple(tensor.requires_grad_() for tensor in inputs)
        yield Case(
            f"the scores of {batch} pictures and {count} classes at logit_scale {log_scale}",
            inputs,
            inputs[2].exp() * cosine_table(pictures, classes),
            leaves=(lambda *given: dict(zip(NAMES, given, strict=True)))
            if batch != count
            else None,
        )


NAMES = ("image_features", "text_features", "logit_scale")


def agreeing(
    guess: Callable = lambda scores: scores.argmax(1), end: Callable | None = None
) -> Callable:
    """The share of right guesses, with one thing changed."""

    def attempt(pictures, classes, labels):
        right = guess(pictures @ classes.T) == labels
        return end(right, labels) if end else right.float().mean().item()

    return attempt


@exercise(
    "4.2",
    "equal to counting one picture at a time, at three sizes",
    {
        "that is how many are right, not their share among the pictures": (
            agreeing(end=lambda right, labels: float(right.sum()))
        ),
        "that is in percent: a number between 0 and 1 is wanted": (
            agreeing(end=lambda right, labels: 100 * right.float().mean().item())
        ),
        "that is the share of mistakes": (
            agreeing(end=lambda right, labels: 1 - right.float().mean().item())
        ),
        "argmin finds the worst fit: the best has the largest": agreeing(lambda s: s.argmin(1)),
        "that is the mean of the classes' accuracies: every picture counts the same here": agreeing(
            end=lambda right, labels: (
                sum(right[labels == k].float().mean().item() for k in labels.unique())
                / len(labels.unique())
            )
        ),
        "that is the mean probability of the right class: count right guesses": (
            lambda pictures, classes, labels: (
                (pictures @ classes.T).softmax(1)[torch.arange(len(labels)), labels].mean().item()
            )
        ),
        "the number right is divided by the number of classes": (
            lambda pictures, classes, labels: (
                ((pictures @ classes.T).argmax(1) == labels).sum().item() / len(classes)
            )
        ),
        "guesses (N, 1) meet labels (N,), so all pairs are compared: make both (N,)": (
            agreeing(lambda scores: scores.topk(1).indices)
        ),
        "argmax runs along the pictures: each picture chooses among classes, dim=1": (
            agreeing(lambda scores: scores.argmax(0))
        ),
        "True and False have no mean: make numbers of them first, with .float()": (
            agreeing(end=lambda right, labels: right.mean().item())
        ),
        "only a part of the pictures is counted": (
            lambda pictures, classes, labels: agreeing()(pictures[:32], classes, labels[:32])
        ),
    },
)
def zero_shot_accuracy() -> Iterator[Case]:
    """The share of rows whose largest cosine is at the label, counted one picture at a time."""
    for number, count, dim in ((12, 12, 5), (30, 4, 6), (40, 5, 6)):
        pictures, classes = unit(torch.randn(number, dim)), unit(torch.randn(count, dim))
        rows = cosine_table(pictures, classes).tolist()
        nearest = [max(range(count), key=row.__getitem__) for row in rows]
        # Two of three labels are right, and classes have different sizes.
        own = [guess if i % 3 else (guess + 1) % count for i, guess in enumerate(nearest)]
        right = [guess == label for guess, label in zip(nearest, own, strict=True)]
        what = f"the accuracy on {number} pictures of {count} classes"
        advice = "try it on three pictures and count by hand"
        inputs = (pictures, classes, torch.tensor(own))
        yield Case(what, inputs, sum(right) / number, advice=advice)


class TwoTowers(nn.Module):
    """A CLIP of two linear layers: pictures (B, 3, 2, 2), prompts (C, 4) of ids below 10."""

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__()
        self.image = nn.Linear(12, 5)
        self.words = nn.Embedding(10, 6)
        self.text = nn.Linear(24, 5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def encode_image(self, pictures: Tensor, normalize: bool = False) -> Tensor:
        """(B, 3, 2, 2) -> (B, 5)."""
        features = self.image(pictures.flatten(1))
        return unit(features) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """(C, 4) -> (C, 5)."""
        features = self.text(self.words(tokens).flatten(1))
        return unit(features) if normalize else features


def reference_loss(clip: TwoTowers, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """log sum exp of a picture's scores minus the right one, one picture at a time, averaged."""
    cosine = cosine_table(clip.encode_image(pictures), clip.encode_text(prompts))
    scores = clip.logit_scale.exp() * cosine
    each = [row.exp().sum().log() - row[label] for row, label in zip(scores, labels, strict=True)]
    return sum(each) / len(each)


def loss_with(
    scores: Callable = lambda scale, image, text: scale.exp() * image @ text.T,
    loss: Callable = F.cross_entropy,
    image: bool = True,
    text: bool = True,
) -> Callable:
    """The loss with one thing changed; ``image`` and ``text``: normalised."""

    def attempt(clip, pictures, labels, prompts):
        own = clip.encode_image(pictures, normalize=image)
        classes = clip.encode_text(prompts, normalize=text)
        return loss(scores(clip.logit_scale, own, classes), labels)

    return attempt


def against_captions(loss: Callable) -> Callable:
    """Every picture against the prompts of the pictures of its batch."""

    def attempt(clip, pictures, labels, prompts):
        captions = clip.encode_text(prompts, normalize=True)[labels]
        scores = clip.logit_scale.exp() * clip.encode_image(pictures, normalize=True) @ captions.T
        return loss(scores, torch.arange(len(scores)))

    return attempt


KEPT: dict[int, tuple] = {}


def loss_of_kept_prompts(clip, pictures, labels, prompts):
    """The prompts' features are computed once for a model."""
    _, text = KEPT.setdefault(id(clip), (clip, clip.encode_text(prompts, normalize=True)))
    scores = clip.logit_scale.exp() * clip.encode_image(pictures, normalize=True) @ text.T
    return F.cross_entropy(scores, labels)


def after_a_step(attempt: Callable) -> Callable:
    """The loss of an answer; with a step of the text tower, also that of a second call after it."""

    def run(clip, pictures, labels, prompts, step=None):
        loss = attempt(clip, pictures, labels, prompts)
        if step is None:
            return loss
        weight = clip.text.weight.data
        before = weight.clone()
        weight += step
        again = attempt(clip, pictures, labels, prompts)
        weight.copy_(before)
        return loss, again

    return run


STALE = "features are kept from an earlier call: the towers learn, so encode in every call"


@exercise(
    "4.3",
    "the value at three sizes and after a step, and gradients that reach both towers",
    {
        "the scale is forgotten: cosines are too close together": (
            loss_with(lambda scale, image, text: image @ text.T)
        ),
        "logit_scale is the logarithm of the scale: take exp() of it": (
            loss_with(lambda scale, image, text: scale * image @ text.T)
        ),
        "the features are not normalised: normalize=True": loss_with(image=False, text=False),
        "the pictures' features are not normalised: normalize=True": loss_with(image=False),
        "the prompts' features are not normalised: normalize=True": loss_with(text=False),
        "softmax is taken twice: scores are wanted": (
            loss_with(lambda scale, image, text: (scale.exp() * image @ text.T).softmax(-1))
        ),
        "softmax runs along the pictures: a picture chooses among classes, dim=-1": (
            loss_with(loss=lambda scores, labels: F.nll_loss(scores.log_softmax(0), labels))
        ),
        "F.nll_loss takes logarithms of probabilities: F.cross_entropy takes the scores themselves": (
            loss_with(loss=lambda scores, labels: F.nll_loss(scores.softmax(-1), labels))
        ),
        "the minus is missing: the loss is minus the logarithm of the right class's probability": (
            loss_with(loss=lambda scores, labels: -F.cross_entropy(scores, labels))
        ),
        "picture i is taken for class i: the classes are in labels": loss_with(
            loss=lambda scores, labels: F.cross_entropy(scores, torch.arange(len(labels)))
        ),
        "averaged over pictures and classes: a picture has one loss": loss_with(
            loss=lambda scores, labels: F.cross_entropy(scores, labels) / scores.shape[1]
        ),
        "the losses are summed: their mean is wanted, whatever the batch": loss_with(
            loss=lambda scores, labels: F.cross_entropy(scores, labels, reduction="sum")
        ),
        "that is one loss a picture, not a mean": loss_with(
            loss=lambda scores, labels: F.cross_entropy(scores, labels, reduction="none")
        ),
        "that is pretraining's loss, picture against caption: it counts two pictures of one class as "
        "wrong for each other; compare with all classes": against_captions(
            lambda s, pairs: (F.cross_entropy(s, pairs) + F.cross_entropy(s.T, pairs)) / 2
        ),
        "the captions of the batch are compared, not all classes": against_captions(
            F.cross_entropy
        ),
        "the scores are turned round: a row is a picture, a column is a class": (
            loss_with(lambda scale, image, text: scale.exp() * text @ image.T)
        ),
        "squeeze() takes a dimension away where there is one picture: leave it out": (
            loss_with(lambda scale, image, text: (scale.exp() * image @ text.T).squeeze())
        ),
        STALE: loss_of_kept_prompts,
        "a plain number has no gradient: logit_scale.exp() without .item()": (
            loss_with(lambda scale, image, text: scale.exp().item() * image @ text.T)
        ),
        "the prompts are encoded without gradients: the text tower gets no gradient": (
            loss_with(lambda scale, image, text: scale.exp() * image @ text.detach().T)
        ),
        "the pictures are encoded without gradients: the image tower gets no gradient": (
            loss_with(lambda scale, image, text: scale.exp() * image.detach() @ text.T)
        ),
    },
    through=after_a_step,
)
def few_shot_loss() -> Iterator[Case]:
    """Value against a loop over pictures, and the gradients of both towers."""
    for batch, count in ((5, 3), (4, 4), (6, 3), (1, 3)):
        clip = TwoTowers()
        clip.words.requires_grad_(False)
        pictures, prompts = torch.randn(batch, 3, 2, 2), torch.randint(0, 10, (count, 4))
        inputs = (clip, pictures, torch.tensor([1, 0, 2, 2, 0, 1][:batch]), prompts)
        what = f"the loss of {batch} pictures and {count} classes"
        expected = reference_loss(*inputs)
        if batch != 5:
            yield Case(what, inputs, expected, leaves=towers_of)
            continue
        stepped, step = copy.deepcopy(clip), torch.randn(5, 24)
        stepped.text.weight.data += step
        after = f"{what}, after a step of the text tower"
        losses = Parts({what: expected, after: reference_loss(stepped, *inputs[1:])})
        yield Case(what, (*inputs, step), losses, advice={after: STALE})


def towers_of(clip: TwoTowers, *_) -> dict[str, Tensor]:
    """What the loss should teach."""
    return {
        "the image tower": clip.image.weight,
        "the text tower": clip.text.weight,
        "logit_scale": clip.logit_scale,
    }


def cut_at(length: Callable) -> Callable:
    """The columns before a length."""
    return lambda tokens: tokens[:, : length(tokens)]


@exercise(
    "4.4",
    "exactly the columns that the longest prompt needs, also with token 0 inside one",
    {
        "the end-of-text token of the longest prompt is lost: a slice [:n] stops before n": (
            cut_at(lambda t: t.argmax(-1).max())
        ),
        "cut at the shortest prompt: longer ones lose their end": (
            cut_at(lambda t: t.argmax(-1).min() + 1)
        ),
        "cut at the first prompt's end: take the longest": cut_at(lambda t: t[0].argmax() + 1),
        "cut at the last prompt's end: take the longest": cut_at(lambda t: t[-1].argmax() + 1),
        "cut at the mean length: take the longest": (
            cut_at(lambda t: int(t.argmax(-1).float().mean()) + 1)
        ),
        "zeros are taken for padding: id 0 is a token, the highest is the end": (
            cut_at(lambda t: (t != 0).sum(-1).max()),
            cut_at(lambda t: (t == 0).int().argmax(-1).max()),
            cut_at(lambda t: max((row + [0]).index(0) for row in t.tolist())),
        ),
        "columns of zeros are dropped: id 0 is a token, and padding stands at the end alone": (
            lambda t: t[:, (t != 0).any(0)]
        ),
        "the end is looked for by an id of another vocabulary: it is the highest of a row": (
            cut_at(lambda t: (t == 49407).int().argmax(-1).max() + 1)
        ),
        "argmax runs along the prompts: the end of each prompt is in its row, dim=-1": (
            cut_at(lambda t: t.argmax(0).max() + 1)
        ),
        "nothing is cut: the padding is still there": lambda t: t,
        "one column too many: harmless, and not needed": cut_at(lambda t: t.argmax(-1).max() + 2),
        "rows are cut, not columns: tokens[:, :n]": lambda t: t[: t.argmax(-1).max() + 1],
        "token ids are whole numbers: keep the kind that came in": (
            lambda t: t[:, : t.argmax(-1).max() + 1] * 1.5
        ),
    },
)
def cut_prompts() -> Iterator[Case]:
    """The columns that the longest row needs, found by walking through lists."""
    end = 9
    cases = {
        "prompts of different lengths": [
            [7, 3, 9, 0, 0, 0, 0, 0, 0],
            [7, 2, 4, 5, 1, 3, 9, 0, 0],
            [7, 9, 0, 0, 0, 0, 0, 0, 0],
            [7, 8, 2, 9, 0, 0, 0, 0, 0],
        ],
        "a prompt with the token 0 inside": [[7, 0, 0, 4, 9, 0, 0], [7, 9, 0, 0, 0, 0, 0]],
        "many prompts with the token 0 in one place": [[7, 0, 9, 0, 0, 0]] * 2
        + [[7, 0, 3, 9, 0, 0]] * 7,
        "a prompt that fills the context": [[7, 9, 0, 0], [7, 1, 2, 9]],
        "prompts of one length": [[7, 4, 9, 0, 0], [7, 5, 9, 0, 0]],
    }
    for what, rows in cases.items():
        tokens = torch.tensor(rows)
        length = max(row.index(end) for row in rows) + 1
        advice = "the highest id of a row is its end: keep all columns up to the last of these"
        yield Case(f"the tokens of {what}", (tokens,), tokens[:, :length], advice=advice)


def rank_at(
    per_rank: Callable = lambda towers: sum(8 * width * depth for width, depth in towers),
    divide: Callable = lambda budget, size: budget // size,
) -> Callable:
    """The rank within a budget, with one thing changed."""
    return lambda budget, towers: divide(budget, per_rank(towers))


@exercise(
    "4.5",
    "the largest rank within six budgets, one of them too small for any",
    {
        "out is left out: the baseline has four pairs a block": (
            rank_at(lambda towers: sum(6 * w * d for w, d in towers))
        ),
        "one pair a block: that is Serial LoRA, LoRA has four": (
            rank_at(lambda towers: sum(2 * w * d for w, d in towers))
        ),
        "only one matrix of each pair is counted: there are A and B": (
            rank_at(lambda towers: sum(4 * w * d for w, d in towers))
        ),
        "only the first tower is counted": rank_at(lambda towers: 8 * towers[0][0] * towers[0][1]),
        "only the last tower is counted: add the towers up": (
            rank_at(lambda towers: 8 * towers[-1][0] * towers[-1][1])
        ),
        "each tower gets the whole budget: they share it": (
            lambda budget, towers: min(budget // (8 * w * d) for w, d in towers)
        ),
        "a rank that takes the whole budget is within it": (
            rank_at(divide=lambda budget, size: (budget - 1) // size)
        ),
        "the depth is left out": rank_at(lambda towers: sum(8 * w for w, _ in towers)),
        "rounded up, or one rank further: that is more than the budget": (
            rank_at(divide=lambda budget, size: -(-budget // size)),
            rank_at(divide=lambda budget, size: budget // size + 1),
        ),
        "rounded to the nearest: it may be more than the budget": (
            rank_at(divide=lambda budget, size: round(budget / size))
        ),
        "the budget is below one rank's parameters: only rank 0 is within it": (
            rank_at(divide=lambda budget, size: max(1, budget // size))
        ),
        "a rank is a whole number: // rounds down": rank_at(
            divide=lambda budget, size: budget / size
        ),
        "larger ranks are never tried: a budget may be large": (
            rank_at(divide=lambda budget, size: min(64, budget // size)),
            rank_at(divide=lambda budget, size: min(63, budget // size)),
        ),
    },
)
def lora_rank_within() -> Iterator[Case]:
    """The largest rank within a budget, found by trying one rank after another."""
    both = [(192, 6), (128, 4)]
    cases = [(50_000, [(64, 3), (96, 5)]), (2 * 64 * (192 * 6 + 128 * 4), both)]
    cases += [(983_040, [(768, 12), (512, 12)]), (8 * 5 * 40 * 2 - 1, [(40, 2)]), (639, [(40, 2)])]
    cases += [(200_000, [(40, 2)])]
    for budget, towers in cases:
        rank = 0
        while lora_size(towers, rank + 1) <= budget:
            rank += 1
        what = f"LoRA's rank within {budget:,} parameters on towers {towers}"
        advice = "count the parameters of LoRA at rank 1 over all towers first"
        yield Case(what, (budget, towers), rank, advice=advice)


def lora_size(towers: list[tuple[int, int]], rank: int) -> int:
    """LoRA's parameters on q, k, v and out, counted by PyTorch on the meta device."""
    blocks = [width for width, depth in towers for _ in range(4 * depth)]
    shapes = [shape for width in blocks for shape in ((rank, width), (width, rank))]
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)
