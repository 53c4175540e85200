# %% [markdown]
# # 08 · Inside an adapter: singular values
#
# **What you will be able to do**
#
# - take the change that an adapter made out of a model, and say its rank, also after rounding;
# - compute the singular values of a product B A without ever forming it;
# - read a spectrum with one number, the effective rank, and know what that number does not see;
# - measure the angles between what two adapters learned, and know beside what an angle is small;
# - turn a claim in words into a statement that can fail, write it down, and only then measure.

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
from functools import cache

import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import Tensor

from serial_lora import LoRAConfig, adapter_parameters, inject
from serial_lora.spectra import (
    effective_rank,
    expected_overlap,
    learned_directions,
    numerical_rank,
    overlap,
    principal_angles,
    product_singular_values,
    share_along_base,
    singular_values,
    weight_changes,
)
from serial_lora_course.checks import check, lesson_card
from serial_lora_course.claims.sentences import read_overlaps, read_statements
from serial_lora_course.figures.spectra import plot_depth, plot_positions, plot_shifts, plot_spectra
from serial_lora_course.figures.style import display_figure
from serial_lora_course.figures.tables import display_table
from serial_lora_course.labs.change_tables import claim_table, spectra_frame, spectra_table
from serial_lora_course.labs.clip import zero_shot_of
from serial_lora_course.labs.frames import as_text
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.spectra import PAIRS, Subject, claim_frame

torch.manual_seed(0)
lesson_card("08")

# %% [markdown]
# One line decides which CLIP the lesson looks into: the tiny one, or OpenAI's ViT-B/16, as in lesson 04.

# %%
import os

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run
lesson = open_lesson("clip", SCALE, LENGTH)
print(lesson)

# %% [markdown]
# The lesson looks into adapters that were really trained: LoRA and Serial LoRA in that CLIP, on a
# few pictures of each class, each with two seeds. The next cell prepares that. `learned("lora", 1)`
# trains an adapter the first time it is asked for, and remembers it; so after this cell you can start
# at any section.

# %%
SHOTS = 4
subject = Subject(lesson.lab(), SHOTS)
RANK = subject.lab.config.rank
METHODS = ("lora", "serial_lora")


@cache
def learned(method: str, seed: int) -> list:
    """What one run changed: a `WeightChange` for each block and each of q, k and v."""
    record, changes = subject.learn(method, seed)
    print(
        f"{get_method(method).label}, seed {seed}: accuracy {record.measures['accuracy']:.1%}, "
        f"zero-shot {zero_shot_of(record):.1%}, {record.seconds:.0f} seconds"
    )
    return [change for change in changes if change.projection in "qkv"]


# %% [markdown]
# ## A claim about singular values
#
# After training, what is the difference between LoRA and Serial LoRA? The paper answers with singular
# values (its Fig. 3 and section II-D). It took SAM, adapted it with both methods, and plotted the
# singular values of q, k and v in several blocks. It reads three things out of the plot:
#
# 1. Serial LoRA has a "consistent intermediate positioning between the original pre-trained model and
#    standard LoRA", with "higher singular values compared to standard LoRA";
# 2. it has "a more gradual decay pattern compared to the steep deterioration in standard LoRA";
# 3. both "persist" for q, k and v, and from shallow to deep blocks.
#
# From that it concludes that Serial LoRA keeps more of the model and learns more robust features.
#
# Before we can test it there is a question: singular values *of which matrix*? Three matrices are in
# play for each projection: the pretrained **W**, the adapted **W + dW**, and the change **dW** alone,
# which is B A for LoRA and W B A for Serial LoRA. The paper does not say which it plotted, and gives no
# numbers. So we test both readings.
#
# | | Reading 1: W + dW | Reading 2: dW |
# |---|---|---|
# | what is compared | the weights that the model uses | what training added |
# | "intermediate" | Serial LoRA's W + dW lies between W and LoRA's W + dW, whichever of these is above | Serial LoRA's dW lies above LoRA's dW and below W |
# | "gradual decay" | all three have as many values as W | at most r values are not zero; do Serial LoRA's fall more slowly? |
#
# And before we look, we say what would count. *Consistent* means: at 90 of 100 indices or more, on
# average over blocks and projections. For decay we compare one number, the effective rank of dW, which
# you will write below. "More gradual" means: higher for Serial LoRA, by more than two standard errors
# over seeds. A statement that is written down before the measurement can fail; one that is read out
# of a plot afterwards hardly can.

