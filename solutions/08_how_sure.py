# %% [markdown]
# # 08 · How sure are you?
#
# A friend adapted SAM to five data sets of drawings, three times each, with Serial LoRA and with a LoRA of the same
# size. On average Serial LoRA won. "So sharing one pair works," says your friend, and wants your name on the report.
# Do you sign?
#
# To decide, you find out what these fifteen pairs of runs are worth: you build an interval, test it where you know the
# truth, and work out how many data sets your friend needs.
#
# For SAM a run is scored by *Dice*, the overlap of its masks with the true ones. Below, CLIP has *accuracy*, and SD3
# *style share*, the share of drawings in the designer's style. All are given in points, hundredths.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from IPython.display import display
from scipy import stats

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.frames import frame, separate_sets
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.plots.style import display_figure

lesson_card("08")

# %% [markdown]
# ## Before you look
#
# The course ships the records of such runs: its small CLIP, SAM and SD3, each method at one learning rate. For each
# model we ask how Serial LoRA does against LoRA of equal rank, which is larger, and of equal size. These six
# questions are fixed before we look. Here are three of the runs, then what LoRA gains on each model.

# %%
LABS = {"clip": "accuracy", "sam": "dice", "sd3": "style_share"}
FROZEN = {"clip": "zero_shot_dataset", "sam": "base_dice", "sd3": "base_style_share"}
RIVALS = {"lora": "equal rank", "lora_equal_budget": "equal size"}


def results(lab: str, measure: str) -> pd.DataFrame:
    """A row for each data set and seed, the mean over amounts; a column for each method."""
    runs = separate_sets(frame(shipped_records(lab)))  # without CLIP's union of five others
    return runs.pivot_table(measure, ["dataset", "seed"], "method")


records = frame(shipped_records("sam"))
display(records[["dataset", "seed", "amount", "method", "parameters", "dice"]].head(3))
scores = {lab: 100 * results(lab, measure) for lab, measure in LABS.items()}
gains, rows = {}, {}
for lab, measure in LABS.items():
    gains[lab] = (scores[lab] - 100 * results(lab, FROZEN[lab]))["lora"].mean()
    size = results(lab, "parameters").mean()
    rows[lab] = {"measure": measure, "LoRA gains": f"{gains[lab]:.1f}"}
    rows[lab]["LoRA's parameters"] = f"{size['lora'] / size['serial_lora']:.0f} × Serial LoRA's"
display(pd.DataFrame(rows).T)

# %% [markdown]
# How much of LoRA's gain may Serial LoRA give away and still be called comparable? **Write your limits into
# `MARGINS`.** Ours are the round numbers of lesson 09. We set them before these runs, but after seeing earlier ones.
#
# Then come your friend's runs. They are on drawings, so the sixth data set, `photographs`, is left out. Two runs with
# the same data set and seed saw the same pictures, so they make a pair. The table has Serial LoRA minus LoRA for
# each pair, as a mean over the amounts of training pictures.

# %%
MARGINS = {"clip": 1.0, "sam": 1.0, "sd3": 5.0}  # how far behind is too far
for lab, margin in MARGINS.items():
    print(f"{lab}: a margin of {margin:g} gives away {margin / gains[lab]:.0%} of LoRA's gain")

sam = scores["sam"].drop("photographs")
sign = "yes"  # your guess: "yes" or "no", before you see them
won_by = (sam["serial_lora"] - sam["lora_equal_budget"]).unstack("seed")  # (sets, seeds)
display(won_by.style.format("{:+.2f}"))

runs = won_by.to_numpy().ravel()
error = runs.std(ddof=1) / math.sqrt(len(runs))  # the standard error of the mean
print(f"{runs.mean():+.2f} ± {2 * error:.2f}, from {len(runs)} pairs of runs")

# %% [markdown]
# The last line treats all runs as one sample. Its mean, with two standard errors to each side, is an *interval*, made
# to contain the true difference in nineteen of twenty studies. All of it lies above zero.
#
# But on `lines` Serial LoRA wins with every seed, and on `weather` it loses with two of three. Are these fifteen
# independent measurements?
#
# ## What is one measurement?
#
# If they were, the names of the data sets would be mere labels. So we shuffle the labels, many times. How often do the
# five means then lie as far apart as the real ones?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_measurement

