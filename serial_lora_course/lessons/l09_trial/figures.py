"""Layers side by side, two methods' rates, rivals beside Serial LoRA, and what W does to a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

from serial_lora_course.lessons.l09_trial.tables import Found
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

RUNGS = (  # name, formula, and the rank at which the study compared it with its neighbours
    ("LoRA", r"$W_p\,x + B_p A_p\,x$", "rank 4"),
    ("one A", r"$W_p\,x + B_p A\,x$", "rank 6"),
    ("one B, through Q", r"$W_p\,x + Q_p B A\,x$", "rank 12; Q: random rotations"),
    ("through E", r"$W_p\,x + E_p B A\,x$", "rank 12; E: W, stretched evenly"),
    ("Serial LoRA", r"$W_p\,(x + B A\,x)$", "rank 12"),
    ("RepAdapter", r"$W_p\,(x + B\,(A\,x + a) + b)$", "B in groups; biases a and b"),
)
STEPS = (  # what changes; the new arm and the old one
    ("share A", "lora_tied-6", "lora_qkv-4"),
    ("share B, behind a\nrandom rotation", "serial_random-12", "lora_tied-6"),
    ("W's directions", "serial_even-12", "serial_random-12"),
    ("W's stretch", "serial_lora-12", "serial_even-12"),
)
APART = 12.5  # from rung to rung
LEVEL = 0.25  # points of Dice that no panel calls a lead
COLUMNS = (1.0, 4.2, 7.4)  # of W_q, W_k, W_v
LINE = {"color": QUIET, "lw": 1.2, "zorder": 0}
DOT = {"marker": "o", "capsize": 3, "color": INK, "lw": 1.6}
Told = tuple[float, float]
"""A difference, and half of its interval."""


def plot_layers(sizes: Mapping[str, str]) -> Figure:
    """Some layers side by side, with what is said of each below it."""
    rungs = [[name for name, *_ in RUNGS].index(name) for name in sizes]
    with styled_figure(3.8 * len(rungs), 3.2) as figure:
        axes = figure.subplots()
        told = _columns(axes, rungs, list(sizes.values()), low=-3.6)
    return with_description(figure, f"{len(rungs)} layers. {told}")


def plot_ladder(found: Found) -> Figure:
    """Five layers side by side, and under each step what it changed on SAM in the study."""
    with styled_figure(11.4, 4.4) as figure:
        axes = figure.subplots()
        layers = _columns(axes, range(5), [size for *_, size in RUNGS], low=-9.2)
        told = _steps(axes, found)
    return with_description(figure, f"Five layers. {layers}. {told}")


def _columns(axes: Axes, rungs: Sequence[int], sizes: Sequence[str], low: float) -> str:
    """Layers with names, formulas and what stands below; the same in words."""
    told = []
    for place, rung in enumerate(rungs):
        _layer(axes, APART * place, rung)
        middle, (name, formula, _) = APART * place + 5.3, RUNGS[rung]
        axes.text(middle, 13.2, name, ha="center", weight="bold")
        axes.text(middle, 11.5, formula, ha="center", size=10)
        axes.text(middle, -3.0, sizes[place], ha="center", size=9, color=QUIET)
        told.append(f"{name}: {formula[1:-1]}".replace("\\,", "") + f" ({sizes[place]})")
    axes.set(xlim=(-1.5, APART * len(rungs) - 0.5), ylim=(low, 14.2))
    axes.set_axis_off()
    return "; ".join(told)


def _layer(axes: Axes, left: float, rung: int) -> None:
    """W_q, W_k and W_v with the pairs of one rung: A narrows, B widens; Q and E stand in for W."""
    middle, through, in_front = left + 5.3, rung in (2, 3), rung > 3
    low = (3.4, 3.0, 3.8, 3.8, 4.4, 4.4)[rung]
    axes.text(middle, -1.4, "x", ha="center", style="italic")
    axes.plot([middle] * 2, [-0.3, (3.4, 1.6, 0.6, 0.6, 0.6, 0.6)[rung]], **LINE)
    if rung == 1:
        _factor(axes, "A", middle, (1.6, 3.0), (9.0, 2.4))
    elif through:
        _pair(axes, middle, 0.6, low, wide=4.6)
        axes.plot([middle, left - 0.3, left - 0.3], [0, 0, low + 1.2], **LINE)
    elif in_front:  # a pair in front, and the way past it
        _pair(axes, middle, 0.6, low - 0.8, wide=4.6, groups=rung - 3)
        axes.plot([middle, left + 8.6, left + 8.6, middle], [0, 0, low - 0.4, low - 0.4], **LINE)
        axes.plot([middle] * 2, [low - 0.8, low], **LINE)
        _sum(axes, middle, low - 0.4)
    for column, part in zip(COLUMNS, "qkv", strict=True):
        at, beside = left + column, left + column + 1.6
        _matrix(axes, f"$W_{part}$", at, "#d9d9d9")
        start = left - 0.3 if through else middle
        axes.plot([start, at, at], [low + 1.2 if through else low, low + 1.2, 6.4], **LINE)
        axes.plot([at, at], [9.0, 10.0], **LINE)
        if in_front:
            continue
        if rung == 0:
            _pair(axes, beside, 5.6, 9.0, wide=1.4)
        elif rung == 1:
            _factor(axes, "B", beside, (7.3, 9.0), (0.47, 1.4))
        else:
            _matrix(axes, f"${'QE'[rung - 2]}_{part}$", beside, "#f1e3b8")
        reaches, turns = (6.4, 7.3, 6.4, 6.4)[rung], low + (0.6 if through else 1.2)
        colour = VERMILION if through else QUIET  # what B makes, where the way past it crosses
        axes.plot([middle, beside, beside], [low, turns, reaches], **LINE | {"color": colour})
        axes.plot([beside, beside, at], [9.0, 9.5, 9.5], **LINE)
        _sum(axes, at, 9.5)


def _matrix(axes: Axes, name: str, at: float, colour: str) -> None:
    """A frozen square matrix."""
    axes.add_patch(Rectangle((at - 0.75, 6.4), 1.5, 2.6, color=colour, lw=0, zorder=1))
    axes.text(at, 7.7, name, ha="center", va="center", size=9)


def _sum(axes: Axes, at: float, height: float) -> None:
    """Where two ways are added."""
    axes.plot(at, height, "o", ms=9, mfc="white", mec=QUIET, mew=0.8, zorder=3)
    axes.plot(at, height, "+", ms=5, color=INK, mew=1.1, zorder=4)


def _pair(axes: Axes, at: float, low: float, high: float, wide: float, groups: int = 1) -> None:
    """A and B, from below; B in groups, one beside the other."""
    middle, thin = (low + high) / 2, wide / 3
    _factor(axes, "A", at, (low, middle - 0.1), (wide, thin))
    for group in range(groups):
        beside, name = at + (group - (groups - 1) / 2) * wide / groups, "B"
        if groups > 1:
            name = f"$B_{group + 1}$"
        share = (thin / groups, wide / groups - 0.2 * (groups > 1))
        _factor(axes, name, beside, (middle + 0.1, high), share)


def _factor(axes: Axes, name: str, at: float, heights: tuple, widths: tuple) -> None:
    """A or B, a trapezium with its heights and widths below and above."""
    (low, high), (below, above) = heights, widths
    corners = [(-below, low), (below, low), (above, high), (-above, high)]
    shape = [(at + x / 2, y) for x, y in corners]
    axes.add_patch(Polygon(shape, color=BLUE if name == "A" else VERMILION, lw=0, zorder=2))
    look = {"ha": "center", "va": "center", "color": "white", "size": 9, "weight": "bold"}
    axes.text(at, (low + high) / 2, name, zorder=3, **look)


def _steps(axes: Axes, found: Found) -> str:
    """Below the layers a number a step; the same in words."""
    told = []
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.5, "shrinkA": 14, "shrinkB": 14}
    for place, (change, new, old) in enumerate(STEPS):
        left, right = APART * place + 5.3, APART * (place + 1) + 5.3
        axes.annotate("", (right, -4.3), (left, -4.3), arrowprops=arrow)
        like, look = found.described["sam", new, old], {"color": QUIET}
        if abs(like.mean) > like.half_width:
            look = {"color": GREEN if like.mean > 0 else VERMILION, "weight": "bold"}
        words = _told((like.mean, like.half_width))
        middle = {"x": (left + right) / 2, "ha": "center", "va": "center"}
        axes.text(y=-6.0, s=change, size=10, **middle)
        axes.text(y=-8.3, s=words, size=12, **middle, **look)
        told.append(f"{RUNGS[place][0]} to {RUNGS[place + 1][0]}: {words}")
    return f"What each step changed on SAM, in points of Dice: {'; '.join(told)}."


def plot_rates(
    searches: Mapping[str, pd.DataFrame],
    chosen: Sequence[Mapping[str, float]],
    halves: Sequence[Mapping[str, float]],
) -> Figure:
    """What each of two methods reached at each rate, and who leads, at one rate for both and each at its own.

    Args:
        searches: a panel's title -> a row a rate, a column a method.
        chosen: for each panel, a method -> the rate to circle. Panels span as many points of Dice.
        halves: for each panel, a race -> half of its lead's interval, where that is known.
    """
    told = []
    span = 1 + max(each.max().max() - each.min().min() for each in searches.values())
    with styled_figure(4.6 * len(searches), 3.6) as figure:
        panels = figure.subplots(1, len(searches), squeeze=False)[0]
        for axes, (title, search), rates, sure in zip(
            panels, searches.items(), chosen, halves, strict=True
        ):
            for (name, reached), colour in zip(search.items(), (VERMILION, BLUE), strict=True):
                reached, best = reached.dropna(), rates[name]
                axes.plot(reached.index, reached, "o-", color=colour, lw=1.8, label=name)
                axes.plot(best, reached[best], "o", ms=14, mfc="none", mec=colour, mew=1.8)
                values = ", ".join(f"{v:.2f} at {r:g}" for r, v in reached.items())
                told.append(f"{title}, {name}: {values}")
            told += _leads(axes, search, rates, sure)
            top = search.max().max() + 0.5
            axes.set(xscale="log", xlabel="learning rate", ylim=(top - span, top))
            axes.set_title(title, size=11)
            axes.set_xticks(list(search.index), [f"{rate:g}" for rate in search.index])
            axes.minorticks_off()
        figure.axes[0].set_ylabel("points of Dice (circled: best)")
        figure.axes[0].legend(loc=(0.02, 0.33), framealpha=0, edgecolor="none")
    return with_description(figure, f"Dice for each rate. {'; '.join(told)}.")


def _leads(
    axes: Axes, search: pd.DataFrame, rates: Mapping[str, float], sure: Mapping[str, float]
) -> list[str]:
    """Written into a panel: who leads, in the colour of who does."""
    races = {
        f"both at {rate:g}": search.loc[rate] for rate in sorted({*rates.values()}, reverse=True)
    }
    own = {"each at its own": pd.Series({name: search[name][rate] for name, rate in rates.items()})}
    told = []
    for place, (race, reached) in enumerate((own | races).items()):
        if reached.isna().any():
            continue
        first = reached.idxmax()
        apart = reached.max() - reached.min()
        level = apart < LEVEL
        half = f" ± {sure[race]:.1f}" if race in sure else ""
        told.append(f"{race}: {'level' if level else f'{first} +{apart:.1f}{half}'}")
        colour = QUIET if level else (VERMILION, BLUE)[list(search).index(first)]
        look = {"color": colour, "transform": axes.transAxes}
        axes.text(0.03, 0.05 + 0.09 * place, told[-1], size=10, **look)
    return told


def plot_rivals(
    panels: Mapping[str, Mapping[str, Told]],
    bars: Mapping[str, float],
    what: str = "lead: points of Dice above Serial LoRA (orange)",
) -> Figure:
    """How far each rival is above Serial LoRA, in one panel for each place where that was measured.

    Args:
        panels: a panel's title -> a rival -> its lead, and half of its interval. What has no bar is hollow.
        bars: a rival -> above which bar the whole interval has to lie for a claim to fall. Beside what has none stands its number.
        what: stands below each panel; other differences than leads may be drawn, too.
    """
    told = []
    rows = list(dict.fromkeys([*bars, *(rival for leads in panels.values() for rival in leads)]))
    with styled_figure(2.0 + 4.5 * len(panels), 1.3 + 0.5 * len(rows)) as figure:
        several = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, leads) in zip(several, panels.items(), strict=True):
            ends = [lead + side * half for lead, half in leads.values() for side in (-1, 1)]
            low, high = min(0, *bars.values(), *ends), max(0, *bars.values(), *ends)
            wide = high - low
            room = 0.26 if leads.keys() <= bars.keys() else 0.45  # for a word, or a number
            least, reach = low - 0.1 * wide, high + room * wide
            axes.axvline(0, color=VERMILION, lw=2)
            for rival, (lead, half) in leads.items():
                place, look, word = -rows.index(rival), {"mfc": "white"}, _told((lead, half))
                if rival in bars:
                    look = {}
                    axes.barh(place, 100, 0.86, left=bars[rival], color="#ececec", zorder=0)
                    axes.plot([bars[rival]] * 2, [place - 0.43, place + 0.43], color=QUIET, lw=2)
                    word = "falls" if lead - half > bars[rival] else "open"
                    word = "holds" if lead + half < bars[rival] else word
                axes.text(reach - 0.03 * wide, place, word, ha="right", va="center", size=10)
                axes.errorbar(lead, place, xerr=half, **DOT | look)
                told.append(f"{name}, {rival}: {_told((lead, half))}")
            axes.set(xlim=(least, reach), ylim=(0.6 - len(rows), 0.6))
            axes.set_title(name, size=11)
            grey = "\ngrey, right of a bar: a claim falls" if bars else ""
            axes.set_xlabel(f"{what}{grey}")
            axes.grid(axis="y", visible=False)
        figure.axes[0].set_yticks([-place for place in range(len(rows))], rows)
    return with_description(
        figure,
        f"{what[0].upper()}{what[1:]}. {'; '.join(told)}. {'Grey: where a claim falls.' * bool(bars)}",
    )


def _told(interval: Told) -> str:
    return f"{interval[0]:+.2f} ± {interval[1]:.2f}"


def plot_stretch(stretch: Tensor, reached: Mapping[str, Tensor], first: int) -> Figure:
    """How W stretches its directions, and which of them trained changes go to.

    Args:
        stretch: (matrices, d), W's singular values, each falling, over their root mean square.
        reached: of three ways -> (d,), which share of its change lies in the first directions, for each number of them.
        first: how many directions are shaded, the most stretched.
    """
    squares = stretch.square().cumsum(1)
    share = (squares[:, first - 1] / squares[:, -1]).median()
    told = [f"{name}: {curve[first - 1]:.0%}" for name, curve in reached.items()]
    places = range(1, stretch.shape[1] + 1)
    with styled_figure(11.4, 3.8) as figure:
        left, right = figure.subplots(1, 2)
        _spectra(left, stretch)
        left.text(first + 3, 6, f"{first} directions have\n{share:.0%} of the squares", va="center")
        right.plot(places, [100 * place / len(places) for place in places], color=QUIET, ls="--")
        right.text(0.7 * len(places), 58, "an even change", color=QUIET)
        words = f"the first {first} directions get\n(median of {len(stretch)} matrices):"
        right.text(0.54 * len(places), 26, words, color=INK, size=10)
        for place, (curve, words, colour) in enumerate(
            zip(reached.values(), told, (VERMILION, BLUE, GREEN), strict=True)
        ):
            right.plot(places, 100 * curve, color=colour, lw=2)
            right.plot(first, 100 * curve[first - 1], "o", color=colour)
            look = {"color": colour, "weight": "bold"}
            right.text(0.54 * len(places), 18 - 8 * place, words, **look)
        right.set(ylim=(0, 104), ylabel="share of the trained change so far, %")
        right.set_title("Where trained changes go", size=11)
        for axes in (left, right):
            axes.axvspan(1, first, color="#f6dccb", zorder=0)
            axes.set(
                xlim=(1, len(places)), xlabel="direction, from the most stretched to the least"
            )
            axes.set_xticks([1, *range(32, len(places) + 1, 32)])
    shown = ", ".join(f"{stretch.median(0).values[i]:.2f}" for i in (0, len(places) // 2, -1))
    return with_description(
        figure,
        f"Singular values of SAM's {len(stretch)} matrices over their root mean square: the largest, middle and "
        f"smallest are {shown} in the median, and the first {first} have {share:.0%} of the squares. Of trained changes "
        f"they get: {'; '.join(told)}.",
    )


def _spectra(axes: Axes, stretch: Tensor) -> None:
    """The singular values of every W, their median, and the one length that E and Q have."""
    places = range(1, stretch.shape[1] + 1)
    axes.plot(places, stretch.T, color=QUIET, lw=0.6, alpha=0.3)
    axes.plot(places, stretch.median(0).values, color=INK, lw=2.4)
    axes.axhline(1, color=INK, lw=1.6, ls=(0, (5, 3)))
    axes.set(yscale="log", ylim=(0.009, 14), ylabel="stretched so many times")
    axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes.set_title("How W stretches its directions", size=11)
    axes.text(0.98 * len(places), 1.2, "E and Q: all alike", ha="right")
    axes.text(0.5 * len(places), 0.1, "W", ha="right")
