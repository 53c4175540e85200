# %% [markdown]
# # 10 · Inside an adapter: singular values
#
# **What you will be able to do**
#
# - take the change that an adapter made out of a model, and say its rank, also after rounding;
# - compute the singular values of a product B A without ever forming it;
# - read a spectrum with one number, the effective rank, and know what that number does not see;
# - measure the angles between what two adapters learned, and know what to compare an angle with;
# - turn a claim in words into a statement that can fail, write it down, and only then measure.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import pandas as pd
import torch
from torch import Tensor

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.frames import as_text
from serial_lora_course.lessons.l10_inside import directions, figures
from serial_lora_course.lessons.l10_inside import tables as change_tables
from serial_lora_course.measures import spectra as measured
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

lesson_card("10")

# %% [markdown]
# One line decides which CLIP the lesson looks into, as in lesson 04.

# %%
import os

from serial_lora_course.labs.lesson import open_lesson

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run
lesson = open_lesson("clip", SCALE, LENGTH)
print(lesson)

# %% [markdown]
# The lesson looks into adapters that were really trained: LoRA and Serial LoRA in that CLIP, on a few
# pictures of each class. `learned("lora", 1)` trains one, with seed 1, the first time it is asked for, and
# remembers it; so after these cells you can start at any section.

# %%
from functools import cache

from serial_lora_course.lessons.l10_inside.runs import Subject

SHOTS = 4  # change this and run again, and all below
subject = Subject(lesson.lab(), SHOTS)
RANK, LABELS = subject.lab.config.rank, {"lora": "LoRA", "serial_lora": "Serial LoRA"}


@cache
def learned(method: str, seed: int) -> list:
    """What one run changed: a `WeightChange` for each block and each of q, k and v."""
    record, changes = subject.learn(method, seed)
    print(f"{LABELS[method]}, seed {seed}: accuracy {record.measures['accuracy']:.1%}")
    return [change for change in changes if change.projection in "qkv"]


# %% [markdown]
# ## A claim about singular values
#
# After training, what is the difference between LoRA and Serial LoRA? The paper answers with singular
# values (its Fig. 3 and section II-D), of SAM's q, k and v. It reads three things out of the plot:
#
# 1. Serial LoRA has a "consistent intermediate positioning between the original pre-trained model and
#    standard LoRA", with "higher singular values compared to standard LoRA";
# 2. it has "a more gradual decay pattern compared to the steep deterioration in standard LoRA";
# 3. both "persist" for q, k and v, and from shallow to deep blocks.
#
# But singular values *of which matrix*? For each projection there are the pretrained **W**, the adapted
# **W + dW**, and the change **dW** alone, which is B A for LoRA and W B A for Serial LoRA. The paper does
# not say which it plotted, and gives no numbers. So we test both readings.
#
# | | Reading 1: W + dW | Reading 2: dW |
# |---|---|---|
# | what is compared | the weights that the model uses | what training added |
# | "intermediate" | Serial LoRA's W + dW lies between W and LoRA's W + dW, whichever of these is above | Serial LoRA's dW lies above LoRA's dW and below W |
# | "gradual decay" | all three have as many values as W | at most r values are not zero; do Serial LoRA's fall more slowly? |
#
# Before we look, we say what would count. *Consistent* means at 90 of 100 indices or more, on average over
# blocks and projections. "More gradual" means a higher effective rank of dW (you will write that measure), by a
# difference whose 95% confidence interval over seeds is above zero. A statement that is written down before the
# measurement can fail; one that is read out of a plot afterwards hardly can.

# %% [markdown]
# ## What did the adapter change?
#
# Train both methods with the same seed: the same pictures in the same order. It takes some seconds.

# %%
tables = [change_tables.spectra_table(learned(m, 1)).assign(method=LABELS[m]) for m in LABELS]
rows = pd.concat(tables)
shown = rows.groupby(["method", "tower", "projection"], sort=False)[["rank", "size"]].mean()
shown = as_text(shown.reset_index(), {"rank": "{:.0f}", "size": "{:.1%}"})
display_table(shown.rename(columns={"size": "size of dW beside W"}))

