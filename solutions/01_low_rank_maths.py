# %% [markdown]
# # 01 · Low-rank maths
#
# **What you will be able to do**
#
# - read a matrix, and a *change* of a matrix, by its singular values, and say what a rank can hold;
# - write LoRA's pairs that do what a Serial LoRA pair does;
# - say what one pair in front of q, k and v cannot express, at any rank, and measure how much of a
#   real task's wish that is;
# - derive the gradient of `B`, and say why equal learning rates are not equal steps;
# - merge a pair into the weights, and undo it by calculation, and know when not to.

# %% tags=["setup"]
# Where the course is missing, its folder around this notebook is installed; nothing is downgraded.
import os
import subprocess
import sys
from importlib import metadata, util

if util.find_spec("serial_lora_course") is None:
    project = "../pyproject.toml"
    if not os.path.isfile(project) or b'name = "serial-lora"' not in open(project, "rb").read():
        raise FileNotFoundError("Get the course's whole folder, and open this in its notebooks/.")
    frozen = ("torch", "torchvision", "torchaudio", "numpy")
    with open("already_installed.txt", "w") as constraints:
        for name, version in {(d.metadata["Name"], d.version) for d in metadata.distributions()}:
            keep = f"=={version}" if name in frozen else f">={version.split('+')[0]}"
            print(f"{name}{keep}", file=constraints)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "already_installed.txt"]
    subprocess.run([*pip, "..[course]"], check=True)

# %%
import copy

import ipywidgets
import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import Tensor, nn

from serial_lora import LoRAConfig, SerialLoRAConfig, adapter_parameters, adapters, inject, merge
from serial_lora.attention import find_attention_sites
from serial_lora.lowrank import misses_by_method, tail_misses, undo_merged_weight
from serial_lora_course.checks import check, lesson_card, yours
from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.data.registry import load_classification
from serial_lora_course.figures.lowrank import plot_layers, plot_misses, plot_token_moves
from serial_lora_course.figures.pictures import show_pictures
from serial_lora_course.figures.style import display_figure
from serial_lora_course.figures.tables import display_table
from serial_lora_course.frontend import is_static
from serial_lora_course.labs.clip import CLIPObjective
from serial_lora_course.models.clip import load_clip

torch.manual_seed(0)
lesson_card("01")

# %% [markdown]
# The lesson works on real matrices: the weights W_q, W_k and W_v of one attention block of the tiny
# CLIP, and the gradients that a real task sends there. The next cell reads them. Run it,
# after the imports, whenever you come back to the middle of the lesson; every section below needs
# nothing else.

# %%
BLOCK = 2  # which attention block of the image tower
backbone, data = load_clip(), load_classification("nature")
openmoji = load_emoji("openmoji")


def read_qkv(model: nn.Module, block: int = BLOCK, gradient: bool = False) -> dict[str, Tensor]:
    """The weights of q, k and v in a block of the image tower, or their gradients: (d, d) each."""
    (site,) = find_attention_sites(model, towers=["image"], blocks=[block])
    read = {}
    for part in "qkv":
        projection = site.projections[part]
        whole = projection.weight(model)
        whole = whole.grad if gradient else whole.detach()
        read[part] = whole[projection.row_slice].clone()
    return read


def backward(model: nn.Module, every: int = 2) -> Tensor:
    """The task's loss on every so-many-th training picture; leaves its gradients in the model."""
    chosen = [data.train[i] for i in range(0, len(data.train), every)]
    pictures = torch.stack([backbone.test_transform(picture) for picture, _ in chosen])
    labels = torch.tensor([label for _, label in chosen])
    loss = CLIPObjective(model, backbone.tokenizer(data.prompts()))((pictures, labels))
    loss.backward()
    return loss.detach()


# %% [markdown]
# ## A matrix is a sum of layers
#
# The **rank** of a matrix is how many rows it takes to mix all its rows from. At rank 1 every row is
# the same row, more of it here and less of it there: one column times one row. The **singular value
# decomposition** (SVD) writes any matrix as a sum of such layers,
#
# $$M = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0,$$
#
# where the columns $u_i$ have length one and are at right angles to each other, and the rows
# $v_i^\top$ too. The **singular value** $\sigma_i$ says how strong a layer is. Lesson 00 kept the first
# few layers of an owl, and called them patterns; now look at the layers themselves. Each has its
# column drawn at its left and its row above it. Expect bars and checks: one column times one row can
# draw nothing else.


# %%
def grey_picture(name: str) -> Tensor:
    """A drawing as numbers from 0, black, to 1, white: (64, 64)."""
    drawing = openmoji.picture(openmoji.names.index(name)).convert("L")
    return (
        torch.frombuffer(bytearray(drawing.tobytes()), dtype=torch.uint8).view(64, 64).float() / 255
    )


