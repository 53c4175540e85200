"""Questions to SAM and to code around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import (
    Block,
    ImageEncoderViT,
    window_partition,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import adapter_parameters, inject
from serial_lora.records import adapters
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.frontend import is_static
from serial_lora_course.labs import sam as lab
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.lesson import Lesson
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Record
from serial_lora_course.labs.sam_inputs import prepare, resize_masks
from serial_lora_course.measures.metrics import dice, dice_ce, iou
from serial_lora_course.models.sam import SamBackbone

DiceOf = Callable[[Tensor, Tensor], float]
Loss = Callable[[Tensor, Tensor], Tensor]


def as_the_model_sees(model: Sam, example: SegmentationExample) -> Tensor:
    """The square input with its normalisation undone, for looking: (3, side, side), 0 to 1."""
    picture = prepare(example, model.image_encoder.img_size).picture
    with torch.no_grad():
        square = model.preprocess(picture.to(model.device))
    return ((square * model.pixel_std + model.pixel_mean) / 255).clamp(0, 1).cpu()


def oblong(examples: Sequence[SegmentationExample]) -> Sequence[SegmentationExample]:
    """Those whose picture is clearly not square; all where none is."""
    return [e for e in examples if max(e.picture.size) > 1.2 * min(e.picture.size)] or examples


def ways_in(backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> pd.Series:
    """Mean Dice on SAM's way in and on three wrong ones."""
    return pd.DataFrame([_four_ways(backbone, each) for each in examples]).mean()


def _four_ways(backbone: SamBackbone, example: SegmentationExample) -> dict[str, float]:
    (width, height), boxes = example.picture.size, torch.as_tensor(example.boxes)
    side, longer = backbone.model.image_encoder.img_size, max(width, height)
    squashed = example.picture.resize((side, side))
    square = Image.new("RGB", (longer, longer))
    square.paste(example.picture)
    both = torch.tensor([side / width, side / height]).repeat(2)
    ways = {
        "SAM's way": (example.picture, boxes),
        "squashed, boxes too": (squashed, boxes * both),
        "squashed, boxes by one factor": (squashed, boxes * side / longer),
        "padding not cut off": (square, boxes),
    }
    truth, found = torch.as_tensor(example.masks), {}
    for name, way in ways.items():
        masks, _ = lab.predict_masks(backbone, *way)
        masks = resize_masks(torch.as_tensor(masks), truth.shape[1:])
        found[name] = dice(masks, truth).mean().item()
    return found


def window_table(encoders: Mapping[str, ImageEncoderViT]) -> pd.DataFrame:
    """What each kind of block attends to, and how many scores that takes for one picture."""
    rows = []
    for name, encoder in encoders.items():
        grid = encoder.pos_embed.shape[1]  # tokens along a side
        for window in sorted({block.window_size for block in encoder.blocks}, reverse=True):
            blocks = [block for block in encoder.blocks if block.window_size == window]
            side = window or grid
            tokens = (math.ceil(grid / side) * side) ** 2  # with the padding
            scores = blocks[0].attn.num_heads * tokens * side**2
            rows.append(
                {
                    "scale": name,
                    "attends within": f"{window} x {window}" if window else "all",
                    "blocks": len(blocks),
                    "tokens": f"{grid} x {grid}",
                    "added as padding": tokens - grid**2,
                    "scores": scores,
                    "MB in bfloat16": f"{2 * scores / 1e6:,.1f}",
                }
            )
    return pd.DataFrame(rows)