# %% [markdown]
# **What this shows.** Every change has rank 16, and about a tenth of the size of the weight that it
# changes. Serial LoRA's is the larger one: 11% beside LoRA's 9%.
#
# *Size* is the Frobenius norm of dW over that of W. The methods differ in it although both had one learning
# rate: equal rates are not equal steps (lesson 01). Whatever depends on size depends on the rate.
#
# That the rank is at most r is no measurement: B A and W B A are products through r numbers. But given only
# a model before and a model after, can you find out? Subtract the weights and count the singular values
# that are not zero.

# %%
change = learned("serial_lora", 1)[0]  # change this and run again: another block, or LoRA
before = change.weight.float()  # (d, d)
after = change.adapted.float()  # (d, d), rounded to float32 as a merged model is
values = measured.singular_values(after.double() - before.double())  # (d,)
for index in (1, RANK, RANK + 1, len(values)):
    print(f"value {index:3}: {values[index - 1].item():.1e}")
above, drop = int((values > 0).sum()), (values[RANK - 1] / values[RANK]).item()
print(f"{above} of {len(values)} values are above zero; value {RANK} is {drop:,.0f} times the next")

# %% [markdown]
# **What this shows.** No value is zero, and still the rank is 16: there is a cliff of five powers of
# ten behind the sixteenth value. What is left below it is rounding.
#
# The merged weights were rounded to float32, and the rounding is a small random matrix of full rank. After
# index r the values drop: those before come from training, those after from rounding. The entries of W + dW
# are rounded to about one part in ten million *of themselves*, so the noise grows with the size of W + dW,
# not with that of dW.

# %% [markdown]
# ### Exercise 10.1 · The rank of a change
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 10 |
#
# Count the singular values of `after - before` that are larger than rounding. As the threshold take
# the usual one, max(m, n) · eps · σ₁, where eps is float32's (`torch.finfo(torch.float32).eps`) and σ₁
# is the largest singular value *of the matrix that was rounded*. Subtract in float64, so that the
# subtraction does not round once more. The check uses changes that are far smaller than the weights.


# %% tags=["exercise"]
def rank_of_change(before: Tensor, after: Tensor) -> int:
    """The rank of after - before, as far as float32 lets it be seen.

    Args:
        before, after: (m, n), float32.
    """
    # BEGIN SOLUTION
    values = torch.linalg.svdvals(after.double() - before.double())  # (min(m, n),)
    eps = torch.finfo(torch.float32).eps
    largest = torch.linalg.matrix_norm(after.double(), 2)
    return int((values > max(after.shape) * eps * largest).sum())
    # END SOLUTION


check("10.1", rank_of_change)

# %% [markdown]
# <details><summary>Hint 1: two different largest values</summary>
#
# `torch.linalg.svdvals(after.double() - before.double())` gives the values to count. The threshold
# needs the largest singular value of `after`: the first of `torch.linalg.svdvals(after)`.
#
# </details>
# <details><summary>Hint 2: counting</summary>
#
# `(values > threshold).sum()` is a tensor; `int(...)` makes a number of it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# All changes of both methods: the rank from the factors in float64, and by your function from float32
# weights before and after.

# %%
rank_of = yours("10.1")
for method, label in LABELS.items():
    exact = set(change_tables.spectra_table(learned(method, 1))["rank"])
    seen = {rank_of(each.weight.float(), each.adapted.float()) for each in learned(method, 1)}
    print(f"{label}: rank {sorted(exact)} from the factors, {sorted(seen)} from float32")

# %% [markdown]
# (Where float32 shows fewer, the last directions are
# so weak that merged weights cannot hold them.) A rank counts every direction alike, the strongest and the
# weakest, so we go on to the values themselves.

