# %% [markdown]
# # 12 · Your own model and pictures
#
# **What you will be able to do**
#
# - look through a folder of your own pictures, and know what is done about each one that is unusual;
# - split it so that no object is in both training and test, and see what a leak does to an accuracy;
# - go from folder to adapter file to merged model in one page, with open_clip, timm or transformers;
# - prove that a merge is right, and give your adapter to people who use PEFT or diffusers;
# - teach the package a vision transformer that it has never seen, and prove that you did it right.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy
from pathlib import Path

import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn

from serial_lora import SerialLoRAConfig, SerialLoRAError, eject, inject, merge
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

lesson_card("12")

# %% [markdown]
# The parts of the recipe: a folder of pictures, a classifier around any vision model, and how it is
# trained, measured, saved and loaded. And the default settings of this page.

# %%
from serial_lora_course.data.example_folder import write_example_folder
from serial_lora_course.data.folder import class_sizes, examine_folder, load_folder
from serial_lora_course.labs.own import (
    ClassifyConfig,
    PictureClassifier,
    accuracy_on,
    encode,
    fit,
    load_classifier,
    save_classifier,
)

print(ClassifyConfig())

# %% [markdown]
# Two small helpers: every folder that this lesson writes lies in a temporary one, deleted when the notebook is
# closed; and `told` gives the sentence in which the package refuses something.

# %%
import re
import tempfile

from serial_lora_course.lessons.l03_build.probes import trained_copy
from serial_lora_course.models.clip import load_clip

scratch = tempfile.TemporaryDirectory()


def new_folder(name: str) -> Path:
    """A path that is not there yet, inside this lesson's temporary folder."""
    return Path(tempfile.mkdtemp(dir=scratch.name), name)


# %%
def told(action, *arguments, **options) -> str:
    """The sentence of the error that an action ends in, without the folder names of this machine."""
    try:
        action(*arguments, **options)
    except SerialLoRAError as error:
        return re.sub(rf"{re.escape(scratch.name)}[/\\][^/\\]+[/\\]", "", str(error))
    return "no complaint: it works."


# %% [markdown]
# ## A folder as it comes
#
# The form that most people have, and that this package reads, is *one folder per class*:
#
# ```
# my_pictures/animal/bear.jpg
# my_pictures/animal/owl.png
# my_pictures/vehicle/bus.jpg
# ```
#
# Yours may lie anywhere. Here we write one, with drawings from OpenMoji that the tiny CLIP never saw in
# pretraining, and put in what real folders have: odd files, copies, damage. `examine_folder` opens every file
# and says what is unusual. Use it first: it takes a second.

# %%
folder = write_example_folder(new_folder("my_pictures"), flawed=True)
facts = examine_folder(folder)  # one row a file
display_table(class_sizes(facts).reset_index(names="class"))
noted = facts[facts["remark"] != ""]
display_table(noted[["file", "mode", "remark"]])
print(f"{len(noted)} of {len(facts)} files have a remark")

# %% [markdown]
# There are two kinds. Some say what *will be done*: a grey picture becomes three
# equal channels, transparency is laid on white, a palette is looked up, a picture that lies on its side is
# turned upright. The others say what *you* must do: a picture that cannot be read, a class that is too small, a
# picture that is there twice. Here are the ones that are handled, as the model will see them.

# %%
from serial_lora_course.lessons.l12_your_own.figures import show_handled

display_figure(show_handled(folder, facts))
print("Drawings: OpenMoji, openmoji.org, CC BY-SA 4.0")

# %% [markdown]
# **Change this and run again**: put a few pictures of your own into one of the class folders (`print(folder)`
# says where they are), and examine it once more. What is said of them?
#
# ## From a folder to data
#
# `load_folder` makes a data set of it: class names from folder names, a training and a test part, the
# same division on every machine. What cannot be used it refuses, *before* anything runs, in one
# sentence that says what to do. The next cells call it three times and repair the folder in between.

# %%
import shutil

folder = write_example_folder(new_folder("my_pictures"), flawed=True)
print("1.", told(load_folder, folder), "\n")
shutil.rmtree(folder / "landscape")  # or: add pictures to it
print("2.", told(load_folder, folder), "\n")

# %%
facts = examine_folder(folder)
damaged = facts["remark"].str.startswith("cannot be read")
copies = facts["remark"].str.contains("the same picture as")
for name in facts.loc[damaged | copies, "file"]:
    (folder / name).unlink()

print("3.", told(load_folder, folder), "\n")
data = load_folder(folder)
print(f"{len(data.train)} to train, {len(data.test)} to test:", ", ".join(data.class_names))
print("The split:", data.split)

# %% [markdown]
# A class with one picture cannot both train and test, so it is refused. Damaged files are
# named before anything runs. Note what would *not* have been refused: the copy under another name. The split may
# put it on one side and its twin on the other. That is a *leak*, and the next section is about the most common
# kind.
#
# **Change this and run again**: `load_folder(folder, test_fraction=0.5)`, or `seed=2`. What stays the same
# when you call it twice?
#
# ## A split without a leak
#
# Real collections rarely hold independent pictures. There are five photos of the same dog, frames of
# one video, four crops of one slide. Split *by picture*, and the test set is full of objects that the
# model has met. So split *by object*: all pictures of an object go to the same side.

