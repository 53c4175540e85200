# %% [markdown]
# # 07 · LoRA+: a learning rate for each matrix
#
# **What you will be able to do**
#
# - say which of A and B moves first, and what each step does to B A;
# - measure why one rate for both fits wide models badly;
# - put tensors into LoRA+ groups, and notice when a library does it wrong;
# - read a sweep over two rates, and say what so few runs can decide.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.lessons.l07_lora_plus import ratios, steps
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

lesson_card("07")

# %% [markdown]
# One line decides which CLIP the lesson adapts, as in lesson 04.

# %%
import os

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run
lesson = open_lesson("clip", SCALE, LENGTH)
print(lesson)

# %% [markdown]
# ## Who moves first
#
# A pair starts with `A` random and `B` zero (lesson 03). The model's output depends on the product B A
# alone, and a step changes both factors. With ΔA and ΔB for what the step adds,
#
# $$ (B + \Delta B)(A + \Delta A) - B A \;=\; \underbrace{\Delta B\,A}_{\text{B's part}}
# \;+\; \underbrace{B\,\Delta A}_{\text{A's part}} \;+\; \underbrace{\Delta B\,\Delta A}_{\text{both}} . $$

# %% [markdown]
# ### Exercise 7.1 · Three parts of a step
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●● | 5 |
#
# Return the three parts, in the order of the formula.


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


check("7.1", change_of_product)

# %% [markdown]
# <details><summary>Hint 1: which factor is new?</summary>
#
# In B's part only B is new: its step times the old A. In A's part it is the other way round.
#
# </details>
# <details><summary>Hint 2: the order of the factors</summary>
#
# B stands on the left: (d_out, r) times (r, d_in). `@` multiplies matrices, `*` does not.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# A small task: beside a frozen layer, a pair has to learn a change of the layer from 32 tokens, by plain
# gradient descent with one rate. Which numbers in the table's first row must be exactly 0?

# %%
parts_of = yours("7.1")
descent = steps.watch_steps(lambda A, B: torch.optim.SGD([A, B], lr=3.0), parts_of)
display_table(descent.map("{:.3g}".format))

# %% [markdown]
# **What this shows.** In step 1 only B moves: A's gradient has the factor B, and B is zero. Then A
# follows. A hundred steps later its part of the change is nearly as large as B's.
#
# If A started at zero and B at random, A would move first.
#
# ### Adam gives every entry the same step
#
# Adapters are trained with Adam. It divides each entry's mean gradient by the root of its mean square.
# Both means start at zero, and Adam corrects them for that.

# %% [markdown]
# ### Exercise 7.2 · Adam's first step
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


check("7.2", first_adam_step)

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
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# So the learning rate *is* the size of an entry's first step, whatever the gradient's size, as long as it is far
# above ε. Your function says how far B will move in step 1; the table says how far it did.

# %%
step_of = yours("7.2")
task = steps.SmallTask()
task.loss().backward()
predicted = step_of(task.pair.lora_B.grad, 0.01).norm().item()
print(f"by your function B moves by {predicted:.3g} in step 1")

adam = steps.watch_steps(lambda A, B: torch.optim.Adam([A, B], lr=0.01), parts_of)
display_table(adam.map("{:.3g}".format))

# %% [markdown]
# **What this shows.** In step 2, the first in which both move, B goes twice as far as A under
# gradient descent. Under Adam the two are much closer: it divides each entry's gradient by its own
# size.
#
# The first number depends on the sizes of the gradients, so on the task; the second hardly does.
#
# So a *ratio* of two rates has a plain meaning: how fast B moves relative to A. **LoRA+** gives B `ratio` times
# the rate of A; one rate for both is a ratio of 1. The next cell trains the small task to one point, and
# takes one step from there at several ratios.

# %%
from serial_lora_course.lessons.l07_lora_plus.figures import plot_step_by_ratio

lr_A = 0.01  # change this and run again: 0.1, 0.001. Where does the best ratio go?
parts_of = yours("7.1")
tried = [steps.one_step_at(ratio, lr_A, parts_of=parts_of) for ratio in (1, 2, 5, 10, 20, 50)]
by_ratio = pd.DataFrame(tried)
display_figure(plot_step_by_ratio(by_ratio))

# %% [markdown]
# **What this shows.** A ratio of 5 lowers the loss twice as much as equal rates, and 20 raises it.
# The gradient promises a fall at every ratio; it is the length of the step that breaks the promise.
#
# The dotted line is the change of the loss if it were a plane; too large a step leaves the region where
# that is a good guess. The picture *cannot* tell whether the ratio helped, or whether the rate of B was too
# small before. That is the question of this lesson.

