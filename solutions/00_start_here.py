# %% [markdown]
# # 00 · Start here
#
# The small CLIP of this course has only ever seen drawings: [emoji and icons](../docs/models.md). Show it the photograph
# of a crow, cut out, and it says "a vehicle". You write one line, train it on sorted photographs, and ask again. **What
# did CLIP learn, and what did it lose?**

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

from functools import cache

import pandas as pd
import torch
from IPython.display import display
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch.nn import functional as F

from serial_lora import SerialLoRAConfig, adapter_parameters, adapters, inject
from serial_lora_course.checking import check, lesson_card, lesson_list, yours
from serial_lora_course.data.photographs import photographed_things
from serial_lora_course.data.registry import load_classification
from serial_lora_course.lessons.l00_start.figures import (
    plot_moves,
    plot_outcomes,
    plot_pairs,
    plot_said,
)
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("00")

# %% [markdown]
# ## 1. Ask
#
# CLIP turns a picture into a vector, and a sentence into another. Of one sentence for each class, it says the one whose
# vector lies nearest to the picture's. Here is one photograph of each class.

# %%
clip, data = load_clip(), load_classification("photographs")
names, sentences = data.class_names, clip.tokenizer(data.prompts())  # "a photo of a bird." ...
parts = data.train, data.test
train, test = (torch.stack([clip.test_transform(each) for each, _ in part]) for part in parts)
labels, truth = (torch.tensor([label for _, label in part]) for part in parts)  # (113,), (70,)
pictures, made = [each for each, _ in data.test], {it.file: it.name for it in photographed_things()}
own_names = [made[file] for file in data.test.picture_ids]


def scores(model, pictures: torch.Tensor) -> torch.Tensor:
    """How near each picture is to each class's sentence: (N, 9)."""
    seen = model.encode_image(pictures, normalize=True)  # (N, d)
    return model.logit_scale.exp() * seen @ encode_prompts(model, sentences).T


before = scores(clip.model.requires_grad_(False), test).argmax(dim=1)  # (70,)
firsts = [truth.tolist().index(c) for c in range(len(names))]
titles = [f"{own_names[i]}:\n{names[before[i]]} {'✗✓'[before[i] == truth[i]]}" for i in firsts]
display_figure(show_pictures([pictures[i] for i in firsts], titles, columns=5, size=1.9))
print(f"of {len(truth)} test photographs: {(before == truth).sum()} named right")

# %% [markdown]
# ## 2. Write a line, and train it
#
# A vision transformer cuts a picture into patches and turns each into a vector, a *token*. In every block, attention
# uses four large matrices: **q** (query), **k** (key) and **v** (value) read the tokens, and **out** ($W_o$ in the
# drawing below) combines the results. CLIP's tower for sentences does the same with pieces of words. All of that stays
# frozen. We train an *adapter*: pairs of thin matrices, `A` and `B`, in both towers.
#
# ### Exercise 0.1 · The line that will be trained
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# `A` is wide, (r, d), and `B` is tall, (d, r). A token, a row of d numbers, goes through `A` down to r numbers and
# through `B` up to d again. What comes out is multiplied by the scale and added to the token. Write that, for
# any number of tokens.
#
# Replace `raise NotImplementedError(...)` with your code, and run the cell. If it is wrong, the last line of the
# message says what the mistake is. If you skip it, the notebook goes on with the solved answer. Work in a copy: an update
# replaces this notebook.


# %% tags=["exercise"]
def adapted(x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, scale: float) -> torch.Tensor:
    """The tokens that q, k and v read.

    Args:
        x: (..., d), tokens.
        A: (r, d).
        B: (d, r).
        scale: of what is added.

    Returns:
        (..., d)
    """
    # BEGIN SOLUTION
    added = x @ A.T @ B.T  # (..., d) to (..., r) to (..., d)
    return x + scale * added
    # END SOLUTION


check("0.1", adapted)

# %% [markdown]
# <details><summary>Hint 1: which product?</summary>
#
# A token is a row, so it stands on the left: `x @ M` takes (..., d) to (..., r) if M has the shape (d, r). `A` has it
# the other way round: `.T` turns a matrix.
#
# </details>
# <details><summary>Hint 2: the shapes</summary>
#
# (..., d) @ (d, r) @ (r, d): first `A.T`, then `B.T`. Then x is added to it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)
#
# Where does your line stand? In the drawing,
# [*LoRA*](https://arxiv.org/abs/2106.09685) (Hu et al., 2021) gives each of the four matrices a pair of its own. *Serial
# LoRA* ([Zhong et al., 2025](https://arxiv.org/abs/2503.17750), in this course *the paper*) has one pair in front of q, k
# and v, which all read the same changed tokens. <!-- from both papers: 2021, 2025 --> `inject` freezes CLIP
# and puts a pair into every block of both towers. The cell runs the first block by hand, with your line, and compares.

