# %% [markdown]
# # 13 · It does not learn
#
# The script runs, no error comes, and the model does not learn. Here are eight such runs, each built after a public
# thread. **How do you find the place where it is broken?** You ask the run, with **diagnostics** of a few lines each. At
# the end two questions, which cost a few training steps, find all eight. You write two diagnostics, mend two functions,
# and diagnose three runs alone. (The threads are real; their words are ours.)

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import dataclasses
import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable

import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.transforms.functional import pil_to_tensor

from serial_lora import SerialLoRAConfig, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.memory import saved_activations
from serial_lora_course.labs.sam import SamObjective
from serial_lora_course.lessons.l13_not_learning import figures, posted
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_figure

lesson_card("13")

# %% [markdown]
# ## Eight curves
#
# The healthy run trains an adapter in our tiny CLIP to sort drawings into eight classes, as in
# [lesson 03](03_build_serial_lora.ipynb). Run 3 cuts stamps out of photographs with our tiny SAM, so it has another
# loss. Run 4 takes more and smaller steps. Which runs would you have stopped?


# %%
def train(run: posted.Run) -> list[float]:
    """Train, and return the loss of each step."""
    losses = []
    for batch in run.batches:
        loss = run.loss(batch)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        if run.schedule:
            run.schedule.step()
        losses.append(loss.item())
    return losses


print(inspect.getsource(posted.works))
print(f"{posted.STEPS} steps of {posted.BATCH} drawings, rank {posted.RANK}, rate {posted.RATE}")
makers = {"healthy": posted.works} | dict(enumerate(posted.RUNS, 1))
runs = {name: make() for name, make in makers.items()}
curves = {name: train(run) for name, run in runs.items()}
chance = math.log(len(runs["healthy"].model.classes))
display_figure(figures.plot_curves(curves, healthy="healthy", chance=chance, apart=[3]))
print("the same curve, number for number: runs", *(n for n in curves if curves[n] == curves[1]))

# %% [markdown]
# The thin line is the loss of each step (the dot is the first), the thick one a running mean. **Chance** is the loss of a
# model that finds all classes equally likely. Run 2 looks best. Runs 1, 5 and 6 have the same curve, but different
# faults.
#
# ## The first loss
#
# What should the loss be before the first step? A fresh pair changes nothing, since `B` is zero. So it should be the
# frozen model's own loss on that batch, computed without the poster's code.

# %%
pictures, labels = runs["healthy"].batches[0]
sam, scenes = posted.sam_and_scenes()
with torch.no_grad():
    scores = posted.frozen_classifier()(pictures)
    own = {"CLIP": nn.functional.cross_entropy(scores, labels)}
    own["SAM"] = SamObjective(sam)(scenes[: posted.SCENES])
print(f"chance {chance:.2f}; frozen:", *(f"{name} {loss:.2f}" for name, loss in own.items()))
print("first loss:", ", ".join(f"{name} {curve[0]:.2f}" for name, curve in curves.items()))
sure, named = scores.softmax(1).max(1)
print(f"frozen CLIP: {(named == labels).sum()} of {len(labels)} right, {sure.mean():.0%} sure")

# %% [markdown]
# Six runs begin at their model's own loss, so their pictures and labels are right, and the fault is in the training.
# Runs 3 and 8 do not: 0.38 in place of 0.23, and 4.66 in place of 2.84. They are broken *before* the first step, where
# no optimizer and no rate can be the cause.
#
# CLIP begins above chance because it is too sure: it names 5 of 16 drawings correctly, with a confidence of 61%. A new
# head of random weights would begin near chance, the logarithm of the number of classes: 2.08. It would do so with black
# pictures or shuffled labels, too. With such a head this question is blind, so look at pictures with their labels.
#
# ## What is held, what is reached, what moves
#
# `held` counts the trained tensors that the optimizer holds, and `reached` those that a gradient reaches.


