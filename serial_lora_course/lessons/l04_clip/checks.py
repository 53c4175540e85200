"""Checks of the exercises on CLIP: a classifier, a probe, the loss, the whole training, a lead's ±, and other kinds.

The towers here are two small tables of numbers. Expected values are computed one entry at a time, and
AdamW is written out, apart from the lesson's matrix products and PyTorch's optimizer.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


def cosine_table(pictures: Tensor, classes: Tensor) -> Tensor:
    """Cosines of every row of ``pictures`` (B, D) with every row of ``classes`` (C, D): (B, C)."""
    return torch.cosine_similarity(pictures[:, None], classes, dim=-1)


@exercise("4.1", "each picture gets the kind of the largest cosine, among all kinds and among some")
def classify() -> Iterator[Case]:
    """The kind whose cosine is largest, one picture at a time."""
    for batch, count, dim, kinds in (
        (9, 4, 6, [0, 1, 2, 3]),
        (12, 6, 5, [1, 3, 5]),
        (12, 5, 4, [4, 0, 2]),
    ):
        pictures = torch.randn(batch, dim) * torch.linspace(0.5, 3, batch).unsqueeze(1)
        sentences = torch.randn(count, dim) * torch.linspace(4, 0.5, count).unsqueeze(1)
        rows = cosine_table(pictures, sentences).tolist()
        best = [max(kinds, key=row.__getitem__) for row in rows]
        what = f"the classes of {batch} pictures among the kinds {kinds} of {count}"
        yield Case(what, (pictures, sentences, torch.tensor(kinds)), torch.tensor(best))


@exercise(
    "4.2", "the matrix equals that of a least squares fit with a row more for each pull, four times"
)
def fit_probe() -> Iterator[Case]:
    """By numpy's least squares: the pull is D more rows, which ask for the start itself."""
    for number, count, dim, alpha in (
        (6, 3, 8, 0.5),
        (12, 4, 5, 2.0),
        (5, 5, 5, 10.0),
        (4, 6, 7, 0.1),
    ):
        pictures, start = (F.normalize(torch.randn(n, dim), dim=-1) for n in (number, count))
        labels = torch.arange(number) * 2 % count  # some classes have no picture
        wanted = [[float(label == k) for k in range(count)] for label in labels.tolist()]
        rows = np.concatenate([pictures.numpy(), alpha**0.5 * np.eye(dim)])
        targets = np.concatenate([np.array(wanted), alpha**0.5 * start.numpy().T])
        best = np.linalg.lstsq(rows, targets, rcond=None)[0].T
        what = f"the probe of {number} pictures of {count} classes at α = {alpha:g}"
        yield Case(
            what, (pictures, labels, start, alpha), torch.tensor(best).float(), tolerance=1e-3
        )


class TwoTowers(nn.Module):
    """A CLIP of two linear layers: pictures (B, 3, 2, 2), prompts (C, 4) of ids below 10."""

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(12, 5), nn.Linear(24, 5)
        self.words = nn.Embedding.from_pretrained(torch.randn(10, 6))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def encode_image(self, pictures: Tensor, normalize: bool = False) -> Tensor:
        features = self.image(pictures.flatten(1))  # (B, 5)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        features = self.text(self.words(tokens).flatten(1))  # (C, 5)
        return F.normalize(features, dim=-1) if normalize else features


