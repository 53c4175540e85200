# %% [markdown]
# # 01 · Low-rank maths
#
# You have one small CLIP and forty customers, and each of them wants it to know their own pictures. Forty copies of
# the model are a gigabyte. Forty *changes* of it fit into an e-mail, if each change of a weight is the product of two
# thin matrices, and you send these. That is LoRA. Serial LoRA makes them smaller still: q, k and v share one pair,
# which changes the tokens before them, $x' = x + s\,BAx$.
#
# **What can one pair for all three never do, and does it matter?** You write both methods, prove that one is a case of
# the other, measure what it cannot reach, and train them side by side: the last picture.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
from functools import cache

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.data.registry import load_classification
from serial_lora_course.lessons.l01_maths import figures
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_figure

lesson_card("01")

# %% [markdown]
# ## A butterfly out of columns and rows
#
# Here is a butterfly, as a matrix of grey values, taken apart. Each of the four coloured pictures is one column times
# one row: the curve at its left times the curve above it. Blue adds light, red takes it away. The lower row adds them
# up. From how many on do you know it?

# %%
openmoji = load_emoji("openmoji")
drawing = openmoji.picture(openmoji.names.index("butterfly")).convert("L")
butterfly = pil_to_tensor(drawing)[0] / 255  # (64, 64), from 0, black, to 1, white
display_figure(figures.plot_terms(butterfly, count=4, more=16))
print(ATTRIBUTION["openmoji"])

# %% [markdown]
# Stripes and plaids: one column times one row can draw nothing else. No such **rank-one term** looks like a butterfly,
# but four of them together begin to, and sixteen take half of its numbers. Put their columns side by side, (64, 16),
# and their rows below each other, (16, 64): these are two thin matrices, and the picture is their product.
#
# Every matrix comes apart in this way. It is called the **singular value decomposition** (SVD):
#
# $$M = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0.$$
#
# The columns $u_i$ have length one and stand at right angles to each other, the rows $v_i^\top$ too, and the
# **singular value** $\sigma_i$ says how strong a term is.

# %%
U, S, Vh = torch.linalg.svd(butterfly)  # (64, 64), (64,), (64, 64)
for r in (1, 2, 4, 8, 16, 32):
    best = (U[:, :r] * S[:r]) @ Vh[:r]  # (64, 64): the first r terms
    error = (butterfly - best).norm() / butterfly.norm()
    print(f"{r:2} terms: {r * (64 + 64):5,} numbers for {64 * 64:,}, relative error {error:.1%}")

# %% [markdown]
# The **rank** of a matrix is the *smallest* number of rank-one terms that add up to it. It is also the smallest
# number of rows from which all its rows can be built by scaling and adding. What an approximation gets wrong, as a
# share of the whole, is its **relative error**. The norm is Frobenius's: square all entries, add, take the root.
#
# Is there a better matrix of rank r than the first r terms? No (Eckart and Young, 1936).
# <!-- from Psychometrika, volume 1: 1936 -->
#
# <details><summary>Why nothing is better</summary>
#
# The rows of a matrix of rank r lie in a space of r dimensions. Let P (r, n) hold rows of length one, at right angles,
# that span it. The best approximation in that space is $M P^\top P$, and by Pythagoras
#
# $$\lVert M - M P^\top P\rVert^2 = \lVert M\rVert^2 - \lVert M P^\top\rVert^2,
# \qquad \lVert M P^\top\rVert^2 = \sum_i w_i\,\sigma_i^2
# \quad\text{with } w_i = \lVert P v_i\rVert^2 .$$
#
# No $w_i$ is above 1, and together they are at most r. So you have r units to hand out, at most one for each
# $\sigma_i^2$. Give them to the r largest: P holds $v_1^\top$ to $v_r^\top$, and the tail is left.
#
# </details>

# %% [markdown]
# ### Exercise 1.1 · The error of every rank
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 7 |
#
# The singular values alone give the relative error of *every* rank: the terms stand at right angles to each
# other, so their squares add up. Return one tensor: entry r is the error of rank r, from 1 at
# rank 0, where nothing is kept, to 0 at the full rank.