# %% [markdown]
# ## Singular values without the big matrix
#
# A dW of the full-size models is 768 x 768 or 1536 x 1536, but it is a product of two thin matrices. Write
# each as Q R, orthonormal columns times a small triangle: left = Q₁ R₁ and rightᵀ = Q₂ R₂. Then
# left · right = Q₁ (R₁ R₂ᵀ) Q₂ᵀ. Orthonormal factors change no length, so the r x r matrix in the middle has
# the same singular values as the big product.

# %% [markdown]
# ### Exercise 10.2 · The spectrum of a product
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# Return the singular values of left @ right, largest first, without ever making an (m, n) matrix. The
# check compares with spectra that it chose, and watches how large the tensors are that you make.


# %% tags=["exercise"]
def product_spectrum(left: Tensor, right: Tensor) -> Tensor:
    """The singular values of left @ right, from an (r, r) matrix.

    Args:
        left: (m, r), with r at most m.
        right: (r, n), with r at most n.

    Returns:
        (r,), largest first.
    """
    # BEGIN SOLUTION
    r_left = torch.linalg.qr(left).R  # (r, r)
    r_right = torch.linalg.qr(right.T).R  # (r, r)
    return torch.linalg.svdvals(r_left @ r_right.T)  # (r,)
    # END SOLUTION


check("10.2", product_spectrum)

# %% [markdown]
# <details><summary>Hint 1: which way round</summary>
#
# `torch.linalg.qr` wants tall matrices here: `left` is (m, r) and `right.T` is (n, r). Of each you need
# only `.R`, which is (r, r).
#
# </details>
# <details><summary>Hint 2: the middle</summary>
#
# left · right = Q₁ R₁ (Q₂ R₂)ᵀ = Q₁ (R₁ R₂ᵀ) Q₂ᵀ: one of the two triangles is transposed.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# How much does it save? For a random pair of rank 64, as wide as ViT-B/16:

# %%
import time

spectrum_of = yours("10.2")
rank = 64  # change this and run again
left, right, seconds = torch.randn(768, rank), torch.randn(rank, 768), {}
for name, compute in (
    ("dense", lambda: measured.singular_values(left @ right)),
    ("from the factors", lambda: spectrum_of(left, right)),
):
    started = time.perf_counter()
    values = compute()
    seconds[name] = time.perf_counter() - started
    print(f"{name:17} first {values[0]:.6f}, last of {rank} {values[rank - 1]:.6f}")

# %%
share = max(seconds["from the factors"] / seconds["dense"], 0.01)
print(f"the same numbers in {share:.0%} of the time, on this machine")

# %% [markdown]
# The difference grows with the width.

# %% [markdown]
# ## The spectra
#
# Now what the paper's Fig. 3 is about, with all three matrices, both scales logarithmic. Expect W and W + dW
# near each other, and dW below them, a short line that ends at the rank.

# %%
method_spectra = {m: change_tables.spectra_frame(learned(m, 1)) for m in LABELS}
display_figure(figures.plot_spectra(method_spectra, block=2))  # change this and run again

# %% [markdown]
# W and W + dW can hardly be distinguished, except in the first few values and, for LoRA, in the last few. A
# change of rank r *cannot* do much more in between, and that is a theorem (interlacing): it moves no singular
# value past r others,
#
# $$\sigma_{i+r}(W) \;\le\; \sigma_i(W + dW) \;\le\; \sigma_{i-r}(W)$$
#
# So under reading 1 there is no room for a "steep deterioration" in the middle of the spectrum. Two more
# bounds distinguish the methods. LoRA *adds*, so a value moves by at most the size of what is added (Weyl).
# Serial LoRA *multiplies*, so it moves by a bounded *factor* (Ostrowski):
#
# $$|\sigma_i(W + dW) - \sigma_i(W)| \le \sigma_1(dW),
# \qquad \sigma_{\min}(I + BA) \;\le\; \frac{\sigma_i(W + W BA)}{\sigma_i(W)} \;\le\; \sigma_{\max}(I + BA).$$
#
# The next cell tests all of them at every index of every block.

