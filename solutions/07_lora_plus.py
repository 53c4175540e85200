# %% [markdown]
# # 07 · LoRA+: whose rate is it?
#
# A reviewer writes: "Have you tried LoRA+? It gives B ten times the learning rate of A, takes one line, and always
# helps." You try it, and your accuracy rises by almost eighteen points. Should LoRA+ go into your paper?
#
# The line has changed a *ratio* of two rates, but it has also raised a *rate*. Which of the two brought the gain?

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import os
from functools import cache
from math import cos, pi

import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn

from serial_lora import LoRAConfig, inject
from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.labs.clip import classify
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.lessons.l07_lora_plus import figures
from serial_lora_course.plots.style import display_figure

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
lesson = open_lesson("clip", SCALE, os.environ.get("SERIAL_LORA_LENGTH", "class"))
lesson_card("07")

# %% [markdown]
# ## The claim
#
# [LoRA+](https://arxiv.org/abs/2402.12354) (Hayou et al.) gives B a larger learning rate than A. PyTorch's optimizers
# take such rates by *parameter groups*: dictionaries with `params`, `lr` and `weight_decay`. No error tells you when
# a tensor is in the wrong group, or in none.

# %% [markdown]
# ### Exercise 7.1 · Sort the tensors
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Make LoRA+'s groups. Whatever else is trainable, such as a new head, goes into a third group with A's rate. Leave out
# a group that would be empty. Names are dotted, such as `visual.blocks.0.pair.lora_A`, and only the *last* part says
# what a tensor is.


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


check("7.1", plus_groups)

# %% [markdown]
# <details><summary>Hint 1: the last part of a name</summary>
#
# `name.rpartition(".")[2]` is what stands after the last dot, or the whole name where there is none.
#
# </details>
# <details><summary>Hint 2: three lists</summary>
#
# Go through the names once, skip what is frozen, append each tensor to one of three lists, and make a dictionary of
# each list that holds something.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %%
data, backbone, config, groups_of = lesson.data, lesson.backbone, lesson.config, yours("7.1")
template = data.template if config.prompt == "dataset" else data.generic_template
prompts = backbone.tokenizer(data.prompts(template)).to(lesson.device)  # (C, context length)
SHOTS, SEEDS, STEPS, BATCH = min(4, lesson.amount), (1, 2, 3), min(16, config.min_steps), 16


@cache
def shots_of(seed: int) -> tuple[Tensor, Tensor]:
    """A seed's shots, all of them, and their labels."""
    few = [data.train[i] for i in few_shot_split(data, SHOTS, seed).indices]
    pictures = torch.stack([backbone.test_transform(picture) for picture, _ in few])
    return pictures.to(lesson.device), torch.tensor([label for _, label in few]).to(lesson.device)


def scores_of(clip: nn.Module, pictures: Tensor) -> Tensor:
    """A score for each picture and class, (B, C)."""
    with lesson.autocast():  # bfloat16 where a GPU has it
        images = clip.encode_image(pictures, normalize=True)  # (B, D)
        classes = clip.encode_text(prompts, normalize=True)  # (C, D)
        return clip.logit_scale.exp() * images @ classes.T


# %% [markdown]
# Both methods learn the drawings of lesson 04 from four shots of each class. LoRA+ has ten times LoRA's rate for B.


