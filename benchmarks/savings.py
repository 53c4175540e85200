"""Which work can a step leave out without changing its result, and what does that save?

Class prompts are cut at the longest one, since a token of CLIP's text tower sees only itself and
earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import torch
from torch import Tensor

from benchmarks.models import clip_model
from benchmarks.steps import clocked, training_step
from serial_lora import SerialLoRAConfig, adapter_parameters, inject
from serial_lora_course.models.clip import encode_prompts


def measure_savings(quick: bool) -> list[dict[str, Any]]:
    """The cut step, its ratio to the whole one, and how far outputs and gradients differ."""
    model = clip_model(quick)
    inject(model, SerialLoRAConfig(rank=4 if quick else 32, towers=("text",)))
    parameters = list(adapter_parameters(model))
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.01)
    pictures = torch.randn(8, model.text_projection.shape[1])  # scores against these have a loss
    classes, longest = (4, 8) if quick else (16, 16)
    words = [longest - 2 - row % (longest // 2) for row in range(classes)]  # begin and end are two
    tokens = open_clip.tokenize(["a " * count for count in words])

    def full() -> Tensor:
        return model.encode_text(tokens, normalize=True) @ pictures.T

    def cut() -> Tensor:
        return encode_prompts(model, tokens) @ pictures.T

    def results(forward: Callable[[], Tensor]) -> list[Tensor]:
        output = forward()
        return [output.detach(), *torch.autograd.grad(output.square().mean(), parameters)]

    steps = {"full": training_step(full, parameters), "cut": training_step(cut, parameters)}
    differences = [  # relative to the largest entry of its own tensor
        ((a - b).abs().max() / a.abs().max().clamp_min(1e-12)).item()
        for a, b in zip(results(full), results(cut), strict=True)
    ]
    clock = clocked(steps, "full", "the whole step")["cut"]
    title = f"CLIP: {classes} class prompts cut at {longest} tokens instead of {tokens.shape[1]}"
    return [{"left out": title, "largest difference": max(differences)} | clock]
