# %% [markdown]
# # 10 · Inside an adapter
#
# *This lesson is optional: no other one needs it.*
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter itself is lost.
# What was its rank? Was it LoRA or Serial LoRA? Can you get it back? And with which seed was it trained?
#
# The difference of the two files answers all four questions. You learn to read it on models that you train yourself,
# because there you know the answers. At the end you get files of your colleague and say how each was made.

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
# We train LoRA and Serial LoRA with three seeds each, by your loop from lesson 04, on four drawings of each class and
# only in the image tower. The seventh model has no adapter: its W_q, W_k and W_v are trained themselves. Training takes
# only 16 steps, so the adapters get a higher rate than in lesson 04. One more model has that lesson's rate, so that
# you see what the difference is.

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
merged["no adapter"] = adapt(None, seed=1)
slow = adapt(serial, seed=1, rate=RATE_OF_04)
shown = {"before training": clip.model, **merged, "seed 1, lesson 04's rate": slow}
for name, model in shown.items():
    print(f"{name}: {right(model)} of {len(truth)} right")

# %% [markdown]
# Every adapter helps, and the one with lesson 04's rate helps less. No file shows how it was made: each is a CLIP with
# the same modules and shapes as before, and no adapter can be seen. Now pretend that you don't know.
#
# ## What is in the difference?
#
# Subtract the weights before training from the weights after it. The result is the change, dW. So you have three
# matrices, W, W + dW and dW, and each has its own singular values. Before you run the cell: will those of W + dW look
# different from those of W, when the model is right so much more often?


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
# They do not. The dotted line of W and the line of W + dW nearly coincide, although dW is not small: its largest value
# is 1.3, and that of W is 2.2. A change of rank 16 can lift at most sixteen of the 192 values above the largest of W,
# and the other values hardly show it.
#
# The line of dW tells you more. Behind value 16 it falls by six powers of ten, like a cliff. It does not fall to
# zero, because the merged weights were rounded to float32 and this rounding is a small random matrix. Strictly
# speaking, dW has rank 192. What you want is the rank above the rounding.

# %% [markdown]
# ### Exercise 10.1 · The rank of a change
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Return how many singular values of `after - before` stand in front of the cliff. Divide each value by the next one:
# the cliff is the largest of these quotients. Search only the first half, because the values also fall at the right
# end of the figure. Subtract in float64. The check rounds to float32, float16 and bfloat16.


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
# Shift the vector of singular values by one against itself. A vector of n values has n - 1 quotients.
#
# </details>
# <details><summary>Hint 2: from a position to a count</summary>
#
# Python counts positions from 0. How many values stand in front of the cliff if the largest quotient has position 0?
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Apply your function to each matrix alone, and then to q, k and v of a block stacked on top of each other, as
# `in_proj_weight` holds them. Which rank do you expect of the stack for LoRA, which for Serial LoRA, and which without
# an adapter?


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
# With an adapter, every matrix has rank 16, which answers the first question.
#
# The stacks tell the methods apart. Serial LoRA's changes are $W_q B A$, $W_k B A$ and $W_v B A$. All three have the
# same A on the right, so all rows of the stack lie in one space of sixteen dimensions. LoRA has three A's, so its stack
# has rank 48. But a LoRA that uses one A for q, k and v would have rank 16 in the stack too, so this does not yet
# prove that the adapter was Serial LoRA.
#
# The last line is a warning. Without an adapter there is no cliff, but your function returns a small number all the
# same, because some quotient is always the largest. So a rank needs a second test.
#
# ## The lost adapter
#
# That test is to get the adapter back. For LoRA this is easy: the best matrix of rank 16, from one SVD of each
# change, is the product B A. For Serial LoRA you want a single pair for all three weights.
#
# Stack q, k and v, and write dW as a sum of rank-one terms $\sigma_i u_i v_i^\top$, as in lesson 01. A token gets term
# i in proportion to its scalar product with $v_i$. We say that dW *reads* in the directions $v_i$. Since dW = W B A, the
# directions that it reads span the same space as the rows of A. So take the strongest $v_i$ as A, as many as there are
# values in front of the cliff. Then multiply both sides by Aᵀ: the $v_i$ are orthonormal, so A Aᵀ is the identity, and
# W B = dW Aᵀ remains. W holds three weights and there is one B, so solve for B by least squares.

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
# Of the three factors of an SVD, the last one holds the directions $v_i$. Look up whether they are its rows or its
# columns, and how they are sorted.
#
# </details>
# <details><summary>Hint 2: least squares</summary>
#
# You look for the B with which W B comes nearest to dW Aᵀ. PyTorch's `torch.linalg` has a function for such systems, which
# takes more equations than unknowns.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# The table tries both recoveries on every model. It shows what share of a change is left over, in the worst block: with
# one SVD for each matrix, and with one pair in front of W for all three. Between them stands the best matrix of rank 16
# for the whole stack. What do you expect of LoRA in each column?

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
        print(f"{name}: rank explains {max(by_rank):.0%} of the last column's square, or less")
    table[name] = {column: f"{max(shares):.2g}" for column, shares in left.items()}
