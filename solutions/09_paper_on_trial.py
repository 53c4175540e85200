# %% [markdown]
# # 09 · The paper on trial
#
# Your group adapts all its models with LoRA. A paper promises the same with a quarter of the parameters, and the group
# asks you: **should we switch to Serial LoRA?**
#
# First you read what would refute each of its promises, and bet. Then you train the rivals that it leaves out. At last you
# take the way from LoRA to Serial LoRA apart, and train the step that costs.

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

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l09_trial.figures import plot_layers, plot_rivals
from serial_lora_course.plots.style import display_figure

lesson_card("09")
sizes = {
    "LoRA": "a pair for each of q, k and v (and one at out)",
    "Serial LoRA": "one pair in front",
}
display_figure(plot_layers(sizes))

# %% [markdown]
# ## Seven promises
#
# On trial is [*Serial Low-rank Adaptation of Vision Transformer*](https://arxiv.org/abs/2503.17750), by Houqiang Zhong,
# Shaocheng Shen and others, of 2025. <!-- from the paper: 2025 -->
#
# | | The paper says (where) | What would refute it | Your rival |
# |---|---|---|---|
# | 1 | "consistent superiority" (abstract) | its own tables do not always show it ahead of LoRA | none |
# | 2 | "a novel LoRA variant" (abstract) | an earlier method has it as a special case | none |
# | 3 | "comparable", with "only 1/4 parameters of LoRA" (abstract) | LoRA is clearly more than a margin ahead | LoRA |
# | 4 | sharing "captures parameter commonalities" (III.B) | a LoRA of the same size does as well | LoRA at a quarter |
# | 5 | the pair belongs before attention (not tested) | in another place it does as well | before feed-forward |
# | 6 | it takes an adapter (not tested) | without an adapter you do as well | norms and biases |
# | 7 | through W one pair "builds multiple LoRAs" (II.D) | through other matrices it does as well | Q, random rotations |
#
# One rule for all. A rival's *lead* is its score minus Serial LoRA's, with the interval of
# [lesson 08](08_how_sure.ipynb). The promise **falls** if the whole interval lies right of a *bar*, **holds** if it lies
# left of it, and else is **open**. For promise 3 the bar stands a margin *ahead* of Serial LoRA: LoRA has to be clearly
# better. For 4 to 7 it stands a margin *behind*: the rival need only not be clearly worse. The margin is what would matter
# to your group: on SAM a point of Dice. The picture shows six invented leads. Bet before anything runs.

# %%
from serial_lora_course.lessons.l09_trial.tables import load_found

doubted = [1, 2, 4]  # your guess: the numbers of the promises that fall

MARGIN = {"SAM": 1, "CLIP": 1, "SD3": 5}  # points of Dice, accuracy, style share
AHEAD, AS_WELL = 1, -1  # where a rival's bar stands, in margins
RIVALS = {
    "3 comparable": ("LoRA", AHEAD),
    "4 because shared": ("LoRA at a quarter", AS_WELL),
    "5 before attention": ("before feed-forward", AS_WELL),
    "6 takes an adapter": ("norms and biases", AS_WELL),
    "7 through W": ("through Q", AS_WELL),
}
leads = {"3 falls": (1.9, 0.6), "3 is open": (0.9, 0.6), "3 holds": (0.2, 0.5)}
leads |= {"4 to 7 fall": (0.2, 0.5), "4 to 7 are open": (-1.0, 0.5), "4 to 7 hold": (-1.9, 0.5)}
bars = {name: AHEAD if name.startswith("3") else AS_WELL for name in leads}
display_figure(plot_rivals({"six invented leads": leads}, bars))

found = load_found()  # the study, our comparison on many sets: docs/study.md
for lab, arm in {"SAM": "lora-16", "CLIP": "lora-16", "SD3": "lora-12"}.items():
    gain = found.arms[lab.lower()].set_index("arm").gain[arm]
    print(f"{lab}: LoRA gains {gain:.1f} points in the study; the margin is {MARGIN[lab]}")

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
# The first promise takes counting. (The paper calls a lower Dice better, so its table probably shows a *loss*,
# and we read it as one.) Serial LoRA is not ahead in 13 of 51 cells, and by FID in more than half.
#
# The second promise takes reading. Two years before, Luo and others published
# [*RepAdapter*](https://arxiv.org/abs/2302.08106). Its layer stands in the same place, and another one before the
# feed-forward layer. It has two biases, and B comes in *groups*: the first writes to the first channels only, the second
# to the next, and so on.