# %%
line = yours("0.1")
model = inject(load_clip().model, SerialLoRAConfig(rank=16))  # r = 16
own, injected = (each.visual.transformer.resblocks[0] for each in (clip.model, model))
x, pair = torch.randn(2, 37, 192), injected.serial_lora  # (B, N, d): 2 pictures, 37 tokens each
display_drawing("serial_vs_lora")
print("largest difference:    by hand - injected    injected - CLIP's own")
for B_is in ("zero", "random"):
    read = line(own.ln_1(x), pair.lora_A, pair.lora_B, pair.scale)
    mixed = x + own.attn(read, read, read)[0]  # what q, k and v read
    by_hand = mixed + own.mlp(own.ln_2(mixed))
    ways = by_hand - injected(x), injected(x) - own(x)
    print(f"{'B is ' + B_is:17}" + "".join(f"{way.abs().max().item():23.5f}" for way in ways))
    torch.nn.init.normal_(pair.lora_B)
count = sum(map(torch.numel, adapter_parameters(model)))
print(f"{len(adapters(model))} pairs, {count:,} parameters to train")

# %% [markdown]
# By hand and injected agree: the pair stands in front of q, k and v. `B` starts at zero, and then the new CLIP is the
# old one. r = 16 is the **rank**: whatever the token, what a block adds mixes the same 16 directions.
#
# You decide which classes CLIP does **not** get to see in training: ours are a tool, a flower and a vehicle. Of their 20
# test photographs the old CLIP names 12 right. How many afterwards? (Rank and rate are those of the other lessons on
# CLIP.)

# %% tags=["idea"]
LEFT_OUT, RATE = (6, 7, 8), 3e-3
guess = 12  # your guess: of the 20 left out, how many CLIP names right afterwards


def bar(left_out: tuple[int, ...]) -> torch.Tensor:
    """Added to scores, it leaves only the other classes to choose from: (9,)."""
    return torch.zeros(len(names)).index_fill(0, torch.tensor(left_out), -torch.inf)


