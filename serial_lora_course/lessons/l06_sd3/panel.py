"""The panel of the lesson on Stable Diffusion 3: a prompt drawn without and with the adapter.

Both drawings start from the same noise, so whatever differs between them is the adapter's doing. The tiny
model draws in well under a second; at paper scale the panel waits for a button.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import ipywidgets
import numpy as np

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.sd3 import Sd3Lab, Sd3LabConfig
from serial_lora_course.labs.sd3_drawings import draw
from serial_lora_course.models.judges import Judge
from serial_lora_course.models.sd3 import Sd3Backbone
from serial_lora_course.plots.drawings import plot_drawings
from serial_lora_course.plots.panel import (
    STILL_SCALES,
    at_scale,
    movable,
    scale_slider,
    show,
    slider,
)
from serial_lora_course.plots.style import display_figure

STILL_GUIDANCES = (1.0, 3.0, 5.0, 7.0)
"""One row each of the still form."""
KEPT = 128  # drawings; 0.8 MB each at 512 pixels


def drawer(
    backbone: Sd3Backbone, config: Sd3LabConfig
) -> Callable[[str, int, float | None, float], np.ndarray]:
    """A function of prompt, seed, scale (None: no adapter) and guidance that remembers its drawings.

    It gives what :func:`serial_lora_course.labs.sd3_drawings.draw` gives, uint8 (side, side, 3). The adapter
    must not be trained further meanwhile.
    """

    @lru_cache(KEPT)
    def find(prompt: str, seed: int, scale: float | None, guidance: float) -> np.ndarray:
        with at_scale(backbone.model, scale):
            (picture,) = draw(
                backbone,
                [prompt],
                [seed],
                config.drawing_steps,
                guidance,
                config.resolution,
                precision=config.precision,
            )
        return picture

    return find


def drawing_panel(
    backbone: Sd3Backbone,
    prompts: Sequence[str],
    seed: int = 0,
    judge: Judge | None = None,
    config: Sd3LabConfig | None = None,
) -> ipywidgets.VBox | None:
    """Show what an adapter changes in a drawing, and what its scale and guidance do.

    Args:
        backbone: an SD3 with adapters in its transformer that are not merged; it stays as it is.
        prompts: to choose from; any other can be written in.
        seed: of the noise that drawings start from, at first.
        judge: for the CLIP-Score of every drawing, how well it fits its prompt; None for none.
        config: of the lab, for steps, resolution and the guidance to begin with; None for the scale's.

    Returns:
        The panel, already shown; None in the still form, a figure of the first prompt at a few scales and
        guidances.

    Raises:
        SerialLoRAError: no adapters, merged ones, or no prompts.
    """
    if not len(prompts):
        raise SerialLoRAError("there are no prompts to draw; pass at least one text.")
    scales = scale_slider(backbone.model)
    config = config or Sd3Lab.configs[backbone.scale]
    find = drawer(backbone, config)

    def scored(words: str, pictures: Sequence[np.ndarray], prompt: str) -> str:
        if judge is None:
            return words
        score = judge.clip_scores(np.stack(pictures), [prompt] * len(pictures)).mean()
        return f"{words}, CLIP-Score {float(score):.2f}"

    def draw_both(prompt: str, seed: int, scale: float, guidance: float) -> None:
        scale = round(scale, 2)
        names = {None: "without the adapter", scale: f"scale {scale:.2f}"}
        drawn = {words: find(prompt, seed, s, guidance) for s, words in names.items()}
        captions = [scored(words, [picture], prompt) for words, picture in drawn.items()]
        display_figure(plot_drawings({"": list(drawn.values())}, captions, prompt, 256))

    def panel() -> ipywidgets.VBox:
        style = {"description_width": "initial"}
        controls = {
            "prompt": ipywidgets.Combobox(
                value=prompts[0],
                options=list(prompts),
                description="prompt",
                continuous_update=False,
                style=style,
                layout={"width": "480px", "max_width": "100%"},
            ),
            "seed": ipywidgets.BoundedIntText(
                seed, min=0, max=2**31 - 1, description="seed", style=style
            ),
            "scale": scales,
            "guidance": slider(config.guidance, 1.0, 9.0, 0.5, "guidance (1: the prompt alone)"),
        }
        return movable(draw_both, controls, manual=backbone.scale != "tiny")

    def still() -> None:
        rows = {
            f"guidance {guidance:g}": [
                find(prompts[0], seed, scale, guidance) for scale in STILL_SCALES
            ]
            for guidance in STILL_GUIDANCES
        }
        columns = [
            scored(f"scale {scale:g}", column, prompts[0])
            for scale, column in zip(STILL_SCALES, zip(*rows.values(), strict=True), strict=True)
        ]
        display_figure(plot_drawings(rows, columns, f"{prompts[0]}, seed {seed}"))

    return show(panel, still)
