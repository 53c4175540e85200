# %% [markdown]
# # 03 · Build Serial LoRA
#
# **What you will be able to do**
#
# - write the Serial LoRA adapter from scratch: two matrices, their start, one line of maths;
# - put it where it belongs in an attention block, and say what goes wrong in the other places;
# - prove that your version is right: equal to the base when fresh, equal to W (I + B A) when trained,
#   and only the adapter learns;
# - find three real bugs with three small probes;
# - use the package's `inject`, `merge`, `unmerge`, `eject` and `disabled`, and know what they do.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy

import torch
from IPython.display import display
from torch import nn
from torch.nn import functional as F

from serial_lora import SerialLoRAConfig, adapters, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l03_build import probes
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("03")

# %% [markdown]
# The lesson puts adapters into two models: an attention block, small enough to read, and later a small
# CLIP of open_clip's class. The next two code cells make them. Run both, after the imports, whenever you
# come back to the middle of the lesson; every section below needs nothing else.
#
# `SmallBlock` is the attention half of a transformer block as CLIP, SAM and most vision transformers
# have it: norm first, then attention, and the result is *added* to what came in. What came in is called
# the **residual stream**; it runs through the whole model, and each block only adds to it. The other
# half of a block, an MLP, is left out here, since neither method touches it. Read it from `forward`
# upwards.


# %% tags=["idea"]
class SmallBlock(nn.Module):
    """x + out(attention(q, k, v)), where q, k and v read the normed x."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = q.shape  # (B, N, d)
        split = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (t.view(split).transpose(1, 2) for t in (q, k, v))  # (B, heads, N, d / heads)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, d / heads)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))  # (B, N, d)

    def attention(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.attend(self.q(tokens), self.k(tokens), self.v(tokens))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.attention(self.norm(x))


# %% [markdown]
# Nobody trained these models: their weights are random and frozen, and for questions about how an
# adapter is built that is enough.

# %%
torch.manual_seed(0)
width, rank = 64, 4
x = torch.randn(2, 10, width)  # (B, N, d): 2 pictures, 10 tokens each
block = SmallBlock(width, heads=4).requires_grad_(False)
print(block(x).shape)

clip = probes.small_clip()
images = torch.randn(3, 3, 64, 64)  # (B, 3, H, W)

# %% [markdown]
# ## The formula
#
# Tokens enter attention as rows, after a norm. Serial LoRA changes them once, before q, k and v read
# them:
#
# $$x' = x + s\,(x A^\top) B^\top, \qquad
# q = x' W_q^\top,\quad k = x' W_k^\top,\quad v = x' W_v^\top$$
#
# with `A` (r, d), `B` (d, r) and a fixed scale s, which is 1 in the paper. The pretrained W stay as
# they are. The transposes are there because tokens are rows; `nn.Linear` computes the same. Write a
# token as a *column* instead, as papers do, and they vanish: $q = W_q\,(I + s\,BA)\,x$. The token meets
# $I + s\,BA$ first and then each W, so the block behaves as if its weights were $W(I + s\,BA)$. Keep
# both readings in mind: code uses rows, proofs use columns.
#
# The adapter is a small module. You write it now.

# %% [markdown]
# ### Exercise 3.1 · The adapter
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 10 |
#
# Fill in both methods. The names `lora_A` and `lora_B` matter: other tools find the matrices by
# them. `A` starts with random numbers, `B` with zeros. The check looks at names, shapes, the start,
# the output for a `B` that is not zero, and the gradients. Until both methods are written, it says that
# the exercise is waiting.


# %% tags=["exercise"]
class SerialAdapter(nn.Module):
    """x + scale * x Aᵀ Bᵀ.

    Args:
        width: d, the size of a token.
        rank: r, how many patterns the change can have.
        scale: what the change is multiplied by.
    """

    def __init__(self, width: int, rank: int, scale: float = 1.0):
        super().__init__()
        # BEGIN SOLUTION
        self.scale = scale
        self.lora_A = nn.Parameter(torch.randn(rank, width) / width**0.5)  # (r, d)
        self.lora_B = nn.Parameter(torch.zeros(width, rank))  # (d, r)
        # END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)"""
        # BEGIN SOLUTION
        down = x @ self.lora_A.T  # (..., r)
        return x + self.scale * (down @ self.lora_B.T)  # (..., d)
        # END SOLUTION


