# %% [markdown]
# # 10 · Inside an adapter
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter itself is lost. What
# was its rank? Was it LoRA or Serial LoRA? Can you get it back? And with which seed was it trained?
#
# The two files can answer all four questions. You learn to read them on models of your own, and then on six of your
# colleague's. No other lesson needs this one.

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
from serial_lora_course.lessons.l10_inside.figures import (
    plot_cliffs,
    plot_left_over,
    plot_overlaps,
    plot_spectra,
)
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.style import display_figure

lesson_card("10")

# %% [markdown]
# ## Six adapters, and a model without one
#
# LoRA adds a pair B A of its own to each of W_q, W_k and W_v. Serial LoRA puts one pair in front of all three, so x
# becomes x + B A x, and W becomes W (I + B A). Your loop from lesson 04 trains both with three seeds each, on four
# drawings of each class and only in the image tower. A seventh model trains W_q, W_k and W_v themselves.

# %%
clip, drawings = load_clip("tiny"), load_classification("symbols")
prompts = clip.tokenizer(drawings.prompts(drawings.template))
tests = torch.stack([clip.test_transform(picture) for picture, _ in drawings.test])
truth = torch.tensor(drawings.test.labels)  # (N,)
with torch.no_grad():
    classes = encode_prompts(clip.model, prompts)  # (C, D), rows of length one


@torch.no_grad()
def right(model: nn.Module) -> int:
    """How many test pictures a model names right."""
    answers = (model.encode_image(tests, normalize=True) @ classes.T).argmax(-1)  # (N,)
    return int((answers == truth).sum())


# %%
train, loss_of = yours("4.4"), yours("4.3")
RANK, SHOTS, STEPS, SEEDS = 16, 4, 16, (1, 2, 3)  # change these: a rank of up to 32
RATE = 8e-3


def adapt(
    config: LoRAConfig | SerialLoRAConfig | None,
    seed: int,
    steps: int = STEPS,
    data: int | None = None,
) -> nn.Module:
    """The CLIP, adapted and merged: a plain CLIP again. None is training without an adapter.

    A seed draws the adapter's first numbers, and also the drawings, unless `data` does that.
    """
    torch.manual_seed(seed)
    model = copy.deepcopy(clip.model)
    if config:
        model = inject(model, config)
    else:
        for name, p in model.named_parameters():
            p.requires_grad = name.startswith("visual") and "in_proj_weight" in name
    rate = RATE if config else RATE / 8  # all weights, so smaller steps
    chosen = few_shot_split(drawings, SHOTS, seed if data is None else data).indices
    pictures = [drawings.train[i] for i in chosen]
    shots = [(clip.test_transform(picture), torch.tensor(label)) for picture, label in pictures]
    learns = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": learns, "lr": rate, "weight_decay": 0.01}]
    train(model, groups, shots, prompts, loss_of, steps, len(shots))
    return eject(model, keep_merged=True) if config else model  # merges, and throws the pairs away


# %%
lora, serial = LoRAConfig(RANK, towers=["image"]), SerialLoRAConfig(RANK, towers=["image"])
merged = {f"LoRA, seed {seed}": adapt(lora, seed) for seed in SEEDS}
merged |= {f"Serial LoRA, seed {seed}": adapt(serial, seed) for seed in SEEDS}
merged["no adapter"] = adapt(None, seed=1)
for name, model in {"before training": clip.model, **merged}.items():
    print(f"{name}: {right(model)} of {len(truth)} right")

# %% [markdown]
# All seven trainings helped, but each file is now a CLIP like any other.
#
# ## What is in the difference?
#
# Subtract the weights before training from those after it, and call the change dW. Before you run the cell: will the
# singular values of W + dW look different from those of W?


# %%
def weights(model: nn.Module) -> list[Tensor]:
    """W_q, W_k and W_v of every block of the image tower, each (d, d), in float64."""
    blocks = model.visual.transformer.resblocks
    return [W.double() for block in blocks for W in block.attn.in_proj_weight.detach().chunk(3)]


