# %% [markdown]
# # 10 · Inside an adapter
#
# *This lesson is optional: no other one needs it.*
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter itself is lost. What
# was its rank? Was it LoRA or Serial LoRA? Can you get it back? And with which seed was it trained?
#
# The two files answer all four questions. You learn to read it on models of your own, and then on your colleague's.

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
# Your loop from lesson 04 trains LoRA and Serial LoRA with three seeds each, on four drawings of each class and only
# in the image tower. A seventh model trains W_q, W_k and W_v themselves.

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
# The two upper lines can hardly be told apart on this axis, although the largest value of dW is more than half of W's.
# A change of rank 16 can lift at most sixteen of the 192 values above the largest of W.
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
# Stack q, k and v, and write dW as a sum of rank-one terms $\sigma_i u_i v_i^\top$, as in lesson 01. How much of term
# i a token gets is its scalar product with $v_i$, so we say that dW *reads* in the directions $v_i$. Since dW = W B A,
# these directions span the same space as the rows of A. So take the strongest $v_i$ as A. They are orthonormal, so A
# Aᵀ is the identity, and if you multiply both sides by Aᵀ, W B = dW Aᵀ remains. Three weights share this B, so find it
# by least squares.

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
# Try both recoveries on every model, and on a LoRA with one A. The figure shows what share of the change is left over,
# in the worst matrix or block. What do you expect of LoRA?

# %%
recover = yours("10.2")


