# %% [markdown]
# # 01 · Low-rank maths
#
# **What you will be able to do**
#
# - read a matrix, and a *change* of a matrix, by its singular values, and say what a rank can hold;
# - write LoRA's pairs that do what a Serial LoRA pair does;
# - say what one pair in front of q, k and v cannot express, at any rank, and measure it on a real task;
# - derive the gradient of `B`, and say why equal learning rates are not equal steps.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import torch
from torch import Tensor

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l01_maths import pairs
from serial_lora_course.lessons.l01_maths.figures import plot_misses
from serial_lora_course.measures.lowrank import misses_by_method, tail_misses
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

lesson_card("01")

# %% [markdown]
# The lesson works on real matrices: W_q, W_k and W_v of one attention block of the tiny CLIP, and the
# gradients that a real task sends there. Run the next cell, after the imports, whenever you come back to
# the middle of the lesson; every section below needs nothing else.

# %%
from serial_lora_course.data.emoji import ATTRIBUTION
from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import load_clip

torch.manual_seed(0)
BLOCK = 2  # of the image tower's six; change this and run again
backbone = load_clip()
task = pairs.Task(backbone, load_classification("nature"))
weights = pairs.qkv_weights(backbone.model, BLOCK)  # part to W, (d, d)
d = len(weights["q"])

# %% [markdown]
# ## A matrix is a sum of layers
#
# The **rank** of a matrix is the number of rows that all its rows can be mixed from. At rank 1 every row is
# the same row, more of it here and less of it there: one column times one row. The **singular value
# decomposition** (SVD) writes any matrix as a sum of such layers,
#
# $$M = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0,$$
#
# where the columns $u_i$ have length one and are at right angles to each other, and the rows
# $v_i^\top$ too. The **singular value** $\sigma_i$ says how strong a layer is. Look at the first layers of
# a drawing, each with its column at its left and its row above it. Expect stripes and checkerboards: one
# column times one row can draw nothing else.

# %%
from serial_lora_course.lessons.l01_maths.figures import plot_layers

butterfly = pairs.grey_picture("butterfly")  # (64, 64), from 0, black, to 1, white
display_figure(plot_layers(butterfly, count=4))
print(ATTRIBUTION["openmoji"])

# %%
S = torch.linalg.svdvals(butterfly)  # (64,)
print(f"the first layer is {S[0] / S[1]:.1f} times as strong as the second")

# %% [markdown]
# **What this shows.** No layer looks like a butterfly, and the sum of four begins to.
#
# Now move the rank over the drawing's spectrum: how many layers until you would call it a butterfly, and
# how many until you see no difference? (Without a running kernel the panel stands still.)

# %%
from serial_lora_course.lessons.l01_maths.panel import rank_panel

panel = rank_panel({"butterfly": butterfly}, rank=4)

# %% [markdown]
# Is there a better matrix of rank r than the first r layers? No (Eckart and Young, 1936). And the distance
# needs no subtraction, as the layers that are left out are at right angles to those that stay:
#
# $$\frac{\lVert M - M_r\rVert}{\lVert M\rVert}
# = \sqrt{\frac{\sigma_{r+1}^2 + \sigma_{r+2}^2 + \dots}{\sigma_1^2 + \sigma_2^2 + \dots}},$$
#
# with the Frobenius norm, the root of the sum of all squared entries. This lesson calls that share the
# **miss**: 0 is a perfect match, 1 is no better than all zeros. The cell computes it both ways, and tries
# others: 200 random row spaces, each with the best column for every row.

# %%
rank = 4  # change this and run again
U, S, Vh = torch.linalg.svd(butterfly)  # (64, 64), (64,), (64, 64)
by_subtraction = (butterfly - (U[:, :rank] * S[:rank]) @ Vh[:rank]).norm() / butterfly.norm()
by_tail = (S[rank:].square().sum() / S.square().sum()).sqrt()

others = []
for _ in range(200):
    A = torch.randn(rank, 64)  # (r, n), a random row space
    B = torch.linalg.lstsq(A.T, butterfly.T).solution.T  # (m, r), the best that goes with it
    others.append(((butterfly - B @ A).norm() / butterfly.norm()).item())

