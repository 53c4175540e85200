# %% [markdown]
# # 01 · Low-rank maths
#
# LoRA gives each of q, k and v a pair of thin matrices. Serial LoRA puts a single pair in front of all three. That is a
# third of the size, but the pair cannot change q alone: k and v change too.
#
# **How much does it give up?** Let the weights of q, k and v train freely, each as it likes. How much of that change is
# impossible for a single shared pair, however high its rank? Write your guess below the imports. Then compute it, train
# both methods, and find out whether it is what holds Serial LoRA back.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.lessons.l01_maths import figures
from serial_lora_course.lessons.l01_maths.block import OpenedCLIP
from serial_lora_course.plots.style import display_figure

out_of_reach = 0.1  # your guess: of a free change, the share that one pair can never make
lesson_card("01")

# %% [markdown]
# ## One pair moves all three
#
# Here are ten tokens of two numbers, and pairs of rank 1: A reads one number from a token, and B is the direction in
# which the token then moves. [LoRA](https://arxiv.org/abs/2106.09685) has an A and a B for each part p, which is q, k
# or v. [Serial LoRA](https://arxiv.org/abs/2503.17750) has one of each. To keep the picture simple, each $W_p$ is a
# rotation or a reflection, and we rotate its output back. What is left is the pair's move.

# %%
angles = torch.arange(10) * 2 * torch.pi / 10
x = torch.stack([angles.cos(), angles.sin()], dim=1)  # (10, 2): ten tokens
torch.manual_seed(2)
A, B = torch.tensor([[0.95, 0.31]]), torch.tensor([[0.2], [0.7]])  # the shared pair
lora, serial = {}, {}
for part in "qkv":
    W_p = torch.linalg.qr(torch.randn(2, 2)).Q
    A_p, B_p = F.normalize(torch.randn(1, 2)), 0.7 * F.normalize(torch.randn(2, 1), dim=0)
    for panels, down, up in ((lora, A_p, B_p), (serial, A, W_p @ B)):
        panels[part] = (x, x + x @ down.T @ up.T @ W_p)  # the last factor undoes W_p
rows = {"LoRA\n$W_p x + B_p A_p x$": lora, "Serial LoRA\n$W_p (x + B A x)$": serial}
display_figure(figures.plot_token_moves(rows))

# %% [markdown]
# In LoRA's row, q, k and v each leave other tokens where they are, and each moves its own way. In Serial LoRA's row all
# panels are the same: there is only one move, $BAx$.
#
# ## A butterfly out of columns and rows
#
# What can a thin matrix do? The grey values of this butterfly are a matrix, and the figure takes it apart. Each of the
# four coloured pictures is one column times one row: the curve at its left times the curve above it. Two curves of the
# same colour add light, two of different colours take it away. The lower row adds the pictures up.

# %%
openmoji = load_emoji("openmoji")
drawing = openmoji.picture(openmoji.names.index("butterfly")).convert("L")
butterfly = pil_to_tensor(drawing)[0] / 255  # (64, 64), from 0, black, to 1, white
display_figure(figures.plot_terms(butterfly, count=4, more=16))
print(ATTRIBUTION["openmoji"])

# %% [markdown]
# None of these **rank-one terms** looks like a butterfly, but the sum of sixteen of them does, with half as many
# numbers as the picture: columns side by side, (64, 16), times rows below each other, (16, 64). Every matrix comes
# apart in this way, by its **singular value decomposition** (SVD):
#
# $$M = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0.$$
#
# The columns $u_i$ have length one and stand at right angles, and so do the rows $v_i^\top$. The **rank**
# is the smallest number of rank-one terms that add up to M, and no matrix of rank r is nearer to M than its first r
# terms (Eckart and Young). We measure in **squared length**, the sum of all squared entries. The terms stand at right
# angles, so the squared lengths add up: what is kept and what is missed make 100%.
# <!-- from the definition: 100% -->
#
# ## LoRA's bet
#
# LoRA freezes a weight and bets that a *change* of low rank is enough; it does not say that the *weight* is thin. Let
# us see on a real change. The course's small CLIP has to name symbols by a designer whose drawings it has never seen. We
# open one block: a function `read` makes its q, k and v, and all else stays as it is, their biases too.

