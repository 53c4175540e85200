"""The CLIP lab: few-shot classification, zero-shot first, then each method, shots and seed.

The setting is CLIP-LoRA's, as the paper's Fig. 2 says: cross-entropy over the scaled similarity of
a picture and every class prompt, both towers adapted and both encoded anew at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.config import SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import dataset_names, load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs.config import LabConfig, check_crop, setting
from serial_lora_course.labs.device import loader_workers
from serial_lora_course.labs.lab import Lab, Outcomes
from serial_lora_course.labs.records import Record
from serial_lora_course.labs.report import Report
from serial_lora_course.labs.training import ExampleStream, OnPicture, batches_of
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.clip import CLIPBackbone, encode_prompts, load_clip

PROMPTS = ("dataset", "generic")


@dataclass(frozen=True)
class CLIPLabConfig(LabConfig):
    """Every choice of a run; the defaults are the paper's. A run of few pictures has ``min_steps`` steps.

    The rate is constant, as the paper says (III.B, "a fixed learning rate of 2e-4"); the code of CLIP-LoRA,
    whose setting this is otherwise, lets it fall along a cosine.
    """

    rank: int = 32
    lr: float = 2e-4
    epochs: int = 50
    min_steps: int = 50
    batch_size: int = 32
    weight_decay: float = 1e-2
    dropout: float = 0.25
    prompt: str = setting(
        "generic",
        "prompt template: dataset (each data set's own) or generic (one for all)",
        PROMPTS,
    )
    towers: tuple[str, ...] | None = setting(
        None, "towers to adapt: image, text, or both separated by a comma; both by default"
    )
    crop: float = setting(0.08, "minimum share of the picture's area in a training crop")
    model_name: str | None = setting(None, "name of another open_clip model")

    def __post_init__(self) -> None:
        super().__post_init__()
        SerialLoRAConfig(self.rank, towers=self.towers)  # checks them
        check_crop(self.crop)


PAPER = CLIPLabConfig()
# Small models want larger steps, which a cosine lets run out; few rounds suffice, and each lab run
# stays within seconds. Twenty times such a step for B would wreck the model, so LoRA+ starts from a
# smaller one.
TINY = CLIPLabConfig(
    precision="no",
    rank=16,
    lr=3e-3,
    schedule="cosine",
    plus_lr=4e-4,
    epochs=25,
    min_steps=40,
    dropout=0.1,
    prompt="dataset",
    crop=0.6,
)


class CLIPObjective(nn.Module):
    """Mean cross-entropy of pictures (B, 3, size, size) and labels (B,) against all class prompts.

    ``tokens`` are those, (classes, context_length).
    """

    def __init__(self, model: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("tokens", tokens, persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pictures, labels = batch
        scores = class_scores(self.model, pictures, encode_prompts(self.model, self.tokens))
        return nn.functional.cross_entropy(scores, labels)


def class_scores(model: nn.Module, pictures: Tensor, class_features: Tensor) -> Tensor:
    """Scaled cosine similarities (B, classes) of pictures (B, 3, size, size) with the classes.

    In float32 whatever autocast says: of a score near 24, bfloat16 keeps the first tenth.
    """
    image_features = model.encode_image(pictures)  # (B, embed_dim)
    with torch.autocast(image_features.device.type, enabled=False):
        image_features = nn.functional.normalize(image_features.float(), dim=-1)
        return model.logit_scale.exp() * image_features @ class_features.T


@torch.no_grad()
def classify(
    backbone: CLIPBackbone, data: ClassificationData, template: str
) -> tuple[Tensor, Tensor]:
    """Scores (N, classes) and labels (N,) of the test pictures, in order, under one prompt."""
    features, labels = picture_features(backbone, data)
    return prompt_scores(backbone, features, data.prompts(template)), labels


def prompt_tokens(backbone: CLIPBackbone, prompts: list[str]) -> Tensor:
    """Token ids (prompts, context_length); two prompts that are alike in all that is read are refused."""
    tokens = backbone.tokenizer(prompts)
    first: dict[tuple[int, ...], str] = {}
    for row, prompt in zip(tokens.tolist(), prompts, strict=True):
        other = first.setdefault(tuple(row), prompt)
        if other is not prompt:
            raise SerialLoRAError(
                f"{other!r} and {prompt!r} are alike in the {tokens.shape[1]} tokens that "
                f"{backbone.name} reads; give one of the two classes another name."
            )
    return tokens


@torch.no_grad()
def prompt_scores(backbone: CLIPBackbone, features: Tensor, prompts: list[str]) -> Tensor:
    """Scaled cosine similarities (N, prompts), on the CPU, of picture features (N, embed_dim)."""
    model = backbone.model.eval()
    class_features = encode_prompts(model, prompt_tokens(backbone, prompts).to(features.device))
    return (model.logit_scale.exp() * features @ class_features.T).float().cpu()


@torch.no_grad()
def picture_features(backbone: CLIPBackbone, data: ClassificationData) -> tuple[Tensor, Tensor]:
    """Normalised features (N, embed_dim) and labels (N,) of the test pictures, in order."""
    model = backbone.model.eval()
    device = next(model.parameters()).device
    way_in, workers = OnPicture(backbone.test_transform), loader_workers(backbone.scale)
    features, labels = [], []
    for pictures, batch_labels in batches_of(data.test, way_in, 128, workers):
        features.append(model.encode_image(pictures.to(device), normalize=True))
        labels.append(batch_labels)
    return torch.cat(features), torch.cat(labels)


def zero_shot(backbone: CLIPBackbone, data: ClassificationData) -> dict[str, float]:
    """Accuracy of the unadapted model with the data set's own prompt and with the generic one."""
    features, labels = picture_features(backbone, data)
    scores = {
        prompt: prompt_scores(backbone, features, data.prompts(prompt_template(data, prompt)))
        for prompt in PROMPTS
    }
    return {f"zero_shot_{prompt}": accuracy(found, labels) for prompt, found in scores.items()}