@cache
def adapt(left_out: tuple[int, ...], seed: int, shuffled: bool = False):
    """CLIP with your line in it, trained on the photographs of the other classes."""
    model = load_clip().model
    torch.manual_seed(seed)
    for pair in adapters(inject(model, SerialLoRAConfig(rank=16))).values():  # each runs your line
        pair.forward = lambda x, pair=pair: line(x, pair.lora_A, pair.lora_B, pair.scale)
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=RATE)
    seen = (bar(left_out)[labels] == 0).nonzero().flatten()  # the places of these photographs
    told = labels[seen[torch.randperm(len(seen))] if shuffled else seen]
    for _ in range(40):
        chosen = torch.randint(len(seen), (16,))
        loss = F.cross_entropy(scores(model, train[seen[chosen]]) + bar(left_out), told[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


# %%
model = adapt(LEFT_OUT, 0, False)
new, known, hidden = scores(model, test), bar(LEFT_OUT)[labels] == 0, bar(LEFT_OUT)[truth] != 0
after = new.argmax(dim=1)
shown = torch.bincount(labels[known], minlength=len(names)).tolist()
display_figure(plot_outcomes(pictures, truth, before, after, names, shown))
display_figure(plot_said(truth, {"before": before, "after": after}, names, LEFT_OUT))
print(f"left out, right afterwards: {(after == truth)[hidden].sum()}; your guess: {guess}")
print(data.attribution)

# %% [markdown]
# The two classes with most training photographs gained: birds, with 25, rose from 3 to 9, and hoofed animals, with 23,
# from 0 to 6.
#
# To be trained on is no promise: furry animals, with 17, fell from 4 to 1, and of the 6 sea animals CLIP still names
# none, after 7 in training.
#
# Below the line two flowers were gained, a tool and a vehicle lost, though training showed none. In the tables CLIP says
# "furry animal" 3 times, before 15.
#
# ### Exercise 0.2 · Lost and gained
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●○ | 3 |
#
# Which photographs were named right before and no longer are (orange frames), and which only now (blue)? Return the
# places of both.


# %% tags=["exercise"]
def lost_and_gained(
    before: torch.Tensor, after: torch.Tensor, truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which photographs were lost, and which were gained.

    Args:
        before, after: (N,), the classes that are said.
        truth: (N,), the right ones.

    Returns:
        Two tensors of places in 0 ... N - 1, from small to large.
    """
    # BEGIN SOLUTION
    was, now = before == truth, after == truth  # (N,) True where right
    lost = (was & ~now).nonzero().flatten()
    gained = (now & ~was).nonzero().flatten()
    return lost, gained
    # END SOLUTION


check("0.2", lost_and_gained)

# %% [markdown]
# <details><summary>Hint 1: two questions for each photograph</summary>
#
# Was it right before? Is it right now? Each is a tensor of True and False; `&` and `~` combine them.
#
# </details>
# <details><summary>Hint 2: from True to places</summary>
#
# For a tensor of shape (N,), `.nonzero()` gives the places of True in a column, (count, 1); `.flatten()` makes it a row.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)
#
# ## 3. Is that much?
#
# Two rivals. One is your training with the labels shuffled: what it gains, the classes did not teach. The other, a *linear
# probe*, is a logistic regression on the old CLIP's vectors. It knows only the six names.

# %%
pairs_of = yours("0.2")
answers = {"CLIP before": before, "your line": after}
answers["shuffled labels"] = scores(adapt(LEFT_OUT, 0, True), test).argmax(dim=1)
vectors, tested = (clip.model.encode_image(each, normalize=True) for each in (train, test))
probe = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.1, 1, 10, 100]})
answers["linear probe"] = torch.tensor(probe.fit(vectors[known], labels[known]).predict(tested))
table = pd.DataFrame(index=[*answers])
for kind, at in {"learnt": ~hidden, "left out": hidden}.items():
    pairs = [pairs_of(before[at], each[at], truth[at]) for each in answers.values()]
    right = [(each == truth)[at].sum().item() for each in answers.values()]
    table[f"{kind}, of {at.sum()}: right"] = right
    table[f"{kind}: lost"] = [len(lost) for lost, _ in pairs]
    table[f"{kind}: gained"] = [len(gained) for _, gained in pairs]
display(table)
six = (new + bar(LEFT_OUT)).argmax(dim=1)
print(f"your line, with the probe's six names: {(six == truth)[~hidden].sum()} of the learnt")

# %% [markdown]
# On the learnt your line lost 5 and gained 15. The labels did that: shuffled, they end at 10, as if all were called
# birds. The probe has 26, your line 24 with the same six names. But a probe has no name for a tool.
#
# On the left out your line lost two and gained two. Shuffled labels even gained four, so two gains show nothing.
#
# ## 4. Why does it touch what it was never trained on?
#
# Your line stands in every block and reads every token of every picture: no part of it is kept for birds. Training asks
# about six classes, and nothing holds a flower where it was. So flowers should move too. Do they, and as far?
#
# ### Exercise 0.3 · How far a vector moves
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 3 |
#
# CLIP compares directions, so lengths must not count. Write `how_far`: 1 minus the cosine between each row's old and new
# vector. That is 0 where the direction stayed, 1 at right angles to it.


# %% tags=["exercise"]
def how_far(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """How far each vector has turned: 1 - cosine.

    Args:
        old, new: (N, d), of any length; row i of one belongs to row i of the other.

    Returns:
        (N,)
    """
    # BEGIN SOLUTION
    a, b = F.normalize(old, dim=1), F.normalize(new, dim=1)  # rows of length 1
    return 1 - (a * b).sum(dim=1)
    # END SOLUTION


check("0.3", how_far)

# %% [markdown]
# <details><summary>Hint 1: the cosine</summary>
#
# Of two vectors of length 1, the cosine is the sum of their products, entry by entry. In `F` is a function that brings
# every row to length 1.
#
# </details>
# <details><summary>Hint 2: which sum?</summary>
#
# Each photograph is compared with itself alone: N numbers come out.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)
#
# Guess first.

# %%
times = 0.5  # your guess: how many times as far the photographs left out move
far = yours("0.3")


def moves(run, left_out: tuple[int, ...]) -> list[torch.Tensor]:
    """How far photographs moved, of the learnt classes and of those left out, and so sentences."""
    out = bar(left_out) != 0  # (9,)
    seen = far(clip.model.encode_image(test), run.encode_image(test))  # (70,)
    read = far(encode_prompts(clip.model, sentences), encode_prompts(run, sentences))  # (9,)
    return [seen[~out[truth]], seen[out[truth]], read[~out], read[out]]


ours, twin = moves(model, LEFT_OUT), moves(adapt(LEFT_OUT, 0, True), LEFT_OUT)
kinds = {"photographs,\nyour line": ours[:2], "sentences,\nyour line": ours[2:]}
kinds["photographs,\nshuffled labels"] = twin[:2]
others = (1 - tested @ tested.T).fill_diagonal_(2)  # (70, 70), from each to each other
display_figure(plot_moves(kinds, others.min(dim=1).values.mean().item()))
print(f"left out / learnt: {ours[1].mean() / ours[0].mean():.2f} times; your guess: {times}")

# %% [markdown]
# Photographs left out moved as far as the learnt ones: 0.20 and 0.21 on average, about three quarters of the way to
# the nearest other. With shuffled labels both moved further. So training moves them, whatever it teaches.
#
# A pair reads every sentence too, but those left out moved by 0.01, the learnt by 0.16. Why, we do not know. So
# measure it.
#
# ## 5. Six trainings
#
# One training may be luck. So leave out each third of the classes, with two seeds and a shuffled twin. And search: is
# each photograph among the six nearest to its own name, such as "a crow"?


# %%
def finds(model) -> torch.Tensor:
    """Whether each test photograph is among the six nearest to its own name: (70,)."""
    asked = encode_prompts(model, clip.tokenizer([f"a photo of {each}." for each in own_names]))
    six = (asked @ model.encode_image(test, normalize=True).T).topk(6).indices  # (70, 6)
    return (six == torch.arange(len(test))[:, None]).any(dim=1)


found, runs, ratios = finds(clip.model), {}, []
rest = [c for c in range(len(names)) if c not in LEFT_OUT]
for left_out in (LEFT_OUT, tuple(rest[:3]), tuple(rest[3:])):
    out = torch.isin(truth, torch.tensor(left_out))  # (70,)
    split = runs["left out: " + ", ".join(names[c].split()[1] for c in left_out)] = {}
    for seed, shuffled in ((0, False), (1, False), (0, True)):
        run = adapt(left_out, seed, shuffled)
        now = scores(run, test).argmax(dim=1)
        pairs = [pairs_of(before[at], now[at], truth[at]) for at in (~out, out)]
        pairs.append(pairs_of(found, finds(run), torch.ones_like(found)))
        title = "shuffled labels" if shuffled else f"seed {seed}"
        split[title] = [[*map(len, pair)] for pair in pairs]
        if not shuffled:
            learnt, left, said, unsaid = (each.mean() for each in moves(run, left_out))
            ratios.append((left / learnt, unsaid / said))
display_figure(plot_pairs(runs, ["learnt, named", "left out, named", "found by own name"]))
for what, each in zip(("photographs", "sentences"), zip(*ratios, strict=True), strict=True):
    print(f"left out / learnt, {what:11}:", *[f"{ratio:.2f}" for ratio in each])

# %% [markdown]
# **CLIP learnt the classes that it was trained on, taken together.** In all six trainings they gained more than they
# lost; in the three twins they lost more.
#
# It lost photographs that it found by name: more than it gained in five of the six, as many in the sixth. The twins
# lost about as many, so it takes no right labels to lose them.
#
# Together, the classes left out ended within one photograph of where they began, but in one split: without bird, sea
# and furry they lost 1 and 4 and gained 7 and 9. The twin lost 7, so there the labels seem to have helped classes that
# training never showed. Set `LEFT_OUT = (0, 1, 2)`, run again, and read the tables of section 2: which word does CLIP
# say less?
#
# Photographs left out moved 0.80 to 1.16 times as far as the learnt ones. (All on 70 photographs: lesson 08.)
#
# ## Quiz
#
# **1. An adapter names 12 of 20 right, as before. Was anything lost?**
#
# <details><summary>Answer</summary>
#
# The counts cannot say: none, or eight for eight others. Compare photograph by photograph.
#
# </details>
#
# **2. Your line is trained on birds and fruit. Do photographs of tools get new vectors?**
#
# <details><summary>Answer</summary>
#
# Expect it: the same pairs read them, and nothing holds them. Then measure, with `how_far`.
#
# </details>
#
# **3. You have photographs of every class, and will ask about no other. Adapter or probe?**
#
# <details><summary>Answer</summary>
#
# Try the probe first: it costs a few small regressions, and here it had two photographs more right.
#
# </details>
#
# ## What to remember
#
# - The adapter is one line, x + s · x Aᵀ Bᵀ; Serial LoRA puts one in front of q, k and v.
# - Here photographs of classes without training moved as far as the others.
# - Report shuffled labels, a probe, and what was lost and gained.
#
# ## The lessons
#
# Take them in order, or go straight to 03 and come back.

# %%
lesson_list()