# %% [markdown]
# ## What did the adapter change?
#
# Train both methods with the same seed: the same pictures in the same order. It takes some seconds.

# %%
for method in METHODS:
    learned(method, 1)
rows = pd.concat(
    [
        spectra_table(learned(method, 1)).assign(method=get_method(method).label)
        for method in METHODS
    ]
)
means = rows.groupby(["method", "tower", "projection"], sort=False)[
    ["rank", "size", "largest"]
].mean()
named = means.rename(
    columns={"size": "size of dW beside W", "largest": "largest value of dW beside W's"}
)
display_table(
    as_text(named.reset_index(), {"rank": "{:.0f}", **dict.fromkeys(named.columns[1:], "{:.1%}")})
)

# %% [markdown]
# **What this shows.** The rank of every change is the rank of the pair, for both methods: training uses
# all the directions it is given, if only a little. *Size* is the Frobenius norm of dW over that of W.
# Keep the difference between the two methods in mind; both had the same learning rate, and lesson 01
# said why that does not mean equal steps. Whatever depends on size depends on the rate.
#
# That the rank is at most r is no measurement. B A is a product through r numbers, and so is W B A.
# But if somebody gives you only a model before and a model after, can you find out how they were
# adapted? Subtract the weights and count the singular values that are not zero: that is the rank. Or is
# it?

# %%
change = learned("serial_lora", 1)[0]
before = change.weight.float()  # (d, d)
after = change.adapted.float()  # (d, d), rounded to float32 as a merged model is
values = singular_values(after.double() - before.double())  # (d,)
print(f"values above zero: {int((values > 0).sum())} of {len(values)}")
for index in (1, RANK, RANK + 1, len(values)):
    print(f"value {index:3}: {values[index - 1].item():.1e}")

# %% [markdown]
# **What this shows.** No value is exactly zero. The merged weights were rounded to float32, and the
# rounding is a small random matrix of full rank. But there is a cliff behind index r: what training
# made is above it, what rounding made is below. How large can rounding be? The entries of W + dW are
# rounded to about one part in ten million *of themselves*. So the noise goes with the size of W + dW,
# not with the size of dW.

# %% [markdown]
# ### Exercise 8.1 · The rank of a change
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


check("8.1", rank_of_change)

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
# Solution: [the solved lesson](../solutions/08_singular_values.ipynb)

# %% [markdown]
# With the package: `numerical_rank` takes the values, the larger side, and the rounding of the entries
# relative to the largest of the *values*, so here eps is scaled up by |W + dW| / |dW|. All changes of
# both methods, first from the factors in float64, then from float32 weights before and after:


# %%
def ranks(change) -> tuple[int, int]:
    """The rank of dW from its factors, and from weights rounded to float32."""
    size = max(change.weight.shape)
    exact = product_singular_values(change.left, change.right)  # (r,)
    rounded = change.adapted.float().double() - change.weight.float().double()
    largest = torch.linalg.matrix_norm(change.adapted, 2) / exact[0]
    eps = torch.finfo(torch.float32).eps * largest.item()
    return numerical_rank(exact, size), numerical_rank(singular_values(rounded), size, eps)


rows = [
    {"method": get_method(method).label, "tower": change.tower, "factors": exact, "float32": seen}
    for method in METHODS
    for change in learned(method, 1)
    for exact, seen in [ranks(change)]
]
spans = pd.DataFrame(rows).groupby(["method", "tower"], sort=False).agg(["min", "max"])
spans.columns = [f"from {source}: {end}" for source, end in spans.columns]
display_table(spans.reset_index())

# %% [markdown]
# **What this shows.** Never more than r, for both methods. (If float32 ever shows fewer, the last
# directions of that change are so weak that the merged weights cannot hold them.) A rank counts every
# direction alike, the strongest and the weakest. That makes it a poor description of what was learned,
# and is why we go on to the values themselves.

