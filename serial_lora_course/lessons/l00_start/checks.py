"""Checks of lesson 00: answers gained and lost, and a frozen model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


@exercise("0.1", "both counts equal those of going through the pictures one by one")
def gained_and_lost() -> Iterator[Case]:
    """Six pictures, answers that did not change, and forty pictures, each looked at alone."""
    few = torch.tensor([0, 2, 1, 0, 1, 2]), torch.tensor([0, 1, 2, 1, 2, 2])
    truth = torch.tensor([0, 1, 2, 0, 0, 2])
    many = torch.randint(3, (3, 40))
    for before, after, right in ((*few, truth), (few[0], few[0], truth), tuple(many)):
        gained = lost = 0
        for was, now, label in zip(before.tolist(), after.tolist(), right.tolist(), strict=True):
            gained += was != label and now == label
            lost += was == label and now != label
        yield Case(
            f"gained and lost among {len(right)} pictures",
            (before, after, right),
            (gained, lost),
            form="return two numbers, first what was gained and then what was lost",
        )


STILL = "parameters that still require a gradient"
FROZEN = {
    "what the function returns": "the same model",
    "the names of the parameters": [],
    STILL: "none",
    "the parameters' values": "as before",
}


def state_of(returned, model: nn.Module, before: nn.Module) -> tuple:
    """What counts in a model after the call, in the order of ``FROZEN``."""
    state, then = model.state_dict(), before.state_dict()
    names = [name for name, _ in model.named_parameters()]
    still = [name for name, p in model.named_parameters() if p.requires_grad]
    if still and not model.training:
        still.append("in eval mode")
    if still and "requires_grad" in vars(model):
        still.append("and the model has an attribute requires_grad")
    copied = "another model" if isinstance(returned, nn.Module) else type(returned).__name__
    other = "nothing" if returned is None else copied
    same = list(state) == list(then) and all(torch.equal(state[n], then[n]) for n in then)
    return (
        "the same model" if returned is model else other,
        names,
        ", ".join(still) or "none",
        "as before" if same else "changed",
    )


@exercise("0.2", "no parameter of a nested model requires a gradient, and no value changed")
def freeze() -> Iterator[Case]:
    """No parameter, nested ones included, requires a gradient; values are as before."""
    for depth in (1, 3):
        model: nn.Module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        for _ in range(depth):
            model = nn.Sequential(model, nn.Linear(4, 4))
        names = [name for name, _ in model.named_parameters()]
        yield Case(
            f"a model of {len(names)} parameters",
            (model,),
            Parts(FROZEN | {"the names of the parameters": names}),
            read=lambda returned, now, before=model: state_of(returned, now, before),
            advice={
                "what the function returns": lambda got: (
                    f"{got} is returned: return the model that was passed in"
                ),
                STILL: "loop over model.parameters(), which has them all",
            },
            may_change=True,
        )
