# %% [markdown]
# # 11 · Many adapters on one base
#
# **What you will be able to do**
#
# - keep several adapters on one frozen model, and activate one of them by its name;
# - add adapters exactly, as one adapter of rank r₁ + r₂, and say when such a sum is worth having;
# - put one adapter after another, and say why the order matters;
# - answer a mixed batch in one pass, each sample with its own adapter.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy

import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn

from serial_lora import activate, combine, disabled, eject, inject, remove_adapter
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.methods import get_method
from serial_lora_course.lessons.l11_many import mixing as many
from serial_lora_course.plots.style import display_figure

lesson_card("11")

# %% [markdown]
# An adapter is small, so one base can carry many: one for each task, customer or style. This lesson has
# two, for two sets of drawings, on the tiny CLIP. The next cells train each when it is first asked for
# (some seconds), and keep it as a file. After them you can start at any section.

# %%
import tempfile
from functools import cache
from pathlib import Path

from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import load_clip

TASKS = ("symbols", "travel")
backbone = load_clip("tiny")
sets = {task: load_classification(task) for task in TASKS}
folder = tempfile.TemporaryDirectory()

# %%
from serial_lora import save_adapter
from serial_lora_course.labs.clip import CLIPLab
from serial_lora_course.labs.lab import run_one


@cache
def adapter_file(task: str) -> Path:
    """An adapter that was trained on 16 shots of a task, saved, and taken out of the model again."""
    lab, method = CLIPLab(backbone, sets[task]), get_method("serial_lora")
    run_one(lab, method, 16, seed=1, progress=False, keep_adapter=True)
    file = save_adapter(backbone.model, Path(folder.name, f"{task}.safetensors"))
    eject(backbone.model)
    return file


# %%
from serial_lora import load_adapter


def carrying(*tasks: str) -> nn.Module:
    """A copy of the base that carries the adapters of some tasks, each under its task's name."""
    model = copy.deepcopy(backbone.model)
    for task in tasks:
        load_adapter(model, adapter_file(task), name=task)
    return model


# %% [markdown]
# Every mixture below is measured by its accuracy on both tasks, beside the base's and that of each adapter by
# itself.

# %%
from dataclasses import replace

from serial_lora_course.labs.clip import classify
from serial_lora_course.measures.metrics import accuracy


def points(model: nn.Module) -> dict[str, float]:
    """Accuracy on the test pictures of each task, in per cent."""
    found = {}
    for task, data in sets.items():
        scores, labels = classify(replace(backbone, model=model), data, data.template)
        found[task] = 100 * accuracy(scores, labels)
    return found


# %%
@cache
def alone() -> pd.DataFrame:
    """Accuracy of the base and of each adapter by itself (rows) on each task (columns)."""
    model = carrying(*TASKS)
    with disabled(model):
        rows = {"the base": points(model)}
    rows |= {f"adapter of {task}": points(activate(model, task)) for task in TASKS}
    return pd.DataFrame(rows).T


# %% [markdown]
# ## Two files, one base
#
# `load_adapter(..., name=...)` puts one more adapter onto a model. One of them is *in force*: its numbers
# are in the pairs. The model keeps the others, and `activate` copies one of them in. The base is never touched.
# Before you run the cell: what will the adapter of one task do on the other?

# %%
from serial_lora import adapter_names

model = carrying(*TASKS)
print("on the model:", adapter_names(model), "in force:", adapter_names(model)[0])
print("and now:     ", adapter_names(activate(model, TASKS[0]))[0])
display(alone().map("{:.1f}%".format))

# %% [markdown]
# **What this shows.** Each adapter helps its own task by thirty points and more, and costs the other
# one some. That is the price of specialising, and why one wants to switch.
#
# Where the other adapter's change is below zero, adapting has lost something that the base could do
# (*forgetting*), and switching brings it back.
#
# **Change this and run again**: `TASKS = ("food", "nature")` in the opening, then the opening's cells and
# these. Do these two help or hurt each other? (`serial_lora_course.data.registry` lists more sets.)
#
# ## The sum of two adapters
#
# Can one adapter hold both? Weights w₁ and w₂ say how much of each. What we want is
#
# $$ I + w_1 B_1 A_1 + w_2 B_2 A_2 . $$
#
# Many tools average the *factors*, (w₁B₁ + w₂B₂)(w₁A₁ + w₂A₂), because the result has the old rank. Multiply
# it out, and there are products such as B₁A₂ that nobody trained. But a sum of products *is* a product: of
# matrices that are stacked.

# %% [markdown]
# ### Exercise 11.1 · Add pairs exactly
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Return one pair whose product is the weighted sum of the products. The ranks of the pairs may differ.


