# %% [markdown]
# # 12 · Your own model and pictures
#
# Over the white counter of Ada's shop hangs a camera. It is to tell how many things lie there, one to four. Ada sorted
# some frames into four folders and built a classifier, and in her test it was nearly always right. Now her sister
# wants it too. She lays *different* things together, *anywhere*; her counter is of *wood*; and her things *touch*.
#
# **Which way counts things that it has never seen: a few lines without learning, the nearest frame, a linear probe, or an
# adapter?** Good enough is, we say beforehand, three right answers in four, on every draw.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
import random
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from PIL import Image, ImageOps
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.emoji import ATTRIBUTION
from serial_lora_course.lessons.l12_your_own.counter import film, frame, photographs, white, wood
from serial_lora_course.lessons.l12_your_own.figures import heights, plot_counts
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_figure

lesson_card("12")

# %% [markdown]
# ## A folder of frames
#
# The folder has the layout that every tool reads: one sub-folder per class, with the pictures inside. The photographs
# are real, cut out by hand. Each lies on a white sheet one to four times, every one in a quarter of its own. `film`
# takes four frames of a sheet: the things turn a little, and the light changes.
#
# With a folder of your own, set `folder` to its path, leave out `film`, and adapt the line that fills `objects`. That
# takes you as far as exercise 12.2. The tests after it are made from these photographs.


