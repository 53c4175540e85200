"""Training steps with work left out that cannot change their result, each checked for equality.

Both savings are for CLIP's text tower, which is most of a few-shot step: every class prompt is
encoded anew after each change of the adapters. A token there sees only itself and earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import interleave
from benchmarks.steps import fill_adapters, training_step
from benchmarks.subjects import clip_model
from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import adapter_parameters, eject, inject
from serial_lora_course.models.clip import encode_prompts

START, END = 1, 2  # counted back from the vocabulary's size, as in CLIP's tokenizer


def class_prompts(count: int, longest: int, vocabulary: int, context: int = 77) -> Tensor:
    """Made-up tokenized prompts of different lengths, the longest of `longest` tokens.

    Returns:
        Integers of shape (count, context): a start token, words, an end token, zeros.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.zeros(count, context, dtype=torch.long)
    for row in range(count):
        length = longest - row % max(1, longest // 2)
        words = torch.randint(1, vocabulary - 2, (length,), generator=generator)
        words[0], words[-1] = vocabulary - END, vocabulary - START
        tokens[row, :length] = words
    return tokens


def embed_tokens(model: nn.Module, tokens: Tensor) -> Tensor:
    """Token and position embeddings, (classes, length) to (classes, length, width)."""
    return model.token_embedding(tokens) + model.positional_embedding[: tokens.shape[1]]


def run_blocks(model: nn.Module, hidden: Tensor, blocks: Sequence[nn.Module]) -> Tensor:
    """Some of the text tower's blocks under its causal mask."""
    length = hidden.shape[1]
    mask = model.attn_mask[:length, :length]
    for block in blocks:
        hidden = block(hidden, attn_mask=mask)
    return hidden


def pool(model: nn.Module, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Normalised features at each prompt's end token, (classes, embed_dim)."""
    hidden = model.ln_final(hidden)
    features = hidden[torch.arange(len(tokens)), tokens.argmax(dim=-1)] @ model.text_projection
    return nn.functional.normalize(features, dim=-1)


def _gradients(forward: Callable[[], Tensor], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The output and every parameter's gradient of one step's loss."""
    output = forward()
    gradients = torch.autograd.grad(output.square().mean(), parameters)
    return [output.detach(), *gradients]


def largest_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest entry of its own tensor."""
    return max(
        ((a - b).abs().max() / a.abs().max().clamp_min(1e-12)).item()
        for a, b in zip(first, second, strict=True)
    )


def measure_savings(quick: bool, precision: str, rounds: int) -> list[dict[str, Any]]:
    """Two rows: prompts cut at the longest, and blocks before the first adapter computed once."""
    torch.manual_seed(0)
    model = clip_model(quick)
    # Scores against pictures, as in a few-shot step: normalised features alone would have no loss.
    pictures = torch.randn(8, model.text_projection.shape[1])
    rank, classes, longest = (4, 4, 8) if quick else (32, 16, 16)
    tokens = class_prompts(classes, longest, model.vocab_size)
    blocks = model.transformer.resblocks
    first = len(blocks) // 2
    with torch.no_grad():
        stem = run_blocks(model, embed_tokens(model, tokens), blocks[:first])

    def full() -> Tensor:
        return model.encode_text(tokens, normalize=True) @ pictures.T

    def prompts_cut() -> Tensor:
        return encode_prompts(model, tokens) @ pictures.T

    def stem_once() -> Tensor:
        return pool(model, run_blocks(model, stem, blocks[first:]), tokens) @ pictures.T

    rows = []
    for title, adapted, cut in (
        (
            f"{classes} class prompts cut at {longest} tokens instead of {tokens.shape[1]}",
            None,
            prompts_cut,
        ),
        (
            f"the {first} text blocks before the first adapted one computed once",
            tuple(range(first, len(blocks))),
            stem_once,
        ),
    ):
        inject(model, SerialLoRAConfig(rank=rank, towers=("text",), blocks=adapted))
        parameters = list(adapter_parameters(model))
        fill_adapters(parameters)
        difference = largest_difference(_gradients(full, parameters), _gradients(cut, parameters))
        steps = {
            name: training_step(forward, parameters, precision)
            for name, forward in (("full", full), ("cut", cut))
        }
        times = interleave(steps, rounds)
        rows.append(
            {"model": "clip", "precision": precision, "title": title}
            | times["full"].named("full")
            | times["cut"].named("cut")
            | {"ratio": times["cut"].ratio_to(times["full"])}
            | {"difference": difference, "rounds": rounds}
        )
        eject(model)
    return rows
