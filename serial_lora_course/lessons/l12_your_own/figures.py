"""A classifier's answers on the pictures themselves, and methods on the same draws."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from pandas import DataFrame
from PIL.Image import Image
from torch import Tensor

from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)


def show_predictions(
    pictures: Sequence[Image], shares: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Figure:
    """A grid of pictures, each with its answer above it, the true class if it is wrong, and a frame.

    Args:
        shares: (N, C) probabilities.
        labels: (N,) the right classes.
    """
    best = shares.max(-1)
    answers = [class_names[i].replace("_", " ") for i in best.indices]
    right = (best.indices == labels).tolist()
    marks = ["✓" if good else "✗" for good in right]
    rows = zip(answers, best.values, marks, strict=True)
    titles = [f"{name}\n{sure:.0%} {mark}" for name, sure, mark in rows]
    for i, label in enumerate(labels):
        titles[i] += "" if right[i] else f"\n({class_names[label].replace('_', ' ')})"
    figure = show_pictures(pictures, titles, size=1.25)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, 1.22 * height)  # room for a third line
    for axes, good in zip(figure.axes, right, strict=False):
        colour = GREEN if good else VERMILION
        axes.title.set(color=colour, fontsize=8)
        axes.axis("on")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=colour, linewidth=3)
    told = "; ".join(titles).replace("\n", ", ")
    said = f"{sum(right)} of {len(right)} answers are right: {told}."
    return with_description(figure, said)


def plot_seeds(draws: Sequence[DataFrame], mended: DataFrame | None = None) -> Figure:
    """A panel for each question, a row for each method, a numbered dot for each draw.

    Args:
        draws: accuracy in per cent, a row for each method, a column for each question.
        mended: one more such table, drawn as hollow dots.
    """
    looks = ((PURPLE, "D"), (GREEN, "^"), (BLUE, "s"), (VERMILION, "o"))[-len(draws[0]) :]
    methods, said = list(draws[0].index), []
    with styled_figure(12, 3.2) as figure:
        panels = figure.subplots(1, draws[0].shape[1], sharex=True, sharey=True)
        for axes, question in zip(panels, draws[0], strict=True):
            for draw in draws:
                axes.plot(list(draw[question]), range(len(methods)), color=QUIET, lw=1, zorder=0)
            for row, (name, (colour, marker)) in enumerate(zip(methods, looks, strict=False)):
                found = [float(draw.loc[name, question]) for draw in draws]
                axes.scatter(
                    found, [row] * len(found), color=colour, marker=marker, s=110, alpha=0.8
                )
                for i, each in enumerate(found):
                    axes.text(each, row, str(i), color="white", size=7, ha="center", va="center")
                said.append(f"{question}, {name}: {', '.join(f'{each:.1f}' for each in found)}")
                if mended is not None:
                    new = float(mended.loc[name, question])
                    axes.scatter(new, row + 0.3, marker=marker, s=60, fc="none", ec=INK, lw=1.5)
                    axes.annotate(
                        "", (new, row + 0.3), (found[0], row), arrowprops={"arrowstyle": "-"}
                    )
                    said[-1] += f", mended {new:.1f}"
            axes.vlines(25, -0.5, len(methods) - 0.4, color=QUIET, linestyles="dotted")
            axes.text(26, -0.25, "chance", color=QUIET, size=8)
            axes.set(title=question, xlabel="accuracy (%)", ylim=(len(methods) - 0.4, -0.5))
            axes.set_yticks(range(len(methods)), methods)
        if mended is not None:
            panels[0].scatter(
                [], [], s=60, fc="none", ec=INK, lw=1.5, label="folder mended, draw 0"
            )
            figure.legend(loc="outside lower right", frameon=False)
    return with_description(figure, f"Accuracy in per cent, draw by draw. {'; '.join(said)}.")
