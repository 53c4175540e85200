# %% [markdown]
# # 09 · Rank, budget and the paper's claims
#
# **What you will be able to do**
#
# - say what a rank costs, and which rank of one method has the budget of a rank of another;
# - read a rank sweep with its spread, and choose a rank by a rule instead of by the highest point;
# - put a standard error to a difference between two methods, from few seeds, without fooling yourself;
# - say why twelve cells with the best one in bold are weaker evidence than they look;
# - turn a claim into a rule and a verdict, and read the ledger of all the paper's claims.

# %% tags=["setup"]
# Where the course is missing, its folder around this notebook is installed; nothing is downgraded.
import os
import subprocess
import sys
from importlib import metadata, util

if util.find_spec("serial_lora_course") is None:
    project = "../pyproject.toml"
    if not os.path.isfile(project) or b'name = "serial-lora"' not in open(project, "rb").read():
        raise FileNotFoundError("Get the course's whole folder, and open this in its notebooks/.")
    frozen = ("torch", "torchvision", "torchaudio", "numpy")
    with open("already_installed.txt", "w") as constraints:
        for name, version in {(d.metadata["Name"], d.version) for d in metadata.distributions()}:
            keep = f"=={version}" if name in frozen else f">={version.split('+')[0]}"
            print(f"{name}{keep}", file=constraints)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "already_installed.txt"]
    subprocess.run([*pip, "..[course]"], check=True)

# %%
import math

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy import stats
from torch import Tensor

from serial_lora_course.checks import check, lesson_card
from serial_lora_course.claims.evidence import (
    MEASURES,
    load_evidence,
    paired,
    printed_scores,
    summarise,
)
from serial_lora_course.claims.ledger import counts_frame, ledger, ledger_frame
from serial_lora_course.claims.verdicts import (
    ERRORS,
    FAILS,
    HOLDS,
    OPEN,
    rules,
    verdict_comparable,
)
from serial_lora_course.figures.claims import Interval, plot_intervals, plot_wins
from serial_lora_course.figures.style import display_figure
from serial_lora_course.figures.tables import display_table
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES, BASELINES

evidence = load_evidence()  # the records that the course ships, and the paper's tables
lesson_card("09")

# %% [markdown]
# One line decides which CLIP the one run of this lesson adapts, in the section that runs a record again:
# the tiny one, or OpenAI's ViT-B/16, as in lesson 04. All else stands on records and on the paper's tables.

# %%
import os

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run

# %% [markdown]
# ## What a rank costs
#
# The rank is the number of directions that a pair can move. It is also the price: twice the rank is
# twice the parameters, for every method. LoRA of some rank has four pairs in a block, Serial LoRA one.
# So there are two ways to set them side by side: at **equal rank**, where LoRA has four times the
# parameters, and at **equal budget**, where LoRA has a quarter of the rank. The table gives the size of
# an adapter file for the paper's CLIP.

