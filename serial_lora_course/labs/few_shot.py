"""What lesson 04 measures, and what its exercises ask for, for whoever skips one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs.clip import CLIPObjective, picture_features, prompt_scores
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.clip import CLIPBackbone

# ------------------------------------------------------------------------ what the exercises ask for


def similarity_scores(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled cosines (B, C) of pictures (B, D) with class prompts (C, D), of any length."""
    return logit_scale.exp() * torch.cosine_similarity(
        image_features[:, None], text_features[None], dim=-1
    )


def zero_shot_accuracy(image_features: Tensor, class_features: Tensor, labels: Tensor) -> float:
    """Share of the pictures (N, D) whose nearest class (C, D) is the right one."""
    return accuracy(image_features @ class_features.T, labels)


def few_shot_loss(clip: nn.Module, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """Mean cross-entropy of pictures (B, 3, H, W) against all class prompts (C, context length)."""
    return CLIPObjective(clip, prompts)((pictures, labels))


def cut_prompts(tokens: Tensor) -> Tensor:
    """Token ids (C, length) without the columns behind the longest prompt's end-of-text token."""
    return tokens[:, : int(tokens.max(dim=-1).indices.max()) + 1]


def lora_rank_within(budget: int, towers: Sequence[tuple[int, int]]) -> int:
    """The largest rank of LoRA on q, k, v and out of all towers (width, depth) within a budget."""
    return budget // (8 * sum(width * depth for width, depth in towers))


# ------------------------------------------------------------------------------ what it measures


def prompt_accuracies(
    backbone: CLIPBackbone, data: ClassificationData, templates: Sequence[str]
) -> dict[str, float]:
    """Zero-shot accuracy on a data set's test pictures with each prompt, and what helps to judge it."""
    images, labels = picture_features(backbone, data)  # (N, D), (N,)
    row = {
        "classes": len(data.class_names),
        "test pictures": len(labels),
        "by chance": 1 / len(data.class_names),
        "largest class": labels.bincount().max().item() / len(labels),
    }
    for template in templates:
        row[template] = accuracy(prompt_scores(backbone, images, data.prompts(template)), labels)
    return row
