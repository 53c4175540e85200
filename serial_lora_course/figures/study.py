"""The study's fronts: what each method gains for its parameters, for the time of a step, for memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from string import ascii_uppercase

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.frames import on_front
from serial_lora_course.labs.methods import CACHED_METHODS, get_method
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    house_style,
    with_description,
)
from serial_lora_course.plots.tables import require_columns

COSTS = {
    "parameters": "trained parameters",
    "step time": "processor time of a step, LoRA = 1",
    "activations, MB": "MB kept for the backward pass",
}
"""Column -> what it is, in words."""
FORMATS = {"parameters": "{:,.0f}", "step time": "{:.2f}", "activations, MB": "{:.1f}"}
COLUMNS = ("arm", "title", "method", *COSTS, "gain", "above LoRA, half-width")
OWN = {"serial_lora": (VERMILION, "s"), "lora": (BLUE, "o")}
"""Methods that the study is about: each has a marker, and every arm its size beside it."""
WIDTH, HEIGHT, KEY = 8.5, 3.3, 0.17  # inches: of the picture, of a lab, of a line of the key


def plot_front(
    labs: Mapping[str, pd.DataFrame], units: Mapping[str, str], cost: str = "parameters"
) -> Figure:
    """Gain against a cost, a lab below the other; a line joins the arms that none beats.

    Serial LoRA and LoRA have markers, other methods letters; a key under the pictures says which. Named
    are those on the front, in bold, and all arms of Serial LoRA and LoRA. Points that would lie on each
    other stand side by side. The bar in a corner is the median half-width of the 95% intervals of differences from the reference arm, over sets.

    Args:
        labs: lab -> its arms, as :func:`serial_lora_course.study.tables.arms_table` gives them.
        units: lab -> the unit of its gain.
        cost: one of `COSTS`.

    Raises:
        SerialLoRAError: a column is missing, or a table is empty.
    """
    for arms in labs.values():
        require_columns(arms, COLUMNS)
    with house_style():
        figure, axes = _pictures(list(labs.values()))
        for axis, lab in zip(axes, labs, strict=True):
            axis.set(title=lab.upper(), ylabel=f"gain, {units[lab]}")
        axes[-1].set_xlabel(COSTS[cost])
        fronts = _draw(axes, list(labs.values()), cost)
        plt.close(figure)
    words = [f"{lab.upper()}: {front}" for lab, front in zip(labs, fronts, strict=True)]
    told = f"Gain against {COSTS[cost]}. On the front, from the cheapest: "
    return with_description(figure, f"{told}{'. '.join(words)}.")


def plot_budget(arms: pd.DataFrame, unit: str, cost: str, most: float) -> Figure:
    """Gain against one cost, and which arm is best among those that cost no more than ``most``.

    Raises:
        SerialLoRAError: a column is missing, the table is empty, or no arm is so cheap.
    """
    require_columns(arms, COLUMNS)
    within = arms[arms[cost] <= most]
    if within.empty:
        raise SerialLoRAError(f"No arm has {most:g} {COSTS[cost]} or less; allow more.")
    best = within.loc[within["gain"].idxmax()]
    serial = within[within["method"] == "serial_lora"]
    said = f"Up to {FORMATS[cost].format(most)} {COSTS[cost]}: best is {best['title']}, {best['gain']:+.1f} {unit}"
    with house_style():
        figure, (axis,) = _pictures([arms])
        axis.set(xlabel=COSTS[cost], ylabel=f"gain, {unit}")
        axis.set_title(said.replace(": ", ":\n"), size=10)
        (front,) = _draw([axis], [arms], cost)
        dearest = axis.get_xlim()[1]
        axis.axvspan(most, max(most, dearest), color=QUIET, alpha=0.15, lw=0)
        axis.set_xlim(right=dearest)
        plt.close(figure)
    if len(serial):
        own = serial.loc[serial["gain"].idxmax()]
        said += f"; Serial LoRA's best, {own['title']}, {own['gain']:+.1f}"
    return with_description(figure, f"{said}. The whole front: {front}.")


VERDICTS = {
    "holds": {"color": GREEN, "marker": "o"},
    "fails": {"color": VERMILION, "marker": "X"},
    "open": {"color": QUIET, "marker": "o", "mfc": "white"},
}
ANSWER_COLUMNS = ("lab", "asks", "unit", "mean", "half-width", "verdict")


def plot_answers(answers: pd.DataFrame) -> Figure:
    """Every question with its interval for sets like these: a row a question, a lab beside the other.

    Args:
        answers: with `ANSWER_COLUMNS`, as `serial_lora_course.study.found.Found.intervals` gives them;
            the numbers are nan and the verdict is empty where runs are missing.

    Raises:
        SerialLoRAError: a column is missing, or the table is empty.
    """
    require_columns(answers, ANSWER_COLUMNS)
    labs, asked = answers["lab"].unique(), list(answers["asks"].unique())
    with house_style():
        figure, axes = plt.subplots(
            ncols=len(labs),
            figsize=(WIDTH, 1.1 + 0.4 * len(asked)),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, lab in zip(axes[0], labs, strict=True):
            own = answers[answers["lab"] == lab]
            axis.axvline(0, color=INK, lw=0.8)
            for _, row in own.iterrows():
                place = asked.index(row["asks"])
                if row["verdict"]:
                    look = VERDICTS[row["verdict"]] | {"capsize": 2}
                    axis.errorbar(row["mean"], place, xerr=row["half-width"], **look)
                else:
                    axis.text(0, place, " runs are missing", size=7, color=QUIET, va="center")
            axis.set_title(lab.upper())
            axis.set_xlabel(own["unit"].iloc[-1].partition(",")[0], size=9)
            axis.tick_params("x", labelsize=8)
            axis.grid(visible=False, axis="y")
        axes[0, 0].set_yticks(range(len(asked)), [q.replace(": ", ":\n") for q in asked], size=8)
        axes[0, 0].set_ylim(len(asked) - 0.5, -0.5)
        key = [Line2D([], [], label=verdict, **look) for verdict, look in VERDICTS.items()]
        figure.legend(handles=key, loc="outside lower center", ncols=3, fontsize=8)
        plt.close(figure)
    words = [
        f"{row['lab'].upper()}, {row['asks']}: {row['verdict']}, {row['mean']:+.2f} ± {row['half-width']:.2f}"
        for _, row in answers[answers["verdict"] != ""].iterrows()
    ]
    return with_description(
        figure,
        "95% intervals for sets like these, a row a question, with 0 marked. "
        f"{'; '.join(words) or 'None is answered yet'}.",
    )


# ------------------------------------------------------------------------------ points and their key


def _pictures(tables: Sequence[pd.DataFrame]) -> tuple[Figure, list[Axes]]:
    """One below the other, and the key of all methods under them."""
    key = [
        Line2D([], [], color=color, marker=marker, ls="", ms=7, label=get_method(method).label)
        for method, (color, marker) in _looks(tables).items()
    ]
    lines = -(-len(key) // 3)
    figure, axes = plt.subplots(
        len(tables),
        figsize=(WIDTH, HEIGHT * len(tables) + KEY * lines),
        squeeze=False,
        layout="constrained",
    )
    figure.legend(handles=key, loc="outside lower center", ncols=3, fontsize=8, labelspacing=0.3)
    return figure, list(axes[:, 0])


def _looks(tables: Iterable[pd.DataFrame]) -> dict[str, tuple[str, str]]:
    """Method -> colour and marker: letters for all that the study is not about, by family."""
    methods = list(dict.fromkeys(method for table in tables for method in table["method"]))
    others = [method for method in methods if method not in OWN]
    own = {method: look for method, look in OWN.items() if method in methods}
    return own | {
        method: (_family(method), f"$\\mathrm{{{letter}}}$")
        for method, letter in zip(others, _letters(len(others)), strict=True)
    }


def _letters(count: int) -> list[str]:
    letters = [*ascii_uppercase, *map("".join, product(ascii_uppercase, repeat=2))]
    return letters[:count]


def _family(method: str) -> str:
    if method in CACHED_METHODS or method == "ln_bias":
        return QUIET  # no adapter
    if method.startswith("repadapter"):
        return GREEN
    return PURPLE if method.startswith(("lora_", "serial_")) and method != "lora_plus" else INK


def _draw(axes: Sequence[Axes], tables: Sequence[pd.DataFrame], cost: str) -> list[str]:
    """Every picture of a figure; each one's front in words."""
    looks, drawn, words = _looks(tables), [], []
    for axis, arms in zip(axes, tables, strict=True):
        points, front = arms.dropna(subset=[cost]), on_front(arms, "gain", cost)
        axis.plot(front[cost], front["gain"], color=QUIET, lw=1, zorder=1)
        axis.scatter(points[cost], points["gain"], s=0)  # limits are theirs
        axis.margins(x=0.06, y=0.12)
        if cost == "parameters":  # they differ by a factor of hundreds, time and memory by two
            _logarithmic(axis, points[cost])
        best = front[["title", "gain"]].to_numpy()
        words.append("; ".join(f"{title} {gain:+.1f}" for title, gain in best) or "not measured")
        # The first ones stay where they are, and get the best places for their names.
        axis.autoscale(False)
        points = points.assign(
            on=points["arm"].isin(front["arm"]), own=points["method"].isin(OWN)
        ).sort_values(["on", "own"], ascending=False, kind="stable")
        drawn.append((axis, points, _typical(axis, arms)))
    axes[0].figure.draw_without_rendering()  # now every point has its place
    for axis, points, bar in drawn:
        places = axis.transData.transform(points[[cost, "gain"]].to_numpy(float))
        places = _side_by_side(places)
        taken = [(*place - REACH, *place + REACH) for place in places]
        if bar is not None:
            taken.append(bar.get_window_extent().extents)
        for place, (_, arm) in zip(places, points.iterrows(), strict=True):
            color, marker = looks[arm["method"]]
            at = axis.transData.inverted().transform(place)
            axis.plot(*at, color=color, marker=marker, ms=6, mew=0.5, zorder=3, gid=arm["arm"])
            if arm["on"] or arm["own"]:
                _name(axis, place, at, arm, color, taken)
    return words


