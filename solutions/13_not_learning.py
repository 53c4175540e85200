# %% [markdown]
# # 13 · It does not learn
#
# Sooner or later it happens to everybody: the script runs, no error comes, the GPU is warm, and the model does not
# learn. You ask in an issue, and post your curve. In this lesson you are the one who answers. Seven people have posted
# a run each, and each run is broken. In the first four a **diagnostic**, a few lines that ask one question, shows where,
# and you mend the broken function. The last three you diagnose alone, and one of them is broken twice. (The words and
# the runs are ours. The threads are real.)

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import dataclasses
import inspect
from collections import Counter
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
# curves that are the same, number for number.

# %%
no_fault = "B"  # your guess: one letter
nothing_trained = "D"  # your guess: one letter, or several
same = [name for name, losses in curves.items() if losses == curves["A"]]
print(f"no fault: H; your guess: {no_fault}")
print(f"one curve, batch for batch: {', '.join(same)}; your guess: {nothing_trained}")

# %% [markdown]
# B, which looks best, is broken like the others. A, E and F are one curve: nothing is trained, as the table of all
# runs will show, and no two of them have the same set of faults. A curve does not show *what* is wrong, and not always
# *that* something is. A diagnostic says where to look.
#
# ## A: flat
#
# *"I add an adapter to a model that I used to fine-tune, and the loss only goes up and down with the batches. All
# parameters of the adapter have `requires_grad=True`, and they get gradients, too."* You find it in
# [`adapters #260`](https://github.com/adapter-hub/adapters/issues/260), and in
# [`peft #1303`](https://github.com/huggingface/peft/issues/1303) a second adapter that does not train.
#
# Gradients alone move nothing. The optimizer does, so ask it what it holds. Two tensors with the same values are two
# tensors, so `id` compares the objects.