# %% tags=["exercise"]
def add_pairs(pairs: list[tuple[Tensor, Tensor]], weights: list[float]) -> tuple[Tensor, Tensor]:
    """One pair for the sum of w_i B_i A_i.

    Args:
        pairs: (A_i, B_i), of shapes (r_i, d) and (d, r_i).
        weights: one w_i for each pair.

    Returns:
        A (r, d) and B (d, r), where r is the sum of all r_i.
    """
    # BEGIN SOLUTION
    A = torch.cat([A for A, _ in pairs])  # (r, d)
    B = torch.cat([w * B for w, (_, B) in zip(weights, pairs, strict=True)], dim=1)  # (d, r)
    return A, B
    # END SOLUTION


check("11.1", add_pairs)

# %% [markdown]
# <details><summary>Hint 1: columns times rows</summary>
#
# A product B A is a sum over the rank: column k of B times row k of A. What does a longer sum look like?
#
# </details>
# <details><summary>Hint 2: where the weight goes</summary>
#
# Each product must be multiplied by its weight once. So the weight belongs to one of its two factors.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)

# %% [markdown]
# `combine` does this for every block, and leaves the sum as one more adapter. The cell compares its pair
# in one block with yours.

# %%
from serial_lora import adapters

stack = yours("11.1")
model = carrying(*TASKS)
pairs = [many.first_pair(model, task) for task in TASKS]  # (A, B) of each, in the first block
A, B = stack(pairs, [0.5, 0.5])
combine(model, dict.fromkeys(TASKS, 0.5), name="both")
theirs = next(iter(adapters(model).values()))
product = theirs.lora_B @ theirs.lora_A  # (d, d)
off, ranks = (B @ A - product).abs().max().item(), " + ".join(str(len(A_i)) for A_i, _ in pairs)
print(f"your pair has rank {len(A)} = {ranks}; its product differs from combine's by {off:.0e}")

# %% [markdown]
# Now the question that matters: is the sum any good? One curve goes from one adapter to the other, with
# weights 1 − w and w. The other does the same with averaged factors. Expect the ends to be equal, since
# there only one adapter is left. And in between?

# %%
from serial_lora_course.lessons.l11_many.figures import plot_path

path = {"exact sum": [], "averaged factors": []}
shares = (0.0, 0.25, 0.5, 0.75, 1.0)
model, rival = carrying(*TASKS), carrying(*TASKS)
for share in shares:
    weights = dict(zip(TASKS, (1 - share, share), strict=True))
    path["exact sum"].append(points(combine(model, weights, name="sum")))
    activate(model, TASKS[0])
    remove_adapter(model, "sum")
    averaged = copy.deepcopy(rival)
    many.average_factors(averaged, weights)
    path["averaged factors"].append(points(averaged))

# %%
display_figure(plot_path(shares, path, TASKS))

# %% [markdown]
# **What this shows.** In the middle, half of each adapter keeps more where the products are added than where the factors are averaged, on both tasks.
#
# The sum is exact as algebra. That does not make it good: each adapter was trained as if the other were not
# there, and half an adapter is only half a change. Adapters of other tasks, or larger ones, may disturb each
# other more or less.
#
# **Change this and run again.** Weights need not add up to one. Move both: where does one adapter begin to
# disturb the other? (Without a running kernel you see four mixtures side by side.)

# %%
from serial_lora_course.lessons.l11_many.panel import mixture_panel

model, base = carrying(*TASKS), alone().iloc[0].to_dict()


def mixed(first: float, second: float) -> dict[str, float]:
    """Accuracy of a mixture on both tasks; the mixture is taken off the model again."""
    found = points(combine(model, dict(zip(TASKS, (first, second), strict=True)), name="mixture"))
    activate(model, TASKS[0])
    remove_adapter(model, "mixture")
    return found


panel = mixture_panel(mixed, base)

# %% [markdown]
# ## One after the other
#
# Serial LoRA stands *in front of* the weights, so two of them can stand one behind the other. Tokens pass
# the first pair, then the second. As columns:
#
# $$ (I + B_2 A_2)(I + B_1 A_1) = I + B_1 A_1 + B_2 A_2 + B_2 A_2 B_1 A_1 . $$
#
# The last term makes it different from the sum. LoRA's pairs stand beside a weight and read the same
# tokens, so they can only be added.

# %% [markdown]
# ### Exercise 11.2 · A chain as one pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●○○ | 15 |
#
# Return one pair of rank r₁ + r₂ that does what both do one after the other. The check multiplies the two
# dense matrices, in both orders.