def change_of(model: nn.Module) -> list[Tensor]:
    """dW of each of these weights."""
    return [after - W for W, after in zip(before, weights(model), strict=True)]


before = weights(clip.model)
changes = {name: change_of(model) for name, model in merged.items()}
W, dW = before[6], changes["Serial LoRA, seed 1"][6]  # q of block 2; change this and run again
d = len(W)
spectra = {"W": svdvals(W), "W + dW": svdvals(W + dW), "dW": svdvals(dW)}
display_figure(plot_spectra(spectra))
print("largest:", ", ".join(f"{name} {values[0]:.1f}" for name, values in spectra.items()))
values = spectra["dW"]
print(f"{len(values)} values: number {RANK} {values[RANK - 1]:.0e}, the next {values[RANK]:.0e}")

# %% [markdown]
# The two upper lines can hardly be told apart, although the largest value of dW is more than half of W's. With a change
# of rank 16, value i of W + dW lies between the values i - 16 and i + 16 of W, and these differ little here.
#
# The line of dW tells you more. After value 16 it falls by six powers of ten, and we call this fall the cliff. The
# values behind it are not zero, because merging rounded the weights to float32, and what rounding adds is a small
# matrix of full rank. So the rank is the number of values in front of the cliff.

# %% [markdown]
# ### Exercise 10.1 · The rank of a change
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Return how many singular values of `after - before` stand in front of the cliff, which is where a value divided by
# the next one is largest. Search only the first half, because the values also fall at the end. Subtract in float64.
# The check rounds to float32, float16 and bfloat16.


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
# Apply your function to each matrix alone, and then to q, k and v of a block, stacked. Which rank do you expect of the
# stack for each method?


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
# With an adapter every matrix has rank 16. The stacks tell the methods apart. Serial LoRA's changes are $W_q B A$,
# $W_k B A$ and $W_v B A$. All three end in the same A, so all rows of the stack lie in one space of sixteen
# dimensions. LoRA has three A's, so its stack has rank 48.
#
# Two doubts remain. A LoRA with one A for q, k and v would also have rank 16 in the stack. And without an adapter your
# function returns some rank too, because one quotient is always the largest.
#
# ## The lost adapter
#
# To settle both, get the adapter back and see whether it explains the whole change. For LoRA one SVD of each dW gives
# B A, and [mergekit](https://github.com/arcee-ai/mergekit) extracts LoRAs in this way. For Serial LoRA you want one
# pair for all three weights.
#
# Stack q, k and v, and write dW as a sum of rank-one terms $\sigma_i u_i v_i^\top$, as in lesson 01. Applied to a token
# x, term i gives $u_i$ times $\sigma_i v_i^\top x$. So dW sees x only through the $v_i$: it *reads* in these directions.
# Since dW = W B A, they span the same space as the rows of A, and you take the strongest $v_i$ as A. They are
# orthonormal, so A Aᵀ is the identity, and if you multiply both sides by Aᵀ, W B = dW Aᵀ remains.
#
# Now count. With W_q alone these are d r equations for the d r numbers in B, and if W_q has an inverse, there is a B for
# every change: LoRA too would pass as Serial LoRA. With three weights they are 3 d r equations for the same d r numbers.
# Then there is an exact B only if the three changes were made with one B. So solve for all three by least squares, and
# see what is left over.

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
# The last factor of an SVD holds the directions $v_i$, the strongest first. Are they its rows or its columns?
#
# </details>
# <details><summary>Hint 2: least squares</summary>
#
# `torch.linalg` has a function for least squares. It takes the known factor and the product.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %% [markdown]
# Try both recoveries on every model, on a LoRA with one A, and on LoRA's q alone. The figure shows what share of the
# change is left over, in the worst matrix or block.

# %%
recover = yours("10.2")


