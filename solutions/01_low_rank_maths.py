# %% [markdown]
# # 01 · Low-rank maths
#
# LoRA gives each of q, k and v a pair of thin matrices. Serial LoRA has one pair for all three and puts it in front of
# them. That makes it a third of the size, but you can no longer change q alone, because k and v follow.
#
# **What can one pair for all three never do, and what does that cost?** In this lesson you write both methods, prove
# that one is a special case of the other, and measure what it cannot copy. At the end you train both, see Serial LoRA
# fall behind, and find out why with two controls that you make yourself.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.lessons.l01_maths import figures
from serial_lora_course.lessons.l01_maths.block import OpenedCLIP
from serial_lora_course.plots.style import display_figure

lesson_card("01")

# %% [markdown]
# ## You steer one, and two follow
#
# Here are ten tokens of two numbers, and pairs of rank 1. A reads one number from a token, and B says in which
# direction it moves. [LoRA](https://arxiv.org/abs/2106.09685) has an A and a B for each part p, which is q, k or v.
# [Serial LoRA](https://arxiv.org/abs/2503.17750) has one of each. In between, you could share A alone.

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
# In LoRA's row, each of q, k and v moves other tokens, and in another direction. In the other two rows, tokens 4 and 9
# stay where they are in all three, because the one A maps them to nearly zero. With one A and three Bs, each part
# still has a direction of its own. Serial LoRA has only one move, $BAx$, and each $W_p$ carries it along. (Here each
# $W_p$ only turns or mirrors. A real weight also stretches, and that will matter.)
#
# ## A butterfly out of columns and rows
#
# Before we measure what a thin matrix can do, let us look at one. The grey values of this butterfly are a matrix, and
# the figure takes it apart. Each of the four coloured pictures is one column times one row: the curve at its left
# times the curve above it. The lower row adds them up, one after the other.

# %%
openmoji = load_emoji("openmoji")
drawing = openmoji.picture(openmoji.names.index("butterfly")).convert("L")
butterfly = pil_to_tensor(drawing)[0] / 255  # (64, 64), from 0, black, to 1, white
display_figure(figures.plot_terms(butterfly, count=4, more=16))
print(ATTRIBUTION["openmoji"])

# %% [markdown]
# None of these **rank-one terms** looks like a butterfly, but the sum of sixteen of them does, although it takes only
# half as many numbers: columns side by side, (64, 16), times rows below each other, (16, 64). Every matrix comes apart
# in this way, by its **singular value decomposition** (SVD):
#
# $$M = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0.$$
#
# The columns $u_i$ have length one and stand at right angles to each other, the rows $v_i^\top$ too. The **rank** is
# the smallest number of rank-one terms that add up to M, and no matrix of rank r is nearer to M than the first r terms
# (Eckart and Young, 1936). We measure in **squared length**, the sum of all squared entries. Terms stand at right
# angles, so the squares add up: what is kept and what is missed make 100%.
# <!-- from Psychometrika, volume 1, and by definition: 1936, 100% -->
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
#
# ## LoRA's bet
#
# LoRA freezes a weight and adds a change of low rank. This does not say that the *weight* is thin; LoRA bets that a
# thin *change* of it is enough. So look at a real change. The course's small CLIP has to name symbols by a designer
# whose drawings it has never seen. Above each drawing stand its name and CLIP's answer.

# %%
clip = OpenedCLIP(block=2)  # the third block of its tower for pictures; q, k and v are up to us
W, d = clip.W, clip.W.shape[1]  # W_q, W_k and W_v, one below the other: (3d, d)


def through(M: Tensor) -> Callable:
    """Reads q, k and v from tokens x, (..., d), with M in place of W."""
    return lambda x: (x @ M.T).chunk(3, dim=-1)


train_size, test_size, kinds = *map(len, clip.labels), len(clip.texts)
print(f"{train_size} drawings to train on, {test_size} to test on, of {kinds} kinds")
display_figure(clip.show(through(W)))
print(f"right: {clip.right(through(W))} of {test_size}; by chance {test_size / kinds:.0f}")

