# %% [markdown]
# # 10 · Inside an adapter
#
# *This lesson is optional: no other one needs it.*
#
# A colleague has two files: a CLIP, and the same CLIP with an adapter merged into it. The adapter itself is lost.
# What was its rank? Was it LoRA or Serial LoRA? The colleague also has a plot in which one adapter's singular values
# lie above another's: did that adapter learn more?
#
# The weights answer the first two, and show why they cannot answer the third. You write a rank, an effective rank, and
# the angles between two subspaces. At the end you get the lost adapter's product back.

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

from serial_lora import LoRAConfig, SerialLoRAConfig, adapters, inject, merge
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.lessons.l10_inside.figures import plot_angles, plot_shapes, plot_spectra
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.style import display_figure

lesson_card("10")

# %% [markdown]
# ## Six merged models
#
# We make such files ourselves: LoRA and Serial LoRA, with three seeds each. Your loop from lesson 04 trains them,
# on four drawings of each class, and only in the image tower. Both methods get one rate, above those of lesson 04, so
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
    return merge(model)


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
# No. W and W + dW are nearly one line. That is not because dW is small: its largest value is 1.3, that of W 2.2. But a change of rank 16 moves no value
# past its sixteenth neighbour, and an axis of twelve powers of ten hides the rest. So ask of any plot of singular
# values: of which matrix?
#
# dW tells us more. After value 16 its singular values drop by six powers of ten. But not to zero: the merged weights
# were rounded to float32, and the rounding is a small random matrix of full rank. Strictly, dW has rank 192. What we
# want is the rank above the rounding.

# %% [markdown]
# ### Exercise 10.1 · The rank of a change
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 10 |
#
# Count the singular values of `after - before` that are larger than rounding. Take the usual threshold, max(m, n) ·
# eps · σ₁, where eps is float32's (`torch.finfo(torch.float32).eps`) and σ₁ is the largest singular value *of the
# matrix that was rounded*. Subtract in float64, so that the subtraction adds no rounding of its own. The check uses
# changes that are far smaller than the weights.


# %% tags=["exercise"]
def rank_of_change(before: Tensor, after: Tensor) -> int:
    """The rank of after - before, as far as float32 lets it be seen.

    Args:
        before, after: (m, n), float32.
    """
    # BEGIN SOLUTION
    values = torch.linalg.svdvals(after.double() - before.double())  # (min(m, n),)
    eps = torch.finfo(torch.float32).eps
    largest = torch.linalg.matrix_norm(after.double(), 2)
    return int((values > max(after.shape) * eps * largest).sum())
    # END SOLUTION


check("10.1", rank_of_change)

# %% [markdown]
# <details><summary>Hint 1: two different largest values</summary>
#
# `torch.linalg.svdvals(after.double() - before.double())` gives the values to count. The threshold
# needs the largest singular value of `after`: the first of `torch.linalg.svdvals(after)`.
#
# </details>
# <details><summary>Hint 2: counting</summary>
#
# `(values > threshold).sum()` is a tensor; `int(...)` makes a number of it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %%
rank_of = yours("10.1")
for name, each in changes.items():
    found = {rank_of(W.float(), (W + dW).float()) for W, dW in zip(before, each, strict=True)}
    print(f"{name}: rank {found} in all {len(each)} matrices")

# %% [markdown]
# Sixteen, everywhere. The first question is answered.
#
# ## A higher curve is a larger update
#
# Now the colleague's plot. It shows dW of v in block 1, for both methods, and Serial LoRA's curve starts well above
# LoRA's. Did it learn more? Multiply LoRA's dW by 3: no training is behind that factor.

# %%
lora, serial = (changes[f"{label}, seed 1"][5] for label in ("LoRA", "Serial LoRA"))
spectra = {"LoRA": lora, "LoRA times 3": 3 * lora, "Serial LoRA": serial}
spectra = {name: svdvals(dW)[:RANK] for name, dW in spectra.items()}
display_figure(plot_shapes(spectra))

