# %% [markdown]
# # 08 · How sure are you?
#
# A friend adapted SAM to five data sets of drawings, three times each, with Serial LoRA and with a LoRA of the same
# size. On average Serial LoRA won. "So sharing one pair works," says your friend, and wants your name on the report. Do
# you sign?
#
# You'll build what you need to decide: an interval, a margin, a correction for many questions, and the number of data
# sets that an answer would take.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import math

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
# The course ships the records of runs like those of lessons 04 to 07. Before you look at a difference, write down how
# far behind would be too far: **put your own margins into `MARGINS`**. Ours are one point of accuracy on CLIP, one
# point of Dice on SAM (how well a mask fits, lesson 05, times 100), and five points of style share on SD3 (lesson 06).
#
# Then come your friend's runs, on five data sets with three seeds. (A sixth, `photographs`, waits for later.) Each
# value is a mean over the amounts of training pictures. Two runs of one data set and seed saw the same pictures, so
# we subtract them, and keep the difference.

# %%
LABS = {"clip": "accuracy", "sam": "dice", "sd3": "style_share"}
MARGINS = {"clip": 1.0, "sam": 1.0, "sd3": 5.0}  # how far behind is too far


def results(lab: str, measure: str) -> pd.DataFrame:
    """Times 100: a row for each data set and seed, the mean over amounts; a column for each method."""
    runs = separate_sets(frame(shipped_records(lab)))  # without CLIP's union of five others
    return 100 * runs.pivot_table(measure, ["dataset", "seed"], "method")


sam = results("sam", "dice").drop("photographs")
won_by = (sam["serial_lora"] - sam["lora_equal_budget"]).unstack("seed")  # (sets, seeds)
display(won_by.style.format("{:+.2f}"))

runs = won_by.to_numpy().ravel()
error = runs.std(ddof=1) / math.sqrt(len(runs))  # the standard error of the mean
print(f"{runs.mean():+.2f} ± {2 * error:.2f}, from {len(runs)} pairs of runs")

# %% [markdown]
# The last line takes all runs as one sample, and two standard errors to each side of the mean are the *interval*, made
# to catch the truth in nineteen studies of twenty. All of it is above zero: settled?
#
# Now read the table row by row. On `lines` Serial LoRA wins clearly with every seed, on `weather` it loses with two
# of three. Do these look like fifteen independent measurements of one thing?
#
# ## What is one measurement?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_measurement

display_figure(plot_measurement(sam, "serial_lora", "lora_equal_budget"))

# %% [markdown]
# Left: each line joins a pair of runs, LoRA's and Serial LoRA's. The lines are almost flat, but data sets lie up to
# nine points apart. Subtracting within a pair takes that away.
#
# Middle: how far each line rises. The seeds of a data set lie closer together than the sets. A method that suits
# `lines` suits it with every seed, so the second and third seed tell you little that is new. It is like a survey: your
# friend did not ask fifteen people, but five people three times each. Counting repeats as samples is called
# *pseudoreplication*.
#
# So **the data set is the measurement**, and its seeds are averaged first. Right: the same mean with two intervals,
# one that counts fifteen runs and one that counts five data sets. The wide one contains zero.
#
# ## How many standard errors?
#
# Many use two. The next cell tests that: a hundred thousand times it draws a few measurements whose true mean is zero,
# and counts how often their mean is more than two standard errors away from it. It should be 5%. What do you expect for
# only two measurements?

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
# With two measurements, "two standard errors" is wrong in 29% of cases. To be wrong in only 5% you would need 12.7
# standard errors. With five measurements you need 2.8, and from fifty on two are enough.
#
# Why? The standard error is itself an estimate, made from the same few numbers. When they happen to agree, it comes
# out too small. Student's *t* corrects that, and `stats.t.ppf(0.975, n - 1)` gives it. (Why 0.975? Half of the 5% is
# left out at each end.) It is exact for independent normal measurements; our data sets were chosen, not sampled at
# random, so for them it is an approximation.

# %% [markdown]
# ### Exercise 8.1 · An interval over data sets
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# First average each data set over its seeds. What is left is the sample. Return its mean, and half the width of the
# 95% interval by Student's t.


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
interval_of = yours("8.1")
mean, half = interval_of(won_by.to_numpy())
print(f"{mean:+.2f} ± {half:.2f}, from {len(won_by)} data sets")
print(f"the interval: {mean - half:+.2f} to {mean + half:+.2f}")

