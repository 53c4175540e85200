# %% [markdown]
# # 11 · Many adapters on one base
#
# You run a small service that names drawings. One customer sends symbols, another one sends pictures of travel, and
# you have an adapter for each. Must the model be in memory twice? Can one adapter serve both? And if a batch holds
# drawings of both, can you run it in one pass?
#
# An adapter is two thin matrices in each block, which are easy to keep, to stack and to select. You do all of it by
# hand, and measure the result.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import copy

import torch
from torch import Tensor, nn

from serial_lora import SerialLoRAConfig, adapters, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.lessons.l11_many.figures import plot_ways
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("11")

# %%
display_drawing("many_adapters")

# %% [markdown]
# ## Switch
#
# First you need two adapters. Your loop from lesson 04 trains them, on sixteen drawings of each class. From each run
# we keep a pair (A, B) for every block. A third run trains on both customers' drawings.

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
# To switch adapters, put the matrices of one of them into the model's pairs. How will the adapter for
# symbols do on travel?

# %%
model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK)).eval()
tests = {task: batch(list(data.test), clip.test_transform) for task, data in tasks.items()}


def put(pairs: dict[str, Pair]) -> None:
    """Put these pairs into their blocks of the model; nothing is copied."""
    blocks = adapters(model)
    for place, (A, B) in pairs.items():
        blocks[place].lora_A.data, blocks[place].lora_B.data = A, B


@torch.no_grad()
def right() -> list[int]:
    """Test drawings of each task that the model, as it is now, names right."""
    guesses = {task: scores(model, x, prompts[task]).argmax(-1) for task, (x, _) in tests.items()}
    return [int((guesses[task] == y).sum()) for task, (_, y) in tests.items()]


def show(name: str, *counts: int | str) -> None:
    print(f"{name:24}" + "".join(f"{each:>9}" for each in counts))


show("drawings named right", *tasks)
show("the base", *right())
for task in tasks:
    put(trained[task])
    show(f"adapter for {task}", *right())
show("of", *(len(y) for _, y in tests.values()))

size = sum(matrix.nbytes for pair in trained["symbols"].values() for matrix in pair)
print(f"one adapter: {size:,} bytes, so a gigabyte holds {10**9 // size:,}")

# %% [markdown]
# The adapter for symbols takes its own task from 36 drawings to 56, the other one takes travel from 33 to 52. Each
# moves the other's task by four at most. (With 73 and 78 drawings and one seed, a few more or less mean nothing, here
# and below.)
#
# A switch copies nothing: it points the model at other matrices. A gigabyte holds the adapters of 4,069 customers, and
# the base is in memory once.
#
# ## Sum
#
# What if a request does not say whose it is, or only one model may ship? The simplest is the third run, which saw all
# drawings. If you have only the two adapters, *mix* them: w₁ of the first change and w₂ of the second,
#
# $$ I + w_1 B_1 A_1 + w_2 B_2 A_2 . $$
#
# **A sum of products is a product**, of matrices that are stacked, A's rows on top of each other and B's columns side by
# side:
#
# $$ w_1 B_1 A_1 + w_2 B_2 A_2 = \begin{pmatrix} w_1 B_1 & w_2 B_2 \end{pmatrix}
# \begin{pmatrix} A_1 \\ A_2 \end{pmatrix} . $$
#
# The rank of the new pair is r₁ + r₂, and the sum is exact.

# %% [markdown]
# ### Exercise 11.1 · Add pairs exactly
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 10 |
#
# Return one pair whose product B A is the weighted sum of the products. There may be more than two pairs, and their
# ranks may differ.


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


def mix(make, *arguments) -> dict[str, Pair]:
    """One adapter of the two: ``make(pairs, ...)`` in every block."""
    return {
        place: make([trained[task][place] for task in tasks], *arguments)
        for place in trained["symbols"]
    }


both = mix(add, [0.5, 0.5])
A, B = both[place := next(iter(both))]  # the first block
first, second = (B_i @ A_i for A_i, B_i in (trained[task][place] for task in tasks))  # (d, d)
wanted = 0.5 * first + 0.5 * second
print(f"A {tuple(A.shape)}, B {tuple(B.shape)}, off by {(B @ A - wanted).abs().max():.0e}")
for name, pairs in (("half of each, stacked", both), ("trained on both", trained_on_both)):
    put(pairs)
    show(name, *right())