# %% tags=["exercise"]
def relative_errors(matrix: Tensor) -> Tensor:
    """The relative error of the best approximation of each rank.

    Args:
        matrix: (m, n), not all zero.

    Returns:
        (k + 1,) for ranks 0 to k, where k is the smaller of m and n.
    """
    # BEGIN SOLUTION
    squares = torch.linalg.svdvals(matrix).square()  # (k,)
    tails = [squares[r:].sum() for r in range(len(squares) + 1)]  # the last is empty: 0
    return (torch.stack(tails) / squares.sum()).sqrt()
    # END SOLUTION


check("1.1", relative_errors)

# %% [markdown]
# <details><summary>Hint 1: what is left out at rank r</summary>
#
# Counted from zero, the terms that are left out have the singular values `S[r:]`. Add up their squares, divide by
# the sum of all squares, and take the root at the end.
#
# </details>
# <details><summary>Hint 2: all ranks at once</summary>
#
# There is one rank more than there are singular values: `range(len(S) + 1)`. `torch.stack` makes one tensor of a
# list of numbers.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# ## The weight is nearly full, its gradient is thin
#
# LoRA adds a matrix of low rank to a weight. You often hear that this works because "weights are of low rank anyway".
# Let us look at real ones, in the course's small CLIP. It has to name symbols drawn by a designer new to it. Here are
# the first two of each kind, with its answers.

# %%
backbone, data = load_clip(), load_classification("symbols")
clip, prompts = backbone.model.requires_grad_(False), backbone.tokenizer(data.prompts())
NAME = "visual.transformer.resblocks.2.attn.in_proj_weight"
texts = encode_prompts(clip, prompts)  # (classes, d), rows of length one
W = clip.get_parameter(NAME)  # (3d, d): W_q, W_k and W_v, one below the other
d = W.shape[1]


def opened(samples: list) -> tuple[Tensor, Tensor]:
    pictures, labels = zip(*samples, strict=True)
    return torch.stack([*map(backbone.test_transform, pictures)]), torch.tensor(labels)


train_pictures, train_labels = opened([*data.train][::4])
test_pictures, test_labels = opened([*data.test])


def scores_with(W: Tensor, pictures: Tensor) -> Tensor:
    # functional_call runs CLIP with W in place of its own weight; gradients reach W
    image, _, scale = functional_call(clip, {NAME: W}, (pictures,))[:3]
    return scale * image @ texts.T  # (N, classes)


def loss_with(W: Tensor) -> Tensor:
    return F.cross_entropy(scores_with(W, train_pictures), train_labels)


@torch.no_grad()
def show_named(W: Tensor) -> None:
    said, shown = scores_with(W, test_pictures).argmax(dim=-1), []
    for c in range(len(data.class_names)):
        shown += (test_labels == c).nonzero().flatten()[:2].tolist()  # the first two of each kind
    right = ["✓" if each else "✗" for each in said == test_labels]
    kinds = [name.split(" ", 1)[-1] for name in data.class_names]
    titles = [
        f"{kinds[said[i]]} {right[i]}"
        + f"\n({kinds[test_labels[i]]})" * (said[i] != test_labels[i])
        for i in shown
    ]
    display_figure(show_pictures([data.test[i][0] for i in shown], titles, columns=8, size=1.45))
    print(f"{(said == test_labels).sum()} of {len(said)} right")


print(f"{len(train_labels)} drawings to train on, {len(test_labels)} to test on")
show_named(W)

# %% [markdown]
# It knows arrows and hearts, and takes letters for arrows or zodiac signs. Look at $W_q$, $W_k$ and $W_v$ of one
# block. From the loss we get two updates of them. The *gradient* is what one step of gradient descent adds, up to
# sign and length. The other is what twenty steps of Adam change, at the rate 0.01, when these weights may move
# freely.

# %%
free = W.clone().requires_grad_()
loss_with(free).backward()
G = free.grad  # (3d, d)


def train(parameters: list[Tensor], weight, lr: float) -> Tensor:
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for _ in range(20):
        optimizer.zero_grad()
        loss_with(weight()).backward()
        optimizer.step()
    return weight().detach()


@cache
def with_all_of_W(lr: float) -> Tensor:
    moved = W.clone().requires_grad_()
    return train([moved], lambda: moved, lr)


update = with_all_of_W(lr=0.01) - W  # (3d, d)