# %% tags=["nbval-check-output"]
for method in LABELS:
    multiplied = method == "serial_lora"
    found = [change_tables.bounds_hold(each, RANK, multiplied) for each in learned(method, 1)]
    print(method, {name: all(held[name] for held in found) for name in found[0]})

# %% [markdown]
# So look closer: how far is each value from W's, in percent? If Serial LoRA lies *between* W and LoRA, its
# line is between zero and LoRA's line, at every index. The vertical scale is linear from -1% to +1%, and
# logarithmic beyond.

# %%
seed = 1  # change this and run again: 2
method_spectra = {m: change_tables.spectra_frame(learned(m, seed)) for m in LABELS}
display_figure(figures.plot_shifts(method_spectra, block=2))

# %% [markdown]
# **What this shows.** Most singular values hardly move: by 1 or 2% on average for LoRA, by half a
# percent for Serial LoRA. The smallest ones, at the right, move by much more, since a small change is
# large beside them.
#
# Look at the right ends: LoRA may multiply the smallest singular values by any factor,
# and Serial LoRA may not. In this sense it does keep more of the model. Whether it lies *between* is another
# question. You will count, so first ask what chance gives. Suppose both methods moved each value up or down by
# random steps of equal typical size. In half of the cases both move it to the same side, and in half of those
# Serial LoRA moves it less far: a quarter of all.

# %% [markdown]
# ### Exercise 10.3 · In between
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Return the share of the indices at which `middle` lies strictly between `one` and `other`. Either of
# the two may be the upper one, and at some indices one is, at some the other.


# %% tags=["exercise"]
def share_in_between(one: Tensor, middle: Tensor, other: Tensor) -> float:
    """Share of the indices i with middle[i] strictly between one[i] and other[i].

    Args:
        one, middle, other: (n,), three spectra in one order.
    """
    # BEGIN SOLUTION
    low, high = torch.minimum(one, other), torch.maximum(one, other)  # (n,), (n,)
    return ((low < middle) & (middle < high)).float().mean().item()
    # END SOLUTION


check("10.3", share_in_between)

# %% [markdown]
# <details><summary>Hint 1: which is below?</summary>
#
# `torch.minimum(one, other)` and `torch.maximum(one, other)` give the lower and the upper one, index by
# index.
#
# </details>
# <details><summary>Hint 2: and, share</summary>
#
# Two tensors of True and False are joined with `&`, each in its own brackets. The mean of such a
# tensor, as floats, is a share; `.item()` makes a plain number of it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Your function counts for each block and projection: *between* for reading 1 (W + dW). *Change between* is
# for reading 2 (dW above LoRA's and below W's). *Nearer* is weaker: is Serial LoRA's value less far from
# W's than LoRA's, on whichever side?

# %%
between_of = yours("10.3")
claims = change_tables.claim_table(
    learned("lora", 1), learned("serial_lora", 1), between=between_of
)
columns = ["between", "nearer", "change_between"]
by_projection = claims.groupby(["tower", "projection"], sort=False)[columns].mean().reset_index()
display_table(as_text(by_projection, dict.fromkeys(columns, "{:.0%}")))

# %% [markdown]
# **What this shows.** In this run Serial LoRA's W + dW lies between the other two at a third of the
# indices, where "consistently" would need nearly all. Its dW does so in the text tower, and at a
# third of the indices in the image tower.
#
# Is that about the *methods*, or about how far each happened to go? Multiply LoRA's dW by a factor, as
# another learning rate or a scale would roughly do. If "between" is a property of the method, the shares
# should stay about where they are.

# %%
from dataclasses import replace

rows = {}
for factor in (0.25, 0.5, 1, 2, 4):  # change this and run again
    louder = [replace(each, left=factor * each.left) for each in learned("lora", 1)]
    table = change_tables.claim_table(louder, learned("serial_lora", 1), between=between_of)
    rows[f"{factor:g}"] = table[[*columns, "effective_rank_lora"]].mean()
scales = pd.DataFrame(rows).T.rename_axis("LoRA's dW times")
formats = dict.fromkeys(columns, "{:.0%}") | {"effective_rank_lora": "{:.3f}"}
display_table(as_text(scales, formats).reset_index())