butterfly = grey_picture("butterfly")  # (64, 64)
display_figure(plot_layers(butterfly, count=4))
print(ATTRIBUTION["openmoji"])

# %% [markdown]
# **What this shows.** The strongest layer is hardly more than "bright, and darker in the middle". No
# layer looks like a butterfly; their sum begins to. And each layer is smaller than the one before.
#
# Move the rank yourself: how many layers until you would call it a butterfly, and how many until you
# see no difference? (Without a running kernel you see some ranks side by side.)

# %%
U, S, Vh = torch.linalg.svd(butterfly)  # (64, 64), (64,), (64, 64)


def first_layers(rank: int) -> Tensor:
    """The sum of the butterfly's first layers, as a grey picture: (64, 64)."""
    return ((U[:, :rank] * S[:rank]) @ Vh[:rank]).clamp(0, 1)


def show_rank(rank: int) -> None:
    figure = show_pictures(
        [first_layers(rank), butterfly], [f"rank {rank}", "all layers"], size=2.4
    )
    display_figure(figure, caption=False)


if is_static():
    ranks = (1, 2, 4, 8, 16, 32)
    figure = show_pictures([first_layers(r) for r in ranks], [f"rank {r}" for r in ranks])
    words = f"The butterfly as the sum of its first {', '.join(map(str, ranks))} layers."
    display_figure(figure, alt=words, caption=False)
else:
    ipywidgets.interact(show_rank, rank=ipywidgets.IntSlider(4, 1, 64, continuous_update=False))

# %% [markdown]
# Is there a better matrix of rank r than the first r layers? No: Eckart and Young proved in 1936 that
# none comes closer. And the distance needs no subtraction, as the layers that are left out are at
# right angles to those that stay:
#
# $$\frac{\lVert M - M_r\rVert}{\lVert M\rVert}
# = \sqrt{\frac{\sigma_{r+1}^2 + \sigma_{r+2}^2 + \dots}{\sigma_1^2 + \sigma_2^2 + \dots}},$$
#
# with the Frobenius norm, the root of the sum of all squared entries. This lesson calls that share
# the **miss**: 0 is reached, 1 is no better than nothing. The cell computes it both ways, and lets
# a rival try: 200 random row spaces, each with the best column for every row of it. Expect two equal
# numbers, and a rival that never gets below them.

# %%
rank = 4
by_subtraction = (butterfly - (U[:, :rank] * S[:rank]) @ Vh[:rank]).norm() / butterfly.norm()
by_tail = (S[rank:].square().sum() / S.square().sum()).sqrt()

rivals = []
for _ in range(200):
    A = torch.randn(rank, 64)  # (r, n), a random row space
    B = torch.linalg.lstsq(A.T, butterfly.T).solution.T  # (m, r), the best that goes with it
    rivals.append(((butterfly - B @ A).norm() / butterfly.norm()).item())
print(
    f"subtracted {by_subtraction:.6f}   from the tail {by_tail:.6f}   best rival {min(rivals):.3f}"
)

# %% [markdown]
# **What this shows.** The tail of the singular values is the miss, and nothing of the same rank beats
# it. From now on one look at the singular values answers "what rank would do?" for *every* rank.

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
# Which of these three drawings needs the highest rank: a door, a butterfly, or a ruler that lies
# slantwise? Decide before you run the cell.

# %%
things = {name: grey_picture(name) for name in ("door", "butterfly", "straight ruler")}
figure = show_pictures(list(things.values()), list(things))
display_figure(figure, alt=f"Three drawings: {', '.join(things)}.", caption=False)
curves = {name: tail_misses(picture) for name, picture in things.items()}
display_figure(plot_misses({"Three drawings": curves}, ranks=(1, 2, 4, 8, 16, 32)))
print(ATTRIBUTION["openmoji"])

# %% [markdown]
# **What this shows.** The door is cheap: its rows are copies of a few rows. The ruler is the simplest
# thing to describe and the dearest to draw, because each of its rows is shifted a little, and a
# shifted row is a new row. Rank does not measure how simple a thing looks; it measures how far its
# rows can be mixed from few.

# %% [markdown]
# ## Are a model's weights of low rank?
#
# LoRA adds a matrix of low rank to a weight. People often explain that with "weights are of low rank
# anyway". See for yourself. The cell reads W_q of one attention block of the pretrained tiny CLIP,
# and compares it with random numbers of the same size.
#
# And with a third matrix: a *change*. We show the model some drawings of a task that it was not
# trained for, nature's groups in OpenMoji's hand, and ask for the gradient of the loss with respect
# to W_q. Apart from its sign and length, that is the first change that full fine-tuning by gradient
# descent would make. Which of the three falls fastest?

# %%
model = copy.deepcopy(backbone.model)
print(f"loss on the task before any change: {backward(model):.2f}")
weights, wishes = read_qkv(model), read_qkv(model, gradient=True)  # (d, d) each