chance = np.random.default_rng(0)
dealt = chance.permuted(np.tile(runs, (10_000, 1)), axis=1).reshape(-1, *won_by.shape)
apart = won_by.mean(axis=1).std()  # of the five means
as_far = (dealt.mean(axis=2).std(axis=1, ddof=1) >= apart).sum()
print(f"standard deviation of the means: {apart:.2f}, reached by {as_far} of {len(dealt):,} deals")
display_figure(plot_measurement(sam, "serial_lora", "lora_equal_budget"))

# %% [markdown]
# In 3 of 10,000 deals: this was a *permutation test*. The seeds of one data set resemble each other by more than
# chance (right panel), so a second seed on `lines` tells you less than another data set would. It is as
# if your friend had asked five people three times each, and counted fifteen answers (*pseudoreplication*).
#
# "Sharing one pair works" speaks of *other* data sets, too. (Were it about these five alone, seeds would be the
# sample.) So **the data set is the measurement**: its seeds are averaged first, and five numbers are left.
#
# May you still take two standard errors to each side, when there are only five? Try it. The next cell draws a few
# measurements whose true mean is zero, many times, and counts how often their mean is more than two standard errors
# off. It should be 5%. **Guess first**: how often with two measurements?

# %%
two = 10  # your guess: percent beyond two standard errors, with two measurements
chance, rows = np.random.default_rng(0), {}
for n in (2, 3, 5, 15, 50):
    drawn = chance.normal(size=(100_000, n))  # the true mean is 0
    off = abs(drawn.mean(1)) / (drawn.std(1, ddof=1) / math.sqrt(n))  # in standard errors
    rows[n] = [f"{(off > 2).mean():.0%}", f"{np.quantile(off, 0.95):.1f}"]
    rows[n].append(f"{stats.t.ppf(0.975, n - 1):.1f}")
columns = ["beyond 2 standard errors", "95% stay within", "Student's t"]
display(pd.DataFrame(rows, index=columns).T.rename_axis("measurements"))
print(f"your guess for two measurements: {two}%")

# %% [markdown]
# With two measurements the mean is more than two standard errors off in 29% of cases, and with five in 12%. For the
# promised 5%, five measurements need 2.8 standard errors.
#
# The standard error is itself an estimate from the same few numbers, and it comes out too small when these happen to
# lie close together. Student's t makes up for that: the factor for n measurements is `stats.t.ppf(0.975, n - 1)`,
# which leaves out half of the 5% at each end.
#
# ### Exercise 8.1 · An interval over data sets
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Average each data set over its seeds. Return the mean of these averages, and half the width of their 95% interval by
# Student's t.


# %% tags=["exercise"]
def interval(differences: np.ndarray) -> tuple[float, float]:
    """The mean over data sets, and half of its 95% confidence interval.

    Args:
        differences: (sets, seeds), one method minus the other.
    """
    # BEGIN SOLUTION
    sample = differences.mean(axis=1)  # (sets,)
    error = sample.std(ddof=1) / math.sqrt(len(sample))
    return float(sample.mean()), float(stats.t.ppf(0.975, len(sample) - 1) * error)
    # END SOLUTION


check("8.1", interval)

# %% [markdown]
# <details><summary>Hint 1: what is the sample?</summary>
#
# The sample has one number for each data set: `differences.mean(axis=1)`. From there on compute `error` as in the
# cell with your friend's runs, with the number of data sets in place of the number of runs.
#
# </details>
# <details><summary>Hint 2: two places where n - 1 appears</summary>
#
# The standard deviation divides by n - 1 (`ddof=1`), and Student's t has n - 1 degrees of freedom:
# `stats.t.ppf(0.975, n - 1)`. The root in the standard error is the root of n.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_intervals

interval_of, means = yours("8.1"), won_by.mean(axis=1)
mean, half = interval_of(won_by.to_numpy())
print(f"{mean:+.2f} ± {half:.2f}: from {mean - half:+.2f} to {mean + half:+.2f}")
print(f"would you have signed? You guessed: {sign}")
intervals = {"15 runs, 2 standard errors": (mean, 2 * error)}
intervals["5 data sets, 2 standard errors"] = (mean, 2 * means.sem())
intervals["5 data sets, yours"] = (mean, half)
display_figure(plot_intervals(intervals))

