"""What the judges say of drawings that two models share: names found, taken for hers, and both."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots import style

Counts = Sequence[float]  # names found, taken for hers, both

# The lesson once more with `first` at 1000, 2000 and 3000: of forty drawings, by the level of the change.
OTHER_NOISES: dict[float, list[Counts]] = {
    0.0: [(30, 19, 14), (34, 20, 19), (36, 22, 20)],
    0.4: [(31, 20, 16), (33, 21, 19), (36, 23, 21)],
    0.7: [(32, 21, 16), (31, 22, 17), (34, 25, 21)],
    0.9: [(30, 33, 25), (27, 28, 16), (26, 31, 21)],
    1.0: [(30, 32, 25), (29, 31, 23), (29, 33, 22)],
}
OTHER_TURNED: list[Counts] = [(31, 27, 21), (32, 26, 19), (32, 32, 25)]
# And once with `Studio(lesson, others=True)`: of 79 drawings; and of hers, how many pass both.
FRESH: dict[float, Counts] = {
    0.0: (60, 38, 31),
    0.4: (60, 40, 32),
    0.7: (61, 48, 36),
    0.9: (50, 54, 35),
    1.0: (48, 64, 39),
}
FRESH_TURNED: Counts = (53, 51, 35)
FRESH_PROMPTS, FRESH_HERS = 79, 56
TESTS = {"names found": style.BLUE, "taken for hers": style.VERMILION, "both": style.INK}


def plot_counts(
    this: Mapping[float, Counts],
    turned: tuple[float, Counts],
    hers: float,
    recorded: bool = False,
) -> Figure:
    """Three lines over the level of the change, a dot for each noise, a cross for the models in turned order.

    Args:
        this: by level, (names, hers, both) of this run.
        turned: a level, and the same where the tuned model draws above it and the frozen one below.
        hers: of the artist's own drawings, how many pass both tests.
        recorded: whether other noises are shown too, and other prompts, told as if they were forty.
    """
    change_back, back = turned
    others = OTHER_NOISES if recorded else {}
    runs = {change: [found, *others.get(change, ())] for change, found in this.items()}
    backs = [back, *(OTHER_TURNED if recorded else ())]
    panels = [(f"forty prompts, noises: {len(backs)}", runs, backs, hers)]
    if recorded:
        share = 40 / FRESH_PROMPTS
        scaled = {change: [[share * n for n in found]] for change, found in FRESH.items()}
        fresh_back = [[share * n for n in FRESH_TURNED]]
        title = f"{FRESH_PROMPTS} other prompts, as of forty"
        panels.append((title, scaled, fresh_back, share * FRESH_HERS))
    told = []
    with style.styled_figure(4.6 * len(panels), 4.0) as figure:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, counts, turns, own) in zip(grid, panels, strict=True):
            for place, (test, color) in enumerate(TESTS.items()):
                means = [sum(run[place] for run in some) / len(some) for some in counts.values()]
                cross = sum(run[place] for run in turns) / len(turns)
                axes.scatter([change_back], [cross], 90, color, marker="X", edgecolors="white")
                axes.plot([*counts], means, color=color, label=test, linewidth=2.5)
                for change, some in counts.items():  # side by side, so that none hides another
                    aside = [change + 0.02 * (i - (len(some) - 1) / 2) for i in range(len(some))]
                    axes.scatter(aside, [run[place] for run in some], 18, color)
                told.append(f"{title}, {test}: {', '.join(f'{mean:.1f}' for mean in means)}, turned {cross:.1f}")
            axes.scatter([], [], 90, style.QUIET, marker="X", label="begun by the tuned model")
            axes.axhline(own, color=style.QUIET, linestyle=style.DASHED, label="both, Ines herself")
            told.append(f"both, Ines herself: {own:.1f}")
            axes.set(title=title, xlabel="σ at which the tuned model takes over", xticks=[*counts])
        grid[0].set(ylabel="of forty drawings", ylim=(0, 40))
        grid[-1].legend(loc="lower right")
    levels = ", ".join(f"{change:g}" for change in this)
    return style.with_description(figure, f"At the levels {levels}. {'; '.join(told)}.")