# %%
def held(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """How many of the trained tensors the optimizer holds, object by object."""
    stepped = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    learns = [id(tensor) for tensor in model.parameters() if tensor.requires_grad]
    return f"{len(stepped.intersection(learns))} of {len(learns)}"


def reached(model: nn.Module, above: float = -1) -> str:
    """How many trained tensors of each kind have a gradient (above a size), after `backward`."""
    learns = [(n.rpartition(".")[2], p) for n, p in model.named_parameters() if p.requires_grad]
    kinds = Counter(kind for kind, _ in learns)
    sizes = [(kind, p.grad.abs().max()) for kind, p in learns if p.grad is not None]
    there = Counter(kind for kind, size in sizes if size > above)
    return ", ".join(f"{kind} {there[kind]} of {total}" for kind, total in kinds.items())


def ask(run: posted.Run) -> None:
    """Print what these two say of a run."""
    run.loss(run.batches[0]).backward()
    print("in the optimizer:     ", held(run.model, run.optimizer))
    print("reached by a gradient:", reached(run.model))


ask(posted.works())

# %% [markdown]
# The optimizer holds all 12 tensors of the adapter, and a gradient reaches each. But do they move?
#
# ### Exercise 13.1 · What do two steps move?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# In [`peft #793`](https://github.com/huggingface/peft/issues/793) a reader finds that a tuned model's `B` is still
# zero. Write the diagnostic that shows this. It takes some steps, and returns for each trained tensor the share of its
# numbers that changed and the largest change *in rates*, that is, divided by the learning rate.


# %% tags=["exercise"]
def moved(
    model: nn.Module, steps: Callable[[], object], rate: float
) -> dict[str, tuple[float, float]]:
    """What some steps change.

    Args:
        steps: calling it takes the steps.

    Returns:
        The name of each trained tensor -> (the share that changed, the largest change in rates).
    """
    # BEGIN SOLUTION
    learns = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    before = {name: tensor.detach().clone() for name, tensor in learns.items()}
    steps()
    changes = {name: (tensor.detach() - before[name]).abs() for name, tensor in learns.items()}
    return {n: ((c > 0).float().mean().item(), c.max().item() / rate) for n, c in changes.items()}
    # END SOLUTION


check("13.1", moved)

# %% [markdown]
# <details><summary>Hint 1: before</summary>
#
# The optimizer changes a tensor in place, so a second name for it changes as well. `clone` copies the numbers.
#
# </details>
# <details><summary>Hint 2: the share</summary>
#
# Compare the changes with zero, turn the answers into numbers, and take their mean.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_moved = yours("13.1")


def after(run: posted.Run, steps: int = 2) -> dict[str, tuple[float, float]]:
    """What the first steps of a run move, in units of the rate that its poster asked for."""
    few = dataclasses.replace(run, batches=run.batches[:steps])
    return my_moved(run.model, lambda: train(few), run.asked)


for name, (share, most) in [*after(posted.works()).items()][:2]:
    print(f"{name}: {share:.0%} moved, by {most:.2f} rates at most")

# %% [markdown]
# AdamW divides each gradient by its usual size, so an early step moves a parameter by about the rate, **however small
# its gradient is** (if it is well above AdamW's `eps` of `1e-8`). `B` has moved by 2.00 rates in two steps. `A` has
# moved by 0.75 only: its first gradient was zero, because `B` was, and AdamW averages over steps. In a
# single step hardly anything but weight decay would move `A`, so we take two.
#
# **How much of a run is trained?** Guess for run 2, whose curve looks best.

# %%
share_of_2 = 0.5  # your guess: the share of run 2's trained numbers that two steps change


def look(run: posted.Run) -> tuple[dict[str, tuple[float, float]], set[str], float]:
    """What two steps move, the tensors without a gradient, and the share of all numbers that moves."""
    found = after(run)
    tensors = {n: run.model.get_parameter(n) for n in found}
    lost = {n for n, tensor in tensors.items() if tensor.grad is None}
    changed = sum(found[n][0] * tensor.numel() for n, tensor in tensors.items())
    return found, lost, changed / sum(tensor.numel() for tensor in tensors.values())


rows = {name: look(make()) for name, make in makers.items()}
display_figure(figures.plot_moved(rows))
if share_of_2 is not None:
    print(f"run 2: your guess {share_of_2:.0%}, measured {rows[2][2]:.0%}")

# %% [markdown]
# Each mark is a trained tensor, and the top row is the healthy run. In runs 1, 5 and 6 nothing moves. In run 2 only
# the class vectors move, 4% of the trained numbers. In run 4 it is 9%. Runs 3 and 8 move as the healthy one does.
#
# ## Run 1: nothing moves
#
# *"I add an adapter to a model that I used to fine-tune, and the loss only goes up and down with the batches. The
# adapter gets gradients."* ([`adapters #260`](https://github.com/adapter-hub/adapters/issues/260))
#
# Ask which tensors the optimizer holds. In our repair two lines change places.

# %%
run = posted.run_1()
ask(run)
stepped = [tensor for group in run.optimizer.param_groups for tensor in group["params"]]
print("frozen tensors that the optimizer holds:", sum(not each.requires_grad for each in stepped))
print(inspect.getsource(posted.optimizer_of))


def optimizer_of(model: nn.Module, config: SerialLoRAConfig, lr: float) -> torch.optim.Optimizer:
    """Put the adapter in, and return what trains it."""
    inject(model, config)
    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=lr)


