# %% [markdown]
# # 11 · Many adapters on one base
#
# You run a small service that names drawings. One customer sends symbols, another pictures of travel, and each has an
# adapter. Soon there are more.
#
# - A request comes, and says whose it is. Must the model be in memory twice?
# - Only one model may be shipped. Can it serve both customers?
# - A batch holds drawings of both. Can you run it in one pass?
#
# An adapter is two thin matrices in each block, easy to keep, to stack and to select: you do it by hand. At the end
# one model answers sixty-four customers in one batch, each with an adapter of their own, about as fast as one.

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
# ## Switch
#
# Your loop from lesson 04 trains the two adapters, on up to sixteen drawings of each class. Each is a pair (A, B) for
# every block. A third run trains on both customers' drawings.

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
    print(f"{name:38}" + "".join(f"{each:>9}" for each in counts))


show("drawings named right", *tasks)
show("the base", *(base := right()))
for task in tasks:
    put(trained[task])
    show(f"adapter for {task}", *right())
show("of", *(len(y) for _, y in tests.values()))

size = sum(matrix.nbytes for pair in trained["symbols"].values() for matrix in pair)
print(f"one adapter: {size:,} bytes, so a gigabyte holds {10**9 // size:,}")

# %% [markdown]
# Each adapter helps its own task, symbols from 36 drawings to 56 and travel from 33 to 52, and moves the other by four
# at most. (With 73 and 78 drawings and one seed, a few more or less mean nothing, here and below.)
#
# A switch copies nothing: it points the model at other matrices. A gigabyte holds the adapters of 4,069 customers.
#
# ## Sum
#
# What if only one model may be shipped? The simplest is the third run. If you have only the two adapters, *mix* them:
# w₁ of the first change and w₂ of the second,
#
# $$ I + w_1 B_1 A_1 + w_2 B_2 A_2 . $$
#
# **A sum of products is a product**, of matrices that are stacked, A's rows on top of each other and B's columns side
# by side:
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
# Rank 32, correct up to rounding. Half of each names far more than the base, and five and four fewer than the
# specialists. The run on both is three and one ahead of that, too few to call it better. (This is *task arithmetic*,
# Ilharco et al., 2023 <!-- from their paper's year: 2023 -->.)
#
# Why halves? Sweep w₁ from 0 to 1, with w₂ = 1 - w₁, and then let both grow together. Guess: does one customer lose what
# the other gains? Are two full adapters better than two halves?


# %%
def sweep(weights: dict[float, list[float]]) -> dict[str, list[tuple[float, int]]]:
    """For each task (x, named right), where each x has two weights, w1 and w2."""
    counts = {}
    for x, pair in weights.items():
        put(mix(add, pair))
        counts[x] = right()
    return {task: [(x, each[i]) for x, each in counts.items()] for i, task in enumerate(tasks)}


sweeps = {
    "w₁, and w₂ = 1 - w₁": sweep({w / 4: [w / 4, 1 - w / 4] for w in range(5)}),
    "w₁ = w₂": sweep({w: [w, w] for w in (0.125, 0.25, 0.5, 1, 2, 4)}),
}
display_figure(figures.plot_sweeps(sweeps, dict(zip(tasks, base, strict=True))))

# %% [markdown]
# No: from 0 to a half, symbols rise from 36 to 51, and travel falls from 52 to 48. On the right, from 0.5 to 1 little
# happens; at 2 travel is below the base (dotted), and then all falls. So two halves are a good beginning; two ones do
# about as well. (Choose weights on drawings that you do not report. We looked at the test's.)
#
# The price is the rank, 32. To keep 16, PEFT's default cuts the sum back by an SVD: the strongest terms of B A stay.
# Its `linear` adds the A's and adds the B's, each times the *square root* of its weight. Multiply it out:
#
# $$ w_1 B_1 A_1 + w_2 B_2 A_2 + \sqrt{w_1 w_2}\,(B_1 A_2 + B_2 A_1) . $$
#
# Two more products come in, which nobody trained: "a very rough approximation", says PEFT's docstring. What does it
# cost? Is it size that does harm, or direction? Beside `linear` and the cuts stand *random* products, as far from the
# halves as `linear` and farther, and the full sum, once and twice. How far each is off we measure in the matrices B A,
# and at the output, in the drawings' embeddings; no adapter is 100% off. Guess which lose answers.