# %%
errors_of = yours("1.1")
torch.manual_seed(0)
matrices = {
    "a random matrix": torch.randn(d, d),
    "W_q itself": W[:d],
    "its update in 20 steps": update[:d],
    "its gradient": G[:d],
}
curves = {name: errors_of(matrix) for name, matrix in matrices.items()}
display_figure(figures.plot_relative_errors(curves))
for name, curve in curves.items():
    print(f"{name}: rank 8 of {d} has a relative error of {curve[8]:.0%}")

# %% [markdown]
# $W_q$ is nearly full: eight of its 192 terms miss 81% of it; of noise they would miss 92%. Of its gradient they miss
# only 31%. The update of twenty steps lies between, at 65%. LoRA bets that a thin *update* is enough, whatever the
# weight's own rank.
#
# Why is a gradient thin? For a weight that computes $W x_t$ for each token $x_t$ it is
# $G = \sum_t \delta_t\, x_t^\top$, where $\delta_t$ is the gradient of the loss at that output: one term for each
# token. Here few terms are nearly enough, from 28 drawings. What if only a thin *update* is allowed, from the first
# step on?

# %% [markdown]
# ## Write LoRA
#
# Freeze W, and learn the change as a product of two thin matrices:
#
# $$W' = W + \frac{\alpha}{r}\, B A, \qquad A: (r, d_\text{in}), \quad B: (d_\text{out}, r).$$
#
# - **The start.** B is zero, so training begins at the pretrained model. A is random: if it were zero too, neither
#   would ever learn.
# - **The scale** $\alpha / r$. LoRA divides BA by r, and $\alpha$ is a factor that you choose.
# - **The merge.** $W'$ has the shape of W. After training you can replace W by $W'$, and the adapter then costs no
#   time at all.

# %% [markdown]
# ### Exercise 1.2 · LoRA, whole
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 25 |
#
# Write the layer that replaces an `nn.Linear`. Call the matrices `lora_A` and `lora_B`, as PEFT
# does. Only these two are trained. `merged_weight` returns a new tensor and lets gradients through,
# because you will train with it. Do not change the base's weights.


