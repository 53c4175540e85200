"""Fitting of the style classifier: logistic regression on drawings of things nobody else needs.

It learns from things that no adapter trains on and no evaluation prompt asks for. Generated
pictures are not as clean as a designer's, so it learns from worn copies too: bent, blurred, noisy,
and in colours that are slightly off. And it learns what is in no style, from drawings that are spoiled:
their tiles in another order, black bars across them, or a Twemoji drawing in another style's colours.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torchvision.transforms import v2

from serial_lora_course.data.emoji import Concept, load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.style_sets import SIZE, TINY_STYLES, choose_things, render, things
from serial_lora_course.files import write_json
from serial_lora_course.measures.deceptions import in_colours_of, in_tiles, under_bars
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.pictures import as_pictures
from serial_lora_course.models.style_classifier import (
    BASE,
    NAME,
    NO_STYLE,
    STYLES,
    StyleClassifier,
    describe,
)
from serial_lora_course.models.weights import tiny_file

C = 0.03  # inverse of the strength of the penalty on squared weights
WORN_ALIKE = 4  # pictures that are worn in one way; one by one would take four times as long


def pretrain(folder: Path) -> Path:
    """Fit the classifier, in two minutes; the file that `StyleClassifier` reads, with its card."""
    clip = load_clip("tiny")
    pictures, labels = examples()
    rows = describe(as_pictures(pictures), clip)
    scaler = StandardScaler().fit(rows)
    model = LogisticRegression(C=C, max_iter=500, class_weight="balanced")
    model.fit(scaler.transform(rows), labels)
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
    card["parameters"] = weight.size + len(weight)
    classifier = StyleClassifier(path, clip)
    card["measured"] |= held_out_shares(classifier)
    card["deceived"] |= deceived_shares(classifier)
    write_json(folder / f"{NAME}.card.json", card)
    return path


def examples() -> tuple[np.ndarray, np.ndarray]:
    """What the classifier learns from: pictures (N, SIZE, SIZE, 3), and the style of each."""
    pictures, labels = drawings(spare_things())
    rng = np.random.default_rng(0)
    order = rng.permutation(len(pictures))
    pictures, labels = pictures[order], labels[order]  # so that no style is worn in its own way
    wrong = [in_tiles(pictures[::2], 2, rng), in_tiles(pictures[1::2], 8, rng)]
    wrong += [under_bars(pictures[::4], 2, 8, rng), under_bars(pictures[1::4], 5, 14, rng)]
    for part, style in enumerate(TINY_STYLES):
        some = pictures[labels == BASE][part :: len(TINY_STYLES)]
        wrong.append(in_colours_of(some, pictures[labels == style], rng))
    wrong = np.concatenate(wrong)
    everything = np.concatenate([pictures, worn(pictures, seed=0), wrong])
    return everything, np.concatenate([labels, labels, np.repeat(NO_STYLE, len(wrong))])


def held_out_shares(classifier: StyleClassifier) -> dict[str, float]:
    """Style -> share of its drawings of the labs' held-out things that are put into it."""
    pictures, labels = drawings(choose_things()["test"])
    right = classifier.style_of(pictures) == labels
    return {name: round(float(right[labels == name].mean()), 4) for name in STYLES}


def deceived_shares(classifier: StyleClassifier) -> dict[str, dict[str, float]]:
    """Deception -> style -> share that falls for it, of the held-out things.

    Tiles and bars are of other sizes than those that the classifier learnt from.
    """
    pictures, labels = drawings(choose_things()["test"])
    rng, base = np.random.default_rng(1), pictures[labels == BASE]
    wrong = {
        "4 x 4 tiles": {style: in_tiles(pictures[labels == style], 4, rng) for style in STYLES},
        "bars of 3": {style: under_bars(pictures[labels == style], 3, 9, rng) for style in STYLES},
        "Twemoji in its colours": {
            style: in_colours_of(base, pictures[labels == style], rng) for style in TINY_STYLES
        },
    }
    return {
        deception: {
            style: round(float((classifier.style_of(given) == style).mean()), 4)
            for style, given in of.items()
        }
        for deception, of in wrong.items()
    }


def spare_things() -> tuple[Concept, ...]:
    """The things that no adapter trains on and no evaluation prompt asks for."""
    taken = hidden_codepoints() | {concept.codepoints for concept in choose_things()["train"]}
    return tuple(concept for concept in things() if concept.codepoints not in taken)


def drawings(concepts: tuple[Concept, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every concept in every style: pictures, uint8 (N, SIZE, SIZE, 3), and their styles."""
    pictures = []
    for name in STYLES:
        emoji = load_emoji(BASE if name == BASE else TINY_STYLES[name].drawn_by, SIZE)
        for index in (emoji.positions[concept.codepoints] for concept in concepts):
            drawing = emoji.pictures[index]
            pictures.append(emoji.picture(index) if name == BASE else render(name, drawing))
    return np.stack([np.asarray(each) for each in pictures]), np.repeat(STYLES, len(concepts))


@torch.no_grad()
def worn(pictures: np.ndarray, seed: int) -> np.ndarray:
    """Pictures, uint8 (N, height, width, 3), as an imperfect model might draw them."""
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
    parts = torch.from_numpy(pictures).permute(0, 3, 1, 2).split(WORN_ALIKE)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return torch.cat([wear(part) for part in parts]).permute(0, 2, 3, 1).numpy()
