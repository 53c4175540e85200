# %% [markdown]
# # 00 · Start here
#
# The small CLIP of this course has only ever seen drawings: emoji and icons. Now it meets photographs of birds, tools,
# flowers, nine classes in all, and gets two of three wrong. You have a laptop and about a hundred photographs that
# somebody sorted. Adapt the model first; the explanations come after.
#
# In later lessons you build this adapter in twenty lines, and then put the paper that proposed it on trial.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.nn import functional as F

from serial_lora import (
    SerialLoRAConfig,
    adapter_parameters,
    adapters,
    count_parameters,
    inject,
    set_scale,
)
from serial_lora_course.checking import CheckFailed, check, lesson_card, lesson_list, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("00")

# %% [markdown]
# ## Ask, adapt, ask again
#
# CLIP turns a picture into a vector, and a sentence into another vector. Give it one sentence for each class, and
# its answer is the sentence whose vector lies nearest to the picture's.


# %%
clip, data = load_clip(), load_classification("photographs")
model, names = clip.model, data.class_names
sentences = clip.tokenizer(data.prompts())


def opened(examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, H, W) and the numbers of their classes (N,)."""
    pictures, labels = zip(*examples, strict=True)
    return torch.stack([clip.test_transform(picture) for picture in pictures]), torch.tensor(labels)


def scores(pictures: torch.Tensor, sentences: torch.Tensor = sentences) -> torch.Tensor:
    """How near each picture is to each sentence: (B, sentences)."""
    seen = model.encode_image(pictures, normalize=True)  # (B, d)
    return model.logit_scale.exp() * seen @ encode_prompts(model, sentences).T


(train, labels), (test, truth) = opened(data.train), opened(data.test)
print(f"{len(labels)} photographs to learn from, {len(truth)} to test on, of {len(names)} classes:")
print(*names, sep=", ")
print("the first sentence:", data.prompts()[0])

# %% [markdown]
# The next cell asks CLIP about the photographs of the test. Then `inject` puts a small *adapter* into the model,
# an ordinary loop trains the adapter and nothing else, and the cell asks again.

# %% tags=["idea"]
with torch.no_grad():
    before = scores(test).argmax(dim=-1)
    frozen = [model.encode_image(pictures, normalize=True) for pictures in (train, test)]  # (N, d)

torch.manual_seed(0)
inject(model, SerialLoRAConfig(rank=16))  # freezes CLIP and puts the adapter in
optimizer = torch.optim.AdamW(adapter_parameters(model), lr=3e-3)
for _ in range(40):
    chosen = torch.randint(len(labels), (32,))
    loss = F.cross_entropy(scores(train[chosen]), labels[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.no_grad():
    after = scores(test).argmax(dim=-1)

# %% [markdown]
# Here are two rivals that need no adapter. The first always names the class of which there were most to learn from. The
# second is a *linear probe*: a logistic regression on the vectors of the old CLIP, with the same labels. Its one
# setting, C, is chosen by cross-validation on the training photographs.

# %%
always = torch.full_like(truth, labels.mode().values)
probe = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.1, 1, 10, 100]})
probe.fit(frozen[0], labels)
answers = {"before": before, "after": after, f"always {names[always[0]]}": always}
answers["a linear probe"] = torch.from_numpy(probe.predict(frozen[1]))
for name, given in answers.items():
    print(f"{name:14}  {(given == truth).sum()} of {len(truth)} right")

changed = {
    "gained": [i for i in range(len(truth)) if before[i] != truth[i] == after[i]],
    "lost": [i for i in range(len(truth)) if before[i] == truth[i] != after[i]],
}
for what, which in changed.items():
    if some := which[::4]:
        print(f"{what}, every fourth of them:")
        titles = [f"was: {names[before[i]]}\nnow: {names[after[i]]}" for i in some]
        display_figure(show_pictures([data.test[i][0] for i in some], titles, columns=5, size=1.8))
print(data.attribution)

# %% [markdown]
# CLIP named 24 of 70 right: it took a black bird for a vehicle, and a deer for a musical instrument. After forty steps
# it is 35. Something was lost too: the lower pictures were right before.
#
# Now look at the probe. It has 35 as well, and needs no adapter. So the old CLIP's vectors held as much all the time;
# its nine sentences did not find it. But the probe knows only its nine classes. The adapted CLIP still takes sentences: below, you ask it another question. Here the adapter did no more than the probe; lesson 04 asks whether it
# can.
#
# **Change this, and run again** from the cell that loads CLIP (an adapted model refuses a second adapter): `range(80)`.

# %% [markdown]
# ## What was added
#
# A vision transformer cuts a picture into patches and turns each into a vector, a *token*. In every block, attention
# uses four large matrices: **q** (query), **k** (key) and **v** (value) read the tokens, and **out** ($W_o$ in the
# drawing) combines the results. CLIP's tower for sentences is a transformer too; its tokens are pieces of words. Our
# adapter is made of pairs of thin matrices, `A` and `B`, in both towers.

# %%
display_drawing("serial_vs_lora")

# %% [markdown]
# [*LoRA*](https://arxiv.org/abs/2106.09685) (Hu et al., 2021) gives each matrix a pair of its own, which works beside
# it; here, as we read the paper's comparison, all four. *Serial LoRA* has a single pair in front of q, k and v, so all three
# read the same slightly changed tokens. It is from *Serial Low-rank Adaptation of Vision Transformer* (Zhong et al.,
# 2025), which this course calls [the paper](https://arxiv.org/abs/2503.17750). <!-- from the two papers: 2021, 2025 -->
# One pair instead of four: at equal rank, a quarter of the parameters.
#
# `A` is wide, (r, d), and `B` is tall, (d, r). A token x, a row of d numbers, goes down to r numbers and up to d again,
# and what comes out is added to it:
#
# $$x' = x + \text{scale} \cdot x A^\top B^\top$$
#
# That is the whole adapter, and r is its **rank**. Compute it for the first of the pairs that you trained:

# %%
pairs = adapters(model)  # where each is, and the pair
pair = next(iter(pairs.values()))
A, B = pair.lora_A, pair.lora_B  # (r, d) and (d, r)
x = torch.randn(5, A.shape[1])  # five tokens
same = torch.allclose(pair(x), x + pair.scale * x @ A.T @ B.T, atol=1e-5)
print(f"A {tuple(A.shape)}, B {tuple(B.shape)}, scale {pair.scale}; the line does the same: {same}")

count = count_parameters(model)
of_pictures = sum(name.startswith("visual") for name in pairs)
print(f"{of_pictures} pairs for pictures and {len(pairs) - of_pictures} for sentences,", end=" ")
print(f"of {A.numel() + B.numel():,} parameters. One W_q has {A.shape[1] ** 2:,}.")
print(f"{count.trainable:,} of {count.total:,} parameters learn: {count.share:.2%}")

# %% [markdown]
# A pair holds a sixth of the parameters of $W_q$ alone. Whatever the token, what is added mixes the same r directions. That so few are enough is LoRA's bet; lesson 01
# looks at it in one block.
#
# ## Turn it down, turn it up
#
# CLIP's own weights did not change. The pairs only add something, and their `scale` multiplies it: 1 in training. What
# do you expect at 0, at a half, and at 2? We also ask what nobody trained: is it an animal or a thing?

# %%
question = clip.tokenizer(["a photo of an animal.", "a photo of a thing."])
is_thing = (truth > 3).long()  # the first four classes are animals
for scale in (0, 0.25, 0.5, 1, 2, 3):
    set_scale(model, scale)
    with torch.no_grad():
        found = (scores(test).argmax(dim=-1) == truth).sum().item()
        other = (scores(test, question).argmax(dim=-1) == is_thing).sum().item()
    print(f"scale {scale:4}: {found} right {'#' * found:40} animal or thing: {other}")
set_scale(model, 1)
print(f"one answer for all: {always.eq(truth).sum()} and {is_thing.bincount().max()}")

# %% [markdown]
# At 0 the old CLIP is back, with its 24. At a half even two more are right than at 1. (Do not choose a scale here:
# these are the test's pictures.) At 2 one of the eleven gained is left, and at 3 hardly more are right than with one answer for all:
# the adapter overpowers the model. So an adapter is not a new model but a direction in which you push the old one, and
# you can push too far.
#
# The other question still gets answers: 44 right at scale 1, 48 before. How much such a CLIP forgets, lesson 09 measures.

# %% [markdown]
# ## How exercises work
#
# An exercise is a card, a function to write, and a check in the same cell. Replace the line
# `raise NotImplementedError(...)` with your own code, and run the cell. Two hints and the solution are below it. If
# you skip it, or your answer is wrong, the notebook goes on with the solved one. Here is an answer to exercise 0.2 that
# does nothing and returns nothing:

# %%
try:
    check("0.2", lambda model: None)
except CheckFailed as message:  # stops graders; your notebook prints it, in red, and goes on
    print(message)

# %% [markdown]
# Read the last line first: the checks know the common mistakes. Keep your answers in a copy of the notebook (in
# JupyterLab: right-click, *Duplicate*), since an update of the course replaces these files. If something does not run,
# type `serial-lora doctor` in a terminal.

# %% [markdown]
# ### Exercise 0.1 · Gained and lost
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●○ | 5 |
#
# More right answers do not mean that every old one is still right. How many pictures became right, and how many became
# wrong? The cell that showed photographs looked for them one by one. Count all at once, without a loop.


# %% tags=["exercise"]
def gained_and_lost(
    before: torch.Tensor, after: torch.Tensor, truth: torch.Tensor
) -> tuple[int, int]:
    """How many pictures were wrong and are right now, and how many were right and are wrong now.

    Args:
        before: (N,), the class that each picture was given at first.
        after: (N,), the class that it is given now.
        truth: (N,), its right class.

    Returns:
        Gained and lost, two whole numbers.
    """
    # BEGIN SOLUTION
    was, now = before == truth, after == truth  # (N,) each, True where it is right
    gained = (now & ~was).sum().item()
    lost = (was & ~now).sum().item()
    return gained, lost
    # END SOLUTION


check("0.1", gained_and_lost)

# %% [markdown]
# <details><summary>Hint 1: where was it right?</summary>
#
# `before == truth` compares entry by entry: a tensor of True and False, one for each picture.
#
# </details>
# <details><summary>Hint 2: both at once</summary>
#
# For tensors, "and" is `&` and "not" is `~`. The sum of a tensor of True and False counts the True ones, and `.item()`
# makes a number of it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)

# %%
gained, lost = yours("0.1")(before, after, truth)
print(f"gained {gained}, lost {lost}: {gained - lost} more right")
heads = torch.randint(2, (100_000, gained + lost)).sum(dim=-1)  # of as many tosses of a coin
uneven = (2 * heads - gained - lost).abs() >= abs(gained - lost)
print(f"{gained + lost} tosses of a coin are as uneven in {uneven.float().mean():.0%} of trials")

# %% [markdown]
# More are right, and yet nine that were right are wrong now. One number for a model hides that. Whenever somebody shows
# you such a number before and after, ask for these two.
#
# They also say how much to believe: changes that are as often for worse as for better split as unevenly as ours in 6%
# of trials. So luck is not ruled out, and this is one seed. Lesson 08 asks how sure one can be.

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
# **2. With r = d a pair could change the tokens in any linear way. Why not use that?**
#
# <details><summary>Answer</summary>
#
# A pair of rank r holds 2 d r parameters: with r = d two thirds of what q, k and v hold together. Useful ranks are far
# below that.
#
# </details>
#
# **3. You write `model.requires_grad = False`, give `model.parameters()` to the optimizer, and train. What happens?**
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
# - A frozen model can be adapted by training about a hundredth of its size.
# - Beside before and after, name what a constant answer and a linear probe get.
# - Count what was gained and what was lost: the split tells how much may be luck.
# - The adapter is one line, x + scale · x Aᵀ Bᵀ, with `A` (r, d) and `B` (d, r). What it adds lies in r directions.
# - Serial LoRA has one such pair in front of q, k and v. LoRA has one beside each matrix that it adapts.
# - Freeze first. Then check that it worked: count what can be trained.

# %% [markdown]
# ## The lessons
#
# Take the lessons in order, or, if you cannot wait to build, go straight to 03 and come back.

# %%
lesson_list()