# %% [markdown]
# ## Why width matters
#
# Take one token x with entries of ordinary size, and one Adam step, which moves every entry by the rate η.
#
# - **B's step**, ΔB (A x): an output entry sums r numbers of ordinary size, times η, whatever the width d.
# - **A's step**, B (ΔA x): each entry of ΔA x sums *d* terms η |x_j|. They do not cancel, as the signs of A's
#   gradient follow those of x. The sum grows like d.
#
# For both steps to do equally much at every width, the ratio has to grow like d. On logarithmic axes a power
# of d is a straight line, and the power is its slope.

# %%
from serial_lora_course.lessons.l07_lora_plus.figures import plot_step_by_width

widths = (64, 128, 256, 512, 1024, 2048)  # change this and run again: leave out the small ones
effects = {
    title: [steps.effect_of_steps(serial, width) for width in widths]
    for title, serial in (("LoRA", False), ("Serial LoRA", True))
}
display_figure(plot_step_by_width(widths, effects))

# %% [markdown]
# **What this shows.** Double the width, and a step of A moves the output about twice as far, while a
# step of B moves it as far as before. That is the width law behind LoRA+: in a wide model A has to go
# slowly, so B can afford more. Serial LoRA obeys it as LoRA does.
#
# Both methods grow alike: the way through W (lesson 01) changes the signs of an Adam step and not its size.
# The argument says how the ratio should **grow** with d, not what it should be at your d: the paper's 20 is
# a choice, not a result.

# %% [markdown]
# ## Two groups for the optimizer
#
# A PyTorch optimizer takes *parameter groups*: dictionaries with `params`, `lr` and `weight_decay`. LoRA+ is
# two of them. What can go wrong is a tensor in the wrong group, or in none.

# %% [markdown]
# ### Exercise 7.3 · Sort the tensors
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Write LoRA+'s groups, from names. Whatever is trainable and is neither A nor B (a new head, say) goes with
# A's rate into a third group. A group that would be empty is left out. Names are dotted, such as
# `visual.blocks.0.pair.lora_A`, and only the *last* part says what a tensor is: the check has misleading
# names.


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


check("7.3", plus_groups)

# %% [markdown]
# <details><summary>Hint 1: the last part of a name</summary>
#
# `name.rpartition(".")[2]` is what stands after the last dot, or the whole name where there is none.
#
# </details>
# <details><summary>Hint 2: three lists</summary>
#
# Go through the names once, pass over what is frozen, append each tensor to one of three lists, and make
# a dictionary of each list that holds something.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# Your groups on the lesson's CLIP with a fresh adapter:

# %%
from serial_lora import SerialLoRAConfig, inject

groups_of = yours("7.3")
adapted = inject(lesson.twin().model, SerialLoRAConfig(rank=16))
ratio = 20  # change this and run again: 1 is plain LoRA
lr, weight_decay = 4e-4, 1e-2
groups = groups_of(dict(adapted.named_parameters()), lr, ratio, weight_decay)
for group in groups:
    print(f"{len(group['params'])} tensors at {group['lr']:g}, decay {group['weight_decay']:g}")

# %% [markdown]
# **A trap with names.** PEFT's function for LoRA+ asks of each name whether it contains `lora_B`. The cell
# gives it one pair under three names. Which rate does the second matrix get?

# %%
from peft.optimizers import create_loraplus_optimizer

rows = []
for first, second in (("lora_A", "lora_B"), ("serial_A", "serial_B"), ("lora_a", "lora_b")):
    model = steps.pair_called(first, second)
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=2e-4, loraplus_lr_ratio=20, weight_decay=1e-2
    )
    rows.append({"names": f"{first}, {second}"} | steps.rates_of(model, optimizer))
rates = pd.DataFrame(rows)
display_table(rates)

# %% [markdown]
# **What this shows.** Only under the names `lora_A` and `lora_B` did the second matrix get twenty
# times the rate. With other names nothing happens, and nothing is said. And the weight decay that was
# asked for, 0.01, has become 0.
#
# Only a name that contains `lora_B` makes it LoRA+. The decay that we asked for is lost too: that function takes
# its own under another name. So print your groups once before you train.
#
# **Weight decay meets two rates.** In each step AdamW also shrinks every entry by the factor 1 − lr · weight
# decay, with the group's *own* lr.

# %% [markdown]
# ### Exercise 7.4 · What decay leaves
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●○○ | 6 |
#
# An entry has a gradient of 0 for a number of steps. Which share of it is left? One answer a group.


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


check("7.4", share_left)

