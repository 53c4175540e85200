"""Sheets of what the tiny models answer, for docs/models.md: the first pictures of a fixed order, none left out.

    python -m tools.model_sheets         writes docs/models_clip.png, _sam.png and _sd3.png; some minutes

SD3's shows held-out prompts before it is tuned to OpenMoji and after, as its lab tunes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from serial_lora_course.data.emoji import EmojiSet, load_emoji
from serial_lora_course.data.emoji_sets import unseen_drawings
from serial_lora_course.data.registry import (
    load_classification,
    load_segmentation,
    load_style,
)
from serial_lora_course.data.subsets import hash_order
from serial_lora_course.door import enter
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.sam import predict_masks
from serial_lora_course.labs.sd3 import Sd3Lab, held_out
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.judges import load_judge
from serial_lora_course.models.sam import load_sam
from serial_lora_course.models.sd3 import load_sd3
from serial_lora_course.plots.drawings import Row, draw_rows
from serial_lora_course.plots.masks import plot_masks
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import GREEN, VERMILION, save_figure
from tools import ROOT

ANSWERED, CUT_OUT = 24, 4  # drawings, and as many photographs; scenes
DRAWN, IN_A_ROW = 48, 12  # prompts


@torch.no_grad()
def nearest(backbone, pictures: list[Image.Image], texts: list[str]) -> list[int]:
    """Of each picture, the position of the text that the model puts nearest to it."""
    model = backbone.model
    seen = torch.stack([backbone.test_transform(picture) for picture in pictures])
    image = model.encode_image(seen, normalize=True)
    text = model.encode_text(backbone.tokenizer(texts), normalize=True)
    return (image @ text.T).argmax(1).tolist()


def sheet_of_clip() -> Figure:
    """OpenMoji's drawings among all names that it hides, and photographs among their nine classes."""
    backbone, openmoji = load_clip(), load_emoji("openmoji")
    drawings, names = hidden_drawings(openmoji)
    photographs = load_classification("photographs")
    shown = [photographs.test[i] for i in first(photographs.test.picture_ids)]
    pictures = drawings + [picture for picture, _ in shown]
    classes = photographs.class_names
    chosen = nearest(backbone, drawings, [f"a drawing of {name}" for name in names])
    answers = [(names[place], names[i]) for i, place in enumerate(chosen)]
    prompts = [photographs.template.format(name) for name in classes]
    chosen = nearest(backbone, pictures[ANSWERED:], prompts)
    answers += [(classes[i], classes[label]) for i, (_, label) in zip(chosen, shown, strict=True)]
    figure = show_pictures(pictures, [answer[:18] for answer, _ in answers], size=1.1)
    for axes, (answer, truth) in zip(figure.axes, answers, strict=False):
        axes.title.set(fontsize=7, color=GREEN if answer == truth else VERMILION)
    right = sum(answer == truth for answer, truth in answers)
    figure.alt_text = (
        f"{len(answers)} pictures with the tiny CLIP's answers, {right} of them right."
    )
    return figure


def hidden_drawings(emoji: EmojiSet) -> tuple[list[Image.Image], list[str]]:
    """The first drawings of concepts that pretraining hid, and the names of all of these, theirs first."""
    hidden = sorted(unseen_drawings(emoji))
    order = hash_order([emoji.concepts[i].codepoints for i in hidden], 0, "sheet")
    chosen = [hidden[place] for place in order]
    names = [emoji.concepts[i].name.lower() for i in chosen]
    return [emoji.picture(i) for i in chosen[:ANSWERED]], names


def first(identities: list[str]) -> list[int]:
    """Positions of as many as are shown, in an order that nobody chose."""
    return hash_order(identities, 0, "sheet")[:ANSWERED]


def sheet_of_sam() -> Figure:
    """Photographs over photographs, and the masks in their boxes."""
    backbone, data = load_sam(), load_segmentation("photographs")
    order = hash_order(data.test.picture_ids, 0, "sheet")[:CUT_OUT]
    scenes = [data.test[i] for i in order]
    found = [predict_masks(backbone, each.picture, each.boxes)[0] for each in scenes]
    truth = [each.masks for each in scenes]
    rows = {" " * place: each for place, each in enumerate(scenes)}  # without titles
    return plot_masks(rows, {"cut out by hand": truth, "by the tiny SAM": found})


def style_lab() -> Sd3Lab:
    """The lab of OpenMoji's style, without what it measures of the base."""
    lab = Sd3Lab(load_sd3(), load_style("openmoji"), judge=load_judge())
    lab.base = {}
    return lab


def drawn_after(lab: Sd3Lab, name: str) -> np.ndarray:
    """What one run of a method draws for the lab's prompts, uint8 (N, side, side, 3)."""
    kept = []
    run_one(lab, get_method(name), 100, seed=1, draw=lambda _, __, drawn, ___: kept.append(drawn))
    return kept[0]


def sheet_of_sd3() -> Figure:
    """The first held-out prompts of `openmoji`: SD3's drawings, those of two tuned ones, OpenMoji's own."""
    lab = style_lab()
    prompts = lab.trial.captions
    chosen = sorted(hash_order(prompts, 0, "sheet")[:DRAWN])
    sheets = {"before": lab.draw()}
    for name in ("serial_lora", "lora"):
        sheets[get_method(name).label] = drawn_after(lab, name)
    sheets["OpenMoji's"] = [example.picture for example in held_out(lab.data)]
    rows = []
    for start in range(0, DRAWN, IN_A_ROW):
        some = chosen[start : start + IN_A_ROW]
        captions = [prompts[i] for i in some]
        for name, drawn in sheets.items():
            rows.append(Row(name, [drawn[i] for i in some], captions if name == "before" else ()))
    return draw_rows(rows)


def save_small(figure: Figure, path: Path, dpi: int) -> Path:
    """Write a figure in 256 colours, a third of the bytes."""
    save_figure(figure, path, dpi=dpi)
    Image.open(path).convert("RGB").quantize(256, kmeans=3).save(path, optimize=True)
    return path


def main(words: list[str]) -> None:
    for name, figure in (
        ("clip", sheet_of_clip()),
        ("sam", sheet_of_sam()),
        ("sd3", sheet_of_sd3()),
    ):
        print(save_small(figure, ROOT / "docs" / f"models_{name}.png", dpi=110))


if __name__ == "__main__":
    enter("tools.model_sheets", main)
