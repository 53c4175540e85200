# %% [markdown]
# # 04 · CLIP with a few shots
#
# You want to sort drawings into eight kinds: arrows, hearts, letters, number keys and so on. About a hundred have
# labels. Two methods, A and B, learned from them, both starting from the same CLIP. Below are the test drawings on
# which only one of the two is right (✓).

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
import math
import os

import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.lessons.l04_clip import figures
from serial_lora_course.lessons.l04_clip.records import TWO_ANSWERS
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper": ViT-B/16 on satellite pictures
lesson = open_lesson("clip", SCALE, os.environ.get("SERIAL_LORA_LENGTH", "class"))
lesson_card("04")
if SCALE == "tiny" and lesson.tests is None:  # all drawings that they were asked about
    display_figure(figures.show_disputed(lesson.data, TWO_ANSWERS))

# %% [markdown]
# A has 57 of 73 right, and so has B. **Which of them is better?** One of them solves a single equation, and the other
# trains an adapter in both transformers of CLIP. You build both, and learn to tell a lead from luck.
#
# ## Two towers, one table
#
# CLIP's *image tower* turns a picture into a vector, and its *text tower* turns a sentence into a vector with the same
# number of entries. Pretraining pulled every picture towards its caption and away from the other captions in its
# batch, so the cosine of two vectors says how well a picture and a sentence fit together. If you write a sentence for
# each class, the table of cosines *is* a classifier: each row is a picture, and its largest entry names the class.
# (The orange pairs are the adapter, which comes later.)

# %%
display_drawing("two_towers")
device, backbone, model = lesson.device, lesson.backbone, lesson.model
data, config = lesson.data, lesson.config  # pictures, and the settings of `serial-lora lab clip`
labels, n = torch.tensor(data.test.labels), len(data.test)  # the right classes: (N,)

one_each = data.test.some([data.test.labels.index(c) for c in range(len(data.class_names))])
figure = show_pictures([picture for picture, _ in one_each], data.class_names)
display_figure(figure, alt=f"A drawing of each class: {', '.join(data.class_names)}.")
print(len(data.train), "training pictures,", n, "to test on.", data.attribution)
print(
    "training pictures of each kind:", *map(data.train.labels.count, sorted(set(labels.tolist())))
)

# %% [markdown]
# These are test drawings, one of each kind. (To Unicode, an atom is a religious symbol.) We pretrained this small CLIP
# on [other designers' drawings](../docs/models.md), whose captions named these kinds too.
#
# ## Sentences are the classifier
#
# A score is the cosine times a *scale*, which CLIP learned in pretraining. Cosines lie between -1 and 1, so without
# the scale softmax could favour no class over another by more than a factor of $e^2$, about 7. CLIP stores the
# logarithm of the scale, so that training cannot make the scale negative.
#
# ### Exercise 4.1 · The class scores
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 4 |
#
# The features come straight from the towers, so their lengths differ. Return a table with a row for every picture and
# a column for every class.