# %% [markdown]
# On the left, the factor lifts LoRA's curve above Serial LoRA's. So the height of a curve tells how *large* the
# change is. That your colleague's curve is higher does not mean that this adapter learned more.
#
# On the right, each curve is divided by its own sum. LoRA and its triple are now one line: a factor cannot
# change the *shape*. How fast the shape falls is one number, the **effective rank** (Roy and Vetterli,
# 2007 <!-- from their paper's year: 2007 -->). Take the singular values as shares of their sum, take the
# entropy of the shares, and turn it back into a number of directions:
#
# $$p_i = \frac{\sigma_i}{\sigma_1 + \dots + \sigma_r}, \qquad
# \operatorname{erank} = \exp\Bigl(-\sum_i p_i \ln p_i\Bigr).$$
#
# With r equal shares it is r. If one share is nearly everything, it is nearly 1.

# %% [markdown]
# ### Exercise 10.2 · The effective rank
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Return the effective rank. Mind the zeros: 0 · ln 0 counts as 0, but in floating point it comes out as `nan`. The
# check includes zeros, equal values, and a single one.


# %% tags=["exercise"]
def effective_rank_of(values: Tensor) -> float:
    """exp of the entropy of the singular values, taken as shares of their sum.

    Args:
        values: (n,), at least one of them above zero, none below.
    """
    # BEGIN SOLUTION
    shares = values[values > 0] / values.sum()
    return torch.exp(-(shares * shares.log()).sum()).item()
    # END SOLUTION


check("10.2", effective_rank_of)

# %% [markdown]
# <details><summary>Hint 1: zeros</summary>
#
# Leave them out: `values[values > 0]`. They add nothing to the sum and nothing to the entropy.
#
# </details>
# <details><summary>Hint 2: the formula</summary>
#
# Divide by the sum, not by the largest. Natural logarithm, a minus in front of the sum, then `exp`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/10_inside_an_adapter.ipynb)

# %%
effective_rank, d = yours("10.2"), len(W)
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
# directions. The trained adapters use eight to eleven: a few strong ones, and a tail. At this one rate Serial LoRA's
# effective rank is lower than LoRA's, with all three seeds. A random pair loses little behind W: it still uses 15.
#
# A high effective rank is not good in itself: the random pair, which learned nothing, has the highest.
#
# ## LoRA or Serial LoRA?
#
# Before you reach for singular values, look at what was changed at all. Serial LoRA changes q, k and v. LoRA has a
# fourth pair, for the output, `out_proj`.

# %%
output = "visual.transformer.resblocks.1.attn.out_proj.weight"
for name, model in merged.items():
    kept = torch.equal(clip.model.get_parameter(output), model.get_parameter(output))
    print(f"{name}: out_proj is {'the same, bit for bit' if kept else 'changed'}")

# %% [markdown]
# One `torch.equal` answers. But suppose that LoRA had been on q, k and v only. Size and shape differ in the table
# above, but at one rate: that proves nothing. Directions do. Write dW as a sum of rank-one terms
# $\sigma_i u_i v_i^\top$, as in lesson 01. The scalar product of a token with $v_i$ decides how much of term i it
# gets: in the directions $v_i$ dW *reads*. What it adds has the directions $u_i$: there it *writes*. The sixteen
# $v_i$ span dW's row space, the $u_i$ its column space.
#
# Two subspaces have **principal angles**: the smallest angle between any vector of the one and any of the other, then
# the next smallest at right angles to these, and so on. All zero, and they are the same subspace; all right angles, and
# they have nothing in common.

# %% [markdown]
# ### Exercise 10.3 · Principal angles
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


check("10.3", angles_between)

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
# Do q and k of one block read the same directions? What a pair reads is its A, and the two methods differ in how many
# A's a block has. To judge an angle, compare it with *chance*: the angles between random subspaces. Before you run
# the cells, guess the smallest angle between two random subspaces of 16 dimensions, in a space of 192.