# %%
clip = OpenedCLIP(block=2)  # the third block of its tower for pictures
attn = clip.block.attn
W = attn.in_proj_weight.detach()  # W_q, W_k and W_v, one below the other: (3d, d)
d = attn.embed_dim


def scores(read: Callable, tokens: Tensor) -> Tensor:
    """How near each drawing is to each kind's name, (N, kinds), when `read` makes q, k and v."""
    x = clip.block.ln_1(tokens)  # (N, n, d), behind the block's norm
    parts = [part + b for part, b in zip(read(x), attn.in_proj_bias.chunk(3), strict=True)]
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(q, k, v)  # (N, heads, n, d / heads)
    x = tokens + attn.out_proj(mixed.transpose(1, 2).flatten(-2))
    return clip.finish(x)  # the block's MLP, the blocks after it, and the kinds' names


def loss(read: Callable) -> Tensor:
    return F.cross_entropy(scores(read, clip.tokens[0]), clip.labels[0])  # drawings to train on


@torch.no_grad()
def right(read: Callable) -> int:
    """How many drawings of the test get their own name."""
    return int((scores(read, clip.tokens[1]).argmax(dim=-1) == clip.labels[1]).sum())


def through(M: Tensor) -> Callable:
    """Reads q, k and v with M in place of W."""
    return lambda x: (x @ M.T).chunk(3, dim=-1)


train_size, test_size, kinds = *map(len, clip.labels), len(clip.texts)
print(f"{train_size} drawings to train on, {test_size} to test on, of {kinds} kinds")
display_figure(clip.show(scores(through(W), clip.tokens[1]).argmax(dim=-1)))
print(f"right: {right(through(W))} of {test_size}; by chance {test_size / kinds:.0f}")

# %% [markdown]
# Above each drawing stand its name and CLIP's answer. The loss is the mean **cross-entropy**: minus the logarithm of the
# probability that CLIP gives to the right name. Let the whole of W move freely for twenty steps of Adam, and call its
# change D.


# %%
def train(parameters: Iterable[Tensor], read: Callable, lr: float) -> None:
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for _ in range(20):
        optimizer.zero_grad()
        loss(read).backward()
        optimizer.step()


def free_change(lr: float) -> Tensor:
    """What training changes in W when each of its numbers may move: (3d, d)."""
    free = W.clone().requires_grad_()
    train([free], through(free), lr)
    return free.detach() - W


@torch.no_grad()
def loss_of(change: Tensor) -> float:
    return loss(through(W + change)).item()


D = free_change(lr=0.01)
print(f"loss: {loss_of(0 * D):.2f} before, {loss_of(D):.2f} after")
print(f"right: {right(through(W + D))} of {test_size}")
print(f"D has {D.numel():,} numbers, or {d} terms for each of q, k and v")

# %% [markdown]
# ### Exercise 1.1 · The bet
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Would a thin part of D have been enough? Take the changes of q, k and v apart, each by an SVD of its own, and keep only
# the chosen terms of each.


# %% tags=["exercise"]
def keep(update: Tensor, chosen: list[int]) -> Tensor:
    """Some terms of the change of each of q, k and v.

    Args:
        update: the changes of W_q, W_k and W_v, one below the other, (3d, d).
        chosen: which terms of each, counted from 0, the largest.

    Returns:
        (3d, d)
    """
    # BEGIN SOLUTION
    U, S, Vh = torch.linalg.svd(update.unflatten(0, (3, -1)))  # (3, d, d), (3, d), (3, d, d)
    kept = (U[:, :, chosen] * S[:, None, chosen]) @ Vh[:, chosen]  # (3, d, d)
    return kept.flatten(0, 1)
    # END SOLUTION


check("1.1", keep)

# %% [markdown]
# <details><summary>Hint 1: three matrices</summary>
#
# `update.chunk(3)` is a list of three matrices; `torch.linalg.svd` also takes a stack, (3, d, d), at once. In the end,
# the three have to stand one below the other again.
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
# Now keep the largest eight terms. For comparison, we also keep eight at random, and make them as long.

