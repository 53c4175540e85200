"""The panel of lesson 06: drag a box over a picture, see the mask without and with the adapter.

Encoding a picture is almost all of SAM's work and does not depend on the box, so each picture is
encoded once per scale of the adapter, and only the small decoder answers a box that moves.

Where nobody can drag (see `serial_lora_course.frontend`) the same content stands still: a few boxes
at a few scales, and the mean Dice over all scales.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

import ipywidgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.precision import LOOKING, autocast
from serial_lora_course.labs.sam import (
    PreparedExample,
    decode,
    encode,
    original_size_logits,
    to_input_frame,
)
from serial_lora_course.lessons.l05_sam.figures import plot_dice_by_scale
from serial_lora_course.measures.metrics import dice
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.panels.adapted import (
    LARGEST_SCALE,
    STILL_SCALES,
    adapter_digest,
    at_scale,
    own_config,
    require_adapted,
    scale_slider,
)
from serial_lora_course.panels.box_picker import BoxPicker, png_bytes, shown_width
from serial_lora_course.panels.shown import Accessibility, show
from serial_lora_course.plots.masks import COLOURS, WORDS, OverlayRow, overlay, plot_overlays
from serial_lora_course.plots.style import display_figure

CURVE_SCALES = tuple(float(scale) for scale in np.linspace(0, LARGEST_SCALE, 7))
STILL_ROWS = 4
KEPT_EMBEDDINGS = 64  # 4 MiB each at paper scale

# ------------------------------------------------------------------------------ what is shown


def titles_of(examples: Sequence[SegmentationExample]) -> list[str]:
    """What the examples are called in the panel: a number from 1, and what they show.

    Raises:
        SerialLoRAError: there are none, or one is no example.
    """
    for item in examples:
        if not isinstance(item, SegmentationExample):
            raise SerialLoRAError(
                f"a {type(item).__name__} is no example; pass those of a segmentation set, such as "
                "data.test[0]."
            )
    if not len(examples):
        raise SerialLoRAError("there are no pictures to show; pass at least one.")
    return [f"{n}: {', '.join(dict.fromkeys(item.names))}" for n, item in enumerate(examples, 1)]


def object_in(example: SegmentationExample, box: Sequence[float]) -> int | None:
    """The object whose box overlaps most with this one (IoU); None when none does."""
    overlaps = box_iou(torch.tensor([box]), torch.as_tensor(example.boxes))[0]
    return int(overlaps.argmax()) if overlaps.max() > 0 else None


# --------------------------------------------------------------------- masks at every scale


class MasksAtScales:
    """Masks of a model without its adapters and at any scale of them; pictures encoded once each.

    Args:
        backbone: a SAM with adapters that are not merged. It may be trained further between two
            calls: pictures are encoded again then.

    Raises:
        SerialLoRAError: no backbone, no adapters, or merged ones.
    """

    def __init__(self, backbone: SamBackbone) -> None:
        require_adapted(backbone, SamBackbone)
        self.backbone = backbone
        self._embedding = lru_cache(KEPT_EMBEDDINGS)(self._encode)

    @property
    def method(self) -> str:
        """The adapter's method, ``serial_lora`` or ``lora``."""
        return own_config(self.backbone.model).method

    @torch.no_grad()
    def find(self, scene: SegmentationExample, boxes: Any, scale: float | None) -> np.ndarray:
        """What :func:`serial_lora_course.labs.sam.predict_masks` finds: bool (N, H, W).

        Args:
            boxes: float, (N, 4): x0, y0, x1, y1 at pixel edges of the picture.
            scale: of every adapter; None for the model without them.

        Raises:
            SerialLoRAError: the adapters were merged or taken out, or the picture is too narrow.
        """
        with at_scale(self.backbone.model, scale) as model:
            embedding = self._embedding(scene, scale, adapter_digest(model)).to(model.device)
            size = model.image_encoder.img_size
            pixels, scaled = to_input_frame(scene.picture, np.asarray(boxes, np.float32), size)
            prepared = PreparedExample(pixels, scaled, scene.masks, scene.picture.size[::-1])
            logits = decode(model, embedding, scaled.to(model.device))
            logits = original_size_logits(model, logits, prepared)
            return (logits > model.mask_threshold).cpu().numpy()

    def _encode(self, scene: SegmentationExample, scale: float | None, digest: bytes) -> Tensor:
        """The picture's embedding (1, channels, grid, grid), which `find` asks for just once."""
        model = self.backbone.model  # at this scale already
        size = model.image_encoder.img_size
        pixels, _ = to_input_frame(scene.picture, np.zeros((0, 4)), size)
        with autocast(model.device, LOOKING[self.backbone.scale]):
            return encode(model, model.preprocess(pixels.to(model.device))[None]).float()


# ---------------------------------------------------------------------------------- the panel


