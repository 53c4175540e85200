# %% [markdown]
# # 11 · Many adapters on one base
#
# You run a service that names pictures. Sixty-four pictures come in at once, from sixty-four customers, and each
# customer has an adapter.
#
# - *Switch* from adapter to adapter: sixty-four passes, of one picture each.
# - *Merge* each adapter into a copy of the model: sixty-four models in memory.
# - *Add* all adapters up: one model, one pass.
# - *Gather*: one model, one pass, and each picture meets its own adapter in it.
#
# Which one do you run? You write the last two by hand. In the end one table has what each of the four costs: in right
# answers, milliseconds and megabytes.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

import copy
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
# Six customers first, each with pictures of one kind. Your loop from lesson 04 trains an adapter for each, on up to
# sixteen pictures of a class. An adapter is a pair (A, B) for every block.

# %%
Pair = tuple[Tensor, Tensor]  # A (r, d) and B (d, r)
CUSTOMERS = ("symbols", "travel", "objects", "photographs", "nature", "food")
RANK, RATE, STEPS, BATCH = 16, 3e-3, 24, 16  # change this and run again, and all below
SHOTS, CROPS, TESTS = 16, 10, 48  # shots of a class, crops of each; test pictures of a customer
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

# %% [markdown]
# To switch, put one adapter's matrices into the model. Whom will an adapter help, and whom will it harm?

# %%
model = inject(copy.deepcopy(clip.model), SerialLoRAConfig(RANK)).eval()
torch.manual_seed(1)
tests = {}  # customer -> pictures (N, 3, H, W) and classes (N,), drawn from all of their test pictures
for name, data in sets.items():
    drawn = torch.randperm(len(data.test))[:TESTS].tolist()
    tests[name] = batch([data.test[i] for i in drawn], clip.test_transform)


def put(pairs: dict[str, Pair]) -> None:
    """Put these pairs into their blocks of the model; nothing is copied."""
    blocks = adapters(model)
    for place, (A, B) in pairs.items():
        blocks[place].lora_A.data, blocks[place].lora_B.data = A, B


@torch.no_grad()
def answers(name: str) -> Tensor:
    """The classes (N,) that the model, as it is now, gives to a customer's test pictures."""
    seen = model.encode_image(tests[name][0], normalize=True)  # (N, D)
    return (seen @ encode_prompts(model, prompts[name]).T).argmax(-1)


none = {place: (A[:0], B[:, :0]) for place, (A, B) in trained["symbols"].items()}  # rank 0
hits = {}  # adapter, customer -> which of their pictures are named right
for adapter, pairs in ({"none": none} | trained).items():
    put(pairs)
    hits |= {(adapter, name): answers(name) == tests[name][1] for name in CUSTOMERS}
counts = {key: int(hit.sum()) for key, hit in hits.items()}
display_figure(
    figures.plot_table(counts, f"pictures named right, of {TESTS}; blue: more than with none")
)

base = sum(counts["none", name] for name in CUSTOMERS)
own = sum(counts[name, name] for name in CUSTOMERS)
size = sum(matrix.nbytes for pair in trained["symbols"].values() for matrix in pair)
print(f"all six, of {len(CUSTOMERS) * TESTS}: no adapter {base}, each their own {own}")
print(f"one adapter: {size:,} bytes, so a gigabyte holds {10**9 // size:,}")

# %% [markdown]
# A row is an adapter, a column a customer; blue is better than no adapter, red worse. Three customers gain much by
# their own (framed): symbols from 23 to 32, travel from 21 to 33, photographs from 14 to 24. Objects gains two,
# nature loses one and food three. Most of other people's adapters change little; that for symbols takes objects from
# 17 to 11. With one seed, a few more or less mean nothing, here and below.
#
# A switch copies nothing, and a gigabyte holds the adapters of 4,069 customers. But six customers in a batch are six
# passes.
#
# ## Add: one adapter for all
#
# One pass, then, with one adapter: add all their changes, each with a weight:
#
# $$ I + w_1 B_1 A_1 + w_2 B_2 A_2 + \dots $$
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

# %% [markdown]
# What will the sum cost? It can lose in two ways. With weights of 1/k each adapter is **small**. With weights of 1
# each has its own size, and the others push in **directions** of theirs. So two controls stand beside the two sums:
# an adapter *alone* at 1/k, which is as small; and an adapter at 1 beside the others *turned at random*: as large,
# with the same singular values, in other directions.
#
# Set `guess`: from how many adapters on is the sum, at weight 1, no better than no adapter?

# %%
guess = 2  # your guess: of that number
add, counted = yours("11.1"), (1, 2, 4, 6)


