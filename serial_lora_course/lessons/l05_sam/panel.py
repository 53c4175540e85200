"""The panel of the lesson on SAM: drag a box over a picture, see the mask before and after adapting."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.sam import predict_masks
from serial_lora_course.lessons.l05_sam.box_picker import BoxPicker, png_bytes
from serial_lora_course.measures.metrics import dice
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.plots.masks import COLOURS, WORDS, OverlayRow, overlay, plot_overlays
from serial_lora_course.plots.panel import (
    STILL_SCALES,
    Accessibility,
    at_scale,
    scale_slider,
    show,
)
from serial_lora_course.plots.style import display_figure

STILL_ROWS = 4


def masks_at(
    backbone: SamBackbone, example: SegmentationExample, boxes: Any, scale: float | None
) -> np.ndarray:
    """Masks of a picture's boxes (N, 4) at a scale of the adapter, None without it: bool (N, H, W)."""
    with at_scale(backbone.model, scale):
        return predict_masks(backbone, example.picture, np.asarray(boxes, np.float32))[0]


def object_in(example: SegmentationExample, box: Sequence[float]) -> int | None:
    """The object whose box overlaps most with this one (IoU); None when none does."""
    boxes = torch.as_tensor(example.boxes).float()
    overlaps = box_iou(torch.tensor([box], dtype=torch.float32), boxes)[0]
    return int(overlaps.argmax()) if overlaps.max() > 0 else None


class MaskPanel(ipywidgets.VBox):
    """A picture with a box to drag, the masks before and after adapting, and the adapter's scale.

    Attributes:
        choice: which picture; picker: the picture and its box; across, down: sliders for the box's edges;
            scale: the slider of the adapter's scale.
        before, after: HTML, the overlays without the adapter and at the scale.
    """

    def __init__(self, backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> None:
        self._backbone, self._examples = backbone, examples
        titles = [f"{n}: {', '.join(example.names)}" for n, example in enumerate(examples, 1)]
        self.choice = ipywidgets.Dropdown(
            options=[(title, number) for number, title in enumerate(titles)], description="picture"
        )
        self.picker = BoxPicker()
        wide = {"style": {"description_width": "initial"}, "layout": {"width": "480px"}}
        self.across, self.down = (
            ipywidgets.IntRangeSlider(description=words, continuous_update=False, **wide)
            for words in ("box, left to right", "box, top to bottom")
        )
        self.scale = scale_slider(backbone.model)
        self.before, self.after = ipywidgets.HTML(), ipywidgets.HTML()
        row = {"flex_flow": "row wrap", "grid_gap": "4px 20px"}
        pictures = ipywidgets.Box([self.picker, self.before, self.after], layout=row)
        controls = [self.across, self.down, self.scale]
        legend = ipywidgets.HTML(_legend())
        super().__init__([self.choice, pictures, legend, *controls, Accessibility()])
        self._change()
        self.choice.observe(self._change, names="value")
        self.picker.observe(self._show, names="box")
        self.scale.observe(self._show, names="value")
        for edges in (self.across, self.down):
            edges.observe(self._move, names="value")

    @property
    def example(self) -> SegmentationExample:
        """The picture that is shown now, with its objects."""
        return self._examples[self.choice.value]

    def _change(self, _: Any = None) -> None:
        example = self.example
        self.across.max, self.down.max = example.picture.size
        self.picker.change(example.picture, [round(float(edge)) for edge in example.boxes[0]])
        self._show()

    def _move(self, _: Any) -> None:
        (x0, x1), (y0, y1) = self.across.value, self.down.value
        if x0 < x1 and y0 < y1:
            self.picker.box = [x0, y0, x1, y1]

    def _show(self, _: Any = None) -> None:
        example, box, scale = self.example, self.picker.box, round(self.scale.value, 2)
        self.across.value, self.down.value = (box[0], box[2]), (box[1], box[3])
        meant = object_in(example, box)
        for html, title, chosen in (
            (self.before, "before: no adapter", None),
            (self.after, f"after: scale {scale:.2f}", scale),
        ):
            (found,) = masks_at(self._backbone, example, [box], chosen)
            html.value = _overlay(example, meant, found, title)


def _overlay(example: SegmentationExample, meant: int | None, found: np.ndarray, title: str) -> str:
    """A mask over its picture, with the Dice of the object that the box is for."""
    truth = None if meant is None else example.masks[meant]
    shown = png_bytes(Image.fromarray(overlay(example.picture, truth, found)))
    words = "no object here" if truth is None else f"Dice {float(dice(found, truth)):.2f}"
    if truth is not None:
        words = f"{example.names[meant]}: {words}"
    width = round(256 * found.shape[1] / max(found.shape))
    source = base64.b64encode(shown).decode()
    return (
        f"<b>{title}</b><br><img alt='{title}, {words}' width='{width}' "
        f"style='image-rendering: pixelated' src='data:image/png;base64,{source}'><br>{words}"
    )


def _legend() -> str:
    entries = [(COLOURS[kind], word) for kind, word in WORDS.items()]
    swatch = "<span style='display:inline-block;width:1em;background:{}'>&nbsp;</span> {}"
    return " &nbsp; ".join(swatch.format(*entry) for entry in [*entries, ("white", "outline")])


def mask_panel(backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> MaskPanel | None:
    """Show what an adapter changes in the mask of any box, and what its scale does.

    Args:
        backbone: a SAM with adapters that are not merged; it stays as it is.
        examples: pictures to choose from, with their objects.

    Returns:
        The panel, already shown; None in the still form, a figure of the first object of each of the first
        pictures at a few scales.

    Raises:
        SerialLoRAError: no adapters, merged ones, or no pictures.
    """
    if not len(examples):
        raise SerialLoRAError("there are no pictures to show; pass at least one.")
    scale_slider(backbone.model)  # refuses a model without adapters

    def still() -> None:
        rows = [
            OverlayRow(
                title=example.names[0],
                picture=example.picture,
                found={
                    f"scale {scale:g}": masks_at(backbone, example, example.boxes[:1], scale)[0]
                    for scale in STILL_SCALES
                },
                truth=example.masks[0],
                boxes=example.boxes[0],
            )
            for example in examples[:STILL_ROWS]
        ]
        display_figure(plot_overlays(rows))

    return show(lambda: MaskPanel(backbone, examples), still)
