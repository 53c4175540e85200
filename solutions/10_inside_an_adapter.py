# %% [markdown]
# # 10 · Inside an adapter
#
# *This lesson is optional: no other one needs it.*
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter itself is lost.
# What was its rank? Was it LoRA or Serial LoRA? Can you get it back? And with which seed was it trained?
#
# The weights answer all four. We learn to read them on six files that we make ourselves: the rank of a change, the
# recovery of a pair, the overlap of two subspaces. At the end you get three files about which nobody tells you
# anything, and say how each was made.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn
from torch.linalg import svdvals

from serial_lora import LoRAConfig, SerialLoRAConfig, adapters, eject, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.lessons.l10_inside.colleague import merged_by_a_colleague
from serial_lora_course.lessons.l10_inside.figures import plot_cliffs, plot_overlaps, plot_spectra
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.style import display_figure

lesson_card("10")

# %% [markdown]
# ## Six merged models
#
# We make such files ourselves: LoRA and Serial LoRA, with three seeds each. Your loop from lesson 04 trains them, on
# four drawings of each class, and only in the image tower. Both methods get one learning rate, above those of lesson
# 04, so that the changes are large.

# %%
clip, drawings = load_clip("tiny"), load_classification("symbols")
prompts = clip.tokenizer(drawings.prompts(drawings.template))
tests = torch.stack([clip.test_transform(picture) for picture, _ in drawings.test])
truth = torch.tensor(drawings.test.labels)  # (N,)
with torch.no_grad():
    classes = encode_prompts(clip.model, prompts)  # (C, D), rows of length one


@torch.no_grad()
def scores(model: nn.Module) -> Tensor:
    """Cosines of test pictures and class prompts: (N, C). The largest is the model's answer."""
    return model.encode_image(tests, normalize=True) @ classes.T


def right(model: nn.Module) -> int:
    """How many test pictures a model names right."""
    return int((scores(model).argmax(-1) == truth).sum())


# %%
train, loss_of = yours("4.4"), yours("4.3")
RANK, SHOTS, STEPS, SEEDS = 16, 4, 16, (1, 2, 3)  # change this and run again, and all below


def adapt(config: LoRAConfig | SerialLoRAConfig, seed: int, steps: int = STEPS) -> nn.Module:
    """The CLIP, adapted to a few drawings and merged: a plain CLIP again."""
    torch.manual_seed(seed)
    model = inject(copy.deepcopy(clip.model), config)
    chosen = [drawings.train[i] for i in few_shot_split(drawings, SHOTS, seed).indices]
    shots = [(clip.test_transform(picture), torch.tensor(label)) for picture, label in chosen]
    learns = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": learns, "lr": 8e-3, "weight_decay": 0.01}]
    train(model, groups, shots, prompts, loss_of, steps, len(shots))
    return eject(model, keep_merged=True)  # merges, and throws the pairs away


# %%
merged = {}
print(f"not adapted: {right(clip.model)} of {len(truth)} right")
for label, config in (("LoRA", LoRAConfig), ("Serial LoRA", SerialLoRAConfig)):
    for seed in SEEDS:
        merged[f"{label}, seed {seed}"] = model = adapt(config(RANK, towers=["image"]), seed)
        print(f"{label}, seed {seed}: {right(model)} of {len(truth)} right")

# %% [markdown]
# Each of the six names more drawings right. And each is a CLIP like any other: same modules, same shapes, no
# adapter to be seen. Now pretend that you don't know how they were made.
#
# ## What is in the difference?
#
# Subtract the weights before training from those after it. The result is the change, dW. So there are three matrices
# to look at, W, W + dW and dW, and each has its own singular values. Before you run the cell: will W + dW look
# different from W, in a model that is right so much more often?


# %%
def weights(model: nn.Module) -> list[Tensor]:
    """W_q, W_k and W_v of every block of the image tower, each (d, d), in float64."""
    blocks = model.visual.transformer.resblocks
    return [W.double() for block in blocks for W in block.attn.in_proj_weight.detach().chunk(3)]