# %% tags=["exercise"]
class LoRALinear(nn.Module):
    """base(x) + (alpha / rank) x Aᵀ Bᵀ.

    Args:
        base: the pretrained layer; it is frozen here.
        rank: r.
        alpha: the change is multiplied by alpha / rank.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        # BEGIN SOLUTION
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features))  # (r, in)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))  # (out, r)
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)  # as nn.Linear starts
        # END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        # BEGIN SOLUTION
        down = x @ self.lora_A.T  # (..., r)
        return self.base(x) + self.scale * (down @ self.lora_B.T)
        # END SOLUTION

    def merged_weight(self) -> Tensor:
        """W + (alpha / rank) B A: (out, in)"""
        # BEGIN SOLUTION
        return self.base.weight + self.scale * self.lora_B @ self.lora_A
        # END SOLUTION


check("1.2", LoRALinear)

# %% [markdown]
# <details><summary>Hint 1: what is trained, and what is not</summary>
#
# `nn.Parameter(tensor)`, assigned to `self`, is trained. `base.requires_grad_(False)` freezes a whole layer; keep it
# as `self.base`. The scale is a plain number.
#
# </details>
# <details><summary>Hint 2: which way round?</summary>
#
# Tokens are rows: $x A^\top$ has shape (..., r), and times $B^\top$ (..., out). The formula of the weight has B first:
# (out, r) times (r, in).
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# PEFT is the usual library for LoRA. Give its layer your A and your B. Do the two agree?

# %%
Layer = yours("1.2")
torch.manual_seed(0)
base, x = nn.Linear(d, 4 * d), torch.randn(5, d)
config = LoraConfig(r=8, lora_alpha=16, target_modules=["layer"])
theirs = inject_adapter_in_model(config, nn.ModuleDict({"layer": copy.deepcopy(base)}))["layer"]
mine = Layer(base, rank=8, alpha=16)
with torch.no_grad():
    nn.init.normal_(mine.lora_B)  # as if trained
    theirs.lora_A["default"].weight.copy_(mine.lora_A)
    theirs.lora_B["default"].weight.copy_(mine.lora_B)
    print(f"the adapter changes outputs by up to {(mine(x) - base(x)).abs().max():.2f}")
    print(f"PEFT's outputs differ from yours by {(mine(x) - theirs(x)).abs().max():.0e}")
    theirs.merge()
    apart = (mine.merged_weight() - theirs.base_layer.weight).abs().max()
print(f"PEFT's merged weight differs from yours by {apart:.0e}")

# %% [markdown]
# No difference, or only rounding. Now put your LoRA to work: one layer for each of $W_q$, $W_k$ and $W_v$, and the
# same twenty steps.


# %%
def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(d, d, bias=False)
    layer.weight = nn.Parameter(weight.clone())
    return layer


@cache
def with_lora(rank: int, lr: float, seed: int) -> Tensor:
    torch.manual_seed(seed)
    layers = [Layer(linear(weight), rank, alpha=rank) for weight in W.chunk(3)]
    pairs = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    return train(pairs, lambda: torch.cat([each.merged_weight() for each in layers]), lr)


show_named(with_lora(8, lr=0.04, seed=0))
in_lora = 3 * 8 * (d + d)
in_clip = sum(p.numel() for p in clip.parameters())
blocks = sum(name.endswith("in_proj_weight") for name, _ in clip.named_parameters())  # as wide
models, pairs = 160 * in_clip / 1e6, 160 * in_lora * blocks / 1e6  # MB for 40, in float32
print(f"{in_lora:,} parameters were trained, where W has {W.numel():,}")
print(f"40 customers: {models:,.0f} MB of models, or {pairs:.1f} MB of LoRA in all {blocks} blocks")

# %% [markdown]
# From 36 to 51, on a twelfth of W's parameters: the best of four runs, as the last table shows. Of the sixteen shown,
# five were gained (two letters, two number keys, a player button) and two lost (an arrow, a player button). Zodiac
# signs, atom and wheel are still wrong. In all ten blocks, forty customers' changes are 14.7 MB.

# %% [markdown]
# ## One pair for q, k and v
#
# **Serial LoRA** does not stand beside the weights. It stands in front of them, behind the block's norm, and changes
# the tokens once, before q, k and v read them. So its B leads back to the size of a token. Is that a method of
# another kind?
#
# ### Exercise 1.3 · Serial LoRA, and the LoRA in it
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 10 |
#
# Write `forward`, on tokens: q, k and v of $x' = x + s\,BAx$. Then multiply out: what does the pair change in
# $W_q x'$? `as_lora` returns, for q, k and v, the LoRA pair $(A_p, B_p)$ of the same rank and scale that changes it in
# the same way.


# %% tags=["exercise"]
class SerialQKV(nn.Module):
    """q, k and v, read from tokens that one pair has changed.

    Args:
        W: W_q, W_k and W_v, one below the other, (3d, d); it stays frozen.
        rank: r.
        alpha: the change is multiplied by alpha / rank.
    """

    def __init__(self, W: Tensor, rank: int, alpha: float):
        super().__init__()
        self.W, self.scale, d = W.detach(), alpha / rank, W.shape[1]
        self.lora_A = nn.Parameter(torch.empty(rank, d))  # (r, d)
        self.lora_B = nn.Parameter(torch.zeros(d, rank))  # (d, r)
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., d) -> q, k and v, each (..., d)"""
        # BEGIN SOLUTION
        changed = x + self.scale * (x @ self.lora_A.T @ self.lora_B.T)
        return (changed @ self.W.T).chunk(3, dim=-1)
        # END SOLUTION

    def as_lora(self) -> list[tuple[Tensor, Tensor]]:
        """(A_p, B_p) for q, k and v, of shapes (r, d) and (d, r)."""
        # BEGIN SOLUTION
        return [(self.lora_A, W_p @ self.lora_B) for W_p in self.W.chunk(3)]
        # END SOLUTION


check("1.3", SerialQKV)

# %% [markdown]
# <details><summary>Hint 1: change first, then read</summary>
#
# Add the change to the tokens, as in lesson 00. All three then read the result: tokens are rows, so `changed @ W.T` is
# (..., 3d), and `chunk(3, dim=-1)` takes it apart.
#
# </details>
# <details><summary>Hint 2: set the brackets</summary>
#
# $W_p (x + s\,BAx) = W_p x + s\,W_p B A x$. The change $W_p B A$ has to be $B_p A_p$: which two of the three
# belong together, so that one factor is (d, r) and the other (r, d)?
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# Put these pairs into three of your LoRA layers, and your two methods must give the same q, k and v.

