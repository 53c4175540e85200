"""What the judges say of drawings that two models share: names found, taken for hers, and both."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots import style

Counts = Sequence[float]  # names found, taken for hers, both

# The lesson once more with `first` at 1000, 2000 and 3000: of forty drawings, by the level of the change.
OTHER_NOISES: dict[float, list[Counts]] = {
    0.0: [(30, 20, 15), (34, 21, 19), (36, 23, 21)],
    0.4: [(31, 20, 16), (33, 23, 20), (35, 24, 21)],
    0.7: [(32, 23, 18), (32, 22, 18), (35, 25, 22)],
    0.9: [(30, 34, 26), (27, 27, 15), (26, 33, 22)],
    1.0: [(30, 32, 25), (29, 31, 23), (30, 34, 24)],
}
# And once with `Studio(lesson, others=True)`: of 79 drawings; and of hers, how many pass both.
FRESH: dict[float, Counts] = {
    0.0: (60, 40, 32),
    0.4: (60, 41, 32),
    0.7: (61, 49, 37),
    0.9: (52, 57, 38),
    1.0: (47, 64, 38),
}
FRESH_PROMPTS, FRESH_HERS = 79, 56
TESTS = {"names found": style.BLUE, "taken for hers": style.VERMILION, "both": style.INK}


def plot_counts(
    this: Mapping[float, Counts],
    hers: float,
    others: Mapping[float, Sequence[Counts]] | None = None,
    fresh: Mapping[float, Counts] | None = None,
) -> Figure:
    """Three lines over the level of the change, a dot for each noise; beside them the same for other prompts.

    Args:
        this: by level, (names, hers, both) of this run.
        hers: of the artist's own drawings, how many pass both tests.
        others: the same as `this` at other noises, several for a level.
        fresh: the same for other prompts, `FRESH_PROMPTS` of them, told as if they were forty.
    """
    runs = {change: [found, *(others or {}).get(change, ())] for change, found in this.items()}
    panels = [(f"forty prompts, noises: {len(next(iter(runs.values())))}", runs, hers)]
    if fresh:
        share = 40 / FRESH_PROMPTS
        scaled = {change: [[share * n for n in found]] for change, found in fresh.items()}
        panels.append((f"{FRESH_PROMPTS} other prompts, as of forty", scaled, share * FRESH_HERS))
    told = []
    with style.styled_figure(4.6 * len(panels), 4.0) as figure:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, counts, own) in zip(grid, panels, strict=True):
            for place, (test, color) in enumerate(TESTS.items()):
                means = [sum(run[place] for run in some) / len(some) for some in counts.values()]
                axes.plot([*counts], means, color=color, label=test, linewidth=2.5)
                for change, some in counts.items():  # side by side, so that none hides another
                    aside = [change + 0.02 * (i - (len(some) - 1) / 2) for i in range(len(some))]
                    axes.scatter(aside, [run[place] for run in some], 18, color)
                told.append(f"{title}, {test}: {', '.join(f'{mean:.1f}' for mean in means)}")
            axes.axhline(own, color=style.QUIET, linestyle=style.DASHED, label="both, Ines herself")
            told.append(f"both, Ines herself: {own:.1f}")
            axes.set(title=title, xlabel="σ at which the tuned model takes over", xticks=[*counts])
        grid[0].set(ylabel="of forty drawings", ylim=(0, 40))
        grid[-1].legend(loc="lower right")
    levels = ", ".join(f"{change:g}" for change in this)
    return style.with_description(figure, f"At the levels {levels}. {'; '.join(told)}.")
