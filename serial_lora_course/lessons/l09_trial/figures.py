"""The study's pictures: what each method gains for its cost, and every question with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from serial_lora_course.labs.frames import on_front
from serial_lora_course.lessons.l09_trial.tables import Answer, Found
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    house_style,
    with_description,
)

COSTS = {
    "parameters": "trained parameters",
    "step time": "processor time of a step, LoRA = 1",
    "activations, MB": "MB kept for the backward pass",
}
"""Column -> what it is, in words."""
LOOKS = {"serial_lora": (VERMILION, "s", "Serial LoRA"), "lora": (BLUE, "o", "LoRA")}
OTHER = (QUIET, ".", "other methods")
NAMED = {
    "sam": {
        "serial_lora-4": ("Serial LoRA, rank 4", (10, -3)),
        "serial_lora-16": ("rank 16", (8, -12)),
        "lora-16": ("LoRA, rank 16", (-10, -12)),
        "serial_ffn-12": ("the pair before the feed-forward", (8, 3)),
        "ln_bias-1": ("LayerNorms and biases", (4, 5)),
    },
    "clip": {
        "serial_lora-4": ("Serial LoRA, rank 4", (10, -12)),
        "lora-16": ("LoRA, rank 16", (-10, 3)),
    },
    "sd3": {"serial_lora-12": ("Serial LoRA, rank 12", (10, -3))},
}
"""Lab -> arm -> what stands beside its point, and how far off, in points."""


def plot_fronts(found: Found, cost: str = "parameters") -> Figure:
    """Gain against a cost, a lab below the other; a line joins the arms that none beats.

    Bars are the 95% intervals of Serial LoRA's differences from LoRA's larger rank, over sets.

    Args:
        cost: one of `COSTS`.
    """
    labs = found.comparable
    with house_style():
        figure, axes = plt.subplots(
            len(labs), figsize=(8.5, 2.8 * len(labs)), squeeze=False, layout="constrained"
        )
        fronts = []
        for axis, (lab, arms) in zip(axes[:, 0], labs.items(), strict=True):
            fronts.append(f"{lab.upper()}: {_draw(axis, arms, cost, NAMED[lab])}")
            axis.set(title=lab.upper(), ylabel=f"gain, {found.units[lab]}")
        axis.set_xlabel(COSTS[cost])
        key = [
            Line2D([], [], color=color, marker=marker, ls="", label=label)
            for color, marker, label in (*LOOKS.values(), OTHER)
        ]
        figure.legend(handles=key, loc="outside lower center", ncols=3)
        plt.close(figure)
    told = f"Gain against {COSTS[cost]}. On the front, from the cheapest: "
    return with_description(figure, f"{told}{'. '.join(fronts)}.")


def _draw(
    axis: Axes, arms: pd.DataFrame, cost: str, named: Mapping[str, tuple[str, tuple[int, int]]]
) -> str:
    """One picture; its front in words."""
    points, front = arms.dropna(subset=[cost]), on_front(arms, "gain", cost)
    axis.plot(front[cost], front["gain"], color=QUIET, lw=1, zorder=1)
    if cost == "parameters":  # they differ by a factor of hundreds, time and memory by two
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    for method, own in points.groupby("method"):
        color, marker, _ = LOOKS.get(method, OTHER)
        bars = own["above LoRA, half-width"] if method == "serial_lora" else None
        look = {"color": color, "marker": marker, "ls": "", "lw": 1, "capsize": 2}
        axis.errorbar(own[cost], own["gain"], bars, **look, zorder=2)
    for _, arm in points[points["arm"].isin(named)].iterrows():
        words, (right, up) = named[arm["arm"]]
        style = {"size": 8, "color": LOOKS.get(arm["method"], OTHER)[0]}
        style |= {"ha": "left" if right > 0 else "right", "textcoords": "offset points"}
        axis.annotate(words, (arm[cost], arm["gain"]), (right, up), **style)
    axis.margins(x=0.06, y=0.12)
    return "; ".join(f"{arm['title']} {arm['gain']:+.1f}" for _, arm in front.iterrows())


VERDICTS = {
    "holds": {"color": GREEN, "marker": "o"},
    "fails": {"color": VERMILION, "marker": "X"},
    "open": {"color": QUIET, "marker": "o", "mfc": "white"},
}


def plot_answers(answers: Sequence[Answer]) -> Figure:
    """Every question with its interval for sets like these: a row a question, a lab beside the other."""
    labs = list(dict.fromkeys(answer.lab for answer in answers))
    asked = list(dict.fromkeys(answer.asks for answer in answers))
    with house_style():
        figure, axes = plt.subplots(
            ncols=len(labs),
            figsize=(8.5, 1.1 + 0.4 * len(asked)),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, lab in zip(axes[0], labs, strict=True):
            own = [answer for answer in answers if answer.lab == lab]
            axis.axvline(0, color=INK, lw=0.8)
            for answer in own:
                place, look = asked.index(answer.asks), VERDICTS[answer.verdict]
                like = answer.like
                axis.errorbar(like.mean, place, xerr=like.half_width, capsize=2, **look)
            axis.set_title(lab.upper())
            axis.set_xlabel(own[-1].unit.partition(",")[0], size=9)
            axis.tick_params("x", labelsize=8)
            axis.grid(visible=False, axis="y")
        axes[0, 0].set_yticks(range(len(asked)), [q.replace(": ", ":\n") for q in asked], size=8)
        axes[0, 0].set_ylim(len(asked) - 0.5, -0.5)
        key = [Line2D([], [], label=verdict, **look) for verdict, look in VERDICTS.items()]
        figure.legend(handles=key, loc="outside lower center", ncols=3, fontsize=8)
        plt.close(figure)
    words = "; ".join(f"{a.lab.upper()}, {a.asks}: {a.verdict}, {a.like}" for a in answers)
    about = "95% intervals for sets like these, a row a question, with 0 marked. "
    return with_description(figure, f"{about}{words}.")
