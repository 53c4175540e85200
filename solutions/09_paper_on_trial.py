# %% [markdown]
# # 09 · The paper on trial
#
# Your group adapts all its models with LoRA. A paper promises the same with a quarter of the parameters, and the group
# asks you: **should we switch to Serial LoRA?**
#
# First you read what would refute each of the paper's promises, and bet. Then you train the rivals that the paper
# leaves out, and look for the step at which Serial LoRA falls behind. A last table has your bets and the verdicts.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.plots.style import display_figure

lesson_card("09")

# %% [markdown]
# ## Seven promises
#
# | | The paper says or implies | What would refute it | What we run |
# |---|---|---|---|
# | 1 | "consistent superiority" | its own tables do not always show it ahead of LoRA | nothing |
# | 2 | "a novel LoRA variant" | an earlier method has it as a special case | nothing |
# | 3 | "comparable", with "only 1/4 parameters" | LoRA is clearly more than a margin ahead (a point; five on SD3) | LoRA |
# | 4 | that is because one pair is *shared* | a LoRA of the same size does as well | LoRA at a quarter |
# | 5 | the pair belongs before attention | in another place it does as well | before feed-forward |
# | 6 | it takes an adapter | without an adapter you do as well | norms and biases |
# | 7 | W is a "basis" that makes three changes of one | other matrices do as well in W's place | through Q, random rotations |
#
# The paper implies 4 to 6 and says the rest. A rival does *as well* if it is clearly less than a margin behind.
#
# A rival's lead comes with an interval, so your rule of [lesson 08](08_how_sure.ipynb) decides. A promise falls if the
# whole interval is above the bar, holds if the whole interval is below it, and else is open. Bet before anything runs.

# %%
MARGIN = {  # what would matter to your group
    "SAM": 1,  # point of Dice; LoRA gains 7.5 in the study (docs/study.md)
    "CLIP": 1,  # point of accuracy, of 4.4
    "SD3": 5,  # points of style share, of 79
}
# Where a rival's bar lies: a margin ahead of Serial LoRA, or a margin behind.
AHEAD, AS_WELL = 1, -1
RIVALS = {
    "3 comparable": ("LoRA", AHEAD),
    "4 because shared": ("LoRA at a quarter", AS_WELL),
    "5 before attention": ("before feed-forward", AS_WELL),
    "6 takes an adapter": ("norms and biases", AS_WELL),
    "7 W as a basis": ("through Q", AS_WELL),
}
doubted = [1, 2, 4]  # your guess: the numbers of the promises that fall

# %%
from serial_lora_course.paper_tables import paper_results

scores = paper_results().pivot(
    index=["metric", "dataset", "amount"], columns="method", values="value"
)
lead = (scores["serial_lora"] - scores["lora"]).unstack("metric")
lead[["dice_as_printed", "fid"]] *= -1  # less is better
not_ahead, cells = (lead <= 0).sum(), lead.count()
behind, of = not_ahead.sum(), cells.sum()
print(f"Serial LoRA is not ahead of LoRA in {behind} of {of} cells:")
print(pd.DataFrame({"not ahead": not_ahead, "cells": cells}))

# %% [markdown]
# ## Two promises that need no training
#
# The first promise takes counting. (The paper calls a lower Dice better. Dice measures overlap, so its table probably
# shows a *loss*, and we read it as one.) Serial LoRA is not ahead in 13 of 51 cells, and by FID in more than half.
#
# The second promise takes reading. Serial LoRA adapts the tokens x once, in front of the layers that make q, k and v,
# so each of these computes W_p (x + B A x), where p is q, k or v. Two years before, Luo and others published
# *RepAdapter*. Its layer stands in the same place and also before the feed-forward layer. It has two biases, and its
# hidden values are in *groups*, each of which makes its own part of the output. So B consists of blocks, with zeros
# elsewhere.


