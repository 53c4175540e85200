# %% [markdown]
# # 08 · How sure are you?
#
# A friend adapted SAM to five data sets of drawings, three times each, with Serial LoRA and with a LoRA of the same
# size. On average Serial LoRA won. "So sharing one pair works," says your friend, and wants your name on the report.
# Do you sign?
#
# To decide, you build an interval and test it. Then you add a margin, correct for asking several questions, and work
# out how many data sets your friend would need.

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
# The course ships the records of such runs: its small CLIP, SAM and SD3, adapted in five ways, each at one learning
# rate (lesson 09 searches for better ones). For each model we ask how Serial LoRA does against LoRA of equal rank,
# which is larger, and against LoRA of equal size. We fix these six questions before we look at any result.

# %%
LABS = {"clip": "accuracy", "sam": "dice", "sd3": "style_share"}
FROZEN = {"clip": "zero_shot_dataset", "sam": "base_dice", "sd3": "base_style_share"}
RIVALS = {"lora": "equal rank", "lora_equal_budget": "equal size"}


def results(lab: str, measure: str) -> pd.DataFrame:
    """A row for each data set and seed, the mean over amounts; a column for each method."""
    runs = separate_sets(frame(shipped_records(lab)))  # without CLIP's union of five others
    return runs.pivot_table(measure, ["dataset", "seed"], "method")


scores = {lab: 100 * results(lab, measure) for lab, measure in LABS.items()}
gains, rows = {}, {}
for lab, measure in LABS.items():
    gains[lab] = (scores[lab] - 100 * results(lab, FROZEN[lab]))["lora"].mean()
    size, rate = results(lab, "parameters").mean(), results(lab, "lr").mean()
    rows[lab] = {"measure": measure, "LoRA gains": f"{gains[lab]:.1f}"}
    rows[lab]["LoRA's parameters"] = f"{size['lora'] / size['serial_lora']:.0f} × Serial LoRA's"
    rows[lab] |= {f"rate, {name}": f"{rate[name]:g}" for name in ("serial_lora", *RIVALS)}
display(pd.DataFrame(rows).T)

# %% [markdown]
# *LoRA gains* is what LoRA adds to the frozen model, in hundredths of accuracy, of Dice (lesson 05) and of style share
# (lesson 06). How much of this gain may Serial LoRA give away and still be called comparable? **Write your limits into
# `MARGINS`.** Ours are round numbers, the same as in lesson 09. We set them before these runs were made, but we had
# seen earlier ones.
#
# Then come your friend's runs. They are on drawings, so the sixth data set of the records, `photographs`, is not among
# them. Each number is a mean over the amounts of training pictures. Two runs with the same data set and seed saw the
# same pictures, so we subtract one from the other.

# %%
MARGINS = {"clip": 1.0, "sam": 1.0, "sd3": 5.0}  # how far behind is too far
for lab, margin in MARGINS.items():
    print(f"{lab}: a margin of {margin:g} gives away {margin / gains[lab]:.0%} of LoRA's gain")

sam = scores["sam"].drop("photographs")
won_by = (sam["serial_lora"] - sam["lora_equal_budget"]).unstack("seed")  # (sets, seeds)
display(won_by.style.format("{:+.2f}"))

runs = won_by.to_numpy().ravel()
error = runs.std(ddof=1) / math.sqrt(len(runs))  # the standard error of the mean
print(f"{runs.mean():+.2f} ± {2 * error:.2f}, from {len(runs)} pairs of runs")

# %% [markdown]
# The last line treats all runs as one sample. Its mean, with two standard errors to each side, is an *interval*: a
# range that is made to contain the true difference in nineteen of twenty studies. All of it lies above zero, so the
# matter seems settled.
#
# But read the table row by row. On `lines` Serial LoRA wins with every seed, and on `weather` it loses with two of
# three. Are these really fifteen independent measurements?
#
# ## What is one measurement?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_measurement

display_figure(plot_measurement(sam, "serial_lora", "lora_equal_budget"))

# %% [markdown]
# In the left panel each line joins a pair of runs. The data sets lie up to nine points apart, and the subtraction
# removes these distances. The middle panel shows the differences that remain. The seeds of one data set lie closer
# together than the data sets do, so a second seed on `lines` tells you less than another data set would. Your friend
# has asked five people three times each, so to speak, and has counted fifteen answers (*pseudoreplication*). **The data
# set is the measurement**, so its seeds are averaged first.
#
# The right panel shows the mean with three intervals. The second interval counts data sets instead of runs, which makes
# it wider, but zero is still outside. The third replaces the two standard errors by Student's *t*, and now zero is
# inside. Why are two standard errors not enough?
#
# ## How many standard errors?
#
# The next cell draws a few measurements whose true mean is zero, a hundred thousand times, and counts how often their
# mean is more than two standard errors away from zero. It should be 5%. What do you expect for two measurements?

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
# With two measurements the mean is more than two standard errors off in 29% of cases, and it takes 12.7 standard errors
# to be off in only 5%. With five measurements it takes 2.8, and with fifty two are enough.
#
# The reason is that the standard error is itself an estimate from the same few numbers. When these happen to lie close
# together, it comes out too small. Student's t makes up for that: `stats.t.ppf(0.975, n - 1)` is the factor for n
# measurements. (Half of the 5% is left out at each end.)
#
# ### Exercise 8.1 · An interval over data sets
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Average each data set over its seeds. These averages are the sample: return its mean, and half the width of its 95%
# interval by Student's t.


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
# The sample has one number for each data set, its mean over the seeds: `differences.mean(axis=1)`. From there on
# compute `error` as in the cell with your friend's runs, with the number of data sets in place of the number of runs.
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
interval_of = yours("8.1")
mean, half = interval_of(won_by.to_numpy())
print(
    f"{mean:+.2f} ± {half:.2f}: from {mean - half:+.2f} to {mean + half:+.2f}, over {len(won_by)} data sets"
)

