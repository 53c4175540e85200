# %% [markdown]
# # 13 · It does not learn
#
# Sooner or later it happens to everybody: the script runs, no error comes, the GPU is warm, and the model does not
# learn. You ask in an issue, and post your curve. In this lesson you are the one who answers. Seven people have posted
# a run each, and each run is broken. For the first four you write a **diagnostic** each, a few lines that ask one
# question. With these you find what is wrong with the last three, one of which is broken twice. Keep them. (The words
# and the runs are ours. The threads are real.)

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
# ## Eight curves
#
# All go through the same loop, the one below. C cuts stamps out of photographs with our tiny SAM, all others sort
# drawings with our tiny CLIP, as in [lesson 03](03_build_serial_lora.ipynb). The thick line is the mean over the last
# sixth of a run's steps. One of the eight has no fault. Before you look: how would the loss of a run look in which
# *nothing* is trained?


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


makers = {"A": posted.run_a, "B": posted.run_b, "C": posted.run_c, "D": posted.run_d}
makers |= {"E": posted.run_e, "F": posted.run_f, "G": posted.run_g, "H": posted.works}
curves = {name: train(make()) for name, make in makers.items()}

print(f"{posted.STEPS} steps of {posted.BATCH} drawings, rank {posted.RANK}, rate {posted.RATE}")
print(f"C: {posted.SCENES} photographs a step; D: {len(curves['D'])} steps at {posted.LOW_RATE}")
display_figure(plot_curves(curves, apart="C"))

# %% [markdown]
# **Which one has no fault? In which is nothing trained at all?** Set your guesses before you run the cell. It looks for
# curves that are the same number for number.

# %%
NO_FAULT, NOTHING_TRAINED = "B", "D"  # your guesses, in letters
same = [name for name, losses in curves.items() if losses == curves["A"]]
print(f"You: no fault in {NO_FAULT}, nothing trained in {NOTHING_TRAINED}")
print(f"No fault: H. One curve, batch for batch: {', '.join(same)}")

# %% [markdown]
# B, which looks best, is broken like the others. A, E and F are one curve: nothing is trained, as the table of all runs
# will show, and no two of them have the same faults. A curve does not show *what* is wrong, and not always *that*
# something is. A diagnostic says where to look.
#
# ## A: flat
#
# *"I add an adapter to a model that I used to fine-tune, and the loss only goes up and down with the batches. All
# parameters of the adapter have `requires_grad=True`, and they get gradients, too."* You find it in
# [`adapters #260`](https://github.com/adapter-hub/adapters/issues/260), and in
# [`peft #1303`](https://github.com/huggingface/peft/issues/1303) a second adapter that does not train.
#
# Gradients alone move nothing. The optimizer does, so ask it what it holds.
#
# ### Exercise 13.1 · Who is stepped?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 6 |
#
# Count the trained tensors of a model: those that the optimizer holds, and all. Two tensors with the same values are
# two: what counts is the object.


# %% tags=["exercise"]
def held(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, int]:
    """How many of the trained tensors the optimizer holds, and how many there are.

    Args:
        model: what requires a gradient in it is to be trained.
        optimizer: its `param_groups` are dictionaries, each with a list under "params".
    """
    # BEGIN SOLUTION
    stepped = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    learns = [id(tensor) for tensor in model.parameters() if tensor.requires_grad]
    return len(stepped.intersection(learns)), len(learns)
    # END SOLUTION


check("13.1", held)

# %% [markdown]
# <details><summary>Hint 1: which object?</summary>
#
# `id(tensor)` is a number that no other object has. `tensor in some_list` compares values, if it can.
#
# </details>
# <details><summary>Hint 2: two collections</summary>
#
# The set of all `id`s in `group["params"]`, for every group of the optimizer, and the list of the `id`s of
# `model.parameters()` that require a gradient. Count what is in both, and the list.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_held = yours("13.1")
for name in "HA":
    run = makers[name]()
    print(name, "{} of {}".format(*my_held(run.model, run.optimizer)))

