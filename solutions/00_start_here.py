# %% [markdown]
# # 00 · Start here
#
# **What you will be able to do**
#
# - say whether your machine is ready for the course, and what to do if it is not;
# - recognise the pictures that the lessons work with, and where they come from;
# - ask CLIP which caption fits a picture, without training anything;
# - say what a *low-rank pair* is, and why two thin matrices can replace a large one;
# - do an exercise, read what its check says, and find its hints and its solution.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import torch
from torch import nn

from serial_lora_course.checking import CheckFailed, check, lesson_card, lesson_list
from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

torch.manual_seed(0)
lesson_card("00")

# %% [markdown]
# Run the two cells above first, today and whenever you come back. After them you can start at any
# section of the lesson: each one fetches the pictures and the model that it needs.

# %% [markdown]
# ## What this course is about
#
# A vision transformer that somebody trained for weeks knows a great deal, and you want it to do
# something new: your classes, your masks, your style. *Fine-tuning* changes all of its weights.
# *Low-rank adaptation* (LoRA) leaves them as they are and learns a small correction beside them.
#
# A vision transformer cuts a picture into patches and turns each into a row of numbers, a *token*. Its
# attention blocks have four large matrices each: **q** (query), **k** (key) and **v** (value) read
# the tokens, and **out** combines what attention found. LoRA gives each of the four a correction of its
# own. **Serial LoRA** goes one step further: it learns a *single* correction and puts it in front of
# q, k and v.
#
# You will build it by hand, prove what it costs, and adapt real models with it: CLIP first. All
# lessons run at `scale="tiny"` on a laptop, without a GPU and without a network; the same code runs
# at `scale="paper"` with the paper's models and data.
#
# The next cell draws the idea. Look for two things: how many coloured pairs there are on each side,
# and *where* they sit.

# %%
display_drawing("serial_vs_lora")

# %% [markdown]
# **What this shows.** On the left, every grey matrix has its own coloured pair beside it: four
# pairs. On the right there is one pair, in front of q, k and v, and it changes the tokens that all
# three read. One pair instead of four is a quarter of the numbers: lesson 02 proves it, and says
# when it is not a quarter.

# %% [markdown]
# ## The lessons
#
# Do them in order the first time. The minutes say how long the cells run; your own reading and the
# exercises come on top, and each exercise's card says how long to give it.

# %%
lesson_list()

# %% [markdown]
# ## Is this machine ready?
#
# The doctor looks for what later lessons need, and speaks only where something is wrong: a `NOTE` is fine for
# the tiny scale, a `FAIL` is to be mended first, as the line below it says. In a terminal,
# `serial-lora doctor` prints the same.

# %%
from serial_lora_course.doctor import doctor

print(doctor())

# %% [markdown]
# ## A model adapted, at once
#
# Before any maths: the course ships a small CLIP, a model that names pictures. The next cells ask it for
# the class of drawings that it has never seen, adapt it with Serial LoRA to a few other drawings of each
# class, and ask again. Expect some seconds of training, and more right answers than before. Above each
# picture stands the class named before, and the one named after.

# %%
from serial_lora import count_parameters, eject
from serial_lora_course.data.registry import load_classification
from serial_lora_course.frontend import is_static
from serial_lora_course.labs.clip import CLIPLab, classify
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.models.clip import load_clip

backbone, data = load_clip(), load_classification("symbols")
before, labels = classify(backbone, data, data.template)  # (N, classes) scores, (N,)

# %%
lab, method = CLIPLab(backbone, data), get_method("serial_lora")
bar = not is_static()  # a progress bar, where the notebook is live
record = run_one(lab, method, 16, seed=1, progress=bar, keep_adapter=True)  # 16 shots
after, _ = classify(backbone, data, data.template)
size = count_parameters(backbone.model)
model = eject(backbone.model)  # as it was

# %%
was, now = before.argmax(-1), after.argmax(-1)  # (N,) each: the class named
mended = [i for i in range(len(labels)) if was[i] != labels[i] == now[i]][:8]
titles = [f"{data.class_names[was[i]]} →\n{data.class_names[now[i]]}" for i in mended]
display_figure(show_pictures([data.test[i][0] for i in mended], titles, columns=8))
print(ATTRIBUTION["openmoji"])
print(
    f"named right before: {(was == labels).sum()} of {len(labels)}; after: {(now == labels).sum()}"
)
print(f"{record.sizes['steps']} steps on {record.sizes['training_pictures']} drawings")
print(f"trained: {size.adapter:,} of {size.total:,} numbers")

