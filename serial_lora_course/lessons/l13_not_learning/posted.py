"""Fine-tuning runs as people post them, one broken in two places and each other in one, and one that works.

A broken place is a function of its own, and a repaired one takes its place: ``run_2(mine)``.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
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
SCENES, HELD_SCENES = 2, 8  # of SAM: in a step, and held out
LOW_RATE, ROUNDS = 2e-5, 10  # of run 4, whose steps cost next to nothing

# Pictures (B, 3, H, W), or what a tower makes of them, and labels (B,).
Batch = tuple[Tensor, Tensor]


@cache
def held_out() -> Batch:
    """The drawings that no run trains on."""
    clip, test = load_clip(), load_classification("travel").test
    pictures = torch.stack([clip.test_transform(picture) for picture, _ in test])
    return pictures, torch.tensor(test.labels)


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
        held_out: what it is not trained on, as it is given.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any], Tensor]
    batches: Sequence[Any]
    schedule: LambdaLR | None = None
    asked: float = RATE
    held_out: Any = field(default_factory=held_out)

    @property
    def entrance(self) -> nn.Module:
        """The frozen part that the pictures enter."""
        return getattr(self.model, "tower", None) or self.model.image_encoder


def show(*functions: Callable) -> None:
    """Print how functions are written."""
    print("\n".join(map(inspect.getsource, functions)))


# ------------------------------------------------------------ the eight places, as posted


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


def shuffled(pictures: Tensor, labels: Tensor) -> Batch:
    """A batch in a new order."""
    pictures = pictures[torch.randperm(len(pictures))]
    labels = labels[torch.randperm(len(labels))]
    return pictures, labels


# -------------------------------------------------------------------------- the runs


class Classifier(nn.Module):
    """CLIP's image tower, and a vector for each class: pictures (B, 3, H, W) -> scores (B, C)."""

    def __init__(self, tower: nn.Module, classes: Tensor, scale: float, names: list[str]) -> None:
        super().__init__()
        self.tower, self.scale, self.names = tower, scale, names
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