mended, mended_curves, remade = {}, {}, {}


def mend(number: int, make: Callable[[], posted.Run]) -> None:
    """Train a mended run, and print where it ends."""
    remade[number], mended[number] = make, make()
    mended_curves[number] = train(mended[number])
    ends = [figures.last(each[number]) for each in (curves, mended_curves)]
    print(f"run {number}, last five steps: {ends[0]:.2f} as posted, {ends[1]:.2f} mended")


print("mended:")
ask(posted.run_1(optimizer_of))
mend(1, lambda: posted.run_1(optimizer_of))

# %% [markdown]
# The posted optimizer holds 81 frozen tensors and none of the 12 trained ones. It made its list *before* `inject`
# added the pairs and froze the rest. What it holds gets no gradient, so `step` skips it without a word.
#
# ## Run 2: only the class vectors move
#
# *"With gradient checkpointing LoRA fits on my card. But it ends no better than a linear probe."*
# ([`transformers #26221`](https://github.com/huggingface/transformers/issues/26221),
# [`LoRA #120`](https://github.com/microsoft/LoRA/issues/120))
#
# Ask for the pairs' gradients, and look at the function that runs the blocks and at PyTorch's log.

# %%
run = posted.run_2()
ask(run)
print(inspect.getsource(posted.through_blocks))
with warnings.catch_warnings(record=True) as log:
    run.model(pictures)
print("\n".join({f"{line.category.__name__}: {line.message}" for line in log}))

# %% [markdown]
# No gradient reaches a pair, so the class vectors alone made that curve. A *reentrant* checkpoint runs its block
# without gradients, and its output needs a gradient only if its *input* does. Everything before the blocks is frozen,
# so no input needs one, as the warning says, and the way back ends there.
#
# ### Exercise 13.2 · Little memory, and a gradient
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Mend the function, so that a gradient reaches the pairs of every block. Memory is still saved: each block runs twice,
# forward and on the way back.


