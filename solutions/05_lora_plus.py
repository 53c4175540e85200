# %% [markdown]
# # 05 · LoRA+: a learning rate for each matrix
#
# **What you will be able to do**
#
# - say which of A and B moves first, and what each one's step does to the product B A;
# - explain why one learning rate for both fits wide models badly, and measure it;
# - put a model's tensors into LoRA+ groups, and notice when a library has silently done it wrong;
# - say what weight decay does to two groups with different rates;
# - read a sweep of two rates without being fooled, and say where LoRA+ helps and where it hurts.

# %% tags=["setup"]
# Where the course is missing, its folder around this notebook is installed; nothing is downgraded.
import os
import subprocess
import sys
from importlib import metadata, util

if util.find_spec("serial_lora_course") is None:
    project = "../pyproject.toml"
    if not os.path.isfile(project) or b'name = "serial-lora"' not in open(project, "rb").read():
        raise FileNotFoundError("Get the course's whole folder, and open this in its notebooks/.")
    frozen = ("torch", "torchvision", "torchaudio", "numpy")
    with open("already_installed.txt", "w") as constraints:
        for name, version in {(d.metadata["Name"], d.version) for d in metadata.distributions()}:
            keep = f"=={version}" if name in frozen else f">={version.split('+')[0]}"
            print(f"{name}{keep}", file=constraints)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "already_installed.txt"]
    subprocess.run([*pip, "..[course]"], check=True)

# %%
import os

import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import Tensor, nn

from serial_lora import (
    SerialLoRAConfig,
    adapters,
    describe_groups,
    eject,
    inject,
    lora_plus_groups,
)
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora_course.checks import check, lesson_card, yours
from serial_lora_course.figures.steps import plot_step_by_ratio, plot_step_by_width
from serial_lora_course.figures.style import display_figure
from serial_lora_course.figures.tables import display_table
from serial_lora_course.frontend import is_static
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.labs.methods import get_method

torch.manual_seed(0)
lesson_card("05")

# %% [markdown]
# One line decides which CLIP the lesson adapts: the tiny one, or OpenAI's ViT-B/16, as in lesson 04.

# %%
SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run
lesson = open_lesson("clip", SCALE, LENGTH)
print(lesson)

# %% [markdown]
# ## Who moves first
#
# A pair starts as `A` random and `B` zero (lesson 01 says why). What the model feels is only the
# product B A, and a step of training changes both factors at once. Write ΔA and ΔB for the two steps.
# Then
#
# $$ (B + \Delta B)(A + \Delta A) - B A \;=\; \underbrace{\Delta B\,A}_{\text{B's part}}
# \;+\; \underbrace{B\,\Delta A}_{\text{A's part}} \;+\; \underbrace{\Delta B\,\Delta A}_{\text{both}} .$$
#
# Multiply it out once on paper: nothing is left out and nothing is approximate.

# %% [markdown]
# ### Exercise 5.1 · Three parts of a step
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 5 |
#
# Return the three parts, in the order of the formula. The check adds them up and compares with the
# product after the step.