# %% [markdown]
# Counted by data sets, your friend's interval starts at -0.02 and so contains zero. These runs do not show that Serial
# LoRA is better, and you don't sign. They do not show that it is no better either.
#
# ## Comparable needs a margin
#
# Could you sign something smaller? The paper's abstract says "achieves comparable performance in most cases".
# Comparable can't mean that zero is inside the interval, because then the smallest study, with the widest interval,
# would show it best. The word needs the **margin** that you chose before you looked:
#
# - If the whole interval is above minus the margin, the claim *holds*.
# - If the whole interval is below minus the margin, it *fails*.
# - Otherwise the question is *open*.
#
# This is a *non-inferiority test*. Your friend's interval starts at -0.02, so "less than a point behind" holds. With a
# margin of zero the same rule asks for a difference: *holds* then means ahead, and *fails* means behind.
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
# We can test it where we know the truth, in simulated studies of two equal methods. By chance each data set favours one
# of them a little, with all its seeds, and each run adds noise of its own. An interval that leaves out zero is then a
# *false positive*. There should be 5%.
#
# ### Exercise 8.3 · False positives
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Simulate `studies` tables of normal differences, each of shape (sets, seeds), and return the share whose interval
# leaves out zero. Create the random generator inside the function, so that a second call gives the same share.


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
# A data set adds one number, which is the same in its whole row. Draw these numbers with shape (sets, 1): NumPy repeats
# them along the rows when you add the noise of shape (sets, seeds).
#
# </details>
# <details><summary>Hint 2: when is zero left out?</summary>
#
# Zero is outside when the mean is farther from zero than half of the interval, on either side. Count these studies, and
# divide by the number of all.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)
#
# Now compare your friend's interval with yours, on simulated data sets that vary as much as your friend's. **Guess
# first**: with thirty seeds, how often does your friend's interval find a winner?

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
for seeds in (1, 3, 5, 10, 20, 30):
    rates.loc[seeds] = [tried(way, 5, seeds, between**0.5, noise**0.5) for way in ways.values()]
display_figure(plot_false_positives(rates, guess))

# %% [markdown]
# The upper line is your friend's interval. With three seeds it finds a winner between equal methods in 28% of studies,
# and with thirty seeds in 69%. More seeds make this interval narrower, but they say nothing about other data sets than
# these five. Your interval stays near 5%, however many seeds there are.
#
# This test was kind to your interval, because Student's t is made for normal numbers. Real data sets may differ from
# each other in another way. The next cell draws them from three shapes with the same mean, zero, and the same spread.
# **Guess first**: how often does your interval leave out zero with six skewed data sets?

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
display(rates.T.style.format("{:.1%}"))
display_figure(plot_shapes(SHAPES, rates, skewed))

# %% [markdown]
# The left panel shows the three shapes, and the right panel what they do to your interval. With normal data sets it
# keeps its 5%, and with heavy tails it errs even less, because a far value makes the standard error large too. Skewed
# data sets are the danger: it errs in 11.3% of studies with six of them, and still in 7.1% with thirty. Most small
# samples have none of the rare large values. Then the mean is too low, and the standard error too small as well.
#
# Six data sets can't tell you from which shape they come, and ours were chosen, not drawn at random. So what an interval
# says from here on, it says on condition that data sets are not strongly skewed.
#
# ## Six questions at once
#
# An interval that misses in one study of twenty is fine for one question. But we ask six, and would report whatever
# stands out, so their chances of a miss add up. **Bonferroni's correction** lets each of the six miss in only 5% / 6 of
# studies, so that together they miss in at most 5%. For that the intervals have to be wider. Below, a thick bar is an
# interval by itself. The thin bar is wide enough for all six, and gives the verdicts.

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_margins

SIDES = {"holds": "ahead", "fails": "behind", "open": "open"}  # what a margin of zero asks
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
        row |= {"from": f"{mean - wide:+.2f}", "to": f"{mean + wide:+.2f}", "against zero": side}
        row |= {"comparable": verdict, "holds from": f"{(wide - mean) / gains[lab]:.0%} of gain"}
        rows[lab, name] = row