def prompt_template(data: ClassificationData, prompt: str) -> str:
    return data.template if prompt == "dataset" else data.generic_template


def zero_shot_of(record: Record) -> float:
    """The zero-shot accuracy under the prompt that a run was trained with."""
    return record.measures[f"zero_shot_{record.settings['prompt']}"]


class CLIPLab(Lab):
    """Few-shot classification; the amount is pictures per class."""

    name, unit, amount = "clip", "shots", 16
    configs = {"tiny": TINY, "paper": PAPER}
    help = {
        "scale": "tiny (emoji, CPU) or paper (ViT-B/16, GPU)",
        "dataset": "names separated by commas, 'all', or a folder with one folder per class",
        "amount": "pictures per class, separated by commas",
        "weights": "safetensors file with the model's weights",
    }
    report = Report(
        title="CLIP few-shot classification",
        result=lambda record: f"{record.measures['accuracy']:.1%}",
        columns={"accuracy": ("{:.1%}", itemgetter("accuracy"))},
        baselines={"zero-shot": lambda run: {"accuracy": zero_shot_of(run)}},
    )

    datasets = staticmethod(partial(dataset_names, "classification"))
    load_data = staticmethod(load_classification)

    @staticmethod
    def load_backbone(config: LabConfig, scale: str, weights: str | Path | None) -> CLIPBackbone:
        return load_clip(scale, config.model_name, weights, (config.crop, 1.0))

    @staticmethod
    def indices(data: ClassificationData, amount: int, seed: int) -> list[int]:
        return few_shot_split(data, amount, seed).indices

    def adapter_options(self) -> dict[str, Any]:
        return {"towers": self.config.towers}

    def objective(self) -> CLIPObjective:
        prompts = self.data.prompts(prompt_template(self.data, self.config.prompt))
        return CLIPObjective(self.backbone.model, prompt_tokens(self.backbone, prompts))

    def stream(self, indices: Sequence[int], seed: int) -> ExampleStream:
        return ExampleStream(
            self.train_pictures,
            indices,
            OnPicture(self.backbone.train_transform),
            seed,
            self.config.batch_size,
            self.config.steps(len(indices)),
        )

    def measure(self) -> tuple[dict[str, float], Tensor]:
        template = prompt_template(self.data, self.config.prompt)
        scores, labels = classify(self.backbone, self.data, template)
        return {"accuracy": accuracy(scores, labels)}, scores

    def outcomes(self, seen: Tensor) -> Outcomes:
        """Each test picture's scores, (N, classes)."""
        return {"scores": seen.numpy()}

    def measure_base(self) -> dict[str, float]:
        return zero_shot(self.backbone, self.data)

    def sizes(self, amount: int, seed: int) -> dict[str, int]:
        return {"short_classes": len(few_shot_split(self.data, amount, seed).short_classes)}


LAB = CLIPLab