# %% [markdown]
# ### Exercise 12.1 · Split by object
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 15 |
#
# Of each class, hold out `round(share * objects)` objects for testing, but at least one, and leave at
# least one to train (every class has two objects or more, and an object belongs to one class). Any
# choice of objects will do, as long as it does not depend on the order in which the files happen to be
# listed. Return positions in the list.


# %% tags=["exercise"]
def split_by_object(
    objects: list[str], labels: list[int], share: float
) -> tuple[list[int], list[int]]:
    """Positions of the training pictures and of the test pictures.

    Args:
        objects: (N,) the name of the object that each picture shows; one object has several.
        labels: (N,) the class of each picture.
        share: of the objects of each class that are held out for testing.

    Returns:
        Two lists that hold every position from 0 to N - 1 once: to train, and to test.
    """
    # BEGIN SOLUTION
    import random

    held_out = set()
    for label in sorted(set(labels)):
        own = sorted({name for name, of in zip(objects, labels, strict=True) if of == label})
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        held_out.update(random.Random(0).sample(own, count))
    train = [i for i, name in enumerate(objects) if name not in held_out]
    test = [i for i, name in enumerate(objects) if name in held_out]
    return train, test
    # END SOLUTION


check("12.1", split_by_object)

# %% [markdown]
# <details><summary>Hint 1: choose objects, not pictures</summary>
#
# For each class make the *set* of its objects, sort it (a set has no order), and choose among these
# names. A generator with a fixed seed, such as `random.Random(0)`, makes the same choice every time.
#
# </details>
# <details><summary>Hint 2: then pictures follow their objects</summary>
#
# With a set `held_out` of names, a picture tests if its object is in it. `enumerate(objects)` gives
# the positions. The count of a class is `min(max(round(share * n), 1), n - 1)`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/12_your_own.ipynb)

# %% [markdown]
# What does a leak cost? We take each drawing four times, turned by a few degrees, as if a camera had
# been held in four ways. The classifier is the simplest there is: the class of the nearest training
# picture, in the features of the tiny CLIP. Nothing is trained.

# %%
from serial_lora_course.lessons.l12_your_own.photographed import Photographed

data = load_folder(write_example_folder(new_folder("my_pictures")))
classifier = PictureClassifier(load_clip("tiny").model, data.class_names)
shots = Photographed(data.train, angles=(-9, -3, 3, 9))
features, _, labels = (each.numpy() for each in encode(classifier, shots))  # (N, d), _, (N,)
print(f"{len(data.train)} drawings, {len(shots)} pictures of them")

# %% [markdown]
# Your function splits them twice: once by object, and once as if each picture showed an object of its own.
# Which accuracy would you report, and which would your users meet?

# %%
from sklearn.neighbors import KNeighborsClassifier

split = yours("12.1")
reached = {}
for way, objects in (("picture", shots.picture_ids), ("object", shots.objects)):
    train, test = map(list, split(objects, shots.labels, share=0.25))
    neighbour = KNeighborsClassifier(1).fit(features[train], labels[train])
    reached[way] = neighbour.score(features[test], labels[test])
for way, right in reached.items():
    print(f"split by {way}: {right:.1%} of the answers are right")

# %% [markdown]
# **What this shows.** Every single answer right, and 41 points of it were memory: the same object was
# in both halves. Split by object, and the truth is 59.5%.
#
# Only the split differs. Split by picture, the nearest picture mostly shows the same drawing. The first number
# is wrong about every *new* object, and no number in your training log will tell you. When your pictures come in
# groups, make two folders named `train` and `test` with the class folders inside: `load_folder` keeps that
# division.
#
# **Change this and run again**: `angles=(0,)` gives each drawing once, and `angles=(-45, -15, 15, 45)` turns it
# far. How large is the leak then?
#
# ## The page
#
# This is the whole way from folder to adapter file, on one page. A vision model gives one vector a picture; a
# linear *head* turns it into one score a class; Serial LoRA adapts the model, and both are trained together.
# The model has its real, pretrained weights here.

# %%
data = load_folder(write_example_folder(new_folder("my_pictures")))
model = load_clip("tiny").model  # the model line: the only one that changes with the model

config = ClassifyConfig()  # rank, rate, rounds: see print(config)
classifier = PictureClassifier(model, data.class_names)
torch.manual_seed(1)
inject(classifier.model, config.adapter())
history = fit(classifier, data.train, config, seed=1, progress=False)
saved = save_classifier(classifier, new_folder("my_classifier"))

# %%
files = {file.stem: file.stat().st_size for file in saved.iterdir()}
right = accuracy_on(classifier, data.test)
print(f"loss over {len(history.losses)} steps: {history.losses[0]:.2f} to {history.losses[-1]:.2f}")
print(f"right: {right:.1%} of {len(data.test)} test pictures")
print("bytes:", files)

