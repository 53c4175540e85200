"""What steps of A and B do in a random layer, and runs by their overall rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)


def plot_widths(
    widths: Sequence[int], ratios: Mapping[float, Sequence[float]], ours: int
) -> Figure:
    """A's step over B's in random layers, a line for each rate, on log scales, with a line where they are equal.

    Args:
        widths: of the layers.
        ratios: rate -> how far A's step moves an output, over how far B's does, at each width.
        ours: the width of our model, marked by a line.
    """
    words, heights = [], (0.01, 0.1, 1, 10)
    with styled_figure(7, 4.2) as figure:
        axes = figure.subplots()
        axes.axhline(1, color=INK, linewidth=1.2)
        axes.axvline(ours, color=QUIET, linestyle=DASHED, linewidth=1.2)
        beside = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        for (rate, values), colour in zip(ratios.items(), (BLUE, GREEN, VERMILION), strict=True):
            axes.plot(widths, values, color=colour, marker="o", linewidth=2.2)
            axes.annotate(f"rate {rate:g}", (widths[-1], values[-1]), color=colour, **beside)
            words.append(f"rate {rate:g}: {values[0]:.2g} to {values[-1]:.2g}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        grey = {"textcoords": "offset points", "color": QUIET, "fontsize": 10}
        axes.annotate(f"our model: {ours}", (ours, axes.get_ylim()[0]), (5, 5), **grey)
        for told, side, step in (
            ("A's step is longer", "bottom", 4),
            ("B's step is longer", "top", -5),
        ):
            axes.annotate(told, (1.25 * ours, 1), (0, step), va=side, **grey)
        axes.set_xlim(widths[0] / 1.2, 3.2 * widths[-1])  # labels stand beyond the last width
        axes.set_xticks(widths, [f"{width}" for width in widths])
        axes.set_yticks(heights, [f"{height:g}" for height in heights])
        axes.minorticks_off()
        axes.spines["bottom"].set_bounds(widths[0], widths[-1])
        axes.set(xlabel="width d of the layer", ylabel="A's step over B's")
        axes.set_title("How far A's step moves an output, over how far B's does", fontsize=11)
    span = f"from width {widths[0]} to {widths[-1]} (our model has {ours})"
    return with_description(
        figure, f"A's step over B's in random layers, {span}. {'; '.join(words)}."
    )


def plot_overall(
    counts: Mapping[tuple[float, float], Sequence[int]],
    named: Mapping[str, tuple[float, float]],
    ylabel: str,
    zero_shot: int,
) -> Figure:
    """Runs against the root of the product of their rates: a line for one rate, one for a faster B, seeds faint.

    Args:
        counts: (A's rate, B's rate) -> how many are right in each seed.
        named: name -> the rates of a run that gets a label.
        ylabel: what the numbers are, such as "right of 73".
        zero_shot: how many are right without training.
    """
    words = []
    with styled_figure(8, 4.6) as figure:
        axes = figure.subplots()
        axes.axhline(zero_shot, color=QUIET, linestyle=DASHED, linewidth=1.2)
        looks = (
            ("one rate for A and B", False, {"color": INK, "marker": "o"}, 0.98),
            ("LoRA+: B 10 times as fast as A", True, {"color": VERMILION, "marker": "^"}, 1.02),
        )
        for told, faster, look, aside in looks:  # the two stand a little apart
            line = {(a * b) ** 0.5: each for (a, b), each in counts.items() if (b > a) == faster}
            line = dict(sorted(line.items()))
            means = [sum(each) / len(each) for each in line.values()]
            places = [rate * aside for rate in line]
            axes.plot(places, means, markersize=9, linewidth=2.2, label=told, **look)
            for place, each in zip(places, line.values(), strict=True):
                axes.scatter([place] * len(each), each, alpha=0.35, s=22, **look)
            reached = [f"{rate:.2g}: {mean:.1f}" for rate, mean in zip(line, means, strict=True)]
            words.append(f"{told}: {', '.join(reached)}")
        rates = sorted({float(f"{(a * b) ** 0.5:.2g}") for a, b in counts})
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        for name, (a, b) in named.items():
            faster, each = b > a, counts[a, b]
            look = {"color": VERMILION if faster else INK, "ha": "right" if faster else "left"}
            offset = (-10, 6) if faster else (10, -16)
            at = ((a * b) ** 0.5, sum(each) / len(each))
            axes.annotate(name, at, offset, textcoords="offset points", fontweight="bold", **look)
        axes.annotate(
            "zero-shot", (rates[-1], zero_shot), ha="right", va="bottom", color=QUIET, fontsize=10
        )
        axes.set(xlabel="overall rate: root of (rate of A × rate of B)", ylabel=ylabel)
        figure.legend(loc="outside upper center", ncols=2)
    told = f"{ylabel} against the overall rate; zero-shot {zero_shot}"
    return with_description(figure, f"{told}. {'; '.join(words)}.")