display(pd.DataFrame(rows).T)
p = stats.ttest_1samp(gaps["sam", "lora_equal_budget"], 0).pvalue
print(f"p of your friend's question: {p:.4f}; corrected: 6 × {p:.4f} = {6 * p:.2f}")
print(f"six skewed data sets: {misses('skewed', 6, 6):.1%} of thin bars miss, not {0.05 / 6:.1%}")
display_figure(plot_margins(judged))

# %% [markdown]
# Look at SAM, in the middle. At equal rank even the thin bar lies left of zero, so Serial LoRA is *behind* LoRA, by
# 0.07 to 0.75 points. That is the one difference that our six questions establish. All of it is less than the margin,
# so *comparable* holds as well. Both are true: the deficit is there, and it is smaller than what we had called too far.
#
# How much does this verdict owe to our margin? The last column says how large a margin has to be for *holds*: at equal
# rank, 13% of LoRA's gain. We had allowed 17% on SAM, and 10% on CLIP and SD3. With 10% on SAM too, the question would be
# open.
#
# At equal size, with the photographs as a sixth data set, the thick bar of your friend's question leaves out zero. As
# one of six questions the lead is open. (A *p value* below 0.05 says that the 95% interval leaves out zero, and the
# correction multiplies it by six.)
#
# On CLIP and SD3 everything is open. Both intervals of CLIP contain zero, and still Serial LoRA may be eight points
# behind: "not significant" does not mean "comparable".
#
# ## How many data sets would your friend need?
#
# Suppose that the true lead is the mean of these six data sets, and that data sets vary as much as they do. The next
# cell simulates thirty new studies of each of three sizes. This time there is only your friend's question.

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_studies

friend, chance = gaps["sam", "lora_equal_budget"], np.random.default_rng(0)
lead, spread = friend.mean(), friend.std(ddof=1)
print(f"lead {lead:.2f}, standard deviation {spread:.2f}")
studies = {
    n: [interval_of(chance.normal(lead, spread, (n, 1))) for _ in range(30)] for n in (3, 6, 12)
}
display_figure(plot_studies(studies, lead))

# %% [markdown]
# Each line is the interval of one study. It is green if the study finds the lead, that is, if all of the interval lies
# right of zero. With six data sets, which is what your friend has now, 19 of 30 studies do. More data sets help twice:
# the intervals get shorter, and their means lie closer to the true lead.
#
# ### Exercise 8.4 · How many data sets?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# Return the smallest number of data sets, from 2 up, with which about 80% of studies find the lead. Its `distance` from
# zero has to hold two lengths, both counted in standard errors. One is half of the interval, so Student's quantile of
# `1 - 0.025 / questions`. The other allows for means that come out too low: 80% of them lie above the true lead minus
# Student's 80% quantile.


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
# The standard error is `spread / math.sqrt(n)`, and Student's quantiles fall with n too. So there is no formula for n,
# and you try 2, 3, 4 and so on.
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
# Now let your function answer for your friend. **Guess first**: how many new data sets does your friend's question take?

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
display_figure(plot_price(curves, lead, len(friend), price))

# %% [markdown]
# If the true lead is 0.42, your friend needs 7 new data sets, or 11 if it is one of six questions again. But the number
# rests on what these six data sets showed. Your friend asks *because* they showed a lead, so the true one is more likely
# smaller than larger, and half of it takes 21. Six data sets also say little about the spread: the band goes from 4 to
# 30 at 0.42.
#
# ## What do you sign?
#
# **Write your own sentences** before you open ours.
#
# <details><summary>Ours</summary>
#
# "On SAM, at one learning rate and on data sets like these six, Serial LoRA is behind LoRA of equal rank by 0.07 to 0.75
# hundredths of Dice, so by less than the hundredth that we had called too far, though not by less than a tenth of LoRA's
# gain. It is not a hundredth behind a LoRA of its size. Whether it is *better* than that is open, and a study of this one
# question should plan more than 7 new data sets. On CLIP and SD3 everything that we asked is open. All of this assumes
# that data sets are not strongly skewed."
#
# </details>
#
# ## Quiz
#
# **1. A paper reports four data sets with 25 seeds each: 100 runs, p < 0.001. What may it say?**
#
# <details><summary>Answer</summary>
#
# It may say something about *these* four data sets. For a claim about others like them the sample is four numbers, and
# the 25 seeds only make each of the four more exact.
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
# Say that there were twelve. Corrected, p is 12 × 0.02 = 0.24. If the setting still looks promising, run it again on new
# data sets. Then it is one question.
#
# </details>
#
# ## What to remember
#
# - The data set is the measurement: average its seeds, then take the interval by Student's t.
# - "Comparable" needs a margin that is chosen first, and "open" is an answer.
# - Correct for every question whose result you would have reported.
# - Work out beforehand how many data sets an answer takes.
#
# Next time a table says "± 0.2", ask what it was counted over. Now for the paper itself:
# [lesson 09](09_paper_on_trial.ipynb).