# %% [markdown]
# **What this shows.** Seventy-five steps, and the classifier is right on half of the test pictures. What you would send somebody is less than 90 kB.
#
# The two files hold the pairs, and the head with the class names. At home the first line is
# `load_folder("my_pictures")`, and the last one saves into a folder of your own.
#
# Was the adapter worth it? Ask for the number *without* it: the same features, frozen, with a head alone. That
# is called a *linear probe*. `linear_probe` chooses its one setting on validation pictures, a fifth of the
# training pictures, and the adapter gets the other four fifths, as the probe does. Three different splits of
# the folder show how much the choice of pictures matters.

# %%
from serial_lora_course.work.folder import divide, linear_probe

pictures = write_example_folder(new_folder("my_pictures"))


def both_ways(seed: int) -> dict[str, float]:
    """Test accuracy on one split of the folder, without an adapter and with one."""
    data = load_folder(pictures, seed=seed)
    classifier = PictureClassifier(load_clip("tiny").model, data.class_names)
    parts = divide(data.train, 0.2) | {"test": data.test}
    probe = linear_probe(classifier, parts)
    torch.manual_seed(seed)
    inject(classifier.model, config.adapter())
    fit(classifier, parts["train"], config, seed=seed, progress=False)
    return {"linear probe": probe, "Serial LoRA": accuracy_on(classifier, data.test)}


# %%
from serial_lora_course.measures.intervals import half_width

results = pd.DataFrame({seed: both_ways(seed) for seed in (1, 2, 3)}).T.rename_axis("split")
display(results.map("{:.1%}".format))
gain = 100 * (results["Serial LoRA"] - results["linear probe"])
half = half_width(gain.sem(), len(gain) - 1)
print(f"gain: {gain.mean():+.1f} ± {half:.1f} points; one picture is {100 / len(data.test):.1f}")

# %% [markdown]
# **What this shows.** The adapter is ahead on two of three splits, by three points on average, and
# the interval contains zero: no lead over a linear probe is shown. With so few pictures, that is the
# usual answer.
#
# Always run the probe. It takes seconds, it is a strong baseline on small data sets, and where it wins you
# need no adapter. One thing is unfair here: the probe's setting was chosen for these pictures, and the
# adapter's rank, rate and number of steps were not.
#
# **Change this and run again**: `config = ClassifyConfig(rank=1)`, then both cells. Does a pair of
# rank 1 lose anything?
#
# ## The whole recipe
#
# `fit_folder` is the page with validation. A share of the *training* pictures is kept apart: after each round
# they say whether the state is the best so far, and when to stop. An interrupted training continues, a
# finished one is not run again, and the linear probe is included. The test pictures are looked at once.
# Expect a validation loss that falls and then rises: the best state is the one that is saved.

# %%
from serial_lora_course.lessons.l12_your_own.figures import plot_validation
from serial_lora_course.work.folder import Job, fit_folder, open_classifier, predict

pictures = write_example_folder(new_folder("my_pictures"))
job = Job(str(pictures), model="tiny-clip", out=str(new_folder("my_classifier")))
rounds = {}
reached = fit_folder(job, progress=False, tell=rounds.__setitem__)
display_figure(plot_validation(rounds, reached.best_step))

# %%
print(
    f"kept: the state after {reached.best_step} of {reached.steps} steps; pictures: {reached.pictures}"
)
print(f"right on the test pictures: {reached.test:.1%}; linear probe {reached.probe:.1%};", end=" ")
print(f"always the largest class {reached.largest_class:.1%}")

# %% [markdown]
# **What this shows.** The state with the lowest validation loss was kept, not the last one. It had
# fewer pictures to learn from, since some were kept apart for validation, and reaches as much as
# before.
#
# The folder holds the adapter, the head, and `run.yaml`, which says how they were made. So it can be opened
# by its path, wherever the base model is:

# %%
classifier, run = open_classifier(job.out)
paths = sorted(pictures.glob("*/*.png"))[::40]
for path, row in zip(paths, predict(classifier, paths), strict=True):
    best = row.argmax()
    print(f"{path.parent.name}/{path.name}: {classifier.class_names[best]}, {row[best]:.0%}")

# %% [markdown]
# The same from a terminal, with any vision model of timm, open_clip or transformers:
#
# ```
# serial-lora fit my_pictures --model timm/vit_small_patch14_dinov2 --image-size 224 --out my_classifier
# serial-lora predict my_classifier photo.jpg more_photos --top 3
# serial-lora show my_classifier
# serial-lora merge my_classifier --out merged
# ```
#
# And where to start? The configuration's own defaults suit a few hundred pictures:

# %%
print(ClassifyConfig())

# %% [markdown]
# If the validation loss jumps about, halve the rate. If it still falls at the end, double the rounds
# (`epochs`). Change the rank last.
#
# **Change this and run again**: `Job(..., config=ClassifyConfig(rank=2, lr=1e-3))` in the cell above the
# picture. Where does the validation loss turn now?
#
# ## Merged, and proved
#
# After training, the adapter can go into the weights. Then there is no adapter any more, only a model
# of the old shape with new numbers, and it costs what the base costs. Does it answer as the adapted one did?

