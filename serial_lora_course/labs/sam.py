"""The SAM lab: segmentation of boxed objects, measured by Dice.

    records = run_lab(["food"], ["lora", "serial_lora"], percent=[100], seeds=[1, 2, 3])

Only the image encoder is adapted; prompt encoder and mask decoder stay as they are, so every
object comes with a box that says which one is meant. `Sam.forward` and `SamPredictor` switch
gradients off, so the forward pass is written out here, of SAM's own parts: `prepare` for what
happens on a picture's way in, `predict_logits` for the model, `Sam.postprocess_masks` for the way
back to the picture's own pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from serial_lora.attention import find_attention_sites
from serial_lora.counting import count_parameters
from serial_lora.errors import SerialLoRAError
from serial_lora.injection import check_fit
from serial_lora.metrics import dice, dice_ce, iou
from serial_lora_course.data.registry import load_segmentation
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import SegmentationData, SegmentationExample
from serial_lora_course.labs.memory import saved_activation_bytes
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.records import Record, environment
from serial_lora_course.labs.runs import (
    LabConfig,
    Plan,
    adapted,
    changed_config,
    check_choices,
    check_subsets,
    chosen_methods,
    is_first_process,
    lab_device,
    loader_workers,
    run_plan,
    run_settings,
    several,
)
from serial_lora_course.labs.training import (
    ExampleStream,
    TrainingConfig,
    plain_worker_errors,
    process_state,
    train,
)
from serial_lora_course.models.sam import SamBackbone, load_sam


@dataclass(frozen=True)
class SamLabConfig(LabConfig):
    """Every choice of a run, :class:`LabConfig`'s first; the defaults are the paper's.

    What the paper does not state (batch, decay, dropout, loss) is Sam_LoRA's.

    Attributes:
        jitter: standard deviation of a training box's edges, as a fraction of the box's sides, the
            tenth that SAM itself was trained with (Kirillov et al. 2023, appendix A); never more
            than twice that. Boxes are exact when the model is measured.
        gradient_checkpointing: keep only each block's input for the backward pass and compute the
            block again there: the same gradients, slower, in a fraction of the memory.
    """

    rank: int = 64
    lr: float = 1e-4
    epochs: int = 5
    jitter: float = 0.1
    gradient_checkpointing: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.jitter < 0.25:
            raise SerialLoRAError(
                f"jitter is a fraction of a box's sides, from 0 to below 0.25, not {self.jitter}."
            )


PAPER = SamLabConfig()
# Small models want larger steps. Twenty times such a step for B would wreck the model, so LoRA+
# starts from a smaller one.
TINY = SamLabConfig(
    rank=16,
    lr=3e-3,
    plus_lr=4e-4,
    epochs=3,
    min_steps=40,
    batch_size=4,
    jitter=0.05,
    gradient_checkpointing=False,
    precision="bf16",
)
CONFIGS = {"tiny": TINY, "paper": PAPER}

# ------------------------------------------------------------------------ a picture's way in


class PreparedExample(NamedTuple):
    """An example in the model's input frame: the picture scaled until its longer side fits.

    Attributes:
        picture: uint8, (3, h, w); not yet normalised and padded, as `Sam.forward` takes it.
        boxes: float32, (N, 4): x0, y0, x1, y1 at pixel edges of ``picture``.
        truth: bool, (N, h, w).
        original_size: (height, width) before scaling.
    """

    picture: Tensor
    boxes: Tensor
    truth: Tensor
    original_size: tuple[int, int]

    @property
    def input_size(self) -> tuple[int, int]:
        """(h, w): the part of the square input that is not padding."""
        return tuple(self.picture.shape[-2:])


def prepare(example: SegmentationExample, image_size: int, jitter: float = 0.0) -> PreparedExample:
    """Scale a picture, its boxes and its masks to the model's input frame.

    Args:
        image_size: side of the square that the model sees.
        jitter: as in :class:`SamLabConfig`; drawn from torch's generator.
    """
    original_size = example.masks.shape[-2:]
    boxes = torch.as_tensor(example.boxes, dtype=torch.float32)
    if jitter:
        boxes = jittered(boxes, jitter, original_size)
    picture, boxes = to_input_frame(example.picture, boxes, image_size)
    truth = resize_masks(torch.as_tensor(example.masks), tuple(picture.shape[-2:]))
    return PreparedExample(picture, boxes, truth, tuple(original_size))


def to_input_frame(
    picture: Image.Image, boxes: Tensor | np.ndarray, image_size: int
) -> tuple[Tensor, Tensor]:
    """Picture (3, h, w), uint8, and boxes (N, 4), float32, as SAM's own predictor scales them.

    Raises:
        SerialLoRAError: the picture is so narrow that nothing would be left of its shorter side.
    """
    resize = ResizeLongestSide(image_size)
    pixels = np.asarray(picture.convert("RGB"))  # (H, W, 3)
    if not min(resize.get_preprocess_shape(*pixels.shape[:2], image_size)):
        width, height = picture.size
        raise SerialLoRAError(
            f"A picture of {width} x {height} pixels is too narrow for a model that sees "
            f"{image_size} x {image_size}; crop it."
        )
    scaled = torch.from_numpy(resize.apply_image(pixels)).permute(2, 0, 1).contiguous()
    boxes = resize.apply_boxes(np.asarray(boxes, np.float32), pixels.shape[:2])
    return scaled, torch.as_tensor(boxes, dtype=torch.float32)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) at another size: a pixel belongs to the object if half of it does.

    An object too small for that keeps the pixels of which it covers most, as an empty mask would
    teach that its box holds nothing.
    """
    if masks.shape[-2:] == size:
        return masks
    coverage = F.interpolate(
        masks[:, None].float(), size, mode="bilinear", align_corners=False, antialias=True
    )[:, 0]
    enough = coverage.amax((-2, -1), keepdim=True).clamp(max=0.5)
    return (coverage >= enough) & (coverage > 0)