def reference_loss(clip: TwoTowers, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """log sum exp of a picture's scores minus the right one, one picture at a time, averaged."""
    cosine = cosine_table(clip.encode_image(pictures), clip.encode_text(prompts))
    scores = clip.logit_scale.exp() * cosine
    each = [row.logsumexp(0) - row[label] for row, label in zip(scores, labels, strict=True)]
    return sum(each) / len(each)


def after_a_step(attempt: Callable) -> Callable:
    """The loss of an answer; or that of a second call, after a step of the text tower."""

    def run(clip, pictures, labels, prompts, step=None):
        loss = attempt(clip, pictures, labels, prompts)
        if step is None:
            return loss
        clip.text.weight.data += step
        return attempt(clip, pictures, labels, prompts)

    return run


def towers_of(clip: TwoTowers, *_) -> dict[str, Tensor]:
    """What the loss should teach."""
    towers = {"the image tower": clip.image.weight, "the text tower": clip.text.weight}
    return towers | {"logit_scale": clip.logit_scale}


@exercise(
    "4.3",
    "the loss is right for five batches and after a step, and its gradients reach both towers",
    through=after_a_step,
)
def few_shot_loss() -> Iterator[Case]:
    """Value against a loop over pictures, and the gradients of both towers."""
    for batch, count, scale in ((5, 3, 3.0), (4, 4, 3.0), (5, 3, 200.0), (1, 3, 3.0), (6, 3, 3.0)):
        clip = TwoTowers(scale)
        pictures, prompts = torch.randn(batch, 3, 2, 2), torch.randint(0, 10, (count, 4))
        inputs = (clip, pictures, torch.tensor([1, 0, 2, 2, 0, 1][:batch]), prompts)
        what = f"the loss of {batch} pictures and {count} classes at scale {scale:g}"
        yield Case(what, inputs, reference_loss(*inputs), leaves=towers_of)
    stepped, step = copy.deepcopy(clip), torch.randn(5, 24)
    stepped.text.weight.data += step
    what, expected = f"{what}, after a step of the text tower", reference_loss(stepped, *inputs[1:])
    yield Case(what, (*inputs, step), expected, may_change=True)


LOSSES, WEIGHTS = "the loss of each step", "the weights of both towers afterwards"
SIZES, OFTEN = "how many pictures each step sees", "how often each shot is seen"
MODES, SHUFFLED = "the model's mode in the steps and afterwards", "epochs in different orders"
PAIRED, FETCHED = "each picture comes with its own class", "each shot is fetched anew in each epoch"


class Fetched(list):
    """Shots that count how often one of them is asked for."""

    times = 0

    def __getitem__(self, place):
        """A shot."""
        self.times += 1
        return super().__getitem__(place)


class Noted(TwoTowers):
    """Notes for each step of a training the pictures, their classes, and whether it is in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.double().eval().requires_grad_(False)
        self.image.weight.requires_grad_()
        self.text.weight.requires_grad_()
        self.steps: list[tuple[Tensor, list[int], bool]] = []


def noting_loss(clip: Noted, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """The loss that an answer is given."""
    clip.steps.append((pictures.detach(), labels.tolist(), clip.training))
    return reference_loss(clip, pictures, labels, prompts)


def read_training(losses, clip, groups, shots, *_) -> dict[str, object]:
    """What counts of a training; values where all shots are alike, so that their order can't matter."""
    pictures, labels, modes = zip(*clip.steps, strict=True)
    shown = sum(labels, [])
    facts = {
        SIZES: list(map(len, labels)),
        OFTEN: sorted(Counter(shown).items()),
        MODES: ["train" if on else "eval" for on in [*sorted(set(modes)), clip.training]],
        FETCHED: shots.times >= len(shown),
    }
    own = {int(label): picture for picture, label in shots}
    if len(own) == 1:
        weights = torch.cat([clip.image.weight.flatten(), clip.text.weight.flatten()]).detach()
        return {LOSSES: losses, WEIGHTS: weights} | facts
    epochs = {tuple(shown[i : i + len(shots)]) for i in range(0, len(shown), len(shots))}
    paired = torch.equal(torch.cat(pictures), torch.stack([own[label] for label in shown]))
    return facts | {SHUFFLED: len(epochs) > 1, PAIRED: paired}


def adamw_by_hand(clip, groups, shots, prompts, loss_of, steps, size) -> tuple[list, Tensor]:
    """The first shots again and again, by the formulas of AdamW and of the cosine."""
    pictures, labels = (torch.stack(part[:size]) for part in zip(*shots, strict=True))
    tensors = [p for group in groups for p in group["params"]]
    means, losses = [[0.0, 0.0] for _ in tensors], []
    for t in range(steps):
        loss = loss_of(clip, pictures, labels, prompts)
        losses.append(loss.item())
        slopes = torch.autograd.grad(loss, tensors)
        for p, g, mean, group in zip(tensors, slopes, means, groups, strict=True):
            rate = group["lr"] * (1 + math.cos(math.pi * t / steps)) / 2
            mean[:] = 0.9 * mean[0] + 0.1 * g, 0.999 * mean[1] + 0.001 * g**2
            first, second = mean[0] / (1 - 0.9 ** (t + 1)), mean[1] / (1 - 0.999 ** (t + 1))
            with torch.no_grad():
                p.mul_(1 - rate * group["weight_decay"]).sub_(rate * first / (second.sqrt() + 1e-8))
    return losses, torch.cat([p.flatten() for p in tensors]).detach()


@exercise(
    "4.4",
    "losses and weights equal those of AdamW written out, and shuffled epochs show each shot once",
)
def train_few_shot() -> Iterator[Case]:
    """Shots that are all one picture, then shots of six classes."""
    for alike in (True, False):
        clip, prompts, picture = Noted(), torch.randint(0, 10, (6, 4)), torch.randn(3, 2, 2)
        shots = [(picture if alike else torch.randn(3, 2, 2), 1 if alike else i) for i in range(6)]
        shots = Fetched((each.double(), torch.tensor(label)) for each, label in shots)
        groups = [
            {"params": [tower.weight], "lr": lr, "weight_decay": decay}
            for tower, lr, decay in ((clip.image, 0.02, 0.5), (clip.text, 0.05, 0.1))
        ]
        inputs = (clip, groups, shots, prompts, noting_loss, 9, 4)  # an epoch ends within a batch
        losses, weights = adamw_by_hand(*copy.deepcopy(inputs))
        values = {LOSSES: losses, WEIGHTS: weights} if alike else {}
        counts = {SIZES: [4] * 9, OFTEN: [(1, 36)] if alike else [(i, 6) for i in range(6)]}
        modes = {MODES: ["train", "eval"], FETCHED: True}
        modes |= {} if alike else {SHUFFLED: True, PAIRED: True}
        yield Case(
            f"a training on {'one picture' if alike else 'six pictures'}",
            inputs,
            Parts(values | counts | modes),
            read=read_training,
            may_change=True,
            form="return a list with the loss of each step",
            advice={
                OFTEN: "some shots are seen more often than others: show each of them once, in a new order, "
                "before one comes again"
            },
        )


@exercise("4.5", "leads and their ± equal those of counting, on four pairs of methods")
def lead() -> Iterator[Case]:
    """By counting: how many only we have right, how many only they, and a variance from these counts."""
    for both, only_ours, only_theirs, neither in (
        (30, 12, 4, 9),
        (5, 2, 7, 1),
        (0, 6, 5, 9),
        (20, 3, 0, 2),
    ):
        parts = ((1, 1, both), (1, 0, only_ours), (0, 1, only_theirs), (0, 0, neither))
        right = torch.tensor([pair[:2] for pair in parts for _ in range(pair[2])]).bool()
        ours, theirs = right[torch.randperm(len(right))].T
        number, ahead = len(right), only_ours - only_theirs
        variance = (only_ours + only_theirs - ahead**2 / number) / (number - 1)
        half = 2 * math.sqrt(variance * number)
        what = f"the lead where only we have {only_ours} of {number} right, only they {only_theirs}"
        yield Case(
            what,
            (ours, theirs),
            Parts({"the lead": float(ahead), "the ±": half}),
            form="return two numbers: the lead, and its ±",
            tolerance=1e-4,
        )


SHOWN, CHANGED = "what learn was given", "the change on each picture of another kind"


class Learning:
    """A training whose outcome is known beforehand, and which notes what it is given."""

    def __init__(self, after: tuple[Tensor, Tensor]):
        self.after, self.shown = after, []

    def __call__(self, shots, labelled):
        """The same two tables whatever is learned."""
        self.shown = [(int(picture), int(number)) for picture, number in shots]
        return self.after


def read_change(change, shots, labelled, labels, before, learn) -> dict[str, object]:
    """What counts of the change, whole numbers or not, and of the way to it."""
    change = change.float() if isinstance(change, Tensor) else change
    return {SHOWN: sum(map(list, learn.shown), []), CHANGED: change}


@exercise(
    "4.6",
    "only the labelled kinds are learned, by their new numbers, and the others are asked among themselves",
)
def change_elsewhere() -> Iterator[Case]:
    """The kind of the largest cosine among the others, one picture at a time."""
    for count, labelled in ((5, [0, 2, 4]), (6, [4, 1])):
        labels = torch.arange(8 * count) % count
        before, after = (
            tuple(F.normalize(torch.randn(size, 4), dim=-1) for size in (len(labels), count))
            for _ in range(2)
        )
        shots = [(10 + i, i % count) for i in range(2 * count)]
        others = [kind for kind in range(count) if kind not in labelled]
        right = [
            [max(others, key=row.__getitem__) for row in cosine_table(*tables).tolist()]
            for tables in (before, after)
        ]
        change = [
            (now == label) - (was == label)
            for was, now, label in zip(*right, labels.tolist(), strict=True)
            if label in others
        ]
        shown = [[i, labelled.index(kind)] for i, kind in shots if kind in labelled]
        expected = Parts({SHOWN: sum(shown, []), CHANGED: torch.tensor(change).float()})
        yield Case(
            f"a training on the kinds {labelled} of {count}",
            (shots, labelled, labels, before, Learning(after)),
            expected,
            read=read_change,
            may_change=True,
        )
