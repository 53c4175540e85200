# %% [markdown]
# # 09 · Where the method stands
#
# **What you will be able to do**
#
# - say where Serial LoRA comes from, and show by running it that its layer is RepAdapter's;
# - plan a comparison so that it can answer: which number of sets, and when more seeds help little;
# - judge many questions at once without more false positives than one question has;
# - say what sharing, place and basis each contribute, as far as the study can tell;
# - read a front of methods: gain against parameters, time and memory, and what a model forgets.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import numpy as np
import torch
from IPython.display import display
from torch import Tensor

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l09_trial import tables
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

lesson_card("09")

# %% [markdown]
# Lessons 04 to 08 compared Serial LoRA with LoRA. Three questions were left: is the method new, is it the
# *sharing* that works, and how good is it beside the other small adapters of the field? One study was made
# for them. It was planned before its first run ([`docs/study.md`](../docs/study.md)), and its records travel
# with the course. The next cell opens them, and every section can be read after it.

# %%
found = tables.load_found()
for lab, arms in found.arms.items():
    print(f"{lab.upper()}: {found.runs[lab]:,} runs, {len(arms)} arms")

# %% [markdown]
# An *arm* is a method at a size, such as "Serial LoRA, rank 16". It has a learning rate that
# was chosen for it on validation pictures, from as many tries as every other arm had. A question compares
# two arms, on the same test pictures.
#
# ## The predecessor
#
# The paper presents Serial LoRA as a novel variant of LoRA. Two years earlier Luo et al. published
# *RepAdapter* (arXiv 2302.08106), in front of attention too, and merged into the same weights. From its paper,
# for a token $x$:
#
# $$ x + s\,(B\,(A x + a) + b) $$
#
# with biases $a$ and $b$. Its $B$ has *groups*: the hidden values are cut into equal parts, one after the
# other, and each part makes its own part of the outputs. That saves parameters. What is the pair of Serial
# LoRA that does the same? A guess first: is there always one?

# %% [markdown]
# ### Exercise 9.1 · RepAdapter's layer as a pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 10 |
#
# Without biases the change is linear, so it is a product B A. Return the two matrices. The check runs the layer
# group by group.