def _logarithmic(axis: Axes, values: pd.Series) -> None:
    least, most = (values.min(), values.max()) if len(values) else (1, 100)
    beyond = max(1.2, (most / least) ** 0.06) if most > least else 3
    axis.set(xscale="log", xlim=(least / beyond, most * beyond))
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if most < 10 * least else (1, 3)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


REACH = 4.5  # of a marker from its middle, in pixels


def _side_by_side(places: np.ndarray) -> np.ndarray:
    """Points (N, 2), in pixels, each moved along the axis of costs until none lies on one before it."""
    moved: list[np.ndarray] = []
    for place in places:
        for step in range(2 * len(places)):
            aside = 2 * REACH * (step + 1) // 2 * (-1) ** step
            here = place + (aside, 0)
            if all(np.abs(here - other).max() >= 2 * REACH for other in moved):
                break
        moved.append(here)
    return np.array(moved).reshape(-1, 2)


def _typical(axis: Axes, arms: pd.DataFrame) -> Annotation | None:
    """In a corner, how long the intervals of differences are; None where the reference is not there."""
    half = arms["above LoRA, half-width"].replace(0.0, np.nan).median()
    if np.isnan(half):
        return None
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, high - 6 * half), high)
    middle, beside = axis.get_ylim()[0] + 1.3 * half, axis.get_yaxis_transform()
    axis.errorbar(0.985, middle, half, color=QUIET, capsize=2, lw=1, transform=beside)
    words = f"a difference\nfrom LoRA: ±{half:.2g}"
    where = {"xycoords": beside, "textcoords": "offset points", "ha": "right", "va": "center"}
    return axis.annotate(words, (0.985, middle), (-6, 0), size=8, color=QUIET, **where)


