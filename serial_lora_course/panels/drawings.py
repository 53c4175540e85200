"""The panel of lesson 07: a prompt drawn without and with the adapter, at any scale and guidance.

Both drawings start from the same noise, so whatever differs between them is the adapter's doing.
The tiny model draws in well under a second, and its panel draws again whenever a control changes;
at paper scale it waits for a button. What was drawn once is kept, and text is read once per prompt.

Where nobody can move a slider (see `serial_lora_course.frontend`) the same content stands still:
one prompt at a few scales and guidances.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import pandas as pd
import traitlets

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.sd3 import Sd3Lab, Sd3LabConfig
from serial_lora_course.labs.sd3_drawings import draw
from serial_lora_course.labs.sd3_inputs import Prompts, read_prompts
from serial_lora_course.models.judges import Judge
from serial_lora_course.models.sd3 import Sd3Backbone
from serial_lora_course.panels.adapted import (
    STILL_SCALES,
    adapter_digest,
    at_scale,
    require_adapted,
    scale_slider,
)
from serial_lora_course.panels.shown import ASSETS, Accessibility, show
from serial_lora_course.plots.drawings import plot_drawings
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

SHOWN = 256
"""Screen pixels of a drawing's side in the panel."""
LARGEST_GUIDANCE = 9.0
STILL_GUIDANCES = (1.0, 3.0, 5.0, 7.0)
"""Where the slider of the still form stands, one row each."""
KEPT_DRAWINGS = 128  # 0.8 MB each at 512 pixels
KEPT_PROMPTS = 32  # 2.5 MB each at paper scale

# ------------------------------------------------------------------------ drawings at every scale


class DrawingsAtScales:
    """Drawings of a model without its adapters and at any scale of them, each made once.

    Args:
        backbone: an SD3 with adapters in its transformer that are not merged. It may be trained
            further between two calls: everything is drawn anew then.
        config: of the lab, for steps and resolution; None for the scale's own.

    Raises:
        SerialLoRAError: no backbone, no adapters, or merged ones.
    """

    def __init__(self, backbone: Sd3Backbone, config: Sd3LabConfig | None = None) -> None:
        require_adapted(backbone, Sd3Backbone)
        self.backbone = backbone
        self.config = config or Sd3Lab.configs[backbone.scale]
        self._read = lru_cache(KEPT_PROMPTS)(self._read_prompt)
        self._drawn = lru_cache(KEPT_DRAWINGS)(self._draw)

    def find(self, prompt: str, seed: int, scale: float | None, guidance: float) -> np.ndarray:
        """What :func:`serial_lora_course.labs.sd3_drawings.draw` draws: uint8 (side, side, 3), read-only.

        Args:
            seed: of the noise that the drawing starts from.
            scale: of every adapter; None for the model without them.

        Raises:
            SerialLoRAError: the adapters were merged or taken out.
        """
        with at_scale(self.backbone.model, scale) as model:
            return self._drawn(prompt, seed, scale, guidance, adapter_digest(model))

    def most_tokens(self, prompt: str) -> int | None:
        """How many tokens of the prompt are read, if it has more; else None."""
        tokenizer = self.backbone.pipeline.tokenizer
        most = tokenizer.model_max_length
        return most if len(tokenizer(prompt, verbose=False).input_ids) > most else None

    def _read_prompt(self, prompt: str) -> Prompts:
        with _silent_loggers():  # about prompts that are too long; the panel says so itself
            return read_prompts(self.backbone, [prompt])

    def _draw(
        self, prompt: str, seed: int, scale: float | None, guidance: float, digest: bytes
    ) -> np.ndarray:
        """The drawing that `find` asks for just once; the model has this scale already."""
        config = self.config
        (picture,) = draw(
            self.backbone,
            self._read(prompt),
            [seed],
            config.drawing_steps,
            guidance,
            config.resolution,
            self._read(""),
            config.precision,
        )
        picture.flags.writeable = False
        return picture


