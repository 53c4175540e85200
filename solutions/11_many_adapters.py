# %% [markdown]
# # 11 · Many adapters on one base
#
# You run a service that names pictures. Sixty-four pictures come in at once, from sixty-four customers with an adapter
# each. There are four ways to serve them:
#
# - *Switch* from adapter to adapter: sixty-four passes, of one picture each.
# - *Merge* each adapter into a copy of the model: sixty-four models.
# - *Add* all adapters up: one model, one pass.
# - *Gather*: one model, one pass, and each picture meets its own adapter.
#
# Which way do you run? You write the last two by hand, count right answers, and time all four.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

import copy
from collections.abc import Callable
from functools import partial
from time import process_time
from timeit import timeit

import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn

from serial_lora import SerialLoRAConfig, adapters, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.lessons.l11_many import figures
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("11")
display_drawing("many_adapters")

# %% [markdown]
# ## Switch: a pass for each
#
# Six customers have pictures of one kind each. Your loop from lesson 04 trains an adapter for each customer: a pair (A, B)
# in every block of both towers. Whom will an adapter help, and whom will it harm?

# %%
Pair = tuple[Tensor, Tensor]  # A (r, d) and B (d, r)
CUSTOMERS = ("symbols", "travel", "objects", "photographs", "nature", "food")
RANK, RATE, STEPS, BATCH = 16, 3e-3, 24, 16  # lesson 04's rate; change this, and run all again
SHOTS, CROPS, TESTS = 16, 10, 48  # shots of a class, at most; crops of each; test pictures
train, loss_of, clip = yours("4.4"), yours("4.3"), load_clip("tiny")
sets = {name: load_classification(name) for name in CUSTOMERS}
prompts = {name: clip.tokenizer(data.prompts(data.template)) for name, data in sets.items()}


def batch(examples: list, transform) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W) and their classes (B,)."""
    pictures, labels = zip(*examples, strict=True)
    return torch.stack([transform(picture) for picture in pictures]), torch.tensor(labels)


def adapter_for(name: str) -> dict[str, Pair]:
    """An adapter trained for one customer: the pair of every block, by its name."""
    model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK))
    chosen = [sets[name].train[i] for i in few_shot_split(sets[name], SHOTS, seed=1).indices]
    shots = list(zip(*batch(CROPS * chosen, clip.train_transform), strict=True))
    learns = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": learns, "lr": RATE, "weight_decay": 0.01}]
    train(model, groups, shots, prompts[name], loss_of, STEPS, BATCH)
    pairs = adapters(model).items()
    return {place: (pair.lora_A.detach(), pair.lora_B.detach()) for place, pair in pairs}


torch.manual_seed(1)
trained = {name: adapter_for(name) for name in CUSTOMERS}

# %%
model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK)).eval()
torch.manual_seed(1)
tests = {}  # customer -> pictures (N, 3, H, W) and classes (N,)
for name, data in sets.items():
    drawn = [data.test[i] for i in torch.randperm(len(data.test))[:TESTS].tolist()]
    tests[name] = batch(drawn, clip.test_transform)


def put(pairs: dict[str, Pair]) -> None:
    """Put these pairs into their blocks of the model; nothing is copied."""
    blocks = adapters(model)
    for place, (A, B) in pairs.items():
        blocks[place].lora_A.data, blocks[place].lora_B.data = A, B


@torch.no_grad()
def read(given: dict[str, dict[str, Pair]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Customer -> features of its pictures (N, D) and prompts (C, D), with the pairs it is given."""
    found = {}
    for name, (pictures, _) in tests.items():
        put(given[name])
        texts = encode_prompts(model, prompts[name])
        found[name] = model.encode_image(pictures, normalize=True), texts
    return found


def right(pictures: dict, texts: dict) -> Tensor:
    """Which pictures (6, N) are named right, from features of pictures and of prompts."""
    said = [(pictures[name][0] @ texts[name][1].T).argmax(-1) for name in CUSTOMERS]
    return torch.stack(said) == torch.stack([tests[name][1] for name in CUSTOMERS])