# %% [markdown]
# **What this shows.** Multiply LoRA's change by a factor, learn nothing new, and "change between"
# goes from 100% to 0. Position is size. The effective rank does not move: it is shape.
#
# Where a curve lies is mostly a matter of how large the change is: of learning rate, steps and scale. So a
# claim about *position* is a claim about one setting. The last column measures the *shape* of the spectrum,
# which a factor does not change. That comes next.

# %% [markdown]
# ## Decay, in one number
#
# How fast does a spectrum fall? Take the singular values as shares of their sum. If all r shares are equal,
# the change uses r directions fully; if one share is almost everything, it uses one. Entropy measures that,
# and its exponential turns it back into a number of directions:
#
# $$p_i = \frac{\sigma_i}{\sigma_1 + \dots + \sigma_r}, \qquad
# \operatorname{erank} = \exp\Bigl(-\sum_i p_i \ln p_i\Bigr).$$
#
# This is the **effective rank** (Roy and Vetterli, 2007): from 1 to r, and not always whole.

# %% [markdown]
# ### Exercise 10.4 · The effective rank
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Mind the zeros: 0 · ln 0 counts as 0, but computed naively it is not a number. The check includes
# spectra with zeros, one in which all values are equal, and one with a single value.


# %% tags=["exercise"]
def effective_rank_of(values: Tensor) -> float:
    """exp of the entropy of the singular values, taken as shares of their sum.

    Args:
        values: (n,), at least one of them above zero, none below.
    """
    # BEGIN SOLUTION
    shares = values[values > 0] / values.sum()
    return torch.exp(-(shares * shares.log()).sum()).item()
    # END SOLUTION


check("10.4", effective_rank_of)

# %% [markdown]
# <details><summary>Hint 1: zeros</summary>
#
# Leave them out: `values[values > 0]`. They add nothing to the sum and nothing to the entropy.
#
# </details>
# <details><summary>Hint 2: the formula</summary>
#
# Divide by the sum, not by the largest. Natural logarithm, a minus in front of the sum, then `exp`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# By your function, over the depth of the image tower, for two seeds: a line is the mean of a method, its band
# goes from the lower seed to the higher. The grey line is a product of two *random* matrices of this rank.

# %%
effective_of = yours("10.4")
tables = [
    change_tables.spectra_table(learned(method, seed), effective_of).assign(method=method)
    for seed in (1, 2)  # change this and run again: more seeds
    for method in LABELS
]
effective = pd.concat(tables, ignore_index=True)
width = learned("lora", 1)[0].weight.shape[0]
product = torch.randn(width, RANK) @ torch.randn(RANK, width)
random_rank = effective_of(measured.singular_values(product)[:RANK])
image = effective[effective["tower"] == "image"].assign(line=effective["method"].map(LABELS))
axis, reference = f"effective rank of dW (at most {RANK})", (random_rank, "random pair")
display_figure(figures.plot_depth(image, "effective_rank", axis, "projection", reference))

# %%
means = effective.groupby("method")[["effective_rank", "stable_rank"]].mean()
print(means.round(1).to_dict("index"))
print(f"a random pair: {random_rank:.1f} of {RANK}; W itself:", end=" ")
print(f"{effective['effective_rank_before'].mean():.1f} of {width}")

# %% [markdown]
# **What this shows.** Of its sixteen directions LoRA uses ten effectively and Serial LoRA nine; a
# random pair would use nearly all. The *stable rank*, which sees the large values alone, is about two
# for both: each change is mostly a direction or two. The paper's "gradual decay" would be a higher
# effective rank for Serial LoRA. It is a lower one.
#
# A high effective rank is not good in itself: a random pair has the highest. And for Serial LoRA the
# spectrum of dW = W B A is partly that of W, whose strong directions stretch what the pair sends there.

