# %% [markdown]
# # 08 · How sure are you?
#
# A friend adapted SAM to five data sets of drawings, three times each, with Serial LoRA and with a LoRA of the same
# size. On average Serial LoRA won. "So sharing one pair works," says your friend, and wants your name on the report.
# Do you sign?
#
# To decide, you build an interval and test it, then add a margin, a correction for many questions, and a plan for the
# next study.

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
# The course ships records of such runs: its small CLIP, SAM and SD3, adapted in five ways, each at one learning rate
# (lesson 09 searches). For each model we ask how Serial LoRA does against LoRA of equal rank, which has four times the
# parameters, and of equal size. We fix these questions before we look.

# %%
LABS = {"clip": "accuracy", "sam": "dice", "sd3": "style_share"}
FROZEN = {"clip": "zero_shot_dataset", "sam": "base_dice", "sd3": "base_style_share"}
RIVALS = {"lora": "equal rank", "lora_equal_budget": "equal size"}


def results(lab: str, measures: dict[str, str] = LABS) -> pd.DataFrame:
    """Times 100: a row for each data set and seed, the mean over amounts; a column for each method."""
    runs = separate_sets(frame(shipped_records(lab)))  # without CLIP's union of five others
    return 100 * runs.pivot_table(measures[lab], ["dataset", "seed"], "method")


gains = {lab: (results(lab) - results(lab, FROZEN))["lora"].mean() for lab in LABS}
for lab, gain in gains.items():
    print(f"{lab}: LoRA gains {gain:.1f} points of {LABS[lab]} over the frozen model")
print(f"{len(LABS) * len(RIVALS)} questions")

# %% [markdown]
# This is what LoRA adds to the frozen model, in hundredths of accuracy, of Dice (lesson 05) and of style share (lesson
# 06). How much of it may Serial LoRA give away and still be called comparable? **Write your limits into `MARGINS`.**
# Ours are round numbers, meant to keep most of this gain.
#
# Then come your friend's runs. (A sixth data set, `photographs`, waits for later.) Each number is a mean over the
# amounts of training pictures. Two runs with the same data set and seed saw the same pictures, so we subtract one from
# the other.

# %%
MARGINS = {"clip": 1.0, "sam": 1.0, "sd3": 5.0}  # how far behind is too far
for lab, margin in MARGINS.items():
    print(f"{lab}: a margin of {margin:g} gives away {margin / gains[lab]:.0%} of LoRA's gain")

sam = results("sam").drop("photographs")
won_by = (sam["serial_lora"] - sam["lora_equal_budget"]).unstack("seed")  # (sets, seeds)
display(won_by.style.format("{:+.2f}"))

runs = won_by.to_numpy().ravel()
error = runs.std(ddof=1) / math.sqrt(len(runs))  # the standard error of the mean
print(f"{runs.mean():+.2f} ± {2 * error:.2f}, from {len(runs)} pairs of runs")

# %% [markdown]
# The last line takes all runs as one sample. Its mean, with two standard errors to each side, is an *interval*, made
# to contain the truth in nineteen of twenty studies. All of it lies above zero. Is the matter settled?
#
# Read the table row by row. On `lines` Serial LoRA wins with every seed, on `weather` it loses with two of three. Are
# these fifteen independent measurements?
#
# ## What is one measurement?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_measurement

display_figure(plot_measurement(sam, "serial_lora", "lora_equal_budget"))

# %% [markdown]
# In the left panel each line joins a pair of runs. The data sets lie up to nine points apart, and the subtraction
# takes that away. The middle panel shows what is left: the seeds of a data set lie closer together than the data sets
# do, so a second seed on `lines` tells you less than another data set would. It is as if your friend had asked five
# people three times each, and counted fifteen answers (*pseudoreplication*). **The data set is the measurement**, and
# its seeds are averaged first.
#
# The right panel shows the mean with three intervals. The second counts data sets in place of runs: it is wider, but
# zero is still outside. The third replaces two standard errors by Student's *t*, and zero is inside. Why are two not
# enough?
#
# ## How many standard errors?
#
# A hundred thousand times, the next cell draws a few measurements whose true mean is zero, and counts how often their
# mean is more than two standard errors off. It should be 5%. What do you expect for two measurements?

