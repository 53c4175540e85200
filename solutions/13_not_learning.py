# %% [markdown]
# # 13 · It does not learn
#
# Sooner or later it happens to everybody: the script runs, no error comes, and the model does not learn. In this lesson
# you answer seven people who have posted such a run. **How do you find the place where a run is broken?** You ask it
# with **diagnostics**, functions of a few lines. You write one of them, mend three broken functions, and diagnose the
# last three runs alone. (The threads are real, the words and the runs are ours.)

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import dataclasses
import inspect
import math
from collections import Counter
from collections.abc import Callable
from itertools import permutations

import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.transforms.functional import pil_to_tensor

from serial_lora import SerialLoRAConfig, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.lessons.l13_not_learning import figures, posted
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_figure

lesson_card("13")

# %% [markdown]
# ## H: a run that learns
#
# H has no fault. It trains an adapter in our tiny CLIP to sort drawings into eight classes, as in
# [lesson 03](03_build_serial_lora.ipynb). The loop `train` serves all our runs. **Chance** is the loss of a model that
# finds all classes equally likely.


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
run = posted.works()
pictures, labels = run.batches[0]
sure, named = run.model(pictures).detach().softmax(1).max(1)
print(f"before training: {(named == labels).sum()} of {len(labels)} right, {sure.mean():.0%} sure")
healthy, chance = train(run), math.log(len(run.model.classes))
print(
    f"loss: chance {chance:.2f}, first step {healthy[0]:.2f}, last sixth {figures.last(healthy):.2f}"
)
print(f"{posted.STEPS} steps of {posted.BATCH} drawings, rank {posted.RANK}, rate {posted.RATE}")

# %% [markdown]
# H ends at 0.72, far below chance. It starts above chance because the pretrained model is too sure of itself: it names
# 5 of 16 drawings correctly, but with a confidence of 61%.
#
# Ask this healthy run two questions. `held` counts the trained tensors that the optimizer holds, and `reached` counts
# those that a gradient has reached.


