"""Every picture of the course, in one style.

Each function returns a `matplotlib.figure.Figure` that carries its own description in words as
`figure.alt_text`. In a notebook, show it with `display_figure(figure)`.

How the description travels, and why so: a notebook stores a picture as `image/png`, which has no
place for alternative text. IPython's convention is `alt` in the output's metadata; nbconvert's
classic template reads it, while JupyterLab, nbconvert's lab template and code-hosting pages (as far
as we know) do not. So `display_figure` writes the description in three places: that metadata, the
`text/plain` form of the same output (terminals, diffs, readers without pictures) and one Markdown
line below the picture, which shows everywhere. `save_figure` writes it into the file.

Colours are Okabe and Ito's, which people with any of the common colour-vision deficiencies can
tell apart; methods also differ by marker and line, so no figure depends on colour alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES

# --------------------------------------------------------------------------- house style

INK = "#222222"
QUIET = "#6b6b6b"
FROZEN = "#e3e7ec"
FROZEN_EDGE = "#8a94a3"
BLUE = "#0072b2"
VERMILION = "#d55e00"
GREEN = "#009e73"
DASHED, DOTTED = (0, (5, 3)), (0, (1, 2))

METHODS: dict[str, dict[str, str]] = {
    "lora": {"colour": BLUE, "marker": "o", "line": "-"},
    "serial_lora": {"colour": VERMILION, "marker": "s", "line": "-"},
    "lora_plus": {"colour": "#56b4e9", "marker": "^", "line": "--"},
    "serial_lora_plus": {"colour": "#e69f00", "marker": "D", "line": "--"},
    "lora_equal_budget": {"colour": GREEN, "marker": "v", "line": ":"},
}
"""Colour, marker and line of every method; one that is not listed is drawn in purple."""

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
}
"""Matplotlib settings that every figure is drawn and saved under."""

SCREEN_DPI = 110
LARGE = 50_000


@contextmanager
def house_style() -> Iterator[None]:
    """Draw under the course's settings, and put matplotlib's own back afterwards."""
    with matplotlib.rc_context(STYLE):
        yield


def method_look(name: str) -> dict[str, str]:
    """A method's colour, marker, line and title."""
    look = METHODS.get(name, {"colour": "#cc79a7", "marker": "P", "line": "-."})
    return look | {"title": METHOD_TITLES.get(name, name)}


# --------------------------------------------------------------------------- describe and show


def with_description(figure: Figure, text: str) -> Figure:
    """The figure, with its description in words."""
    figure.alt_text = " ".join(text.split())  # type: ignore[attr-defined]
    return figure


def describe(figure: Figure) -> str:
    """The figure in words: its `alt_text`, or the empty string when it has none."""
    return getattr(figure, "alt_text", "")


def figure_png(figure: Figure, dpi: int = SCREEN_DPI) -> bytes:
    """The figure as PNG bytes, its description kept in the file's metadata.

    A figure of more than `LARGE` bytes, such as one with photographs in it, gets the 256 colours
    that suit it best: a third of the size, so that a notebook stays light.
    """
    buffer = io.BytesIO()
    text = describe(figure)
    with house_style():
        metadata = {"Description": text, "Software": None}
        figure.savefig(buffer, format="png", dpi=dpi, metadata=metadata)
    return _with_few_colours(buffer, text) if buffer.tell() > LARGE else buffer.getvalue()


def _with_few_colours(png: io.BytesIO, text: str) -> bytes:
    information = PngInfo()
    information.add_itxt("Description", text)
    small = io.BytesIO()
    picture = Image.open(png).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    picture.save(small, "png", optimize=True, pnginfo=information)
    return small.getvalue()


