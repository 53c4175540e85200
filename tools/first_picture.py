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
from serial_lora_course.measures.metrics import dice
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.sam import load_sam
from serial_lora_course.plots.pictures import draw_bare
from serial_lora_course.plots.style import GREEN, VERMILION, house_style
from tools import ROOT
from tools.model_sheets import drawn_after, save_small, style_lab

TARGET = ROOT / "serial_lora_course" / "assets" / "before_after.png"
COLUMNS = 7
ENDS_WELL = 0.8  # Dice of a thing that is shown
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


def cut_out() -> list[tuple[np.ndarray, ...]]:
    """A photographed thing, cut out by SAM before and after: the largest gains that end well."""
    lab = SamLab(load_sam(), load_segmentation("photographs"))
    lab.base = {}
    tests = [lab.data.test[index] for index in range(len(lab.data.test))]

    def look() -> list[np.ndarray]:
        print(f"SAM: Dice {lab.scores()['dice'].mean():.2f}")
        return [predict_masks(lab.backbone, each.picture, each.boxes)[0] for each in tests]

    before = look()
    run_one(lab, SERIAL, 100, seed=1, keep_adapter=True)
    after = look()
    things = []
    for test, *found in zip(tests, before, after, strict=True):
        for box, truth, *masks in zip(test.boxes, test.masks, *found, strict=True):
            was, now = (dice(mask, truth).item() for mask in masks)
            if now > ENDS_WELL:
                everywhere = np.ones_like(masks[0])
                seen = [around(test.picture, mask, box) for mask in (everywhere, *masks)]
                things.append((now - was, seen))
    things.sort(key=lambda thing: -thing[0])
    return [tuple(seen) for _, seen in things[:COLUMNS]]


def around(picture: Image.Image, mask: Any, box: Any) -> np.ndarray:
    """The square part of a picture round a box, with a margin, on white outside of a mask."""
    sheet = np.where(np.asarray(mask, bool)[..., None], np.asarray(picture), 255).astype(np.uint8)
    x0, y0, x1, y1 = (float(edge) for edge in box)
    side = min(1.35 * max(x1 - x0, y1 - y0), *sheet.shape[:2])
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
    """CLIP's pictures with both answers, photographs and what SAM cut out of them, SD3's drawings."""
    answers, things, drawings = named(), cut_out(), drawn()
    rows = {
        "CLIP": [picture for picture, *_ in answers],
        **dict(zip(("SAM", "before", "after"), zip(*things, strict=True), strict=True)),
        "SD3\nbefore": [before for before, _ in drawings],
        "SD3\nafter": [after for _, after in drawings],
    }
    with house_style():
        figure = Figure(figsize=(COLUMNS * 1.2 + 0.7, 8.0), layout="constrained")
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