# %%
class RepAdapter(nn.Module):
    """x + B (A x + a) + b, with B in groups (without the scale that the authors have before B)."""

    def __init__(self, width: int, hidden: int, groups: int, bias: bool):
        super().__init__()
        self.down = nn.Linear(width, hidden, bias=bias)  # A and a
        self.up = nn.Parameter(torch.randn(groups, width // groups, hidden // groups))  # B
        self.bias = nn.Parameter(torch.randn(width) * bias)  # b

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(x).unflatten(-1, (len(self.up), -1))  # (..., groups, h / groups)
        change = torch.einsum("...gh,gdh->...gd", hidden, self.up).flatten(-2)  # (..., d)
        return x + change + self.bias


display_figure(plot_layers({"Serial LoRA": "2025", "RepAdapter": "2023: B in groups, and biases"}))
d, r, Pair = 192, 8, yours("3.1")
torch.manual_seed(0)
x = torch.randn(50, d)  # (N, d)
for groups, bias in ((1, False), (2, True)):
    earlier, pair = RepAdapter(d, r, groups, bias), Pair(d, r)
    with torch.no_grad():
        pair.lora_A.copy_(earlier.down.weight)
        pair.lora_B.copy_(torch.block_diag(*earlier.up))
        apart = (earlier(x) - pair(x)).abs().max().item()
    print(f"groups {groups}, biases {bias!s:5}: {apart:.0e} apart")

# %% [markdown]
# **"Superior" and "novel" fall.** With one group and no biases RepAdapter *is* Serial LoRA: the same A and B give the same
# outputs. (With biases it can do more.) The other five promises need runs.
#
# ## The rivals
#
# You write two of them. The first is no adapter at all, and close to *BitFit*, which trains biases alone.
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
# ## The scenes
#
# We use lesson 05's photographs over other photographs, for a SAM that learnt from drawings alone. A third of the
# training scenes is held back to choose rates on. Scenes of drawings show what a method forgets.

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
print(
    f"{len(chosen)} of {len(photographs.train)} training scenes, {steps} steps of {SETTINGS.batch_size}"
)
print("Dice of SAM, not adapted:")
before = {name: points(base, name) for name in scenes}
for name, reached in before.items():
    print(f"{name:10} {len(reached)} scenes: {reached.mean():.1f}")

# %% [markdown]
# The next cell has seven ways to adapt SAM's image encoder, each but the last with the study's closest method.
# *Before both* has a pair in front of attention and another in front of the feed-forward layer, as RepAdapter does. It
# is as large as LoRA.

# %%
from serial_lora import LoRAConfig, SerialLoRAConfig, inject, merge
from serial_lora.layers import SerialLoRA  # your pair of lesson 03, with a smaller A at the start
from serial_lora_course.labs.training import TrainingConfig, train

RANK, BOTH = 16, ("attention", "feed_forward")

WAYS = {  # the closest method in the study, and what is done to a frozen encoder
    "Serial LoRA": ("serial_lora-16", lambda e: inject(e, SerialLoRAConfig(rank=RANK))),
    "LoRA at a quarter": ("lora-4", lambda e: inject(e, LoRAConfig(rank=RANK // 4))),
    "LoRA": ("lora-16", lambda e: inject(e, LoRAConfig(rank=RANK))),
    "before feed-forward": (
        "serial_ffn-12",  # in the study at rank 12, beside Serial LoRA at rank 12
        lambda e: yours("9.2")(e.blocks, SerialLoRA, RANK),
    ),
    "norms and biases": ("ln_bias-1", lambda e: yours("9.1")(e.blocks)),
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


def rounded(rate: float) -> float:
    """Three times 0.003 is not quite 0.009 in a computer."""
    return float(f"{rate:.2g}")


@cache
def reached(name: str, rate: float, where: str = "test") -> np.ndarray:
    """Points of each scene, by a SAM that is trained once."""
    return points(adapted(name, rounded(rate))[0], where)


# %% [markdown]
# ## A rate of its own
#
# The friend in lesson 08 gave both methods the same learning rate. You search a rate for each.
#
# ### Exercise 9.3 · Search a rate
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


check("9.3", search)

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
# Now search for Serial LoRA and for the LoRA of its size, each from the rate that the study found on drawings. The friend
# gave both methods the first of these rates, and saw Serial LoRA ahead. **Who is ahead on the scenes held back if each has
# its own rate?**

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_rates

ahead = "Serial LoRA"  # your guess: who is ahead on the scenes held back, each at its own rate

interval, two = yours("8.1"), ["Serial LoRA", "LoRA at a quarter"]
arms = found.arms["sam"].set_index("arm")
searched = {}
for name in two:
    tries = yours("9.3")(
        lambda rate, name=name: reached(name, rate, "held back").mean(), arms.rate[WAYS[name][0]]
    )
    searched[name] = {rounded(rate): dice for rate, dice in tries.items()}
rates = {name: max(tries, key=tries.get) for name, tries in searched.items()}
study = found.rates["sam"][[WAYS[name][0] for name in two]].set_axis(two, axis=1)
panels = {
    "yours, on the scenes held back": pd.DataFrame(searched).sort_index(),
    "the study's, on four sets of drawings": study.dropna(how="all"),
}
display_figure(plot_rates(panels, [rates, dict(study.idxmax())]))
races = {f"both at {rate:g}": [rate] * 2 for rate in sorted(set(rates.values()))}
for race, pair in (races | {"each at its own": rates.values()}).items():
    one, other = (reached(name, rate, "held back") for name, rate in zip(two, pair, strict=True))
    mean, half = interval((one - other)[:, None])
    print(f"{race}: Serial LoRA's lead is {mean:+.2f} ± {half:.2f}")
print(f"your guess for the last: {ahead}")

# %% [markdown]
# So this may be what happened to the friend. At 0.003, Serial LoRA's best rate, Serial LoRA looks ahead in your panel; in
# the study the two are level. At 0.009, the best rate of the small LoRA, the small LoRA looks ahead. Whoever picks one rate
# for both picks who looks better: *a comparison of methods at one learning rate is also a comparison of learning rates.*
# In your panel neither of these leads is clear. The fair race, each at its own rate (circled), goes to the small LoRA by
# 1.31 ± 0.94. (That is on the scenes that chose the rates, with one training each.)
#
# For the other five we do not search, to save time: four take the study's rate, and full fine-tuning takes 0.0003, the
# best of three on the scenes held back (tried beforehand).
#
# ## Seven ways

# %%
rows = {"not adapted": {"Dice": before["test"].mean(), "drawings": before["drawings"].mean()}}
after = {}
for name, (arm, _) in WAYS.items():
    rate = rates.setdefault(name, arms.rate[arm] if arm else 0.0003)
    after[name] = reached(name, rate)
    tuned, learning, seconds, kept = adapted(name, rate)
    rows[name] = {"Dice": after[name].mean(), "parameters": learning, "rate": rate}
    rows[name] |= {"processor s": seconds, "MB kept": kept}
    rows[name] |= {"drawings": points(tuned, "drawings").mean()}
results = pd.DataFrame(rows).T.astype(float).sort_values("Dice", ascending=False)
looks = dict.fromkeys(("Dice", "processor s", "MB kept", "drawings"), "{:.1f}")
looks |= {"parameters": "{:,.0f}", "rate": "{:g}"}
bars = results.style.format(looks, na_rep="")
display(bars.bar("Dice", color="#f2b48a", vmin=before["test"].mean()))

# %% [markdown]
# Look at Dice first. Every way gains more than five points, and at these rates Serial LoRA gains least. The number of
# parameters does not explain the order: norms and biases train the fewest and come second. The other columns decide
# nothing here: no way loses two points on drawings, and seconds and memory are close, except for full fine-tuning.
#
# ## Would other scenes say the same?
#
# On one set Serial LoRA may just have been unlucky. So we put the four rivals beside the study's 12 SAM sets, where
# every method has its own rate.

# %%
bars = {rival: way * MARGIN["SAM"] for rival, way in RIVALS.values() if rival in WAYS}
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
# In both panels all four rivals lie to the right of Serial LoRA, and promises 4, 5 and 6 fall; *comparable* is open in
# yours and holds in the study. But your intervals are much wider, and they leave out other rates and seeds. The hollow row
# is Serial LoRA itself, at 0.009 instead of 0.003. Its rate alone moves it as far as most rivals lie, though its interval
# still contains zero. **So one set and one training show that a way works, but not which of two good ways is better.** For
# that we go by the study.
#
# ## Is it the sharing?
#
# A lead names no cause. LoRA also adapts the layer out; leave that aside. Two differences remain: in Serial LoRA q, k and v
# *share* a pair, and its change B A x then goes *through W*. To tell these apart, put another matrix M_p in W_p's place
# behind the pair, for p = q, k, v: W_p x + M_p B A x.
#
# By its singular values, W = U S Vᵀ reads along the directions in V, stretches each by its own number in S, and writes
# along those in U. So a stand-in may lack W's directions, its stretch, or both.
#
# ### Exercise 9.4 · Three stand-ins for W
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


check("9.4", stand_ins)

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
# The ladder goes from LoRA (here at q, k and v) to Serial LoRA; Q and E are your stand-ins. With one B and nothing behind
# it, q, k and v would all get the same change. So that step also puts a random rotation behind B, another one for each.
# All five layers have as many parameters, so the rank rises. Below each step stands what it changed on the study's 12 SAM
# sets, in points of Dice, each layer at its own rate; in colour, if the interval leaves out zero.

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_ladder, plot_stretch

costly = 2  # your guess: which of the four steps costs Dice
display_figure(plot_ladder(found))
print(f"your guess: step {costly}")

# %% [markdown]
# **No, it is not the sharing.** Sharing A changes nothing that one can see, and neither does sharing B behind a random
# rotation: the parameters that sharing saves pay for a higher rank. Nor do W's directions cost, as long as all are
# stretched alike. Only the last step is clear. It is a single subtraction: E and W differ in nothing but the stretch,
# and with W's stretch 0.54 ± 0.29 points are gone.
#
# ## Train behind E yourself
#
# Behind W you have trained already, because that is Serial LoRA. Now train the same pair, from the same start, behind E.
# Six lines make the layer. It takes the place of `qkv`, which makes q, k and v at once.


# %%
class Behind(nn.Module):
    """W_p x + M_p B A x, for q, k and v at once."""

    def __init__(self, qkv: nn.Linear, M: Tensor):
        super().__init__()
        self.qkv, self.pair = qkv, SerialLoRA(qkv.in_features, RANK)
        self.register_buffer("M", M.flatten(0, 1))  # (3 d, d), frozen

    def forward(self, x: Tensor) -> Tensor:
        return self.qkv(x) + (self.pair(x) - x) @ self.M.mT  # the pair gives x + B A x


def of_qkv(encoder: nn.Module) -> list[Tensor]:
    """W_q, W_k and W_v of each block, (3, d, d)."""
    return [block.attn.qkv.weight.detach().unflatten(0, (3, -1)) for block in encoder.blocks]


def behind_E(encoder: nn.Module) -> None:
    Es = [yours("9.4")(W)[0] for W in of_qkv(encoder)]
    torch.manual_seed(1)  # the A's with which Serial LoRA started
    for block, E in zip(encoder.blocks, Es, strict=True):
        block.attn.qkv = Behind(block.attn.qkv, E)


WAYS["behind E"] = ("serial_even-12", behind_E)
rates["behind E"] = arms.rate["serial_even-12"]
mine = reached("behind E", rates["behind E"])
for rate in sorted({rates["Serial LoRA"], rates["behind E"]}):
    lead, half = interval((mine - reached("Serial LoRA", rate))[:, None])
    print(f"E at {rates['behind E']:g} less W at {rate:g}, yours: {lead:+.2f} ± {half:.2f}")
like = found.described["sam", "serial_lora-12", "serial_even-12"]
print(f"E less W, the study, each at its own rate: {-like.mean:+.2f} ± {like.half_width:.2f}")

# %% [markdown]
# At its own rate, as in the study, your pair behind E is ahead of Serial LoRA by 1.40 ± 1.00. But if Serial LoRA has E's
# rate, nothing can be seen: -0.77 ± 2.13. So one training can't show half a point: **that E does better we know from the
# study's 12 sets alone.** What your own training can show is where the change goes.
#
# ## What the stretch does
#
# First, how much of each trained change goes to the 16 directions that W stretches most. Then the picture: left, how much
# W stretches each direction; right, the study's four pairs of rank 12. T is new there: it stretches as W does, but along
# random directions. Follow each line from the even stretch to W's.

# %%
Ws = of_qkv(base.model.image_encoder)
squares = torch.linalg.svdvals(torch.cat(Ws)).square()  # (matrices, d), each row falling
stretch = (squares / squares.mean(1, keepdim=True)).sqrt()
share = (squares[:, :16].sum(1) / squares.sum(1)).median()
print(f"W: of a change that is equal in all {d} directions, 16 get {share:.0%} (E: {16 / d:.0%})")
for name in ("LoRA", "behind E", "Serial LoRA"):  # yours, at their own rates
    encoder = copy.deepcopy(adapted(name, rates[name])[0].model.image_encoder)
    if name != "behind E":
        encoder = merge(encoder)
    shares = []
    for block, W in zip(encoder.blocks, Ws, strict=True):
        with torch.no_grad():  # what the layer makes of each channel alone
            made = block.attn.qkv(torch.eye(d)) - block.attn.qkv(torch.zeros(1, d))
        change = made.T.unflatten(0, (3, -1)) - W  # (3, d, d)
        most = torch.linalg.svd(W).U[..., :16].mT @ change  # along the 16 that W stretches most
        shares.append(most.square().sum((1, 2)) / change.square().sum((1, 2)))
    print(f"{name}: of its trained change, the same 16 get {torch.cat(shares).median():.0%}")

names = {"W": "lora", "E": "even", "Q": "random", "T": "uneven"}  # in the study
W, E, Q, T = (found.sets["sam"][f"serial_{arm}-12"].to_numpy()[:, None] for arm in names.values())
above = {name: interval(reached - W) for name, reached in zip("EQT", (E, Q, T), strict=True)}
costs = [interval(W - E), interval(T - Q)]
display_figure(plot_stretch(stretch, above, costs))
mean, half = interval((W - E) - (T - Q))
print(f"W's directions less random ones: {mean:+.2f} ± {half:.2f}")

# %% [markdown]
# W is very uneven: of a change that is equal in all 192 directions, 82% goes to 16. **And so it is in what you trained: of
# Serial LoRA's change these 16 get 99%, of LoRA's 44%, and behind E 40%.** (All lean to them: chance would give 8%.)
#
# That says where the change goes. What it costs, the two lines say: along W's own directions the stretch costs 0.54 ± 0.29,
# along random ones 0.20 ± 0.22, which may be nothing. Whether these two costs differ is open: -0.34 ± 0.37. So we can say
# that W's stretch along W's directions costs half a point. That any such stretch would, we can't say, nor do we know why.
# ([Lesson 01](01_low_rank_maths.ipynb) saw the same in a block of CLIP: with an even stretch the shared pair trained
# further.)
#
# ## The verdict
#
# Your rule of exercise 8.2 decides, with the bars from the beginning.

# %%
from serial_lora_course.lessons.l09_trial.tables import verdicts

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
display(verdicts(table))

# %% [markdown]
# Two promises fall without training, and four more on SAM. *Comparable* holds there: LoRA is clearly ahead, by 0.31 ±
# 0.14, but by less than would matter. So your answer to the group is:
#
# > **1.** Serial LoRA is a special case of RepAdapter's layer of 2023, and not always ahead of LoRA even in the paper.
# >
# > **2.** On a small SAM it stays within a point of LoRA with a quarter of the parameters, but a LoRA of that size does
# > as well, and so do the same pair before the feed-forward, and norms and biases alone.
# >
# > **3.** Sharing the pair costs nothing that we can see. The way through W does: it puts nearly all of the change into
# > the few directions that W stretches most. To stretch all alike brings half a point back.
# >
# > **4.** One learning rate for all can turn the order round, so each method had its own. All this is on SAM: on CLIP
# > everything is open, and on SD3 LoRA finds the style far more often.
#
# **Should you switch? On a SAM like this one, no.** To save parameters, let norms and biases learn, or lower LoRA's
# rank, and search the rate again. If you can pay for LoRA's size, try *before both*: it is the first in your table.
# (That is one training on one set.) These are small models, and mostly drawings, so put our numbers on trial, too
# ([`CLAIMS.md`](../CLAIMS.md)).
#
# ## Quiz
#
# **1. Serial LoRA has fewer parameters than LoRA and nearly the same accuracy. Is sharing the reason?**
#
# <details><summary>Answer</summary>
#
# You can't know, because a LoRA of the smaller size may do as well, and on our SAM it does. Compare layers of equal size,
# with sharing and without: ours showed no cost of sharing, and no gain.
#
# </details>
#
# **2. A paper compares five methods "under the same hyper-parameters" and calls that fair. What do you ask?**
#
# <details><summary>Answer</summary>
#
# Ask how the rate was chosen, and for which method. One rate for all favours the method that it suits: here 0.003 was
# the best of one method, and the other wanted three times as much.
#
# </details>
#
# **3. How would you change Serial LoRA on SAM, with no parameter more?**
#
# <details><summary>Answer</summary>
#
# Send its change through E, W without its stretch: W_p x + E_p B A x. It can still be merged, into W_p + E_p B A. On our
# 12 sets this brings the half point back, for three frozen matrices more in training. On other models we have not tried
# it.
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
