# %% [markdown]
# # 04 · CLIP with a few shots
#
# **What you will be able to do**
#
# - say what CLIP computes, and turn it into a classifier with nothing but class names;
# - measure zero-shot accuracy fairly, and say why a gain means nothing without its prompt;
# - write the few-shot loss, and make its most expensive part cheaper without changing the result;
# - adapt both towers with Serial LoRA and with LoRA, at equal rank and at equal budget;
# - read a result as it is: which pictures changed, how sure one run is, and what many runs show;
# - run the same code at the paper's scale.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
from dataclasses import replace

import torch
from IPython.display import display
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs import frames
from serial_lora_course.labs.methods import get_method
from serial_lora_course.lessons.l04_clip import tables
from serial_lora_course.plots.style import display_figure

lesson_card("04")

# %% [markdown]
# One line decides what the lesson works with. `"tiny"` is a small CLIP and drawings of symbols: nothing
# to fetch, and a laptop is enough. `"paper"` is OpenAI's CLIP ViT-B/16 and satellite pictures, EuroSAT: the
# cell says what to fetch first, and fits the batch to your GPU. All below follows this line, so the same
# notebook runs at either scale. (The environment's `SERIAL_LORA_SCALE` and `SERIAL_LORA_LENGTH` are read
# first, so a teacher may set them for everybody. `open_lesson` takes another data set as well, such as
# `dataset="oxford_pets"`.)

# %%
import os

from serial_lora_course.labs.lesson import open_lesson

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run
lesson = open_lesson("clip", SCALE, LENGTH)
print(lesson)

# %% [markdown]
# The next cells give short names to what was read, and say how pictures and sentences become what the
# model takes.

# %%
from serial_lora_course.labs.clip import classify, prompt_template

torch.manual_seed(0)
device, backbone, model = lesson.device, lesson.backbone, lesson.model
data, config = lesson.data, lesson.config  # the pictures, and the settings of a run
labels, n = torch.tensor(data.test.labels), len(data.test)  # the right classes: (N,)
template = prompt_template(data, config.prompt)  # the sentence round a class name


# %%
def prepare(pictures: list) -> Tensor:
    """PIL pictures as the model wants to see them: (B, 3, H, W)."""
    return torch.stack([backbone.test_transform(picture) for picture in pictures]).to(device)


def prompt_tokens(prompts: list[str]) -> Tensor:
    """Sentences as token ids: (C, context length)."""
    return backbone.tokenizer(prompts).to(device)


def predictions(clip: nn.Module) -> Tensor:
    """The class that a model gives each test picture: (N,)."""
    scores, _ = classify(replace(backbone, model=clip), data, template)  # (N, C)
    return scores.argmax(-1)


# %% [markdown]
# The second half of the lesson looks at two trained adapters, Serial LoRA's and LoRA's.
# `trained("lora")` trains one and takes it out of the model again, which needs some seconds the first time it
# is asked for. Then it remembers the record of the run, and what the adapted model says about each test
# picture. Nothing is trained yet: after the next cells and those above you can start at any section.

# %%
from functools import cache

from serial_lora import eject
from serial_lora_course.frontend import is_static
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.records import Record

SHOTS, SEED = lesson.amount, 1  # pictures of each class, and which draw of them
live = {"progress": not is_static(), "keep_adapter": True}


# %%
@cache
def trained(name: str) -> tuple[Record, Tensor]:
    """The record of a method's run, and the class that it gives each test picture: (N,)."""
    record = run_one(lesson.lab(), get_method(name), SHOTS, SEED, **live)
    said = predictions(model)
    eject(model)
    return record, said


# %% [markdown]
# ## Two towers and a cosine
#
# CLIP is two transformers that never look at each other. The *image tower* turns a picture into one
# vector, the *text tower* turns a sentence into one vector, and both vectors have the same number of
# entries. Pretraining pulled a picture and its caption together and pushed all other pairs apart, so
# afterwards the **cosine** between the two vectors says how well they fit.
#
# At tiny scale it is a real open_clip model at small size, pretrained by this project on emoji that
# several designers drew, each with its name as the caption. OpenMoji's drawings of some concepts were
# *hidden* from it. Those are the test pictures of this lesson. At the paper's scale it is the one that
# OpenAI trained. The cell says which of them you have, and reads all numbers from the model and from the
# card that its pretraining wrote.

# %%
from serial_lora.attention import find_attention_sites

for tower in ("image", "text"):
    sites = find_attention_sites(model, towers=[tower])
    print(f"{tower} tower: {len(sites)} attention blocks, tokens of width {sites[0].width}")

card = lesson.card_of_model  # what the pretraining noted; empty for a published model
for name in "parameters minutes steps training_pictures measured_concepts measured".split():
    print(f"{name}: {card.get(name, 'not noted')}")

