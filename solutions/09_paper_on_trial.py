# %% [markdown]
# # 09 · The paper on trial
#
# Your group wants to replace LoRA in all its models. The paper promises "comparable performance" with "only 1/4
# parameters", and "consistent superiority". Somebody has to say yes or no, and it's you.
#
# So hold a trial: write down what would refute each promise, and try it, on photographs, which the small SAM has never
# seen, with the rivals that the paper leaves out.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.plots.style import display_figure

lesson_card("09")

# %% [markdown]
# | The paper says or implies | What would refute it |
# |---|---|
# | a novel LoRA variant | an earlier method with the same layer |
# | a quarter of the parameters, *because* they are shared | a LoRA as small does as well |
# | the pair belongs in front of attention | elsewhere it does better |
# | it takes an adapter | something simpler does as well |
# | writing through the pretrained W helps | a random rotation in W's place does as well |
# | consistent superiority | its own tables |
#
# *As well* is lesson 08's rule: the whole interval lies above minus the margin (one point of Dice or accuracy, five of
# style share). Which of the six do you expect to fall? Write it down.
#
# ## Is it new?
#
# Three layers read the tokens x and make q, k and v; p stands for any one of these. (LoRA's fourth pair, on the output,
# is left out.)


# %%
def lora(x: Tensor, W: dict, A: dict, B: dict) -> dict:
    """A pair of its own beside each of W_q, W_k, W_v."""
    return {p: x @ W[p].T + x @ A[p].T @ B[p].T for p in W}


def one_a(x: Tensor, W: dict, A: Tensor, B: dict) -> dict:
    """One A for the three."""
    return {p: x @ W[p].T + x @ A.T @ B[p].T for p in W}


def serial(x: Tensor, W: dict, A: Tensor, B: Tensor) -> dict:
    """One pair, in front."""
    x = x + x @ A.T @ B.T
    return {p: x @ W[p].T for p in W}


# %%
torch.manual_seed(0)
d, r = 192, 8
x = torch.randn(50, d)  # (N, d)
W = {p: torch.randn(d, d) / d**0.5 for p in "qkv"}
A, B = torch.randn(r, d) / d**0.5, torch.randn(d, r) / r**0.5
three_B = {p: torch.randn(d, r) / r**0.5 for p in W}


def apart(one: dict, other: dict) -> str:
    """The largest difference between two layers' outputs."""
    return f"{max((one[p] - other[p]).abs().max().item() for p in W):.0e}"


# each step gives something up:
shared = lora(x, W, dict.fromkeys(W, A), three_B)
print("one A  is LoRA with A_q = A_k = A_v:", apart(one_a(x, W, A, three_B), shared))
through_W = one_a(x, W, A, {p: W[p] @ B for p in W})
print("serial is one A with B_p = W_p B:   ", apart(serial(x, W, A, B), through_W))

# %% [markdown]
# With one A, q, k and v read the same directions of a token. Serial LoRA has only one B, too, and what it writes has to
# pass through W_q, W_k and W_v.
#
# Two years before the paper on trial, Luo and others published *RepAdapter*. This is its layer.


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


# %% [markdown]
# One stands in front of attention, as Serial LoRA does, a second one in front of the feed-forward layer. It has two
# biases, and *groups*: the hidden values are cut into equal parts, and each makes its own part of the outputs. Is that
# still a pair A and B?

# %% [markdown]
# ### Exercise 9.1 · RepAdapter's layer as a pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 10 |
#
# Without biases the change is linear, so it is a product B A. Return the two matrices, with the scale in one of them.


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
# Group 0 reads the first h / groups hidden values and makes the first d / groups outputs. Draw B with d rows and h
# columns, and mark where it is not zero.
#
# </details>
# <details><summary>Hint 2: blocks along the diagonal</summary>
#
# A is `down` itself. `torch.block_diag` puts matrices along the diagonal of a larger one.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# Now run RepAdapter's layer, and `serial` with the pair that you make of it.

