# %% [markdown]
# # 10 · Inside an adapter
#
# *This lesson is optional: no other one needs it.*
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter itself is lost.
# What was its rank? Was it LoRA or Serial LoRA? Can you get it back? The colleague also has a plot in which one
# adapter's singular values lie above another's: did that adapter learn more?
#
# The weights answer all but the last. You write three functions: rank, angles between subspaces, recovery. At the end
# the lost adapter is back, even out of files in half precision.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
from itertools import combinations, permutations

import torch
from torch import Tensor, nn
from torch.linalg import svdvals

from serial_lora import LoRAConfig, SerialLoRAConfig, adapters, eject, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.lessons.l10_inside.figures import plot_angles, plot_cliffs, plot_spectra
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.style import display_figure

lesson_card("10")

# %% [markdown]
# ## Six merged models
#
# We make such files ourselves: LoRA and Serial LoRA, with three seeds each. Your loop from lesson 04 trains them,
# on four drawings of each class, and only in the image tower. Both methods get one learning rate, above those of lesson 04, so
# that the changes are large. A rank does not depend on it; sizes, effective ranks and overlaps may.

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


def adapt(config: LoRAConfig | SerialLoRAConfig, seed: int) -> nn.Module:
    """The CLIP, adapted to a few drawings and merged: a plain CLIP again."""
    torch.manual_seed(seed)
    model = inject(copy.deepcopy(clip.model), config)
    chosen = [drawings.train[i] for i in few_shot_split(drawings, SHOTS, seed).indices]
    shots = [(clip.test_transform(picture), torch.tensor(label)) for picture, label in chosen]
    learns = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": learns, "lr": 8e-3, "weight_decay": 0.01}]
    train(model, groups, shots, prompts, loss_of, STEPS, len(shots))
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
# (Here one `torch.equal` would have told, too: LoRA also changed `out_proj`. But it may be on q, k and v only. A LoRA
# with one A for all three has rank 16 in the stack too; "The lost adapter" below tells it apart.)
#
# ## A higher curve is a larger update
#
# Now the colleague's plot. It shows dW of v in block 1, for both methods, and Serial LoRA's curve starts well above LoRA's (and ends below it). Did it learn more? Multiply LoRA's dW by 3: no training is behind that factor.

# %%
lora, serial = (changes[f"{label}, seed 1"][5] for label in ("LoRA", "Serial LoRA"))
spectra = {"LoRA": lora, "LoRA times 3": 3 * lora, "Serial LoRA": serial}
display_figure(plot_spectra({name: svdvals(dW)[:RANK] for name, dW in spectra.items()}))

# %% [markdown]
# The factor lifts LoRA's curve above Serial LoRA's. So the height of a curve tells how *large* the change is. That your
# colleague's curve is higher does not mean that this adapter learned more.
#
# On this logarithmic axis a factor shifts a curve, and leaves its *shape* as it is. How fast it falls is one number,
# the **effective rank** (Roy and Vetterli, 2007 <!-- from their paper's year: 2007 -->). Take the singular values as
# shares of their sum, take the entropy of the shares, and turn it back into a number of directions:
#
# $$p_i = \frac{\sigma_i}{\sigma_1 + \dots + \sigma_r}, \qquad
# \operatorname{erank} = \exp\Bigl(-\sum_i p_i \ln p_i\Bigr).$$
#
# With r equal shares it is r. If one share is nearly everything, it is nearly 1.


# %%
def effective_rank(values: Tensor) -> float:
    """exp of the entropy of singular values (r,), taken as shares of their sum."""
    shares = values / values.sum()
    return torch.exp(-(shares * shares.log()).sum()).item()


d = len(W)
noise = [(torch.randn(d, RANK) @ torch.randn(RANK, d)).double() / 400 for _ in before]
others = {
    "LoRA, seed 1, times 3": [3 * dW for dW in changes["LoRA, seed 1"]],
    "random B A": noise,  # learned nothing
    "random W B A": [W @ pair for W, pair in zip(before, noise, strict=True)],
}

print(f"{'mean of the 18 matrices':24} size of dW   effective rank")
for name, each in (changes | others).items():
    size = sum(dW.norm() / W.norm() for W, dW in zip(before, each, strict=True)) / len(each)
    eranks = [effective_rank(svdvals(dW)[:RANK]) for dW in each]
    print(f"{name:24} {size:10.0%}   {sum(eranks) / len(eranks):.2f}")