class Rounded(Classifier):
    """The same, with both factors of each product in bfloat16."""

    def forward(self, pictures: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(pictures).float()


@cache
def frozen_classifier() -> Classifier:
    """The pretrained model."""
    clip, data = load_clip(), load_classification("travel")
    classes = encode_prompts(clip.model.requires_grad_(False), clip.tokenizer(data.prompts()))
    scale = clip.model.logit_scale.exp().item()
    return Classifier(clip.model.visual, classes, scale, list(data.class_names))


@cache
def drawings() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Pictures (N, 3, H, W), labels (N,), and which of them each step takes."""
    clip, train = load_clip(), load_classification("travel").train
    labels, draw = torch.tensor(train.labels), torch.Generator().manual_seed(0)
    each = (labels == torch.arange(int(labels.max()) + 1)[:, None]).float()  # (C, N)
    chosen = [  # as many of each class, so that one batch is as hard as another
        torch.multinomial(each, BATCH // len(each), generator=draw).flatten() for _ in range(STEPS)
    ]
    return torch.stack([clip.test_transform(picture) for picture, _ in train]), labels, chosen


def classifier() -> tuple[Classifier, list[Batch]]:
    """A copy of the frozen classifier, and the batches."""
    frozen, (pictures, labels, chosen) = frozen_classifier(), drawings()
    torch.manual_seed(0)
    return copy.deepcopy(frozen), [(pictures[some], labels[some]) for some in chosen]


def from_folders() -> list[tuple[Tensor, list[str]]]:
    """The batches as a data loader finds them: pictures, and the folder of each, which names its class."""
    model, batches = classifier()
    return [(pictures, [model.names[k] for k in labels]) for pictures, labels in batches]


def works() -> Run:
    """The run that the others are compared with."""
    model, batches = classifier()  # CLIP's image tower, and a vector for each class: all frozen
    inject(model, SerialLoRAConfig(rank=RANK))
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=RATE)
    return Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches)


def run_1(optimizer_of: Callable = optimizer_of) -> Run:
    model, batches = classifier()
    optimizer = optimizer_of(model, SerialLoRAConfig(rank=RANK), lr=RATE)
    return Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches)


def run_2(through_blocks: Callable = through_blocks) -> Run:
    model, batches = classifier()
    inject(model, SerialLoRAConfig(rank=RANK))
    model.classes.requires_grad_()
    optimizer = torch.optim.AdamW([*adapter_parameters(model), model.classes], lr=RATE)
    blocks = model.tower.transformer.resblocks
    model.tower.transformer = Tower(blocks, through_blocks)
    model.checkpointed = list(blocks)  # for `saved_activations`, which counts their inputs

    def loss(batch: Batch) -> Tensor:
        with warnings.catch_warnings(action="ignore"):  # PyTorch's and ours, as in a poster's log
            return F.cross_entropy(model(batch[0]), batch[1])

    return Run(model, optimizer, loss, batches)


@cache
def sam_and_scenes() -> tuple[Sam, list[lab.PreparedExample]]:
    """A frozen SAM, and photographs with boxes and masks in its frame, the held-out ones last."""
    data, model = load_segmentation("photographs"), load_sam().model
    side = model.image_encoder.img_size
    examples = [data.train[i] for i in range(SCENES * STEPS)]
    examples += [data.test[i] for i in range(HELD_SCENES)]
    return model, [lab.prepare(example, side) for example in examples]


def run_3(pixels_of: Callable = pixels_of) -> Run:
    frozen, scenes = sam_and_scenes()
    torch.manual_seed(0)
    model = copy.deepcopy(frozen)
    inject(model, SerialLoRAConfig(rank=RANK))
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=RATE)
    frames = [Image.fromarray(scene.picture.permute(1, 2, 0).numpy()) for scene in scenes]
    given = [s._replace(picture=pixels_of(f)) for s, f in zip(scenes, frames, strict=True)]
    batches = [given[i : i + SCENES] for i in range(0, SCENES * STEPS, SCENES)]
    return Run(model, optimizer, lab.SamObjective(model), batches, held_out=given[-HELD_SCENES:])


@cache
def projection_and_vectors() -> tuple[nn.Linear, list[Batch], Batch]:
    """The last matrix of CLIP's image tower, what enters it, with labels, and the same held out."""
    tower = copy.deepcopy(frozen_classifier().tower)
    projection = nn.Linear(*tower.proj.shape, bias=False)
    projection.weight.data = tower.proj.data.T.clone()
    tower.proj = None
    pictures, labels, chosen = drawings()
    unseen, their_labels = held_out()
    with torch.no_grad():
        vectors, unseen = tower(pictures), tower(unseen)
    return projection, [(vectors[some], labels[some]) for some in chosen], (unseen, their_labels)


def run_4(lower: Callable = lower) -> Run:
    frozen = frozen_classifier()
    projection, batches, unseen = copy.deepcopy(projection_and_vectors())
    model = lower(Rounded(projection, frozen.classes, frozen.scale, frozen.names))
    optimizer = torch.optim.AdamW([projection.weight], lr=LOW_RATE)
    run = Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches * ROUNDS)
    return replace(run, asked=LOW_RATE, held_out=unseen)


def run_5(optimizer_of: Callable = optimizer_of, share_of_rate: Callable = share_of_rate) -> Run:
    model, batches = classifier()
    optimizer = optimizer_of(model, SerialLoRAConfig(rank=RANK), lr=RATE)
    schedule = LambdaLR(optimizer, lambda step: share_of_rate(step, STEPS))
    return Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches, schedule)


def run_6(start: Callable = start) -> Run:
    model, batches = classifier()
    inject(model, SerialLoRAConfig(rank=RANK))
    start(adapter_parameters(model))
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=RATE)
    return Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches)


def run_7(scaled: Callable = scaled) -> Run:
    model, batches = classifier()
    inject(model, SerialLoRAConfig(rank=RANK))
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=scaled(RATE, BATCH))
    return Run(model, optimizer, lambda b: F.cross_entropy(model(b[0]), b[1]), batches)


def run_8(shuffled: Callable = shuffled) -> Run:
    run = works()
    torch.manual_seed(0)
    return replace(run, batches=[shuffled(*batch) for batch in run.batches])


RUNS = (run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8)
