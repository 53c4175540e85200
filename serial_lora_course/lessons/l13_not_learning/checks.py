"""Checks of lesson 13: a diagnostic, two functions and a whole run without their faults, three diagnoses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise
from serial_lora_course.lessons.l13_not_learning import posted

# ------------------------------------------------------------------------- 13.1 what some steps move

NAMES, SHARES = "the names of the tensors", "the share of each tensor's numbers that changed"
MOST = "the largest change of each tensor, in rates"
FORM = "return a dictionary: name -> (share, largest change)"


def with_steps(attempt: Callable) -> Callable:
    """What an answer says of steps that add known numbers to a model's tensors."""

    def run(model: nn.Module, added: dict[str, Tensor], rate: float) -> Any:
        def steps() -> None:
            with torch.no_grad():
                for name, numbers in added.items():
                    model.get_parameter(name).add_(numbers)

        return attempt(model, steps, rate)

    return run


def read_moved(found: Any, *_: Any) -> list:
    """A learner's dictionary by what counts in it."""
    names = sorted(found)
    return [names, *([float(found[name][i]) for name in names] for i in (0, 1))]


@exercise(
    "13.1",
    "each trained tensor with the share that changed, and the largest change in rates",
    through=with_steps,
)
def moved() -> Iterator[Case]:
    """Steps by known numbers on a block: A of 8 numbers, B of 8, and a frozen layer."""
    up, down, small = torch.zeros(2, 4), torch.zeros(4, 2), torch.full((2, 4), 2**-10)
    up[0, :3], down[1, 0] = torch.tensor([0.25, 0.125, 1e-6]), -0.5
    still, frozen = torch.zeros(2, 4), torch.ones(4, 4)
    shares, most = ([0.375, 0.125], [0.0, 1.0], [0.5, 0.0]), ([2.0, 4.0], [0.0, 0.5], [1.0, 0.0])
    for what, added, kind, rate, share, largest in zip(
        (
            "steps up in A and down in B",
            "steps of B and of the frozen layer",
            "steps that bfloat16 rounds away in half of A",
        ),
        ((up, down), (still, torch.full((4, 2), 0.25), frozen), (small, still.T)),
        (torch.float32, torch.float32, torch.bfloat16),
        (0.125, 0.5, 2**-10),
        shares,
        most,
        strict=True,
    ):
        model = Block(4).to(kind)
        # near one, the next bfloat16 is 2**-7 away
        model.lora_A.data[:] = torch.tensor([[0.0], [1.0]])
        named = dict(zip(("lora_A", "lora_B", "layer.weight"), added, strict=False))
        parts = Parts({NAMES: ["lora_A", "lora_B"], SHARES: share, MOST: largest})
        yield Case(what, (model, named, rate), parts, read=read_moved, may_change=True, form=FORM)


# ------------------------------------------------------------- 13.2 little memory, and a gradient

RESULT, REACHED = "what the tower computes", "the tensors that a gradient reaches"
TIMES = "how often each block runs, in the forward and in the backward pass"
KIND = "how often each block runs without a graph, as in a reentrant checkpoint"