# %% tags=["exercise"]
def similarity_scores(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled cosine of every picture with every class prompt.

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
#
# Give the eight drawings above to your classifier. `template` is the sentence around each class name. Is the right
# class the largest in each row?

# %%
scores_of = yours("4.1")
template = data.template if config.prompt == "dataset" else data.generic_template


def prepare(pictures: list) -> Tensor:
    """PIL pictures as the model wants to see them: (B, 3, H, W)."""
    return torch.stack([backbone.test_transform(picture) for picture in pictures]).to(device)


prompts = backbone.tokenizer(data.prompts(template)).to(device)  # (C, context length)
with torch.no_grad():
    seen = model.encode_image(prepare([picture for picture, _ in one_each]))  # (C, D)
    scores = scores_of(seen, model.encode_text(prompts), model.logit_scale)  # (C, C)
table = pd.DataFrame(scores.softmax(-1).cpu().numpy(), data.class_names, data.class_names)
display(table.map("{:.2f}".format).assign(**{"it says": table.idxmax(axis=1)}))
print("the first sentence:", data.prompts(template)[0])
print(f"the scale: {model.logit_scale.exp():.1f}")

# %% [markdown]
# Three of eight are right, and some wrong answers are sure: the number key is called an arrow with probability 0.86.
# Still, this classifier used no training picture at all: it is *zero-shot*.
#
# **Change this and run the cell again**: `template = "a sketch of {}."`. Other words make another classifier, so a
# gain counts only beside zero-shot *with the same sentence*.


# %%
@torch.no_grad()
def picture_vectors(clip: nn.Module, examples) -> Tensor:
    """One vector of length one a picture: (N, D)."""
    some = [range(i, min(i + 64, len(examples))) for i in range(0, len(examples), 64)]
    batches = (prepare([examples[i][0] for i in each]) for each in some)
    return torch.cat([clip.encode_image(batch, normalize=True).cpu() for batch in batches])


@torch.no_grad()
def class_vectors(clip: nn.Module, sentences: list[str]) -> Tensor:
    """One vector of length one a class: (C, D)."""
    return clip.encode_text(backbone.tokenizer(sentences).to(device), normalize=True).cpu()


# the seventh, `everything`, holds five of the others
sets = {name: some for name, some in lesson.sets.items() if name != "everything"}
tests = {name: picture_vectors(model, some.test) for name, some in sets.items()}
classes = {name: class_vectors(model, some.prompts(template)) for name, some in sets.items()}
zero = (tests[data.name] @ classes[data.name].T).argmax(-1)  # (N,)
print("zero-shot:", int((zero == labels).sum()), "of", n, "right")
print("numbers in a vector:", classes[data.name].shape[1])

# %% [markdown]
# ## A few shots, and no adapter
#
# *Few-shot* learning uses a few labelled pictures of each class, the same for every method. PyTorch's random numbers
# may change between versions, but a hash does not. So sort the pictures by the hash of seed and name, and take the
# first few of each class.

# %%
from hashlib import sha256


def first_shots(pictures, shots: int, seed: int) -> list[int]:
    """Positions of the pictures to learn from, class by class."""
    names, classes = pictures.picture_ids, sorted(set(pictures.labels))
    keys = [sha256(f"shots:{seed}:{name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=lambda i: keys[i])
    by_class = [[i for i in order if pictures.labels[i] == c] for c in classes]
    return [i for members in by_class for i in members[:shots]]


SHOTS, SEED = lesson.amount, 1  # for other draws, change the seed and run all cells from here on
few = [data.train[i][0] for seed in (1, 2) for i in first_shots(data.train, 1, seed)]
titles = [*data.class_names, *[""] * len(data.class_names)]
figure = show_pictures(few, titles, columns=len(data.class_names))
display_figure(figure, alt="One training picture of each class: seed 1 above, seed 2 below.")

single, chosen = (first_shots(data.train, shots, SEED) for shots in (1, SHOTS))
print(f"{len(chosen)} pictures for {SHOTS} shots of {len(data.class_names)} classes")

# %% [markdown]
# One shot is drawn by seed 1 in the upper row, and by seed 2 in the lower. At sixteen shots a seed changes little: six
# of the eight classes have fewer pictures, and we use them all.
#
# How far do the labels get us without an adapter? Leave both towers frozen and fit one matrix W by least squares, a
# *linear probe*: a picture's vector times the row of its own class should give 1, and times any other row 0. There are
# fewer pictures than the 192 numbers in a vector, so many matrices fit, and a penalty of strength α pulls W towards a
# start. The usual start is zero, which throws the sentences away. But each row of W can also start as the vector of
# its class's sentence, and then the labels only correct zero-shot.
#
# ### Exercise 4.2 · A probe that starts from the sentences
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 9 |
#
# With $X$ the pictures, $Y$ the wanted ones and zeros, and $W_0$ the start, return the $W$ that makes
# $\|XW^\top - Y\|^2 + \alpha\,\|W - W_0\|^2$ smallest.


# %% tags=["exercise"]
def fit_probe(pictures: Tensor, labels: Tensor, start: Tensor, alpha: float) -> Tensor:
    """The matrix of a linear probe, pulled towards a start.

    Args:
        pictures: (N, D), their vectors.
        labels: (N,), the right class of each.
        start: (C, D), a row a class.
        alpha: how strong the pull is.

    Returns:
        (C, D).
    """
    # BEGIN SOLUTION
    wanted = F.one_hot(labels, len(start)).to(pictures)  # (N, C)
    missed = wanted - pictures @ start.T  # (N, C): what the start gets wrong
    pull = alpha * torch.eye(pictures.shape[1])  # (D, D)
    change = torch.linalg.solve(pictures.T @ pictures + pull, pictures.T @ missed)  # (D, C)
    return start + change.T
    # END SOLUTION


check("4.2", fit_probe)

# %% [markdown]
# <details><summary>Hint 1: fit what the start misses</summary>
#
# Write $W = W_0 + \Delta$. Then $\Delta$ is pulled to zero, and $X\Delta^\top$ has to come close to $Y - XW_0^\top$:
# this is an ordinary ridge regression. `F.one_hot(labels, len(start))` is $Y$, in whole numbers.
#
# </details>
# <details><summary>Hint 2: set the slope to zero</summary>
#
# $(X^\top X + \alpha I)\,\Delta^\top = X^\top (Y - XW_0^\top)$, and `torch.linalg.solve(A, b)` solves it. Do not
# forget to add the start.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)
#
# `RidgeCV` chooses α on the training pictures alone: it leaves out each in turn, and takes the α whose fit to the
# others predicts it best. The figure shows every α on the test pictures. Before you run it: where does the line from
# the sentences end as α grows?

# %%
from sklearn.linear_model import RidgeCV

far = 36  # your guess: right of 73 at the largest α, from the sentences, sixteen shots

fit = yours("4.2")
learnt = {name: picture_vectors(model, some.train) for name, some in sets.items()}
ALPHAS = [0.1, 0.3, 1, 3, 10, 30, 100]


def probe(name: str, few: list[int], start: Tensor, alpha: float = 0) -> tuple[Tensor, float]:
    """The class that a probe gives each test picture of a data set, (N,); and its α, chosen if not given."""
    pictures, kinds = learnt[name][few], torch.tensor(sets[name].train.labels)[few]
    missed = F.one_hot(kinds, len(start)) - pictures @ start.T  # (N, C)
    alpha = alpha or RidgeCV(ALPHAS, fit_intercept=False).fit(pictures, missed).alpha_
    return (tests[name] @ fit(pictures, kinds, start, alpha).T).argmax(-1), float(alpha)


starts = {"probe from zero": 0 * classes[data.name], "probe from the sentences": classes[data.name]}
found, curves, best = {1: {"zero-shot": zero}, SHOTS: {"zero-shot": zero}}, {}, {}
for shots, few in ((1, single), (SHOTS, chosen)):
    for name, start in starts.items():
        answers = [probe(data.name, few, start, alpha)[0] for alpha in ALPHAS]
        curves[shots, name] = [int((each == labels).sum()) for each in answers]
        found[shots][name], best[shots, name] = probe(data.name, few, start)
        right = (found[shots][name] == labels).sum()
        print(f"{shots}-shot, {name}: α {best[shots, name]:g}, {right} of {n} right")
display_figure(figures.plot_pull(curves, best, ALPHAS, int((zero == labels).sum()), n))
print("your guess:", far, "; it is", curves[SHOTS, "probe from the sentences"][-1])

# %% [markdown]
# Look at the black lines: as α grows, the probe from the sentences comes back to zero-shot, because W hardly leaves
# its start. The dots mark the chosen α. At one shot it is large, because no other picture of a class remains when its
# only one is left out. A small α would have had up to 42 right from the sentences, but eight training pictures cannot
# tell us so. At sixteen shots α is small, and both probes have 57 right. An adapter has to beat this: one matrix and
# one equation.
#
# ## The training, all of it
#
# An adapter learns to classify with your scores, by the cross-entropy between their softmax and the right class.
# Serial LoRA has a pair of matrices in each block of *both* towers: A takes what attention reads down to a few
# numbers, B takes these up again, and the result is added. Both towers change, so pictures and sentences are encoded
# again in every step.
#
# ### Exercise 4.3 · The few-shot loss
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 5 |
#
# Use your scores of exercise 4.1 and one function of PyTorch. The check wants gradients in both towers, and calls you
# again after a step.

# %% tags=["exercise"]
scores_of = yours("4.1")  # (image features, text features, logit_scale) -> (B, C)


def few_shot_loss(clip: nn.Module, pictures: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
    """Mean cross-entropy of pictures against all class prompts.

    Args:
        clip: has `encode_image(pictures)`, `encode_text(prompts)` and `logit_scale`.
        pictures: (B, 3, H, W).
        labels: (B,), each the row of its class in `prompts`.
        prompts: (C, context length), the token ids of one prompt a class.

    Returns:
        A scalar that gradients can flow back from.
    """
    # BEGIN SOLUTION
    class_features = clip.encode_text(prompts)  # (C, D)
    scores = scores_of(clip.encode_image(pictures), class_features, clip.logit_scale)  # (B, C)
    return F.cross_entropy(scores, labels)
    # END SOLUTION


check("4.3", few_shot_loss)

# %% [markdown]
# <details><summary>Hint 1: what may be kept</summary>
#
# Nothing may be kept from an earlier call, because both towers have moved since. `picture_vectors` and `class_vectors`
# above run under `no_grad`, so they cannot teach anything.
#
# </details>
# <details><summary>Hint 2: the last step</summary>
#
# `F.cross_entropy` takes scores, not probabilities: it does the softmax itself, and the mean too.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)
#
# ### Exercise 4.4 · Train on the shots
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# `batches_of` deals out the shots: every shot comes once in an epoch, and the epochs are joined end to end. Write what
# is done with the batches:
#
# 1. Use AdamW on `groups`, each with its own learning rate and decay. In step $t = 0, 1, \ldots$ each rate is multiplied
#    by $\tfrac{1}{2}\,(1 + \cos(\pi t / \text{steps}))$: half a cosine, from 1 down to nearly 0.
# 2. `shots[i]` crops its picture anew at every call, so fetch it when its batch comes.
# 3. Keep the loss of each step as a plain number.
# 4. An adapter may have dropout, so use train mode during the steps and eval mode afterwards.


# %% tags=["exercise"]
def batches_of(count: int, steps: int, size: int) -> tuple[Tensor, ...]:
    """For each step, the positions of its shots."""
    epochs = [torch.randperm(count) for _ in range(math.ceil(steps * size / count))]
    return torch.cat(epochs)[: steps * size].split(size)


def train_few_shot(
    clip: nn.Module,
    groups: list[dict],
    shots,
    prompts: Tensor,
    loss_of,
    steps: int,
    batch_size: int,
) -> list[float]:
    """Train what is in the groups, in place; the loss of each step.

    Args:
        clip: a frozen CLIP with an adapter in it.
        groups: dictionaries with params, lr and weight_decay, as AdamW takes them.
        shots: has a length; `shots[i]` is a picture (3, H, W) and its class, a scalar tensor.
        prompts: (C, context length), the token ids of one prompt a class.
        loss_of: called with clip, pictures (B, 3, H, W), labels (B,) and prompts.
        steps: optimizer steps in all.
        batch_size: pictures a step.
    """
    # BEGIN SOLUTION
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    clip.train()
    for batch in batches_of(len(shots), steps, batch_size):
        pictures, labels = torch.utils.data.default_collate([shots[i] for i in batch])
        loss = loss_of(clip, pictures, labels, prompts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    clip.eval()
    return losses
    # END SOLUTION


check("4.4", train_few_shot)

# %% [markdown]
# <details><summary>Hint 1: PyTorch has the parts</summary>
#
# Look for a scheduler with a cosine in `torch.optim.lr_scheduler`: it keeps each group's own rate.
# `torch.utils.data.default_collate` stacks a list of (picture, label).
#
# </details>
# <details><summary>Hint 2: the order in a step</summary>
#
# Gradients add up until they are set to zero, the optimizer needs them, and the schedule belongs to the step after.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)
#
# Crops are not mirrored, because a letter in a mirror is no letter. All methods that train CLIP get the same crops in
# the same batches; a probe sees each picture whole. Each method has its own rate, chosen on held-out training pictures
# in longer runs. For both adapters it was the largest that we tried, so a larger one may do better.

# %%
Adapter, inject_pairs, train = yours("3.1"), yours("3.5"), yours("4.4")
loss_of = lesson.autocast()(yours("4.3"))  # in bfloat16 where a GPU has it
steps_in = backbone.train_transform.transforms  # crop, flip, to a tensor, normalise
crop = transforms.Compose(
    [step for step in steps_in if not isinstance(step, transforms.RandomHorizontalFlip)]
)


class Shots(list):
    """(Picture, class) pairs, each picture cropped anew whenever it is asked for."""

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        picture, label = super().__getitem__(i)
        return crop(picture).to(device), torch.tensor(label, device=device)


rank, size = config.rank, 16  # pictures a step
ours, quarter, full = "Serial LoRA", "LoRA of the same size", "full fine-tuning"
rates = {ours: 3e-3, quarter: 3e-3, full: 1e-4}
if SCALE == "paper":  # the paper has one rate for all adapters
    rates = dict.fromkeys(rates, config.lr) | {full: 1e-5}
    size = config.batch_size // config.accumulation  # less on a small GPU
ranks = {ours: f"rank {rank}", quarter: f"rank {rank // 4}", full: "all weights"}
print(f"AdamW, weight decay {config.weight_decay}, crops of {config.crop:.0%} or more, seed {SEED}")


# %%
def adapt(method: str, shots: list, prompts: Tensor, size: int) -> tuple[nn.Module, str]:
    """A CLIP that a method trained on (picture, class) pairs; and in words, how."""
    torch.manual_seed(SEED)
    put_in[method](clip := copy.deepcopy(model))  # freezes, and adds the adapter
    torch.manual_seed(SEED)  # again, for each adapter has drawn as many numbers as it needs
    learns = [p for p in clip.to(device).parameters() if p.requires_grad]
    group = {"params": learns, "lr": rates[method], "weight_decay": config.weight_decay}
    steps, batch = config.steps(len(shots)), min(size, len(shots))
    losses = train(clip, [group], Shots(shots), prompts, loss_of, steps, batch)
    count = f"{sum(p.numel() for p in learns):,} parameters"
    how = f"{ranks[method]}, {count}, rate {rates[method]:g}, {steps} steps of {batch} pictures"
    return clip, f"{how}, first loss {losses[0]:.2f}"


def predict(clip: nn.Module) -> Tensor:
    """The class that a model gives each test picture: (N,)."""
    sentences = class_vectors(clip, data.prompts(template))
    return (picture_vectors(clip, data.test) @ sentences.T).argmax(-1)


put_in = {ours: lambda clip: inject_pairs(clip, Adapter, rank)}
clip, how = adapt(ours, [data.train[i] for i in chosen], prompts, size)
found[SHOTS][ours] = serial = predict(clip)  # (N,)
print(f"{ours}, {SHOTS}-shot: {how}")
print(f"right of {n}: {(zero == labels).sum()} before, {(serial == labels).sum()} after")

rival = found[SHOTS]["probe from the sentences"]
only = [(each == labels) & (serial != rival) for each in (rival, serial)]
print(f"only the probe is right: {only[0].sum()}; only {ours}: {only[1].sum()}")
same = (rival.tolist() == TWO_ANSWERS["A"], serial.tolist() == TWO_ANSWERS["B"])
print("the probe answers as A:", same[0], f"- {ours} answers as B:", same[1])

# %% [markdown]
# So A was the probe from the sentences, and B is Serial LoRA. Training takes CLIP from 36 to 57 right, and so does one
# equation.
#
# ## How sure is a lead?
#
# ### Exercise 4.5 · A lead and its ±
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# Other test pictures would give another lead. How different might it be? Give each picture a number: 1 if only our
# method is right, -1 if only theirs is, and 0 otherwise. The lead is the sum of these numbers, and a sum of N
# independent numbers spreads $\sqrt{N}$ times as wide as one of them. Return the lead and, as its ±, twice that
# spread. If enough pictures decide, a sum stays this close to its expected value about nineteen times in twenty.


# %% tags=["exercise"]
def lead(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """How many pictures we are ahead, and the ± of that.

    Args:
        ours: (N,), True where our method is right.
        theirs: (N,), the same of the other, on the same pictures.
    """
    # BEGIN SOLUTION
    ahead = ours.float() - theirs.float()  # (N,)
    spread = ahead.std() * math.sqrt(len(ahead))
    return ahead.sum().item(), 2 * spread.item()
    # END SOLUTION


check("4.5", lead)

# %% [markdown]
# <details><summary>Hint 1: picture by picture</summary>
#
# As numbers, True is 1 and False is 0, so `ours.float() - theirs.float()` is what you need. Do not measure the spread
# of each method by itself: both saw the same pictures, and most pictures are easy, or hard, for both.
#
# </details>
# <details><summary>Hint 2: the spread</summary>
#
# `.std()` of these numbers is the spread of one of them. Multiply it by `math.sqrt(N)`, and by two.
#
# </details>
#
# Solution: [the solved lesson](../solutions/04_clip_few_shot.ipynb)
#
# ## LoRA, through the same loop
#
# Your LoRA of lesson 01 wraps an `nn.Linear`, but PyTorch's attention keeps q, k and v in one weight. So the course's
# `OpenAttention` gives q, k, v and out a layer each, and your LoRA wraps each layer. That makes four pairs in a block
# where Serial LoRA has one, so LoRA gets a quarter of the rank, and as many parameters.
#
# *Full fine-tuning*, which adapters replace, trains every parameter of CLIP. All three start from the same outputs and
# see the same crops, so their first losses must be equal.

# %%
from serial_lora_course.lessons.l04_clip.attention import OpenAttention

Layer, lead_of = yours("1.2"), yours("4.5")


def inject_lora(clip: nn.Module, rank: int) -> None:
    """Freeze, then open every attention."""
    clip.requires_grad_(False)
    for block in [*clip.modules()]:
        if isinstance(getattr(block, "attn", None), nn.MultiheadAttention):
            block.attn = OpenAttention(block.attn, lambda each: Layer(each, rank, alpha=rank))


put_in[quarter] = lambda clip: inject_lora(clip, rank // 4)
put_in[full] = lambda clip: clip.requires_grad_(True)
for shots, few in ((1, single), (SHOTS, chosen)):
    for name in put_in:
        if name not in found[shots]:
            other, how = adapt(name, [data.train[i] for i in few], prompts, size)
            found[shots][name] = predict(other)
            print(f"{name}, {shots}-shot: {how}")


# %%
def beside(ours: Tensor, theirs: Tensor) -> tuple[float, float, int, int]:
    """A lead, its ±, and on how many pictures one alone is right: ours, then theirs."""
    return *lead_of(ours, theirs), int((ours & ~theirs).sum()), int((theirs & ~ours).sum())


pairs = {}
for shots, answers in found.items():
    right = {name: answer == labels for name, answer in answers.items()}
    print(f"right of {n}, {shots}-shot:", {name: int(each.sum()) for name, each in right.items()})
    del right["probe from zero"]
    table = {b: {a: beside(right[a], right[b]) for a in right} for b in right}
    pairs[f"{shots} shot{'s'[: shots > 1]}"] = pd.DataFrame(table)
display_figure(figures.plot_leads(pairs, "pictures"))

# %% [markdown]
# At sixteen shots all four methods that learned are ahead of zero-shot, and none is clearly ahead of another. Their ±
# of 7 is almost ten points, too wide to tell A from B. At one shot LoRA is ahead of zero-shot and of the probe. But
# among twenty pairs of equal methods one would be coloured by chance, and the ± speaks of other test pictures, not of
# other shots. **Change this**: set `SEED = 2`, and run all cells from there. Who leads now?
#
# ## More data sets
#
# The course ran this loop on six data sets, with the same ranks, rates and crops: three draws at one shot, one at four
# and at sixteen. Your probes get the same shots. The ± is now half of an *interval* for the mean over data sets like
# these (lesson 08): the spread of the six leads, divided by the root of their number, times a factor for so few.

# %%
from scipy import stats

from serial_lora_course.lessons.l04_clip.records import read_runs, read_unseen

accuracy = read_runs()
for shots, name, seed in accuracy.index:
    if some := sets.get(name):
        few, right = first_shots(some.train, shots, seed), torch.tensor(some.test.labels)
        answers = {"zero-shot": (tests[name] @ classes[name].T).argmax(-1)}
        for title, start in zip(starts, (0 * classes[name], classes[name]), strict=True):
            answers[title] = probe(name, few, start)[0]
        for title, each in answers.items():
            accuracy.loc[(shots, name, seed), title] = 100 * (each == right).float().mean().item()


def mean_lead(ours: pd.Series, theirs: pd.Series) -> tuple[float, float, int, int]:
    """The mean lead over the data sets in points, half of its 95% interval, and how many sets are for whom."""
    leads = (ours - theirs).groupby("dataset").mean()  # one number a data set
    half = stats.t.ppf(0.975, len(leads) - 1) * leads.std() / math.sqrt(len(leads))
    return leads.mean(), half, int((leads > 0).sum()), int((leads < 0).sum())


drawn = [name for name in found[1] if name in accuracy]
pairs, names = {}, [name for name in drawn if name != "probe from zero"]
for shots in (1, 16):
    runs = accuracy.loc[shots]
    table = {b: {a: mean_lead(runs[a], runs[b]) for a in names} for b in names}
    pairs[f"{shots} shot{'s'[: shots > 1]}"] = pd.DataFrame(table)
print("one shot, mean of the sets:", accuracy.loc[1].mean().round(1).to_dict())
display_figure(figures.plot_over_shots(accuracy[drawn]))
display_figure(figures.plot_leads(pairs, "points"))

# %% [markdown]
# In the curves, the probe from zero starts ten points below zero-shot, because it threw the sentences away. In the
# table, all four methods that learned beat zero-shot at sixteen shots, and none clearly beats another. At one shot
# none clearly beats zero-shot: what trains CLIP gains on some sets and loses on others, and the probe hardly leaves
# its sentences. LoRA leads Serial LoRA there by 3.8 ± 2.2 points. One lead in twenty may be chance, and this one
# depends on the rate, which was chosen in longer runs: at a third of it Serial LoRA rises to 43.2, LoRA falls to 42.9,
# and the two are level. (We tried that on these test pictures, so it chooses no rate.)
#
# So where there are labels, nothing clearly beats the probe from the sentences.
#
# ## Kinds without labels
#
# Why adapt, then? A probe knows only the classes that it was fitted to; for others there is zero-shot. Training may
# have helped CLIP with those other kinds, or done harm. So label every second kind, up to eight pictures each, and ask
# about the others among their own sentences; then swap the halves. With one draw each, on how many of six data sets
# does Serial LoRA gain?

# %%
gaining = 3  # your guess: on how many of the six sets Serial LoRA gains on kinds without labels


def change_elsewhere(method: str, half: int) -> Tensor:
    """Label every second kind; on the other kinds' pictures, 1 if gained over zero-shot, -1 if lost: (M,)."""
    own, other = range(half, len(prompts), 2), torch.arange(1 - half, len(prompts), 2)
    few = [data.train[i] for i in first_shots(data.train, 8, SEED)]
    few = [(picture, own.index(label)) for picture, label in few if label in own]
    clip, _ = adapt(method, few, prompts[half::2], 8)
    after = picture_vectors(clip, data.test), class_vectors(clip, data.prompts(template))
    before, here = (tests[data.name], classes[data.name]), torch.isin(labels, other)
    right = [
        other[(pictures[here] @ sentences[other].T).argmax(-1)] == labels[here]
        for pictures, sentences in (after, before)
    ]
    return right[0].int() - right[1].int()


change = torch.cat([change_elsewhere(ours, half) for half in (0, 1)])  # (N,)
print(f"{data.name}, {ours}: {(change > 0).sum()} pictures gained, {(change < 0).sum()} lost")
changes = read_unseen()
means = changes[ours].groupby("dataset").mean()
print("your guess:", gaining, "; it is", (means > 0).sum(), "of", len(means))
display_figure(figures.plot_unseen(changes))

# %% [markdown]
# On symbols Serial LoRA gained ten pictures and lost two, and every method gains most there. But Serial LoRA gains on
# only two of the six sets, and zero lies in the interval of all three means: whether training helps kinds without
# labels is open.
#
# **So which is better, A or B?** Where there are labels, we could not tell them apart, at one shot or at sixteen. Take
# the equation, then, which leaves CLIP as it was. On kinds without labels B gained on symbols, but not on most sets:
# before you ship an adapter, ask it about some held-out kinds.
#
# ## Quiz
#
# **1. Why must the sentences be encoded anew in every step, though they never change?**
#
# <details><summary>Answer</summary>
#
# The sentences stay, but the text tower moves, because it carries pairs too. Vectors from an earlier step come from
# another tower, and no gradient would reach the text tower's pairs. With pairs in the image tower only, encoding them
# once would do.
#
# </details>
#
# **2. Method X is three points ahead of method Y on one data set with one seed. What do you say?**
#
# <details><summary>Answer</summary>
#
# "On these pictures." Ask on how many pictures the two disagree, and how these split. Then run more data sets and
# draws, with the same shots for both, before you say "better".
#
# </details>
#
# **3. "A probe has no answer for other classes, an adapter has one." Is that a reason to adapt?**
#
# <details><summary>Answer</summary>
#
# No. The owner of a probe still has CLIP, with its zero-shot answer for other classes. Adapting pays only if the
# adapter's answer is better there, and you have to measure this on kinds for which it saw no label.
#
# </details>
#
# ## What to remember
#
# - In CLIP the sentences are the classifier.
# - Report an adapter beside zero-shot with the same sentence, and beside a probe that starts from the sentences.
# - Give each lead its ±, count your leads, and then take more data sets.
# - Choose the learning rate for each method separately. Print it, with batch, steps and rank, beside every result.
# - Training also changes CLIP on kinds without labels: hold some out, and measure it.
#
# Next: [lesson 05](05_sam_segmentation.ipynb), where an adapter draws masks, or [lesson 07](07_lora_plus.ipynb), which
# sends two learning rates through your loop.
