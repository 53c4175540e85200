"""The SAM lab: segmentation of boxed objects, measured by Dice.

Only the image encoder is adapted; prompt encoder and mask decoder stay as they are, so every
object comes with a box that says which one is meant. `Sam.forward` and `SamPredictor` switch
gradients off, so the forward pass is written out here, of SAM's own parts: `prepare` for what
happens on a picture's way in, `predict_logits` for the model, `Sam.postprocess_masks` for the way
back to the picture's own pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import send_to_device
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import dataset_names, load_segmentation
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import SegmentationData, SegmentationExample
from serial_lora_course.labs.config import LabConfig, setting
from serial_lora_course.labs.device import LOOKING, autocast, loader_workers
from serial_lora_course.labs.lab import Lab, Outcomes
from serial_lora_course.labs.report import Report, beginning
from serial_lora_course.labs.sam_inputs import (
    PreparedExample,
    jitter_boxes,
    prepare,
    to_input_frame,
)
from serial_lora_course.labs.training import ExampleStream, Made, Opened, batches_of
from serial_lora_course.measures.metrics import dice, dice_ce, iou
from serial_lora_course.models.sam import SamBackbone, load_sam


@dataclass(frozen=True)
class SamLabConfig(LabConfig):
    """Every choice of a run; the defaults are the paper's.

    What the paper does not state (batch, decay, dropout, loss; of the rate it calls 1e-4 the
    "initial" one) is Sam_LoRA's, which keeps the rate constant. ``jitter`` is the tenth that SAM
    itself was trained with (Kirillov et al. 2023, appendix A).
    """

    rank: int = 64
    lr: float = 1e-4
    epochs: int = 5
    jitter: float = setting(
        0.1,
        "standard deviation of the noise on a training box's edges, as a share of its sides",
        least=0,
        below=0.25,
    )
    gradient_checkpointing: bool = setting(True, "less memory, slower steps, the same gradients")


PAPER = SamLabConfig()
# Small models want larger steps, which a cosine lets run out. Twenty times such a step for B would
# wreck the model, so LoRA+ starts from a smaller one.
TINY = SamLabConfig(
    precision="no",
    rank=16,
    lr=3e-3,
    schedule="cosine",
    plus_lr=4e-4,
    epochs=3,
    min_steps=40,
    batch_size=4,
    jitter=0.05,
    gradient_checkpointing=False,
)

# ---------------------------------------------------------------------------- the forward pass

BOXES_AT_ONCE = 16  # decoded together, whatever pictures they are in: of ViT-B some 40 MB each


def predict_logits(
    model: Sam, batch: Sequence[PreparedExample], gradient_checkpointing: bool = False
) -> list[Tensor]:
    """Mask logits for every box, with gradients: for each picture (N, 1, side, side), float32.

    All pictures are encoded at once, and all boxes of all pictures decoded at once. Autocast,
    where it is on, is for the image encoder; the prompt encoder and the mask decoder, which
    bfloat16 would break or blur, compute in float32.
    """
    pictures = torch.stack([model.preprocess(prepared.picture) for prepared in batch])
    embeddings = encode(model, pictures, gradient_checkpointing)  # (B, channels, grid, grid)
    with torch.autocast(embeddings.device.type, enabled=False):
        return decode_each(model, embeddings.float(), [prepared.boxes for prepared in batch])


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


def decode_each(model: Sam, embeddings: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
    """Masks (N, 1, side, side) for the boxes (N, 4) of each picture, whatever their number.

    The mask decoder repeats one embedding for each box and adds the dense prompt to it. So that every
    box may have its own picture's, that one is zero here, and theirs are added with the dense prompt.

    Args:
        embeddings: of the pictures, (B, c, grid, grid).
    """
    counts = [len(some) for some in boxes]
    of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(embeddings.device)
    parts = zip(*(each.split(BOXES_AT_ONCE) for each in (torch.cat(list(boxes)), of)), strict=True)
    none = embeddings.new_zeros(1, 1, 1, 1)
    logits = [decode(model, none, some, embeddings[picture]) for some, picture in parts]
    return list(torch.cat(logits).split(counts))


def decode(model: Sam, embedding: Tensor, boxes: Tensor, added: Tensor | float = 0.0) -> Tensor:
    """One mask (N, 1, side, side) for each box (N, 4) in one picture's embedding (1, c, g, g).

    Args:
        added: to the embedding, for each box its own, (N, c, g, g).
    """
    sparse, dense = model.prompt_encoder(points=None, boxes=boxes, masks=None)
    logits, _ = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense + added,
        multimask_output=False,
    )
    return logits


def mean_dice_ce(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice + BCE, the mean over a picture's objects, of logits and bool masks (N, h, w)."""
    return dice_ce(logits, truth).mean()


