"""Checks of lesson 04: class scores, zero-shot accuracy, the loss, cut prompts, equal budget.

The towers here are two small tables of numbers, and every expected value is computed one entry at
a time, apart from the lesson's matrix products.
"""

from __future__ import annotations

import math

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


def cosine_table(pictures: Tensor, classes: Tensor) -> Tensor:
    """Cosines of every row of ``pictures`` (B, D) with every row of ``classes`` (C, D): (B, C)."""
    return torch.stack(
        [torch.cosine_similarity(picture.unsqueeze(0), classes, dim=1) for picture in pictures]
    )


def _lengths(features: Tensor) -> Tensor:
    return features.pow(2).sum(-1, keepdim=True).sqrt()


@exercise("4.1")
def similarity_scores(attempt) -> str:
    """exp(logit_scale) times the cosine, pictures in rows and classes in columns."""
    for batch, count, dim in ((4, 4, 6), (5, 3, 8)):
        pictures = torch.randn(batch, dim) * torch.linspace(0.5, 3, batch).unsqueeze(1)
        classes = torch.randn(count, dim) * torch.linspace(4, 0.5, count).unsqueeze(1)
        log_scale = torch.tensor(1.7)
        scale = math.exp(1.7)
        cosine = cosine_table(pictures, classes)
        products = (pictures.unsqueeze(1) * classes.unsqueeze(0)).sum(-1)  # (B, C)
        require_close(
            f"the scores of {batch} pictures and {count} classes",
            call(attempt, pictures, classes, log_scale),
            scale * cosine,
            suspects={
                "turned round: a row is a picture, a column is a class": scale * cosine.T,
                "the scale is forgotten": cosine,
                "logit_scale is the logarithm of the scale: take exp() of it": 1.7 * cosine,
                "the cosine is divided by the scale: it is a factor": cosine / scale,
                "neither side is normalised: long vectors win, whatever they point at": (
                    scale * products
                ),
                "only the pictures are normalised: the classes need it too": (
                    scale * products / _lengths(pictures)
                ),
                "only the classes are normalised: the pictures need it too": (
                    scale * products / _lengths(classes).T
                ),
                "normalised along the wrong dimension: every row gets length one, so dim=-1": (
                    scale
                    * (pictures / _lengths(pictures.T).T)
                    @ (classes / _lengths(classes.T).T).T
                ),
                "softmax is not wanted here: these are scores": (scale * cosine).softmax(-1),
            },
        )
    return "the scaled cosine of every pair, for features of unequal lengths, at two sizes"


@exercise("4.2")
def zero_shot_accuracy(attempt) -> str:
    """The share of rows whose largest cosine is at the label, counted one picture at a time."""
    for number, count, dim in ((12, 12, 5), (30, 4, 6)):
        pictures = nn.functional.normalize(torch.randn(number, dim), dim=-1)
        classes = nn.functional.normalize(torch.randn(count, dim), dim=-1)
        cosine = cosine_table(pictures, classes)
        nearest = [max(range(count), key=row.__getitem__) for row in cosine.tolist()]
        # Two of three labels are right, and classes have different sizes.
        labels = torch.tensor(
            [guess if i % 3 else (guess + 1) % count for i, guess in enumerate(nearest)]
        )
        right = [guess == label for guess, label in zip(nearest, labels.tolist(), strict=True)]
        got = call(
            attempt,
            pictures,
            classes,
            labels,
            what=f"the accuracy on {number} pictures of {count} classes",
        )
        require(
            not isinstance(got, Tensor) or got.numel() == 1,
            "the kind of result",
            "one number",
            got,
            "that is one value a picture: take the mean over all of them",
        )
        share = sum(right) / number
        by_class = [
            sum(hit for hit, own in zip(right, labels.tolist(), strict=True) if own == label)
            / labels.tolist().count(label)
            for label in sorted(set(labels.tolist()))
        ]
        probability = cosine.softmax(-1)[torch.arange(number), labels].mean().item()
        suspects = {
            "that is how many are right, not their share: divide by the number of pictures": (
                float(sum(right))
            ),
            "that is in percent: a number between 0 and 1 is wanted": 100 * share,
            "that is the share of mistakes": 1 - share,
            "argmin finds the worst fit: the best has the largest cosine": (
                (cosine.argmin(1) == labels).float().mean().item()
            ),
            "that is the mean of the classes' accuracies: every picture counts the same here": (
                sum(by_class) / len(by_class)
            ),
            "that is the mean probability of the right class: count right guesses": probability,
            "the number right is divided by the number of classes": sum(right) / count,
        }
        if number == count:
            suspects[
                "argmax runs along the pictures: each picture chooses among classes, dim=1"
            ] = (cosine.argmax(0) == labels).float().mean().item()
        value = float(got) if isinstance(got, (Tensor, int, float)) else got
        _require_near(
            f"the accuracy on {number} pictures of {count} classes", value, share, suspects
        )
        require(
            isinstance(got, (int, float)),
            "the kind of result",
            "a plain number",
            got,
            "right, but still a tensor: .item() makes a plain number of it",
        )
    return "equal to counting one picture at a time, at two sizes"