# %% [markdown]
# Let the whole of W move freely for twenty steps of Adam, and call its change D. We also keep G, the gradient before
# the first step. All losses in this lesson are those of the drawings that CLIP trains on.


# %%
def train(parameters: list[Tensor], read: Callable, lr: float, steps: int = 20) -> list[float]:
    """Returns the losses, one before each step."""
    optimizer, losses = torch.optim.Adam(parameters, lr=lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = clip.loss(read)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def loss_of(change: Tensor) -> float:
    return clip.loss(through(W + change)).item()


free = W.clone().requires_grad_()
(G,) = torch.autograd.grad(clip.loss(through(free)), free)  # (3d, d), before the first step
train([free], through(free), lr=0.01)
D = free.detach() - W  # (3d, d)


def slope(change: Tensor) -> float:
    """How much of the loss's first fall along D this part of D has."""
    return ((G * change).sum() / (G * D).sum()).item()


print(f"loss: {loss_of(0 * D):.2f} before, {loss_of(D):.2f} after")
print(f"right: {clip.right(through(W + D))} of {test_size}")
print(f"D has {D.numel():,} numbers, or {d} terms for each of q, k and v")

# %% [markdown]
# ### Exercise 1.1 · The bet
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Would a thin part of D have been enough? Take the changes of q, k and v apart, each by an SVD of its own, keep only
# the chosen terms of each, and measure the loss.


# %% tags=["exercise"]
def bet(update: Tensor, chosen: list[int], loss: Callable[[Tensor], float]) -> float:
    """The loss if q, k and v each keep only some terms of their change.

    Args:
        update: the changes of W_q, W_k and W_v, one below the other, (3d, d).
        chosen: which terms of each, counted from 0, the largest.
        loss: takes a change of W, (3d, d).
    """
    # BEGIN SOLUTION
    U, S, Vh = torch.linalg.svd(update.unflatten(0, (3, -1)))  # (3, d, d), (3, d), (3, d, d)
    kept = (U[:, :, chosen] * S[:, None, chosen]) @ Vh[:, chosen]  # (3, d, d)
    return loss(kept.flatten(0, 1))
    # END SOLUTION


check("1.1", bet)

# %% [markdown]
# <details><summary>Hint 1: three matrices</summary>
#
# `update.chunk(3)` is a list of three matrices; `torch.linalg.svd` also takes a stack, (3, d, d), at once. What all
# three keep has to be one below the other again before you can measure its loss.
#
# </details>
# <details><summary>Hint 2: some terms</summary>
#
# `torch.linalg.svd(M)` returns U, S and Vh. Term i is column i of U times row i of Vh, times entry i of S. A list of
# numbers picks several columns or rows at once.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)
#
# Now keep the largest eight terms. To see whether it matters which terms they are, we also keep terms at random, three
# times, and make them as long as the largest ones. For each part we print its share of the *slope*: if you take a
# first small step along D, how much of the fall of the loss, by G, comes from this part?

# %%
guess = 1.0  # your guess: of the loss with the largest eight
bet, ranks = yours("1.1"), [1, 2, 4, 8, 16, 32, 64, 128]


def terms(chosen: list[int]) -> Tensor:
    """These terms of D: bet's last argument hands them back."""
    return bet(D, chosen, lambda change: change)


def lengthen(change: Tensor, length: Tensor) -> Tensor:
    return change * length / change.norm()


torch.manual_seed(0)
orders = [torch.randperm(d).tolist() for _ in range(3)]
largest = [terms([*range(r)]) for r in ranks]
longer = [
    [lengthen(terms(o[:r]), big.norm()) for r, big in zip(ranks, largest, strict=True)]
    for o in orders
]
curves = {
    "the largest": [*map(loss_of, largest)],
    "at random, as long": [[*map(loss_of, row)] for row in longer],
}
levels = {"untouched": loss_of(0 * D), "all of D": loss_of(D)}
display_figure(figures.plot_over_rank(ranks, {"loss": curves}, {"loss": levels}))
parts = {"the largest 8": largest[3]}
parts |= {f"8 at random, as long, {i}": row[3] for i, row in enumerate(longer, 1)}
for name, part in parts.items():
    print(f"{name:24} {slope(part):4.0%} of the slope, loss {loss_of(part):.2f}")
print("your guess:", guess)

# %% [markdown]
# **Here the bet pays.** The largest eight of 192 terms bring the loss from 2.38 to 0.14, while eight terms at random,
# made as long, change next to nothing. The slope goes with it: the largest terms have 78% of it, the random ones 1% at
# most.
#
# ## Write LoRA
#
# Freeze W, and learn the change as a product of two thin matrices:
#
# $$W' = W + \frac{\alpha}{r}\, B A, \qquad A: (r, d_\text{in}), \quad B: (d_\text{out}, r).$$
#
# - **The start.** B is zero, so training begins at the pretrained model. A is random: if it were zero too, neither
#   would ever learn.
# - **The scale** $\alpha / r$; you choose $\alpha$.
# - **The merge.** $W'$ has the shape of W, so a merged adapter costs no time.
#
# ### Exercise 1.2 · LoRA, whole
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 20 |
#
# Write the layer that replaces an `nn.Linear`. Call the matrices `lora_A` and `lora_B`, as PEFT does, the usual
# library for LoRA. Only these two are trained. `merged_weight` returns a new tensor and lets gradients through. Do not
# change the base's weights.


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
# ## One pair for q, k and v
#
# **Serial LoRA** stands behind the block's norm and in front of the weights: it changes the tokens before q, k and v
# read them. So its B has to lead back to the size of a token. Is this a method of another kind?
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
#
# Train one pair, put the LoRA in it into three of your layers, and run both methods inside CLIP.


# %%
def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(d, d, bias=False)
    layer.weight = nn.Parameter(weight.clone())
    return layer


Layer, Shared = yours("1.2"), yours("1.3")
torch.manual_seed(0)
one = Shared(W, rank=8, alpha=16)
train([one.lora_A, one.lora_B], one, lr=0.01)
three = [Layer(linear(W_p), rank=8, alpha=16) for W_p in W.chunk(3)]
with torch.no_grad():
    for layer, (A_p, B_p) in zip(three, one.as_lora(), strict=True):
        layer.lora_A.copy_(A_p), layer.lora_B.copy_(B_p)
    merged = torch.cat([layer.merged_weight() for layer in three])
    reads = {"Serial LoRA": one, "LoRA": lambda x: [layer(x) for layer in three]}
    for name, read in (reads | {"merged": through(merged), "untouched": through(W)}).items():
        print(f"{name}: loss {clip.loss(read):.4f}")
sizes = [sum(p.numel() for p in each.parameters() if p.requires_grad) for each in (one, *three)]
print(f"one pair has {sizes[0]:,} parameters, three have {sum(sizes[1:]):,}")

# %% [markdown]
# The losses agree. So Serial LoRA *is* LoRA, but with one A for all three parts, and with Bs that are tied to each
# other by
# $B_p = W_p B$. Its size is a third of LoRA's on q, k and v.
#
# ## What one pair can never do
#
# Whatever Serial LoRA learns, it changes W by $WC$, with one $C = s\,BA$ for q, k and v. The columns of $WC$ are
# mixtures of W's d columns, which span only d of 3d dimensions. So of a random change, a third of the squared length
# is in reach. How much of D is? Write $W = QR$, where the columns of Q have length one and stand at right angles.
# Then, by Pythagoras,
#
# $$\lVert D - W C\rVert^2
# = \underbrace{\lVert Q^\top D - R\,C\rVert^2}_{\text{falls with the rank}}
# + \underbrace{\lVert D - Q Q^\top D\rVert^2}_{\text{out of reach}}.$$
#
# The second term does not depend on C, so Serial LoRA misses at least that much, at any rank.
#
# ### Exercise 1.4 · Imitate
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Return the change $MC$ that is nearest to the wanted one, where C has rank r at most. M is W for Serial LoRA; others
# will follow. Its columns are independent, so R has an inverse, and $RC$ can be any matrix of rank r.


# %% tags=["exercise"]
def imitate(M: Tensor, wanted: Tensor, rank: int) -> Tensor:
    """The best copy of a change by M C.

    Args:
        M: (3d, n), of rank n.
        wanted: (3d, d).
        rank: of C, (n, d), at most.

    Returns:
        (3d, d)
    """
    # BEGIN SOLUTION
    Q, _ = torch.linalg.qr(M)  # (3d, n)
    U, S, Vh = torch.linalg.svd(Q.T @ wanted, full_matrices=False)  # of what is in reach
    return Q @ (U[:, :rank] * S[:rank]) @ Vh[:rank]
    # END SOLUTION


check("1.4", imitate)

# %% [markdown]
# <details><summary>Hint 1: only one term depends on C</summary>
#
# Call RC by one name: it may be any matrix of rank r. Which of them is nearest to $Q^\top D$? The butterfly's section
# says so. (To cut D first, or C, is something else.)
#
# </details>
# <details><summary>Hint 2: back to q, k and v</summary>
#
# `torch.linalg.qr(M)` returns Q and R. What you found has n rows, and the change has 3d: $MC = QRC$.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)
#
# First put no limit on the rank. Then D falls into two parts, the one in reach and the one out of reach, and each can
# be tried alone in CLIP. For comparison we also do it with random matrices in W's place. Guess the loss if CLIP has
# only what is *out* of reach.

# %%
guess = 2.0  # your guess: of the loss with only the part of D that one pair can never copy
imitate, one_A = yours("1.4"), torch.eye(3 * d)


def missed(change: Tensor, wanted: Tensor = D) -> float:
    return ((wanted - change).norm() / wanted.norm()).item() ** 2


torch.manual_seed(0)
inside = imitate(W, D, d)
parts = {"in reach": inside, "out of reach": D - inside}
parts |= {f"a third at random, {i}": imitate(torch.randn(3 * d, d), D, d) for i in (1, 2, 3)}
for name, part in parts.items():
    print(
        f"{name:20} {1 - missed(part):4.0%} of D's squared length, {slope(part):4.0%} of the slope, "
        f"loss {loss_of(part):.2f}"
    )
print("your guess:", guess)
values = torch.linalg.svdvals(W)
print(f"W's singular values: {values[0]:.2f} to {values[-1]:.2f}, so R has an inverse")

# %% [markdown]
# One pair can never make 52% of D, at any rank; by chance it would be two thirds. But CLIP does not need both halves
# for most of the fall. With the part in reach alone the loss is 0.18, and with the part that *no* pair can make it is
# 0.12. **That a part is out of reach does not mean that it is needed.**
#
# (Each half has about half of the slope. But the slope alone does not decide: three random thirds all have about a
# third of it, and end anywhere from 0.32 to 0.51.)
#
# Now limit the rank. If M is the unit matrix, $MC$ can be any matrix of rank r; that is the case of one A and three
# Bs.

# %%
kept = {
    "LoRA": largest,
    "one A, three Bs": [imitate(one_A, D, r) for r in ranks],  # M C is then any matrix of rank r
    "Serial LoRA": [imitate(W, D, r) for r in ranks],
}
shares = {name: [missed(copy) for copy in copies] for name, copies in kept.items()}
losses = {name: [loss_of(copy) for copy in copies] for name, copies in kept.items()}
panels = {"missed, of D's squared length": shares, "loss": losses}
floors = {"missed, of D's squared length": {"out of reach": missed(inside)}, "loss": levels}
display_figure(figures.plot_over_rank(ranks, panels, floors))
for name in kept:
    print(f"{name}, rank 8: misses {shares[name][3]:.0%}, loss {losses[name][3]:.2f}")

# %% [markdown]
# Look at the right panel. With enough rank, one A with three Bs comes as low as LoRA does. Serial LoRA does not:
# because its three changes are tied to W, its loss stays at 0.18. So that is what the tie costs *if* the pair has to
# copy D.
#
# ## Does it train worse?
#
# But nobody asks a pair to copy D. In training it may find another change, so now we train. The five ways below read
# $W x + M B A x$ with rank 8, or are LoRA, and they differ in M alone:
#
# - **one A, three Bs**: M is the unit matrix, so each part has rows of B of its own;
# - **Serial LoRA**: M is W;
# - two controls, with the same tie and the same reach as Serial LoRA, because M has W's directions. They differ in how
#   far M stretches each direction: **even** stretches them all alike, and **reversed** stretches W's longest direction
#   least and its shortest one most. You make both.
#
# ### Exercise 1.5 · Two controls
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Write W as its singular value decomposition $U \operatorname{diag}(S)\, V^\top$. Return the matrix with the same U
# and V and with other singular values, those that `change` makes of S, and make it as large as W in the Frobenius
# norm.


# %% tags=["exercise"]
def stretched(W: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """W's directions with other singular values, as large as W.

    Args:
        W: (3d, d), its columns independent.
        change: W's singular values (d,), the largest first -> the new ones, (d,).

    Returns:
        (3d, d)
    """
    # BEGIN SOLUTION
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    M = (U * change(S)) @ Vh
    return M * W.norm() / M.norm()
    # END SOLUTION


check("1.5", stretched)

# %% [markdown]
# <details><summary>Hint 1: a diagonal matrix</summary>
#
# U times a diagonal matrix multiplies each column of U by one number. PyTorch does that with `*`, if the numbers stand
# along the last axis.
#
# </details>
# <details><summary>Hint 2: as large</summary>
#
# First make the matrix, then compare its norm with W's. `torch.linalg.svd` returns V already transposed.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)
#
# Each way takes twenty steps, with three seeds. One rate is not the same step for all ways (lesson 07), so the three
# ways with W's directions train at three rates. LoRA and one A train at 0.03, which was the best of the three for both
# when we tried. Which way will end highest, each at its best rate?
# <!-- from trials: 0.03 -->

# %%
guess = "Serial LoRA"  # your guess: of the five ways, which ends highest


class Through(nn.Module):
    """q, k and v of W x + M B A x."""

    def __init__(self, M: Tensor, rank: int = 8):
        super().__init__()
        self.M = M
        self.A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, d), a=5**0.5))
        self.B = nn.Parameter(torch.zeros(M.shape[1], rank))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x @ W.T + x @ self.A.T @ (self.M @ self.B).T).chunk(3, dim=-1)


