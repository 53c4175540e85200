# %% [markdown]
# # 00 · Start here
#
# The small CLIP of this course has only ever seen drawings: emoji and icons. Now it meets photographs, cut out, of nine
# classes of things, and gets two in three wrong. You have a laptop and about ninety photographs that somebody sorted,
# but only of six of the classes. Adapt the model first; the explanations come after.
#
# Then you write the adapter, one line, run CLIP with it, and look for things with it in your own words. In later
# lessons you put the paper that proposed it on trial.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from torch.nn import functional as F

from serial_lora import (
    SerialLoRAConfig,
    adapter_parameters,
    adapters,
    count_parameters,
    inject,
)
from serial_lora_course.checking import check, lesson_card, lesson_list, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.drawings import plot_drawings
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("00")

# %% [markdown]
# ## Ask, adapt, ask again
#
# CLIP turns a picture into a vector, and a sentence into another vector. Give it one sentence for each class, and its
# answer is the sentence whose vector lies nearest to the picture's. Here are the first photograph of each class, and
# CLIP's answer.


# %%
clip, data = load_clip(), load_classification("photographs")
model, names = clip.model, data.class_names
sentences = clip.tokenizer(data.prompts())  # such as "a photo of a bird."


def opened(examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, 3, H, W) and the numbers of their classes (N,)."""
    pictures, labels = zip(*examples, strict=True)
    return torch.stack([clip.test_transform(picture) for picture in pictures]), torch.tensor(labels)


def scores(pictures: torch.Tensor, sentences: torch.Tensor = sentences) -> torch.Tensor:
    """How near each picture is to each sentence: (B, sentences)."""
    seen = model.encode_image(pictures, normalize=True)  # (B, d)
    return model.logit_scale.exp() * seen @ encode_prompts(model, sentences).T


(train, labels), (test, truth) = opened(data.train), opened(data.test)
train, labels = train[labels < 6], labels[labels < 6]  # of the first six classes only
print(f"{len(labels)} training photographs:", ", ".join(names[:6]))
print(f"{len(truth)} to test on, of these and of:", ", ".join(names[6:]))

with torch.no_grad():
    before = scores(test).argmax(dim=-1)
    before_six = scores(test, sentences[:6]).argmax(dim=-1)  # the only names that a probe has
    frozen = [model.encode_image(pictures, normalize=True) for pictures in (train, test)]  # (N, d)
firsts = [truth.tolist().index(c) for c in range(len(names))]
said = [f"{names[before[i]]} {'✓' if before[i] == truth[i] else '✗'}" for i in firsts]
said = [answer.replace(" or ", "\nor ") for answer in said]
display_figure(show_pictures([data.test[i][0] for i in firsts], said, columns=9))

# %% [markdown]
# Now `inject` puts a small *adapter* into the model, an ordinary loop trains the adapter and nothing else, and the cell
# asks again. (Rank 16 and the rate 3e-3 are the course's usual ones for CLIP.)

# %% tags=["idea"]
torch.manual_seed(0)
inject(model, SerialLoRAConfig(rank=16))  # freezes CLIP and puts the adapter in
optimizer = torch.optim.AdamW(adapter_parameters(model), lr=3e-3)
for _ in range(40):
    chosen = torch.randint(len(labels), (32,))
    loss = F.cross_entropy(scores(train[chosen], sentences[:6]), labels[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

with torch.no_grad():
    after = scores(test).argmax(dim=-1)
    after_six = scores(test, sentences[:6]).argmax(dim=-1)

# %% [markdown]
# Here are two rivals that need no adapter. One always names the most frequent class of the training photographs. The
# other is a *linear probe*: a logistic regression on the vectors of the old CLIP, with the same labels. Its one
# setting, C, is chosen by cross-validation on the training photographs. CLIP is asked once more, with the probe's six
# names only. Guess who wins on the six classes, and who must lose on the three.

# %%
always = torch.full_like(truth, labels.mode().values)
probe = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.1, 1, 10, 100]})
probe.fit(frozen[0], labels)
answers = {"before": before, "after": after}
answers |= {"before, six names": before_six, "after, six names": after_six}
answers[f"always {names[always[0]]}"] = always
answers["a linear probe"] = torch.from_numpy(probe.predict(frozen[1]))
six = truth < 6  # (N,) True where its class has training photographs
for name, given in answers.items():
    of_six, of_three = ((given == truth)[which].sum() for which in (six, ~six))
    print(f"{name:17}  of the six {of_six:2} of {six.sum()} right,", end=" ")
    print(f"of the three {of_three:2} of {(~six).sum()}, together {of_six + of_three}")

gained = ((before != truth) & (after == truth)).nonzero().flatten().tolist()
lost = ((before == truth) & (after != truth)).nonzero().flatten().tolist()
for what, which in {"gained": gained, "lost": lost}.items():
    print(f"{what} {len(which)}; every third of them:")
    titles = [f"was: {names[before[i]]}\nnow: {names[after[i]]}" for i in which[::3]]
    pictures = [data.test[i][0] for i in which[::3]]
    display_figure(show_pictures(pictures, titles, columns=5, size=1.8))
print(data.attribution)

# %% [markdown]
# CLIP named 24 of 70 right, and took a black bird for a vehicle. After forty steps it is 33: ten more photographs of
# the six classes that it learnt, and one fewer of the other three. Six that were right are wrong now; one number before
# and after hides that.
#
# The probe has 26 of the six, choosing among six names. Asked with these names alone, the adapted CLIP has 27, and the
# old one 15: nobody wins. If you will never ask for anything else, take the probe: it costs one logistic regression.
# But it cannot name a tool, a flower or a vehicle. It has a row of weights for each class that it learnt, and none for
# these. The adapted CLIP still compares a picture with any sentence, on the three about as well as before. **An adapter
# offers both: the model learns, and still takes any sentence.** (Whether an adapter beats a probe on the probe's own
# classes, lesson 04 asks.)
#
# How sure is that? Not very. With the middle three classes left out, in place of the last, nothing was gained when we
# tried; with the first three left out, more than here. Lesson 08 asks how sure one can be.
#
# **Change this, and run again** from the cell that loads CLIP (an adapted model refuses a second adapter): a rate of
# `3e-2`, then of `3e-4`. Guess first.
#
# <details><summary>What you should see</summary>
#
# Ten times the rate, and the old model is gone: it has one answer for nearly all. A tenth, and forty steps change hardly
# any answer. The rate is the first setting to look at, and each method has its own: lessons 04 and 07.
#
# </details>

# %% [markdown]
# ## What was added
#
# A vision transformer cuts a picture into patches and turns each into a vector, a *token*. In every block, attention
# uses four large matrices: **q** (query), **k** (key) and **v** (value) read the tokens, and **out** ($W_o$ in the
# drawing) combines the results. CLIP's tower for sentences does the same with pieces of words. Our adapter: pairs of thin
# matrices, `A` and `B`, in both towers.

# %%
display_drawing("serial_vs_lora")

# %% [markdown]
# [*LoRA*](https://arxiv.org/abs/2106.09685) (Hu et al., 2021) gives each matrix that it adapts a pair of its own,
# beside it; here all four. *Serial LoRA* has a single pair in front of q, k and v, so all three read the same slightly
# changed tokens. It is from *Serial Low-rank Adaptation of Vision Transformer* (Zhong et al., 2025), which this course
# calls [the paper](https://arxiv.org/abs/2503.17750). <!-- from the two papers: 2021, 2025 --> One pair instead of
# four: at equal rank, a quarter of the parameters.
#
# ### Exercise 0.1 · The adapter in one line
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 5 |
#
# `A` is wide, (r, d), and `B` is tall, (d, r). A token, a row of d numbers, goes through `A` down to r numbers and
# through `B` up to d again. What comes out is multiplied by the scale and added to the token. Write that, for
# any number of tokens; then CLIP runs with your line.
#
# Replace `raise NotImplementedError(...)` with your code, and run the cell. If it is wrong, read the last line of the
# message first: the check knows the common mistakes. If you skip it, the notebook goes on with the solved answer.
#
# Keep your answers in a copy of the notebook (in JupyterLab: right-click, *Duplicate*), since an update of the course
# replaces these files. If something does not run, type `serial-lora doctor` in a terminal.


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

# %%
line, scale = yours("0.1"), 1
pairs = adapters(model)  # where each is, and the pair
for pair in pairs.values():  # from here on CLIP runs your line, with the pairs that you trained
    pair.forward = lambda x, pair=pair: line(x, pair.lora_A, pair.lora_B, scale)
with torch.no_grad():
    same = scores(test).argmax(dim=-1) == after
print(f"with your line in {len(pairs)} places: {same.sum()} of {len(same)} answers as before")

count, A, B = count_parameters(model), pair.lora_A, pair.lora_B
print(f"A {tuple(A.shape)}, B {tuple(B.shape)}: {A.numel() + B.numel():,} parameters", end=" ")
print(f"in the last place, whose W_q has {A.shape[1] ** 2:,}")
print(f"{count.trainable:,} of {count.total:,} parameters are trainable: {count.share:.2%}")

# %% [markdown]
# That is the whole adapter,
#
# $$x' = x + s \cdot x A^\top B^\top$$
#
# and r is its **rank**. Whatever the token, what is added mixes the same r directions. That so few are enough is LoRA's
# bet; lesson 01 looks at it in one block.
#
# ## Turn it down, turn it up
#
# CLIP's own weights did not change. Your line only adds something to its tokens, and the scale s multiplies it: 1 in
# training. What do you expect at 0, at a half, and at 2?

# %%
for scale in (0, 0.25, 0.5, 1, 2, 3):
    with torch.no_grad():
        right = scores(test).argmax(dim=-1) == truth
    of_six, of_three = right[six].sum().item(), right[~six].sum().item()
    print(
        f"scale {scale:4}: {of_six:2} {'#' * of_six:28} of the three {of_three:2} {'#' * of_three}"
    )
scale = 1

# %% [markdown]
# At 0 the old CLIP is back, with its 12 and 12. At a half the sum is 33 as well: 20 of the six, and 13 of the three.
# (Do not choose a scale here: these are the test's pictures.) At 2 the sum is 20, below the old 24, and at 3 nine are
# right, where one answer for all gets ten: the adapter overpowers the model. So an adapter is a push to the old model,
# and you can push too far.

# %% [markdown]
# ## Look for things in your own words
#
# ### Exercise 0.2 · A search engine
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 5 |
#
# A probe knows six names. CLIP takes any sentence, so it can also be asked the other way round: which photographs fit
# this sentence? Write the search: the places of the `count` pictures whose vectors point most nearly where the
# sentence's does, the nearest first.


# %% tags=["exercise"]
def search(pictures: torch.Tensor, sentence: torch.Tensor, count: int) -> torch.Tensor:
    """Which pictures fit a sentence best.

    Args:
        pictures: (N, d), a vector for each picture, each of length 1.
        sentence: (d,), of length 1.
        count: of pictures that are wanted.

    Returns:
        (count,), rows of ``pictures``, that of the best first.
    """
    # BEGIN SOLUTION
    cosines = pictures @ sentence  # (N,) of the angle between them
    return cosines.topk(count).indices
    # END SOLUTION


check("0.2", search)

# %% [markdown]
# <details><summary>Hint 1: which way a vector points</summary>
#
# Of two vectors of length 1 the product `a @ b` is the cosine of their angle: 1 if they point the same way.
#
# </details>
# <details><summary>Hint 2: the largest, in order</summary>
#
# `tensor.topk(count)` gives the largest values and, as `.indices`, where they are.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)

# %%
find, shown = yours("0.2"), {}
for wanted in ("a guitar", "a hammer"):  # write what you would look for
    prompt = clip.tokenizer([f"a photo of {wanted}."])
    for when in ("before", "after"):
        scale = int(when == "after")  # your adapter switched off, and on
        with torch.no_grad():
            vectors = model.encode_image(test, normalize=True)
            places = find(vectors, encode_prompts(model, prompt)[0], 6)
        shown[f"{wanted}, {when}"] = [data.test[i][0] for i in places]
display_figure(plot_drawings(shown, ["nearest", *"23456"]))

# %% [markdown]
# The old CLIP has the guitar sixth, behind a strawberry and four animals. The adapted one has it first, and another
# stringed instrument second: it had photographs of instruments to learn from. Of hammers it had none: both stay among
# the first three, but a wrench comes first now. A probe of six names can be asked for neither.
#
# Write words of your own. Try a colour ("a yellow thing"), and what is not there ("a train"): it always brings six.

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
# A pair of rank r holds 2 d r parameters. With r = d that is twice as many as W_q has, in every place, to be learnt
# from 87 photographs; here it is a twelfth of that.
#
# </details>
#
# **3. Somebody has photographs of every class, and will never ask about another. Adapter or probe?**
#
# <details><summary>Answer</summary>
#
# The probe first: here it was level where it had photographs, 26 to 27, and it costs one logistic regression. Only what
# it cannot answer, or does worse, is a reason to adapt.
#
# </details>

# %% [markdown]
# ## What to remember
#
# - A frozen model can be adapted by training about a hundredth of its size.
# - The adapter is one line, x + s · x Aᵀ Bᵀ, with `A` (r, d) and `B` (d, r). What it adds lies in r directions.
# - Serial LoRA has one such pair in front of q, k and v. LoRA has one beside each matrix that it adapts.
# - A probe names the classes that it has labels for. An adapted CLIP still answers any sentence.
# - Beside before and after, report a constant answer, a linear probe, and what was gained and lost.
#
# ## The lessons
#
# Take the lessons in order, or, if you cannot wait to build, go straight to 03 and come back.

# %%
lesson_list()
