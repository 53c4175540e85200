# %% [markdown]
# # 10 · Inside an adapter
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter is lost, and so are its
# log and its pictures. She asks:
#
# 1. What was its rank?
# 2. Was it LoRA or Serial LoRA?
# 3. Can I get it back?
# 4. With which seed was it trained?
#
# Anyone who publishes two such files may ask the same, to know what they give away. You learn to read files on models of
# your own, and then read twelve of hers. Some of them never had an adapter. How many will you name right, with method, rank
# and seed? Write your guess in the last line of the second cell. No other lesson needs this one.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.linalg import svd, svdvals

from serial_lora import LoRAConfig, SerialLoRAConfig
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l10_inside.colleague import Run, Trainer, merged_by_a_colleague
from serial_lora_course.lessons.l10_inside.figures import (
    plot_left_over,
    plot_seeds,
    plot_stacks,
    plot_values,
)
from serial_lora_course.plots.style import display_figure

lesson_card("10")
guess_named = 12  # your guess: of her twelve files, how many you will name right

# %% [markdown]
# ## Three ways to change three weights
#
# LoRA adds a pair B A of its own to each of W_q, W_k and W_v. The three may also share one A. Serial LoRA puts one pair
# in front of all three: x becomes x + B A x, with the scale inside B, so each W becomes W (I + B A). The drawing shows
# what each method adds, with the changes of q, k and v on top of each other.

# %%
display_figure(plot_stacks())

# %% [markdown]
# Your loop from lesson 04 trains these on four drawings of each class, in the image tower only. A last model trains W_q,
# W_k and W_v themselves. Each adapter is merged and then thrown away. This takes about half a minute; the code is
# `colleague.py` in this lesson's folder.

# %%
RANK, SEEDS = 16, (1, 2, 3)  # change these: a rank of up to 32
lora, serial = (kind(RANK, towers=["image"]) for kind in (LoRAConfig, SerialLoRAConfig))
trainer = Trainer(yours("4.4"), yours("4.3"))
runs = {"LoRA": trainer.adapt(lora, seed=1)}
runs["LoRA with one A"] = trainer.adapt(lora, seed=1, one_A=True)
runs |= {f"Serial LoRA, seed {seed}": trainer.adapt(serial, seed) for seed in SEEDS}
runs["no adapter"] = trainer.adapt(None, seed=1)
print("before training:", trainer.right(trainer.clip.model))
for name, run in runs.items():
    print(f"{name}: {trainer.right(run.merged)}")

# %% [markdown]
# All six trainings helped. Each file is now a CLIP like any other.
#
# ## What is in the difference?
#
# Subtract the weights before training from those after it, and call the change dW. Which singular values will show that an
# adapter of rank 16 was merged?

# %%
shows = "dW"  # your guess: "W + dW", "dW" or "both"


def weights(model: nn.Module) -> list[Tensor]:
    """W_q, W_k and W_v of every block of the image tower, each (d, d), in float64."""
    blocks = model.visual.transformer.resblocks
    return [W.double() for block in blocks for W in block.attn.in_proj_weight.detach().chunk(3)]


def change_of(run: Run) -> list[Tensor]:
    """dW of each of these weights."""
    return [after - W for W, after in zip(before, weights(run.merged), strict=True)]


before = weights(trainer.clip.model)
changes = {name: change_of(run) for name, run in runs.items()}
W, dW = before[6], changes["Serial LoRA, seed 1"][6]  # q of block 3; change this and run again
d = len(W)
spectra = {"W": svdvals(W), "W + dW": svdvals(W + dW), "dW": svdvals(dW)}
display_figure(plot_values({"linear": spectra, "logarithmic": spectra}, count=d, rank=RANK))
print("largest:", ", ".join(f"{name} {values[0]:.1f}" for name, values in spectra.items()))
values = spectra["dW"]
print(f"{d} values of dW: number {RANK} is {values[RANK - 1]:.0e}, the next {values[RANK]:.0e}")
print("your guess:", shows)

# %% [markdown]
# Behind the first few values, W and W + dW look alike, although the largest value of dW is more than half of W's. With
# a dW of rank 16, value i of W + dW lies between values i - 16 and i + 16 of W (Weyl's inequality), and among 192 these are
# close together. So the singular values of W + dW do not show what was added.
#
# The values of dW do, on the logarithmic axis. After number 16 they fall by six powers of ten: the cliff. Behind it they are
# not zero, because merging rounded the weights to float32, and what rounding adds is a small matrix of full rank. So the
# rank is the number of values in front of the cliff.

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
# Apply your function to each matrix alone, and then to q, k and v of a block, stacked. Look at the drawing again: which
# rank do you expect of each stack?

