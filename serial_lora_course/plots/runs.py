"""What `--keep` keeps of a lab's runs, with pictures: masks before and after, or drawings on one sheet."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serial_lora.files import save_adapter, write_whole
from serial_lora.overrides import disabled
from serial_lora_course.files import refusals_told
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.methods import Method
from serial_lora_course.plots.drawings import Row, draw_rows
from serial_lora_course.plots.masks import plot_masks
from serial_lora_course.plots.style import SCREEN_DPI, save_figure

IN_A_ROW, ON_A_SHEET = 8, 40


def draw_masks(
    folder: Path, lab: Lab, method: Method, scores: Mapping[str, np.ndarray], name: str
) -> Path:
    """Write the best, the median and the worst test picture of a SAM's run, before and after adapting.

    Args:
        lab: with the adapter still in its model.
        scores: measure -> one for each test picture, in the data's order, of the adapted model.
    """
    from serial_lora_course.labs.sam import predict_masks  # loads segment-anything

    order = np.argsort(-scores["dice"], kind="stable")
    chosen = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    examples = {title: lab.data.test[index] for title, index in chosen.items()}
    answers: dict[str, list] = {"not adapted": [], method.label: []}
    for example in examples.values():
        answers[method.label].append(predict_masks(lab.backbone, example.picture, example.boxes)[0])
        with disabled(lab.backbone.model):
            before, _ = predict_masks(lab.backbone, example.picture, example.boxes)
        answers["not adapted"].append(before)
    return save_figure(plot_masks(examples, answers), folder / f"{name}.png")


def draw_sheet(folder: Path, lab: Lab, method: Method, drawn: np.ndarray, name: str) -> Path:
    """Write the first drawings of an SD3's run, each with its prompt.

    Args:
        drawn: uint8, (N, height, width, 3), for the prompts of the lab's trial.
    """
    captions = lab.trial.captions
    parts = [slice(i, i + IN_A_ROW) for i in range(0, min(len(drawn), ON_A_SHEET), IN_A_ROW)]
    figure = draw_rows([Row("", drawn[part], captions[part]) for part in parts])
    path = folder / f"{name}.png"
    return save_figure(figure, path, dpi=SCREEN_DPI)  # each pixel is a whole number of pixels


DRAWINGS = {"sam": draw_masks, "sd3": draw_sheet}


@refusals_told()
def keep_and_draw(folder: Path, lab: Lab, method: Method, seen: Any, name: str) -> None:
    """A `Draw`: the adapter, ``name.safetensors``, the outcomes, ``name.npz``, and a picture if there is one."""
    save_adapter(lab.backbone.model, folder / f"{name}.safetensors")
    stream = io.BytesIO()
    np.savez_compressed(stream, **lab.outcomes(seen))
    write_whole(folder / f"{name}.npz", stream.getvalue())
    if lab.name in DRAWINGS:
        DRAWINGS[lab.name](folder, lab, method, seen, name)