check("3.1", SerialAdapter)

# %% [markdown]
# <details><summary>Hint 1: what makes a tensor trainable?</summary>
#
# `nn.Parameter(tensor)`, assigned to `self`, registers it: then `parameters()` finds it and an
# optimizer can move it. Make one of shape (rank, width) and one of shape (width, rank).
#
# </details>
# <details><summary>Hint 2: the forward pass</summary>
#
# You wrote x Aᵀ Bᵀ in exercise 0.1. Multiply it by the scale, and add `x`: the tokens themselves
# must arrive whole.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)

# %% [markdown]
# From here on the notebook runs on *your* class. `yours` gives it where its check passed; where the
# exercise is still open it gives the package's `SerialLoRA`, the same module with a dropout and with
# care for half precision, and says so. A fresh adapter must change nothing, and one with a `B` that is
# not zero must change something. Expect exactly 0, and then something clearly above it.

# %%
Adapter = yours("3.1")
torch.manual_seed(0)
fresh, trained = Adapter(width, rank), Adapter(width, rank)
nn.init.normal_(trained.lora_B, std=0.1)  # as if trained
with torch.no_grad():
    by_fresh, by_trained = ((pair(x) - x).abs().max().item() for pair in (fresh, trained))
print(f"the fresh adapter changes x by {by_fresh}, the other by up to {by_trained:.3f}")

# %% [markdown]
# Zero, not "nearly zero": x plus a product with a zero matrix. Whatever the pretrained model could do, it
# can still do at the first step of training.
#
# **Change this and run again**: a `std` of 1 instead of 0.1. Is the change ten times as large?

# %% [markdown]
# ## Where the adapter goes
#
# Look at the last two methods of `SmallBlock` again, in the opening. The residual stream is normed; q, k
# and v read the normed tokens; what attention found is added to the stream. An adapter is one more
# call among these. PyTorch will not tell you which place is right, since the shapes fit in all of them.

# %% [markdown]
# ### Exercise 3.2 · The right place
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Write the forward pass of a block *with* an adapter. There are many places where the adapter could
# go, and one is right: after the norm, in front of q, k and v, and not on the residual
# stream. You have `block.norm`, `block.attention` and `adapter`. The check recognises most of the
# wrong places.