# %% [markdown]
# ## Singular values without the big matrix
#
# A dW of the full-size models is 768 x 768 or 1536 x 1536, but it is a product of two thin matrices.
# Write each of them as Q R, orthonormal columns times a small triangle: left = Q₁ R₁ and
# rightᵀ = Q₂ R₂. Then left · right = Q₁ (R₁ R₂ᵀ) Q₂ᵀ. Orthonormal factors only turn things; they change
# no length. So the r x r matrix in the middle has the same singular values as the big product.

# %% [markdown]
# ### Exercise 8.2 · The spectrum of a product
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


check("8.2", product_spectrum)

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
# Solution: [the solved lesson](../solutions/08_singular_values.ipynb)

# %% [markdown]
# ## The spectra
#
# Now the picture that the paper's Fig. 3 is about, with all three matrices in it. Both scales are
# logarithmic. Expect W and W + dW near each other, and dW below them, a short line that ends at the rank.

# %%
spectra = {method: spectra_frame(learned(method, 1)) for method in METHODS}
display_figure(plot_spectra(spectra))

# %% [markdown]
# **What this shows.** On this scale the lines of W and W + dW are hardly told apart, but for the first
# few values, and for LoRA the last few. A change of rank r *cannot* do much more in between, and that is
# a theorem: it moves no singular value past r others,
#
# $$\sigma_{i+r}(W) \;\le\; \sigma_i(W + dW) \;\le\; \sigma_{i-r}(W)$$
#
# (interlacing). So under reading 1 there is no room for a "steep deterioration" in the middle of the
# spectrum, for either method. Two more bounds tell the methods apart. LoRA *adds*, so a value moves by at
# most the size of what is added (Weyl). Serial LoRA *multiplies*, so it moves by a bounded *factor*
# (Ostrowski):
#
# $$|\sigma_i(W + dW) - \sigma_i(W)| \le \sigma_1(dW),
# \qquad \sigma_{\min}(I + BA) \;\le\; \frac{\sigma_i(W + W BA)}{\sigma_i(W)} \;\le\; \sigma_{\max}(I + BA).$$
#
# The next cell tests all of them at every index of every block.

# %% tags=["nbval-check-output"]
for method in METHODS:
    bounds = {"interlacing": [], "added": [], "multiplied": []}
    for change in learned(method, 1):
        before, after = (
            singular_values(change.weight),
            singular_values(change.adapted),
        )  # (d,), (d,)
        slack = 1e-12 * before[0]
        bounds["interlacing"].append(
            bool(
                (after[RANK:] <= before[:-RANK] + slack).all()
                and (before[RANK:] <= after[:-RANK] + slack).all()
            )
        )
        largest = product_singular_values(change.left, change.right)[0]
        bounds["added"].append(bool(((after - before).abs() <= largest + slack).all()))
        if method == "serial_lora":
            factor = torch.linalg.solve(change.weight, change.adapted)  # (d, d): I + B A
            most, least = singular_values(factor)[[0, -1]]
            bounds["multiplied"].append(
                bool(
                    (after <= most * before + slack).all()
                    and (after >= least * before - slack).all()
                )
            )
    print(method, {name: all(held) for name, held in bounds.items() if held})

# %% [markdown]
# So look closer: how far is each value from W's, in percent? Zero is W. If Serial LoRA lies *between*
# W and LoRA, its line is between zero and LoRA's line, at every index. The upright scale is linear up to
# one percent either way, and logarithmic beyond.

# %%
spectra = {method: spectra_frame(learned(method, 1)) for method in METHODS}
display_figure(plot_shifts(spectra))

# %% [markdown]
# **What this shows.** Look at the right ends first: LoRA may multiply the smallest singular values, those
# that W hardly uses, by any factor, and Serial LoRA may not. In this sense it does keep more of the model:
# what W nearly erases stays nearly erased. Whether it lies *between* is another question, and the eye is
# no judge of it. You will count. Luck counts too, so think about it first: suppose that both methods moved
# each singular value by a random step of the same typical size, up or down. How often would one lie
# between zero and the other? Half the time both go to the same side, and then half the time the first one
# goes less far. So 25% is nothing.

# %% [markdown]
# ### Exercise 8.3 · In between
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


check("8.3", share_in_between)

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
# Solution: [the solved lesson](../solutions/08_singular_values.ipynb)

# %% [markdown]
# `claim_table` counts for each block and projection: *between* for reading 1 (W + dW), and *change
# between* for reading 2 (dW above LoRA's and below W's). *Nearer* is weaker: it only asks whether
# Serial LoRA's value is less far from W's than LoRA's, on whichever side.