# %% [markdown]
# **What this shows.** Six attention blocks see the picture, four read the sentence. The tiny model
# has five million parameters and took less than an hour to pretrain. Shown a drawing of a concept
# that was hidden from it, it has the right name among its first ten guesses (`openmoji R@10`) in
# about four cases out of five. By chance that would be ten in all the `measured_concepts`, about one
# in a hundred.
#
# The tiny model differs from a large one in size alone: it has learnt to connect pictures with words, it
# recognises things in pictures that it was never shown, and it is far from perfect. That is the right
# starting point for adapting: there is something to build on and something left to gain.
#
# **Change this and run again**: `SCALE = "paper"` in the opening, if the weights are there. Or look at a single
# picture: what does `model.encode_image(prepare([data.test[0][0]])).shape` say?
#
# ## Pictures and classes
#
# The tiny data sets are made of OpenMoji's drawings, with Unicode's own groups as classes. We work with
# one data set in detail and come back to several at the end. Here is one test picture of each class.

# %%
from serial_lora_course.plots.pictures import show_pictures

firsts = [data.test.labels.index(label) for label in range(len(data.class_names))]
figure = show_pictures([data.test[i][0] for i in firsts], data.class_names)
display_figure(figure, alt=f"One drawing of each class: {', '.join(data.class_names)}.")
print(
    f"{len(data.class_names)} classes, {len(data.train)} pictures to draw shots from,",
    f"{len(data.test)} test pictures.",
    data.attribution,
)

# %% [markdown]
# **Change this and run again**: the *last* picture of each class, with `len(data.test) - 1 -
# data.test.labels[::-1].index(label)`. Are the classes as varied as they look?
#
# ## A picture asks every class
#
# CLIP was never told what a class is. We make a classifier out of it by writing one sentence for
# each class, the *prompt*, and asking which sentence fits the picture best. So each picture needs one
# score for each class: the cosine of the two vectors, times a *scale* that CLIP learnt in
# pretraining. Cosines all lie close together; the scale stretches them, so that softmax gives clear
# probabilities. CLIP stores the logarithm of the scale.

# %% [markdown]
# ### Exercise 4.1 · The class scores
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# The features come as the towers made them, of any length. Give every picture a row and every class
# a column. The check uses features of unequal lengths and a scale that is not 1.