d = len(weights["q"])
matrices = {
    "W_q": weights["q"],
    "random numbers": torch.randn(d, d),
    "gradient for W_q": wishes["q"],
}
curves = {name: tail_misses(matrix) for name, matrix in matrices.items()}
display_figure(plot_misses({f"Matrices of {d} x {d}": curves}, ranks=(1, 2, 4, 8, 16, 32, 64)))

# %%
rank_needed = yours("1.1", lambda matrix, allowed: int((tail_misses(matrix) > allowed).sum()))
needed = {name: rank_needed(matrix, 0.3) for name, matrix in matrices.items()}
display(
    Markdown(
        f"**What this shows.** To miss no more than 30%, W_q needs rank {needed['W_q']} of {d}, random "
        f"numbers need {needed['random numbers']}, and the gradient needs "
        f"{needed['gradient for W_q']}. The "
        "*weight* is nearly as far from low rank as noise is. The *change* that the task asks for is of "
        "low rank. That is LoRA's bet: not that the model is simple, but that the difference is."
    )
)

# %% [markdown]
# A reason is at hand. The gradient of a weight is a sum over tokens, and each token contributes one
# column times one row: what the loss wants of its output, times the token itself. Tokens resemble one
# another, so many such layers fall together.
#
# Be careful with how much this says. It is one batch and one step, and a gradient is not yet what
# training ends with; lesson 08 looks at adapters after training. But it is a real task's wish on real
# weights, and we shall come back to it.

# %% [markdown]
# ## A pair in front, or a pair beside each
#
# **LoRA** adds its own pair to each weight, **Serial LoRA** multiplies the tokens once, before the
# weights read them. With tokens as columns, and s for the scale:
#
# $$\text{LoRA: } W_p + s\,B_p A_p \qquad\qquad \text{Serial LoRA: } W_p\,(I + s\,BA) = W_p + s\,(W_p B)\,A,
# \qquad p \in \{q, k, v\}.$$
#
# Read the last form again: it *is* LoRA, with particular pairs. Which ones is for you to say. (LoRA in
# the paper has a fourth pair, on the matrix `out` behind attention. Serial LoRA has nothing there, so
# this lesson compares q, k and v.)

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
# A proof by counting, on the real weights. Put the changes of q, k and v below one another, (3d, d):
# the rank of that stack says how many directions of a token the block listens to in a new way. With
# own pairs of rank 4 it can be three times 4. With one pair?

# %% tags=["nbval-check-output"]
weights = {part: weight.double() for part, weight in read_qkv(backbone.model).items()}
d, r = len(weights["q"]), 4
torch.manual_seed(0)
A, B = torch.randn(r, d).double(), torch.randn(d, r).double()

serial = torch.cat([weights[part] @ B @ A for part in "qkv"])  # (3d, d)
lora = torch.cat([torch.randn(d, r).double() @ torch.randn(r, d).double() for _ in "qkv"])
print("rank of the stacked change, Serial LoRA:", torch.linalg.matrix_rank(serial).item())
print("rank of the stacked change, LoRA:       ", torch.linalg.matrix_rank(lora).item())

# %% [markdown]
# Now the same as a picture, in a world where a token has two numbers and a pair has rank 1. Ten
# tokens stand on a circle. In the upper row each of q, k and v has a pair of its own. In the lower row
# one pair moves the tokens, and W_q, W_k and W_v look at what it made of them. Arrows lead from where
# a token was to where it is; dark means far. Compare two things between the panels of a row: *which*
# tokens move far, and *where to*.

# %%
flat = {
    "q": torch.tensor([[1.0, -0.3], [0.6, 0.8]]),
    "k": torch.tensor([[-0.5, -0.6], [0.6, -0.8]]),
    "v": torch.tensor([[0.5, 1.2], [-0.8, -0.2]]),
}  # (2, 2) each
own_pairs = {  # (A_p, B_p), of shapes (1, 2) and (2, 1)
    "q": (torch.tensor([[1.0, 0.3]]), torch.tensor([[0.5], [0.3]])),
    "k": (torch.tensor([[-0.2, 1.0]]), torch.tensor([[0.6], [-0.2]])),
    "v": (torch.tensor([[0.7, -0.7]]), torch.tensor([[0.0], [0.6]])),
}
A, B = torch.tensor([[1.0, 0.3]]), torch.tensor([[0.2], [0.6]])  # (1, 2), (2, 1)
angles = torch.arange(10) * 2 * torch.pi / 10
x = torch.stack([angles.cos(), angles.sin()], dim=1)  # (N, 2)
moved = x + x @ A.T @ B.T  # (N, 2)