before = weights(clip.model)
changes = {
    name: [after - W for W, after in zip(before, weights(model), strict=True)]
    for name, model in merged.items()
}
W, dW = before[6], changes["Serial LoRA, seed 1"][6]  # q of block 2; change this and run again
d = len(W)
spectra = {"W": svdvals(W), "W + dW": svdvals(W + dW), "dW": svdvals(dW)}
display_figure(plot_spectra(spectra))
print("largest:", ", ".join(f"{name} {values[0]:.1f}" for name, values in spectra.items()))
values = spectra["dW"]
print(f"{len(values)} values: number {RANK} {values[RANK - 1]:.0e}, the next {values[RANK]:.0e}")

# %% [markdown]
# No. W and W + dW are nearly one line. That is not because dW is small: its largest value is 1.3, that of W 2.2. But
# a change of rank 16 lifts at most sixteen values above all of W's, and an axis of twelve powers of ten hides the rest.
# So ask of any plot of singular values: of which matrix?
#
# dW tells us more. After value 16 its singular values drop by six powers of ten: a cliff. But not to zero: the merged
# weights were rounded to float32, and the rounding is a small random matrix of full rank. Strictly, dW has rank 192.
# What we want is the rank above the rounding.

# %% [markdown]
# ### Exercise 10.1 · The rank of a change
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Return how many singular values of `after - before` stand in front of the cliff. Divide each value by the next one:
# the cliff is the largest of these falls. Search the first half only; at the right end of the figure the values fall
# too. Subtract in float64. The check rounds to float32, float16 and bfloat16.