# %%
def cut(pair: Pair, rank: int) -> Pair:
    """The strongest terms of B A, and no others: the nearest pair of this rank."""
    U, S, Vh = torch.linalg.svd(pair[1] @ pair[0])
    return Vh[:rank], U[:, :rank] * S[:rank]


def average(pairs: list[Pair], weights: list[float]) -> Pair:
    """As PEFT's `linear`: A's and B's are added, each times the root of its weight."""
    A = sum(w**0.5 * A_i for w, (A_i, _) in zip(weights, pairs, strict=True))  # (r, d)
    return A, sum(w**0.5 * B_i for w, (_, B_i) in zip(weights, pairs, strict=True))


def disturb(pair: Pair, share: float) -> Pair:
    """The pair, and beside it a random one of the same rank, of this share of its norm."""
    A, B = (torch.randn_like(matrix) for matrix in pair)
    return add([pair, (A, B)], [1.0, share * (pair[1] @ pair[0]).norm() / (B @ A).norm()])


def products(pairs: dict[str, Pair]) -> Tensor:
    """B A of all blocks, as one vector."""
    return torch.cat([(B @ A).flatten() for A, B in pairs.values()])


@torch.no_grad()
def embeddings(pairs: dict[str, Pair]) -> Tensor:
    """What the model with these pairs makes of all test drawings: (drawings, D)."""
    put(pairs)
    return torch.cat([model.encode_image(x, normalize=True) for x, _ in tests.values()])


# %%
none = {place: (A[:0], B[:, :0]) for place, (A, B) in both.items()}  # rank 0
ends = {look: (look(both), look(none)) for look in (products, embeddings)}


def distance(pairs: dict[str, Pair], look) -> float:
    """From the exact sum, as a share of its own distance from no adapter."""
    exact, nothing = ends[look]
    return ((look(pairs) - exact).norm() / (nothing - exact).norm()).item()


rough = mix(average, [0.5, 0.5])
far = distance(rough, products)
ways = {
    "half of each, stacked": both,
    "cut to 16 terms": {p: cut(pair, 16) for p, pair in both.items()},
    "stacked, and random": {p: disturb(pair, far) for p, pair in both.items()},
    "stacked, and more random": {p: disturb(pair, 3) for p, pair in both.items()},
    "A's added, B's added": rough,
    "cut to one term": {p: cut(pair, 1) for p, pair in both.items()},
    "the full sum": mix(add, [1.0, 1.0]),
    "no adapter": none,
    "twice the full sum": mix(add, [2.0, 2.0]),
}
show("how far off, and named right", "matrices", "output", *tasks)
for name, pairs in ways.items():
    off = [f"{distance(pairs, look):.0%}" for look in ends]
    put(pairs)
    show(name, *off, *right())