# %%
expected = {"LoRA": 48, "LoRA with one A": 16, "Serial LoRA": 16}  # your guess: ranks of stacks


def stacked(each: list[Tensor]) -> list[Tensor]:
    """q, k and v of every block on top of each other: (3d, d) each."""
    return [torch.cat(each[i : i + 3]) for i in range(0, len(each), 3)]


def ranks(one: list[Tensor], other: list[Tensor]) -> set[int]:
    return {rank_of(W, W + dW) for W, dW in zip(one, other, strict=True)}


rank_of = yours("10.1")
for name, each in changes.items():
    together = ranks(stacked(before), stacked(each))
    print(f"{name}: rank {ranks(before, each)} in all {len(each)} matrices, {together} in stacks")
print("your guess:", expected)

# %% [markdown]
# With an adapter every matrix has rank 16. In the stack, count the A's of the drawing: each row ends in an A, so all rows
# lie in the space that the A's span. That is 48 dimensions with three A's, and 16 with one.
#
# Two doubts remain. A LoRA with one A has rank 16 in the stack too. And without an adapter your function returns some
# rank as well, because one quotient is always the largest.
#
# ## The lost adapter
#
# To settle both, get the adapter back and see whether it explains the whole change. For LoRA one SVD of each dW gives
# B A. For Serial LoRA you need one pair for all three weights.
#
# Stack q, k and v, and write dW as a sum of rank-one terms $\sigma_i u_i v_i^\top$, as in lesson 01. Applied to a token
# x, term i gives $u_i$ times $\sigma_i v_i^\top x$. So dW sees x only through the $v_i$: it *reads* in these directions.
# Since dW = W B A, they span the same space as the rows of A, and you take the strongest $v_i$ as A. They are
# orthonormal, so A Aᵀ is the identity. Multiply both sides by Aᵀ, and W B = dW Aᵀ remains.
#
# Now count. With W_q alone these are d r equations for the d r numbers in B. If W_q has an inverse, there is a B for
# every change, $W_q^{-1}\, dW\, A^\top$: LoRA would pass as Serial LoRA. With three weights they are 3 d r equations, which
# a LoRA does not fit. A change made as W (I + B A), with the same B for all three, does. So solve by least squares, and
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
# Try both recoveries on every model, and on LoRA's q alone. The figure shows what share of the change is left over, in
# the worst matrix or block.

# %%
recover = yours("10.2")


def by_svd(dW: Tensor) -> float:
    """What the nearest matrix of this rank leaves of a change: the singular values behind it."""
    values = svdvals(dW)
    return (values[RANK:].norm() / values.norm()).item()


def by_pair(W: Tensor, dW: Tensor) -> float:
    A, B = recover(W, W + dW, RANK)
    return ((dW - W @ B @ A).norm() / dW.norm()).item()


table, bases = {}, stacked(before)
for name, each in changes.items():
    svds, pairs = map(by_svd, each), map(by_pair, bases, stacked(each))
    table[name] = {"one SVD a matrix": max(svds), "one pair": max(pairs)}
only_q = changes["LoRA"][::3]
svds, pairs = map(by_svd, only_q), map(by_pair, before[::3], only_q)
table["LoRA, q alone"] = {"one SVD a matrix": max(svds), "one pair": max(pairs)}
display_figure(plot_left_over(table, limit=0.1))

# %% [markdown]
# On the far left only rounding is left over. One SVD a matrix recovers every adapter. One pair recovers only Serial LoRA,
# and of both LoRAs' changes it leaves most over. Rank cannot tell them apart, for a LoRA with one A has rank 16 too. The
# common B does: LoRA's three B's are not $W_q$, $W_k$ and $W_v$ times one matrix. For q alone, in the last row, one B is
# enough. So both doubts are settled. In float32 any limit in the wide gap will do, and we take a tenth, the line.
#
# ## When does rounding hide the adapter?
#
# Half precision rounds more, and a change may be smaller than ours. So scale dW, round both files, and look for the rank
# again. In which of the nine cases will the adapter be lost?

# %%
lost = "bfloat16, dW times 0.01"  # your guess