# %% [markdown]
# Counted by data sets, your friend's interval contains zero. These runs do not show that Serial LoRA is better, nor
# that it isn't, so you don't sign. It is close, and the evidence would hardly differ had the interval started at +0.02.
# A rule needs its line somewhere, and this one was drawn before we looked.
#
# ## Comparable needs a margin
#
# Could you sign something smaller? The paper's abstract says "achieves comparable performance in most cases".
# Comparable can't mean that the interval contains zero, because then the smallest study, with the widest interval,
# would show it best. The word needs the **margin** that you chose before you looked:
#
# - The whole interval is above minus the margin: it *holds*.
# - The whole interval is below minus the margin: it *fails*.
# - Anything else is *open*.
#
# This is a *non-inferiority test*. Your friend's interval starts at -0.02, so "less than a point behind" holds.
#
# ### Exercise 8.2 · Comparable
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# Return the verdict. A method that is far better counts as comparable too.


# %% tags=["exercise"]
def comparable(mean: float, half: float, margin: float) -> str:
    """The verdict on "not behind by more than the margin": "holds", "fails" or "open".

    Args:
        mean: of the differences; above 0 the first method is better.
        half: of the interval, which goes from mean - half to mean + half.
        margin: 0 or more, in the same unit.
    """
    # BEGIN SOLUTION
    if mean - half > -margin:
        return "holds"
    return "fails" if mean + half < -margin else "open"
    # END SOLUTION


check("8.2", comparable)

# %% [markdown]
# <details><summary>Hint 1: two ends</summary>
#
# The lower end of the interval decides whether the claim holds, and the upper end whether it fails.
#
# </details>
# <details><summary>Hint 2: what they are compared with</summary>
#
# Being behind by exactly the margin is a difference of `-margin`: compare both ends with that number.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)
#
# ## Can you trust the interval?
#
# Let's test it where we know the truth, in simulated studies of two equal methods. By chance each data set favours
# one of them a little, with all its seeds, and each run adds noise. An interval that leaves out zero is then a *false
# positive*. There should be 5%.
#
# ### Exercise 8.3 · False positives
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Simulate `studies` tables of normal differences, each of shape (sets, seeds), and return the share whose interval
# leaves out zero. Create the random generator inside, so that a second call gives the same share.


# %% tags=["exercise"]
def false_positives(
    make_interval: Callable,
    sets: int,
    seeds: int,
    between: float,
    within: float,
    studies: int = 2000,
) -> float:
    """The share of simulated studies of two equal methods whose interval leaves out zero.

    Args:
        make_interval: from a study's differences, (sets, seeds), to the mean and half of its interval.
        between: the standard deviation of what a data set adds, to all its seeds alike.
        within: the standard deviation of what each single run adds.
    """
    # BEGIN SOLUTION
    chance, wrong = np.random.default_rng(0), 0
    for _ in range(studies):
        of_sets = between * chance.normal(size=(sets, 1))
        study = of_sets + within * chance.normal(size=(sets, seeds))
        mean, half = make_interval(study)
        wrong += abs(mean) > half
    return wrong / studies
    # END SOLUTION


check("8.3", false_positives)

# %% [markdown]
# <details><summary>Hint 1: one study</summary>
#
# A data set adds the same number to its whole row. Draw these numbers with shape (sets, 1): NumPy repeats them along
# the rows when you add noise of shape (sets, seeds).
#
# </details>
# <details><summary>Hint 2: when is zero left out?</summary>
#
# Zero is outside when the mean is farther from zero than half of the interval, on either side. Divide the number of
# these studies by the number of all.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)
#
# **Guess first**: with thirty seeds, how often does your friend's interval find a winner?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_false_positives


def over_runs(differences: np.ndarray) -> tuple[float, float]:
    """What your friend did: every run counts."""
    return differences.mean(), 2 * differences.std(ddof=1) / math.sqrt(differences.size)