# %%
chance, rows = np.random.default_rng(0), {}
for n in (2, 3, 5, 15, 50):
    drawn = chance.normal(size=(100_000, n))  # the true mean is 0
    off = abs(drawn.mean(1)) / (drawn.std(1, ddof=1) / math.sqrt(n))  # in standard errors
    rows[n] = [f"{(off > 2).mean():.0%}", f"{np.quantile(off, 0.95):.1f}"]
    rows[n].append(f"{stats.t.ppf(0.975, n - 1):.1f}")
columns = ["beyond 2 standard errors", "95% stay within", "Student's t"]
display(pd.DataFrame(rows, index=columns).T.rename_axis("measurements"))

# %% [markdown]
# With two measurements, "two standard errors" is wrong in 29% of cases; to be wrong in only 5% you would need 12.7 of
# them. With five measurements you need 2.8, and with fifty two are enough.
#
# That is because the standard error is an estimate from the same few numbers. When they happen to agree, it comes out
# too small. Student's t makes up for that: `stats.t.ppf(0.975, n - 1)` is the factor for n measurements. (Half of the
# 5% is left out at each end.) It is exact for independent normal measurements; our data sets were chosen, not drawn at
# random, so for them it is an approximation.
#
# ### Exercise 8.1 · An interval over data sets
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Average each data set over its seeds: that is the sample. Return its mean, and half the width of its 95% interval by
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
# One number for each data set: its mean over the seeds, `differences.mean(axis=1)`. From there on compute `error` as
# in the cell with your friend's runs, with the number of data sets in place of the number of runs.
#
# </details>
# <details><summary>Hint 2: two places where n - 1 appears</summary>
#
# The standard deviation divides by n - 1 (`ddof=1`), and so does t count: `stats.t.ppf(0.975, n - 1)`. The root in
# the standard error is the root of n.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)

# %%
interval_of, rows = yours("8.1"), {}
for without in ("none", *won_by.index):
    mean, half = interval_of(won_by.drop(without, errors="ignore").to_numpy())
    rows[without] = {"mean": mean, "±": half, "from": mean - half, "to": mean + half}
display(pd.DataFrame(rows).T.rename_axis("left out").style.format("{:+.2f}"))

# %% [markdown]
# The first row is your friend's result, counted by data sets: zero is inside, but only by 0.02. The other rows leave
# one data set out. Without `weather` zero is outside, without `lines` well inside. If a single data set decides, five
# are too few, so you don't sign. (Serial LoRA may still be better.)
#
# ## Comparable needs a margin
#
# Could you sign something smaller? The paper's abstract says "achieves comparable performance in most cases".
# Comparable can't mean that zero is inside the interval, because with few data sets it nearly always is. The word
# needs the **margin** that you chose before you looked:
#
# - The whole interval is above minus the margin: it *holds*.
# - The whole interval is below that: it *fails*.
# - Otherwise the question is *open*.
#
# This is a *non-inferiority test*. Your friend's interval starts at -0.02, so "not a point behind" holds.
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
        margin: above 0, in the same unit.
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
# Write down both ends of the interval. The lower end decides whether the claim holds, the upper end whether it fails.
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
# Let's test it where we know the truth: in made-up studies of two equal methods. By chance each data set favours one
# of them a little, with every seed, and each run adds noise of its own. An interval that leaves out zero is then a
# *false positive*. There should be 5%.
#
# ### Exercise 8.3 · False positives
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Make up `studies` tables of differences, each of shape (sets, seeds), and return the share whose interval leaves out
# zero. Make the generator of normal numbers inside, so that a second call gives the same share.


# %% tags=["exercise"]
def false_positives(
    way: Callable, sets: int, seeds: int, between: float, within: float, studies: int = 2000
) -> float:
    """The share of made-up studies of two equal methods whose interval leaves out zero.

    Args:
        way: from a study's differences, (sets, seeds), to the mean and half of its interval.
        between: the standard deviation of what a data set adds, to all its seeds alike.
        within: the standard deviation of what each single run adds.
    """
    # BEGIN SOLUTION
    chance, wrong = np.random.default_rng(0), 0
    for _ in range(studies):
        suits = between * chance.normal(size=(sets, 1))
        made_up = suits + within * chance.normal(size=(sets, seeds))
        mean, half = way(made_up)
        wrong += abs(mean) > half
    return wrong / studies
    # END SOLUTION


