"""The panel of the lesson on SAM: drag a box over a picture, see the mask before and after adapting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ipywidgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.device import LOOKING, autocast
from serial_lora_course.labs.sam import decode_each, encode, original_size_logits
from serial_lora_course.labs.sam_inputs import PreparedExample, to_input_frame
from serial_lora_course.lessons.l05_sam.mask_picker import MaskPicker, png_bytes
from serial_lora_course.measures.metrics import dice
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.plots.masks import COLOURS, WORDS, overlay, plot_masks
from serial_lora_course.plots.panel import Accessibility, at_scale, scale_slider, show
from serial_lora_course.plots.style import display_figure


@torch.no_grad()
def embedding_at(
    backbone: SamBackbone, example: SegmentationExample, scale: float | None
) -> Tensor:
    """A picture's embedding (1, c, grid, grid) at a scale of the adapter, None without it."""
    with at_scale(backbone.model, scale) as model, autocast(model.device, LOOKING[backbone.scale]):
        picture, _ = to_input_frame(example.picture, example.boxes, model.image_encoder.img_size)
        return encode(model, model.preprocess(picture.to(model.device))[None]).float()


@torch.no_grad()
def masks_in(
    backbone: SamBackbone, example: SegmentationExample, embedding: Tensor, boxes: Any
) -> np.ndarray:
    """The masks (N, H, W), bool, in boxes (N, 4) of the picture: the quick part of SAM."""
    model = backbone.model
    picture, boxes = to_input_frame(example.picture, boxes, model.image_encoder.img_size)
    ready = PreparedExample(picture, boxes, torch.empty(0), example.picture.size[::-1])
    (logits,) = decode_each(model, embedding, [boxes.to(model.device)])
    return (original_size_logits(model, logits, ready) > model.mask_threshold).cpu().numpy()


def object_in(example: SegmentationExample, box: Sequence[float]) -> int | None:
    """The object whose box overlaps most with this one (IoU); None when none does."""
    boxes = torch.as_tensor(example.boxes).float()
    overlaps = box_iou(torch.tensor([box], dtype=torch.float32), boxes)[0]
    return int(overlaps.argmax()) if overlaps.max() > 0 else None


@dataclass(frozen=True)
class Tried:
    """A box over a picture, and the mask of what it means."""

    picture: Image.Image
    boxes: np.ndarray  # (1, 4)
    masks: np.ndarray  # bool, (1, H, W); empty for a box beside the things


def boxes_to_try(example: SegmentationExample) -> dict[str, Tried]:
    """Boxes that nobody drew for training: the whole picture, half of a thing, and one beside the things, if there is room."""
    (width, height), (x0, y0, x1, y1) = example.picture.size, example.boxes[0]
    boxes = {
        "the whole picture": (0, 0, width, height),
        "half of the thing": (x0, y0, (x0 + x1) / 2, y1),
    }
    wide, tall = 0.4 * width, 0.5 * height
    corners = [(x, y, x + wide, y + tall) for y in (0, height - tall) for x in (0, width - wide)]
    free = [corner for corner in corners if object_in(example, corner) is None]
    tried = {name: (box, example.masks[:1]) for name, box in boxes.items()}
    if free:
        tried["beside the things"] = free[0], np.zeros_like(example.masks[:1])
    return {
        name: Tried(example.picture, np.array([box], np.float32), truth)
        for name, (box, truth) in tried.items()
    }