# %%
def directions(dW: Tensor) -> tuple[Tensor, Tensor]:
    """Where a change reads and where it writes: (d, r) each."""
    U, _, Vh = torch.linalg.svd(dW)
    return Vh[:RANK].T, U[:, :RANK]


angles, spaces = yours("10.3"), {}
for name, each in changes.items():
    reads, writes = zip(*map(directions, each), strict=True)
    spaces[name] = {"reads": reads, "writes": writes}


def compare(ones: list[Tensor], others: list[Tensor]) -> Tensor:
    """Principal angles, on average over pairs of subspaces: (r,)."""
    return torch.stack([angles(a, b) for a, b in zip(ones, others, strict=True)]).mean(0)


# %%
chance = compare(*([torch.randn(d, RANK) for _ in range(100)] for _ in range(2)))
within = {}
for label in ("LoRA", "Serial LoRA"):
    reads = spaces[f"{label}, seed 1"]["reads"]
    within[label] = compare(reads[0::3], reads[1::3])  # q beside k
display_figure(plot_angles(within, chance, "q and k of one block: what they read"))


# %%
def overlap(angles: Tensor) -> float:
    """One number for many angles: 1 for the same subspace, 0 for nothing in common."""
    return angles.deg2rad().cos().square().mean().item()


for label, found in {**within, "chance": chance}.items():
    print(f"{label:12} overlap {overlap(found):.3f}")
print(f"r / d = {RANK} / {d} = {RANK / d:.3f}")

# %% [markdown]
# Serial LoRA's q and k read exactly the same directions (1.000). LoRA's share hardly more than chance. Serial LoRA's
# changes are $W_q B A$, $W_k B A$ and $W_v B A$. All three have the same A on the right, and the factor on the right
# is the one that meets the token. So this tells one A from three: a LoRA with one A for q, k and v would look the
# same. ("The lost adapter" below tells those apart.)
#
# Chance is not zero: two random subspaces overlap by r / d, here 0.083, and the smallest angle between them is 59
# degrees on average. The grey line shows how little LoRA's 55 degrees are.
#
# ## Compare with a second seed
#
# Did LoRA and Serial LoRA learn the same thing? Their directions overlap; is that much? Compare it with two things.
# One is chance, and it has to be the right one: Serial LoRA writes W B, and W has strong and weak directions, so two
# *random* B's already have something in common behind W. The other is easily forgotten: how much does a method have in
# common *with itself*, when only the seed differs?