# %%
to_pair = yours("9.1")
with torch.no_grad():
    for groups, bias in ((1, False), (2, False), (2, True)):
        earlier = RepAdapter(d, r, groups, scale=0.3, bias=bias)
        new_x = earlier(x)
        before = {p: new_x @ W[p].T for p in W}
        A, B = to_pair(earlier.down.weight, earlier.up, earlier.scale)
        zeros = (B == 0).float().mean().item()
        found = apart(before, serial(x, W, A, B))
        print(f"groups {groups}, biases {bias!s:5}: {found} apart; B is {zeros:.0%} zeros")

# %% [markdown]
# With one group and no biases **the two are the same layer**, up to rounding. Two groups only make half of B zero. A
# bias cannot be written as a pair: a pair turns a zero token into zero. The paper does not cite RepAdapter.
#
# ## The rivals
#
# You write two rivals that the paper leaves out. The first is no adapter at all. (It is close to *BitFit*, which trains
# biases alone.)

# %% [markdown]
# ### Exercise 9.2 · Norms and biases
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●○ | 5 |
#
# Each block has LayerNorms and biases anyway. Let these learn, and nothing else: not the matrices of attention and
# feed-forward, nor SAM's tables of relative positions. Before the call anything may be frozen or not.


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


check("9.2", norms_and_biases)

# %% [markdown]
# <details><summary>Hint 1: what they have in common</summary>
#
# Print names and shapes: `for name, p in blocks.named_parameters(): print(name, tuple(p.shape))`. A norm's weight and
# every bias have one number for each channel. What do the shapes of all others look like?
#
# </details>
# <details><summary>Hint 2: both ways</summary>
#
# `parameter.requires_grad_(True)` lets one learn, `requires_grad_(False)` freezes it. Every parameter needs one of
# the two.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# ### Exercise 9.3 · The same pair, elsewhere
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# A block has two halves, `x + attn(norm1(x))` and `x + mlp(norm2(x))`. Put the pair that you know in front of the
# feed-forward layer: `mlp` reads adapted tokens, and the residual stream x goes past unchanged.


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


check("9.3", before_feed_forward)

# %% [markdown]
# <details><summary>Hint 1: the width</summary>
#
# The pair reads what `norm2` gives, and a LayerNorm has a weight for each channel: `len(block.norm2.weight)`.
#
# </details>
# <details><summary>Hint 2: two layers in a row</summary>
#
# A block calls `self.mlp(...)`, whatever that is. Make it the pair and then the old `mlp`: `nn.Sequential` runs one after
# the other. (Assign modules to the block, not functions: then it knows their parameters.)
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# ## The trial
#
# Lesson 05's scenes: photographs of animals, fruit, tools and vehicles over other photographs. SAM gets a box around
# each and has to find its mask. It was pretrained on drawings alone, and no thing or background of the test is in a
# training scene.

# %%
from serial_lora_course.labs import sam as lab
from serial_lora_course.models.sam import load_sam
from serial_lora_course.plots.masks import plot_masks

photographs = lab.load_segmentation("photographs")
base = load_sam("tiny")
scores = {name: 100 * each for name, each in lab.picture_scores(base, photographs).items()}
before = scores["dice"]
print(f"{len(photographs.train)} scenes to train on, {len(photographs.test)} to test on")
print(f"SAM {before.mean():.1f}, the box filled {scores['box_dice'].mean():.1f}")