# %% tags=["exercise"]
def chain_pairs(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """One pair with I + B A = (I + B2 A2)(I + B1 A1).

    Args:
        first: (A1, B1), of shapes (r1, d) and (d, r1): what the tokens meet first.
        second: (A2, B2), of shapes (r2, d) and (d, r2).

    Returns:
        A (r1 + r2, d) and B (d, r1 + r2).
    """
    # BEGIN SOLUTION
    (A1, B1), (A2, B2) = first, second
    A = torch.cat(
        [A1, A2 + A2 @ B1 @ A1]
    )  # (r1 + r2, d): what the second reads has passed the first
    B = torch.cat([B1, B2], dim=1)  # (d, r1 + r2)
    return A, B
    # END SOLUTION


check("11.2", chain_pairs)

# %% [markdown]
# <details><summary>Hint 1: three terms from two stacks</summary>
#
# Without the last term it is exercise 11.1. B₂A₂ + B₂A₂B₁A₁ = B₂ (A₂ + A₂B₁A₁): the second A has to know
# what the first pair did to the tokens.
#
# </details>
# <details><summary>Hint 2: shapes</summary>
#
# A₂ B₁ is only (r₂, r₁). So A₂ B₁ A₁ is (r₂, d), as A₂ is.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)

# %% [markdown]
# The cell chains the two adapters in both orders and puts them beside the sum. The next one compares the first
# block's products with those of your function.

# %%
from serial_lora import chain

model = carrying(*TASKS)
orders = {" after ".join(reversed(order)): order for order in (TASKS, TASKS[::-1])}
rows = {"sum": points(combine(model, dict.fromkeys(TASKS, 1.0), name="sum"))}
for title, order in orders.items():
    rows[title] = points(chain(model, order, name=title))
table = pd.DataFrame(rows).T
display(table.map("{:.1f}%".format))

# %%
chained = yours("11.2")
first = {name: many.first_pair(model, name) for name in (*TASKS, *rows)}  # (A, B) of each
product = {name: B @ A for name, (A, B) in first.items()}  # (d, d) each
for title, order in orders.items():
    A, B = chained(*(first[task] for task in order))
    off = (B @ A - product[title]).abs().max().item()
    away = (product[title] - product["sum"]).norm() / product["sum"].norm()
    print(f"{title}: {away:.1%} away from the sum; differs from yours by {off:.0e}")

# %%
print({task: f"one picture is {100 / len(data.test):.1f} points" for task, data in sets.items()})

# %% [markdown]
# **What this shows.** Sum and chains lie a few pictures apart. The order matters, as the algebra
# says, and here it matters little.
#
# The two orders differ from the sum by the term with both products. Where pairs are small, that term is smaller
# still, and the order hardly matters; longer training makes pairs larger, and it matters more. The order is part
# of the result: write it down.
#
# **Change this and run again**: a chain of an adapter with itself, `chain(model, (TASKS[0], TASKS[0]),
# name="twice")`. Is that the same as weight 2?
#
# ## To each sample its own
#
# A server gets pictures for both tasks in one batch. Switching between them means two passes, each with
# half a batch. But a pair is two thin matrices. Pick for each sample *its* A and B, and let one batched
# product do the work.

# %% [markdown]
# ### Exercise 11.3 · Gathered pairs
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# All pairs are stacked; `which` says which of them belongs to each sample. No loop is needed: indexing
# with a tensor picks rows, and `@` multiplies batches of matrices.


# %% tags=["exercise"]
def adapt_each(x: Tensor, all_A: Tensor, all_B: Tensor, which: Tensor) -> Tensor:
    """x + x A^T B^T, with each sample's own pair.

    Args:
        x: (B, N, d), the tokens of B samples.
        all_A: (K, r, d), the A of K adapters.
        all_B: (K, d, r), the B of K adapters.
        which: (B,), whole numbers from 0 to K - 1: the adapter of each sample.

    Returns:
        (B, N, d).
    """
    # BEGIN SOLUTION
    A, B = all_A[which], all_B[which]  # (B, r, d), (B, d, r)
    return x + (x @ A.mT) @ B.mT  # (B, N, d)
    # END SOLUTION


check("11.3", adapt_each)

# %% [markdown]
# <details><summary>Hint 1: gather first</summary>
#
# `all_A[which]` has the shape (B, r, d): row i is the A of sample i.
#
# </details>
# <details><summary>Hint 2: transposes in a batch</summary>
#
# `A.mT` exchanges the last two dimensions of every matrix. `A.T` would exchange all of them.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)

# %% [markdown]
# `per_sample` does it in every block of a model. The cell mixes eight pictures of both tasks, one of them for
# the base, and compares one pass with separate ones.

# %%
from serial_lora import per_sample

model = carrying(*TASKS).eval()
names = [TASKS[i % 2] for i in range(7)] + [None]  # None is the base
pictures = [sets[name or TASKS[0]].test[i][0] for i, name in enumerate(names)]
batch = torch.stack([backbone.test_transform(picture) for picture in pictures])  # (B, 3, H, W)
with torch.no_grad():
    with per_sample(model, names):
        together = model.encode_image(batch)  # (B, embed_dim)
    apart = {task: activate(model, task).encode_image(batch) for task in TASKS}
    with disabled(model):
        apart[None] = model.encode_image(batch)
wanted = torch.stack([apart[name][i] for i, name in enumerate(names)])  # (B, embed_dim)

# %%
off = (together - wanted).abs().max().item()
print(f"one pass and {len(apart)} passes differ by {off:.0e}")

# %% [markdown]
# Inside one block, with the first block's pairs and your function:

# %%
gathered = yours("11.3")
pairs = [many.first_pair(model, task) for task in TASKS]
all_A, all_B = (torch.stack(each) for each in zip(*pairs, strict=True))  # (K, r, d), (K, d, r)
which = torch.tensor([TASKS.index(name or TASKS[0]) for name in names])  # (B,)
x = torch.randn(len(names), 5, all_A.shape[-1])  # (B, N, d): five tokens for each sample
one_pass = gathered(x, all_A, all_B, which)
rows = [x_i + x_i @ all_A[k].T @ all_B[k].T for x_i, k in zip(x, which, strict=True)]
print(f"gathered and one by one differ by {(one_pass - torch.stack(rows)).abs().max().item():.1e}")

# %% [markdown]
# With four pairs in each block, as LoRA has, the same would gather four times as much.
#
# **Change this and run again**: other `names`, all of them `None` for instance. What does the pass equal then?

# %% [markdown]
# ## What a switch costs
#
# A server that holds many adapters moves their bytes: from disk, into memory, into the pairs. The cell
# counts them for both methods on this model, at the same rank.

# %%
from serial_lora import count_parameters

counts = {}
for name in ("serial_lora", "lora"):
    trial = inject(copy.deepcopy(backbone.model), get_method(name).config(16))
    counts[name] = count_parameters(trial)
for name, count in counts.items():
    print(f"{name}: {count.adapter_bytes:,} bytes a switch,", end=" ")
    print(f"{int(1e9 // count.adapter_bytes):,} adapters in a gigabyte")

# %% [markdown]
# **What this shows.** A switch copies a quarter of a megabyte, where LoRA copies a whole one. A
# gigabyte holds four thousand such adapters, and the base is there once.
#
# Both numbers grow with the rank and with the model's width, and their ratio stays the same.
#
# **Change this and run again**: `config(4)`. How many adapters fit into a gigabyte then?

# %% [markdown]
# ## Quiz
#
# **1. Two adapters of rank 8 and 4 are added. Which rank has the exact sum, and could it be lower?**
#
# <details><summary>Answer</summary>
#
# 12, since the pairs are stacked. The product may have a lower rank: if both pairs read the same
# directions, rows of A repeat, and the sum can be written with fewer. Stacking never needs more than
# r₁ + r₂.
#
# </details>
#
# **2. Why is the average of A's and B's not the average of the changes?**
#
# <details><summary>Answer</summary>
#
# ½(B₁ + B₂) · ½(A₁ + A₂) = ¼(B₁A₁ + B₂A₂ + B₁A₂ + B₂A₁): each change is quartered instead of halved, and
# two products appear that belong to no adapter.
#
# </details>
#
# **3. You chain adapters 1 and 2, and then eject. What is left of the base?**
#
# <details><summary>Answer</summary>
#
# All of it, bit for bit. Sums and chains are new adapters; none of them writes into a weight. Only `merge`
# does, and `unmerge` brings the old weight back from a copy.
#
# </details>

# %% [markdown]
# ## Key points
#
# - One base carries many adapters by name; one is in force, and `activate` copies another in.
# - The weighted sum is exact when pairs are stacked: rank r₁ + r₂. Averaged factors are something else.
# - A chain has one more term than the sum, and an order. LoRA's pairs have no chain.
# - A mixed batch needs one pass: gather each sample's A and B.
# - Exact algebra does not say that a mixture is good. Measure it on every task that matters.

# %% [markdown]
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer" trains one adapter at a time and says nothing of several.
# The sum, the chain and the gathered pairs follow from equation (3), x' = x + B A x.