# %%
def held(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """How many of the trained tensors the optimizer holds."""
    stepped = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    learns = [id(tensor) for tensor in model.parameters() if tensor.requires_grad]
    return f"{len(stepped.intersection(learns))} of {len(learns)}"


for name in "HA":
    run = makers[name]()
    print(f"{name}: the optimizer holds {held(run.model, run.optimizer)}")

# %% [markdown]
# None of 12. This is the function that makes the optimizer. Where is the fault?

# %%
print(inspect.getsource(posted.optimizer_of))

# %% [markdown]
# ### Exercise 13.1 · An optimizer that holds the pairs
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 6 |
#
# Write the function anew. It holds what is trained and nothing that is frozen.


# %% tags=["exercise"]
def optimizer_of(model: nn.Module, config: SerialLoRAConfig, lr: float) -> torch.optim.Optimizer:
    """Put the adapter in, and return an AdamW that trains it at this rate."""
    # BEGIN SOLUTION
    inject(model, config)
    learns = [tensor for tensor in model.parameters() if tensor.requires_grad]
    return torch.optim.AdamW(learns, lr=lr)
    # END SOLUTION


check("13.1", optimizer_of)

# %% [markdown]
# <details><summary>Hint 1: when</summary>
#
# `torch.optim.AdamW` makes its list of tensors when it is called, and never looks at the model again. What is in the
# model at that moment?
#
# </details>
# <details><summary>Hint 2: which</summary>
#
# `inject` sets `requires_grad` of every parameter: false for the base, true for the pairs.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_optimizer_of = yours("13.1")
run = posted.run_a(my_optimizer_of)
print(f"the optimizer holds {held(run.model, run.optimizer)}")
mended = {"A": train(run)}
display_figure(plot_fixed(curves["A"], mended["A"]))

# %% [markdown]
# As posted, the optimizer got its list *before* `inject` added the pairs and froze the rest. It held the frozen base,
# found no gradient there, and stepped nothing, without a word. The same happens to whatever is made after the optimizer:
# a new head, a second adapter, a model that was built again.
#
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
# The next diagnostic counts that for each kind of tensor, which is the last part of its name. A gradient of zeros has
# arrived: `A` gets one in the first step, because `B` is zero.


# %%
def reached(model: nn.Module) -> str:
    """How many trained tensors of each kind have a gradient, after `backward`."""
    learns = [(n.rpartition(".")[2], p) for n, p in model.named_parameters() if p.requires_grad]
    kinds = Counter(kind for kind, _ in learns)
    there = Counter(kind for kind, tensor in learns if tensor.grad is not None)
    return ", ".join(f"{kind} {there[kind]} of {total}" for kind, total in kinds.items())


def ask(run: posted.Run) -> None:
    """Print what the first two diagnostics say of a run."""
    print("in the optimizer:     ", held(run.model, run.optimizer))
    run.loss(run.batches[0]).backward()
    print("reached by a gradient:", reached(run.model))
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
# does this course's library, but logs are long. (Here it is silenced.)
#
# ### Exercise 13.2 · Little memory, and a gradient
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Mend the function. A gradient reaches the pairs of every block, and it still saves the memory: each block runs twice,
# once forward and once on the way back.


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
# Or the tokens could need a gradient, although nobody uses it. What does `enable_input_require_grads` of transformers
# do?
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
ask(posted.run_b(yours("13.2")))
mended["B"] = train(posted.run_b(yours("13.2")))
display_figure(plot_fixed(curves["B"], mended["B"]))

# %% [markdown]
# The kind that is not reentrant notes what the block computes, whatever its inputs need. Vectors and adapter together
# end lower than the vectors alone, in this run. A falling curve makes few people suspicious, so run the diagnostic
# before *every* long training.
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


# %%
def entering(part: nn.Module, call: Callable[[], object]) -> Tensor:
    """What a part of a model is given first while something is called; leaves no hook behind."""
    given: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    call()
    hook.remove()
    return given[0]


run = posted.run_c()
ask(run)
sam, loaded = run.model, run.batches[0][0].picture  # (3, h, w)
entered = entering(sam.image_encoder, lambda: run.loss(run.batches[0]))  # (B, 3, H, W)
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
# ### Exercise 13.3 · Pixels in SAM's range
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●○○ | 6 |
#
# Mend the function, for any picture that Pillow opens, a grey one too.


# %% tags=["exercise"]
def pixels_of(picture: Image.Image) -> Tensor:
    """A picture for SAM, which subtracts its mean colour itself: (3, h, w), red, green and blue."""
    # BEGIN SOLUTION
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    # END SOLUTION


check("13.3", pixels_of)

# %% [markdown]
# <details><summary>Hint 1: which range</summary>
#
# What is subtracted is printed above. In which range of numbers are these three the mean of a photograph?
#
# </details>
# <details><summary>Hint 2: which shape</summary>
#
# `np.array` of a Pillow picture in the mode "RGB" is (h, w, 3), of one in the mode "L" (h, w).
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
mended["C"] = train(posted.run_c(yours("13.3")))
display_figure(plot_fixed(curves["C"], mended["C"]))
print(f"first step: {curves['C'][0]:.2f} as posted, {mended['C'][0]:.2f} mended")

# %% [markdown]
# `to_tensor` gives numbers from 0 to 1, and SAM, which expects 0 to 255, subtracts its mean colour (124, 116, 104). So
# all of a picture lay within one of its 255 steps, and to SAM that is black. An input that is normalised twice, or
# whose channels are exchanged, is found in the same way.
#
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


# %%
def moved(model: nn.Module, steps: Callable[[], object]) -> str:
    """The fraction of trained parameters that some steps change, and the largest change."""
    learns = [tensor for tensor in model.parameters() if tensor.requires_grad]
    before = [tensor.detach().clone() for tensor in learns]
    steps()
    pairs = zip(learns, before, strict=True)
    changes = torch.cat([(now.detach() - then).abs().flatten() for now, then in pairs])
    return f"{(changes > 0).float().mean():.0%}, by {changes.max():.1g} at most"


def after(run: posted.Run, steps: int = 2) -> str:
    """What some steps move. After one, `A` would have stayed: its first gradient is zero."""
    few = dataclasses.replace(run, batches=run.batches[:steps])
    return moved(run.model, lambda: train(few))


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
# ### Exercise 13.4 · Steps that are not rounded away
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Mend the function. What is *trained* is float32, and with an adapter that is next to nothing. What is frozen is
# bfloat16. Each parameter stays the object that it was, since an optimizer may hold it.


# %% tags=["exercise"]
def lower(model: nn.Module) -> nn.Module:
    """Save a model's memory where that harms no step, and return the same model."""
    # BEGIN SOLUTION
    for tensor in model.parameters():
        tensor.data = tensor.data.to(torch.float32 if tensor.requires_grad else torch.bfloat16)
    return model
    # END SOLUTION


check("13.4", lower)

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
my_lower = yours("13.4")
print("moved in 2 steps:", after(posted.run_d(my_lower)))
mended["D"] = train(posted.run_d(my_lower))
display_figure(plot_fixed(curves["D"], mended["D"]))

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
# steps a parameter moves by about the rate, **however small its gradient is**, as long as it is not zero (and well
# above AdamW's eps). Three of the four diagnostics, on all runs:


# %%
def diagnose(make: Callable[[], posted.Run]) -> dict[str, str]:
    """Three answers about a run."""
    run = make()
    run.loss(run.batches[0]).backward()
    return {
        "in the optimizer": held(run.model, run.optimizer),
        "reached by a gradient": reached(run.model),
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
# Where is each of the three broken? One of them is broken in two places, and in this table the second shows only when
# the first is mended. So mend what you find, and diagnose again, as in `diagnose(lambda:
# posted.run_a(my_optimizer_of))`. The check says what speaks against a wrong answer.
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
print("E with your optimizer, moved in 2 steps:", after(posted.run_e(my_optimizer_of)))
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
# In F the call goes, in G the factor; E needs both its lines mended. All seven, as posted and mended:


# %%
def share_of_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1, steps // 10))


half = train(posted.run_e(my_optimizer_of))
mended["E"] = train(posted.run_e(my_optimizer_of, share_of_rate))
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
tried |= {"C, mended": posted.run_c(yours("13.3")), "D, mended": posted.run_d(my_lower)}
for name, run in tried.items():
    losses = train(dataclasses.replace(run, batches=len(run.batches) * run.batches[:1]))
    print(f"{name:10} {losses[0]:.2f} to {losses[-1]:.2f}")

# %% [markdown]
# It finds A, D, E, F and G: their loss stays high, where H's falls to 0.07. It misses B, whose class vectors learn the
# batch by heart, and C, which more than halves its loss on pictures that are nearly black: only beside the mended C,
# which ends at 0.05, does 0.18 look high. And the mended D, at its low rate, comes no further than 1.46. So keep the
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