# %%
guess = 1.0  # your guess: of the loss with the largest eight
keep = yours("1.1")
largest = keep(D, [*range(8)])
print(f"the largest 8 terms: loss {loss_of(largest):.2f}")
torch.manual_seed(0)
some = keep(D, torch.randperm(d)[:8].tolist())
print(f"8 at random, as long: loss {loss_of(some * largest.norm() / some.norm()):.2f}")
print("your guess:", guess)

# %% [markdown]
# **Here the bet pays.** The largest eight of 192 terms bring the loss from 2.38 to 0.14, most of the way to the 0.01 of
# the whole D, while eight at random change next to nothing.
#
# ## Write LoRA
#
# Freeze W, and learn the change as a product of two thin matrices:
#
# $$W' = W + \frac{\alpha}{r}\, B A, \qquad A: (r, d_\text{in}), \quad B: (d_\text{out}, r).$$
#
# - **The start.** B is zero, so training begins at the pretrained model. A is random, because if both were zero,
#   neither would ever learn.
# - **The scale** is $\alpha / r$, meant to spare you another $\alpha$ for each rank ($\alpha / \sqrt r$ is used too, as
#   rsLoRA). In this lesson $\alpha = r$, so it is always 1.
# - **The merge.** $W'$ has the shape of W, so a merged adapter costs no time.
#
# ### Exercise 1.2 · LoRA, whole
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 20 |
#
# Write the layer that replaces an `nn.Linear`. Call the matrices `lora_A` and `lora_B`, as the library PEFT does. Only
# these two are trained. `merged_weight` returns a new tensor, lets gradients through, and leaves the base as it is.


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
# `nn.Parameter(tensor)`, assigned to `self`, is trained. `base.requires_grad_(False)` freezes a whole layer; keep it as
# `self.base`. The scale is a plain number.
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
#
# Three of your layers side by side are LoRA of W. Train them.

# %%
Layer = yours("1.2")


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(d, d, bias=False)
    layer.weight = nn.Parameter(weight.clone())
    return layer


class ThreePairs(nn.ModuleList):
    def __init__(self, rank: int):
        super().__init__(Layer(linear(W_p), rank, alpha=rank) for W_p in W.chunk(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in self]


def trained(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in trained(module))


torch.manual_seed(0)
three = ThreePairs(rank=8)
train(trained(three), three, lr=0.03)
print(f"LoRA: loss {loss(three):.2f} with {size(three):,} parameters, {right(three)} right")

# %% [markdown]
# LoRA gets nearly as far as the whole of W, with a twelfth of its numbers.
#
# ## One pair for q, k and v
#
# **Serial LoRA** stands behind the block's norm and in front of the weights: it changes the tokens before q, k and v
# read them. So its B leads back to the size of a token. Is this a method of another kind than LoRA?
#
# ### Exercise 1.3 · Serial LoRA, and the LoRA in it
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 10 |
#
# Write `forward`, which takes tokens and returns q, k and v of $x' = x + s\,BAx$. Then expand $W_q x'$: one of its
# two terms is what the pair adds. `as_lora` returns, for each of q, k and v, the LoRA pair $(A_p, B_p)$ of the same rank
# and scale that makes the same change.


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
# $W_p (x + s\,BAx) = W_p x + s\,W_p B A x$. The change $W_p B A$ has to be $B_p A_p$: which two of the three belong
# together, so that one factor is (d, r) and the other (r, d)?
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)
#
# Now train one pair, and copy the LoRA in it into your three layers.

# %%
Shared = yours("1.3")
torch.manual_seed(0)
one = Shared(W, rank=8, alpha=8)
train(trained(one), one, lr=0.03)
with torch.no_grad():
    for layer, (A_p, B_p) in zip(three, one.as_lora(), strict=True):
        layer.lora_A.copy_(A_p)
        layer.lora_B.copy_(B_p)
    merged = torch.cat([layer.merged_weight() for layer in three])
    for name, read in {"Serial LoRA": one, "as LoRA": three, "merged": through(merged)}.items():
        print(f"{name}: loss {loss(read):.4f}")
print(f"one pair has {size(one):,} parameters, three have {size(three):,}")