# %% tags=["exercise"]
def change_of_product(
    lora_A: Tensor, lora_B: Tensor, step_A: Tensor, step_B: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What a step does to B A: B's part, A's part, and the part of both together.

    Args:
        lora_A: (r, d_in), before the step.
        lora_B: (d_out, r), before the step.
        step_A: (r, d_in), what the step adds to A.
        step_B: (d_out, r), what the step adds to B.

    Returns:
        Three tensors of shape (d_out, d_in).
    """
    # BEGIN SOLUTION
    return step_B @ lora_A, lora_B @ step_A, step_B @ step_A
    # END SOLUTION


check("5.1", change_of_product)

# %% [markdown]
# <details><summary>Hint 1: which factor is new?</summary>
#
# In B's part only B is new: its step times the A that was there before. In A's part it is the other
# way round.
#
# </details>
# <details><summary>Hint 2: the order of the factors</summary>
#
# B stands on the left, always: (d_out, r) times (r, d_in). `@` multiplies matrices, `*` does not.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_lora_plus.ipynb)

# %% [markdown]
# Now a small layer and a pair beside it. The layer is frozen; the pair has to learn a change of the
# weight that we made up, from a few tokens. Plain gradient descent, one rate for both. Before you
# look at the table: which numbers in its first row must be exactly 0?


# %%
def small_task(
    width: int = 64, rank: int = 4, tokens: int = 32
) -> tuple[nn.Module, Tensor, Tensor]:
    """A frozen layer with a fresh LoRA pair, tokens (N, d), and what it should answer (N, d)."""
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(width, width, bias=False).requires_grad_(False)
    layer.pair = LoRA(width, width, rank)
    with torch.no_grad():
        for matrix in (layer.weight, layer.pair.lora_A):
            matrix.normal_(std=width**-0.5, generator=generator)
    x = torch.randn(tokens, width, generator=generator)  # (N, d)
    change = torch.randn(width, width, generator=generator) / width**0.5  # (d, d)
    return layer, x, x @ (layer.weight + change).T


def loss_of(layer: nn.Module, x: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared distance of the layer's answer from the wanted one."""
    return (layer(x) + layer.pair(x) - wanted).square().mean()


print(f"the loss before training: {loss_of(*small_task()).item():.2f}")


# %%
def watch_steps(make_optimizer, steps: int, shown: tuple[int, ...]) -> pd.DataFrame:
    """Train the small task; the sizes of each step and of its three parts, for the steps shown."""
    layer, x, wanted = small_task()
    A, B = layer.pair.lora_A, layer.pair.lora_B
    optimizer, rows = make_optimizer(A, B), []
    for step in range(1, steps + 1):
        before_A, before_B = A.detach().clone(), B.detach().clone()
        optimizer.zero_grad()
        loss = loss_of(layer, x, wanted)
        loss.backward()
        optimizer.step()
        step_A, step_B = A.detach() - before_A, B.detach() - before_B
        parts = (step_B @ before_A, before_B @ step_A, step_B @ step_A)  # (d, d) each
        if step in shown:
            names = ("ΔB A", "B ΔA", "ΔB ΔA")
            sizes = {name: part.norm().item() for name, part in zip(names, parts, strict=True)}
            rows.append(
                {
                    "step": step,
                    "loss before": loss.item(),
                    "size of ΔA": step_A.norm().item(),
                    "size of ΔB": step_B.norm().item(),
                    **sizes,
                }
            )
    return pd.DataFrame(rows)


shown = (1, 2, 5, 20, 100)
descent = watch_steps(lambda A, B: torch.optim.SGD([A, B], lr=3.0), steps=100, shown=shown)
display_table(descent.map(lambda value: f"{value:.3g}"))

# %%
first, last = descent.iloc[0], descent.iloc[-1]
assert first["size of ΔA"] == first["B ΔA"] == first["ΔB ΔA"] == 0
display(
    Markdown(
        f"In the first step A moves by exactly {first['size of ΔA']:g}, since its gradient has the factor B, and B "
        f"is zero. By step {last['step']:.0f}, A's part of the change is "
        f"{last['B ΔA'] / last['ΔB A']:.0%} of B's part."
    )
)

# %% [markdown]
# **What this shows.** B goes first, and with a random A it can go a long way: the random directions of A
# are questions, and B learns answers to them. A follows as B grows. With plain gradient descent the
# two gradients settle their sizes between themselves. But nobody trains adapters with plain gradient
# descent.

# %% [markdown]
# ### Adam gives every entry the same step
#
# Adam divides each entry's mean gradient by the root of its mean square. Both means start at zero, so
# Adam corrects them for that (*bias correction*). What does that make of the first step?

# %% [markdown]
# ### Exercise 5.2 · Adam's first step
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# Adam keeps m ← β₁ m + (1 − β₁) g and v ← β₂ v + (1 − β₂) g², divides them by 1 − β₁ᵗ and 1 − β₂ᵗ in step
# t, and adds −lr · m / (√v + ε). Return what the *first* step adds. The check compares with
# `torch.optim.Adam`, on gradients of very different sizes, and with zeros among them.


# %% tags=["exercise"]
def first_adam_step(gradient: Tensor, lr: float, eps: float = 1e-8) -> Tensor:
    """What Adam's first step adds to a parameter.

    Args:
        gradient: of any shape.
        lr: learning rate.
        eps: ε.

    Returns:
        The same shape as the gradient.
    """
    # BEGIN SOLUTION
    return -lr * gradient / (gradient.abs() + eps)
    # END SOLUTION


check("5.2", first_adam_step)

# %% [markdown]
# <details><summary>Hint 1: step one of the two means</summary>
#
# With m = 0 and v = 0 before, and t = 1: m is (1 − β₁) g, divided by 1 − β₁. What is left of β₁?
#
# </details>
# <details><summary>Hint 2: the root of a square</summary>
#
# √(g²) is |g|. So g / (|g| + ε) is the sign of g, up to a tiny ε, and 0 where g is 0.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_lora_plus.ipynb)

# %% [markdown]
# So under Adam the learning rate *is* the size of an entry's first step, whatever the gradient's size was,
# and roughly that of the next ones too, as long as the gradient keeps its sign and its size. No settling
# of sizes between A and B any more. The same table with Adam, and one rate for both.

# %%
adam = watch_steps(lambda A, B: torch.optim.Adam([A, B], lr=0.01), steps=100, shown=shown)
display_table(adam.map(lambda value: f"{value:.3g}"))
second = {"gradient descent": descent.iloc[1], "Adam": adam.iloc[1]}
told = {name: row["size of ΔB"] / row["size of ΔA"] for name, row in second.items()}
display(
    Markdown(
        f"In step 2, the first in which both move, B moved {told['gradient descent']:.1f} times as far as A under "
        f"gradient descent, and {told['Adam']:.1f} times under Adam, which does not care how large a gradient is. "
        "(Still not as far as each other: A's two means hold the zero of step 1, B's do not.)"
    )
)

# %% [markdown]
# **What this shows.** The first row is as before: a gradient of exactly zero gives a step of exactly zero,
# even divided by its own size. From then on the learning rate sets a matrix's pace, not the size of its
# gradient beside the other's. (Both paces fall towards the end: the gradients have become small, and v
# still holds the larger ones from before.) So the *ratio* of two learning rates now means something
# plain: how fast B moves beside A. One rate for both is a ratio of 1, and it is a choice like any other.
#
# **LoRA+** (Hayou, Ghosh and Yu, 2024) makes it another one: B gets `ratio` times the rate of A. The cell
# trains to the same point, and then takes one step of Adam from there with several ratios, at the same
# rate of A.


# %%
def one_step_at(ratio: float, lr_A: float = 0.01, warm: int = 10) -> dict[str, float]:
    """The small task after some steps at equal rates, and then one step at a ratio."""
    layer, x, wanted = small_task()
    A, B = layer.pair.lora_A, layer.pair.lora_B
    optimizer = torch.optim.Adam([{"params": [A]}, {"params": [B]}], lr=lr_A)
    for step in range(warm + 1):
        optimizer.param_groups[1]["lr"] = lr_A * (ratio if step == warm else 1)
        before = (A.detach().clone(), B.detach().clone())
        loss = loss_of(layer, x, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    step_A, step_B = A.detach() - before[0], B.detach() - before[1]
    promised = (A.grad * step_A).sum() + (B.grad * step_B).sum()  # to first order
    after = loss_of(layer, x, wanted)
    return {
        "ratio": ratio,
        "B's part": (step_B @ before[0]).norm().item(),
        "A's part": (before[1] @ step_A).norm().item(),
        "both": (step_B @ step_A).norm().item(),
        "promised": promised.item(),
        "loss changed by": (after - loss).item(),
    }


by_ratio = pd.DataFrame([one_step_at(ratio) for ratio in (1, 2, 5, 10, 20, 50)])
display_figure(plot_step_by_ratio(by_ratio))

# %% [markdown]
# **What this shows.** The dotted line is gradient times step: what would happen if the loss were a plane.
# Past some ratio the step leaves the region where the plane is any good, and the loss falls less, or rises.
# Note what the picture *cannot* tell you: whether the ratio helped, or whether simply the rate of B was too
# small before. That is the question of this lesson. **Change this and run again**: `lr_A=0.1` in the cell
# above moves the best ratio; where to?

# %% [markdown]
# ## Why width matters
#
# LoRA+'s argument is about *width*, the d of the model. Look at one token x, with entries of ordinary
# size, and at one Adam step, in which each entry moves by the learning rate η, up or down.
#
# - **B's step.** ΔB (A x): the r numbers in A x are of ordinary size, whatever d is (that is what A's start
#   is scaled for). Each output entry sums r of them, times η. The width does not occur.
# - **A's step.** B (ΔA x): each of the r entries of ΔA x sums *d* terms, η times ± x_j. They do not cancel:
#   A's gradient is made of tokens, so its signs follow the signs of x. The sum grows like d.
#
# So, with one rate for both, a wider model gets a larger step from A and the same one from B. To keep A's
# step sound in a wide model you lower the rate, and then B crawls. If the two steps are to do
# equally much at every width, the ratio of the rates has to grow in proportion to d. Is it so? The cell
# measures what one step of each does to the output, at several widths, with a B that is no longer zero.
# On two logarithmic axes a power of d is a straight line, and the power is its slope. Compare slopes, not
# heights: how much A's step does depends on how large we made B. Both adapters are tried; Serial LoRA's
# pair stands in front of W, not beside it.


# %%
def effect_of_steps(serial: bool, width: int, rank: int = 8, lr: float = 1e-3) -> dict[str, float]:
    """How far one Adam step of A, and one of B, moves the output (N, d), relative to its size."""
    torch.manual_seed(width)
    W = torch.randn(width, width) / width**0.5  # keeps entries at ordinary size
    x, wanted = torch.randn(16, width), torch.randn(16, width)  # (N, d)
    pair = SerialLoRA(width, rank) if serial else LoRA(width, width, rank)
    nn.init.normal_(pair.lora_B, std=rank**-0.5)

    def output() -> Tensor:
        return pair(x) @ W.T if serial else x @ W.T + pair(x)  # (N, d)

    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    start = output()
    (start - wanted).square().mean().backward()
    torch.optim.Adam(pair.parameters(), lr=lr).step()
    after = {name: p.detach().clone() for name, p in pair.named_parameters()}
    effects = {}
    with torch.no_grad():
        for name in before:
            pair.load_state_dict(before | {name: after[name]})  # this one moved, the other put back
            effects[name[-1]] = ((output() - start).norm() / start.norm()).item()
    return effects


# %%
widths = (64, 128, 256, 512, 1024, 2048)
effects = {
    title: [effect_of_steps(serial, width) for width in widths]
    for title, serial in (("LoRA", False), ("Serial LoRA", True))
}
display_figure(plot_step_by_width(widths, effects))

# %% [markdown]
# **What this shows.** The argument holds for a random layer, and for both methods alike: standing in
# front of W instead of beside it changes nothing about the *growth*. It changes the gradient: B of Serial
# LoRA receives $\sum_p W_p^\top G_p (A x)^\top$, one message from q, k and v together and through the
# weights, where LoRA's B_p receives its own G_p (lesson 01). Under Adam that changes the signs of a step
# and not its size. So there is no reason in the argument why one ratio should suit both methods, and none
# why it should not. That has to be tried.
#
# Mind also what the argument does *not* say. It says how the ratio should **grow** with d; it does not
# say what it should be at the d that you have. The 20 of the paper is a habit, not a result.

# %% [markdown]
# ## Two groups for the optimizer
#
# A PyTorch optimizer takes a list of *parameter groups*, dictionaries with `params` and whatever is to
# differ: `lr`, `weight_decay`. So LoRA+ is no new optimizer. It is a list of two groups, and everything
# that can go wrong is a tensor in the wrong one, or in none.

# %%
adapted_model = inject(lesson.twin().model, SerialLoRAConfig(rank=16))
print(describe_groups(lora_plus_groups(adapted_model, lr=4e-4, ratio=20, weight_decay=1e-2)))

# %% [markdown]
# ### Exercise 5.3 · Sort the tensors
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Write it yourself, from names. Whatever is trainable and is neither A nor B (a new head, say) goes with
# A's rate into a third group. A group that would be empty is left out: some schedulers count groups. Names
# are dotted, such as `visual.blocks.0.pair.lora_A`, and only the *last* part says what a tensor is. The
# check has a model whose modules have misleading names.


# %% tags=["exercise"]
def plus_groups(
    named: dict[str, nn.Parameter], lr: float, ratio: float, weight_decay: float
) -> list[dict]:
    """Every trainable tensor in exactly one group, for any torch optimizer.

    Args:
        named: dotted name to tensor; frozen ones (requires_grad False) are among them.
        lr: learning rate of A, and of what is neither A nor B.
        ratio: learning rate of B over that of A.
        weight_decay: of every group.

    Returns:
        Groups with the keys params (a list), lr and weight_decay: A's, B's, the others'.
    """
    # BEGIN SOLUTION
    sorted_out = {"lora_A": [], "lora_B": [], "other": []}
    for name, parameter in named.items():
        if parameter.requires_grad:
            last = name.rpartition(".")[2]
            sorted_out[last if last in sorted_out else "other"].append(parameter)
    rates = {"lora_A": lr, "lora_B": lr * ratio, "other": lr}
    return [
        {"params": params, "lr": rates[kind], "weight_decay": weight_decay}
        for kind, params in sorted_out.items()
        if params
    ]
    # END SOLUTION


check("5.3", plus_groups)

# %% [markdown]
# <details><summary>Hint 1: the last part of a name</summary>
#
# `name.rpartition(".")` gives what stands before the last dot, the dot, and what stands after it. A name
# without a dot comes back whole in the third place.
#
# </details>
# <details><summary>Hint 2: three lists</summary>
#
# Go through the names once, pass over what is frozen, and append each tensor to one of three lists. Then
# make a dictionary of each list that holds something.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_lora_plus.ipynb)

# %% [markdown]
# **A trap with names.** PEFT, the most used library for this, has a function that builds the optimizer. It
# asks of each name: does it contain `lora_B`? The cell offers it the same pair under three names. Nothing
# complains. Which rate does the second matrix get?

# %%
from peft.optimizers import create_loraplus_optimizer


def pair_called(first: str, second: str) -> nn.Module:
    """A module that holds one pair, its matrices under these names."""
    model = nn.Module()
    model.attention = nn.Module()
    model.attention.pair = nn.ParameterDict({first: torch.randn(4, 32), second: torch.zeros(32, 4)})
    return model


rows = []
for first, second in (("lora_A", "lora_B"), ("serial_A", "serial_B"), ("lora_a", "lora_b")):
    model = pair_called(first, second)
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=2e-4, loraplus_lr_ratio=20, weight_decay=1e-2
    )
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    groups = {name[-1].upper(): of[id(p)] for name, p in model.named_parameters()}
    rows.append(
        {
            "names": f"{first}, {second}",
            **{f"rate of {name}": f"{group['lr']:g}" for name, group in groups.items()},
            "B / A": f"{groups['B']['lr'] / groups['A']['lr']:g}",
            "weight decay": f"{groups['B']['weight_decay']:g}",
            "groups": len(optimizer.param_groups),
        }
    )
display_table(pd.DataFrame(rows))

# %% [markdown]
# **What this shows.** Under other names both matrices get A's rate, silently: it trains, the loss falls,
# and it is not LoRA+. That is why this course's adapters call their tensors `lora_A` and `lora_B`. Look at
# the last two columns as well. A weight decay of 0.01 was asked for, and the groups say otherwise,
# because that function takes its own under another name. And some groups are empty. Whatever builds your
# groups: print them, once, before you train.
#
# **Weight decay meets two rates.** AdamW shrinks every entry by the factor 1 − lr · weight decay in each
# step, on top of Adam's step. The factor holds the group's *own* rate. So a single number for the weight
# decay is not a single amount of shrinking.

# %% [markdown]
# ### Exercise 5.4 · What decay leaves
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●○○ | 6 |
#
# If an entry got no gradient (0) for a number of steps, at a constant rate, which share of it would be
# left? One answer for each group. The check lets AdamW do it.


# %% tags=["exercise"]
def share_left(groups: list[dict], steps: int) -> list[float]:
    """The share of an entry that AdamW's weight decay leaves, for each group.

    Args:
        groups: each has lr and weight_decay.
        steps: number of steps, all of them with a gradient of 0.

    Returns:
        A number between 0 and 1 for each group.
    """
    # BEGIN SOLUTION
    return [(1 - group["lr"] * group["weight_decay"]) ** steps for group in groups]
    # END SOLUTION


check("5.4", share_left)

# %% [markdown]
# <details><summary>Hint 1: one step</summary>
#
# One step leaves 1 − lr · weight decay of the entry, with the lr of its own group.
#
# </details>
# <details><summary>Hint 2: many steps</summary>
#
# Each step leaves that share of what the step before left: a power.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_lora_plus.ipynb)

# %% [markdown]
# So decay pulls on B as many times harder as the ratio says. With a small decay and a short run that is
# nothing to worry about; with a larger one, a comparison of ratios compares regularisation too.

# %% [markdown]
# ## A ratio, or just a larger rate?
#
# Back to the question from the beginning. Somebody trains LoRA with one rate, then LoRA+ with the same
# rate for A and ten times that for B. LoRA+ is better. Did the *ratio* help, or would ten times the
# rate for both have done as well? Two runs cannot say. Three can:
#
# | | rate of A | rate of B | |
# |---|---|---|---|
# | slow | small | small | plain, at a small rate |
# | plus | small | large | LoRA+ |
# | fast | large | large | plain, at a large rate |
#
# Plus beside slow is the usual comparison. Plus beside fast is the one that isolates the ratio: same rate
# of B, only A's differs. The cell does all three for both methods on a real few-shot task, in short runs
# that differ in nothing else. It takes some seconds a run.

# %%
model, data = lesson.model, lesson.data
base = lesson.lab().base  # zero-shot


def short_run(name: str, lr_A: float, ratio: float, seed: int = 1) -> dict[str, float]:
    """A run of few steps on 4 shots; how far A moved, how large B became, loss and accuracy."""
    few = min(25, lesson.config.min_steps)
    config = lesson.configured(plus_lr=lr_A, epochs=1, min_steps=few)
    method = get_method(name).with_ratio(ratio)
    lab = lesson.lab(config=config, base=base)
    record = run_one(lab, method, 4, seed, progress=not is_static(), keep_adapter=True)
    end = [pair.state_dict() for pair in adapters(model).values()]
    eject(model)
    torch.manual_seed(seed)  # as the run began
    start = adapters(inject(lesson.twin().model, method.config(config.rank))).values()
    A0 = torch.cat([pair.lora_A.flatten() for pair in start]).detach().cpu()
    A1, B1 = (
        torch.cat([state[name].flatten().cpu() for state in end]) for name in ("lora_A", "lora_B")
    )
    return {
        "rate of A": lr_A,
        "rate of B": lr_A * ratio,
        "A moved by": ((A1 - A0).norm() / A0.norm()).item(),
        "an entry of B": B1.square().mean().sqrt().item(),
        "loss": record.measures["loss"],
        "accuracy": record.measures["accuracy"],
    }


# %%
large = lesson.config.lr  # the lab's own
small = large / 10
treatments = {"slow": (small, 1), "plus": (small, large / small), "fast": (large, 1)}
rows = []
for name in ("lora_plus", "serial_lora_plus"):
    label = get_method(name).label.removesuffix("+")
    for treatment, (lr_A, ratio) in treatments.items():
        rows.append({"pair": label, "": treatment, **short_run(name, lr_A, ratio)})
three = pd.DataFrame(rows)
display_table(
    three.assign(
        **{
            name: three[name].map(form.format)
            for name, form in (
                ("rate of A", "{:g}"),
                ("rate of B", "{:g}"),
                ("A moved by", "{:.0%}"),
                ("an entry of B", "{:.4f}"),
                ("loss", "{:.2f}"),
                ("accuracy", "{:.1%}"),
            )
        }
    )
)

# %%
for label, part in three.groupby("pair", sort=False):
    points = 100 * part.set_index("")["accuracy"]
    usual, isolated = points["plus"] - points["slow"], points["plus"] - points["fast"]
    pictures = abs(isolated) * len(data.test) / 100
    display(
        Markdown(
            f"- **{label}**: plus beside slow is {usual:+.1f} points, zero-shot being "
            f"{100 * base[f'zero_shot_{lesson.config.prompt}']:.1f}%. Plus beside fast is {isolated:+.1f} points, which is "
            f"{pictures:.0f} of {len(data.test)} test pictures in one run."
        )
    )

# %% [markdown]
# **What this shows.** The usual comparison credits the ratio with everything. The isolated one shows how
# much of it a larger rate alone would have brought: below zero, all of it and more. Single short runs
# cannot settle what is left, but they show which comparison to make. For a verdict we need a grid: several
# rates of A, several ratios, several seeds.

# %% [markdown]
# ## The sweep
#
# The course ships the records of such a grid, made by the lab's command, which takes several ratios and
# rates at once. As always, first what they are and how they were made.

# %%
from serial_lora_course.claims import ratios
from serial_lora_course.figures.sweeps import plot_ratio_sweep
from serial_lora_course.labs.frames import describe_records, frame
from serial_lora_course.labs.records import shipped_records

records = shipped_records("clip_ratio")
print(describe_records(records))
results = frame(records)
results["points"] = 100 * results["accuracy"]
display_figure(plot_ratio_sweep(results))

# %% [markdown]
# **What this shows.** Accuracy against the rate of *B*, one line for each rate of A; the rings are plain
# LoRA, A and B at one rate. Follow one line from its ring to the right: that is raising the ratio at a
# fixed rate of A, and it is how LoRA+ is usually presented. Then look at where lines stand above one
# another. If only B's rate mattered, they would coincide; if a ratio above 1 helped by itself, the line
# with the *smaller* rate of A would lie higher. The numbers come below; first you write the tool for them.

# %% [markdown]
# ### Exercise 5.5 · The best ratio, and is it more than luck?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 15 |
#
# Given the accuracies of several ratios, find the one with the highest mean, and compare it with a ratio
# of 1. Number k in every list is the same data set and seed, so compare run by run: take the
# *differences*, their mean, and their standard error (standard deviation with n − 1, divided by √n). The
# last answer is whether the mean difference is more than two standard errors from 0.


# %% tags=["exercise"]
def best_ratio(accuracies: dict[float, list[float]]) -> tuple[float, float, float, bool]:
    """The best ratio of a sweep, and how far it is from a ratio of 1.

    Args:
        accuracies: ratio to the accuracies of its runs; 1 is among the ratios, and all lists are
            equally long (at least 2) and in the same order of data set and seed.

    Returns:
        The ratio with the highest mean; its mean difference from ratio 1; that difference's
        standard error; whether it is more than two of them from 0.
    """
    # BEGIN SOLUTION
    values = {ratio: torch.tensor(runs, dtype=torch.double) for ratio, runs in accuracies.items()}
    best = max(values, key=lambda ratio: values[ratio].mean())
    differences = values[best] - values[1]
    mean = differences.mean().item()
    error = differences.std().item() / len(differences) ** 0.5
    return best, mean, error, abs(mean) > 2 * error
    # END SOLUTION


check("5.5", best_ratio)

# %% [markdown]
# <details><summary>Hint 1: pairs</summary>
#
# Subtract list from list, entry by entry, before you average anything. The spread of the differences is
# much smaller than the spread of the accuracies, because an easy draw of shots is easy for both.
#
# </details>
# <details><summary>Hint 2: the pieces</summary>
#
# `torch.tensor(...).std()` divides by n − 1 already. `max(ratios, key=...)` finds the ratio with the
# highest mean. If the best is 1 itself, all differences are 0, and the last answer is False.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_lora_plus.ipynb)

# %% [markdown]
# First the usual comparison, with your function: at each rate of A, the best ratio beside a ratio of 1.
# Gains are in points of accuracy, *clear* means more than two standard errors from 0.

# %%
usual = ratios.beside_ratio_one(results, yours("5.5", ratios.best_ratio))
display_table(ratios.as_shown(usual))
display(Markdown(ratios.read_beside_one(usual)))

# %% [markdown]
# **What this shows.** Read down the column of ratios. Where the best ratio falls as A's rate rises,
# the sweep is looking for a good rate of *B*, and the ratio is only the road to it.
#
# Next the comparison that isolates the ratio, as above, now with more than one seed: cells with the *same*
# rate of B, one with A at that rate too (plain), the other with A at a smaller one.

# %%
isolated = ratios.at_one_rate_of_b(results)
display_table(ratios.as_shown(isolated))
display(Markdown(ratios.read_at_one_rate(isolated)))

# %% [markdown]
# **What this shows.** This is the ratio's own share. The rest of what a LoRA+ cell has over the slow one is
# what a larger rate for both brings, and plain LoRA can have that as well.
#
# The last comparison lets each side choose what it likes: plain LoRA its one rate, LoRA+ both. Whoever
# chooses the best of many cells chooses chance results too. So we choose on some seeds and measure on the
# one that was left out, in turn, for both sides.

# %%
chosen = ratios.chosen_on_other_seeds(results)
display_table(ratios.as_shown(chosen))
display(Markdown(ratios.read_chosen(chosen)))

# %% [markdown]
# **What this shows.** That is what the ratio is worth to somebody who tunes both sides with the same care.
# It is one tiny model, so a width at which the argument asks for little; few data sets, seeds and steps. At
# a larger width the balance may be another, and the printed command with `--scale paper` is how to find out.
# Whether two or more pairs of runs can carry such a verdict at all is the subject of lesson 09.

# %% [markdown]
# ## The paper's cells
#
# The paper gives all methods one rate, and the two plus methods 20 times that for B. In points of accuracy,
# CLIP, what the plus changed:

# %%
from serial_lora_course.claims.paper import paper_facts, paper_table

accuracy_table = paper_table("Table III")


def plus_minus_plain(plain: str) -> pd.DataFrame:
    """The paper's accuracy with the plus minus without, in points: rows shots, columns data sets."""
    by = "method"
    return accuracy_table.xs(f"{plain}+", level=by) - accuracy_table.xs(plain, level=by)


changes = {plain: plus_minus_plain(plain) for plain in ("LoRA", "Serial LoRA")}
for plain, change in changes.items():
    print(f"{plain}+ minus {plain}:")
    display(change.map("{:+.2f}".format).assign(mean=change.mean(axis=1).map("{:+.2f}".format)))

# %%
lost = {plain: int((change < 0).sum().sum()) for plain, change in changes.items()}
assert lost["LoRA"] == paper_facts()["lora_plus_below"]
for plain, change in changes.items():
    means = change.mean(axis=1)
    worst = change.stack().idxmin()
    display(
        Markdown(
            f"- **{plain}+** loses to {plain} in {lost[plain]} of {change.size} cells, at worst by "
            f"{-change.min().min():.1f} points ({worst[1]}, {worst[0]}). On average over data sets: "
            + ", ".join(
                f"{value:+.1f} with {shots}{'' if shots == '1 shot' else 's'}"
                for shots, value in means.items()
            )
            + "."
        )
    )

# %% [markdown]
# **What this shows.** In the paper's own tables the plus often makes things worse, for both methods, and
# the text does not discuss it. A rate of B that is too high would look just like this; the tables cannot
# prove it, because no other ratio and no other rate was tried. Where the paper says that "Serial LoRA+
# outperforms LoRA+ in accuracy across all datasets and shot settings", it compares two methods at a setting
# that mostly lowers the accuracy of both.
#
# **So what should you do?** Treat the rates of A and B as two settings. Try a small grid on pictures that
# are neither shots nor test, and let a ratio of 1 take part. If you can afford to try only one thing,
# try the rate first. If you take a ratio from somewhere, lower A's rate when you raise the ratio.

# % [markdown]
# ## Leave the machine as you found it
#
# The last cell takes the model off the card, where the next notebook may need the room.

# %
lesson.close()

# % [markdown]
# ## Quiz
#
# **1. B = 0, and the first step of Adam has a learning rate of 0.01 for both. How far does an entry of A move?
# And one of B?**
#
# <details><summary>Answer</summary>
#
# A: not at all. Its gradient has the factor B, so it is exactly zero, and 0 / (0 + ε) is 0. An entry of B
# moves by 0.01, up or down, whatever the size of its gradient (unless that is zero or near ε).
#
# </details>
#
# **2. You move an adapter recipe with one learning rate to a model four times as wide. By the
# argument of this lesson, which of the two matrices now takes too large steps, and what are two ways to
# mend it?**
#
# <details><summary>Answer</summary>
#
# A: the effect of its step grows in proportion to the width, B's does not. Lower the rate of both by four,
# which makes B slow; or lower A's alone, which means a ratio four times as large.
#
# </details>
#
# **3. A paper compares LoRA at rate η with LoRA+ at η for A and 16 η for B, and LoRA+ wins. What is missing?**
#
# <details><summary>Answer</summary>
#
# LoRA at other rates, 16 η among them. Without those the win may be due to B's larger rate and not to the
# difference between the two. And seeds, with the spread of the paired differences.
#
# </details>

# %% [markdown]
# ## Key points
#
# - B moves first: while B is zero, A's gradient is exactly zero.
# - A step changes B A by three parts: ΔB A, B ΔA and ΔB ΔA.
# - Under Adam the learning rate is the size of the step. A's step grows in effect with the width, B's does
#   not; so the wider the model, the larger a ratio of the rates makes sense.
# - LoRA+ is two parameter groups. Print them: names decide, decay follows each group's own rate.
# - A ratio multiplies a rate. Compare with plain LoRA at *its* best rate, and choose on other runs than those
#   you report.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer", section III: "For LoRA+ and Serial LoRA+, we maintain a
# learning rate ratio of 1:20 between matrices A and B"; Tables II to IV hold the results of both. The
# argument about width is from S. Hayou, N. Ghosh and B. Yu, "LoRA+: Efficient Low Rank Adaptation of Large
# Models", ICML 2024. There the claim is asymptotic: as the width n grows, learning is efficient when A's
# rate falls like 1/n and B's stays constant.
