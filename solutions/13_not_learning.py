# %% [markdown]
# # 13 · It does not learn
#
# Sooner or later it happens to everybody: the script runs, no error comes, the GPU is warm, and the model does not
# learn. You ask in an issue, and post your curve. In this lesson you are the one who answers. Five people have posted
# a run each, and each run is broken in one place. You find the place with a **diagnostic**, a few lines that ask one
# question. Then you fix it, and you keep the diagnostics. (The words of the posts are ours. The threads are real.)

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import dataclasses
import inspect
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from serial_lora import SerialLoRAConfig, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l13_not_learning import posted
from serial_lora_course.lessons.l13_not_learning.figures import plot_curves, plot_fixed
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_figure

lesson_card("13")

# %% [markdown]
# ## Six curves
#
# All six go through the same loop, the one below. A, B, D and E sort drawings with our tiny CLIP, as in
# [lesson 03](03_build_serial_lora.ipynb), C cuts out photographs with our tiny SAM. One run works. Before you look:
# how would the loss of a run look in which *nothing* is trained?


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


makers = {"it works": posted.works, "A": posted.run_a, "B": posted.run_b}
makers |= {"C": posted.run_c, "D": posted.run_d, "E": posted.run_e}
curves = {name: train(make()) for name, make in makers.items()}

print(f"{posted.STEPS} steps of {posted.BATCH} drawings, rank {posted.RANK}, rate {posted.RATE}")
print(f"C: {posted.SCENES} photographs a step; D: {len(curves['D'])} steps at {posted.LOW_RATE}")
display_figure(plot_curves(curves, apart="C"))

# %% [markdown]
# Write down a guess for each letter before you open the answer.
#
# **In which runs is nothing trained at all? Which one looks best? If you could ask each poster for one number, which
# would it be?**
#
# <details><summary>Answer</summary>
#
# You cannot know, and that is the point. Three hardly fall, and B, which looks best, is broken like the others. A curve
# does not show *what* is wrong, and not always *that* something is. A diagnostic does.
#
# </details>
#
# ## A: flat
#
# *"I add an adapter to a model that I used to fine-tune, and the loss only goes up and down with the batches. All
# parameters of the adapter have `requires_grad=True`, and they get gradients, too."* You find it in
# [`adapters #260`](https://github.com/adapter-hub/adapters/issues/260), and in
# [`peft #1303`](https://github.com/huggingface/peft/issues/1303) a second adapter that does not train.
#
# Gradients alone move nothing. Who does? Ask the optimizer what it holds. A tensor is known by its identity, `id`.


# %%
def in_optimizer(run: posted.Run) -> str:
    """How many of the trained tensors the optimizer holds."""
    held = {id(t) for group in run.optimizer.param_groups for t in group["params"]}
    learns = [id(t) for t in run.model.parameters() if t.requires_grad]
    return f"{len(held.intersection(learns))} of {len(learns)}"


print("it works:", in_optimizer(posted.works()))
print("A:       ", in_optimizer(posted.run_a()))

# %% [markdown]
# None of 12. How can that be? Guess, before you look at the function that makes the optimizer.

# %%
print(inspect.getsource(posted.optimizer_of))

# %% [markdown]
# The optimizer got its list *before* `inject` added the pairs and froze the rest. It holds the frozen base, finds no
# gradient there, and steps nothing, without a word.
#
# ### Exercise 13.1 · Who is stepped?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 4 |
#
# Write the poster's function anew: put the adapter into the model, and return an AdamW with that rate that holds
# every tensor that is trained, and no other.


# %% tags=["exercise"]
def optimizer_of(model: nn.Module, config: SerialLoRAConfig, lr: float) -> torch.optim.Optimizer:
    """Put the adapter in, and return what trains it.

    Args:
        model: changed in place.
        config: of the adapter.
        lr: the rate.
    """
    # BEGIN SOLUTION
    inject(model, config)
    learns = [tensor for tensor in model.parameters() if tensor.requires_grad]
    return torch.optim.AdamW(learns, lr=lr)
    # END SOLUTION


check("13.1", optimizer_of)

# %% [markdown]
# <details><summary>Hint 1: when is the list made?</summary>
#
# `AdamW(...)` goes through `model.parameters()` once, when it is made. What comes into the model later is unknown to
# it.
#
# </details>
# <details><summary>Hint 2: which tensors?</summary>
#
# After `inject(model, config)` those with `requires_grad` are the pairs. `adapter_parameters(model)` lists them too.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
display_figure(plot_fixed(curves["A"], train(posted.run_a(yours("13.1")))))

