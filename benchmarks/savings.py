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


def _measure(
    title: str,
    full: Callable[[], Tensor],
    cut: Callable[[], Tensor],
    parameters: list[nn.Parameter],
    precision: str,
    rounds: int,
) -> dict[str, Any]:
    difference = largest_difference(_gradients(full, parameters), _gradients(cut, parameters))
    steps = {
        "full": training_step(full, parameters, precision),
        "cut": training_step(cut, parameters, precision),
    }
    times = interleave(steps, rounds)
    return {
        "model": "clip",
        "precision": precision,
        "title": title,
        "full": times["full"].median,
        "full_spread": times["full"].spread,
        "cut": times["cut"].median,
        "cut_spread": times["cut"].spread,
        "ratio": times["cut"].ratio_to(times["full"]),
        "difference": difference,
        "rounds": rounds,
    }


def measure_savings(quick: bool, precision: str, rounds: int) -> list[dict[str, Any]]:
    """Two rows: prompts cut at the longest, and blocks before the first adapter computed once."""
    torch.manual_seed(0)
    model = clip_model(quick)
    # Scores against pictures, as in a few-shot step: normalised features alone would have no loss.
    pictures = torch.randn(8, model.text_projection.shape[1])
    rank, classes, longest = (4, 4, 8) if quick else (32, 16, 16)
    tokens = class_prompts(classes, longest, model.vocab_size)
    return [
        _prompts_cut(model, tokens, pictures, rank, precision, rounds),
        _stem_once(model, tokens, pictures, rank, precision, rounds),
    ]


def _prompts_cut(
    model: nn.Module, tokens: Tensor, pictures: Tensor, rank: int, precision: str, rounds: int
) -> dict[str, Any]:
    inject(model, SerialLoRAConfig(rank=rank, towers=("text",)))
    parameters = list(adapter_parameters(model))
    fill_adapters(parameters)
    longest = int(tokens.argmax(dim=-1).max()) + 1
    title = f"{len(tokens)} class prompts cut at {longest} tokens instead of {tokens.shape[1]}"
    row = _measure(
        title,
        lambda: model.encode_text(tokens, normalize=True) @ pictures.T,
        lambda: encode_prompts(model, tokens) @ pictures.T,
        parameters,
        precision,
        rounds,
    )
    eject(model)
    return row


def _stem_once(
    model: nn.Module, tokens: Tensor, pictures: Tensor, rank: int, precision: str, rounds: int
) -> dict[str, Any]:
    blocks = model.transformer.resblocks
    first = len(blocks) // 2
    chosen = tuple(range(first, len(blocks)))
    inject(model, SerialLoRAConfig(rank=rank, towers=("text",), blocks=chosen))
    parameters = list(adapter_parameters(model))
    fill_adapters(parameters)
    with torch.no_grad():
        stem = run_blocks(model, embed_tokens(model, tokens), blocks[:first])

    def from_stem() -> Tensor:
        return pool(model, run_blocks(model, stem, blocks[first:]), tokens) @ pictures.T

    title = f"the {first} text blocks before the first adapted one computed once"
    row = _measure(
        title,
        lambda: model.encode_text(tokens, normalize=True) @ pictures.T,
        from_stem,
        parameters,
        precision,
        rounds,
    )
    eject(model)
    return row
