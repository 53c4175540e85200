"""Seven fine-tuning runs as people post them, E broken in two places and each other in one, and one that works.

A broken place is a function of its own, and a learner's takes its place: ``run_a(mine)``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint
from torchvision.transforms.functional import to_tensor

from serial_lora import SerialLoRAConfig, adapter_parameters, inject
from serial_lora_course.data.registry import load_classification, load_segmentation
from serial_lora_course.labs import sam as lab
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.models.sam import load_sam

STEPS, BATCH, RANK, RATE = 30, 16, 16, 3e-3
SCENES = 2  # a step of SAM
LOW_RATE, ROUNDS = 2e-5, 10  # of run D, whose steps cost next to nothing


@dataclass
class Run:
    """What a training loop needs.

    Attributes:
        model: what is trained, with what it is built on.
        optimizer: as the poster made it.
        loss: of a batch, a scalar.
        batches: what each step is given, in its order.
        schedule: of the rate, stepped after the optimizer.
        asked: the rate that the poster wants.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any], Tensor]
    batches: Sequence[Any]
    schedule: LambdaLR | None = None
    asked: float = RATE


# ------------------------------------------------------------ the seven places, as posted


def optimizer_of(model: nn.Module, config: SerialLoRAConfig, lr: float) -> torch.optim.Optimizer:
    """Put the adapter in, and return what trains it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    inject(model, config)
    return optimizer


def through_blocks(blocks: Sequence[nn.Module], tokens: Tensor) -> Tensor:
    """Run a tower and keep little of it in memory."""
    for block in blocks:
        tokens = checkpoint(block, tokens, use_reentrant=True)
    return tokens


def pixels_of(picture: Image.Image) -> Tensor:
    """A picture for SAM, which subtracts its mean colour itself."""
    return to_tensor(picture)


def lower(model: nn.Module) -> nn.Module:
    """Halve a model's memory."""
    return model.to(torch.bfloat16)


def share_of_rate(step: int, steps: int, warm_up: int = 500) -> float:
    """What the rate is multiplied by in a step."""
    return min(1.0, (step + 1) / warm_up)


def start(pairs: Iterable[nn.Parameter]) -> None:
    """Begin at the pretrained model: B A is zero."""
    for matrix in pairs:
        nn.init.zeros_(matrix)


def scaled(rate: float, batch: int) -> float:
    """The rate for a batch of this size."""
    return rate * batch


# -------------------------------------------------------------------------- the eight runs


class Classifier(nn.Module):
    """CLIP's image tower, and a vector for each class: pictures (B, 3, H, W) -> scores (B, C)."""

    def __init__(self, tower: nn.Module, classes: Tensor, scale: float) -> None:
        super().__init__()
        self.tower, self.scale = tower, scale
        self.classes = nn.Parameter(classes.clone(), requires_grad=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.scale * F.normalize(self.tower(pictures), dim=-1) @ self.classes.T


class Tower(nn.Module):
    """The blocks of a tower, run by a function that was given."""

    def __init__(self, blocks: nn.ModuleList, run: Callable[[Sequence[nn.Module], Tensor], Tensor]):
        super().__init__()
        self.blocks, self.run = blocks, run

    def forward(self, tokens: Tensor) -> Tensor:
        return self.run(self.blocks, tokens)


@cache
def clip_and_batches() -> tuple[Classifier, list[tuple[Tensor, Tensor]]]:
    """A frozen classifier of drawings, and 30 batches: pictures (B, 3, H, W) and labels (B,)."""
    clip, data = load_clip(), load_classification("travel")
    classes = encode_prompts(clip.model.requires_grad_(False), clip.tokenizer(data.prompts()))
    pictures = torch.stack([clip.test_transform(picture) for picture, _ in data.train])
    labels, draw = torch.tensor(data.train.labels), torch.Generator().manual_seed(0)
    each = (labels == torch.arange(len(classes))[:, None]).float()  # (C, N)
    chosen = [  # as many of each class, so that one batch is as hard as another
        torch.multinomial(each, BATCH // len(classes), generator=draw).flatten()
        for _ in range(STEPS)
    ]
    model = Classifier(clip.model.visual, classes, clip.model.logit_scale.exp().item())
    return model, [(pictures[some], labels[some]) for some in chosen]


def classifier() -> tuple[Classifier, list[tuple[Tensor, Tensor]]]:
    """A copy of the frozen classifier, and the batches."""
    frozen, batches = clip_and_batches()
    torch.manual_seed(0)
    return copy.deepcopy(frozen), batches


def works() -> Run:
    """The run that the others are compared with."""
    model, batches = classifier()  # CLIP's image tower, and a vector for each class: all frozen
    inject(model, SerialLoRAConfig(rank=RANK))
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=RATE)
    return Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches)


