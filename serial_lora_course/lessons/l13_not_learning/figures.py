"""Loss curves side by side, what two steps move, which weights are stuck, and what finds a fault."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

PARTS = 6  # of a run: a running mean is over one of them
LAST = 5  # steps at a run's end, of the same batches in every run
NOWHERE = 0.2  # where a mark of no change stands
KINDS = {"lora_A": BLUE, "lora_B": VERMILION, "another tensor": INK}
ROWS = 3  # of curves


def plot_curves(
    curves: Mapping[int | str, Sequence[float]],
    healthy: str = "",
    chance: float | None = None,
    apart: Collection[int | str] = (),
) -> Figure:
    """A panel for each run: the loss of every step, faint, the first with its number, and the running mean.

    Args:
        curves: title -> losses.
        healthy: the one without a fault.
        chance: the loss of a guess among equal classes.
        apart: titles of runs whose loss is of another kind; all others have one scale.
    """
    highest = max(max(losses) for title, losses in curves.items() if title not in apart)
    said = []
    columns = -(-len(curves) // ROWS)
    with styled_figure(8.4, 5.2) as figure:
        panels = figure.subplots(ROWS, columns, squeeze=False).flat
        for axes, (title, losses) in zip(panels, curves.items(), strict=False):
            width = len(losses) // PARTS
            means = np.convolve(losses, np.ones(width) / width, "valid")
            color = BLUE if title == healthy else VERMILION
            axes.plot(losses, color=color, alpha=0.25, linewidth=1)
            axes.plot(range(width - 1, len(losses)), means, color=color, linewidth=2.2)
            axes.scatter([0], losses[:1], color=color, s=16, zorder=3)
            axes.annotate(
                f"{losses[0]:.2f}", (0, losses[0]), (5, 4), textcoords="offset points", color=INK
            )
            top = 1.2 * (max(losses) if title in apart else highest)
            if title in apart:
                axes.text(
                    0.97, 0.95, "another loss", transform=axes.transAxes, ha="right", va="top"
                )
            elif chance is not None:
                axes.axhline(chance, color=QUIET, linewidth=1, linestyle=DASHED)
            axes.set(title=f"run {title}" if isinstance(title, int) else title, ylim=(0, top))
            said.append(f"{title}: {losses[0]:.2f} at first, {last(losses):.2f} at the end")
        for axes in figure.axes[-columns:]:
            axes.set_xlabel("step")
        for axes in figure.axes[::columns]:
            axes.set_ylabel("loss")
        if chance is not None:
            axes, end = figure.axes[0], len(next(iter(curves.values())))
            axes.text(end, chance + 0.1, f"chance {chance:.2f}", color=QUIET, ha="right")
    return with_description(figure, f"Loss of each run. {'; '.join(said)}.")


def plot_moved(
    runs: Mapping[int | str, tuple[Mapping[str, tuple[float, float]], Collection[str], float]],
) -> Figure:
    """A row for each run, and there a mark for each trained tensor: how far it moved, in rates.

    Args:
        runs: title -> what moved (name -> share, largest change), names of tensors without a gradient, and
            the share of all numbers that moved.
    """
    said = []
    with styled_figure(8.4, 4.6) as figure:
        axes = figure.subplots()
        for row, (title, (found, lost, share)) in enumerate(runs.items()):
            for place, (name, (_, most)) in enumerate(found.items()):
                y = row + 0.3 * (2 * place / max(1, len(found) - 1) - 1) * (len(found) > 1)
                color = next((c for kind, c in KINDS.items() if name.endswith(kind)), INK)
                look = {"marker": "x"} if name in lost else {"marker": "o", "mfc": "white"}
                look = {"marker": "o"} if most else look
                axes.plot(most or NOWHERE, y, color=color, markersize=5, linestyle="", **look)
            axes.text(1.03, row, f"{share:.0%}", transform=axes.get_yaxis_transform(), va="center")
            moving = sum(most > 0 for _, most in found.values())
            far = " or ".join(
                sorted({f"{most:.2g}" for _, most in found.values() if most}, key=float)
            )
            said.append(
                f"{title}: {moving} of {len(found)}, {share:.0%} of the numbers, by {far or 0}"
            )
        for kind, color in KINDS.items():
            axes.plot([], [], color=color, marker="o", linestyle="", label=kind)
        axes.plot([], [], color=INK, marker="o", mfc="white", linestyle="", label="did not move")
        axes.plot([], [], color=INK, marker="x", linestyle="", label="no gradient came")
        axes.axvline(2, color=QUIET, linewidth=1, linestyle=DASHED)
        axes.text(2.1, -0.3, "two full steps", color=QUIET)
        axes.text(1.03, -0.75, "numbers\nmoved", transform=axes.get_yaxis_transform())
        axes.set(
            xscale="log",
            xlim=(0.14, 60),
            ylim=(len(runs) - 0.5, -0.6),
            title="What two steps moved",
        )
        axes.set_xticks([NOWHERE, 0.5, 1, 2, 5, 10, 20, 50], "0 0.5 1 2 5 10 20 50".split())
        axes.set_xticks([], minor=True)
        axes.set_yticks(range(len(runs)), [f"{title}" for title in runs], weight="bold")
        axes.set_xlabel("largest change of each trained tensor / the rate that was asked for")
        figure.legend(loc="outside lower center", ncols=5)
    return with_description(figure, f"Tensors moved in two steps, in rates. {'; '.join(said)}.")


def plot_rounded(size: Tensor, moves: Tensor, bound: float) -> Figure:
    """How many weights of each size two steps move, and how many not.

    Args:
        size: of each weight.
        moves: whether it moved.
        bound: above it, a step is less than half of the way to the next number.
    """
    with styled_figure(5.6, 2.7) as figure:
        axes = figure.subplots()
        kinds = [size[moves].numpy(), size[~moves].numpy()]
        bins = [2 ** (i / 2) for i in range(-24, 1)]
        names = ["moved", "did not move"]
        axes.hist(kinds, bins, stacked=True, color=[BLUE, "#f0b088"], label=names)
        axes.axvline(bound, color=INK, linestyle=DASHED)
        axes.set(xscale="log", xlabel="size of a weight", ylabel="weights")
        axes.set_title("Two steps move the small weights alone")
        axes.legend(loc="upper left")
    return with_description(
        figure,
        f"Of the weights up to {bound:.4f}, {moves[size <= bound].float().mean():.0%} moved, of the others "
        f"{moves[size > bound].float().mean():.1%}.",
    )


def plot_found(
    healthy: Mapping[str, str],
    found: Mapping[int, Mapping[str, str]],
    groups: Mapping[str, Sequence[str]],
) -> Figure:
    """A row for each run and a column for each question, with the answers that show a fault.

    Args:
        healthy: question -> the answer of the run without a fault.
        found: run -> question -> an answer that its mended run does not give.
        groups: title -> questions, from left to right.
    """
    questions = [each for group in groups.values() for each in group]
    rows = {"healthy": healthy} | {f"run {number}": answers for number, answers in found.items()}
    orange = [[name != "healthy" and q in rows[name] for q in questions] for name in rows]
    with styled_figure(8.8, 5.4) as figure:
        axes = figure.subplots()
        axes.pcolormesh(orange, cmap=ListedColormap(["#ebebeb", "#f0b088"]), ec="white", lw=2)
        for row, answers in enumerate(rows.values()):
            for column, question in enumerate(questions):
                text = answers.get(question, "").replace(", ", "\n")
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8.5)
        start = 0
        for title, group in groups.items():
            middle = start + len(group) / 2
            axes.text(middle, len(rows) + 0.15, title, ha="center", va="top", weight="bold")
            start += len(group)
            axes.axvline(start, color=INK, linewidth=1.5)
        axes.grid(visible=False)
        axes.set(ylim=(len(rows), 0), xlim=(0, len(questions)))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(questions)) + 0.5, [fill(each, 11) for each in questions])
        axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows), weight="bold")
    said = "; ".join(f"{name}: {', '.join(a)}" for name, a in rows.items() if name != "healthy")
    return with_description(figure, f"Which question finds which run. {said}.")


def last(losses: Sequence[float]) -> float:
    """The mean over the last steps."""
    return float(np.mean(losses[-LAST:]))