# %% [markdown]
# ### Exercise 12.2 · A proof that a merge is right
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# Three outputs for the same pictures: of the base, of the adapted model, of the merged one. Return
# True if the merged outputs equal the adapted ones up to rounding *and* the adapter has an effect
# that is more than rounding. Outputs may be large or tiny: what is allowed as rounding, for each
# number, is `tolerance` times the largest adapted output. A `nan` proves nothing.


# %% tags=["exercise"]
def merge_is_proved(base: Tensor, adapted: Tensor, merged: Tensor, tolerance: float) -> bool:
    """Whether merged equals adapted, and adapted differs from base.

    Args:
        base, adapted, merged: (B, d), outputs for the same pictures.
        tolerance: share of the largest adapted output that a difference may have.

    Returns:
        A plain bool.
    """
    # BEGIN SOLUTION
    allowed = tolerance * adapted.abs().max()
    same = (merged - adapted).abs().max() <= allowed
    effect = (adapted - base).abs().max() > allowed
    return bool(same and effect)
    # END SOLUTION


check("12.2", merge_is_proved)

# %% [markdown]
# <details><summary>Hint 1: two questions, one limit</summary>
#
# `allowed = tolerance * adapted.abs().max()`. The largest difference between merged and adapted must
# be within it, the largest between adapted and base above it.
#
# </details>
# <details><summary>Hint 2: signs, and nan</summary>
#
# Take `abs()` before `max()`. `nan <= allowed` is False, which is what you want: ask whether the
# difference *is within*, not whether it *is not above*. `bool(...)` makes a plain bool.
#
# </details>
#
# Solution: [the solved lesson](../solutions/12_your_own.ipynb)

# %% [markdown]
# Now with a real merge. `trained_copy` stands in for training, so that this section runs by itself: it
# fills each B with random numbers. The merged weights are saved as a plain file, and the *library's
# own* loader, which knows nothing of adapters, reads it back.

# %%
import safetensors.torch

base = load_clip("tiny").model
adapted = trained_copy(inject(load_clip("tiny").model, ClassifyConfig().adapter())).eval()
merged = eject(copy.deepcopy(adapted), keep_merged=True)  # merge, and forget the adapter

file = new_folder("merged.safetensors")
safetensors.torch.save_model(merged, str(file))
loaded = load_clip("tiny", weights=file).model

# %% [markdown]
# The proof, with your function. Expect it for the merged model and for the one that was loaded, and not for the
# base.

# %%
proves = yours("12.2")
models = {"base": base, "adapted": adapted, "merged": merged, "loaded": loaded}
pictures = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(0))  # (B, 3, H, W)
with torch.no_grad():
    said = {name: model.encode_image(pictures) for name, model in models.items()}  # (B, d) each
size, away = said["adapted"].abs().max(), {}
for name in ("base", "merged", "loaded"):
    away[name] = float((said[name] - said["adapted"]).abs().max() / size)
    proved = proves(said["base"], said["adapted"], said[name], tolerance=1e-4)
    print(
        f"{name:6} differs from adapted by {away[name]:.1e} of the largest output; proved: {proved}"
    )


# %% tags=["nbval-check-output"]
def shape_of(model: nn.Module) -> list[tuple]:
    """Every module's name, class and number of hooks, and every parameter's name and shape."""
    modules = [
        (name, type(m).__name__, len(m._forward_hooks) + len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]
    return modules + [(name, tuple(p.shape)) for name, p in model.named_parameters()]


print(
    "the merged model has the base's modules, hooks and shapes:", shape_of(merged) == shape_of(base)
)
print("and so has the one that was loaded:", shape_of(loaded) == shape_of(base))
print("the adapted one:", shape_of(adapted) == shape_of(base))

# %%
for name, share in away.items():
    print(f"{name}: {share:.0e} of the largest output away from the adapted model")

# %% [markdown]
# **What this shows.** The base is a tenth away: the adapter does something. The merged model is away
# by rounding.
#
# Those are both halves of the proof. The library's loader had to know nothing of Serial LoRA, and the
# same modules and shapes take the same time.
#
# **Change this and run again**: `tolerance=1e-8` in the proof. What does it say now, and why is the merge
# right all the same?
#
# ## Only the model line changes
#
# The page above runs with any vision model that the package knows. What differs between libraries is how the
# model is made; `PictureClassifier` looks up how large its pictures are, how they are normalised, and which of
# its outputs is *the* vector.
#
# The models below are small and have **random weights**, since nothing is downloaded here: their
# accuracies say that the lines run, and nothing about the libraries. At home you write
# `timm.create_model("vit_small_patch16_224", pretrained=True, num_classes=0)` or
# `Dinov2Model.from_pretrained("facebook/dinov2-small")`, and leave the rest as it is.

# %%
import timm
import transformers

small = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4)
small |= dict(image_size=48, patch_size=8)


