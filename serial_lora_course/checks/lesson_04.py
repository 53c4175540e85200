"""Checks of lesson 04: class scores, zero-shot accuracy, the loss, cut prompts, equal budget.

The towers here are two small tables of numbers, and every expected value is computed one entry at
a time, apart from the lesson's matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from serial_lora_course.checks.cases import Case
from serial_lora_course.checks.checking import exercise


def numel_of(*shapes: tuple[int, int]) -> int:
    """The elements of tensors of these shapes, counted by PyTorch on the meta device."""
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


def cosine_table(pictures: Tensor, classes: Tensor) -> Tensor:
    """Cosines of every row of ``pictures`` (B, D) with every row of ``classes`` (C, D): (B, C)."""
    return torch.stack(
        [torch.cosine_similarity(picture.unsqueeze(0), classes, dim=1) for picture in pictures]
    )


def unit(features: Tensor, dim: int = -1) -> Tensor:
    """The vectors along a dimension, each divided by its length."""
    return features / features.pow(2).sum(dim, keepdim=True).sqrt()


@exercise(
    "4.1", "the scaled cosine of every pair, for features of unequal lengths, and its gradients"
)
def similarity_scores() -> Iterator[Case]:
    """exp(logit_scale) times the cosine, pictures in rows and classes in columns."""
    for batch, count, dim in ((4, 4, 6), (5, 3, 8)):
        pictures = torch.randn(batch, dim) * torch.linspace(0.5, 3, batch).unsqueeze(1)
        classes = torch.randn(count, dim) * torch.linspace(4, 0.5, count).unsqueeze(1)
        trained = batch != count
        pictures.requires_grad_(trained), classes.requires_grad_(trained)
        scale, cosine = math.exp(1.7), cosine_table(pictures, classes)
        causes = {
            "turned round: a row is a picture, a column is a class": scale * cosine.T,
            "the scale is forgotten": cosine,
            "logit_scale is the logarithm of the scale: take exp() of it": 1.7 * cosine,
            "the cosine is divided by the scale: it is a factor": cosine / scale,
            "neither side is normalised: so long vectors win": scale * pictures @ classes.T,
            "only the pictures are normalised, not the classes": scale * unit(pictures) @ classes.T,
            "only the classes are normalised, not the pictures": scale * pictures @ unit(classes).T,
            "normalised along the wrong dimension: every row gets length one, so dim=-1": (
                scale * unit(pictures, 0) @ unit(classes, 0).T
            ),
            "normalised by the length of all rows together: each row by its own, dim=-1": (
                scale * (pictures / pictures.norm()) @ (classes / classes.norm()).T
            ),
            "that is 100, CLIP's usual scale: take the logit_scale that came in": 100 * cosine,
            "softmax is not wanted here: these are scores": (scale * cosine).softmax(-1),
        }
        leaves = (lambda i, t, _: {"image_features": i, "text_features": t}) if trained else None
        what = f"the scores of {batch} pictures and {count} classes"
        inputs = (pictures, classes, torch.tensor(1.7))
        yield Case(what, inputs, scale * cosine, causes, leaves=leaves)


@exercise("4.2", "equal to counting one picture at a time, at two sizes")
def zero_shot_accuracy() -> Iterator[Case]:
    """The share of rows whose largest cosine is at the label, counted one picture at a time."""
    for number, count, dim in ((12, 12, 5), (30, 4, 6)):
        pictures, classes = unit(torch.randn(number, dim)), unit(torch.randn(count, dim))
        cosine = cosine_table(pictures, classes)
        nearest = [max(range(count), key=row.__getitem__) for row in cosine.tolist()]
        # Two of three labels are right, and classes have different sizes.
        own = [guess if i % 3 else (guess + 1) % count for i, guess in enumerate(nearest)]
        labels = torch.tensor(own)
        right = [guess == label for guess, label in zip(nearest, own, strict=True)]
        hits = {label: [r for r, o in zip(right, own, strict=True) if o == label] for label in own}
        by_class = [sum(hit) / len(hit) for hit in hits.values()]
        share = sum(right) / number

        def agreeing(guesses: Tensor, labels: Tensor = labels) -> float:
            return (guesses == labels).float().mean().item()

        causes = {
            "that is how many are right, not their share among the pictures": float(sum(right)),
            "that is in percent: a number between 0 and 1 is wanted": 100 * share,
            "that is the share of mistakes": 1 - share,
            "argmin finds the worst fit: the best has the largest": agreeing(cosine.argmin(1)),
            "that is the mean of the classes' accuracies: every picture counts the same here": (
                sum(by_class) / len(by_class)
            ),
            "that is the mean probability of the right class: count right guesses": (
                cosine.softmax(-1)[torch.arange(number), labels].mean().item()
            ),
            "the number right is divided by the number of classes": sum(right) / count,
            "guesses (N, 1) meet labels (N,), so all pairs are compared: make both (N,)": (
                (torch.tensor(nearest)[:, None] == labels).float().mean().item()
            ),
            "argmax runs along the pictures: each picture chooses among classes, dim=1": (
                agreeing(cosine.argmax(0)) if number == count else -1.0
            ),
        }
        what = f"the accuracy on {number} pictures of {count} classes"
        otherwise = "try it on three pictures and count by hand"
        yield Case(what, (pictures, classes, labels), share, causes, otherwise=otherwise)


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


@exercise("4.3", "the value at two sizes, and gradients that reach both towers")
def few_shot_loss() -> Iterator[Case]:
    """Value against a loop over pictures, and the gradients of both towers."""
    for batch, count in ((4, 4), (6, 3)):
        clip = TwoTowers()
        pictures, prompts = torch.randn(batch, 3, 2, 2), torch.randint(0, 10, (count, 4))
        labels, pairs = torch.randint(0, count, (batch,)), torch.arange(batch)
        labels[0], labels[1] = 1, 0
        image, text = clip.encode_image(pictures), clip.encode_text(prompts)
        log_scale, cosine = clip.logit_scale, cosine_table(image, text)
        scores = log_scale.exp() * cosine
        own = log_scale.exp() * cosine_table(image, text[labels])  # (B, B)
        causes = {
            "the scale is forgotten: cosines are too close together": cross_entropy(cosine, labels),
            "logit_scale is the logarithm of the scale: take exp() of it": cross_entropy(
                log_scale * cosine, labels
            ),
            "the features are not normalised: normalize=True": cross_entropy(
                log_scale.exp() * image @ text.T, labels
            ),
            "the pictures' features are not normalised: normalize=True": cross_entropy(
                log_scale.exp() * image @ unit(text).T, labels
            ),
            "the prompts' features are not normalised: normalize=True": cross_entropy(
                log_scale.exp() * unit(image) @ text.T, labels
            ),
            "softmax is taken twice: scores are wanted": cross_entropy(scores.softmax(-1), labels),
            "F.nll_loss takes logarithms of probabilities: F.cross_entropy takes the scores themselves": (
                nll_loss(scores.softmax(-1), labels)
            ),
            "picture i is taken for class i: the classes are in labels": (
                cross_entropy(scores, pairs) if batch == count else scores
            ),
            "averaged over pictures and classes: a picture has one loss": (
                cross_entropy(scores, labels) / count
            ),
            "the losses are summed: their mean is wanted, whatever the batch": cross_entropy(
                scores, labels, reduction="sum"
            ),
            "that is one loss a picture, not a mean": cross_entropy(
                scores, labels, reduction="none"
            ),
            "that is pretraining's loss, picture against caption: it counts two pictures of "
            "one class as wrong for each other; compare with all classes": (
                (cross_entropy(own, pairs) + cross_entropy(own.T, pairs)) / 2
            ),
            "the captions of the batch are compared, not all classes": cross_entropy(own, pairs),
            "the scores are turned round: a row is a picture, a column is a class": (
                cross_entropy(scores.T, labels) if batch == count else scores
            ),
        }
        what = f"the loss of {batch} pictures and {count} classes"
        expected = reference_loss(clip, pictures, labels, prompts)
        yield Case(
            what,
            (clip, pictures, labels, prompts),
            expected,
            causes,
            leaves=lambda clip, *_: {
                "the image tower": clip.image.weight,
                "the text tower": clip.text.weight,
            },
        )


@exercise("4.4", "exactly the columns that the longest prompt needs, also with token 0 inside one")
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
        "a prompt that fills the context": [[7, 9, 0, 0], [7, 1, 2, 9]],
        "prompts of one length": [[7, 4, 9, 0, 0], [7, 5, 9, 0, 0]],
    }
    for what, rows in cases.items():
        tokens = torch.tensor(rows)
        ends = [row.index(end) for row in rows]
        length = max(ends) + 1
        nonzero = max(sum(token != 0 for token in row) for row in rows)
        causes = {
            "the end-of-text token of the longest prompt is lost: a slice [:n] stops before n": (
                tokens[:, : length - 1]
            ),
            "cut at the shortest prompt: longer ones lose their end": tokens[:, : min(ends) + 1],
            "cut at the first prompt's end: take the longest": tokens[:, : ends[0] + 1],
            "cut at the last prompt's end: take the longest": tokens[:, : ends[-1] + 1],
            "zeros are taken for padding: id 0 is a token, the highest is the end": (
                tokens[:, :nonzero]
            ),
            "columns of zeros are dropped: id 0 is a token, and padding stands at the end alone": (
                tokens[:, (tokens != 0).any(0)]
            ),
            "the end is looked for by an id of another vocabulary: it is the highest of a row": (
                tokens[:, :1]
            ),
            "nothing is cut": tokens,
            "one column too many: harmless, and not needed": tokens[:, : length + 1],
            "rows are cut, not columns: tokens[:, :n]": tokens[:length],
        }
        yield Case(f"the tokens of {what}", (tokens,), tokens[:, :length], causes)


@exercise("4.5", "the largest rank within five budgets, one of them too small for any")
def lora_rank_within() -> Iterator[Case]:
    """The largest rank within a budget, found by trying one rank after another."""
    both = [(192, 6), (128, 4)]
    cases = [(50_000, [(64, 3), (96, 5)]), (2 * 64 * (192 * 6 + 128 * 4), both)]
    cases += [(983_040, [(768, 12), (512, 12)]), (8 * 5 * 40 * 2 - 1, [(40, 2)]), (639, [(40, 2)])]
    for budget, towers in cases:
        rank = 0
        while lora_size(towers, rank + 1) <= budget:
            rank += 1
        unit_size = sum(width * depth for width, depth in towers)
        causes = {
            "out is left out: the baseline has four pairs a block": budget // (6 * unit_size),
            "one pair a block: that is Serial LoRA, LoRA has four": budget // (2 * unit_size),
            "only one matrix of each pair is counted: there are A and B": budget // (4 * unit_size),
            "only the first tower is counted": budget // (8 * towers[0][0] * towers[0][1]),
            "only the last tower is counted: add the towers up": (
                budget // (8 * towers[-1][0] * towers[-1][1])
            ),
            "each tower gets the whole budget: they share it": min(
                budget // (8 * width * depth) for width, depth in towers
            ),
            "a rank that takes the whole budget is within it": (budget - 1) // (8 * unit_size),
            "the depth is left out": budget // (8 * sum(width for width, _ in towers)),
            "rounded up: that is more than the budget": -(-budget // (8 * unit_size)),
            "rounded to the nearest: it may be more than the budget": round(
                budget / (8 * unit_size)
            ),
            "the budget is below one rank's parameters: only rank 0 is within it": max(rank, 1),
            "a rank is a whole number: // rounds down": budget / (8 * unit_size),
        }
        what = f"LoRA's rank within {budget:,} parameters on towers {towers}"
        otherwise = "count the parameters of LoRA at rank 1 over all towers first"
        yield Case(what, (budget, towers), rank, causes, otherwise=otherwise)


def lora_size(towers: list[tuple[int, int]], rank: int) -> int:
    """LoRA's parameters on q, k, v and out, counted by PyTorch on the meta device."""
    blocks = [width for width, depth in towers for _ in range(4 * depth)]
    return sum(numel_of((rank, width), (width, rank)) for width in blocks)
