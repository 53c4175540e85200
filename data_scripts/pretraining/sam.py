"""Pretraining of the tiny SAM: find one Twemoji drawing among several, told by a box or a point.

Scenes are made as they are needed: Twemoji drawings over photographs. The drawings of hidden
concepts (`serial_lora_course.data.emoji_sets`) and the "test" photographs are left out; scenes made of
those tell how well the model does on what it has never seen. OpenMoji is never shown to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_scripts.pretraining.loop import PretrainingRun
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.scenes import Scene, SceneRecipe, box_of, compose, photographs
from serial_lora_course.files import write_json
from serial_lora_course.measures.metrics import dice
from serial_lora_course.models.sam import TINY_MODEL, build_sam, tiny_architecture

DRAWING_SIZE = 72  # Twemoji's own
MEASURED_SCENES = 120


@dataclass(frozen=True)
class Recipe:
    """What a pretraining run depends on."""

    steps: int = 8300
    batch: int = 16  # scenes
    prompts: int = 4  # per scene
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 166  # steps
    decay: float = 1.0  # share of the steps in which the rate falls
    points: float = 0.25  # share of prompts that are one point; the others are boxes
    jitter: float = 0.06  # of a box's edges, as a fraction of its sides
    padded: float = 0.25  # share of scenes that are not square
    dense_loss: float = 0.5  # weight of telling figure from ground and where objects touch
    iou_loss: float = 0.2  # weight of the decoder's guess of its own IoU
    seed: int = 0


class SamPretraining(PretrainingRun):
    """One run of the tiny SAM."""

    name = TINY_MODEL

    def __init__(self, folder: Path, recipe: Recipe, asked: str = "sam") -> None:
        super().__init__(folder, recipe, asked)
        self.architecture = tiny_architecture()
        self.size, self.cell = self.architecture["image_size"], self.architecture["patch_size"]
        self.drawings = drawings("twemoji", hidden=False)
        self.backgrounds = photographs("train")
        model = build_sam(**self.architecture)
        initialize(model)
        # Thrown away afterwards: it makes every pixel of the encoder's map answer for itself.
        dense = nn.Conv2d(self.architecture["prompt_width"], 2 * self.cell**2, 1)
        self.dense = dense
        self.set_up(model, dense)

    def one_step(self) -> float:
        recipe = self.recipe
        chance = np.random.default_rng((recipe.seed, self.step))
        scenes = [self._scene(chance) for _ in range(recipe.batch)]
        pictures = self._pictures(scenes, chance)
        prompts = [self._prompts(scene, chance) for scene in scenes]
        coordinates = torch.from_numpy(np.concatenate([p[0] for p in prompts]))
        is_point = torch.from_numpy(np.concatenate([p[1] for p in prompts]))
        truth = torch.from_numpy(np.concatenate([p[2] for p in prompts])).float()
        self.trained.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embedding = self.model.image_encoder(pictures)
            figure = F.pixel_shuffle(self.dense(embedding), self.cell).float()
            masks, quality = decode(
                self.model, embedding.repeat_interleave(recipe.prompts, 0), coordinates, is_point
            )
        loss = mask_loss(masks.float(), quality.float(), truth, is_point, recipe.iou_loss)
        loss = loss + recipe.dense_loss * dense_loss(figure, scenes)
        return self.descend(loss)

    def _scene(self, chance: np.random.Generator) -> Scene:
        shape = SceneRecipe(height=self.size, width=self.size)
        if chance.random() < self.recipe.padded:
            shorter = int(chance.integers(self.size // 2, self.size))
            side = ("height", "width")[chance.integers(2)]
            shape = replace(shape, **{side: shorter})
        return pad(compose(self.drawings, self.backgrounds, chance, shape), self.size)

    def _pictures(self, scenes: list[Scene], chance: np.random.Generator) -> Tensor:
        """Normalized pictures (B, 3, size, size), each with light and tint of its own."""
        pictures = torch.from_numpy(np.stack([s.picture for s in scenes])).permute(0, 3, 1, 2)
        pictures = pictures.float()
        light = torch.from_numpy(chance.uniform(0.7, 1.3, (len(scenes), 1, 1, 1))).float()
        tint = torch.from_numpy(chance.uniform(0.85, 1.15, (len(scenes), 3, 1, 1))).float()
        return self._normalize((pictures * light * tint).clamp(0, 255), scenes)

    def _normalize(self, pictures: Tensor, scenes: list[Scene]) -> Tensor:
        inside = torch.from_numpy(np.stack([s.picture.any(2) for s in scenes]))[:, None]
        # The border that squares a picture is zero after normalizing, as in Sam.preprocess.
        return (pictures - self.model.pixel_mean) / self.model.pixel_std * inside

    def _prompts(self, scene: Scene, chance: np.random.Generator):
        """Coordinates (P, 2, 2), whether each is a point, and masks (P, size, size)."""
        count = self.recipe.prompts
        order = chance.permutation(len(scene.masks))
        chosen = np.resize(order, count)
        is_point = chance.random(count) < self.recipe.points
        coordinates = np.zeros((count, 2, 2), np.float32)
        for row, index in enumerate(chosen):
            if is_point[row]:
                coordinates[row, 0] = point_in(scene.masks[index], chance)
            else:
                box = jittered(box_of(scene.masks[index]), self.recipe.jitter, self.size, chance)
                coordinates[row] = box.reshape(2, 2)
        return coordinates, is_point, scene.masks[chosen]

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Dice on scenes of drawings and photographs that training has not seen."""
        self.trained.eval()
        result: dict[str, float] = {}
        shape, size = SceneRecipe(height=self.size, width=self.size), (self.size, self.size)
        for style in ("twemoji", "openmoji"):
            unseen, chance = drawings(style, hidden=True), np.random.default_rng(self.recipe.seed)
            scores: dict[str, list[float]] = {"box": [], "point": [], "filled box": []}
            for _ in range(MEASURED_SCENES):
                scene = compose(unseen, photographs("test"), chance, shape)
                pictures = torch.from_numpy(scene.picture.copy()).permute(2, 0, 1)[None].float()
                embedding = self.model.image_encoder(self._normalize(pictures, [scene]))
                boxes = np.stack([box_of(mask) for mask in scene.masks])
                points = np.zeros((len(boxes), 2, 2), np.float32)
                points[:, 0] = [point_in(mask, chance) for mask in scene.masks]
                for kind, asked in (("box", boxes.reshape(-1, 2, 2)), ("point", points)):
                    is_point = torch.full((len(boxes),), kind == "point")
                    embeddings = embedding.expand(len(boxes), -1, -1, -1)
                    masks, _ = decode(self.model, embeddings, torch.from_numpy(asked), is_point)
                    found = self.model.postprocess_masks(masks[:, :1].float(), size, size) > 0
                    scores[kind] += dice(found[:, 0].numpy(), scene.masks).tolist()
                filled = np.zeros_like(scene.masks)
                for mask, (x0, y0, x1, y1) in zip(filled, boxes.astype(int), strict=True):
                    mask[y0:y1, x0:x1] = True
                scores["filled box"] += dice(filled, scene.masks).tolist()
            for kind, values in scores.items():
                result[f"{style} {kind} Dice"] = round(float(np.mean(values)), 4)
        return result

    def write_model(self) -> None:
        self.write_weights()
        write_json(self.folder / f"{self.name}.json", self.architecture)


