"""Where each way of drawing stands: by the names that are found, and by how many drawings pass for hers."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots import style

# The lesson once more with `first` at 1000, 2000 and 3000: names found, hers, and both, of forty drawings.
OTHER_NOISES = {
    "in words": [(30, 20, 15), (34, 21, 19), (36, 23, 21)],
    "never": [(24, 37, 22), (28, 38, 26), (23, 39, 22)],
    "near noise": [(30, 36, 28), (29, 34, 26), (29, 39, 28)],
    "2Δp": [(31, 33, 26), (33, 31, 26), (28, 32, 24)],
    "tuned": [(30, 32, 25), (29, 31, 23), (30, 34, 24)],
}
# And once with `Studio(lesson, others=True)`: of 79 drawings.
FRESH = {
    "in words": (60, 40, 32),
    "never": (42, 71, 36),
    "near noise": (50, 69, 43),
    "2Δp": (59, 57, 44),
    "tuned": (47, 64, 38),
    "Ines": (63, 68, 56),
}
ARROWS = (
    ("never", "near noise", "2Δe is taken away near noise", style.GREEN),
    ("near noise", "tuned", "and near the picture", style.VERMILION),
    ("never", "2Δp", "2Δp is added in place of 3Δp", style.PURPLE),
)


def plot_ways(
    this: Mapping[str, Sequence[int]], others: Mapping[str, Sequence] | None = None
) -> Figure:
    """Each way's mean over noises, and arrows for where guidance takes something away.

    Args:
        this: (names, hers, both) of each way in this run.
        others: the same at other noises, several for a way.
    """
    places, told = {}, []
    with style.styled_figure(7.6, 4.4) as figure:
        axes = figure.subplots()
        for way, found in this.items():
            runs = [found, *(others or {}).get(way, ())]
            *places[way], both = (sum(each) / len(runs) for each in zip(*runs, strict=True))
            names, hers = places[way]
            color = style.INK if way == "Ines" else style.BLUE
            axes.scatter(names, hers, 90, color, zorder=3)
            told.append(f"{way}: {names:.3g}, {hers:.3g}, both {both:.3g}")
            left, lower = way == "tuned", way in ("tuned", "Ines")
            look = {"ha": "right" if left else "left", "color": color}
            place = (-9 if left else 9, -14 if lower else 5)
            axes.annotate(told[-1], places[way], place, textcoords="offset points", **look)
        for start, end, what, color in ARROWS:
            look = {"arrowstyle": "->", "color": color, "linewidth": 2, "shrinkA": 6, "shrinkB": 6}
            axes.annotate("", places[end], places[start], arrowprops=look)
            axes.plot([], [], color=color, label=what)
        axes.set(xlabel="names found", ylabel="taken for hers")
        axes.margins(0.35, 0.12)
        axes.legend(loc="lower left")
    return style.with_description(
        figure, f"Names found, taken for hers, and both: {'; '.join(told)}."
    )