check("8.3", false_positives)

# %% [markdown]
# <details><summary>Hint 1: one study</summary>
#
# What a data set adds is one number for each set, the same in its whole row. Draw it with shape (sets, 1): NumPy
# repeats it along the row when you add the noise of shape (sets, seeds).
#
# </details>
# <details><summary>Hint 2: when is zero left out?</summary>
#
# Zero is outside when the mean is farther from it than half of the interval, to either side. Count these studies, and
# divide by how many there were.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)
#
# Try the picture's three intervals, on made-up sets that vary as your friend's do. **Guess first**: how often does the
# first err with thirty seeds?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_false_positives


def over_runs(differences: np.ndarray) -> tuple[float, float]:
    """What your friend did: every run counts."""
    return differences.mean(), 2 * differences.std(ddof=1) / math.sqrt(differences.size)


def over_sets(differences: np.ndarray) -> tuple[float, float]:
    """Data sets count, with two standard errors."""
    return over_runs(differences.mean(axis=1))


guess = 20  # your guess: percent of false positives over runs, with thirty seeds
noise = won_by.var(axis=1).mean()  # of one seed; a set's mean keeps a part of it
between = won_by.mean(axis=1).var() - noise / won_by.shape[1]
print(f"standard deviations: {between**0.5:.2f} between data sets, {noise**0.5:.2f} between seeds")
ways = {"runs, 2 s.e.": over_runs, "sets, 2 s.e.": over_sets, "sets, Student's t": interval_of}
tried, rates = yours("8.3"), pd.DataFrame(columns=list(ways))
for seeds in (1, 3, 5, 10, 20, 30):
    rates.loc[seeds] = [tried(way, 5, seeds, between**0.5, noise**0.5) for way in ways.values()]
display_figure(plot_false_positives(rates, guess))

# %% [markdown]
# The upper line is your friend's interval. With three seeds it finds a winner between equal methods in 28% of studies,
# with thirty in 69%. More runs make it narrower, but they say nothing about data sets other than these five. The
# middle line counts data sets, but for five of them two standard errors are too few, so it errs in 10 to 13%. Yours
# stays near 5%, however many seeds, so let's use it in all three labs.

# %%
verdict_of, gaps, rows = yours("8.2"), {}, {}
for lab in LABS:
    for rival, name in RIVALS.items():
        gap = (results(lab)["serial_lora"] - results(lab)[rival]).unstack("seed")  # (sets, seeds)
        gaps[lab, rival] = gap.to_numpy()
        mean, half = interval_of(gap.to_numpy())
        row = {"sets": len(gap), "mean": f"{mean:+.2f}", "from": f"{mean - half:+.2f}"}
        row |= {"to": f"{mean + half:+.2f}", "margin": MARGINS[lab]}
        rows[lab, name] = row | {"comparable": verdict_of(mean, half, MARGINS[lab])}
display(pd.DataFrame(rows).T)

# %% [markdown]
# Look at SAM at equal rank. The whole interval is below zero, so Serial LoRA seems to be behind, and all of it is
# above -1, so it is comparable as well. (A margin below 0.62, a tenth of LoRA's gain, would leave it open.) On CLIP
# both intervals contain zero, and still Serial LoRA may be five points behind. "Not significant" and "comparable" are
# two different things.
#
# With a sixth data set, `photographs`, your friend's interval leaves out zero. You still don't sign: whoever adds data
# sets until zero is outside gives chance several tries.
#
# ## Many questions
#
# An interval that misses in one study of twenty is fine for one question. If you ask more, count every question whose
# result you would have reported: together they are a *family*. The six that we fixed are one. Now we go hunting, and
# compare any two methods in each lab. We would report whatever stands out, so all thirty are a family.
#
# The *p value* of a pair is below 0.05 exactly when its interval leaves out zero. **Bonferroni's correction**
# multiplies it by the size of the family. Where no methods differ, at most 5% of studies then find any difference,
# because thirty chances of 5% / 30 add up to no more. How many pairs will survive?