def seen_by(token: tuple[int, int], window: int, grid: int) -> Tensor:
    """The tokens that a token (row, column) attends to: bool, (grid, grid); 0 is a global block."""
    if not window:
        return torch.ones(grid, grid, dtype=torch.bool)
    rows, columns = (torch.arange(grid) // window == place // window for place in token)
    return rows[:, None] & columns


def padded_windows(tokens: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Windows (N, window, window, d) of tokens (1, H, W, d), and which of their tokens are padding."""
    windows, _ = window_partition(tokens, window)
    ones, _ = window_partition(torch.ones_like(tokens[..., :1]), window)
    return windows, ones[..., 0] == 0


@torch.no_grad()
def behind_the_padding(
    block: Block, tokens: Tensor, adapters: Mapping[str, Callable]
) -> pd.DataFrame:
    """How wrong attention is where an adapter reads padded windows: a row an adapter."""
    windows, padding = padded_windows(tokens, block.window_size)
    bordering = padding.flatten(1).any(1)[:, None, None].expand_as(padding)
    rows = {}
    for name, adapter in adapters.items():
        right, _ = window_partition(adapter(tokens), block.window_size)
        error = (block.attn(right) - block.attn(adapter(windows))).abs()
        rows[name] = {
            "largest padding token": adapter(windows)[padding].abs().max().item(),
            "error, windows with padding": error[bordering & ~padding].max().item(),
            "error, full windows": error[~bordering].max().item(),
        }
    return pd.DataFrame(rows).T


def with_trained_pairs(model: Sam, rank: int = 16) -> Sam:
    """The model with Serial LoRA whose B hold small random numbers, as if trained."""
    torch.manual_seed(0)
    adapted = inject(model, SerialLoRAConfig(rank=rank))
    for pair in adapters(adapted).values():
        nn.init.normal_(pair.lora_B, std=0.02)
    return adapted


def logits_of(mask: Tensor, size: float) -> Tensor:
    """Logits that draw this mask and are ``size`` away from the border between yes and no."""
    return size * (2 * mask.float() - 1)


def measures_of(answers: Mapping[str, Tensor], truth: Tensor, dice_of: DiceOf) -> pd.DataFrame:
    """Four measures of the logits (1, H, W) that answer one question: a row an answer."""
    rows = {}
    for name, logits in answers.items():
        reached = dice_of((logits > 0)[0], truth[0])
        rows[name] = {
            "Dice": reached,
            "IoU": iou(logits > 0, truth).item(),
            "1 - Dice": 1 - reached,
            "DiceCE": dice_ce(logits, truth).item(),
        }
    return pd.DataFrame(rows).T


def loss_table(losses: Mapping[str, Loss], truth: Tensor) -> pd.DataFrame:
    """What losses say of a perfect answer and of none, and the gradient of an undecided one.

    Args:
        truth: bool, (N, H, W).
    """
    sure, nothing = logits_of(truth, 20), torch.full(truth.shape, -20.0)
    rows = {}
    for name, loss in losses.items():
        undecided = torch.zeros(truth.shape, requires_grad=True)
        value = loss(undecided, truth).mean()
        size = torch.autograd.grad(value, undecided)[0].norm() if value.requires_grad else None
        rows[name] = {
            "perfect and sure": f"{loss(sure, truth).mean().item():.3f}",
            "nothing found": f"{loss(nothing, truth).mean().item():.3f}",
            "gradient when undecided": "none" if size is None else f"{size:.5f}",
        }
    return pd.DataFrame(rows).T


class Remembered(nn.Linear):
    """A frozen linear layer that computes the same input once and then returns what it kept."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = super().forward(x) if self.kept is None else self.kept
        return self.kept


@torch.no_grad()
def symptoms(wrapper: type[nn.Module]) -> dict[str, str]:
    """What a layer ``wrapper(qkv, rank=2)`` with ``pair_q`` and ``pair_v`` does to code around it."""
    torch.manual_seed(0)
    frozen = Remembered(16, 48).requires_grad_(False)
    edited, x = wrapper(frozen, rank=2), torch.randn(1, 4, 4, 16)  # (B, H, W, d)
    for pair in (edited.pair_q, edited.pair_v):
        nn.init.normal_(pair.lora_B)  # as if trained
    base = F.linear(x, frozen.weight, frozen.bias)  # a tensor that no edit can reach
    first = edited(x).clone()
    found = {
        "a probe sees an effect of": f"{(first - frozen.kept).abs().max():.2f}",
        "the first call moves qkv by": f"{(first - base).abs().max():.2f}",
        "the second call moves it by": f"{(edited(x) - base).abs().max():.2f}",
    }
    try:
        shape = tuple(wrapper(nn.Linear(16, 48), rank=2)(x.flatten(1, 2)).shape)
        return found | {"tokens in a row give": str(shape)}
    except IndexError as error:
        return found | {"tokens in a row give": f"IndexError, {error}"}


def gradients_of_two_blocks(
    model: Sam, example: SegmentationExample, checkpointing: bool
) -> list[Tensor]:
    """Of the adapters in the first two blocks, for a loss without a meaning."""
    encoder = model.image_encoder
    picture = prepare(example, encoder.img_size).picture.to(model.device)
    with torch.no_grad():
        tokens = encoder.patch_embed(model.preprocess(picture)[None])  # (1, grid, grid, d)
    for block in encoder.blocks[:2]:
        tokens = checkpoint(block, tokens, use_reentrant=False) if checkpointing else block(tokens)
    return torch.autograd.grad(tokens.square().mean(), list(adapter_parameters(model))[:4])


def run_in_twin(lesson: Lesson, loss: Loss) -> tuple[SamBackbone, Record, pd.DataFrame]:
    """Train Serial LoRA on the lesson's set, in a twin of its model.

    Args:
        loss: of a picture's logits (N, H, W) and its masks; a scalar.

    Returns:
        The twin, the record of the run, and each test picture's Dice before and after.
    """
    tuned, measured = lesson.twin(), []
    task = lesson.lab(tuned)
    task.loss = loss
    before = task.scores()  # one score for each test picture
    task.base = lab.base_measures(before)
    settings = {"progress": not is_static(), "keep_adapter": True}
    settings["draw"] = lambda lab, method, scores, name: measured.extend(scores)
    record = run_one(task, get_method("serial_lora"), lesson.amount, 1, **settings)
    dices = {"not adapted": before, "serial_lora": measured}
    return tuned, record, pd.DataFrame({k: [score.dice for score in v] for k, v in dices.items()})


def run_table(record: Record) -> pd.DataFrame:
    """The measures of that run, of the unadapted model and of the filled box."""
    measures = record.measures
    box = {"dice": measures["box_dice"], "iou": measures["box_iou"]}
    rows = {
        "not adapted": {name: measures[f"base_{name}"] for name in lab.MEASURES},
        "Serial LoRA": {name: measures[name] for name in lab.MEASURES},
        "the box filled": box | {"one_minus_dice": 1 - box["dice"]},
    }
    titles = dict(zip(lab.MEASURES, ("Dice", "1 - Dice", "DiceCE", "IoU"), strict=True))
    table = pd.DataFrame(rows).T.rename(columns=titles)
    return table.map("{:.3f}".format).replace("nan", "–")


def all_masks(backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> Tensor:
    """The masks of some pictures, pixel after pixel: bool, (pixels,)."""
    masks = [lab.predict_masks(backbone, each.picture, each.boxes)[0] for each in examples]
    return torch.cat([torch.as_tensor(mask).flatten() for mask in masks])
