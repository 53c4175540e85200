# %% [markdown]
# # 00 · Start here
#
# A children's museum has drawings to sort: mammals, birds, insects, flowers. It has a small CLIP, which takes a poodle
# for a plant. You have a laptop, a few sorted drawings of each kind, and one minute. Fix the model first; the
# explanations come after.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import torch
from torch import nn
from torch.nn import functional as F

from serial_lora import SerialLoRAConfig, adapter_parameters, count_parameters, inject, set_scale
from serial_lora_course.checking import CheckFailed, check, lesson_card, lesson_list
from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("00")

# %% [markdown]
# ## One minute
#
# CLIP turns a picture into a vector, and a sentence into another vector. Give it one sentence for each kind, and its
# answer is the sentence whose vector lies nearest to the picture's. The next cell asks it about drawings that it has
# never seen. Then `inject` puts a small add-on into the model, an ordinary loop trains the add-on and nothing else,
# and the cell asks again.


# %% tags=["idea"]
clip, data = load_clip(), load_classification("nature")
model, sentences = clip.model, clip.tokenizer(data.prompts())  # "a drawing of a bird.", ...


def opened(examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, H, W) and the numbers of their kinds (N,)."""
    pictures, kinds = zip(*examples, strict=True)
    return torch.stack([clip.test_transform(picture) for picture in pictures]), torch.tensor(kinds)


def scores(pictures: torch.Tensor) -> torch.Tensor:
    """How near each picture is to each sentence: (B, kinds)."""
    drawn = model.encode_image(pictures, normalize=True)  # (B, d)
    return model.logit_scale.exp() * drawn @ encode_prompts(model, sentences).T


(train, kinds), (test, truth) = opened(data.train), opened(data.test)
with torch.no_grad():
    before = scores(test).argmax(dim=-1)

torch.manual_seed(0)
inject(model, SerialLoRAConfig(rank=16))  # freezes CLIP and puts the add-on in
optimizer = torch.optim.AdamW(adapter_parameters(model), lr=3e-3)
for _ in range(40):
    chosen = torch.randint(len(kinds), (32,))
    loss = F.cross_entropy(scores(train[chosen]), kinds[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.no_grad():
    after = scores(test).argmax(dim=-1)
right = [(named == truth).sum().item() for named in (before, after)]
print(f"right before: {right[0]} of {len(truth)}, after: {right[1]}")
print(f"called a plant before: {(before == data.class_names.index('a plant')).sum()}")
most = truth.mode().values  # the largest kind
print(f"always {data.class_names[most]}: {(truth == most).sum()}")

# %%
mended = [i for i in range(len(truth)) if before[i] != truth[i] == after[i]]
mended = mended[:: len(mended) // 8][:8]  # some of each kind
names = data.class_names
titles = [f"before: {names[before[i]]}\nnow: {names[after[i]]}" for i in mended]
display_figure(show_pictures([data.test[i][0] for i in mended], titles, columns=4, size=1.8))
print(data.attribution)

# %% [markdown]
# Before training, CLIP took 39 of the 82 drawings for plants. Forty steps raised its right answers from 13 to 42
# (always saying "a mammal" gives 26). Far from perfect: this CLIP is tiny. But we trained no new model; we steered the
# old one. Lesson 04 asks what the labels alone would give.
#
# **Change this and run again**: `load_classification("travel")` in the cell that trains, or `"food"`, where forty
# steps gain almost nothing.

# %% [markdown]
# ## What was added
#
# A vision transformer cuts a picture into patches and turns each into a vector, a *token*. In every block, attention
# uses four large matrices: **q** (query), **k** (key) and **v** (value) read the tokens, and **out** ($W_o$ in the
# drawing) combines the results. Our add-ons are pairs of thin matrices, `A` and `B`.

# %%
display_drawing("serial_vs_lora")

# %% [markdown]
# *LoRA* gives each of the four matrices its own pair, which works beside it. *Serial LoRA* has a single pair in front
# of q, k and v, so all three read the same slightly changed tokens. One pair instead of four: a quarter of the
# numbers. You trained these:

# %%
count = count_parameters(model)
print(f"{count.trainable:,} of {count.total:,} numbers learn: {count.share:.2%}")

# %% [markdown]
# ## Turn it down, turn it up
#
# CLIP's own weights did not change. The pairs only add something, and their `scale` multiplies it: 1 in training. What
# do you expect at 0, at a half, and at 2?

# %%
for scale in (0, 0.05, 0.1, 0.25, 0.5, 1, 2, 3):
    set_scale(model, scale)
    with torch.no_grad():
        found = (scores(test).argmax(dim=-1) == truth).sum().item()
    print(f"scale {scale:4}: {found} right  {'#' * found}")
set_scale(model, 1)

# %% [markdown]
# At 0 the old CLIP is back, with its 13. At a half, most of the gain is there. At 2 much of it is lost again, and at 3
# nearly all: the add-on overpowers the model. So an adapter is not a new model but a direction in which you push the
# old one, and you can push too far. (Another seed or machine gives another curve, from the same 13.)

# %% [markdown]
# ## Why so few numbers can do it
#
# `B` is tall, (d, r), and `A` is wide, (r, d). Their product is as large as the big matrices, (d, d), but the pair
# holds far fewer numbers, because r is small. This r is the **rank**. How much can such a product express? A grey
# picture of 64 x 64 pixels is a matrix too, so try it there. The *singular value decomposition* gives the best pair
# for each rank. Guess first: at which rank will you recognise the picture?

# %%
from serial_lora_course.data.emoji import load_emoji

openmoji = load_emoji("openmoji")
drawing = openmoji.picture(openmoji.names.index("owl")).convert("L")
picture = torch.frombuffer(bytearray(drawing.tobytes()), dtype=torch.uint8).view(64, 64) / 255
U, S, Vh = torch.linalg.svd(picture)  # (64, 64), (64,), (64, 64)

shown, captions = [], []
for rank in (1, 2, 4, 8, 16, 64):
    B = U[:, :rank] * S[:rank]  # (64, r)
    A = Vh[:rank]  # (r, 64)
    shown.append((B @ A).clamp(0, 1))  # (64, 64)
    captions.append(f"rank {rank}: {A.numel() + B.numel():,}")
display_figure(show_pictures(shown, captions, columns=6))
print(f"the picture itself: {picture.numel():,} numbers.", data.attribution)

# %% [markdown]
# Bars, then an outline, then an owl. At rank 8, a quarter of the picture's numbers is enough to recognise it. At the
# full rank the pair holds twice as many as the picture: a pair saves only if its rank is low.
#
# LoRA bets that the *change* a model needs for a new task is like this owl: large, but made of few patterns. Lesson 01
# checks that bet.

# %% [markdown]
# ## How exercises work
#
# An exercise is a card, a function to write, and a check in the same cell. Replace the line
# `raise NotImplementedError(...)` with your own code, and run the cell. Two hints and the solution are below it. If
# you skip an exercise, the notebook goes on with the solved answer. A wrong answer does not stop it either. It looks
# like this:


# %%
def wrong_order(x: torch.Tensor, lora_A: torch.Tensor, lora_B: torch.Tensor) -> torch.Tensor:
    """A wrong answer to exercise 0.1."""
    return x @ lora_B @ lora_A


try:
    check("0.1", wrong_order)
except CheckFailed as message:
    print(message)

# %% [markdown]
# Read the last line first: the checks know the common mistakes. Keep your answers in a copy of the notebook (in
# JupyterLab: right-click, *Duplicate*), since an update of the course replaces these files. And if something does not
# run, type `serial-lora doctor` in a terminal: it says what is missing, and what to do.

# %% [markdown]
# ### Exercise 0.1 · Through the low rank
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 5 |
#
# This is what the add-on computes. Tokens are rows, so `x` has the shape (..., d). Send them through `A` (r, d) down
# to r numbers each, and through `B` (d, r) back up to d: x Aᵀ Bᵀ. The large matrix B A is never needed.


# %% tags=["exercise"]
def low_rank_product(x: torch.Tensor, lora_A: torch.Tensor, lora_B: torch.Tensor) -> torch.Tensor:
    """Send tokens through a low-rank pair.

    Args:
        x: (..., d) tokens.
        lora_A: (r, d), down to the rank.
        lora_B: (d, r), back up to the width.

    Returns:
        (..., d), equal to x Aᵀ Bᵀ.
    """
    # BEGIN SOLUTION
    down = x @ lora_A.T  # (..., r)
    return down @ lora_B.T  # (..., d)
    # END SOLUTION


check("0.1", low_rank_product)

# %% [markdown]
# <details><summary>Hint 1: which of the two comes first?</summary>
#
# The row vector `x` has d entries. Of `A.T` (d, r) and `B.T` (r, d), only one can stand directly
# after it so that the result has r entries.
#
# </details>
# <details><summary>Hint 2: the shapes, step by step</summary>
#
# `(..., d) @ (d, r)` gives `(..., r)`; `(..., r) @ (r, d)` gives `(..., d)`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)

# %% [markdown]
# ### Exercise 0.2 · Freeze a model
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 5 |
#
# `inject` froze CLIP before it put the pairs in: no weight of the pretrained model may require a gradient. Write a
# function that freezes *every* parameter of any module, however deeply it is nested, and returns the module. One
# plausible line does nothing at all; the check recognises it.


# %% tags=["exercise"]
def freeze(model: nn.Module) -> nn.Module:
    """Make every parameter of the model require no gradient; return the same model."""
    # BEGIN SOLUTION
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model
    # END SOLUTION


check("0.2", freeze)

# %% [markdown]
# <details><summary>Hint 1: who carries the switch?</summary>
#
# `requires_grad` belongs to a tensor. Setting it on a module makes a new attribute that PyTorch
# never looks at.
#
# </details>
# <details><summary>Hint 2: how to reach them all</summary>
#
# `model.parameters()` walks through all submodules. Set `requires_grad` on each, or call
# `model.requires_grad_(False)`, with the underscore, which does that for you.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)

# %% [markdown]
# ## Quiz
#
# **1. What did the forty steps change in CLIP?**
#
# <details><summary>Answer</summary>
#
# Nothing. Its weights are frozen, and at scale 0 it is the old model again. Only the pairs in front of its attention
# were trained.
#
# </details>
#
# **2. At full rank the owl was perfect. Why not always use the full rank?**
#
# <details><summary>Answer</summary>
#
# Because then the pair holds twice as many numbers as the matrix that it replaces. A pair of rank r holds 2 d r
# numbers, which is less than d x d only while r is below d / 2. Useful ranks are far below that.
#
# </details>
#
# **3. You write `model.requires_grad = False` and train. What happens?**
#
# <details><summary>Answer</summary>
#
# Everything is trained. The line puts an attribute on the module; each parameter keeps its own
# `requires_grad`. No error tells you.
#
# </details>

# %% [markdown]
# ## What to remember
#
# - A frozen model can be steered by an add-on of about a hundredth of its size.
# - The add-on is a product of two thin matrices, `A` (r, d) and `B` (d, r). The rank r is the number of patterns that
#   it can add.
# - Serial LoRA has one such pair in front of q, k and v. LoRA has one beside each of four matrices.
# - Freeze first. Then check that it worked: count what can be trained.

# %% [markdown]
# ## The lessons
#
# You build an adapter in twenty lines, and then you put the paper that proposed it on trial. Take the lessons in
# order, or, if you cannot wait to build, go straight to 03 and come back.

# %%
lesson_list()