def classify(run: Callable[[Classifier], tuple[torch.optim.Optimizer, LambdaLR | None]]) -> Run:
    """A run like that one, with an optimizer of its own."""
    model, batches = classifier()
    optimizer, schedule = run(model)
    return Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches, schedule)


def adapted(model: nn.Module, *others: nn.Parameter, lr: float = RATE) -> torch.optim.Optimizer:
    """An adapter, and an optimizer that trains it and others."""
    inject(model, SerialLoRAConfig(rank=RANK))
    for tensor in others:
        tensor.requires_grad_()
    return torch.optim.AdamW([*adapter_parameters(model), *others], lr=lr)


def run_a(optimizer_of: Callable = optimizer_of) -> Run:
    return classify(lambda model: (optimizer_of(model, SerialLoRAConfig(rank=RANK), RATE), None))


def run_b(through_blocks: Callable = through_blocks) -> Run:
    def build(model: Classifier) -> tuple[torch.optim.Optimizer, None]:
        optimizer = adapted(model, model.classes)
        model.tower.transformer = Tower(model.tower.transformer.resblocks, through_blocks)
        return optimizer, None

    run = classify(build)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        with warnings.catch_warnings(action="ignore"):  # PyTorch's and ours, as in a poster's log
            return F.cross_entropy(run.model(batch[0]), batch[1])

    return replace(run, loss=loss)


@cache
def sam_and_scenes() -> tuple[Sam, list[lab.PreparedExample]]:
    """A frozen SAM, and photographs with boxes and masks, in its frame."""
    data, model = load_segmentation("photographs"), load_sam().model
    side = model.image_encoder.img_size
    return model, [lab.prepare(data.train[i], side) for i in range(SCENES * STEPS)]


def run_c(pixels_of: Callable = pixels_of) -> Run:
    frozen, scenes = sam_and_scenes()
    torch.manual_seed(0)
    model = copy.deepcopy(frozen)
    optimizer = adapted(model)
    frames = [Image.fromarray(scene.picture.permute(1, 2, 0).numpy()) for scene in scenes]
    given = [s._replace(picture=pixels_of(f)) for s, f in zip(scenes, frames, strict=True)]
    batches = [given[i : i + SCENES] for i in range(0, len(given), SCENES)]
    return Run(model, optimizer, lab.SamObjective(model), batches)


@cache
def projection_and_vectors() -> tuple[nn.Linear, list[tuple[Tensor, Tensor]]]:
    """The last matrix of CLIP's image tower, and what enters it, with labels."""
    frozen, batches = clip_and_batches()
    tower = copy.deepcopy(frozen.tower)
    projection = nn.Linear(*tower.proj.shape, bias=False)
    projection.weight.data = tower.proj.data.T.clone()
    tower.proj = None
    with torch.no_grad():
        return projection, [(tower(pictures), labels) for pictures, labels in batches]


def rounded_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss, with both factors of each product in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return F.cross_entropy(model(batch[0]), batch[1])


def run_d(lower: Callable = lower) -> Run:
    frozen, _ = clip_and_batches()
    projection, vectors = copy.deepcopy(projection_and_vectors())
    model = lower(Classifier(projection, frozen.classes, frozen.scale))
    optimizer = torch.optim.AdamW([projection.weight], lr=LOW_RATE)
    return Run(model, optimizer, partial(rounded_loss, model), vectors * ROUNDS, asked=LOW_RATE)


def run_e(optimizer_of: Callable = optimizer_of, share_of_rate: Callable = share_of_rate) -> Run:
    def build(model: Classifier) -> tuple[torch.optim.Optimizer, LambdaLR]:
        optimizer = optimizer_of(model, SerialLoRAConfig(rank=RANK), RATE)
        return optimizer, LambdaLR(optimizer, lambda step: share_of_rate(step, STEPS))

    return classify(build)


def run_f(start: Callable = start) -> Run:
    def build(model: Classifier) -> tuple[torch.optim.Optimizer, None]:
        optimizer = adapted(model)
        start(adapter_parameters(model))
        return optimizer, None

    return classify(build)


def run_g(scaled: Callable = scaled) -> Run:
    def build(model: Classifier) -> tuple[torch.optim.Optimizer, None]:
        return adapted(model, lr=scaled(RATE, BATCH)), None

    return classify(build)
