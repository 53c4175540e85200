"""Checks of the exercises on CLIP: class scores, zero-shot accuracy, the loss, and the whole training.

The towers here are two small tables of numbers. Expected values are computed one entry at a time, and
AdamW is written out, apart from the lesson's matrix products and PyTorch's optimizer.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

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


# ------------------------------------------------------------------------------ 4.1 class scores


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
        "neither side is normalised: so long vectors win": (
            lambda image, text, s: s.exp() * image @ text.T
        ),
        "only one side is normalised, and the other's long vectors count more": (
            lambda image, text, s: s.exp() * unit(image) @ text.T,
            lambda image, text, s: s.exp() * image @ unit(text).T,
        ),
        "normalised along the wrong dimension: every row gets length one, so dim=-1": (
            lambda image, text, s: s.exp() * unit(image, 0) @ unit(text, 0).T
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
    names = ("image_features", "text_features", "logit_scale")
    for batch, count, dim, log_scale in ((4, 4, 6, 1.7), (5, 3, 8, 5.3)):
        pictures = torch.randn(batch, dim) * torch.linspace(0.5, 3, batch).unsqueeze(1)
        classes = torch.randn(count, dim) * torch.linspace(4, 0.5, count).unsqueeze(1)
        inputs = (pictures, classes, torch.tensor(log_scale))
        leaves = None
        if batch != count:
            inputs = tuple(tensor.requires_grad_() for tensor in inputs)
            leaves = lambda *given: dict(zip(names, given, strict=True))  # noqa: E731
        what = f"the scores of {batch} pictures and {count} classes at logit_scale {log_scale}"
        yield Case(what, inputs, inputs[2].exp() * cosine_table(*inputs[:2]), leaves=leaves)


# -------------------------------------------------------------------------------- 4.2 accuracy


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


# -------------------------------------------------------------------------------- 4.3 the loss


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
    each = [row.logsumexp(0) - row[label] for row, label in zip(scores, labels, strict=True)]
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


def against_captions(clip, pictures, labels, prompts):
    """Every picture against the prompts of the pictures of its batch, both ways."""
    captions = clip.encode_text(prompts, normalize=True)[labels]
    scores = clip.logit_scale.exp() * clip.encode_image(pictures, normalize=True) @ captions.T
    pairs = torch.arange(len(scores))
    return (F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)) / 2


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
    "the value at five sizes and after a step, and gradients that reach both towers",
    {
        "the scale is forgotten: cosines are too close together": (
            loss_with(lambda scale, image, text: image @ text.T)
        ),
        "logit_scale is the logarithm of the scale: take exp() of it": (
            loss_with(lambda scale, image, text: scale * image @ text.T)
        ),
        "the scale is cut off at 100: take the logit_scale that came in": (
            loss_with(lambda scale, image, text: scale.exp().clamp(max=100) * image @ text.T)
        ),
        "features are not normalised: normalize=True, for pictures and prompts": (
            loss_with(image=False, text=False),
            loss_with(text=False),
            loss_with(image=False),
        ),
        "softmax is taken twice: scores are wanted": (
            loss_with(lambda scale, image, text: (scale.exp() * image @ text.T).softmax(-1))
        ),
        "softmax runs along the pictures: a picture chooses among classes, dim=-1": (
            loss_with(loss=lambda scores, labels: F.nll_loss(scores.log_softmax(0), labels))
        ),
        "F.cross_entropy takes the scores: not probabilities in F.nll_loss, and no minus": (
            loss_with(loss=lambda scores, labels: F.nll_loss(scores.softmax(-1), labels)),
            loss_with(loss=lambda scores, labels: -F.cross_entropy(scores, labels)),
        ),
        "picture i is taken for class i: the classes are in labels": loss_with(
            loss=lambda scores, labels: F.cross_entropy(scores, torch.arange(len(labels)))
        ),
        "the losses are summed: their mean is wanted, whatever the batch": loss_with(
            loss=lambda scores, labels: F.cross_entropy(scores, labels, reduction="sum")
        ),
        "that is pretraining's loss, picture against caption: it counts two pictures of one class as "
        "wrong for each other; compare with all classes": against_captions,
        "the scores are turned round: a row is a picture, a column is a class": (
            loss_with(lambda scale, image, text: scale.exp() * text @ image.T)
        ),
        "squeeze() takes a dimension away where there is one picture: leave it out": (
            loss_with(lambda scale, image, text: (scale.exp() * image @ text.T).squeeze())
        ),
        STALE: loss_of_kept_prompts,
        "the scale gets no gradient: logit_scale.exp() without .item() and detach()": (
            loss_with(lambda scale, image, text: scale.exp().item() * image @ text.T)
        ),
        "a tower is read without gradients, and would never learn": (
            loss_with(lambda scale, image, text: scale.exp() * image @ text.detach().T),
            loss_with(lambda scale, image, text: scale.exp() * image.detach() @ text.T),
        ),
    },
    through=after_a_step,
)
def few_shot_loss() -> Iterator[Case]:
    """Value against a loop over pictures, and the gradients of both towers."""
    for batch, count, scale in ((5, 3, 3.0), (4, 4, 3.0), (6, 3, 3.0), (1, 3, 3.0), (5, 3, 200.0)):
        clip = TwoTowers(scale)
        clip.words.requires_grad_(False)
        pictures, prompts = torch.randn(batch, 3, 2, 2), torch.randint(0, 10, (count, 4))
        inputs = (clip, pictures, torch.tensor([1, 0, 2, 2, 0, 1][:batch]), prompts)
        what = f"the loss of {batch} pictures and {count} classes at scale {scale:g}"
        expected = reference_loss(*inputs)
        if (batch, scale) != (5, 3.0):
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


# ---------------------------------------------------------------------------- 4.4 the training

LOSSES, WEIGHTS = "the loss of each step", "the weights of both towers afterwards"
SIZES, OFTEN = "how many pictures each step sees", "how often each shot is seen"
MODES, SHUFFLED = "the model's mode in the steps, and afterwards", "rounds in different orders"
PAIRED, FETCHED = "each picture comes with its own class", "each shot is fetched anew in each round"


class Fetched(list):
    """Shots that count how often one of them is asked for."""

    times = 0

    def __getitem__(self, place):
        """A shot."""
        self.times += 1
        return super().__getitem__(place)


class Noted(TwoTowers):
    """Notes what a training shows it: for each step the classes, the pictures, and whether it is in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.double().eval().requires_grad_(False)
        for tower in (self.image, self.text):
            tower.weight.requires_grad_(True)
        self.steps: list[tuple[list[int], bool]] = []
        self.seen: list[tuple[Tensor, int]] = []


