"""The race of A and B, what their steps do, runs by their rates, and a trial held many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)


def plot_race(races: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """How far A and B have moved over the steps, on a log scale; of two races the second is dashed.

    A line begins where a matrix has moved: weight decay alone moves A a thousand times less, which does not count.

    Args:
        races: title -> for ``A`` and ``B`` the distance from the start, before each step and at the end.
    """
    words = []
    least = max(max(line) for race in races.values() for line in race.values()) / 1000
    with styled_figure(8, 4) as figure:
        axes = figure.subplots()
        for (title, race), line in zip(races.items(), ("-", DASHED), strict=False):
            for name, colour, aside in (("A", BLUE, "top"), ("B", VERMILION, "bottom")):
                moved = {step: far for step, far in enumerate(race[name]) if far > least}
                look = {"color": colour, "linestyle": line, "linewidth": 2.2}
                axes.plot([*moved], [*moved.values()], marker="o", markevery=[0], **look)
                beside = {"xytext": (6, 0), "textcoords": "offset points", "va": aside}
                end = (len(race[name]) - 1, race[name][-1])
                words.append(f"{name}, {title}: {race[name][-1]:.2g}")
                axes.annotate(words[-1], end, color=colour, **beside)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="steps taken", ylabel="distance from the start")
        last = len(race["A"]) - 1
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0, 1.28 * last)  # the labels stand beyond the last step
        axes.set_xticks([step for step in axes.get_xticks() if 0 <= step <= last])
        axes.spines["bottom"].set_bounds(0, last)
    return with_description(figure, f"How far A and B have moved in the end. {'; '.join(words)}.")


def plot_widths(widths: Sequence[int], effects: Sequence[Sequence[float]], size_B: float) -> Figure:
    """How far one step of A, and one of B, moves the output of a random layer, against its width, on log scales.

    Args:
        widths: of the layer.
        effects: for each width the effect of a step of A, and of one of B; then the most that A's could do, dotted.
        size_B: of B's entries, for the title.
    """
    words = []
    with styled_figure(6.4, 3.6) as figure:
        axes = figure.subplots()
        *measured, most = zip(*effects, strict=True)
        for name, colour, values in zip("AB", (BLUE, VERMILION), measured, strict=True):
            axes.plot(widths, values, color=colour, marker="o", linewidth=2.2)
            words.append(f"{name}: {values[0]:.2g} to {values[-1]:.2g}")
            beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"a step of {name}", (widths[-1], values[-1]), color=colour, **beside)
        axes.plot(widths, most, color=BLUE, linestyle=":", linewidth=1.8)
        axes.annotate("A at most", (widths[-1], most[-1]), color=BLUE, **beside)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlim(widths[0] / 1.2, 3.2 * widths[-1])  # labels stand beyond the last width
        axes.set_xticks(widths, [f"{width}" for width in widths])
        axes.minorticks_off()
        axes.spines["bottom"].set_bounds(widths[0], widths[-1])
        axes.set(xlabel="width d", ylabel="how far one step\nmoves an output")
        axes.set_title(f"Random layer, B's entries of size {size_B:.3f}", fontsize=11)
    span = f"from width {widths[0]} to {widths[-1]}"
    return with_description(
        figure, f"How far one step moves the output of a random layer, {span}. {'; '.join(words)}."
    )


def plot_steps(moves: Mapping[str, Mapping[tuple[float, float], float]]) -> Figure:
    """How far a step of A, and one of B, moves the scores, against B's rate, on log scales.

    Args:
        moves: ``A`` and ``B`` -> (A's rate, B's rate) -> mean change of a score. B's are one line, for the least rate of A.
    """
    rates = sorted({rate for pair in moves["A"] for rate in pair})
    lines = [("B", rates[0], "a step of B", VERMILION)]
    lines += [("A", rate, f"a step of A at {rate:g}", BLUE) for rate in rates]
    words = []
    with styled_figure(7, 4) as figure:
        axes = figure.subplots()
        for name, of_A, told, colour in lines:
            values = [moves[name][of_A, rate] for rate in rates]
            axes.plot(rates, values, color=colour, marker="o", linewidth=2.2)
            beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(told, (rates[-1], values[-1]), color=colour, **beside)
            words.append(f"{told}: {', '.join(f'{value:.2g}' for value in values)}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(rates[0] / 1.4, rates[-1] * 8)  # labels stand beyond the last rate
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.spines["bottom"].set_bounds(rates[0], rates[-1])
        axes.set(xlabel="learning rate of B", ylabel="mean change of a score")
        axes.set_title("Our model, step 2: how far one step moves the scores", fontsize=11)
    at = ", ".join(f"{rate:g}" for rate in rates)
    return with_description(
        figure, f"How far step 2 moves the scores at B's rates {at}. {'; '.join(words)}."
    )


def plot_rates(
    right: Mapping[tuple[float, float], Sequence[int]], counted: str, zero_shot: int
) -> Figure:
    """Runs as a square, mean and each seed: B's rate to the right, A's upwards; darker is more, red less than zero-shot.

    Args:
        right: (A's rate, B's rate) -> how many are right in each seed.
        counted: what the numbers are, such as "right of 73".
        zero_shot: how many are right without training.
    """
    rates = sorted({rate for pair in right for rate in pair})
    words, size = [], len(rates)
    means = np.array([[np.mean(right[a, b]) for b in rates] for a in rates])
    reach = 1.9 * abs(means - zero_shot).max()
    with styled_figure(2.4 * size, 1.35 * size) as figure:
        axes = figure.subplots()
        limits = {"vmin": zero_shot - reach, "vmax": zero_shot + reach}
        axes.imshow(means, "RdBu", origin="lower", aspect="auto", **limits)
        for (up, a), (across, b) in product(enumerate(rates), enumerate(rates)):
            middle = {"ha": "center", "va": "center", "color": INK}
            each = ", ".join(f"{count}" for count in right[a, b])
            axes.text(
                across, up + 0.1, f"{means[up, across]:.1f}", fontsize=20, weight="bold", **middle
            )
            axes.text(across, up - 0.28, f"seeds: {each}", fontsize=10, **middle)
            words.append(f"A {a:g}, B {b:g}: {means[up, across]:.1f} ({each})")
            if a == b:
                frame = {"edgecolor": INK, "facecolor": "none", "linewidth": 2.4}
                axes.add_patch(Rectangle((across - 0.48, up - 0.47), 0.96, 0.94, **frame))
        for side in (axes.xaxis, axes.yaxis):
            side.set_ticks(range(size), [f"{rate:g}" for rate in rates])
        axes.set(xlabel="learning rate of B", ylabel="learning rate of A")
        axes.set_title(counted, fontsize=10)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return with_description(figure, f"{counted}. A frame: one rate for both. {'; '.join(words)}.")


def plot_ratios(
    counts: Mapping[tuple[float, float], Sequence[int]], ylabel: str, zero_shot: int
) -> Figure:
    """How many are right at each rate of B, each seed a dot; a line through the means of each ratio with several runs.

    Args:
        counts: (A's rate, B's rate) -> how many are right in each seed.
        ylabel: what the numbers are, such as "right of 73".
        zero_shot: how many are right without training.
    """
    lines: dict[float, dict[float, Sequence[int]]] = {}
    for (a, b), each in sorted(counts.items()):
        lines.setdefault(float(f"{b / a:.3g}"), {})[b] = each
    looks = ((BLUE, "v", 0.94), (INK, "o", 1.0), (VERMILION, "^", 1.06))
    shown = [(ratio, line) for ratio, line in sorted(lines.items()) if len(line) > 1]
    words = []
    with styled_figure(7.2, 3.8) as figure:
        axes = figure.subplots()
        axes.axhline(zero_shot, color=QUIET, linestyle=DASHED, linewidth=1.2)
        beside = {"xytext": (0, -4), "textcoords": "offset points", "color": QUIET, "va": "top"}
        middle = sorted(b for _, b in counts)[len(counts) // 2]
        axes.annotate("zero-shot", (middle, zero_shot), ha="center", fontsize=10, **beside)
        for (ratio, line), (colour, marker, aside) in zip(shown, looks, strict=True):
            told = "one rate for both"
            if ratio != 1:
                fast = f"{max(ratio, 1 / ratio):.0f} times as fast"
                told = f"B {fast}: LoRA+" if ratio > 1 else f"A {fast}"
            places = [rate * aside for rate in line]  # dots of several lines stand apart
            means = [float(np.mean(each)) for each in line.values()]
            axes.plot(places, means, color=colour, linewidth=2.2, label=told, marker=marker)
            for place, each in zip(places, line.values(), strict=True):
                axes.scatter(
                    [place] * len(each), each, color=colour, marker=marker, alpha=0.45, s=26
                )
            reached = [f"{rate:g}: {mean:.1f}" for rate, mean in zip(line, means, strict=True)]
            words.append(f"{told}: {', '.join(reached)}")
        axes.set_xscale("log")
        rates = sorted({b for _, b in counts})
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set(xlabel="learning rate of B", ylabel=ylabel)
        figure.legend(loc="outside upper center", ncols=3)
    return with_description(
        figure, f"{ylabel} at each rate of B; zero-shot {zero_shot}. {'; '.join(words)}."
    )


def plot_trials(leads: Sequence[float], xlabel: str) -> Figure:
    """How many trials gave which lead: bars left of zero, at zero and right of it in three colours, counted."""
    values, times = np.unique(np.round(leads, 2), return_counts=True)
    kinds = (
        ("behind", values < 0, BLUE),
        ("equal", values == 0, QUIET),
        ("ahead", values > 0, VERMILION),
    )
    mean = float(np.mean(leads))
    words = []
    with styled_figure(7.2, 3.2) as figure:
        axes = figure.subplots()
        step = np.diff(values).min() if len(values) > 1 else 1.0
        for told, some, colour in kinds:
            words.append(f"{told} in {times[some].sum()}")
            axes.bar(values[some], times[some], 0.85 * step, color=colour, label=words[-1])
        axes.axvline(0, color=INK, linewidth=1.4)
        axes.set(xlabel=xlabel, ylabel="trials", title=f"Mean {mean:+.1f} points")
        figure.legend(loc="outside upper center", ncols=3)
    return with_description(
        figure, f"{xlabel}: mean {mean:+.1f}; {', '.join(words)} of {len(leads)} trials."
    )