# %% [markdown]
# Rank 32, and correct up to rounding. Half of each adapter names 51 symbols right and 48 of travel: far more than the
# base, and five and four fewer than the specialists. The adapter that was trained on both is three drawings and one
# ahead of the mixture, too few to call it better. Adding with weights is *task arithmetic* (Ilharco et al.,
# 2023 <!-- from their paper's year: 2023 -->).
#
# To keep the rank, PEFT's default cuts the sum back by an SVD: the strongest terms of B A stay. Its `linear` adds the
# A's and adds the B's, each times the *square root* of its weight. Multiply it out:
#
# $$ w_1 B_1 A_1 + w_2 B_2 A_2 + \sqrt{w_1 w_2}\,(B_1 A_2 + B_2 A_1) . $$
#
# Two more products come in, which nobody trained: "a very rough approximation", says PEFT's docstring. What does it
# cost? A distance from the sum needs a *control*: a random product that takes it as far away. Guess which of the
# three loses most.


# %%
def cut(pair: Pair, rank: int) -> Pair:
    """The strongest terms of B A, and no others: the nearest pair of this rank."""
    U, S, Vh = torch.linalg.svd(pair[1] @ pair[0])
    return Vh[:rank], U[:, :rank] * S[:rank]


def average(pairs: list[Pair], weights: list[float]) -> Pair:
    """As PEFT's `linear`: A's and B's are added, each times the root of its weight."""
    A = sum(w**0.5 * A_i for w, (A_i, _) in zip(weights, pairs, strict=True))  # (r, d)
    return A, sum(w**0.5 * B_i for w, (_, B_i) in zip(weights, pairs, strict=True))


def disturb(pair: Pair, share: float, kept: float = 1.0) -> Pair:
    """The pair, and beside it a random one of the same rank, of this share of its norm."""
    A, B = (torch.randn_like(matrix) for matrix in pair)
    return add([pair, (A, B)], [kept, share * (pair[1] @ pair[0]).norm() / (B @ A).norm()])


def changes(pairs: dict[str, Pair]) -> Tensor:
    """B A of every block, in one row."""
    return torch.cat([(B @ A).flatten() for A, B in pairs.values()])


def judge(pairs: dict[str, Pair]) -> tuple[float, int]:
    """How far an adapter is from the exact sum, in per cent, and how many it names right."""
    put(pairs)
    off = (changes(pairs) - changes(both)).norm() / changes(both).norm()
    return 100 * off.item(), sum(right())


# %%
RANKS, SHARES = (32, 16, 8, 4, 2, 1, 0), (0, 0.25, 0.5, 0.75, 1, 1.5)
ways = {
    "the sum, cut by an SVD": [{p: cut(pair, r) for p, pair in both.items()} for r in RANKS],
    "the sum and a random product": [
        {p: disturb(pair, share) for p, pair in both.items()} for share in SHARES
    ],
    "average of A's and of B's": [mix(average, [0.5, 0.5])],
    "a random product alone": [{p: disturb(pair, 1, kept=0) for p, pair in both.items()}],
}
points = {name: [judge(each) for each in mixtures] for name, mixtures in ways.items()}
for name, found in points.items():
    print(f"{name:30}" + ", ".join(f"{count} at {off:.0f}%" for off, count in found))
total = sum(len(y) for _, y in tests.values())
display_figure(plot_ways(points, "distance from the exact sum (%)", f"of {total} named right"))

# %% [markdown]
# The average is 74% off and names 100 right, the sum 99. But that is no merit of its two extra products: random ones
# do as little harm, even at 150%. Cut to one term a block, the sum is only 71% off, and loses twelve answers. So a
# distance alone says little. What counts here is what the sum *lost*, not what came in. (A random product alone is 141%
# off, and as good as the base.)
#
# Then why stack? You get exactly what you asked for, with any ranks and weights. The price is the rank, 32. (Back at
# 16, the SVD costs one drawing here.)
#
# ## Chain
#
# Serial LoRA stands *in front of* the weights, so two pairs can stand one behind the other. Tokens pass the first,
# then the second:
#
# $$ (I + B_2 A_2)(I + B_1 A_1) = I + B_1 A_1 + B_2 A_2 + B_2 A_2 B_1 A_1 . $$
#
# The last term makes it different from the sum. (LoRA's pairs stand beside a weight, and all of them read the same
# tokens: they can only be added.) Can a chain of two again be written as *one* pair?