worst, middle = before.argsort()[[0, len(before) // 2]]
shown = {"its worst": photographs.test[worst], "its median": photographs.test[middle]}


def dice(sam, data) -> np.ndarray:
    """Of each test scene, in points: hundredths."""
    return 100 * lab.picture_scores(sam, data)["dice"]


def masks(sam) -> list:
    """Of the scenes shown, as SAM answers to their boxes."""
    return [lab.predict_masks(sam, each.picture, each.boxes)[0] for each in shown.values()]


# %% [markdown]
# On photographs SAM is hardly better than the filled box. You try six ways, each at the best of three rates. A rate is
# chosen on *training* scenes: two thirds to train on, the others to choose by. Below is the search for one way; what it
# gave for the others stands in comments.

# %%
from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora_course.labs.training import TrainingConfig, train

SETTINGS = replace(lab.TINY, epochs=2, min_steps=60)  # lesson 05's, for two rounds
RANK = SETTINGS.rank
WAYS = {  # what a way does to a frozen image encoder; its rate, and Dice at a third of it, at it, at three times it
    "norms and biases": (
        lambda encoder: yours("9.2")(encoder.blocks),
        2.7e-2,  # 82.38, 82.83, 80.29
    ),
    "Serial LoRA before attention": (
        lambda encoder: inject(encoder, SerialLoRAConfig(rank=RANK)),
        3e-3,  # below
    ),
    "Serial LoRA before feed-forward": (
        lambda encoder: yours("9.3")(encoder.blocks, yours("3.1"), RANK),
        1e-3,  # 80.24, 82.85, 82.61
    ),
    "LoRA": (
        lambda encoder: inject(encoder, LoRAConfig(rank=RANK)),
        3e-3,  # 82.93, 83.99, 82.45
    ),
    "LoRA, a quarter of the rank": (
        lambda encoder: inject(encoder, LoRAConfig(rank=RANK // 4)),
        9e-3,  # 83.37, 83.43, 80.57
    ),
    "full fine-tuning": (
        lambda encoder: encoder.requires_grad_(True),
        3e-4,  # 83.32, 83.85, 83.19
    ),
}


def adapt(put, rate: float, data):
    """A SAM of which only what `put` lets learn has changed; how many parameters, and how it went."""
    tuned = base.around(copy.deepcopy(base.model).requires_grad_(False))
    torch.manual_seed(1)
    put(tuned.model.image_encoder)
    learning = sum(p.numel() for p in tuned.model.parameters() if p.requires_grad)
    task = lab.SamLab(tuned, data, SETTINGS)  # lesson 05's loss and loop
    stream = task.stream(range(len(data.train)), seed=1)
    how = TrainingConfig(steps=stream.steps, lr=rate, weight_decay=0, precision="no")
    return tuned, learning, train(task.objective(), stream, how, progress=False)


# %%
order = torch.randperm(len(photographs.train), generator=torch.Generator().manual_seed(0)).tolist()
some, others = photographs.train.some(order[:80]), photographs.train.some(order[80:])
halves = replace(photographs, train=some, test=others)
put, chosen = WAYS["Serial LoRA before attention"]
for rate in (chosen / 3, chosen, chosen * 3):
    print(f"rate {rate:.3f}: {dice(adapt(put, rate, halves)[0], halves).mean():.1f}")

# %% [markdown]
# So 0.003 it is. (The test will give lower scores: here the scenes to choose by show things and backgrounds of the
# scenes to train on.)
#
# Now every way on all training scenes, and then the test. It takes some minutes. Meanwhile write down which way you
# expect first, and which last.

# %%
rows, after, cut_out = {}, {}, {"not adapted": masks(base)}
for name, (put, rate) in WAYS.items():
    tuned, learning, history = adapt(put, rate, photographs)
    after[name] = dice(tuned, photographs)
    cut_out[name] = masks(tuned)
    print(f"{name}: {after[name].mean():.1f} after {history.seconds:.0f} seconds")
    rows[name] = {
        "Dice": after[name].mean(),
        "parameters": learning,
        "rate": rate,
        "seconds": history.seconds,
        "MB for backward": history.activation_bytes / 1e6,
    }
table = pd.DataFrame(rows).T
looks = dict.fromkeys(("Dice", "seconds", "MB for backward"), "{:.1f}")
looks |= {"parameters": "{:,.0f}", "rate": "{:.4f}"}
print(f"60 steps of {SETTINGS.batch_size} scenes, rank {RANK}; not adapted {before.mean():.1f}")
display(table.style.format(looks))

few = ("not adapted", "norms and biases", "Serial LoRA before attention", "full fine-tuning")
display_figure(plot_masks(shown, {name: cut_out[name] for name in few}))

# %% [markdown]
# Every way gains eight to ten points, norms and biases with a tenth of LoRA's parameters. SAM missed much of the sheep; now it is nearly whole. The sky round the hammer is still marked.
#
# ## How much can one set show?
#
# Take the difference from LoRA scene by scene. Its interval says how far *other scenes like these* could move it (too narrow, as all lie on five photographs), and
# nothing about other seeds or sets. For that there is [*the study*](../docs/study.md), planned before its first run: a
# dozen other sets on SAM and on CLIP, four on SD3; one to three seeds (one for norms and biases); each method at a rate
# chosen on validation pictures. Does your table agree?

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_trial
from serial_lora_course.lessons.l09_trial.tables import load_found
from serial_lora_course.measures.intervals import these_sets

found = load_found()
arms = found.arms["sam"].set_index("arm")
SAME = {  # the study's arms for the ways that it ran too
    "norms and biases": "ln_bias-1",
    "Serial LoRA before attention": "serial_lora-16",
    "Serial LoRA before feed-forward": "serial_ffn-12",  # of rank 12, yours of 16
    "LoRA, a quarter of the rank": "lora-4",
}
mine = {
    name: these_sets({"photographs": (after[name] - after["LoRA"])[None]})
    for name in WAYS
    if name != "LoRA"
}
theirs = {
    name: (arms["above LoRA"][arm], arms["above LoRA, half-width"][arm])
    for name, arm in SAME.items()
}
display_figure(plot_trial(mine, theirs))

# %% [markdown]
# Every black square lies inside your interval: yours are too wide to disagree. And you could not have found what the study
# found: its differences are a few tenths of a point, and your intervals reach 0.7 to 2 points to each side. One of yours
# leaves zero out, the small LoRA's. Of five comparisons on one set that may be luck: the study has 0.22 ± 0.28.
#
# *As well* asks for less. Serial LoRA passes in the study and is open in your run. The small LoRA passes, in your run and in the study. Norms and biases pass in the study; in
# your run they are open.
#
# A difference is *clear* if zero lies outside its interval even after Holm's correction over all the study's questions.
# A minus says that what is named first is behind.

# %%
print(f"{sum(found.runs.values()):,} runs, {len(found.answers)} questions; the clear answers:")
for answer in found.answers:
    if answer.p < 0.05:
        print(f"{answer.lab.upper()}, {answer.asks}: {answer.like}")

# %% [markdown]
# ## Why it costs
#
# The third line: Serial LoRA is 0.5 points of Dice behind one A with three B's beside W. Two things happen in between:
# three B's become one, and what it writes goes through W. The paper presents the second as a strength: q, k and v change
# "based on the basis" of their own W. Which of the two costs?
#
# One more layer tells: the change, and only the change, goes through a *random rotation* Q, as large as W, in W's place,
# and the one B is still shared. Here are five layers, from LoRA to RepAdapter, and what each step is worth at equal size.

# %%
from serial_lora_course.lessons.l09_trial.figures import plot_ladder

display_figure(plot_ladder(found))
MORE = {  # what else the study can subtract
    "W turned, in Q's place": ("serial_rotated-12", "serial_random-12"),
    "W turned, in W's place": ("serial_rotated-12", "serial_lora-12"),
    "three pairs through W, not beside it": ("serial_untied-4", "lora_qkv-4"),
    "one pair through W, not three": ("serial_lora-12", "serial_untied-4"),
}
for step, pair in MORE.items():
    print(f"{step:37}", *(f"{at.upper()} {found.described[at, *pair]}" for at in ("sam", "clip")))

# %% [markdown]
# **On SAM, sharing A and sharing B change nothing that we can see (+0.04 ± 0.17 and −0.05 ± 0.25 points of Dice). Sending
# one pair's change through the pretrained W costs 0.45 ± 0.24.** A trained W nearly closes some directions (lesson 01 printed CLIP's smallest singular values); a rotation closes none.
#
# Or is it *where* W sends a change? Turn W's outputs at random: the closed directions stay. Against W nothing shows, and
# behind Q it is 0.35 ± 0.29 (compared after the runs, without a correction). So where W sends a change does not seem to matter; the closed directions would explain it.
#
# Open are why the pair before the feed-forward, which goes through a pretrained matrix too, does not pay; whether three
# pairs pay for W (± 0.41 is too wide); and the paper's own explanation, that one pair does better than three: through W it does worse, −0.38 ±
# 0.35, before Holm's correction. So neither W alone nor sharing alone was seen to cost: both together do. On CLIP all is open: sharing B −1.32 ± 1.41, W in Q's
# place +0.85 ± 2.53.
#
# ## The answer that did not hold
#
# Your friend of lesson 08 had Serial LoRA ahead of a LoRA as small, with one rate for both. The study's search shows
# what a rate does: Dice on validation scenes, with the same four sets and seed in every cell.

# %%
search = found.rates["sam"][["serial_lora-16", "lora-4"]].dropna(how="all")
search.columns = ["Serial LoRA", "LoRA as small"]
search = search.rename_axis("rate")
display(search.style.format("{:.2f}", na_rep="not tried").format_index("{:.3f}"))

ahead, best = search["Serial LoRA"] - search["LoRA as small"], search.max()
lead = best["Serial LoRA"] - best["LoRA as small"]
print(f"Serial LoRA's lead: both at 0.003 {ahead[0.003]:+.2f}, each at its best {lead:+.2f}")
sizes = {a.lab: a.like for a in found.answers if a.asks.startswith("more than size")}
print(f"on the test scenes of twelve sets, each at its best: {sizes['sam']}")

# %% [markdown]
# At 0.003, Serial LoRA's best rate, it is ahead. The small LoRA wants three times that, and then it is ahead. (Four sets
# and one seed prove neither, and −0.53 is open after Holm's correction.) The paper names one rate for all methods. If you
# keep one sentence of this course, keep this one: *a comparison of methods at one learning rate is also a comparison of
# learning rates.*
#
# ## For it, and against it

# %%
rows = {}
for name, rank, unit in (("sam", 16, "Dice"), ("clip", 16, "accuracy"), ("sd3", 12, "style share")):
    arms = found.arms[name].set_index("arm")
    full, one = arms.loc[f"lora-{rank}"], arms.loc[f"serial_lora-{rank}"]
    rows[f"{name.upper()}, points of {unit}"] = {
        "LoRA's gain": f"{full['gain']:.1f}",
        "above LoRA": f"{one['above LoRA']:+.1f} ± {one['above LoRA, half-width']:.1f}",
        "above a LoRA as small": f"{sizes[name].mean:+.1f} ± {sizes[name].half_width:.1f}",
        "parameters": f"{one['parameters'] / full['parameters']:.0%}",
        "time of a step": f"{one['step time']:.0%}",
        "activations": f"{one['activations, MB'] / full['activations, MB']:.0%}",
        "change of what it knew": one["change of what it knew"],
        "and LoRA's": full["change of what it knew"],
    }
looks = dict.fromkeys(("change of what it knew", "and LoRA's"), "{:+.1f}")
display(pd.DataFrame(rows).T.style.format(looks, na_rep="not measured"))

# %% [markdown]
# *For Serial LoRA of LoRA's rank:* its file is a quarter as large; on SAM a step takes 88% of LoRA's activations and, on
# the study's machine, of its time (yours is in your table); and there it is comparable with LoRA. *Against it:* on CLIP
# and SD3 that is open, and CLIP forgets twice as much of what pretraining taught it. And in all three labs a LoRA as
# small does as well: no interval lets it be behind by the margin.
#
# ## The paper's own tables
#
# The paper prints no spread over seeds, so there is no interval. One can count cells, by a rule with two numbers that
# "comparable in most cases" leaves out: **how far behind is still fine** (the margin), and **how often** (the share).

# %% [markdown]
# ### Exercise 9.4 · A rule for a claim
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# A claim is about many cells of a table. It holds if, in at least a given share of them, the difference is *above*
# minus the margin. With margin 0 the method has to be better in a cell: a tie is not enough.


# %% tags=["exercise"]
def judge(differences: list[float], margin: float, share: float) -> str:
    """The verdict on a claim, "holds" or "fails".

    Args:
        differences: one a cell, above 0 where the method is better than its rival.
        margin: 0 or more; behind by as much as this, or more, is too far.
        share: of the cells that have to be good enough, such as 0.5 for half of them, 1.0 for all.
    """
    # BEGIN SOLUTION
    good = sum(difference > -margin for difference in differences)
    return "holds" if good >= share * len(differences) else "fails"
    # END SOLUTION


check("9.4", judge)

# %% [markdown]
# <details><summary>Hint 1: one cell</summary>
#
# A cell is good enough where its difference is above `-margin`. Count those.
#
# </details>
# <details><summary>Hint 2: the share</summary>
#
# Compare the count with `share * len(differences)`: at least as many.
#
# </details>
#
# Solution: [the solved lesson](../solutions/09_paper_on_trial.ipynb)

# %% [markdown]
# Claims in the paper's words, on its own tables. I chose the rules: "most" is more than half, "almost all" at least four
# fifths, the margins are one point, or 5% of FID. (The paper calls a lower Dice better. Dice measures overlap, so its
# table is plausibly a *loss*, and is read as one.)

# %%
from serial_lora_course.paper_tables import paper_results

of = ["metric", "dataset", "amount"]
scores = paper_results().pivot(index=of, columns="method", values="value")
TABLES = {  # a row a cell, a column a method, and more is better
    "CLIP": scores.loc["accuracy_percent"],
    "SAM": -100 * scores.loc["dice_as_printed"],
    "SD3": -np.log(scores.loc["fid"]),  # a difference of 0.05 is about 5%
}
TABLES["CLIP, 1 shot"] = TABLES["CLIP"].xs("1 shot", level="amount")
TABLES["SAM, 20%"] = TABLES["SAM"].xs("20%", level="amount")

L, S, LP, SP = "lora", "serial_lora", "lora_plus", "serial_lora_plus"
CLAIMS = [  # the paper's words; where; a method and its rivals; our margin, and our share
    ("comparable performance in most cases", "CLIP", S, [L], 1, 0.51),
    ("comparable performance in most cases", "SAM", S, [L], 1, 0.51),
    ("comparable performance in most cases", "SD3", S, [L], 0.05, 0.51),
    ("consistent superiority", "CLIP", S, [L], 0, 1.0),
    ("consistent superiority", "SAM", S, [L], 0, 1.0),
    ("consistent superiority", "SD3", S, [L], 0, 1.0),
    ("improved accuracy across almost all datasets", "CLIP, 1 shot", S, [L], 0, 0.8),
    ("outperforms LoRA+ in accuracy across all datasets", "CLIP", SP, [LP], 0, 1.0),
    ("Serial LoRA+ achieves state-of-the-art", "SAM, 20%", SP, [L, S, LP], 0, 0.51),
]

rule, rows = yours("9.4"), []
for claim, where, one, rivals, margin, share in CLAIMS:
    table = TABLES[where]
    differences = (table[one] - table[rivals].max(axis=1)).tolist()
    cells = f"{sum(each > -margin for each in differences)} of {len(differences)}"
    verdict = rule(differences, margin, share)
    rows.append({"claim": claim, "": where, "good cells": cells, "verdict": verdict})
display(pd.DataFrame(rows).style.hide(axis="index"))

# %% [markdown]
# "Comparable in most cases" holds. "Consistent superiority" falls by the paper's *own* tables, since we take it to mean
# always; so does "state-of-the-art". Counting cannot tell luck from skill: for that, runs have to be repeated.
# [`CLAIMS.md`](../CLAIMS.md) has these claims on our models, with intervals.
#
# **Change this and run again**: set every margin to 0. Which verdict changes?

# %% [markdown]
# ## The verdict
#
# 1. *Novel* falls: RepAdapter.
# 2. *A quarter, because it is shared* falls: a LoRA as small does as well.
# 3. *In front of attention* falls on SAM: before the feed-forward the pair does better.
# 4. *It takes an adapter* falls on SAM, in the study's one seed: norms and biases do as well.
# 5. *Through W* falls on SAM: a random rotation does better.
# 6. *Consistent superiority* falls by the paper's own tables.
#
# Your own run leaves 3 and 4 open, CLIP 3 to 5, and SD3 was asked none of these. At lunch you can tell it like this:
#
# > Serial LoRA puts one low-rank pair in front of attention. With a quarter of LoRA's parameters it stays within a point
# > of Dice of LoRA on SAM; on CLIP and on style that is open. But a LoRA as small does as well, so nobody needs sharing
# > to save parameters. What costs on SAM is one shared change that goes through the pretrained W. And
# > the layer is RepAdapter's, of 2023.
#
# Should your group switch? For fewer parameters, lower LoRA's rank: that changes one number. For better masks, try the pair before the feed-forward, or norms and biases, on pictures of your own: in the study these are 0.61 ± 0.49
# above LoRA, but with one seed and not among its clear answers, and your run cannot tell.
#
# And papers? A table in which the new method wins says little until you have seen the rival at **the same size**, the
# **simplest thing** that could work, and **how far luck reaches**. This paper's tables show none of them. Our own numbers
# come from small models, mostly on drawings. Put them on trial too.

# %% [markdown]
# ## Quiz
#
# **1. Serial LoRA has fewer parameters than LoRA and nearly the same accuracy. Is sharing the reason?**
#
# <details><summary>Answer</summary>
#
# You can't know from that. LoRA at the smaller size may do as well, and here it does. To find out whether sharing
# helps, compare two layers of equal size that differ in nothing but sharing.
#
# </details>
#
# **2. Serial LoRA is behind one A with three B's on SAM. Is it the one B that costs, or W?**
#
# <details><summary>Answer</summary>
#
# Both together, as far as one can see. Through random rotations of W's size the one B is still shared by q, k and v, and
# against three B's that is -0.05 ± 0.25. With W in their place 0.45 ± 0.24 are lost. But three pairs lose nothing visible through W (-0.09 ± 0.41).
#
# </details>
#
# **3. A paper compares five methods "under the same hyper-parameters" and calls that fair. What do you ask?**
#
# <details><summary>Answer</summary>
#
# How the rate was chosen, and for whom. One rate for all favours the method that it suits: in the study's search +0.12
# became -0.40 when each had its own (four sets and one seed: neither is proven, but nothing else had changed). Each
# method needs a rate of its own, chosen on pictures that are not the test's.
#
# </details>

# %% [markdown]
# ## What to remember
#
# - Serial LoRA is RepAdapter's layer with one group and no biases.
# - Change one thing at a time, at equal size.
# - Give each method its own rate, chosen on training pictures.
# - One set and one seed show a gain of nine points, and no difference of a few tenths.
# - A claim needs a margin and a share before you can test it.
#
# Next: look into the matrices themselves in [10 · Inside an adapter](10_inside_an_adapter.ipynb), which you may skip,
# or put several adapters on one model in [11 · Many adapters on one base](11_many_adapters.ipynb).
