"""Every question of the study with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from serial_lora_course.lessons.l09_trial.tables import Answer
from serial_lora_course.plots.style import (
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
