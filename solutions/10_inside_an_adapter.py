# %% [markdown]
# # 10 · Inside an adapter
#
# *This lesson is optional: no other one needs it.*
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter itself is lost.
# What was its rank? Was it LoRA or Serial LoRA? Can you get it back? And with which seed was it trained?
#
# The difference of the two files answers all four questions. You learn to read it on models of your own, and then on
# your colleague's.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
from collections.abc import Callable
from itertools import combinations

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
# ## Six adapters, and a model without one
#
# Your loop from lesson 04 trains LoRA and Serial LoRA with three seeds each, on four drawings of each class and only
# in the image tower. A seventh model trains W_q, W_k and W_v themselves. Because the steps are few, the rate is higher than in lesson 04;
# one more model keeps lesson 04's.

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
RANK, SHOTS, STEPS, SEEDS = 16, 4, 16, (1, 2, 3)  # change these: a rank of up to 32
RATE, RATE_OF_04 = 8e-3, 3e-3


def adapt(
    config: LoRAConfig | SerialLoRAConfig | None, seed: int, steps: int = STEPS, rate: float = RATE
) -> nn.Module:
    """The CLIP, adapted to a few drawings and merged: a plain CLIP again. None is training without an adapter."""
    torch.manual_seed(seed)
    model = copy.deepcopy(clip.model)
    if config:
        model = inject(model, config)
    else:
        rate = rate / 8  # all weights, so smaller steps
        for name, p in model.named_parameters():
            p.requires_grad = name.startswith("visual") and "in_proj_weight" in name
    chosen = [drawings.train[i] for i in few_shot_split(drawings, SHOTS, seed).indices]
    shots = [(clip.test_transform(picture), torch.tensor(label)) for picture, label in chosen]
    learns = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": learns, "lr": rate, "weight_decay": 0.01}]
    train(model, groups, shots, prompts, loss_of, steps, len(shots))
    return eject(model, keep_merged=True) if config else model  # merges, and throws the pairs away


# %%
serial, merged = SerialLoRAConfig(RANK, towers=["image"]), {}
for seed in SEEDS:
    merged[f"LoRA, seed {seed}"] = adapt(LoRAConfig(RANK, towers=["image"]), seed)
for seed in SEEDS:
    merged[f"Serial LoRA, seed {seed}"] = adapt(serial, seed)

# %%
merged["no adapter"] = adapt(None, seed=1)
slow = adapt(serial, seed=1, rate=RATE_OF_04)
shown = {"before training": clip.model, **merged, "seed 1, lesson 04's rate": slow}
for name, model in shown.items():
    print(f"{name}: {right(model)} of {len(truth)} right")

# %% [markdown]
# All of them learned, though seed 1 at lesson 04's rate only little, but each file is now a CLIP like any other.
#
# ## What is in the difference?
#
# Subtract the weights before training from those after it, and call the change dW. Before you run the cell: will
# the singular values of W + dW look different from those of W?


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
# The two upper lines hardly differ, although the largest value of dW is more than half of W's. A change of rank 16 can
# lift at most sixteen of the 192 values above the largest of W.
#
# The line of dW tells you more. After value 16 it falls by six powers of ten, and we call this fall the cliff. The
# values behind it are not zero, because merging rounded the weights to float32, and rounding is a small matrix of
# full rank. So the rank is the number of values in front of the cliff.

# %% [markdown]
# ### Exercise 10.1 · The rank of a change
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Return how many singular values of `after - before` stand in front of the cliff, which is where a value divided by the
# next one is largest. Search only the first half, because the values also fall at the right end of the figure. Subtract
# in float64. The check rounds to float32, float16 and bfloat16.


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
# Shift the vector of singular values by one against itself.
#
# </details>
# <details><summary>Hint 2: from a position to a count</summary>
#
# If the largest quotient has position 0, how many values stand in front of the cliff?
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Apply your function to each matrix alone, and then to q, k and v of a block stacked on top of each other. Which rank do
# you expect of the stack for each method?


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
# With an adapter every matrix has rank 16. The stacks tell the methods apart. Serial LoRA's changes are $W_q B A$, $W_k B A$ and $W_v B A$. All three end in the
# same A, so all rows of the stack lie in one space of sixteen dimensions. LoRA has three A's, so its stack has rank 48.
#
# Two doubts remain. A LoRA with one A for q, k and v would also have rank 16 in the stack. And without an adapter your
# function returns some rank too, because one quotient is always the largest.
#
# ## The lost adapter
#
# To settle both, get the adapter back and see whether it explains the whole change. For LoRA one SVD of each dW
# gives B A, and [mergekit](https://github.com/arcee-ai/mergekit) extracts LoRAs in this way. For Serial
# LoRA you want one pair for all three weights.
#
# Stack q, k and v, and write dW as a sum of rank-one terms $\sigma_i u_i v_i^\top$, as in lesson 01. How much of
# term i a token gets is its scalar product with $v_i$, so we say that dW *reads* in the directions $v_i$. Since dW = W B
# A, these directions span the same space as the rows of A. So take the strongest $v_i$ as A. They are orthonormal, so A Aᵀ is the identity, and if you multiply both sides by Aᵀ,
# W B = dW Aᵀ remains. Three weights share this B, so find it by least squares.