# %%
Shared = yours("1.3")
torch.manual_seed(0)
one = Shared(W, rank=8, alpha=16)
nn.init.normal_(one.lora_B)  # as if trained
three, x = [Layer(linear(W_p), rank=8, alpha=16) for W_p in W.chunk(3)], torch.randn(5, d)
with torch.no_grad():
    for layer, (A_p, B_p) in zip(three, one.as_lora(), strict=True):
        layer.lora_A.copy_(A_p), layer.lora_B.copy_(B_p)
    q, k, v = one(x)
    apart = max((layer(x) - out).abs().max() for layer, out in zip(three, (q, k, v), strict=True))
print(f"outputs of up to {q.abs().max():.0f} differ by {apart:.0e}")
trained = sum(p.numel() for p in one.parameters())
print(f"one pair: {trained:,} parameters; three: {in_lora:,}; four, with out: {4 * 8 * (d + d):,}")
print(f"40 customers: {160 * trained * blocks / 1e6:.1f} MB of Serial LoRA")

# %% [markdown]
# So Serial LoRA *is* LoRA, with one A for all and with the columns $B_p = W_p B$ tied to each other.
#
# **Why it is a quarter.** A pair for a d × d matrix holds rd + dr = 2dr numbers. LoRA on the four matrices of
# *attention*, q, k, v and out, has 4 · 2dr of them. Serial LoRA in front of attention has 2dr: a quarter, whatever d
# and r. (LoRA on q, k and v alone, as here, is three times as large.)
#
# What does the tie mean? Below are ten tokens of two numbers, and pairs of rank 1. Which tokens move far, which stay?

# %%
angles = torch.arange(10) * 2 * torch.pi / 10
x = torch.stack([angles.cos(), angles.sin()], dim=1)  # (10, 2): ten tokens
torch.manual_seed(2)
A, B = torch.tensor([[0.95, 0.31]]), torch.tensor([[0.2], [0.7]])  # the shared pair
changed = x + x @ A.T @ B.T
lora, one_A, serial = ({"tokens x": (x, after)} for after in (x, x, changed))
for part in "qkv":
    W_p = torch.linalg.qr(torch.randn(2, 2)).Q
    A_p, B_p = F.normalize(torch.randn(1, 2)), 0.7 * F.normalize(torch.randn(2, 1), dim=0)
    lora[part] = (x @ W_p.T, x @ W_p.T + x @ A_p.T @ B_p.T)
    one_A[part] = (x @ W_p.T, x @ W_p.T + x @ A.T @ B_p.T)
    serial[part] = (x @ W_p.T, changed @ W_p.T)
rows = {"LoRA\n$W_p x + B_p A_p x$": lora, "one A, three Bs\n$W_p x + B_p A x$": one_A}
rows["Serial LoRA\n$W_p (x + B A x)$"] = serial
display_figure(figures.plot_token_moves(rows))

# %% [markdown]
# In the upper row, different tokens move far in q, in k and in v. In the other two, the dashed line goes through
# tokens 4 and 9 in every panel: what A maps to zero stays everywhere. In the middle row each part still chooses where
# the arrows point. In the lowest they are one and the same move, $BAx$, which each weight turns or mirrors: that is
# the tie.

# %% [markdown]
# ## What one pair can never do
#
# Suppose that you want the changes $G_q$, $G_k$ and $G_v$. Serial LoRA offers $W_q C$, $W_k C$ and $W_v C$ with the
# *same* $C = s\,BA$. You pay for that in two ways.
#
# 1. **One A.** All three read the same r directions of a token. A higher rank helps.
# 2. **Tied columns.** If $W_q$ has an inverse, q alone fixes $C = W_q^{-1} G_q$, and k and v follow. No rank helps.

# %% [markdown]
# ### Exercise 1.4 · Out of reach
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# How much does the tie cost on its own? Take any matrix C, of full rank if you like, and choose the one for which all
# of $WC$ is nearest to all of G: least squares. Return the relative error that is left.