# %% [markdown]
# The losses agree, as $W_p (I + sBA) = W_p + s (W_p B) A$ says they must. So Serial LoRA *is* LoRA, a third of its
# size, with one A for all three parts and with Bs that are tied to each other by $B_p = W_p B$. But it ended at 0.13,
# and your free layers at 0.03. Is that the price of the tie?
#
# ## What one pair can never do
#
# When the pair moves a token along c, q moves by $W_q c$, k by $W_k c$ and v by $W_v c$: **when q moves, so do k and
# v**, unless their matrix maps c to zero.
#
# **How much does this put out of reach?** Serial LoRA changes W by $WC$, with one $C = s\,BA$ for q, k and v. Each column
# of $WC$ is a mixture of W's d columns, and these span only d of 3d dimensions. So of a random change, a third of the
# squared length is in reach. And of D? Write $W = QR$, where the columns of Q have length one and stand at right angles.
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
# Return the change $WC$ that is nearest to the wanted one, where C has rank r at most. W's columns are independent, so R
# has an inverse, and $RC$ can be any matrix of rank r.


# %% tags=["exercise"]
def imitate(W: Tensor, wanted: Tensor, rank: int) -> Tensor:
    """The best copy of a change by W C.

    Args:
        W: (3d, d), its columns independent.
        wanted: (3d, d).
        rank: of C, (d, d), at most.

    Returns:
        (3d, d)
    """
    # BEGIN SOLUTION
    Q, _ = torch.linalg.qr(W)  # (3d, d)
    U, S, Vh = torch.linalg.svd(Q.T @ wanted, full_matrices=False)  # of what is in reach
    return Q @ (U[:, :rank] * S[:rank]) @ Vh[:rank]
    # END SOLUTION


check("1.4", imitate)

# %% [markdown]
# <details><summary>Hint 1: only one term depends on C</summary>
#
# Give RC a name of its own: it may be any matrix of rank r. Which of these is nearest to $Q^\top D$? The butterfly's
# section has the answer. (Cut neither D nor C instead: you would get another, worse copy.)
#
# </details>
# <details><summary>Hint 2: back to q, k and v</summary>
#
# `torch.linalg.qr(M)` returns Q and R. What you found has d rows, and the change has 3d: $WC = QRC$.
#
# </details>
#
# Solution: [the solved lesson](../solutions/01_low_rank_maths.ipynb)
#
# With the full rank, d, `imitate` splits D into what Serial LoRA can reach and what it cannot.

# %%
imitate = yours("1.4")


def share(part: Tensor, whole: Tensor) -> float:
    """Of a squared length."""
    return (part.norm() / whole.norm()).item() ** 2


torch.manual_seed(0)
inside = imitate(W, D, d)
parts = {"in reach": inside, "out of reach": D - inside}
parts["in reach of a random W"] = imitate(torch.randn(3 * d, d), D, d)
for name, part in parts.items():
    print(f"{name}: {share(part, D):.0%} of D's squared length")
print("your guess:", out_of_reach, "of D out of reach")
other = free_change(lr=0.03)
print(f"out of reach at three times the rate: {share(other - imitate(W, other, d), other):.0%}")

# %% [markdown]
# More than half of D is out of reach. (At three times the rate, 53%.) W reaches more of D, 48%, than the third that a
# random W reaches; we do not know why.
#
# Now try each part alone, and let both methods copy D at every rank.

# %%
guess = 2.0  # your guess: of the loss with only the part of D that one pair can never make
ranks = [1, 2, 4, 8, 16, 32, 64, 128]
for name, part in parts.items():
    print(f"{name}, alone: loss {loss_of(part):.2f}")
print("your guess:", guess)
copies = {
    "LoRA": [keep(D, [*range(r)]) for r in ranks],
    "Serial LoRA": [imitate(W, D, r) for r in ranks],
}
for name, each in copies.items():
    print(f"{name}'s best copy of rank 8: loss {loss_of(each[3]):.2f}")
measures = {"What a copy misses of D": lambda copy: share(D - copy, D), "Loss": loss_of}
panels = {m: {n: [*map(f, each)] for n, each in copies.items()} for m, f in measures.items()}
levels = {"untouched": loss_of(0 * D), "all of D": loss_of(D)}
floors = {"What a copy misses of D": {"out of reach": share(D - inside, D)}, "Loss": levels}
stars = {"Serial LoRA": (8, loss(one).item())}  # trained above
display_figure(figures.plot_over_rank(ranks, panels, floors, stars))

