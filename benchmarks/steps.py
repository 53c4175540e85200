"""What does a training step cost under each method, and inference with an adapter?"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import peft
import torch
from scipy.stats import bootstrap
from torch import Tensor, nn

from benchmarks.models import SUBJECTS, Subject
from serial_lora import disabled, inject, merge, unmerge
from serial_lora_course.labs.memory import saved_activations

FLOOR, OWN = "floor", "floor, the model's own attention"
INFERENCE = (
    ("unmerged", unmerge, torch.no_grad),
    ("unmerged, in inference mode", unmerge, torch.inference_mode),
    ("merged", merge, torch.no_grad),
)


class Contestant(NamedTuple):
    """One method on its own copy of the model."""

    model: nn.Module
    adapter: list[nn.Parameter]  # what it trains; nothing for a floor
    forward: Callable[[], Tensor]  # of the subject's batch


def clocked(
    steps: Mapping[str, Callable[[], object]], against: str, to: str, rounds: int = 12
) -> dict[str, dict[str, float]]:
    """Each step's median, half of what lies between the quartiles, and the ratio to the one ``against``.

    In a round every other step runs once, in an order by chance, and right before or after it the one
    ``against``. The ratio is the median of those of such neighbours, so a slow while of the machine, which
    outlasts both, changes it little; its ± is two standard errors, by bootstrap over the rounds. A round
    to warm up comes first.
    """
    others, shuffle = [name for name in steps if name != against], np.random.default_rng(0)
    seconds = {name: [] for name in others}
    gc.collect()
    for turn in range(1 + rounds):
        for name in shuffle.permutation(others):
            pair = {one: seconds_of(steps[one]) for one in shuffle.permutation([name, against])}
            if turn:
                seconds[name].append((pair[name], pair[against]))
    floor = [seconds_against for pairs in seconds.values() for _, seconds_against in pairs]
    rows = {against: row(floor, floor, to)}
    return rows | {name: row(*zip(*pairs, strict=True), to) for name, pairs in seconds.items()}


def seconds_of(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def row(own: Sequence[float], against: Sequence[float], to: str) -> dict[str, float]:
    """A step's columns, from its seconds and its neighbours'."""
    low, median, high = 1e3 * np.percentile(own, (25, 50, 75))
    ratios = np.divide(own, against)
    spread = bootstrap((ratios,), np.median, method="basic", rng=0).standard_error
    return {
        "ms": median,
        "± ms": (high - low) / 2,
        f"ratio to {to}": float(np.median(ratios)),
        "± ratio": 2 * float(spread),
    }


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
    first.requires_grad_()


def contestants(subject: Subject, precision: str = "float32") -> dict[str, Contestant]:
    """Every method on its own copy of the model, which is left alone.

    `inject` leads open_clip's attention around nn.MultiheadAttention, for every method alike. So
    the floor takes that path too (adapters are put in and switched off), and the model's own
    attention is measured beside it in float32. (In bfloat16 it takes ten times as long on a CPU.)
    """
    methods = subject.methods
    own = {OWN: None} if subject.goes_around and precision == "float32" else {}
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
            forward = disabled(model)(forward)
        entries[method] = Contestant(model, adapter, forward)
    return entries


def measure_steps(quick: bool) -> list[dict[str, Any]]:
    """A row for each method on each model, and three for inference.

    Of these, two run without gradients, as diffusers' pipelines and the labs do, adapter unmerged and
    merged; one in inference mode, where each of q, k and v adapts its tokens anew.
    """
    rows = []
    for make, precision in product(SUBJECTS.values(), ("float32", "bfloat16")):
        subject = make(quick)
        subject.model.requires_grad_(False)  # else autocast keeps what it casts, in the base alone
        about = {"model": subject.title, "precision": precision}
        entries = contestants(subject, precision)
        steps = {m: training_step(entry.forward, entry.adapter) for m, entry in entries.items()}
        for method, clock in clocked(steps, FLOOR, "the floor").items():
            model, adapter, _ = entries[method]
            with saved_activations(model) as kept:
                steps[method]()
            sizes = {"adapter, MB": sum(p.nbytes for p in adapter) / 1e6, "kept, MB": kept[0] / 1e6}
            rows.append(about | {"method": method} | clock | sizes)
        for state, change, without_gradients in INFERENCE:
            models = {"base": subject.model, state: change(entries["Serial LoRA"].model)}
            passes = {
                name: without_gradients()(partial(subject.run, model.eval(), precision))
                for name, model in models.items()
            }
            about["method"] = f"inference, {state}; the floor is the base"
            rows.append(about | clocked(passes, "base", "the floor")[state])
    return rows