class ThreePairs(nn.ModuleList):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in self]


stretch = yours("1.5")
level, backwards = stretch(W, torch.ones_like), stretch(W, lambda S: S.flip(0))
ways = {
    "LoRA": lambda: ThreePairs(Layer(linear(W_p), 8, alpha=8) for W_p in W.chunk(3)),
    "one A, three Bs": lambda: Through(one_A),
    "even": lambda: Through(level),
    "reversed": lambda: Through(backwards),
    "Serial LoRA": lambda: Shared(W, 8, alpha=8),
}


def run(name: str, rate: float, seed: int, steps: int = 20) -> nn.Module:
    torch.manual_seed(seed)
    read = ways[name]()
    train([p for p in read.parameters() if p.requires_grad], read, rate, steps)
    return read


# %%
rates, ends = (0.03, 0.04, 0.06), {}  # way -> rate -> the loss of each seed
print("                 loss at the best rate          test pictures right")
for name in ways:
    tried = rates if name in ("even", "reversed", "Serial LoRA") else (0.03,)
    found = {rate: [run(name, rate, seed) for seed in (0, 1, 2)] for rate in tried}
    ends[name] = {rate: [clip.loss(read).item() for read in found[rate]] for rate in tried}
    best = min(tried, key=lambda rate: sum(ends[name][rate]))
    told = ", ".join(f"{end:.2f}" for end in ends[name][best])
    print(f"{name:16} {told} at {best:.2f}   ", *map(clip.right, found[best]))
