"""What the judges say of drawings that two models share: names found, taken for hers, and both."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.plots import style

Counts = Sequence[float]  # names found, taken for hers, both

# The lesson once more with `first` at 1000, 2000 and 3000: of forty drawings, by the level of the change.
OTHER_NOISES: dict[float, list[Counts]] = {
    0.0: [(30, 19, 14), (34, 20, 19), (36, 22, 20)],
    0.7: [(32, 21, 16), (31, 22, 17), (34, 25, 21)],
    0.9: [(30, 33, 25), (27, 28, 16), (26, 31, 21)],
    1.0: [(30, 32, 25), (29, 31, 23), (29, 33, 22)],
}
# The tuned model above 0.7 and the frozen one below, at these noises; and alone, but tuned with
# `noise_levels` that returns torch.rand(count), at all four.
OTHER_TURNED: list[Counts] = [(31, 27, 21), (32, 26, 19), (32, 32, 25)]
EVEN_LEVELS: list[Counts] = [(27, 32, 24), (29, 33, 24), (29, 30, 20), (28, 34, 25)]
# And once with `Studio(lesson, others=True)`: of 79 drawings; and of hers, how many pass both.
FRESH: dict[float, Counts] = {
    0.0: (60, 38, 31),
    0.7: (61, 48, 36),
    0.9: (50, 54, 35),
    1.0: (48, 64, 39),
}
FRESH_TURNED, FRESH_EVEN_LEVELS = (53, 51, 35), (42, 57, 28)
FRESH_PROMPTS, FRESH_HERS = 79, 56
AS_FORTY = 40 / FRESH_PROMPTS
TESTS = {"names found": style.BLUE, "taken for hers": style.VERMILION, "both": style.INK}


def over_noises(this: Mapping[float, Counts], recorded: bool) -> dict[float, list[Counts]]:
    """This run's counts by level, and behind them those of the other noises, if they are wanted."""
    others = OTHER_NOISES if recorded else {}
    return {level: [found, *others.get(level, ())] for level, found in this.items()}


def table_of_counts(
    this: Mapping[float, Counts], turned: Counts, recorded: bool = False
) -> pd.DataFrame:
    """How many of forty drawings pass each test, the mean over noises; of other prompts, as if there were forty.

    Args:
        this: by the level of the change, (names, hers, both) of this run.
        turned: the same where the tuned model draws above 0.7, and the frozen one below.
        recorded: whether other noises are counted too, and other prompts.
    """
    said = {1: "1: tuned alone", 0: "0: frozen alone, in words"}
    runs = over_noises(this, recorded)
    rows = {said.get(level, f"{level:g}"): found for level, found in runs.items()}
    rows["turned round at 0.7"] = [turned, *(OTHER_TURNED if recorded else ())]
    if recorded:
        rows["tuned alone, even noise levels"] = EVEN_LEVELS
    table = pd.DataFrame(
        {name: np.mean(runs, axis=0) for name, runs in rows.items()}, index=[*TESTS]
    ).T
    if recorded:
        fresh = [*(FRESH[level] for level in this), FRESH_TURNED, FRESH_EVEN_LEVELS]
        table[[f"{test}, {FRESH_PROMPTS} others" for test in TESTS]] = AS_FORTY * np.array(fresh)
    return table.round(1)


def plot_counts(this: Mapping[float, Counts], hers: float, recorded: bool = False) -> Figure:
    """Three lines over the level of the change, a dot for each noise; beside them the same for other prompts.

    Args:
        this: by level, (names, hers, both) of this run.
        hers: of the artist's own drawings, how many pass both tests.
        recorded: whether other noises are shown too, and other prompts, told as if they were forty.
    """
    runs = over_noises(this, recorded)
    panels = [(f"forty prompts, noises: {len(next(iter(runs.values())))}", runs, hers)]
    if recorded:
        fresh = {level: [[AS_FORTY * n for n in found]] for level, found in FRESH.items()}
        panels.append((f"{FRESH_PROMPTS} other prompts, as of forty", fresh, AS_FORTY * FRESH_HERS))
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
