"""Which work can a step leave out without changing its result, and what does that save?

Class prompts are cut at the longest one, since a token of CLIP's text tower sees only itself and
earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import compared, interleave
from benchmarks.models import clip_model
from benchmarks.steps import fill_adapters, training_step
from serial_lora import SerialLoRAConfig, adapter_parameters, inject
from serial_lora_course.models.clip import encode_prompts

CONTEXT = 77  # tokens of CLIP's text tower


def class_prompts(count: int, longest: int, vocabulary: int) -> Tensor:
    """Made-up tokenized prompts, the longest of `longest` tokens: integers (count, CONTEXT)."""
    tokens = torch.zeros(count, CONTEXT, dtype=torch.long)
    for row in range(count):
        end = longest - 1 - row % max(1, longest // 2)
        tokens[row, : end + 1] = torch.randint(1, vocabulary - 2, (end + 1,))
        tokens[row, 0], tokens[row, end] = vocabulary - 2, vocabulary - 1  # as CLIP has them
    return tokens


def largest_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest entry of its own tensor."""
    pairs = zip(first, second, strict=True)
    return max(((a - b).abs().max() / a.abs().max().clamp_min(1e-12)).item() for a, b in pairs)


def measure_savings(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """The cut step, its ratio to the whole one, and how far outputs and gradients differ."""
    model = clip_model(quick)
    inject(model, SerialLoRAConfig(rank=4 if quick else 32, towers=("text",)))
    parameters = list(adapter_parameters(model))
    fill_adapters(parameters)
    pictures = torch.randn(8, model.text_projection.shape[1])  # scores against these have a loss
    classes, longest = (4, 8) if quick else (16, 16)
    tokens = class_prompts(classes, longest, model.vocab_size)

    def full() -> Tensor:
        return model.encode_text(tokens, normalize=True) @ pictures.T

    def cut() -> Tensor:
        return encode_prompts(model, tokens) @ pictures.T

    def results(forward: Callable[[], Tensor]) -> list[Tensor]:
        output = forward()
        return [output.detach(), *torch.autograd.grad(output.square().mean(), parameters)]

    steps = {"full": training_step(full, parameters), "cut": training_step(cut, parameters)}
    difference = largest_difference(results(full), results(cut))
    times = interleave(steps, rounds)
    title = f"CLIP: {classes} class prompts cut at {longest} tokens instead of {CONTEXT}"
    return [
        {"left out": title, "largest difference": difference}
        | compared(times["cut"], times["full"], "the whole step")
    ]