# %% [markdown]
# The same mean, and zero is inside, if only just. You don't sign. That does not mean that Serial LoRA is no better:
# five data sets are too few to tell. And there is a second reason: one learning rate served both methods, and may suit
# one of them better. (It stands in the table after next. Lesson 09 gives each its own.)
#
# Let's test both intervals where we know the truth. We make up two methods that are equal on average: data sets favour
# one or the other by chance, and seeds add noise, both as much as in your friend's table (the line that the cell
# prints). Every interval that leaves out zero is then a *false positive*. How often will your friend's interval find a
# winner, and what will more seeds do to that? **Put your guess into `guess`.**


# %%
def over_runs(differences: np.ndarray) -> tuple[float, float]:
    """What your friend did: every run counts."""
    return differences.mean(), 2 * differences.std(ddof=1) / math.sqrt(differences.size)


guess = 5  # your guess: percent of your friend's intervals that find a winner, with thirty seeds
noise = won_by.var(axis=1).mean()  # of one seed; a set's mean keeps a part of it
between = won_by.mean(axis=1).var() - noise / won_by.shape[1]
print(f"standard deviations: {between**0.5:.2f} between data sets, {noise**0.5:.2f} between seeds")
rows = {}
for seeds in (3, 10, 30):
    wrong = {"over runs": 0, "over data sets": 0}
    for _ in range(2000):
        sets = between**0.5 * chance.normal(size=(5, 1))  # (sets, 1): what suits a data set
        made_up = sets + noise**0.5 * chance.normal(size=(5, seeds))  # (sets, seeds)
        for way, of in zip(wrong, (over_runs, interval_of), strict=True):
            mean, half = of(made_up)
            wrong[way] += abs(mean) > half
    rows[seeds] = {way: f"{count / 2000:.0%}" for way, count in wrong.items()}
display(pd.DataFrame(rows).T.rename_axis("seeds"))
print(f"over runs, thirty seeds: {rows[30]['over runs']}; your guess, in percent: {guess}")

# %% [markdown]
# Between two equal methods your friend finds a winner in 27% of cases. With thirty seeds it is 70%. More runs make
# the interval narrower, but they come from the same five data sets. Your interval keeps its promise: about 5%,
# however many seeds.
#
# ## More seeds, or more data sets?
#
# If the interval is too wide, what should you add? The means of data sets vary for two reasons: data sets differ, and
# each mean carries some noise from its few seeds, which the spread within a row of the table tells. Here is Serial LoRA
# minus LoRA in all three labs, of equal rank and of equal size.

# %%
RIVALS = {"lora": "equal rank", "lora_equal_budget": "equal size"}
rows, intervals = {}, {}
for lab, measure in LABS.items():
    table, rates = (
        results(lab, measure),
        frame(shipped_records(lab)).groupby("method")["lr"].first(),
    )
    for rival, name in RIVALS.items():
        gap = (table["serial_lora"] - table[rival]).unstack("seed")  # (sets, seeds)
        seeds = gap.var(axis=1).mean() / gap.shape[1]  # seed noise left in a set's mean
        share = seeds / gap.mean(axis=1).var()  # of the variance of the sets' means
        mean, half = intervals[lab, rival] = interval_of(gap.to_numpy())
        row = {"sets": len(gap), "difference": f"{mean:+.2f} ± {half:.2f}"}
        row["seeds' share of the variance"] = f"{share:.0%}"
        row["rates, Serial LoRA's first"] = f"{rates['serial_lora']:g}, {rates[rival]:g}"
        rows[f"{lab}, {name}"] = row
display(pd.DataFrame(rows).T)

# %% [markdown]
# Endless seeds would take away that share, and no more: as estimated here at most 42% of a variance, on SD3 2%. What is
# left needs more sets.
#
# And see what one more set does. SAM has six here: `photographs` joined, and your friend's interval, ± 0.45 before, is
# ± 0.34 and leaves out zero. Sign now? Not yet: whoever adds data until an interval leaves out zero has several chances
# to be wrong, and this is one line of six.
#
# ## Comparable needs a margin
#
# The paper's word is "comparable". It can't mean "not significant" (zero is inside the interval): with two runs hardly
# anything is significant, so everything would be comparable. It needs a **margin**, chosen before you look: yours at
# the top.
#
# - The whole interval is above minus the margin: it *holds*.
# - The whole interval is below that: it *fails*.
# - Otherwise the question is *open*.
#
# This is a *non-inferiority test*.

# %% [markdown]
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

# %% [markdown]
# Against LoRA of equal rank: does a quarter of the parameters do about as well? Of equal size: or does any adapter of
# that size?