# %% tags=["exercise"]
def similarity_scores(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled cosine similarity of every picture with every class prompt.

    Args:
        image_features: (B, D), not normalised.
        text_features: (C, D), one row a class, not normalised.
        logit_scale: the logarithm of the scale, a scalar tensor.

    Returns:
        (B, C).
    """
    # BEGIN SOLUTION
    pictures = F.normalize(image_features, dim=-1)  # (B, D), each row of length one
    classes = F.normalize(text_features, dim=-1)  # (C, D)
    return logit_scale.exp() * pictures @ classes.T  # (B, C)
    # END SOLUTION


check("4.1", similarity_scores)

# %% [markdown]
# <details><summary>Hint 1: from a product to a cosine</summary>
#
# The cosine of two vectors is their scalar product when both have length one.
# `torch.nn.functional.normalize(x, dim=-1)` divides every row by its length.
#
# </details>
# <details><summary>Hint 2: all pairs at once</summary>
#
# (B, D) times (D, C) gives all scalar products. The scale is `logit_scale.exp()`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)

# %% [markdown]
# Your function on the first test picture of each class, if its check passed. `encode_image` and
# `encode_prompts` give the features. Expect rows that favour one class, and mistakes among them.

# %%
import pandas as pd

from serial_lora_course.models.clip import encode_prompts

scores_of = yours("4.1")
firsts = [data.test.labels.index(label) for label in range(len(data.class_names))]
with torch.no_grad():
    images = model.encode_image(prepare([data.test[i][0] for i in firsts]))  # (B, D)
    classes = encode_prompts(model, prompt_tokens(data.prompts(template)))  # (C, D)
    probabilities = scores_of(images, classes, model.logit_scale).softmax(-1).cpu()  # (B, C)

# %%
print("the first prompt:", data.prompts(template)[0])
table = pd.DataFrame(probabilities.numpy(), data.class_names, data.class_names)
said = [data.class_names[i] for i in probabilities.argmax(-1)]
display(table.map("{:.2f}".format).assign(**{"it says": said}))

# %% [markdown]
# **What this shows.** A row is a picture, and it sums to one. Only three of the eight pictures get
# their own class, and some wrong answers are very sure: the letters are a zodiac sign with 0.87.
# Sure is not right.
#
# Each row adds up to one, up to rounding. The model has never been trained on a class: that is *zero-shot*
# classification. Other pictures of the same classes may give better or worse results.
#
# **Change this and run again**: `model.logit_scale / 2` in the call. What happens to the probabilities, and what
# to the last column?
#
# ## Zero-shot first
#
# No number after training means anything without the number before. So the first thing to measure
# is the share of the test pictures that the unadapted model puts into the right class.

# %% [markdown]
# ### Exercise 4.2 · Zero-shot accuracy
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# The features are normalised already. Return a plain number between 0 and 1.


# %% tags=["exercise"]
def zero_shot_accuracy(image_features: Tensor, class_features: Tensor, labels: Tensor) -> float:
    """Share of the pictures whose best fitting class is the right one.

    Args:
        image_features: (N, D), rows of length one.
        class_features: (C, D), rows of length one.
        labels: (N,), the right class of each picture.
    """
    # BEGIN SOLUTION
    guesses = (image_features @ class_features.T).argmax(dim=1)  # (N,)
    return (guesses == labels).float().mean().item()
    # END SOLUTION


check("4.2", zero_shot_accuracy)

# %% [markdown]
# <details><summary>Hint 1: the guess</summary>
#
# The scores are (N, C). The guess for a picture is the column of its largest score: `argmax` along
# the classes, not along the pictures.
#
# </details>
# <details><summary>Hint 2: the share</summary>
#
# `guesses == labels` is a tensor of True and False. As floats, their mean is the share, and `.item()`
# makes a number of it. The scale is not needed: it does not change which score is largest.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)

# %% [markdown]
# Your function on this lesson's data set, if its check passed.

# %%
from serial_lora_course.labs.clip import picture_features
from serial_lora_course.models.clip import encode_prompts

accuracy_of = yours("4.2")
images, truth = picture_features(backbone, data)  # (N, D), (N,)
with torch.no_grad():
    classes = encode_prompts(model, prompt_tokens(data.prompts(template)))  # (C, D)
print(f"zero-shot accuracy on {data.name}: {accuracy_of(images.cpu(), classes.cpu(), truth):.1%}")

# %% [markdown]
# How well it goes depends on the sentence around the class name. The cell measures every data set that
# was read with four prompts: the data set's own, the *generic* one that CLIP-LoRA uses for all sets, the bare
# name, and one that this model never met in pretraining. The pictures are encoded once, since only the
# prompts change. Two further columns help to judge: *by chance* is what guessing a class at random
# gives, and *largest class* is what you get by always naming the class with the most test pictures.

# %%
import pandas as pd

templates = [data.template, data.generic_template, "{}", "a sketch of {}."]
rows = {
    name: tables.prompt_accuracies(backbone, each, templates) for name, each in lesson.sets.items()
}
zero_table = pd.DataFrame(rows).T.astype(dict.fromkeys(["classes", "test pictures"], int))
display(frames.as_text(zero_table, dict.fromkeys(zero_table.columns[2:], "{:.1%}")))

# %% [markdown]
# **What this shows.** Both prompts of the lab do alike, within two points. A sentence that the model
# never met costs it up to 17 points, on food, without any training. Nearly all of it lies above chance, and
# on *nature* below what naming the largest class would give: there is a lot to gain.
#
# The tiny model has read both of the lab's prompts as captions in pretraining, so it takes them much alike; a
# sentence that it never met is another matter. A model that has read many sentences would move less. A report
# that trains with one prompt and quotes zero-shot accuracy with another mixes two effects: what training
# brought, and what the sentence brought. The lab therefore measures both prompts before each run, keeps both
# numbers in the record, and every gain below is taken against the prompt that the run was trained with. (Classes
# have unequal numbers of test pictures; accuracy counts pictures, so large classes weigh more.)
#
# **Change this and run again**: a sentence of your own in `templates`, with `{}` for the class.
#
# ## A few shots
#
# *Few-shot* means: a few labelled pictures of each class, and no more. Which pictures they are matters
# a great deal, so the choice must be the same for all methods and the same on every machine. The
# course orders the pictures of a class by a hash of seed and name, and takes the first ones. Two
# properties make curves readable, and the cell tests both: the sets are *nested* (more shots means
# the same pictures and further ones), and no shot is a test picture.

# %% tags=["nbval-check-output"]
from serial_lora_course.data.subsets import few_shot_split

for seed in (1, 2, 3):
    few, many = (set(few_shot_split(data, shots, seed).indices) for shots in (4, 16))
    ids = {data.train.picture_ids[index] for index in many}
    print(
        f"seed {seed}: nested {few < many}, apart from the test pictures",
        ids.isdisjoint(data.test.picture_ids),
    )

# %% [markdown]
# Next, what a learner of one shot gets to see: one picture of each class, for two seeds. Imagine that
# these were all you knew of a class.

# %%
from serial_lora_course.plots.pictures import show_pictures

one_shot = [few_shot_split(data, 1, seed).indices for seed in (1, 2)]
pictures = [data.train[index][0] for indices in one_shot for index in indices]
titles = [*data.class_names, *[""] * len(one_shot[1])]
figure = show_pictures(pictures, titles, columns=len(one_shot[0]))
alt = f"One training picture of each class, seed 1 above seed 2: {', '.join(data.class_names)}."
display_figure(figure, alt=alt)

# %%
same = len({*one_shot[0]} & {*one_shot[1]})
short = few_shot_split(data, SHOTS, 1).short_classes
few = ", ".join(f"{name} ({count})" for name, count in short.items()) or "none"
print(f"the two seeds share {same} of {len(one_shot[0])} pictures")
print(f"classes with fewer training pictures than {SHOTS} shots ask for: {few}")

# %% [markdown]
# Two seeds give quite different ideas of the same class. That is why results come with a mean *and* a spread
# over seeds. Classes that are too small give what they have, and every record keeps how many were short.
#
# **Change this and run again**: seeds 3 and 4. From which of the four would *you* learn best?
#
# ## The loss
#
# Training is classification with the scores you wrote: cross-entropy between the softmax over all
# classes and the right class. What is special is *what gets encoded in a step*. Both towers carry
# adapters, so both change with every step, and the class vectors of the last step are out of date.
# Pictures and prompts are encoded anew, and the gradient flows into both towers.
#
# Why adapt the text tower at all? Because the class vectors are the classifier. If the vector of a
# class is in the wrong place, moving all its pictures there is the hard way; moving the sentence is
# the easy one. The paper's parameter count fits only if both towers are adapted (lesson 02).

# %% [markdown]
# ### Exercise 4.3 · The few-shot loss
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# The check compares the value, and then the gradients of both towers.


# %% tags=["exercise"]
def few_shot_loss(clip: nn.Module, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """Mean cross-entropy of pictures against all class prompts.

    Args:
        clip: has `encode_image(pictures, normalize=True)`, `encode_text(prompts, normalize=True)`
            and `logit_scale`, the logarithm of the scale.
        pictures: (B, 3, H, W).
        labels: (B,), each the row of its class in `prompts`.
        prompts: (C, context length), the token ids of one prompt a class.

    Returns:
        A scalar that gradients can flow back from.
    """
    # BEGIN SOLUTION
    image_features = clip.encode_image(pictures, normalize=True)  # (B, D)
    class_features = clip.encode_text(prompts, normalize=True)  # (C, D)
    scores = clip.logit_scale.exp() * image_features @ class_features.T  # (B, C)
    return F.cross_entropy(scores, labels)
    # END SOLUTION


check("4.3", few_shot_loss)

# %% [markdown]
# <details><summary>Hint 1: three steps</summary>
#
# Encode the pictures, encode the prompts, then the scores of exercise 4.1 (here the features are
# normalised already).
#
# </details>
# <details><summary>Hint 2: the last step</summary>
#
# `F.cross_entropy(scores, labels)` takes scores, not probabilities: it does the softmax itself, and
# the mean too. No `no_grad`, no `detach`, no `.item()`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)

# %% [markdown]
# ## Cutting the prompts short, exactly
#
# Encoding all prompts in every step has a price. At the paper's scale a class prompt is padded to the
# full context, and most positions are padding. Two facts make almost all of that work unnecessary:
# the text tower is *causal* (a position sees only itself and what stands before it), and its answer
# is read at the end-of-text token. What comes after that token can never reach the answer. So all
# prompts may be cut after the end-of-text token of the longest one.

# %% [markdown]
# ### Exercise 4.4 · Cut the prompts
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 8 |
#
# The end-of-text token has the highest id of the vocabulary, and each row has it once. Keep exactly
# as many columns as the longest prompt needs. Mind that id 0 is padding *and* a token of its own
# (an exclamation mark).


# %% tags=["exercise"]
def cut_prompts(tokens: Tensor) -> Tensor:
    """Drop the columns behind the end-of-text token of the longest prompt.

    Args:
        tokens: (C, context length), token ids.

    Returns:
        (C, length), length at most the context length.
    """
    # BEGIN SOLUTION
    last = tokens.argmax(dim=-1).max()  # where the longest prompt ends
    return tokens[:, : last + 1]
    # END SOLUTION


check("4.4", cut_prompts)

# %% [markdown]
# <details><summary>Hint 1: where a prompt ends</summary>
#
# `tokens.argmax(dim=-1)` gives, for each row, the position of its highest id.
#
# </details>
# <details><summary>Hint 2: off by one</summary>
#
# A slice `[:, :n]` keeps the positions below n, and the end-of-text token itself must stay.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)

# %% [markdown]
# `encode_prompts` cuts in this way, open_clip's `encode_text` does not. If the argument holds, both
# give the same vectors up to rounding. The lengths are those that your function leaves, if its check passed;
# at the paper's scale the saving is larger, and the tokenizer alone is enough to see it.

# %%
import open_clip

from serial_lora_course.models.clip import encode_prompts

cut = yours("4.4")
tokens = prompt_tokens(data.prompts(template))  # (C, context length)
with torch.no_grad():
    whole = model.encode_text(tokens, normalize=True)  # (C, D)
    difference = (encode_prompts(model, tokens) - whole).abs().max().item()

large = open_clip.get_tokenizer("ViT-B-16-quickgelu")(data.prompts(data.generic_template))
scales = {SCALE: tokens, "paper": large}
kept = [f"{cut(ids).shape[1]} of {ids.shape[1]} at {scale} scale" for scale, ids in scales.items()]
print("positions that are computed:", ", ".join(kept))
print(f"cut and whole vectors differ by {difference:.1g}")

# %% [markdown]
# **What this shows.** At the paper's scale 68 of 77 positions were work for nothing. Leaving them out
# changes no vector by more than rounding.
#
# The difference is rounding: same sums, in another order. A saving that is *exact* costs nothing, and it
# helps every method alike, so comparisons stay fair.
#
# **Change this and run again**: in place of `data.prompts(template)` a list with one very long prompt, `["a drawing
# of a " + 9 * "very " + "old owl"]`. How many positions are computed then?

# %% [markdown]
# ## Your adapter, your loss
#
# All the parts are there, and they are yours: the adapter that you wrote in lesson 03 (it is read from
# your notebook of that lesson, which lies beside this one) and the loss. Put together by hand, without
# `inject` and without the lab, they adapt CLIP: one pair behind the norm in front of each attention, in
# both towers, as in lesson 03. Expect a loss that falls within twenty steps on four shots, and more test
# pictures right than zero-shot.

# %%
Adapter = yours("3.1")
loss_of = yours("4.3")

torch.manual_seed(SEED)
by_hand, pairs = copy.deepcopy(model).requires_grad_(False), nn.ModuleList()
transformers = {"image": by_hand.visual.transformer, "text": by_hand.transformer}
chosen = ["image", "text"]  # change this and run again: one of them
for block in [block for tower in chosen for block in transformers[tower].resblocks]:
    pair = Adapter(block.ln_1.normalized_shape[0], 8).to(device)  # width, rank
    block.ln_1.register_forward_hook(lambda norm, inputs, normed, pair=pair: pair(normed))
    pairs.append(pair)

# %%
from serial_lora_course.data.subsets import few_shot_split

shots = [data.train[index] for index in few_shot_split(data, 4, SEED).indices]
pictures = prepare([picture for picture, _ in shots])  # (B, 3, H, W)
classes = torch.tensor([label for _, label in shots], device=device)  # (B,)
prompts = prompt_tokens(data.prompts(template))  # (C, context length)

optimizer, losses = torch.optim.AdamW(pairs.parameters(), lr=config.lr), []
for _ in range(min(20, config.min_steps)):  # fewer in a dry run
    with lesson.autocast():
        loss = loss_of(by_hand, pictures, classes, prompts=prompts)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

# %% [markdown]
# And the package? Your trained matrices go into a copy that `inject` prepared. If both are the same method,
# both say the same about every test picture.

# %%
from serial_lora import SerialLoRAConfig, adapters, inject

injected = inject(lesson.twin().model, SerialLoRAConfig(rank=8, towers=chosen))
with torch.no_grad():
    for mine, theirs in zip(pairs, adapters(injected).values(), strict=True):
        theirs.lora_A.copy_(mine.lora_A)
        theirs.lora_B.copy_(mine.lora_B)
before, after, package = (predictions(clip) for clip in (model, by_hand, injected))

# %%
print(f"loss over {len(losses)} steps: {losses[0]:.2f} to {losses[-1]:.2f}")
print(
    f"right zero-shot: {(before == labels).sum()} of {n}, with your pairs: {(after == labels).sum()}"
)
print(f"the package says the same about {(package == after).sum()} of {n}")

# %% [markdown]
# **What this shows.** Twenty steps on four shots, and twice as many test pictures come right. Your
# pairs and the package's are the same method: they agree on every picture.
#
# These few lines are the whole method. What the lab adds is augmentation, a schedule, seeds, a fair
# comparison, and a record of it. With one tower alone, or with fewer steps, fewer pictures may come right.
#
# ## At equal rank, at equal budget
#
# LoRA has four pairs in a block where Serial LoRA has one. At the same rank it has four times the
# parameters. Is that a fair comparison? It is the paper's, and it answers "can the shared pair do
# what four pairs do?". There is a second fair question: "given the same number of parameters, which
# way to spend them is better?". For that, LoRA gets a smaller rank.

# %% [markdown]
# ### Exercise 4.5 · LoRA at the same budget
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# Return the largest rank at which LoRA on q, k, v and out stays within a number of parameters. A
# tower is (width, depth); a pair on a square matrix has 2 · width · rank entries.


# %% tags=["exercise"]
def lora_rank_within(budget: int, towers: list[tuple[int, int]]) -> int:
    """The largest rank whose LoRA parameters, over all towers, are at most `budget`.

    Args:
        budget: trainable parameters allowed.
        towers: (width, depth) of each tower; every block gets four pairs: q, k, v and out.
    """
    # BEGIN SOLUTION
    per_rank = sum(4 * 2 * width * depth for width, depth in towers)
    return budget // per_rank
    # END SOLUTION


check("4.5", lora_rank_within)

# %% [markdown]
# <details><summary>Hint 1: one rank's worth</summary>
#
# Count the parameters at rank 1, over all blocks of all towers. A rank r costs r times that.
#
# </details>
# <details><summary>Hint 2: whole ranks</summary>
#
# A rank is a whole number, and the budget must not be exceeded: `//` rounds down.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)

# %% [markdown]
# The methods of the lab, as they will be injected below. `inject` freezes the model and adds the
# pairs, exactly as in lesson 03; the counts are then read off the model. The last column compares
# with the whole model.

# %%
import pandas as pd

from serial_lora import count_parameters, inject
from serial_lora_course.labs.methods import METHODS

rows = []
for method in METHODS.values():
    count = count_parameters(inject(copy.deepcopy(model), method.config(config.rank)))
    row = {"method": method.label, "rank": method.rank(config.rank)}
    row |= {"lr of B / lr of A": method.ratio, "trainable": count.trainable}
    rows.append(row | {"share of the model": count.trainable / count.total})
formats = {"trainable": "{:,}", "share of the model": "{:.1%}"}
frames.as_text(pd.DataFrame(rows).set_index("method"), formats)

# %% [markdown]
# Does your function of exercise 4.5 find the rank of the equal budget? It gets Serial LoRA's number of
# parameters, and the width and depth of each tower.

# %%
from serial_lora.attention import find_attention_sites
from serial_lora_course.measures.counts import serial_lora_count

rank_within = yours("4.5")
sites = [find_attention_sites(model, towers=[tower]) for tower in ("image", "text")]
towers = [(each[0].width, len(each)) for each in sites]  # (width, depth) of each
rank = config.rank  # change this and run again: 6
budget = sum(serial_lora_count(width, depth, rank) for width, depth in towers)
print(
    f"{budget:,} parameters: Serial LoRA of rank {rank}, LoRA of rank {rank_within(budget, towers)}"
)

# %% [markdown]
# Where a quarter of the rank is not a whole number, LoRA's budget is a little smaller. The plus in LoRA+ and
# Serial LoRA+ changes learning rates and nothing else.
#
# ## Run it
#
# `run_one` does the whole of it: it takes the shots of a seed, injects, trains with the loss above, measures,
# and gives back a record. First the configuration, since no result can be repeated without it.

# %%
print(config)

# %% [markdown]
# How long will that take? The cell times one step and says it for each length of the lesson. The length
# is one word of the opening, `LENGTH`: a class has little time, and the full length is the paper's.

# %%
print(lesson.how_long())

# %% [markdown]
# Two runs: the same pictures, the same order, the same augmentation, the same seed; only the adapter
# differs. `trained`, from the lesson's opening, hands each of them to `run_one` and keeps, with the
# record, what the adapted model says about each test picture, so that we can look at more than one
# number.

# %%
runs = {name: trained(name) for name in ("serial_lora", "lora")}

# %%
from scipy.stats import binomtest

records = {name: record for name, (record, _) in runs.items()}
display(tables.runs_table(records, f"zero_shot_{config.prompt}"))
serial, lora = (said == labels for _, said in runs.values())  # (N,) each: right or not
only = int((serial & ~lora).sum()), int((lora & ~serial).sum())
print(f"right with Serial LoRA only: {only[0]} of {n}, with LoRA only: {only[1]}")
print(f"a coin would be as uneven with probability {binomtest(only[0], sum(only) or 1).pvalue:.2f}")

# %% [markdown]
# **What this shows.** Both adapters bring the model from a third to more than four fifths. They
# disagree on three pictures, two to one. That is a coin toss: McNemar's test says so, and one picture
# is 1.4 points.
#
# The *gain* over zero-shot is one thing, the *difference between methods* is another, and the second asks for far
# more evidence than one run on one data set. Another seed draws other shots and may turn the order round. What a
# single run is good for: looking.
#
# **Change this and run again**: `SEED = 2` in the opening, then the cells from there on (`trained.cache_clear()`
# forgets the first runs).
#
# ## What changed
#
# Accuracy says how many. It does not say which. Adapting makes mistakes too: some pictures that were
# right go wrong, and the number after training is the balance of both.

# %%
from serial_lora_course.lessons.l04_clip.figures import plot_confusion, show_changes

zero, adapted = predictions(model), trained("serial_lora")[1]  # (N,) each
print(f"right before and after: {((zero == labels) & (adapted == labels)).sum()} of {n}")
changed = {
    "from wrong to right": ((zero != labels) & (adapted == labels)).nonzero().flatten().tolist(),
    "from right to wrong": ((zero == labels) & (adapted != labels)).nonzero().flatten().tolist(),
}
for what, indices in changed.items():
    print(f"{len(indices)} turned {what}")
    if indices:
        figure = show_changes(data.test, indices, zero, adapted, data.class_names)
        display_figure(figure)

# %% [markdown]
# **What this shows.** Forty drawings came right and two went wrong. Adapting is no pure gain: what
# the table above shows is the balance.
#
# The first line of each title is what the picture is. Look for a pattern: did one class lose its pictures to another,
# and did it get them back? The *confusion matrix* shows that: a row is what the pictures
# are, a column what the model says, and the diagonal is what is right.

# %%
guesses = {"zero-shot": zero, "Serial LoRA": adapted}
display_figure(plot_confusion(labels, guesses, data.class_names))
agree = (adapted == trained("lora")[1]).float().mean().item()
print(f"Serial LoRA and LoRA give {agree:.0%} of the test pictures the same class")

# %% [markdown]
# **What this shows.** Before, four columns took nearly everything,
# and nothing was ever called a geometric shape or a number key. After, the diagonal is dark. The two adapters even make mostly the same
# mistakes.
#
# Other shots would show other examples of each class, and another class might gain most.
#
# **Change this and run again**: `trained("lora")[1]` in place of Serial LoRA's. Are the same pictures wrong?

# %% [markdown]
# ## The records
#
# One run says little. The course ships the records of many, at tiny scale: all data sets, several numbers of
# shots, several seeds, all methods, made by the lab's own command. First, what the records are, the
# command, and the configuration that they were made with. One learning rate serves all methods without a plus,
# though equal rates are not equal steps (lesson 01); it was not tuned for each.

# %%
from serial_lora_course.labs.records import shipped_records

records = shipped_records("clip")
results, zero_column = frames.frame(records), f"zero_shot_{records[0].settings['prompt']}"
print(frames.describe_records(records))

# %% [markdown]
# Mean accuracy over the data sets, and after ± the spread (standard deviation) over seeds. Look along
# a row first: what do more shots bring? Then down a column.

# %%
write = "{:.1%} ± {:.1f}".format
display(frames.methods_table(results, "accuracy", lambda mean, std: write(mean, 100 * std)))
print(
    f"zero-shot, with the same prompt: {results.groupby('dataset')[zero_column].first().mean():.1%}"
)

# %% [markdown]
# **What this shows.** With sixteen shots every method gains more than twenty points over zero-shot.
# Read a column: the methods lie within a point or two of each other, which is less than the spread of
# one shot over seeds.
#
# The same as a picture, with the data sets apart. Each run is a small point, a line joins the means over
# seeds, and the band behind it goes from the worst seed to the best.

# %%
from serial_lora_course.plots.results import plot_accuracy_by_shots

display_figure(plot_accuracy_by_shots(results, zero_column))

# %% [markdown]
# **Change this and run again**: one method alone, `results[results["method"] == "serial_lora"]`. On which data
# set do more shots help most, and where do they hurt?
#
# ## Where Serial LoRA matches LoRA, and where not
#
# Two methods with the same data set, shots and seed saw the same pictures. So we compare them run by
# run, and average the *differences*: most of what the draw of shots does cancels. Runs on one data set are
# alike, so the sample is the data sets, each the mean of its seeds. Beside the mean difference stands its
# standard error. A method is *ahead* or *behind* when the difference's 95% confidence interval (by Student's t;
# lesson 08) leaves out zero. Otherwise the difference is *not significant*, which is not the same as equal: a
# smaller one may well be there.

# %%
from serial_lora_course.labs.records import shipped_records

results = frames.frame(shipped_records("clip"))
verdicts = frames.compare_methods(results, tables.PAIRS, "accuracy")
verdicts[["mean", "sem"]] *= 100
shown = verdicts.rename(columns={"amount": "shots", "mean": "points", "sem": "standard error"})
shown = frames.as_text(shown, {"points": "{:+.1f}", "standard error": "{:.1f}"})
display(shown.set_index(["methods", "shots"]))

# %%
means = results.groupby(["dataset", "amount", "method"])["accuracy"].mean().unstack("method")
by_cell = 100 * (means["serial_lora"] - means["lora"])  # points, a data set and number of shots
print(f"Serial LoRA above LoRA in {(by_cell > 0).sum()} of {len(by_cell)} cells, below in", end=" ")
print(f"{(by_cell < 0).sum()}; from {by_cell.min():+.1f} to {by_cell.max():+.1f} points")

# %% [markdown]
# **What this shows.** Fifteen comparisons, and none of them is significant. Serial LoRA, with a
# quarter of LoRA's parameters, is above it about as often as below, and so is a LoRA that was made as
# small. One cell alone could have "shown" a lead of five points, or a loss of as much.
#
# Read the verdicts with their limits: one tiny model, test sets of some dozens of pictures (one of some hundreds),
# few seeds, one learning rate for all methods without a plus. A larger model or other rates may change each
# verdict; lesson 09 has a study in which each method's rate was chosen. What the records do show is how such a
# claim is tested, and how many runs it needs.
#
# **Change this and run again**: one seed alone, `results[results["seed"] == 1]`, then 2 and 3. What becomes
# significant, and does it stay so?
#
# ## The paper's table
#
# Table III at the paper's scale: CLIP ViT-B/16, four data sets, accuracy in percent.

# %%
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.paper_tables import paper_table

display(paper_table("Table III"))
print("Serial LoRA minus LoRA at equal rank, in points:")
display(tables.beside_paper(frames.frame(shipped_records("clip"))))

# %% [markdown]
# **What this shows.** In the paper Serial LoRA is behind LoRA in one of twelve cells (EuroSAT, 16
# shots). Here the two cannot be told apart.
#
# The table gives no zero-shot accuracy, so nobody can see how much any method *gained*; and one number a cell, so
# nobody can see which differences are larger than those between draws of shots. The spread in the records above
# says how large those can be. (Lesson 07 looks at the two methods with a plus.)
#
# **Change this and run again**: `paper_table("Table III").mean(axis=1)`. Which method would you choose by it?
#
# ## At the paper's scale
#
# The code is the same, the settings are not: one word in the opening, `SCALE = "paper"`, and this
# notebook runs on OpenAI's model. What `print(config)` showed above becomes the paper's and, where that is
# silent, CLIP-LoRA's.
#
# On a machine with a GPU and a network, in a terminal:
#
# ```
# python data_scripts/fetch.py clip oxford_pets   # --help lists what there is
# serial-lora lab clip --scale paper --dataset oxford_pets --methods all --shots 1,4,16 --seeds 3
# accelerate launch -m serial_lora_course.cli lab clip --scale paper --dataset all --shots 16
# ```
#
# Each run appends one record to the file named by `--out`, and a run whose record is there is not run
# again. An interrupted run goes on where it stopped. On several GPUs the last line shares every batch
# among them. If memory is short, `--accumulation 4` computes each batch in parts.
#
# In Python it is `run_lab("clip", ["oxford_pets"], ["serial_lora"], scale="paper")` from
# `serial_lora_course.labs.grid`, which calls `run_one` for each run.

# %% [markdown]
# ## Leave the machine as you found it
#
# A notebook that stays open holds its model, and on a GPU the next one may find no room. The last cell
# forgets the adapters and takes the model off the GPU.

# %%
trained.cache_clear()
for name in "by_hand injected".split():
    globals().pop(name, None)  # a section that was left out has made nothing to drop
lesson.close()

# %% [markdown]
# ## Quiz
#
# **1. A report measures zero-shot with "a photo of", then trains and tests with the data set's own
# prompt, and calls the difference the gain of fine-tuning. What is wrong?**
#
# <details><summary>Answer</summary>
#
# Two things changed at once, the weights and the sentence. The better sentence alone may bring a part
# of the gain: the zero-shot table says how much a sentence can do. Compare with zero-shot under
# the same prompt.
#
# </details>
#
# **2. Why must the class prompts be encoded anew in every step, though they never change?**
#
# <details><summary>Answer</summary>
#
# The sentences never change, but the text tower does: it carries adapters, and they move with every
# step. Vectors from an earlier step come from another tower, and without encoding there is no gradient
# into the text tower's adapters at all. With adapters in the image tower only, once would do.
#
# </details>
#
# **3. Method X is three points ahead of method Y on one data set with one seed. What do you need
# before you say that X is better?**
#
# <details><summary>Answer</summary>
#
# More seeds and data sets, with both methods on the same shots, and the differences' spread; the
# zero-shot accuracy under the same prompt; and a learning rate chosen for each method, not on the test
# pictures. Then look whether the mean difference is larger than its error.
#
# </details>

# %% [markdown]
# ## Key points
#
# - CLIP's classifier is a scaled cosine between a picture and one prompt a class. The prompts *are* the
#   classifier, so both towers are adapted.
# - Zero-shot first, with the prompt that training uses. A gain without it is no gain.
# - Shots are the first in an order of hashes: nested, apart from the test pictures, equal for all methods.
# - The causal mask lets prompts be cut at the longest one, exactly.
# - Two fair comparisons: equal rank and equal budget.
# - One run is for looking. For a verdict, pair the runs, average the differences, show the error.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": section III-B and Table III for CLIP; Fig. 2, which
# calls the setting CLIP-LoRA and shows both towers adapted. Loss, prompt, batch size, schedule and
# augmentation are not stated there; the paper-scale settings take them from CLIP-LoRA's code, but not scale and
# placement. Seeds, zero-shot accuracy and spread are not given.