def drawings(style: str, hidden: bool) -> np.ndarray:
    """The drawings, uint8 (N, size, size, 4), of the concepts that are hidden, or are not."""
    emoji, hidden_ones = load_emoji(style, DRAWING_SIZE), hidden_codepoints()
    return emoji.some(
        [i for i, c in enumerate(emoji.concepts) if (c.codepoints in hidden_ones) == hidden]
    )


def initialize(model: nn.Module) -> None:
    """A vision transformer's usual start for the image encoder."""
    encoder = model.image_encoder
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    for module in encoder.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


def pad(scene: Scene, size: int) -> Scene:
    """The scene with a black border below and to the right that makes it square."""
    below, right = size - scene.picture.shape[0], size - scene.picture.shape[1]
    return replace(
        scene,
        picture=np.pad(scene.picture, ((0, below), (0, right), (0, 0))),
        masks=np.pad(scene.masks, ((0, 0), (0, below), (0, right))),
    )


def point_in(mask: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A random pixel of the mask, as x, y."""
    rows, columns = np.nonzero(mask)
    at = chance.integers(len(rows))
    return np.asarray((columns[at], rows[at]), np.float32)


def jittered(box: np.ndarray, amount: float, size: int, chance: np.random.Generator) -> np.ndarray:
    """The box with each edge moved by a normal deviate of ``amount`` times its side."""
    sides = np.tile(box[2:] - box[:2], 2)
    moved = box + np.clip(chance.normal(0, amount, 4), -2 * amount, 2 * amount) * sides
    return np.clip(moved, 0, size).astype(np.float32)


def decode(model: nn.Module, embeddings: Tensor, coordinates: Tensor, is_point: Tensor):
    """Masks for many prompts over many pictures at once.

    MaskDecoder repeats one picture's embedding for each prompt and adds the dense prompt; that one is
    zero here, and each of the N prompts brings its own picture's, (N, channels, grid, grid).
    ``coordinates`` is (N, 2, 2): a box's corners, or a point and a place that stays empty, so both make
    two tokens.

    Returns:
        Mask logits (N, 4, 4 grid, 4 grid) and guesses of their IoU (N, 4).
    """
    prompts, none = model.prompt_encoder, embeddings.new_zeros(1, 1, 1, 1)
    labels = torch.tensor([1.0, -1.0]).expand(len(coordinates), -1)
    as_points, dense = prompts((coordinates[:, :1], labels[:, :1]), None, None)
    as_boxes, _ = prompts(None, coordinates.reshape(-1, 4), None)
    sparse = torch.where(is_point[:, None, None], as_points, as_boxes)
    position = prompts.get_dense_pe()
    return model.mask_decoder.predict_masks(none, position, sparse, embeddings + dense)


def mask_loss(masks: Tensor, quality: Tensor, truth: Tensor, is_point: Tensor, iou_weight: float):
    """Dice + BCE of the first mask; for points also of the best of the other three; IoU guesses.

    A point can mean several things, and the three further masks are for that: only the best one is
    told (Kirillov et al. 2023, section 3).
    """
    target = F.interpolate(truth[:, None], masks.shape[-2:], mode="area")
    cross_entropy = F.binary_cross_entropy_with_logits(
        masks, target.expand_as(masks), reduction="none"
    ).mean((2, 3))
    inside = masks.sigmoid()
    overlap = (inside * target).sum((2, 3))
    area = inside.sum((2, 3)) + target.sum((2, 3))
    each = cross_entropy + 1 - (2 * overlap + 1) / (area + 1)  # (N, 4)
    best = each[:, 1:].min(1).values * is_point
    with torch.no_grad():
        found = masks > 0
        common = (found * target).sum((2, 3))
        iou = common / (found.sum((2, 3)) + target.sum((2, 3)) - common).clamp(min=1)
    guesses = F.mse_loss(quality, iou)
    return (each[:, 0] + best).mean() + iou_weight * guesses


def dense_loss(figure: Tensor, scenes: list[Scene]) -> Tensor:
    """BCE of two maps (B, 2, size, size): where any object is, and where one ends."""
    ground = np.stack([scene.masks.any(0) for scene in scenes])
    edge = np.zeros_like(ground)
    for row, scene in zip(edge, scenes, strict=True):
        label = (scene.masks * np.arange(1, len(scene.masks) + 1)[:, None, None]).sum(0)
        row[:, 1:] |= label[:, 1:] != label[:, :-1]
        row[1:] |= label[1:] != label[:-1]
    target = torch.from_numpy(np.stack([ground, edge], 1)).float()
    return F.binary_cross_entropy_with_logits(figure, target)