# %%
claims = claim_table(learned("lora", 1), learned("serial_lora", 1))
columns = ["between", "nearer", "change_between"]
by_projection = claims.groupby(["tower", "projection"], sort=False)[columns].mean()
display_table(as_text(by_projection.reset_index(), dict.fromkeys(columns, "{:.0%}")))

between, inside = claims["between"], claims["change_between"]
own, theirs = claims["size_serial"].mean(), claims["size_lora"].mean()
display(
    Markdown(
        f"In this one run, Serial LoRA's W + dW is between W's and LoRA's at {between.mean():.0%} of the "
        f"indices ({between.min():.0%} to {between.max():.0%} in a single block and projection). Its dW is "
        f"above LoRA's and below W at {inside.mean():.0%} of the first {RANK} indices ({inside.min():.0%} "
        f"to {inside.max():.0%}). On average LoRA's dW is {theirs:.1%} of W's size and Serial LoRA's {own:.1%}."
    )
)

# %% [markdown]
# Is that about the *methods*, or about how far each happened to go? A test: multiply LoRA's dW by a
# factor, as another learning rate or a scale would roughly do. Nothing else changes. If "between" is a
# property of the method, the shares should stay about where they are.

# %%
from dataclasses import replace


def stronger(changes: list, factor: float) -> list:
    """The same changes, with a scale that is ``factor`` times as large."""
    return [replace(change, left=factor * change.left) for change in changes]


rows = []
for factor in (0.25, 0.5, 1, 2, 4):
    table = claim_table(stronger(learned("lora", 1), factor), learned("serial_lora", 1))
    rows.append(
        {"LoRA's dW times": factor}
        | table[columns].mean().to_dict()
        | {"effective_rank": table["effective_rank_lora"].mean()}
    )
scales = pd.DataFrame(rows)
display_table(
    as_text(
        scales,
        {"LoRA's dW times": "{:g}", **dict.fromkeys(columns, "{:.0%}"), "effective_rank": "{:.3f}"},
    )
)
low, high = scales["change_between"].min(), scales["change_between"].max()
display(
    Markdown(
        f"With the factor alone, “change between” goes from {low:.0%} to {high:.0%} and “between” from "
        f"{scales['between'].min():.0%} to {scales['between'].max():.0%}."
    )
)

# %% [markdown]
# **What this shows.** Where a curve lies is mostly a matter of how large the change is, and that is a
# matter of learning rate, steps and scale. Make LoRA's change small enough and Serial LoRA's lies above
# it; make it large and the order turns round. A claim about *position* is therefore a claim about one
# setting. The last column does not move at all: it measures the *shape* of the spectrum, and a factor
# does not change a shape. That is the next thing to look at.

# %% [markdown]
# ## Decay, in one number
#
# How fast does a spectrum fall? Take the singular values as shares of their sum. If all r shares are
# equal, the change uses r directions fully. If one share is almost everything, it uses one. Entropy
# measures exactly that, and its exponential turns it back into a number of directions:
#
# $$p_i = \frac{\sigma_i}{\sigma_1 + \dots + \sigma_r}, \qquad
# \operatorname{erank} = \exp\Bigl(-\sum_i p_i \ln p_i\Bigr).$$
#
# This is the **effective rank** (Roy and Vetterli, 2007): from 1 to r, and not always whole.

# %% [markdown]
# ### Exercise 8.4 · The effective rank
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


check("8.4", effective_rank_of)

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
# Solution: [the solved lesson](../solutions/08_singular_values.ipynb)

# %% [markdown]
# Over the depth of the image tower, for both methods and two seeds: a line is their mean, and the band
# around it goes from the lower to the higher. The grey line is what a product of two *random* matrices of
# this rank has: a pair that has learned nothing in particular. Training the second seed takes some
# seconds again.

# %%
tables = [
    spectra_table(learned(method, seed)).assign(method=method, seed=seed)
    for seed in (1, 2)
    for method in METHODS
]
effective = pd.concat(tables, ignore_index=True)
width = learned("lora", 1)[0].weight.shape[0]
random_rank = effective_rank(
    product_singular_values(torch.randn(width, RANK), torch.randn(RANK, width))
)