print("your guess:", guess)
longer = clip.loss(run("Serial LoRA", 0.03, seed=0, steps=30)).item()
print(
    f"Serial LoRA at 0.03, seed 0: {ends['Serial LoRA'][0.03][0]:.2f}, after 30 steps {longer:.2f}"
)
display_figure(figures.plot_ends(ends))

# %% [markdown]
# First compare the three ways with W's directions. At 0.03 they lie close together, so there the stretch hardly
# matters. Above that they part: even and reversed end lower (but for one seed of reversed, at 0.04), while Serial LoRA
# rises, and its seeds scatter. **It was the rate: Serial LoRA cannot take the higher rate that helps the controls.**
# At its best rate it ends at 0.11 to 0.13, and the controls, which can make exactly the same changes, end lower.
#
# But reversed stretches as much as W does. Why can it take a high rate? Perhaps because the loss bends more sharply
# along some directions than along others. Measure that at $W + D$, where all ways want to go: take a random change of
# length one within 16 of W's directions, and compare the loss on both sides with the loss in the middle.


# %%
@torch.no_grad()
def bend(directions: Tensor, draws: int = 4) -> list[float]:
    """How sharply the loss bends along each of some changes of W, made of these directions (3d, n)."""
    middle, found = loss_of(D), []
    for _ in range(draws):
        change = directions @ torch.randn(directions.shape[1], d)
        change = change / change.norm()
        found.append(loss_of(D + change) + loss_of(D - change) - 2 * middle)
    return found