# ------------------------------------------------------------------------------------------- names

DISTANCES = (9, 12, 18, 26, 36, 48, 62, 80)  # of a name from its point, in pixels
DIRECTIONS = np.linspace(0, 2 * np.pi, 16, endpoint=False)
FAR = 18  # from here on a line leads to the point


def _name(
    axis: Axes,
    place: np.ndarray,
    at: np.ndarray,
    arm: pd.Series,
    color: str,
    taken: list[Sequence[float]],
) -> None:
    """Write an arm's name near its point, where it covers no point and no other name, or least of them.

    Args:
        place, at: of the point, in pixels and in data.
        taken: boxes (left, bottom, right, top) of points and names; the name's own is added.
    """
    words = arm["title"].partition(", ")[2] if arm["own"] else arm["title"]
    style = {"size": 8, "color": color, "weight": "bold" if arm["on"] else "normal", "zorder": 4}
    halo = [withStroke(linewidth=2, foreground="white")]
    name = axis.annotate(words, at, (0, 0), textcoords="offset points", path_effects=halo, **style)
    size = np.array(name.get_window_extent().size)
    tried = list(product(DISTANCES, DIRECTIONS))
    toward = np.array([(np.cos(angle), np.sin(angle)) for _, angle in tried])
    far = np.array([distance for distance, _ in tried])
    corners = place + toward * (far[:, None] + size / 2) - size / 2
    boxes = np.hstack([corners, corners + size])
    outside = size.prod() - _shared(boxes, axis.get_window_extent().extents)
    covered = 10 * outside + sum(_shared(boxes, other) for other in taken)
    best = np.argmin(np.round(covered))  # the nearest of equals
    taken.append(boxes[best])
    points = 72 / axis.figure.dpi
    name.set_position(tuple((corners[best] - place) * points))
    name.set_in_layout(False)
    if far[best] >= FAR:
        nearest = np.clip(place, boxes[best, :2], boxes[best, 2:])
        line = {"arrowstyle": "-", "color": color, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
        to = tuple((nearest - place) * points)
        axis.annotate("", at, to, textcoords="offset points", arrowprops=line).set_in_layout(False)


def _shared(boxes: np.ndarray, other: Sequence[float]) -> np.ndarray:
    """The areas that boxes (N, 4) share with another one."""
    low, high = np.maximum(boxes[:, :2], other[:2]), np.minimum(boxes[:, 2:], other[2:])
    return np.clip(high - low, 0, None).prod(1)
