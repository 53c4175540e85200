"""Training steps with work left out that cannot change their result, each checked for equality.

Class prompts are cut at the longest one, as a token of CLIP's text tower sees only itself and
earlier ones. Frozen blocks that no adapter precedes are computed once for each input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.steps import fill_adapters, training_step
from benchmarks.subjects import clip_model, subject
from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import adapter_parameters, eject, inject
from serial_lora_course.labs.prefix import FrozenPrefix
from serial_lora_course.labs.timing import interleave
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


def measure_savings(key: str, quick: bool, precision: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each saving in a model's step; a model may have none."""
    rows = []
    for title, model, towers, adapted, full, cut in _savings(key, quick):
        inject(model, SerialLoRAConfig(rank=4 if quick else 32, towers=towers, blocks=adapted))
        parameters = list(adapter_parameters(model))
        fill_adapters(parameters)
        cut()  # what is computed once is computed now
        difference = largest_difference(_gradients(full, parameters), _gradients(cut, parameters))
        steps = {
            name: training_step(forward, parameters, precision)
            for name, forward in (("full", full), ("cut", cut))
        }
        times = interleave(steps, rounds)
        rows.append(
            {"model": key, "precision": precision, "title": title}
            | times["full"].named("full")
            | times["cut"].named("cut")
            | {"ratio": times["cut"].ratio_to(times["full"])}
            | {"difference": difference, "rounds": rounds}
        )
        eject(model)
    return rows


def _savings(key: str, quick: bool) -> Iterator[tuple]:
    """Title, model, towers and blocks to adapt, the whole forward pass and the cut one."""
    if key == "clip":
        model = clip_model(quick)
        # Scores against others, as in a few-shot step: normalised features alone have no loss.
        others = torch.randn(8, model.text_projection.shape[1])
        classes, longest = (4, 8) if quick else (16, 16)
        tokens = class_prompts(classes, longest, model.vocab_size)

        def text() -> Tensor:
            return model.encode_text(tokens, normalize=True) @ others.T

        def text_cut() -> Tensor:
            return encode_prompts(model, tokens) @ others.T

        title = f"{classes} class prompts cut at {longest} tokens instead of {tokens.shape[1]}"
        yield title, model, ("text",), None, text, text_cut
        yield _prefix_once("text", model, model.transformer.resblocks, classes, text_cut)

        pictures = subject("clip", quick).inputs()

        def image() -> Tensor:
            return model.encode_image(pictures, normalize=True) @ others.T

        blocks = model.visual.transformer.resblocks
        yield _prefix_once("image", model, blocks, len(pictures), image)
    if key == "sam":
        sam = subject("sam", quick)
        model, picture = sam.build(), sam.inputs()
        weights = torch.randn(256, 1, 1)  # of the channels, which are normalised too

        def encode() -> Tensor:
            return sam.forward(model, picture) * weights

        yield _prefix_once("image", model, model.blocks, 1, encode)


def _prefix_once(
    tower: str, model: nn.Module, blocks: Sequence[nn.Module], inputs: int, full: Callable
) -> tuple:
    """The saving where the latter half of a tower's blocks is adapted and the inputs come again."""
    first, prefix = len(blocks) // 2, FrozenPrefix(blocks)

    def cut() -> Tensor:
        with prefix.once(range(inputs)):
            return full()

    title = f"{tower} blocks 0 to {first - 1} computed once, the others adapted"
    return title, model, (tower,), tuple(range(first, len(blocks))), full, cut
