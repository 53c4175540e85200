"""What does a training step cost under each method, and inference after a merge?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import peft
import torch
from torch import Tensor, nn

from benchmarks.measure import clocked
from benchmarks.models import SUBJECTS, Subject
from serial_lora import disabled, inject, merge
from serial_lora_course.labs.memory import saved_activations

FLOOR, OWN = "floor", "floor, the model's own attention"
PRECISIONS = ("float32", "bfloat16")


class Contestant(NamedTuple):
    """One method on its own copy of the model."""

    model: nn.Module
    adapter: list[nn.Parameter]  # what it trains; nothing for a floor
    forward: Callable[[], Tensor]  # of the subject's batch


def training_step(
    forward: Callable[[], Tensor], parameters: Sequence[nn.Parameter]
) -> Callable[[], None]:
    """Forward, backward and one AdamW step over `parameters`, which may be none."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-6) if parameters else None

    def step() -> None:
        forward().float().square().mean().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def let_gradients_flow(module: nn.Module, inputs: Any, output: Any) -> None:
    """A norm's forward hook: its output requires gradients, so that a frozen model runs backward."""
    first = output[0] if isinstance(output, tuple) else output
    if not first.requires_grad:
        first.requires_grad_()


def contestants(subject: Subject, precision: str = "float32") -> dict[str, Contestant]:
    """Every method on its own copy of the model, which is left alone.

    `inject` leads open_clip's attention around nn.MultiheadAttention, for every method alike. So
    the floor takes that path too (adapters are put in and switched off), and the model's own
    attention is measured beside it.
    """
    methods = subject.methods
    own = {OWN: None} if subject.goes_around else {}
    entries = {}
    for method, config in ({FLOOR: methods["Serial LoRA"]} | own | methods).items():
        model = copy.deepcopy(subject.model).requires_grad_(False).train()
        if isinstance(config, peft.LoraConfig):
            peft.inject_adapter_in_model(config, model)
        elif config is not None:
            inject(model, config)
        adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in adapter:
            nn.init.normal_(parameter, std=0.01)  # so that merging has something to merge
        if method in (FLOOR, OWN):
            adapter = []
            subject.first_norm(model).register_forward_hook(let_gradients_flow)
        forward = partial(subject.run, model, precision)
        if method == FLOOR:
            forward = partial(_switched_off, model, forward)
        entries[method] = Contestant(model, adapter, forward)
    return entries


def _switched_off(model: nn.Module, forward: Callable[[], Tensor]) -> Tensor:
    with disabled(model):
        return forward()


def measure_steps(quick: bool) -> list[dict[str, Any]]:
    """The rows of all models in both precisions."""
    both = product(SUBJECTS.values(), PRECISIONS)
    return [row for make, precision in both for row in _measured(make(quick), precision)]


def _measured(subject: Subject, precision: str) -> list[dict[str, Any]]:
    """A row for each method on one model, and one for inference with the adapter merged."""
    about = {"model": subject.title, "precision": precision}
    entries, rows = contestants(subject, precision), []
    steps = {m: training_step(entry.forward, entry.adapter) for m, entry in entries.items()}
    for method, clock in clocked(steps, FLOOR, "the floor").items():
        model, adapter, _ = entries[method]
        with saved_activations(model) as kept:
            steps[method]()
        sizes = {"adapter, MB": sum(p.nbytes for p in adapter) / 1e6, "kept, MB": kept[0] / 1e6}
        rows.append(about | {"method": method} | clock | sizes)
    models = {"base": subject.model, "merged": merge(entries["Serial LoRA"].model)}
    passes = {
        name: torch.inference_mode()(partial(subject.run, model.eval(), precision))
        for name, model in models.items()
    }
    about["method"] = "inference, merged; the floor is the base"
    return [*rows, about | clocked(passes, "base", "the floor")["merged"]]
