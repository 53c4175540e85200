"""The README's picture: what three small models answered before Serial LoRA, and after.

    python -m tools.first_picture        writes serial_lora_course/assets/before_after.png; minutes

Each model is adapted once, as its lab does. The picture shows test pictures on which that worked, not
typical ones: how much changes on average is in the lessons and in docs/study.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from serial_lora_course.data.registry import load_classification, load_segmentation
from serial_lora_course.door import enter
from serial_lora_course.labs.clip import CLIPLab, classify
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.sam import SamLab, predict_masks
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.sam import load_sam
from serial_lora_course.plots.masks import overlay
from serial_lora_course.plots.pictures import draw_bare
from serial_lora_course.plots.style import GREEN, VERMILION, house_style
from tools import ROOT
from tools.model_sheets import drawn_after, save_small, style_lab

TARGET = ROOT / "serial_lora_course" / "assets" / "before_after.png"
COLUMNS = 7
CAPTIONS = (
    "disappointed face",
    "neutral face",
    "house building",
    "bellhop bell",
    "clock face ten oclock",
    "paintbrush",
    "automobile",
)
SERIAL = get_method("serial_lora")


def named() -> list[tuple[Any, str, str]]:
    """Photographs: the picture, the class that CLIP named before, and the one named after."""
    backbone, data = load_clip(), load_classification("photographs")
    before, truth = classify(backbone, data, data.template)
    lab = CLIPLab(backbone, data)
    lab.base = {}  # which nobody asks for
    run_one(lab, SERIAL, 16, seed=1, keep_adapter=True)
    after, _ = classify(backbone, data, data.template)
    was, now, names = before.argmax(-1), after.argmax(-1), data.class_names
    print(f"CLIP: {(was == truth).sum()} of {len(truth)} right, then {(now == truth).sum()}")
    mended = [i for i in range(len(truth)) if was[i] != truth[i] == now[i]]
    of_each = sorted(
        mended, key=lambda i: [now[j] for j in mended[: mended.index(i)]].count(now[i])
    )
    return [(data.test[i][0], names[was[i]], names[now[i]]) for i in of_each[:COLUMNS]]


def cut_out() -> list[tuple[np.ndarray, np.ndarray]]:
    """Photographed things with SAM's masks, before and after: the largest gains in Dice."""
    lab = SamLab(load_sam(), load_segmentation("photographs"))
    lab.base = {}
    tests = [lab.data.test[index] for index in range(len(lab.data.test))]

    def look() -> tuple[list[np.ndarray], np.ndarray]:
        masks = [predict_masks(lab.backbone, each.picture, each.boxes)[0] for each in tests]
        return masks, lab.scores()["dice"]

    before, dice_before = look()
    run_one(lab, SERIAL, 100, seed=1, keep_adapter=True)
    after, dice_after = look()
    print(f"SAM: Dice {dice_before.mean():.2f}, then {dice_after.mean():.2f}")
    order = np.argsort(dice_before - dice_after)
    picked = [index for index in order if len(tests[index].masks) == 1][:COLUMNS]
    return [
        tuple(
            around(overlay(tests[i].picture, tests[i].masks, masks[i]), tests[i].boxes[0])
            for masks in (before, after)
        )
        for i in picked
    ]


def around(sheet: np.ndarray, box: Any) -> np.ndarray:
    """The square part of a picture round a box, with a margin."""
    x0, y0, x1, y1 = (float(edge) for edge in box)
    side = min(1.5 * max(x1 - x0, y1 - y0), *sheet.shape[:2])
    left = min(max((x0 + x1 - side) / 2, 0), sheet.shape[1] - side)
    top = min(max((y0 + y1 - side) / 2, 0), sheet.shape[0] - side)
    area = tuple(round(edge) for edge in (left, top, left + side, top + side))
    cut = Image.fromarray(sheet).crop(area)
    return np.asarray(cut.resize((160, 160), Image.Resampling.LANCZOS))


def drawn() -> list[tuple[np.ndarray, np.ndarray]]:
    """Drawings of the same prompts from the same noise, before and after tuning a style."""
    lab = style_lab()
    before, after = lab.draw(), drawn_after(lab, SERIAL.name)
    hers = [round(len(each) * lab.score(each)["style_share"]) for each in (before, after)]
    print(f"SD3: {hers[0]} of {len(before)} in the style, then {hers[1]}")
    order = [list(lab.trial.captions).index(caption) for caption in CAPTIONS]
    return [(before[index], after[index]) for index in order]


def draw() -> Figure:
    """Five rows: CLIP's pictures with both answers, SAM before and after, SD3 before and after."""
    answers, masks, drawings = named(), cut_out(), drawn()
    rows = {
        "CLIP": [picture for picture, *_ in answers],
        "SAM\nbefore": [before for before, _ in masks],
        "SAM\nafter": [after for _, after in masks],
        "SD3\nbefore": [before for before, _ in drawings],
        "SD3\nafter": [after for _, after in drawings],
    }
    with house_style():
        figure = Figure(figsize=(COLUMNS * 1.2 + 0.7, 6.9), layout="constrained")
        grid = figure.subplots(len(rows), COLUMNS)
        for line, (title, pictures) in zip(grid, rows.items(), strict=True):
            for axes, picture in zip(line, pictures, strict=True):
                draw_bare(axes, picture)
            line[0].set_ylabel(title, weight="bold", rotation=0, ha="right", va="center")
        for axes, (_, was, now) in zip(grid[0], answers, strict=True):
            said = [f"{when}:\n{name}" for when, name in (("before", was), ("after", now))]
            axes.set_title(said[0], fontsize=7, color=VERMILION, weight="normal", loc="center")
            axes.set_xlabel(said[1], fontsize=7, color=GREEN)
    return figure


def main(words: list[str]) -> None:
    """Draw it and write it."""
    save_small(draw(), TARGET, dpi=100)


if __name__ == "__main__":
    enter("tools.first_picture", main)