# %% [markdown]
# ### Exercise 11.2 · A chain as one pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●○○ | 15 |
#
# Return one pair of rank r₁ + r₂ that does what the two pairs do one after the other. The check compares it with the
# product of the two dense matrices I + B A.


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
    passed = A2 + A2 @ B1 @ A1  # (r2, d): what the second reads has passed the first
    return torch.cat([A1, passed]), torch.cat([B1, B2], dim=1)
    # END SOLUTION


check("11.2", chain_pairs)

# %% [markdown]
# <details><summary>Hint 1: three terms from two stacks</summary>
#
# Without the last term it is exercise 11.1. B₂A₂ + B₂A₂B₁A₁ = B₂ (A₂ + A₂B₁A₁): the second A reads tokens that the
# first pair has already changed.
#
# </details>
# <details><summary>Hint 2: shapes</summary>
#
# A₂ B₁ is only (r₂, r₁). So A₂ B₁ A₁ is (r₂, d), as A₂ is.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)

# %%
chain = yours("11.2")
ways = {
    "sum": mix(add, [1.0, 1.0]),
    "symbols, then travel": mix(lambda pairs: chain(pairs[0], pairs[1])),
    "travel, then symbols": mix(lambda pairs: chain(pairs[1], pairs[0])),
}
show("drawings named right", *tasks)
for name, pairs in ways.items():
    put(pairs)
    show(name, *right())

added, *chained = (changes(pairs) for pairs in ways.values())
far = [(each - added).norm() / added.norm() for each in chained]
print(f"the chains are {far[0]:.0%} and {far[1]:.0%} off the sum")

# %% [markdown]
# With both adapters at full weight, 51 symbols come out right and 46 of travel: no more than with halves.
#
# And the order? In the algebra it matters: the chains are 7% and 9% away from the sum. In the answers, one order is two
# drawings ahead on symbols and four on travel: too few to tell. Record it with the adapter all the same.
#
# ## To each sample its own
#
# Now the batch with drawings of both customers, and some for the bare base. Switching would need three passes. But a
# pair is small enough to be *gathered*: select for each sample its own A and B, and multiply all of them in one
# batched product.

# %% [markdown]
# ### Exercise 11.3 · Gathered pairs
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# Apply to each sample its own pair. The pairs of all adapters are stacked in two tensors, and `which` says which one
# belongs to each sample. You need no loop: indexing with a tensor selects rows, and `@` multiplies batches.


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
# Now put it into the model. Lesson 03 used a pre-hook on each attention; here a module takes the place of the norm
# before it. The base is an adapter too: one whose B is zero. Is the result that of one drawing after another, each with
# its own adapter switched on?


# %%
gather = yours("11.3")


class Gathered(nn.Module):
    """A norm, and behind it each sample's own pair."""

    def __init__(self, norm: nn.Module, pairs: list[Pair], which: Tensor) -> None:
        super().__init__()
        self.norm, self.which = norm, which
        self.all_A, self.all_B = (torch.stack(each) for each in zip(*pairs, strict=True))

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
customers, places = ["symbols", "symbols", "travel", "travel"], [23, 43, 15, 34]
customers, places = 2 * customers, 2 * places  # each drawing twice in the batch:
names = [None] * 4 + customers[4:]  # with no adapter, and with its customer's
picked = [tasks[task].test[i] for task, i in zip(customers, places, strict=True)]
drawings, _ = batch(picked, clip.test_transform)  # (B, 3, H, W)

trained[None] = {place: (A, 0 * B) for place, (A, B) in trained["symbols"].items()}  # the base
which = torch.tensor([list(trained).index(name) for name in names])  # (B,)
server = server_of(list(trained.values()), which)
with torch.no_grad():
    together = server.encode_image(drawings, normalize=True)  # (B, D), in one pass

# %%
answers, apart = [], torch.empty_like(together)
for i, (name, task) in enumerate(zip(names, customers, strict=True)):
    put(trained[name])
    with torch.no_grad():
        apart[i] = model.encode_image(drawings[i : i + 1], normalize=True)[0]
        classes = encode_prompts(model, prompts[task])  # (C, D)
    answers.append(int((together[i] @ classes.T).argmax()))