torch.manual_seed(0)
U, S, _ = torch.linalg.svd(W, full_matrices=False)
sixteens = zip(S.split(16), U.split(16, dim=1), strict=True)  # W's longest directions first
bends = {values.mean().item(): bend(some) for values, some in sixteens}
display_figure(figures.plot_bends(bends))
longest, *_, shortest = (sum(each) / len(each) for each in bends.values())
print(f"the 16 longest bend {longest / shortest:.1f} times as much as the 16 shortest")

# %% [markdown]
# **The loss bends most along the directions that W stretches most.** A step of Serial LoRA is longest exactly there,
# so these few directions overshoot first, and they keep the rate low for all the others. Even takes equal steps in all
# of them, and reversed takes its longest steps where the loss is flattest.
#
# So the tie itself costs little here: even ends at 0.04 to 0.07, one A at 0.03 to 0.06, LoRA at 0.03. What costs is
# that every step has to pass through W. And the cost is one of time: after 30 steps in place of 20, Serial LoRA is at
# 0.04.
#
# All of this is the training loss of one block on 28 drawings; the test pictures do not tell the five ways apart.
# Lesson 09 takes W apart in a similar manner on SAM, with many data sets.
#
# ## Quiz
#
# **1. You start LoRA with A = 0 and a random B. Does it learn?**
#
# <details><summary>Answer</summary>
#
# Yes, and it begins at the pretrained model, since BA is zero. A's gradient has B as a factor, so A moves first and B
# stands still at the first step. Only with both at zero nothing would ever move.
#
# </details>
#
# **2. Somebody wants q and v adapted and k left alone. Can Serial LoRA do it with a high enough rank?**
#
# <details><summary>Answer</summary>
#
# Not exactly. To leave k alone means $W_k C = 0$, and $W_k$ has an inverse unless a singular value is zero, so $C =
# 0$. Nearly: where $W_k$ has small singular values, it lets little of C pass.
#
# </details>
#
# **3. Is "even" a method of another kind than Serial LoRA?**
#
# <details><summary>Answer</summary>
#
# No, it makes the same changes in other coordinates. Write its M as $W T$, with an invertible T: then $M B A = W (T B)
# A$, so you could put the pair $(A, T B)$ in front of W. But Adam moves the entries of B, not those of $T B$, and so
# it takes another way.
#
# </details>
#
# ## What to remember
#
# - A matrix is a sum of rank-one terms, and the first r are the best of rank r.
# - LoRA: freeze, A random, B zero, $\alpha / r$, merge. It bets that a thin change is enough.
# - Serial LoRA is LoRA with one A and with columns tied by $B_p = W_p B$. To copy D, a higher rank makes up for the
#   one A, but not for the tie.
# - One pair can never copy 52% of D here, but it does not have to: either half of D brought most of the fall.
# - Serial LoRA's steps pass through W and are longest where W is longest. Here the loss bends most in those
#   directions, so Serial LoRA needs a lower rate, and more steps.
#
# Next: [02 · The count, proved](02_parameter_count.ipynb).