def timm_model() -> nn.Module:
    sizes = dict(img_size=48, patch_size=8, embed_dim=64, depth=3, num_heads=4)
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **sizes)


# %%
def vit_model() -> nn.Module:
    config = transformers.ViTConfig(**small, intermediate_size=128)
    return transformers.ViTModel(config, add_pooling_layer=False)


def dinov2_model() -> nn.Module:
    return transformers.Dinov2Model(transformers.Dinov2Config(**small, mlp_ratio=2))


# %%
from serial_lora_course.lessons.l12_your_own.tables import models_table, proof_row

model_lines = {
    "open_clip, tiny CLIP": lambda: load_clip("tiny").model,
    "timm ViT": timm_model,
    "transformers ViT": vit_model,
    "transformers DINOv2": dinov2_model,
}
display_table(models_table(model_lines))

# %% [markdown]
# Four names for the same place: what q, k and v of a block read. The package finds it by the structure of the
# model. Now the page, in a loop: the same lines in short runs, and after each the proof.

# %%
data = load_folder(write_example_folder(new_folder("my_pictures")))
labels = data.test.labels
short, rows, done = ClassifyConfig(rank=4, epochs=4, min_steps=15), {}, {}
for name, model_line in model_lines.items():
    torch.manual_seed(0)
    first = model_line()
    classifier = PictureClassifier(copy.deepcopy(first), data.class_names)
    inject(classifier.model, short.adapter())
    fit(classifier, data.train, short, progress=False)
    saved = save_classifier(classifier, new_folder("my_classifier"))
    adapted = encode(classifier, data.test)[1]  # (N, C)
    from_files = encode(load_classifier(first, saved), data.test)[1]
    eject(classifier.model, keep_merged=True)
    merged = encode(classifier, data.test)[1]
    rows[name], done[name] = proof_row(adapted, from_files, merged, labels), (classifier, saved)

# %%
proofs_table = pd.DataFrame(rows).T
display(proofs_table)

# %% [markdown]
# **What this shows.** Four model families, and for each the adapter that was loaded from its files
# and the merged model answer as the trained one does, up to rounding.
#
# The merged DINOv2 now goes through `save_pretrained` and `from_pretrained` like any other model.

# %%
transformers.utils.logging.disable_progress_bar()
classifier, saved = done["transformers DINOv2"]
whole = new_folder("merged")
classifier.model.save_pretrained(whole)  # merged in the loop above
merged = encode(classifier, data.test)[1]
at_home = transformers.Dinov2Model.from_pretrained(whole)
again = load_classifier(at_home, saved, merged=True)  # of the two files, the head's alone
_, from_library, _ = encode(again, data.test)
print("files that transformers wrote:", ", ".join(sorted(file.name for file in whole.iterdir())))
print(f"read back by transformers, largest difference: {(from_library - merged).abs().max():.0e}")

# %% [markdown]
# For timm, save `model.state_dict()` and pass the file as `checkpoint_path`.
#
# **Change this and run again**: add a model line of your own, such as `"timm, wider": lambda:
# timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=0, img_size=64)`.
#
# ## To people who use PEFT or diffusers
#
# Sometimes the base must stay untouched and the adapter must go to somebody who has PEFT and does not
# know Serial LoRA. Can it become an ordinary LoRA? The change to one projection is
#
# $$W_p\,(I + s\,BA) - W_p = (s\,W_p B)\,A$$
#
# and that *is* an ordinary LoRA: A as it is, and a B of its own for each projection.

# %% [markdown]
# ### Exercise 12.3 · The exported pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# Return the two factors of the ordinary LoRA for one weight, the scale included (PEFT will multiply
# by 1). The weight may be q, k and v in one, with three times as many rows.


# %% tags=["exercise"]
def ordinary_pair(
    weight: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """A and B of a LoRA beside `weight` that does what Serial LoRA does in front of it.

    Args:
        weight: (out, d), as nn.Linear keeps it.
        lora_A, lora_B: (r, d) and (d, r), Serial LoRA's pair.
        scale: what its product is multiplied by.

    Returns:
        A (r, d) and B (out, r), with B A = W (I + scale * lora_B lora_A) - W.
    """
    # BEGIN SOLUTION
    return lora_A, scale * weight @ lora_B
    # END SOLUTION


check("12.3", ordinary_pair)

# %% [markdown]
# <details><summary>Hint 1: what acts last</summary>
#
# A token meets A first, then B, then W. An ordinary LoRA's B must lead straight to W's outputs, so W
# has to be multiplied into it.
#
# </details>
# <details><summary>Hint 2: shapes</summary>
#
# (out, d) times (d, r) is (out, r). The scale goes into one of the two factors, once.
#
# </details>
#
# Solution: [the solved lesson](../solutions/12_your_own.ipynb)

# %% [markdown]
# `to_peft` does this for every layer and writes the two files that `PeftModel.from_pretrained` reads.
# Then PEFT itself loads them onto a fresh base. Expect equal outputs up to rounding, and a larger file.

# %%
import peft

from serial_lora import save_adapter, to_peft

ours = trained_copy(inject(load_clip("tiny").model, SerialLoRAConfig(rank=8, towers=["image"])))
folder = new_folder("for_peft")
tensors = to_peft(ours, folder)
theirs = peft.PeftModel.from_pretrained(load_clip("tiny").model, folder).eval()

# %%
models = {"PEFT": theirs.get_base_model(), "the base": load_clip("tiny").model}
pictures = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    here = ours.encode_image(pictures)  # (B, d)
    there = {what: model.encode_image(pictures) for what, model in models.items()}
for what, outputs in there.items():
    away = (outputs - here).abs().max() / here.abs().max()
    print(f"{what:8} and ours differ by {away:.1e} of the largest output")

# %% [markdown]
# Is that the pair of exercise 12.3? Your function makes one for the first block, and the cell compares the
# products. Then the sizes.

# %%
from serial_lora import adapters

pair_for = yours("12.3")
block, pair = ours.visual.transformer.resblocks[0], next(iter(adapters(ours).values()))
A, B = pair_for(block.attn.in_proj_weight, pair.lora_A, pair.lora_B, pair.scale)  # q, k, v in one
layer = "base_model.model.visual.transformer.resblocks.0.attn"
exported = tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]  # (3 d, d)
print(f"largest difference of the products: {(B @ A - exported).abs().max():.1e}")