pd.DataFrame(table).T

# %% [markdown]
# The first column answers for LoRA: one SVD for each matrix leaves nothing over but rounding. The last column answers
# for Serial LoRA: one pair leaves nothing over but rounding. So both kinds of adapter come back. Only their product
# does, not the matrices that were trained: multiply A by any invertible matrix and B by its inverse, and B A stays.
#
# One pair in front of W leaves 0.7 of LoRA's changes. How much of that is rank? The middle column shows that no matrix
# of rank 16 comes nearer to a LoRA stack than 0.25 to 0.3. Squares of these lengths can be compared, because the part
# outside A's space is at right angles to the part inside. So rank explains less than a fifth of the square. The rest is
# left because a single B has to serve W_q, W_k and W_v. The last row confirms it: that change is the best matrix of rank 16
# for the stack of LoRA seed 1, which makes it a LoRA with one A. Rank is no obstacle here, and yet one pair leaves 0.7.
#
# So the recovery is the second test. It tells Serial LoRA from a LoRA with one A, and it refuses the model without an
# adapter.
#
# ## How exact is the copy?
#
# Many files are stored in half precision, where rounding is larger. So we round both files, let your function find the
# rank, recover the pairs, and put them into a fresh float32 CLIP. The cell keeps one direction of each pair, then two,
# and so on beyond the rank. How many are needed until the model answers as before?

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
    for keep in (16, 15, 8, 4):
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
# On the left, the adapter's change has its cliff behind value 16 in every format. The cliff is six powers of ten high
# in float32 and one in bfloat16. At lesson 04's rate the change is smaller, and the cliff in bfloat16 is lower, but the
# rank is still found. The grey line, training without an adapter, has no cliff.
#
# On the right, the error falls off the same cliff. With fifteen directions the cosines are off by up to 1e-03. With the
# sixteenth they are right up to rounding, and a seventeenth adds nothing. From the bfloat16 file they are off by 2e-04,
# which is less than the 9e-04 of that file itself. If you only want to *use* the adapter, fewer directions do: eight keep
# 72 of 73 answers.
#
# ## Which seed?
#
# One question is left. To answer it you need a measure of how much two adapters have in common, and the directions that
# they read are a good place to look. Take a direction of one space, a vector of length one, and ask what share of its
# squared length lies in the other space. The average over all directions is the **overlap**. It is 1 if the first space
# lies in the second, and 0 if the two are at right angles.

# %% [markdown]
# ### Exercise 10.3 · Overlap
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# If the columns of Q₁ and of Q₂ are orthonormal, column j of Q₂ᵀ Q₁ holds the part of Q₁'s direction j that lies in
# the other space. The columns that you are given are neither of length one nor at right angles to each other, so make
# them orthonormal first.


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
# A QR decomposition replaces the columns of a matrix by orthonormal ones that span the same space.
#
# </details>
# <details><summary>Hint 2: from parts to shares</summary>
#
# The share of one direction is the squared length of its column. How do you get from a column's entries to its squared
# length, and from all columns to one number?
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# An overlap means something only beside chance. A random space of 16 dimensions in 192 has, on average, an overlap of
# 16 / 192 with any other space. So first compare our three Serial LoRA files with each other: do they read in the same
# directions? The second half of the cell asks how training begins, and prints the largest gradient of A and of B in
# the first step.

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
# The three files have hardly more in common than chance, although they learned the same task. So it is not the task
# that decides where an adapter reads.
#
# The gradients suggest what does. A begins as random numbers and B as zeros. The gradient of A contains B as a factor,
# so in the first step it is exactly zero, and only B moves. Perhaps A also stays near its random start later. You can
# test that, because a seed draws the same numbers again: compare each recovered A with the fresh A's of ten seeds. Two
# more files show seed 1 after one step, and after four times as many steps. Which overlap do you expect after one step?


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
# The dark fields show it: every file overlaps with its own seed. After one step the overlap is 1.00, because only B has
# moved. After 16 steps it is 0.83 to 0.85, and after 64 steps it is 0.67. So A does turn away from its start, but slowly;
# why it turns no faster, we did not test. With the nine other seeds the overlap stays at chance. So each file names its seed
# among the ten.
#
# ## Your colleague's files