# %%
from itertools import combinations

survivors = 6  # your guess: pairs that are still below 0.05 after the correction
asked = []
for lab in LABS:
    for one, other in combinations(table := results(lab), 2):
        sample = (table[one] - table[other]).groupby("dataset").mean()  # (sets,)
        ahead, behind = (one, other) if sample.mean() > 0 else (other, one)
        row = {"lab": lab, "ahead": ahead, "behind": behind, "by": abs(sample.mean())}
        asked.append(row | {"p": float(stats.ttest_1samp(sample, 0).pvalue)})
asked = pd.DataFrame(asked).sort_values("p")
asked["corrected"] = (len(asked) * asked["p"]).clip(upper=1)
looks = {"by": "{:.2f}", "p": "{:.4f}", "corrected": "{:.3f}"}
display(asked[asked["p"] < 0.05].style.format(looks).hide())
left = sum(asked["corrected"] < 0.05)
print(f"{len(asked)} questions, {sum(asked['p'] < 0.05)} below 0.05, {left} after the correction")
print(f"your guess: {survivors}; chance that six sets all agree in sign: {2 / 2**6:.3f}")
friend = stats.ttest_1samp(gaps["sam", "lora_equal_budget"].mean(axis=1), 0).pvalue
print(f"your friend's question among the six: 6 × {friend:.4f} = {6 * friend:.2f}")

# %% [markdown]
# Of twelve pairs two survive: on SAM, LoRA+ is ahead of Serial LoRA and of LoRA of equal size. Even these rest on the
# far tails of Student's t, which six chosen data sets need not follow. (A test of signs alone can't give six sets less
# than 0.031, even uncorrected.) So they are questions for a new study. Your friend's question is one of the six, and
# has 0.14 there.
#
# Intervals are corrected likewise: each of the six may miss in only 5% / 6 of studies. Below, a thick bar is an
# interval by itself; the thin bar is wide enough for all six, and gives the verdict.

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_margins

judged = []
for (lab, rival), gap in gaps.items():
    mean, half = interval_of(gap)
    alone, together = stats.t.ppf([1 - 0.025, 1 - 0.025 / len(gaps)], len(gap) - 1)
    wide = half * together / alone
    verdict = verdict_of(mean, wide, MARGINS[lab])
    judged.append((lab, rival, mean, half, wide, MARGINS[lab], verdict))
    print(f"{lab:4} {RIVALS[rival]}: {mean - wide:+6.2f} to {mean + wide:+.2f}, {verdict}")
display_figure(plot_margins(judged))

# %% [markdown]
# Look where the thin bars end. SAM's two hold. Your friend's lead over zero is open, and so are all four on CLIP and
# SD3.
#
# ## How many data sets would it take?
#
# Suppose that two methods are equal. The mean of a study still lands left or right of zero, in a bell as wide as the
# standard error. The study says *holds* if its interval stays right of minus the margin, so its mean has to land right
# of the dashed line, a reach away from there. Here is CLIP at equal size.

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_studies

spread = gaps["clip", "lora_equal_budget"].mean(axis=1).std(ddof=1)
display_figure(plot_studies(spread, MARGINS["clip"], (6, 20, 60)))

# %% [markdown]
# Green are the studies that find *holds*, if their reach is of typical length. With 6 data sets the reach is so long
# that most studies end *open*. More data sets shorten it, and make the bell narrow.
#
# ### Exercise 8.4 · How many data sets?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# Return the smallest number of data sets, from 2 up, with which about 80% of studies find what is true. Two lengths,
# in standard errors, have to fit into the `distance` from the truth to minus the margin: the reach, which is Student's
# quantile of `1 - 0.025 / questions`, and room for 80% of the bell, which is Student's 80% quantile.


# %% tags=["exercise"]
def sets_needed(spread: float, distance: float, questions: int = 1) -> int:
    """How many data sets a study needs, so that about 80% of such studies find what is true.

    Args:
        spread: the standard deviation of the data sets' means.
        distance: from the truth to the value that the interval should leave out.
        questions: as many intervals are made, each as wide as Bonferroni asks.
    """
    # BEGIN SOLUTION
    n, reach = 2, 1 - 0.025 / questions
    while sum(stats.t.ppf([reach, 0.8], n - 1)) * spread / math.sqrt(n) > distance:
        n += 1
    return n
    # END SOLUTION