lora_row, serial_row = {"tokens x": (x, x)}, {"tokens x": (x, moved)}
for part, W in flat.items():
    A_p, B_p = own_pairs[part]
    lora_row[part] = (x @ W.T, x @ W.T + x @ A_p.T @ B_p.T)
    serial_row[part] = (x @ W.T, moved @ W.T)
formulas = {
    "lora": "LoRA:  W x + B A x,\na pair each",
    "serial_lora": "Serial LoRA:\nW (x + B A x)",
}
display_figure(plot_token_moves({"lora": lora_row, "serial_lora": serial_row}, formulas))

# %% [markdown]
# **What this shows.** A pair of rank 1 has one question, its row A, and one answer, its column B. How
# far a token moves is how much of A is in it; where it moves to is B. With own pairs the three
# projections ask three questions: different tokens are dark in each panel. With one pair they share
# the question, so the same tokens are dark everywhere. And they share the answer: the token moves
# once, and each weight turns that *same* move in its own way. The direction in q decides the
# direction in k and v.

# %% [markdown]
# ## What one pair cannot say
#
# So a change (Δ_q, Δ_k, Δ_v) that Serial LoRA can make obeys two laws, and it pays to keep them apart.
#
# 1. **One row space.** All three listen to the same r rows of `A`. A wish with a rank-r change in
#    each, on rows of their own, has a stack of rank 3r. With one row space that costs rank 3r.
# 2. **Tied columns.** Δ_p = W_p C with the *same* C = s B A. If W_q has an inverse, then
#    C = W_q⁻¹ Δ_q: choose what q shall do, and k and v follow. No rank mends that. In particular, the
#    smallest wish one can think of, change q and leave k and v, is out of reach for good: leaving k
#    means W_k C = 0, so C = 0 if W_k has an inverse.
#
# The other way round there is good news: for *one* projection the second law costs nothing. With
# B = W_q⁻¹ B_q Serial LoRA gives q any change that LoRA can give it.
#
# Do real weights have an inverse? A square matrix has one if its smallest singular value is not zero.

# %%
weights = read_qkv(backbone.model)
for part, weight in weights.items():
    values = torch.linalg.svdvals(weight.double())
    print(
        f"W_{part}: largest {values[0]:.2f}, middle {values[len(values) // 2]:.2f}, "
        f"smallest {values[-1]:.5f}"
    )

# %% [markdown]
# **What this shows.** They have inverses, all three, though the smallest values are close to zero:
# there are directions that a weight almost erases. So "never" above is exact, and there are small
# escapes: a pair may move tokens along what W_k and W_v hardly see.
#
# How close can Serial LoRA come to a wish that it cannot reach? That has an exact answer too, without
# any training. Stack the weights to one tall W (3d, d) and the wishes to Δ (3d, d), and look for the C
# of rank r that makes ‖Δ − W C‖ smallest. Three steps:
#
# 1. W = Q R, with columns of Q (3d, d) that have length one and stand at right angles
#    (`torch.linalg.qr`), and R (d, d).
# 2. Whatever C is, W C lies in what Q spans. So only $Q^\top \Delta$ (d, d) can be met, and the miss is
#    that of $Q^\top \Delta - R C$.
# 3. R C may be any matrix of rank r, since R has an inverse as soon as one of the three weights
#    has. The best one is the first r layers of $Q^\top \Delta$; then solve for C.

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
# Now four wishes, all made with rank 4, on the real weights:
#
# - **shared**: Δ_p = W_p B A. Made for Serial LoRA.
# - **shared rows only**: Δ_p = B_p A. The first law holds, the second does not.
# - **own pairs**: Δ_p = B_p A_p. Made for LoRA.
# - **q only**: Δ_q = B_q A_q, and nothing for k and v.
#
# For each we ask what three families miss at best, at every rank. The black line obeys the first law
# alone: one `A` for all, and a free `B` for each. It lies between the two methods, or on top of one
# where they agree; the table below the figure tells them apart. Before you look: which lines reach 0,
# and at which rank?

# %%
torch.manual_seed(0)
weights = {part: weight.double() for part, weight in read_qkv(backbone.model).items()}
d, r = len(weights["q"]), 4


def draw_pair() -> tuple[Tensor, Tensor]:
    return torch.randn(r, d).double(), torch.randn(d, r).double()  # (r, d), (d, r)


A, B = draw_pair()
own = {part: draw_pair() for part in "qkv"}
targets = {
    "shared": {part: weights[part] @ B @ A for part in "qkv"},
    "shared rows only": {part: B_p @ A for part, (_, B_p) in own.items()},
    "own pairs": {part: B_p @ A_p for part, (A_p, B_p) in own.items()},
    "q only": {part: (part == "q") * (B_p @ A_p) for part, (A_p, B_p) in own.items()},
}
misses = {name: misses_by_method(weights, changes) for name, changes in targets.items()}
display_figure(plot_misses(misses, ranks=(1, 2, 4, 8, 12, 32, 128)))