# %% tags=["exercise"]
def out_of_reach(weights: Tensor, wanted: Tensor) -> float:
    """The relative error of the best change W C, where C may be any matrix.

    Args:
        weights: W_q, W_k and W_v, one below the other, (3d, d).
        wanted: G_q, G_k and G_v, one below the other, (3d, d).
    """
    # BEGIN SOLUTION
    C = torch.linalg.lstsq(weights, wanted).solution  # (d, d)
    return ((wanted - weights @ C).norm() / wanted.norm()).item()
    # END SOLUTION


check("1.4", out_of_reach)

# %% [markdown]
# <details><summary>Hint 1: what is left</summary>
#
# At the best C, $W^\top (G - WC) = 0$. Return the norm of $G - WC$, over the norm of G.
#
# </details>
# <details><summary>Hint 2: least squares</summary>
#
# `torch.linalg.lstsq(M, N).solution` is the X for which M X is nearest to N.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)

# %% [markdown]
# Now ask it about the real gradient. And how much of the rest does rank r reach? Whatever C is, $WC$ lies in the
# space of W's columns. Write $W = QR$, where Q has columns of length one at right angles. Then
#
# $$\lVert G - W C\rVert^2
# = \underbrace{\lVert Q^\top G - R\,C\rVert^2}_{\text{falls with the rank}}
# + \underbrace{\lVert G - Q Q^\top G\rVert^2}_{\text{out of reach}},$$
#
# and if W's columns are independent, R has an inverse, so $RC$ can be any matrix of rank r. The first term is again a
# tail of singular values.

# %%
outside = yours("1.4")(W, G)
Q, R = torch.linalg.qr(W)  # (3d, d), (d, d)
inside = Q.T @ G  # (d, d): all of G that some C can meet
parts = torch.stack([errors_of(g) * g.norm() for g in G.chunk(3)])  # (3, d + 1)
reach = {
    "Serial LoRA": ((errors_of(inside) * inside.norm() / G.norm()).square() + outside**2).sqrt(),
    "one A, three Bs": errors_of(G),
    "LoRA": parts.norm(dim=0) / G.norm(),
}
display_figure(figures.plot_relative_errors(reach, floor=outside))
missed = {f"{name} of rank 8": curve[8] for name, curve in reach.items()}
missed |= {"LoRA of rank 2": reach["LoRA"][2], "all of W": 0.0, "untouched": 1.0}
for name, share in [*missed.items()][:4]:
    print(f"{name}: misses at least {share:.0%} of the gradient")
within = inside.norm() / G.norm()
print(f"in reach: {within:.0%} of the gradient's length; of a random matrix's 1/√3 = {3**-0.5:.0%}")
torch.manual_seed(0)
read = torch.linalg.qr(torch.randn(d, 8)).Q  # (d, 8): the directions that a random A reads
start = (G - G @ read @ read.T).norm() / G.norm()
print(f"rank 8 at its first step, A random and B zero: misses {start:.0%} or more")

# %% [markdown]
# In this block, for this gradient, sharing A costs less than the tie: at rank 8 the error goes from 28% to 41% with
# one A, and to 73% with tied columns. No rank brings it below 67%. LoRA of rank 2, smaller than the shared pair,
# misses 65%. But 74% of the gradient's length is in reach, more than the 58% of a random matrix's.
#
# These are the *best* changes of each kind. Training does not begin there: B is zero and A random, so the first step
# changes only what A reads, and misses 98%. So the share is a bound, and need not decide where training ends.

# %% [markdown]
# ## Does it train worse?
#
# Down the gradient the loss falls fastest. Does a pair that misses most of it train worse? Guess the order of the
# four below, then run the same twenty steps. W multiplies what the pair changes, so one rate is not the same step
# (lesson 07 is about rates): all pairs get two rates and two seeds. We chose rates by the training loss: doubled
# again, each method ends higher.

# %%
GUESS = "all of W, LoRA of rank 8, LoRA of rank 2, Serial LoRA of rank 8"  # lowest loss first


def with_one_pair(rank: int, lr: float, seed: int) -> Tensor:
    torch.manual_seed(seed)
    shared = Shared(W, rank, alpha=rank)

    def weight() -> Tensor:
        return W + torch.cat([B_p @ A_p for A_p, B_p in shared.as_lora()])

    return train([*shared.parameters()], weight, lr)