# %% [markdown]
# In the matrices, the larger random product and twice the full sum are 300% off. One loses nothing; with the other
# travel falls below the base. So it was not the size. In directions that the model uses it does harm; this random
# product mostly misses them: at the output the two are 18% and 230% off.
#
# PEFT's `linear` and the cut to one term are 74% and 71% off; at the output 22% and 44%. The cut loses twelve answers,
# and `linear`, for all its roughness, none. So look at the output; that takes no labels. What is near the halves there
# does as well. What is far may be good or bad, and only answers tell: the full sum is nearly as far off as no adapter,
# and loses two.
#
# ## To each sample its own
#
# Now the batch with drawings of both customers. Switching needs a pass for each. But pairs are small enough to be
# *gathered*: keep all adapters in two tensors, select each sample's A and B, and multiply in one batched product.
# First the tensors. Ranks differ: ours have 16, the sum 32, the base none.
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
# Now put both into the model: a module takes the place of the norm before each attention. The base is an adapter too,
# of rank 0. Is the result that of one drawing after another, each with its own adapter switched on?


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
customers, places = ["symbols", "symbols", "travel", "travel"], [23, 43, 15, 34]
names = ["no adapter"] * 4 + customers + ["half of each"] * 4
customers, places = 3 * customers, 3 * places  # each drawing three times in the batch
picked = [tasks[task].test[i] for task, i in zip(customers, places, strict=True)]
drawings, _ = batch(picked, clip.test_transform)  # (B, 3, H, W)

stored = trained | {"half of each": both, "no adapter": none}
which = torch.tensor([list(stored).index(name) for name in names])  # (B,)
server = server_of(list(stored.values()), which)
with torch.no_grad():
    together = server.encode_image(drawings, normalize=True)  # (B, D), in one pass

# %%
answers, apart = [], torch.empty_like(together)
for i, (name, task) in enumerate(zip(names, customers, strict=True)):
    put(stored[name])
    with torch.no_grad():
        apart[i] = model.encode_image(drawings[i : i + 1], normalize=True)[0]
        classes = encode_prompts(model, prompts[task])  # (C, D)
    answers.append(int((together[i] @ classes.T).argmax()))

print(f"one pass and one by one differ by at most {(together - apart).abs().max():.0e}")
titles = [
    f"{name}:\n{'✓' if answer == label else '✗'} {tasks[task].class_names[answer]}"
    for name, task, answer, (_, label) in zip(names, customers, answers, picked, strict=True)
]
display_figure(show_pictures([drawing for drawing, _ in picked], titles, columns=4))
print(tasks["travel"].attribution)

# %% [markdown]
# One pass of the image tower, and the difference is rounding. Each drawing is in the batch three times: without an
# adapter, with its customer's, and with half of each. We chose four on which an adapter helps; choose others. (The
# prompts were encoded apart.)
#
# ## Milliseconds and megabytes
#
# Sixty-four drawings come in at once, from 1, 8 or 64 customers. One server *switches* from customer to customer, one
# takes all in *one pass*, and one holds a *merged copy* of the image tower for each (we time one tower, and multiply its
# megabytes). Guess which line stays flat.

# %%
from timeit import repeat

some, tower = drawings[:8].repeat(8, 1, 1, 1), clip.model.visual  # (64, 3, H, W)
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
display_figure(figures.plot_ways(lines, "customers", "milliseconds for 64 drawings"))

# %% [markdown]
# (The 64 adapters are copies of one, which costs the same.) One pass takes about as long for 64 customers as for one. A
# switch or a merged copy for each takes several times as long: batches of one waste the machine. Merged copies need 704
# MB, base and pairs 20. Services that hold thousands of LoRAs on one GPU (S-LoRA, Punica) gather too, without copying A
# and B for each sample.
#
# In the library `load_adapter(model, file, name=...)` and `activate` switch, `combine` adds, and `per_sample` gathers.
# They take LoRA's pairs too.
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
# | You have | Take | It costs |
# |---|---|---|
# | one customer's requests at a time | a switch | the pair's products |
# | batches of many customers | one pass: stack and gather | a copy of A and B for each sample |
# | one model for all, and the drawings | a run on all of them | a training |
# | one model for all, and only adapters | their sum, its weights measured | rank r₁ + r₂, some answers |
# | one customer on a machine | a merged copy | a whole model each |
#
# Stacked pairs add up exactly. How far a mixture's matrices are from them says little. If its output is near theirs, it
# does as well; if not, count answers.
#
# Next: [a model and pictures of your own](12_your_own.ipynb).