class SamObjective(nn.Module):
    """The loss of the predicted masks: ``forward(list of prepared examples) -> loss``.

    Logits are brought to the input frame with `Sam.postprocess_masks`, which cuts the padding off,
    and compared with the truth there. A batch's loss is the mean over its pictures, so it may be
    split into parts.
    """

    def __init__(
        self,
        model: Sam,
        gradient_checkpointing: bool = False,
        loss: Callable[[Tensor, Tensor], Tensor] = mean_dice_ce,
    ) -> None:
        super().__init__()
        self.model, self.gradient_checkpointing, self.loss = model, gradient_checkpointing, loss
        self.checkpointed = list(model.image_encoder.blocks) if gradient_checkpointing else []

    def forward(self, batch: Sequence[PreparedExample]) -> Tensor:
        predicted, losses = predict_logits(self.model, batch, self.gradient_checkpointing), []
        with torch.autocast(predicted[0].device.type, enabled=False):
            for logits, prepared in zip(predicted, batch, strict=True):
                size = prepared.input_size
                upscaled = self.model.postprocess_masks(logits, size, size)[:, 0]  # (N, h, w)
                losses.append(self.loss(upscaled, prepared.truth))
        return torch.stack(losses).mean()


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
        SerialLoRAError: what is no box on this picture, or a picture that is too narrow.
    """
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    _check_boxes(boxes, *picture.size)
    model = backbone.model.eval()
    device = model.device
    pixels, scaled = to_input_frame(picture, boxes, model.image_encoder.img_size)
    nothing = torch.zeros(len(boxes), *pixels.shape[-2:], dtype=torch.bool)
    prepared = PreparedExample(pixels.to(device), scaled.to(device), nothing, picture.size[::-1])
    with autocast(device, LOOKING[backbone.scale]):
        (logits,) = predict_logits(model, [prepared])
    logits = original_size_logits(model, logits, prepared).cpu()
    return (logits > model.mask_threshold).numpy(), logits


def _check_boxes(boxes: Tensor, width: int, height: int) -> None:
    """Refuse what is no box on a picture of this size; one may reach over the picture's edge."""
    of_boxes = boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes) and boxes.isfinite().all()
    if of_boxes:
        low, high = boxes[:, :2].clamp(min=0), boxes[:, 2:].minimum(torch.tensor([width, height]))
    if not of_boxes or (low >= high).any():
        raise SerialLoRAError(
            "Boxes are finite numbers of shape (N, 4), x0, y0, x1, y1 of each object, with x0 below x1 and "
            f"y0 below y1 on a picture of {width} x {height} pixels; these are {boxes.tolist()}."
        )


def original_size_logits(model: Sam, logits: Tensor, prepared: PreparedExample) -> Tensor:
    """Logits (N, 1, side, side) at the picture's own size, (N, H, W), by SAM's own function."""
    return model.postprocess_masks(logits, prepared.input_size, prepared.original_size)[:, 0]


# ----------------------------------------------------------------------------------- measuring

MEASURES = ("dice", "dice_ce", "iou")
ENCODED_AT_ONCE = {"tiny": 4, "paper": 1}  # what a CPU core works on stays in its cache


@torch.no_grad()
def picture_scores(
    backbone: SamBackbone,
    data: SegmentationData,
    ways_in: Sequence[tuple[PreparedExample, SegmentationExample]] | None = None,
) -> dict[str, np.ndarray]:
    """What the model reaches on each test picture, in the data's order; boxes are exact.

    Args:
        ways_in: the test pictures as :func:`on_their_way` makes them, where they are kept.

    Returns:
        Measure -> (N,), each a mean over a picture's objects, at the original size. The higher ``dice``
        and ``iou`` and the lower ``dice_ce``, the better; ``box_dice`` and ``box_iou`` are of filling the
        box, the answer of a model that sees no picture.
    """
    model = backbone.model.eval()
    ways_in = on_their_way(model, data) if ways_in is None else ways_in
    at_once, workers = ENCODED_AT_ONCE[backbone.scale], loader_workers(backbone.scale)
    scores = []
    for batch in batches_of(ways_in, tuple, at_once, workers, list):
        on_device = send_to_device([prepared for prepared, _ in batch], model.device)
        for logits, (prepared, example) in zip(
            predict_logits(model, on_device), batch, strict=True
        ):
            logits = original_size_logits(model, logits, prepared)
            scores.append(_scores_of(logits, logits > model.mask_threshold, example))
    return {name: np.array([each[name] for each in scores]) for name in scores[0]}