# %%
big = ARCHITECTURES["clip"]
costs = pd.DataFrame(
    [
        {
            "rank": rank,
            "LoRA": big.lora(rank),
            "Serial LoRA": big.serial_lora(rank),
            "LoRA at a quarter of the rank": big.lora(rank // 4),
        }
        for rank in (4, 8, 16, 32, 64)
    ]
).set_index("rank")
(4 * costs / 1e6).map("{:.2f} MB".format).rename_axis(columns=big.title)  # four bytes a number

# %% [markdown]
# **What this shows.** Down a column the size doubles with the rank. The last two columns are the same:
# that is the equal budget. A rank is comparable between two methods only if it costs the same in both.
#
# "Equal budget" depends on where LoRA's pairs are. People put them on q and v, on q, k and v, or on one
# fused matrix. So the question is asked for any placement.

# %% [markdown]
# ### Exercise 9.1 · The rank that a budget buys
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●○○ | 6 |
#
# LoRA of a given rank stands beside some matrices of a block. Which is the largest rank of Serial LoRA, one
# pair as wide as the tokens, that has no more parameters? Matrices need not be square.


# %% tags=["exercise"]
def matching_rank(shapes: list[tuple[int, int]], width: int, rank: int) -> int:
    """Serial LoRA's largest rank within the budget of LoRA.

    Args:
        shapes: (inputs, outputs) of every matrix that has a LoRA pair, A (rank, inputs) and
            B (outputs, rank).
        width: of the tokens; Serial LoRA's A is (r, width) and its B (width, r).
        rank: of LoRA's pairs.
    """
    # BEGIN SOLUTION
    budget = sum(rank * (inputs + outputs) for inputs, outputs in shapes)
    return budget // (2 * width)
    # END SOLUTION


check("9.1", matching_rank)

# %% [markdown]
# <details><summary>Hint 1: two steps</summary>
#
# First LoRA's parameters in a block: a pair beside an (inputs, outputs) matrix has
# rank x (inputs + outputs). Then what a single rank of Serial LoRA costs.
#
# </details>
# <details><summary>Hint 2: the division</summary>
#
# One rank of Serial LoRA is a row of A and a column of B, together 2 x width. A whole number that is not
# above the budget is what `//` gives.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_rank_and_claims.ipynb)

# %% [markdown]
# The package's `BASELINES` are the usual placements. With LoRA at rank 16, Serial LoRA may have:

# %%
from serial_lora.counting import serial_lora_count

one_rank = serial_lora_count(768, 1, 1)  # what one rank of Serial LoRA costs in a block
display_table(
    pd.DataFrame(
        [
            {
                "LoRA of rank 16 on": placement.name,
                "parameters in a block": placement.count(768, 16),
                "Serial LoRA's rank": placement.count(768, 16) // one_rank,
                "who does this": placement.note,
            }
            for placement in BASELINES
        ]
    )
)

# %% [markdown]
# **What this shows.** The same LoRA rank buys very different ranks of Serial LoRA, because the baselines
# differ by more than their name. "A quarter of the parameters" needs the first row. Where a report does
# not say which matrices LoRA adapts, neither its rank nor its budget can be compared.
#
# ## The rank sweep
#
# The paper's Fig. 5 shows accuracy over the rank for CLIP, as lines without numbers, number of shots or
# spread. The course ships a sweep of its own, with three methods and several seeds; the line above the
# picture says on which data. The left picture compares at equal rank, the right one puts the same runs over
# their number of parameters, so that methods above each other have the same budget. Bars run from the worst
# to the best seed. LoRA at equal budget *is* LoRA, at a quarter of the rank: where both lines have a point of
# the same rank, it is the same run. Before you look: what do you expect to the left, more accuracy with every
# doubling?

# %%
from serial_lora_course.figures.sweeps import plot_rank_sweep

sweep = evidence.runs("clip_rank")
print(
    f"{len(sweep)} runs on {', '.join(sweep['dataset'].unique())}: "
    f"{', '.join(map(str, sorted(sweep['amount'].unique())))} shots, {sweep['seed'].nunique()} seeds, "
    f"ranks {', '.join(map(str, sorted(sweep['lab_rank'].unique())))} "
    "(LoRA at equal budget: a quarter of each)"
)
display_figure(plot_rank_sweep(sweep))

# %% [markdown]
# The same in numbers, run by run as in lesson 04: Serial LoRA's accuracy minus the other's, in points, on
# the same pictures with the same seed. Behind ± stands the standard error. A star marks a mean that is more
# than two of them away from zero. Luck alone sets stars too, and more of them when there are few pairs of runs;
# the last line says how many to expect.

# %%
sweep, points = evidence.runs("clip_rank"), MEASURES["accuracy"]
others = {"lora": "minus LoRA of equal rank", "lora_equal_budget": "minus LoRA at equal budget"}
rows, told_apart = [], {title: [] for title in others.values()}
for rank, runs in sweep.groupby("lab_rank"):
    row = {"rank": rank}
    for other, title in others.items():
        found = summarise(paired(runs, points, "serial_lora", other), points.unit)
        apart = abs(found.mean) > ERRORS * found.error
        row[title] = f"{found.mean:+.2f} ± {found.error:.2f}" + " *" * apart
        told_apart[title] += [f"{rank} ({'ahead' if found.mean > 0 else 'behind'})"] * apart
    rows.append(row)
display(pd.DataFrame(rows).set_index("rank"))

serial = sweep[sweep["method"] == "serial_lora"].groupby("rank")["accuracy"].mean()
lines = [
    f"- Serial LoRA {title}: told apart at {'rank ' + ', '.join(ranks) if ranks else 'no rank'}."
    for title, ranks in told_apart.items()
]
lines.append(
    f"- From its worst rank ({serial.idxmin()}) to its best ({serial.idxmax()}) Serial LoRA's mean "
    f"accuracy moves by {100 * (serial.max() - serial.min()):.1f} points, while its parameters grow "
    f"{serial.index.max() // serial.index.min()}-fold."
)
asked = len(rows) * len(others)
luck = 2 * stats.t.sf(ERRORS, found.pairs - 1)
lines.append(
    f"- A row stands on {found.pairs} pairs of data set and seed. With so many, luck alone sets a "
    f"star at {luck:.0%} of the means that are zero in truth: at {luck * asked:.1f} of these "
    f"{asked}, if all of them were."
)
display(Markdown("\n".join(lines)))

# %% [markdown]
# **What this shows.** Three readings of one sweep. *Along a line*: what more rank buys. *Left*: whether one
# shared pair can do what four pairs of its rank do. *Right*: how the same number of parameters is spent
# better. They are different questions and may have different answers. Hold the stars against the last line
# before you believe them. A standard error of few pairs is itself uncertain: where the pairs happen to agree
# it is small, or even zero, and the star comes from the agreement and not from a large difference. The section
# on one difference and its error comes back to this.
#
# Two things hide in every rank sweep. A larger rank changes the *size of a step* too, since more columns of
# B move at once (some libraries divide by the rank to make up for it; the paper does not say, and
# here nothing is divided). And one learning rate serves all ranks. So a line that bends down at the right end
# may say "too large a step", not "too large a rank".
#
# ## How to choose a rank
#
# Take the highest point? Points have errors, and of many about equal ones the highest is the luckiest. A
# rule that is older than transformers: find the best mean, allow for *its* standard error, and take the
# smallest rank that is still inside (the one-standard-error rule; Breiman and others, 1984).

# %% [markdown]
# ### Exercise 9.2 · The smallest rank that is good enough
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# Every rank has as many runs as the others. The bar is the best mean minus the standard error *of that best
# rank*: the standard deviation of its runs (dividing by n - 1) over the square root of their number.


# %% tags=["exercise"]
def one_error_rank(sweep: dict[int, list[float]]) -> int:
    """The smallest rank whose mean accuracy is within one standard error of the best mean.

    Args:
        sweep: rank -> the accuracies of its runs, one a seed; ranks in any order.
    """
    # BEGIN SOLUTION
    runs = {rank: torch.tensor(values, dtype=torch.float64) for rank, values in sweep.items()}
    best = max(runs, key=lambda rank: runs[rank].mean())
    bar = runs[best].mean() - runs[best].std() / math.sqrt(len(runs[best]))
    return min(rank for rank, values in runs.items() if values.mean() >= bar)
    # END SOLUTION


check("9.2", one_error_rank)

# %% [markdown]
# <details><summary>Hint 1: three numbers</summary>
#
# The mean of each rank; the rank with the largest mean; and that rank's standard error. `Tensor.std()`
# divides by n - 1 already.
#
# </details>
# <details><summary>Hint 2: the last line</summary>
#
# The bar is one number for all ranks. `min(...)` over the ranks whose mean is not below it is the answer, in
# whatever order they come.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_rank_and_claims.ipynb)

# %% [markdown]
# The rule on the sweep, for each method: a seed's accuracy is its average over the data sets.

# %%
sweep = evidence.runs("clip_rank")
by_seed = sweep.groupby(["method", "rank", "seed"])["accuracy"].mean()
rows = []
for method in (name for name in METHOD_TITLES if name in by_seed.index.get_level_values("method")):
    table = by_seed[method].groupby("rank").agg(["mean", "sem"])
    best = table["mean"].idxmax()
    chosen = table.index[table["mean"] >= table.loc[best, "mean"] - table.loc[best, "sem"]].min()
    size = sweep[(sweep["method"] == method)].groupby("rank")["parameters"].first()
    rows.append(
        {
            "method": METHOD_TITLES[method],
            "best rank": best,
            "its accuracy": f"{table.loc[best, 'mean']:.1%} ± {100 * table.loc[best, 'sem']:.1f}",
            "rank by the rule": chosen,
            "accuracy there": f"{table.loc[chosen, 'mean']:.1%}",
            "parameters there": size[chosen],
            "of those at the best rank": f"{size[chosen] / size[best]:.0%}",
        }
    )
display_table(pd.DataFrame(rows))

# %% [markdown]
# **What this shows.** Where the two ranks differ, the rule buys the last column's saving for a difference
# that these runs cannot see. Where they agree, the best rank is better than the smaller ones by more than its
# error. One warning: this table was chosen *on the test pictures*, which is fine for showing a rule and wrong
# for reporting an accuracy. For your own adapter take training pictures that were not drawn as shots, choose
# there, and look at the test pictures once.
#
# ## What equal budget changes
#
# Back to the records of lessons 04, 06 and 07: three tasks, all amounts of data. For each, Serial LoRA minus
# LoRA at equal rank and at equal budget. Measures have different units, so each difference is drawn in units
# of a *margin*: how much we would shrug off (named in the words below the picture). Right of zero speaks for
# Serial LoRA.

# %%
names = {
    "accuracy": "CLIP accuracy",
    "dice": "SAM Dice",
    "fid": "SD3 FID",
    "clip_score": "SD3 CLIP-Score",
}
sides = {"lora": "against LoRA of equal rank", "lora_equal_budget": "against LoRA at equal budget"}
intervals = []
for name, measure in MEASURES.items():
    runs = evidence.runs(measure.task)
    for other, side in sides.items():
        found = summarise(paired(runs, measure, "serial_lora", other), measure.unit)
        intervals.append(
            Interval(names[name], side, found.mean, found.error, measure.margin, measure.unit)
        )
display_figure(plot_intervals(intervals))

# %%
lines = []
for side in sides.values():
    of_side = [each for each in intervals if each.group == side]
    words = {"ahead": [], "behind": [], "not told apart": []}
    for each in of_side:
        apart = abs(each.mean) > ERRORS * each.error
        words["not told apart" if not apart else "ahead" if each.mean > 0 else "behind"].append(
            each.name
        )
    said = "; ".join(f"{word} on {', '.join(which)}" for word, which in words.items() if which)
    lines.append(f"- **Serial LoRA {side}**: {said}.")
display(Markdown("\n".join(lines)))

# %% [markdown]
# **What this shows.** The paper compares at equal rank only, and there the natural reading is "as good with a
# quarter of the parameters". The second comparison asks what the first cannot: is it the *sharing* that
# makes a quarter enough, or would any quarter have been enough? If LoRA at a quarter of the rank did as well,
# the saving would be true, and it would not need Serial LoRA. Read the points against LoRA at equal budget with
# that in mind.
#
# ## One difference and its error
#
# Few seeds are what we have, everywhere in this field. That makes the error as important as the
# mean. Two runs with the same seed share their luck: the same shots, the same order. So we take the
# difference first, run by run, and average afterwards.

# %% [markdown]
# ### Exercise 9.3 · A paired difference and its standard error
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Both methods ran on the same pairs of data set and seed, in the same order. Return two plain numbers: the
# mean of the differences, and the standard error of that mean.


# %% tags=["exercise"]
def paired_error(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean difference ``one - other`` and its standard error.

    Args:
        one, other: (n,), a result for each pair of data set and seed.
    """
    # BEGIN SOLUTION
    difference = one - other  # (n,)
    error = difference.std() / math.sqrt(len(difference))
    return difference.mean().item(), error.item()
    # END SOLUTION


check("9.3", paired_error)

# %% [markdown]
# <details><summary>Hint 1: differences first</summary>
#
# `one - other` has an entry for each pair. Everything after that is about this one list of numbers.
#
# </details>
# <details><summary>Hint 2: from the spread to the error</summary>
#
# The standard deviation says how far single differences lie apart, the standard error how far their mean
# may be off: the standard deviation over the square root of the number of pairs.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_rank_and_claims.ipynb)

# %% [markdown]
# The mean is the same whatever we do, but there are several "errors" that one could print beside it. The
# cell computes four for CLIP, Serial LoRA against LoRA at equal rank: nothing paired, as if both methods had
# run on data sets of their own; every run a pair; the numbers of shots averaged first, since the sixteen shots
# of a seed *contain* its four and its one; and data sets alone, since all seeds of a data set share its test
# pictures. Below the table: how much of the pairing is the seed's.

# %%
from serial_lora_course.claims.evidence import scores
from serial_lora_course.claims.sentences import read_averaging, read_pairing
from serial_lora_course.labs.frames import as_text

points, runs = MEASURES["accuracy"], evidence.runs("clip")
difference = paired(runs, points, "serial_lora", "lora")  # by data set, shots and seed
table = scores(runs, points)[["serial_lora", "lora"]].loc[difference.index]
by_draw = difference.groupby(["dataset", "seed"]).mean()
by_data = difference.groupby("dataset").mean()
errors = {
    "nothing paired": (len(table), math.sqrt(table.var().sum() / len(table))),
    "every run a pair": (len(difference), difference.sem()),
    "data set and seed a pair, shots averaged": (len(by_draw), by_draw.sem()),
    "data set a pair, all else averaged": (len(by_data), by_data.sem()),
}
counts = pd.DataFrame(errors, index=["how many", "standard error"]).T.astype({"how many": int})
counts.insert(1, "mean", difference.mean())
formats = {"mean": "{:+.2f}", "standard error": "{:.2f}"}
display(as_text(counts.rename_axis("what counts as one"), formats))
cells = ["dataset", "amount"]
between = table.groupby(cells).var().sum(axis=1).mean()  # two runs of one cell, other seeds
within = difference.groupby(cells).var().mean()  # two runs of one cell and seed
sizes = counts["standard error"]
display(Markdown(read_pairing(sizes, math.sqrt(between), math.sqrt(within))))
display(Markdown(read_averaging(by_draw.sem(), difference.sem())))

# %% [markdown]
# **What this shows.** Pairing costs nothing. The last three rows ask *what is one piece of evidence?* Where runs
# are alike, counting each of them makes the error look smaller than it is; averaging first is right
# either way. The ledger below takes the third row: it speaks about *these* data sets and new draws of pictures.
# Whoever wants to speak about data sets in general has only as many pieces of evidence as data sets: the fourth.
#
# "Two standard errors" is the usual bar, made for many pairs: then luck alone passes it once in twenty times.
# With few pairs the error itself is uncertain, and luck passes more often. And a small difference needs many
# pairs before it can pass at all.

# %%
pairs = (3, 4, 6, 18, 50)
display(
    pd.DataFrame(
        {
            "pairs": pairs,
            "luck passes two standard errors": [
                f"{2 * stats.t.sf(ERRORS, n - 1):.0%}" for n in pairs
            ],
            "standard errors for one in twenty": [
                f"{stats.t.ppf(0.975, n - 1):.1f}" for n in pairs
            ],
        }
    ).set_index("pairs")
)

points, runs = MEASURES["accuracy"], evidence.runs("clip")
spread = paired(runs, points, "serial_lora", "lora").groupby(["dataset", "seed"]).mean().std()
wanted = {size: math.ceil((ERRORS * spread / size) ** 2) for size in (2.0, 1.0, 0.5, 0.25)}
display(
    Markdown(
        f"Differences of a data set and seed spread by {spread:.1f} points here. For two standard errors to be as "
        "small as a difference, it takes "
        + ", ".join(
            f"{count} pairs for {size:g} point{'s' * (size != 1)}" for size, count in wanted.items()
        )
        + "."
    )
)

# %% [markdown]
# **What this shows.** Three seeds on one data set settle next to nothing: the bar that keeps luck at one in
# twenty is much higher than two. And halving the difference that you want to see takes four times as many
# pairs. "Not told apart" is therefore the honest answer to many questions, and it is a statement about the
# runs, not about the methods.
#
# ## Twelve cells and the best in bold
#
# Tables II to IV of the paper print one number a cell and set the best in bold. It is tempting to count: who
# has most cells? Suppose that four methods were *equally good*, and every cell were luck. How many of twelve
# cells would be best for one method? The cell plays that game many times, counting three ways: a method that
# was named before the game; whichever of the four had most; and the same when half of the luck is shared by
# the cells of one data set, as it is when they share pictures, prompts and settings.

# %%
printed = printed_scores(evidence.paper, MEASURES["accuracy"])  # Table III: 12 cells, 4 methods
seen = printed.idxmax(axis=1).value_counts()
datasets, amounts, methods = 4, 3, 4
chance = np.random.default_rng(0)
own = chance.normal(size=(20_000, datasets, amounts, methods))
shared = chance.normal(
    size=(20_000, datasets, 1, methods)
)  # the same for all amounts of a data set


def best_cells(tables: np.ndarray) -> np.ndarray:
    """How many cells each method is best in: (tables, methods)."""
    winners = tables.argmax(axis=-1)[..., None] == np.arange(methods)
    return winners.sum(axis=(1, 2))


luck = {
    "named before": best_cells(own)[:, 0],
    "the luckiest of four": best_cells(own).max(axis=1),
    "and half the luck shared": best_cells(own + shared).max(axis=1),
}
most = int(seen.max())
display_figure(plot_wins(luck, len(printed), dict.fromkeys(luck, most)))
display(
    Markdown(
        "In Table III the best cells are: "
        + ", ".join(f"{METHOD_TITLES[name]} {count}" for name, count in seen.items())
        + f". By luck, {most} or more: "
        + "; ".join(
            f"{name}: {(counts >= most).mean():.1%} of the tables" for name, counts in luck.items()
        )
        + "."
    )
)

# %% [markdown]
# **What this shows.** Among equals somebody wins clearly: the luckiest of four has far more than its three
# cells, and the more luck the cells share, the more so. A count of bold cells has to be compared with *that*.
# Table III is beyond luck of this kind, if its cells were independent; how much luck its cells really share
# cannot be seen from one number a cell. And luck is not the only other explanation: one learning rate for all
# methods suits one of them best (lesson 04), in every cell alike.
#
# For two methods there is a test that needs nothing but the signs. If neither were better, each cell would be a
# coin: how often would so many coins fall as unevenly as that?

# %% [markdown]
# ### Exercise 9.4 · The sign test
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 10 |
#
# Ties are left out before. Count both tails, since luck may favour either method, and never return more than
# 1. `math.comb(n, k)` is the number of ways in which k of n coins show heads.


# %% tags=["exercise"]
def sign_test(wins: int, losses: int) -> float:
    """The probability, under fair coins, of an outcome at least as uneven as this one.

    Args:
        wins, losses: cells in which the first method is better, and worse.
    """
    # BEGIN SOLUTION
    cells, most = wins + losses, max(wins, losses)
    tail = sum(math.comb(cells, heads) for heads in range(most, cells + 1)) / 2**cells
    return min(1.0, 2 * tail)
    # END SOLUTION


check("9.4", sign_test)

# %% [markdown]
# <details><summary>Hint 1: one tail</summary>
#
# Of the 2^n outcomes of n coins, `math.comb(n, k)` have k heads. "At least as uneven" is k from the larger of
# the two numbers up to n.
#
# </details>
# <details><summary>Hint 2: both tails</summary>
#
# The other tail is a mirror image, so twice the first. At a tie both tails contain the middle, and the double
# is above 1: `min(1.0, ...)`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_rank_and_claims.ipynb)

# %% [markdown]
# Serial LoRA against LoRA in the paper's tables and in our records (means over seeds), by cells and then by
# data sets, with all amounts averaged. scipy's `binomtest` is the same test.


# %%
def signs(differences: pd.Series) -> str:
    """Wins to losses, and the sign test's probability."""
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return f"{wins} to {losses}: {stats.binomtest(wins, wins + losses).pvalue:.3f}"


rows = []
for name, measure in MEASURES.items():
    table = printed_scores(evidence.paper, measure)
    sources = {
        "the paper": table["serial_lora"] - table["lora"],
        "here": paired(evidence.runs(measure.task), measure, "serial_lora", "lora"),
    }
    for source, found in sources.items():
        cells, data = found.groupby(["dataset", "amount"]).mean(), found.groupby("dataset").mean()
        rows.append(
            {
                "measure": name,
                "source": source,
                "by cells": signs(cells),
                "by data sets": signs(data),
                "least possible by data sets": f"{2 * 0.5 ** len(data):.3f}",
            }
        )
display(pd.DataFrame(rows).set_index(["measure", "source"]))

# %% [markdown]
# **What this shows.** By cells, some scores look beyond luck. But a test believes what it is told: that the
# cells are separate pieces of evidence. Cells of one data set are not. By data sets, the last column is
# the smallest value that even a clean sweep could reach, and with four data sets that is above one in
# twenty. No table with four data sets can carry the word "consistently" by this test. More data sets would,
# or a spread that shows how large the differences are beside their luck.
#
# ## From a claim to a verdict
#
# "Comparable" is the paper's main word, and it is not the same as "not told apart": two runs cannot tell
# *anything* apart. Comparable needs a **margin**, said before looking: how far behind may it be? Then it *holds*
# if the whole interval, mean plus and minus two standard errors, is above minus the margin. It *does not hold*
# if the whole interval is below. Otherwise the runs leave it open.

# %% [markdown]
# ### Exercise 9.5 · A verdict
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Return one of "holds", "does not hold", "not told apart". Being far better is comparable too.


# %% tags=["exercise"]
def say_comparable(mean: float, error: float, margin: float) -> str:
    """The verdict on "not behind by more than the margin".

    Args:
        mean: of the differences, positive where the first method is better.
        error: its standard error; two of them to both sides are the interval.
        margin: above 0, in the same unit.
    """
    # BEGIN SOLUTION
    if mean - 2 * error > -margin:
        return "holds"
    return "does not hold" if mean + 2 * error < -margin else "not told apart"
    # END SOLUTION


check("9.5", say_comparable)

# %% [markdown]
# <details><summary>Hint 1: two ends</summary>
#
# Write down the lower and the upper end of the interval. Only the lower one can make it hold, only the upper
# one can refute it.
#
# </details>
# <details><summary>Hint 2: what they are compared with</summary>
#
# Behind by exactly the margin is `-margin`. There is no upper limit.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_rank_and_claims.ipynb)

# %% [markdown]
# A margin is a choice, so a report should say what another choice would change. Beside each verdict stands the
# margin from which it would hold: minus the lower end of the interval.

# %%
rows = []
for name, measure in MEASURES.items():
    found = summarise(
        paired(evidence.runs(measure.task), measure, "serial_lora", "lora"), measure.unit
    )
    rows.append(
        {
            "measure": name,
            "Serial LoRA minus LoRA": f"{found.mean:+.2f} ± {found.error:.2f}",
            "in": measure.unit,
            "margin": measure.margin,
            "comparable": verdict_comparable(found.mean, found.error, measure.margin),
            "would hold from": f"{max(0.0, ERRORS * found.error - found.mean):.2f}",
        }
    )
display(pd.DataFrame(rows).set_index("measure"))

# %% [markdown]
# **What this shows.** A method can be *behind* by more than two standard errors and still *comparable*: the
# difference is real and small. It can be neither: an interval wide enough holds both answers. And whoever
# would not shrug off our margin reads the last column and draws another conclusion from the same runs.
#
# ## Run a record again
#
# The verdicts below come from files. Before you believe a file, run a line of it. The cell repeats one of
# lesson 04's runs with the lab's settings, which are those that the record carries, and compares. At the
# paper's scale there is no record, and the run stands beside the number that the paper prints.

# %%
from serial_lora_course.claims.paper import paper_table
from serial_lora_course.claims.sentences import read_again
from serial_lora_course.frontend import is_static
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.labs.methods import get_method

lesson = open_lesson("clip", SCALE, LENGTH)
print(lesson)
again = run_one(lesson.lab(), get_method("serial_lora"), 1, 1, progress=not is_static())
display(
    Markdown(
        read_again(again, len(lesson.data.test), evidence.runs("clip"), paper_table("Table III"))
    )
)
lesson.close()

# %% [markdown]
# **What this shows.** On the kind of machine that made the records the numbers repeat; on another, sums are
# added up in another order, and pictures near the border may change sides. Hold that against what another seed
# changes. Every run behind the ledger can be repeated in this way.
#
# ## The ledger
#
# Now all claims of the paper, one a row. Each has its place and a few of its words; what the paper's *own*
# tables say to it; and what *our* records say, at tiny scale. All verdicts are computed from these numbers by
# the following rules.

# %%
display(Markdown("\n".join(f"- {rule}" for rule in rules())))

# %% [markdown]
# How often each verdict was given:

# %%
rows = ledger(evidence)
display_table(counts_frame(rows))

# %% [markdown]
# Then the claims themselves, first the sizes, then the most important question: how good?


# %%
def show_themes(*names: str) -> None:
    """The ledger's rows under each of these headings."""
    found = ledger(evidence)
    for name in names:
        display(Markdown(f"#### {name}"))
        display_table(ledger_frame(found, name))


show_themes("Size and memory", "Comparable or better")

# %% [markdown]
# **What this shows.** The two verdicts of a row answer different questions: whether the paper's numbers support
# its sentence, and whether the method did it again elsewhere. They may differ in both directions without anyone
# being wrong. Mind the words: "comparable" and "superior" are separate claims, and a word such as "consistently"
# asks far more than "on average".

# %%
show_themes("Few pictures", "LoRA+")

# %% [markdown]
# **What this shows.** Claims about few pictures rest on the smallest training sets, where the luck of the draw is
# largest: look at the errors. And a claim that one plus method beats the other needs the plus to be a strong
# baseline; the last row of the second table says whether it is (lesson 05 shows what the rate of B has to do
# with it).

# %%
show_themes("Rank and budget", "Inside the adapter", "Data and metric")

# %% [markdown]
# **What this shows.** The first row inside the adapter is about lineage: whether a thing is new is a claim like
# another, and it is tested by writing the elder from its own paper, RepAdapter (Luo et al. 2023, arXiv
# 2302.08106), and comparing. The course's plan of a fairer comparison, with RepAdapter and the field in it,
# is `docs/study.md`.
#
# Count what stands behind a verdict before you believe it. The brackets and the words
# behind each row say how many data sets and seeds there are; with few of them luck passes two standard errors
# more often than once in twenty, as you saw at the sweep, and where a claim is about *every* rank or matrix, one
# such piece of luck is enough to refute it.
#
# Which claims stand on both legs, and which on neither?

# %%
rows = ledger(evidence)
groups = {
    "hold in the paper's tables and here": lambda row: (
        row.tables.verdict == row.here.verdict == HOLDS
    ),
    "hold in the paper's tables, and our runs do not tell": lambda row: (
        row.tables.verdict == HOLDS and row.here.verdict == OPEN
    ),
    "do not hold by the paper's own tables": lambda row: row.tables.verdict == FAILS,
    "do not hold here": lambda row: row.here.verdict == FAILS,
    "do not hold by either": lambda row: row.tables.verdict == row.here.verdict == FAILS,
}
for title, belongs in groups.items():
    claims = [f"  - {row.claim.says}" for row in rows if belongs(row)]
    display(
        Markdown(
            f"- **{len(claims)} of {len(rows)} {title}**" + "".join(f"\n{line}" for line in claims)
        )
    )

# %% [markdown]
# **What this shows.** Much of what a paper claims is more detailed than what its tables can carry, and that is
# common, not special to this one. The arithmetic of the saving is the firmest part. How good the method is
# depends on the task, and the honest summary of a comparison is an interval and not a winner.
#
# ## What does not fit together
#
# The paper also contradicts itself in places. None of this touches the method, but whoever quotes a number or
# rebuilds an experiment should know. Numbers in the findings are computed from the paper's tables.

# %%
from serial_lora_course.claims.audit import inconsistency_frame

display_table(inconsistency_frame())

# %% [markdown]
# **What this shows.** Units, counts and references are checked fastest and rarely are. A reading that finds such
# things is not hostile: it is what makes a result usable by others.
#
# ## Make it again
#
# The sweep, and the ledger as a page of this repository:
#
# ```
# serial-lora lab clip --rank 4,8,16,32,64 --methods lora,serial_lora,lora_equal_budget \
#     --shots 16 --seeds 3 --out runs/clip_rank.jsonl
# python -m tools.documents
# ```
#
# As it stands, the first command runs every data set of lesson 04, which takes a good while on two cores.
# With `--dataset` and what the line above the picture names, it makes the sweep that is shown there. With
# `--scale paper`, on a GPU, it is the paper's Fig. 5 with spread and with the comparison that the figure
# lacks.

# %% [markdown]
# ## Quiz
#
# **1. A report compares its method at rank 16 with "LoRA of rank 16" and finds the same accuracy with a third of
# the parameters. What do you ask first?**
#
# <details><summary>Answer</summary>
#
# Which matrices LoRA adapts, and how LoRA does with a third of the parameters. If LoRA at a smaller rank reaches
# the same accuracy, the saving is a matter of rank, not of the method. And the spread over seeds: "the same" is
# a statement about an interval.
#
# </details>
#
# **2. Two methods differ by +0.4 ± 0.5 points. A says: they are equal. B says: the first is better. Who is
# right?**
#
# <details><summary>Answer</summary>
#
# Neither. The interval of two standard errors goes from -0.6 to +1.4, so the runs do not tell the methods apart.
# With a margin of one point the first is *comparable*, or better, because the lower end is above -1. That it is
# better would need about six times as many pairs, if the difference stays what it is.
#
# </details>
#
# **3. Why does the ledger average over the amounts of data before it computes a standard error?**
#
# <details><summary>Answer</summary>
#
# A seed's larger training sets contain its smaller ones, and all are tested on the same pictures. Three runs of
# one seed are therefore not sure to be three separate pieces of evidence. Where they are alike, counting each
# makes the error too small. Averaging first is right whether they are alike or not.
#
# </details>

# %% [markdown]
# ## Key points
#
# - Rank is a price. Compare at equal rank *and* at equal budget, and say which matrices the baseline adapts.
# - The best point of a sweep is partly luck. Take the smallest rank within one standard error of it, chosen on
#   pictures that are not the test pictures.
# - Pair the runs, average the differences, show the standard error; ask what counts as one piece of evidence.
# - Best in bold: among four equals somebody has many cells. Cells of one data set are not independent.
# - "Comparable" needs a margin, "better" needs more than its error, and "not told apart" is an answer.
# - A claim becomes testable when its words become a rule. Verdicts are computed, never written.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": section III-D and Fig. 5 for the rank; abstract, section I
# and section IV for the main claims; sections III-A to III-C for those about one task; section II-D and Fig. 3
# for the spectra. LoRA at equal budget, seeds and spread are not there. The one-standard-error rule is from
# Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees" (1984); judging comparability by a
# margin is known as a non-inferiority test.