compact = save_adapter(ours, new_folder("adapter.safetensors")).stat().st_size
for_peft = (folder / "adapter_model.safetensors").stat().st_size
idle = [name for name, tensor in tensors.items() if not tensor.any()]
print(f"{len(idle)} of its {len(tensors)} tensors hold zeros only, such as {idle[0]}")

# %%
off = float((there["PEFT"] - here).abs().max() / here.abs().max())
print(f"PEFT's model is {off:.0e} of the largest output away from ours")
print(f"its file: {for_peft:,} bytes; the adapter file: {compact:,}")

# %% [markdown]
# **What this shows.** The same model, in a file nearly three times as large: PEFT needs a pair for q,
# for k and for v.
#
# So it is the same model, in a format that needs no package of ours. It costs size: what was one B is now W B
# for q, k and v. And PEFT's layer for `nn.MultiheadAttention` wants a pair for the output projection too, where
# Serial LoRA has none: those are the zeros. Keep the adapter file for yourself; export for others. Whoever
# trains the exported one further trains an ordinary LoRA: its three B can become different. For Stable
# Diffusion 3 the receiver is a diffusers pipeline: [lesson 06](06_sd3_style.ipynb) sends a trained style into
# one.
#
# **Change this and run again**: `SerialLoRAConfig(rank=8, scale=0.5, towers=["image"])`. PEFT is told nothing of
# our scale; where has it gone?
#
# ## A family that the package does not know
#
# Here is a vision transformer as anybody would write it, with names of its own for everything.


# %% tags=["idea"]
class NotebookBlock(nn.Module):
    """Norm, attention, add; norm, MLP, add."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.calm, self.calm_again = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.offer, self.carry, self.gather = (nn.Linear(width, width) for _ in range(4))
        hidden = 2 * width
        self.think = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.calm(x)  # (B, N, d)
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.ask, self.offer, self.carry)
        )  # (B, heads, N, d / heads)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.gather(mixed.flatten(2))
        return x + self.think(self.calm_again(x))


# %%
class NotebookViT(nn.Module):
    """Pictures (B, 3, 48, 48) -> one vector each, (B, d)."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 3):
        super().__init__()
        self.cut = nn.Conv2d(3, width, 8, 8)
        self.place = nn.Parameter(0.02 * torch.randn(36, width))
        self.floors = nn.Sequential(*(NotebookBlock(width, heads) for _ in range(depth)))

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.cut(pictures).flatten(2).transpose(1, 2) + self.place  # (B, N, d)
        return self.floors(x).mean(dim=1)


# %% [markdown]
# First, ask `inject`. It cannot know that `ask` is a query. What does it say?

# %%
torch.manual_seed(0)
try:
    inject(NotebookViT(), SerialLoRAConfig(rank=4))
except SerialLoRAError as error:
    print(error)

# %% [markdown]
# It says what it looked for, and what to do: write *one function*. It goes through a model and yields
# an `AttentionSite` for each block, which answers three questions:
#
# 1. **Which block?** `name`, as `named_modules()` has it. The adapter will live there, so this name is
#    in the adapter file. `block` is its number, `tower` is "image" or "text", `width` is d.
# 2. **Where can the normed tokens be caught?** `entry` is a module's name. If the module's *output* is
#    these tokens (a norm), that is all. If a module *receives* them by keyword, `argument` says which.
#    (`None` is where q, k and v read them, if those are layers; here we name the norm, to see how.)
# 3. **Which weights are q, k, v and out?** Each is a `Projection`: a module's name, the name of the
#    weight in it, and which rows: first row, number of rows, number of columns.
#
# `register_family` hands the function to the package, for the life of this Python process.

# %% tags=["idea"]
from collections.abc import Iterator