# %% tags=["exercise"]
def through_blocks(blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
    """Run a tower, keep little of it in memory, and let gradients reach what is inside.

    Args:
        tokens: (B, N, d), of which nothing is trained.
    """
    # BEGIN SOLUTION
    for block in blocks:
        tokens = checkpoint(block, tokens, use_reentrant=False)
    return tokens
    # END SOLUTION


check("13.2", through_blocks)

# %% [markdown]
# <details><summary>Hint 1: the other kind</summary>
#
# `help(checkpoint)` says what the kind that is *not* reentrant asks of its inputs.
#
# </details>
# <details><summary>Hint 2: another way</summary>
#
# You can also make the tokens need a gradient, although nobody uses it: see `enable_input_require_grads` of
# transformers.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_through_blocks = yours("13.2")
ask(posted.run_2(my_through_blocks))
ways = {"no checkpoint": lambda blocks, tokens: nn.Sequential(*blocks)(tokens)}
ways |= {"as posted": posted.through_blocks, "mended": my_through_blocks}
for name, way in ways.items():
    run = posted.run_2(way)
    with saved_activations(run.model) as kept:
        run.loss(run.batches[0])
    print(f"{name}: {kept[0] / 1e6:.1f} MB saved for backward")
mend(2, lambda: posted.run_2(my_through_blocks))

# %% [markdown]
# The other kind of checkpoint builds the graph as usual, drops what the block would keep, and computes it again on the
# way back. So a pair inside gets its gradient even if the tokens need none. It keeps 3.2 MB, and plain blocks keep 30.8.
#
# ## Run 3: another first loss
#
# *"I fine-tune SAM. The loss hardly falls, and the pictures that I plot from my data loader are fine."*
# ([`segment-anything #202`](https://github.com/facebookresearch/segment-anything/issues/202))
#
# The fault is there before the first step, so look at **what the model sees**: `entering` catches what a part of a
# model is given. (The pictures are Tux Paint's stamps, GPL 2 or later, on photographs from scikit-image.)


# %%
def entering(part: nn.Module, call: Callable[[], object]) -> Tensor:
    """What a part of a model is given first while something is called; leaves no hook behind."""
    given: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    call()
    hook.remove()
    return given[0]


run = posted.run_3()
sam, loaded = run.model, run.batches[0][0].picture  # (3, h, w)
entered = entering(sam.image_encoder, lambda: run.loss(run.batches[0]))  # (B, 3, H, W)
entered = entered[0, :, : loaded.shape[1], : loaded.shape[2]].detach()  # the first, unpadded
print(f"enters the encoder: {entered.min():.2f} to {entered.max():.2f}")
print("subtracted before:", *(f"{mean:.0f}" for mean in sam.pixel_mean.flatten()))

seen = (entered * sam.pixel_std + sam.pixel_mean) / 255  # the normalisation undone
both = [each.permute(1, 2, 0).clamp(0, 1) for each in (loaded, seen)]  # (h, w, 3)
display_figure(show_pictures(both, ["from the data loader", "seen by SAM"], size=2.2))
print(inspect.getsource(posted.pixels_of))
mend(3, lambda: posted.run_3(pil_to_tensor))
print(f"run 3, mended, first loss: {mended_curves[3][0]:.2f}")

# %% [markdown]
# SAM sees black. It expects 0 to 255 and subtracts its mean colour, but `to_tensor` gives 0 to 1, and from 0 to 1 of 255
# all is black. With `pil_to_tensor` the first loss is 0.23, the frozen model's
# own, and the run ends at 0.19 in place of 0.40.
#
# ## Run 4: 9% of the weights move
#
# *"To save memory I train in bfloat16. Hundreds of steps, and nothing. In float32 it works."*
# ([`CausVid #19`](https://github.com/tianweiy/CausVid/issues/19),
# [`ao #1124`](https://github.com/pytorch/ao/pull/1124))
#
# The poster trains the last matrix of CLIP's tower. Which of its weights move? Up to the dashed line, a step is more
# than half of the way to bfloat16's next number.

# %%
print(inspect.getsource(posted.lower))
run = posted.run_4()
(weights,) = run.optimizer.param_groups[0]["params"]  # bfloat16
before = weights.detach().clone()
size = before.abs()
gap = torch.nextafter(size, 2 * size) - size  # from each weight to the next number
bound = size[gap / 2 < run.asked].max()
after(run)
display_figure(figures.plot_rounded(size.float(), weights.detach() != before, bound.item()))

for what, some in (("largest that moves", bound), ("usual", size.median())):
    way = gap[size == some][0].item() / run.asked
    print(f"{what}: {some:.4f}, the next number is {way:.1f} steps of {run.asked} away")

# %% [markdown]
# Left of the line almost all weights move, and right of it almost none. Like all floating-point numbers, bfloat16's lie
# farther apart the larger they are, and with eight bits of precision they lie far apart. From a usual weight the next
# number is 12 steps away, so each step is rounded back to where it began.
#
# ### Exercise 13.3 · Steps that are not rounded away
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Mend the function. What is *trained* becomes float32, and what is frozen becomes bfloat16. Each parameter stays the
# same object, since an optimizer may hold it.


# %% tags=["exercise"]
def lower(model: nn.Module) -> nn.Module:
    """Save a model's memory where that harms no step, and return the same model."""
    # BEGIN SOLUTION
    for tensor in model.parameters():
        tensor.data = tensor.data.to(torch.float32 if tensor.requires_grad else torch.bfloat16)
    return model
    # END SOLUTION


check("13.3", lower)

# %% [markdown]
# <details><summary>Hint 1: which are which</summary>
#
# The parameters that are trained require a gradient.
#
# </details>
# <details><summary>Hint 2: the same object, another type</summary>
#
# `tensor.to(...)` gives another object. What a parameter holds is its `data`, and that can be replaced.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_lower = yours("13.3")
((share, most),) = after(posted.run_4(my_lower)).values()
print(f"moved in 2 steps: {share:.0%}, by {most:.2f} rates at most")
mend(4, lambda: posted.run_4(my_lower))
print(f"run 4, float32 weights: {figures.last(train(posted.run_4(lambda model: model))):.2f}")
print(inspect.getsource(posted.Rounded))

# %% [markdown]
# All weights move now, and the run ends where it does if all weights are float32. PyTorch has no matrix product of
# float32 and bfloat16, so this mix needs `autocast`, which rounds both matrices of a product.
#
# ## Runs 5, 6 and 7: yours
#
# Run 5: *"The script has always worked. New are the LoRA, and that I have few pictures. No rate helps."*
#
# Run 6: *"I cleared my adapter, to train it anew from the pretrained model. Now it stays there."*
#
# Run 7: *"My colleague's script, with her rate. She takes one picture a step, and I have room for 16. My loss rises
# first, and then gets stuck."*
#
# All three ask for the healthy run's rate, 0.003. The table adds the gradients that are
# not zero.


# %%
def diagnose(make: Callable[[], posted.Run]) -> dict[str, str]:
    """Six answers about a run, for the price of three steps."""
    run = make()
    tower, losses = getattr(run.model, "tower", None) or run.model.image_encoder, []
    entered = entering(tower, lambda: losses.append(run.loss(run.batches[0])))
    losses[0].backward()
    told = {
        "first loss": f"{losses[0].item():.2f}",
        "in the optimizer": held(run.model, run.optimizer),
        "reached by a gradient": reached(run.model),
        "gradient not zero": reached(run.model, above=0),
        "enters the model": f"{entered.min():.1f} to {entered.max():.1f}",
    }
    found, _, share = look(run)
    most = max(most for _, most in found.values())
    return told | {"moved in two steps": f"{share:.0%}, by {most:.2g} rates"}


display(pd.DataFrame({name: diagnose(makers[name]) for name in ("healthy", 5, 6, 7)}).T)

# %% [markdown]
# ### Exercise 13.4 · Three diagnoses
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Where is each run broken? One has two faults, and the second shows when the first is mended, so mend and ask again,
# as in `diagnose(lambda: posted.run_1(optimizer_of))`.
#
# Your words: `"optimizer"` (it does not hold what is trained), `"gradient"` (none arrives), `"input"` (the model sees
# something else), `"format"` (steps are rounded away), `"start"` (no gradient can move the pairs from their first
# values), `"low rate"` and `"high rate"` (another than was asked for).


# %% tags=["exercise"]
def diagnosis() -> dict[int, set[str]]:
    """Where runs 5, 6 and 7 are broken: number -> one or two of the words."""
    # BEGIN SOLUTION
    return {5: {"optimizer", "low rate"}, 6: {"start"}, 7: {"high rate"}}
    # END SOLUTION


check("13.4", diagnosis)

# %% [markdown]
# <details><summary>Hint 1: which column?</summary>
#
# Take the first column from the left in which the run differs from the healthy one. After you have mended something,
# read the new row: how far do two steps move the healthy run?
#
# </details>
# <details><summary>Hint 2: a gradient of zeros</summary>
#
# The gradient of `A` has `B` as a factor, and the gradient of `B` has `A`. Which of the two gradients is zero in the
# healthy run, and which in the others?
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)
#
# Run and open what follows when your check has passed.