image = effective[effective["tower"] == "image"]
display_figure(
    plot_depth(
        image,
        "effective_rank",
        f"effective rank of dW (at most {RANK})",
        reference=(random_rank, "random pair"),
    )
)

# %%
means = effective.groupby(["method", "seed"])[["effective_rank", "stable_rank"]].mean()
by_method = means.groupby("method").mean()
whole = effective[["effective_rank_before", "effective_rank_after"]].mean()
gap = by_method.loc["serial_lora"] - by_method.loc["lora"]
display(
    Markdown(
        f"**What this shows.** Of the {RANK} directions that each pair has, LoRA's dW uses "
        f"{by_method.loc['lora', 'effective_rank']:.1f} effectively and Serial LoRA's "
        f"{by_method.loc['serial_lora', 'effective_rank']:.1f} (means over both towers, all projections "
        f"and two seeds); a random pair has {random_rank:.1f}. The **stable rank**, the sum of the squares "
        "over the largest square, hardly sees small values and says "
        f"{by_method.loc['lora', 'stable_rank']:.1f} and {by_method.loc['serial_lora', 'stable_rank']:.1f}: "
        + (
            "the same order. "
            if gap.prod() > 0
            else "the other order, so the answer depends on whether "
            "strong or weak directions are asked about. "
        )
        + f"The effective rank of W itself is {whole.iloc[0]:.1f} of {width}, and with either dW "
        f"{whole.iloc[1]:.1f}: the model as a whole hardly notices."
    )
)

# %% [markdown]
# Two caveats before you make more of it. A high effective rank is not a virtue in itself: a random pair
# has the highest. And for Serial LoRA the spectrum of dW = W B A is partly the spectrum of W, whose strong
# directions stretch what the pair sends there. We come back to that.

# %% [markdown]
# ## Where it reads, where it writes
#
# A singular value says how strong a layer is, and nothing about its direction. Write dW as a sum of
# layers σᵢ uᵢ vᵢᵀ, as in lesson 01. The token is compared with vᵢ: that is where dW *reads*. What comes
# out goes along uᵢ: that is where it *writes*. The vᵢ span the row space, the uᵢ the column space.
#
# Two subspaces of one dimension have several angles between them. The first **principal angle** is the
# smallest angle between any vector of the one and any vector of the other; the second is the smallest
# at right angles to that pair; and so on. All zero: the same subspace. All 90 degrees: nothing in
# common. With orthonormal columns Q₁ and Q₂ they come out of one small matrix: the singular values of
# Q₁ᵀ Q₂ are their cosines (Bjorck and Golub, 1973).

# %% [markdown]
# ### Exercise 8.5 · Principal angles
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


check("8.5", angles_between)

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
# Solution: [the solved lesson](../solutions/08_singular_values.ipynb)

# %% [markdown]
# First question: do q, k and v of one block read the same directions? For Serial LoRA they must: W_q B A,
# W_k B A and W_v B A all end in the same A. For LoRA nothing forces them to. The package's
# `principal_angles` uses sines beside the cosines, so it is exact for tiny angles too, where an
# arccosine is not.

# %%
import numpy as np

width = learned("lora", 1)[0].weight.shape[0]
rows = []
for method in METHODS:
    by_site = {}
    for change in learned(method, 1):
        by_site.setdefault(change.site, {})[change.projection] = learned_directions(change)
    for what, side in (("reads", 0), ("writes", 1)):
        angles = [
            principal_angles(parts["q"][side], parts[other][side])
            for parts in by_site.values()
            for other in "kv"
        ]
        rows.append(
            {
                "method": get_method(method).label,
                "q beside k and v": what,
                "smallest angle, degrees": f"{np.min(angles):.2g}",
                "largest angle, degrees": f"{np.max(angles):.2g}",
                "overlap": f"{np.mean([overlap(each) for each in angles]):.3f}",
                "by chance": f"{expected_overlap(RANK, RANK, width):.3f}",
            }
        )
display_table(pd.DataFrame(rows))