from serial_lora.attention import find_attention_sites, register_family
from serial_lora.sites import AttentionSite, Projection


@register_family
def notebook_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """One site for each NotebookBlock, at any depth of the model."""
    for name, block in model.named_modules():
        if not isinstance(block, NotebookBlock):
            continue
        width = block.ask.in_features
        layers = {"q": "ask", "k": "offer", "v": "carry", "out": "gather"}
        yield AttentionSite(
            name=name,
            tower="image",
            block=int(name.rpartition(".")[2]),
            width=width,
            entry=f"{name}.calm",
            projections={
                part: Projection(f"{name}.{layer}", "weight", 0, width, width)
                for part, layer in layers.items()
            },
        )


# %%
torch.manual_seed(0)
plain = NotebookViT().eval()
adapted = trained_copy(inject(copy.deepcopy(plain), SerialLoRAConfig(rank=4)))
print("adapters at:", ", ".join(site.label for site in find_attention_sites(plain)))

# %% [markdown]
# It injects, so the names are right. Is the *place* right? A wrong entry injects just as well, trains, and is
# another method. The proof is the formula: write W (I + B A) into the q, k and v of a copy, by hand, and
# compare. Then merge, which must agree too.

# %%
dense = copy.deepcopy(plain)
with torch.no_grad():
    for floor, with_adapter in zip(dense.floors, adapted.floors, strict=True):
        pair = with_adapter.serial_lora
        change = torch.eye(64) + pair.scale * pair.lora_B @ pair.lora_A  # (d, d)
        for layer in (floor.ask, floor.offer, floor.carry):
            layer.weight.copy_(layer.weight @ change)
    pictures = torch.randn(4, 3, 48, 48)
    here, by_hand, base = adapted(pictures), dense(pictures), plain(pictures)
    merged = merge(copy.deepcopy(adapted))(pictures)

# %%
others = {"dense weights W (I + B A)": by_hand, "merged weights": merged, "the base": base}
for name, each in others.items():
    print(
        f"{name}: {float((each - here).abs().max() / here.abs().max()):.0e} of the largest output"
    )

# %% [markdown]
# **What this shows.** The hook, dense weights W (I + B A) and a merge agree up to rounding, and the
# base is far away.
#
# Rounding, and for the base something far above it: the site is right, and the adapter does something. From
# here on everything in this lesson works for the new family: files, `merge`, `to_peft`, LoRA as a baseline, and
# the page, with `PictureClassifier(model, class_names, Preprocessing(size=48))` of
# `serial_lora_course.labs.own`, since this model does not say how large its pictures are. In the process that
# *loads* such a file, register the family first.

# %% [markdown]
# Now one for you. The blocks of this model run attention and MLP *side by side*, and its keys and values come
# out of one weight.

# %%
import inspect

from serial_lora_course.models.parallel_vit import ParallelAttention, ParallelBlock, ParallelViT

print(inspect.getsource(ParallelAttention))
print(inspect.getsource(ParallelBlock))

# %% [markdown]
# ### Exercise 12.4 · Sites in a new model
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●○ | 15 |
#
# Yield one `AttentionSite` for each `ParallelBlock`, at any depth of the model. Who reads the output of
# `norm`? And which rows of `key_value` are keys? The check injects Serial LoRA and LoRA at your sites and
# compares with dense matrices.


# %% tags=["exercise"]
def parallel_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """The places where adapters go in a model with ParallelBlocks.

    Args:
        model: any module; it may hold a ParallelViT, at any depth, or none.

    Yields:
        One site a block, in the model's order, with the projections q, k, v and out.
    """
    # BEGIN SOLUTION
    for name, block in model.named_modules():
        if not isinstance(block, ParallelBlock):
            continue
        width = block.attention.query.in_features
        inside = f"{name}.attention"
        yield AttentionSite(
            name=name,
            tower="image",
            block=int(name.split(".")[-1]),
            width=width,
            entry=inside,
            argument="tokens",  # the norm's output reaches the MLP as well
            projections={
                "q": Projection(f"{inside}.query", "weight", 0, width, width),
                "k": Projection(f"{inside}.key_value", "weight", 0, width, width),
                "v": Projection(f"{inside}.key_value", "weight", width, width, width),
                "out": Projection(f"{inside}.collect", "weight", 0, width, width),
            },
        )
    # END SOLUTION


check("12.4", parallel_sites)

# %% [markdown]
# <details><summary>Hint 1: the entry</summary>
#
# Serial LoRA changes what q, k and v read, and nothing else. The norm's output is read by the MLP too, so
# an adapter there would change both. Only attention sees the tokens at `attention(tokens=...)`: that
# is the entry, and `tokens` the argument.
#
# </details>
# <details><summary>Hint 2: rows of a fused weight</summary>
#
# `key_value` has 2 d rows, and `chunk(2, dim=-1)` on its output makes the first d of them keys. So k
# starts at row 0, v at row d, and each has d rows. All names begin with the block's, from
# `named_modules()`; its number is the last part of it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/12_your_own.ipynb)

