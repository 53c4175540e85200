"""Fitting of the style classifier: logistic regression on drawings of things nobody else needs.

It learns from things that no adapter trains on and no evaluation prompt asks for. Generated
pictures are not as clean as a designer's, so it learns from worn copies too: bent, blurred, noisy,
and in colours that are slightly off.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torchvision.transforms import v2

from serial_lora_course.data.emoji import Concept, load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.style_sets import SIZE, TINY_STYLES, choose_things, render, things
from serial_lora_course.files import write_json
from serial_lora_course.models.style_classifier import BASE, NAME, STYLES, StyleClassifier, describe
from serial_lora_course.models.weights import tiny_file

C = 0.1  # inverse of the strength of the penalty on squared weights
WORN_ALIKE = 4  # pictures that are worn in one way; one by one would take four times as long


def pretrain(folder: Path) -> Path:
    """Fit the classifier, in seconds; the file that `StyleClassifier` reads, with its card."""
    rows, labels = examples()
    scaler = StandardScaler().fit(rows)
    model = LogisticRegression(C=C, max_iter=500).fit(scaler.transform(rows), labels)
    # (styles, numbers), of rows as they are; safetensors writes memory in the order it has
    weight = np.ascontiguousarray(model.coef_ / scaler.scale_)
    path = folder / f"{NAME}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {"weight": weight, "bias": model.intercept_ - weight @ scaler.mean_},
        path,
        metadata={"names": ",".join(model.classes_)},
    )
    card = json.loads(tiny_file(f"{NAME}.card.json").read_text("utf-8"))  # its words are the same
    card["measured"] |= held_out_shares(StyleClassifier(path))
    write_json(folder / f"{NAME}.card.json", card)
    return path


def examples() -> tuple[np.ndarray, np.ndarray]:
    """What the classifier learns from: descriptions, float32 (N, numbers), and the style of each."""
    pictures, labels = drawings(spare_things())
    order = np.random.default_rng(0).permutation(len(pictures))
    pictures, labels = pictures[order], labels[order]  # so that no style is worn in its own way
    return describe(torch.cat([pictures, worn(pictures, seed=0)])), np.tile(labels, 2)


def held_out_shares(classifier: StyleClassifier) -> dict[str, float]:
    """Style -> share of its drawings of the labs' held-out things that are put into it."""
    pictures, labels = drawings(choose_things()["test"])
    found = np.asarray(classifier.names)[classifier.probabilities(pictures).argmax(1).numpy()]
    return {name: round(float((found == name)[labels == name].mean()), 4) for name in STYLES}


def spare_things() -> tuple[Concept, ...]:
    """The things that no adapter trains on and no evaluation prompt asks for."""
    taken = hidden_codepoints() | {concept.codepoints for concept in choose_things()["train"]}
    return tuple(concept for concept in things() if concept.codepoints not in taken)


def drawings(concepts: tuple[Concept, ...]) -> tuple[Tensor, np.ndarray]:
    """Every concept in every style: pictures, uint8 (N, 3, SIZE, SIZE), and their styles."""
    pictures = []
    for name in STYLES:
        emoji = load_emoji(BASE if name == BASE else TINY_STYLES[name].drawn_by, SIZE)
        for index in (emoji.positions[concept.codepoints] for concept in concepts):
            drawing = emoji.pictures[index]
            pictures.append(emoji.picture(index) if name == BASE else render(name, drawing))
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).contiguous(), np.repeat(STYLES, len(concepts))


@torch.no_grad()
def worn(pictures: Tensor, seed: int) -> Tensor:
    """Pictures, uint8 (N, 3, height, width), as an imperfect model might draw them."""
    wear = v2.Compose(
        [
            v2.ElasticTransform(alpha=20.0, sigma=4.0),
            v2.RandomApply([v2.GaussianBlur(7, (0.3, 2.0))], 0.7),
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.5, hue=0.05),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.GaussianNoise(sigma=0.04)], 0.5),
            v2.ToDtype(torch.uint8, scale=True),
        ]
    )
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return torch.cat([wear(part) for part in pictures.split(WORN_ALIKE)])
