"""The panel of lesson 07: a prompt drawn without and with the adapter, at any scale and guidance.

Both drawings start from the same noise, so whatever differs between them is the adapter's doing.
The tiny model draws in well under a second, and its panel draws again whenever the hand rests; at
paper scale it waits for a button. What was drawn once is kept, and text is read once per prompt.

Where nobody can move a slider (see `serial_lora_course.panels.counts`) the same content stands still: one
prompt at a few scales and guidances.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import pandas as pd
import traitlets
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.drawings import plot_drawings
from serial_lora_course.figures.style import display_figure
from serial_lora_course.figures.tables import display_table
from serial_lora_course.frontend import is_static
from serial_lora_course.labs.sd3 import CONFIGS, Sd3LabConfig, draw
from serial_lora_course.labs.sd3_inputs import Prompts, read_prompts
from serial_lora_course.models.judges import Judge
from serial_lora_course.models.sd3 import Sd3Backbone
from serial_lora_course.panels.base import (
    STILL_SCALES,
    adapter_digest,
    borrowed,
    png_bytes,
    scale_slider,
)

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHOWN = 256
"""Screen pixels of a drawing's side in the panel."""
LARGEST_GUIDANCE = 9.0
STILL_GUIDANCES = (1.0, 3.0, 5.0, 7.0)
"""Where the slider of the still form stands, one row each."""
REST = 0.2  # seconds without a change, after which the hand is taken to rest
KEPT_DRAWINGS = 128  # 0.8 MB each at 512 pixels
KEPT_PROMPTS = 32  # 2.5 MB each at paper scale
OWN_WORDS = "your own words"

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
        if not isinstance(backbone, Sd3Backbone):
            raise SerialLoRAError(
                f"a {type(backbone).__name__} is no SD3 backbone; pass what load_sd3 returned."
            )
        with borrowed(backbone.model, 0.0):
            pass  # says at once what would keep it from working later
        self.backbone = backbone
        self.config = config or CONFIGS[backbone.scale]
        self._read = lru_cache(KEPT_PROMPTS)(self._read_prompt)
        self._drawn = lru_cache(KEPT_DRAWINGS)(self._draw)

    def find(self, prompt: str, seed: int, scale: float | None, guidance: float) -> np.ndarray:
        """What :func:`serial_lora_course.labs.sd3.draw` draws: uint8 (side, side, 3), not to be changed.

        Args:
            seed: of the noise that the drawing starts from.
            scale: of every adapter; None for the model without them.

        Raises:
            SerialLoRAError: the adapters were merged or taken out.
        """
        with borrowed(self.backbone.model, scale) as model:
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
    if not chosen:
        raise SerialLoRAError("there are no prompts to draw; pass at least one.")
    for prompt in chosen:
        if not isinstance(prompt, str):
            raise SerialLoRAError(
                f"a {type(prompt).__name__} is no prompt; pass texts, such as the captions of a "
                "style's pictures."
            )
    return chosen


# ---------------------------------------------------------------------------------- the panel


class StatusLine(anywidget.AnyWidget):
    """A line of words that is read out when it changes.

    Attributes:
        message: the words.
    """

    _esm = ASSETS / "status_line.js"
    _css = ASSETS / "drawings.css"
    message = traitlets.Unicode().tag(sync=True)