# %%
verdict_of, rows = yours("8.2"), {}
for (lab, rival), (mean, half) in intervals.items():
    row = {"from": f"{mean - half:+.2f}", "to": f"{mean + half:+.2f}", "margin": MARGINS[lab]}
    row["leaves out 0"] = abs(mean) > half
    rows[lab, RIVALS[rival]] = row | {"comparable": verdict_of(mean, half, MARGINS[lab])}
display(pd.DataFrame(rows).T)

# %% [markdown]
# On SAM at equal rank the interval leaves out zero: Serial LoRA looks behind. It also ends before the margin, at -0.62,
# so Serial LoRA is comparable. On CLIP both contain zero, so the differences are "not significant", and still Serial
# LoRA may be five points behind. Not significant and comparable are two different things.
#
# And whoever chooses the margin after looking can always have *holds*: on CLIP, 6 would do.
#
# ## Many questions
#
# An interval that is wrong in one case of twenty is fine for one question. We asked six, and five methods in three labs
# give thirty pairs. The *p value* of a pair is below 0.05 exactly when its interval leaves out zero. Let's ask all
# thirty.

# %%
from itertools import combinations

asked = []
for lab, measure in LABS.items():
    for one, other in combinations(table := results(lab, measure), 2):
        sample = (table[one] - table[other]).groupby("dataset").mean()  # (sets,)
        ahead, behind = (one, other) if sample.mean() > 0 else (other, one)
        row = {"lab": lab, "ahead": ahead, "behind": behind, "by": abs(sample.mean())}
        asked.append(row | {"p": float(stats.ttest_1samp(sample, 0).pvalue)})
asked = pd.DataFrame(asked).sort_values("p")
print(f"{len(asked)} questions, {sum(asked['p'] < 0.05)} with p below 0.05")
print(f"30 separate questions, no difference anywhere: {1 - 0.95**30:.0%} would find at least one")

# %% [markdown]
# Which of the twelve can you believe? If the thirty questions were separate, chance alone would hand a "discovery" to
# 79% of us. (Our questions share methods and data sets, so for us it is some other figure.) **Holm's correction** makes
# false discoveries rare: in at most 5% of such studies will there be even one among all thirty.
#
# 1. sort the p values, smallest first;
# 2. multiply the first by how many there are, the next by one fewer, and so on;
# 3. no result may be below the one before it, since a weaker finding can't be surer: raise it to that one. And none
#    is above 1.

# %% [markdown]
# ### Exercise 8.3 · Holm's correction
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# Return the corrected p values, each in the place of its own p value: the list that comes in is not sorted.