spectra = {}
for size in (1, 0.1, 0.01):  # 1 is the change as it was trained
    for kind in ("float32", "float16", "bfloat16"):
        dtype, dWs = getattr(torch, kind), changes["Serial LoRA, seed 1"]
        files = [W + size * dW for W, dW in zip(before, dWs, strict=True)]
        old, new = (stacked([W.to(dtype).double() for W in each]) for each in (before, files))
        dWs = [after - W for W, after in zip(old, new, strict=True)]
        found, left = list(map(rank_of, old, new)), max(map(by_pair, old, dWs))
        spectra.setdefault(f"dW times {size}", {})[kind] = svdvals(dWs[0])
        print(f"dW times {size}, {kind}: rank of each block {found}, a pair leaves {left:.0e}")
display_figure(plot_values(spectra, count=24, rank=RANK))
print("your guess:", lost)

# %% [markdown]
# As trained, the change has its cliff behind value 16 in every format. Rounding errors depend on the size of W, not of dW.
# So a change that is a hundred times smaller comes a hundred times nearer to them.
#
# In two rows the second block says rank 1: there the fall from the first value to the second is larger than the cliff.
# Take the rank that most blocks give. With it a pair leaves just under a tenth over, so the limit only just holds. In the
# last row both tests fail: bfloat16 hides a hundredth of our change from them.
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
# A random space of 16 of the 192 dimensions has an overlap of 16 / 192 with any other, on average: this is *chance*. A
# seed decides two things: the numbers with which A starts, and the drawings of the training. Which of them decides where
# Serial LoRA reads? Compare seed 1 with trainings that share only one of the two. This takes about ten seconds.

# %%
decides = "start"  # your guess: "start" or "drawings"
overlap_of = yours("10.3")


def directions(each: list[Tensor], count: int = RANK) -> list[Tensor]:
    """The directions that each matrix reads most, the strongest first: (d, count) each."""
    return [svd(matrix, full_matrices=False).Vh[:count].T for matrix in each]


def mean_overlap(one: list[Tensor], other: list[Tensor]) -> float:
    """On average over blocks."""
    return sum(map(overlap_of, one, other)) / len(one)


first = runs["Serial LoRA, seed 1"]
others = {
    "same start, other drawings": trainer.adapt(serial, seed=1, data=2),
    "other start, same drawings": trainer.adapt(serial, seed=2, data=1),
    "both other": runs["Serial LoRA, seed 2"],
}
reads = directions(stacked(change_of(first)))
for name, run in others.items():
    print(f"{name}: overlap {mean_overlap(reads, directions(stacked(change_of(run)))):.2f}")
print(f"chance: {RANK / d:.2f}; your guess: {decides}")

# %% [markdown]
# In this one comparison the start decides: with the same start and other drawings the overlap is 0.85, with another start
# and the same drawings 0.17. Does A hardly move, then, in these 16 steps? `adapt` also kept every A from before and after
# the training.

# %%
moves = [end - start for start, end in zip(first.starts, first.ends, strict=True)]
lengths = [(move.norm() / A.norm()).item() for move, A in zip(moves, first.starts, strict=True)]
print("how far A moved / its length at the start:", ", ".join(f"{x:.2f}" for x in lengths))
spectra = {"A at the start": svdvals(first.starts[0]), "how A moved": svdvals(moves[0])}
display_figure(plot_values({"A of the first block": spectra}, count=RANK))
still = overlap_of(first.ends[0].T, first.starts[0].T)
print(f"first block: {RANK} x overlap of A at the end and the start: {RANK * still:.1f}")
for name, run in others.items():
    theirs = [end - start for start, end in zip(run.starts, run.ends, strict=True)]
    both = mean_overlap(directions(moves, 4), directions(theirs, 4))
    print(f"{name}: overlap of the four directions in which A moved most: {both:.2f}")
print(f"chance: {4 / d:.2f}")

# %% [markdown]
# A moves far, by 0.57 to 0.73 of its length, but in few directions. At the start its rows are random, so it reads all its
# sixteen directions about equally. Of the move, only the first three or four values reach that size. So A turns only in
# these few directions: in the first block, 13 of sixteen are left.
#
# The last lines show what training puts in common. Even with another start and other drawings, the four directions in
# which A moved most overlap by 0.40, far above chance: that much comes from the model and the task. The same drawings
# raise it to 0.66, the same start only to 0.44. A likely reason is the gradient of A, a sum of columns times tokens,
# $x^\top$. So A moves towards the tokens that it sees. **The seed decides where A starts; model, task and drawings decide
# where it goes.**
#
# A seed draws the same numbers again. So compare the first block of each file with the A of each of 1,000 seeds. Two more
# files show seed 1 after one step and after a longer training, which takes about twenty seconds. And what will the overlap with
# the right seed be, if one other number was drawn before A?