# %%
rows = [
    {
        "wish, made with rank 4": name,
        **{
            title: next((rank for rank, miss in enumerate(curve) if miss < 1e-6), "never")
            for title, curve in zip(
                ("LoRA reaches it at rank", "one row space", "Serial LoRA"),
                curves.values(),
                strict=True,
            )
        },
        "Serial LoRA at full rank misses": f"{curves['serial_lora'][-1]:.0%}",
    }
    for name, curves in misses.items()
]
display_table(pd.DataFrame(rows))
display(
    Markdown(
        f"At rank {r}, Serial LoRA's pair has {2 * d * r:,} numbers here, LoRA's three have "
        f"{6 * d * r:,}, and {8 * d * r:,} with the pair on `out` that the paper's LoRA has too."
    )
)

# %% [markdown]
# **What this shows.** The shared wish is reached by both at rank 4, and Serial LoRA pays a quarter of
# what the paper's LoRA pays in a block. The first law alone is a matter of rank: one row space meets own
# pairs at three times the rank. The second law is not a matter of rank. A larger pair helps for a
# while, and then Serial LoRA stands at its floor: with full rank, C has d² numbers, and a wish for
# three matrices has 3d². For random wishes the floor is near √(2/3).

# %% [markdown]
# ### And what does a real task wish for?
#
# Random wishes are unfair to a method that counts on q, k and v having something in common. So take
# the gradients of the nature task again, this time for the q, k and v of one block, and ask the same
# question. If the three have something in common, both orange and black should fare better than they
# did with own pairs.

# %%
model = copy.deepcopy(backbone.model)
backward(model)
real = misses_by_method(read_qkv(model), read_qkv(model, gradient=True))
display_figure(plot_misses({f"Gradients for q, k and v of block {BLOCK}": real}))

lora, one_space, serial = real.values()
same = int((one_space > lora[8]).sum())
display(
    Markdown(
        f"**What this shows.** LoRA at rank 8 misses {lora[8]:.0%}. One row space is as good at rank "
        f"{same}, where wishes with nothing in common would need up to 24: the three listen to much the "
        "same directions. No wonder, as the rows of a gradient are mixed from tokens, and all three read "
        "the same tokens. The first law is cheap here. Serial LoRA at rank 8 misses "
        f"{serial[8]:.0%} and has almost reached its floor, {serial[-1]:.0%}. So the second law, the tie "
        "between the columns, is what costs, and more rank does not help."
    )
)

# %% [markdown]
# The floor is still below the √(2/3) ≈ 0.82 of random wishes. Is *that* something in common? A
# tempting conclusion, so test it. Turn one of the three wishes round, Δ_q to −Δ_q. If q, k and v
# wanted the same change C of the tokens, the turned one would now pull against the others, and the
# floor would rise. As a second control, mix the rows of each gradient at random (an orthogonal matrix
# from the left), which keeps its singular values and the directions that it listens to, and loses how it
# lies to W.


# %%
def floor_of(weights: dict[str, Tensor], changes: dict[str, Tensor], turned: str = "") -> float:
    """What Serial LoRA misses at full rank, with the wish of one part turned round."""
    signed = {part: -change if part == turned else change for part, change in changes.items()}
    return misses_by_method(weights, signed)["serial_lora"][-1].item()


torch.manual_seed(0)
floors = []
for block in range(len(find_attention_sites(model, towers=["image"]))):
    weights, wishes = read_qkv(model, block), read_qkv(model, block, gradient=True)
    row = {"block": f"{block}", "as it is": floor_of(weights, wishes)}
    row |= {f"{part} turned": floor_of(weights, wishes, turned=part) for part in "qkv"}
    mixed = {p: torch.linalg.qr(torch.randn_like(g)).Q @ g for p, g in wishes.items()}
    floors.append(row | {"rows mixed": floor_of(weights, mixed)})
table = pd.DataFrame(floors).set_index("block")
display_table(table.map("{:.1%}".format).reset_index())

# %%
turned = table[[f"{part} turned" for part in "qkv"]].sub(table["as it is"], axis=0)
floor = torch.tensor(table["as it is"].mean())
display(
    Markdown(
        f"**What this shows.** Turning a wish moves the floor by {100 * turned.min().min():+.1f} to "
        f"{100 * turned.max().max():+.1f} points, {100 * turned.mean().mean():+.1f} on average. So in this "
        "first gradient of this small model the three have next to nothing in common in what they want done "
        "to a token. The floor is low because of how each gradient lies to its own weight, along directions "
        f"in which W writes strongly; mixing the rows brings it to {table['rows mixed'].mean():.0%}.\n\n"
        f"But a miss is not a failure. The part that Serial LoRA *can* express makes an angle of "
        f"{torch.rad2deg(torch.asin(floor)):.0f} degrees with the wish, and a step of the same length along "
        f"it lowers the loss at first {(1 - floor.item() ** 2) ** 0.5:.0%} as fast as the wish itself would."
    )
)