# %% [markdown]
# At the left, LoRA misses less and less of D as its rank grows, but Serial LoRA always misses 52% or more. At the right,
# its copies of high rank also have the higher loss. But the star, the pair of rank 8 that you trained, lies far below its
# best copy of D.
#
# Why? CLIP can do without most of what is out of reach. The part of D in reach alone brings the loss from 2.38 to 0.18, the
# part that no pair in front of W can make to 0.12, and even the third of D in the reach of a *random* matrix to 0.51. Many
# changes lower this loss, and D is only one of them. **So a pair need not copy D:** another change, inside the reach, will
# do. (If you want a break, this is the place.)
#
# ## Who trains further?
#
# Back to the gap, 0.03 against 0.13. That was one seed and one rate. We give each method three seeds and its own learning
# rates. They need different rates: LoRA adds $BA$ to the weight directly, Serial LoRA adds $W B A$, so the same step in B
# changes the weight by a different amount (lesson 07). And since LoRA is three times as large, we also train it at rank
# 3, nearly Serial LoRA's size. (Half a minute on two cores, like the last experiment.)

# %%
ends = {}  # a way's name -> rate -> the loss of each seed


def sweep(name: str, make: Callable, rates: tuple[float, ...]) -> list[nn.Module]:
    """Trains what `make` returns at each rate, with three seeds; returns those of the best rate."""
    found = {rate: [] for rate in rates}
    for rate, seed in product(rates, (0, 1, 2)):
        torch.manual_seed(seed)
        found[rate].append(make())
        train(trained(found[rate][-1]), found[rate][-1], rate)
    ends[name] = {rate: [loss(read).item() for read in found[rate]] for rate in rates}
    best = min(rates, key=lambda rate: median(ends[name][rate]))
    answers = [right(read) for read in found[best]]
    print(f"{name}: loss {median(ends[name][best]):.2f} at rate {best:.2f}; test {answers} right")
    return found[best]


sweep("LoRA", partial(ThreePairs, 8), (0.02, 0.03, 0.04))
sweep("LoRA, rank 3", partial(ThreePairs, 3), (0.03, 0.04, 0.06))
bests = {"Serial LoRA": sweep("Serial LoRA", partial(Shared, W, 8, 8), (0.02, 0.03, 0.04))}
print(f"W stretches some directions {torch.linalg.cond(W):.1f} times as far as others")
display_figure(figures.plot_ends(ends))

# %% [markdown]
# Training does find another change: Serial LoRA's best copy of D had a loss of 0.43, its trained pair has 0.11. But LoRA
# ends at 0.03, and at rank 3 at 0.06, so size is not all. Is it the reach, after all? There is a second suspect: every
# step of B passes through W, which stretches some directions nine times as far as others. Perhaps a step that is right for
# the most stretched direction is too short for the least stretched one.
#
# An experiment can tell the two apart. Train $W x + M B A x$, where M has W's directions but another **spread**, its
# largest stretch over its smallest. Such a pair can make exactly Serial LoRA's changes: **the reach is the same, and only
# the stretch differs.** If the reach holds Serial LoRA back, the spread should not matter. We try four: even, the square
# roots of W's stretches, W's own, and their squares.
#
# ### Exercise 1.5 · The same reach, another stretch
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Write W as its singular value decomposition $U \operatorname{diag}(S)\, V^\top$. Return a matrix with the same U and
# V, whose singular values are what `change` makes of S. Scale it to W's Frobenius norm, so that on average it stretches
# as far as W.


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

# %%
guess = "stays"  # your guess: "falls", "rises" or "stays": what the loss does as the spread grows


class Through(nn.Module):
    """q, k and v of W x + M B A x."""

    def __init__(self, M: Tensor, rank: int = 8):
        super().__init__()
        self.M = M
        self.A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, d), a=5**0.5))
        self.B = nn.Parameter(torch.zeros(d, rank))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x @ W.T + x @ self.A.T @ (self.M @ self.B).T).chunk(3, dim=-1)