# %%
shifted = 0.09  # your guess


def fresh_A(seed: int, rank: int = RANK, earlier: int = 0) -> Tensor:
    """The first A that a seed draws, as `nn.Linear` draws a weight, after `earlier` other numbers: (r, d)."""
    torch.manual_seed(seed)
    torch.rand(earlier)
    return torch.empty(rank, d).uniform_(-(d**-0.5), d**-0.5).double()


print("as it was drawn:", torch.equal(fresh_A(1), first.starts[0]))
files = {"LoRA, seed 1": (runs["LoRA"], 1)}
files |= {name: (run, int(name[-1])) for name, run in runs.items() if name.startswith("Serial")}
files["seed 1, one step"] = trainer.adapt(serial, 1, steps=1), 1
files["seed 1, 64 steps"] = trainer.adapt(serial, 1, steps=64), 1
table = {}
for name, (run, seed_of_it) in files.items():
    (reads,) = directions(change_of(run)[:1])  # q of the first block
    overlaps = [overlap_of(reads, fresh_A(seed).T) for seed in range(1000)]
    table[name] = overlaps.pop(seed_of_it), overlaps  # the right seed, and all others
(reads,) = directions(change_of(first)[:1])
own, wrong = overlap_of(reads, fresh_A(1, earlier=1).T), table["Serial LoRA, seed 1"][1]
table["seed 1, a number before"] = own, wrong
display_figure(plot_seeds(table, chance=RANK / d))
print(f"the largest with a wrong seed: {max(max(wrong) for _, wrong in table.values()):.2f}")
print(f"one number drawn before: {own:.2f}; your guess: {shifted}")

# %% [markdown]
# Each file names its seed. After one step the overlap with it is 1.00, because the gradient of A has B as a factor, and B
# is zero at first. After 16 steps it is above 0.8, after 64 steps 0.65: A turns away slowly. The largest overlap with a
# wrong seed is 0.11. But one number that is drawn before A brings the right seed down to chance, too.
#
# ## Your colleague's files
#
# ### Exercise 10.4 · How was it made?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# From the weights of the first block say the method, the rank of a pair and the seed, one of 0 to 9. The check has
# four kinds of float16 files: Serial LoRA, LoRA, a LoRA with one A (answer "LoRA" here too), and a change without a cliff.
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
# These are her files, in float16. Chance decided the method, rank, seed and 2 to 16 steps, or that there is no adapter.
# They take about half a minute.

# %%
how, score = yours("10.4"), {}
half = torch.cat([W.half() for W in before[:3]])  # the first block, stacked
for number in range(12):  # change this: any numbers, each is another file
    model, truly = merged_by_a_colleague(trainer.adapt, number)
    file = model.visual.transformer.resblocks[0].attn.in_proj_weight.detach()
    method, rank, seed = how(half, file, fresh_A)
    said = "no adapter" if method == "cannot say" else f"{method}, rank {rank}, seed {seed}"
    print(f"file {number}: {said}" + (" ✓" if said == truly else f" ✗ It was {truly}."))
    score.setdefault(truly.split(",")[0], []).append(said == truly)
print("; ".join(f"{method}: {sum(each)} of {len(each)} right" for method, each in score.items()))
print(f"{sum(map(sum, score.values()))} in all; your guess: {guess_named}")

# %% [markdown]
# All twelve answers are right, and for the files without an adapter your function says so.
#
# So the four questions have answers: the rank is where the singular values of the change fall; the method shows in the
# common B; the product B A comes back; and the seed, if nothing was drawn before A.
#
# These files were kind to you. She had the base. The change was large, and none of the twelve was one of the cases above
# that fail. The trainings were short, on the small CLIP and one set of drawings. Whether a large model names its seed
# after thousands of steps stays open.
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
# **3. Two people train Serial LoRA on the same pictures, each with her own seed. What do their A's have in common?**
#
# <details><summary>Answer</summary>
#
# Little of what they read, for most of that is their starts. But both moved towards the same few directions.
#
# </details>
#
# ## What to remember
#
# - The singular values of a change fall behind its rank; those of the changed weight hide it. Test a rank by a recovery.
# - With the base at hand a merged adapter is not lost. One B for three weights tells Serial LoRA from LoRA.
# - Compare every overlap with chance, r / d. After a short training most of A's directions are still those of its seed.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