# %%
print(
    f"miss at rank {rank}: {by_tail:.4%} by the values left out, {by_subtraction:.4%} by subtraction"
)
print(f"best of the random row spaces: {min(others):.0%}")

# %% [markdown]
# **What this shows.** Both ways give the same number. Of 200 random row spaces, each with the best
# columns that go with it, none comes near the first four layers.
#
# So one look at the singular values says what *every* rank would miss.

# %% [markdown]
# ### Exercise 1.1 · The rank that a miss allows
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# Return the smallest rank whose best approximation misses at most the given share. Use the singular
# values alone (`torch.linalg.svdvals`): no approximation has to be made. The check tries matrices
# whose singular values it chose, and both ends of the shares: a miss of 1 and a miss of 0.


# %% tags=["exercise"]
def rank_for_miss(matrix: Tensor, allowed: float) -> int:
    """The smallest rank r with ‖M - M_r‖ / ‖M‖ at most ``allowed``, in Frobenius norm.

    Args:
        matrix: (m, n), not all zero.
        allowed: a share from 0 to 1.
    """
    # BEGIN SOLUTION
    squares = torch.linalg.svdvals(matrix).square()  # (k,)
    for rank in range(len(squares)):
        if (squares[rank:].sum() / squares.sum()).sqrt() <= allowed:
            return rank
    return len(squares)
    # END SOLUTION


check("1.1", rank_for_miss)

# %% [markdown]
# <details><summary>Hint 1: what is missed at rank r</summary>
#
# With zero-based indices the layers that are left out have the singular values `S[r:]`. Their
# squares add up; take the root of the share at the end.
#
# </details>
# <details><summary>Hint 2: try the ranks in order</summary>
#
# Begin with rank 0, which misses everything, and return the first rank that is good enough. At the
# full rank nothing is missed.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# Which of these drawings needs the highest rank: a door, a butterfly, or a ruler that lies at a slant?

# %%
from serial_lora_course.plots.pictures import show_pictures

things = {name: pairs.grey_picture(name) for name in ("door", "butterfly", "straight ruler")}
figure = show_pictures(list(things.values()), list(things))
display_figure(figure, alt=f"Three drawings: {', '.join(things)}.")
curves = {name: tail_misses(picture) for name, picture in things.items()}
display_figure(plot_misses({"Three drawings": curves}, ranks=(1, 2, 4, 8, 16, 32)))

# %%
allowed, rank_needed = 0.05, yours("1.1")
needed = {f"the {name}": rank_needed(picture, allowed) for name, picture in things.items()}
print(f"rank to miss at most {allowed:.0%}, of 64:", needed)

# %% [markdown]
# **What this shows.** The door is four patterns. The straight ruler, which looks as simple, needs 21.
#
# The ruler is the simplest thing to describe and needs the highest rank: each of its rows is shifted a
# little, and a shifted row is a new row. Rank does not measure how simple a thing looks, but from how few
# rows all others can be mixed.

# %% [markdown]
# ## Are a model's weights of low rank?
#
# LoRA adds a matrix of low rank to a weight. People often explain that with "weights are of low rank
# anyway". See for yourself: W_q of one block, random numbers of the same size, and a *change*. The model
# meets a task that it was not trained for, nature's groups as OpenMoji draws them, and we ask for the
# gradient of the loss with respect to W_q. Apart from sign and length, that is the first change that full
# fine-tuning would make. Which of the three falls fastest?

# %%
wishes = task.gradients(BLOCK)  # part to the gradient of its weight, (d, d)
noise = torch.randn(d, d)
matrices = {"W_q": weights["q"], "random numbers": noise, "gradient for W_q": wishes["q"]}
curves = {name: tail_misses(matrix) for name, matrix in matrices.items()}
display_figure(plot_misses({f"Matrices of {d} x {d}": curves}, ranks=(1, 2, 4, 8, 16, 32, 64)))