# %% [markdown]
# **What this shows.** Serial LoRA's q, k and v read one and the same space of r directions, up to
# rounding. LoRA's three pairs read three different ones. *Overlap* makes one number of many angles, the
# mean of the squared cosines: 1 for the same space, 0 for orthogonal ones. Two random subspaces of
# dimension r in d dimensions have r / d. Where dW *writes* is another matter: W_q B and W_k B are
# different spaces even for Serial LoRA, because the weights are.
#
# Second question: did LoRA and Serial LoRA learn *the same thing*, in the same place? An overlap alone
# cannot say. It needs something to stand beside: random directions below, and above, what one method
# has in common *with itself* when only the seed differs: other shots, another order, another random
# start. We compare the four strongest directions, since the weak ones are mostly what `A` was at the start
# (LoRA's authors look at their adapters like this).
#
# And we compare the two methods across two seeds as well. With one seed they would share their shots and,
# in the very first pair, even the random numbers that `A` starts from: they would look more alike than
# they are.

# %%
TOP = 4
comparisons = {
    "LoRA, two seeds": ("lora", 1, "lora", 2),
    "Serial LoRA, two seeds": ("serial_lora", 1, "serial_lora", 2),
    "LoRA and Serial LoRA": ("lora", 1, "serial_lora", 2),
}
rows = []
for name, (method, seed, other, other_seed) in comparisons.items():
    for one, two in zip(learned(method, seed), learned(other, other_seed), strict=True):
        spaces = zip(learned_directions(one, TOP), learned_directions(two, TOP), strict=True)
        for what, pair in zip(("reads", "writes"), spaces, strict=True):
            rows.append(
                {
                    "comparison": name,
                    "what": what,
                    "tower": one.tower,
                    "block": one.block,
                    "overlap": overlap(principal_angles(*pair)),
                }
            )
overlaps = pd.DataFrame(rows)
chance = expected_overlap(TOP, TOP, width)

