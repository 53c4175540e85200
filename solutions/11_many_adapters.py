# %% [markdown]
# # 11 · Many adapters on one base
#
# You run a service that names drawings. Sixty-four drawings come in at once, from sixty-four customers, and each
# customer has an adapter.
#
# - *Switch* from adapter to adapter: sixty-four passes, of one drawing each.
# - *Merge* each adapter into a copy of the model: sixty-four models in memory.
# - *Add* all adapters up: one model, one pass. How many answers are still right?
#
# Can one frozen model answer all in one pass, each customer with their own adapter? It can: you write it by hand. Then
# you measure what one, eight and sixty-four adapters cost, in milliseconds and megabytes.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

import copy

import torch
from torch import Tensor, nn

from serial_lora import SerialLoRAConfig, adapters, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.lessons.l11_many import figures
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("11")
display_drawing("many_adapters")

# %% [markdown]
# ## Switch: a pass for each
#
# Two customers first: one sends symbols, the other pictures of travel. Your loop from lesson 04 trains an adapter for
# each, on up to sixteen drawings of each class, and one for both, on the drawings of both. An adapter is a pair (A, B)
# for every block.

# %%
Pair = tuple[Tensor, Tensor]  # A (r, d) and B (d, r)
clip = load_clip("tiny")
tasks = {task: load_classification(task) for task in ("symbols", "travel")}
prompts = {
    task: clip.tokenizer(data.prompts(data.template))  # (C, context length)
    for task, data in tasks.items()
}


def batch(examples: list, transform) -> tuple[Tensor, Tensor]:
    """Drawings (B, 3, H, W) and their classes (B,)."""
    drawings, labels = zip(*examples, strict=True)
    return torch.stack([transform(drawing) for drawing in drawings]), torch.tensor(labels)


def scores(model: nn.Module, drawings: Tensor, prompts: Tensor) -> Tensor:
    """Cosines of drawings and class prompts: (B, C)."""
    return model.encode_image(drawings, normalize=True) @ encode_prompts(model, prompts).T


# %%
train, loss_of = yours("4.4"), yours("4.3")
RANK, RATE, STEPS, BATCH = 16, 3e-3, 24, 32  # change this and run again, and all below
SHOTS, CROPS = 16, 10  # drawings of a class, and crops of each


def adapter_for(*names: str) -> dict[str, Pair]:
    """An adapter trained on one task, or on several: the pair of every block, by its name."""
    model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK))
    shots, texts = [], []
    for task in names:
        chosen = [tasks[task].train[i] for i in few_shot_split(tasks[task], SHOTS, seed=1).indices]
        drawings, labels = batch(CROPS * chosen, clip.train_transform)
        shots += zip(drawings, labels + sum(map(len, texts)), strict=True)  # classes count on
        texts.append(prompts[task])
    learns = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": learns, "lr": RATE, "weight_decay": 0.01}]
    train(model, groups, shots, torch.cat(texts), loss_of, len(names) * STEPS, BATCH)
    pairs = adapters(model).items()
    return {place: (pair.lora_A.detach(), pair.lora_B.detach()) for place, pair in pairs}


torch.manual_seed(1)
trained = {task: adapter_for(task) for task in tasks}
trained_on_both = adapter_for(*tasks)  # as many steps as the two together

# %% [markdown]
# To switch, put one adapter's matrices into the model. What will the adapter for symbols do to travel?

# %%
model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK)).eval()
tests = {task: batch(list(data.test), clip.test_transform) for task, data in tasks.items()}


def put(pairs: dict[str, Pair]) -> None:
    """Put these pairs into their blocks of the model; nothing is copied."""
    blocks = adapters(model)
    for place, (A, B) in pairs.items():
        blocks[place].lora_A.data, blocks[place].lora_B.data = A, B


@torch.no_grad()
def right(task: str) -> int:
    """How many test drawings of a task the model, as it is now, names right."""
    drawings, labels = tests[task]
    return int((scores(model, drawings, prompts[task]).argmax(-1) == labels).sum())


def show(name: str, *counts: int | str) -> None:
    print(f"{name:24}" + "".join(f"{each:>9}" for each in counts))


