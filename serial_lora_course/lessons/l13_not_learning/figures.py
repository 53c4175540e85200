"""Loss curves side by side, and one before and after it was fixed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serial_lora_course.plots.style import BLUE, INK, VERMILION, styled_figure, with_description

PARTS = 6  # of a run: a mean is over one of them


def plot_curves(
    curves: Mapping[str, Sequence[float]],
    apart: Collection[str] = (),
    mended: Mapping[str, Sequence[float]] | None = None,
    half: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """A panel for each run: the loss of every step, faint, and its running mean.

    Args:
        curves: title -> losses.
        apart: titles of runs whose loss is of another kind; all others have one scale.
        mended: the same runs without their faults; a run that has one is dashed.
        half: the same with one of two faults mended, dotted.
    """
    later = {"one fault mended": (half or {}, INK, ":"), "mended": (mended or {}, BLUE, "-")}
    highest = max(max(losses) for title, losses in curves.items() if title not in apart)
    said = []
    with styled_figure(8.4, 4.6) as figure:
        panels = figure.subplots(2, -(-len(curves) // 2)).flat
        for axes, (title, losses) in zip(panels, curves.items(), strict=False):
            dashed = "--" if any(title in runs for runs, *_ in later.values()) else "-"
            draw_curve(axes, losses, VERMILION, label="as posted", linestyle=dashed)
            said.append(f"{title}: {first(losses):.2f} to {last(losses):.2f}")
            for name, (runs, color, line) in later.items():
                if title in runs:
                    draw_curve(axes, runs[title], color, label=name, linestyle=line)
                    said[-1] += f", {name} to {last(runs[title]):.2f}"
            name = f"{title}, no fault" if mended and title not in mended else title
            axes.set(title=name, ylim=(0, 1.05 * (max(losses) if title in apart else highest)))
        for axes in figure.axes[len(curves) // 2 :]:
            axes.set_xlabel("step")
        for axes in figure.axes[:: len(curves) // 2]:
            axes.set_ylabel("loss")
        if mended:
            drawn = [axes.get_legend_handles_labels() for axes in figure.axes[::-1]]
            lines = {  # each from the first panel that has it
                label: line for one in drawn for line, label in zip(*one, strict=True)
            }
            figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines))
    return with_description(figure, f"Loss of each run, first and last sixth: {'; '.join(said)}.")


def plot_fixed(posted: Sequence[float], fixed: Sequence[float]) -> Figure:
    """The loss of a run as it was posted, dashed, and mended."""
    runs = {"as posted": (posted, VERMILION, "--"), "mended": (fixed, BLUE, "-")}
    with styled_figure(4.4, 2.6) as figure:
        axes = figure.subplots()
        for name, (losses, color, line) in runs.items():
            draw_curve(axes, losses, color, label=name, linestyle=line)
        axes.set(xlabel="step", ylabel="loss", ylim=(0, 1.05 * max(*posted, *fixed)))
        axes.legend(loc="lower left")
    said = ", ".join(f"{last(losses):.2f} {name}" for name, (losses, *_) in runs.items())
    return with_description(figure, f"Loss in the last sixth of the run: {said}.")


def draw_curve(axes: Axes, losses: Sequence[float], color: str, **look: str) -> None:
    """Each step's loss, faint, and the mean over a sixth of the run that ends there."""
    width = len(losses) // PARTS
    means = np.convolve(losses, np.ones(width) / width, "valid")
    axes.plot(losses, color=color, alpha=0.25, linewidth=1)
    axes.plot(range(width - 1, len(losses)), means, color=color, linewidth=2.2, **look)


def first(losses: Sequence[float]) -> float:
    """The mean over the first sixth of a run."""
    return float(np.mean(losses[: len(losses) // PARTS]))


def last(losses: Sequence[float]) -> float:
    """The mean over the last sixth of a run."""
    return float(np.mean(losses[-(len(losses) // PARTS) :]))