# %%
none = {place: (A[:0], B[:, :0]) for place, (A, B) in trained["symbols"].items()}  # rank 0
adapters_of = {"none": none} | trained
seen = {row: read(dict.fromkeys(CUSTOMERS, pairs)) for row, pairs in adapters_of.items()}
own = {name: seen[name][name] for name in CUSTOMERS}  # each customer with its own adapter
title = f"right of {TESTS}; blue: more than with none, red: fewer"
table = {row: right(found, found) for row, found in seen.items()}
display_figure(figures.plot_table(table, CUSTOMERS, title))

hits, bare = right(own, own), table["none"]  # (6, N)
chance = sum(TESTS / len(data.class_names) for data in sets.values())
print(
    f"by chance {chance:.0f}, no adapter {bare.sum()}, each its own {hits.sum()} of {hits.numel()}"
)
size = sum(matrix.nbytes for pair in trained["symbols"].values() for matrix in pair)
print(f"one adapter: {size:,} bytes, so a gigabyte holds {10**9 // size:,}")

# %% [markdown]
# The frames mark each customer's own adapter. Symbols, travel and photographs gain many answers from theirs. The other
# three change so little that it may be luck.
#
# A gigabyte holds 4,069 adapters to switch between, but a batch from six customers takes six passes.
#
# ## Add: one adapter for all
#
# For a single pass, add up the changes of all adapters, each with a weight. **A sum of products is a product** of stacked
# matrices, so the sum is exactly one pair, of rank r₁ + r₂:
#
# $$ w_1 B_1 A_1 + w_2 B_2 A_2 = \begin{pmatrix} w_1 B_1 & w_2 B_2 \end{pmatrix}
# \begin{pmatrix} A_1 \\ A_2 \end{pmatrix} . $$
#
# ### Exercise 11.1 · Add pairs exactly
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Return one pair whose B A is the weighted sum of the products, for any number of pairs, of any ranks.


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
# `torch.cat` puts matrices on top of each other (`dim=0`) or side by side (`dim=1`).
#
# </details>
# <details><summary>Hint 2: where the weight goes</summary>
#
# Each product has its weight once, so multiply only one of its two factors by it.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)
#
# ### Exercise 11.2 · The tempting sum
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●○ | 4 |
#
# The exact sum grows in rank. PEFT's `combination_type="linear"` keeps the rank: it adds the A's and adds the B's, each
# with the root of its weight. But the product of these sums also contains B₁A₂ and B₂A₁, which nobody trained. Write
# this sum, to see what the untrained products cost.


# %% tags=["exercise"]
def add_factors(pairs: list[tuple[Tensor, Tensor]], weights: list[float]) -> tuple[Tensor, Tensor]:
    """The sum of all A_i and the sum of all B_i, each with the root of its weight.

    Args:
        pairs: (A_i, B_i), of shapes (r, d) and (d, r), all of one rank.
        weights: one w_i for each pair, none of them negative.

    Returns:
        A (r, d) and B (d, r).
    """
    # BEGIN SOLUTION
    A = sum(w**0.5 * A_i for w, (A_i, _) in zip(weights, pairs, strict=True))  # (r, d)
    B = sum(w**0.5 * B_i for w, (_, B_i) in zip(weights, pairs, strict=True))  # (d, r)
    return A, B
    # END SOLUTION


check("11.2", add_factors)

# %% [markdown]
# <details><summary>Hint 1: one matrix at a time</summary>
#
# `zip(weights, pairs, strict=True)` gives each weight with its pair. Python's `sum` adds tensors of one shape.
#
# </details>
# <details><summary>Hint 2: the root</summary>
#
# `w**0.5` is the root of w. A and B both get it, so their product has w once.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)
#
# Now every customer gets the sum of all six. A small weight makes each customer's own change small, and a large weight
# makes the other five large. To tell these losses apart, the own adapter also runs *alone* at each weight.
#
# Set `guess`: how many of the 288 pictures does the exact sum name right at weight 1?