# %% [markdown]
# The factor triples the size and does not change the effective rank. A random pair uses nearly all of its sixteen
# directions. The trained adapters use 8.5 to 10.5: a few strong ones, and a tail. At this one rate Serial LoRA's
# effective rank is lower than LoRA's, with all three seeds. A random pair loses little behind W: it still uses 15.
#
# A high effective rank is not good in itself: the random pair, which learned nothing, has the highest.
#
# ## Compare with a second seed
#
# Did LoRA and Serial LoRA learn the same thing? Numbers of directions do not say; directions do. Write dW as a sum of
# rank-one terms $\sigma_i u_i v_i^\top$, as in lesson 01. The scalar product of a token with $v_i$ decides how much of
# term i it gets: in the directions $v_i$ dW *reads*. What it adds has the directions $u_i$: there it *writes*. The
# sixteen $v_i$ span dW's row space, the $u_i$ its column space.
#
# Two subspaces have **principal angles**: the smallest angle between any vector of the one and any of the other, then
# the next smallest at right angles to these, and so on. All zero, and they are the same subspace; all right angles, and
# they have nothing in common.

# %% [markdown]
# ### Exercise 10.2 · Principal angles
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# If the columns of Q₁ and of Q₂ are orthonormal, the singular values of Q₁ᵀ Q₂ are the cosines of the angles (Björck
# and Golub, 1973 <!-- from their paper: 1973 -->). The columns that you are given are neither of length one nor at
# right angles to each other. Return degrees, the smallest first. Rounding can make a cosine a little larger than 1,
# and then its arccosine is `nan`: prevent that.


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


check("10.2", angles_between)

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
# To judge an angle, compare it with *chance*: the angles between random subspaces. It has to be the right chance:
# Serial LoRA writes W B, and W has strong and weak directions, so two *random* B's already have something in common
# behind W. And compare with what is easily forgotten: how much does a method have in common *with itself*, when only
# the seed differs? Before you run the cells, guess the smallest angle between two random subspaces of 16 dimensions,
# in a space of 192.


# %%
def directions(dW: Tensor) -> tuple[Tensor, Tensor]:
    """Where a change reads and where it writes: (d, r) each."""
    U, _, Vh = torch.linalg.svd(dW)
    return Vh[:RANK].T, U[:, :RANK]


angles, spaces = yours("10.2"), {}
for name, each in changes.items():
    reads, writes = zip(*map(directions, each), strict=True)
    spaces[name] = {"reads": reads, "writes": writes}


def compare(ones: list[Tensor], others: list[Tensor]) -> Tensor:
    """Principal angles, on average over pairs of subspaces: (r,)."""
    return torch.stack([angles(a, b) for a, b in zip(ones, others, strict=True)]).mean(0)


def overlap(angles: Tensor) -> float:
    """One number for many angles: 1 for the same subspace, 0 for nothing in common."""
    return angles.deg2rad().cos().square().mean().item()


