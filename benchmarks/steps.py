"""What does a training step cost under each method, and inference after a merge?"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import peft
import torch
from torch import Tensor, nn

from benchmarks.measure import compared, interleave
from benchmarks.models import SUBJECTS, Subject
from serial_lora import LoRAConfig, SerialLoRAConfig, disabled, inject, merge
from serial_lora_course.labs.memory import saved_activations

FLOOR, OWN = "floor", "floor, the model's own attention"
PRECISIONS = ("float32", "bfloat16")


class Contestant(NamedTuple):
    """One method on its own copy of the model; ``adapter`` is empty for a floor."""

    model: nn.Module
    adapter: list[nn.Parameter]
    forward: Callable[[Any], Tensor]


def training_step(
    forward: Callable[[], Tensor], parameters: Iterable[nn.Parameter], precision: str = "float32"
) -> Callable[[], None]:
    """Forward, backward and one AdamW step over `parameters`, which may be none."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-6) if parameters else None

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = forward()
        output.float().square().mean().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def let_gradients_flow(norm: nn.Module) -> None:
    """Make a norm's output require gradients, so that a frozen model runs a full backward pass."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if not first.requires_grad:
            first.requires_grad_()

    norm.register_forward_hook(hook)


def fill_adapters(parameters: Iterable[nn.Parameter]) -> None:
    """Small random values in place of zeros, so that merging has something to merge."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.01)


def contestants(subject: Subject) -> dict[str, Contestant]:
    """Every method on its own copy of the model, which is left alone.

    `inject` leads open_clip's attention around nn.MultiheadAttention, for every method alike. So
    the floor takes that path too (adapters are put in and switched off), and the model's own
    attention is measured beside it.
    """
    rank, towers = subject.rank, subject.towers
    serial, lora = SerialLoRAConfig(rank, towers=towers), LoRAConfig(rank, towers=towers)
    theirs = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=subject.peft_targets)
    prepare: dict[str, Callable[[nn.Module], object]] = {
        FLOOR: lambda model: inject(model, serial),
        OWN: lambda model: None,
        "Serial LoRA": lambda model: inject(model, serial),
        "LoRA on q, k, v, out": lambda model: inject(model, lora),
        "PEFT LoRA": lambda model: peft.inject_adapter_in_model(theirs, model),
    }
    if not subject.goes_around:
        del prepare[OWN]
    return {method: _contestant(subject, method, put_in) for method, put_in in prepare.items()}


def _contestant(subject: Subject, method: str, put_in: Callable[[nn.Module], object]) -> Contestant:
    model = copy.deepcopy(subject.model).requires_grad_(False).train()
    put_in(model)
    adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fill_adapters(adapter)
    if method in (FLOOR, OWN):
        adapter = []
        let_gradients_flow(subject.first_norm(model))

    def forward(batch: Any) -> Tensor:
        with disabled(model) if method == FLOOR else contextlib.nullcontext():
            return subject.forward(model, batch)

    return Contestant(model, adapter, forward)


def measure_steps(key: str, quick: bool, precision: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each method on one model, and one for inference with the adapter merged."""
    subject = SUBJECTS[key](quick)
    about = {"model": subject.title, "precision": precision}
    entries, steps, rows = contestants(subject), {}, []
    for method, (_, adapter, forward) in entries.items():
        steps[method] = training_step(lambda f=forward: f(subject.batch), adapter, precision)
    times = interleave(steps, rounds)
    for method, (model, adapter, _) in entries.items():
        row = about | {"method": method} | compared(times[method], times[FLOOR], "the floor")
        row["adapter, MB"] = sum(p.numel() * p.element_size() for p in adapter) / 1e6
        with saved_activations(model) as kept:
            steps[method]()
        row["kept, MB"] = kept[0] / 1e6
        rows.append(row)

    def inference(model: nn.Module) -> None:
        bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
        with torch.inference_mode(), bfloat16:
            subject.forward(model, subject.batch)

    merged = merge(entries["Serial LoRA"].model).eval()
    models = {"base": subject.model.eval(), "merged": merged}
    times = interleave({name: partial(inference, each) for name, each in models.items()}, rounds)
    row = about | {"method": "inference, merged; the floor is the base"}
    return [*rows, row | compared(times["merged"], times["base"], "the floor")]


def measure_all_steps(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """The rows of all models in both precisions."""
    return [
        row
        for key in SUBJECTS
        for precision in PRECISIONS
        for row in measure_steps(key, quick, precision, rounds)
    ]