def best_of(change: Tensor, rank: int) -> Tensor:
    """The matrix of this rank that is nearest to a change."""
    U, S, Vh = torch.linalg.svd(change, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vh[:rank]


def left_over(change: Tensor, found: Tensor) -> float:
    return ((change - found).norm() / change.norm()).item()


def left_by_pairs(blocks: list[tuple[Tensor, Tensor]]) -> float:
    """What one pair leaves of the change in the worst block; of each block, the stacks before and after."""
    pairs = [recover(W, after, RANK) for W, after in blocks]
    return max(left_over(V - W, W @ B @ A) for (W, V), (A, B) in zip(blocks, pairs, strict=True))


stacks = [best_of(dW, RANK) for dW in stacked(changes["LoRA, seed 1"])]  # rank 16: one A
one_A = [dW for stack in stacks for dW in stack.chunk(3)]
one_A = [(W + dW).float() - W for W, dW in zip(before, one_A, strict=True)]  # as in a file
table = {}
for name, each in {**changes, "LoRA with one A": one_A}.items():
    blocks = [(W, W + dW) for W, dW in zip(stacked(before), stacked(each), strict=True)]
    by_svd = max(left_over(dW, best_of(dW, RANK)) for dW in each)
    table[name] = {"one SVD a matrix": by_svd, "one pair a block": left_by_pairs(blocks)}
display_figure(plot_left_over(table, limit=0.1))

# %% [markdown]
# On the far left only rounding is left over: one SVD a matrix recovers every adapter, and one pair a block recovers
# only Serial LoRA. One pair leaves 0.7 of LoRA's changes over, and the last row shows that rank is not the reason:
# with one A the stack has rank 16 too, but one B cannot serve W_q, W_k and W_v. So both doubts are settled: one pair
# leaves more than a tenth, the line, of every change that Serial LoRA did not make.
#
# ## How exact is the copy?
#
# In half precision rounding is larger. So we round both files, recover the pairs, and put them into the float32 CLIP.
# How many directions does this copy need to answer as the merged model did?

# %%
name = "Serial LoRA, seed 1"
fresh = inject(copy.deepcopy(clip.model), serial).eval()
wanted = scores(merged[name])


def scores_with(pairs: list[tuple[Tensor, Tensor]], keep: int) -> Tensor:
    """Scores of a fresh CLIP with these pairs, of which only the strongest directions are kept."""
    for pair, (A, B) in zip(adapters(fresh).values(), pairs, strict=True):
        pair.lora_A.data, pair.lora_B.data = A[:keep].float(), B[:, :keep].float()
    return scores(fresh)


def off_by(found: Tensor) -> str:
    return f"{(found - wanted).abs().max():.0e}"


def rounded(model: nn.Module, dtype: torch.dtype, only: str = "") -> nn.Module:
    """A copy, with the parameters whose names have `only` in them rounded."""
    model = copy.deepcopy(model)
    for each, p in model.named_parameters():
        p.data = p.data.to(dtype).float() if only in each else p.data
    return model


# %%
spectra = {"no adapter": svdvals(stacked(changes["no adapter"])[0])}
for kind in ("float32", "float16", "bfloat16"):
    dtype = getattr(torch, kind)
    ones, others = (stacked(weights(rounded(m, dtype))) for m in (clip.model, merged[name]))
    off = [off_by(scores(rounded(merged[name], dtype, only))) for only in ("", "in_proj_weight")]
    blocks = list(zip(ones, others, strict=True))
    pairs = [recover(*block, RANK) for block in blocks]
    spectra[kind] = svdvals(others[0] - ones[0])
    print(f"{kind}: rank {set(rank_of(*block) for block in blocks)}, ", end="")
    print(f"one pair leaves {left_by_pairs(blocks):.0e} of the change; cosines are off by")
    print(f"  file {off[0]}, only q, k and v rounded {off[1]}, ", end="")
    print(f"recovered {off_by(scores_with(pairs, RANK))}")
answers = [scores_with(pairs, keep).argmax(-1) for keep in range(RANK + 1)]  # of bfloat16
alike = [int((each == wanted.argmax(-1)).sum()) for each in answers]
print(f"{kind}, answers alike with 0 to {RANK} directions:", *alike)
display_figure(plot_cliffs(spectra, alike, len(wanted), rank_of(*blocks[0])))

# %% [markdown]
# On the left, the cliff stands behind value 16 in every format. It is lowest in bfloat16, and even there one pair
# leaves less than a hundredth of the change over. On the right, nine directions are enough for this file: from there
# on all 73 answers are alike.
#
# In bfloat16 the copy is nearer to the merged model than the file itself, for two reasons. The file has every weight
# rounded, and if only q, k and v are rounded, the cosines are off by a third as much. The copy is better still,
# probably because it keeps sixteen directions and drops the rounding in all others.
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
# By chance, any space has an overlap of 16 / 192 with a random space of 16 dimensions in 192, on average. A seed of
# `adapt` decides two things: the numbers with which A starts, and the drawings. Which of them decides where Serial
# LoRA reads? We compare seed 1 with trainings that share only one of the two, and print the first gradients of A and
# B.

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
    other = read_by(stacked(each))
    alone = mean_overlap([A[:, :1] for A in first], other)
    print(
        f"{what}: overlap {mean_overlap(first, other):.2f}, strongest direction alone {alone:.2f}"
    )
print(f"chance: {RANK / d:.2f}\n")

begins = inject(copy.deepcopy(clip.model), serial)
loss_of(begins, tests[:8], truth[:8], prompts).backward()  # any pictures will do
for letter in "AB":
    gradients = [getattr(pair, f"lora_{letter}").grad for pair in adapters(begins).values()]
    print(f"first step, largest gradient of {letter}: {max(g.abs().max() for g in gradients):.1g}")

# %% [markdown]
# In this one comparison the start decides most: with the same start and other drawings the overlap is 0.85, and with
# another start and the same drawings it is 0.17. The drawings show in the strongest direction: with another start, the
# same ones give 0.56, and others 0.34.
#
# The gradients explain the first step. A begins as random numbers and B as zeros, and the gradient of A contains B as
# a factor. So in the first step it is zero, and only B learns. Perhaps A moves little later, too. [Zhu et
# al.](https://arxiv.org/abs/2402.16842) found LoRA nearly as good with a random A that is never trained.
#
# A seed draws the same numbers again, so compare each file with the fresh A's of ten seeds. Two more files show seed 1
# after one step and after a longer training. What do you expect?


# %%
def fresh_A(seed: int, config: LoRAConfig | SerialLoRAConfig) -> list[Tensor]:
    """A of every pair for q, k and v before training: (r, d) each."""
    torch.manual_seed(seed)
    pairs = adapters(inject(copy.deepcopy(clip.model), config))
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

# %% [markdown]
# In every row one square is dark: the seed with which the file was trained. After one step its overlap is 1.00,
# because only B had a gradient. After 16 steps of Serial LoRA it is 0.83 to 0.85, and after 64 it is 0.67, so A turns
# away from its start slowly. We did not test why. With other seeds the overlap stays near chance, so these files name
# their seed.
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
# float16 files: Serial LoRA, LoRA, a LoRA with one A, and a change without a cliff. Of the last two, return "cannot
# say".

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
# If q and the stack have the same rank, try Serial LoRA: recover one pair. Otherwise try LoRA, for which the SVD of q
# is enough. Say "cannot say" if more than a tenth of the change is left over.
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
say, told = yours("10.4"), {}
base_file = torch.cat(weights(copy.deepcopy(clip.model).half())[:3])  # the first block, stacked


def fresh_q(seed: int, rank: int) -> Tensor:
    return fresh_A(seed, SerialLoRAConfig(rank, towers=["image"]))[0]


for number in range(4, 10):  # change this: any numbers, each is another file
    model, made = merged_by_a_colleague(adapt, number)
    answer = say(base_file, torch.cat(weights(model)[:3]), fresh_q)
    says, was = (
        method if method in ("cannot say", "no adapter") else f"{method}, rank {rank}, seed {seed}"
        for method, rank, seed in (answer, made)
    )
    right_answer = says == was.replace("no adapter", "cannot say")
    told[f"file {number}"] = {"you say": says, "it was": was, "right": right_answer}
verdicts = pd.DataFrame(told).T
print(f"{verdicts['right'].sum()} of {len(verdicts)} right")
verdicts

# %% [markdown]
# All six answers are right, and the two files without an adapter get "cannot say". But these files were kind to you:
# you had the base, the seed was one of ten, and each training had only 16 steps.
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
#   squares after it Serial LoRA.
# - Read an overlap beside chance. Where Serial LoRA reads depends mostly on A's random start, so the file names its seed.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