# %%
def held(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """How many of the trained tensors the optimizer holds, object by object."""
    stepped = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    learns = [id(tensor) for tensor in model.parameters() if tensor.requires_grad]
    return f"{len(stepped.intersection(learns))} of {len(learns)}"


def reached(model: nn.Module) -> str:
    """How many trained tensors of each kind have a gradient, after `backward`."""
    learns = [(n.rpartition(".")[2], p) for n, p in model.named_parameters() if p.requires_grad]
    kinds = Counter(kind for kind, _ in learns)
    there = Counter(kind for kind, tensor in learns if tensor.grad is not None)
    return ", ".join(f"{kind} {there[kind]} of {total}" for kind, total in kinds.items())


def ask(run: posted.Run) -> None:
    """Print what these two say of a run."""
    run.loss(run.batches[0]).backward()
    print("in the optimizer:     ", held(run.model, run.optimizer))
    print("reached by a gradient:", reached(run.model))


ask(posted.works())

# %% [markdown]
# The optimizer holds all 12 tensors of the adapter, and a gradient reaches each of them. But do they move?
#
# ### Exercise 13.1 · What do two steps move?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# In [`peft #793`](https://github.com/huggingface/peft/issues/793) a tuned model works like its base, and a reader finds
# that `B` is still zero. Write the diagnostic that shows this. It takes some steps, and returns for each trained tensor
# the share of its numbers that changed and the largest change *in rates*, that is, divided by the learning rate.


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
# The mean of a comparison with zero, as numbers, is a share.
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
# its gradient is**, unless it is zero. `B` has taken two full steps and moved by 2.00 rates. `A` has moved by 0.75: its
# first gradient was zero, because `B` was, and AdamW averages over steps. That is why we take two steps.
#
# ## Eight curves
#
# C cuts stamps out of photographs with our tiny SAM, so its loss is another one. D takes more and smaller steps. Thick
# lines are running means over a sixth of a run.

# %%
makers = {"A": posted.run_a, "B": posted.run_b, "C": posted.run_c, "D": posted.run_d}
makers |= {"E": posted.run_e, "F": posted.run_f, "G": posted.run_g, "H": posted.works}
curves = {name: train(make()) for name, make in makers.items() if name != "H"} | {"H": healthy}
display_figure(figures.plot_curves(curves, healthy="H", chance=chance, apart="C"))
same = [name for name, losses in curves.items() if losses == curves["A"]]
print("the same curve, number for number:", *same)

# %% [markdown]
# B looks best. A, E and F are the same curve, with different faults. **How much of each run is trained?** Rank the
# seven before you run the cell.

# %%
ranking = "BGCDAEF"  # your guess: from the largest share that two steps change to the smallest

rows = {}
for name, make in makers.items():
    run = make()
    found = after(run)
    tensors = {n: run.model.get_parameter(n) for n in found}
    lost = {n for n, tensor in tensors.items() if tensor.grad is None}
    changed = sum(found[n][0] * tensor.numel() for n, tensor in tensors.items())
    rows[name] = found, lost, changed / sum(tensor.numel() for tensor in tensors.values())
display_figure(figures.plot_moved(rows))

shares = {name: round(row[2], 2) for name, row in rows.items()}
pairs = [(one, two) for one, two in permutations("ABCDEFG", 2) if shares[one] > shares[two]]
if ranking:
    right = sum(ranking.find(one) < ranking.find(two) for one, two in pairs)
    print(f"your ranking has {right} of {len(pairs)} pairs in the right order")

# %% [markdown]
# Each mark is a trained tensor. Compare the rows with H's. In A, E and F nothing moves. In B, which has the best curve,
# only the class vectors move, 4% of the trained numbers. In D it is 9%, and C looks like H. This figure shows *what*
# happens in a run. Now find out *why*.
#
# ## A: nothing moves
#
# *"I add an adapter to a model that I used to fine-tune, and the loss only goes up and down with the batches. All
# parameters of the adapter have `requires_grad=True`, and they get gradients."*
# ([`adapters #260`](https://github.com/adapter-hub/adapters/issues/260),
# [`peft #1303`](https://github.com/huggingface/peft/issues/1303))
#
# It is the optimizer that moves tensors, so ask which ones it holds.

# %%
run = posted.run_a()
ask(run)
stepped = [tensor for group in run.optimizer.param_groups for tensor in group["params"]]
print("frozen tensors that the optimizer holds:", sum(not each.requires_grad for each in stepped))
print(inspect.getsource(posted.optimizer_of))

# %% [markdown]
# It holds 81 frozen tensors and none of the 12 trained ones.
#
# ### Exercise 13.2 · An optimizer that holds the pairs
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 6 |
#
# Mend the function: the optimizer holds all that is trained and nothing that is frozen.


# %% tags=["exercise"]
def optimizer_of(model: nn.Module, config: SerialLoRAConfig, lr: float) -> torch.optim.Optimizer:
    """Put the adapter in, and return an AdamW that trains it at this rate."""
    # BEGIN SOLUTION
    inject(model, config)
    learns = [tensor for tensor in model.parameters() if tensor.requires_grad]
    return torch.optim.AdamW(learns, lr=lr)
    # END SOLUTION


check("13.2", optimizer_of)

# %% [markdown]
# <details><summary>Hint 1: when</summary>
#
# `torch.optim.AdamW` lists its tensors when it is called, and never looks at the model again. What is in the model
# then?
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
mended = {}


def mend(name: str, make: Callable[[], posted.Run]) -> None:
    """Train a mended run, and print where it ends."""
    mended[name] = train(make())
    ends = [figures.last(losses[name]) for losses in (curves, mended)]
    print(f"{name}, last sixth: {ends[0]:.2f} as posted, {ends[1]:.2f} mended")


my_optimizer_of = yours("13.2")
ask(posted.run_a(my_optimizer_of))
mend("A", lambda: posted.run_a(my_optimizer_of))

# %% [markdown]
# The posted optimizer got its list *before* `inject` added the pairs and froze the rest. So it found no gradient on
# what it held, and silently stepped nothing. A new head or a second adapter that comes after the optimizer fails in the
# same way.
#
# ## B: only the class vectors move
#
# *"With gradient checkpointing LoRA fits on my card. But in the end it is no better than a linear probe."*
# ([`transformers #26221`](https://github.com/huggingface/transformers/issues/26221),
# [`blog #1824`](https://github.com/huggingface/blog/issues/1824),
# [`LoRA #120`](https://github.com/microsoft/LoRA/issues/120))
#
# The crosses in B's row are its pairs. Ask for their gradients, and read the function that runs the blocks.

# %%
ask(posted.run_b())
moving = [name for name, (share, _) in after(posted.run_b(), posted.STEPS).items() if share]
print(f"moved in {posted.STEPS} steps:", *moving)
print(inspect.getsource(posted.through_blocks))

# %% [markdown]
# No gradient reaches a pair, and 30 steps move the class vectors alone, so the whole curve is theirs. (H does not train
# them, so B and H cannot be compared.)
#
# A *reentrant* checkpoint runs its block without gradients, and its output needs one only if its *input* does. Behind a
# frozen stem no input does, so the way back ends there. PyTorch warns of that (here we silenced it), but logs are long.
#
# ### Exercise 13.3 · Little memory, and a gradient
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Mend the function. A gradient reaches the pairs of every block, and memory is still saved: each block runs twice,
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


check("13.3", through_blocks)

# %% [markdown]
# <details><summary>Hint 1: the other kind</summary>
#
# `help(checkpoint)` says what the kind that is *not* reentrant asks of its inputs.
#
# </details>
# <details><summary>Hint 2: another way</summary>
#
# Or the tokens could need a gradient, although nobody uses it: see `enable_input_require_grads` of transformers.
#
# </details>
#
# Solution: [the solved lesson](../solutions/13_not_learning.ipynb)

# %%
my_through_blocks = yours("13.3")
ask(posted.run_b(my_through_blocks))
mend("B", lambda: posted.run_b(my_through_blocks))

# %% [markdown]
# The other kind of checkpoint notes what a block computes, whatever its inputs need. Vectors and adapter together end
# lower than the vectors alone did. A falling curve makes few people suspicious, so run the diagnostics before *every*
# long training.
#
# ## C: everything moves, as in H
#
# *"I fine-tune SAM. The loss hardly falls. Rate, rank and decay change nothing, and the pictures that I plot from my
# data loader are fine."* ([`segment-anything #202`](https://github.com/facebookresearch/segment-anything/issues/202)
# asks for the range of SAM's pixels; [kornia's SAM](https://github.com/kornia/tutorials/pull/76) takes 0 to 1.)
#
# In C's row tensors are held, reached and moved as in H's, so the fault comes earlier. Look at the other end, at
# **what the model sees**. `entering` catches what a part of a model is given.


# %%
def entering(part: nn.Module, call: Callable[[], object]) -> Tensor:
    """What a part of a model is given first while something is called; leaves no hook behind."""
    given: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    call()
    hook.remove()
    return given[0]


run = posted.run_c()
sam, loaded = run.model, run.batches[0][0].picture  # (3, h, w)
entered = entering(sam.image_encoder, lambda: run.loss(run.batches[0]))  # (B, 3, H, W)
entered = entered[0, :, : loaded.shape[1], : loaded.shape[2]].detach()  # the first, unpadded
print(f"enters the encoder: {entered.min():.2f} to {entered.max():.2f}")
print("subtracted before:", *(f"{mean:.0f}" for mean in sam.pixel_mean.flatten()))

seen = (entered * sam.pixel_std + sam.pixel_mean) / 255  # the normalisation undone
both = [each.permute(1, 2, 0).clamp(0, 1) for each in (loaded, seen)]  # (h, w, 3)
display_figure(show_pictures(both, ["from the data loader", "seen by SAM"], size=2.2))

# %% [markdown]
# SAM sees black. Here are the function that makes the pixels, and the run with `pil_to_tensor` in its place. (The
# pictures are Tux Paint's stamps, GPL 2 or later, on photographs from scikit-image.)

# %%
print(inspect.getsource(posted.pixels_of))
mend("C", lambda: posted.run_c(pil_to_tensor))
print(f"C, first step: {curves['C'][0]:.2f} as posted, {mended['C'][0]:.2f} mended")

# %% [markdown]
# SAM expects 0 to 255 and subtracts its mean colour. `to_tensor` gives 0 to 1, so the whole picture lies within one of
# the 255 steps, and that is black. Before any training the loss is 0.23 in place of 0.38. From there it hardly falls,
# to 0.19, so wait for the last figure to see whether C learns.
#
# ## D: 9% of the weights move
#
# *"To save memory I train in bfloat16, at the learning rate that everybody takes for fine-tuning. Hundreds of steps,
# and nothing. In float32 it works."* ([`CausVid #19`](https://github.com/tianweiy/CausVid/issues/19);
# [`ao #1124`](https://github.com/pytorch/ao/pull/1124) explains it.)
#
# The poster trains the last matrix of CLIP's tower. Which of its weights move? Up to the dashed line, a step is more
# than half of the way to bfloat16's next number.

# %%
print(inspect.getsource(posted.lower))
run = posted.run_d()
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
# Left of the line almost all weights move, and right of it almost none. A bfloat16 has eight bits of precision, so its
# numbers lie farther apart the larger they are. From a usual weight the next number is 12 steps away. One step is
# rounded back to where it began, and so is every later one. A weight that does move jumps to the next number, 1.5 steps
# away, and two jumps make the 3.1 rates of D's row.
#
# ### Exercise 13.4 · Steps that are not rounded away
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Mend the function. What is *trained* becomes float32 (with an adapter that is next to nothing), and what is frozen
# bfloat16. Each parameter stays the same object, since an optimizer may hold it.


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
((share, most),) = after(posted.run_d(my_lower)).values()
print(f"moved in 2 steps: {share:.0%}, by {most:.2f} rates at most")
mend("D", lambda: posted.run_d(my_lower))
print(f"D, all in float32: {figures.last(train(posted.run_d(lambda model: model))):.2f}")
print(inspect.getsource(posted.rounded_loss))

# %% [markdown]
# All weights move now, and the run ends where float32 does. This mixed precision needs `autocast`, which rounds both
# matrices of a product, because PyTorch refuses to multiply float32 by bfloat16. diffusers has a function like yours,
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
# All three ask for a rate of 0.003, as H does. The four diagnostics say:


# %%
def diagnose(make: Callable[[], posted.Run]) -> dict[str, str]:
    """Four answers about a run."""
    run = make()
    entered = entering(run.model.tower, lambda: run.loss(run.batches[0]).backward())
    told = {
        "in the optimizer": held(run.model, run.optimizer),
        "reached by a gradient": reached(run.model),
        "enters the tower": f"{entered.min():.1f} to {entered.max():.1f}",
    }
    changes = [most for _, most in after(run).values()]
    moving = f"{sum(most > 0 for most in changes)} of {len(changes)}"
    return told | {"moved in 2 steps": f"{moving}, by {max(changes):.2g} rates at most"}


display(pd.DataFrame({name: diagnose(makers[name]) for name in "EFGH"}).T)

# %% [markdown]
# ### Exercise 13.5 · Three diagnoses
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# Where is each of the three broken? One has two faults, and the second shows only when the first is mended. So mend and
# ask again, as in `diagnose(lambda: posted.run_a(my_optimizer_of))`.
#
# Your words: `"optimizer"` (it does not hold what is trained), `"gradient"` (none arrives), `"input"` (the model sees
# something else), `"format"` (steps are rounded away), `"start"` (no gradient can move the pairs from their first
# values), `"low rate"` and `"high rate"` (it is not the one that was asked for).


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
# Take the first column from the left in which the run differs from H. After you have mended something, read the new
# row: how far do two steps move H?
#
# </details>
# <details><summary>Hint 2: nothing at all</summary>
#
# In one run all is held and reached, and nothing moves. What if the gradients are zeros? The gradient of `A` has `B` as
# a factor, and the gradient of `B` has `A`.
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
half = diagnose(lambda: posted.run_e(my_optimizer_of))
print("E with your optimizer, moved in 2 steps:", half["moved in 2 steps"])
for name in "HEG":
    print(name, "steps at a rate of", f"{makers[name]().optimizer.param_groups[0]['lr']:g}")

# %% [markdown]
# <details><summary>What was wrong</summary>
#
# **E**: the optimizer was made before the adapter, as in A. Besides, the warm-up is longer than the run, so the rate
# never comes near 0.003. Printing the optimizer's rate is a fifth diagnostic, and shows that at once.
# [`sd_dreambooth_extension #557`](https://github.com/d8ahazard/sd_dreambooth_extension/pull/557) sets the same default
# of 500 steps to zero.
# <!-- from that change: 500 -->
#
# **F**: `A` and `B` are both zero. Each is a factor of the other's gradient, so both stay zero. In
# [`SkyRL #852`](https://github.com/NovaSky-AI/SkyRL/pull/852) an adapter's place was cleared and used again. One of the
# two has to be random.
#
# **G**: the rate is multiplied by the size of the batch. Many scripts offer that, and
# [`diffusers #3224`](https://github.com/huggingface/diffusers/issues/3224) did it twice. In
# [`timm #2125`](https://github.com/huggingface/pytorch-image-models/issues/2125) a warm-up begins with the full rate.
# Printing the rate shows both faults.
#
# </details>


# %%
def share_of_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1, steps // 10))


mend("E", lambda: posted.run_e(my_optimizer_of, share_of_rate))
mend("F", lambda: posted.run_f(lambda pairs: None))
mend("G", lambda: posted.run_g(lambda rate, batch: rate))
ends = {
    name: {"as posted": figures.last(curves[name]), "mended": figures.last(losses)}
    for name, losses in sorted(mended.items())
}
half = figures.last(train(posted.run_e(my_optimizer_of)))
ends["E"] |= {"half mended": half}
ends["H"] = {"no fault": figures.last(healthy)}

# %% [markdown]
# ## One batch
#
# The field's usual check asks whether the whole loop can *overfit one batch*. Which letters will it miss? On the left
# are the whole runs. On the right the first batch comes again and again, in the last row with shuffled labels.


# %%
def repeated(run: posted.Run) -> float:
    """The last loss of a run that gets its first batch in every step."""
    return train(dataclasses.replace(run, batches=len(run.batches) * run.batches[:1]))[-1]


once = {name: {"as posted": repeated(make())} for name, make in makers.items()}
once["H"] = {"no fault": once["H"]["as posted"]}
once["C"] |= {"mended": repeated(posted.run_c(pil_to_tensor))}
once["D"] |= {"mended": repeated(posted.run_d(my_lower))}
shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
wrong = dataclasses.replace(posted.works(), batches=posted.STEPS * [(pictures, shuffled)])
once["H, shuffled"] = {"no fault": repeated(wrong)}
panels = {"The whole run": ends, "One batch, again and again": once}
display_figure(figures.plot_where_runs_end(panels, chance, apart="C"))

# %% [markdown]
# On the left, the mended A, F and G end where H does. The right repair of one of E's faults changed almost nothing. So
# ask again after each repair.
#
# On the right, A, D, E, F and G stay high, and the check finds them. It misses B, whose class vectors learn the batch
# by heart. It misses C, whose 0.18 is high only beside the mended 0.05. (So the mended C can fit a batch; only
# held-out pictures would say whether it learns.) It accuses the mended D, whose small steps come no further than 1.46.
# And it passes shuffled labels. Wrong labels pass all five diagnostics, too: look at some pictures with their labels.
# So overfit one batch, and keep the diagnostics.
#
# ## Quiz
#
# **1. A run is flat, and all tensors are in the optimizer and get gradients. What do you ask next?**
#
# <details><summary>Answer</summary>
#
# What two steps move. A small share: most likely rounding. Nothing: gradients of zeros. All, by much less than a rate:
# the schedule. All, as in H: look at what enters, and at labels and loss.
#
# </details>
#
# **2. Take D at ten times its rate. Up to which size do weights move now?**
#
# <details><summary>Answer</summary>
#
# Up to about 0.06, eight times as far: the way to the next number doubles with each power of two, and ten lies below
# sixteen.
#
# </details>
#
# **3. Would B's fault have stayed silent if the class vectors were frozen, as in H?**
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
# Where is a run broken? Ask in this order:
#
# 1. Does the optimizer hold what is trained? (A, E)
# 2. Does a gradient reach it? (B)
# 3. What enters the model? (C)
# 4. What do two steps move, and by how many rates? (D, F, G)
# 5. Which rate does the optimizer print? (E, G)
#
# Post the answers with your curve. Back to [lesson 12](12_your_own.ipynb): ask your own model.