# %% [markdown]
# ### Exercise 10.2 · The recovery
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Return the pair. The check compares B A with what was merged. In one case none of the three weights has an inverse.


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
# Of the three factors of an SVD, the last one holds the directions $v_i$, sorted by strength. Are they its rows or
# its columns?
#
# </details>
# <details><summary>Hint 2: least squares</summary>
#
# `torch.linalg` has a function for least squares. It takes the known factor of a product, and what the product should be
# near.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Try both recoveries on every model, and on a LoRA with one A. The table shows what share of the change is left over,
# in the worst matrix or block. The middle column is the best matrix of rank 16 for a whole stack. What do you expect of
# LoRA?

# %%
recover = yours("10.2")


def best_of(change: Tensor, rank: int) -> Tensor:
    """The matrix of this rank that is nearest to a change."""
    U, S, Vh = torch.linalg.svd(change, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vh[:rank]


def left_over(change: Tensor, found: Tensor) -> float:
    return ((change - found).norm() / change.norm()).item()


table = {}
one_A = [best_of(dW, RANK) for dW in stacked(changes["LoRA, seed 1"])]
one_A = [dW for stack in one_A for dW in stack.chunk(3)]  # the stack has rank 16: one A for all
for name, each in {**changes, "LoRA with one A": one_A}.items():
    stacks, left = list(zip(stacked(before), stacked(each), strict=True)), {}
    pairs = [recover(W, W + dW, RANK) for W, dW in stacks]
    left["one SVD a matrix"] = [left_over(dW, best_of(dW, RANK)) for dW in each]
    left["rank 16 a stack"] = [left_over(dW, best_of(dW, RANK)) for _, dW in stacks]
    left["one pair for W"] = [
        left_over(dW, W @ B @ A) for (W, dW), (A, B) in zip(stacks, pairs, strict=True)
    ]
    if name.startswith("LoRA,"):
        by_rank = [(a / b) ** 2 for a, b in zip(*list(left.values())[1:], strict=True)]
        print(f"{name}: rank makes up at most {max(by_rank):.0%} of one pair's squared left-over")
    table[name] = {column: f"{max(shares):.2g}" for column, shares in left.items()}
pd.DataFrame(table).T

# %% [markdown]
# Where a cell shows an exponent, only rounding is left over: one SVD a matrix recovers every adapter, and one pair a
# block recovers only Serial LoRA. One pair leaves 0.7 of LoRA's changes over, and the last row shows that rank is not the
# reason: with one A the stack has rank 16 too, but one B cannot serve W_q, W_k and W_v. So both doubts are settled.
#
# ## How exact is the copy?
#
# In half precision rounding is larger. So we round both files, recover the pairs, and put them into the float32 CLIP. How
# exact is this copy?

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
spectra, off = {"no adapter": svdvals(stacked(changes["no adapter"])[0])}, {}
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
    for keep in (16, 15):
        alike = (found[keep].argmax(-1) == wanted.argmax(-1)).sum()
        print(
            f"  recovered, rank {keep:2}: {off[kind][keep]:.0e}, {alike} of {len(wanted)} answers alike"
        )
others = stacked(weights(copy.deepcopy(slow).to(dtype)))
values = svdvals(others[0] - ones[0])
found = set(rank_of(*block) for block in zip(ones, others, strict=True))
fall = values[RANK - 1] / values[RANK]
print(f"{kind}, lesson 04's rate: rank {found}, value {RANK} is {fall:.0f} times the next")
display_figure(plot_cliffs(spectra, off, rank_of(*blocks[0])))

# %% [markdown]
# On the left, the cliff stands behind value 16 in every format, in bfloat16 even at lesson 04's rate. On the right, the
# cosines are right up to rounding with sixteen directions. The answers need fewer: with fifteen all 73 are alike.
#
# In bfloat16 the copy is nearer to the merged model than the file itself. In the file every weight is rounded, and the
# copy sits in a float32 CLIP.
#
# ## Which seed?
#
# To find the seed, measure how much two spaces have in common. Take a direction of the first space, a vector of length
# one, and ask what share of its squared length lies in the second. The average over all directions is the
# **overlap**: 1 if the first space lies in the second, and 0 if they are at right angles.

# %% [markdown]
# ### Exercise 10.3 · Overlap
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# If the columns of Q₁ and of Q₂ are orthonormal, column j of Q₂ᵀ Q₁ holds the part of Q₁'s direction j that lies in
# the other space. The columns that you are given are not orthonormal.


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
# A QR decomposition replaces columns by orthonormal ones that span the same space.
#
# </details>
# <details><summary>Hint 2: from parts to shares</summary>
#
# The share of a direction is the squared length of its column.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# By chance, a random space of 16 dimensions in 192 has an overlap of 16 / 192 with any other, on average. Do our three Serial LoRA files read in the same directions? The cell also prints the first gradients of A and B.

# %%
overlap_of = yours("10.3")


def read_by(each: list[Tensor]) -> list[Tensor]:
    """The directions that the changes of Serial LoRA read, block by block: (d, r) each."""
    blocks = zip(stacked(before), stacked(each), strict=True)
    return [recover(W, W + dW, RANK)[0].T for W, dW in blocks]


def mean_overlap(one: list[Tensor], other: list[Tensor]) -> float:
    """On average over blocks."""
    return sum(map(overlap_of, one, other)) / len(one)


files = {name: read_by(each) for name, each in changes.items() if name.startswith("Serial")}
for (name, one), (other_name, other) in combinations(files.items(), 2):
    print(f"{name} and {other_name}: overlap {mean_overlap(one, other):.3f}")
print(f"chance: {RANK / d:.3f}\n")

begins = inject(copy.deepcopy(clip.model), serial)
loss_of(begins, tests[:8], truth[:8], prompts).backward()  # any pictures will do
for letter in "AB":
    gradients = [getattr(pair, f"lora_{letter}").grad for pair in adapters(begins).values()]
    print(f"first step, largest gradient of {letter}: {max(g.abs().max() for g in gradients):.1g}")

# %% [markdown]
# The files overlap by 0.12 to 0.13, little more than chance, although they learned the same task. They differ in their
# start and in their drawings.
#
# The gradients give a hint. A begins as random numbers and B as zeros, and the gradient of A contains B as a factor. So in
# the first step it is zero, and only B moves. Perhaps A moves little later, too.
# [Zhu et al.](https://arxiv.org/abs/2402.16842) found LoRA nearly as good with a random A that is never trained.
#
# A seed draws the same numbers again, so compare each file with the fresh A's of ten seeds. Two more files show seed 1
# after one step and after four times as many. What do you expect?


# %%
def fresh_A(seed: int, rank: int) -> list[Tensor]:
    """A of each block before training: (r, d) each."""
    torch.manual_seed(seed)
    model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(rank, towers=["image"]))
    return [pair.lora_A.detach().double() for pair in adapters(model).values()]