def turned(pair: Pair) -> Pair:
    """The pair with its B A turned at random: the same singular values, other directions."""
    width = len(pair[1])
    before, after = (torch.linalg.qr(torch.randn(width, width))[0] for _ in range(2))
    return pair[0] @ before, after @ pair[1]


def right_in_a_sum(k: int, weight: float, other=lambda pair: pair) -> int:
    """All customers' pictures named right, each by the sum of their own adapter and the next k - 1."""
    total = 0
    for i, name in enumerate(CUSTOMERS):
        beside = [trained[each] for each in (2 * CUSTOMERS)[i + 1 : i + k]]
        put(
            {
                place: add([pair, *(other(each[place]) for each in beside)], k * [weight])
                for place, pair in trained[name].items()
            }
        )
        total += int((answers(name) == tests[name][1]).sum())
    return total


torch.manual_seed(1)
at_one = {
    "the sum": [own, *(right_in_a_sum(k, 1) for k in counted[1:])],
    "turned at random": [own, *(right_in_a_sum(k, 1, turned) for k in counted[1:])],
}
at_share = {
    "the sum": [own, *(right_in_a_sum(k, 1 / k) for k in counted[1:])],
    "alone, as small": [own, *(right_in_a_sum(1, 1 / k) for k in counted[1:])],
}
panels = {
    f"right of {len(CUSTOMERS) * TESTS}, weights of {what}": {
        name: list(zip(counted, row, strict=True)) for name, row in rows.items()
    }
    for what, rows in {"1": at_one, "1/k": at_share}.items()
}
display_figure(figures.plot_ways(panels, "adapters in the sum, k", {"no adapter": base}))
between = right_in_a_sum(6, 1 / 3)
fell = [k for k, right in zip(counted, at_one["the sum"], strict=True) if right <= base]
print(f"no better than no adapter ({base}) at {fell}; your guess: {guess}")
print(f"six at weights of 1/3: {between} right")

# %% [markdown]
# With weights of 1 (left) every adapter more costs answers: 133, 115, and with six in the sum 99, where no adapter
# has 112. The same products *turned at random* cost next to nothing. So it is the others' **directions** that harm.
#
# With weights of 1/k (right) two adapters cost nothing, six fall to 120, and one that is alone and as small falls
# with them, to 116. So here it is the **size**. A weight between serves six better, 131 at 1/3, and still short of
# 141. (One seed, one random draw. To add changes of weights is *task arithmetic*, Ilharco et al., 2023
# <!-- from their paper's year: 2023 -->.)
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
# Now put both into the model: a module takes the place of the norm before each attention. (The prompts of each adapter
# are encoded apart, once.)

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


# %% [markdown]
# A batch of six: for each customer the first picture that is named right with the own adapter and wrong without.
# `WHICH` says whose adapter each picture gets. What will become of the answers if all get adapter 0, that for
# symbols?

# %%
WHICH = [0, 1, 2, 3, 4, 5]  # change it, and run again
picked = [int((hits[name, name] & ~hits["none", name]).int().argmax()) for name in CUSTOMERS]
six = torch.stack([tests[name][0][i] for name, i in zip(CUSTOMERS, picked, strict=True)])
drawn, off = {}, 0.0
for title, which in {"WHICH": WHICH, "all get adapter 0": 6 * [0]}.items():
    server, said = server_of(list(trained.values()), torch.tensor(which)), []
    with torch.no_grad():
        seen = server.encode_image(six, normalize=True)  # one pass
        for x, one, k, name, i in zip(six, seen, which, CUSTOMERS, picked, strict=True):
            put(trained[CUSTOMERS[k]])  # for its prompts, and to compare
            answer = int((encode_prompts(model, prompts[name]) @ one).argmax())
            said.append((sets[name].class_names[answer], answer == int(tests[name][1][i])))
            off = max(off, (model.encode_image(x[None], normalize=True) - one).abs().max().item())
    drawn[title] = (which, said)
display_figure(figures.plot_gather(six, CUSTOMERS, drawn))
print(f"one pass and a pass for each differ by at most {off:.0e}")
print(sets["travel"].attribution)

# %% [markdown]
# Left, all six are right: that is how we chose them. Right, `which` is another, and four are wrong (adapter 0 also
# encoded the prompts). A mistake there raises no error, so compare with a pass for each, as the printed line does (it
# is rounding). Try `WHICH = [1, 0, 2, 3, 4, 5]`, which gives the first two each other's adapters.
#
# ## What it costs
#
# Sixty-four pictures come in at once, from 1, 8 or 64 customers. One server *switches*, one holds a *merged copy* of
# the image tower for each customer, and one *gathers*. (Each customer has a copy of one adapter. In place of 64 towers
# we time one, which can only favour the copies, and multiply its megabytes. CPU time, the fastest of three rounds.)