# %% [markdown]
# ### Exercise 10.4 · How was it made?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●○ | 15 |
#
# Put it together: from the weights of the first block say the method, the rank of a pair and the seed, one of 0 to 9.
# In this block the A of q begins with the same numbers in both methods, and `fresh(seed, rank)` draws them again. So
# look for the seed where the change of q reads.
#
# Some files fit neither method. Name a method only if its recovery leaves less than a tenth of the change over, and say
# "cannot say" otherwise. For Serial LoRA recover the whole block by one pair; for LoRA it is enough to look at q. The
# check merges pairs of both methods, a LoRA with one A for q, k and v, and a change without a cliff, all in float16.

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
# The rank of a pair is that of q's change alone. Compare it with the rank of the stack: which method has one A for all
# three weights? Then test this method by its recovery.
#
# </details>
# <details><summary>Hint 2: the seed</summary>
#
# Compare the directions that q's change reads with the fresh A of each seed. Your overlap compares columns, and A has its
# directions as rows.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Here are your colleague's files, in float16. Chance decided how each was made, whether it has an adapter at all, its
# rank and its seed. The truth is shown only beside your answer.

# %%
say, told = yours("10.4"), {}
base_file = torch.cat(weights(copy.deepcopy(clip.model).half())[:3])  # the first block, stacked
for number in (6, 7, 8, 9):  # change this: any numbers, each is another file
    model, made = merged_by_a_colleague(adapt, number)
    file = torch.cat(weights(model)[:3])
    answer = say(base_file, file, lambda seed, rank: fresh_A(seed, rank)[0])
    told[f"file {number}"] = [
        method if method in ("cannot say", "no adapter") else f"{method}, rank {rank}, seed {seed}"
        for method, rank, seed in (answer, made)
    ]
pd.DataFrame(told, index=["you say", "it was"]).T

# %% [markdown]
# ENDTEXT
#
# These files were kind to you. You had the base, the seed was one of ten and was set just before the adapter was drawn,
# and no file was trained for more than 64 steps. In files of this kind, merging does not hide the method, the rank or
# the seed.
#
# ## Quiz
#
# **1. The stacked changes of q, k and v have rank 16, as each of them has alone. Was it Serial LoRA?**
#
# <details><summary>Answer</summary>
#
# Perhaps. Some A served all three, but a LoRA with one A has that rank too. Recover one pair in front of W. If it leaves
# only rounding over, it was Serial LoRA.
#
# </details>
#
# **2. You recovered a pair, and its A is not the A that was trained. Is something wrong?**
#
# <details><summary>Answer</summary>
#
# No. The merge holds only B A. For any invertible M, the pair M A and B M⁻¹ has the same product, so nobody can tell A
# from M A. But both read the same space, and the recovered rows are an orthonormal basis of it.
#
# </details>
#
# ## What to remember
#
# - Ask of any plot of singular values whether it shows W, W + dW or dW. Only dW shows the adapter.
# - The rank of a change is where its singular values fall most, if they have a cliff. Without an adapter some fall is
#   the largest too, so test the rank by a recovery.
# - If you have the base, a merged adapter is not lost. LoRA comes back by one SVD for each matrix. Serial LoRA's A is where
#   dW reads, and its B solves W B = dW Aᵀ.
# - An overlap means something only beside chance. After 64 steps A was still near its random start, so the file
#   named its seed.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