@contextmanager
def _silent_loggers() -> Iterator[None]:
    """Without warnings, which would appear below whichever cell was run last."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def as_prompts(prompts: Sequence[str] | str) -> list[str]:
    """The prompts to choose from, each once.

    Raises:
        SerialLoRAError: there are none, or one is no text.
    """
    chosen = list(dict.fromkeys([prompts] if isinstance(prompts, str) else prompts))
    if not chosen or not all(isinstance(prompt, str) for prompt in chosen):
        raise SerialLoRAError(
            "there are no prompts to draw; pass texts, at least one, such as the captions of a "
            "style's pictures."
        )
    return chosen


# ---------------------------------------------------------------------------------- the panel


class StatusLine(anywidget.AnyWidget):
    """A line of words that a screen reader reads out when it changes.

    Attributes:
        message: the words.
    """

    _esm = ASSETS / "status_line.js"
    message = traitlets.Unicode().tag(sync=True)


class DrawingPanel(ipywidgets.VBox):
    """A prompt, a seed, and two sliders over the drawings without and with the adapter.

    Attributes:
        prompt: one of the examples or any other; `seed`: of the noise; `scale`, `guidance`: sliders.
        drawer: the controls with the drawings below them, and a button where it has to be pressed;
            its `result` are the two drawings shown now, uint8 (side, side, 3), before and after, or
            None where there are none.
        status: what is shown or what went wrong, in words.
    """

    def __init__(
        self,
        backbone: Sd3Backbone,
        prompts: Sequence[str] | str,
        seed: int = 0,
        judge: Judge | None = None,
        config: Sd3LabConfig | None = None,
    ) -> None:
        self._drawings = DrawingsAtScales(backbone, config)
        self._judge = judge
        examples, usual = as_prompts(prompts), self._drawings.config.guidance
        style, wide = {"description_width": "initial"}, {"width": "480px", "max_width": "100%"}
        self.prompt = ipywidgets.Combobox(
            value=examples[0],
            options=examples,
            description="prompt",
            placeholder="the empty prompt",
            continuous_update=False,
            style=style,
            layout=wide,
        )
        self.seed = ipywidgets.BoundedIntText(
            seed, min=0, max=2**31 - 1, description="seed", style=style, layout={"width": "170px"}
        )
        self.scale = scale_slider(backbone.model, continuous_update=False)
        self.guidance = ipywidgets.FloatSlider(
            min(max(usual, 1), LARGEST_GUIDANCE),
            min=1,
            max=LARGEST_GUIDANCE,
            step=0.5,
            description=f"guidance (1: the prompt alone, {usual:g}: as in the lab)",
            readout_format=".1f",
            continuous_update=False,
            style=style,
            layout=wide,
        )
        waits = backbone.scale != "tiny"
        self.status = StatusLine(message="Press Draw to see this prompt.")
        self.drawer = ipywidgets.interactive(
            self._show,
            {"manual": waits, "manual_name": "Draw", "auto_display": False},
            prompt=self.prompt,
            seed=self.seed,
            scale=self.scale,
            guidance=self.guidance,
        )
        super().__init__([self.drawer, self.status, Accessibility()])

    def _show(self, prompt: str, seed: int, scale: float, guidance: float) -> Any:
        self.status.message = "Drawing …"
        scale = round(scale, 2)
        try:
            drawn = tuple(self._drawings.find(prompt, seed, s, guidance) for s in (None, scale))
        except Exception as error:  # such as an adapter that was taken out since
            self.status.message = f"Nothing was drawn: {error}"
            return None
        captions = ["without the adapter", f"scale {scale:.2f}"]
        if self._judge is not None:
            scores = self._judge.clip_scores(np.stack(drawn), [prompt] * 2)
            captions = [
                f"{words}, CLIP-Score {float(score):.2f}"
                for words, score in zip(captions, scores, strict=True)
            ]
        title = _quoted(prompt, 40)
        display_figure(plot_drawings({"": drawn}, captions, title, SHOWN))
        phrases = [
            f"Drawn for {_quoted(prompt)}: seed {seed}, guidance {guidance:g}; "
            f"{'; '.join(captions)}."
        ]
        most = self._drawings.most_tokens(prompt)
        if most is not None:
            phrases.append(f"Only its first {most} tokens are read, start and end among them.")
        if np.array_equal(*drawn):
            phrases.append("Both drawings are identical.")
        self.status.message = " ".join(phrases)
        return drawn


def _quoted(prompt: str, letters: int = 60) -> str:
    short = textwrap.shorten(prompt, letters, placeholder=" …")
    return f"“{short}”" if short else "the empty prompt"


# ----------------------------------------------------------------------------- the still form


def _show_still(drawings: DrawingsAtScales, prompt: str, seed: int, judge: Judge | None) -> None:
    rows = {
        f"guidance {guidance:g}": [
            drawings.find(prompt, seed, scale, guidance) for scale in STILL_SCALES
        ]
        for guidance in STILL_GUIDANCES
    }
    columns = [f"scale {scale:g}" if scale else "scale 0: not adapted" for scale in STILL_SCALES]
    title = f"{_quoted(prompt, 40)}, seed {seed}"
    display_figure(plot_drawings(rows, columns, title))
    if judge is None:
        return
    table = {"CLIP-Score": list(rows)}
    for column, pictures in zip(columns, zip(*rows.values(), strict=True), strict=True):
        scores = judge.clip_scores(np.stack(pictures), [prompt] * len(pictures))
        table[column] = [float(score) for score in scores]
    display_table(pd.DataFrame(table))


def drawing_panel(
    backbone: Sd3Backbone,
    prompts: Sequence[str] | str,
    seed: int = 0,
    judge: Judge | None = None,
    config: Sd3LabConfig | None = None,
) -> DrawingPanel | None:
    """Show what an adapter changes in a drawing, and what its scale and guidance do.

    Args:
        backbone: an SD3 with adapters in its transformer that are not merged; it stays as it is.
        prompts: to choose from; any other can be written in.
        seed: of the noise that drawings start from, at first.
        judge: for the CLIP-Score of every drawing, how well it fits its prompt; None for none.
        config: of the lab, for steps, resolution and the guidance to begin with; None for the
            scale's own.

    Returns:
        The panel, already shown; None in the still form, a figure of the first prompt at a few
        scales and guidances.

    Raises:
        SerialLoRAError: no backbone, no adapters, merged ones, or no prompts.
    """
    return show(
        lambda: DrawingPanel(backbone, prompts, seed, judge, config),
        lambda: _show_still(
            DrawingsAtScales(backbone, config), as_prompts(prompts)[0], seed, judge
        ),
    )