# %% [markdown]
# The same happens whenever parameters are *replaced* after the optimizer was made: a new head, a reloaded model,
# a second adapter.
#
# ## B: it falls
#
# *"With gradient checkpointing LoRA fits on my card, and it is even faster than without. But in the end it is no
# better than a linear probe."* Faster should make you suspicious: checkpointing computes each block twice. In
# [`blog #1824`](https://github.com/huggingface/blog/issues/1824) somebody noticed just that; other threads are
# [`transformers #26221`](https://github.com/huggingface/transformers/issues/26221) and
# [`LoRA #120`](https://github.com/microsoft/LoRA/issues/120).
#
# Here the adapter *and* the vectors of the classes are trained, and the optimizer holds them all. So go one step
# back: does a gradient arrive? `None` means that none does. Zeros are fine: `A` gets zeros in the first step, because
# `B` is zero.


# %%
def reached(run: posted.Run) -> str:
    """How many of the trained tensors a gradient reaches, by the last part of their names."""
    run.loss(run.batches[0]).backward()
    kinds: dict[str, list[bool]] = {}
    for name, tensor in run.model.named_parameters():
        if tensor.requires_grad:
            kinds.setdefault(name.rpartition(".")[2], []).append(tensor.grad is not None)
    run.optimizer.zero_grad()
    return ", ".join(f"{kind} {sum(there)} of {len(there)}" for kind, there in kinds.items())


run = posted.run_b()
print("in the optimizer:     ", in_optimizer(run))
print("reached by a gradient:", reached(run))

# %% [markdown]
# The class vectors learn, alone, and they make the whole curve. (The run that works leaves them as they are. That is
# why B could even end below it.) What stops the gradient on its way to the pairs?

# %%
print(inspect.getsource(posted.through_blocks))

# %% [markdown]
# A checkpoint of the *reentrant* kind runs its block without gradients, and its output needs one only if an *input*
# does. Behind a frozen stem none does, so the way back ends there, before any pair. (Another remedy makes the tokens
# need one: `enable_input_require_grads()` in transformers.) PyTorch warns of that once, and so does this course's
# library, but logs are long: in [a thread about that
# warning](https://github.com/2U1/Qwen-VL-Series-Finetune/issues/56) somebody tells how to silence it. (Here it is
# silenced, too.)
#
# ### Exercise 13.2 · Checkpoints that let gradients through
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 5 |
#
# Run the blocks one after another, each checkpointed, so that the gradients of pairs *and* tokens are those of the
# plain tower. The check counts how often each block runs, with tokens that need a gradient and tokens that do not.