for steps in (1, 4 * STEPS):
    after = weights(adapt(serial, seed=1, steps=steps))
    moved = [new - W for W, new in zip(before, after, strict=True)]
    files[f"seed 1, {steps} step{'s' * (steps > 1)}"] = read_by(moved)
tried = {f"seed {seed}": [A.T for A in fresh_A(seed, RANK)] for seed in range(10)}
table = [[mean_overlap(one, other) for other in tried.values()] for one in files.values()]
display_figure(plot_overlaps(table, list(files), list(tried), chance=RANK / d))

# %% [markdown]
# In every row one square is dark: the seed that trained the file. After one step its overlap is 1.00, because only B has
# moved. After 16 steps it is 0.83 to 0.85, and after 64 it is 0.67, so A turns away from its start slowly. We did not
# test why. With other seeds the overlap stays near chance, so these Serial LoRA files name their seed.
#
# ## Your colleague's files

# %% [markdown]
# ### Exercise 10.4 · How was it made?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# From the weights of the first block say the method, the rank of a pair and the seed, one of 0 to 9. Here the A of q
# begins with the same numbers in both methods, and `fresh(seed, rank)` draws them again. The check has four kinds of
# float16 files: Serial LoRA, LoRA, a LoRA with one A, and a change without a cliff. Of the last two, return
# "cannot say".