def jittered(boxes: Tensor, amount: float, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) with each edge moved at random, inside a picture of (height, width).

    An edge moves by a normal deviate of ``amount`` times the box's side, at most twice that, so
    a box with ``amount`` below a quarter stays a box.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)  # width, height, width, height
    moves = (torch.randn(boxes.shape) * amount).clamp(-2 * amount, 2 * amount)
    height, width = size
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    return torch.minimum((boxes + moves * sides).clamp(min=0), limit)


# ---------------------------------------------------------------------------- the forward pass


def predict_logits(
    model: Sam, batch: Sequence[PreparedExample], gradient_checkpointing: bool = False
) -> list[Tensor]:
    """Mask logits for every box, with gradients: for each picture (N, 1, side, side), float32.

    All pictures are encoded at once and decoded one by one: the mask decoder repeats whatever it
    is given once per prompt, so it takes one picture with its N boxes, never two. Autocast, where
    it is on, is for the image encoder; the prompt encoder and the mask decoder, which bfloat16
    would break or blur, compute in float32.
    """
    pictures = torch.stack([model.preprocess(prepared.picture) for prepared in batch])
    embeddings = encode(model, pictures, gradient_checkpointing)  # (B, channels, grid, grid)
    with torch.autocast(embeddings.device.type, enabled=False):
        return [
            decode(model, embedding[None], prepared.boxes)
            for embedding, prepared in zip(embeddings.float(), batch, strict=True)
        ]


def encode(model: Sam, pictures: Tensor, gradient_checkpointing: bool = False) -> Tensor:
    """Embeddings (B, channels, grid, grid) of preprocessed pictures (B, 3, size, size).

    With checkpointing, `ImageEncoderViT.forward` with each block computed again on the way back.
    Not the re-entrant kind: that one loses the adapter's gradients behind a frozen stem.
    """
    encoder = model.image_encoder
    if not gradient_checkpointing:
        return encoder(pictures)
    tokens = encoder.patch_embed(pictures)  # (B, grid, grid, d)
    if encoder.pos_embed is not None:
        tokens = tokens + encoder.pos_embed
    for block in encoder.blocks:
        tokens = checkpoint(block, tokens, use_reentrant=False)
    return encoder.neck(tokens.permute(0, 3, 1, 2))


def decode(model: Sam, embedding: Tensor, boxes: Tensor) -> Tensor:
    """One mask (N, 1, side, side) for each box (N, 4) in one picture's embedding (1, c, g, g)."""
    sparse, dense = model.prompt_encoder(points=None, boxes=boxes, masks=None)
    logits, _ = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return logits