# %% tags=["exercise"]
def rank_of_change(before: Tensor, after: Tensor) -> int:
    """The rank of after - before: the number of singular values in front of their largest fall.

    Args:
        before, after: (m, n), of any one format.
    """
    # BEGIN SOLUTION
    values = torch.linalg.svdvals(after.double() - before.double())  # (min(m, n),)
    falls = values[:-1] / values[1:]
    return 1 + int(falls[: len(values) // 2].argmax())
    # END SOLUTION


check("10.1", rank_of_change)

# %% [markdown]
# <details><summary>Hint 1: each value by the next</summary>
#
# `values[:-1]` are all but the last, `values[1:]` all but the first. Their quotient has one entry less than `values`.
#
# </details>
# <details><summary>Hint 2: from a position to a count</summary>
#
# `argmax` counts from 0: if the largest fall has position 0, one value stands in front of it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Ask it of each matrix alone, and of q, k and v of a block stacked on top of each other, as in `in_proj_weight`. What
# rank do you expect of the stack for LoRA, and what for Serial LoRA?


# %%
def stacked(each: list[Tensor]) -> list[Tensor]:
    """q, k and v of every block on top of each other: (3d, d) each."""
    return [torch.cat(each[i : i + 3]) for i in range(0, len(each), 3)]


def ranks(one: list[Tensor], other: list[Tensor]) -> set[int]:
    return {rank_of(W, W + dW) for W, dW in zip(one, other, strict=True)}


rank_of = yours("10.1")
for name, each in changes.items():
    together = ranks(stacked(before), stacked(each))
    print(f"{name}: rank {ranks(before, each)} in all {len(each)} matrices, {together} in stacks")

# %% [markdown]
# Sixteen in every matrix: the first question is answered. And so is the second. Serial LoRA's changes are $W_q B A$,
# $W_k B A$ and $W_v B A$. All three have the same A on the right, so all rows of the stack lie in one space of sixteen
# dimensions. LoRA has three A's, and the stack has rank 48.
#
# (A LoRA with one A for all three has rank 16 in the stack too; the recovery tells it apart.)
#
# ## The lost adapter
#
# Now get it back. Stack q, k and v, and write dW as a sum of rank-one terms $\sigma_i u_i v_i^\top$, as in lesson 01.
# How much of term i a token gets is its scalar product with $v_i$: dW *reads* in the directions $v_i$. What it adds
# has the directions $u_i$: there it *writes*.
#
# Of Serial LoRA you know dW = W B A. So A is any basis of the space that dW reads: its strongest $v_i$, as many as
# there are values in front of the cliff. Multiply both sides by Aᵀ. The $v_i$ are orthonormal, so A Aᵀ is the
# identity, and what is left is W B = dW Aᵀ. Three weights, one B: least squares.

# %% [markdown]
# ### Exercise 10.2 · The recovery
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Return the pair. The check compares B A with what was merged. In one of its cases none of the three weights has an
# inverse.


# %% tags=["exercise"]
def recover_pair(before: Tensor, after: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The pair of one block, from its weights: after = before (I + B A).

    Args:
        before, after: W_q, W_k and W_v stacked, (3d, d), float64.
        rank: of the pair.

    Returns:
        A (r, d), with orthonormal rows, and B (d, r).
    """
    # BEGIN SOLUTION
    dW = after - before  # (3d, d)
    A = torch.linalg.svd(dW, full_matrices=False).Vh[:rank]  # (r, d): where dW reads
    return A, torch.linalg.lstsq(before, dW @ A.mT).solution
    # END SOLUTION


check("10.2", recover_pair)

# %% [markdown]
# <details><summary>Hint 1: where dW reads</summary>
#
# `torch.linalg.svd(dW, full_matrices=False).Vh` has the $v_i$ as rows, the strongest first.
#
# </details>
# <details><summary>Hint 2: least squares</summary>
#
# `torch.linalg.lstsq(M, N).solution` is the X for which M X is nearest to N.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Put what you recover back in front of W. How much of a change is left over? What do you expect of LoRA?

# %%
recover = yours("10.2")
for name, each in changes.items():
    left = []
    for W, dW in zip(stacked(before), stacked(each), strict=True):
        A, B = recover(W, W + dW, RANK)
        left.append((W @ B @ A - dW).norm() / dW.norm())
    print(f"{name}: {min(left):.2g} to {max(left):.2g} of a block's change is left over")

# %% [markdown]
# Of Serial LoRA's changes nothing is left but rounding: the adapter is back. The matrices are not the ones that were
# lost, only their product is: multiply A by any invertible matrix and B by its inverse, and nothing changes. Of LoRA's
# changes 0.7 is left: no pair of rank 16 can make a stack of rank 48.
#
# Many files are in half precision, where rounding is larger. So round both files, let your function find the rank,
# recover, and put the pairs into a fresh float32 CLIP. How many directions does it need? The cell keeps 1, then 2, and
# so on, and beyond the rank.

# %%
name, KEPT = "Serial LoRA, seed 1", (1, 2, 4, 8, 12, 14, 15, 16, 17, 20, 24)
fresh = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK, towers=["image"])).eval()
wanted = scores(merged[name])


def scores_with(pairs: list[tuple[Tensor, Tensor]], keep: int) -> Tensor:
    """Scores of a fresh CLIP with these pairs, of which only the strongest directions are kept."""
    for pair, (A, B) in zip(adapters(fresh).values(), pairs, strict=True):
        pair.lora_A.data, pair.lora_B.data = A[:keep].float(), B[:, :keep].float()
    return scores(fresh)


def off_by(found: Tensor) -> float:
    return (found - wanted).abs().max().item()


# %%
spectra, off = {"no adapter": svdvals(torch.randn(3 * d, d) / 20)}, {}
for kind in ("float32", "float16", "bfloat16"):
    dtype = getattr(torch, kind)
    file = copy.deepcopy(merged[name]).to(dtype)
    ones = [W.to(dtype).double() for W in stacked(before)]
    others = stacked(weights(file))
    blocks = list(zip(ones, others, strict=True))
    pairs = [recover(one, other, max(KEPT)) for one, other in blocks]
    found = {keep: scores_with(pairs, keep) for keep in KEPT}
    spectra[kind] = svdvals(others[0] - ones[0])
    off[kind] = {keep: off_by(each) for keep, each in found.items()}
    print(f"{kind}: rank {set(rank_of(*block) for block in blocks)} in all blocks")
    print(f"  the file itself: cosines off by up to {off_by(scores(file.float())):.0e}")
    for keep in (16, 15, 8, 4):
        alike = (found[keep].argmax(-1) == wanted.argmax(-1)).sum()
        print(
            f"  recovered, rank {keep:2}: {off[kind][keep]:.0e}, {alike} of {len(wanted)} answers alike"
        )
display_figure(plot_cliffs(spectra, off, rank_of(*blocks[0])))

# %% [markdown]
# On the left, every format has its cliff behind value 16, six powers of ten high in float32 and one in bfloat16. The
# grey line, a random change without any adapter, has none. (A full fine-tune need not have one, and your
# function would return some number all the same. So look at the fall too.)
#
# On the right, what is missing falls off the same cliff. With fifteen directions its cosines are off by up to 1e-03;
# with the sixteenth they are the merged model's up to rounding, and a seventeenth adds nothing. Out of bfloat16 they
# are off by 2e-04, less than the bfloat16 file is itself, whose other weights are rounded too. To *use* the adapter,
# fewer directions do: eight keep 72 answers, four only 67.
#
# ## A higher curve has not learned more
#
# Your colleague also has a plot. It shows dW of v in block 1 for three adapters of rank 16: LoRA, Serial LoRA, and a
# third one. Which model names most drawings right? Guess from the curves alone, before you read the legend.

# %%
torch.manual_seed(0)
untrained = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK, towers=["image"]))
for pair in adapters(untrained).values():
    nn.init.normal_(pair.lora_B, std=0.3)  # random, as A is: no training
models = {
    "LoRA": merged["LoRA, seed 1"],
    "Serial LoRA": merged["Serial LoRA, seed 1"],
    "random pair": eject(untrained, keep_merged=True),
}
curves = {}
for label, model in models.items():
    dW = weights(model)[5] - before[5]
    curves[f"{label}: {right(model)} of {len(truth)} right"] = svdvals(dW)[:RANK]
display_figure(plot_spectra(curves))

# %% [markdown]
# The highest curve learned nothing; we chose its size. Its B is random too, and its model names 35 drawings right, one
# less than without an adapter. The height of a curve is the *size* of a change, and that is no measure of what was
# learnt.
#
# ## What do two adapters have in common?
#
# Directions tell more than sizes. Do two adapters read and write in the same ones? Take a direction of the one space,
# a vector of length one, and ask what share of its squared length lies in the other. On average over all directions
# that is the **overlap**: 1 if the one space lies in the other, 0 if they are at right angles.

# %% [markdown]
# ### Exercise 10.3 · Overlap
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# If the columns of Q₁ and of Q₂ are orthonormal, column j of Q₂ᵀ Q₁ holds the part of Q₁'s direction j that lies in
# the other space. The columns that you are given are neither of length one nor at right angles to each other.


# %% tags=["exercise"]
def overlap(one: Tensor, other: Tensor) -> float:
    """How much of the first column space lies in the second, on average over its directions.

    Args:
        one: (n, p), of rank p.
        other: (n, q), of rank q.
    """
    # BEGIN SOLUTION
    basis, basis_of_other = torch.linalg.qr(one).Q, torch.linalg.qr(other).Q  # (n, p), (n, q)
    shares = (basis_of_other.T @ basis).square().sum(0)  # (p,), one for each direction
    return shares.mean().item()
    # END SOLUTION


check("10.3", overlap)

# %% [markdown]
# <details><summary>Hint 1: orthonormal columns</summary>
#
# `torch.linalg.qr(matrix).Q` has the same column space as the matrix, and orthonormal columns.
#
# </details>
# <details><summary>Hint 2: from parts to shares</summary>
#
# The squared length of column j is the sum of its squares: `.square().sum(0)`. Then the mean over columns.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Compare with *chance*: a random space of 16 dimensions in 192 has, on average, an overlap of 16 / 192 with any other.
# It has to be the right chance: Serial LoRA writes W B, and W has strong and weak directions, so two *random* B's
# already have something in common behind W. And compare with what is easily forgotten: how much does a method have in
# common *with itself*, when only the seed differs, and with it the drawings?


# %%
overlap_of = yours("10.3")


def directions(each: list[Tensor]) -> dict[str, list[Tensor]]:
    """Where changes read and where they write: (d, r) each."""
    parts = [torch.linalg.svd(dW) for dW in each]
    return {"reads": [Vh[:RANK].T for *_, Vh in parts], "writes": [U[:, :RANK] for U, *_ in parts]}


def random_change() -> list[Tensor]:
    """W B A with random pairs, one for each block."""
    pairs = [torch.randn(d, RANK) @ torch.randn(RANK, d) for _ in before[::3]]
    return [W @ pairs[i // 3].double() for i, W in enumerate(before)]


def overlaps(rows: list[list[Tensor]], columns: list[list[Tensor]]) -> Tensor:
    """Overlaps of each row's spaces with each column's, on average over matrices."""
    means = [[sum(map(overlap_of, one, other)) / len(one) for other in columns] for one in rows]
    return torch.tensor(means)  # (rows, columns)


torch.manual_seed(0)
shown = changes | {"random pair 1": random_change(), "random pair 2": random_change()}
spaces = [directions(each) for each in shown.values()]
tables = {}
for side in ("reads", "writes"):
    of_side = [each[side] for each in spaces]
    tables[f"where two adapters {side[:-1]}"] = overlaps(of_side, of_side)
display_figure(plot_overlaps(tables, list(shown), list(shown), chance=RANK / d))

# %% [markdown]
# On the right, two runs of Serial LoRA write much alike, at 0.49 to 0.51. Part of that is W, not learning: random
# pairs behind W already overlap by 0.23. LoRA and Serial LoRA share 0.20 to 0.22; LoRA and a random pair behind W
# already share 0.15 to 0.16. "They learn much the same", one might say. But two runs of LoRA share more, 0.26 to 0.28.
# So the two methods do write in somewhat different directions. A second seed shows that, and so does the random pair,
# with which Serial LoRA shares more than with LoRA: 0.29 to 0.30.
#
# On the left there is hardly anything: two runs of one method read little more alike than chance. Why?
#
# ## Which seed?
#
# Every A begins as random numbers, other ones with every seed. Perhaps training leaves it near to them. That can be
# tested: draw them again, and compare them with the A's that you recovered. And if they are alike, what does a merged
# file tell?


# %%
def fresh_A(seed: int, rank: int) -> list[Tensor]:
    """A of each block before training: (r, d) each."""
    torch.manual_seed(seed)
    model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(rank, towers=["image"]))
    return [pair.lora_A.detach().double() for pair in adapters(model).values()]


def read_by(each: list[Tensor]) -> list[Tensor]:
    """The directions that the changes of Serial LoRA read, block by block: (d, r) each."""
    blocks = zip(stacked(before), stacked(each), strict=True)
    return [recover(W, W + dW, RANK)[0].T for W, dW in blocks]


longer = adapt(SerialLoRAConfig(RANK, towers=["image"]), seed=1, steps=4 * STEPS)
moved = [after - W for W, after in zip(before, weights(longer), strict=True)]
files = {name: read_by(each) for name, each in changes.items() if name.startswith("Serial")}
files[f"seed 1, {4 * STEPS} steps"] = read_by(moved)
tried = {f"seed {seed}": [A.T for A in fresh_A(seed, RANK)] for seed in range(10)}
table = overlaps([*files.values()], [*tried.values()])
title = "a recovered A, and a fresh one"
display_figure(plot_overlaps({title: table}, list(files), list(tried), chance=RANK / d))

# %% [markdown]
# Its seed. With the A's of its own seed the overlap is 0.83 to 0.85, and with those of any other seed it is chance. So
# this is why two runs read in different places: each stays near the place where it began. Four times as many steps
# lead farther away, to 0.67, and the seed is as plain as before. (With one seed both methods draw the same first A,
# for q of block 0, and see the same drawings; that may be why the left panel has 0.15 and 0.16 there.)
#
# ## Your colleague's files

# %% [markdown]
# ### Exercise 10.4 · How was it made?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# Put it together: from the weights of one block say the method, the rank of a pair and the seed, one of 0 to 9. In the
# first block the A of q begins with the same numbers in both methods; `fresh(seed, rank)` draws it again. So look for
# the seed where the change of q reads. The check merges pairs of both methods into small blocks, in float16.

# %% tags=["exercise"]
rank_of, overlap_of = yours("10.1"), yours("10.3")


def how_it_was_made(before: Tensor, after: Tensor, fresh: Callable) -> tuple[str, int, int]:
    """Method, rank and seed of an adapter that was merged.

    Args:
        before, after: W_q, W_k and W_v of the first block, stacked, (3d, d), of any one format.
        fresh: seed, rank -> A of q before training, (r, d).

    Returns:
        "LoRA" or "Serial LoRA", the rank of one pair, and the seed.
    """
    # BEGIN SOLUTION
    d = before.shape[1]
    rank = rank_of(before[:d], after[:d])  # of q alone
    method = "Serial LoRA" if rank_of(before, after) == rank else "LoRA"
    change = after[:d].double() - before[:d].double()
    reads = torch.linalg.svd(change).Vh[:rank].T  # (d, r)
    overlaps = [overlap_of(reads, fresh(seed, rank).T) for seed in range(10)]
    return method, rank, overlaps.index(max(overlaps))
    # END SOLUTION


check("10.4", how_it_was_made)

# %% [markdown]
# <details><summary>Hint 1: method and rank</summary>
#
# The rank of a pair is that of `after[:d] - before[:d]`, of q alone. If the stack has the same rank, one A served all
# three.
#
# </details>
# <details><summary>Hint 2: the seed</summary>
#
# `torch.linalg.svd(change).Vh[:rank]` are the directions that q's change reads, as rows. `overlap_of` compares columns.
# Take the seed whose `fresh(seed, rank)` has the largest overlap with them.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Here are three files in float16. Method, rank and seed were drawn by chance, and are shown only beside your answer.

# %%
say, told = yours("10.4"), {}
base_file = torch.cat(weights(copy.deepcopy(clip.model).half())[:3])  # the first block, stacked
for number in (5, 6, 7):  # change this: any numbers, each is another file
    model, made = merged_by_a_colleague(adapt, number)
    file = torch.cat(weights(model)[:3])
    answer = say(base_file, file, lambda seed, rank: fresh_A(seed, rank)[0])
    A, B = recover(base_file, file, answer[1])
    left = (base_file @ B @ A - (file - base_file)).norm() / (file - base_file).norm()
    told[f"file {number}"] = ["{}, rank {}, seed {}".format(*each) for each in (answer, made)]
    told[f"file {number}"].append(f"{left:.1g}")
pd.DataFrame(told, index=["you say", "it was", "left over by one pair"]).T

# %% [markdown]
# All three are found, and in the two of Serial LoRA the pair of this block is back but for the rounding of float16.
# Whoever has the base, and draws random numbers as the library does, can do the same: merging does not hide how a
# model was tuned.
#
# ## Quiz
#
# **1. Somebody shows you two curves of singular values, X above Y, and says that X learned more. What do you
# ask?**
#
# <details><summary>Answer</summary>
#
# Of which matrix, W + dW or dW? How large are the changes, and at which learning rate, since a factor moves a whole
# curve? How many seeds? And how accurate is each model?
#
# </details>
#
# **2. You recovered a pair, and its A is not the A that was trained. Is something wrong?**
#
# <details><summary>Answer</summary>
#
# No. The merge holds only B A. For any invertible M, the pair M A and B M⁻¹ has the same product, so A cannot be told
# from M A. What can be told is the space that A reads, and the recovered rows are an orthonormal basis of it.
#
# </details>
#
# ## What to remember
#
# - The rank of a change is where its singular values fall most. Serial LoRA's q, k and v, stacked, have that of one.
# - With the base at hand a merged Serial LoRA is not lost: its A is where dW reads, its B solves W B = dW Aᵀ.
# - Of W, W + dW and dW, a claim about singular values has to say which. The height of a curve is size, not learning.
# - Compare overlaps with the right chance, *and* with a second seed of the same method.
# - After 16 steps, and after 64, A is still near its random start: a merged file tells its seed.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
