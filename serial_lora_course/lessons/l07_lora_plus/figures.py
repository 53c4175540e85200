"""What steps of A and B do in a random layer, runs by overall rate and ratio, and a step taken in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

SKY, ORANGE = "#56b4e9", "#e69f00"  # lighter companions of blue and vermilion


def plot_widths(widths: Sequence[int], effects: Sequence[Sequence[float]], ours: int) -> Figure:
    """How far one step of A, and one of B, moves the output of a random layer, against its width, on log scales.

    Args:
        widths: of the layer.
        effects: for each width the effect of a step of A, and of one of B; then the most that A's could do, dotted.
        ours: the width of our model, marked by a line.
    """
    words = []
    with styled_figure(6.4, 3.6) as figure:
        axes = figure.subplots()
        *measured, most = zip(*effects, strict=True)
        beside = {"xytext": (8, 0), "textcoords": "offset points"}
        labels = (
            ("A", BLUE, "a step of A", "bottom"),
            ("B", VERMILION, "a step of B = its most", "top"),
        )
        for (name, colour, told, side), values in zip(labels, measured, strict=True):
            axes.plot(widths, values, color=colour, marker="o", linewidth=2.2)
            words.append(f"{name}: {values[0]:.2g} to {values[-1]:.2g}")
            axes.annotate(told, (widths[-1], values[-1]), color=colour, va=side, **beside)
        axes.plot(widths, most, color=BLUE, linestyle=":", linewidth=1.8)
        axes.annotate("A's most", (widths[-1], most[-1]), color=BLUE, va="center", **beside)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.axvline(ours, color=QUIET, linestyle=DASHED, linewidth=1.2)
        above = {"xytext": (4, 0), "textcoords": "offset points", "color": QUIET, "va": "top"}
        axes.annotate(f"our model: {ours}", (ours, max(most)), **above)
        axes.set_xlim(widths[0] / 1.2, 6 * widths[-1])  # labels stand beyond the last width
        axes.set_xticks(widths, [f"{width}" for width in widths])
        axes.minorticks_off()
        axes.spines["bottom"].set_bounds(widths[0], widths[-1])
        axes.set(xlabel="width d", ylabel="how far one step\nmoves an output")
        axes.set_title("Random layer, B as large as after one step", fontsize=11)
    span = f"from width {widths[0]} to {widths[-1]} (our model has {ours})"
    return with_description(
        figure, f"How far one step moves the output of a random layer, {span}. {'; '.join(words)}."
    )


def plot_overall(
    counts: Mapping[tuple[float, float], Sequence[int]], ylabel: str, zero_shot: int
) -> Figure:
    """Runs against the root of the product of their rates; a colour for each ratio, faint seeds, a line for one rate.

    Args:
        counts: (A's rate, B's rate) -> how many are right in each seed.
        ylabel: what the numbers are, such as "right of 73".
        zero_shot: how many are right without training.
    """
    lines: dict[float, dict[float, Sequence[int]]] = {}
    for (a, b), each in sorted(counts.items(), key=lambda run: run[0][0] * run[0][1]):
        lines.setdefault(float(f"{b / a:.1g}"), {})[float(f"{(a * b) ** 0.5:.2g}")] = each
    words = []
    looks = zip((BLUE, SKY, INK, ORANGE, VERMILION), "<vo^>", strict=True)
    with styled_figure(8, 4.6) as figure:
        axes = figure.subplots()
        axes.axhline(zero_shot, color=QUIET, linestyle=DASHED, linewidth=1.2)
        for i, (ratio, line) in enumerate(sorted(lines.items())):
            colour, marker = next(looks)
            told = "one rate"
            if ratio != 1:
                faster = "B" if ratio > 1 else "A"
                told = f"{faster} {max(ratio, 1 / ratio):.0f} × as fast"
            places = [rate * 1.07 ** (i - len(lines) // 2) for rate in line]  # dots stand apart
            means = [sum(each) / len(each) for each in line.values()]
            look = {"color": colour, "marker": marker}
            path = "-" if ratio == 1 else "none"  # others skip some of the overall rates
            axes.plot(places, means, linestyle=path, markersize=9, label=told, **look)
            for place, each in zip(places, line.values(), strict=True):
                axes.scatter([place] * len(each), each, alpha=0.3, s=24, **look)
            reached = [f"{rate:g}: {mean:.1f}" for rate, mean in zip(line, means, strict=True)]
            words.append(f"{told}: {', '.join(reached)}")
        axes.set_xscale("log")
        rates = sorted({rate for line in lines.values() for rate in line})
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.annotate(
            "zero-shot", (rates[-1], zero_shot), ha="right", va="bottom", color=QUIET, fontsize=10
        )
        axes.set(xlabel="overall rate: root of (rate of A × rate of B)", ylabel=ylabel)
        figure.legend(loc="outside upper center", ncols=5, columnspacing=1.2, handletextpad=0.4)
    told = f"{ylabel} against the overall rate; zero-shot {zero_shot}"
    return with_description(figure, f"{told}. {'; '.join(words)}.")


def plot_shares(shares: Sequence[float], losses: Mapping[str, Sequence[float]]) -> Figure:
    """A batch's loss against the share of A's step that is taken, a line for each B; ends are labelled.

    Args:
        shares: of A's step, from 0 to 1.
        losses: title -> the loss at each share.
    """
    words = []
    with styled_figure(7, 3.8) as figure:
        axes = figure.subplots()
        for (told, values), colour in zip(losses.items(), (BLUE, VERMILION), strict=True):
            axes.plot(shares, values, color=colour, marker="o", linewidth=2.2, label=told)
            for at in sorted({0, values.index(min(values)), len(values) - 1}):
                aside = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"{values[at]:.2f}", (shares[at], values[at]), color=colour, **aside)
            words.append(f"{told}: {', '.join(f'{value:.2f}' for value in values)}")
        axes.set(xlabel="share of A's step that is taken", ylabel="loss of the batch of step 2")
        axes.margins(y=0.15)
        figure.legend(loc="outside upper center", ncols=2)
    at = ", ".join(f"{share:g}" for share in shares)
    return with_description(figure, f"The loss at shares {at} of A's step. {'; '.join(words)}.")