# %%
looks = {
    "LoRA, two seeds": {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    "Serial LoRA, two seeds": {"color": "#d55e00", "marker": "s", "linestyle": "-"},
    "LoRA and Serial LoRA": {"color": "#009e73", "marker": "^", "linestyle": "--"},
}
display_figure(
    plot_depth(
        overlaps[overlaps["tower"] == "image"],
        "overlap",
        f"overlap of the {TOP} strongest\n(1: the same directions)",
        line="comparison",
        panel="what",
        looks=looks,
        reference=(chance, "random directions"),
    )
)

means = overlaps.groupby(["comparison", "what"], sort=False)["overlap"].mean().unstack("what")
readings = read_overlaps(means, "LoRA and Serial LoRA", chance)
display(Markdown(f"Both towers together:\n\n{readings}"))

# %% [markdown]
# **What this shows.** Two things to compare in one figure, which is of the image tower: how far the lines
# are above the grey one (is anything found again at all?), and how far the dashed green line is below the
# other two (does the method matter more than the seed?). A line is the mean of q, k and v, and its band
# goes from the lowest of the three to the highest. Different directions do not mean different behaviour: two
# adapters may read different directions of the same tokens and still do the same to the pictures.
#
# Where each method writes can be said more precisely. Serial LoRA's dW is W times B A, so what it
# writes has gone through W, and W stretches its own strong directions. Lesson 01 derived the same from
# the first gradient. If that is still true after training, Serial LoRA's dW lies along the strongest
# outputs of W, and LoRA's, whose B is free, need not. The cell takes the r strongest of W's directions
# and asks which share of dW (of its squared norm) lies along them.

# %%
rows = [
    {
        "method": get_method(method).label,
        "projection": change.projection,
        "reads": reads,
        "writes": writes,
    }
    for method in METHODS
    for change in learned(method, 1)
    for reads, writes in [share_along_base(change, RANK)]
]
along = pd.DataFrame(rows).groupby(["method", "projection"], sort=False).mean()
named = along.rename(
    columns={"reads": "reads from W's strongest", "writes": "writes to W's strongest"}
)
display_table(as_text(named.reset_index(), dict.fromkeys(named.columns, "{:.0%}")))
share = along["writes"].groupby("method").mean()
squares = [singular_values(change.weight).square() for change in learned("lora", 1)]  # (d,) each
passed = np.mean([(each[:RANK].sum() / each.sum()).item() for each in squares])
display(
    Markdown(
        f"Of what Serial LoRA writes, {share['Serial LoRA']:.0%} is along the {RANK} strongest outputs "
        f"of W, of what LoRA writes {share['LoRA']:.0%}. By chance it would be {RANK / width:.0%}, and "
        f"{passed:.0%} for a random B that is sent through W."
    )
)

# %% [markdown]
# **What this shows.** This is a difference that follows from the method and not from a learning rate:
# what comes out of Serial LoRA has passed through W. The last share says how much the passage alone does,
# with nothing learned. What is above it came with training, and lesson 01 said why it may: the gradient
# of B goes through W as well, so strong directions are stretched twice. It also fits what you saw of the
# spectra: a change that lies mostly along a few directions of W spreads over fewer directions itself.

# %% [markdown]
# ## The verdict
#
# Two seeds and one model are few. The course ships records of more: the tiny CLIP *and* the tiny SAM
# (the paper's figure is about SAM), three seeds, and the four methods of the figure, LoRA+ and Serial
# LoRA+ included. They were made by `python -m serial_lora_course.labs.spectra --seeds 3 --out ...`, with the
# labs' own settings.

# %%
from serial_lora_course.labs.records import shipped_records

records = shipped_records("spectra")
results = claim_frame(records)
NEEDED, LUCK = 0.9, 0.25
for lab, part in results.groupby("lab", sort=False):
    (dataset,) = part["dataset"].unique()
    first = next(record for record in records if record.settings["lab"] == lab)
    print(
        f"{lab}: {dataset}, {first.amount} {first.unit}, rank {first.rank}, "
        f"learning rate {first.settings['lr']:g} ({first.settings['plus_lr']:g} for A in the plus "
        f"methods), {part['seed'].nunique()} seeds"
    )
print(
    f"{len(results)} blocks and projections in all; "
    f"{sum(record.seconds for record in records) / 60:.0f} minutes of training"
)
display_figure(
    plot_positions(
        results,
        "between",
        "indices where Serial LoRA's W + dW\nis between W and LoRA's",
        chance=LUCK,
        needed=NEEDED,
    )
)

# %%
display_figure(
    plot_positions(
        results,
        "change_between",
        "indices where Serial LoRA's dW\nis above LoRA's and below W",
        chance=None,
        needed=NEEDED,
    )
)

# %% [markdown]
# Now the statements from the beginning, word by word: the position under both readings, and the decay.
# (The third, that both persist for q, k and v and at every depth, only has something to say of those that
# hold. Each dot above is one block and projection, so you have seen how they spread.) Each is asked of
# each model and each pair of methods: the mean over blocks and projections for each seed, then mean and
# standard error over the seeds. *Holds*: more than two standard errors above what is needed. *Fails*:
# more than two below. Otherwise these runs do not decide. With three seeds an error is itself only a
# rough estimate, so look at the distance too.

# %%
results["gain"] = results["effective_rank_serial"] - results["effective_rank_lora"]
STATEMENTS = {
    "reading 1: W + dW between, consistently": ("between", NEEDED, "{:.1%}"),
    "reading 2: dW between, consistently": ("change_between", NEEDED, "{:.1%}"),
    "decay: higher effective rank of dW": ("gain", 0.0, "{:+.2f}"),
}


def judge(values: pd.Series, needed: float) -> str:
    """What one number a seed says of a statement that needs more than ``needed``."""
    distance, error = values.mean() - needed, 2 * values.sem()
    return "not decided" if abs(distance) <= error else "holds" if distance > 0 else "fails"


rows = []
for (lab, method), part in results.groupby(["lab", "method"], sort=False):
    for statement, (measure, needed, text) in STATEMENTS.items():
        by_seed = part.groupby("seed")[measure].mean()
        rows.append(
            {
                "model": lab,
                "methods": f"{get_method(method).label} beside {get_method(PAIRS[method]).label}",
                "statement": statement,
                "mean": text.format(by_seed.mean()),
                "± standard error": text.format(by_seed.sem()).lstrip("+"),
                "verdict": judge(by_seed, needed),
            }
        )
verdicts = pd.DataFrame(rows)
display_table(verdicts)

# %%
display(Markdown(f"**What this shows.** {read_statements(verdicts, results)}"))

# %% [markdown]
# Does that refute the paper? No, and it does not confirm it either. Its figure is about a model many
# times the size, trained on photographs at another rate, and we do not know which matrix it shows. If one
# of its lines stood for W + dW and another for dW, they would differ for a reason that has nothing to do
# with learning: dW ends at r. What we can say is what such a claim needs: which matrix, how large the
# changes were, more than one seed, and a number. And what follows even then is little. That one spectrum
# lies above another says nothing by itself about the pictures that a model gets right; lessons 04, 06 and
# 07 measure that directly.

# %% [markdown]
# ## Full size
#
# All functions of this lesson take any model that the package can adapt. Below, a vision transformer
# of ViT-B/16's full size with random weights, and random pairs in its first and last block: nothing is
# learned there, but every number is computed as it would be for a real adapter. The cell also times the
# two ways to the spectrum of one dW.

# %%
import time

from timm.models.vision_transformer import VisionTransformer

torch.manual_seed(0)
large = VisionTransformer(
    img_size=224, patch_size=16, embed_dim=768, depth=12, num_heads=12, num_classes=0
)
inject(large, LoRAConfig(rank=64, blocks=[0, 11]))
with torch.no_grad():
    for parameter in adapter_parameters(large):
        parameter.normal_(std=0.02)
changes = weight_changes(large)
print(
    f"{sum(p.numel() for p in large.parameters()):,} parameters; {len(changes)} changes of rank 64"
)

change, seconds = changes[0], {}
for name, compute in (
    ("dense", lambda: singular_values(change.change)),
    ("from the factors", lambda: product_singular_values(change.left, change.right)),
):
    started = time.perf_counter()
    values = compute()
    seconds[name] = time.perf_counter() - started
    print(
        f"{name:17} {1000 * seconds[name]:7.1f} ms   largest {values[0]:.6f}   64th {values[63]:.6f}"
    )
print(
    f"effective rank {effective_rank(values):.1f} of 64; overlap of q's and k's reads "
    f"{overlap(principal_angles(*(learned_directions(c)[0] for c in changes[:2]))):.3f}, "
    f"by chance {expected_overlap(64, 64, 768):.3f}"
)

# %% [markdown]
# **What this shows.** The same numbers in a small part of the time, and the difference grows with the
# width. For your own adapter, at paper scale:
#
# ```python
# from serial_lora import load_adapter
# from serial_lora_course.models.clip import load_clip
# from serial_lora.spectra import weight_changes
# from serial_lora_course.labs.change_tables import spectra_table
#
# model = load_adapter(load_clip("paper").model, "pets.safetensors")
# spectra_table(weight_changes(model))
# ```
#
# and in a terminal, the records of this lesson anew, or with more seeds:
#
# ```
# python -m serial_lora_course.labs.spectra --seeds 5 --out runs/spectra.jsonl
# ```

# % [markdown]
# ## Leave the machine as you found it
#
# The last cell takes the model off the card, where the next notebook may need the room.

# %
learned.cache_clear()
lesson.close()

# % [markdown]
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
# It depends on what stands beside it. In 192 dimensions chance gives 4 / 192, about 0.02, so something is
# shared; in 40 dimensions 0.1 would be chance itself. And if two seeds of *one* method overlap by 0.1 too,
# the two methods are as alike as a method is to itself.
#
# </details>
#
# **4. Why is the numerical rank of `after - before` full for a model merged in float32, and what do you
# compare with to see the true one?**
#
# <details><summary>Answer</summary>
#
# Rounding adds a small matrix of full rank. Its size goes with the entries that were rounded, those of
# W + dW, so the threshold needs the largest singular value of W + dW, not that of dW.
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
# - An angle needs neighbours: random subspaces, and the same method with another seed. Two runs with one
#   seed share more than what they learned.
# - Write the statement down before you measure it, and report it as it falls.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": Fig. 3 and "Non-equivalent Dynamic" in section II-D,
# on SAM; equations (4) and (5) for the two forms of dW. Which matrix was plotted, for which data and rank,
# and over how many runs, is not stated. The effective rank is Roy and Vetterli's (EUSIPCO 2007), the
# angles Bjorck and Golub's (Mathematics of Computation, 1973), computed as in Knyazev and Argentati (2002);
# the overlap of strongest directions is from section 7 of "LoRA: Low-Rank Adaptation of Large Language
# Models" (Hu et al., ICLR 2022). The three bounds stand in Horn and Johnson, "Topics in Matrix Analysis",
# chapter 3.
