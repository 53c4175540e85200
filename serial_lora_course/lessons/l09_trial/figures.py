"""The ladder from LoRA to RepAdapter, what W does to a change, and the learner's own run beside the study."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

from serial_lora_course.lessons.l09_trial.tables import Found
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

RUNGS = (  # name, formula, and the rank at which the study compared it with its neighbours
    ("LoRA", r"$W_p\,x + B_p A_p\,x$", "rank 4"),
    ("one A", r"$W_p\,x + B_p A\,x$", "rank 6"),
    ("one B, through Q", r"$W_p\,x + Q_p B A\,x$", "rank 12"),
    ("Serial LoRA", r"$W_p\,(x + B A\,x)$", "rank 12"),
    ("RepAdapter", r"$W_p\,(x + B(Ax + a) + b)$", "width 4, against rank 4"),
)
ONE_B = ("serial_random-12", "lora_tied-6")  # no question of the plan: described, without a test
STEPS = (  # what changes; the question, and whether it asks for the new rung minus the old one
    ("share A", "sharing, parallel: one A above one for each of q, k, v", 1),
    ("share B, behind a\nrandom rotation", ONE_B, 1),
    ("W in its place", "basis: W above a random rotation of its size", 1),
    ("groups and biases", "the predecessor: above RepAdapter before attention", -1),
)
APART = 12.5  # from rung to rung
LABS = {
    "sam": "SAM\npoints of Dice",
    "clip": "CLIP\npoints of accuracy",
    "sd3": "SD3\npoints of style share",
}
COLUMNS = (1.0, 4.2, 7.4)  # of W_q, W_k, W_v
LINE = {"color": QUIET, "lw": 1.2, "zorder": 0}
MINE = {"marker": "o", "capsize": 3, "color": VERMILION, "lw": 1.6}
THEIRS = {"marker": "s", "capsize": 3, "color": INK, "lw": 1.6}
CORNERS = (  # the same change, a row for how many pairs, a column for what it goes through
    r"$W_p\,x + B_p A_p\,x$",
    r"$W_p\,(x + B_p A_p\,x)$",
    r"$W_p\,x + Q_p B A\,x$",
    r"$W_p\,(x + B A\,x)$",
)
COSTS = "#fbe6da"
Told = tuple[float, float]
"""A difference, and half of its interval."""


def plot_ladder(found: Found) -> Figure:
    """Five layers side by side, and under each step what it changed in each lab of the study."""
    with styled_figure(11.4, 5.4) as figure:
        above, below = figure.subplots(2, 1, height_ratios=(3, 2))
        for place, (name, formula, size) in enumerate(RUNGS):
            _layer(above, APART * place, place)
            middle = APART * place + 5.3
            above.text(middle, 13.2, name, ha="center", weight="bold")
            above.text(middle, 11.5, formula, ha="center", size=10)
            above.text(middle, -3.0, size, ha="center", size=9, color=QUIET)
        for axes in (above, below):
            axes.set(xlim=(-8, APART * len(RUNGS) - 0.5), ylim=(-3, 14.2))
            axes.set_axis_off()
        told = _steps(below, found)
    layers = "; ".join(f"{name}: {formula[1:-1]}".replace("\\,", "") for name, formula, _ in RUNGS)
    return with_description(figure, f"Five layers. {layers}. {told}")


def _layer(axes: Axes, left: float, rung: int) -> None:
    """W_q, W_k and W_v with the pairs of one rung: A narrows, B widens; Q is a random rotation."""
    middle, through_Q, in_front = left + 5.3, rung == 2, rung > 2
    low = (3.4, 3.0, 3.8, 4.4, 4.4)[rung]
    axes.text(middle, -1.4, "x", ha="center", style="italic")
    axes.plot([middle] * 2, [-0.3, (3.4, 1.6, 0.6, 0.6, 0.6)[rung]], **LINE)
    if rung == 1:
        _factor(axes, "A", middle, (1.6, 3.0), (9.0, 2.4))
    elif through_Q:
        _pair(axes, middle, 0.6, low, wide=4.6, split=False)
        axes.plot([middle, left - 0.3, left - 0.3], [0, 0, low + 1.2], **LINE)
    elif in_front:  # a pair in front, and the way past it
        _pair(axes, middle, 0.6, low, wide=4.6, split=rung == 4)
        axes.plot([middle, left + 8.6, left + 8.6, middle], [0, 0, low, low], **LINE)
    for column, part in zip(COLUMNS, "qkv", strict=True):
        at, beside = left + column, left + column + 1.6
        _matrix(axes, f"$W_{part}$", at, "#d9d9d9")
        start = left - 0.3 if through_Q else middle
        axes.plot([start, at, at], [low + 1.2 if through_Q else low, low + 1.2, 6.4], **LINE)
        axes.plot([at, at], [9.0, 10.0], **LINE)
        if in_front:
            continue
        if rung == 0:
            _pair(axes, beside, 5.6, 9.0, wide=1.4, split=False)
        elif rung == 1:
            _factor(axes, "B", beside, (7.3, 9.0), (0.47, 1.4))
        else:
            _matrix(axes, f"$Q_{part}$", beside, "#f1e3b8")
        reaches, turns = (6.4, 7.3, 6.4)[rung], low + (0.6 if through_Q else 1.2)
        axes.plot([middle, beside, beside], [low, turns, reaches], **LINE)
        axes.plot([beside, beside, at], [9.0, 9.5, 9.5], **LINE)


def _matrix(axes: Axes, name: str, at: float, colour: str) -> None:
    """A frozen square matrix."""
    axes.add_patch(Rectangle((at - 0.75, 6.4), 1.5, 2.6, color=colour, lw=0, zorder=1))
    axes.text(at, 7.7, name, ha="center", va="center", size=9)


def _pair(axes: Axes, at: float, low: float, high: float, wide: float, split: bool) -> None:
    """A and B, from below; B in two groups, and a bias behind each, if split."""
    middle, thin, edge = (low + high) / 2, wide / 3, wide / 2.2
    _factor(axes, "A", at, (low, middle - 0.1), (wide, thin))
    if not split:
        _factor(axes, "B", at, (middle + 0.1, high), (thin, wide))
        return
    for x in (at - wide / 6, at + wide / 6):
        _factor(axes, "B", x, (middle + 0.25, high - 0.1), (thin / 2, wide / 2.4))
        axes.plot([x - 0.5, x + 0.5], [middle + 0.08] * 2, color=INK, lw=1.6)
    axes.plot([at - edge, at + edge], [high + 0.05] * 2, color=INK, lw=1.6)
    for name, height in (("a", middle - 0.1), ("b", high)):
        axes.text(at - edge - 0.3, height, name, size=9, ha="right", va="center")


def _factor(axes: Axes, name: str, at: float, heights: tuple, widths: tuple) -> None:
    """A or B, a trapezium with its heights and widths below and above."""
    (low, high), (below, above) = heights, widths
    corners = [(-below, low), (below, low), (above, high), (-above, high)]
    shape = [(at + x / 2, y) for x, y in corners]
    axes.add_patch(Polygon(shape, color={"A": BLUE, "B": VERMILION}[name], lw=0, zorder=2))
    look = {"ha": "center", "va": "center", "color": "white", "size": 9, "weight": "bold"}
    axes.text(at, (low + high) / 2, name, zorder=3, **look)


def _steps(axes: Axes, found: Found) -> str:
    """A row a lab, a number a step; the same in words."""
    answers, told = {(each.lab, each.asks): each for each in found.answers}, []
    for place, (change, asks, sign) in enumerate(STEPS):
        left, right = APART * place + 5.3, APART * (place + 1) + 5.3
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.5, "shrinkA": 14, "shrinkB": 14}
        axes.annotate("", (right, 13.4), (left, 13.4), arrowprops=arrow)
        axes.text((left + right) / 2, 11.6, change, ha="center", va="center", size=10)
        for row, (lab, title) in enumerate(LABS.items()):
            height = 7.2 - 4.0 * row
            if place == 0:
                axes.text(-8, height, title, va="center", size=9)
            words, look = "not run", {"color": QUIET}
            if asks == ONE_B:
                words = str(found.described.get((lab, *ONE_B), words))
            elif answer := answers.get((lab, asks)):
                words = f"{sign * answer.like.mean:+.2f} ± {answer.like.half_width:.2f}"
                good = "holds" if sign > 0 else "fails"
                if answer.verdict != "open":
                    colour = GREEN if answer.verdict == good else VERMILION
                    look = {"color": colour, "weight": "bold"}
            axes.text((left + right) / 2, height, words, ha="center", va="center", **look)
            step = f"{RUNGS[place][0]} to {RUNGS[place + 1][0]}"
            told.append(f"{lab.upper()}, {step}: {words}")
    return f"What each step changed: {'; '.join(told)}."


def plot_trial(ways: Mapping[str, tuple[Told, Told]]) -> Figure:
    """Each way's difference from LoRA: in one's own run, over its scenes, and in the study, over its sets.

    Args:
        ways: name -> its difference and half of its interval, in one's own run and in the study.
    """
    told = []
    with styled_figure(8.4, 4.4) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=BLUE, lw=1)
        axes.text(0, 0.75, "LoRA", color=BLUE, ha="center")
        for place, (name, (own, study)) in enumerate(ways.items()):
            axes.errorbar(own[0], 0.13 - place, xerr=own[1], **MINE)
            axes.errorbar(study[0], -0.17 - place, xerr=study[1], **THEIRS)
            told.append(f"{name}: yours {_told(own)}, the study's {_told(study)}")
        axes.set_yticks([-place for place in range(len(ways))], list(ways))
        axes.set(ylim=(-len(ways) + 0.4, 1.1), xlabel="points of Dice above LoRA")
        for word, colour, at in (
            ("● your run, over its 60 scenes", VERMILION, 0.0),
            ("■ the study, over its 12 sets", INK, 0.45),
        ):
            axes.text(at, 1.02, word, color=colour, transform=axes.transAxes)
        axes.grid(axis="y", visible=False)
    return with_description(figure, f"Difference from LoRA. {'; '.join(told)}.")


def _told(interval: Told) -> str:
    return f"{interval[0]:+.2f} ± {interval[1]:.2f}"


def plot_corners(corners: Mapping[str, tuple[Told, Told]]) -> Figure:
    """Three pairs or one, through W or not: how far each of the four is above LoRA.

    Args:
        corners: name -> its difference and half of its interval, in one's own run and in the study, in the
            order of `CORNERS`. A corner whose interval in the study lies below zero is tinted.
    """
    told = []
    with styled_figure(9.4, 4.8) as figure:
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, formula, (name, (own, study)) in zip(
            grid.flat, CORNERS, corners.items(), strict=True
        ):
            axes.set_title(f"{name}   {formula}")
            axes.axvline(0, color=BLUE, lw=1)
            axes.errorbar(own[0], 1, xerr=own[1], **MINE)
            axes.errorbar(study[0], 0, xerr=study[1], **THEIRS)
            if sum(study) < 0:
                axes.set_facecolor(COSTS)
            clear = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1}
            beside = {"ha": "center", "va": "bottom", "size": 10, "bbox": clear}
            axes.text(own[0], 1.16, f"yours {_told(own)}", color=VERMILION, **beside)
            axes.text(study[0], 0.16, f"the study {_told(study)}", **beside)
            axes.set(ylim=(-0.5, 1.9), yticks=())
            told.append(f"{name}: yours {_told(own)}, the study's {_told(study)}")
        for axes in grid[1]:
            axes.set_xlabel("points of Dice above LoRA of rank 16")
    return with_description(figure, f"Difference from LoRA. {'; '.join(told)}.")


def plot_stretch(through_W: Tensor, through_Q: Tensor) -> Figure:
    """Singular values of several matrices of one size, and of the rotations in their place.

    Args:
        through_W, through_Q: (matrices, d), each falling, over the root mean square of W's.
    """
    middle = through_W.median(0).values
    places = range(1, through_W.shape[1] + 1)
    with styled_figure(8.4, 3.2) as figure:
        axes = figure.subplots()
        axes.plot(places, through_W.T, color=VERMILION, lw=0.6, alpha=0.35)
        axes.plot(places, middle, color=VERMILION, lw=2)
        axes.plot(places, through_Q.T, color=BLUE, lw=0.8)
        axes.set(yscale="log", ylim=(0.009, 12), xlim=(1, len(places)))
        axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
        axes.set_xticks([1, *range(32, len(places) + 1, 32)])
        axes.set(xlabel="direction, from the most stretched to the least", ylabel="times as long")
        axes.text(0.98, 1.25, f"Q: your {len(through_Q)} rotations", color=BLUE, **_at_right(axes))
        axes.text(
            0.55,
            0.12,
            f"W: SAM's {len(through_W)}, and their median",
            color=VERMILION,
            **_at_right(axes),
        )
    shown = ", ".join(f"{middle[i]:.2f}" for i in (0, len(middle) // 2, -1))
    return with_description(
        figure,
        f"Singular values over the root mean square of W's. Those of your rotations lie between "
        f"{through_Q.min():.2f} and {through_Q.max():.2f}. Of SAM's {len(through_W)} matrices the largest, "
        f"middle and smallest are {shown} in the median.",
    )


def _at_right(axes: Axes) -> dict:
    """Text that ends at a share of the width, at a height in the data's unit."""
    return {"ha": "right", "transform": axes.get_yaxis_transform()}