# %%
allowed = 0.3  # change this and run again
rank_needed = yours("1.1")
needed = {name: rank_needed(matrix, allowed) for name, matrix in matrices.items()}
print(f"rank to miss at most {allowed:.0%}, of {d}:", needed)

# %% [markdown]
# **What this shows.** W_q is as full as noise. Its gradient is not: four directions are enough.
# LoRA's bet is about the *update*, not about the model.
#
# Where the *weight* needs nearly the rank of noise and the *change* needs little, LoRA does not assume that
# the model is simple, but that the difference is. A reason: the gradient of a weight is a sum over tokens,
# each a column times a row (what the loss wants of its output, times the token), and tokens resemble one
# another. It is one batch and one step, though; lesson 10 looks at adapters after training. Move the rank
# over the three spectra:

# %%
from serial_lora_course.lessons.l01_maths.panel import rank_panel

panel = rank_panel(matrices, rank=8)

# %% [markdown]
# ## A pair in front, or a pair beside each
#
# **LoRA** adds its own pair to each weight, **Serial LoRA** multiplies the tokens once, before the
# weights read them. With tokens as columns, and s for the scale:
#
# $$\text{LoRA: } W_p + s\,B_p A_p \qquad\qquad \text{Serial LoRA: } W_p\,(I + s\,BA) = W_p + s\,(W_p B)\,A,
# \qquad p \in \{q, k, v\}.$$
#
# The last form *is* LoRA, with particular pairs. (LoRA in the paper has a fourth pair, on the matrix `out`
# behind attention. Serial LoRA has nothing there, so this lesson compares q, k and v.)

# %% [markdown]
# ### Exercise 1.2 · LoRA's pairs that do the same
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# Given the frozen weights and one serial pair, return for each part the LoRA pair (A_p, B_p) of the
# same rank that changes its weight in the same way. The scale is the same for both methods, so it
# does not appear.