# %% tags=["exercise"]
def adapted_forward(block: nn.Module, adapter: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run an attention block with a Serial LoRA adapter in it.

    Args:
        block: has `norm` and `attention`, both (B, N, d) -> (B, N, d).
        adapter: (..., d) -> (..., d).
        x: (B, N, d), the residual stream.

    Returns:
        (B, N, d), the residual stream after the block.
    """
    # BEGIN SOLUTION
    tokens = adapter(block.norm(x))  # (B, N, d): what q, k and v all read
    return x + block.attention(tokens)
    # END SOLUTION


check("3.2", adapted_forward)

# %% [markdown]
# <details><summary>Hint 1: start from the plain block</summary>
#
# Without an adapter the pass is `x + block.attention(block.norm(x))`. You need exactly one more call.
#
# </details>
# <details><summary>Hint 2: what must stay clean</summary>
#
# The `x` that is added at the end is the one that came in, unadapted. What goes into `attention` is
# the adapted, normed x.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)

# %% [markdown]
# Here is the block with the pair in its place (its `x +` is inside the pair), and five other places
# where the shapes fit just as well.

# %%
display_drawing("places_in_block")

# %% [markdown]
# **What this shows.** Two properties single out one place. The tokens have passed the norm, so the change
# is linear in what q, k and v read, and can be multiplied into their weights; and the stream above is
# untouched, so only attention receives it. Places 1 and 3 come back below as bugs to find.
#
# **Change this and run again**: in your answer, call the adapter at one of the five places. What does the check
# say?

# %% [markdown]
# ## Is it W (I + B A)?
#
# The formula promises more than "it runs": an adapted block equals a plain block whose q, k and v
# weights are W (I + s B A). If that holds, an adapter costs nothing after training, because it can be
# multiplied into the weights. That is called *merging*.

# %% [markdown]
# ### Exercise 3.3 · The merged weight
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# Return the weight that does in one step what the adapter and W do in two. `nn.Linear` computes
# x Wᵀ, so mind on which side the identity stands. Do not change the weight that comes in.


# %% tags=["exercise"]
def merged_weight(
    weight: torch.Tensor, lora_A: torch.Tensor, lora_B: torch.Tensor, scale: float
) -> torch.Tensor:
    """W (I + scale B A).

    Args:
        weight: (out, d), as `nn.Linear` keeps it.
        lora_A: (r, d).
        lora_B: (d, r).
        scale: what the change is multiplied by.

    Returns:
        (out, d), a new tensor.
    """
    # BEGIN SOLUTION
    return weight + scale * (weight @ lora_B) @ lora_A  # (out, d)
    # END SOLUTION


check("3.3", merged_weight)

# %% [markdown]
# <details><summary>Hint 1: follow one token</summary>
#
# As a column, a token x becomes (I + s B A) x first, and then W (I + s B A) x. What stands directly
# left of x acts first.
#
# </details>
# <details><summary>Hint 2: without the big matrix</summary>
#
# Multiply out: W (I + s B A) = W + s (W B) A. Computed from the left, W B is only (out, r), and no
# (d, d) matrix is ever made. Either way is right. Write it as a new tensor: `+=` would change W.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)

# %% [markdown]
# The cell compares both ways on the small block, with your three answers: adapt the tokens, or merge
# the weights. They are different sums of the same numbers, so expect a difference of rounding size.

# %%
Adapter = yours("3.1")
run_block = yours("3.2")
merge_weight = yours("3.3")

torch.manual_seed(0)
adapter, merged = Adapter(width, rank), copy.deepcopy(block)
nn.init.normal_(adapter.lora_B, std=0.1)  # as if trained
with torch.no_grad():
    for layer in (merged.q, merged.k, merged.v):
        layer.weight.copy_(merge_weight(layer.weight, adapter.lora_A, adapter.lora_B, scale=1.0))
    adapted = run_block(block, adapter, x)
    to_merged, to_base = ((adapted - other(x)).abs().max().item() for other in (merged, block))

# %%
print(
    f"the adapted block differs from the merged one by {to_merged:.1g}, from the base by {to_base:.1g}"
)

# %% [markdown]
# **What this shows.** Merged and adapted are the same block, up to rounding; the base is another one.
#
# The first number is rounding. The second is the adapter's effect, many times larger: without it, the first
# number would prove nothing. Always look at both.
#
# **Change this and run again**: merge into `(merged.q, merged.k)` alone, or with `scale=0.5`. Which of the two
# numbers tells you?

# %% [markdown]
# ## Spot the bug
#
# The three variants below imitate real code that calls itself Serial LoRA. Put a
# classifier on top, and each of them trains: no error, a falling loss. None is Serial LoRA. First the
# right one, as a module, made of your adapter and your forward pass:

# %%
Adapter = yours("3.1")
run_block = yours("3.2")


class RightBlock(nn.Module):
    """A block with one Serial LoRA pair in the right place."""

    def __init__(self, block: SmallBlock, rank: int):
        super().__init__()
        self.block, self.pair = block, Adapter(block.q.in_features, rank)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return run_block(self.block, self.pair, x)


# %% [markdown]
# Now read the variants, and decide for each what is wrong before you go on. The first computes q, k
# and v from the adapted tokens and stores them on the block:


# %%
class VariantOne(RightBlock):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.pair(self.block.norm(x))
        self.block.query = self.block.q(tokens)
        self.block.key = self.block.k(tokens)
        self.block.value = self.block.v(tokens)
        return self.block(x)


# %% [markdown]
# The second is the shortest of all:


# %%
class VariantTwo(RightBlock):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.pair(x))


# %% [markdown]
# And the third is careful with q, k and v:


# %%
class VariantThree(nn.Module):
    def __init__(self, block: SmallBlock, rank: int):
        super().__init__()
        self.block = block
        self.pairs = nn.ModuleList(Adapter(block.q.in_features, rank) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.block.norm(x)
        projections = (self.block.q, self.block.k, self.block.v)
        q, k, v = (w(pair(tokens)) for w, pair in zip(projections, self.pairs, strict=True))
        return x + self.block.attend(q, k, v)


# %% [markdown]
# Reading is one way. Probing is better, because a probe also finds the bug that you did not look
# for. The next three exercises are one probe each: a short function that takes any
# adapted block and answers one question. All adapted blocks keep the plain block as `.block`, and
# call their matrices `lora_A` and `lora_B`.

# %% [markdown]
# ### Exercise 3.4 · Does the adapter do anything?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Return True when the adapter can change the output. Mind that a *fresh* adapter must not: give `B`
# some values first. Work on a deep copy, so that the block you were given stays as it was.


# %% tags=["exercise"]
def has_effect(adapted: nn.Module, x: torch.Tensor) -> bool:
    """Whether the output depends on the adapter's matrices.

    Args:
        adapted: a block whose parameters named ...lora_B are the adapter's B.
        x: (B, N, d).
    """
    # BEGIN SOLUTION
    trained = copy.deepcopy(adapted)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if name.endswith("lora_B"):
                parameter.fill_(0.1)
        return not torch.allclose(trained(x), adapted(x))
    # END SOLUTION


check("3.4", has_effect)

# %% [markdown]
# <details><summary>Hint 1: what to compare</summary>
#
# Two outputs for the same x: one with the block as it came, one with a copy in which every `lora_B`
# has other values.
#
# </details>
# <details><summary>Hint 2: finding B</summary>
#
# Go through `named_parameters()` of the copy and pick the names that end in `lora_B`. Filling needs
# `torch.no_grad()`. `torch.allclose` returns a plain bool.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)

# %% [markdown]
# ### Exercise 3.5 · Is the residual stream left alone?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●○ | 12 |
#
# If attention added nothing, a right block would return x unchanged, whatever the adapter holds.
# Turn that into a probe: on a copy, make attention add nothing, give `B` some values, and look.


# %% tags=["exercise"]
def keeps_residual(adapted: nn.Module, x: torch.Tensor) -> bool:
    """Whether x passes the block unadapted.

    Args:
        adapted: a block with `.block.out`, the linear layer at the end of attention.
        x: (B, N, d).
    """
    # BEGIN SOLUTION
    silent = copy.deepcopy(adapted)
    with torch.no_grad():
        silent.block.out.weight.zero_()
        silent.block.out.bias.zero_()
        for name, parameter in silent.named_parameters():
            if name.endswith("lora_B"):
                parameter.fill_(0.1)
        return torch.allclose(silent(x), x)
    # END SOLUTION


check("3.5", keeps_residual)

# %% [markdown]
# <details><summary>Hint 1: how to silence attention</summary>
#
# Everything that attention adds leaves through `block.out`. A linear layer adds nothing when its
# weight *and* its bias are zero.
#
# </details>
# <details><summary>Hint 2: what then remains</summary>
#
# x + 0. If the output is not x, something else touched the stream. With a `B` of zeros you would
# never see it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)

# %% [markdown]
# ### Exercise 3.6 · How many pairs?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●○○ | 5 |
#
# Return how many different pairs a block has. One pair may have several names; it is still one.


# %% tags=["exercise"]
def pairs_in(adapted: nn.Module) -> int:
    """The number of different low-rank pairs in a block, by their lora_A."""
    # BEGIN SOLUTION
    return sum(name.endswith("lora_A") for name, _ in adapted.named_parameters())
    # END SOLUTION


check("3.6", pairs_in)

# %% [markdown]
# <details><summary>Hint 1: what to count</summary>
#
# Every pair has one `lora_A`. Count these.
#
# </details>
# <details><summary>Hint 2: shared pairs</summary>
#
# `named_parameters()` lists a tensor once, under its first name, even when several modules share it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/03_build_serial_lora.ipynb)

# %% [markdown]
# ### The verdict
#
# Now apply your probes to all four blocks. Each row is one block, each column one question. Before you
# run it: in which column does each variant fail?

# %%
kinds = (RightBlock, VariantOne, VariantTwo, VariantThree)
blocks = {kind.__name__: kind(copy.deepcopy(block), rank) for kind in kinds}
questions = (
    yours("3.4"),
    yours("3.5"),
    yours("3.6"),
)
table = probes.probe_table(blocks, x, *questions)
display(table)

# %% [markdown]
# **What this shows.** One block passes all three. Each of the others runs, trains, has the right
# shapes, and is caught by one probe.
#
# Each variant fails one probe and passes the others, so no single probe would have been enough.
#
# - **VariantOne** computes adapted q, k and v, and stores them on the block as attributes that nobody
#   reads. Whatever such a run learns, the classifier on top learnt it.
# - **VariantTwo** adapts the block's *input*, so the change travels on the residual stream past this
#   block and into all later ones. It cannot be merged into q, k and v.
# - **VariantThree** has a pair for each projection. It is a fine method, at three times the size, and
#   nothing is shared.
#
# **Change this and run again**: write a fourth variant, with the adapter behind `attention`, and add it to
# `kinds`. It passes all three: a probe finds only what it looks for. What would find it is the comparison
# with the merged weights, above.

# %% [markdown]
# ## Into a real model, by hand and with `inject`
#
# The opening's `clip` is small, and of the same class as the large ones. Its blocks come from a library,
# open_clip, and should stay as they are: no subclass, no copied forward pass. PyTorch offers the
# *forward hook*: a function that may replace what a module returns. The right place, after
# the norm and before q, k and v, is the output of the block's first norm, which open_clip calls `ln_1`.
# The three projections all read it. Your class goes in:

# %%
Adapter = yours("3.1")
torch.manual_seed(0)
by_hand = copy.deepcopy(clip)
hand_adapters = nn.ModuleList()
for resblock in by_hand.visual.transformer.resblocks:
    pair = Adapter(128, 4)  # width, rank
    nn.init.normal_(pair.lora_B, std=0.1)  # as if trained
    resblock.ln_1.register_forward_hook(lambda norm, inputs, output, pair=pair: pair(output))
    hand_adapters.append(pair)

with torch.no_grad():
    change = (by_hand.encode_image(images) - clip.encode_image(images)).abs().max().item()
print(f"{len(hand_adapters)} adapters change the answers by up to {change:.3f}")

# %% [markdown]
# Five lines adapt a model whose code we never touched. (The `pair=pair` in the hook matters: without it
# every hook would use the last pair, as Python looks a name up only when the hook runs.)
#
# **Change this and run again**: hook `ln_2` instead. It runs as well, and adapts the MLP.
#
# The package's `inject` does the same for any model whose attention it recognises by its structure, and takes care
# of what the five lines leave out: it freezes the base, refuses to inject twice, keeps the base's names in the
# state dict, and finds where tokens enter attention in each architecture. With your matrices copied into it, both
# models must give the same answers. Expect rounding, around one millionth: the package also takes a faster way
# through attention, whose sums run in another order.

# %%
from serial_lora import count_parameters, disabled

# CLIP has an image and a text tower; by hand we adapted the image tower alone.
model = inject(copy.deepcopy(clip), SerialLoRAConfig(rank=4, towers=["image"]))
with torch.no_grad():
    for mine, theirs in zip(hand_adapters, adapters(model).values(), strict=True):
        theirs.lora_A.copy_(mine.lora_A)
        theirs.lora_B.copy_(mine.lora_B)

# %%
with torch.no_grad():
    difference = (model.encode_image(images) - by_hand.encode_image(images)).abs().max().item()
    with disabled(model):
        lost = (model.encode_image(images) - clip.encode_image(images)).abs().max().item()
print(count_parameters(model))
print(f"by hand and by the package: {difference:.1g} apart; disabled and the base: {lost:.1g}")

# %% [markdown]
# **What this shows.** Your four hooks and the package's one line are the same model, up to rounding,
# and switched off it is the base again.
#
# One call does what the five lines do, and more safely. `with disabled(model):` gives the base model back
# for the length of the block, up to that rounding, which is how a fair before-and-after comparison is made.
#
# **Change this and run again**: leave the line out that copies `lora_B`. Which two models are equal then?

# %% [markdown]
# ## Only the adapters learn
#
# Two steps of training on random targets, and then we look which tensors moved. Expect
# the base at 0 in both steps. And expect a surprise in the first step: look at `A`.

# %%
torch.manual_seed(0)
trainee = inject(copy.deepcopy(clip), SerialLoRAConfig(rank=4, towers=["image"]))
optimizer = torch.optim.SGD([p for p in trainee.parameters() if p.requires_grad], lr=0.1)
targets = torch.randn(3, 64)  # (B, 64)

moves = []
for _ in range(2):
    before = {name: value.detach().clone() for name, value in trainee.named_parameters()}
    loss = F.mse_loss(trainee.encode_image(images), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    moves.append(probes.largest_moves(before, trainee))

# %%
for part in moves[0]:
    print(f"{part}: step 1 moves it by {moves[0][part]:.1g}, step 2 by {moves[1][part]:.1g}")

# %% [markdown]
# **What this shows.** The base never moves. B moves at once; A has to wait for the second step, since
# its gradient has the factor B, and B began at zero.
#
# The base never moves. In the first step `A` does not move either: its gradient passes through `B`, and `B`
# is zero. `B` moves first, and from the second step on both learn. If `A` *and* `B` started at zero, nothing
# would ever move: that is why one of them is random.
#
# **Change this and run again**: fill every `lora_A` with zeros before the first step. What moves now?

# %% [markdown]
# ## Merge, unmerge, eject
#
# `merge` multiplies the adapters into q, k and v: afterwards the model is as fast as the base.
# `unmerge` brings the old weights back, bit for bit, from a copy and not by subtraction. `eject` takes
# the adapters out. Expect rounding for the merge, and exactly 0 for the two ways back.

# %%
from serial_lora import eject, merge, unmerge


def distance(model: nn.Module, answers: torch.Tensor) -> str:
    """The largest difference between a model's answers and the given ones, to one digit."""
    with torch.no_grad():
        return f"{(model.encode_image(images) - answers).abs().max().item():.1g}"


# %%
torch.manual_seed(0)
model = inject(copy.deepcopy(clip), SerialLoRAConfig(rank=4, towers=["image"]))
for pair in adapters(model).values():
    nn.init.normal_(pair.lora_B, std=0.1)  # as if trained
with torch.no_grad():
    plain, answers = clip.encode_image(images), model.encode_image(images)  # (B, 64) each

merged = distance(merge(model), answers)
unmerged = distance(unmerge(model), answers)
ejected = distance(eject(model), plain)
print(f"merged: {merged}, unmerged: {unmerged} from the adapted; ejected: {ejected} from the base")

# %% [markdown]
# **What this shows.** Merging rounds. Unmerging and ejecting do not: the original numbers were kept,
# so they come back bit for bit.

# %% tags=["nbval-check-output"]
base_state, state = clip.state_dict(), model.state_dict()
names = list(state) == list(base_state)
values = all(torch.equal(value, base_state[name]) for name, value in state.items())
print("the same names as the base:", names, "| the same bits as the base:", values)

# %% [markdown]
# An adapter can be put in and taken out without a change to the base. So it is safe to try, and easy to
# share: the file holds the pairs alone, and the base stays the file that everybody has.
#
# **Change this and run again**: pairs with `std=3`. How large is rounding then, and does the base still come back
# bit for bit?

# %% [markdown]
# ## Does it learn what it can express?
#
# A *teacher* block differs from the frozen block by a change of rank 4 in front of q, k and v. We train
# Serial LoRA of rank 1, 2, 4 and 8 to imitate it. At rank 4 and above the pair can express the change
# exactly; below, it cannot. So expect two curves that go on falling and two that stop early.

# %%
Adapter = yours("3.1")
run_block = yours("3.2")

torch.manual_seed(0)
true_rank = 4  # change this and run again: 8
teacher_pair = Adapter(width, true_rank).requires_grad_(False)
nn.init.normal_(teacher_pair.lora_B, std=0.5)
tokens = torch.randn(32, 10, width)  # (B, N, d)
wanted = run_block(block, teacher_pair, tokens)  # (B, N, d)


# %%
def imitate(rank: int, steps: int = 200) -> list[float]:
    """Train a fresh pair of this rank to reproduce the teacher; the loss at each step."""
    torch.manual_seed(rank)
    pair = Adapter(width, rank)
    optimizer = torch.optim.Adam(pair.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        loss = F.mse_loss(run_block(block, pair, tokens), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
from serial_lora_course.lessons.l03_build.figures import plot_losses

curves = {rank: imitate(rank) for rank in (1, 2, 4, 8)}
display_figure(plot_losses(curves, f"Imitating a change of rank {true_rank}"))
print({f"rank {rank}": f"{losses[-1]:.1g}" for rank, losses in curves.items()})

# %% [markdown]
# **What this shows.** With too low a rank the loss stops at a hundredth and stays there; at the true
# rank it falls by eight more powers of ten. More training does not replace rank.
#
# Below the rank of the change an error remains, however long you train; at or above it, the loss keeps falling.
# The largest pair is not the best one at the end, since its spare patterns have nothing to express and must
# be brought to zero. The rank says what *can* be learnt, no more. Where the change that a task needs has few
# patterns, a small pair suffices; lesson 04 asks how that turns out for CLIP on new pictures.

# %% [markdown]
# ## To copy: a model of your own
#
# All this in fifteen lines, for your own model. A pretrained tower gets a new head for three classes.
# The head starts at random, so it must learn too: `also_train` keeps it trainable, counts it separately, and
# puts it into the adapter's file. (Forget it, and `inject` warns.) The tower is the small CLIP's, the
# pictures are noise; put your own in their places. Expect a loss that falls, and equal answers after
# loading.


# %%
import tempfile
from pathlib import Path

from serial_lora import count_parameters, load_adapter, lora_plus_groups, save_adapter


def build() -> nn.Module:
    """The base with a new head: what you have before you adapt, and wherever you load."""
    return nn.Sequential(copy.deepcopy(clip.visual), nn.Linear(64, 3))


# %%
torch.manual_seed(0)
labels = torch.tensor([0, 1, 2])  # (B,)
model = inject(build(), SerialLoRAConfig(rank=4), also_train=["1"])  # "1": the head's name
optimizer = torch.optim.AdamW(lora_plus_groups(model, lr=2e-3, ratio=1))  # one rate for A and B
for _ in range(30):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with tempfile.TemporaryDirectory() as folder:
    file = save_adapter(model, Path(folder, "mine.safetensors"))
    again = load_adapter(build(), file)  # another head at first; the file brings the trained one

# %%
print(count_parameters(model))
apart = (again(images) - model(images)).abs().max().item()
print(f"the loss fell to {loss.item():.2f}; loaded and trained differ by {apart}")

# %% [markdown]
# Adapting (which freezes the base), saving and loading are one call each. Lesson 12 does the same from a
# folder of pictures to a model card.
#
# **Change this and run again**: leave `also_train` out, and read the warning. Which number shows that the
# head was lost?

# %% [markdown]
# ## Quiz
#
# **1. A fresh adapter gives the base's answers exactly. Does that prove that it is built right?**
#
# <details><summary>Answer</summary>
#
# No. VariantOne always passes that test, because it never does anything. You need both: no change
# when fresh, and a change, of the right kind, when `B` is not zero.
#
# </details>
#
# **2. Why can VariantTwo not be merged into q, k and v?**
#
# <details><summary>Answer</summary>
#
# Because its change is also added to the residual stream, past the attention. No choice of W_q, W_k
# and W_v can do that: what they produce only reaches the stream through attention and `out`.
#
# </details>
#
# **3. In the first step of training, which matrix has a gradient of zero, and why?**
#
# <details><summary>Answer</summary>
#
# `A`. The change is x Aᵀ Bᵀ, so the gradient with respect to `A` contains `B` as a factor, and `B` is
# zero. The gradient with respect to `B` contains x Aᵀ, which is not.
#
# </details>

# %% [markdown]
# ## Key points
#
# - Serial LoRA is x + s x Aᵀ Bᵀ, after the norm, in front of q, k and v, not on the residual stream.
# - `B` = 0 makes a fresh adapter exact. `A` random makes it able to learn.
# - It equals W (I + s B A), so it merges; LoRA's W + B A is another matrix.
# - Probe, do not only read: effect, residual, number of pairs. Then count, then train.
# - `inject` does what five lines around a hook do, and more safely. `merge` puts the pairs into the weights,
#   `unmerge` undoes that, `eject` takes them out, `disabled` switches them off for a while.

# %% [markdown]
# ## Where the paper says it
#
# An earlier method, which the paper does not cite, is close: RepAdapter (Luo et al., "Towards Efficient
# Visual Adaption via Structural Re-parameterization", arXiv 2302.08106, 2023) puts x + s (B (A x + a) + b)
# after the norm and in front of attention, with `B` in two groups, zero at the start, and merges it. With
# one group and no biases it is the layer that you built; its larger form has a second one in front of the
# feed-forward. A test of the course compares the two.
#
# "Serial Low-rank Adaptation of Vision Transformer": equation (3) and Fig. 1 for the adapter and its
# place, equation (5) for W + W B A against LoRA's W + B A in equation (4), section II-A for the start.
# The paper states no scale (so 1) and not how wide the Gaussian of `A` is; the package draws it as
# PyTorch draws a linear layer.
#
# Next: [04 · CLIP with a few shots](04_clip_few_shot.ipynb).
