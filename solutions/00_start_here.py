# %% [markdown]
# # 00 · Start here
#
# The small CLIP of this course has only ever seen drawings: [emoji and icons](../docs/models.md). Shown a photograph of
# a crow, it says "a vehicle". You will write one line, train it on sorted photographs, and ask again. **What did CLIP
# learn, and what did it lose?**

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
# CLIP turns a picture into a vector, and a sentence into another. Each class gets a sentence, such as "a photo of a
# bird.", and CLIP says the class whose sentence lies nearest to the picture.

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
was_right, last = before == truth, truth > 5  # (70,), (70,)
print(f"named right: {was_right.sum()} of {len(truth)} test photographs;", end=" ")
print(f"of tools, flowers and vehicles, {was_right[last].sum()} of {last.sum()}")

# %% [markdown]
# ## 2. Write a line, and train it
#
# A vision transformer cuts a picture into patches and turns each into a vector, a *token*. In every block, attention
# uses four large matrices: **q** (query), **k** (key) and **v** (value) read the tokens, and **out** ($W_o$ in the
# drawing below) combines the results. A second transformer reads sentences in the same way. We freeze both, and train
# an *adapter*: a pair of thin matrices, `A` and `B`, in each block.
#
# ### Exercise 0.1 · The line that will be trained
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# A token is a row of d numbers. `A`, (r, d), takes it down to r numbers, and `B`, (d, r), brings these back up to d.
# Multiply the result by the scale and add it to the token, for any number of tokens.
#
# Replace `raise NotImplementedError(...)` with your code and run the cell: the last line of a message names the
# mistake. If you skip the exercise, the solved answer is used. Work in a copy: updates replace this notebook.


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
# A token is a row, so it stands on the left: `x @ M` takes (..., d) to (..., r) if M has the shape (d, r). `A` has the
# shape (r, d), so turn it with `.T`.
#
# </details>
# <details><summary>Hint 2: the shapes</summary>
#
# (..., d) @ (d, r) @ (r, d): first `A.T`, then `B.T`. Then add x.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)
#
# In the drawing, [*LoRA*](https://arxiv.org/abs/2106.09685) (Hu et al., 2021) can give
# each of the four matrices a pair of its own. *Serial LoRA* ([Zhong et al., 2025](https://arxiv.org/abs/2503.17750),
# in this course *the paper*) has one pair in front of q, k and v, which all read the same changed tokens.
# <!-- from both papers: 2021, 2025 --> `inject` puts it into every block. The cell below runs the first block by hand,
# with your line, and compares.

# %%
line = yours("0.1")
model = inject(load_clip().model, SerialLoRAConfig(rank=16))  # r = 16
own, injected = (each.visual.transformer.resblocks[0] for each in (clip.model, model))
torch.manual_seed(0)
x, pair = torch.randn(2, 37, 192), injected.serial_lora  # (B, N, d): 2 pictures, 37 tokens each
display_drawing("serial_vs_lora")
print("largest difference:    by hand - injected    injected - CLIP's own")
for B_is in ("zero", "random"):
    read = line(own.ln_1(x), pair.lora_A, pair.lora_B, pair.scale)  # what q, k and v read
    attended = x + own.attn(read, read, read)[0]
    by_hand = attended + own.mlp(own.ln_2(attended))
    ways = by_hand - injected(x), injected(x) - own(x)
    print(f"{'B is ' + B_is:17}" + "".join(f"{way.abs().max().item():23.5f}" for way in ways))
    torch.nn.init.normal_(pair.lora_B)
count = sum(map(torch.numel, adapter_parameters(model)))
print(f"{len(adapters(model))} pairs, {count:,} parameters to train")

# %% [markdown]
# The first column is zero: your line in front of q, k and v is what `inject` built. The second is zero while `B` is
# zero, so training starts from the old CLIP. r = 16 is the **rank**: whatever a pair adds is a mixture of the same 16
# directions.
#
# Training will **not** show tools, flowers and vehicles. CLIP names 12 of their 20 photographs right; how many
# afterwards?