# %% [markdown]
# That is the honest reading of this section. Serial LoRA cannot *imitate* an arbitrary change, and no
# rank will make it. Whether that matters is another question: a task does not ask for one particular
# change, it asks for a low loss, and many changes give one. What other blocks can take over is not in
# this calculation, and neither is that attention uses q and k only through their products. Only
# training tells, and lesson 04 lets both methods train.

# %% [markdown]
# ## Why B starts at zero
#
# Training starts from a product B A, and there are four simple ways to start: each matrix random or
# zero. The cell tries them with real weights and a made-up loss. Three numbers decide: how far the
# fresh adapter already moves the output (it should be 0: the model is worth keeping), and the
# gradients of `A` and `B` (if both are 0, nothing will ever move).

# %%
torch.manual_seed(0)
W = torch.cat(list(read_qkv(backbone.model).values()))  # (3d, d)
d, r = W.shape[1], 4
x, wanted = torch.randn(50, d), torch.randn(50, 3 * d)  # (N, d), (N, 3d)
draws = {"random": lambda *shape: torch.randn(*shape) / d**0.5, "zero": torch.zeros}

rows = []
for start_A in draws:
    for start_B in draws:
        A = draws[start_A](r, d).requires_grad_()  # (r, d)
        B = draws[start_B](d, r).requires_grad_()  # (d, r)
        output = (x + x @ A.T @ B.T) @ W.T  # (N, 3d)
        (output - wanted).square().mean().backward()
        change = ((output - x @ W.T).norm() / (x @ W.T).norm()).item()
        sizes = [f"{value:.3f}" for value in (change, A.grad.norm().item(), B.grad.norm().item())]
        rows.append((start_A, start_B, *sizes))
columns = ["A starts", "B starts", "output moved by", "gradient of A", "gradient of B"]
display_table(pd.DataFrame(rows, columns=columns))

# %% [markdown]
# **What this shows.** Both random: the fresh adapter already disturbs the model. Both zero: no gradient,
# since each gradient has the other matrix as a factor. One of each is what works, and which of the
# two is zero is a choice. LoRA's authors and the paper take B = 0: then `A` picks random questions at
# first, and `B` learns the answers from the very first step.

# %% [markdown]
# ## The gradient of B passes through W
#
# Here the two methods part for good. Take LoRA's pair beside W_q. Its `B` sits directly at the output
# of q, so the gradient that arrives at q arrives at `B`. Serial LoRA's `B` sits *behind* the weights,
# seen from the loss, and collects from all three. Write G_p for the gradient of the loss at the output
# of projection p, one column a token. Then
#
# $$\frac{\partial L}{\partial B_p} = s\, G_p\, (A_p x)^\top
# \qquad\qquad
# \frac{\partial L}{\partial B} = s \sum_{p \in \{q,k,v\}} W_p^\top G_p\, (A x)^\top .$$
#
# The product $G_p x^\top$, summed over tokens, is the gradient of the full weight W_p. Call it g_p
# (d, d): it is what you plotted above. So both are short to write without any token:
# $\partial L / \partial B_p = s\, g_p A_p^\top$ for LoRA. For Serial LoRA it is your turn.

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
# Does it hold in the real CLIP, with all its norms, blocks and the text tower behind? The solved lesson
# tries it: it injects adapters, runs the task's loss backwards, and compares the gradient that
# autograd left in `lora_B` with the formula in the same block. They agree to rounding. If your function
# passed the check, do the same with it in a cell of your own: `backward` and `read_qkv` are there.

# %% tags=["solution-only"]
torch.manual_seed(0)
adapted = inject(copy.deepcopy(backbone.model), SerialLoRAConfig(rank=8, towers=["image"]))
backward(adapted)
pair = list(adapters(adapted).values())[BLOCK]
model = copy.deepcopy(backbone.model)
backward(model)
gradients = read_qkv(model, gradient=True)
by_hand = serial_gradient_of_B(read_qkv(model), gradients, pair.lora_A, 1.0)  # (d, r)
difference = (by_hand - pair.lora_B.grad).norm() / pair.lora_B.grad.norm()
print(f"by hand and by autograd differ by {difference:.1e} of the gradient's size")