# %% [markdown]
# <details><summary>Hint 1: one step</summary>
#
# One step leaves 1 − lr · weight decay, with the lr of its own group.
#
# </details>
# <details><summary>Hint 2: many steps</summary>
#
# Each step leaves that share of what the step before left: a power.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %%
left_of = yours("7.4")
steps_taken = 1000
left = left_of(groups, steps_taken)
print("taken away:", ", ".join(f"{1 - share:.1%}" for share in left), "(A, B)")

# %% [markdown]
# **What this shows.** Decay takes twenty times as much from B as from A, since it is multiplied by
# the rate. So when you compare ratios, you also compare how strongly B is decayed.
#
# Decay shrinks B faster, by the factor of the ratio. With a larger decay or a longer run, a comparison of ratios
# is also one of regularisation.

# %% [markdown]
# ## A ratio, or just a larger rate?
#
# Did the *ratio* help, or would a larger rate for both have done as well? Three runs can say:
#
# | | rate of A | rate of B | |
# |---|---|---|---|
# | slow | small | small | plain |
# | plus | small | large | LoRA+ |
# | fast | large | large | plain, at the larger rate |
#
# Plus beside slow is the usual comparison; plus beside fast isolates the ratio. Six short runs on CLIP:

# %%
large = lesson.config.lr  # the lab's own; change this and run again: a third of it
three = steps.three_ways(lesson, large)
print(f"zero-shot: {three['zero-shot'].iloc[0]:.1%}")
display_table(steps.as_shown(three))

# %% [markdown]
# **What this shows.** LoRA+ beat slow LoRA by 31 points, and lost to LoRA at the same fast rate by some 5.
# For Serial LoRA it is 12 and 22. It was the rate. (Single short runs: on another machine a few
# pictures may fall to the other side.)
#
# The usual comparison credits the ratio with what a larger rate alone would have brought. Single short runs
# do not settle how much is left. Several rates, ratios and seeds do better.

# %% [markdown]
# ## The sweep
#
# The course ships records of a grid at tiny scale: accuracy against the rate of *B*, a line for each rate of
# A, rings for plain LoRA. Where, at the same rate of B, the line of a *smaller* rate of A lies higher, the ratio
# itself helps.

# %%
from serial_lora_course.labs.frames import describe_records, frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l07_lora_plus.figures import plot_ratio_sweep
from serial_lora_course.measures.intervals import half_width

records = shipped_records("clip_ratio")
print(describe_records(records))
results = frame(records)
results["points"] = 100 * results["accuracy"]
some = results  # change this and run again: results[results["seed"] == 1]
display_figure(plot_ratio_sweep(some))

# %% [markdown]
# ### Exercise 7.5 · The best ratio, and is it more than chance?
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 15 |
#
# Find the ratio with the highest mean accuracy, and compare it with a ratio of 1. Entry k of every list has the
# same seed, so take the *differences* seed by seed, and their mean. A mean of few numbers is uncertain: its
# *standard error* is their standard deviation (with n − 1) over √n, and its 95% **confidence interval** goes
# `half_width(error, n - 1)` to either side (Student's t with n − 1 degrees of freedom; lesson 08 builds it). A
# difference is *significant* where that interval leaves out 0.


# %% tags=["exercise"]
def best_ratio(accuracies: dict[float, list[float]]) -> tuple[float, float, float, bool]:
    """The best ratio of a sweep, and whether it is better than a ratio of 1.

    Args:
        accuracies: ratio to the accuracies of its runs on one data set, one a seed; 1 is among the
            ratios, and all lists are equally long (at least 2) and in the same order of seeds.

    Returns:
        The ratio with the highest mean; its mean difference from ratio 1; half of that difference's
        95% interval; whether the interval leaves out 0.
    """
    # BEGIN SOLUTION
    values = {ratio: torch.tensor(runs, dtype=torch.double) for ratio, runs in accuracies.items()}
    best = max(values, key=lambda ratio: values[ratio].mean())
    differences = values[best] - values[1]
    mean = differences.mean().item()
    error = differences.std().item() / len(differences) ** 0.5
    half = half_width(error, len(differences) - 1)
    return best, mean, half, abs(mean) > half
    # END SOLUTION


check("7.5", best_ratio)

# %% [markdown]
# <details><summary>Hint 1: pairs</summary>
#
# Subtract list from list, entry by entry, before you average anything.
#
# </details>
# <details><summary>Hint 2: the pieces</summary>
#
# `torch.tensor(...).std()` divides by n − 1. `max(ratios, key=...)` finds the highest mean. If the best is 1
# itself, all differences are 0, and the last answer is False.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# The usual comparison, by your function: at each rate of A, the best ratio beside 1, in points of accuracy, with
# half of the interval behind ±. Two seeds are very few: what do you expect of the last column?

