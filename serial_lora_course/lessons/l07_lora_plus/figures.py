"""Steps of A and B, where they are equally long, the same runs against three rates, and fair gains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots.style import (
    BLUE,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

STEPS_OF = {"A": {"color": BLUE}, "B": {"color": VERMILION, "linestyle": "--"}}


def plot_steps(
    panels: Mapping[str, Mapping[str, Sequence[float]]], shared: str | None = None
) -> Figure:
    """What A and B do in each step of training.

    Args:
        panels: title -> "A" and "B" -> a number at each step.
        shared: the name of one logarithmic axis for all panels, where a zero has no place.
    """
    told = []
    with styled_figure(9, 3.6) as figure:
        row = figure.subplots(1, len(panels), sharey=bool(shared))
        for axes, (title, lines) in zip(row, panels.items(), strict=True):
            for kind, values in lines.items():
                points = [(step, each) for step, each in enumerate(values, 1) if each or not shared]
                look = STEPS_OF[kind] | {"marker": "o", "markersize": 4, "linewidth": 2}
                axes.plot(*zip(*points, strict=True), label=kind, **look)
                told.append(f"{title}, {kind}: {', '.join(f'{each:.2g}' for each in values)}")
            axes.set(xlabel="step of training", xticks=range(1, len(values) + 1, 3))
            axes.set_yscale("log" if shared else "linear")
            axes.set_title(title, fontsize=11)
        row[0].set_ylabel(shared or "")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return with_description(figure, f"{'; '.join(told)}.")


def plot_catching_up(
    widths: Sequence[int], rates: Sequence[float], ours: tuple[int, float, float]
) -> Figure:
    """The rate of A at which its step catches up with B's, against the width of a layer.

    Args:
        widths: of the layers.
        rates: by the two sums, at each width.
        ours: our model's width, A's rate, and the one at which its scores move equally far.
    """
    width, rate, met = ours
    with styled_figure(7, 3.8) as figure:
        axes = figure.subplots()
        axes.plot(widths, rates, "o-", color=BLUE, label="equally long, by your two sums")
        look = {"color": VERMILION, "markersize": 9, "linestyle": "none", "marker": "D"}
        axes.plot(width, met, fillstyle="none", label="equally long, measured in our model", **look)
        axes.plot(width, rate, label="A's rate in our LoRA and LoRA+", **look)
        axes.set(xscale="log", yscale="log", xlabel="width d of the layer", ylabel="rate of A")
        axes.set_ylim(min(rates) / 2, 6 * max(rates))
        grey = {"color": QUIET, "transform": axes.transAxes, "fontsize": 12}
        axes.text(0.7, 0.5, "A's step is longer", **grey)
        axes.text(0.02, 0.12, "B's step is longer", **grey)
        axes.set_xticks(widths, [f"{each}" for each in widths])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(loc="upper right")
    told = [f"{each}: {found:.2g}" for each, found in zip(widths, rates, strict=True)]
    text = f"The rate of A at which its step is as long as B's, by width. {'; '.join(told)}."
    return with_description(figure, f"{text} Our model, {width} wide: {met:.2g}, and has {rate:g}.")


def plot_draws(gains: Sequence[float], claimed: float) -> Figure:
    """How often each gain of LoRA+ came out, beside the gain that was claimed, in points."""
    with styled_figure(7, 2.6) as figure:
        axes = figure.subplots()
        counts = Counter(round(each, 2) for each in gains)
        axes.bar(counts.keys(), counts.values(), width=0.6, color=BLUE)
        axes.axvline(0, color=INK, linewidth=1)
        axes.axvline(claimed, color=VERMILION, linewidth=2.5)
        look = {"color": VERMILION, "textcoords": "offset points", "ha": "right"}
        axes.annotate("against A's rate ", (claimed, axes.get_ylim()[1] * 0.8), (0, 0), **look)
        axes.set(xlabel="what LoRA+ gains, in points", ylabel="draws")
        axes.set_title("Each at its best, judged on the other half", fontsize=11, color=BLUE)
    text = f"What LoRA+ gains: {min(gains):+.1f} to {max(gains):+.1f} points, each at its best"
    return with_description(figure, f"{text}; {claimed:+.1f} against A's rate.")


def plot_opponents(
    shares: Mapping[tuple[float, float], Sequence[float]],
    plus: tuple[float, float],
    zero_shot: float,
) -> Figure:
    """The same runs against A's rate, the root of both, and B's: a line for one rate, one for LoRA+, seeds faint.

    Args:
        shares: (A's rate, B's rate) -> the accuracy in each seed.
        plus: the run of LoRA+ whose gain over one rate is an arrow in each panel.
        zero_shot: the accuracy before training.
    """
    means = {pair: sum(each) / len(each) for pair, each in shares.items()}
    kinds = (
        ("one rate for A and B", False, {"color": INK, "marker": "o"}),
        ("LoRA+: B ten times as fast as A", True, {"color": VERMILION, "marker": "^"}),
    )
    words, names = [], ("rate of A", "√(A · B)", "rate of B")
    with styled_figure(9, 4.2) as figure:
        row = figure.subplots(1, 3, sharex=True, sharey=True)
        for axes, told, power in zip(row, names, (0, 0.5, 1), strict=True):
            for label, faster, look in kinds:
                line = sorted(pair for pair in shares if (pair[1] > pair[0]) == faster)
                rates = [a ** (1 - power) * b**power for a, b in line]
                means_of = [means[pair] for pair in line]
                axes.plot(rates, means_of, markersize=5, linewidth=1.2, label=label, **look)
                for rate, pair in zip(rates, line, strict=True):
                    beside = [rate * (1.12 if faster else 0.89)] * len(shares[pair])
                    axes.scatter(beside, shares[pair], s=12, alpha=0.3, linewidths=0, **look)
            axes.axhline(zero_shot, color=QUIET, linestyle="--", label="zero-shot")
            at = plus[0] ** (1 - power) * plus[1] ** power
            ones = {abs(a - at): means[a, b] for a, b in shares if a == b}
            other = ones[min(ones)]
            for height, (_, _, look) in zip((other, means[plus]), kinds, strict=True):
                axes.plot(at, height, markersize=11, **look)
            arrow = {"arrowstyle": "-|>", "linewidth": 2.5, "color": BLUE}
            axes.annotate("", (at, means[plus]), (at, other), arrowprops=arrow)
            words.append(f"same {told}: {100 * (means[plus] - other):+.0f} points")
            axes.set_title(words[-1], fontsize=11, color=BLUE)
            axes.set(xscale="log", xlabel=told)
        ticks = sorted(a for a, b in shares if a == b)
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        for axes in row:
            axes.tick_params("x", labelsize=8)
            axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:.0%}")
        row[0].set_ylabel("accuracy")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return with_description(figure, f"What LoRA+ gains over one rate, {'; '.join(words)}.")
