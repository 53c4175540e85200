"""The ladder from LoRA to RepAdapter, and what each method gains for its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from serial_lora_course.lessons.l09_trial.tables import Answer
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    house_style,
    with_description,
)

RUNGS = (
    ("LoRA", r"$W_p\,x + B_p A_p\,x$"),
    ("one shared A", r"$W_p\,x + B_p A\,x$"),
    ("Serial LoRA", r"$W_p\,(x + B A\,x)$"),
    ("RepAdapter", r"$W_p\,(x + B(Ax + a) + b)$"),
)
STEPS = (  # what changes; the question, and whether it asks for the new rung minus the old one
    ("share A", "sharing, parallel: one A above one for each of q, k, v", 1),
    ("put it in front", "form: serial above parallel, A shared in both", 1),
    ("groups and biases", "the predecessor: above RepAdapter before attention", -1),
)
LABS = {
    "sam": "SAM\nhundredths of Dice",
    "clip": "CLIP\npoints of accuracy",
    "sd3": "SD3\npoints of style share",
}
COLUMNS = (1.0, 4.2, 7.4)  # of W_q, W_k, W_v
NAMED = {  # arm -> its name on the front, and how far from its dot, in points
    "lora-16": ("LoRA, rank 16", (-8, -10)),
    "lora-4": ("LoRA, rank 4", (8, 0)),
    "serial_lora-16": ("Serial LoRA, rank 16", (8, 0)),
    "serial_lora-4": ("Serial LoRA, rank 4", (8, 0)),
    "serial_ffn-12": ("the pair\nbefore the\nfeed-forward", (-5, 0)),
    "ln_bias-1": ("norms and\nbiases", (8, 18)),
    "vera-192": ("VeRA", (-8, 4)),
    "repadapter_two-42": ("RepAdapter,\nboth places", (-8, 0)),
}
LINE = {"color": QUIET, "lw": 1.2, "zorder": 0}


def plot_ladder(answers: Sequence[Answer] = ()) -> Figure:
    """Four layers side by side, and under each step what it changed in each lab.

    Args:
        answers: the study's; without them the layers alone are drawn.
    """
    height = 5.2 if answers else 3.2
    with house_style():
        figure = Figure(figsize=(9.6, height), layout="constrained")
        rows = figure.subplots(2, 1, height_ratios=(3, 2)) if answers else [figure.subplots()]
        above = rows[0]
        for place, (name, formula) in enumerate(RUNGS):
            _layer(above, 12.5 * place, place)
            above.text(12.5 * place + 5.3, 12.4, name, ha="center", weight="bold")
            above.text(12.5 * place + 5.3, 10.7, formula, ha="center", size=11)
        for axes in rows:
            axes.set(xlim=(-8 if answers else -1, 49.5), ylim=(-1.5, 13.4))
            axes.set_axis_off()
        told = _steps(rows[1], answers) if answers else ""
    layers = "; ".join(f"{name}: {formula[1:-1]}".replace("\\,", "") for name, formula in RUNGS)
    return with_description(figure, f"Four layers. {layers}. {told}")


def _layer(axes: Axes, left: float, rung: int) -> None:
    """W_q, W_k and W_v with the pairs of one rung: A narrows, B widens."""
    middle, low = left + 5.3, (3.4, 3.0, 4.4, 4.4)[rung]
    axes.text(middle, -1.4, "x", ha="center", style="italic")
    axes.plot([middle] * 2, [-0.3, (3.4, 1.6, 0.6, 0.6)[rung]], **LINE)
    if rung == 1:
        _factor(axes, "A", middle, (1.6, 3.0), (9.0, 2.4))
    elif rung > 1:  # a pair in front, and the way past it
        _pair(axes, middle, 0.6, 4.4, wide=4.6, split=rung == 3)
        axes.plot([middle, left + 8.6, left + 8.6, middle], [0, 0, 4.4, 4.4], **LINE)
    for column, part in zip(COLUMNS, "qkv", strict=True):
        at, beside = left + column, left + column + 1.6
        axes.add_patch(Rectangle((at - 0.8, 6.4), 1.6, 2.6, color="#d9d9d9", lw=0))
        axes.text(at, 7.7, f"$W_{part}$", ha="center", va="center", size=10)
        axes.plot([middle, at, at], [low, low + 1.2, 6.4], **LINE)
        axes.plot([at, at], [9.0, 10.0], **LINE)
        if rung == 0:
            _pair(axes, beside, 5.6, 9.0, wide=1.4, split=False)
        elif rung == 1:
            _factor(axes, "B", beside, (7.3, 9.0), (0.47, 1.4))
        if rung < 2:
            axes.plot([middle, beside, beside], [low, low + 1.2, 7.3 if rung else 6.4], **LINE)
            axes.plot([beside, beside, at], [9.0, 9.5, 9.5], **LINE)


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


def _steps(axes: Axes, answers: Iterable[Answer]) -> str:
    """A row a lab, a number a step; the same in words."""
    found, told = {(each.lab, each.asks): each for each in answers}, []
    for place, (change, asks, sign) in enumerate(STEPS):
        left, right = 12.5 * place + 5.3, 12.5 * place + 17.8
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.5, "shrinkA": 14, "shrinkB": 14}
        axes.annotate("", (right, 12.6), (left, 12.6), arrowprops=arrow)
        axes.text((left + right) / 2, 11.2, change, ha="center", va="center", size=10)
        for row, (lab, title) in enumerate(LABS.items()):
            height = 7.6 - 4.0 * row
            if place == 0:
                axes.text(-8, height, title, va="center", size=9)
            answer = found.get((lab, asks))
            like = answer and answer.like
            words = f"{sign * like.mean:+.2f} ± {like.half_width:.2f}" if like else "not run"
            said = answer.verdict if answer else "open"
            good = "holds" if sign > 0 else "fails"
            look = {"color": GREEN if said == good else VERMILION, "weight": "bold"}
            look = {"color": QUIET} if said == "open" else look
            axes.text((left + right) / 2, height, words, ha="center", va="center", **look)
            step = f"{RUNGS[place][0]} to {RUNGS[place + 1][0]}"
            told.append(f"{lab.upper()}, {step}: {words}")
    return f"What each step changed: {'; '.join(told)}."


def plot_front(arms: pd.DataFrame, front: Iterable[int], unit: str) -> Figure:
    """Gain above LoRA against parameters: a few arms by name, the others as dots, the front as steps.

    Args:
        arms: a row an arm; with columns arm, parameters, above LoRA, and half of that interval.
        front: positions of the arms that none beats.
    """
    on_it, told = arms.iloc[sorted(front)].sort_values("parameters"), []
    with house_style():
        figure = Figure(figsize=(6.8, 5.4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color=BLUE, lw=1)
        axes.plot(on_it["parameters"], on_it["above LoRA"], color=GREEN, lw=5, alpha=0.25)
        axes.plot(arms["parameters"], arms["above LoRA"], ".", color="#9a9a9a")
        for _, arm in arms[arms["arm"].isin(NAMED)].iterrows():
            (words, offset), at = NAMED[arm["arm"]], (arm["parameters"], arm["above LoRA"])
            colour = {"serial_lora": VERMILION, "lora": BLUE}.get(arm["method"], INK)
            half = arm["above LoRA, half-width"]
            axes.errorbar(*at, half, color=colour, marker="o", capsize=3, lw=1)
            style = {"ha": "left" if offset[0] > 0 else "right", "va": "center", "color": colour}
            axes.annotate(words, at, offset, textcoords="offset points", **style)
            told.append(f"{' '.join(words.split())} {at[1]:+.2f} at {at[0]:,.0f}")
        axes.text(5.2e4, 0.84, "the front", color=GREEN, ha="center")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set(xlabel="trained parameters", ylabel=f"above LoRA of rank 16, {unit}")
    return with_description(figure, f"Gain above LoRA against parameters. {'; '.join(told)}.")
