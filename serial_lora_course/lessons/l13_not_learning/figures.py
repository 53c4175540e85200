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
OTHERS = "class vectors (run 2),\nlast matrix (run 4)"
KINDS = {"lora_A": BLUE, "lora_B": VERMILION, OTHERS: INK}
ROWS = 3  # of curves
LABEL = {"va": "center", "bbox": {"fc": "white", "ec": "none", "pad": 0.5}}  # on top of a line


def plot_curves(
    curves: Mapping[int | str, Sequence[float]],
    healthy: str = "",
    chance: float | None = None,
    apart: Collection[int | str] = (),
    fixed: Mapping[int | str, Sequence[float]] | None = None,
) -> Figure:
    """A panel for each run: the loss of every step, faint, the running mean, the first loss and the last.

    Args:
        curves: title -> losses.
        healthy: the one without a fault.
        chance: the loss of a guess among equal classes.
        apart: titles of runs whose loss is of another kind; all others have one scale.
        fixed: title -> losses of the fixed run.
    """
    shown = [*curves.items(), *((t, run) for t, run in (fixed or {}).items() if t in curves)]
    highest = max((max(run) for title, run in shown if title not in apart), default=1)
    said, columns = [], -(-len(curves) // ROWS)
    with styled_figure(2.8 * columns, 1.75 * ROWS) as figure:
        panels = figure.subplots(ROWS, columns, squeeze=False).flat
        for axes, (title, losses) in zip(panels, curves.items(), strict=False):
            end, width = len(losses), len(losses) // PARTS
            top = 1.2 * (max(losses) if title in apart else highest)
            drawn = [run for run in (losses, (fixed or {}).get(title)) if run]
            heights = apart_by(0.13 * top, [last(run) for run in drawn])
            for run, height in zip(drawn, heights, strict=True):
                color = VERMILION if run is losses and title != healthy else BLUE
                means = np.convolve(run, np.ones(width) / width, "valid")
                axes.plot(run, color=color, alpha=0.25, linewidth=1)
                axes.plot(range(width - 1, end), means, color=color, linewidth=2.2)
                axes.scatter([0], run[:1], color=color, s=16, zorder=3)
                axes.text(1.03 * end, height, f"{last(run):.2f}", color=color, **LABEL)
            axes.text(-0.04 * end, losses[0], f"{losses[0]:.2f}", ha="right", **LABEL)
            notes = [f"same as {t}" for t, other in curves.items() if other == losses][:1]
            note = "another loss" if title in apart else notes[0]
            if not note.endswith(f" {title}"):
                axes.text(0.97, 0.95, note, transform=axes.transAxes, ha="right", va="top")
            if chance is not None and title not in apart:
                axes.axhline(chance, color=QUIET, linewidth=1, linestyle=DASHED)
            name = f"run {title}" if isinstance(title, int) else title
            axes.set_title(f"{name}, fixed in blue" if fixed else name)
            axes.set(ylim=(0, top), xlim=(-0.32 * end, 1.25 * end))
            ends = ", fixed ".join(f"{last(run):.2f}" for run in drawn)
            said.append(f"{title}: {losses[0]:.2f} at first, {ends} at the end")
        for axes in figure.axes[-columns:]:
            axes.set_xlabel("step")
        for axes in figure.axes[::columns]:
            axes.set_ylabel("loss")
        if chance is not None and not fixed:
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
    with styled_figure(8.4, 4.8) as figure:
        axes = figure.subplots()
        for row, (title, (found, lost, share)) in enumerate(runs.items()):
            for place, (name, (_, most)) in enumerate(found.items()):
                y = row + 0.1 * (2 * place / max(1, len(found) - 1) - 1) * (len(found) > 1)
                y += {"A": -0.22, "B": 0.22}.get(name[-1], 0)  # A above B
                color = next((c for kind, c in KINDS.items() if name.endswith(kind)), INK)
                look = {"marker": "x"} if name in lost else {"marker": "o", "mfc": "white"}
                look = {"marker": "o"} if most else look
                axes.plot(most or NOWHERE, y, color=color, markersize=4, linestyle="", **look)
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
        names = [f"run {title}" if isinstance(title, int) else title for title in runs]
        axes.set_yticks(range(len(runs)), names, weight="bold")
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
    runs: Mapping[int | str, Mapping[str, tuple[str, bool]]],
    groups: Mapping[str, Sequence[str]] | None = None,
    colored: bool = True,
    rules: Mapping[str, str] | None = None,
) -> Figure:
    """A row for each run and a column for each question, with the answers.

    Args:
        runs: title -> question -> the answer, and whether it is as it should be.
        groups: title -> questions, from left to right; then answers of runs that show no fault are pale.
        colored: whether an answer that shows a fault is orange.
        rules: question -> how the answer should be, below the question.
    """
    questions = list(next(iter(runs.values())))
    if groups:
        questions = [each for group in groups.values() for each in group]
    orange = [[colored and not told[q][1] for q in questions] for told in runs.values()]
    height = 0.9 + 0.5 * len(runs) + (0.4 if rules else 0)
    with styled_figure(1.1 * len(questions), height) as figure:
        axes = figure.subplots()
        colors = ListedColormap(["#ebebeb", "#f0b088"])
        axes.pcolormesh(orange, cmap=colors, vmin=0, vmax=1, ec="white", lw=2)
        for row, (title, told) in enumerate(runs.items()):
            for column, question in enumerate(questions):
                answer, fine = told[question]
                pale = groups and fine and isinstance(title, int)
                look = {"ha": "center", "va": "center", "color": "#757575" if pale else INK}
                text = answer.replace(", ", "\n")
                axes.text(column + 0.5, row + 0.5, text, fontsize=8.5, **look)
        start = 0
        for title, group in (groups or {}).items():
            middle = start + len(group) / 2
            axes.text(middle, len(runs) + 0.15, title, ha="center", va="top", weight="bold")
            start += len(group)
            axes.axvline(start, color=INK, linewidth=1.5)
        axes.grid(visible=False)
        axes.set(ylim=(len(runs), 0), xlim=(0, len(questions)))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        heads = [fill(each, 11) for each in questions]
        axes.set_xticks(np.arange(len(questions)) + 0.5, heads)
        if rules:
            axes.tick_params(axis="x", pad=30)
            for column, question in enumerate(questions):
                look = {"ha": "center", "va": "bottom", "fontsize": 8.5, "style": "italic"}
                axes.text(column + 0.5, -0.08, rules[question], **look)
        names = [f"run {title}" if isinstance(title, int) else title for title in runs]
        axes.set_yticks(np.arange(len(runs)) + 0.5, names, weight="bold")
    said = "; ".join(
        f"{name}: "
        + ", ".join(f"{q} {told[q][0]}" for q in questions if not (groups and told[q][1]))
        for name, told in zip(names, runs.values(), strict=True)
    )
    return with_description(figure, f"Answers of each run. {said}.")


def counted(found: Mapping[str, bool]) -> str:
    """Of how many tensors of each kind it is true: ``lora_A 6 of 6, lora_B 0 of 6``."""
    kinds = {name.rpartition(".")[2]: [] for name in found}
    for name, true in found.items():
        kinds[name.rpartition(".")[2]].append(true)
    return ", ".join(f"{kind} {sum(each)} of {len(each)}" for kind, each in kinds.items())


def apart_by(distance: float, heights: Sequence[float]) -> list[float]:
    """Heights of one or two labels, pushed away from each other until they are legible."""
    low, high = min(heights), max(heights)
    push = max(0.0, distance - (high - low)) / 2 * (len(heights) > 1)
    return [each + (push if each == high else -push) for each in heights]


def last(losses: Sequence[float]) -> float:
    """The mean over the last steps."""
    return float(np.mean(losses[-LAST:]))