# %% tags=["exercise"]
def serial_pair(down: Tensor, up: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Serial LoRA's pair (with scale 1) for RepAdapter's layer without biases.

    Args:
        down: (h, d), makes the h hidden values of a token.
        up: (groups, d / groups, h / groups): what each group makes of its hidden values.
        scale: s, of the whole change.

    Returns:
        A (h, d) and B (d, h).
    """
    # BEGIN SOLUTION
    return down, scale * torch.block_diag(*up)
    # END SOLUTION


check("9.1", serial_pair)

# %% [markdown]
# <details><summary>Hint 1: which outputs see which hidden values</summary>
#
# Group 0 reads the first h / groups hidden values and makes the first d / groups outputs. Draw B with d rows and
# h columns, and mark where it is not zero.
#
# </details>
# <details><summary>Hint 2: blocks along the diagonal</summary>
#
# A is `down` itself. `torch.block_diag` takes the blocks one by one, and `*up` hands them over. The scale goes to
# one of the two matrices.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# Now by running. This is RepAdapter's layer, from its paper, and beside it the library's pair. Both get
# the same random numbers, once with one group and once with two as its authors use it.


# %% tags=["idea"]
class RepAdapter(torch.nn.Module):
    """x + s (B (A x + a) + b), B in groups (Luo et al. 2023)."""

    def __init__(self, width: int, hidden: int, groups: int, scale: float, bias: bool) -> None:
        super().__init__()
        self.down = torch.nn.Linear(width, hidden, bias=bias)  # A and a
        self.up = torch.nn.Parameter(torch.empty(groups, width // groups, hidden // groups))  # B
        self.bias = torch.nn.Parameter(torch.empty(width)) if bias else None  # b
        self.groups, self.scale = groups, scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(x).unflatten(-1, (self.groups, -1))  # (..., groups, h / groups)
        change = torch.einsum("...gh,gdh->...gd", hidden, self.up).flatten(-2)  # (..., d)
        return x + self.scale * (change if self.bias is None else change + self.bias)


# %%
from serial_lora.layers import SerialLoRA

to_pair = yours("9.1")
torch.manual_seed(0)
tokens = torch.randn(2, 50, 192)  # (B, N, d)
rows = []
for groups, bias in ((1, False), (2, False), (2, True)):
    earlier = RepAdapter(192, 8, groups, scale=0.3, bias=bias)
    for parameter in earlier.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    serial = SerialLoRA(192, 8)
    A, B = to_pair(earlier.down.weight.detach(), earlier.up.detach(), earlier.scale)
    serial.load_state_dict({"lora_A": A, "lora_B": B})
    apart = (earlier(tokens) - serial(tokens)).abs().max().item()
    rows.append((groups, bias, sum(p.numel() for p in earlier.parameters()), f"{apart:.0e}"))

# %%
import pandas as pd

columns = ["groups", "biases", "RepAdapter's parameters", "largest difference"]
display_table(pd.DataFrame(rows, columns=columns))

# %% [markdown]
# With one group and no biases the two are one layer, equal up to rounding. Two groups are a pair whose B is half
# zeros. Biases alone have no pair, since a pair gives zero for a zero token.
#
# So what does the paper add? The name, the comparison with LoRA at equal rank, and the tasks: SAM and Stable
# Diffusion 3. It leaves biases and groups away. A paper that does not cite a predecessor is a common accident; a
# reader who knows the predecessor finds its experiments too (few-shot pictures, VTAB-1k).
#
# **Change this and run again**: `RepAdapter(192, 8, 4, ...)`. How many zeros has B now?
#
# ## Power before runs
#
# A comparison can end in "we cannot tell" although a difference is there, because it was too small a
# comparison. How small a difference it can see, its *power*, is known **before** its runs, from how much earlier
# runs varied. Three things vary: sets of pictures, seeds, and pictures in a set. Do you expect more seeds to
# help as much as more sets? The table has the planned half-width of the 95% interval of Serial LoRA minus
# LoRA, in points of style share, from the course's earlier records of SD3.

# %%
spread = tables.earlier_spread("sd3", "style_share")
planned = tables.plan_frame(spread, sets=(4, 12, 24), seeds=(1, 3, 10))
display(planned.style.format("±{:.2f}"))

# %% [markdown]
# Sets differ from each other, and another seed on the same sets does not change that. It is like asking one
# family ten times. There are four styles. What can four of them tell about styles in general?
#
# **Change this and run again**: `tables.earlier_spread("sam", "dice")`. SAM's sets differ less than its seeds do, so
# there more seeds help nearly as much as more sets.
#
# What follows for an interval? If the claim is about *sets like these*, the sets are the sample: first the mean
# of each set over its seeds, then mean and standard error over sets. And with few of them two standard errors
# are not enough: Student's t has the right number.

# %% [markdown]
# ### Exercise 9.2 · An interval over sets
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Every set counts the same, however many seeds it has. `scipy.stats.t.ppf(q, freedom)` gives quantiles.


# %% tags=["exercise"]
def interval_over_sets(differences: dict[str, list[float]]) -> tuple[float, float]:
    """The 95% confidence interval for sets like these.

    Args:
        differences: name of a set -> one method minus the other, one number a seed; two sets or more.

    Returns:
        The mean, and the half-width of the interval.
    """
    # BEGIN SOLUTION
    from scipy import stats

    means = np.array([np.mean(each) for each in differences.values()])  # (sets,)
    error = means.std(ddof=1) / len(means) ** 0.5
    return float(means.mean()), float(stats.t.ppf(0.975, len(means) - 1) * error)
    # END SOLUTION


check("9.2", interval_over_sets)

# %% [markdown]
# <details><summary>Hint 1: what is the sample?</summary>
#
# One number a set: its mean. From there it is the standard error of exercise 8.3 and the quantile of 9.5.
#
# </details>
# <details><summary>Hint 2: the quantile</summary>
#
# 95% in the middle leaves 2.5% on each side, so q is 0.975. Of n sets there are n - 1 degrees of freedom, and the
# standard deviation divides by n - 1 too (`ddof=1`).
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# Does it matter? The cell makes records of two *equal* methods, in which only sets and seeds vary, a thousand
# times. It counts how often an interval excludes zero (a false positive; 5% are promised). Beside your interval
# stands what most papers do: all runs as one sample, and two standard errors.

# %%
over_sets = yours("9.2")
chance = np.random.default_rng(0)
sets, seeds, between, within = 6, 5, 1.0, 1.0


def over_runs(differences: dict[str, list[float]]) -> tuple[float, float]:
    """Mean and two standard errors, as if all runs were independent."""
    runs = np.concatenate(list(differences.values()))
    return runs.mean(), 2 * runs.std(ddof=1) / len(runs) ** 0.5


# %%
equal_methods = [
    {
        f"set {name}": between * chance.normal() + within * chance.normal(size=seeds)
        for name in range(sets)
    }
    for _ in range(1000)
]

# %%
positives = {
    "over sets, Student's t": tables.false_positives(equal_methods, over_sets),
    "over runs, two standard errors": tables.false_positives(equal_methods, over_runs),
}
for way, share in positives.items():
    print(f"{share:.1%} false positives, {way}")

# %% [markdown]
# **Change this and run again**: `between = 0.0` (all sets alike: now runs *are* independent); or `seeds = 50`. Which
# way gets worse with more seeds, and why?
#
# ## Many questions
#
# The study asks many questions in three labs. Each, taken by itself, gives a false positive in one case of twenty.
# How often would at least one of them?

# %%
count = len(found.answers)
once = 1 - 0.95**count
print(f"{count} questions, no true difference: {once:.0%} of such studies find one")

# %% [markdown]
# Holm's correction keeps the chance of *any* false positive below 5%. Sort the p values. The smallest is multiplied by
# their number n, the next by n - 1, and so on: each rejected one leaves one question fewer. No adjusted value may be
# below one before it (a weaker result cannot be surer), and none is above 1. Then each is compared with 0.05.

# %% [markdown]
# ### Exercise 9.3 · Holm's correction
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# Return the adjusted p values in the order in which the p values came.


# %% tags=["exercise"]
def holm(ps: list[float]) -> list[float]:
    """Holm's adjusted p values.

    Args:
        ps: n p values, in any order.

    Returns:
        n adjusted p values, in the same order.
    """
    # BEGIN SOLUTION
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(np.argsort(ps)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted
    # END SOLUTION


check("9.3", holm)

# %% [markdown]
# <details><summary>Hint 1: remember where they came from</summary>
#
# `np.argsort(ps)` gives places, the smallest p first. Walk along them, and write each result to its place.
#
# </details>
# <details><summary>Hint 2: the largest so far</summary>
#
# At rank k (from 0) the factor is n - k. Keep `largest = max(largest, min(1, factor * p))`, and write that.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# Here are all questions of the study. *For sets like these* is the interval of exercise 9.2. *For these sets* asks
# less: with other pictures and seeds, would it come out so again on the very same sets? It is narrower, and it
# must not be quoted for more. The verdict follows the first one and Holm: it *holds* or *fails* where the interval
# is on one side of 0 and the adjusted p below 0.05; else the question is *open*, which is not the same as equal.

# %%
display_table(tables.questions_frame(found.answers))
display(tables.verdicts_frame(found.answers))

# %% [markdown]
# The corrected p values are your function's as well.

# %%
adjust = yours("9.3")
plain = [answer.like.p for answer in found.answers]
apart = np.abs(np.subtract(adjust(plain), [answer.p for answer in found.answers])).max()
print(f"largest difference from the study's: {apart:.0e}")

# %% [markdown]
# **Change this and run again**: `plain[:10]`, SAM's questions alone, on both sides. Is it honest to choose the family
# after the results?
#
# An interval over sets assumes that the sets are independent. Two sets that show the same things, drawn by
# two designers, may not be: what is hard in one is hard in the other. Does a verdict change if they count as one?
# (The number of sets, or of groups of sets, stands in brackets.)

# %%
display_table(tables.groups_frame(found.answers))

# %% [markdown]
# ## What is it that works?
#
# Serial LoRA differs from LoRA in more than one way. It *shares* one pair between q, k and v. It acts in one *place*,
# in front of attention. Its change goes through W, so it is written in the *basis* of the pretrained weights. To tell
# them apart, one is changed at a time, with as many parameters as before. Which of the three do you think matters?
# The picture has every question in a row of its own, with its interval for sets like these. To the right of 0 what the
# question names first is better.

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_answers

display_figure(plot_answers(found.answers))

# %% [markdown]
# A difference between LoRA and Serial LoRA alone, as the paper has it, cannot say which of these is at work. The last
# row is the predecessor's, which differs by groups and biases alone.
#
# ## The front of methods
#
# Which method should you take? One is *beaten* if another costs no more, gains no less, and is not equal in both. Those
# that nobody beats are the *front*: each is the best for some budget.

# %% [markdown]
# ### Exercise 9.4 · The front
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# No two arms are equal in both, but two may cost the same, or gain the same.


# %% tags=["exercise"]
def front(costs: list[float], gains: list[float]) -> set[int]:
    """The positions of the arms that no other one beats.

    Args:
        costs: of n arms; less is better.
        gains: of the same arms; more is better.

    Returns:
        Positions from 0 to n - 1.
    """
    # BEGIN SOLUTION
    kept, best = set(), float("-inf")
    for place in sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i])):
        if gains[place] > best:
            kept.add(place)
            best = gains[place]
    return kept
    # END SOLUTION


check("9.4", front)

# %% [markdown]
# <details><summary>Hint 1: two ways</summary>
#
# Compare every arm with every other one; or sort by cost, and keep each arm that gains more than all cheaper ones.
#
# </details>
# <details><summary>Hint 2: ties</summary>
#
# Of two that cost the same, only the better one can be on the front: sort by `(cost, -gain)`. Of two that gain the same,
# only the cheaper one: ask for *more* gain than the best so far.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# Now the study's arms: gain against parameters. Expect the answer to depend on the cost: a method may have few
# parameters and be slow.

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_fronts

cost = "parameters"  # change this and run again: "step time", or "activations, MB"
display_figure(plot_fronts(found, cost))

# %%
find_front = yours("9.4")
for lab, arms in found.comparable.items():
    timed = arms.dropna(subset=[cost])
    on_it = timed.iloc[sorted(find_front(timed[cost].tolist(), timed["gain"].tolist()))]
    print(lab.upper())
    display_table(on_it[["title", cost, "gain"]].sort_values(cost).round(2))

# %% [markdown]
# Your function found the arms that the line joins. The sets differ far more than the methods do, so an interval of a
# *gain* is wide, and one of a *difference* between two arms on the same pictures is narrow. The bars are such ones, of
# Serial LoRA against LoRA. Points that are closer than that should not be ranked.

# %% [markdown]
# ## Forgetting
#
# An adapted model gains on its new task. What does it lose of what it could do before? For CLIP and SAM every adapter was
# also measured on pictures that pretraining knew. Do you expect those that gain most to forget most?

# %%
import pandas as pd

for lab in ("clip", "sam"):
    arms = found.comparable[lab]
    changes = arms[["title", "gain", "change of what it knew"]].sort_values("gain")
    print(f"{lab.upper()}, {found.units[lab]}; the six that gain least, and the six that gain most")
    display_table(pd.concat([changes.head(6), changes.tail(6)]).round(1))
    together = arms["gain"].rank().corr(arms["change of what it knew"].rank())
    print(f"rank correlation of gain and change: {together:+.2f}")

# %% [markdown]
# A rank correlation clearly below 0 would say that those that gain more forget more.
#
# For a low-rank adapter forgetting is a choice: take it out (`disabled(model)`), and the base is back, bit for bit. What
# counts is whether one model must do both at once.
#
# **Change this and run again**: `display_table(found.arms["clip"].sort_values("change of what it knew"))`.

# %% [markdown]
# ## Quiz
#
# **1. A paper compares two methods on 4 data sets with 25 seeds each: 100 runs, p < 0.001. What may it say?**
#
# <details><summary>Answer</summary>
#
# Something about *these* four sets. For sets like them four numbers are the sample, with three degrees of freedom, and
# the 25 seeds only make each of the four numbers more exact.
#
# </details>
#
# **2. Serial LoRA has fewer parameters than LoRA and the same accuracy. Is sharing the reason?**
#
# <details><summary>Answer</summary>
#
# It cannot be known from that. LoRA at the smaller size may have the same accuracy as well. Only arms that differ in
# sharing alone, at equal size, tell.
#
# </details>
#
# **3. A method is on no front. Is it useless?**
#
# <details><summary>Answer</summary>
#
# For these sets, costs and models another one is better and costs no more, as far as the intervals can tell. A cost that was not
# measured (ease of merging, adapters that must be switched or stacked) may still speak for it.
#
# </details>

# %% [markdown]
# ## Key points
#
# - Serial LoRA is RepAdapter's attention adapter with one group and no biases. Running both shows it.
# - Power is planned before runs. The sets are the sample; where they differ much, more seeds on them help little.
# - An interval over sets with Student's t keeps its promise; two standard errors over runs do not.
# - Many questions need a correction, and the family is fixed before the results.
# - To learn *what* works, change one thing at a time at equal budget. To choose, look at the front.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": the abstract and section II-D for "a novel LoRA variant"; section III-B
# for sharing ("captures parameter commonalities"); Tables II to IV for the comparisons, without spread. It cites no
# RepAdapter, tests no change of place or basis, and measures no forgetting. RepAdapter: Luo et al., "Towards Efficient
# Visual Adaption via Structural Re-parameterization", arXiv 2302.08106, section 3.