def random_writes() -> list[Tensor]:
    """Where Serial LoRA would write with random B's, one for each block: W B, (d, r) each."""
    random_B = [torch.randn(d, RANK).double() for _ in before[::3]]
    return [W @ random_B[i // 3] for i, W in enumerate(before)]


# %%
chance = compare(*([torch.randn(d, RANK) for _ in range(100)] for _ in range(2)))
through_W = compare(random_writes(), random_writes())
kinds = {
    "Serial LoRA, two seeds": ("Serial LoRA", "Serial LoRA", combinations(SEEDS, 2)),
    "LoRA, two seeds": ("LoRA", "LoRA", combinations(SEEDS, 2)),
    "LoRA and Serial LoRA": ("LoRA", "Serial LoRA", permutations(SEEDS, 2)),
}
curves = {}
print(f"{'overlap':26}{'reads':16}writes")
for name, (one, other, seeds) in kinds.items():
    runs = [(spaces[f"{one}, seed {a}"], spaces[f"{other}, seed {b}"]) for a, b in seeds]
    found = {side: [compare(a[side], b[side]) for a, b in runs] for side in ("reads", "writes")}
    overlaps = [[overlap(each) for each in of_side] for of_side in found.values()]
    print(f"{name:26}" + "  ".join(f"{min(each):.3f} to {max(each):.3f}" for each in overlaps))
    curves[name] = torch.stack(found["writes"]).mean(0)
for name, writes in (("chance", chance), ("chance behind W", through_W)):
    print(f"{name:26}{overlap(chance):.3f}{overlap(writes):16.3f}")
print(f"smallest angle by chance: {chance[0]:.0f} degrees on average; r / d = {RANK / d:.3f}")
display_figure(plot_angles(curves, chance, "two adapters: where they write", through_W))

# %% [markdown]
# LoRA and Serial LoRA write at more than twice the overlap of their chance, the grey line. (The dashed one is for two
# Serial LoRAs, with W in both.) "They learn much the same", one might say. But each pair of LoRA's seeds agrees a
# little better: 0.26 to 0.28 against 0.20 to 0.21. So the two methods do write in somewhat different directions, and
# only the other seeds show that.
#
# Serial LoRA's seeds agree best, at 0.49 to 0.51. Part of that is W, not learning: random B's behind W already
# overlap by 0.23. Reads lie only a little above chance, perhaps as A keeps much of its random start (not tested).
#
# (No row compares equal seeds, which saw the same drawings.)


# %% [markdown]
# ## The lost adapter
#
# Now get it back. Of Serial LoRA you know dW = W B A, for q, k and v stacked. A is any basis of the space that dW
# reads: its strongest $v_i$, as many as there are values in front of the cliff. Multiply both sides by Aᵀ. The $v_i$
# are orthonormal, so A Aᵀ is the identity, and what is left is W B = dW Aᵀ. Three weights, one B: least squares.

# %% [markdown]
# ### Exercise 10.3 · The recovery
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


check("10.3", recover_pair)

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
recover = yours("10.3")
for name, each in changes.items():
    left = []
    for W, dW in zip(stacked(before), stacked(each), strict=True):
        A, B = recover(W, W + dW, RANK)
        left.append((W @ B @ A - dW).norm() / dW.norm())
    print(f"{name}: {min(left):.2g} to {max(left):.2g} of a block's change is left over")

# %% [markdown]
# Of Serial LoRA's changes nothing is left but rounding: the adapter is back. The matrices are not the ones that were
# lost, only their product is: multiply A by any invertible matrix and B by its inverse, and nothing changes. Of
# LoRA's changes 0.7 is left: no pair of rank 16 in front of q, k and v makes them (there you would split each dW itself).
#
# Many files are in half precision, where rounding is larger. So round both files, let your function find the rank,
# recover, and put the pairs into a fresh float32 CLIP. How many directions does it need? The cell keeps 1, then 2, and so on,
# and goes beyond the rank.

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
    file = copy.deepcopy(merged[name]).to(getattr(torch, kind))
    ones = [W.to(getattr(torch, kind)).double() for W in stacked(before)]
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
# On the right, what is missing falls off the same cliff. With fifteen directions its cosines are off by up to 1e-03; with
# the sixteenth they are the merged model's up to rounding, and a seventeenth adds nothing. Out of bfloat16 they are
# off by 2e-04, less than the bfloat16 file is itself, whose other weights are rounded too. To *use* the adapter,
# fewer directions do: eight keep 72 answers, four only 67. The effective rank had hinted that sixteen are more than it needs;
# where to stop, only answers tell.
#
# Show this figure to somebody who believes that merging hides how a model was tuned.
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
# **3. The four strongest directions of two adapters overlap by 0.1. Is that little or much?**
#
# <details><summary>Answer</summary>
#
# In 192 dimensions chance gives 4 / 192, about 0.02, so something is shared; in 40 dimensions 0.1 would be just
# chance. And if two seeds of one method also overlap by 0.1, the two adapters are as alike as two runs of one method.
#
# </details>
#
# ## What to remember
#
# - Three matrices, three spectra: W, W + dW, dW. A claim about singular values has to say which.
# - The height of a spectrum is size, which a mere factor changes. Its shape is measured by the effective rank.
# - The rank of a change is where its singular values fall most. Serial LoRA's q, k and v, stacked, have that of one.
# - A merged Serial LoRA is not lost: its A is where dW reads, its B solves W B = dW Aᵀ.
# - Compare angles with the right chance, *and* with a second seed of the same method.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