def on_their_way(model: Sam, data: SegmentationData) -> Made:
    """Each test picture in the model's input frame, and as it is."""
    return Made(data.test, partial(_beside, image_size=model.image_encoder.img_size))


def _beside(
    example: SegmentationExample, image_size: int
) -> tuple[PreparedExample, SegmentationExample]:
    return prepare(example, image_size), example


def _scores_of(logits: Tensor, found: Tensor, example: SegmentationExample) -> dict[str, float]:
    truth = torch.as_tensor(example.masks).to(logits.device)
    filled = torch.zeros_like(truth)
    for mask, box in zip(filled, example.boxes, strict=True):
        x0, y0, x1, y1 = (int(edge) for edge in box)
        mask[y0:y1, x0:x1] = True
    return {
        "dice": dice(found, truth).mean().item(),
        "dice_ce": dice_ce(logits, truth).mean().item(),
        "iou": iou(found, truth).mean().item(),
        "box_dice": dice(filled, truth).mean().item(),
        "box_iou": iou(filled, truth).mean().item(),
    }


# ------------------------------------------------------------------------------------- the lab


class SamLab(Lab):
    """Segmentation of boxed objects; the amount is a share of the training pictures."""

    name, unit, amount = "sam", "percent", 100
    configs = {"tiny": TINY, "paper": PAPER}
    help = {
        "scale": "tiny (drawings on photographs, CPU) or paper (ViT-B, GPU)",
        "weights": "checkpoint of the model",
    }
    report = Report(
        title="SAM segmentation of boxed objects",
        result=lambda record: (
            f"Dice {record.measures['dice']:.3f} (not adapted {record.measures['base_dice']:.3f}, "
            f"box filled in {record.measures['box_dice']:.3f})"
        ),
        columns={
            "Dice": ("{:.3f}", itemgetter("dice")),
            "1-Dice": ("{:.3f}", lambda measures: 1 - measures["dice"]),
            "DiceCE": ("{:.3f}", itemgetter("dice_ce")),
            "IoU": ("{:.3f}", itemgetter("iou")),
        },
        baselines={"box filled in": beginning("box_"), "not adapted": beginning("base_")},
        caption="Dice and IoU: higher is better. 1-Dice and DiceCE: lower is better, as in the "
        "paper's Table IV.",
    )

    datasets = staticmethod(partial(dataset_names, "segmentation"))
    load_data = staticmethod(load_segmentation)
    indices = staticmethod(training_subset)

    @staticmethod
    def load_backbone(config: LabConfig, scale: str, weights: str | Path | None) -> SamBackbone:
        return load_sam(scale, weights)

    def objective(self) -> SamObjective:
        return SamObjective(self.backbone.model, self.config.gradient_checkpointing)

    @cached_property
    def train_prepared(self) -> Opened:
        """The training examples in the model's input frame, kept for all steps and runs."""
        side = self.backbone.model.image_encoder.img_size
        made = Made(self.data.train, partial(prepare, image_size=side))
        return Opened(made)

    @cached_property
    def test_prepared(self) -> Opened:
        """The test examples so, each beside itself."""
        return Opened(on_their_way(self.backbone.model, self.data))

    def stream(self, indices: Sequence[int], seed: int) -> ExampleStream:
        """The prepared training examples of a run, boxes jittered, in a seeded order."""
        return ExampleStream(
            self.train_prepared,
            indices,
            partial(jitter_boxes, amount=self.config.jitter),
            seed,
            self.config.batch_size,
            self.config.steps(len(indices)),
            collate=list,
        )

    def scores(self) -> dict[str, np.ndarray]:
        """Each test picture's, in the precision of the training."""
        with autocast(self.backbone.model.device, self.precision):
            return picture_scores(self.backbone, self.data, self.test_prepared)

    def measure(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        scores = self.scores()
        return {name: float(scores[name].mean()) for name in MEASURES}, scores

    def outcomes(self, seen: dict[str, np.ndarray]) -> Outcomes:
        """Each test picture's measures."""
        return {name: seen[name] for name in MEASURES}

    def measure_base(self) -> dict[str, float]:
        """What the unadapted model reaches (``base_dice`` ...), and what filling the box does."""
        return {
            name if name.startswith("box_") else f"base_{name}": float(values.mean())
            for name, values in self.scores().items()
        }


LAB = SamLab