# %%
for broken in (posted.share_of_rate, posted.start, posted.scaled):
    print(inspect.getsource(broken))

half = diagnose(lambda: posted.run_5(optimizer_of))
print("run 5 with optimizer_of, moved in two steps:", half["moved in two steps"])
for name in ("healthy", 5, 7):
    print(name, "steps at a rate of", f"{makers[name]().optimizer.param_groups[0]['lr']:g}")


def share_of_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1, steps // 10))


mend(5, lambda: posted.run_5(optimizer_of, share_of_rate))
mend(6, lambda: posted.run_6(lambda pairs: None))
mend(7, lambda: posted.run_7(lambda rate, batch: rate))
same = [number for number, curve in mended_curves.items() if curve == curves["healthy"]]
print("mended, the healthy run's curve, number for number: runs", *same)

# %% [markdown]
# <details><summary>What was wrong</summary>
#
# **Run 5**: the optimizer was made before the adapter, as in run 1. Besides, the warm-up is longer than the run, so
# the rate never comes near 0.003. You see that at once if you print the optimizer's rate.
# [`sd_dreambooth_extension #557`](https://github.com/d8ahazard/sd_dreambooth_extension/pull/557) sets the same
# default of 500 steps to zero.
# <!-- from that change: 500 -->
#
# **Run 6**: `A` and `B` are both zero. With G the gradient of B A, that of B is G Aᵀ and that of A is Bᵀ G, so both stay
# zero. If B alone is zero, B moves first and A follows. So one of the two has to be random. In
# [`SkyRL #852`](https://github.com/NovaSky-AI/SkyRL/pull/852) an adapter was set to zero and used again.
#
# **Run 7**: the rate is multiplied by the size of the batch. AdamW's steps are as long as the rate, however large the
# batch, so each step is 16 times as long as hers. Many scripts offer that, and
# [`diffusers #3224`](https://github.com/huggingface/diffusers/issues/3224) did it twice. In
# [`timm #2125`](https://github.com/huggingface/pytorch-image-models/issues/2125) a warm-up begins with the full rate.
#
# </details>
#
# ## Run 8: it fits one batch
#
# *"My loss falls, but it gets stuck above chance. I can overfit one batch, so the loop works."*
# ([`GaNDLF #870`](https://github.com/mlcommons/GaNDLF/pull/870),
# [`ultralytics #442`](https://github.com/ultralytics/ultralytics/issues/442))
#
# To **overfit one batch** is a check from [Karpathy's recipe](https://karpathy.github.io/2019/04/25/recipe/), as is the
# first loss: the same few examples (here eight drawings) come in every step, and a loop that works learns them by heart.