# %% [markdown]
# None of 12. How can that be? Guess, before you look at the function that makes the optimizer.

# %%
print(inspect.getsource(posted.optimizer_of))

# %% [markdown]
# The optimizer got its list *before* `inject` added the pairs and froze the rest. It holds the frozen base, finds no
# gradient there, and steps nothing, without a word. The same happens to whatever is made after the optimizer: a
# new head, a second adapter, a model that was built again. So the adapter comes first:


# %%
def optimizer_of(model: nn.Module, config: SerialLoRAConfig, lr: float) -> torch.optim.Optimizer:
    inject(model, config)
    learns = [tensor for tensor in model.parameters() if tensor.requires_grad]
    return torch.optim.AdamW(learns, lr=lr)


mended = {"A": train(posted.run_a(optimizer_of))}
display_figure(plot_fixed(curves["A"], mended["A"]))

# %% [markdown]
# ## B: it falls
#
# *"With gradient checkpointing LoRA fits on my card, and it is even faster than without. But in the end it is no
# better than a linear probe."* Faster should make you suspicious: checkpointing runs each block forward twice. In
# [`blog #1824`](https://github.com/huggingface/blog/issues/1824) somebody noticed just that; other threads are
# [`transformers #26221`](https://github.com/huggingface/transformers/issues/26221) and
# [`LoRA #120`](https://github.com/microsoft/LoRA/issues/120).
#
# Here the adapter *and* the vectors of the classes are trained. So go one step back: does a gradient arrive?
#
# ### Exercise 13.2 · What does a gradient reach?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# After `backward`, count for each kind of trained tensor how many a gradient has reached, and how many there are. The
# kind is the last part of the name, `lora_A` of `tower.blocks.0.lora_A`. A gradient of zeros has arrived: `A` gets one
# in the first step, because `B` is zero.


# %% tags=["exercise"]
def reached(model: nn.Module) -> dict[str, tuple[int, int]]:
    """How many trained tensors of each kind have a gradient, and how many there are.

    Args:
        model: after `backward`.

    Returns:
        Kind -> the two counts.
    """
    # BEGIN SOLUTION
    kinds: dict[str, tuple[int, int]] = {}
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            kind = name.rpartition(".")[2]
            there, of = kinds.get(kind, (0, 0))
            kinds[kind] = there + (tensor.grad is not None), of + 1
    return kinds
    # END SOLUTION


check("13.2", reached)

# %% [markdown]
# <details><summary>Hint 1: no gradient</summary>
#
# `tensor.grad` is `None` where no gradient arrived.
#
# </details>
# <details><summary>Hint 2: counting by kind</summary>
#
# `name.rpartition(".")[2]` is the last part of a name. `there, of = kinds.get(kind, (0, 0))` gives what was counted so
# far.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_reached = yours("13.2")


def ask(run: posted.Run) -> None:
    """Print what the first two diagnostics say of a run."""
    print("in the optimizer:     ", "{} of {}".format(*my_held(run.model, run.optimizer)))
    run.loss(run.batches[0]).backward()
    print("reached by a gradient:", my_reached(run.model))
    run.optimizer.zero_grad()


ask(posted.run_b())

# %% [markdown]
# The class vectors learn, alone, and they make the whole curve. (H leaves them as they are, so B and H cannot
# be compared.) What stops the gradient on its way to the pairs?

# %%
print(inspect.getsource(posted.through_blocks))

# %% [markdown]
# A checkpoint of the *reentrant* kind runs its block without gradients, and its output needs one only if an *input*
# does. Behind a frozen stem none does, so the way back ends there, before any pair. PyTorch warns of that once, and so
# does this course's library, but logs are long. (Here it is silenced.) The other kind notes what the block computes,
# whatever its inputs need:


# %%
def through_blocks(blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
    for block in blocks:  # in transformers: gradient_checkpointing_kwargs={"use_reentrant": False}
        tokens = checkpoint(block, tokens, use_reentrant=False)
    return tokens


mended["B"] = train(posted.run_b(through_blocks))
display_figure(plot_fixed(curves["B"], mended["B"]))

# %% [markdown]
# Vectors and adapter together end lower than the vectors alone, in this run. A falling curve makes few
# people suspicious. Run the diagnostic before *every* long training.
#
# ## C: it starts too high
#
# *"I fine-tune SAM. The loss hardly falls. Rate, rank and decay change nothing, and the pictures that I plot from my
# data loader are fine."* The question behind it is
# [`segment-anything #202`](https://github.com/facebookresearch/segment-anything/issues/202), which range SAM's pixels
# have; [kornia's SAM](https://github.com/kornia/tutorials/pull/76) wants them from 0 to 1.
#
# If the two diagnostics find nothing, look at the other end. Not at what the data loader gives, but at **what the
# model sees**.
#
# ### Exercise 13.3 · What enters?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 8 |
#
# Return the tensor that a part of a model is given while something is called; the first, if the part is run several
# times. Leave no trace: afterwards the part has no more hooks than before.


# %% tags=["exercise"]
def entering(part: nn.Module, call: Callable[[], object]) -> Tensor:
    """What a part of a model is given.

    Args:
        part: called with one tensor.
        call: runs the model, to be called once.
    """
    # BEGIN SOLUTION
    given: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    call()
    hook.remove()
    return given[0]
    # END SOLUTION


check("13.3", entering)

# %% [markdown]
# <details><summary>Hint 1: a hook</summary>
#
# `part.register_forward_pre_hook(f)` calls `f(part, inputs)` before each forward pass, with a tuple of inputs. It
# returns something that has `remove()`.
#
# </details>
# <details><summary>Hint 2: the function</summary>
#
# Make an empty list, and let `f` append `inputs[0]` to it. `list.append` returns None, so the hook changes nothing.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
run = posted.run_c()
ask(run)
sam, loaded = run.model, run.batches[0][0].picture  # (3, h, w)
entered = yours("13.3")(sam.image_encoder, lambda: run.loss(run.batches[0]))  # (B, 3, H, W)
entered = entered[0, :, : loaded.shape[1], : loaded.shape[2]].detach()  # the first, unpadded
print(f"enters the encoder: {entered.min():.2f} to {entered.max():.2f}")
print("subtracted before:", *(f"{mean:.0f}" for mean in sam.pixel_mean.flatten()))

seen = (entered * sam.pixel_std + sam.pixel_mean) / 255  # the normalisation undone
both = [each.permute(1, 2, 0).clamp(0, 1) for each in (loaded, seen)]  # (h, w, 3)
display_figure(show_pictures(both, ["from the data loader", "seen by SAM"], size=2.2))

# %% [markdown]
# Black. (The photographs are Tux Paint's stamps, GPL 2 or later, on photographs from scikit-image.) Why?

# %%
print(inspect.getsource(posted.pixels_of))

# %% [markdown]
# `to_tensor` gives numbers from 0 to 1, and SAM, which expects 0 to 255, subtracts its mean colour (124, 116, 104). So
# all of a picture lies within one of its 255 steps, and to SAM that is black. An input that is normalised twice, or
# whose channels are exchanged, is found in the same way. Here the picture needs its own range:


# %%
def pixels_of(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


mended["C"] = train(posted.run_c(pixels_of))
display_figure(plot_fixed(curves["C"], mended["C"]))
print(f"first step: {curves['C'][0]:.2f} as posted, {mended['C'][0]:.2f} mended")

# %% [markdown]
# The mended run's thick line starts lower than the posted one's ever gets. And the first step, before anything is
# trained, already tells: 0.38 where the same model, seeing the same pictures, has 0.23. So the loss at the start is a
# diagnostic too, and it is free.
#
# ## D: flat again
#
# *"To save memory I train in bfloat16, at the learning rate that everybody takes for fine-tuning. Hundreds of steps,
# and nothing. In float32 it works."* You find it in [`CausVid #19`](https://github.com/tianweiy/CausVid/issues/19), and
# the explanation in [`ao #1124`](https://github.com/pytorch/ao/pull/1124).
#
# There is no adapter here: the poster trains the last matrix of CLIP's tower. What if the first two diagnostics say
# that all is well? Then the last step is left: the optimizer adds something to each parameter. Does it change?
#
# ### Exercise 13.4 · What moves, and how far?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Take some steps. Return the fraction of trained parameters whose value has changed, all tensors' together, and the
# largest change, up or down.


# %% tags=["exercise"]
def moved(model: nn.Module, steps: Callable[[], object]) -> tuple[float, float]:
    """The fraction of trained parameters that some steps change, and the largest change.

    Args:
        model: what requires a gradient in it is trained.
        steps: takes the steps, to be called once.
    """
    # BEGIN SOLUTION
    learns = [tensor for tensor in model.parameters() if tensor.requires_grad]
    before = [tensor.detach().clone() for tensor in learns]
    steps()
    pairs = zip(learns, before, strict=True)
    changes = torch.cat([(now.detach() - then).abs().flatten() for now, then in pairs])
    return (changes > 0).float().mean().item(), changes.max().item()
    # END SOLUTION


check("13.4", moved)

# %% [markdown]
# <details><summary>Hint 1: before</summary>
#
# `tensor.detach()` shares its memory with the tensor, so it would change with it: `clone()` it.
#
# </details>
# <details><summary>Hint 2: all together</summary>
#
# `torch.cat` of the flattened absolute changes of all tensors. `(changes > 0).float().mean()` is a fraction.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_moved = yours("13.4")


def after(run: posted.Run, steps: int = 2) -> str:
    """What some steps move. After one, `A` would have stayed: its first gradient is zero."""
    few = dataclasses.replace(run, batches=run.batches[:steps])
    share, most = my_moved(run.model, lambda: train(few))
    return f"{share:.0%}, by {most:.1g} at most"


ask(posted.run_d())
for steps in (2, 300):
    print(f"moved in {steps} steps:".ljust(22), after(posted.run_d(), steps))
print(inspect.getsource(posted.lower))
(weights,) = posted.run_d().optimizer.param_groups[0]["params"]
usual = weights.detach().abs().median()  # in bfloat16
gap = (torch.nextafter(usual, 2 * usual) - usual).item()
print(f"half of the weights are above {usual:.3f}; the next number is {gap:.5f} away,")
print(f"or {gap / posted.LOW_RATE:.0f} steps. One is rounded away:", (usual + 2e-5 == usual).item())

# %% [markdown]
# 9% move, and no more after 300 steps. A bfloat16 has eight bits of precision (seven stored), so from a usual weight
# the next number is 12 steps away. Each step is rounded away, and the next one too. Near zero numbers are closer, and
# there a few move. (So a fresh `B` hides this fault.)
#
# Only what is *trained* has to be float32, and with an adapter that is next to nothing:


# %%
def lower(model: nn.Module) -> nn.Module:
    for tensor in model.parameters():  # .data: each stays the object that the optimizer holds
        tensor.data = tensor.data.to(torch.float32 if tensor.requires_grad else torch.bfloat16)
    return model


mended["D"] = train(posted.run_d(lower))
display_figure(plot_fixed(curves["D"], mended["D"]))
print("moved in 2 steps:", after(posted.run_d(lower)))

# %% [markdown]
# A matrix product of float32 and bfloat16 is an error, except under autocast: run D computes its loss `with
# torch.autocast("cpu", torch.bfloat16):`, which rounds both factors; you need that line too. It is called mixed
# precision. `inject` makes its pairs in float32 even in a bfloat16 model, and diffusers has a function like this one,
# [`cast_training_params`](https://github.com/huggingface/diffusers/pull/6553).
#
# ## E, F and G: yours
#
# E: *"The script has always worked. New are the LoRA, and that I have few pictures. No rate helps."*
#
# F: *"I cleared my adapter, to train it anew from the pretrained model. Now it stays there."*
#
# G: *"My colleague's script, with her rate. She takes one picture a step, and I have room for 16. My loss rises first,
# and then gets stuck."*
#
# The three ask for a rate of 0.003. You need one fact: AdamW divides each gradient by its usual size, so in the first
# steps a parameter moves by about the rate, **however small its gradient is**, as long as it is not zero. Three of your
# four, on all runs:


# %%
def diagnose(make: Callable[[], posted.Run]) -> dict[str, str]:
    """Three answers about a run."""
    run = make()
    run.loss(run.batches[0]).backward()
    counts = my_reached(run.model).items()
    return {
        "in the optimizer": "{} of {}".format(*my_held(run.model, run.optimizer)),
        "reached by a gradient": ", ".join(f"{kind} {n} of {of}" for kind, (n, of) in counts),
        "moved in 2 steps": after(run),
    }


display(pd.DataFrame({name: diagnose(make) for name, make in makers.items()}).T)

# %% [markdown]
# ### Exercise 13.5 · Three diagnoses
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Where is each of the three broken? One of them is broken in two places, and the second shows only when the first is
# mended. So mend what you find, and diagnose again, as in `diagnose(lambda: posted.run_a(optimizer_of))`. The check
# says what speaks against a wrong answer.
#
# | Word | What it means |
# |---|---|
# | `"optimizer"` | it does not hold what is trained |
# | `"gradient"` | none arrives |
# | `"input"` | the model sees something else than you think |
# | `"format"` | steps are rounded away |
# | `"start"` | the pairs have values from which no gradient can move them |
# | `"low rate"`, `"high rate"` | it is not the rate that was asked for |


# %% tags=["exercise"]
def diagnosis() -> dict[str, set[str]]:
    """Where E, F and G are broken: letter -> one or two of the words."""
    # BEGIN SOLUTION
    return {"E": {"optimizer", "low rate"}, "F": {"start"}, "G": {"high rate"}}
    # END SOLUTION


check("13.5", diagnosis)

# %% [markdown]
# <details><summary>Hint 1: which column?</summary>
#
# From the left, the first that differs from H's. In the last: at 0.003, how far should two steps move a
# parameter? Whoever mended a run reads its row again.
#
# </details>
# <details><summary>Hint 2: nothing at all</summary>
#
# In one run the optimizer holds everything, a gradient reaches everything, and nothing moves. What if the gradients
# are zeros? The gradient of `A` has `B` as a factor, and the gradient of `B` has `A`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)
#
# Run and open what follows when your check has passed.

# %%
for broken in (posted.share_of_rate, posted.start, posted.scaled):
    print(inspect.getsource(broken))

run = posted.run_f()
run.loss(run.batches[0]).backward()
pairs = [tensor for tensor in run.model.parameters() if tensor.requires_grad]
print("F, largest gradient:", max(tensor.grad.abs().max().item() for tensor in pairs))
print("E with the optimizer of A's fix, moved in 2 steps:", after(posted.run_e(optimizer_of)))
for name in "HEG":
    print(name, "steps at a rate of", f"{makers[name]().optimizer.param_groups[0]['lr']:g}")

# %% [markdown]
# <details><summary>What was wrong</summary>
#
# **E**: the optimizer was made before the adapter, as in A. And the warm-up is longer than the run, so the rate never
# comes near 0.003. While nothing is stepped, what moves cannot show that. The optimizer's own rate can, above: a
# fifth diagnostic, of one line, and it shows G's fault too. [`sd_dreambooth_extension
# #557`](https://github.com/d8ahazard/sd_dreambooth_extension/pull/557) sets the same default of 500 steps to zero
# because of the confusion that it caused.
# <!-- from that change: 500 -->
#
# **F**: `A` and `B` are both zero. Each is a factor of the other's gradient, so both stay zero for ever. It happened in
# [`SkyRL #852`](https://github.com/NovaSky-AI/SkyRL/pull/852), where an adapter's place was cleared and used again. One
# of the two has to be random.
#
# **G**: the rate is multiplied by the size of the batch. Many scripts offer that, and one did it twice:
# [`diffusers #3224`](https://github.com/huggingface/diffusers/issues/3224). In
# [`timm #2125`](https://github.com/huggingface/pytorch-image-models/issues/2125) the poster expects a warm-up's small
# rate in the first step, and finds the full one: again, print it.
#
# </details>
#
# In F and G one line goes; E needs both its lines mended. All seven, as posted and mended:


# %%
def share_of_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1, steps // 10))


half = train(posted.run_e(optimizer_of))
mended["E"] = train(posted.run_e(optimizer_of, share_of_rate))
mended["F"] = train(posted.run_f(lambda pairs: None))
mended["G"] = train(posted.run_g(lambda rate, batch: rate))

display_figure(plot_curves(curves, apart="C", mended=mended, half={"E": half}))
ends = {  # the mean over the last sixth of a run
    title: {name: f"{np.mean(losses[-(len(losses) // 6) :]):.2f}" for name, losses in runs.items()}
    for title, runs in (("as posted", curves), ("mended", mended))
}
display(pd.DataFrame(ends).T.fillna(""))

# %% [markdown]
# Mended, A, F and G end where H does, at 0.72. With one fault mended E's curve is nearly what it was, although the
# repair was right. So diagnose again after each.
#
# ## Keep them
#
# The field's usual check asks the whole loop at once: can the run *overfit one batch*? Which letters will it miss?

# %%
tried = {name: make() for name, make in makers.items()}
tried |= {"C, mended": posted.run_c(pixels_of), "D, mended": posted.run_d(lower)}
for name, run in tried.items():
    losses = train(dataclasses.replace(run, batches=len(run.batches) * run.batches[:1]))
    print(f"{name:10} {losses[0]:.2f} to {losses[-1]:.2f}")

# %% [markdown]
# It finds A, D, E, F and G: their loss stays high, where H's falls to 0.07. It misses B, whose class vectors learn the
# batch by heart, and C, which more than halves its loss on pictures that are nearly black: only beside the mended C,
# which ends at 0.05, does 0.18 look high. And the mended D, at its low rate, comes no further than 1.46. So keep your
# four, and the printed rate, beside it.
#
# Other symptoms need other lines:
#
# | What you see | Diagnostic | What it shows |
# |---|---|---|
# | `nan` | `torch.isfinite(loss)` at every step | the batch and the step where it begins |
# | another answer for the same picture each time | `model.training` | a forgotten `model.eval()` |
# | training falls, tests get worse (if not plain overfitting) | show some pictures with *their* labels | shuffled pairs, as in [`diffusers #14430`](https://github.com/huggingface/diffusers/issues/14430) |
# | after loading as before training | is `B` zero in the loaded model? | names that did not match, as in [`peft #2115`](https://github.com/huggingface/peft/issues/2115) |

# %% [markdown]
# ## Quiz
#
# **1. A colleague's run is flat, and all tensors are in the optimizer and get gradients. What do you ask next?**
#
# <details><summary>Answer</summary>
#
# What fraction of the parameters two steps change, and by how much. Few of them: most likely rounding. None: most
# likely gradients of zeros. All, by much less than the rate: the schedule. All, as usual: look at what enters the
# model, and at labels and loss.
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
# - Curves that look alike can have different causes, and one fault can hide another. Do not search for a rate before the
#   diagnostics have passed.
# - Keep the diagnostics, and post their output with your curve.
#
# Back to [lesson 12](12_your_own.ipynb): run them on your own model.
