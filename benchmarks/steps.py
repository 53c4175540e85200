"""Training steps of one model under every method, ready to be timed side by side."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import precision_context
from benchmarks.subjects import Subject
from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.injection import adapter_parameters, inject
from serial_lora.merging import merge
from serial_lora.switches import disabled
from serial_lora_course.labs.memory import saved_activation_bytes
from serial_lora_course.labs.timing import interleave

LEARNING_RATE = 1e-6


@dataclass
class Contestant:
    """One method on its own copy of the model.

    Attributes:
        method: short name; "floor" is what the others are compared with.
        title: name in the table.
        model: the copy.
        adapter: the trained tensors; empty for a frozen floor.
        forward: batch to output.
    """

    method: str
    title: str
    model: nn.Module = field(repr=False)
    adapter: list[nn.Parameter] = field(repr=False)
    forward: Callable[[Any], Tensor] = field(repr=False)

    @property
    def adapter_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.adapter)


def training_step(
    forward: Callable[[], Tensor], parameters: Iterable[nn.Parameter], precision: str
) -> Callable[[], None]:
    """Forward, backward and one AdamW step over `parameters`, which may be none."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE) if parameters else None

    def step() -> None:
        with precision_context(precision):
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


def _with_peft(model: nn.Module, subject: Subject) -> list[nn.Parameter]:
    import peft

    config = peft.LoraConfig(
        r=subject.rank, lora_alpha=subject.rank, target_modules=subject.peft_targets
    )
    peft.inject_adapter_in_model(config, model)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _ours(config: AdapterConfig) -> Callable[[nn.Module], list[nn.Parameter]]:
    def prepare(model: nn.Module) -> list[nn.Parameter]:
        inject(model, config)
        return list(adapter_parameters(model))

    return prepare


def contestants(subject: Subject, base: nn.Module) -> list[Contestant]:
    """Every method on its own copy of `base`, which is left alone.

    `inject` leads open_clip's attention around nn.MultiheadAttention, for every method alike. So
    the floor takes that path too (adapters are put in and switched off), and where the model's
    own attention differs, it is measured beside it.
    """
    serial = SerialLoRAConfig(rank=subject.rank, towers=subject.towers)
    lora = LoRAConfig(rank=subject.rank, towers=subject.towers)
    entries = []

    def add(
        method: str,
        title: str,
        prepare: Callable[[nn.Module], list[nn.Parameter]],
        switched_off: bool = False,
    ) -> None:
        model = copy.deepcopy(base).requires_grad_(False).train()
        adapter = prepare(model)
        fill_adapters(adapter)

        def forward(batch: Any) -> Tensor:
            with disabled(model) if switched_off else contextlib.nullcontext():
                return subject.forward(model, batch)

        if switched_off or not adapter:
            adapter = []
            let_gradients_flow(subject.first_norm(model))
        entries.append(Contestant(method, title, model, adapter, forward))

    path = ", attention as we inject it" if subject.original_attention else ""
    add("floor", f"frozen floor{path}", _ours(serial), switched_off=True)
    if subject.original_attention:
        add("floor_original", f"frozen floor, {subject.original_attention}", lambda model: [])
    add("serial_lora", "Serial LoRA", _ours(serial))
    add("lora", "LoRA on q, k, v, out", _ours(lora))
    add("peft", "PEFT LoRA", lambda model: _with_peft(model, subject))
    return entries


def measure_group(subject: Subject, precision: str, rounds: int) -> dict[str, Any]:
    """Time one model's training steps and its merged inference in one precision."""
    base = subject.build().requires_grad_(False)
    batch = subject.inputs()
    entries = contestants(subject, base)
    steps = {
        entry.method: training_step(
            lambda entry=entry: entry.forward(batch), entry.adapter, precision
        )
        for entry in entries
    }
    saved = {
        entry.method: saved_activation_bytes(steps[entry.method], entry.model) for entry in entries
    }  # this first step of each also warms up
    times = interleave(steps, rounds, warm_up=0)
    rows = [
        {"method": entry.method, "title": entry.title}
        | times[entry.method].named("seconds")
        | {
            "ratio": times[entry.method].ratio_to(times["floor"]),
            "saved_bytes": saved[entry.method],
            "adapter_bytes": entry.adapter_bytes,
        }
        for entry in entries
    ]
    serial = next(entry for entry in entries if entry.method == "serial_lora")
    entries.clear()
    return {
        "model": subject.key,
        "title": subject.title,
        "precision": precision,
        "note": subject.note,
        "rank": subject.rank,
        "rounds": rounds,
        "rows": rows,
        "inference": _measure_merged(subject, base, serial.model, batch, precision, rounds),
    }


def _measure_merged(
    subject: Subject, base: nn.Module, adapted: nn.Module, batch: Any, precision: str, rounds: int
) -> dict[str, Any]:
    """Time the merged model beside the base it came from, without gradients."""
    merge(adapted)
    models = {"base": base.eval(), "merged": adapted.eval()}

    def inference(model: nn.Module) -> Callable[[], None]:
        def step() -> None:
            with torch.inference_mode(), precision_context(precision):
                subject.forward(model, batch)

        return step

    times = interleave({name: inference(model) for name, model in models.items()}, rounds)
    ratio = times["merged"].ratio_to(times["base"])
    return times["base"].named("base") | times["merged"].named("merged") | {"ratio": ratio}