# %%
class RepAdapter(nn.Module):
    """x + s (B (A x + a) + b), with B in groups (Luo et al. 2023, arXiv 2302.08106)."""

    def __init__(self, width: int, hidden: int, groups: int, scale: float, bias: bool):
        super().__init__()
        self.down = nn.Linear(width, hidden, bias=bias)  # A and a
        self.up = nn.Parameter(torch.randn(groups, width // groups, hidden // groups))  # B
        self.bias = nn.Parameter(torch.randn(width) * bias)  # b
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(x).unflatten(-1, (len(self.up), -1))  # (..., groups, h / groups)
        change = torch.einsum("...gh,gdh->...gd", hidden, self.up).flatten(-2)  # (..., d)
        return x + self.scale * (change + self.bias)


d, r, Pair = 192, 8, yours("3.1")
torch.manual_seed(0)
x = torch.randn(50, d)  # (N, d)
for groups, bias in ((1, False), (2, False), (2, True)):
    earlier, pair = RepAdapter(d, r, groups, scale=0.3, bias=bias), Pair(d, r)
    with torch.no_grad():
        pair.lora_A.copy_(earlier.down.weight)
        pair.lora_B.copy_(earlier.scale * torch.block_diag(*earlier.up))
        apart = (earlier(x) - pair(x)).abs().max().item()
    print(f"groups {groups}, biases {bias!s:5}: {apart:.0e} apart")

# %% [markdown]
# **"Superior" and "novel" fall.** With one group and no biases RepAdapter is Serial LoRA: the outputs differ by rounding
# alone. (With two groups it is a Serial LoRA whose B has zeros.) The other five promises need runs.
#
# ## The rivals
#
# You write three rivals. The first one is no adapter at all, and close to *BitFit*, which trains biases alone.
#
# ### Exercise 9.1 · Norms and biases
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●○ | 5 |
#
# Each block has LayerNorms and biases. Let these learn, and freeze everything else, such as matrices and SAM's
# tables of relative positions. Before the call any parameter may be frozen or not.


# %% tags=["exercise"]
def norms_and_biases(blocks: nn.ModuleList) -> None:
    """Let the blocks' biases and the weights of their norms learn, and freeze all else in them.

    Args:
        blocks: of SAM's image encoder, changed in place.
    """
    # BEGIN SOLUTION
    for parameter in blocks.parameters():
        parameter.requires_grad_(parameter.ndim == 1)
    # END SOLUTION


check("9.1", norms_and_biases)

# %% [markdown]
# <details><summary>Hint 1: what they have in common</summary>
#
# Print names and shapes: `for name, p in blocks.named_parameters(): print(name, tuple(p.shape))`. A norm's weight and
# every bias have one number for each channel. How do the shapes of all other parameters differ?
#
# </details>
# <details><summary>Hint 2: both ways</summary>
#
# `parameter.requires_grad_(True)` lets a parameter learn, and `requires_grad_(False)` freezes it. Every parameter
# needs one of the two.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)
#
# ### Exercise 9.2 · The same pair, elsewhere
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# A block has two halves, `x + attn(norm1(x))` and `x + mlp(norm2(x))`. Put Serial LoRA's pair in front of the
# feed-forward layer, so that `mlp` reads adapted tokens and the residual stream x stays unchanged.


# %% tags=["exercise"]
def before_feed_forward(blocks: nn.ModuleList, adapter: type[nn.Module], rank: int) -> list:
    """Put one pair in front of each block's feed-forward layer.

    Args:
        blocks: each has `norm2` and `mlp`, as above; changed in place. Widths may differ.
        adapter: `adapter(width, rank)` makes a pair, as your class of exercise 3.1 does.
        rank: r.

    Returns:
        The pairs, one a block; each is part of its block, so that its parameters are the block's too.
    """
    # BEGIN SOLUTION
    pairs = [adapter(len(block.norm2.weight), rank) for block in blocks]
    for block, pair in zip(blocks, pairs, strict=True):
        block.mlp = nn.Sequential(pair, block.mlp)
    return pairs
    # END SOLUTION


check("9.2", before_feed_forward)

# %% [markdown]
# <details><summary>Hint 1: the width</summary>
#
# The pair reads what `norm2` gives, and a LayerNorm has a weight for each channel: `len(block.norm2.weight)`.
#
# </details>
# <details><summary>Hint 2: two layers in a row</summary>
#
# A block calls `self.mlp(...)`, whatever module that is. So replace it by the pair followed by the old `mlp`:
# `nn.Sequential` runs one after the other. (Assign a module to the block and not a function, because the block knows
# the parameters of its modules only.)
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)
#
# The last rival asks what W is good for. The paper says that one pair "builds different adaptation based on the basis"
# of each W. By its singular values, W = U S Vᵀ, W reads along the directions in V, stretches each by its own number in
# S, and writes along those in U. You can take away W's directions, its stretch, or both.
#
# ### Exercise 9.3 · Three stand-ins for W
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●● | 14 |
#
# Make three matrices for each W. E keeps W's directions and stretches all of them alike. T keeps W's stretch, along
# directions drawn at random. Q keeps neither. Each has the Frobenius norm of its W, and q, k and v get their own.


# %% tags=["exercise"]
def stand_ins(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three matrices in the place of each W: with its directions, with its stretch, with neither.

    Args:
        W: (3, d, d), W_q, W_k and W_v.

    Returns:
        E, T and Q, each (3, d, d); every call draws new random directions from torch's generator.
    """
    # BEGIN SOLUTION
    U, S, Vh = torch.linalg.svd(W)  # (3, d, d), (3, d), (3, d, d)
    size = W.norm(dim=(1, 2), keepdim=True) / W.shape[-1] ** 0.5  # (3, 1, 1)
    P, Q = (torch.stack([nn.init.orthogonal_(torch.empty_like(w)) for w in W]) for _ in "UV")
    return size * U @ Vh, P * S[:, None] @ Q, size * Q
    # END SOLUTION


check("9.3", stand_ins)

# %% [markdown]
# <details><summary>Hint 1: the parts</summary>
#
# `torch.linalg.svd` gives U, S and Vᵀ of all three W at once. `nn.init.orthogonal_` fills a new matrix with random
# directions at right angles, in place. You need one such matrix for U and one for V, for each of the three W. What is
# left of U S Vᵀ if all numbers in S are the same?
#
# </details>
# <details><summary>Hint 2: the size</summary>
#
# The Frobenius norm is the root of the sum of all squares. What is it for a matrix whose d columns all have length 1?
# Divide by that number and multiply by W's own norm, `W.norm(dim=(1, 2), keepdim=True)`. T needs no correction,
# because its norm follows from S.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)
#
# ## The scenes
#
# We use the scenes of lesson 05: photographs over other photographs, for a SAM that learnt from drawings alone. A
# third of the training scenes is held back to choose rates on. Scenes of drawings, in the style that SAM learnt from,
# show what a method forgets.

# %%
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.labs import sam as lab
from serial_lora_course.lessons.l09_trial.drawings import with_drawings
from serial_lora_course.models.sam import load_sam

photographs = lab.load_segmentation("photographs")
chosen = training_subset(photographs, 67, seed=1)  # percent
rest = [i for i in range(len(photographs.train)) if i not in chosen]
some = photographs.train.some
scenes = {
    "test": photographs,
    "held back": replace(photographs, train=some(chosen), test=some(rest)),
    "drawings": with_drawings(photographs),
}
base = load_sam("tiny")
SETTINGS = replace(lab.TINY, epochs=2)
labs = {name: lab.SamLab(base, data, SETTINGS) for name, data in scenes.items()}


def points(sam, name: str) -> np.ndarray:
    """Of each scene of that name, Dice in points, which are hundredths."""
    return 100 * lab.picture_scores(sam, scenes[name], labs[name].test_prepared)["dice"]


steps = SETTINGS.steps(len(chosen))
print(f"{len(chosen)} scenes, {steps} steps of {SETTINGS.batch_size}; not adapted:")
before = {name: points(base, name) for name in scenes}
for name, reached in before.items():
    print(f"{name:10} {len(reached)} scenes: {reached.mean():.1f}")
learnt_from = {thing for scene in some(chosen) for thing in scene.names}
for name in ("test", "held back"):
    known = np.mean([thing in learnt_from for scene in scenes[name].test for thing in scene.names])
    print(f"things in the scenes of {name} that training shows: {known:.0%}")

# %% [markdown]
# The scenes held back differ from the test. SAM finds them easier before any training, with 73.8 against 66.6, and
# training shows 69% of their things and none of the test's. So a rate that is chosen on them need not be the test's
# best.
#
# The next cell has eight ways to adapt SAM's image encoder, each but the last with the closest method of [*the
# study*](../docs/study.md), our comparison on many sets. *Before both* has a pair in front of attention and another in
# front of the feed-forward layer, as RepAdapter does. It is as large as LoRA.

# %%
from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora_course.labs.training import TrainingConfig, train
from serial_lora_course.lessons.l09_trial.tables import load_found

RANK, BOTH, in_its_place = 16, ("attention", "feed_forward"), yours("9.3")


class Through(nn.Module):
    """W_p x + M_p B A x; where M_p = W_p, it is Serial LoRA."""

    def __init__(self, qkv: nn.Linear, pair: nn.Module, M: Tensor):
        super().__init__()
        self.qkv, self.pair = qkv, pair  # frozen; learning: x -> x + B A x
        self.register_buffer("M", M.flatten(0, 1))  # (3 d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.qkv(x) + F.linear(self.pair(x) - x, self.M)


def through(encoder: nn.Module) -> None:
    for block in encoder.blocks:
        W = block.attn.qkv.weight.detach().unflatten(0, (3, -1))  # (3, d, d)
        _, _, Q = in_its_place(W)
        block.attn.qkv = Through(block.attn.qkv, Pair(d, RANK), Q)


WAYS = {  # the closest method in the study, and what is done to a frozen encoder
    "Serial LoRA": ("serial_lora-16", lambda e: inject(e, SerialLoRAConfig(rank=RANK))),
    "LoRA at a quarter": ("lora-4", lambda e: inject(e, LoRAConfig(rank=RANK // 4))),
    "LoRA": ("lora-16", lambda e: inject(e, LoRAConfig(rank=RANK))),
    "before feed-forward": ("serial_ffn-12", lambda e: yours("9.2")(e.blocks, Pair, RANK)),
    "norms and biases": ("ln_bias-1", lambda e: yours("9.1")(e.blocks)),
    "through Q": ("serial_random-12", through),
    "before both": (
        "repadapter_two-42",  # of width 42, about as large as LoRA
        lambda e: inject(e, SerialLoRAConfig(rank=2 * RANK, places=BOTH)),
    ),
    "full fine-tuning": (None, lambda e: e.requires_grad_(True)),
}


# %%
@cache
def adapted(name: str, rate: float) -> tuple:
    """Train in a way at a rate: the SAM, how many of its parameters learnt, seconds, and MB."""
    tuned = base.around(copy.deepcopy(base.model).requires_grad_(False))
    torch.manual_seed(1)
    WAYS[name][1](tuned.model.image_encoder)
    learning = sum(p.numel() for p in tuned.model.parameters() if p.requires_grad)
    stream = labs["test"].stream(chosen, seed=1)
    how = TrainingConfig(steps=stream.steps, lr=rate, weight_decay=0, precision="no")
    started = time.process_time()  # lesson 05's loss and loop
    history = train(lab.SamObjective(tuned.model), stream, how, progress=False)
    return tuned, learning, time.process_time() - started, history.activation_bytes / 1e6


@cache
def reached(name: str, rate: float, where: str = "test") -> np.ndarray:
    """Points of each scene, by a SAM that is trained once."""
    return points(adapted(name, rate)[0], where)


# %% [markdown]
# ## A rate of its own
#
# The friend in lesson 08 gave both methods the same learning rate. You search a rate for each.
#
# ### Exercise 9.4 · Search a rate
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Try `first`, a third of it, and three times it. As long as the best rate is the lowest or the highest that you have
# tried, try the next rate beyond it. Every try is a training, so try no rate twice.


# %% tags=["exercise"]
def search(score: Callable[[float], float], first: float) -> dict[float, float]:
    """Try rates, each three times the one before, until the best has a worse one on either side.

    Args:
        score: trains at a rate; what that reaches on the scenes held back, more being better.
        first: the rate in the middle of the first three.

    Returns:
        Each rate that was tried -> its score.
    """
    # BEGIN SOLUTION
    scores = {rate: score(rate) for rate in (first / 3, first, 3 * first)}
    while (best := max(scores, key=scores.get)) in (min(scores), max(scores)):
        beyond = best / 3 if best < first else 3 * best
        scores[beyond] = score(beyond)
    return scores
    # END SOLUTION


check("9.4", search)

# %% [markdown]
# <details><summary>Hint 1: the best so far</summary>
#
# `max(scores, key=scores.get)` is the rate with the highest score. `min(scores)` and `max(scores)` are the lowest and
# the highest rate.
#
# </details>
# <details><summary>Hint 2: how often?</summary>
#
# One try beyond the end may not be enough, so use `while`. In each turn find the best rate again. If it is at neither
# end, you are done. If it is below `first`, try a third of it, else three times it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)
#
# Now search for Serial LoRA and for the LoRA of its size. With both at 0.003 Serial LoRA's mean is ahead on the scenes
# held back. Who will be ahead if each has its own rate?

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_rates

ahead = "Serial LoRA"  # your guess: who is ahead on the scenes held back, each at its own rate

found, interval, two = load_found(), yours("8.1"), ["Serial LoRA", "LoRA at a quarter"]
searched = {
    name: yours("9.4")(lambda rate, name=name: reached(name, rate, "held back").mean(), 0.003)
    for name in two
}
rates = {name: max(tries, key=tries.get) for name, tries in searched.items()}
study = found.rates["sam"][[WAYS[name][0] for name in two]].set_axis(two, axis=1)
panels = {
    "yours, on the scenes held back": pd.DataFrame(searched).sort_index(),
    "the study's, on four sets of drawings": study.dropna(how="all"),
}
display_figure(plot_rates(panels, [rates, study.idxmax()]))
pairs = {f"both at {rate:g}": [rate] * 2 for rate in sorted(set(rates.values()))}
leads = {"held back": {}, "test": {}}
for words, pair in (pairs | {"each at its own": rates.values()}).items():
    for where, its in leads.items():
        one, other = (reached(name, rate, where) for name, rate in zip(two, pair, strict=True))
        mean, half = interval((one - other)[:, None])
        its[words] = f"{mean:+.2f} ± {half:.2f}"
print(f"Serial LoRA's lead over LoRA at a quarter:\n{pd.DataFrame(leads)}")
best = max(two, key=lambda name: searched[name][rates[name]])
print(f"ahead on the scenes held back, each at its own: {best}; your guess: {ahead}")

# %% [markdown]
# The circles mark the best rates; the small LoRA's is three times Serial LoRA's. Read the column *held back*. With
# both at 0.003, or both at 0.009, neither is clearly ahead. With each at its own rate the small LoRA is, by 1.31 ±
# 0.94. So whether there is a winner depends on the rates: *a comparison of methods at one learning rate is also a
# comparison of learning rates.*
#
# On the test the small LoRA is ahead as well, by 2.13 ± 1.12. With both at 0.009 the means are equal there, with a
# wide interval. So most of that lead may be Serial LoRA's rate. Yet 0.003 was no odd choice, since the study's search
# on four other sets (right) prefers it too.
#
# The other ways get the rate that the study found for the closest method, and full fine-tuning the best of three.
#
# ## Eight ways

# %%
arms = found.arms["sam"].set_index("arm")
rows = {"not adapted": {"Dice": before["test"].mean(), "drawings": before["drawings"].mean()}}
after = {}
for name, (arm, _) in WAYS.items():
    # the last: the best of 0.0001, 0.0003 and 0.001
    rate = rates.setdefault(name, arms.rate[arm] if arm else 0.0003)
    after[name] = reached(name, rate)
    tuned, learning, seconds, kept = adapted(name, rate)
    rows[name] = {"Dice": after[name].mean(), "parameters": learning, "rate": rate}
    rows[name] |= {
        "seconds": seconds,
        "MB kept": kept,
        "drawings": points(tuned, "drawings").mean(),
    }
results = pd.DataFrame(rows).T.astype(float).sort_values("Dice", ascending=False)
looks = dict.fromkeys(("Dice", "seconds", "MB kept", "drawings"), "{:.1f}")
looks |= {"parameters": "{:,.0f}", "rate": "{:g}"}
bars = results.style.format(looks, na_rep="")
display(bars.bar("Dice", color="#f2b48a", vmin=before["test"].mean()))

# %% [markdown]
# Look at Dice first. Every way gains more than five points, and Serial LoRA gains least. The number of parameters does
# not explain the order, because norms and biases train the fewest and come second. Every way keeps less for the way
# back than full fine-tuning, but they differ little: Serial LoRA keeps 86.5 MB and LoRA 92.4. No way loses a point on
# drawings. So Dice has to decide.
#
# ## Would other scenes say the same?
#
# On one set Serial LoRA may just have been unlucky. So we put the five rivals beside the study's 12 SAM sets, where
# every method has its own rate.

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_rivals

bars = {rival: margins * MARGIN["SAM"] for rival, margins in RIVALS.values()}
own, higher = after["Serial LoRA"], rates["LoRA at a quarter"]
compared = {rival: after[rival] for rival in bars}
compared[f"Serial LoRA at {higher:g}"] = reached("Serial LoRA", higher)
beside = {
    f"yours, over {len(own)} scenes": {
        name: interval((points_of - own)[:, None]) for name, points_of in compared.items()
    },
    "the study's SAM, over 12 sets": {rival: found.above("sam", rival) for rival in bars},
}
display_figure(plot_rivals(beside, bars))

# %% [markdown]
# In both panels all five rivals lie to the right of Serial LoRA, and the same four promises fall. But your intervals
# are at least three times as wide, and they leave out what another rate or another seed would do. The hollow row shows
# the rate: at 0.009 Serial LoRA's own mean is 2.2 points further right, beyond three of the rivals. So one set and one
# training each can show that a promise is in doubt, but not by how much. For that we go by the study, which has many.
#
# ## At which step does it fall behind?
#
# LoRA and Serial LoRA differ in several ways, so a lead names no cause. The ladder goes from LoRA (here at q, k and v)
# to Serial LoRA one change of form at a time, each at its own rate and at equal size, so the rank rises; Q and E are
# your stand-ins of exercise 9.3. Below stands what each step changed on the study's SAM sets, in points of Dice, in
# colour where the interval leaves out zero.

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_ladder, plot_suspects

costly = 2  # your guess: which of the four steps costs Dice
display_figure(plot_ladder(found))
print(f"your guess: step {costly}")

# %% [markdown]
# Read the ladder from the left. Sharing A changes nothing that one can see. Sharing B behind random rotations does not
# either, although q, k and v are then tied as tightly as in Serial LoRA. Nor do W's directions, as long as all of them
# are stretched alike. Only the last step is clear: with W's stretch along W's directions, 0.54 ± 0.29 points are gone.
#
# ## Is it the stretch alone?
#
# Your stand-in T answers. It has W's stretch too, but along random directions. The left panel shows how W stretches.
# The right one compares pairs that the study trained behind your stand-ins, on its 12 sets: what the stretch costs
# along W's own directions and along random ones.

# %%
Ws = [b.attn.qkv.weight.detach().unflatten(0, (3, -1)) for b in base.model.image_encoder.blocks]
values = torch.linalg.svdvals(torch.cat(Ws))  # (matrices, d), each row falling
stretch = values / values.square().mean(1, keepdim=True).sqrt()
print(
    f"W: the longest direction {stretch[:, 0].median():.1f} times as long as on average, "
    f"{(stretch < 0.5).float().mean():.0%} of all less than half as long"
)
arms_of = {"Q": "random", "T": "uneven", "E": "even", "W": "lora"}  # in the study
its = {name: found.sets["sam"][f"serial_{arm}-12"] for name, arm in arms_of.items()}
display_figure(plot_suspects(stretch, its, interval))
Q, T, E, W = its.values()
mean, half = interval(((W - E) - (T - Q)).to_numpy()[:, None])
print(
    f"along its own directions W's stretch changes {mean:+.2f} ± {half:.2f} more than along random ones"
)

# %% [markdown]
# W stretches very unevenly: one direction 5.8 times as much as on average, and 72% of all directions less than half as
# much. Along W's own directions this costs half a point. Along random ones the mean cost is 0.20, and there may be
# none. So stretch and directions together cost something; whether the same stretch costs less elsewhere is open, with
# -0.34 ± 0.37. (In CLIP's block of [lesson 01](01_low_rank_maths.ipynb) it was the few longest directions that did
# harm: with them clipped, the pair trained better.)
#
# ## The verdict
#
# Your rule of exercise 8.2 decides, with the bars from the beginning. No interval is corrected for how many there are.

# %%
table = {
    "1 superior": {"decided by": "its own tables", "SAM": f"falls: not in {behind} of {of}"},
    "2 novel": {"decided by": "RepAdapter", "SAM": "falls: a special case of it"},
}
comparable = yours("8.2")
for promise, (rival, margins) in RIVALS.items():
    table[promise] = {"decided by": rival}
    for where, margin in MARGIN.items():
        if lead := found.above(where.lower(), rival):
            mean, half = lead
            word = comparable(-mean, half, margins * margin).replace("fails", "falls")
            table[promise][where] = f"{word}: {mean:+.2f} ± {half:.2f}"
table = pd.DataFrame(table).T.fillna("").rename(columns={"SAM": "SAM, or by reading"})
falls = table["SAM, or by reading"].str.startswith("falls")
if doubted is not None:
    bets = ["falls" if int(promise[0]) in doubted else "holds" for promise in table.index]
    table.insert(0, "your bet", bets)
    print(f"right: {(falls == (table['your bet'] == 'falls')).sum()} of your {len(table)} bets")
INKS = {"falls": "color: #a63f00; font-weight: bold", "holds": "color: #00704f; font-weight: bold"}
styled = table.style.map(lambda text: INKS.get(text[:5], ""))
display(styled.set_properties(**{"white-space": "nowrap", "text-align": "left"}))
for where in ("sam", "clip"):
    lead, half = (
        found.arms[where]
        .set_index("arm")
        .loc["repadapter_two-42", ["above LoRA", "above LoRA, half-width"]]
    )
    print(f"RepAdapter in both places, above LoRA on {where.upper()}: {lead:+.2f} ± {half:.2f}")

# %% [markdown]
# Two promises fall without training, and four more on SAM. *Comparable* holds there: LoRA is clearly ahead, by 0.31 ±
# 0.14, but by less than would matter. On CLIP all is open, and four rivals have means *behind* Serial LoRA. On SD3
# LoRA is clearly ahead, by 14.00 ± 8.95; that is open only because the bar is five. At lunch you say:
#
# > Serial LoRA is a special case of RepAdapter's layer of 2023. On a small SAM it stays within a point of Dice of
# > LoRA, with a quarter of the parameters. But a LoRA of that size does as well there, and so do the same pair before
# > the feed-forward, and norms and biases. Each step of sharing costs a third of a point at most; W's uneven stretch
# > along its own directions costs half a point. On CLIP all of this is open. On SD3 LoRA finds the style far more
# > often.
#
# So on a SAM like this one, don't switch. To save parameters, let norms and biases learn, or lower LoRA's rank, and
# search the rate again. If you can pay for LoRA's size, try pairs *before both*, where RepAdapter is ahead of LoRA on
# SAM by 0.95 ± 0.45, about your margin. For drawing in a style keep LoRA. For CLIP we have no advice. These are small
# models, and mostly drawings, so put our numbers on trial, too ([`CLAIMS.md`](../CLAIMS.md)).
#
# ## Quiz
#
# **1. Serial LoRA has fewer parameters than LoRA and nearly the same accuracy. Is sharing the reason?**
#
# <details><summary>Answer</summary>
#
# You can't know from that, because a LoRA of the smaller size may do as well, and on our SAM it does. To find out what
# sharing does, compare layers of equal size, with sharing and without.
#
# </details>
#
# **2. A paper compares five methods "under the same hyper-parameters" and calls that fair. What do you ask?**
#
# <details><summary>Answer</summary>
#
# Ask how the rate was chosen, and for which method. One rate for all favours the method that it suits: here 0.003 was
# the best rate of one method, and the other method wanted three times as much. Each method needs a rate of its own,
# chosen on pictures that are not the test's.
#
# </details>
#
# ## What to remember
#
# - Write down what would refute a claim before you run anything.
# - Ask for a rival of the same size, for the simplest thing that could work, and for a rate of each method's own.
# - Change one thing at a time, at equal size.
#
# Next: look into the matrices themselves in [lesson 10](10_inside_an_adapter.ipynb), or put several
# adapters on one model in [lesson 11](11_many_adapters.ipynb).