# %% [markdown]
# ## Where it reads, where it writes
#
# Write dW as a sum of layers σᵢ uᵢ vᵢᵀ, as in lesson 01. The token is compared with vᵢ: that is where dW
# *reads*. What comes out goes along uᵢ: that is where it *writes*.
#
# Two subspaces of one dimension have several angles between them. The first **principal angle** is the
# smallest between any vector of the one and any vector of the other; the second is the smallest at right
# angles to that pair; and so on. All zero: the same subspace. All 90 degrees: nothing in common. With
# orthonormal columns Q₁ and Q₂ the singular values of Q₁ᵀ Q₂ are their cosines (Bjorck and Golub, 1973).

# %% [markdown]
# ### Exercise 10.5 · Principal angles
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# The columns come as they are, neither of length one nor at right angles. Return degrees, the smallest
# first. A cosine that is rounded to a little above 1 has no arccosine: mind that.


# %% tags=["exercise"]
def angles_between(one: Tensor, other: Tensor) -> Tensor:
    """Principal angles between the column spaces, in degrees, the smallest first.

    Args:
        one: (n, p), of rank p.
        other: (n, q), of rank q.

    Returns:
        (min(p, q),).
    """
    # BEGIN SOLUTION
    basis, basis_of_other = torch.linalg.qr(one).Q, torch.linalg.qr(other).Q  # (n, p), (n, q)
    cosines = torch.linalg.svdvals(basis.T @ basis_of_other)  # (min(p, q),), largest first
    return torch.rad2deg(torch.arccos(cosines.clamp(max=1)))
    # END SOLUTION


check("10.5", angles_between)

# %% [markdown]
# <details><summary>Hint 1: orthonormal columns</summary>
#
# `torch.linalg.qr(matrix).Q` has the same column space as the matrix, and orthonormal columns.
#
# </details>
# <details><summary>Hint 2: from cosines to degrees</summary>
#
# The singular values of Q₁ᵀ Q₂ are cosines, largest first, so the angles come out smallest first.
# `clamp(max=1)` before `torch.arccos`; then `torch.rad2deg`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Do q, k and v of one block read the same directions? For Serial LoRA they must: W_q B A, W_k B A and W_v B A
# all end in the same A. For LoRA nothing forces them to. *Overlap* makes one number of many angles, the mean
# of the squared cosines: 1 for the same space, 0 for orthogonal ones, r / d for two random subspaces.

# %%
angles_of = yours("10.5")
found = {LABELS[m]: directions.within_blocks(learned(m, 1), angles_of) for m in LABELS}
display_table(pd.concat(found, names=["method"]).reset_index())

# %% [markdown]
# **What this shows.** Serial LoRA's q, k and v read exactly the same directions (1.000). LoRA's share
# no more than chance (0.083) would give. Where they write, both are nearly free.
#
# Serial LoRA's q, k and v read one space of r directions, up to rounding (an arccosine near 0 loses half the
# digits; the package uses sines too). LoRA's three pairs need not. Where dW *writes* differs for both: W_q B
# and W_k B are different spaces, because the weights are.
#
# Did LoRA and Serial LoRA learn *the same thing*, in the same place? An overlap alone cannot say. Compare
# it with that of random directions, and with what one method has in common *with itself* when only the seed
# differs. We compare the four strongest directions, since the weak ones are mostly what `A` was at the
# start, and the two methods across two seeds: with one seed they would share shots and the first random
# numbers.

# %%
TOP = 4  # change this and run again
comparisons = {
    "LoRA, two seeds": (learned("lora", 1), learned("lora", 2)),
    "Serial LoRA, two seeds": (learned("serial_lora", 1), learned("serial_lora", 2)),
    "LoRA and Serial LoRA": (learned("lora", 1), learned("serial_lora", 2)),
}
overlaps = directions.overlaps_frame(comparisons, TOP, angles_of)
chance = measured.expected_overlap(TOP, TOP, learned("lora", 1)[0].weight.shape[0])
image = overlaps[overlaps["tower"] == "image"].rename(columns={"comparison": "line"})
axis = f"overlap of the {TOP} strongest\n(1: the same directions)"
display_figure(figures.plot_depth(image, "overlap", axis, "what", (chance, "random directions")))