class Block(nn.Module):
    """A frozen layer with a pair in front of it, which counts how often it runs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width).requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(2, width))
        self.lora_B = nn.Parameter(torch.randn(width, 2))
        self.times = self.blind = 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        self.blind += not torch.is_grad_enabled()
        return self.layer(x + x @ self.lora_A.T @ self.lora_B.T)


def there_and_back(attempt: Callable) -> Callable:
    """A tower run by an answer, and what a gradient reaches in the backward pass."""

    def run(blocks: nn.ModuleList, tokens: Tensor, reentrant: bool) -> Any:
        with warnings.catch_warnings(action="ignore"):  # PyTorch's, of the reentrant kind
            result = attempt(blocks, tokens, reentrant)
            if getattr(result, "requires_grad", False):
                result.square().sum().backward()
        reached = sum(tensor.grad is not None for tensor in blocks.parameters())
        return [result, reached, *([getattr(b, k) for b in blocks] for k in ("times", "blind"))]

    return run


@exercise(
    "13.2",
    "with both kinds the tower computes the same, a gradient reaches every pair, and each block runs twice",
    through=there_and_back,
)
def through_blocks() -> Iterator[Case]:
    """Against the blocks as products of matrices."""
    for count, reentrant in ((3, False), (3, True), (1, True)):
        blocks, tokens = nn.ModuleList(Block(4) for _ in range(count)), torch.randn(2, 3, 4)
        expected = tokens
        for block in blocks:
            matrix = block.layer.weight @ (torch.eye(4) + block.lora_B @ block.lora_A)
            expected = expected @ matrix.T + block.layer.bias
        parts = {RESULT: expected.detach(), REACHED: 2 * count, TIMES: [2] * count}
        yield Case(
            f"a tower of {count} block(s), reentrant={reentrant}",
            (blocks, tokens, reentrant),
            Parts(parts | {KIND: [int(reentrant)] * count}),
            read=as_found,
            may_change=True,
        )


def as_found(found: Any, *_: Any) -> Any:
    """What an answer returned; a case that reads it may change what it was given."""
    return found


# ------------------------------------------------------------ 13.3 steps that are not rounded away

TYPES, OBJECTS = "the number types of the trained and of the frozen", "the same objects as before"
VALUES = "the values of what is trained"


def kept_in_the_model(attempt: Callable) -> Callable:
    """What an answer has made of a model, seen from outside."""

    def run(model: nn.Module) -> Any:
        before = list(model.parameters())
        learns, frozen = ([p for p in before if p.requires_grad is on] for on in (True, False))
        now = list(attempt(model).parameters())
        same = sum(one is other for one, other in zip(before, now, strict=True))
        values = torch.cat([tensor.detach().double().flatten() for tensor in learns])
        types = [sorted({str(p.dtype) for p in some}) for some in (learns, frozen)]
        return [types, same, values]

    return run


@exercise(
    "13.3",
    "float32 for what is trained, bfloat16 for what is frozen, and every object as before",
    through=kept_in_the_model,
)
def lower() -> Iterator[Case]:
    """The types, told by name."""
    for trained in (("0.weight", "0.bias"), ("1.weight",)):
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        for name, tensor in model.named_parameters():
            tensor.requires_grad_(name in trained)
        values = [
            p.detach().double().flatten() for n, p in model.named_parameters() if n in trained
        ]
        types = [["torch.float32"], ["torch.bfloat16"]]
        yield Case(
            f"a model in which {' and '.join(trained)} are trained",
            (model,),
            Parts({TYPES: types, OBJECTS: 4, VALUES: torch.cat(values)}),
            read=as_found,
            may_change=True,
        )


# ---------------------------------------------------------------------------- 13.4 three diagnoses

FITS, FITS_NOT, NOT_ENOUGH = "fits its numbers", " does not fit", " is not all"
FAULTS = {5: {"optimizer", "low rate"}, 6: {"start"}, 7: {"high rate"}}
ALONE = "one word of two: fix what you see, and diagnose the fixed run"
AGAINST = {
    5: {
        "optimizer": f"run 5: with an optimizer that holds all pairs, the curve hardly falls. {ALONE}",
        "low rate": f"run 5: the optimizer holds no pair, so no rate can help. {ALONE}",
        "gradient": "run 5: a gradient reaches all of A and all of B",
        "format": "run 5: the optimizer holds no pair. Once it holds them, all parameters move. How far?",
        "start": "run 5: once the optimizer holds the pairs, all of these move. How far?",
        "high rate": "run 5: in two steps no parameter moves by more than two rates, fixed or not",
        "input": "run 5: what enters its tower is what enters the healthy run's",
    },
    6: {
        "optimizer": "run 6: the optimizer holds all pairs",
        "gradient": "run 6: a gradient reaches all of A and all of B. Is it above zero?",
        "format": "run 6: a fresh B is zero, and near zero no step is rounded away, so some would move",
        "low rate": "run 6: at a low rate all parameters move a little, and here none does",
        "high rate": "run 6: nothing moves",
        "input": "run 6: what enters its tower is what enters the healthy run's",
    },
    7: {
        "optimizer": "run 7: the optimizer holds all pairs",
        "gradient": "run 7: a gradient reaches all of A and all of B",
        "format": "run 7: all parameters move",
        "start": "run 7: all parameters move. How far?",
        "low rate": "run 7: two steps at the rate that was asked for move a parameter by two rates, and these are more",
        "input": "run 7: what enters its tower is what enters the healthy run's",
    },
}


def words_in(said: object) -> set:
    """A diagnosis as a set of words; one word may stand without its braces."""
    return {said} if isinstance(said, str) else set(said or ())


def said_of(found: dict, *_: Any) -> list[str]:
    """Whether each diagnosis fits; a wrong one by its words, which does not give the right ones away."""
    said = {run: words_in(found.get(run, found.get(f"{run}"))) for run in FAULTS}
    return [
        FITS
        if said[k] == faults
        else ", ".join(sorted(map(str, said[k]))) + (NOT_ENOUGH if said[k] < faults else FITS_NOT)
        for k, faults in FAULTS.items()
    ]


def advice_on(run: int) -> Callable[[str], str]:
    """What speaks against a wrong diagnosis: against its first word that is wrong, or that is alone."""

    def advice(said: str) -> str:
        words = said.removesuffix(FITS_NOT).removesuffix(NOT_ENOUGH).split(", ")
        wrong = [word for word in words if word not in FAULTS[run]] or words
        return AGAINST[run].get(wrong[0], f"run {run}: answer with words of the exercise")

    return advice


@exercise(
    "13.4",
    "all three diagnoses fit the numbers of their runs",
    {
        why: [lambda wrong={run: {word}}: FAULTS | wrong]  # noqa: B006, read only
        for run, words in AGAINST.items()
        for word, why in words.items()
    },
)
def diagnosis() -> Iterator[Case]:
    """Against the line that was broken."""
    yield Case(
        "your diagnoses",
        (),
        Parts({f"run {run}": FITS for run in FAULTS}),
        read=said_of,
        advice={f"run {run}": advice_on(run) for run in FAULTS},
        form="return a dictionary with the numbers 5, 6 and 7, and a set of words for each",
    )


# ----------------------------------------------------------------------- 13.5 a whole run without its faults

FIRST, LABELS = "the first loss", "the labels of all batches"
HELD, RANK, RATE = "trained tensors that the optimizer holds", "the rank", "the learning rate"


def with_answers(attempt: Callable) -> Callable:
    """What a run that was built says of itself."""

    def run() -> Any:
        built = attempt()
        learns = {n: p for n, p in built.model.named_parameters() if p.requires_grad}
        (group,) = built.optimizer.param_groups
        held = sum(any(p is each for each in group["params"]) for p in learns.values())
        ranks = {len(p) for n, p in learns.items() if n.endswith("lora_A")}
        labels = torch.stack([labels for _, labels in built.batches])
        return [built.loss(built.batches[0]).item(), labels, held, max(ranks), group["lr"]]

    return run


@exercise(
    "13.5",
    "the first loss is the frozen model's own, and all else is as the poster wants it",
    through=with_answers,
)
def fixed_run() -> Iterator[Case]:
    """Against the frozen classifier, and a cross-entropy of logarithms."""
    frozen, batches = posted.classifier()
    pictures, labels = batches[0]
    with torch.no_grad():
        chosen = frozen(pictures).log_softmax(1)[torch.arange(len(labels)), labels]
    yield Case(
        "your run",
        (),
        Parts(
            {
                FIRST: -chosen.mean().item(),
                LABELS: torch.stack([labels for _, labels in batches]),
                HELD: 12,
                RANK: 8,
                RATE: posted.RATE,
            }
        ),
        read=as_found,
        form="return a posted.Run with one group of parameters in its optimizer",
        tolerance=1e-3,
    )