guess = 20  # your guess: percent of false positives over runs, with thirty seeds
noise = won_by.var(axis=1).mean()  # of one seed; a set's mean keeps a part of it
between = won_by.mean(axis=1).var() - noise / won_by.shape[1]
print(f"standard deviations: {between**0.5:.2f} between data sets, {noise**0.5:.2f} between seeds")
ways = {"runs, 2 s.e.": over_runs, "sets, Student's t": interval_of}
tried, rates = yours("8.3"), pd.DataFrame(columns=list(ways))
print(f"variance of the mean: {between / 5:.3f} from data sets, {noise / 15:.3f} from three seeds")
for seeds in (1, 3, 5, 10, 20, 30):
    rates.loc[seeds] = [tried(way, 5, seeds, between**0.5, noise**0.5) for way in ways.values()]
display_figure(plot_false_positives(rates, guess))

# %% [markdown]
# Your friend's interval finds a winner between equal methods in 28% of studies with three seeds, and in 69% with
# thirty. The mean of five data sets varies with a variance of between² / 5 + within² / (5 · seeds), here 0.023 + 0.003. More
# seeds shrink only the second part, but your friend's standard error treats both alike, so it becomes far too small.
# Yours stays near 5%. (The 28% holds for the spreads of these runs, which five data sets tell only roughly.)
#
# But you drew normal numbers, for which Student's t is made. The next cell draws data sets of three shapes with the
# same mean and spread. **Guess first**: with six skewed data sets, how often does your interval leave out zero?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_shapes

SHAPES = {
    "normal": stats.norm(),
    "skewed": stats.expon(-1),
    "heavy-tailed": stats.t(3, scale=3**-0.5),
}


def misses(shape: str, sets: int, questions: int = 1) -> float:
    """The share of studies whose interval leaves out zero, which is the truth."""
    drawn = SHAPES[shape].rvs((50_000, sets), random_state=0)  # the mean of each data set
    off = abs(drawn.mean(1)) / (drawn.std(1, ddof=1) / math.sqrt(sets))  # in standard errors
    return (off > stats.t.ppf(1 - 0.025 / questions, sets - 1)).mean()


skewed = 8  # your guess: percent of false positives with six skewed data sets
sizes = (4, 5, 6, 8, 12, 20, 30)
rates = pd.DataFrame({shape: [misses(shape, n) for n in sizes] for shape in SHAPES}, sizes)
display_figure(plot_shapes(SHAPES, rates, skewed))

# %% [markdown]
# With heavy tails your interval errs less, because a far value makes the standard error large too. With skewed data sets
# it errs in 11% of studies with six, and still in 7% with thirty. Most small samples have none of the rare large values,
# so their mean and their standard error both come out too low.
#
# Six data sets can't tell you which shape they have. So the promised 5% holds only if data sets are not strongly
# skewed (and drawn at random, but ours were chosen).
#
# ## Six questions at once
#
# We ask six questions, and would report whichever answer stands out. Each interval misses in 5% of studies, so one of the
# six misses far more often. **Bonferroni's correction** lets each miss in only 5% / 6 of studies, which adds up to 5% at
# most, whether the six depend on each other or not. The table has the share of studies in which one of six independent
# intervals misses, each over six data sets.

# %%
rows = {}
for shape in ("normal", "skewed"):
    alone, corrected = misses(shape, 6), misses(shape, 6, questions=6)
    rows[shape] = {"one interval": alone, "one of six": 1 - (1 - alone) ** 6}
    rows[shape] |= {"one, corrected": corrected, "one of six, corrected": 1 - (1 - corrected) ** 6}
display(pd.DataFrame(rows).T.style.format("{:.1%}"))

# %% [markdown]
# Without a correction, a quarter of our studies would report a difference that isn't there. With it one in twenty does,
# if data sets are normal. If they are as skewed as above, it is a quarter even with the correction.
#
# Now the six answers. A thick bar is an interval by itself. The thin bar is wide enough for all six, and gives the
# verdicts.

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_margins

