"""Checks of lesson 13: four diagnostics of a training, and what three runs suffer from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


class Block(nn.Module):
    """A frozen layer with a pair in front of it, and a bias that is trained or not."""

    def __init__(self, width: int, trained_bias: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width).requires_grad_(False)
        self.layer.bias.requires_grad_(trained_bias)
        self.lora_A = nn.Parameter(torch.randn(2, width))
        self.lora_B = nn.Parameter(torch.zeros(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + x @ self.lora_A.T @ self.lora_B.T)


def as_found(found: Any, *_: Any) -> Any:
    """What an answer returned; a case that reads it may change what it was given."""
    return found


# ------------------------------------------------------------------- 13.1 what the optimizer holds

HELD, OF = "the trained tensors that the optimizer holds", "the trained tensors"


def with_an_optimizer(attempt: Callable) -> Callable:
    """An answer about a model and an optimizer that holds some of its tensors, and copies of others."""

    def run(model: nn.Module, groups: Sequence[Sequence[str]], copied: Sequence[str]) -> Any:
        held = [[model.get_parameter(name) for name in group] for group in groups]
        strange = [model.get_parameter(name).detach().clone() for name in copied]
        return attempt(model, torch.optim.SGD([{"params": g} for g in [*held, strange] if g], 0.1))

    return run


@exercise(
    "13.1",
    "both counts, for optimizers with several groups, with frozen tensors, and with copies",
    through=with_an_optimizer,
)
def held() -> Iterator[Case]:
    """Counted by hand."""
    pairs = [f"{block}.{matrix}" for block in (0, 1, 2) for matrix in ("lora_A", "lora_B")]
    frozen = ["0.layer.weight", "1.layer.weight", "2.layer.weight"]
    for what, groups, copied, count in (
        ("an optimizer that holds all pairs, in two groups", (pairs[:2], pairs[2:]), (), 6),
        ("an optimizer that holds the frozen base alone", (frozen,), (), 0),
        ("an optimizer that holds the base and one pair", (frozen, pairs[4:]), (), 2),
        ("an optimizer that holds one pair, and copies of the others", (pairs[:2],), pairs[2:], 2),
    ):
        model = nn.Sequential(*(Block(4) for _ in range(3)))
        yield Case(what, (model, groups, copied), Parts({HELD: count, OF: 6}))


# -------------------------------------------------------------------- 13.2 what a gradient reaches

FORM_2 = 'return a dictionary: kind -> (reached, all), such as {"lora_A": (2, 3)}'


def after_backward(attempt: Callable) -> Callable:
    """An answer about a model through whose blocks, but for some, a gradient went."""

    def run(model: nn.Module, x: Tensor, skipped: Sequence[int]) -> Any:
        for i, block in enumerate(model):
            x = block(x).detach() if i in skipped else block(x)
        x.square().sum().backward()
        return attempt(model)

    return run


def counts_of(found: Any, *_: Any) -> list:
    """The counts by kind, in the order of the alphabet."""
    return [[kind, int(there), int(of)] for kind, (there, of) in sorted(found.items())]


@exercise(
    "13.2",
    "the counts of each kind, where all, some and none are reached, and where a gradient is zero",
    through=after_backward,
)
def reached() -> Iterator[Case]:
    """A gradient reaches the blocks behind the last one whose output is cut off."""
    for what, skipped, there in (
        ("three blocks that a gradient goes through", (), 3),
        ("three blocks, the way back cut behind the first", (0,), 2),
        ("three blocks, the way back cut behind the second", (0, 1), 1),
    ):
        model = nn.Sequential(*(Block(4, trained_bias=i == 2) for i in range(3)))
        counts = [["bias", 1, 1], ["lora_A", there, 3], ["lora_B", there, 3]]
        yield Case(
            what,
            (model, torch.randn(5, 4), skipped),
            counts,
            read=counts_of,
            form=FORM_2,
            may_change=True,
        )


# ------------------------------------------------------------------------------ 13.3 what enters

ENTERED, LEFT = "what the part was given first", "the hooks that are left on it"
CALLS, RESULT = "how often it was called", "what the model computes meanwhile"


class Twice(nn.Module):
    """A model that runs one part twice, and keeps what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.part = nn.Linear(3, 4), nn.Linear(4, 4)
        self.calls, self.result = 0, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.result = self.part(torch.tanh(self.part(self.first(x))))
        return self.result


def while_called(attempt: Callable) -> Callable:
    """What an answer finds, and which traces it leaves."""

    def run(model: Twice, x: Tensor) -> list:
        found = attempt(model.part, lambda: model(x))
        hooks = len(model.part._forward_pre_hooks) + len(model.part._forward_hooks)
        return [found, hooks, model.calls, model.result]

    return run