# %%
def in_quarters(things: list, chance: random.Random) -> list[tuple[int, int, int]]:
    """Left, top and side of a box for each thing, in a quarter of the sheet of 112 x 112 pixels."""
    boxes = []
    for quarter in chance.sample(range(4), len(things)):
        side = chance.randint(28, 40)
        left, top = chance.randint(0, 56 - side), chance.randint(0, 56 - side)
        boxes.append((quarter % 2 * 56 + left, quarter // 2 * 56 + top, side))
    return boxes


scratch = tempfile.TemporaryDirectory()  # deleted when the notebook is closed
folder = Path(scratch.name, "counter")
film(folder, [(in_quarters, white)])

files = sorted(folder.glob("*/*.png"))  # such as counter/4/zebu 1a.png
class_names = sorted({file.parent.name for file in files})
labels = torch.tensor([class_names.index(file.parent.name) for file in files])  # (N,)
objects = [file.stem.rpartition(" ")[0] for file in files]  # "zebu 1a" shows the zebu
pictures = [Image.open(file).convert("RGB") for file in files]


def show(shown: list[Image.Image], titles: list[str]) -> None:
    framed = [ImageOps.expand(picture, 1, "grey") for picture in shown]
    display_figure(show_pictures(framed, titles, columns=8))


print(f"{len(files)} frames of {len(files) // 4} sheets, with {len(set(objects))} things")
some = [*range(-4, 0), *range(1, len(files), len(files) // 4)]
show([pictures[i] for i in some], [f"{class_names[labels[i]]}: {files[i].stem}" for i in some])
print(ATTRIBUTION["photographs"])

# %% [markdown]
# ## Nearly always right
#
# The simplest classifier needs no training. Encode every frame with a frozen model, here the image tower of our tiny
# CLIP; set a quarter of the frames apart; give each of these the class of the training frame whose vector is nearest.

# %%
from serial_lora_course.models.clip import load_clip

clip = load_clip("tiny")
vision = clip.model.visual.eval()  # pictures (B, 3, H, W) -> vectors (B, d)
transform = clip.test_transform


def prepared(pages: list[Image.Image]) -> Tensor:
    return torch.stack([transform(page) for page in pages])  # (N, 3, H, W)


@torch.no_grad()
def encode(inputs: Tensor) -> Tensor:
    """The vector of every picture, each of the same length: (N, d)."""
    vectors = torch.cat([vision(some) for some in inputs.split(128)])
    return F.layer_norm(vectors, vectors.shape[1:])


def nearest(train: list[int], test: list[int]) -> Tensor:
    """For each test frame the position of the training frame nearest to it."""
    return torch.tensor(train)[torch.cdist(features[test], features[train]).argmin(-1)]


inputs = prepared(pictures)
features = encode(inputs)
shuffled = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
careless = shuffled[len(files) // 4 :], shuffled[: len(files) // 4]  # to train, and to test
found = nearest(*careless)
print(f"right: {(labels[found] == labels[careless[1]]).float().mean():.1%}")
pairs = [*careless[1][:8], *found[:8].tolist()]
show([pictures[i] for i in pairs], [files[i].stem for i in pairs])

# %% [markdown]
# Above are eight test frames, and below each the training frame that decided its class. Every time it is the same sheet.
# The classifier never had to count: it only had to recognise a sheet from its training set. This is a **leak**. Frames
# of one video, crops of one slide, photographs of one dog leak in the same way when they are split one by one, and
# nothing in a training log tells you. The remedy is to split *objects*: all frames of a thing go to the same side.

# %% [markdown]
# ### Exercise 12.1 · Split by object
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# From each class, hold out `round(share * number of its objects)` objects for testing. Hold out at least one, and
# leave at least one to train (every class has two objects or more, and an object belongs to one class). Which objects,
# only the seed decides: another one holds out others, and the order in which the files happen to be listed changes
# nothing. Return positions in the list.


# %% tags=["exercise"]
def split_by_object(
    objects: list[str], labels: list[int], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Positions of the training pictures and of the test pictures.

    Args:
        objects: (N,) the name of the object that each picture shows; one object has several.
        labels: (N,) the class of each picture.
        share: of the objects of each class that are held out for testing.
        seed: of the choice.

    Returns:
        Two lists that hold every position from 0 to N - 1 once: to train, and to test.
    """
    # BEGIN SOLUTION
    import random

    held_out = set()
    for label in sorted(set(labels)):
        own = sorted({name for name, of in zip(objects, labels, strict=True) if of == label})
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        held_out.update(random.Random(seed).sample(own, count))
    train = [i for i, name in enumerate(objects) if name not in held_out]
    test = [i for i, name in enumerate(objects) if name in held_out]
    return train, test
    # END SOLUTION


check("12.1", split_by_object)

# %% [markdown]
# <details><summary>Hint 1: choose objects, not pictures</summary>
#
# For each class make the *set* of its objects, sort it (a set has no order), and choose among these
# names. A generator of its own, `random.Random(seed)`, makes the same choice every time.
#
# </details>
# <details><summary>Hint 2: then pictures follow their objects</summary>
#
# Collect the chosen names in a set `held_out`. A picture is a test picture if its object is in it.
# `enumerate(objects)` gives the positions. For a class with n objects, hold out `min(max(round(share * n), 1), n -
# 1)`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/12_your_own.ipynb)

# %% [markdown]
# Now both splits, three draws of each, for the nearest frame and for a **linear probe**: one linear layer from the
# frozen features to the classes. It is what you get without an adapter.


# %%
def linear_probe(features: Tensor, labels: Tensor, seed: int = 0) -> nn.Linear:
    """A layer from features to classes, which learnt from these frames."""
    torch.manual_seed(seed)
    probe = nn.Linear(features.shape[1], len(class_names))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(400):
        loss = F.cross_entropy(probe(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return probe


rows, split_things = {}, yours("12.1")
for draw in range(3):
    mixed = torch.randperm(len(files), generator=torch.Generator().manual_seed(draw)).tolist()
    by_frame = mixed[len(files) // 4 :], mixed[: len(files) // 4]
    by_thing = split_things(objects, labels.tolist(), 0.25, draw)
    for split, (train, test) in {"by frame": by_frame, "by thing": by_thing}.items():
        probe = linear_probe(features[train], labels[train])
        said = {
            "nearest frame": labels[nearest(train, test)],
            "probe": probe(features[test]).argmax(-1),
        }
        for way, each in said.items():
            rows[way, f"split {split}, draw {draw}"] = 100 * (each == labels[test]).double().mean()
display(pd.Series(rows).astype(float).round(1).unstack(0))

# %% [markdown]
# Split by frame, the nearest frame is ahead on every draw, with 97.8% to 99.4%. Split by thing it has 72.6% to 79.3%,
# and the probe is ahead on these three draws, by a few points. **The leak rewards memory**: Ada would have chosen
# between the two by a number that says nothing about counting.
#
# ## An adapter, merged and verified
#
# A probe can only read what the features hold. An adapter changes the features; ours is Serial LoRA, one pair of small
# matrices before q, k and v. After training it is merged into the weights, so that you ship an ordinary model.

# %% [markdown]
# ### Exercise 12.2 · From a folder to a merged model
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●● | 25 |
#
# Now put it all together, in one function that you can keep:
#
# 1. split by object, with a share of 0.25 to test and this seed;
# 2. put Serial LoRA into a *copy* of the model, and a LayerNorm and a linear head behind it;
# 3. train the pairs and the head, on the training pictures alone, in batches of at most 32 that you draw at random:
#    AdamW, cross-entropy, `steps` steps;
# 4. merge, so that no adapter and no hook is left;
# 5. verify the merge with the model's outputs for the test pictures, and a tolerance of `1e-4`: the merged outputs
#    have to be the adapted ones, *and* the adapter must have an effect.
#
# `yours("12.1")` is your split, or the solved one. `merge_is_verified` is given.


# %% tags=["exercise"]
from serial_lora import SerialLoRAConfig, eject, inject


def merge_is_verified(base: Tensor, adapted: Tensor, merged: Tensor, tolerance: float) -> bool:
    """Whether merged equals adapted up to rounding, and adapted differs from base by more."""
    allowed = tolerance * adapted.abs().max()
    same = (merged - adapted).abs().max() <= allowed
    effect = (adapted - base).abs().max() > allowed
    return bool(same and effect)


def folder_to_model(
    vision: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    objects: list[str],
    steps: int,
    rank: int = 8,
    lr: float = 2e-3,
    seed: int = 0,
) -> tuple[nn.Sequential, list[int], bool]:
    """Split, adapt, merge, verify.

    Args:
        vision: pictures (B, 3, H, W) -> vectors (B, d); it stays as it is.
        pictures: (N, 3, H, W).
        labels: (N,) from 0 to C - 1.
        objects: (N,) what each picture shows.
        seed: of the split.

    Returns:
        The classifier `nn.Sequential(merged vision, nn.LayerNorm, nn.Linear)`, pictures to scores (B, C);
        the positions of the test pictures; and whether the merge is verified.
    """
    # BEGIN SOLUTION
    train, test = yours("12.1")(objects, labels.tolist(), 0.25, seed)
    adapted = inject(copy.deepcopy(vision), SerialLoRAConfig(rank=rank))
    width = vision(pictures[:1]).shape[1]
    head = nn.Linear(width, int(labels.max()) + 1)
    model = nn.Sequential(adapted, nn.LayerNorm(width, elementwise_affine=False), head)

    learning = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr)
    for _ in range(steps):
        batch = torch.tensor(train)[torch.randperm(len(train))[:32]]
        loss = F.cross_entropy(model(pictures[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        before, trained = vision(pictures[test]), adapted(pictures[test])
        eject(adapted, keep_merged=True)
        verified = merge_is_verified(before, trained, adapted(pictures[test]), 1e-4)
    return model, test, verified
    # END SOLUTION


check("12.2", folder_to_model)

# %% [markdown]
# <details><summary>Hint 1: what learns, and what you need from the package</summary>
#
# `inject(copy.deepcopy(vision), SerialLoRAConfig(rank=rank))` freezes the copy and returns it with its pairs. Put it
# into `nn.Sequential(...)` with `nn.LayerNorm(width, elementwise_affine=False)` and `nn.Linear(width, classes)`: then
# only the pairs and the head require gradients. The width is `vision(pictures[:1]).shape[1]`. `eject(model,
# keep_merged=True)` merges the pairs into the weights and removes them.
#
# </details>
# <details><summary>Hint 2: the loop, and the order at the end</summary>
#
# Take the probe's loop, with two changes: a batch `torch.tensor(train)[torch.randperm(len(train))[:32]]`, and
# pictures in place of features, since the features change now. At the end take the base's and the adapted outputs
# *before* you merge, and the merged ones after it, all under `torch.no_grad()`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/12_your_own.ipynb)

# %% [markdown]
# ## What her sister will lay there
#
# Make pictures as a user will have them, before you ship. For each draw, new sheets show things of its held-out part,
# in the folder's sizes, tilts and lights; sheet for sheet the same things in all four tests. *Mixed* shows different
# things together, in quarters; *anywhere* lets go of the quarters; *on wood* has the same boxes on wood. In *touching*,
# on white, things really meet, and only sheets with two to four things count.


# %%
from serial_lora_course.lessons.l12_your_own.counter import placed


def anywhere(things: list, chance: random.Random) -> list:
    """Boxes at any place that do not overlap."""
    boxes = []
    while len(boxes) < len(things):
        side = chance.randint(28, 40)
        left, top = chance.randint(0, 112 - side), chance.randint(0, 112 - side)
        gaps = (
            max(left - x - w, x - left - side, top - y - w, y - top - side) for x, y, w in boxes
        )
        if all(gap >= 0 for gap in gaps):
            boxes.append((left, top, side))
    return boxes


def touching(things: list, chance: random.Random) -> list:
    """Each thing meets one of those before it, and at most 20 of its pixels lie over them."""
    boxes, taken = [], np.zeros((112, 112), bool)
    while len(boxes) < len(things):
        side = chance.randint(28, 40)
        box = chance.randint(0, 112 - side), chance.randint(0, 112 - side), side
        new = placed(things[len(boxes)], box)
        meets = (new & ndimage.binary_dilation(taken)).any()
        if not boxes or (meets and (new & taken).sum() <= 20):
            boxes.append(box)
            taken |= new
    return boxes


# %%
photos = photographs()
truth = torch.arange(120) % 4 + 1
TESTS = {
    "mixed": (in_quarters, white),
    "anywhere": (anywhere, white),
    "on wood": (anywhere, wood),
    "touching": (touching, white),
}
counts = {name: truth > (name == "touching") for name in TESTS}  # one thing touches nothing


def users_sheets(names: list[str], draw: int, layout, ground) -> list[Image.Image]:
    pages = []
    for i, number in enumerate(truth.tolist()):
        chance = random.Random(f"{draw} {i}")  # the same things in every test
        shown = [photos[f"{name} 1"] for name in chance.sample(names, number)]
        pages.append(frame(shown, layout(shown, chance), ground(chance), "abcd"[i // 4 % 4]))
    return pages


draws = []
for draw in range(3):
    _, test = split_things(objects, labels.tolist(), 0.25, draw)
    new = sorted({objects[i] for i in test})
    sheets = {name: users_sheets(new, draw, *way) for name, way in TESTS.items()}
    draws.append(
        {n: (pages, prepared(pages), encode(prepared(pages))) for n, pages in sheets.items()}
    )
seen = [(name, i) for name in TESTS for i in range(8)]
show([draws[0][name][0][i] for name, i in seen], [f"{name}: {truth[i]}" for name, i in seen])

# %% [markdown]
# Guess before you go on: which way will be best on wood, which on touching things?

# %%
BAR = 75  # good enough, in per cent
best_on_wood = "adapter"  # your guess: of the best way on wood
best_touching = "adapter"  # your guess: of the best way on touching things

# %% [markdown]
# Without learning, you mark all that differs from the ground, and count the connected parts. On white the ground is
# the page's median colour. Wood has many colours. That is no reason for a network yet: look at the wood first.

# %% [markdown]
# ### Exercise 12.3 · The ground of a page
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 10 |
#
# What do you see in the row of wood that a few lines could use? Write a function that tells, from a page alone, the
# colour of its ground at every place: on white, and on wood whose grain lies or stands. Things cover less than half of
# each line along the grain. On white a thing may be wider or taller than half of the page, and where several grounds
# fit equally well, the plain one is right. The check lays things on grounds that it knows.


# %% tags=["exercise"]
def ground_of(image: np.ndarray) -> np.ndarray:
    """The colour of the ground at every place.

    Args:
        image: (H, W, 3), whole numbers.

    Returns:
        Numbers of (H, W, 3), or of a shape that broadcasts to it.
    """
    # BEGIN SOLUTION
    grounds = [np.median(image, axis=axis, keepdims=True) for axis in ((0, 1), 1, 0)]
    off = [np.median(np.abs(image - ground)) for ground in grounds]
    return grounds[int(np.argmin(off))]
    # END SOLUTION


check("12.3", ground_of)

# %% [markdown]
# <details><summary>Hint 1: what a stripe has in common</summary>
#
# Along the grain the wood keeps its colour. So the pixels of one line are many measurements of one number, and the
# things in that line are outliers. Which average do outliers not move?
#
# </details>
# <details><summary>Hint 2: which way the grain runs</summary>
#
# Make all three grounds: one colour, one a row, one a column. The right one agrees exactly with most pixels. Choose
# by a distance that a few large differences do not change.
#
# </details>
#
# Solution: [the solved lesson](../solutions/12_your_own.ipynb)

# %% [markdown]
# ## All ways, before and after
#
# Her sister's sheets show what each way lacks, and each can be mended. The lines get your ground. The three that use
# frames get more frames beside Ada's: each photograph is filmed once more, in turn anywhere, on wood, and touching.
# The adapter takes equally many steps both times, at a rate from earlier tries. For touching things there is an old
# trick, too: count the *thickest places*, where the distance to the ground is largest.


# %%
RANK, RATE, STEPS, LONGER = 8, 4e-3, 40, 80
build = yours("12.2")


def plain(image: np.ndarray) -> np.ndarray:
    return np.median(image, axis=(0, 1))


def marked(page: Image.Image, ground) -> np.ndarray:
    """What differs from the ground, thickened by a pixel: (112, 112)."""
    image = np.asarray(page).astype(int)
    return ndimage.binary_dilation(np.abs(image - ground(image)).max(-1) > 10, np.ones((3, 3)))


def parts(marks: np.ndarray) -> int:
    return ndimage.label(marks)[1]


def peaks(marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smoothed distance to the ground, and where it is highest within five pixels."""
    # 2.5 and 11 are the best of 25 pairs on touching sheets of training things
    far = ndimage.gaussian_filter(ndimage.distance_transform_edt(marks), 2.5)
    return far, (far == ndimage.maximum_filter(far, 11)) & (far > 1)


def thickest(marks: np.ndarray) -> int:
    return ndimage.label(peaks(marks)[1])[1]


# %%
@torch.no_grad()
def run(draw: int, inputs, features, labels, objects, ground) -> dict:
    """Train all that learns; for each test and way, its answers to the sheets."""
    torch.manual_seed(draw)
    with torch.enable_grad():
        adapter, test, verified = build(vision, inputs, labels, objects, STEPS, RANK, RATE, draw)
        rest = sorted(set(range(len(labels))) - set(test))
        probe = linear_probe(features[rest], labels[rest], draw)
    print(f"draw {draw}: the merge is verified: {verified}")
    found = {}
    for name, (pages, shown, vectors) in draws[draw].items():
        sheets = [marked(page, ground) for page in pages]
        found[name] = {
            "connected parts": torch.tensor([*map(parts, sheets)]),
            "thickest places": torch.tensor([*map(thickest, sheets)]),
            "nearest frame": labels[rest][torch.cdist(vectors, features[rest]).argmin(-1)] + 1,
            "linear probe": probe(vectors).argmax(-1) + 1,
            "adapter": adapter(shown).argmax(-1) + 1,
        }
    return found


before = [run(draw, inputs, features, labels, objects, plain) for draw in range(3)]

more = Path(scratch.name, "more")
film(more, [(anywhere, white), (anywhere, wood), (touching, white)])
again = [Image.open(more / file.parent.name / file.name).convert("RGB") for file in files]
wider = torch.cat([inputs, prepared(again)])  # the same names in the same order, twice
known = torch.cat([features, encode(wider[len(files) :])])
lines = yours("12.3")
mended = wider, known, labels.repeat(2), objects * 2, lines
after = [run(draw, *mended) for draw in range(3)]
torch.manual_seed(0)
adapter, *_ = build(vision, wider, *mended[2:4], LONGER, RANK, RATE, 0)
with torch.no_grad():
    sheets = {name: shown for name, (_, shown, _) in draws[0].items()}
    longer = {name: {"adapter": adapter(shown).argmax(-1) + 1} for name, shown in sheets.items()}


# %%
def right(answers: dict) -> dict:
    """Of each test and way, on which of the sheets that count it is right."""
    return {
        name: {way: (said == truth)[counts[name]] for way, said in ways.items()}
        for name, ways in answers.items()
    }


def table(answers: dict) -> pd.DataFrame:
    return pd.DataFrame(right(answers)).map(lambda each: 100 * each.double().mean().item())


display_figure(plot_counts([table(a) for a in before], [table(a) for a in after], BAR))
budgets = {f"{STEPS} steps": after[0], f"{LONGER} steps": longer}
print("adapter, draw 0, mended:")
display(pd.DataFrame({n: table(a).loc["adapter"] for n, a in budgets.items()}).round().T)
print("your guesses:", best_on_wood, "on wood,", best_touching, "on touching things")

# %%
said = after[0]["touching"]["thickest places"]
counted, missed = (truth == 4) & (said == 4), (truth == 4) & (said != 4)
examples = [("on wood", 2), ("on wood", 3)]
examples += [("touching", int(each.nonzero()[0])) for each in (counted, missed)]
views, titles = [], []
for name, i in examples:
    page = draws[0][name][0][i]
    one, own = (marked(page, ground) for ground in (plain, lines))
    masks = [Image.fromarray(np.uint8(255 * marks)) for marks in (one, own)]
    views += [page, *masks, heights(*peaks(own))]
    titles += [f"{truth[i]} things; adapter: {after[0][name]['adapter'][i]}"]
    titles += [f"one colour: {parts(one)}", f"your ground: {parts(own)}"]
    titles += [f"thickest places: {thickest(own)}"]
show(views, titles)

# %% [markdown]
# Full dots are before mending, hollow ones after it. In the pictures, white is marked, and red dots are thickest places.
#
# On white, where nothing touches, connected parts are above the bar on every draw, also anywhere. On wood they fail as
# long as one colour is the ground: whole stripes are marked, and join things. With your ground they are above the bar.
# **Wood needed a look at the wood, and no network.**
#
# New frames lift the adapter on wood on every draw, with as many steps as before. Without them even the probe was, on
# average, ahead of it there. In none of the four tests is it the best way, on any draw.
#
# What touches is nearly always one part, so connected parts fail there, and no way reaches the bar. The thickest
# places are right on the first of the touching sheets partly by luck: one animal has two places, the spade none. On
# the second, two thin things vanish beside the thick ones.
#
# On touching things, twice the steps lift the adapter's worst draw from 20% to 41%: there its steps were too few. That
# is still below every draw of the thickest places.

# %% [markdown]
# On touching things, the worst draw of the thickest places is near the adapter's best. Both answered the *same* sheets,
# and a hard sheet is hard for both. So compare sheet by sheet, with your `lead` of
# [lesson 04](04_clip_few_shot.ipynb). Should a camera for touching things be shipped?

# %%
gaps, lead = {}, yours("4.5")
for name, mine, other in (
    ("on wood", "connected parts", "adapter"),
    ("touching", "thickest places", "adapter"),
    ("touching", "adapter", "linear probe"),
):
    pairs = [(each[name][mine], each[name][other]) for each in map(right, after)]
    found = [100 * torch.tensor(lead(*pair)) / len(pair[0]) for pair in pairs]  # in points
    gaps[f"{name}: {mine} - {other}"] = ["{:+.0f} ± {:.0f}".format(*each) for each in found]
display(pd.DataFrame(gaps, index=[f"draw {draw}" for draw in range(3)]).T)

ways, sums = ("connected parts", "thickest places", "adapter"), {}
for n in (2, 3, 4):
    sheets = {way: torch.cat([a["touching"][way][truth == n] for a in after]) for way in ways}
    sums[f"{n} things"] = {way: int((each == n).sum()) for way, each in sheets.items()}
print("right on touching, of 90 sheets each:")
display(pd.DataFrame(sums))

# %% [markdown]
# On wood the lines are ahead of the adapter by 33 to 45 points, far more than the interval. On touching things the
# thickest places are ahead by 14 to 26 points, and on no draw does the interval reach zero. On no draw is the
# adapter clearly ahead of the linear probe there. The bar decides in any case, and all are below it: don't ship.
#
# The last table says where the adapter loses. With two things it is right on 54 sheets, the thickest places on 56; with
# four it has 7, and they have 42. More steps help it, as above. Its frames show one thing several times, never different
# ones together; whether that holds it back, we did not try.
#
# **The answer: a few lines, on white and on wood, once somebody has looked at the ground. For touching things no way
# here is good enough.** There her sister asks for things to be laid apart. But the wood is drawn, with a cleaner grain
# than a real board has, and everything was mended for these very tests. A test on new boards comes next.
#
# ## On a model that you have heard of
#
# Your function also takes another tower, here DINO, a vision transformer that learnt from pictures without labels. With
# `pretrained=True` timm fetches its weights, where there is a network. Here they are random, and one step shows what it
# costs. What it scores, only the real weights can show.

# %%
import time

import timm

dino = timm.create_model("vit_small_patch16_224.dino", pretrained=False, img_size=112).eval()
setting = timm.data.resolve_data_config({"img_size": 112, "crop_pct": 1}, model=dino)
prepare = timm.data.create_transform(**setting)
some = [*range(0, len(files), 12)]
large = torch.stack([prepare(pictures[i]) for i in some])
started = time.process_time()
_, _, verified = build(dino, large, labels[some], [objects[i] for i in some], 1, RANK, RATE)
step = time.process_time() - started  # with the copy, the merge and the test in it
print(f"{sum(p.numel() for p in dino.parameters()) * 4 / 1e6:.0f} MB; verified: {verified}")
print(
    f"{step:.1f} s a step: {10 * STEPS * step / 60:.0f} minutes of processor time for {10 * STEPS} steps"
)

# %% [markdown]
# ## Quiz
#
# **1. Your model is right on 97 % of the test pictures, and on 60 % in use. The pictures were frames of videos, split
# at random. What happened?**
#
# <details><summary>Answer</summary>
#
# Probably a leak. Neighbouring frames are nearly the same picture, and they lie on both sides of the split. So the
# test measured memory. Split by video, and compare again. If a gap is left, use shows what the folder lacks.
#
# </details>
#
# **2. A colleague verifies a merge by one question: are the merged outputs the adapted ones? Which useless model passes?**
#
# <details><summary>Answer</summary>
#
# One that learnt nothing. With B at zero the base, the adapted and the merged model are equal, so the question is
# answered by yes. `merge_is_verified` asks for an effect too.
#
# </details>
#
# **3. Many sheets show the same few things in many combinations. What does the interval of one draw not tell you?**
#
# <details><summary>Answer</summary>
#
# What other things would give. It speaks of other sheets with these things. That is what the three
# draws are for: each holds out other things. As in [lesson 08](08_how_sure.ipynb), ask what one measurement is.
#
# </details>

# %% [markdown]
# ## What to remember
#
# - Split by object. A leak looks like success.
# - Before you ship, make pictures as a user will have them, and look at them before you train.
# - Run the cheap ways on the same pictures, mend them too, and say what each of them got. An adapter that does not beat
#   them all stays at home.
# - Compare pair by pair, on several draws, against a bar that you set beforehand.
#
# Now do it with pictures of your own. And if it does not learn: [lesson 13](13_not_learning.ipynb).