SIDES = {"holds": "ahead", "fails": "behind", "open": "open"}  # with a margin of zero
verdict_of, gaps, judged, rows = yours("8.2"), {}, [], {}
for lab, margin in MARGINS.items():
    for rival, name in RIVALS.items():
        gap = (scores[lab]["serial_lora"] - scores[lab][rival]).unstack("seed").to_numpy()
        mean, half = interval_of(gap)
        alone, together = stats.t.ppf([1 - 0.025, 1 - 0.025 / 6], len(gap) - 1)
        wide = half * together / alone
        side, verdict = SIDES[verdict_of(mean, wide, 0)], verdict_of(mean, wide, margin)
        gaps[lab, rival] = gap.mean(axis=1)  # (sets,)
        judged.append((lab, rival, mean, half, wide, margin, verdict, side))
        row = {"sets": len(gap), "ahead on": sum(gap.mean(axis=1) > 0), "mean": f"{mean:+.2f}"}
        row |= {"from": f"{mean - wide:+.2f}", "to": f"{mean + wide:+.2f}"}
        row["margin it takes"] = f"{(wide - mean) / gains[lab]:.0%} of LoRA's gain"
        rows[lab, name] = row
display(pd.DataFrame(rows).T)
display_figure(plot_margins(judged))

# %% [markdown]
# On SAM at equal rank Serial LoRA is ahead on none of the six data sets, and even the thin bar lies left of zero. So
# it is *behind* LoRA, by 0.07 to 0.75 points: the one difference that our six questions establish. All of it is less
# than the margin, so *comparable* holds as well.
#
# The last column has the smallest margin with which *comparable* holds. At equal rank SAM needs 13% of LoRA's gain. Our
# one point is 17% of it, so it holds; with the 10% that we allowed CLIP and SD3 it would be open.
#
# At equal size the thick bar leaves out zero, now that the photographs are a sixth data set. Had your friend kept them,
# asked only this, and said so beforehand, you would have signed *better*. We asked six questions and would have reported
# any of them, so here it is *open*. Open is everything on CLIP and SD3, too. CLIP's intervals contain zero, and still
# Serial LoRA may be eight points behind: "not significant" does not mean "comparable".
#
# ## How many data sets would your friend need?
#
# Suppose that your friend asks only this one question, and that the true lead and spread are those of the six data
# sets. Here are thirty simulated studies of each of three sizes. A study is green if all of its interval lies right of
# zero: it finds the lead. A large orange dot marks an interval that misses the true lead.

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_studies

friend = gaps["sam", "lora_equal_budget"]
lead, spread = friend.mean(), friend.std(ddof=1)


def simulate(sets: int, studies: int) -> list[tuple[float, float]]:
    """The intervals of studies that are drawn with this lead and spread."""
    drawn = np.random.default_rng(0).normal(lead, spread, (studies, sets, 1))
    return [interval_of(study) for study in drawn]


print(f"true lead {lead:.2f}, standard deviation {spread:.2f}")
green = [mean for mean, half in simulate(3, 2000) if mean > half]
print(f"three data sets: {len(green) / 2000:.0%} find the lead, and report {np.mean(green):.2f}")
display_figure(plot_studies({n: simulate(n, 30) for n in (3, 6, 12)}, lead))

# %% [markdown]
# With six data sets 23 of 30 studies find the lead. With three, about a quarter do, and what they report is too large:
# on average 0.54, where 0.42 is true. With intervals this wide, zero is left out only if the mean came out large, or the
# spread small, by luck. Keep it in mind for leads that others report, too.
#
# ### Exercise 8.4 · How many data sets?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# The lead must cover two lengths: half of the interval, and how far a study's mean may fall below the truth by bad luck.
# The half is t(1 - 0.025 / questions) standard errors long, where t(p) is Student's quantile of p. The mean falls below,
# in 80% of studies, by less than t(0.8) standard errors. So about 80% of studies find the lead if
#
# $$\left(t(1 - 0.025 / \text{questions}) + t(0.8)\right) \cdot \text{standard error} \le \text{distance}$$
#
# Return the smallest number of data sets, from 2 up, for which this is true.


# %% tags=["exercise"]
def sets_needed(spread: float, distance: float, questions: int = 1) -> int:
    """How many data sets a study needs, so that about 80% of such studies find what is true.

    Args:
        spread: the standard deviation of the data sets' means.
        distance: from the truth to the value that the interval should leave out.
        questions: as many intervals are made, each as wide as Bonferroni asks.
    """
    # BEGIN SOLUTION
    n, level = 2, 1 - 0.025 / questions
    while sum(stats.t.ppf([level, 0.8], n - 1)) * spread / math.sqrt(n) > distance:
        n += 1
    return n
    # END SOLUTION