# %%
guess = 120  # your guess: right of 288, with the exact sum of six at weight 1
add, factors = yours("11.1"), yours("11.2")
WEIGHTS = {"1/6": 1 / 6, "1/3": 1 / 3, "1/2": 1 / 2, "2/3": 2 / 3, "1": 1}


def six(way: Callable, weight: float) -> dict[str, Pair]:
    """The sum of all six adapters, each at this weight."""
    return {p: way([pairs[p] for pairs in trained.values()], 6 * [weight]) for p in none}


curves = {"own adapter alone": {"0": bare}, "exact sum": {"0": bare}, "sum of factors": {"0": bare}}
for at, weight in WEIGHTS.items():
    alone = {
        name: {p: add([pair], [weight]) for p, pair in pairs.items()}
        for name, pairs in trained.items()
    }
    exact, rough = (dict.fromkeys(CUSTOMERS, six(way, weight)) for way in (add, factors))
    for curve, given in zip(curves.values(), (alone, exact, rough), strict=True):
        found = read(given)
        curve[at] = right(found, found)
display_figure(figures.plot_weights([0, *WEIGHTS.values()], curves))
lead, half = figures.apart(curves["exact sum"]["1/3"], hits)
print(f"exact sum at 1/3, beyond the own adapters at 1: {lead:+d} ± {half:.0f}")
print(f"exact sum at weight 1: {curves['exact sum']['1'].sum()} right; your guess: {guess}")

# %% [markdown]
# Compare the dashed curve with the solid one. At weight 1/6 the own adapter alone has 116 right, far below its 141:
# that loss is one of **size**. Up to 1/3, where both have 131, we see no further loss in the sum. Above it the own
# adapter comes back to 141 and the sum falls, until it lacks 42 ± 17 at weight 1. Only the other five can cause this
# gap, called **interference**.
#
# The sum of factors (dotted) is below the exact sum at every weight above 0, though most of these gaps may be luck.
# All that it saves is rank.
#
# Do the other five harm by the size of their change or by its direction, and through the pictures or the prompts? We put
# their sum beside each own pair in the image blocks, in the text blocks, and in both. As a control we turn the
# directions in which they write (their B) at random, which keeps the size of every B A x.


# %%
def turned(pair: Pair) -> Pair:
    """The pair with its B turned at random: |B A x| stays the same for every token x."""
    turn = torch.linalg.qr(torch.randn(len(pair[1]), len(pair[1])))[0]  # orthogonal
    return pair[0], turn @ pair[1]


def beside(name: str, turn: bool) -> dict[str, Pair]:
    """A customer's own pairs, with the sum of the other five beside them."""
    rest, pairs = [trained[other] for other in CUSTOMERS if other != name], {}
    for place, mine in trained[name].items():
        others = add([each[place] for each in rest], 5 * [1])
        pairs[place] = add([mine, turned(others) if turn else others], [1, 1])
    return pairs


# %%
DRAWS, counted, moved = {"as trained": 1, "turned": 5}, {}, {}
torch.manual_seed(1)
for side, draws in DRAWS.items():
    for _ in range(draws):
        found = read({name: beside(name, side == "turned") for name in CUSTOMERS})
        for where, answers in {
            "image blocks": right(found, own),  # the prompts are by the own adapter alone
            "text blocks": right(own, found),
            "both": right(found, found),
        }.items():
            counted.setdefault((where, side), []).append(answers)
        for i, where in enumerate(("image blocks", "text blocks")):
            far = [(found[name][i] - own[name][i]).norm(dim=1).mean() for name in CUSTOMERS]
            moved.setdefault((where, side), []).append(float(torch.stack(far).mean()))
display_figure(figures.plot_sides(counted, moved, {"own alone": hits, "no adapter": bare}))