# %% [markdown]
# **What this shows.** From 23 of 73 to 61, in a few seconds, by training one number in ninety. Above
# are eight that came right. One run on one set is no proof: lesson 04 compares many.
#
# With fewer drawings, or drawings that differ more, fewer would come right.
#
# **Change this and run again**: `load_classification("food")`, or 1 instead of 16 shots, in the two cells above.
#
# This is what you will build: the pair that was trained (lesson 03), its place in the model, the proof of
# its size (lesson 02), and the comparison that says whether it helps (lessons 04 to 08).

# %% [markdown]
# ## The pictures
#
# The tiny scale works on emoji, because the same things have been drawn by several designers: one
# *concept*, many *styles*. That is what adapting needs. A model that has learnt one style knows the
# concepts, and has to get used to the way somebody else draws them.
#
# The cell loads every style and picks the same concepts from each. Expect one row for each style, in
# the order in which the credits are printed below. They came with the course, drawn at one size.

# %%
from serial_lora_course.data.emoji import STYLES

styles = {style: load_emoji(style) for style in STYLES}
wanted = ["owl", "red apple", "sailboat", "violin", "snowman", "key"]

pictures, captions = [], []
for style, emoji in styles.items():
    for name in wanted:
        pictures.append(emoji.picture(emoji.names.index(name)))
        captions.append(name if style == STYLES[0] else "")
figure = show_pictures(pictures, captions, columns=len(wanted))
names = ", ".join(wanted)
display_figure(figure, alt=f"The same six things in four styles: {names}.")
print(*(f"{style}: {credit}" for style, credit in ATTRIBUTION.items()), sep="\n")

# %% [markdown]
# The last lines name the designers and their licences; every picture of theirs in this course
# comes with them.

# %%
height, width, _ = styles["openmoji"].pictures.shape[1:]  # pixels, and red green blue alpha
print(f"{sum(map(len, styles.values())):,} drawings of {height} x {width} pixels")

# %% [markdown]
# **What this shows.** A thing stays what it is in all rows, while colour, outline and shading change.
#
# **Change this and run again**: other things in `wanted`, by their English names, such as "tiger" or "guitar".

# %% [markdown]
# ## What a pretrained model already knows
#
# **CLIP** has two towers. One turns a picture into a vector, the other turns a sentence into a vector,
# and both were trained together until a picture and its own caption point the same way. So you can
# ask it without any training: give it a picture and some captions, and see which caption lies nearest.
# That is called **zero-shot** classification.
#
# The course ships a tiny CLIP that learnt from emoji of several designers. These five drawings by
# OpenMoji were kept away from it: it has seen koalas, but no koala of theirs. Each row divides 100 %
# among the captions, and the right caption is on the diagonal. Expect the dark cells to lie mostly
# there, and expect mistakes: the model is tiny.

# %%
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.labs.clip import class_scores
from serial_lora_course.lessons.l00_start.figures import plot_shares
from serial_lora_course.models.clip import encode_prompts, load_clip

backbone, openmoji = load_clip(), load_emoji("openmoji")
things = ["koala", "rooster", "lizard", "sailboat", "violin"]
places = [openmoji.names.index(thing) for thing in things]
assert all(openmoji.concepts[place].codepoints in hidden_codepoints() for place in places)
drawings = [openmoji.picture(place) for place in places]

# %%
batch = torch.stack([backbone.test_transform(d) for d in drawings])  # (B, 3, H, W)
tokens = backbone.tokenizer([f"a drawing of a {thing}." for thing in things])  # (B, N)
with torch.no_grad():
    caption_features = encode_prompts(backbone.model, tokens)  # (B, embed_dim)
    scores = class_scores(backbone.model, batch, caption_features)  # (B, B), larger is nearer
shares = scores.softmax(dim=-1)  # (B, B), every row sums to 1

captions = [f"a drawing\nof a {thing}" for thing in things]
display_figure(plot_shares(drawings, captions, shares))
print(ATTRIBUTION["openmoji"])

# %% [markdown]
# **What this shows.** Three of five drawings are nearest to their own caption; guessing would get
# one. The surest mistake: the koala is a rooster, with 82%. A large share means sure, not right.
#
# That is the model that you will adapt. Lesson 04 asks it harder questions (is this a mammal, a bird,
# an insect?) and measures how often it is right before and after it has seen a few of OpenMoji's drawings.
#
# **Change this and run again**: the captions, `f"a photo of a {thing}."` in place of "a drawing". Which answers
# change?

# %% [markdown]
# ## A picture from two thin matrices
#
# A grey picture of 64 x 64 pixels is a matrix with 64 x 64 numbers. Can fewer numbers hold it?
# Write it as a product of a tall matrix `B` (64, r) and a wide one `A` (r, 64). The number r
# is the **rank**. The best such pair for a given r comes from the *singular value decomposition*,
# which splits a matrix into a sum of simple patterns, strongest first.
#
# Before you run it, guess: how many patterns until you recognise the owl?