show("drawings named right", *tasks)
show("no adapter", *(base := [right(task) for task in tasks]))
for task in tasks:
    put(trained[task])
    show(f"adapter for {task}", *map(right, tasks))
show("of", *(len(y) for _, y in tests.values()))

size = sum(matrix.nbytes for pair in trained["symbols"].values() for matrix in pair)
print(f"one adapter: {size:,} bytes, so a gigabyte holds {10**9 // size:,}")

# %% [markdown]
# Each adapter helps its own customer, symbols from 36 drawings to 56 and travel from 33 to 52, and moves the other by
# four at most. So each drawing needs its own. (With 73 and 78 drawings and one seed, a few more or less mean nothing,
# here and below.)
#
# A switch copies nothing, and a gigabyte holds the adapters of 4,069 customers. But two customers in a batch are two
# passes.
#
# ## Add: one adapter for all
#
# One pass, then, with one adapter. With all drawings at hand you train it on all: the third run. With nothing but the
# adapters you add their changes, each with a weight:
#
# $$ I + w_1 B_1 A_1 + w_2 B_2 A_2 . $$
#
# To add the A's and to add the B's would be something else: B₁A₂ and B₂A₁ would come in, which nobody trained. But **a
# sum of products is a product**, of matrices that are stacked, A's rows on top of each other and B's columns side by
# side:
#
# $$ w_1 B_1 A_1 + w_2 B_2 A_2 = \begin{pmatrix} w_1 B_1 & w_2 B_2 \end{pmatrix}
# \begin{pmatrix} A_1 \\ A_2 \end{pmatrix} . $$
#
# The rank of the new pair is r₁ + r₂, and the sum is exact.
#
# ### Exercise 11.1 · Add pairs exactly
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 10 |
#
# Return one pair whose product B A is the weighted sum of the products. There may be more than two pairs, of different
# ranks.


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
    A = torch.cat([A_i for A_i, _ in pairs])  # (r, d)
    B = torch.cat([w * B_i for w, (_, B_i) in zip(weights, pairs, strict=True)], dim=1)  # (d, r)
    return A, B
    # END SOLUTION


check("11.1", add_pairs)

# %% [markdown]
# <details><summary>Hint 1: which way to stack</summary>
#
# `torch.cat` puts matrices on top of each other (`dim=0`) or side by side (`dim=1`). A has r rows, B has r
# columns.
#
# </details>
# <details><summary>Hint 2: where the weight goes</summary>
#
# Each product must be multiplied by its weight once. So the weight belongs to one of its two factors.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)

# %%
add = yours("11.1")
both = {  # half of each, in every block
    place: add([trained[task][place] for task in tasks], [0.5, 0.5]) for place in trained_on_both
}
A, B = both[place := next(iter(both))]  # the first block
first, second = (B_i @ A_i for A_i, B_i in (trained[task][place] for task in tasks))  # (d, d)
off = (B @ A - (0.5 * first + 0.5 * second)).abs().max()
print(f"A {tuple(A.shape)}, B {tuple(B.shape)}, off by {off:.0e}")

show("drawings named right", *tasks)
for name, pairs in (("half of each, added", both), ("trained on both", trained_on_both)):
    put(pairs)
    show(name, *map(right, tasks))

# %% [markdown]
# Rank 32, correct up to rounding. Half of each names far more than the base, and five and four fewer than each
# customer's own adapter. The run on both is three and one ahead of that, too few to call it better. (To add changes of
# weights is *task arithmetic*, Ilharco et al., 2023 <!-- from their paper's year: 2023 -->.)
#
# What costs those answers? Your adapter has half its **size**. And the other customer's pushes in **directions** of its
# own. To tell the two apart, take a customer's own adapter at weights from an eighth to four:
#
# - alone, so that only its size changes;
# - with the other's beside it, at the same weight: the sum;
# - with a *random* product beside it that is as large as the other's: its size, but not its directions.
#
# Which lines will come apart, and where?


