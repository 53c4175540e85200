"""Pictures of the SAM lab's runs: masks before and after, on the pictures that tell most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from serial_lora.several import disabled
from serial_lora_course.files import refusals_told
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.sam import SamLab, predict_masks
from serial_lora_course.plots.masks import OverlayRow, pick_best_median_worst, plot_overlays
from serial_lora_course.plots.style import save_figure


@refusals_told()
def draw_run(
    folder: Path, lab: SamLab, method: Method, scores: Mapping[str, np.ndarray], name: str
) -> Path:
    """Write the best, the median and the worst test picture of a run, before and after adapting.

    Args:
        lab: with the adapter still in its model.
        scores: measure -> one for each test picture, in the data's order, of the adapted model.
    """
    backbone, rows = lab.backbone, []
    for title, index in pick_best_median_worst(scores["dice"]).items():
        example = lab.data.test[index]
        adapted, _ = predict_masks(backbone, example.picture, example.boxes)
        with disabled(backbone.model):
            before, _ = predict_masks(backbone, example.picture, example.boxes)
        found = {"not adapted": before, method.label: adapted}
        rows.append(OverlayRow(title, example.picture, found, example.masks, example.boxes))
    return save_figure(plot_overlays(rows), folder / f"{name}.png")