class DrawingPanel(ipywidgets.VBox):
    """A prompt, a seed, and two sliders over the drawings without and with the adapter.

    Attributes:
        choice: prompts to choose from; `prompt`: the one that is drawn, free to change.
        seed: of the noise; `scale`, `guidance`: the sliders.
        button: draws; shown only where drawings are not made by themselves.
        before, after: HTML, the drawing without the adapter and at the scale.
        status: what is shown or what went wrong, in words.
        drawn: the two drawings shown now, uint8 (side, side, 3), as (before, after); None while
            there are none.
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
        self._judge, self._waiting = judge, None
        self.drawn: tuple[np.ndarray, np.ndarray] | None = None
        self._by_itself = backbone.scale == "tiny"
        self._build(as_prompts(prompts), seed)
        self.choice.observe(self._choose, names="value")
        self.prompt.observe(self._name_choice, names="value")
        for control in (self.prompt, self.seed, self.scale, self.guidance):
            control.observe(self._changed, names="value")
        self.button.on_click(lambda _: self.draw())
        if self._by_itself:
            self.draw()
        else:
            self.status.message = "Press Draw to see this prompt."

    def _build(self, prompts: Sequence[str], seed: int) -> None:
        """All parts, side by side where there is room."""
        width = "70px"
        style, narrow = {"description_width": width}, {"max_width": "100%"}
        wide = {"width": "420px", **narrow}
        self.choice = ipywidgets.Dropdown(
            options=[*prompts, OWN_WORDS], description="examples", style=style, layout=wide
        )
        self.prompt = ipywidgets.Text(
            prompts[0],
            description="prompt",
            style=style,
            layout=wide,
            continuous_update=False,
            placeholder="the empty prompt",
        )
        self.seed = ipywidgets.BoundedIntText(
            seed, min=0, max=2**31 - 1, description="seed", style=style, layout={"width": "170px"}
        )
        model = self._drawings.backbone.model
        self.scale, line = scale_slider(model, self._by_itself, width)
        usual = self._drawings.config.guidance
        self.guidance = ipywidgets.FloatSlider(
            min(max(usual, 1), LARGEST_GUIDANCE),
            min=1,
            max=LARGEST_GUIDANCE,
            step=0.5,
            description="guidance",
            style=style,
            layout=wide,
            readout_format=".1f",
            continuous_update=self._by_itself,
        )
        words = ipywidgets.Label(f"1: the prompt alone; {usual:g}: as in the lab")
        self.button = ipywidgets.Button(description="Draw", button_style="primary")
        self.before, self.after = (ipywidgets.HTML(layout={"margin": "0"}) for _ in range(2))
        self.status = StatusLine()
        row = {"flex_flow": "row wrap", "grid_gap": "4px 20px", "padding": "8px"}
        self._pictures = ipywidgets.Box([self.before, self.after], layout=row)
        super().__init__(
            [
                self.choice,
                self.prompt,
                self.seed,
                line,
                ipywidgets.Box([self.guidance, words], layout={"flex_flow": "wrap"}),
                *([] if self._by_itself else [self.button]),
                self._pictures,
                self.status,
            ]
        )

    def _choose(self, change: dict[str, Any]) -> None:
        if change["new"] != OWN_WORDS:
            self.prompt.value = change["new"]

    def _name_choice(self, _: Any) -> None:
        known = self.prompt.value in self.choice.options
        self.choice.value = self.prompt.value if known else OWN_WORDS

    def _changed(self, _: Any) -> None:
        """Draw soon: once the hand rests, since a slider that is dragged changes all the time."""
        if not self._by_itself:
            self.status.message = "Press Draw to see what you have set."
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel, so nobody's hand
            self.draw()
            return
        self._stop_waiting()
        self._waiting = loop.call_later(REST, self.draw)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def draw(self) -> None:
        """Draw what the controls say, now."""
        self._stop_waiting()
        prompt, seed = self.prompt.value, self.seed.value
        scale, guidance = round(self.scale.value, 2), round(self.guidance.value, 1)
        self.status.message = "Drawing …"
        self._pictures.add_class("drawing-busy")
        try:
            find = partial(self._drawings.find, prompt, seed)
            self.drawn = find(None, guidance), find(scale, guidance)
        except SerialLoRAError as error:  # such as an adapter that was taken out since
            self._show_nothing(str(error))
        except BaseException as error:
            reason = str(error).split("\n")[0] or type(error).__name__
            self._show_nothing(f"Nothing was drawn: {reason}")
            raise
        else:
            self._show(prompt, ("without the adapter", f"scale {scale:.2f}"))
            said = [f"Drawn for {_quoted(prompt)}: seed {seed}, guidance {guidance:g}."]
            most = self._drawings.most_tokens(prompt)
            if most is not None:
                said.append(f"Only its first {most} tokens are read, start and end among them.")
            if np.array_equal(*self.drawn):
                said.append("Both drawings are identical.")
            self.status.message = " ".join(said)
        finally:
            self._pictures.remove_class("drawing-busy")

    def _show(self, prompt: str, titles: Sequence[str]) -> None:
        said = ["", ""]
        if self._judge is not None:
            scores = self._judge.clip_scores(np.stack(self.drawn), [prompt] * 2)
            said = [f"CLIP-Score {float(score):.2f}" for score in scores]
        self.before.value, self.after.value = (
            _drawing_html(picture, prompt, title, words)
            for picture, title, words in zip(self.drawn, titles, said, strict=True)
        )

    def _show_nothing(self, reason: str) -> None:
        self.drawn = None
        self.before.value = self.after.value = ""
        self.status.message = reason


def _quoted(prompt: str, letters: int = 60) -> str:
    short = textwrap.shorten(prompt, letters, placeholder=" …")
    return f"“{short}”" if short else "the empty prompt"


def _drawing_html(picture: np.ndarray, prompt: str, title: str, said: str) -> str:
    image = Image.fromarray(picture)
    source = base64.b64encode(png_bytes(image, 2 * SHOWN)).decode()
    enlarged = " drawing-enlarged" if image.width < SHOWN else ""
    alt = ", ".join(filter(None, (f"Drawing for {_quoted(prompt)}", title, said)))
    return (
        f"<figure class='drawing' style='width:{SHOWN}px'>"
        f"<img class='drawing-picture{enlarged}' decoding='sync' alt='{escape(alt)}' "
        f"src='data:image/png;base64,{source}'>"
        f"<figcaption><span class='drawing-title'>{escape(title)}</span>{said}</figcaption>"
        "</figure>"
    )


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
    static: bool | None = None,
) -> DrawingPanel | None:
    """Show what an adapter changes in a drawing, and what its scale and guidance do.

    Args:
        backbone: an SD3 with adapters in its transformer that are not merged; it stays as it is.
        prompts: to choose from; any other can be written in.
        seed: of the noise that drawings start from, at first.
        judge: for the CLIP-Score of every drawing, how well it fits its prompt; None for none.
        config: of the lab, for steps, resolution and the guidance to begin with; None for the
            scale's own.
        static: True for a figure of the first prompt at a few scales and guidances; False for the
            panel; when left out, the panel where a live notebook is there to move it.

    Returns:
        The panel, already shown; None in the still form.

    Raises:
        SerialLoRAError: no backbone, no adapters, merged ones, or no prompts.
    """
    from IPython.display import display

    if is_static() if static is None else static:
        _show_still(DrawingsAtScales(backbone, config), as_prompts(prompts)[0], seed, judge)
        return None
    panel = DrawingPanel(backbone, prompts, seed, judge, config)
    display(panel)
    return panel