def _require_near(what: str, got, expected: float, suspects: dict[str, float]) -> None:
    require_returned(what, got, expected)
    require(
        isinstance(got, (int, float)), what, expected, got, f"a number, not a {type(got).__name__}"
    )
    if not math.isclose(got, expected, rel_tol=1e-5, abs_tol=1e-7):
        matching = [
            cause for cause, value in suspects.items() if math.isclose(got, value, rel_tol=1e-5)
        ]
        cause = matching[0] if matching else "try it on three pictures and count by hand"
        require(False, what, round(expected, 4), round(got, 4), cause)


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
        return features / _lengths(features) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """(C, 4) -> (C, 5)."""
        features = self.text(self.words(tokens).flatten(1))
        return features / _lengths(features) if normalize else features


def reference_loss(clip: TwoTowers, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """log sum exp of a picture's scores minus the right one, one picture at a time, averaged."""
    scores = clip.logit_scale.exp() * cosine_table(
        clip.encode_image(pictures), clip.encode_text(prompts)
    )
    each = [row.exp().sum().log() - row[label] for row, label in zip(scores, labels, strict=True)]
    return sum(each) / len(each)


@exercise("4.3")
def few_shot_loss(attempt) -> str:
    """Value against a loop over pictures, and the gradients of both towers."""
    for batch, count in ((4, 4), (6, 3)):
        clip = TwoTowers()
        pictures, prompts = torch.randn(batch, 3, 2, 2), torch.randint(0, 10, (count, 4))
        labels = torch.randint(0, count, (batch,))
        labels[0], labels[1] = 1, 0
        what = f"the loss of {batch} pictures and {count} classes"
        got = call(attempt, clip, pictures, labels, prompts, what=what)
        require_returned(what, got, "a scalar")
        require(
            isinstance(got, Tensor),
            what,
            "a tensor that gradients can flow back from",
            got,
            "a plain number has no gradient: leave .item() away",
        )
        expected = reference_loss(clip, pictures, labels, prompts)
        with torch.no_grad():
            suspects = _loss_suspects(clip, pictures, labels, prompts)
        require_close(what, got, expected.detach(), suspects)
        _require_gradients(clip, got, expected)
    return "the value at two sizes, and gradients that reach both towers"


def _loss_suspects(clip, pictures, labels, prompts) -> dict[str, Tensor]:
    image, text = clip.encode_image(pictures), clip.encode_text(prompts)
    cosine = cosine_table(image, text)
    scores = clip.logit_scale.exp() * cosine
    entropy = nn.functional.cross_entropy
    own = clip.logit_scale.exp() * cosine_table(image, text[labels])  # (B, B)
    pairs = torch.arange(len(labels))
    suspects = {
        "the scale is forgotten: cosines alone are too close together": entropy(cosine, labels),
        "logit_scale is the logarithm of the scale: take exp() of it": (
            entropy(clip.logit_scale * cosine, labels)
        ),
        "the features are not normalised: normalize=True": (
            entropy(clip.logit_scale.exp() * image @ text.T, labels)
        ),
        "softmax is taken twice: cross_entropy wants scores": entropy(scores.softmax(-1), labels),
        "the losses are summed: their mean is wanted, whatever the batch": (
            entropy(scores, labels, reduction="sum")
        ),
        "that is one loss a picture: take the mean": entropy(scores, labels, reduction="none"),
        "that is pretraining's loss, picture against caption: it counts two pictures of one class "
        "as wrong for each other; compare with all classes": (
            (entropy(own, pairs) + entropy(own.T, pairs)) / 2
        ),
        "the captions of the batch are compared, not all classes": entropy(own, pairs),
    }
    if scores.shape[0] == scores.shape[1]:
        suspects["the scores are turned round: a row is a picture, a column is a class"] = entropy(
            scores.T, labels
        )
    return suspects


def _require_gradients(clip: TwoTowers, got: Tensor, expected: Tensor) -> None:
    towers = {"image": clip.image.weight, "text": clip.text.weight}
    wanted = dict(zip(towers, torch.autograd.grad(expected, [*towers.values()]), strict=True))
    found = dict.fromkeys(towers)
    if got.requires_grad:
        gradients = torch.autograd.grad(got, [*towers.values()], allow_unused=True)
        found = dict(zip(towers, gradients, strict=True))
    causes = {
        "image": "the pictures are encoded without gradient: leave no_grad and detach away",
        "text": "the prompts are encoded without gradient, so the text tower never learns: leave "
        "no_grad and detach away",
    }
    for tower, gradient in found.items():
        require(
            gradient is not None,
            f"the gradient in the {tower} tower",
            "one",
            "none",
            causes[tower]
            if any(g is not None for g in found.values())
            else "no gradient reaches either tower: leave no_grad, detach and .item() away",
        )
        require_close(f"the gradient in the {tower} tower", gradient, wanted[tower])


@exercise("4.4")
def cut_prompts(attempt) -> str:
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
        "a prompt that fills the context": [[7, 9, 0, 0], [7, 1, 2, 9]],
        "prompts of one length": [[7, 4, 9, 0, 0], [7, 5, 9, 0, 0]],
    }
    for what, rows in cases.items():
        tokens = torch.tensor(rows)
        ends = [row.index(end) for row in rows]
        length = max(ends) + 1
        nonzero = max(sum(token != 0 for token in row) for row in rows)
        got = call(attempt, tokens, what=what)
        suspects = {
            "the end-of-text token of the longest prompt is lost: a slice [:n] stops before n": (
                tokens[:, : length - 1]
            ),
            "cut at the shortest prompt: longer ones lose their end": tokens[:, : min(ends) + 1],
            "cut at the first prompt's end: take the longest": tokens[:, : ends[0] + 1],
            "cut at the last prompt's end: take the longest": tokens[:, : ends[-1] + 1],
            "zeros are taken for padding: id 0 is a token too, find the highest id": (
                tokens[:, :nonzero]
            ),
            "nothing is cut": tokens,
            "one column too many: harmless, and not needed": tokens[:, : length + 1],
            "rows are cut, not columns: tokens[:, :n]": tokens[:length],
        }
        expected = tokens[:, :length]
        suspects = {
            cause: value for cause, value in suspects.items() if not torch.equal(value, expected)
        }
        require_close(f"the tokens of {what}", got, expected, suspects)
    return "exactly the columns that the longest prompt needs, also with token 0 inside a prompt"


