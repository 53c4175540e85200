"""What each way of drawing gives and takes: names found against drawings in her style."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots import style

# The lesson with `first` at 1000, 2000 and 3000: names found, hers, and both, of forty drawings.
OTHER_NOISES = {
    "in words": [(30, 20, 15), (34, 21, 19), (36, 23, 21)],
    "Δp alone": [(32, 24, 18), (34, 25, 21), (35, 26, 23)],
    "the rest alone": [(32, 25, 20), (32, 23, 15), (29, 27, 20)],
    "tuned": [(30, 32, 25), (29, 31, 23), (30, 34, 24)],
    "half scale": [(32, 28, 23), (31, 27, 20), (30, 27, 20)],
}
COLORS = style.QUIET, style.BLUE, style.GREEN, style.VERMILION, style.PURPLE, style.INK


def plot_trade(this: Mapping[str, Sequence[int]], others: Mapping[str, Sequence]) -> Figure:
    """Each way's (names, hers, both) in this run and in others; the last is the designer herself."""
    with style.styled_figure(8.4, 5.6) as figure:
        axes = figure.subplots()
        for (way, found), marker, color in zip(this.items(), "osD^v*", COLORS, strict=True):
            runs = [found, *others.get(way, ())]
            names, styled, both = (sum(each) / len(runs) for each in zip(*runs, strict=True))
            label = f"{way}: {names:.1f} names, {styled:.1f} hers, {both:.1f} both"
            axes.scatter(*found[:2], 160, color, marker, label=label, zorder=3)
            for run in runs:
                axes.plot([names, run[0]], [styled, run[1]], color=color, alpha=0.3)
                axes.scatter(*run[:2], 28, color, marker, alpha=0.45)
            axes.scatter(names, styled, 90, color, "+", linewidth=2.5)
        title = "Large: this run. Small: other noises. Cross, and numbers: the mean"
        axes.set(xlabel="names found", ylabel="taken for hers", title=title)
        figure.legend(loc="outside lower center", fontsize=9, ncols=2)
    words = "; ".join(axes.get_legend_handles_labels()[1])
    return style.with_description(figure, f"Means over noises: {words}.")