# %% [markdown]
# What does the passage through W do? After one step of gradient descent with learning rate η, W_q
# has moved by
#
# $$\text{LoRA: } -\eta s^2\, g_q A_q^\top A_q
# \qquad\qquad
# \text{Serial LoRA: } -\eta s^2\, W_q \left(W_q^\top g_q + W_k^\top g_k + W_v^\top g_v\right) A^\top A .$$
#
# The own wish g_q arrives as $W_q W_q^\top g_q$: **stretched by the squares of the singular values**,
# so strong directions of W move most, and weak ones hardly. And what k and v wish for is mixed in.
# So with *equal* learning rates the two methods do *not* take equal steps.
#
# By what factor do they differ? There is no fixed factor, and an experiment shows why. A norm layer
# in front of attention ends with learnt weights, which multiply the tokens, and learnt biases. Halve
# both and double W_q, W_k and W_v: the model computes exactly the same. A good method should not
# care. The cell does that to every block of the image tower, with three multiples, takes one step
# with each method and each of two optimizers, and prints how far q, k and v of one block moved,
# relative to their size.


# %%
def rescaled(multiple: float) -> nn.Module:
    """The same function, with larger or smaller W_q, W_k and W_v in the image tower."""
    model = copy.deepcopy(backbone.model).requires_grad_(False)
    for block in model.visual.transformer.resblocks:
        block.attn.in_proj_weight.mul_(multiple)
        block.ln_1.weight.div_(multiple)
        block.ln_1.bias.div_(multiple)
    return model


def first_step(model: nn.Module, config, optimizer, lr: float) -> tuple[float, float]:
    """Loss before the step, and the relative change of W_q, W_k, W_v in one block after it."""
    torch.manual_seed(0)
    before = torch.cat(list(read_qkv(model).values()))  # (3d, d)
    adapted = inject(copy.deepcopy(model), config(rank=8, towers=["image"]))
    loss = backward(adapted, every=8)
    optimizer(list(adapter_parameters(adapted)), lr=lr).step()
    after = torch.cat(list(read_qkv(merge(adapted)).values()))  # (3d, d)
    return loss.item(), ((after - before).norm() / before.norm()).item()


# %%
settings = {"SGD": (torch.optim.SGD, 0.1), "Adam": (torch.optim.Adam, 1e-3)}
rows = []
for name, (optimizer, lr) in settings.items():
    for title, config in (("LoRA", LoRAConfig), ("Serial LoRA", SerialLoRAConfig)):
        row = {"optimizer": f"{name}, {lr:g}", "method": title}
        for multiple in (0.5, 1.0, 2.0):
            loss, moved = first_step(rescaled(multiple), config, optimizer, lr)
            row[f"W times {multiple:g}"] = f"{moved:.3%}"
        rows.append(row | {"loss before": f"{loss:.4f}"})
display_table(pd.DataFrame(rows))

# %% [markdown]
# **What this shows.** The losses are equal: it *is* the same model in every column. Serial LoRA's step
# is the same too. Its `B` is a *relative* change, W (I + B A), so it has no unit, and the size of W
# cancels. LoRA's `B` has the unit of W: with gradient descent the relative step falls with the
# square of W's size, with Adam (whose first step is about η for every entry, whatever the gradient)
# with W's size. So a learning rate that was good for LoRA on one model says little about Serial LoRA,
# or about LoRA on a model with weights of another size. A comparison that gives both the same rate
# compares two different things: try several for each method. Lesson 04 does, and lesson 05 gives `A`
# and `B` rates of their own.

# %% [markdown]
# ## Merging, and undoing it
#
# After training, W (I + s B A) can replace W: the adapter is *merged*, and the model is as fast as
# before. Now somebody wants the old model back, or another adapter. LoRA can subtract, W' − s B A.
# Serial LoRA multiplied, so it must divide, by a (d, d) matrix:
#
# $$W = W'\,(I + s\,BA)^{-1}.$$
#
# The **push-through identity** makes that cheap: all that has to be inverted is (r, r).
#
# $$(I + s\,BA)^{-1} = I - s\,B\,(I_r + s\,AB)^{-1} A .$$
#
# The proof is one line. Call the small inverse N, multiply the right side by I + s B A, and use
# $s\,BA \cdot s\,BNA = s\,B\,(s\,AB)\,N A$:
#
# $$I + s\,BA - s\,B\,\bigl(I_r + s\,AB\bigr) N\, A = I + s\,BA - s\,BA = I .$$

# %% [markdown]
# ### Exercise 1.5 · Undo a merge
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●○○ | 12 |
#
# Return the old weight from the merged one and the pair. The check also watches the sizes: no matrix
# larger than (r, r) may be inverted or solved with. Do not change what comes in.


# %% tags=["exercise"]
def undo_merge(merged: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float) -> Tensor:
    """The W with W (I + scale B A) = merged, through an (r, r) solve.

    Args:
        merged: (out, d).
        lora_A: (r, d).
        lora_B: (d, r).
        scale: s.

    Returns:
        (out, d), a new tensor.
    """
    # BEGIN SOLUTION
    small = torch.eye(len(lora_A)) + scale * lora_A @ lora_B  # (r, r)
    solved = torch.linalg.solve(small, lora_A)  # (r, d)
    return merged - scale * (merged @ lora_B) @ solved  # (out, d)
    # END SOLUTION