# %% tags=["exercise"]
rank_of, recover, overlap_of = yours("10.1"), yours("10.2"), yours("10.3")


def how_it_was_made(before: Tensor, after: Tensor, fresh: Callable) -> tuple[str, int, int]:
    """Method, rank and seed of an adapter that was merged.

    Args:
        before, after: W_q, W_k and W_v of the first block, stacked, (3d, d), of any one format.
        fresh: seed, rank -> A of q before training, (r, d).

    Returns:
        "LoRA", "Serial LoRA" or "cannot say"; the rank of one pair; the seed. After "cannot say" the
        two numbers do not count.
    """
    # BEGIN SOLUTION
    before, after, d = before.double(), after.double(), before.shape[1]
    q, rank = (after - before)[:d], rank_of(before[:d], after[:d])
    reads = torch.linalg.svd(q).Vh[:rank]  # (r, d): where the change of q reads
    if rank_of(before, after) == rank:  # one A for all three
        A, B = recover(before, after, rank)
        method, change, found = "Serial LoRA", after - before, before @ B @ A
    else:
        method, change, found = "LoRA", q, q @ reads.T @ reads
    if (change - found).norm() > 0.1 * change.norm():
        method = "cannot say"
    overlaps = [overlap_of(reads.T, fresh(seed, rank).T) for seed in range(10)]
    return method, rank, overlaps.index(max(overlaps))
    # END SOLUTION


check("10.4", how_it_was_made)

# %% [markdown]
# <details><summary>Hint 1: method and rank</summary>
#
# If q and the stack have the same rank, try Serial LoRA: recover one pair. Otherwise try LoRA, for which
# the SVD of q is enough. Say "cannot say" if more than a tenth of the change is left over.
#
# </details>
# <details><summary>Hint 2: the seed</summary>
#
# Compare where q's change reads with the fresh A of each seed. `overlap_of` compares columns.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# These are your colleague's files, in float16. Chance decided the method, the rank and the seed, or that there is no
# adapter.

# %%
say, told = yours("10.4"), {}
base_file = torch.cat(weights(copy.deepcopy(clip.model).half())[:3])  # the first block, stacked
for number in (6, 7, 8):  # change this: any numbers, each is another file
    model, made = merged_by_a_colleague(adapt, number)
    file = torch.cat(weights(model)[:3])
    answer = say(base_file, file, lambda seed, rank: fresh_A(seed, rank)[0])
    told[f"file {number}"] = [
        method if method in ("cannot say", "no adapter") else f"{method}, rank {rank}, seed {seed}"
        for method, rank, seed in (answer, made)
    ]
pd.DataFrame(told, index=["you say", "it was"]).T

# %% [markdown]
# Both adapters are named right, and the file without one gets "cannot say". But three files are few, and they were kind
# to you: you had the base, the seed was one of ten, and no training had more than 64 steps.
#
# ## Quiz
#
# **1. A colleague merges two Serial LoRA adapters one after the other, each of rank 8. What will your function say?**
#
# <details><summary>Answer</summary>
#
# Serial LoRA of rank 16. In (I + B₁ A₁)(I + B₂ A₂) all that is added to I reads what A₁ or A₂ reads, so one pair of
# rank 16 explains it.
#
# </details>
#
# **2. You recovered a pair, and its A is not the A that was trained. Is something wrong?**
#
# <details><summary>Answer</summary>
#
# No. The merge holds only B A, and for any invertible M the pair M A and B M⁻¹ has the same product. Both A's read the
# same space, of which yours is an orthonormal basis.
#
# </details>
#
# ## What to remember
#
# - Ask of a plot of singular values whether it shows W, W + dW or dW.
# - The singular values of a change fall behind its rank. Test the rank by a recovery.
# - With the base at hand a merged adapter is not lost: an SVD returns LoRA, and with least squares Serial LoRA.
# - Read an overlap beside chance. Where Serial LoRA reads depends mostly on A's random start, so the file names its seed.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