# %%
pictures = torch.cat([pictures for pictures, _ in tests.values()])
some, tower = pictures[:64], clip.model.visual  # (64, 3, H, W)
pairs = {place: pair for place, pair in trained["symbols"].items() if place.startswith("visual.")}
pairs_mb = sum(matrix.nbytes for pair in pairs.values() for matrix in pair) / 1e6
tower_mb = sum(p.nbytes for p in tower.parameters()) / 1e6


def one_by_one(customers: int, encode, pairs: dict | None = None) -> None:
    for theirs in some.chunk(customers):
        if pairs is not None:
            put(pairs)
        encode(theirs)


def servers(customers: int) -> dict:
    """What each of the three does with sixty-four pictures of so many customers."""
    server = server_of(customers * [pairs], torch.arange(64) * customers // 64)
    return {
        "switch": lambda: one_by_one(customers, model.encode_image, pairs),
        "gather": lambda: server.encode_image(some),
        "merged copies": lambda: one_by_one(customers, tower),
    }


numbers, ways = (1, 8, 64), ("switch", "gather", "merged copies")
runs = {(way, count): run for count in numbers for way, run in servers(count).items()}
rounds = []
with torch.no_grad():
    for _ in range(3):  # rounds, each of them through all nine
        rounds.append({key: timeit(run, timer=process_time, number=1) for key, run in runs.items()})
ms = {key: 1000 * min(each[key] for each in rounds) for key in runs}
mb = {(way, count): tower_mb + count * pairs_mb for way, count in runs}  # pairs beside one tower
mb |= {("merged copies", count): count * tower_mb for count in numbers}
costs = {
    what: {way: [(count, of[way, count]) for count in numbers] for way in ways}
    for what, of in {"CPU milliseconds, 64 pictures": ms, "megabytes of weights": mb}.items()
}
display_figure(figures.plot_ways(costs, "customers"))

# %% [markdown]
# One pass takes about as long for 64 customers as for one. With 64, switching and merged copies take longer: their
# passes of one picture each use the machine badly. (With 8 they cost little more, if any.) Merged copies also need
# 704 MB, one base and all pairs 20.
#
# ## Which one do you run?
#
# (The sum is merged into one tower. It has the best of its three weights, by these pictures. A merge changes no
# answer, as lesson 01 showed.)

# %%
server, gathered = server_of([*trained.values()], torch.arange(6).repeat_interleave(TESTS)), 0
with torch.no_grad():  # all six customers' pictures, each with its own adapter, in one pass
    seen = server.encode_image(pictures, normalize=True).split(TESTS)
    for each, (name, (_, truth)) in zip(seen, tests.items(), strict=True):
        put(trained[name])  # for its prompts
        named = (each @ encode_prompts(model, prompts[name]).T).argmax(-1)
        gathered += int((named == truth).sum())
summed = max(at_one["the sum"][-1], between, at_share["the sum"][-1])
rows = {  # right answers of six customers; then what 64 cost
    "switch": (own, ms["switch", 64], mb["switch", 64]),
    "merged copies": (own, ms["merged copies", 64], mb["merged copies", 64]),
    "add": (summed, ms["merged copies", 1], tower_mb),
    "gather": (gathered, ms["gather", 64], mb["gather", 64]),
}
columns = [f"right of {len(pictures)}, 6 customers", "ms, 64 customers", "MB, 64 customers"]
display(pd.DataFrame.from_dict(rows, "index", columns=columns).round().astype(int))
print(f"no adapter: {base}")

# %% [markdown]
# *Gather*: it names as many right as a switch, in about the time of one pass, and keeps one base and the pairs. The
# sum is as quick and smaller, but has 131 right where each one's own has 141 and no adapter 112. Where requests come
# one at a time there is nothing to gather, and a switch is enough.
#
# Here A and B are copied for each sample. Services that hold many LoRAs on a GPU (S-LoRA, Punica) gather without
# copies, by kernels of their own. In the library `load_adapter(model, file, name=...)` and `activate` switch, `combine`
# adds, and `per_sample` gathers; they take LoRA's pairs too.
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
# | room for one adapter only | their sum | rank r₁ + r₂ + ..., and, with many adapters, answers |
#
# A sum is exact, but its parts share one model: small weights weaken each of them, large ones let them disturb each
# other. To each sample its own costs neither.
#
# Next: [a model and pictures of your own](12_your_own.ipynb).