# %%
openmoji = load_emoji("openmoji")
owl = openmoji.picture(openmoji.names.index("owl")).convert("L")
picture = torch.frombuffer(bytearray(owl.tobytes()), dtype=torch.uint8).view(64, 64).float() / 255
U, S, Vh = torch.linalg.svd(picture)  # (64, 64), (64,), (64, 64)

shown, captions = [], []
for rank in (1, 2, 4, 8, 16, 64):
    B = U[:, :rank] * S[:rank]  # (64, r)
    A = Vh[:rank]  # (r, 64)
    shown.append((B @ A).clamp(0, 1))  # (64, 64)
    captions.append(f"rank {rank}: {A.numel() + B.numel():,}")
figure = show_pictures(shown, captions, columns=6)
display_figure(figure)
print("above each: its rank, and how many numbers the pair holds.", ATTRIBUTION["openmoji"])

# %%
print(f"the picture holds {picture.numel():,} numbers, the last pair {A.numel() + B.numel():,}")

# %% [markdown]
# **What this shows.** Bars of light and dark come first, then an outline, then an owl. At rank 8 a
# quarter of the picture's numbers is enough. At the full rank the pair holds twice as many: low rank
# saves only when the rank is low.
#
# LoRA assumes that the *change* which a model needs for a new task is like this picture: large, but made
# of few patterns. A picture of fine noise would need them all.
#
# **Change this and run again**: another drawing for the owl, such as "chequered flag". How many patterns now?

# %% [markdown]
# ## The same, inside a transformer
#
# Back to the tiny CLIP and its five drawings. The cell asks about them once more, puts Serial LoRA into
# the attention blocks with one call, counts, and asks again. Expect two things: only a small share of
# the numbers can still be trained, and the answers have not moved, since a fresh adapter adds nothing.
# (Not quite nothing in floating point: the package also takes a faster way through attention, and the
# order of its sums differs. A change of a hundred-thousandth or less is rounding.)

# %%
from serial_lora_course.labs.clip import class_scores
from serial_lora_course.models.clip import encode_prompts, load_clip

backbone, openmoji = load_clip(), load_emoji("openmoji")
things = ["koala", "rooster", "lizard", "sailboat", "violin"]
drawings = [openmoji.picture(openmoji.names.index(thing)) for thing in things]
batch = torch.stack([backbone.test_transform(d) for d in drawings])  # (B, 3, H, W)
tokens = backbone.tokenizer([f"a drawing of a {thing}." for thing in things])  # (B, N)


@torch.no_grad()
def ask(model: nn.Module) -> torch.Tensor:
    """How a CLIP divides each drawing among the captions: (B, B), every row sums to 1."""
    return class_scores(model, batch, encode_prompts(model, tokens)).softmax(dim=-1)


# %%
import copy

from serial_lora import SerialLoRAConfig, count_parameters, inject

model = copy.deepcopy(backbone.model)
before = ask(model)
inject(model, SerialLoRAConfig(rank=8))
moved, size = (ask(model) - before).abs().max().item(), count_parameters(model)
print(f"trainable: {size.trainable:,} of {size.total:,} numbers, {size.share:.2%}")
print(f"no share moved by more than {moved:.1g}")

# %% [markdown]
# The one line `inject(model, SerialLoRAConfig(rank=8))` froze the model and gave every attention block one
# pair. The answers are still the model's own, and that is on purpose: training starts from what the model
# already knows. Lesson 03 builds this call step by step.
#
# **Change this and run again**: `rank=16`. What doubles, and what stays?

# %% [markdown]
# ## How exercises work
#
# Every exercise is a card, a function to write, and a check in the same cell.
#
# - The card says how difficult it is, how important, and how many minutes to give it. Skip what is
#   not important to you: where a later cell builds on an answer, it takes yours if its check passed, and
#   the solved lesson's answer if not, and says so.
# - Replace the line `raise NotImplementedError(...)` by your own lines, and run the cell.
# - **Not tried yet?** The check says so, and the notebook runs on.
# - **Wrong?** It says in red what it compared, what it expected, what it got, and the likely cause,
#   and the notebook runs on.
# - **Right?** It says what it verified.
# - Stuck? Open hint 1, then hint 2. The solved lesson is linked below each exercise.
#
# Keep your answers in a copy of the notebook (in JupyterLab: right-click, *Duplicate*), because an
# update of the course replaces these files.
#
# Here is what a wrong answer looks like: somebody counts only one of the two matrices.


