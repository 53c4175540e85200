"""The training step as torch.compile makes it: its time, and how many programs that takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import counters

from benchmarks.steps import training_step
from benchmarks.subjects import Subject, subject
from benchmarks.switching import NAMES, two_adapters
from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.injection import adapter_parameters, set_scale
from serial_lora.named import activate
from serial_lora.switches import disabled
from serial_lora_course.labs.timing import interleave


def measure_compiled(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """A row for the frozen floor and for each of our methods, on SAM's encoder in float32."""
    sam = subject("sam", quick)
    base = sam.build().requires_grad_(False).train()
    torch.compiler.reset()
    rows, steps = [], {}
    for method, title, config in (
        ("floor", "frozen floor", None),
        ("serial_lora", "Serial LoRA", SerialLoRAConfig(sam.rank)),
        ("lora", "LoRA on q, k, v, out", LoRAConfig(sam.rank)),
    ):
        row, eager, compiled = _contestant(sam, copy.deepcopy(base), config)
        rows.append({"method": method, "title": title} | row)
        steps |= {method: eager, f"{method}, compiled": compiled}
    times = interleave(steps, rounds)
    for row in rows:
        eager, compiled = times[row["method"]], times[f"{row['method']}, compiled"]
        row |= eager.named("eager") | compiled.named("seconds")
        row |= {"to_eager": compiled.ratio_to(eager)}
        row |= {"ratio": compiled.ratio_to(times["floor, compiled"])}
    return rows


def _contestant(
    sam: Subject, model: nn.Module, config: AdapterConfig | None
) -> tuple[dict[str, Any], Callable[[], None], Callable[[], None]]:
    """The programs that were made for its step and for what is changed meanwhile, and both steps."""
    picture = sam.inputs()
    if config is None:
        parameters = []
        picture.requires_grad_()  # or there would be no way back to time
    else:
        two_adapters(model, config)
        parameters = list(adapter_parameters(model))
    forward = torch.compile(model.forward, fullgraph=True)
    eager = training_step(lambda: sam.forward(model, picture), parameters, "float32")
    compiled = training_step(lambda: forward(picture), parameters, "float32")

    def programs(run: Callable[[], None]) -> int:
        before = counters["stats"]["unique_graphs"]
        run()
        return counters["stats"]["unique_graphs"] - before

    def change() -> None:
        for turn in range(4):
            set_scale(activate(model, NAMES[turn % 2]), 1.0 + turn)
            compiled()

    def switch_off() -> None:
        for _ in range(2):
            with torch.no_grad(), disabled(model):
                forward(picture)

    row = {"graphs": programs(compiled)}
    if config is not None:
        row |= {"graphs_changed": programs(change), "graphs_disabled": programs(switch_off)}
    return row, eager, compiled