check("8.4", sets_needed)

# %% [markdown]
# <details><summary>Hint 1: both sides change with n</summary>
#
# The standard error is `spread / math.sqrt(n)`, and Student's quantiles fall with n too. So there is no formula for
# n, and you try 2, 3, 4 and so on.
#
# </details>
# <details><summary>Hint 2: when is it enough?</summary>
#
# Add the two quantiles, each with n - 1 degrees of freedom, and turn them into a length by the standard error. The
# first n whose length fits into `distance` is the answer.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)
#
# **Guess first**: how many new data sets does your friend's question take?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_price

price = 20  # your guess: data sets
needed, freedom = yours("8.4"), len(friend) - 1
rough = np.sqrt(freedom / stats.chi2.ppf([0.975, 0.025], freedom))  # 95% interval of the spread
leads = lead * np.array([0.25, 0.375, 0.5, 0.75, 1, 1.5, 2])
curves = {"as one of six": [needed(spread, each, 6) for each in leads]}
curves["one question"] = [needed(spread, each) for each in leads]
for end, factor in zip(("low", "high"), rough, strict=True):
    curves[end] = [needed(factor * spread, each) for each in leads]
curves = pd.DataFrame(curves, leads).rename_axis("true lead")
shown = curves.loc[[lead / 2, lead]].rename(index="{:.2f}".format)
display(shown)
enough = int(curves.loc[lead, "one question"])
share = np.mean([mean > half for mean, half in simulate(enough, 2000)])
print(f"{enough} data sets: {share:.0%} of 2,000 simulated studies find the lead")
display_figure(plot_price(curves, lead, len(friend), price))

# %% [markdown]
# If the true lead is 0.42, your friend needs 7 new data sets (11 as one of six). But 0.42 is what made your friend
# ask, and leads that stand out are too large, as you saw. Half of it takes 21. Six data sets also leave the spread
# uncertain: over its 95% interval, the answer lies between 4 and 30.
#
# ## What do you sign?
#
# **Write your own sentences** before you open ours.
#
# <details><summary>Ours</summary>
#
# "On SAM, at one learning rate and on data sets like these six, Serial LoRA is behind LoRA of equal rank, by 0.07 to
# 0.75 points of Dice. That is less than the point that we called too far. (Had we called a tenth of LoRA's gain too
# far, the question would be open.) Serial LoRA is not a point behind a LoRA of its size. Whether it is *better* is
# open, as is everything on CLIP and SD3. To find a lead as large as the one we saw takes about 7 new data sets (4 to
# 30). All this counts only if data sets are not strongly skewed."
#
# </details>
#
# ## Quiz
#
# **1. A paper reports four data sets with 25 seeds each: 100 runs, p < 0.001. What may it say?**
#
# <details><summary>Answer</summary>
#
# Something about *these* four data sets. For a claim about others like them the sample is four numbers.
#
# </details>
#
# **2. Two methods differ by +0.4 points on six data sets, ± 1.0. Is the first one better?**
#
# <details><summary>Answer</summary>
#
# Nobody knows yet. The interval goes from -0.6 to +1.4. With a margin of one point the first is *comparable*, since
# the lower end is above -1. Four times as many data sets halve the standard error and bring Student's t from 2.6 to
# 2.1, so the interval is ± 0.4. It then just touches zero: that would still not show that the first is *better*.
#
# </details>
#
# **3. You tried twelve settings, and one has p = 0.02. What do you say?**
#
# <details><summary>Answer</summary>
#
# Say that there were twelve. A *p value* is below 0.05 when the 95% interval leaves out zero, and Bonferroni's
# correction multiplies it: 12 × 0.02 = 0.24. If the setting still looks promising, run it again on new data sets.
# Then it is one question.
#
# </details>
#
# ## What to remember
#
# - The data set is the measurement: average its seeds, then use Student's t. Your friend's fifteen runs were five
#   measurements. Counted as fifteen, at these spreads, they find a winner between equal methods in 28% of studies.
# - Before you look, choose a margin, count your questions, and work out how many data sets an answer takes.
#
# Now for the paper itself: [lesson 09](09_paper_on_trial.ipynb).