# %%
def one_batch(run: posted.Run) -> float:
    """The last loss of a run that gets every other example of its first batch in all its steps."""
    few = run.batches[0]
    few = few[::2] if isinstance(few, list) else tuple(each[::2] for each in few)
    return train(dataclasses.replace(run, batches=[few] * (2 * len(run.batches) // 3)))[-1]


display(pd.DataFrame({name: diagnose(makers[name]) for name in ("healthy", 8)}).T)
for name in ("healthy", 8):
    print(f"last loss on one batch, {name}: {one_batch(makers[name]()):.2f}")

# %% [markdown]
# Run 8 learns its eight drawings by heart, and it answers like the healthy run but for one number, the first loss. That
# is the only one here that compares a label with its picture. What enters is right, so look at the labels.

# %%
shown, given = (each[:8] for each in runs[8].batches[0])  # (8, 3, H, W) and (8,)
low, high = shown.amin((1, 2, 3), keepdim=True), shown.amax((1, 2, 3), keepdim=True)
shown = ((shown - low) / (high - low)).permute(0, 2, 3, 1)  # (8, H, W, 3)
display_figure(show_pictures(shown, [runs[8].model.names[label] for label in given], size=1.05))
print(inspect.getsource(posted.shuffled))

# %% [markdown]
# A clock is no building, and a mountain is no boat: `shuffled` draws one order for the pictures and another for the
# labels, once for each batch. A model can learn one batch's wrong labels by heart, but the next batch has others. The
# best answer to random labels is to find all classes equally likely, so the loss falls towards chance.
#
# ### Exercise 13.5 · Are new drawings named correctly?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# Held-out pictures do not go through `shuffled`, so they can show the fault. Write this diagnostic: the share of
# pictures that the model names correctly, in evaluation mode and without a graph.


# %% tags=["exercise"]
def share_right(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """The share of pictures whose class has the highest score.

    Args:
        pictures: (B, 3, H, W), which the model turns into scores (B, C).
        labels: (B,)
    """
    # BEGIN SOLUTION
    model.eval()
    with torch.no_grad():
        return (model(pictures).argmax(1) == labels).float().mean().item()
    # END SOLUTION


check("13.5", share_right)

# %% [markdown]
# <details><summary>Hint 1: which class</summary>
#
# `argmax` along the classes gives the number of the class with the highest score.
#
# </details>
# <details><summary>Hint 2: as a user's model</summary>
#
# `model.eval()` switches dropout off, and inside `with torch.no_grad():` nothing is recorded for the way back.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_share_right = yours("13.5")


def shuffled(pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A batch in a new order, one for both."""
    order = torch.randperm(len(labels))
    return pictures[order], labels[order]


mend(8, lambda: posted.run_8(shuffled))
untrained = 100 * my_share_right(posted.works().model, *posted.held_out())
print(f"{len(posted.held_out()[1])} held-out drawings, {untrained:.0f}% right before training")
for what, each in (("as posted", runs[8]), ("mended", mended[8])):
    print(f"run 8 {what}: {100 * my_share_right(each.model, *each.held_out):.0f}%")

# %% [markdown]
# Training has made run 8 worse: it names 12% of the held-out drawings correctly, as a guess among eight classes would,
# and it began at 42%. Mended, it reaches 58%.
#
# ## Quiz
#
# **1. A run is flat, and all tensors are in the optimizer and get gradients. What do you ask next?**
#
# <details><summary>Answer</summary>
#
# What two steps move. A small share: most likely rounding. Nothing: no gradient, zeros that meet zeros, a rate of zero,
# or rounding of every step, so count the gradients that are not zero and print the rate. All, by much less than a rate: the schedule.
# All, as in a healthy run: look at what enters, and at the labels.
#
# </details>
#
# **2. Take run 4 at ten times its rate. Up to which size do weights move now?**
#
# <details><summary>Answer</summary>
#
# Up to about 0.06, eight times as far. The way to the next number doubles with each power of two: it is 12.2 of the
# old steps from 0.03 on, and 24.4 from 0.06 on. A step ten times as long is more than half of the first way, and less
# than half of the second. (A weight that moves jumps the whole way, so this run's mark stands beyond two rates.)
#
# </details>
#
# **3. Would run 2's fault have stayed silent if the class vectors were frozen?**
#
# <details><summary>Answer</summary>
#
# No. Nothing trained would reach the loss, and `backward` raises an error: "element 0 of tensors does not require
# grad".
#
# </details>
#
# ## What to remember
#
# Ask every run everything. An answer is orange where it differs from the *mended* run's (a number: by more than 0.1).
# On the right are two checks that need a training: one batch, and held-out drawings (run 3: its held-out loss).


# %%
def answers(make: Callable[[], posted.Run], trained: posted.Run) -> dict[str, str]:
    """What can be asked of a run before its training, and after it."""
    told = diagnose(make) | {"one batch": f"{one_batch(make()):.2f}"}
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # run 2's is known by now
        if isinstance(trained.held_out, list):  # photographs
            unseen = trained.loss(trained.held_out).item()
        else:
            unseen = my_share_right(trained.model, *trained.held_out)
    return told | {"held-out right": f"{unseen:.2f}"}


def differs(one: str, other: str) -> bool:
    try:
        return abs(float(one) - float(other)) > 0.1
    except ValueError:  # no number alone
        return one != other


told = {name: answers(make, runs[name]) for name, make in makers.items()}
found = {}
for number, make in remade.items():
    well = told["healthy"] if number in same else answers(make, mended[number])
    found[number] = {k: v for k, v in told[number].items() if differs(v, well[k])}
first, *where, steps, batch, unseen = told["healthy"]
groups = {"Is it broken?": [first, steps], "Where?": where, "After a training": [batch, unseen]}
display_figure(figures.plot_found(told["healthy"], found, groups))
right = my_share_right(mended[2].model, *mended[2].held_out)
print(f"run 2, held-out right: {told[2][unseen]} as posted, {right:.2f} mended")

# %% [markdown]
# **Two questions find all eight.** The first loss tests all that comes before the training: what enters, and the labels
# (runs 3 and 8). What two steps move tests the training itself (the other six). The middle says where. If it says
# nothing, read the left again: a small share that moves means rounding (4), a move of many rates a wrong rate (7). After a wrong first loss,
# look at pictures with their labels (8). These are eight faults that we chose. Both questions miss a rate that is badly
# *chosen*, since moves are measured in the rate asked for, a few wrong labels, and a wrong evaluation.
#
# The checks on the right cost a training, and they do not find run 2: its curve falls, it fits one batch, and it names
# 68% of the held-out drawings correctly. But 4% of its trained numbers move.
#
# Post the answers with your curve. Now ask [your own model](12_your_own.ipynb).