check("1.5", undo_merge)

# %% [markdown]
# <details><summary>Hint 1: multiply W' into the identity</summary>
#
# W' (I − s B N A) = W' − s (W' B) N A, with N the inverse of $I_r + s\,AB$. Mind the order: A B is
# (r, r), B A is (d, d).
#
# </details>
# <details><summary>Hint 2: solve, do not invert</summary>
#
# N A is `torch.linalg.solve(small, lora_A)`, of shape (r, d). It is more exact than
# `torch.linalg.inv(small) @ lora_A`, and cheaper.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# On paper the undoing is exact. In numbers? The cell merges pairs of growing strength into the real
# weights, undoes it with the package's version, and counts which entries came back bit for bit: once
# for weights in float32, once for weights in bfloat16, which keep 8 bits of each number. (For
# bfloat16 the sums run in float32, and the result is rounded once.) The last pair is built to shrink
# r directions of every token to a thousandth.

# %%
torch.manual_seed(0)
W = torch.cat(list(read_qkv(backbone.model).values()))  # (3d, d)
d, r = W.shape[1], 8
A, direction = torch.randn(r, d) / d**0.5, torch.randn(d, r)  # (r, d), (d, r)
unit = direction * W.norm() / (W @ direction @ A).norm()  # W B A is as large as W
pairs = {f"changes W by {share:.0%}": share * unit for share in (0.01, 0.1, 1.0)}
pairs["almost erases r directions"] = (1e-3 - 1) * torch.linalg.pinv(A)  # A B = -0.999 I

rows = []
for name, B in pairs.items():
    row = {"the pair": name}
    for dtype in (torch.float32, torch.bfloat16):
        old = W.to(dtype)  # (3d, d)
        merged = (old.float() + old.float() @ B @ A).to(dtype)
        undone = undo_merged_weight(merged.float(), A, B, scale=1.0).to(dtype)
        error = (undone.float() - old.float()).norm() / old.float().norm()
        title = str(dtype).removeprefix("torch.")
        row[f"{title}: error"] = f"{error:.0e}"
        row[f"{title}: same bits"] = f"{(undone == old).float().mean():.0%}"
        copy = old.clone()  # kept before the merge, and put back
        row[f"{title}, from a copy: same bits"] = f"{(copy == old).float().mean():.0%}"
    rows.append(row)
display_table(pd.DataFrame(rows))

# %% [markdown]
# **What this shows.** In float32 and for the mild pairs of ordinary training, the undoing is good to
# about seven digits, and still not every entry has its old bits. In bfloat16 the *merge* itself
# rounded the weights, and no calculation can find what rounding threw away. The stronger the pair, the
# worse. The last row shows where it ends: what a pair shrinks to a thousandth comes back with a
# thousand times the rounding. A pair that shrinks a direction to *nothing* (then $I_r + s\,AB$ has no
# inverse) has lost it. LoRA, which adds, cannot lose anything in that way.
#
# So the package calculates in float32, rounds once, and keeps a copy: `unmerge` brings back every bit.
# The copy costs 3d² numbers a block while the model is merged. The formula is for the day on which you
# have a merged model, the adapter, and no copy.

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
# they move 2 times as far. Scale and learning rate are not independent knobs.
#
# </details>
#
# **4. You have a merged model in bfloat16 and its adapter. Can you get the original bits back?**
#
# <details><summary>Answer</summary>
#
# Not all of them: the merge rounded. After a mild pair most entries have their old bits, after a strong
# one few have. Only a copy of the old weights brings back every bit.
#
# </details>

# %% [markdown]
# ## Key points
#
# - A matrix is a sum of layers, one column times one row each. The first r are the best of rank r, and
#   the singular values behind them say what is missed.
# - The weights looked at here are not of low rank; the change that a task asks for at first is.
# - Serial LoRA is LoRA with a shared A and B_p = W_p B. One row space costs rank; the tied columns are
#   a limit that no rank lifts. A limit on what can be imitated is not yet a limit on the loss.
# - One matrix random, one zero: exact at the start, and able to learn.
# - The gradient of the serial B passes through Wᵀ and gathers q, k and v. Equal learning rates are not
#   equal steps: try several for each method.
# - A merge can be undone by an (r, r) solve, up to rounding. Keep a copy if you need the bits.

# %% [markdown]
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": equations (4) and (5) put W + B A and W (I + B A)
# side by side; section II-D calls the second a LoRA with the weight as its basis, and says that both
# behave differently in training ("Non-equivalent Dynamic"). The paper does not say what a shared pair
# cannot express, and gives both methods the same learning rate. The start of A and B is in section
# II-A. The gradient and the undoing of a merge are worked out here; the best approximation is
# Eckart and Young's (Psychometrika, 1936).
#
# Next: [02 · The parameter count, proved](02_parameter_count.ipynb).