check("8.4", sets_needed)

# %% [markdown]
# <details><summary>Hint 1: both sides change with n</summary>
#
# The standard error is `spread / math.sqrt(n)`, and Student's quantiles fall with n too. So there is no formula for n:
# try 2, 3, 4 and so on.
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
# What does CLIP need at equal rank, as one of six questions? That depends on the true difference, which nobody knows,
# so the next cell draws a range. **Guess first**: how many if the two are equal?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_price

price = 20  # your guess: data sets, if the two methods are equal
needed, margin = yours("8.4"), MARGINS["clip"]
means = gaps["clip", "lora"].mean(axis=1)  # (sets,)
freedom, spread = len(means) - 1, means.std(ddof=1)


def sets_for(truth: float) -> int:
    """Data sets until a study finds on which side of minus the margin this truth lies."""
    distance = max(abs(truth + margin), margin / 10)  # nearer, the search takes too long
    return needed(spread, distance, len(gaps))


truths = margin * np.array([-3, -2.5, -2, -1.75, -1.5, -0.5, -0.25, 0, 0.5, 1])
curve = pd.DataFrame({"estimate": [sets_for(truth) for truth in truths]}, index=truths)
rough = freedom / stats.chi2.ppf([0.975, 0.025], freedom)  # 95% interval of the spread's square
for end, factor in zip(("low", "high"), rough, strict=True):
    curve[end] = factor * curve["estimate"]  # sets grow like the square of the spread
display(curve.loc[[0]].rename_axis("true difference").style.format("{:.0f}"))
print(f"at the mean found, {means.mean():+.2f}: {sets_for(means.mean())}; your guess: {price}")
display_figure(plot_price(curve, margin, means.mean(), len(means)))

# %% [markdown]
# The curve rises toward the margin, because a difference close to it is hard to tell from it. If the two are equal,
# *holds* takes about 180 data sets; if the truth is the mean found, *fails* takes some 475. The band says how rough
# that is: a spread estimated from six sets allows 70 to 1083 in place of 180. **Set `margin` to 3 in the cell, and see
# what that answer costs.**
#
# ## What do you sign?
#
# **Write your own sentence** before you open ours.
#
# <details><summary>Ours</summary>
#
# "On SAM, on data sets like these six and at one rate for both, Serial LoRA is not a hundredth of Dice behind a LoRA
# of its size, nor behind one of equal rank. Whether it is *better* than a LoRA of its size is open, and so is
# everything that we asked on CLIP and SD3."
#
# </details>
#
# ## Quiz
#
# **1. A paper reports four data sets with 25 seeds each: 100 runs, p < 0.001. What may it say?**
#
# <details><summary>Answer</summary>
#
# Something about *these* four data sets. For a claim about others like them the sample is four numbers, and the 25
# seeds only make each of the four more exact.
#
# </details>
#
# **2. Two methods differ by +0.4 points on six data sets, ± 1.0. Are they equal, or is the first better?**
#
# <details><summary>Answer</summary>
#
# Nobody knows yet. The interval goes from -0.6 to +1.4. With a margin of one point the first is *comparable*, since
# the lower end is above -1. With four times as many data sets the standard error halves and Student's t falls from
# 2.6 to 2.1, so the interval is ± 0.4.
#
# </details>
#
# **3. You tried twelve settings, and one has p = 0.02. What do you say?**
#
# <details><summary>Answer</summary>
#
# Say that there were twelve. Corrected, it is 12 × 0.02 = 0.24. (The course's study uses Holm's
# correction, a refinement; here it gives the same.) If the setting still looks promising, run it again on new data
# sets: then it is one question.
#
# </details>
#
# ## What to remember
#
# - The data set is the measurement: average its seeds, then take the interval by Student's t.
# - "Comparable" needs a margin that is chosen first. "Open" is an answer.
# - Correct for every question whose result you would have reported.
# - Count beforehand how many data sets an answer takes.
#
# Next time a table says "± 0.2", ask: over what? Now for the paper itself: [lesson 09](09_paper_on_trial.ipynb).