doses = {  # what M does to W's singular values, and rates to try
    "even": (torch.ones_like, (0.03, 0.04, 0.06)),
    "square root": (torch.sqrt, (0.04, 0.06)),
    "Serial LoRA": (torch.clone, ()),  # W itself, trained above
    "squared": (torch.square, (0.03, 0.04)),
}
lead = torch.linalg.svd(W, full_matrices=False).U[:, :16]  # (3d, 16): what W stretches most
stretched, spreads, sizes = yours("1.5"), {}, {}
for name, (change, rates) in doses.items():
    M = stretched(W, change)
    sizes[name] = torch.linalg.svdvals(M)
    spreads[name] = (sizes[name][0] / sizes[name][-1]).item()
    if rates:
        bests[name] = sweep(name, partial(Through, M), rates)
print("your guess:", guess)
for name, spread in spreads.items():
    changes = [torch.cat([*read(torch.eye(d))], dim=-1).T - W for read in bests[name]]
    part = median(share(lead.T @ each, each) for each in changes)
    alike = share(sizes[name][:16], sizes[name])  # if the change of B A were as large in each
    print(f"{name}, spread {spread:.0f}: {part:.0%} of the change in 16 of {d}", end=" ")
    print(f"directions, {alike:.0%} by the stretch alone")
display_figure(figures.plot_spreads(spreads, ends))

# %% [markdown]
# **At the same reach, the median loss rises with the spread.** It ends at 0.05 with an even stretch, at 0.11 with W's
# own, and at 0.18 with the squares. With three seeds each, neighbours overlap: look at the dots.
#
# The printed shares show where the change goes. W's 16 most stretched directions are a twelfth of all; the even pair puts
# 19% of its change there, Serial LoRA 67%. If $BA$ were as large in every direction, the stretch alone would make this 8%
# and 41%. So the stretch makes most of this difference, and training adds to it. That this raises the loss is likely, but
# we have not shown it.
#
# Is it the reach? With an even stretch the pair reaches 0.05; LoRA of about the same size reaches 0.06. Three seeds
# cannot separate these. So from 0.11 the stretch alone takes it to 0.05; what is left to 0.03 may be reach or size. (The best
# rate of "square root" and of "squared" is the highest that we tried, so these two may have more to gain.) These are
# training losses, after twenty steps in one block, on 28 drawings. The test does not rank the methods: their medians lie
# between 43 and 51 of 73. Lesson 09 takes W apart on SAM, with many data sets.
#
# ## Quiz
#
# **1. A pair stands in front of q and k only. Which share of a random change of both is in its reach? And of q's alone?**
#
# <details><summary>Answer</summary>
#
# Half: the columns of $W_q$ and $W_k$, one below the other, span d of 2d dimensions. In front of q alone it reaches all,
# if $W_q$ has an inverse: any change $D_q$ is $W_q C$ with $C = W_q^{-1} D_q$.
#
# </details>
#
# **2. Somebody wants q and v adapted and k left alone. Can Serial LoRA do it with a high enough rank?**
#
# <details><summary>Answer</summary>
#
# Not exactly. To leave k alone means $W_k C = 0$, and $W_k$ has an inverse unless a singular value is zero, so $C = 0$.
# It comes nearer along the directions that $W_k$ shrinks most.
#
# </details>
#
# **3. Is the pair with an even stretch a method of another kind than Serial LoRA?**
#
# <details><summary>Answer</summary>
#
# No, it makes the same changes in other coordinates. Its M is $W T$ with an invertible T, so $M B A = W (T B) A$, and
# you could put the pair $(A, T B)$ in front of W. But Adam moves the entries of B and not those of $T B$, so training
# takes another way.
#
# </details>
#
# ## What to remember
#
# - A matrix is a sum of rank-one terms, and the first r are the best of rank r.
# - LoRA: freeze, A random, B zero, $\alpha / r$, merge. Serial LoRA is LoRA with one A and $B_p = W_p B$.
# - One pair can never move q alone, nor copy 52% of D. It need not: other changes lower the loss as well.
# - What slowed it in this block was less the reach than W's uneven stretch: at the same reach, an even one took the median
#   training loss of three seeds from 0.11 to 0.05, where LoRA of nearly that size has 0.06.
#
# Next: [02 · The count, proved](02_parameter_count.ipynb).