# %% [markdown]
# Look at the circles on the left first. The others harm in the image blocks (106 right) and in the text blocks (124).
# Turned (squares), they cost almost nothing, although what they write into a block is as large. So it is the learned
# **directions** that harm.
#
# The right panel shows how. As trained, the others move a picture's features by 0.74; turned, by 0.14. So little of
# what is written in random directions reaches the features. (Where it gets lost, and whether it would harm if it moved
# them as far, we did not test.)
#
# ## Gather: one pass, to each its own
#
# One pass can *gather* the pairs: it keeps all adapters in two tensors, selects each sample's A and B, and multiplies in
# one batched product. But ranks may differ.
#
# ### Exercise 11.3 · Any ranks, one stack
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# Stack the pairs of K adapters in two tensors of the largest rank, so that each product B A stays what it was.


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


check("11.3", stack_pairs)

# %% [markdown]
# <details><summary>Hint 1: what adds nothing</summary>
#
# B A is a sum: column j of B times row j of A, for each j. A row of zeros in A, with a column of zeros in B, adds
# nothing.
#
# </details>
# <details><summary>Hint 2: zeros first</summary>
#
# Pair k fills the first r_k rows of `all_A[k]` and the first r_k columns of `all_B[k]`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/11_many_adapters.ipynb)
#
# ### Exercise 11.4 · To each sample its own pair
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 8 |
#
# `Gathered` will take the place of the norm before each attention. Write its `forward`: the norm, and then x + x Aᵀ Bᵀ
# with each sample's own pair, without a loop.

# %% tags=["exercise"]
stack = yours("11.3")


class Gathered(nn.Module):
    """A norm, and behind it each sample's own pair.

    Args:
        norm: (B, N, d) -> (B, N, d).
        pairs: K pairs (A, B), of any ranks.
        which: (B,), whole numbers from 0 to K - 1: the pair of each sample.
    """

    def __init__(self, norm: nn.Module, pairs: list[tuple[Tensor, Tensor]], which: Tensor) -> None:
        super().__init__()
        self.norm, self.which = norm, which
        self.all_A, self.all_B = stack(pairs)  # (K, r, d), (K, d, r)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)"""
        # BEGIN SOLUTION
        x = self.norm(x)
        A, B = self.all_A[self.which], self.all_B[self.which]  # (B, r, d), (B, d, r)
        return x + (x @ A.mT) @ B.mT
        # END SOLUTION


check("11.4", Gathered)

# %% [markdown]
# <details><summary>Hint 1: gather first</summary>
#
# `self.all_A[self.which]` has the shape (B, r, d): row i is the A of sample i.
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
# `server_of` puts your class into every image block, and `serve` sets `which` for each batch. (Each customer's prompts are
# encoded once, with its own adapter.) Now all 288 pictures go through in one pass. What does it cost if `which` gives
# every customer somebody else's adapter?

# %%
gathered, names = yours("11.4"), [*trained, "none"]  # your class


def server_of(stored: list[dict[str, Pair]]) -> nn.Module:
    """A copy of the bare model, with these adapters stacked in every image block."""
    server = copy.deepcopy(clip.model)
    for i, block in enumerate(server.visual.transformer.resblocks):
        pairs = [each[f"visual.transformer.resblocks.{i}.serial_lora"] for each in stored]
        block.ln_1 = gathered(block.ln_1, pairs, torch.zeros(1, dtype=int))
    return server


@torch.no_grad()
def serve(server: nn.Module, pictures: Tensor, which: Tensor) -> Tensor:
    """Features (B, D), each picture with its own one of the stored adapters."""
    for block in server.visual.transformer.resblocks:
        block.ln_1.which = which
    return server.encode_image(pictures, normalize=True)


server, shifts, off = server_of([*trained.values(), none]), {}, 0.0
everybody = torch.cat([pictures for pictures, _ in tests.values()])  # (288, 3, H, W)
takes = {f"which + {s}": [(i + s) % 6 for i in range(6)] for s in range(6)} | {"none": 6 * [6]}
for row, which in takes.items():
    together = serve(server, everybody, torch.tensor(which).repeat_interleave(TESTS))
    found = {name: (each,) for name, each in zip(CUSTOMERS, together.split(TESTS), strict=True)}
    alone = torch.cat([seen[names[k]][name][0] for k, name in zip(which, CUSTOMERS, strict=True)])
    off, shifts[row] = max(off, float((together - alone).abs().max())), right(found, own)