means = overlaps.groupby(["comparison", "what"], sort=False)["overlap"].mean().unstack("what")
print(f"both towers; by chance {chance:.2f}")
print(means.round(2))

# %% [markdown]
# **What this shows.** Compare the last row with the other two. Where adapters write, two seeds of one
# method agree two or three times as well as LoRA with Serial LoRA. So the two methods really do write
# elsewhere; it is not just another seed.
#
# How far the lines are above the grey one says whether anything is shared at all; how far the dashed one is
# below the others, whether the method matters more than the seed. Different directions do not mean different
# behaviour: two adapters may read different directions of the same tokens and do the same to the pictures.
#
# Where each method writes can be said more precisely. What Serial LoRA writes has gone through W, and W
# stretches its own strong directions. Which share of dW (of its squared norm) lies along the r strongest
# outputs of W?

# %%
along = {LABELS[m]: directions.along_frame(learned(m, 1), RANK) for m in LABELS}
shown = pd.concat(along, names=["method"]).reset_index()
display_table(as_text(shown, {"reads": "{:.0%}", "writes": "{:.0%}"}))

width = len(learned("lora", 1)[0].weight)
passed = directions.passed_by_chance(learned("lora", 1), RANK)
print(f"by chance {RANK / width:.0%}, and {passed:.0%} for a random B that is sent through W")

# %% [markdown]
# **What this shows.** Two thirds of what Serial LoRA writes lies along W's strongest outputs, of
# LoRA's less than a third. Passing through W explains a part of it: a random B would come out with
# 31%. The rest was learned.
#
# This difference follows from the method and not from a learning rate. The last share says how much the
# passage through W alone does. What is above it came with training: the gradient of B goes through W as well
# (lesson 01), so strong directions are stretched twice.

# %% [markdown]
# ## The verdict
#
# The course ships records of more runs: the tiny CLIP *and* the tiny SAM (the paper's figure is about SAM),
# three seeds, and the figure's four methods, LoRA+ and Serial LoRA+ included.

# %%
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l10_inside.runs import claim_frame, judge_statements

NEEDED, CHANCE = 0.9, 0.25  # change this and run again: what holds with 0.4, 0.25?
records = shipped_records("spectra")
results = claim_frame(records)
print(
    f"{len(results)} blocks and projections, {results['seed'].nunique()} seeds; {records[0].command}"
)
for measure, axis, chance in (
    ("between", "indices where Serial LoRA's W + dW\nis between W and LoRA's", CHANCE),
    ("change_between", "indices where Serial LoRA's dW\nis above LoRA's and below W", None),
):
    display_figure(figures.plot_positions(results, measure, axis, chance=chance, needed=NEEDED))

# %% [markdown]
# Now the statements from the beginning, for each model and each pair of methods: the mean over blocks and
# projections for each seed, then mean and standard error over the seeds. *Holds*: the 95% confidence interval
# is above what is needed (by Student's t: with few seeds it is wide). *Fails*: it is below. Otherwise these runs
# do not decide. (The third statement, that both persist, is about those that hold.)

# %%
verdicts = judge_statements(results, consistent=NEEDED)
display_table(verdicts)
by_method = results.groupby(["lab", "method"], sort=False)[["nearer", "size_lora", "size_serial"]]
display_table(by_method.mean().map("{:.0%}".format).reset_index())