def best_of(change: Tensor, rank: int) -> Tensor:
    """The matrix of this rank that is nearest to a change."""
    U, S, Vh = torch.linalg.svd(change, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vh[:rank]


def left_over(change: Tensor, found: Tensor) -> float:
    return ((change - found).norm() / change.norm()).item()


def by_svd(W: Tensor, after: Tensor, rank: int = RANK) -> float:
    return left_over(after - W, best_of(after - W, rank))


def by_pair(W: Tensor, after: Tensor, rank: int = RANK) -> float:
    A, B = recover(W, after, rank)
    return left_over(after - W, W @ B @ A)


stacks = [best_of(dW, RANK) for dW in stacked(changes["LoRA, seed 1"])]  # rank 16: one A
one_A = [dW for stack in stacks for dW in stack.chunk(3)]
one_A = [(W + dW).float() - W for W, dW in zip(before, one_A, strict=True)]  # as in a file
bases, table = stacked(before), {}
for name, each in {**changes, "LoRA with one A": one_A}.items():
    files = list(map(torch.add, before, each))  # W + dW
    by_pairs = max(map(by_pair, bases, stacked(files)))
    table[name] = {"one SVD a matrix": max(map(by_svd, before, files)), "one pair": by_pairs}
q_before, q_files = before[::3], list(map(torch.add, before, changes["LoRA, seed 1"]))[::3]
svd, by_pairs = max(map(by_svd, q_before, q_files)), max(map(by_pair, q_before, q_files))
table["LoRA, q alone"] = {"one SVD a matrix": svd, "one pair": by_pairs}
display_figure(plot_left_over(table, limit=0.1))

# %% [markdown]
# On the far left only rounding is left over. One SVD a matrix recovers every adapter. One pair for q, k and v recovers
# only Serial LoRA: of LoRA's changes it leaves 0.7 over. Rank is not the reason, because a LoRA with one A has rank 16 in
# the stack too. The count is: for q alone, in the last row, one pair explains LoRA as well. So both doubts are settled.
# Any limit in the wide gap will do, and we take a tenth, the line.
#
# ## When does rounding hide the adapter?
#
# In half precision rounding is larger, and a change may be smaller than ours. So scale dW, round both files, and look
# for the rank again.

# %%
spectra = {}
for size in (1, 0.1, 0.01):  # 1 is the change as it was trained
    for kind in ("float32", "float16", "bfloat16"):
        dtype, dWs = getattr(torch, kind), changes["Serial LoRA, seed 1"]
        files = [W + size * dW for W, dW in zip(before, dWs, strict=True)]
        rounded = [[W.to(dtype).double() for W in each] for each in (before, files)]
        blocks = list(zip(*map(stacked, rounded), strict=True))  # before and after, of each block
        found = {rank_of(*block) for block in blocks}
        left = max(by_pair(*block) for block in blocks)
        spectra.setdefault(f"dW times {size}", {})[kind] = svdvals(blocks[0][1] - blocks[0][0])
        print(f"dW times {size}, {kind}: rank {found}, a pair of rank {RANK} leaves {left:.0e}")
display_figure(plot_cliffs(spectra, RANK))

# %% [markdown]
# As trained, the change has its cliff behind value 16 in every format. Rounding has the size of the weights, not of the
# change, so the low lines stay where they are while the change sinks towards them. A hundredth of our change is lost in
# bfloat16: the ranks are wrong, and one pair leaves far more than a tenth of it over.
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
# A random space of 16 of the 192 dimensions has an overlap of 16 / 192 with any other, on average: this is chance. A
# seed of `adapt` decides two things: the numbers with which A starts, and the drawings. Which of them decides where
# Serial LoRA reads? Compare seed 1 with trainings that share only one of the two.

# %%
overlap_of = yours("10.3")


def read_by(each: list[Tensor]) -> list[Tensor]:
    """The directions that each change reads: (d, r) each, the strongest first."""
    return [torch.linalg.svd(dW, full_matrices=False).Vh[:RANK].T for dW in each]


def mean_overlap(one: list[Tensor], other: list[Tensor]) -> float:
    """On average over blocks."""
    return sum(map(overlap_of, one, other)) / len(one)


first = read_by(stacked(changes["Serial LoRA, seed 1"]))
pairs_of = {
    "same start, other drawings": change_of(adapt(serial, seed=1, data=2)),
    "other start, same drawings": change_of(adapt(serial, seed=2, data=1)),
    "both other": changes["Serial LoRA, seed 2"],
}
for what, each in pairs_of.items():
    print(f"{what}: overlap {mean_overlap(first, read_by(stacked(each))):.2f}")
print(f"chance: {RANK / d:.2f}\n")

begins = inject(copy.deepcopy(clip.model), serial)
loss_of(begins, tests[:8], truth[:8], prompts).backward()  # any pictures will do
for letter in "AB":
    gradients = [getattr(pair, f"lora_{letter}").grad for pair in adapters(begins).values()]
    print(f"first step, largest gradient of {letter}: {max(g.abs().max() for g in gradients):.1g}")

# %% [markdown]
# In this one comparison the start decides most: with the same start and other drawings the overlap is 0.85, and with
# another start and the same drawings it is 0.17.
#
# The gradients explain the first step. A begins as random numbers and B as zeros, and the gradient of A contains B as
# a factor. So in the first step it is zero, and only B learns. Perhaps A moves little later, too. [Zhu et
# al.](https://arxiv.org/abs/2402.16842) found LoRA nearly as good with a random A that is never trained.
#
# A seed draws the same numbers again, so compare each file with the fresh A's of ten seeds. Two more files show seed 1
# after one step and after a longer training. And what if one other number is drawn before the A's?


# %%
def fresh_A(seed: int, config: LoRAConfig | SerialLoRAConfig, earlier: int = 0) -> list[Tensor]:
    """A of every pair for q, k and v before training, (r, d) each, if `earlier` numbers were drawn before."""
    torch.manual_seed(seed)
    torch.rand(earlier)
    pairs = adapters(inject(copy.deepcopy(clip.model), config))
    # LoRA adapts W_out too.
    return [pair.lora_A.detach().double() for name, pair in pairs.items() if "out" not in name]


def overlaps_with_seeds(reads: list[Tensor], config: LoRAConfig | SerialLoRAConfig) -> list[float]:
    return [mean_overlap(reads, [A.T for A in fresh_A(seed, config)]) for seed in range(10)]


table = {"LoRA, seed 1": overlaps_with_seeds(read_by(changes["LoRA, seed 1"]), lora)}
files = {name: each for name, each in changes.items() if name.startswith("Serial")}
for steps in (1, 4 * STEPS):
    files[f"seed 1, {steps} step{'s' * (steps > 1)}"] = change_of(adapt(serial, 1, steps))
for name, each in files.items():
    table[name] = overlaps_with_seeds(read_by(stacked(each)), serial)
seeds = [f"seed {seed}" for seed in range(10)]
display_figure(plot_overlaps(list(table.values()), list(table), seeds, chance=RANK / d))
shifted = [A.T for A in fresh_A(1, serial, earlier=1)]
print(f"Serial LoRA, seed 1, one number drawn earlier: overlap {mean_overlap(first, shifted):.2f}")

# %% [markdown]
# In every row one square is dark: the seed with which the file was trained. After one step its overlap is 1.00,
# because only B had a gradient. After 16 steps of Serial LoRA it is 0.83 to 0.85, and after 64 it is 0.67, so A turns
# away from its start slowly. With other seeds the overlap stays near chance, so these files name their seed. But one
# number that is drawn earlier brings the right seed down to chance too: you must know what was drawn before A.
#
# ## Your colleague's files

# %% [markdown]
# ### Exercise 10.4 · How was it made?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# From the weights of the first block say the method, the rank of a pair and the seed, one of 0 to 9. The check has
# four kinds of float16 files: Serial LoRA, LoRA, a LoRA with one A, which is also "LoRA", and a change without a cliff.
# Of the last, return "cannot say".


# %% tags=["exercise"]
rank_of, recover, overlap_of = yours("10.1"), yours("10.2"), yours("10.3")


def how_it_was_made(before: Tensor, after: Tensor, fresh: Callable) -> tuple[str, int, int]:
    """Method, rank and seed of an adapter that was merged.

    Args:
        before, after: W_q, W_k and W_v of the first block, stacked, (3d, d), of any one format.
        fresh: seed, rank -> A of q before training, (r, d), the same for both methods.

    Returns:
        "LoRA", "Serial LoRA" or "cannot say"; the rank of one pair; the seed. After "cannot say" the
        two numbers do not count.
    """
    # BEGIN SOLUTION
    before, after, d = before.double(), after.double(), before.shape[1]
    q, rank = (after - before)[:d], rank_of(before[:d], after[:d])
    reads = torch.linalg.svd(q).Vh[:rank]  # (r, d): where the change of q reads
    A, B = recover(before, after, rank)
    if (after - before - before @ B @ A).norm() < 0.1 * (after - before).norm():
        method = "Serial LoRA"
    elif (q - q @ reads.T @ reads).norm() < 0.1 * q.norm():
        method = "LoRA"
    else:
        method = "cannot say"
    overlaps = [overlap_of(reads.T, fresh(seed, rank).T) for seed in range(10)]
    return method, rank, overlaps.index(max(overlaps))
    # END SOLUTION


check("10.4", how_it_was_made)

# %% [markdown]
# <details><summary>Hint 1: method and rank</summary>
#
# The rank is that of q. First ask what a recovery leaves over: which of the two do you have to try first, if one of
# them explains every adapter?
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
# These are your colleague's files, in float16. Chance decided the method, rank and seed, or that there is no adapter.

# %%
how, rows = yours("10.4"), {}
base_file = torch.cat(weights(copy.deepcopy(clip.model).half())[:3])  # the first block, stacked


def fresh_q(seed: int, rank: int) -> Tensor:
    return fresh_A(seed, SerialLoRAConfig(rank, towers=["image"]))[0]


def words(method: str, rank: int, seed: int) -> str:
    return (
        method if method in ("cannot say", "no adapter") else f"{method}, rank {rank}, seed {seed}"
    )


for number in range(6):  # change this: any numbers, each is another file
    model, truly = merged_by_a_colleague(adapt, number)
    file = torch.cat(weights(model)[:3])
    answer = how(base_file, file, fresh_q)
    by = by_pair if answer[0] == "Serial LoRA" else by_svd
    parts = 1 if by is by_pair else 3  # one pair for the stack, or an SVD of each matrix
    left = max(map(by, base_file.chunk(parts), file.chunk(parts), [answer[1]] * parts))
    right_answer = words(*answer) == words(*truly).replace("no adapter", "cannot say")
    rows[f"file {number}"] = {
        "you say": words(*answer),
        "it was": words(*truly),
        "right": right_answer,
        "left over": f"{left:.0e}",
    }
verdicts = pd.DataFrame(rows).T
print(f"{verdicts['right'].sum()} of {len(verdicts)} right")
verdicts

# %% [markdown]
# All six answers are right, and the file without an adapter gets "cannot say".
#
# These files were kind to you. The change is large: you saw that bfloat16 hides a hundredth of it. You had the base. The
# seed was set right before the A's were drawn, by the library that you used, and the training had only 16 steps. That it
# was one of ten seeds matters less: chance lies so far below that you can try many more.
#
# ## Quiz
#
# **1. A colleague merges two Serial LoRA adapters one after the other, each of rank 8. What will your function
# say of method and rank?**
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
# - With the base at hand a merged adapter is not lost: an SVD brings LoRA back, and least
#   squares after it Serial LoRA. One B for three weights is what tells them apart.
# - Read an overlap beside chance. Where Serial LoRA reads depends mostly on A's random start, so the file names its seed.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