class MaskPanel(ipywidgets.VBox):
    """A picture with a box to drag, the masks before and after adaptation, the adapter's scale.

    Attributes:
        choice: which picture; `picker`: the picture and its box; `scale`: the slider.
        before, after: HTML, the overlays of the model without its adapter and at the scale.
        found: the two masks shown now, bool (H, W), as (before, after).
    """

    found: tuple[np.ndarray, np.ndarray]

    def __init__(self, backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> None:
        self._masks = MasksAtScales(backbone)
        self._scenes = examples
        self.choice = ipywidgets.Dropdown(
            options=[(title, number) for number, title in enumerate(titles_of(examples))],
            description="picture",
            layout={"max_width": "100%"},
        )
        narrow = {"margin": "0", "max_width": "100%"}
        self.picker = BoxPicker(label="drag a box", layout=narrow)
        # At paper scale a picture takes seconds for each new scale.
        self.scale = scale_slider(backbone.model, backbone.scale == "tiny")
        self.before, self.after = (ipywidgets.HTML(layout=narrow) for _ in range(2))
        row = {"flex_flow": "row wrap", "grid_gap": "4px 20px", "padding": "8px"}
        pictures = ipywidgets.Box([self.picker, self.before, self.after], layout=row)
        legend = ipywidgets.HTML(_legend_html())
        super().__init__([self.choice, pictures, self.scale, legend, Accessibility()])
        self._choose()
        self.choice.observe(self._choose, names="value")
        self.picker.observe(self._update, names="box")
        self.scale.observe(self._update, names="value")

    @property
    def scene(self) -> SegmentationExample:
        """The picture that is shown now."""
        return self._scenes[self.choice.value]

    def _choose(self, _: Any = None) -> None:
        self.picker.show(self.scene.picture, tuple(map(float, self.scene.boxes[0])))
        self._update()  # the box may be the one before

    def _update(self, _: Any = None) -> None:
        scene, box, scale = self.scene, self.picker.box, round(self.scale.value, 2)
        try:
            self.found = tuple(self._masks.find(scene, [box], s)[0] for s in (None, scale))
        except SerialLoRAError as error:  # such as an adapter that was taken out since
            self.before.value = self.after.value = ""
            self.picker.message = str(error)
            return
        meant = object_in(scene, box)
        truth = None if meant is None else scene.masks[meant]
        titles = ("before: no adapter", f"after: scale {scale:.2f}")
        pages = [
            _overlay_html(scene, truth, found, title)
            for found, title in zip(self.found, titles, strict=True)
        ]
        self.before.value, self.after.value = pages
        self.picker.message = _message(scene, meant, self.found)


def _message(scene: SegmentationExample, meant: int | None, found: Sequence[np.ndarray]) -> str:
    """What is measured, and what there is to notice, in words."""
    if meant is not None:
        sentence = f"Compared with the {scene.names[meant]}, which fits your box best."
    else:
        sentence = "No object of this picture is in your box, so there is no Dice."
    same = np.array_equal(*found)
    return f"{sentence} Both masks are identical." if same else sentence


def _overlay_html(
    scene: SegmentationExample, truth: np.ndarray | None, found: np.ndarray, title: str
) -> str:
    """One overlay with its title and its Dice, or the share of the picture without a truth."""
    if truth is None:
        sentence = f"found: {found.mean():.1%} of the picture"
    else:
        sentence = f"Dice {float(dice(found, truth)):.2f}"
    shown = Image.fromarray(overlay(scene.picture, truth, found))
    source = base64.b64encode(png_bytes(shown)).decode()
    width = shown_width(scene.picture.size)
    enlarged = " box-picker-enlarged" if scene.picture.width < width else ""
    ratio = "{} / {}".format(*scene.picture.size)
    return (
        f"<figure class='box-picker{enlarged}' style='width:{width}px'>"
        f"<div class='box-picker-title'>{escape(title)}</div>"
        f"<img class='box-picker-picture' style='aspect-ratio:{ratio}' decoding='sync' "
        f"alt='{escape(title)}, {sentence}' src='data:image/png;base64,{source}'>"
        f"<figcaption class='box-picker-message'>{sentence}</figcaption></figure>"
    )


def _legend_html() -> str:
    entries = [(COLOURS[kind], word) for kind, word in WORDS.items()]
    entries.append(("white", "outline of the truth"))
    swatches = (
        f"<span class='box-picker-swatch' style='background:{colour}'></span>{word}"
        for colour, word in entries
    )
    return f"<div class='box-picker'>{''.join(swatches)}</div>"


# ----------------------------------------------------------------------------- the still form


def dice_by_scale(
    masks: MasksAtScales, scenes: Sequence[SegmentationExample]
) -> dict[str, list[float]]:
    """Title of each picture to its mean Dice at each of `CURVE_SCALES`."""
    return {
        title: [
            float(dice(masks.find(scene, scene.boxes, scale), scene.masks).mean())
            for scale in CURVE_SCALES
        ]
        for title, scene in zip(titles_of(scenes), scenes, strict=True)
    }


def _show_still(masks: MasksAtScales, scenes: Sequence[SegmentationExample]) -> None:
    scores = dice_by_scale(masks, scenes)
    rows = [
        OverlayRow(
            title=scene.names[0],
            picture=scene.picture,
            found={
                f"scale {scale:g}": masks.find(scene, scene.boxes[:1], scale)[0]
                for scale in STILL_SCALES
            },
            truth=scene.masks[0],
            boxes=scene.boxes[0],
        )
        for scene in scenes[:STILL_ROWS]
    ]
    display_figure(plot_overlays(rows))
    display_figure(plot_dice_by_scale(scores, masks.method, CURVE_SCALES))


def mask_panel(backbone: SamBackbone, examples: Sequence[SegmentationExample]) -> MaskPanel | None:
    """Show what an adapter changes in the mask of any box, and what its scale does.

    Args:
        backbone: a SAM with adapters that are not merged; it stays as it is.
        examples: pictures to choose from, with their objects.

    Returns:
        The panel, already shown; None in the still form, figures of the first object of each of
        the first pictures and of the mean Dice over all.

    Raises:
        SerialLoRAError: no backbone, no adapters, merged ones, or no pictures.
    """
    return show(
        lambda: MaskPanel(backbone, examples),
        lambda: _show_still(MasksAtScales(backbone), examples),
    )