print(f"one pass and one by one differ by at most {(together - apart).abs().max():.0e}")
titles = [
    f"{name or 'no adapter'}:\n{'✓' if answer == label else '✗'} {tasks[task].class_names[answer]}"
    for name, task, answer, (_, label) in zip(names, customers, answers, picked, strict=True)
]
display_figure(show_pictures([drawing for drawing, _ in picked], titles, columns=4))
print(tasks["travel"].attribution)

# %% [markdown]
# One pass of the image tower, and the difference is rounding. In the same batch each drawing is named twice: above
# without an adapter, below with its customer's. We chose four drawings on which that helps; choose others. (The
# prompts were encoded apart, with each customer's adapter.)
#
# ## Milliseconds and megabytes
#
# Sixty-four drawings come in at once, from 1, 8 or 64 customers. Three servers answer them: one
# *switches* from customer to customer, one takes them all in *one pass*, and one holds a *merged copy* of the image
# tower for each customer (we time one tower, and multiply its megabytes). Guess which line stays flat.

# %%
from timeit import repeat

some, tower = drawings.repeat(8, 1, 1, 1), clip.model.visual  # (64, 3, H, W)
seen = {place: pair for place, pair in trained["symbols"].items() if place.startswith("visual.")}
pair_mb = sum(matrix.nbytes for pair in seen.values() for matrix in pair) / 1e6
tower_mb = sum(p.nbytes for p in tower.parameters()) / 1e6


@torch.no_grad()
def milliseconds(run) -> float:
    """The fastest of five rounds."""
    return 1000 * min(repeat(run, number=1, repeat=5))


def one_by_one(customers: int, encode, pairs: dict | None = None) -> None:
    for theirs in some.chunk(customers):
        if pairs is not None:
            put(pairs)
        encode(theirs)


# %%
def cost(customers: int) -> dict[str, float]:
    """Milliseconds of the three servers for sixty-four drawings of so many customers."""
    server = server_of(customers * [seen], torch.arange(64) * customers // 64)
    return {
        "switched": milliseconds(lambda: one_by_one(customers, model.encode_image, seen)),
        "one pass": milliseconds(lambda: server.encode_image(some)),
        "merged copies": milliseconds(lambda: one_by_one(customers, tower)),
    }


times = {count: cost(count) for count in (1, 8, 64)}
for count in times:
    print(f"{count} customers: base and pairs {tower_mb + count * pair_mb:.0f} MB,", end=" ")
    print(f"merged copies {count * tower_mb:.0f} MB")
lines = {name: [(count, each[name]) for count, each in times.items()] for name in times[1]}
display_figure(plot_ways(lines, "customers", "milliseconds for 64 drawings"))

# %% [markdown]
# One pass takes little longer for 64 customers than for one. Switching takes several times as long: batches of one waste the machine. Merged copies answer as slowly, and need 704 MB where base and pairs need 20. Services that hold thousands of LoRAs on one GPU (S-LoRA, Punica) gather too, without your copies of A
# and B for each sample.
#
# ## The package does the same
#
# In the library `load_adapter(model, file, name=...)` and `activate` switch, `combine` adds, `chain` chains, and
# `per_sample` gathers. They work for any model that `inject` can adapt and, all but `chain`, for LoRA too.
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
# **2. One customer's adapter has rank 4, another's rank 16. Can one gathered pass serve both?**
#
# <details><summary>Answer</summary>
#
# Yes: fill the smaller A with rows of zeros and the smaller B with columns of zeros, so that they stack. Zeros add
# nothing to B A.
#
# </details>
#
# **3. You merge the sum of two adapters into the weights. Can the first one still be taken out?**
#
# <details><summary>Answer</summary>
#
# From the weights alone, no: they hold one change of rank r₁ + r₂, and nothing tells which part came from which
# adapter. The first pair alone does not help either: its part of the change is w₁ W B₁ A₁, and W is gone. With W you
# subtract it. With both pairs you undo the whole sum by an inverse, W = W' (I + B A)⁻¹, and merge the second alone. (In
# a chain, W (I + B₂A₂)(I + B₁A₁), the first pair stands outside, so it can be taken out alone.)
#
# </details>
#
# ## What to remember
#
# - A switch exchanges two thin matrices a block.
# - A sum of products is a product: stack, and the rank is r₁ + r₂.
# - A chain has one more term than the sum, and an order.
# - A mixed batch takes one pass: gather each sample's A and B.
# - A distance from the exact sum says little without a random change that is as far away. Measure every mixture.
#
# Next: [a model and pictures of your own](12_your_own.ipynb).
