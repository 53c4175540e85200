"""What each way of drawing gives: names found, drawings taken for hers, and both."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots import style

# The lesson once more with `first` at 1000, 2000 and 3000: names found, hers, and both, of forty drawings.
OTHER_NOISES = {
    "in words": [(30, 20, 15), (34, 21, 19), (36, 23, 21)],
    "tuned": [(30, 32, 25), (29, 31, 23), (30, 34, 24)],
    "the rest": [(32, 25, 20), (32, 23, 15), (29, 27, 20)],
    "Δp": [(32, 24, 18), (34, 25, 21), (35, 26, 23)],
    "twice Δp": [(31, 33, 26), (33, 31, 26), (28, 32, 24)],
}
FORTY = 40  # drawings
PANELS = "names found", "taken for hers", "both"


def plot_ways(this: Mapping[str, Sequence[int]], others: Mapping[str, Sequence]) -> Figure:
    """Each way's (names, hers, both) in this run and at other noises; the last is the designer herself."""
    (*ways, (designer, real)), told = this.items(), []
    most = max(max(found) for found in this.values())
    others, most = ({}, most) if most > FORTY else (others, FORTY)  # those are of forty
    with style.styled_figure(9.6, 0.9 + 0.5 * len(ways)) as figure:
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for i, (axes, title) in enumerate(zip(panels, PANELS, strict=True)):
            axes.axvline(real[i], color=style.INK, linestyle=style.DASHED, linewidth=1)
            real_one = f"dashed: {designer}, {real[i]}"
            axes.set_title(real_one, loc="right", fontsize=9, weight="normal")
            for row, (way, found) in enumerate(ways):
                runs = [each[i] for each in (found, *others.get(way, ()))]
                mean = sum(runs) / len(runs)
                axes.scatter(runs[1:], [row] * len(runs[1:]), 34, style.BLUE, alpha=0.5)
                axes.scatter(runs[:1], [row], 52, "none", edgecolor=style.BLUE, linewidth=1.6)
                axes.vlines(mean, row - 0.3, row + 0.3, style.VERMILION, linewidth=2.5)
                axes.annotate(f"{mean:.1f}", (0.07 * most, row), va="center", color=style.VERMILION)
                told.append(f"{title}, {way}: {mean:.1f}")
            axes.set_title(title)
            axes.set(xlim=(0, 1.03 * most), xticks=range(10, most + 1, 10))
            axes.set_ylim(len(ways) - 0.4, -0.6)
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(range(len(ways)), [way for way, _ in ways])
        panels[1].set_xlabel("drawings; ring: this run, dot: another noise, bar and number: mean")
    return style.with_description(figure, f"Means over noises of {'; '.join(told)}.")