title = f"right of {TESTS}; blue: more than with the right adapter, red: fewer"
display_figure(figures.plot_table(shifts, CUSTOMERS, title, totals=True))
print(f"one pass and a pass for each differ by at most {off:.0e}")

# %% [markdown]
# In the first row `which` is right, and one pass gives all 141 answers of the own adapters. In the next rows every
# customer gets a wrong adapter. No error is raised, and even the worst row still has 129 right. So compare features
# with single passes, as the printed line does.
#
# The last row tells why. With no adapter on the pictures, but with the own prompts, 136 are right (−5 ± 10). So the
# own prompts alone bring most of the gain, and the rest may be luck.
#
# ## What it costs
#
# Sixty-four customers have copies of one adapter. We measure the processor's time in the image tower, changes of
# adapters included. Which ways gain from larger batches?

# %%
MANY, SIZES, ROUNDS = 64, (1, 4, 16, 64), 3
some, mine, together = everybody[:MANY], trained["symbols"], six(add, WEIGHTS["1/3"])
many = server_of(MANY * [mine])
ways = {
    "no adapter, or merged sum": clip.model.encode_image,
    "sum of six as a pair": lambda x: (put(together), model.encode_image(x)),
    "switch": lambda x: [(put(mine), model.encode_image(one)) for one in x.split(1)],
    # one model stands for all copies, which can only favour them
    "merged copies": lambda x: [clip.model.encode_image(one) for one in x.split(1)],
    "gather": lambda x: serve(many, x, torch.randperm(MANY)[: len(x)]),
}
ms = {way: [float("inf") for _ in SIZES] for way in ways}  # of a picture
with torch.no_grad():
    for _ in range(ROUNDS):
        for way, run in ways.items():
            for i, size in enumerate(SIZES):
                times = max(1, 8 // size)
                spent = timeit(partial(run, some[:size]), timer=process_time, number=times)
                ms[way][i] = min(ms[way][i], 1000 * spent / size / times)
display_figure(figures.plot_times(SIZES, ms))

tower = sum(p.nbytes for p in clip.model.visual.parameters()) / 1e6
pairs = sum(m.nbytes for place, pair in mine.items() if "visual" in place for m in pair) / 1e6
computed = {
    "merged sum": tower,
    "switch, gather": tower + MANY * pairs,
    "merged copies": MANY * tower,
}
print(f"MB for {MANY} customers, computed:", ", ".join(f"{k} {v:.0f}" for k, v in computed.items()))

# %% [markdown]
# You run the server that **gathers** (in the library,
# [`per_sample`](../docs/library.md#several-adapters-on-one-base)). In a batch of 64, a picture costs about as much
# processor time as with no adapter, and with a switch two to three times as much. Merged copies never switch and are
# hardly cheaper, so most of that price is for passes with a single picture.
#
# If requests come one at a time, a switch takes about as long, and is simpler. If each customer has a machine, merge;
# sixty-four copies on one machine need 704 MB, a gather 20. The merged sum is the smallest, and for six customers its
# best, 131, may be as good (−10 ± 14, at a weight that these pictures chose); a sum of sixty-four we did not try. But
# first count what the own prompts alone give: for these six they may do, with no adapter on the pictures at all.
#
# ## Quiz
#
# **1. Two adapters of rank 8 and 4 are added. What is the rank of their exact sum, and could it be lower?**
#
# <details><summary>Answer</summary>
#
# The stacked pair has rank 12. The product can have a lower one, if the rows of the stacked A are not independent (both
# pairs read some of the same directions), or the columns of B.
#
# </details>
#
# **2. How many products of a B and an A does the sum of factors of six pairs contain?**
#
# <details><summary>Answer</summary>
#
# Each of six B's meets each of six A's, which makes 36 products. Six of them were trained.
#
# </details>
#
# ## What to remember
#
# - A sum of pairs is exactly one pair. It loses by size at small weights, and by direction at large ones.
# - One pass can give each sample its own pair, of any rank: stack the pairs, select by index, multiply.
#
# Next: [a model and pictures of your own](12_your_own.ipynb).