# %% [markdown]
# The same proof for the parallel model, with your sites: adapted, and with W (I + B A) written into the weights
# by hand.

# %%
from serial_lora_course.lessons.l12_your_own.checks import with_dense_weights

register_family(yours("12.4"))
torch.manual_seed(0)
plain = ParallelViT().eval()
adapted = trained_copy(inject(copy.deepcopy(plain), SerialLoRAConfig(rank=4)))
dense = with_dense_weights(plain, adapted, beside=False)
pictures = torch.randn(4, 3, 48, 48)
with torch.no_grad():
    here, by_hand, base = adapted(pictures), dense(pictures), plain(pictures)
others = {"dense weights W (I + B A)": by_hand, "the base": base}
for name, each in others.items():
    print(
        f"{name}: {float((each - here).abs().max() / here.abs().max()):.0e} of the largest output"
    )

# %% [markdown]
# **What this shows.** Your sites are right: hooks and dense weights agree up to rounding, and the
# base is far away.
#
# **Change this and run again**: `"norm"` in place
# of `"attention"` writes the change into the MLP's weight too. How large is the difference now?
#
# ## When something goes wrong
#
# Whatever the package refuses, it says in one sentence, with what to do; unless training had begun, it has then
# changed nothing. The table is made by really doing each thing wrong.

# %%
from serial_lora_course.lessons.l12_your_own import mistakes

place = Path(tempfile.mkdtemp(dir=scratch.name))
done = mistakes.with_models(place) | mistakes.with_pictures(place)
rows = {"what you did": list(done), "what you are told": [told(do) for do in done.values()]}
display_table(pd.DataFrame(rows))

# %% [markdown]
# Read each sentence to its end: the second half says what to do. Three problems come *without* an
# error; check for them when a result looks wrong:
#
# | What you see | What it may be | How to find out |
# |---|---|---|
# | accuracy far too good | a leak | `examine_folder` finds copies; split by object (12.1) |
# | the adapter changes nothing | too few steps, or a wrong entry | compare with `disabled(model)`, and with dense W (I + B A) |
# | good in the notebook, poor elsewhere | other preprocessing | look at `classifier.preprocessing`, or pass your own |
#
# **Change this and run again**: `print(told(inject, nn.LSTM(8, 8), SerialLoRAConfig(rank=4)))`, and a model of
# your own in place of the LSTM. Is it adapted, or are you told why not?

# %% [markdown]
# ## Quiz
#
# **1. Your adapted model has 97 % on the test pictures, and 60 % in use. The pictures were frames of
# videos, split at random. What happened?**
#
# <details><summary>Answer</summary>
#
# A leak. Neighbouring frames are nearly the same picture, and lie on both sides of the split. The test
# measured memory. Split by video, and the test will show the lower number, too.
#
# </details>
#
# **2. Why is the adapter exported to PEFT larger than the adapter file, although it does the same?**
#
# <details><summary>Answer</summary>
#
# Serial LoRA has one B for q, k and v. As an ordinary LoRA each projection needs its own, W_q B,
# W_k B and W_v B, because there B must lead to the projection's outputs. With three separate layers
# A is repeated too; on a fused weight there is one A, and the three B are stacked. For
# `nn.MultiheadAttention` a pair of zeros is added, since PEFT's layer includes the output
# projection.
#
# </details>
#
# **3. You register a family for a new model, inject works, and the loss falls. What is still
# unproved?**
#
# <details><summary>Answer</summary>
#
# That the adapter sits where Serial LoRA sits. A wrong entry (the residual stream, a norm that also
# feeds the MLP) trains as well. Only the comparison with a copy whose q, k and v are W (I + B A) shows
# it, together with an effect that is far above rounding.
#
# </details>

# %% [markdown]
# ## Key points
#
# - Look through a folder before you train on it. Grey, palette and transparent pictures are handled;
#   you must fix damaged ones, copies and one-picture classes.
# - Split by object, not by picture. No number in the log shows a leak.
# - The page: folder, model line, `PictureClassifier`, `inject`, `fit`, `save_classifier`. Beside its
#   accuracy belongs the linear probe's. `serial-lora fit` is the page with validation, resume and a card.
# - `eject(model, keep_merged=True)` leaves an ordinary model: save it, load it and time it as one.
# - A Serial LoRA pair is an ordinary LoRA whose B is s W B, for each projection: `to_peft`,
#   `to_diffusers`.
# - A new family is one function that yields sites, and one proof: W (I + B A) in a copy, by hand.

# %% [markdown]
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer", section II-C: equation (3) for what every family must
# fulfil, and under "Extension" that the method goes into other transformers easily, which this lesson makes
# precise: by structure, or one function for a family. Equation (5), W + W B A, is exercise 12.3: read it as a
# LoRA with the factors W B and A. The paper trains CLIP, SAM and Stable Diffusion 3. It tries no plain vision
# transformer with a linear head, and does not mention merged files or export.
#
# If you came here first: [00 · Start here](00_start_here.ipynb). [`CLAIMS.md`](../CLAIMS.md)
# goes through the paper's claims one by one.