# %%
usual = ratios.beside_ratio_one(results, yours("7.5"))
display_table(usual)

# %% [markdown]
# **What this shows.** Six best ratios, and none is significantly better than 1. With two seeds an
# interval goes 12.7 standard errors to either side: nearly anything could be true.
#
# Where the best ratio falls as A's rate rises, the sweep is looking for a good rate of *B*. The comparison
# that isolates the ratio has the *same* rate of B, and A at that rate or at a smaller one:

# %%
isolated = ratios.at_one_rate_of_b(results)
display_table(isolated)

# %% [markdown]
# **What this shows.** At the same rate of B a smaller rate of A may help a little, or not: neither
# difference is significant.
#
# Last, each side chooses freely: plain LoRA its one rate, LoRA+ both. The best of many cells is best
# partly by chance, so we choose on some seeds and measure on the one left out, in turn.

# %%
chosen = ratios.chosen_on_other_seeds(results)
display_table(chosen)

# %% [markdown]
# **What this shows.** On seeds that had no say in the choice, two rates bring a point or a few over
# one. For Serial LoRA the interval leaves out zero, of two seeds, on one comparison out of two. Do
# not build on it.
#
# That is the ratio's worth where both sides are tuned with equal care, on one tiny model, one data set and two
# seeds. Each seed chose for the other, so the two differences are not quite independent, and the interval is a
# rough guide. A wider model may say otherwise, and more seeds would make the intervals much shorter: run the
# printed command with `--scale paper` or more `--seeds`. Lesson 08 says how many a verdict takes.

# %% [markdown]
# ## The paper's cells
#
# The paper gives B 20 times the rate in the two plus methods. What the plus changed, in points:

# %%
changes = {plain: ratios.plus_minus_plain(plain) for plain in ("LoRA", "Serial LoRA")}
for plain, change in changes.items():
    print(f"{plain}+ minus {plain}:")
    display(change.map("{:+.2f}".format))  # change this and run again: change.T

# %% [markdown]
# **What this shows.** In the paper the plus loses in nine of LoRA's twelve cells and in eight of
# Serial LoRA's, at worst by ten points on EuroSAT. With one shot it loses least. A ratio of rates is
# no free lunch.
#
# Too high a rate of B would look like this; the tables cannot prove it, as no other ratio or rate was tried.
#
# **So what should you do?** Try a small grid of both rates, with a ratio of 1 in it, on pictures that are
# neither shots nor test. If you can try only one thing, try the rate. If you take a ratio from elsewhere,
# lower A's rate when you raise the ratio.

# %% [markdown]
# ## Leave the machine as you found it
#
# This takes the model off the GPU.

# %%
lesson.close()

# %% [markdown]
# ## Quiz
#
# **1. B is zero, and the first step of Adam has a rate of 0.01 for both. How far does an entry of A move?
# And one of B?**
#
# <details><summary>Answer</summary>
#
# A: not at all, as its gradient is exactly zero. An entry of B: by 0.01, up or down, unless its gradient is
# near ε.
#
# </details>
#
# **2. You reuse one rate for A and B on a model four times as wide. Which matrix's steps are too large now, and
# what are two ways to correct that?**
#
# <details><summary>Answer</summary>
#
# A: the effect of its step grows with the width. Divide both rates by four, which makes B slow; or A's
# alone, which means a ratio four times as large.
#
# </details>
#
# **3. A paper compares LoRA at rate η with LoRA+ at η for A and 16 η for B, and LoRA+ wins. What is missing?**
#
# <details><summary>Answer</summary>
#
# LoRA at other rates, 16 η among them, and several seeds.
#
# </details>

# %% [markdown]
# ## Key points
#
# - A step changes B A by ΔB A, B ΔA and ΔB ΔA. While B is zero, only the first is not zero.
# - Under Adam the rate is the size of the step. The effect of A's step grows with the width, that of B's
#   does not.
# - LoRA+ is two parameter groups. Print them: names decide, and decay follows each group's own rate.
# - Compare with plain LoRA at *its* best rate, and choose on other runs than those you report.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer", section III: "For LoRA+ and Serial LoRA+, we maintain a
# learning rate ratio of 1:20 between matrices A and B"; results in Tables II to IV. The argument about width
# is from S. Hayou, N. Ghosh and B. Yu, "LoRA+: Efficient Low Rank Adaptation of Large Models", ICML 2024.