# %%
@cache  # a run that was made is not made again
def short_run(lr_A: float, lr_B: float, seed: int) -> tuple[Tensor, float, list]:
    """Which test pictures are right (n,), the last loss, and each step's batch, pairs and gradients."""
    torch.manual_seed(seed)
    pictures, labels = shots_of(seed)  # (N, 3, H, W) and (N,)
    orders = [torch.randperm(len(labels)).split(BATCH) for _ in range(STEPS)]
    batches = [some for order in orders for some in order][:STEPS]  # again and again through all
    twin = lesson.twin()  # the model once more, on the same frozen weights
    clip = inject(twin.model, LoRAConfig(config.rank))
    named = dict(clip.named_parameters())
    pairs = {name: p for name, p in named.items() if p.requires_grad}  # A, B, A, B, ...
    optimizer = torch.optim.AdamW(groups_of(named, lr_A, lr_B / lr_A, config.weight_decay))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)  # half a cosine, to 0
    history = []
    for some in batches:
        loss = nn.functional.cross_entropy(scores_of(clip, pictures[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        if seed == 1:  # kept for a look at single steps, a megabyte each
            copies = {name: p.detach().clone() for name, p in pairs.items()}
            history.append((some, copies, [p.grad.clone() for p in [*pairs.values()][:2]]))
        optimizer.step()
        schedule.step()
    scores, truth = classify(twin, data, template)
    return scores.argmax(-1) == truth, loss.item(), [*history, (None, pairs, None)]


# %%
SMALL, LARGE = config.lr / 10, config.lr  # LARGE is the rate of lesson 04
one_right, one_loss, one_history = short_run(SMALL, SMALL, 1)
plus_right, plus_loss, _ = short_run(SMALL, LARGE, 1)
scores, truth = classify(backbone, data, template)
zero_shot, n = int((scores.argmax(-1) == truth).sum()), len(truth)
counts = [int(one_right.sum()), int(plus_right.sum()), zero_shot]
table = {
    "rate of A": [f"{SMALL:g}", f"{SMALL:g}", ""],
    "rate of B": [f"{SMALL:g}", f"{LARGE:g}", ""],
    "last loss": [f"{one_loss:.2f}", f"{plus_loss:.2f}", ""],
    f"right of {n}": counts,
    "accuracy": [f"{count / n:.1%}" for count in counts],
}
display(pd.DataFrame(table, ["LoRA", "LoRA+", "zero-shot"]))
print(
    f"rank {config.rank}, {STEPS} steps of AdamW, {SHOTS} shots of each of {len(prompts)} classes, batch "
    f"{BATCH}, weight decay {config.weight_decay}, rates down to 0 by half a cosine, seed 1"
)

# %% [markdown]
# One line has raised the accuracy from 49% to 67%, while plain LoRA is no better than zero-shot. Before you ask why,
# look at single steps.
#
# ## Who moves first
#
# A pair starts with a random A and a B of zeros. Which of the two has a gradient in step 1, and why? And when both
# move, which moves farther at one rate?

# %%
rows = {}
for step in [step for step in (1, 2, 5, 15) if step <= STEPS]:
    (_, before, gradients), (_, after, _) = one_history[step - 1 : step + 1]
    rate = SMALL * (1 + cos(pi * (step - 1) / STEPS)) / 2  # by the schedule
    first = [*before][:2]  # the names of the first pair: A's and B's
    moved = [(after[name] - before[name]).abs().median().item() / rate for name in first]
    told = [f"{each.norm().item():.4f}" for each in gradients]
    rows[f"step {step}"] = told + [f"{each:.2f}" for each in moved]
columns = "A's gradient|B's gradient|A's move / rate|B's move / rate"
display(pd.DataFrame(rows, columns.split("|")).T)

# %% [markdown]
# The table follows the first pair at one rate: the norms of its gradients, and how far the median entry moved,
# divided by the step's rate. In step 1 A does not move, because its gradient contains the factor B, which is still
# zero.
#
# In step 2 A's gradient is 0.0009 and B's is 0.0350, yet their entries move 0.74 and 0.82 of the rate. The reason is
# Adam, which divides the running mean of an entry's gradients by the root of the running mean of their squares, both
# corrected for their start at zero. In step 1 that is g / |g|, so an entry of B moves by the rate itself, however
# large its gradient is. (A's 0.74 is low because its means still contain the zero of step 1.)
#
# ## What a step can do
#
# Do equal moves of A and B also move the *output* equally far? For one token x they add
#
# $$ \underbrace{\Delta B\,(A x)}_{\text{B's step}} \qquad\text{and}\qquad \underbrace{B\,(\Delta A\, x)}_{\text{A's step}} . $$

# %% [markdown]
# ### Exercise 7.2 · How far an output can move
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Every entry of A moves by η, up or down. How far can each output move at most? And how far if B's entries move
# instead? Derive both on paper: write an output as a sum over entries, and choose each sign so that nothing cancels.
# Which of your sums has d terms, and which contains B?


# %% tags=["exercise"]
def reach(x: Tensor, A: Tensor, B: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """How far a step of A, and one of B, can move each output of B A x.

    Args:
        x: one token, (d,).
        A: (r, d).
        B: (m, r), for m outputs.
        lr: by which every entry moves, up or down.

    Returns:
        The most that each output can move if A's entries move; and if B's do; (m,) both.
    """
    # BEGIN SOLUTION
    each_hidden = lr * x.abs().sum()  # what one entry of A x can move, a sum of d terms
    of_A = B.abs().sum(1) * each_hidden  # (m,)
    of_B = lr * (A @ x).abs().sum()  # a sum of r terms, the same for every output
    return of_A, of_B.expand(len(B))
    # END SOLUTION


check("7.2", reach)

# %% [markdown]
# <details><summary>Hint 1: one entry first</summary>
#
# Entry k of ΔA x is Σ_j ΔA_kj x_j. With |ΔA_kj| = η it is at most η Σ_j |x_j|, when each sign is that of x_j. Output i
# is Σ_k B_ik times these: choose their signs too.
#
# </details>
# <details><summary>Hint 2: B's turn</summary>
#
# A x stays as it is, r numbers. Output i is Σ_k ΔB_ik (A x)_k, so it is at most η Σ_k |(A x)_k|, for every i.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# Your sum for A has d terms, so a step of A should move the outputs farther in a wider layer. Test this on random
# layers, where A alone takes a step of Adam, and then B alone.

# %%
most = yours("7.2")


def effects(width: int, draws: int = 8) -> list[float]:
    """How far a step of A, and of B, moves an output on average; and the most that A's could."""
    torch.manual_seed(width)
    found = torch.zeros(3)
    for _ in range(draws):
        A = torch.randn(config.rank, width) / width**0.5  # A x has ordinary entries
        B = torch.randn(width, config.rank) * LARGE
        x, g = torch.randn(2, width)  # a token, and the loss's gradient at the outputs
        step_A = -LARGE * torch.outer(B.T @ g, x).sign()  # of the gradient by the chain rule
        step_B = -LARGE * torch.outer(g, A @ x).sign()
        moves = (B @ (step_A @ x), step_B @ (A @ x), most(x, A, B, LARGE)[0])  # (d,) each
        found += torch.stack([each.abs().mean() for each in moves]) / draws
    return found.tolist()


widths, ours = (64, 128, 256, 512, 1024, 2048), next(iter(one_history[0][1].values())).shape[1]
display_figure(figures.plot_widths(widths, [effects(width) for width in widths], ours))
for name, before, after in zip("AB", effects(256), effects(2048), strict=False):
    print(f"{name}: {after / before:.1f} times as far at width 2048 as at 256")

# %% [markdown]
# Compare the slopes. In a layer eight times as wide, a step of A moves the outputs 7.8 times as far, and a step of B
# 1.1 times. This is LoRA+'s argument: in a wide model A's step becomes too long first, so A limits a common rate,
# although B could go faster.
#
# At our model's width (dashed line) and this rate the random layer still gives A the shorter step. Now measure the
# model itself: put only A's step into all pairs, then only B's, and see how far the batch's scores move. Which steps
# become longer if you raise one rate tenfold?

# %%
model = inject(lesson.twin().model, LoRAConfig(config.rank))


@torch.no_grad()
def part_step(history: list, step: int, of_A: float, of_B: float) -> tuple[Tensor, float]:
    """The batch's scores and loss, if A takes this share of its step, and B that share of its own."""
    (some, before, _), (_, after, _) = history[step - 1 : step + 1]
    shares = {"A": of_A, "B": of_B}
    mixed = {name: before[name].lerp(after[name], shares[name[-1]]) for name in before}
    model.load_state_dict(mixed, strict=False)
    pictures, labels = shots_of(1)
    scores = scores_of(model, pictures[some])
    return scores, nn.functional.cross_entropy(scores, labels[some]).item()


rows = {}
for pair in ((SMALL, SMALL), (LARGE, SMALL), (SMALL, LARGE)):
    history, row = short_run(*pair, 1)[2], {}
    for step in [step for step in (2, 8) if step <= STEPS]:
        still = part_step(history, step, 0, 0)[0]
        for name, shares in (("A", (1, 0)), ("B", (0, 1))):
            moved = (part_step(history, step, *shares)[0] - still).abs().mean()
            row[f"step {step} of {name}"] = f"{moved.item():.4f}"
    rows[f"A at {pair[0]:g}, B at {pair[1]:g}"] = row
display(pd.DataFrame(rows).T.rename_axis("a score moves, on average, by"))

# %% [markdown]
# In step 2, a tenfold rate of A (second row) lengthens only A's step, from 0.0007 to 0.0066. A tenfold rate of B
# (third row) lengthens *both* steps, because A's step reaches the output through B, which step 1 has made as large as
# B's rate. By step 8 A has moved too, so either rate lengthens both steps. A's rate does most for A's step (0.0294),
# and B's for B's (0.0713).
#
# ## Rate or ratio?
#
# Describe two rates by their *overall rate*, which is the root of their product, and by their *ratio*. (In step 2 the
# product alone set A's step: it is 0.0066 in both rows.) Your LoRA+ differed from LoRA in both. Its control has
# LoRA+'s overall rate, but one rate for A and B. The next cell trains it beside other pairs of rates, with three seeds
# each. Guess the control first.

# %%
control = 45  # your guess: how many of the 73 the control has right; LoRA had 36, LoRA+ 49
TOP, MORE = 10 * LARGE, 100 * LARGE
single = (SMALL, (SMALL * LARGE) ** 0.5, LARGE, (LARGE * TOP) ** 0.5, TOP)
kinds = {
    "one rate": [(rate, rate) for rate in single],
    "B faster": [(SMALL, LARGE), (SMALL, TOP), (LARGE, TOP)],
}
kinds["A faster"] = [(fast, slow) for slow, fast in kinds["B faster"]]
right = {
    pair: torch.stack([short_run(*pair, seed)[0] for seed in SEEDS])  # (seeds, n)
    for pairs in kinds.values()
    for pair in pairs
}
right_once = {pair: short_run(*pair, 1)[0][None] for pair in ((LARGE, MORE), (MORE, LARGE))}
counts = {pair: found.sum(1).tolist() for pair, found in (right | right_once).items()}
display_figure(figures.plot_overall(counts, f"right of {n}", zero_shot))
means = {
    (float(f"{b / a:.1g}"), float(f"{(a * b) ** 0.5:.2g}")): f"{sum(each) / len(each):.1f}"
    for (a, b), each in counts.items()
}
table = pd.Series(means).unstack(fill_value="").rename("{:g}".format).rename("{:g}".format, axis=1)
display(table.rename_axis(index="ratio, B to A", columns="overall rate"))
print(f"the control: {counts[kinds['one rate'][1]]}; your guess: {control}")
print(f"LoRA+:       {counts[SMALL, LARGE]}")

# %% [markdown]
# Look first at where colours meet. At an overall rate of 0.003, ratios of 0.01, 1 and 100 have 52.3, 54.7 and 53.3
# pictures right. At 0.0095 the means lie even closer, and at 0.03 training breaks with every ratio (0.01 and 100 were
# tried in seed 1 only). So from 0.003 on we see the overall rate matter, and no ratio.
#
# At 0.00095 the colours part. LoRA+ has 47.7 right, the control 42.0, and a faster A 40.3, and LoRA+ beats the
# control in every seed. Here the ratio matters, and the table above suggests why: at low rates B's step is the longer
# one, and B's rate lengthens both steps.
#
# So, with the product held, about half of the mean gain over LoRA (36.0) came with the rate and half with the ratio.
# But one rate of 0.003 has 54.7 right, and no ratio has more. The ratio has only made up for a rate that was too low.
#
# What goes wrong when both rates are 0.03? Take step 2 of that run again, and let A go only a part of its way.

# %%
history, shares = short_run(TOP, TOP, 1)[2], (0, 0.1, 0.2, 0.4, 0.7, 1)
losses = {
    told: [part_step(history, 2, share, of_B)[1] for share in shares]
    for told, of_B in (("B before its step", 0), ("B after its step", 1))
}
display_figure(figures.plot_shares(shares, losses))

# %% [markdown]
# Follow the blue line, for which B has not taken its step. A fifth of A's step brings the loss from 1.62 down to 0.93,
# but the full step takes it back to 1.59. So A's step has the right direction and is several times too long. On the
# orange line B's step has already brought the loss to 0.64, and any share of A's step then raises it: each step was
# computed as if the other matrix stood still. (This is one step of one seed.)

# %% [markdown]
# ### Exercise 7.3 · A fair trial
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# The best of several tries looks better than it is if the same pictures choose and judge it. So give each kind as many
# tries as the kind with the fewest: its first ones. Take the try with the most right answers, over all seeds, on the
# pictures in `choose`, and report its share on all *other* pictures.


# %% tags=["exercise"]
def fair_trial(
    right: dict[tuple[float, float], Tensor],
    kinds: dict[str, list[tuple[float, float]]],
    choose: Tensor,
) -> dict[str, float]:
    """Each kind's share of right answers, at rates that other pictures chose.

    Args:
        right: (A's rate, B's rate) to which pictures were right, (seeds, n), True or False.
        kinds: name to the pairs of rates that were tried.
        choose: (n,), True for the pictures that choose.

    Returns:
        Name to share, from 0 to 1.
    """
    # BEGIN SOLUTION
    tries = min(len(pairs) for pairs in kinds.values())
    shares = {}
    for kind, pairs in kinds.items():
        chosen = max(pairs[:tries], key=lambda pair: right[pair][:, choose].sum())
        shares[kind] = right[chosen][:, ~choose].float().mean().item()
    return shares
    # END SOLUTION


check("7.3", fair_trial)

# %% [markdown]
# <details><summary>Hint 1: choose</summary>
#
# `right[pair][:, choose]` has the choosing pictures of all seeds. `max(pairs, key=...)` returns the pair for which a
# function is largest.
#
# </details>
# <details><summary>Hint 2: report</summary>
#
# `~choose` is True for all other pictures. Count how many tries each kind has before you go through the kinds, and let
# every kind use only that many of its pairs.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %%
trial, shares = yours("7.3"), []
torch.manual_seed(0)
for _ in range(200):
    choose = torch.zeros(n, dtype=torch.bool)
    choose[torch.randperm(n)[: n // 2]] = True  # a random half of the pictures
    drawn = {kind: [pairs[i] for i in torch.randperm(len(pairs))] for kind, pairs in kinds.items()}
    shares.append(trial(right, drawn, choose))
best = {
    kind: max(right[pair].float().mean().item() for pair in pairs) for kind, pairs in kinds.items()
}
fair = pd.DataFrame(shares).mean()
columns = {"the same pictures choose and judge": best, "a fair trial, mean of 200": fair}
display(pd.DataFrame(columns).map("{:.1%}".format))

# %% [markdown]
# A fair trial takes something off every kind, because the best try was partly lucky. One rate loses most, from 74.9%
# to 71.5%, but mainly because it had five tries, two of them at the far ends of the figure, and the three that are
# drawn often leave out its best. A faster B ends at 72.4% and a faster A at 70.8%, so no kind stands out. (The halves
# overlap and share the same runs, so they give no interval.)
#
# So this gain is no reason to put LoRA+ into your paper, because one tuned rate does about as well. Elsewhere it may
# help: [the study](../docs/study.md) tuned both on other data sets, and LoRA+ was a little ahead on SAM, with no
# clear difference on CLIP. Find the best single rate first, and then give LoRA+ as many tries.

# %% [markdown]
# ## Quiz
#
# **1. B is zero, and Adam's first step has a rate of 0.01 for both. How far does an entry of A move? And one of B?**
#
# <details><summary>Answer</summary>
#
# An entry of A does not move, as its gradient is exactly zero. (AdamW's decay still shrinks it, by the share rate
# times decay.) An entry of B moves by 0.01, up or down, unless its gradient is almost zero too.
#
# </details>
#
# **2. Both rates are 0.0003. Which steps grow in step 2 if you raise A's rate? And B's?**
#
# <details><summary>Answer</summary>
#
# With A's rate only A's step, about tenfold. With B's rate both steps, because A's step goes through B.
#
# </details>
#
# **3. A paper compares LoRA at rate η with LoRA+ at η for A and 16 η for B, and LoRA+ wins. What is missing?**
#
# <details><summary>Answer</summary>
#
# LoRA with both rates at 4 η, which is the same overall rate, and at the rates around it. Then as many tries for LoRA
# as for LoRA+, chosen on other pictures than those that judge, and several seeds.
#
# </details>
#
# ## What to remember
#
# - B moves first: while it is zero, A has no gradient.
# - Under Adam the rate sets the size of a step. At first B's rate counts in both steps, because A's goes through B.
# - A new ratio is also a new overall rate: compare it with one rate of the same product, and tune that rate.
#
# Next: [lesson 08](08_how_sure.ipynb) says when a difference is more than luck.