class SamObjective(nn.Module):
    """Dice + BCE of the predicted masks: ``forward(list of prepared examples) -> loss``.

    Logits are brought to the input frame with `Sam.postprocess_masks`, which cuts the padding off,
    and compared with the truth there. A picture's loss is the mean over its objects and a batch's
    the mean over its pictures, so a batch may be shared by processes or split into parts.
    """

    def __init__(self, model: Sam, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.model, self.gradient_checkpointing = model, gradient_checkpointing

    def forward(self, batch: Sequence[PreparedExample]) -> Tensor:
        predicted = predict_logits(self.model, batch, self.gradient_checkpointing)
        with torch.autocast(predicted[0].device.type, enabled=False):
            losses = [
                mask_loss(self.model, logits, prepared)
                for logits, prepared in zip(predicted, batch, strict=True)
            ]
        return torch.stack(losses).mean()


def mask_loss(model: Sam, logits: Tensor, prepared: PreparedExample) -> Tensor:
    """Mean Dice + BCE over one picture's objects, of logits (N, 1, side, side)."""
    size = prepared.input_size
    upscaled = model.postprocess_masks(logits, size, size)[:, 0]  # (N, h, w)
    return dice_ce(upscaled, prepared.truth).mean()


# ------------------------------------------------------------------------------- using a model


@torch.no_grad()
def predict_masks(
    backbone: SamBackbone, picture: Image.Image, boxes: Tensor | np.ndarray
) -> tuple[np.ndarray, Tensor]:
    """The masks that the model sees in some boxes of a picture.

    Args:
        picture: of any size (W, H).
        boxes: float, (N, 4): x0, y0, x1, y1 at the picture's own pixel edges.

    Returns:
        Masks, bool, (N, H, W), and the logits that they are the positive part of, of that shape.

    Raises:
        SerialLoRAError: the boxes are not of shape (N, 4) with N of at least 1, not finite, or one
            of them holds no part of the picture; or the picture is too narrow.
    """
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    _check_boxes(boxes, *picture.size)
    model = backbone.model.eval()
    device = model.device
    pixels, scaled = to_input_frame(picture, boxes, model.image_encoder.img_size)
    nothing = torch.zeros(len(boxes), *pixels.shape[-2:], dtype=torch.bool)
    prepared = PreparedExample(pixels.to(device), scaled.to(device), nothing, picture.size[::-1])
    (logits,) = predict_logits(model, [prepared])
    logits = original_size_logits(model, logits, prepared).cpu()
    return (logits > model.mask_threshold).numpy(), logits


def _check_boxes(boxes: Tensor, width: int, height: int) -> None:
    """Refuse what is no box on a picture of this size; one may reach over the picture's edge."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or not boxes.isfinite().all():
        raise SerialLoRAError(
            "Boxes are finite numbers of shape (N, 4): x0, y0, x1, y1 of each object; these have "
            f"the shape {tuple(boxes.shape)}."
        )
    low, high = boxes[:, :2].clamp(min=0), boxes[:, 2:].minimum(boxes.new_tensor([width, height]))
    empty = (low >= high).any(1)
    if empty.any():
        raise SerialLoRAError(
            f"The box {boxes[empty][0].tolist()} holds no part of a picture of {width} x {height} "
            "pixels; give x0, y0, x1, y1 with x0 below x1 and y0 below y1."
        )


def original_size_logits(model: Sam, logits: Tensor, prepared: PreparedExample) -> Tensor:
    """Logits (N, 1, side, side) at the picture's own size, (N, H, W), by SAM's own function."""
    return model.postprocess_masks(logits, prepared.input_size, prepared.original_size)[:, 0]


# ----------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class PictureScore:
    """What the model reached on one picture: means over its objects, at the original size.

    Attributes:
        dice, iou: higher is better; 1 is a perfect mask.
        one_minus_dice, dice_ce: lower is better.
        box_dice, box_iou: of filling the box, the answer of a model that sees no picture.
        objects: how many there are.
    """

    picture_id: str
    dice: float
    one_minus_dice: float
    dice_ce: float
    iou: float
    box_dice: float
    box_iou: float
    objects: int


MEASURES = ("dice", "one_minus_dice", "dice_ce", "iou")
BOX_MEASURES = ("box_dice", "box_iou")


class Prepared(Dataset):
    """Examples beside themselves in the model's input frame: (prepared, example)."""

    def __init__(self, examples: Sequence[SegmentationExample], image_size: int) -> None:
        self.examples, self.image_size = examples, image_size

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[PreparedExample, SegmentationExample]:
        example = self.examples[index]
        return prepare(example, self.image_size), example


@torch.no_grad()
def evaluate(
    backbone: SamBackbone, data: SegmentationData, batch_size: int | None = None
) -> list[PictureScore]:
    """One score for each test picture, in the data's order; boxes are exact.

    Args:
        batch_size: pictures that are encoded together; None for the scale's own.
    """
    model = backbone.model.eval()
    loader = DataLoader(
        Prepared(data.test, model.image_encoder.img_size),
        batch_size=batch_size or (16 if backbone.scale == "tiny" else 1),
        num_workers=loader_workers(backbone.scale),
        collate_fn=list,
    )
    scores = []
    with plain_worker_errors():
        for batch in loader:
            on_device = [to_device(prepared, model.device) for prepared, _ in batch]
            for logits, (prepared, example) in zip(
                predict_logits(model, on_device), batch, strict=True
            ):
                logits = original_size_logits(model, logits, prepared)
                scores.append(_score(model, logits, example))
    return scores


def to_device(prepared: PreparedExample, device: torch.device) -> PreparedExample:
    """The same example with its tensors on another device."""
    moved = (part.to(device) if isinstance(part, Tensor) else part for part in prepared)
    return PreparedExample(*moved)


def _score(model: Sam, logits: Tensor, example: SegmentationExample) -> PictureScore:
    truth = torch.as_tensor(example.masks).to(logits.device)
    found, filled = logits > model.mask_threshold, fill_boxes(example).to(logits.device)
    reached = dice(found, truth).mean().item()
    return PictureScore(
        picture_id=example.picture_id,
        dice=reached,
        one_minus_dice=1 - reached,
        dice_ce=dice_ce(logits, truth).mean().item(),
        iou=iou(found, truth).mean().item(),
        box_dice=dice(filled, truth).mean().item(),
        box_iou=iou(filled, truth).mean().item(),
        objects=len(truth),
    )


def fill_boxes(example: SegmentationExample) -> Tensor:
    """The masks (N, H, W) of an answer that is the whole box."""
    filled = torch.zeros(example.masks.shape, dtype=torch.bool)
    for mask, box in zip(filled, example.boxes, strict=True):
        x0, y0, x1, y1 = (int(edge) for edge in box)
        mask[y0:y1, x0:x1] = True
    return filled


def mean_scores(scores: Sequence[PictureScore]) -> dict[str, float]:
    """The mean over pictures of every measure."""
    return {
        name: float(np.mean([getattr(score, name) for score in scores]))
        for name in MEASURES + BOX_MEASURES
    }


def base_measures(backbone: SamBackbone, data: SegmentationData) -> dict[str, float]:
    """What the unadapted model reaches (``base_dice`` ...), and what filling the box does."""
    means = mean_scores(evaluate(backbone, data))
    return {f"base_{name}": means[name] for name in MEASURES} | {
        name: means[name] for name in BOX_MEASURES
    }


# ------------------------------------------------------------------------------------- the lab


def training_stream(
    data: SegmentationData, indices: Sequence[int], image_size: int, config: SamLabConfig, seed: int
) -> ExampleStream:
    """The prepared training examples of a run, boxes jittered, in a seeded order."""
    return ExampleStream(
        data.train,
        indices,
        partial(prepare, image_size=image_size, jitter=config.jitter),
        seed,
        config.batch_size,
        config.steps(len(indices)),
        collate=list,
    )


def activation_bytes(objective: SamObjective, stream: ExampleStream, config: TrainingConfig) -> int:
    """Bytes that the first batch of a run keeps between its forward and its backward pass.

    A batch is what one process computes at once, the whole of it or the part that accumulation
    and other processes leave. With gradient checkpointing, what one block computes anew comes on
    top of that.
    """
    model = objective.model
    device = model.device
    pictures = stream.batch_size // (config.accumulation * process_state().num_processes)
    batch = [to_device(stream[position], device) for position in range(pictures)]
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def forward() -> None:
        with autocast:
            objective(batch)

    blocks = model.image_encoder.blocks if objective.gradient_checkpointing else ()
    objective.train()  # dropout keeps its masks
    try:
        return saved_activation_bytes(forward, model, blocks)
    finally:
        objective.eval()


def run_one(
    backbone: SamBackbone,
    data: SegmentationData,
    method: Method,
    percent: int,
    seed: int,
    config: SamLabConfig,
    base: dict[str, float] | None = None,
    save_to: Path | None = None,
    progress: bool | None = None,
    keep_adapter: bool = False,
    pictures: Path | None = None,
) -> Record:
    """Adapt, measure, and (unless ``keep_adapter``) leave the backbone as it was.

    Args:
        percent: share of the training pictures.
        base: what :func:`base_measures` gave for these data, if that is known already.
        pictures: folder for a figure of the best, the median and the worst test picture.

    Raises:
        SerialLoRAError: a setting that does not fit this model or these data.
    """
    model = backbone.model
    base = base or base_measures(backbone, data)
    indices = training_subset(data, percent, seed)
    stream = training_stream(data, indices, model.image_encoder.img_size, config, seed)
    training = config.training(stream.steps, method.ratio, seed)
    adapter = method.config(config.rank, scale=config.scale_factor, dropout=config.dropout)
    with adapted(model, adapter, seed, keep_adapter):
        objective = SamObjective(model, config.gradient_checkpointing)
        kept = activation_bytes(objective, stream, training)
        description = f"{data.name} · {method.label} · {percent}% · seed {seed}"
        history = train(
            objective,
            stream,
            training,
            save_to,
            description,
            progress,
            loader_workers(backbone.scale),
        )
        count = count_parameters(model)
        scores = evaluate(backbone, data)
        if pictures is not None and is_first_process():
            from serial_lora_course.labs.pictures import save_run
            from serial_lora_course.labs.sam_pictures import plot_run

            name = f"{data.name}-{percent}-{method.name}-{seed}.png"
            save_run(plot_run(backbone, data, scores, method.label), pictures / name)
    reached = mean_scores(scores)
    return Record(
        task="sam",
        scale=data.scale,
        dataset=data.name,
        method=method.name,
        amount=percent,
        unit="percent",
        seed=seed,
        rank=adapter.rank,
        measures={**{name: reached[name] for name in MEASURES}, **base, "loss": history.losses[-1]},
        sizes={
            "parameters": count.adapter,
            "bytes": count.adapter_bytes,
            "activation_bytes": kept,
            "peak_memory": history.peak_memory,
            "steps": stream.steps,
            "training_pictures": len(indices),
        },
        seconds=round(history.seconds, 2),
        settings=run_settings(backbone, data, config),
        environment=environment(),
    )


def run_lab(
    datasets: Sequence[str],
    methods: Sequence[str] = ("lora", "serial_lora"),
    percent: Sequence[int] = (100,),
    seeds: Sequence[int] = (1, 2, 3),
    scale: str = "tiny",
    out: Path | None = None,
    root: Path | None = None,
    weights: str | Path | None = "default",
    progress: bool | None = None,
    on_record: Callable[[Record, bool], None] | None = None,
    pictures: Path | None = None,
    **changes: object,
) -> list[Record]:
    """Run every combination that ``out`` does not hold yet; all records, old ones included.

    Args:
        percent: shares of the training pictures, each a part of the larger ones.
        out: JSONL file of records; None keeps them in memory only.
        pictures: as in :func:`run_one`, a figure for each run that is new.
        changes: settings of :class:`SamLabConfig` that differ from the scale's own.
        on_record: called with each record and whether it is new.

    Raises:
        SerialLoRAError: an unknown data set, method or setting; nothing has been run then.
    """
    config = lab_config(scale, **changes)
    datasets, methods, percent, seeds = map(several, (datasets, methods, percent, seeds))
    chosen = chosen_methods(methods, config.rank)
    check_choices(datasets=datasets, methods=methods, percent=percent, seeds=seeds)
    sets = [load_segmentation(name, scale, root) for name in datasets]
    backbone = load_sam(scale, weights)
    sites = find_attention_sites(backbone.model)
    for method in chosen:
        check_fit(backbone.model, sites, method.config(config.rank))
    check_subsets(sets, percent, seeds, config)
    backbone.model.to(lab_device())

    def run(data, method, share, seed, base, unfinished) -> Record:
        return run_one(
            backbone,
            data,
            method,
            share,
            seed,
            config,
            base,
            unfinished,
            progress,
            pictures=pictures,
        )

    return run_plan(
        Plan("sam", sets, chosen, percent, seeds, config.rank),
        settings=lambda data: run_settings(backbone, data, config),
        measure_base=lambda data: base_measures(backbone, data),
        run=run,
        out=out,
        on_record=on_record,
    )


def lab_config(scale: str, **changes: object) -> SamLabConfig:
    """The scale's settings with some of them changed (None leaves a setting alone)."""
    return changed_config(CONFIGS, scale, **changes)