# %% tags=["idea"]
LEFT_OUT, RATE = (6, 7, 8), 3e-3
guess = 10  # your guess: of the 20 left out, how many CLIP names right afterwards


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
    order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))
    told = labels[seen[order] if shuffled else seen]  # batches are the same with both
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
groups = {"learnt, of 50": ~hidden, "left out, of 20": hidden, "furry, of 10": truth == 2}
models, mixed = {"old": clip.model, "new": model}, {}
for p, s in [(p, s) for p in models for s in models]:
    near = models[p].encode_image(test, normalize=True) @ encode_prompts(models[s], sentences).T
    said = near.argmax(dim=1)  # (70,)
    counts = {f"{each}: right": (said == truth)[at].sum() for each, at in groups.items()}
    counts |= {f'"{names[c].split()[1]}" said': (said == c).sum() for c in (2, 3, 0)}
    mixed[f"{p} pictures, {s} sentences"] = {each: int(n) for each, n in counts.items()}
display(pd.DataFrame(mixed).T)
print(data.attribution)

# %% [markdown]
# Look at the blue frames first: only the new CLIP names these photographs right. The crow at the top left is a bird
# now.
#
# Now look at the sums below the two tables. CLIP says "bird" 24 times instead of 14, and more birds are right. But it
# says "furry" 3 times instead of 15, and furry animals fell from 4 right to 1.
#
# Was it the pictures or the sentences? The last table combines old and new ones. The new sentences alone bring nearly
# the whole gain: 21 of the learnt are right. With them CLIP says "hoofed" 10 times and "furry" only once, while the new
# pictures alone leave "furry" at 10. So it was mainly the new sentences that made "furry" rare. The old CLIP called 7
# hoofed animals furry, and correcting them may have cost the furry ones.
#
# But the new pictures alone leave only 2 furry animals right. They also raise "bird" more than the new sentences do.
#
# ### Exercise 0.2 · Lost and gained
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●○ | 3 |
#
# Which photographs were lost (right before, wrong now), and which were gained? Return the places of both.


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
# Was it right before? Is it right now? Each answer is a tensor of True and False; `&` and `~` combine them.
#
# </details>
# <details><summary>Hint 2: from True to places</summary>
#
# For a tensor of shape (N,), `.nonzero()` gives the places of True in a column, (count, 1); `.flatten()` makes it a
# row.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)
#
# ## 3. Is that much?
#
# Your line has two rivals. Its *twin* is trained with shuffled labels, which still tell how often a name comes up, but
# not for which photograph. A *linear probe* is a logistic regression on the old CLIP's vectors. It knows only the six
# learnt names.

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
# On the learnt classes your line lost 5 photographs and gained 15, while its twin lost 12 and gained 4. So the labels
# made the difference. The probe has 26 right, and your line 24 with the same six names. But the probe has no
# name for a tool.
#
# On the classes left out, your line lost two and gained two. The twin gained two as well, so two gains show nothing.
#
# ## 4. Why does it touch what it was never trained on?
#
# Your line reads every token of every picture, and nothing in the training holds a flower where it was. So flowers
# should move too. Do they, and as far?
#
# ### Exercise 0.3 · How far a vector moves
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 3 |
#
# CLIP compares directions, so lengths must not count. Write `how_far`: 1 minus the cosine between each row's old and
# new vector. It is 0 where the direction stayed, and 1 at a right angle.


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
# For two vectors of length 1, the cosine is the sum of their products, entry by entry. `F` has a function that brings
# every row to length 1.
#
# </details>
# <details><summary>Hint 2: which sum?</summary>
#
# Compare each photograph only with itself, so that N numbers come out.
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
    """How far photographs moved: of the learnt classes, and of those left out."""
    out = bar(left_out)[truth] != 0  # (70,)
    seen = far(clip.model.encode_image(test), run.encode_image(test))  # (70,)
    return [seen[~out], seen[out]]


ours, twin = moves(model, LEFT_OUT), moves(adapt(LEFT_OUT, 0, True), LEFT_OUT)
others = (1 - tested @ tested.T).fill_diagonal_(2)  # (70, 70), from each to each other
display_figure(
    plot_moves({"your line": ours, "shuffled labels": twin}, others.min(dim=1).values.mean().item())
)
print(f"left out / learnt: {ours[1].mean() / ours[0].mean():.2f} times; your guess: {times}")

