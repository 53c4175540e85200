"""Where steps of A and B are equal in random layers, and the same runs against three rates."""

from __future__ import annotations

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


def plot_meeting(
    widths: Sequence[int],
    lines: Mapping[int, Sequence[tuple[float, float]]],
    ours: tuple[int, float, float],
) -> Figure:
    """The rate of A at which its step overtakes B's, estimated and measured, against a layer's width.

    Args:
        widths: of the layers.
        lines: tokens in a batch -> the rates estimated and measured, at each width.
        ours: our model's width, A's rate, and the one at which it would overtake B.
    """
    with styled_figure(7, 4.2) as figure:
        axes = figure.subplots()
        estimated = [each for each, _ in lines[1]]
        axes.plot(widths, estimated, color=BLUE, linewidth=2.2, label="your estimate")
        for tokens, look in zip(lines, ("o", "s--"), strict=True):
            measured = [rate for _, rate in lines[tokens]]
            label = f"random layers, {tokens} token{'s' * (tokens > 1)} in a batch"
            axes.plot(widths, measured, look, color=INK, linewidth=1, label=label)
        look = {"color": VERMILION, "markersize": 9, "linestyle": "none", "marker": "D"}
        axes.plot(ours[0], ours[2], fillstyle="none", **look)
        axes.plot(*ours[:2], **look)
        axes.set(xscale="log", yscale="log", xlabel="width d of the layer", ylabel="rate of A")
        axes.set_ylim(ours[1] / 2, 2 * max(measured))
        grey = {"color": QUIET, "transform": axes.transAxes, "fontsize": 12}
        axes.text(0.82, 0.66, "A's step is longer", ha="center", **grey)
        axes.text(0.13, 0.25, "B's step is longer", ha="center", **grey)
        look = {"textcoords": "offset points", "color": VERMILION}
        axes.annotate("in our model", (ours[0], ours[2]), (0, -18), ha="center", **look)
        axes.annotate("our LoRA and LoRA+", ours[:2], (10, -4), **look)
        axes.set_xticks(widths, [f"{width}" for width in widths])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(loc="upper right")
        axes.set_title("In wider layers A's step overtakes B's at a lower rate", fontsize=11)
    told = [f"{width}: {rate:.2g}" for width, (_, rate) in zip(widths, lines[1], strict=True)]
    text = f"The rate of A at which its step overtakes B's, by width, for one token. {'; '.join(told)}."
    return with_description(figure, f"{text} Our model: width {ours[0]}, rate {ours[1]:g}.")


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
                axes.plot(rates, [means[pair] for pair in line], markersize=7, label=label, **look)
                for rate, pair in zip(rates, line, strict=True):
                    axes.scatter([rate] * len(shares[pair]), shares[pair], s=14, alpha=0.3, **look)
            axes.axhline(zero_shot, color=QUIET, linestyle="--", label="zero-shot")
            at = plus[0] ** (1 - power) * plus[1] ** power
            other = means[
                min(
                    (pair for pair in means if pair[0] == pair[1]),
                    key=lambda pair: abs(pair[0] - at),
                )
            ]
            arrow = {"arrowstyle": "-|>", "linewidth": 2.5, "color": BLUE}
            axes.annotate("", (at, means[plus]), (at, other), arrowprops=arrow)
            words.append(f"same {told}: {100 * (means[plus] - other):+.0f} points")
            axes.set_title(words[-1], fontsize=11, color=BLUE)
            axes.set(xscale="log", xlabel=told)
        ticks = sorted(a for a, b in shares if a == b)[::2]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:.0%}")
        row[0].set_ylabel("accuracy")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return with_description(figure, f"What LoRA+ gains over one rate, {'; '.join(words)}.")