# %%
def random_like(pair: Pair) -> Pair:
    """A random pair of the same rank; its B A is as large as this one's."""
    A, B = (torch.randn_like(matrix) for matrix in pair)
    return A, B * ((pair[1] @ pair[0]).norm() / (B @ A).norm())


def named(weight: float, beside) -> int:
    """Both tasks' drawings named right by their own adapter, and what stands beside it."""
    total = 0
    for task, other in (("symbols", "travel"), ("travel", "symbols")):
        blocks = {at: [own, *beside(trained[other][at])] for at, own in trained[task].items()}
        put({at: add(pairs, [weight] * len(pairs)) for at, pairs in blocks.items()})
        total += right(task)
    return total


torch.manual_seed(1)
weights = (0.125, 0.25, 0.5, 1, 2, 4)
counts = {
    name: [named(weight, beside) for weight in weights]
    for name, beside in {
        "alone": lambda other: [],
        "the other's beside it": lambda other: [other],
        "random beside it": lambda other: [random_like(other)],
    }.items()
}
show("weight", *weights)
for name, row in counts.items():
    show(name, *row)
print(f"no adapter: {sum(base)}, of {sum(len(y) for _, y in tests.values())}")
lines = {name: list(zip(weights, row, strict=True)) for name, row in counts.items()}
display_figure(figures.plot_ways({"named right": lines}, "weight", {"no adapter": sum(base)}))

# %% [markdown]
# Alone, an adapter does best at 1, as it was trained: 108 right. At a half it names 96, and 99 with the other's half
# beside it. So half of each lost by its **size**; there the other costs nothing.
#
# At 1 the other costs eleven answers, and at 2 twenty-eight: the sum is back at the base (dotted). A random product of
# the same size costs three and none. So it is the other's **direction**, as far as one seed and one random draw can
# tell. At 4 an adapter is too large even alone: 59.
#
# With more customers it should be worse: eight weights that add up to one are an eighth each, and at an eighth an
# adapter, even alone, names 78, where the base names 69. So a sum is for few, and the best is one's own, at weight 1.
# (If you use a sum, choose its weights on drawings that you do not report.)
#
# ## Gather: one pass, to each its own
#
# Pairs are small enough to be *gathered*: keep all adapters in two tensors, select each sample's A and B, and multiply
# in one batched product. First the tensors. Ranks differ: ours have 16, a sum of two 32, no adapter 0.
#
# ### Exercise 11.2 · Any ranks, one stack
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# Stack the pairs of K adapters in two tensors, all with the largest rank. Fill up the smaller pairs so that each
# product B A stays what it was.