# %% [markdown]
# Each dot is a photograph. Your line turned those left out about as far as the learnt ones, by 0.20 and 0.21. That is
# some three quarters of the distance to the nearest other photograph, the dashed line. The twin turned both
# about as far, so training moves every photograph, whatever the labels say.
#
# ## 5. Was it luck?
#
# We leave out each third of the classes, with two seeds and a twin.


# %%
runs, starts, furry, right = {}, {}, {}, torch.zeros(2, dtype=torch.long)
rest = [c for c in range(len(names)) if c not in LEFT_OUT]
for left_out in (LEFT_OUT, tuple(rest[:3]), tuple(rest[3:])):
    out = torch.isin(truth, torch.tensor(left_out))  # (70,)
    split = "left out: " + ", ".join(names[c].split()[1] for c in left_out)
    bases = (was_right[~out], was_right[out])
    starts[split] = [f"{base.sum()} of {len(base)}" for base in bases]
    right += 2 * torch.stack([base.sum() for base in bases])  # for both seeds
    runs[split], furry[split] = {}, {}
    for seed, shuffled in ((0, False), (1, False), (0, True)):
        now = scores(adapt(left_out, seed, shuffled), test).argmax(dim=1)
        pairs = [pairs_of(before[at], now[at], truth[at]) for at in (~out, out)]
        title = "shuffled labels" if shuffled else f"seed {seed}"
        runs[split][title] = [[*map(len, pair)] for pair in pairs]
        furry[split][title] = (now == truth)[truth == 2].sum().item()
display_figure(plot_pairs(runs, starts, ["learnt", "left out"]))
print(f"furry animals right before: {was_right[truth == 2].sum()} of 10; afterwards:")
display(pd.DataFrame(furry).T)
both = torch.tensor([[run["seed 0"], run["seed 1"]] for run in runs.values()]).sum(dim=(0, 1))
print("all six trainings with right labels:")
for kind, n, (lost, gained) in zip(("learnt", "left out"), right, both, strict=True):
    print(f"{kind:8}: of {n} right answers {lost} lost ({lost / n:.0%}); {gained} gained")

# %% [markdown]
# **What did CLIP learn, and what did it lose?**
#
# - **As a group, the classes in training gained.** In all six trainings they gained more than they lost; with shuffled
#   labels they lost more, all three times.
# - **The others were not safe.** Of their right answers 11 of 48 were lost, and of the learnt ones' 21 of 96. We see no
#   difference, so a count that comes out the same can hide losses.
# - **The others gained less,** 23 right answers, most of them birds, sea and furry animals. In the other four trainings
#   they ended within one photograph of where they began.
# - **Why furry animals suffer is open.** Where furry and hoofed animals were both trained, 1 and 2 were right after 4.
#   Without the hoofed ones it was 3 and 7, which fits section 2. But the twins lost furry animals in every split.
#
# Lesson 08 asks how sure 70 photographs can make us.
#
# ## Quiz
#
# **1. An adapter names 12 of 20 right, as before. Was anything lost?**
#
# <details><summary>Answer</summary>
#
# The counts cannot say. It may have lost eight and gained eight others. Compare photograph by photograph.
#
# </details>
#
# **2. You may keep only one of the two adapted transformers. Which?**
#
# <details><summary>Answer</summary>
#
# In this training the one for sentences: it has 21 of the learnt right, the other has 16.
#
# </details>
#
# **3. You have photographs of every class, and will ask about no other. Adapter or probe?**
#
# <details><summary>Answer</summary>
#
# Try the probe first, as it costs less: here it had two photographs more right, which decides little.
#
# </details>
#
# ## What to remember
#
# - The adapter is one line, x + s · x Aᵀ Bᵀ; Serial LoRA has one in front of q, k and v.
# - Count losses beside gains, and compare with a twin and a probe.
#
# ## The lessons, in their order

# %%
lesson_list()