# %%
def one_matrix_only(width: int, rank: int) -> int:
    """A wrong answer to exercise 0.2, to see what its check says."""
    return width * width - width * rank


try:
    check("0.2", one_matrix_only)
except CheckFailed as message:
    print(message)

# %% [markdown]
# **What this shows.** The last line says what went wrong: read it first. Checks know the usual slips (small
# mistakes); for an unusual one, compare *expected* and *got*.
#
# **Change this and run again**: repair `one_matrix_only`. What does a right answer look like?

# %% [markdown]
# ### Exercise 0.1 · A product through a low rank
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 5 |
#
# Tokens arrive as rows, so `x` has shape (..., d). Send them through `A` (r, d) down to the rank,
# and through `B` (d, r) back up to the width: the result is x Aᵀ Bᵀ. Two thin steps are enough; the
# (d, d) matrix B A is never needed. The check compares with a sum written out another way.


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
# `(..., d) @ (d, r)` gives `(..., r)`; `(..., r) @ (r, d)` gives `(..., d)`. A common mistake is
# `x @ lora_B @ lora_A`: the shapes fit, the numbers do not.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)

# %% [markdown]
# ### Exercise 0.2 · What a pair saves
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●○○ | 3 |
#
# A square matrix of width d holds d x d numbers. How many *fewer* does a pair `A` (r, d), `B` (d, r)
# hold? For a rank above half the width the answer is negative, and that is right.


# %% tags=["exercise"]
def numbers_saved(width: int, rank: int) -> int:
    """How many fewer numbers a pair of this rank holds than a (width, width) matrix."""
    # BEGIN SOLUTION
    square = width * width
    pair = rank * width + width * rank  # A and B
    return square - pair
    # END SOLUTION


check("0.2", numbers_saved)

# %% [markdown]
# <details><summary>Hint 1: what one matrix holds</summary>
#
# `A` has r rows of d numbers. `B` has d rows of r numbers. Both count.
#
# </details>
# <details><summary>Hint 2: an example to test yourself with</summary>
#
# At width 10 and rank 5 the pair holds 50 + 50 numbers, as many as the square matrix: 0 saved.
#
# </details>
#
# Solution: [the solved lesson](../solutions/00_start_here.ipynb)

# %% [markdown]
# ### Exercise 0.3 · Freeze a model
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 5 |
#
# Adapting starts by freezing: no weight of the pretrained model may ask for a gradient. Write a
# function that freezes *every* parameter of any module, however deeply it is nested, and returns
# the module. One plausible line does nothing at all; the check knows it.


# %% tags=["exercise"]
def freeze(model: nn.Module) -> nn.Module:
    """Make every parameter of the model ask for no gradient; return the same model."""
    # BEGIN SOLUTION
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model
    # END SOLUTION


check("0.3", freeze)

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
# **1. A fresh adapter has random numbers in `A`. Why did the model's answers not change?**
#
# <details><summary>Answer</summary>
#
# Because `B` starts at zero, and the correction is the product of both: x Aᵀ Bᵀ is zero whatever
# `A` holds. Training moves `B` away from zero from the first step on.
#
# </details>
#
# **2. At full rank the owl was perfect. Why not always use the full rank?**
#
# <details><summary>Answer</summary>
#
# Because then the pair holds twice as many numbers as the matrix it stands for. A pair of rank r
# saves only while 2 d r is below d x d, that is, while r is below d / 2. Useful ranks are far below.
#
# </details>
#
# **3. You write `model.requires_grad = False` and train. What happens?**
#
# <details><summary>Answer</summary>
#
# Everything is trained. The line puts an attribute on the module; each parameter keeps its own
# `requires_grad`. No error tells you, and that is why exercise 0.3 is in the first lesson.
#
# </details>

# %% [markdown]
# ## Key points
#
# - LoRA keeps the pretrained weights and learns a small correction beside them, as a product of two
#   thin matrices `A` (r, d) and `B` (d, r). Serial LoRA shares one such pair among q, k and v.
# - The rank r says how many patterns the correction can have. Low rank saves; full rank does not.
# - `B` starts at zero, so an adapted model starts as the model it adapts.
# - A pretrained CLIP answers before any training (zero-shot). How sure it is does not say whether it
#   is right.
# - Freeze first. Then check that it worked: count what can be trained.
# - Checks say what was compared, expected and got, and the likely cause. Open exercises never stop
#   a notebook.

# %% [markdown]
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": the idea and Fig. 1 in section I; low-rank
# pairs and their start (A random, B zero) in section II-A, equations (1) and (2); the shared pair in
# section II-C, equation (3).
#
# Next: [01 · Low-rank maths](01_low_rank_maths.ipynb).