@exercise("4.5")
def lora_rank_within(attempt) -> str:
    """The largest rank within a budget, found by trying one rank after another."""
    both = [(192, 6), (128, 4)]
    cases = [(50_000, [(64, 3), (96, 5)]), (2 * 64 * (192 * 6 + 128 * 4), both)]
    cases += [(983_040, [(768, 12), (512, 12)]), (8 * 5 * 40 * 2 - 1, [(40, 2)])]
    for budget, towers in cases:
        rank = 0
        while _lora_size(towers, rank + 1) <= budget:
            rank += 1
        got = call(attempt, budget, towers)
        unit = sum(width * depth for width, depth in towers)
        suspects = {
            "out is left out: the baseline has four pairs a block": budget // (6 * unit),
            "one pair a block is counted: that is Serial LoRA, LoRA has four": budget // (2 * unit),
            "only one matrix of each pair is counted: there are A and B": budget // (4 * unit),
            "only the first tower is counted": budget // (8 * towers[0][0] * towers[0][1]),
            "the depth is left out": budget // (8 * sum(width for width, _ in towers)),
            "rounded up: that is more than the budget": -(-budget // (8 * unit)),
        }
        if rank != budget / (8 * unit):
            suspects["a rank is a whole number: // rounds down"] = budget / (8 * unit)
        require_equal(
            f"LoRA's rank within {budget:,} parameters on towers {towers}",
            got,
            rank,
            suspects,
            otherwise="count the parameters of LoRA at rank 1 over all towers first",
        )
        require(
            isinstance(got, int),
            "the kind of result",
            "a whole number",
            got,
            "right in value, but a float: // of whole numbers gives a whole number",
        )
    return "the largest rank within four budgets, two of them not used up"


def _lora_size(towers: list[tuple[int, int]], rank: int) -> int:
    """LoRA's parameters on q, k, v and out, counted by PyTorch on the meta device."""
    shapes = [
        shape
        for width, depth in towers
        for _ in range(4 * depth)
        for shape in ((rank, width), (width, rank))
    ]
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)