def save_figure(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Write a figure as .png or .svg, with its description inside; returns the path."""
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in ("png", "svg"):
        raise SerialLoRAError(f"a figure is saved as .png or .svg, not {path.name!r}; rename it.")
    # No dates and no random ids: the same figure gives the same file.
    metadata: dict[str, Any] = {"Description": describe(figure)}
    metadata |= {"Date": None} if kind == "svg" else {"Software": None}
    with house_style(), matplotlib.rc_context({"svg.hashsalt": "serial-lora"}):
        figure.savefig(path, format=kind, dpi=dpi, metadata=metadata)
    return path


def display_figure(figure: Figure, alt: str | None = None, caption: bool = True) -> None:
    """Show a figure in a notebook together with its description.

    Args:
        figure: any matplotlib figure.
        alt: the description; the figure's own `alt_text` when left out.
        caption: whether to put the description below the picture too, for pages that drop
            metadata. Turn it off only where the prose around the figure already says it.

    Raises:
        SerialLoRAError: if there is no description at all.
    """
    from IPython.display import display

    text = " ".join((alt or describe(figure)).split())
    if not text:
        raise SerialLoRAError(
            "this figure has no description; pass alt='...' in a sentence or two."
        )
    with_description(figure, text)
    data = {"image/png": figure_png(figure), "text/plain": f"[Figure: {text}]"}
    display(data, metadata={"image/png": {"alt": text}}, raw=True)
    if caption:
        display({"text/markdown": f"*In words: {text}*", "text/plain": text}, raw=True)


def display_table(frame: pd.DataFrame) -> None:
    """Show a table in a notebook with its words to the left and its numbers to the right.

    pandas' own form sets everything to the right, which makes a column of sentences hard to read.
    Cells may hold Markdown; the index is not shown.
    """
    from IPython.display import display

    words = [str(name) for name in frame.columns]
    rules = ["---:" if _holds_numbers(frame[name]) else ":---" for name in frame.columns]
    rows = [[_cell_text(cell) for cell in row] for row in frame.itertuples(index=False)]
    lines = ["| " + " | ".join(row) + " |" for row in (words, rules, *rows)]
    data = {"text/markdown": "\n".join(lines), "text/plain": frame.to_string(index=False)}
    display(data, raw=True)


def _holds_numbers(column: pd.Series) -> bool:
    """Whether every cell is a number, be it as text or in bold."""
    texts = column.astype(str).str.strip("*").str.replace(",", "")
    return bool(pd.to_numeric(texts, errors="coerce").notna().all())


def _cell_text(cell: Any) -> str:
    if isinstance(cell, (float, np.floating)):
        return f"{cell:,.2f}"
    if isinstance(cell, (int, np.integer)) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell).replace("|", "\\|")


# --------------------------------------------------------------------------- the README picture


class _Canvas:
    """A few shapes on axes, in the units of the drawing."""

    def __init__(self, axes: Any) -> None:
        self.axes = axes

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        style = {"ha": "center", "va": "center", "fontsize": 12} | style
        self.axes.text(x, y, words, **style)

    def box(
        self, x: float, y: float, width: float, height: float, words: str, **style: Any
    ) -> None:
        """A rounded box centred on (x, y)."""
        size = style.pop("fontsize", 13)
        style = {"facecolor": FROZEN, "edgecolor": FROZEN_EDGE, "linewidth": 1.3} | style
        corner = (x - width / 2, y - height / 2)
        shape = FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.14")
        shape.set(**style)
        self.axes.add_patch(shape)
        self.text(x, y, words, fontsize=size)

    def pair(self, x: float, y: float, colour: str, index: str, wide: float = 0.62) -> None:
        """A low-rank pair, A narrowing to the rank and B widening again, centred on (x, y)."""
        narrow, gap, height = wide * 0.42, 0.05, 0.78
        for sign, name in ((1, "A"), (-1, "B")):
            near, far = y + sign * gap, y + sign * (gap + height)
            corners = [(x - narrow, near), (x + narrow, near), (x + wide, far), (x - wide, far)]
            self.axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none"))
            middle = (near + 1.15 * far) / 2.15
            self.text(x, middle, f"${name}_{index}$", color="white", fontsize=12, weight="bold")

    def plus(self, x: float, y: float) -> None:
        self.axes.add_patch(Circle((x, y), 0.24, facecolor="white", edgecolor=INK, linewidth=1.2))
        for dx, dy in ((0.12, 0), (0, 0.12)):
            self.axes.plot([x - dx, x + dx], [y - dy, y + dy], color=INK, linewidth=1.3)

    def line(self, *points: tuple[float, float], colour: str = INK) -> None:
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=colour, linewidth=1.4, solid_capstyle="round", zorder=1)

    def arrow(self, *points: tuple[float, float], colour: str = INK) -> None:
        """A line through the points with a head at the last one."""
        if len(points) > 2:
            self.line(*points[:-1], colour=colour)
        head = FancyArrowPatch(
            points[-2], points[-1], arrowstyle="-|>", mutation_scale=11, shrinkA=0, shrinkB=0
        )
        head.set(color=colour, linewidth=1.4, zorder=1)
        self.axes.add_patch(head)


_COLUMNS = (1.75, 5.0, 8.25)
_NAMES = ("q", "k", "v")


def _shared_part(canvas: _Canvas) -> None:
    """What both methods leave alone: the tokens in, the attention, the tokens out."""
    canvas.box(5, 12.4, 4.9, 0.8, "tokens $x$, after the norm", facecolor="white", fontsize=12)
    canvas.box(5, 5.9, 8.6, 0.85, "attention over $q$, $k$, $v$", facecolor="white", fontsize=12)
    canvas.box(5, 0.65, 4.2, 0.8, "back to the block", facecolor="white", fontsize=12)


def _draw_lora(canvas: _Canvas) -> None:
    _shared_part(canvas)
    canvas.line((5, 12.0), (5, 11.3))
    canvas.line((_COLUMNS[0] - 0.75, 11.3), (_COLUMNS[2] + 0.75, 11.3))
    for column, name in zip(_COLUMNS, _NAMES, strict=True):
        plus = _lora_projection(canvas, column, 11.3, name)
        canvas.arrow((column - 0.75, plus - 0.24), (column - 0.75, 6.33))
        canvas.text(column - 0.42, 6.8, f"${name}$", fontsize=13)
    canvas.line((5, 5.47), (5, 5.05))
    plus = _lora_projection(canvas, 5, 5.05, "o")
    canvas.arrow((4.25, plus - 0.24), (4.25, 1.05))


def _lora_projection(canvas: _Canvas, column: float, top: float, name: str) -> float:
    """A frozen matrix with its own pair beside it; returns the height of their sum."""
    left, right, middle, plus = column - 0.75, column + 0.75, top - 1.5, top - 3.0
    canvas.line((left, top), (right, top))
    canvas.arrow((left, top), (left, middle + 0.83))
    canvas.arrow((right, top), (right, middle + 0.83))
    canvas.box(left, middle, 1.2, 1.66, f"$W_{name}$")
    canvas.pair(right, middle, BLUE, name)
    canvas.arrow((left, middle - 0.83), (left, plus + 0.24))
    canvas.arrow((right, middle - 0.83), (right, plus), (left + 0.24, plus), colour=BLUE)
    canvas.plus(left, plus)
    return plus


def _draw_serial(canvas: _Canvas) -> None:
    _shared_part(canvas)
    canvas.line((5, 12.0), (5, 11.6))
    canvas.line((5, 11.6), (6.9, 11.6))
    canvas.arrow((6.9, 11.6), (6.9, 11.13))
    canvas.pair(6.9, 10.3, VERMILION, "s", wide=0.8)
    canvas.arrow((5, 11.6), (5, 9.34))
    canvas.arrow((6.9, 9.47), (6.9, 9.1), (5.24, 9.1), colour=VERMILION)
    canvas.plus(5, 9.1)
    canvas.text(5.35, 8.62, "$x'$", fontsize=13, ha="left")
    canvas.line((5, 8.86), (5, 8.3))
    canvas.line((_COLUMNS[0], 8.3), (_COLUMNS[2], 8.3))
    for column, name in zip(_COLUMNS, _NAMES, strict=True):
        canvas.arrow((column, 8.3), (column, 7.85))
        canvas.box(column, 7.42, 1.9, 0.86, f"$W_{name}$")
        canvas.arrow((column, 6.99), (column, 6.33))
        canvas.text(column + 0.33, 6.7, f"${name}$", fontsize=13)
    canvas.arrow((5, 5.47), (5, 3.98))
    canvas.box(5, 3.55, 1.9, 0.86, "$W_o$")
    canvas.arrow((5, 3.12), (5, 1.05))


def draw_serial_vs_lora() -> Figure:
    """One attention block under LoRA and under Serial LoRA, side by side (after Fig. 1)."""
    with house_style():
        figure = Figure(figsize=(10, 7.6), layout=None)
        panels = (
            ("LoRA", "a pair beside every matrix", BLUE, _draw_lora),
            ("Serial LoRA", "one pair in front of q, k and v", VERMILION, _draw_serial),
        )
        formulas = (
            ("$q = W_q\\,x + B_q A_q\\,x$", "4 pairs:  $8\\,d\\,r$  parameters a block"),
            ("$q = W_q\\,(x + B_s A_s\\,x)$", "1 pair:  $2\\,d\\,r$  parameters a block"),
        )
        for i, ((name, idea, colour, draw), lines) in enumerate(zip(panels, formulas, strict=True)):
            axes = figure.add_axes((0.015 + 0.49 * i, 0.05, 0.48, 0.94))
            axes.set(xlim=(-0.2, 10.2), ylim=(-1.75, 14.6))
            axes.axis("off")
            canvas = _Canvas(axes)
            canvas.text(5, 14.15, name, fontsize=18, weight="bold", color=colour)
            canvas.text(5, 13.4, idea, fontsize=13)
            draw(canvas)
            canvas.text(5, -0.45, lines[0], fontsize=14)
            canvas.text(5, -1.3, lines[1], fontsize=14, weight="bold", color=colour)
        legend = figure.add_axes((0, 0, 1, 0.055))
        legend.set(xlim=(0, 20), ylim=(0, 1))
        legend.axis("off")
        _legend(_Canvas(legend))
    return with_description(
        figure,
        """Two drawings of one attention block. Left, LoRA: each of the frozen matrices W_q, W_k,
        W_v and W_o has its own trained low-rank pair A, B beside it, and their outputs are added;
        four pairs, 8 d r parameters a block. Right, Serial LoRA: a single trained pair A_s, B_s
        sits in front of W_q, W_k and W_v and is added to the tokens before all three; W_o is left
        alone; one pair, 2 d r parameters a block.""",
    )


def _legend(canvas: _Canvas) -> None:
    canvas.box(3.1, 0.5, 0.5, 0.5, "")
    canvas.text(3.55, 0.5, "frozen", ha="left")
    for x, colour in ((6.6, BLUE), (7.25, VERMILION)):
        canvas.box(x, 0.5, 0.5, 0.5, "", facecolor=colour, edgecolor="none")
    canvas.text(7.7, 0.5, "trained", ha="left")
    canvas.text(10.6, 0.5, "$d$: width of a token    $r$: rank, much smaller", ha="left")


# --------------------------------------------------------------------------- counts


def plot_counts(counts: Mapping[str, tuple[int, int]] | None = None) -> Figure:
    """Bars of LoRA's and Serial LoRA's parameters.

    Args:
        counts: name of a model to (LoRA, Serial LoRA); the paper's three models when left out.
    """
    if counts is None:
        counts = {
            f"{item.title}, r = {item.rank}": (item.lora(), item.serial_lora())
            for item in ARCHITECTURES.values()
            if item.in_paper
        }
    if not counts:
        raise SerialLoRAError("there is nothing to draw; pass at least one model's two counts.")
    with house_style():
        figure = Figure(figsize=(8, 1.3 + 0.95 * len(counts)), layout="constrained")
        axes = figure.subplots()
        largest = max(max(pair) for pair in counts.values())
        for row, (lora, serial) in enumerate(counts.values()):
            for offset, value, key in ((-0.19, lora, "lora"), (0.19, serial, "serial_lora")):
                look = method_look(key)
                label = look["title"] if row == 0 else None
                axes.barh(row + offset, value, 0.34, color=look["colour"], label=label)
                axes.text(value + 0.012 * largest, row + offset, f"{value:,}", va="center")
        axes.set_yticks(range(len(counts)), list(counts))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, largest * 1.22)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.set_xlabel("trainable parameters")
        figure.legend(loc="outside upper left", ncols=2)
    words = "; ".join(
        f"{name}: LoRA {lora:,}, Serial LoRA {serial:,}" for name, (lora, serial) in counts.items()
    )
    return with_description(figure, f"Bars of trainable parameters. {words}.")


def _short(value: float) -> str:
    """A tick label such as 5M or 200k."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


# --------------------------------------------------------------------------- results

RUN_COLUMNS = ("dataset", "method", "amount", "seed")


@dataclass(frozen=True)
class _Chart:
    """What a chart of results shows, and the grey lines it is read against.

    Attributes:
        measure: the column that is drawn, a share between 0 and 1 or a distance.
        axis, size: the words at the two axes.
        references: (column, what it is called, its line) of each grey line.
        percent: whether the measure is read in per cent.
        tick: how a number of the column ``amount`` is written.
        distance: whether the measure is one, above 0 without an upper end: then each picture has a
            logarithmic axis of its own, and its own averages in the description.
    """

    measure: str
    axis: str
    size: str
    references: tuple[tuple[str, str, Any], ...]
    percent: bool
    tick: str
    distance: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns with numbers to draw."""
        return [self.measure, *(column for column, _, _ in self.references)]

    @property
    def unit(self) -> float:
        return 100 if self.percent else 1

    def write(self, value: float) -> str:
        if self.distance:
            return f"{value:.3g}"
        return f"{value:.1%}" if self.percent else f"{value:.3f}"


def plot_accuracy_by_shots(
    frame: pd.DataFrame, zero_shot: str = "zero_shot_dataset", average: bool = True
) -> Figure:
    """Accuracy against the number of shots, one small picture a data set.

    A line joins the means over seeds, each run is a small point, the band runs from the worst to
    the best seed, and a grey line marks zero-shot accuracy.

    Args:
        frame: one row a run, as `serial_lora_course.labs.records.frame` gives it, with the columns of
            `RUN_COLUMNS` and ``accuracy``; accuracies between 0 and 1.
        zero_shot: the column with the accuracy before adaptation.
        average: add a picture of the average over data sets when there are two or more.

    Raises:
        SerialLoRAError: if a column is missing, there are no rows, or a share is not one.
    """
    chart = _Chart(
        "accuracy",
        "accuracy (%)",
        "shots (training pictures a class)",
        ((zero_shot, "zero-shot", DASHED),),
        percent=True,
        tick="{}",
    )
    return _plot_results(frame, chart, average)


def plot_dice_by_percent(frame: pd.DataFrame, average: bool = True) -> Figure:
    """Dice against the percentage of the training pictures, one small picture a data set.

    Drawn like :func:`plot_accuracy_by_shots`. Two grey lines stand for what costs no training: the
    model as it was (dashed), and the whole box filled in (dotted).

    Args:
        frame: one row a run, as `serial_lora_course.labs.records.frame` gives it for the SAM lab, with the
            columns of `RUN_COLUMNS` (``amount`` in percent), ``dice``, ``base_dice`` and
            ``box_dice``; each Dice between 0 and 1, and higher is better.
        average: add a picture of the average over data sets when there are two or more.

    Raises:
        SerialLoRAError: if a column is missing, there are no rows, or a share is not one.
    """
    chart = _Chart(
        "dice",
        "Dice (higher is better)",
        "share of the training pictures",
        (("base_dice", "not adapted", DASHED), ("box_dice", "box filled in", DOTTED)),
        percent=False,
        tick="{}%",
    )
    return _plot_results(frame, chart, average)


def plot_fid_by_percent(frame: pd.DataFrame) -> Figure:
    """FID against the percentage of the training pictures, one small picture a style.

    Drawn like :func:`plot_accuracy_by_shots`, but on logarithmic axes and without an average over
    styles: one style's FID may be ten times another's. Two grey lines stand for what costs no
    training: the model as it was (dashed), and other real pictures of the style (dotted), which is
    about as low as drawings can come.

    Args:
        frame: one row a run, as `serial_lora_course.labs.records.frame` gives it for the SD3 lab, with the
            columns of `RUN_COLUMNS` (``amount`` in percent), ``fid``, ``base_fid`` and
            ``real_fid``; each above 0, and lower is better.

    Raises:
        SerialLoRAError: if a column is missing, there are no rows, or a distance is none.
    """
    chart = _Chart(
        "fid",
        "FID (lower is better; logarithmic)",
        "share of the training pictures",
        (("base_fid", "not adapted", DASHED), ("real_fid", "real pictures", DOTTED)),
        percent=False,
        tick="{}%",
        distance=True,
    )
    return _plot_results(frame, chart, average=False)


def _check_results(frame: pd.DataFrame, chart: _Chart) -> None:
    needed = [*RUN_COLUMNS, *chart.columns]
    missing = [name for name in needed if name not in frame.columns]
    if missing or frame.empty:
        what = f"lacks {', '.join(missing)}" if missing else "has no rows"
        raise SerialLoRAError(
            f"the table of results {what}; it needs one row a run with {', '.join(needed)}."
        )
    if chart.distance:
        if not (frame[chart.columns] > 0).all(axis=None):
            raise SerialLoRAError(
                f"{chart.measure} is a distance, above 0; leave out the runs without one."
            )
    elif frame[chart.measure].max() > 1 or frame[chart.measure].min() < 0:
        raise SerialLoRAError(
            f"{chart.measure} is a share between 0 and 1; divide percentages by 100."
        )


def _plot_results(frame: pd.DataFrame, chart: _Chart, average: bool) -> Figure:
    _check_results(frame, chart)
    methods = in_house_order(frame["method"])
    parts = {name: part for name, part in frame.groupby("dataset", sort=False)}
    if average and len(parts) > 1:
        common = average_over_datasets(frame, ["method", "amount", "seed"], chart.columns)
        if len(common):
            parts["average over data sets"] = common
    columns = 2 if len(parts) == 4 else min(3, len(parts))
    rows = math.ceil(len(parts) / columns)
    with house_style():
        width = max(6.4, 3.3 * columns + 0.6)  # the legend needs this much
        figure = Figure(figsize=(width, 2.9 * rows + 0.9), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=not chart.distance)
        for axes, (name, part) in zip(grid.flat, parts.items(), strict=False):
            _results_panel(axes, part, methods, chart)
            axes.set_title(name)
        for axes in grid.flat[len(parts) :]:
            axes.set_visible(False)
        figure.supylabel(chart.axis, fontsize=11)
        figure.supxlabel(chart.size, fontsize=11)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3 if columns > 2 else 2)
    return with_description(figure, _results_words(frame, methods, chart))


def average_over_datasets(
    frame: pd.DataFrame, by: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """One row a combination of ``by`` that ran on every data set; what ran on some is left out."""
    by, datasets = list(by), frame["dataset"].nunique()
    everywhere = frame.groupby(by)["dataset"].transform("nunique") == datasets
    return frame[everywhere].groupby(by, as_index=False)[list(columns)].mean()


def in_house_order(names: pd.Series) -> list[str]:
    """The methods present: known ones in the house's order, then the others."""
    present = list(dict.fromkeys(names))
    return [m for m in METHODS if m in present] + [m for m in present if m not in METHODS]


def _results_panel(axes: Any, part: pd.DataFrame, methods: Sequence[str], chart: _Chart) -> None:
    sizes = sorted(part["amount"].unique())
    for column, label, line in chart.references:
        axes.axhline(chart.unit * part[column].mean(), color=QUIET, linestyle=line, label=label)
    for i, method in enumerate(methods):
        runs = part[part["method"] == method]
        if runs.empty:
            continue
        look = method_look(method)
        # A small sideways step keeps methods of equal results from hiding one another.
        step = 1.04 ** (i - (len(methods) - 1) / 2)
        values = chart.unit * runs[chart.measure]
        by_size = values.groupby(runs["amount"])
        mean, low, high = by_size.mean(), by_size.min(), by_size.max()
        x = mean.index.to_numpy(dtype=float) * step
        axes.fill_between(x, low, high, color=look["colour"], alpha=0.16, linewidth=0)
        axes.scatter(runs["amount"] * step, values, s=9, color=look["colour"], alpha=0.55)
        axes.plot(
            x,
            mean,
            color=look["colour"],
            marker=look["marker"],
            linestyle=look["line"],
            markersize=5,
            label=look["title"],
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [chart.tick.format(size) for size in sizes])
    if chart.distance:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _results_words(frame: pd.DataFrame, methods: Sequence[str], chart: _Chart) -> str:
    measure = chart.axis.partition(" (")[0]
    said = (
        f"{measure[0].upper()}{measure[1:]} against {chart.size}; data sets: "
        f"{', '.join(map(str, frame['dataset'].unique()))}; seeds: {frame['seed'].nunique()}."
    )
    most = chart.tick.format(frame["amount"].max())
    if chart.distance:
        parts = (
            "{}: {}, {}".format(name, *_average_words(part, methods, chart))
            for name, part in frame.groupby("dataset", sort=False)
        )
        return f"{said} Grey lines, and averages with {most}: {'; '.join(parts)}."
    lines, averages = _average_words(frame, methods, chart)
    return (
        f"{said} Grey lines, on average: {lines}. With the most training pictures "
        f"({most}) the averages are: {averages}."
    )


def _average_words(frame: pd.DataFrame, methods: Sequence[str], chart: _Chart) -> tuple[str, str]:
    """The grey lines' averages, and each method's with the most training pictures."""
    last = frame[frame["amount"] == frame["amount"].max()].groupby("method")[chart.measure].mean()
    said = ", ".join(
        f"{method_look(m)['title']} {chart.write(last[m])}" for m in methods if m in last.index
    )
    lines = ", ".join(
        f"{label} {chart.write(frame.groupby('dataset')[column].mean().mean())}"
        for column, label, _ in chart.references
    )
    return lines, said


# --------------------------------------------------------------------------- pictures


def as_array(picture: Any) -> np.ndarray:
    """A picture as an array to draw: PIL image, (H, W), (H, W, C) or (C, H, W) array or tensor."""
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGBA" if "A" in picture.getbands() else "RGB"))
    channels = (1, 3, 4)
    is_tensor = hasattr(picture, "detach")
    if is_tensor:
        picture = picture.detach().cpu()
        picture = picture.float() if picture.is_floating_point() else picture
    array = np.asarray(picture)
    # A shape such as (4, 4, 4) can be read both ways: tensors keep channels first, arrays last.
    if array.ndim == 3 and array.shape[0] in channels:
        if is_tensor or array.shape[2] not in channels:
            array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3):
        raise SerialLoRAError(
            f"a picture has 2 or 3 dimensions, not {array.ndim}; pass a list of pictures."
        )
    return np.clip(array, 0, 1) if np.issubdtype(array.dtype, np.floating) else array