# %% tags=["exercise"]
def stack_pairs(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """All adapters in two tensors, in their order.

    Args:
        pairs: (A_i, B_i), of shapes (r_i, d) and (d, r_i); a rank may be 0.

    Returns:
        (K, r, d), the A of each, and (K, d, r), its B, where r is the largest r_i.
    """
    # BEGIN SOLUTION
    rank, width = max(len(A) for A, _ in pairs), pairs[0][0].shape[1]
    all_A = torch.zeros(len(pairs), rank, width)  # (K, r, d)
    all_B = torch.zeros(len(pairs), width, rank)  # (K, d, r)
    for k, (A, B) in enumerate(pairs):
        all_A[k, : len(A)], all_B[k, :, : len(A)] = A, B
    return all_A, all_B
    # END SOLUTION


check("11.2", stack_pairs)

# %% [markdown]
# <details><summary>Hint 1: what adds nothing</summary>
#
# B A is a sum: column j of B times row j of A, for each j. A row of zeros in A, with a column of zeros in B, adds
# nothing.
#
# </details>
# <details><summary>Hint 2: zeros first</summary>
#
# Begin with two tensors of zeros. Pair k fills the first r_k rows of `all_A[k]` and the first r_k columns of
# `all_B[k]`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)
#
# ### Exercise 11.3 · Gathered pairs
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# Apply to each sample its own pair; `which` says which. You need no loop: indexing with a tensor selects rows, and `@`
# multiplies batches.


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
#
# Now put both into the model: a module takes the place of the norm before each attention. All test drawings of both
# customers go in at once, three times: without an adapter (a pair of rank 0), with that for symbols, and with that for
# travel. (The prompts of each adapter are encoded apart, once.) Does one pass give the table of the first section?


# %%
stack, gather = yours("11.2"), yours("11.3")


class Gathered(nn.Module):
    """A norm, and behind it each sample's own pair."""

    def __init__(self, norm: nn.Module, pairs: list[Pair], which: Tensor) -> None:
        super().__init__()
        self.norm, self.which = norm, which
        self.all_A, self.all_B = stack(pairs)

    def forward(self, x: Tensor) -> Tensor:
        return gather(self.norm(x), self.all_A, self.all_B, self.which)


def server_of(stored: list[dict[str, Pair]], which: Tensor) -> nn.Module:
    """A CLIP whose image tower gives each sample its own one of the stored adapters."""
    server = copy.deepcopy(clip.model)
    for i, block in enumerate(server.visual.transformer.resblocks):
        pairs = [each[f"visual.transformer.resblocks.{i}.serial_lora"] for each in stored]
        block.ln_1 = Gathered(block.ln_1, pairs, which)
    return server


# %%
none = {place: (A[:0], B[:, :0]) for place, (A, B) in trained_on_both.items()}  # rank 0
stored = {"no adapter": none} | {f"adapter for {task}": trained[task] for task in tasks}
drawings = torch.cat([drawings for drawings, _ in tests.values()])  # (N, 3, H, W), of both tasks
which = torch.arange(3).repeat_interleave(len(drawings))  # (3 N,): adapter 0 for all, then 1, 2
server = server_of(list(stored.values()), which)
with torch.no_grad():
    together = server.encode_image(drawings.repeat(3, 1, 1, 1), normalize=True)  # one pass

answers, off = {}, 0.0
show("drawings named right", *tasks)
for (name, pairs), seen in zip(stored.items(), together.chunk(3), strict=True):
    put(pairs)
    with torch.no_grad():
        off = max(off, (model.encode_image(drawings, normalize=True) - seen).abs().max().item())
        for task, own in zip(tasks, seen.split([len(y) for _, y in tests.values()]), strict=True):
            answers[name, task] = (own @ encode_prompts(model, prompts[task]).T).argmax(-1)
    show(name, *(int((answers[name, task] == y).sum()) for task, (_, y) in tests.items()))
print(f"one pass and three differ by at most {off:.0e}")

# %%
picked = [("symbols", 33), ("symbols", 43), ("travel", 17), ("travel", 37)]
pictures, titles = [], []
for name in stored:
    for task, i in picked:
        drawing, label = tasks[task].test[i]
        answer = int(answers[name, task][i])
        mark = "✓" if answer == label else "✗"
        pictures.append(drawing)
        titles.append(f"{name}:\n{mark} {tasks[task].class_names[answer]}")
display_figure(show_pictures(pictures, titles, columns=4))
print(tasks["travel"].attribution)

# %% [markdown]
# The same table, from one pass; the rest is rounding. Each customer gets all that their own adapter is worth, with the
# other's in the same batch. (We chose four drawings that only their own adapter names right; choose others.)
#
# ## What 1, 8 and 64 adapters cost
#
# Sixty-four drawings come in at once, from 1, 8 or 64 customers. One server *switches*, one holds a *merged copy* of the
# image tower for each customer, and one takes all in *one pass*. (Each customer has a copy of one adapter. In place of
# 64 towers we time one, which can only favour the copies, and multiply its megabytes. The fastest of five rounds counts.) Guess which
# lines stay low.

# %%
from timeit import timeit

some, tower = drawings[:64], clip.model.visual  # (64, 3, H, W)
pairs = {place: pair for place, pair in trained["symbols"].items() if place.startswith("visual.")}
pairs_mb = sum(matrix.nbytes for pair in pairs.values() for matrix in pair) / 1e6
tower_mb = sum(p.nbytes for p in tower.parameters()) / 1e6


def one_by_one(customers: int, encode, pairs: dict | None = None) -> None:
    for theirs in some.chunk(customers):
        if pairs is not None:
            put(pairs)
        encode(theirs)


# %%
def servers(customers: int) -> dict:
    """What each of the three does with sixty-four drawings of so many customers."""
    server = server_of(customers * [pairs], torch.arange(64) * customers // 64)
    return {
        "switched": lambda: one_by_one(customers, model.encode_image, pairs),
        "one pass": lambda: server.encode_image(some),
        "merged copies": lambda: one_by_one(customers, tower),
    }


counts = (1, 8, 64)
runs = {(name, count): run for count in counts for name, run in servers(count).items()}
with torch.no_grad():  # five rounds, each of them through all nine
    rounds = [{key: timeit(run, number=1) for key, run in runs.items()} for _ in range(5)]
costs = {"milliseconds for 64 drawings": {}, "megabytes": {}}
show("customers", *(f"{count}: {unit}" for unit in ("ms", "MB") for count in counts))
with_pairs, copied = (tower_mb, pairs_mb), (0, tower_mb)  # once, and for each customer
sizes = {"switched": with_pairs, "one pass": with_pairs, "merged copies": copied}
for name, (once, each_mb) in sizes.items():
    ms = [1000 * min(each[name, count] for each in rounds) for count in counts]
    mb = [once + count * each_mb for count in counts]
    show(name, *(f"{value:.0f}" for value in ms + mb))
    for what, values in zip(costs, (ms, mb), strict=True):
        costs[what][name] = list(zip(counts, values, strict=True))
display_figure(figures.plot_ways(costs, "customers"))

# %% [markdown]
# With 64 customers merged copies need 704 MB, one base and all pairs 20. One pass takes about as long for 64 customers
# as for one. Switching and merged copies take far longer with 64: their sixty-four passes of one drawing each use the
# machine badly. Only one pass stays low in both.
#
# Here A and B are copied for each sample. Services that hold many LoRAs on a GPU (S-LoRA, Punica) gather without copies,
# by kernels of their own. In the library `load_adapter(model, file, name=...)` and `activate` switch, `combine` adds, and
# `per_sample` gathers; they take LoRA's pairs too.
#
# ## Quiz
#
# **1. Two adapters of rank 8 and 4 are added. What is the rank of their exact sum, and could it be lower?**
#
# <details><summary>Answer</summary>
#
# The stacked pair has rank 12. The product itself may have a lower rank: if both pairs read some of the same
# directions, the rows of A are not independent, and a smaller pair would be enough. It is never more than r₁ + r₂.
#
# </details>
#
# **2. Serial LoRA's pairs can also stand one behind the other: tokens pass the first, then the second. Is that their
# sum?**
#
# <details><summary>Answer</summary>
#
# No. (I + B₂A₂)(I + B₁A₁) = I + B₁A₁ + B₂A₂ + B₂A₂B₁A₁: there is one more term, and an order. It is one pair again, of
# rank r₁ + r₂: stack A₁ over A₂ + A₂B₁A₁, and B₁ beside B₂. The library's `chain` makes it. LoRA's pairs stand beside a
# weight, and all of them read the same tokens: they can only be added.
#
# </details>
#
# **3. You merge the sum into the weights, W' = W (I + B A), and one customer leaves. Can you take out their part?**
#
# <details><summary>Answer</summary>
#
# Not with their pair alone: their part of the change is w₁ W B₁ A₁, and W is gone. With W you subtract it. With all
# pairs you undo the whole sum by an inverse, W = W' (I + B A)⁻¹, and merge the others again.
#
# </details>
#
# ## What to remember
#
# | You have | Take | It costs |
# |---|---|---|
# | one customer's requests at a time | a switch | the pairs' products |
# | batches of many customers | one pass: stack and gather | a copy of A and B for each sample |
# | one customer on a machine | a merged copy | a whole model for each |
# | one adapter for all, and the drawings | a run on all of them | a training |
# | one adapter for all, and only adapters | their sum | rank r₁ + r₂, some answers |
#
# A sum is exact, but its parts share one model: small weights weaken each of them, and large ones let them disturb each
# other. To each sample its own costs neither.
#
# Next: [a model and pictures of your own](12_your_own.ipynb).