def noting_loss(clip: Noted, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """The loss that an answer is given."""
    clip.steps.append((labels.tolist(), clip.training))
    clip.seen += zip(pictures.detach(), labels.tolist(), strict=True)
    return reference_loss(clip, pictures, labels, prompts)


def read_training(losses, clip, groups, shots, *_) -> dict[str, object]:
    """What counts of a training; values where all shots are alike, so that their order can't matter."""
    shown = [label for labels, _ in clip.steps for label in labels]
    rounds = {tuple(shown[i : i + len(shots)]) for i in range(0, len(shown), len(shots))}
    facts = {
        SIZES: [len(labels) for labels, _ in clip.steps],
        OFTEN: sorted(Counter(shown).items()),
        MODES: ["train" if on else "eval" for on in sorted({on for _, on in clip.steps})]
        + ["train" if clip.training else "eval"],
        FETCHED: shots.times >= len(shown),
    }
    own = {int(label): picture for picture, label in shots}
    if len(own) > 1:
        paired = all(torch.equal(picture, own[label]) for picture, label in clip.seen)
        return facts | {SHUFFLED: len(rounds) > 1, PAIRED: paired}
    weights = torch.cat([clip.image.weight.flatten(), clip.text.weight.flatten()]).detach()
    return {LOSSES: losses, WEIGHTS: weights} | facts


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


def half_cosine(part: float) -> float:
    """What a rate is multiplied by after a part of the training."""
    return (1 + math.cos(math.pi * part)) / 2


def training(
    optimizer: Callable = torch.optim.AdamW,
    share: Callable = lambda step, steps, a_round: half_cosine(step / steps),
    order: Callable = torch.randperm,
    moves: tuple[str, ...] = ("zero_grad", "backward", "step"),
    modes: tuple[bool, bool] = (True, False),
    groups_of: Callable = lambda groups, clip: groups,
    size_of: Callable = lambda batch_size, shots: batch_size,
    steps_of: Callable = lambda steps, a_round: steps,
    shots_of: Callable = lambda shots: shots,
    labels_of: Callable = lambda labels: labels,
    result: Callable = lambda losses: losses,
) -> Callable:
    """The training with one thing changed."""

    def attempt(clip, groups, shots, prompts, loss_of, steps, batch_size):
        rule, a_round = optimizer(groups_of(groups, clip)), len(shots) // batch_size
        started = [group["lr"] for group in rule.param_groups]
        losses, queue, shots = [], [], shots_of(shots)
        clip.train(modes[0])
        for step in range(steps_of(steps, a_round)):
            queue = queue or list(order(len(shots)).split(size_of(batch_size, len(shots))))
            pictures, labels = default_collate([shots[i] for i in queue.pop(0)])
            loss = loss_of(clip, pictures, labels_of(labels), prompts)
            for group, rate in zip(rule.param_groups, started, strict=True):
                group["lr"] = rate * share(step, steps, a_round)
            for move in moves:
                loss.backward() if move == "backward" else getattr(rule, move)()
            losses.append(loss.item())
        clip.train(modes[1])
        return result(losses)

    return attempt


@exercise(
    "4.4",
    "losses and weights equal AdamW written out, in shuffled rounds that show each shot once",
    {
        "gradients add up from step to step: zero_grad() before backward()": training(
            moves=("backward", "step")
        ),
        "no step is taken, or none with a gradient: zero_grad(), backward(), step(), in this order": (
            training(moves=("zero_grad", "backward")),
            training(moves=("backward", "zero_grad", "step")),
        ),
        "the rate falls before the first step: the scheduler's step() comes last": training(
            share=lambda step, steps, a_round: half_cosine((step + 1) / steps)
        ),
        "the rates stay as they are: they fall along half a cosine, once a step": training(
            share=lambda step, steps, a_round: 1.0
        ),
        "the cosine ends too early: its length is the number of steps, not of shots or batches": (
            training(share=lambda step, steps, a_round: half_cosine(step / a_round)),
            training(share=lambda step, steps, a_round: half_cosine(step / (2 * a_round))),
        ),
        "the rate moves once a round: the scheduler steps with every batch": training(
            share=lambda step, steps, a_round: half_cosine(step // a_round / (steps // a_round))
        ),
        "the groups are not used: they hold each tensor's own rate and decay": (
            training(groups_of=lambda groups, clip: clip.parameters()),
            training(
                groups_of=lambda groups, clip: [
                    {
                        "params": [p for p in clip.parameters() if p.requires_grad],
                        "lr": groups[0]["lr"],
                    }
                ]
            ),
        ),
        "all tensors get the first group's rate: AdamW takes the list of groups as it is": training(
            groups_of=lambda groups, clip: [
                {**groups[0], "params": [p for group in groups for p in group["params"]]}
            ]
        ),
        "Adam adds the decay to the gradient: AdamW is wanted": training(torch.optim.Adam),
        "one round only: as many steps as asked for, round after round": training(
            steps_of=lambda steps, a_round: a_round
        ),
        "every step sees all shots: batch_size of them are wanted": training(
            size_of=lambda batch_size, shots: shots
        ),
        "every round has one order: shuffle anew": training(order=torch.arange),
        "shots are drawn at random, some twice and some never: shuffled rounds show each once": (
            training(order=lambda n: torch.tensor([0, *range(n - 1)])[torch.randperm(n)])
        ),
        "all pictures are fetched once, before the steps: each call of shots[i] crops and flips anew": (
            training(shots_of=lambda shots: [shots[i] for i in range(len(shots))])
        ),
        "pictures and classes are in different orders: take both from one shots[i]": training(
            labels_of=lambda labels: labels.flip(0)
        ),
        "the adapter's dropout sleeps: clip.train() before the steps": training(
            modes=(False, False)
        ),
        "dropout is still on: clip.eval() after the steps": training(modes=(True, True)),
        "that is the last loss: a list with the loss of each step is wanted": (
            training(result=lambda losses: losses[-1])
        ),
    },
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
        inputs = (clip, groups, shots, prompts, noting_loss, 9, 2)
        losses, weights = adamw_by_hand(*copy.deepcopy(inputs))
        values = {LOSSES: losses, WEIGHTS: weights} if alike else {}
        counts = {SIZES: [2] * 9, OFTEN: [(1, 18)] if alike else [(i, 3) for i in range(6)]}
        modes = {MODES: ["train", "eval"], FETCHED: True}
        modes |= {} if alike else {SHUFFLED: True, PAIRED: True}
        yield Case(
            f"a training on {'one picture' if alike else 'six pictures'}",
            inputs,
            Parts(values | counts | modes),
            read=read_training,
            may_change=True,
            form="return a list with the loss of each step",
        )