def show_pictures(
    pictures: Sequence[Any],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    size: float = 1.5,
) -> Figure:
    """A grid of pictures, each with a short title above it.

    Args:
        pictures: PIL images, or arrays or tensors of shape (H, W), (H, W, C) or (C, H, W); floats
            are between 0 and 1.
        titles: as many as there are pictures.
        columns: pictures in a row; eight at most when left out.
        size: inches each.
    """
    if not len(pictures):
        raise SerialLoRAError("there are no pictures to show; pass at least one.")
    if titles is not None and len(titles) != len(pictures):
        raise SerialLoRAError(
            f"{len(pictures)} pictures came with {len(titles)} titles; pass one title a picture."
        )
    columns = columns or min(8, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = size + (0.25 if titles else 0.05)
    with house_style():
        figure = Figure(figsize=(size * columns, height * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for i, (axes, picture) in enumerate(zip(grid.flat, pictures, strict=False)):
            array = as_array(picture)
            axes.imshow(array, cmap="gray" if array.ndim == 2 else None, interpolation="nearest")
            if titles is not None:
                axes.set_title(titles[i], fontsize=9, weight="normal", loc="center")
    said = f": {'; '.join(titles)}" if titles else ""
    return with_description(figure, f"{len(pictures)} pictures in {rows} row(s){said}.")


def plot_shares(
    pictures: Sequence[Any], captions: Sequence[str], shares: Any, size: float = 0.9
) -> Figure:
    """How a model divides each picture's certainty among the captions: a heat map with pictures.

    Args:
        pictures: n of them, as in :func:`show_pictures`; one row each.
        captions: m short texts; one column each.
        shares: (n, m) numbers between 0 and 1; the largest of each row is printed in bold.
        size: inches a cell.
    """
    shares = np.asarray(shares, dtype=float)
    if shares.shape != (len(pictures), len(captions)):
        raise SerialLoRAError(
            f"{len(pictures)} pictures and {len(captions)} captions need shares of shape "
            f"({len(pictures)}, {len(captions)}), not {shares.shape}."
        )
    rows, columns = shares.shape
    with house_style():
        figure = Figure(figsize=(size * (1.5 * columns + 1), size * (rows + 0.6)))
        left, top = 1 / (1.5 * columns + 1), 1 - 0.6 / (rows + 0.6)
        axes = figure.add_axes((left, 0, 1 - left, top))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set(yticks=[])
        axes.set_xticks(range(columns), captions, fontsize=10)
        axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
        for row, column in np.ndindex(rows, columns):
            weight = "bold" if column == shares[row].argmax() else "normal"
            look = {"weight": weight, "color": "white" if shares[row, column] > 0.6 else INK}
            words = f"{shares[row, column]:.0%}"
            axes.text(column, row, words, ha="center", va="center", fontsize=11, **look)
        for row, picture in enumerate(pictures):
            height = top / rows
            place = (0.05 * left, top - (row + 0.95) * height, 0.9 * left, 0.9 * height)
            inset = figure.add_axes(place)
            inset.imshow(as_array(picture), cmap="gray", interpolation="nearest")
            inset.axis("off")
    best = "; ".join(
        f"picture {row + 1}: {captions[int(line.argmax())]}, {line.max():.0%}"
        for row, line in enumerate(shares)
    )
    return with_description(
        figure, f"Shares of {columns} captions for {rows} pictures. The largest of each: {best}."
    )


if __name__ == "__main__":
    # python -m serial_lora_course.figures.base: draw the README's picture anew.
    print(save_figure(draw_serial_vs_lora(), "docs/serial_vs_lora.png"))
