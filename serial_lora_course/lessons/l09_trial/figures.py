"""Two methods' rates, rivals beside Serial LoRA, the ladder to RepAdapter, and what W stretches."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

from serial_lora_course.lessons.l09_trial.tables import Found
from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
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
    ("Serial LoRA", r"$W_p\,(x + B A\,x)$", "rank 12; last step: rank 4"),
    ("RepAdapter", r"$W_p\,(x + B(Ax + a) + b)$", "width 4"),
)
ONE_B = ("serial_random-12", "lora_tied-6")  # no question of the plan: described, without a test
STEPS = (  # what changes; the question, and whether it asks for the new rung minus the old one
    ("share A", "sharing, parallel: one A above one for each of q, k, v", 1),
    ("share B, behind a\nrandom rotation", ONE_B, 1),
    ("W in its place", "basis: W above a random rotation of its size", 1),
    ("groups and biases", "the predecessor: above RepAdapter before attention", -1),
)
APART = 12.5  # from rung to rung
COLUMNS = (1.0, 4.2, 7.4)  # of W_q, W_k, W_v
LINE = {"color": QUIET, "lw": 1.2, "zorder": 0}
MINE = {"marker": "o", "capsize": 3, "color": VERMILION, "lw": 1.6}
THEIRS = {"marker": "s", "capsize": 3, "color": INK, "lw": 1.6}
Told = tuple[float, float]
"""A difference, and half of its interval."""


def plot_ladder(found: Found) -> Figure:
    """Five layers side by side, and under each step what it changed on SAM in the study."""
    with styled_figure(11.4, 4.4) as figure:
        axes = figure.subplots()
        for place, (name, formula, size) in enumerate(RUNGS):
            _layer(axes, APART * place, place)
            middle = APART * place + 5.3
            axes.text(middle, 13.2, name, ha="center", weight="bold")
            axes.text(middle, 11.5, formula, ha="center", size=10)
            axes.text(middle, -3.0, size, ha="center", size=9, color=QUIET)
        axes.set(xlim=(-1.5, APART * len(RUNGS) - 0.5), ylim=(-9.2, 14.2))
        axes.set_axis_off()
        told = _steps(axes, found)
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
    """Below the layers a number a step; the same in words."""
    answers, told = {each.asks: each for each in found.answers if each.lab == "sam"}, []
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.5, "shrinkA": 14, "shrinkB": 14}
    for place, (change, asks, sign) in enumerate(STEPS):
        left, right = APART * place + 5.3, APART * (place + 1) + 5.3
        axes.annotate("", (right, -4.3), (left, -4.3), arrowprops=arrow)
        like, look = found.described.get(("sam", *ONE_B)), {"color": QUIET}
        if asks != ONE_B:
            like = answers[asks].like
            if answers[asks].verdict != "open":
                better = (answers[asks].verdict == "holds") == (sign > 0)
                look = {"color": GREEN if better else VERMILION, "weight": "bold"}
        words = f"{sign * like.mean:+.2f} ± {like.half_width:.2f}"
        middle = {"x": (left + right) / 2, "ha": "center", "va": "center"}
        axes.text(y=-6.0, s=change, size=10, **middle)
        axes.text(y=-8.3, s=words, size=12, **middle, **look)
        told.append(f"{RUNGS[place][0]} to {RUNGS[place + 1][0]}: {words}")
    return f"What each step changed on SAM, in points of Dice: {'; '.join(told)}."


def plot_rates(searches: Mapping[str, pd.DataFrame], shared: float) -> Figure:
    """What each of two methods reached at each rate; marked: at a rate for both, and each at its best.

    Args:
        searches: a panel's title -> a row a rate, a column a method.
        shared: the rate for both.
    """
    told = []
    with styled_figure(10.0, 3.6) as figure:
        for axes, (title, search) in zip(
            figure.subplots(1, len(searches), squeeze=False)[0], searches.items(), strict=True
        ):
            axes.axvline(shared, color=QUIET, lw=1, linestyle=DASHED)
            for (name, reached), colour in zip(search.items(), (VERMILION, BLUE), strict=True):
                reached = reached.dropna()
                best = reached.idxmax()
                axes.plot(reached.index, reached, "o-", color=colour, lw=1.8, label=name)
                axes.plot(best, reached[best], "o", ms=14, mfc="none", mec=colour, mew=1.8)
                values = ", ".join(f"{v:.2f} at {r:g}" for r, v in reached.items())
                told.append(f"{title}, {name}: {values}")
            axes.set(xscale="log", title=title, xlabel="learning rate (dashed: one for both)")
            axes.set_xticks(list(search.index), [f"{rate:g}" for rate in search.index])
            axes.minorticks_off()
        figure.axes[0].set_ylabel("points of Dice (circled: best)")
        figure.axes[0].legend(loc="lower left", framealpha=1, edgecolor="none")
    return with_description(figure, f"Dice for each rate. {'; '.join(told)}.")


def plot_rivals(
    rivals: Mapping[str, tuple[Told, Told | None, float | None]], second: float
) -> Figure:
    """How far each rival is above Serial LoRA: in one's own run, over its scenes, and in the study, over its sets.

    Args:
        rivals: name -> its difference and half of its interval, in one's own run and in the study; and above
            which bar the whole interval has to lie for a promise to fall.
        second: where Serial LoRA itself would be in one's own run, at its second rate.
    """
    told = []
    with styled_figure(8.8, 4.8) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=INK, lw=1)
        axes.axvline(second, color=VERMILION, lw=1.2, linestyle=DASHED)
        for place, (name, (own, study, bar)) in enumerate(rivals.items()):
            if bar is not None:
                axes.barh(-place, 100, 0.86, left=bar, color="#ececec", zorder=0)
            axes.errorbar(own[0], 0.13 - place, xerr=own[1], **MINE)
            told.append(f"{name}: yours {_told(own)}")
            if study:
                axes.errorbar(study[0], -0.17 - place, xerr=study[1], **THEIRS)
                told[-1] += f", the study's {_told(study)}"
        axes.set_yticks([-place for place in range(len(rivals))], list(rivals))
        right = max(sum(own) for own, _, _ in rivals.values())
        axes.set(ylim=(-len(rivals) + 0.4, 0.6), xlim=(-1.6, right + 0.5))
        axes.set_xlabel(
            "points of Dice above Serial LoRA before attention\n"
            "(a promise falls where the whole interval is in its grey band)"
        )
        for word, colour, at in (
            ("● your run, over its 60 scenes", VERMILION, 0.0),
            ("■ the study, over its 12 sets", INK, 0.45),
        ):
            axes.text(at, 1.02, word, color=colour, transform=axes.transAxes)
        where = {"x": second + 0.1, "y": -len(rivals) + 0.5}
        axes.text(**where, s="Serial LoRA at its second rate", color=VERMILION, size=10)
        axes.grid(axis="y", visible=False)
    return with_description(
        figure,
        f"Difference from Serial LoRA. {'; '.join(told)}. Serial LoRA at its second rate: {second:+.2f}.",
    )


def _told(interval: Told) -> str:
    return f"{interval[0]:+.2f} ± {interval[1]:.2f}"


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
        axes.set(
            xlabel="direction, from the most stretched to the least", ylabel="times as long as by Q"
        )
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