ways = {  # parameters, rates, how
    "all of W": (W.numel(), [0.01], lambda lr, seed: with_all_of_W(lr)),
    "LoRA of rank 8": (in_lora, [0.02, 0.04], lambda lr, seed: with_lora(8, lr, seed)),
    "LoRA of rank 2": (in_lora // 4, [0.02, 0.04], lambda lr, seed: with_lora(2, lr, seed)),
    "Serial LoRA of rank 8": (trained, [0.02, 0.04], lambda lr, seed: with_one_pair(8, lr, seed)),
}
print("your guess:", GUESS)
print(f"{'':21} parameters  misses  rate  losses      right of {len(test_labels)}")
losses = {"untouched": {0: [loss_with(W).item()]}}
print(f"{'untouched':21} {0:10,} {1:7.0%}     -  {losses['untouched'][0][0]:.2f}")
for name, (parameters, rates, way) in ways.items():
    losses[name] = {}
    for lr in rates:
        ends = [way(lr, seed) for seed in (0, 1)[: 1 if name == "all of W" else 2]]  # W has no seed
        losses[name][lr] = [loss_with(end).item() for end in ends]
        right = [(scores_with(end, test_pictures).argmax(-1) == test_labels).sum() for end in ends]
        said = "  ".join(f"{loss:.2f}" for loss in losses[name][lr])
        print(
            f"{name:21} {parameters:10,} {missed[name]:7.0%}  {lr}  {said:10}  ", *map(int, right)
        )
display_figure(figures.plot_missed(missed, losses))

# %% [markdown]
# Untouched, the loss is 2.38. The pair misses 73% of the gradient at the least, and ends at 0.13 to 0.22. Many
# changes give a low loss. At the better rate, the order of the losses is the order of what all four miss. But at 0.02
# the pair ends as low as LoRA of rank 2, which misses less, or lower. So here the share ranks the four at their best,
# and says nothing of two runs at one rate.
#
# On the test drawings LoRA of rank 8 has 42 to 51 right, with losses that hardly differ, and all of W 48: a loss on
# 28 drawings is no yardstick once it is near zero. The pair has 42 to 46, LoRA of rank 2 has 40 to 45. The maths says
# what a method cannot imitate. What it learns, only training tells, on more blocks, data sets and seeds.

# %% [markdown]
# ## Quiz
#
# **1. A white picture with one black line from corner to corner: what rank? And if the line is horizontal?**
#
# <details><summary>Answer</summary>
#
# The diagonal line needs the full rank. All n rows add up to n - 1 times the white row, so the white row can be built
# from them; and white minus row i leaves one pixel, the i-th. Every row is a sum of such pixels. The horizontal line
# has rank 1 with white as 1 and black as 0: every row is the white row times 1 or times 0.
#
# </details>
#
# **2. You start LoRA with A = 0 and a random B. Does it learn?**
#
# <details><summary>Answer</summary>
#
# Yes, and it begins at the pretrained model, since BA is zero. A's gradient has B as a factor, so A moves first and B
# stands still at the first step. Only with both at zero nothing would ever move.
#
# </details>
#
# **3. Somebody wants q and v adapted and k left alone. Can Serial LoRA do it with a high enough rank?**
#
# <details><summary>Answer</summary>
#
# Not exactly. To leave k alone means $W_k C = 0$, and $W_k$ has an inverse unless a singular value is zero, so $C = 0$.
# Nearly: where $W_k$ has small singular values, it lets little of C pass.
#
# </details>

# %% [markdown]
# ## What to remember
#
# - A matrix is a sum of rank-one terms. The first r are the best of rank r, and the other singular values give the
#   error.
# - Here the gradient is thin, an Adam update less so, and the weight nearly full.
# - LoRA is twenty lines: freeze, A random, B zero, $\alpha / r$, merge. It bets that a thin update is enough.
# - Serial LoRA is LoRA with one A and with columns tied by $B_p = W_p B$. A higher rank makes up for the one A, not for
#   the tie. But a limit on what can be imitated is no limit on the loss: lesson 09 measures what each costs.
#
# Next: [02 · The count, proved](02_parameter_count.ipynb).