# %% tags=["exercise"]
def holm(ps: list[float]) -> list[float]:
    """Holm's corrected p values, in the order of ``ps``."""
    # BEGIN SOLUTION
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(np.argsort(ps)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = largest
    return corrected
    # END SOLUTION


check("8.3", holm)

# %% [markdown]
# <details><summary>Hint 1: remember where they came from</summary>
#
# `np.argsort(ps)` gives positions, that of the smallest p first. Go through them in this order, and write each result
# to its position.
#
# </details>
# <details><summary>Hint 2: the largest so far</summary>
#
# At rank k (from 0) the factor is n - k. Keep `largest = max(largest, min(1, factor * p))`, and write that.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)

# %%
correct = yours("8.3")
asked["corrected"] = correct(asked["p"].tolist())
looks = {"by": "{:.2f}", "p": "{:.4f}", "corrected": "{:.3f}"}
display(asked[asked["p"] < 0.05].style.format(looks).hide())

# %% [markdown]
# Of the twelve, two are left, the upper two: on SAM, each at its one rate, LoRA+ is ahead of both small ones. Some of
# the others may be real too, but with four to six data sets we cannot say which. Look at the largest, over 19 points of
# style: 0.0045 alone, 0.117 among thirty. And your friend's own comparison, with 0.0237, ends at 0.474.
#
# Back to the six that you did ask, and to intervals. Holm's are not simple, *Bonferroni's* are: let each of the six
# miss in only 5% / 6 of studies, and in at most 5% does any of them miss. What is left is how to get rid of *open*.

# %% [markdown]
# ### Exercise 8.4 · How many data sets?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# Suppose the two methods are equal, and you want to find *holds*: the interval must end above minus the margin. The
# truth, zero, is a margin away from there; that is the `distance`. (To tell a true difference of d from zero, it is d.)
#
# The interval reaches Student's quantile of `1 - 0.025 / questions` to each side, in standard errors (0.975 for one
# question). With a distance of just that, half of all studies miss: their mean comes out nearer than the truth. So the
# mean needs room too: for a `share` of 80%, Student's 80% quantile. Return the smallest number of data sets, from 2 up,
# with room for both.


# %% tags=["exercise"]
def sets_needed(spread: float, distance: float, questions: int = 1, share: float = 0.8) -> int:
    """How many data sets a study needs, so that about a share of such studies finds what is true.

    Args:
        spread: the standard deviation of the data sets' means.
        distance: from the truth to the value that the interval should leave out.
        questions: as many intervals are made, each as wide as Bonferroni asks.
        share: of the studies; above 0.5.
    """
    # BEGIN SOLUTION
    n, reach = 2, 1 - 0.025 / questions
    while sum(stats.t.ppf([reach, share], n - 1)) * spread / math.sqrt(n) > distance:
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
# With `reach = 1 - 0.025 / questions`, as soon as `(stats.t.ppf(reach, n - 1) + stats.t.ppf(share, n - 1)) * spread /
# math.sqrt(n)` is no larger than `distance`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/08_how_sure.ipynb)

# %% [markdown]
# All of it in one picture: the thick bar is the interval by itself, the thin one is for all six together, and gives the
# verdict. Beside it stands how many sets would show *holds* with the thin bar in 80% of studies, if the two are equal.
# (The cell tries your number in made-up studies.) How many do you expect for CLIP, which has six?

# %%
from serial_lora_course.lessons.l08_how_sure.figures import plot_margins

needed, judged, asked_for = yours("8.4"), [], len(intervals)


def widened(half: float, sets: int) -> float:
    """Half of an interval, made for all questions together."""
    alone, together = stats.t.ppf([1 - 0.025, 1 - 0.025 / asked_for], sets - 1)
    return half * together / alone


for (lab, rival), (mean, half) in intervals.items():
    table, margin = results(lab, LABS[lab]), MARGINS[lab]
    sample = (table["serial_lora"] - table[rival]).groupby("dataset").mean()  # (sets,)
    wide, enough = widened(half, len(sample)), needed(sample.std(), margin, asked_for)
    judged.append((lab, rival, mean, half, wide, margin, verdict_of(mean, wide, margin)))
    judged[-1] += (len(sample), enough)
    studies = sample.std() * chance.normal(size=(500, enough, 1))  # of equal methods
    found = [(middle, widened(reach, enough)) for middle, reach in map(interval_of, studies)]
    held = sum(verdict_of(*each, margin) == "holds" for each in found)
    print(f"{lab:4} {RIVALS[rival]}: {mean - wide:+6.2f} to {mean + wide:+.2f},", end=" ")
    print(f"{enough} sets needed for {margin:g}: {held / 500:.0%} of made-up studies hold")
display_figure(plot_margins(judged))

# %% [markdown]
# What would you sign? Look where the thin bars end. SAM's two *hold*, even as two of six. The upper one also lies left
# of zero: "On sets like these six, at one rate for both, Serial LoRA is behind LoRA of the same rank, but by less than
# the hundredth of Dice that we had called too far." And of your friend's claim the smaller part: "It is not a
# hundredth behind a LoRA of its size." That it is *better* is open: the thick bar leaves zero out, the thin one not.
#
# The other four are open, and you know the price of an answer: 180 and 80 sets on CLIP, where six were run, 42 and 66
# styles in place of four. (The spreads are estimated from a few sets, so these are rough.) **Change this and run
# again**: a margin of 3 for CLIP, as you might have written down before a new study. What would its answer cost?
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
# **2. Two methods differ by +0.4 points on six data sets, ± 1.0. One reader says "equal", another "the first is
# better". Who is right?**
#
# <details><summary>Answer</summary>
#
# Neither. The interval goes from -0.6 to +1.4. With a margin of one point the first is *comparable*, since the lower
# end is above -1. With four times as many data sets the standard error halves and Student's t falls from 2.6 to 2.1, so
# the interval is ± 0.4.
#
# </details>
#
# **3. You tried twelve settings, and one has p = 0.02. What do you do before telling anybody?**
#
# <details><summary>Answer</summary>
#
# Say that there were twelve. After Holm's correction the smallest is 12 × 0.02 = 0.24. If the setting still looks
# promising, run it again on new data sets: then it is one question.
#
# </details>
#
# ## What to remember
#
# - The data set is the measurement. Pair the runs, average the seeds, then take the interval over data sets.
# - With few measurements use Student's t, not two standard errors.
# - "Comparable" needs a margin, and the margin comes first. "Open" is an answer.
# - Correct for every question that you ask, or make each interval wide enough for all.
# - Count the data sets that an answer takes before you run any.
#
# Next time a table says "± 0.2", ask: over what? Now for the paper itself: [lesson 09](09_paper_on_trial.ipynb).