# %% tags=["exercise"]
def lora_pairs_of(
    weights: dict[str, Tensor], lora_A: Tensor, lora_B: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """The LoRA pairs with W_p + B_p A_p = W_p (I + B A).

    Args:
        weights: part to W_p, (out, d), as `nn.Linear` keeps it.
        lora_A: (r, d), the serial pair's A.
        lora_B: (d, r), the serial pair's B.

    Returns:
        part to (A_p, B_p), of shapes (r, d) and (out, r).
    """
    # BEGIN SOLUTION
    return {part: (lora_A, weight @ lora_B) for part, weight in weights.items()}
    # END SOLUTION


check("1.2", lora_pairs_of)

# %% [markdown]
# <details><summary>Hint 1: multiply out</summary>
#
# W (I + B A) = W + W B A. The second term has to be B_p A_p: set the brackets so that one factor is
# (out, r) and the other (r, d).
#
# </details>
# <details><summary>Hint 2: what is shared</summary>
#
# All parts have the same A_p. The B_p differ, because the weights differ.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# A proof by counting, on the real weights. Put the changes of q, k and v below one another, (3d, d): the
# rank of that stack says how many directions of a token the block reads in a new way. With own pairs of
# rank 4 it can be three times 4. With one pair, written as LoRA's by your function?

# %%
pairs_of = yours("1.2")

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
wide = {part: weight.double() for part, weight in weights.items()}
one = pairs_of(wide, *pairs.random_pair(4, d))
own = {part: pairs.random_pair(4, d) for part in "qkv"}
for title, three in (("one pair in front", one), ("a pair each", own)):
    stacked = torch.cat([B_p @ A_p for A_p, B_p in three.values()])  # (3d, d)
    print(f"rank of the stacked change, {title}:", torch.linalg.matrix_rank(stacked).item())

# %% [markdown]
# **What this shows.** One pair lets the block read as many new directions of a token as the pair has rank;
# own pairs, three times as many.
#
# Now as a picture, where a token has two numbers and a pair has rank 1. Above, each of q, k and v has a
# pair of its own. Below, one pair moves the tokens, and W_q, W_k and W_v read what it made of them. Arrows
# lead from before to after; dark means far. *Which* tokens move far, and *where to*?

# %%
from serial_lora_course.lessons.l01_maths.figures import plot_token_moves

flat, own_pairs, x = pairs.flat_world()  # weights (2, 2), pairs of rank 1, tokens (N, 2)
A, B = torch.tensor([[1.0, 0.3]]), torch.tensor([[0.2], [0.6]])  # change this and run again
moved = x + x @ A.T @ B.T  # (N, 2)
lora_row, serial_row = {"tokens x": (x, x)}, {"tokens x": (x, moved)}
for part, W in flat.items():
    A_p, B_p = own_pairs[part]
    lora_row[part] = (x @ W.T, x @ W.T + x @ A_p.T @ B_p.T)
    serial_row[part] = (x @ W.T, moved @ W.T)
formulas = {"lora": "LoRA:  W x + B A x", "serial_lora": "Serial LoRA:\nW (x + B A x)"}
display_figure(plot_token_moves({"lora": lora_row, "serial_lora": serial_row}, formulas))

# %% [markdown]
# **What this shows.** With own pairs different tokens are dark in each panel. With one pair the same tokens
# are dark everywhere. At rank 1 the row A decides how far a token moves, and the column B where to; each
# weight then turns the *same* move in its own way, so the direction in q decides those in k and v.

# %% [markdown]
# ## What one pair cannot express
#
# So a change (Δ_q, Δ_k, Δ_v) that Serial LoRA can make obeys two laws.
#
# 1. **One row space.** All three read the same r rows of `A`. Three changes of rank r on rows of their own
#    would need rank 3r.
# 2. **Tied columns.** Δ_p = W_p C with the *same* C = s B A. If W_q has an inverse, C = W_q⁻¹ Δ_q: choose
#    what q should do, and k and v follow. No rank changes that. To change q and leave k alone is out of reach:
#    W_k C = 0 means C = 0 if W_k has an inverse.
#
# For *one* projection the second law costs nothing: with B = W_q⁻¹ B_q Serial LoRA gives q any change that
# LoRA can give it. Do real weights have an inverse? A square matrix has one if its smallest singular value
# is not zero.

# %%
ends = {p: torch.linalg.svdvals(w.double())[[0, -1]].tolist() for p, w in weights.items()}
for p, (large, small) in ends.items():
    print(f"singular values of W_{p}: from {large:.2f} down to {small:.5f}")

# %% [markdown]
# **What this shows.** None is zero, so each weight has an inverse.
#
# The smallest are close to zero: there are directions that a weight almost erases. Only along those of W_k
# can a pair change q and leave k almost as it is.
#
# Call a change that one would like to make a *wish*. How close can Serial LoRA come to a wish that it cannot
# reach? Stack the weights to one tall W (3d, d) and the wishes to Δ (3d, d), and look for the C of rank r
# that makes ‖Δ − W C‖ smallest. Three steps:
#
# 1. W = Q R, with columns of Q (3d, d) that have length one and stand at right angles
#    (`torch.linalg.qr`), and R (d, d).
# 2. Whatever C is, W C lies in what Q spans. So only $Q^\top \Delta$ (d, d) can be met, and the miss is
#    that of $Q^\top \Delta - R C$.
# 3. R C may be any matrix of rank r, since R has an inverse as soon as one of the weights has. The best one
#    is the first r layers of $Q^\top \Delta$; then solve for C.

# %% [markdown]
# ### Exercise 1.3 · The nearest serial pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●● | ●●●○○ | 20 |
#
# Turn the three steps into a function that returns `A` and `B`, for a scale of 1. There are many right
# pairs; the check looks at the product W B A, and compares with a way that uses no QR.


# %% tags=["exercise"]
def nearest_serial_pair(
    weights: dict[str, Tensor], changes: dict[str, Tensor], rank: int
) -> tuple[Tensor, Tensor]:
    """The pair whose changes W_p B A are closest to the wanted ones, all parts together.

    Args:
        weights: part to W_p, (d, d).
        changes: the same parts to the wanted change of each, (d, d).
        rank: r.

    Returns:
        A (r, d) and B (d, r).
    """
    # BEGIN SOLUTION
    tall = torch.cat([weights[part] for part in weights])  # (3d, d)
    wanted = torch.cat([changes[part] for part in weights])  # (3d, d)
    Q, R = torch.linalg.qr(tall)  # (3d, d), (d, d)
    U, S, Vh = torch.linalg.svd(Q.T @ wanted)  # (d, d), (d,), (d, d)
    B = torch.linalg.solve(R, U[:, :rank] * S[:rank])  # (d, r)
    return Vh[:rank], B
    # END SOLUTION


check("1.3", nearest_serial_pair)

# %% [markdown]
# <details><summary>Hint 1: stack first</summary>
#
# `torch.cat([weights[part] for part in weights])` puts the weights below one another. Stack the
# changes in the same order.
#
# </details>
# <details><summary>Hint 2: from the layers to the pair</summary>
#
# With `U, S, Vh = torch.linalg.svd(Q.T @ wanted)` the best R C is `(U[:, :r] * S[:r]) @ Vh[:r]`. Take
# `Vh[:r]` as A; then R B must be `U[:, :r] * S[:r]`, which `torch.linalg.solve` turns into B.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# Now four wishes on the real weights, all made with rank 4. What do three families miss at best, at every
# rank? The black line obeys the first law alone: one `A` for all, and a free `B` for each. Which lines
# reach 0, and at which rank?

# %%
torch.manual_seed(0)
r = 4  # change this and run again
wide = {part: weight.double() for part, weight in weights.items()}
A, B = pairs.random_pair(r, d)
own = {part: pairs.random_pair(r, d) for part in "qkv"}
targets = {
    "shared": {part: wide[part] @ B @ A for part in "qkv"},
    "shared rows only": {part: B_p @ A for part, (_, B_p) in own.items()},
    "own pairs": {part: B_p @ A_p for part, (A_p, B_p) in own.items()},
    "q only": {part: (part == "q") * (B_p @ A_p) for part, (A_p, B_p) in own.items()},
}
misses = {name: misses_by_method(wide, changes) for name, changes in targets.items()}
display_figure(plot_misses(misses, ranks=(1, 2, 4, 8, 12, 32, 128)))
display_table(reached := pairs.first_ranks(misses))

# %% [markdown]
# **What this shows.** LoRA reaches every wish at rank 4, and one row space for q, k and v does at
# rank 12 at the latest. Serial LoRA reaches the shared wish alone. Of the other three it misses 82%,
# and no rank lifts that.
#
# The first law is a matter of rank: at three times their rank, one row space can express what own pairs do.
# The second is not: at full rank C has d² numbers, and a wish for three matrices has 3d². We call what is
# missed at full rank the *floor*; for random wishes it is near √(2/3).

# %% [markdown]
# ### And what does a real task wish for?
#
# Random wishes are unfair to a method that relies on q, k and v having something in common. So take the
# gradients of the nature task, and let your function find the pair.

# %%
nearest = yours("1.3")
rank, wishes = 8, task.gradients(BLOCK)  # change this and run again: another rank
A, B = nearest(weights, wishes, rank)
missed = torch.cat([wishes[p] - weights[p] @ B @ A for p in "qkv"]).norm()
miss = (missed / torch.cat(list(wishes.values())).norm()).item()

real = misses_by_method(weights, wishes)
display_figure(plot_misses({f"Gradients for q, k and v of block {BLOCK}": real}))
print(f"at rank {rank} your pair misses {miss:.0%}; LoRA {real['lora'][rank]:.0%}")

# %% [markdown]
# **What this shows.** At rank 8 LoRA misses 15% of what the loss asks for, and the serial pair 74%.
# At full rank it would still miss 72%. One shared row space (the black line) costs little.
#
# The rows of a gradient are mixed from tokens, and q, k and v read the same tokens: the first law is cheap.
# The second, the tie between the columns, is what costs. Still, the floor is below the √(2/3) ≈ 0.82 of
# random wishes. Do q, k and v want something in common? Turn one wish round, Δ_q to −Δ_q: if all three
# wanted the same C, the floor would rise. As a second control, mix the rows of each gradient at
# random, which destroys its relation to W.

# %%
floors = task.floors()
display_table(floors.map("{:.1%}".format).reset_index())

# %% [markdown]
# **What this shows.** Flipping a sign changes almost nothing. So q, k and v hardly agree on what to
# do with a token: sharing one pair is not free here. Mixing the rows brings the floor up to that of
# random wishes.
#
# Where turning hardly moves the floor, q, k and v have almost nothing in common in what they want done to a
# token; the floor is below that of random wishes because each gradient lies along directions in which its
# own W writes strongly.
#
# And a miss is not a failure. A task does not ask for one particular change, it asks for a low loss, and many
# changes give one. What other blocks can take over is not in this calculation, nor that attention uses q
# and k only through their products. Only training tells: lesson 04.

# %% [markdown]
# ## The gradient of B passes through W
#
# LoRA's `B` sits directly at the output of q, so the gradient that arrives at q arrives at `B`. Serial
# LoRA's `B` sits in front of the weights and collects from all three. Write G_p for the gradient of the loss
# at the output of projection p, one column a token. Then
#
# $$\frac{\partial L}{\partial B_p} = s\, G_p\, (A_p x)^\top
# \qquad\qquad
# \frac{\partial L}{\partial B} = s \sum_{p \in \{q,k,v\}} W_p^\top G_p\, (A x)^\top .$$
#
# $G_p x^\top$, summed over tokens, is the gradient of the full weight W_p: call it g_p (d, d). So for LoRA
# $\partial L / \partial B_p = s\, g_p A_p^\top$, without any token. For Serial LoRA it is your turn.

# %% [markdown]
# ### Exercise 1.4 · The gradient of B by hand
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Return ∂L/∂B from the weights, their full gradients, `A` and the scale, while B is zero. The check
# builds an attention with softmax, lets autograd differentiate it, and compares.


# %% tags=["exercise"]
def serial_gradient_of_B(
    weights: dict[str, Tensor], gradients: dict[str, Tensor], lora_A: Tensor, scale: float
) -> Tensor:
    """The gradient of a serial pair's B, at B = 0.

    Args:
        weights: part to W_p, (out, d).
        gradients: the same parts to the gradient of the loss for W_p, (out, d).
        lora_A: (r, d).
        scale: s.

    Returns:
        (d, r).
    """
    # BEGIN SOLUTION
    arriving = sum(weights[part].T @ gradients[part] for part in weights)  # (d, d)
    return scale * arriving @ lora_A.T  # (d, r)
    # END SOLUTION


check("1.4", serial_gradient_of_B)

# %% [markdown]
# <details><summary>Hint 1: follow one small step of B</summary>
#
# If B becomes B + E, then W_p changes by s W_p E A. The loss changes by the sum over all entries of
# gradient times change, for each part: $\sum_p \langle g_p,\; s\,W_p E A\rangle$.
#
# </details>
# <details><summary>Hint 2: bring E to the front</summary>
#
# ⟨g, W E A⟩ = ⟨Wᵀ g Aᵀ, E⟩: factors change sides as transposes. The shape test: (d, out) times
# (out, d) times (d, r).
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# Does it hold in the real CLIP, with all its norms, blocks and the text tower behind? The cell injects
# adapters, runs the task's loss backwards, and compares what autograd left in `lora_B` with your function.

# %%
from serial_lora import SerialLoRAConfig, adapters, inject

gradient_of = yours("1.4")
torch.manual_seed(0)
adapted = inject(task.copy(), SerialLoRAConfig(rank=8, towers=["image"]))
task.backward(adapted)
pair = list(adapters(adapted).values())[BLOCK]
by_hand = gradient_of(weights, task.gradients(BLOCK), pair.lora_A.detach(), 1.0)  # (d, r)
difference = (by_hand - pair.lora_B.grad).norm() / pair.lora_B.grad.norm()
print(f"by hand and by autograd differ by {difference:.1g} of the gradient's size")

# %% [markdown]
# After one step of gradient descent with learning rate η, W_q has moved by
#
# $$\text{LoRA: } -\eta s^2\, g_q A_q^\top A_q
# \qquad\qquad
# \text{Serial LoRA: } -\eta s^2\, W_q \left(W_q^\top g_q + W_k^\top g_k + W_v^\top g_v\right) A^\top A .$$
#
# Its own wish g_q arrives as $W_q W_q^\top g_q$: **stretched by the squares of the singular values**, so strong
# directions of W move most. And what k and v wish for is mixed in. So with *equal* learning rates the two
# methods do *not* take equal steps.
#
# By what factor do they differ? There is no fixed factor. Halve the weights and biases of the norm in front
# of attention and double W_q, W_k and W_v: the model computes the same. The cell does that to every block of
# the image tower, with three multiples, takes one step with each method and each of two optimizers, and
# says how far q, k and v of one block moved, relative to their size.

# %%
rates = {"SGD": 0.1, "Adam": 1e-3}  # change this and run again
moved = task.first_steps(rates)
shown = moved.filter(like="W times").map("{:.3%}".format)
losses = moved.filter(like="loss before").map("{:.4f}".format)
display_table(shown.join(losses).reset_index())

# %% [markdown]
# **What this shows.** One and the same function, with W four times as large at the right as at the
# left. Under SGD LoRA's first step is sixteen times as large at one end as at the other, under Adam
# four times. Serial LoRA's is the same everywhere: its pair stands in front of W and is stretched
# with it.
#
# The least and the largest loss before the step are equal: it *is* the same model in every column. Serial
# LoRA's `B` is a *relative* change,
# W (I + B A), so the size of W cancels. LoRA's `B` has the unit of W: with gradient descent the relative step
# falls with the square of W's size, with Adam with W's size. So a comparison that gives both methods the
# same rate compares two different things. Lesson 07 gives `A` and `B` rates of their own.

# %% [markdown]
# ## Quiz
#
# **1. A picture is white with one black line from corner to corner, at 45 degrees. What rank does it
# need, and what if the line is horizontal?**
#
# <details><summary>Answer</summary>
#
# The slanting line needs the full rank: every row has its black pixel elsewhere, so no row can be mixed
# from others. The horizontal one has rank 1: with white as 1 and black as 0, every row is the white
# row, all of it or nothing of it.
#
# </details>
#
# **2. Somebody wants q and v adapted and k left alone, as LoRA often does. Can Serial LoRA do that with
# a high enough rank?**
#
# <details><summary>Answer</summary>
#
# No. Leaving k alone means W_k C = 0, and W_k has an inverse, so C = 0. It can only move tokens along
# directions that W_k nearly erases. (With a pair in front of q and v alone it would be possible. That
# is another method.)
#
# </details>
#
# **3. You multiply the scale s by 2 and keep everything else, optimizer included. What happens to the
# first step of the weights, with gradient descent and with Adam?**
#
# <details><summary>Answer</summary>
#
# The gradient of `B` has a factor s, and the change W (s B A) has another. With gradient descent the
# weights move 4 times as far. Adam's first step does not depend on the size of the gradient, so there
# they move 2 times as far. Scale and learning rate are not independent.
#
# </details>

# %% [markdown]
# ## Key points
#
# - A matrix is a sum of layers, one column times one row each. The first r are the best of rank r, and
#   the singular values after them say what is missed.
# - The weights looked at here are not of low rank; the change that a task asks for at first is.
# - Serial LoRA is LoRA with a shared A and B_p = W_p B. One row space costs rank; the tied columns are
#   a limit that no rank lifts. A limit on what can be imitated is not yet a limit on the loss.
# - The gradient of the serial B passes through Wᵀ and gathers q, k and v. Equal learning rates are not
#   equal steps: try several for each method.

# %% [markdown]
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": equations (4) and (5) put W + B A and W (I + B A)
# side by side; section II-D calls the second a LoRA with the weight as its basis, and says that both
# behave differently in training ("Non-equivalent Dynamic"). The paper does not say what a shared pair
# cannot express, and gives both methods the same learning rate. The gradient is worked out here; the best
# approximation is Eckart and Young's (Psychometrika, 1936).
#
# Next: [02 · The parameter count, proved](02_parameter_count.ipynb).
