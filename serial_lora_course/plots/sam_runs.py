"""Pictures of the SAM lab's runs: masks before and after, on the pictures that tell most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from serial_lora.several import disabled
from serial_lora_course.data.types import SegmentationData
from serial_lora_course.files import refusals_told
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.sam import PictureScore, SamLab, predict_masks
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.plots.masks import OverlayRow, pick_best_median_worst, plot_overlays
from serial_lora_course.plots.style import save_figure

NOT_ADAPTED = "not adapted"


def overlay_rows(
    backbone: SamBackbone,
    data: SegmentationData,
    chosen: Mapping[str, int],
    label: str = "adapted",
) -> list[OverlayRow]:
    """Some test pictures before and after adapting.

    Args:
        backbone: with an adapter injected.
        chosen: what to call a row -> position of its picture among the test pictures.
        label: what to call the adapted model.
    """
    rows = []
    for title, index in chosen.items():
        example = data.test[index]
        adapted, _ = predict_masks(backbone, example.picture, example.boxes)
        with disabled(backbone.model):
            before, _ = predict_masks(backbone, example.picture, example.boxes)
        found = {NOT_ADAPTED: before, label: adapted}
        rows.append(OverlayRow(title, example.picture, found, example.masks, example.boxes))
    return rows


@refusals_told()
def draw_run(
    folder: Path, lab: SamLab, method: Method, scores: Sequence[PictureScore], name: str
) -> Path:
    """Write the best, the median and the worst test picture of a run, before and after adapting.

    Args:
        lab: with the adapter still in its model.
        scores: one for each test picture, in the data's order, of the adapted model.
    """
    chosen = pick_best_median_worst([score.dice for score in scores])
    rows = overlay_rows(lab.backbone, lab.data, chosen, method.label)
    return save_figure(plot_overlays(rows), folder / f"{name}.png")