@exercise(
    "13.3",
    "the first tensor that enters, one call, and no hook that is left",
    through=while_called,
)
def entering() -> Iterator[Case]:
    """Against the layers called one by one."""
    for pictures in (5, 1):
        model, x = Twice(), torch.randn(pictures, 3)
        with torch.no_grad():
            enters = x @ model.first.weight.T + model.first.bias
            again = torch.tanh(enters @ model.part.weight.T + model.part.bias)
            result = again @ model.part.weight.T + model.part.bias
        parts = Parts({ENTERED: enters, LEFT: 0, CALLS: 1, RESULT: result})
        yield Case(
            f"a part of a model, on {pictures} input(s)",
            (model, x),
            parts,
            read=as_found,
            may_change=True,
        )


# -------------------------------------------------------------------------------- 13.4 what moves

SHARE, MOST = "the fraction of trained parameters that change", "the largest change"


def stepped(attempt: Callable) -> Callable:
    """An answer about steps that add something to tensors."""

    def run(model: nn.Module, added: dict[str, Tensor]) -> Any:
        def steps() -> None:
            for name, tensor in added.items():
                model.get_parameter(name).data += tensor

        return attempt(model, steps)

    return run


@exercise(
    "13.4",
    "fraction and largest change, of changes up and down, large and tiny, and of none",
    through=stepped,
)
def moved() -> Iterator[Case]:
    """Steps that add known numbers to a block with 8 trained parameters in A, 8 in B and 4 in a bias."""
    up, down, frozen = torch.zeros(2, 4), torch.zeros(4, 2), torch.ones(4, 4)
    up[0, :3], down[1, 0] = torch.tensor([0.25, 0.125, 1e-6]), -0.5
    for what, added, share, most in (
        ("steps up and down", {"lora_A": up, "lora_B": down}, 4 / 20, 0.5),
        (
            "steps that change the frozen base too",
            {"lora_A": up, "layer.weight": frozen},
            0.15,
            0.25,
        ),
        ("steps that change nothing", {}, 0.0, 0.0),
        ("steps that change one tensor", {"lora_B": 0.003 * torch.ones(4, 2)}, 0.4, 0.003),
    ):
        model = Block(4, trained_bias=True)
        nn.init.zeros_(model.lora_A)  # so that nothing is rounded
        parts = Parts({SHARE: share, MOST: most})
        yield Case(what, (model, added), parts, read=as_found, may_change=True)


# ---------------------------------------------------------------------------- 13.5 three diagnoses

FITS = "fits its numbers"
FAULTS = {"E": "low rate", "F": "start", "G": "high rate"}
AGAINST = {
    "E": {
        "optimizer": "E: the optimizer holds 12 of 12",
        "gradient": "E: a gradient reaches all of A and all of B",
        "format": "E: nothing is rounded away, since all parameters move. How far?",
        "start": "E: pairs that no gradient can move would stay, and all of these move. How far?",
        "high rate": "E: two steps move a parameter by less than 0.006",
        "input": "E: the wrong input gives wrong gradients, and AdamW would move parameters by the rate",
    },
    "F": {
        "optimizer": "F: the optimizer holds 12 of 12",
        "gradient": "F: a gradient reaches all of A and all of B. How large may it be?",
        "format": "F: a fresh B is zero, and near zero no step is rounded away, so some would move",
        "low rate": "F: at a low rate all parameters move a little, and here none does",
        "high rate": "F: nothing moves",
        "input": "F: the wrong input gives wrong gradients, and AdamW would move parameters by the rate",
    },
    "G": {
        "optimizer": "G: the optimizer holds 12 of 12",
        "gradient": "G: a gradient reaches all of A and all of B",
        "format": "G: all parameters move",
        "start": "G: all parameters move. How far?",
        "low rate": "G: two steps move a parameter by more than 0.006",
        "input": "G: the wrong input gives wrong gradients, but AdamW's first steps are no larger for it",
    },
}


def said_of(found: dict, *_: Any) -> list[str]:
    """Whether each diagnosis fits; a wrong one by its name, which does not give the right one away."""
    said = {letter: found.get(letter) for letter in FAULTS}
    return [
        FITS if said[k] == fault else f"{said[k]!r} does not fit" for k, fault in FAULTS.items()
    ]


def advice_on(letter: str) -> Callable[[str], str]:
    """What speaks against each wrong word."""

    def advice(said: str) -> str:
        known = {f"{word!r} does not fit": why for word, why in AGAINST[letter].items()}
        return known.get(said, f"{letter}: answer with one of the words of the table")

    return advice


@exercise(
    "13.5",
    "all three diagnoses fit the numbers of their runs",
    {
        why: [lambda wrong={letter: word}: FAULTS | wrong]  # noqa: B006, read only
        for letter, words in AGAINST.items()
        for word, why in words.items()
    },
)
def diagnosis() -> Iterator[Case]:
    """Against the line that was broken."""
    yield Case(
        "your diagnoses",
        (),
        Parts(dict.fromkeys(FAULTS, FITS)),
        read=said_of,
        advice={letter: advice_on(letter) for letter in FAULTS},
        form="return a dictionary with the letters E, F and G",
    )