class MaskPanel(ipywidgets.VBox):
    """A picture with a box to drag, the masks before and after adapting, and the adapter's scale.

    Every picture is encoded once at a scale; each box is only decoded, so masks follow the pointer.

    Attributes:
        choice: which picture; picker: the pictures and the box; across, down: sliders for the box's edges;
            scale: the slider of the adapter's scale.
    """

    def __init__(self, backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> None:
        self._backbone, self._examples = backbone, examples
        titles = [f"{n}: {', '.join(example.names)}" for n, example in enumerate(examples, 1)]
        options = [(title, number) for number, title in enumerate(titles)]
        self.choice = ipywidgets.Dropdown(options=options, description="picture")
        self.picker, self.scale = MaskPicker(), scale_slider(backbone.model)
        self.across, self.down = ipywidgets.IntRangeSlider(), ipywidgets.IntRangeSlider()
        self._embedding = lru_cache(32)(
            lambda number, scale: embedding_at(backbone, examples[number], scale)
        )
        sliders = {
            "box, left and right": self.across,
            "box, top and bottom": self.down,
            "scale of the adapter": self.scale,
        }
        for words, slider in sliders.items():
            slider.description, slider.continuous_update = words, False
            slider.style.description_width = "170px"
            slider.layout.width, slider.layout.max_width = "560px", "100%"
        legend = ipywidgets.HTML(_legend())
        super().__init__([self.choice, self.picker, legend, *sliders.values(), Accessibility()])
        self._change()
        self.choice.observe(self._change, names="value")
        self.picker.observe(self._show, names="box")
        self.scale.observe(self._show, names="value")
        for edges in (self.across, self.down):
            edges.observe(self._move, names="value")

    def _change(self, _: Any = None) -> None:
        example = self._examples[self.choice.value]
        self.across.max, self.down.max = example.picture.size
        self.picker.change(example.picture, [round(float(edge)) for edge in example.boxes[0]])
        self._show()

    def _move(self, _: Any) -> None:
        (x0, x1), (y0, y1) = self.across.value, self.down.value
        if x0 < x1 and y0 < y1:
            self.picker.box = [x0, y0, x1, y1]

    def _show(self, _: Any = None) -> None:
        example, box = self._examples[self.choice.value], self.picker.box
        scale, meant = round(self.scale.value, 2), object_in(example, box)
        self.across.value, self.down.value = (box[0], box[2]), (box[1], box[3])
        nothing = np.zeros_like(example.masks[0])  # all that is found in such a box is false
        truth = nothing if meant is None else example.masks[meant]
        sheets, captions = [], ["no object in the box" if meant is None else example.names[meant]]
        for chosen in (None, scale):
            embedding = self._embedding(self.choice.value, chosen)
            (found,) = masks_in(self._backbone, example, embedding, [box])
            sheets.append(png_bytes(overlay(example.picture, truth, found)))
            captions.append("" if meant is None else f"Dice {float(dice(found, truth)):.2f}")
        with self.picker.hold_sync():
            self.picker.before, self.picker.after = sheets
            self.picker.captions = captions
            self.picker.titles = ["drag a box here", "before", f"after, at scale {scale:g}"]


def _legend() -> str:
    look = "display:inline-block;width:1em;height:1em;vertical-align:-2px;border:1px solid #8a94a3"
    entries = [(COLOURS[kind], word) for kind, word in WORDS.items()]
    return " &nbsp; ".join(
        f"<span style='{look};background:{colour}'></span> {word}"
        for colour, word in [*entries, ("white", "outline of the truth")]
    )


def mask_panel(backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> MaskPanel | None:
    """Show what an adapter changes in the mask of any box, and what its scale does.

    Args:
        backbone: a SAM with adapters that are not merged; it stays as it is.
        examples: pictures to choose from, with their objects.

    Returns:
        The panel, already shown; None in the still form, a figure of three boxes over the first picture.

    Raises:
        SerialLoRAError: no adapters, merged ones, or no pictures.
    """
    if not len(examples):
        raise SerialLoRAError("there are no pictures to show; pass at least one.")
    scale = scale_slider(backbone.model).value  # refuses a model without adapters

    def still() -> None:
        tried, answers = boxes_to_try(examples[0]), {}
        for name, at in (("before", None), ("after", scale)):
            embedding = embedding_at(backbone, examples[0], at)
            boxes = [each.boxes for each in tried.values()]
            answers[name] = [masks_in(backbone, examples[0], embedding, box) for box in boxes]
        display_figure(plot_masks(tried, answers))

    return show(lambda: MaskPanel(backbone, examples), still)