# %% tags=["exercise"]
def through_blocks(blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
    """Run a tower and keep little of it in memory.

    Args:
        blocks: each (B, N, d) -> (B, N, d).
        tokens: (B, N, d).
    """
    # BEGIN SOLUTION
    for block in blocks:
        tokens = checkpoint(block, tokens, use_reentrant=False)
    return tokens
    # END SOLUTION


check("13.2", through_blocks)

# %% [markdown]
# <details><summary>Hint 1: one word</summary>
#
# `checkpoint` has a second implementation, which notes what the block computes, whatever its inputs need.
#
# </details>
# <details><summary>Hint 2: which word</summary>
#
# `use_reentrant=False`. In transformers it is
# `gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
display_figure(plot_fixed(curves["B"], train(posted.run_b(yours("13.2")))))

# %% [markdown]
# Vectors and adapter together end lower than the vectors alone, in this run. This is the most dangerous of the five: a
# falling curve makes nobody suspicious. Run the diagnostic before *every* long training.
#
# ## C: it starts too high
#
# *"I fine-tune SAM. The loss hardly falls. Rate, rank and decay change nothing, and the pictures that I plot from my
# data loader are fine."* The question behind it is
# [`segment-anything #202`](https://github.com/facebookresearch/segment-anything/issues/202), which range SAM's pixels
# have; [kornia's SAM](https://github.com/kornia/tutorials/pull/76) wants them from 0 to 1.
#
# The two diagnostics find nothing here, since the loop is right. So look at the other end. Not at what the data loader
# gives, but at **what the model sees**: take the tensor that enters the encoder, and undo the model's own
# normalisation.


# %%
def seen(run: posted.Run) -> Tensor:
    """The first picture as it enters the encoder, made visible again: (3, h, w), 0 to 1."""
    (_, height, width), model = run.batches[0][0].picture.shape, run.model
    entered = model.preprocess(run.batches[0][0].picture)[:, :height, :width]
    print(f"enters the encoder: {entered.min():.2f} to {entered.max():.2f}")
    print("subtracted before:", *(f"{mean:.0f}" for mean in model.pixel_mean.flatten()))
    return (entered * model.pixel_std + model.pixel_mean) / 255


run = posted.run_c()
loaded = run.batches[0][0].picture
print("in the optimizer:     ", in_optimizer(run))
print("reached by a gradient:", reached(run))
both = [each.permute(1, 2, 0).clamp(0, 1) for each in (loaded, seen(run))]  # (h, w, 3)
display_figure(show_pictures(both, ["from the data loader", "seen by SAM"], size=2.2))

# %% [markdown]
# Black. (The photographs are Tux Paint's stamps, GPL 2 or later, on photographs from scikit-image.) Why?

# %%
print(inspect.getsource(posted.pixels_of))

# %% [markdown]
# `to_tensor` gives numbers from 0 to 1, and SAM, which expects 0 to 255, subtracts its mean colour (124, 116, 104). So it has hardly more than the boxes. An input that is normalised twice, or whose channels are exchanged, is found in
# the same way.
#
# ### Exercise 13.3 · The pixels that SAM expects
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●○○ | 5 |
#
# Return red, green and blue from 0 to 255, as (3, H, W). Pictures come in all kinds: grey, with a palette, with
# transparency. Pillow's own conversion to RGB takes them all; it drops transparency.


# %% tags=["exercise"]
def pixels_of(picture: Image.Image) -> Tensor:
    """A picture for SAM, which subtracts its mean colour itself.

    Args:
        picture: of any kind, (W, H).

    Returns:
        (3, H, W), 0 to 255.
    """
    # BEGIN SOLUTION
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    # END SOLUTION


check("13.3", pixels_of)

# %% [markdown]
# <details><summary>Hint 1: by way of NumPy</summary>
#
# `np.array(picture.convert("RGB"))` is (H, W, 3), whole numbers from 0 to 255.
#
# </details>
# <details><summary>Hint 2: the axes</summary>
#
# `torch.from_numpy(...)`, and then `permute(2, 0, 1)`: the channels come first. `reshape` would mix them.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
display_figure(plot_fixed(curves["C"], train(posted.run_c(yours("13.3")))))

# %% [markdown]
# The fixed curve begins where the running mean of the posted one never arrives. A loss at the start that is far from
# what the pretrained model should have is a diagnostic too, and it is free.
#
# ## D: flat again
#
# *"To save memory I train in bfloat16, at the rate that everybody takes for fine-tuning. Hundreds of steps, and
# nothing. In float32 it works."* You find it in [`CausVid #19`](https://github.com/tianweiy/CausVid/issues/19), and
# the explanation in [`ao #1124`](https://github.com/pytorch/ao/pull/1124).
#
# There is no adapter here: the poster trains the last matrix of CLIP's tower. What if both diagnostics say that all is
# well? Then the last step is left: the optimizer adds something to each parameter. Does the parameter change?


# %%
def moved(run: posted.Run, steps: int = 2) -> str:
    """The fraction of trained parameters whose value has changed, and the largest change.

    After two steps, since the gradient of `A` is zero in the first.
    """
    learns = [tensor for tensor in run.model.parameters() if tensor.requires_grad]
    before = [tensor.detach().clone() for tensor in learns]
    train(dataclasses.replace(run, batches=run.batches[:steps]))
    pairs = zip(learns, before, strict=True)
    changes = torch.cat([(now.detach() - then).abs().flatten() for now, then in pairs])
    return f"{(changes > 0).float().mean():.0%}, by {changes.max():.1g} at most"


run = posted.run_d()
print("in the optimizer:     ", in_optimizer(run))
print("reached by a gradient:", reached(run))
for steps in (2, 300):
    print(f"moved in {steps} steps:".ljust(22), moved(posted.run_d(), steps))

# %% [markdown]
# A tenth of them, and no more after 300 steps. What holds the others? Guess before you look.

# %%
print(inspect.getsource(posted.lower))
number = torch.tensor(0.07, dtype=torch.bfloat16)
print("0.07 + 0.00002 is 0.07 in bfloat16:", (number + 2e-5 == number).item())

run = posted.run_d()
weight = run.model.tower.weight  # all that is trained
before = weight.detach().clone()
train(run)
for word, some in (("moved:", weight != before), ("stayed:", weight == before)):
    print(word.ljust(8), f"half of them began below {before[some].abs().float().median():.4f}")

# %% [markdown]
# A bfloat16 has eight bits of precision (seven stored), so around 0.07 the next number is more than twenty steps away.
# Each step is rounded away, the next one too, and more steps do not help. The few that move began near zero, where the
# next number is closer.
#
# ### Exercise 13.4 · What is trained is float32
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Only what is *trained* has to be float32, and with an adapter that is next to nothing. Let parameters that require
# a gradient be float32, without rounding them on the way, and all others bfloat16. An optimizer that was made before
# must still hold them: change `tensor.data`, so that each parameter stays the same object. Return the model.


# %% tags=["exercise"]
def lower(model: nn.Module) -> nn.Module:
    """Halve the memory of what is frozen.

    Args:
        model: changed in place; some of its parameters require gradients.
    """
    # BEGIN SOLUTION
    for tensor in model.parameters():
        tensor.data = tensor.data.to(torch.float32 if tensor.requires_grad else torch.bfloat16)
    return model
    # END SOLUTION


check("13.4", lower)

# %% [markdown]
# <details><summary>Hint 1: one loop</summary>
#
# Go through `model.parameters()`, and choose the type by `tensor.requires_grad`.
#
# </details>
# <details><summary>Hint 2: the same object</summary>
#
# `tensor.data = tensor.data.to(...)`. `model.to(torch.bfloat16).float()` would not do: what was rounded stays
# rounded.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
display_figure(plot_fixed(curves["D"], train(posted.run_d(yours("13.4")))))
print("moved in 2 steps:", moved(posted.run_d(yours("13.4"))))

# %% [markdown]
# A product of two types is an error. Here it is none, since run D computes its loss
# `with torch.autocast("cpu", torch.bfloat16):`, which rounds both factors; you need that line too. It is called mixed
# precision. `inject` makes its pairs in float32 even in a bfloat16 model, and diffusers has a function like yours,
# [`cast_training_params`](https://github.com/huggingface/diffusers/pull/6553). A fresh `B` hides this fault, by the
# way: numbers near zero can take small steps.
#
# ## E: flat, once more
#
# *"I train a LoRA with a script that has always worked, on few pictures this time. The loss barely moves."* The
# script has a warm-up, and its length was chosen for somebody else's run:
# [`sd_dreambooth_extension #557`](https://github.com/d8ahazard/sd_dreambooth_extension/pull/557) sets the default of
# 500 steps to zero because of the confusion that it caused.
# <!-- from that change: 500 -->
#
# Ask for the rate that the optimizer really uses, at every step. Ask a fresh run: the question advances its schedule.


# %%
def rates(run: posted.Run) -> list[float]:
    """The rate of each step; nothing is trained."""
    found = []
    for _ in run.batches:
        found.append(run.optimizer.param_groups[0]["lr"])
        run.optimizer.step()  # there are no gradients, so it changes nothing
        run.schedule.step()
    return found


run, found = posted.run_e(), rates(posted.run_e())
print("in the optimizer:     ", in_optimizer(run))
print("reached by a gradient:", reached(run))
print("moved in 2 steps:     ", moved(run))
print(f"asked for: {posted.RATE}, first step: {found[0]:.6f}, last step: {found[-1]:.6f}")

# %% [markdown]
# All parameters move, but by next to nothing, and the rate says why. Where does such a rate come from?

# %%
print(inspect.getsource(posted.share_of_rate))

# %% [markdown]
# The run ends long before the warm-up does.
#
# ### Exercise 13.5 · A warm-up that fits the run
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●○○ | 4 |
#
# Return the share of the rate in a step. It rises in a straight line over the first tenth of the run, rounded down,
# but at least one step: the first step has more than zero, the last of the warm-up all of it, and so has every later
# one.


# %% tags=["exercise"]
def share_of_rate(step: int, steps: int) -> float:
    """What the rate is multiplied by in a step.

    Args:
        step: from 0.
        steps: of the run.
    """
    # BEGIN SOLUTION
    warm_up = max(1, steps // 10)
    return min(1.0, (step + 1) / warm_up)
    # END SOLUTION


check("13.5", share_of_rate)

# %% [markdown]
# <details><summary>Hint 1: how long?</summary>
#
# `steps // 10` rounds down, and is 0 in a run of nine steps. `max(1, ...)` mends that.
#
# </details>
# <details><summary>Hint 2: the line</summary>
#
# `(step + 1) / warm_up` is 1 in the last step of the warm-up. `min(1.0, ...)` keeps it from rising on.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
display_figure(plot_fixed(curves["E"], train(posted.run_e(yours("13.5")))))

# %% [markdown]
# ## All diagnostics, all runs
#
# None of them trains more than two steps. So run them all on every run, before the first long training. In which
# column does each letter stand out?


# %%
def diagnose(make: Callable[[], posted.Run]) -> dict[str, str]:
    """Four answers about a run, which is made twice: one of them advances its schedule."""
    run, fresh = make(), make()
    used = rates(fresh) if fresh.schedule else [fresh.optimizer.param_groups[0]["lr"]]
    return {
        "in the optimizer": in_optimizer(run),
        "reached by a gradient": reached(run),
        "moved in 2 steps": moved(run),
        "largest rate": f"{max(used):g}",
    }


table = pd.DataFrame({name: diagnose(make) for name, make in makers.items()}).T
table["wrong"] = ["", "order", "checkpoint", "pixels", "bfloat16", "warm-up"]
display(table)

# %% [markdown]
# C stands out nowhere: its loop is right. Its picture is the fifth diagnostic.
#
# The field's usual check asks the whole loop at once: can the run *overfit one batch*? Which letters will it miss?

# %%
for name, make in makers.items():
    run = make()
    losses = train(dataclasses.replace(run, batches=len(run.batches) * run.batches[:1]))
    print(f"{name:8} {losses[0]:.2f} to {losses[-1]:.2f}")

# %% [markdown]
# A stays where it is (so the drift of its curve was the order of its batches), D and E nearly: these three it finds. It
# misses B, whose class vectors learn the batch by heart, and C, which more than halves its loss, by little more than the boxes. The check
# tests the loop, not what goes in, nor which part learns.
#
# | What you see | Diagnostic | What it shows |
# |---|---|---|
# | flat, up and down with the batches | compare `id`s with the optimizer's groups | what is never stepped |
# | it falls, but no lower than a head alone | is `grad` None, for each kind of tensor? | what no gradient reaches |
# | it starts too high, and stays there | undo the normalisation, and look | what the model sees |
# | flat in bfloat16 | the fraction of parameters that two steps change | steps that are rounded away |
# | flat, or falling at the very end | the rate at every step | a schedule that does not fit |
# | up, or wildly up and down | the same run at a tenth of the rate | a rate that is too high |
# | `nan` | `torch.isfinite(loss)` at every step | the batch and the step where it begins |
# | another answer for the same picture each time | `model.training` | a forgotten `model.eval()` |
# | training falls, tests get worse (if not plain overfitting) | show some pictures with *their* labels | shuffled pairs, as in [`diffusers #14430`](https://github.com/huggingface/diffusers/issues/14430) |
# | the loss stays, accuracy rises | is the loss of right, sure scores near zero? | a wrong scale, as in [`transformers #13430`](https://github.com/huggingface/transformers/issues/13430), or a softmax too many |
# | after loading as before training | is `B` zero in the loaded model? | names that did not match, as in [`peft #2115`](https://github.com/huggingface/peft/issues/2115) |

# %% [markdown]
# ## Quiz
#
# **1. A colleague's run is flat, and all tensors are in the optimizer and get gradients. What do you ask next?**
#
# <details><summary>Answer</summary>
#
# What fraction of the parameters two steps change, and by how much. Few of them: rounding. All, by next to nothing: the
# rate. All, as usual: look at what enters the model.
#
# </details>
#
# **2. Can a model overfit one batch of sixteen pictures, if their labels are shuffled?**
#
# <details><summary>Answer</summary>
#
# Yes: sixteen wrong labels can be learned by heart like sixteen right ones. Overfitting one batch tests the loop,
# from loss to weights. It says nothing about the data.
#
# </details>
#
# **3. Why does B's curve fall at all, and why would the same bug have raised an error without the class vectors?**
#
# <details><summary>Answer</summary>
#
# They are outside the checkpoints and learn. Without them nothing that is trained would reach the loss, and
# `backward` says so: "element 0 of tensors does not require grad".
#
# </details>

# %% [markdown]
# ## What to remember
#
# - These loops broke in five places: what goes in, the gradient, the optimizer, the change, the rate. Each has a
#   diagnostic of a few lines.
# - Curves that look alike can have different causes. Do not search for a rate before the diagnostics have passed.
# - Silent faults sit where two right pieces meet: an order, a range, a type, a length.
# - Keep the diagnostics, and post their output with your curve.
#
# Back to [lesson 12](12_your_own.ipynb): run them on your own model.