# %%
def random_writes() -> list[Tensor]:
    """Where Serial LoRA would write with random B's, one for each block: W B, (d, r) each."""
    random_B = [torch.randn(d, RANK).double() for _ in before[::3]]
    return [W @ random_B[i // 3] for i, W in enumerate(before)]


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
display_figure(plot_angles(curves, chance, "two adapters: where they write", through_W))

# %% [markdown]
# LoRA and Serial LoRA write at more than twice the overlap of their chance, the grey line. (The dashed one is for two
# Serial LoRAs, with W in both.) "They learn much the same", one might say. But each pair of LoRA's seeds agrees a
# little better: 0.26 to 0.28 against 0.20 to 0.21. So the two methods do write in somewhat different directions, and
# only the other seeds show that.
#
# Serial LoRA's seeds agree best, at 0.49 to 0.51. Part of that is W, not learning: random B's behind W already
# overlap by 0.23. Reads lie a little above chance; perhaps because A keeps much of its random start (not tested).
#
# (No row compares equal seeds, which saw the same drawings.)


# %% [markdown]
# ## The lost adapter
#
# If $dW_q = W_q B A$, and W can be inverted, then $B A = W_q^{-1} dW_q$. It is $W_k^{-1} dW_k$ as well, and $W_v^{-1} dW_v$. So if the
# adapter was Serial LoRA, all three give the same matrix. What do you expect of the LoRA models?

# %%
for name, each in changes.items():
    q, k, v = (torch.linalg.solve(before[i], each[i]) for i in (6, 7, 8))  # block 2
    apart = max((q - k).abs().max(), (q - v).abs().max())
    print(f"{name}: entries up to {q.abs().max():.2f}, apart by up to {apart:.6f}")

# %% [markdown]
# There it is: for Serial LoRA the three agree up to rounding, for LoRA not at all (there you would split each dW
# itself). Split B A into a pair by its singular values, in every block, and put the pairs into a fresh CLIP. Guess how
# many of the sixteen directions it needs: the cell keeps only the strongest, and counts answers.

# %%
found = inject(copy.deepcopy(clip.model), SerialLoRAConfig(rank=RANK, towers=["image"])).eval()
wanted = scores(merged["Serial LoRA, seed 1"])
for keep in (RANK, 3 * RANK // 4, RANK // 2, RANK // 4):
    for i, pair in enumerate(adapters(found).values()):
        product = torch.linalg.solve(before[3 * i], changes["Serial LoRA, seed 1"][3 * i])  # from q
        U, S, Vh = torch.linalg.svd(product)
        pair.lora_B.data = (U[:, :keep] * S[:keep]).float()  # (d, keep)
        pair.lora_A.data = Vh[:keep].float()  # (keep, d)
    now = scores(found)
    alike, off = (now.argmax(-1) == wanted.argmax(-1)).sum(), (now - wanted).abs().max()
    print(f"rank {keep:2}: {alike} of {len(now)} answers alike, cosines off by up to {off:.0e}")

# %% [markdown]
# The adapter is back: at rank 16 the cosines are the merged model's up to rounding. The matrices are not the ones that
# were lost, only their product is: multiply A by any invertible matrix and B by its inverse, and nothing changes.
#
# For this model half is enough: at rank 8 all 73 answers stay, at rank 4 only 67. The effective rank had hinted that sixteen are
# too many; where to stop, only answers tell.
#
# Many files are in half precision. Can one at least see the rank there? Round both, ask your function again, and look for the
# cliff itself: the largest fall from one value to the next.

# %%
for kind in (torch.float32, torch.float16, torch.bfloat16):
    rows = []  # of each matrix: its rank by two thresholds, its largest fall, and where that is
    for W, dW in zip(before, changes["Serial LoRA, seed 1"], strict=True):
        one, other = W.to(kind), (W + dW).to(kind)
        values = svdvals(other.double() - one.double())
        own = d * torch.finfo(kind).eps * svdvals(other.double())[0]  # this format's threshold
        fall, place = (values[:-1] / values[1:])[: d // 2].max(0)  # the last values fall too
        rows.append((rank_of(one.float(), other.float()), (values > own).sum(), fall, 1 + place))
    ranks, own_ranks, falls, cliffs = (torch.tensor(each) for each in zip(*rows, strict=True))
    print(f"{kind}: rank {ranks.min()} to {ranks.max()} by float32's eps,", end=" ")
    print(f"{own_ranks.min()} to {own_ranks.max()} by its own;", end=" ")
    print(f"largest fall, by {falls.min():,.0f} times or more, after value {set(cliffs.tolist())}")

# %% [markdown]
# In float16 and bfloat16 both thresholds fail: with float32's eps you count rounding, with the format's own you miss
# most of the adapter. The cliff still stands after value 16, in all 18 matrices. In bfloat16 it is low, and a smaller
# change could be lost; a full fine-tune need not leave any. Show the cliff to somebody who believes that merging
# hides how a model was tuned.
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
# **2. Serial LoRA at rank 16: what is the rank of the changes of q, k and v, stacked to (3d, d)? And for
# LoRA?**
#
# <details><summary>Answer</summary>
#
# At most 16 for Serial LoRA: all three have the same A on the right, so all rows lie in one space of 16 dimensions.
# Up to 48 for LoRA, which has three different A's.
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
# - Serial LoRA's q, k and v read one subspace; LoRA's read three.
# - Compare angles with the right chance, *and* with a second seed of the same method.
#
# Next: one base with [many adapters](11_many_adapters.ipynb) at once.
