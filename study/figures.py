"""The study's pictures: every question with its interval, and what each arm gains for its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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

VERDICTS = {
    "holds": {"color": GREEN, "marker": "o"},
    "fails": {"color": VERMILION, "marker": "X"},
    "open": {"color": QUIET, "marker": "o", "mfc": "white"},
}


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


def plot_answers(answers: Sequence[Answer]) -> Figure:
    """Every question with its interval for sets like these: a row a question, a lab beside the other."""
    labs = list(dict.fromkeys(answer.lab for answer in answers))
    asked = list(dict.fromkeys(answer.asks for answer in answers))
    with house_style():
        figure, axes = plt.subplots(
            ncols=len(labs),
            figsize=(8.5, 1.1 + 0.4 * len(asked)),
            sharey=True,
            layout="constrained",
        )
        for axis, lab in zip(axes, labs, strict=True):
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
        axes[0].set_yticks(range(len(asked)), [q.replace(": ", ":\n") for q in asked], size=8)
        axes[0].set_ylim(len(asked) - 0.5, -0.5)
        key = [Line2D([], [], label=verdict, **look) for verdict, look in VERDICTS.items()]
        figure.legend(handles=key, loc="outside lower center", ncols=3, fontsize=8)
        plt.close(figure)
    words = "; ".join(f"{a.lab.upper()}, {a.asks}: {a.verdict}, {a.like}" for a in answers)
    about = "95% intervals for sets like these, a row a question, with 0 marked. "
    return with_description(figure, f"{about}{words}.")


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