# %% [markdown]
# **What this shows.** Twelve tests, and the statements fail in all of them: Serial LoRA's spectra are
# not consistently between the other two, and its change does not decay more slowly. One thing does go
# the paper's way. At more than half of the indices Serial LoRA's W + dW is nearer to W than LoRA's is
# (`nearer`; by chance half), although its dW is the larger one.
#
# That does not refute the paper, nor confirm it. Its figure is about a model many times the size, trained on
# photographs at another rate, and we do not know which matrix it shows. If one of its lines stood for W + dW
# and another for dW, they would differ for a reason that has nothing to do with learning: dW ends at r. Such
# a claim needs a matrix, the size of the changes, several seeds and a number. And that one spectrum lies
# above another says nothing by itself about the pictures that a model gets right; lessons 04, 05 and 06
# measure that.
#
# For your own adapter, at paper scale:
#
# ```python
# from serial_lora import load_adapter
# from serial_lora_course.models.clip import load_clip
# from serial_lora_course.measures.spectra import weight_changes
# from serial_lora_course.lessons.l10_inside.tables import spectra_table
#
# model = load_adapter(load_clip("paper").model, "pets.safetensors")
# spectra_table(weight_changes(model))
# ```
#
# and in a terminal, the records of this section anew, or with more seeds:
#
# ```
# python -m serial_lora_course.lessons.l10_inside.runs --seeds 5 --out runs/spectra.jsonl
# ```

# %% [markdown]
# ## Leave the machine as you found it
#
# The last cell takes the model off the card, where the next notebook may need the room.

# %%
learned.cache_clear()
lesson.close()

# %% [markdown]
# ## Quiz
#
# **1. A colleague shows two curves of singular values, method X above method Y, and says that X learned
# more. What do you ask?**
#
# <details><summary>Answer</summary>
#
# Of which matrix: W + dW or dW. How large the changes are, and at which learning rate, since a factor
# moves a whole curve up or down. How many seeds. And how learning "more" shows in what the model gets
# right.
#
# </details>
#
# **2. Serial LoRA at rank 16: what is the rank of the change of q, k and v stacked on one another, (3d, d)?
# And for LoRA?**
#
# <details><summary>Answer</summary>
#
# At most 16 for Serial LoRA: all three end in the same A, so all rows lie in one space of 16 dimensions.
# Up to 48 for LoRA, whose three A are free.
#
# </details>
#
# **3. The four strongest directions of two adapters overlap by 0.1. Is that little?**
#
# <details><summary>Answer</summary>
#
# It depends on what it is compared with. In 192 dimensions chance gives 4 / 192, about 0.02, so something
# is shared; in 40 dimensions 0.1 would be chance itself. And if two seeds of *one* method overlap by 0.1 too,
# the two methods are as alike as a method is to itself.
#
# </details>
#
# **4. Why is the numerical rank of `after - before` full for a model merged in float32, and what do you
# compare with to see the true one?**
#
# <details><summary>Answer</summary>
#
# Rounding adds a small matrix of full rank. Its size grows with the entries that were rounded, those
# of W + dW, so the threshold needs the largest singular value of W + dW, not that of dW.
#
# </details>

# %% [markdown]
# ## Key points
#
# - Three matrices, three spectra: W, W + dW and dW. A claim about singular values has to say which.
# - A change of rank r moves no singular value past r others, and none by more than the largest of dW.
#   Serial LoRA, which multiplies, also moves each by a bounded factor.
# - The singular values of B A come from an r x r matrix, exactly.
# - Position depends on how large a change is, so on rate and scale. A factor leaves the shape as it is,
#   and the effective rank measures shape.
# - Serial LoRA's q, k and v read one space of r directions; LoRA's read three. What Serial LoRA writes
#   has passed through W, and lies along W's strong outputs.
# - Compare an angle with that of random subspaces, and of the same method with another seed. Two runs with
#   one seed share more than what they learned.
# - Write the statement down before you measure it, and report what comes out.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": Fig. 3 and "Non-equivalent Dynamic" in section II-D,
# on SAM; equations (4) and (5) for the two forms of dW. Which matrix was plotted, for which data and rank,
# and over how many runs, is not stated. The effective rank is Roy and Vetterli's (EUSIPCO 2007), the angles
# Bjorck and Golub's (Mathematics of Computation, 1973), computed as in Knyazev and Argentati (2002); the
# overlap of strongest directions is from section 7 of "LoRA: Low-Rank Adaptation of Large Language Models"
# (Hu et al., ICLR 2022). The three bounds are in Horn and Johnson, "Topics in Matrix Analysis", chapter 3.
