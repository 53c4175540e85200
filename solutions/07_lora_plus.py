# %% [markdown]
# # 07 · LoRA+: whose rate is it?
#
# A reviewer writes: "Have you tried LoRA+? It gives B ten times the learning rate of A, takes one line, and always
# helps." You try it. Your accuracy rises with every seed that you train, by sixteen points on average.
#
# Does LoRA+ belong in your paper? Before you reply, take the sixteen points apart: where do they come from?

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import os
import time
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
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import display_figure

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
lesson = open_lesson("clip", SCALE, os.environ.get("SERIAL_LORA_LENGTH", "class"))
lesson_card("07")

# %% [markdown]
# ## What there is to learn
#
# The task is that of lesson 04: CLIP names drawings of eight classes. Here are four test drawings, and what it calls
# them before any training.

# %%
data, backbone, config = lesson.data, lesson.backbone, lesson.config
template = data.template if config.prompt == "dataset" else data.generic_template
scores, truth = classify(backbone, data, template)  # all test pictures: (n, classes) and (n,)
called, n = scores.argmax(-1), len(truth)
shown = range(0, n, n // 4)[:4]
names = data.class_names
titles = [f"{names[truth[i]]}\nCLIP: {names[called[i]]}" for i in shown]
display_figure(show_pictures([data.test[i][0] for i in shown], titles, size=2.0))
print(f"CLIP has {(called == truth).sum()} of {n} right before any training")

# %% [markdown]
# ## The claim
#
# [LoRA+](https://arxiv.org/abs/2402.12354) (Hayou et al.) gives B a larger learning rate than A. It reports gains of 1
# to 2% and up to twice the speed; we test only the gain. <!-- from the paper, abstract: 1 to 2% -->
#
# In PyTorch this takes *parameter groups*: dictionaries with `params`, `lr` and `weight_decay`. No error tells you when
# a tensor is in the wrong group, or in none.

# %% [markdown]
# ### Exercise 7.1 · Sort the tensors
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# Write LoRA+'s groups: A's, B's, and a third one with A's rate for whatever else is trainable, such as a new head.
# Leave out empty groups. Only the *last* part of a name, such as `visual.blocks.0.pair.lora_A`, says what a tensor is.


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
# `name.rpartition(".")[2]` is what stands after the last dot.
#
# </details>
# <details><summary>Hint 2: three lists</summary>
#
# Make a dictionary of each list that holds something.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# Now LoRA and LoRA+ learn from four drawings of each class. Both train in the same way; only the rates differ.

# %%
groups_of = yours("7.1")
prompts = backbone.tokenizer(data.prompts(template)).to(lesson.device)  # (C, context length)
SHOTS, SEEDS, STEPS, BATCH = min(4, lesson.amount), (1, 2, 3), min(16, config.min_steps), 16


@cache
def shots_of(seed: int) -> tuple[Tensor, Tensor]:
    """A seed's shots, (N, 3, H, W), and their labels, (N,)."""
    few = [data.train[i] for i in few_shot_split(data, SHOTS, seed).indices]
    pictures = torch.stack([backbone.test_transform(picture) for picture, _ in few])
    return pictures.to(lesson.device), torch.tensor([label for _, label in few]).to(lesson.device)


def scores_of(clip: nn.Module, pictures: Tensor) -> Tensor:
    """How well each picture fits each class, (B, C): a cosine, times CLIP's own factor."""
    images = clip.encode_image(pictures, normalize=True)  # (B, D)
    classes = clip.encode_text(prompts, normalize=True)  # (C, D)
    return clip.logit_scale.exp() * images @ classes.T


@cache  # a run that was made is not made again
def short_run(lr_A: float, lr_B: float, seed: int) -> tuple[Tensor, list, list, list]:
    """Which test pictures are right, (n,); each step's batch; the pairs before each step and
    after the last; and how large each tensor's gradient was in each step."""
    torch.manual_seed(seed)
    pictures, labels = shots_of(seed)
    rounds = [torch.randperm(len(labels)).split(BATCH) for _ in range(STEPS)]
    batches = [batch for each in rounds for batch in each][:STEPS]  # again and again through all
    twin = lesson.twin()  # a second model on the same frozen weights
    clip = inject(twin.model, LoRAConfig(config.rank))  # with a pair A, B beside each q, k and v
    named = dict(clip.named_parameters())
    pairs = {name: p for name, p in named.items() if p.requires_grad}  # A, B, A, B, ...
    optimizer = torch.optim.AdamW(groups_of(named, lr_A, lr_B / lr_A, config.weight_decay))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)  # half a cosine, to 0
    values, gradients = [], []
    for batch in batches:
        loss = nn.functional.cross_entropy(scores_of(clip, pictures[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        if seed == 1:  # the run whose steps we look at
            values.append({name: p.detach().clone() for name, p in pairs.items()})
            gradients.append({name: p.grad.norm().item() for name, p in pairs.items()})
        optimizer.step()
        schedule.step()
    scores, truth = classify(twin, data, template)  # all test pictures
    return scores.argmax(-1) == truth, batches, [*values, pairs], gradients


# %%
SMALL, LARGE = config.lr / 10, config.lr  # LARGE is the rate of lesson 04
LORA, PLUS = (SMALL, SMALL), (SMALL, LARGE)  # the rates of A and B


@cache
def right_of(pair: tuple[float, float]) -> Tensor:
    """Which test pictures are right in each seed, (seeds, n)."""
    return torch.stack([short_run(*pair, seed)[0] for seed in SEEDS])


rows = {}
for name, pair in (("LoRA", LORA), ("LoRA+", PLUS)):
    right = right_of(pair)
    by_seed = ", ".join(f"{count}" for count in right.sum(1))
    rows[name] = [f"{pair[0]:g}", f"{pair[1]:g}", by_seed, f"{right.float().mean():.1%}"]
columns = ["rate of A", "rate of B", f"right of {n}, by seed", "accuracy"]
display(pd.DataFrame(rows, columns).T)
print(
    f"rank {config.rank}, {STEPS} steps of AdamW, {SHOTS} shots of each of {len(prompts)} classes, batch "
    f"{BATCH}, weight decay {config.weight_decay}, rates down to 0 by half a cosine"
)

# %% [markdown]
# There they are: LoRA+ has 65.3% right, and LoRA 49.3%. But LoRA has 36 right with every seed, as many as CLIP had
# before any training. So is LoRA+ strong, or is its opponent weak? Look at single steps.
#
# ## Who moves first
#
# A pair starts with a random A and a B of zeros. Which of the two has a gradient in step 1?

# %%
first = "A"  # your guess: "A", "B" or "both"
_, batches, values, gradients = short_run(*LORA, 1)
rates = [SMALL * (1 + cos(pi * step / STEPS)) / 2 for step in range(STEPS)]  # by the schedule
norms, moves = {}, {}
for name in [*gradients[0]][:2]:  # the A and the B of the first pair
    kind = name[-1]
    norms[kind] = [each[name] for each in gradients]
    moves[kind] = [
        ((values[step + 1][name] - values[step][name]).abs().median() / rates[step]).item()
        for step in range(STEPS)
    ]
panels = {"size of the gradient": norms, "move of an entry, over the rate": moves}
display_figure(figures.plot_steps(panels))
for step in (1, min(5, STEPS)):
    gradient = ", ".join(f"{kind}'s {norms[kind][step - 1]:.4f}" for kind in "AB")
    moved = ", ".join(f"{kind}'s by {moves[kind][step - 1]:.2f}" for kind in "AB")
    print(f"step {step}: size of the gradient: {gradient}; entries move: {moved} of the rate")
print("your guess:", first)

# %% [markdown]
# Only B has one. A's gradient contains B as a factor, and B is still zero.
#
# In step 5 B's gradient is 0.0520 and A's 0.0061, yet their entries move equally far, 0.80 and 0.79 of the rate. The
# reason is Adam. It divides the running mean of an entry's gradients by the root of the running mean of their squares,
# and so their size cancels. **Under Adam the rate says how far an entry moves; the gradient says which way.**
#
# ## What a step does to the output
#
# Do equal moves of A and B also move the *output* B A x equally far? For one token x the two steps add
#
# $$ \underbrace{\Delta B\,(A x)}_{\text{B's step}} \qquad\text{and}\qquad \underbrace{B\,(\Delta A\, x)}_{\text{A's step}} . $$

# %% [markdown]
# ### Exercise 7.2 · How far an output can move
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Every entry of A moves by η, up or down. How far can each output move at most? And how far, if B's entries move
# instead? Derive both on paper: write an output as a sum over entries, and choose each sign so that nothing cancels.


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
# A's sum contains the entries of B, and after step 1 these are as large as B's rate. B's sum contains no B.
#
# Now measure it on the whole model: put only A's step into all pairs, then only B's, and see how far the batch's scores
# move. LoRA+ raises B's rate tenfold and leaves A's. How many times as long is *A's* step 2 then?

# %%
times = 1.0  # your guess: how many times as long A's step becomes
model = inject(lesson.twin().model, LoRAConfig(config.rank))


@torch.no_grad()
def step_sizes(batches: list, values: list) -> dict[str, list[float]]:
    """How far the batch's scores move in each step, on average, if only A (or only B) takes it."""
    sizes = {"A": [], "B": []}
    for batch, before, after in zip(batches, values[:-1], values[1:], strict=True):
        pictures = shots_of(1)[0][batch]
        model.load_state_dict(before, strict=False)
        start = scores_of(model, pictures)
        for kind in sizes:
            step = {name: tensor for name, tensor in after.items() if name.endswith(kind)}
            model.load_state_dict(before | step, strict=False)
            sizes[kind].append((scores_of(model, pictures) - start).abs().mean().item())
    return sizes


runs = {"LoRA": LORA, "LoRA+": PLUS, f"one rate of {LARGE:g}": (LARGE, LARGE)}
sizes = {name: step_sizes(*short_run(*pair, 1)[1:3]) for name, pair in runs.items()}
display_figure(figures.plot_steps(sizes, "a score moves by"))
second = {name: (size["A"][1], size["B"][1]) for name, size in sizes.items()}
rows = {}
for name, (of_A, of_B) in second.items():
    longer_A, longer_B = of_A / second["LoRA"][0], of_B / second["LoRA"][1]
    rows[name] = [f"{longer_A:.1f}", f"{longer_B:.1f}", f"{of_B / of_A:.1f}"]
columns = ["A's, over LoRA's", "B's, over LoRA's", "B's, over A's"]
display(pd.DataFrame(rows, columns).T.rename_axis("how long step 2 is"))
print(f"your guess: {times}")

# %% [markdown]
# A's step 2 is ten times as long, though A's rate is the same: it reaches the output through B, and B is ten times as
# large. **A's step contains both rates, B's only its own.** So LoRA+ makes both steps ten times as long, and their
# balance stays: B's is about thirty times A's.
#
# One rate of 0.003 changes the balance. A's step is a hundred times LoRA's, as both of its rates are ten times as high,
# and B's is only three times A's. Later the curves draw together, since B grows, and all fall, since the rates do.
#
# ## What a faster B is for
#
# LoRA+'s argument is about wide layers. Your sum for A has d terms and your sum for B has r. Raise one shared rate in a
# wide layer: A's step outgrows B's and upsets the training while B's step is still short. A slower A would prevent
# that. Is our A at that point?
#
# Your two sums tell. After step 1 both contain B's rate once, so it cancels: B's sum over A's is the rate of A at which
# both steps are equally long.

# %%
reach, widths = yours("7.2"), (64, 128, 256, 512, 1024, 2048)


def equal_rate(width: int, draws: int = 20) -> float:
    """The rate of A at which both of your sums are equal, averaged over random layers."""
    torch.manual_seed(width)
    found = []
    for _ in range(draws):
        A = nn.init.kaiming_uniform_(torch.empty(config.rank, width), a=5**0.5)  # as pairs start
        x, B = torch.randn(width), torch.ones(1, config.rank)  # B's entries, in units of its rate
        of_A, of_B = reach(x, A, B, 1.0)
        found.append((of_B / of_A).item())
    return sum(found) / draws


ours = next(tensor.shape[1] for tensor in values[0].values())  # the width of the first A
met = SMALL * second["LoRA"][1] / second["LoRA"][0]  # A's step grows with its rate
rates = [equal_rate(width) for width in widths]
display_figure(figures.plot_catching_up(widths, rates, (ours, SMALL, met)))
print(f"by your sums: {equal_rate(ours):.4f} at width {ours}, {rates[-1]:.4f} at {widths[-1]}")
print(f"from step 2 of our LoRA: {met:.4f}; A has {SMALL:g}")

# %% [markdown]
# The wider the layer, the lower the rate at which A catches up: 0.0029 at our width, 0.0003 at 2048. Above the line a
# slower A may help.
#
# In our model the two would meet at 0.0095, if A's step 2 grows with its rate. This is measured on the scores, with many
# tokens in a batch. Your sums are upper limits for one token, and A's step seems to fall short of its limit by more.
#
# Both values are far above the 0.0003 that A has here. So this argument does not explain our sixteen points.
#
# ## Whose rate is it?
#
# LoRA+ has two rates, 0.0003 for A and 0.003 for B. Which single rate should its opponent have? A's, as in the first
# table; B's; or √(A · B), as A's step contains both?
#
# The next cell tries all three, and more rates. Guess how the opponent with B's rate does.

# %%
accuracy = 0.6  # your guess: of one rate of 0.003; LoRA had 0.493, LoRA+ 0.653
began = time.perf_counter()
MIDDLE = (SMALL * LARGE) ** 0.5  # LARGE is √10 times as high, and so on
kinds = {
    "one rate": [(LARGE, LARGE), (10 * MIDDLE, 10 * MIDDLE), (10 * LARGE, 10 * LARGE)],
    "LoRA+": [(SMALL, LARGE), (MIDDLE, 10 * MIDDLE), (LARGE, 10 * LARGE)],
}
pairs = [LORA, (MIDDLE, MIDDLE), *kinds["one rate"], *kinds["LoRA+"]]
shares = {pair: right_of(pair).float().mean(1).tolist() for pair in pairs}
before = (called == truth).float().mean().item()
display_figure(figures.plot_opponents(shares, PLUS, before))
rows, gains = {}, []
for name, rate in (("A's", SMALL), ("√(A · B)", MIDDLE), ("B's", LARGE)):
    right = right_of((rate, rate))
    gains.append(100 * (right_of(PLUS).float().mean() - right.float().mean()).item())
    by_seed = ", ".join(f"{count}" for count in right.sum(1))
    rows[f"{name}: {rate:.2g}"] = [
        by_seed,
        f"{right.float().mean():.1%}",
        f"{gains[-1]:+.1f} points",
    ]
columns = [f"right of {n}, by seed", "its accuracy", "LoRA+ gains"]
display(pd.DataFrame(rows, columns).T.rename_axis("the opponent's rate"))
print(f"your guess: {accuracy}; the highest rate was {10 * LARGE:g}")
print(f"all runs took {time.perf_counter() - began:.0f} seconds")

# %% [markdown]
# The same LoRA+ gains 16.0 points, gains 7.8 or loses 9.6. Only its opponent's rate differs, and the reviewer's
# comparison is the first.
#
# Each arrow is one of these gains. The three panels hold the same runs; only the x axis differs. So the gain at one x
# can be anything, but the two peaks stay as high as they are, and they are level.
#
# LoRA+'s argument is there, too, on the right. With B at 0.03 training breaks if A has 0.03 as well, above the 0.0095
# where A's step overtakes B's. It does not if A has 0.003. So a slower A lets B go faster, but to no higher peak.
#
# ## Both at their best
#
# So give each kind three tries, and compare the best of each. But if the same pictures choose and judge, a rate that was
# lucky on them looks better than it is. So half of them choose, and the others judge.

# %% [markdown]
# ### Exercise 7.3 · A fair judge
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Choose the pair of rates with the most right answers on the pictures that `choose` marks, over all seeds. Return it,
# with its accuracy on the *other* pictures. The check has a pair that is best only where it is chosen.


# %% tags=["exercise"]
def choose_and_judge(
    right: dict[tuple[float, float], Tensor], choose: Tensor
) -> tuple[tuple[float, float], float]:
    """The best pair of rates by some pictures, and its accuracy on the others.

    Args:
        right: a pair of rates -> which pictures are right in each seed, (seeds, n), of True and False.
        choose: (n,) True for the pictures that choose.
    """
    # BEGIN SOLUTION
    counts = {pair: right[pair][:, choose].sum() for pair in right}
    best = max(counts, key=counts.get)
    others = right[best][:, ~choose]  # (seeds, the pictures that judge)
    return best, others.float().mean().item()
    # END SOLUTION


check("7.3", choose_and_judge)

# %% [markdown]
# <details><summary>Hint 1: two masks</summary>
#
# `right[pair][:, choose]` are the answers that may choose, and `right[pair][:, ~choose]` those that may not.
#
# </details>
# <details><summary>Hint 2: the best key of a dictionary</summary>
#
# If `counts` holds a number for each pair, `max(counts, key=counts.get)` is the pair with the largest.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# One split could be lucky, too. So draw 200. What does LoRA+ gain over its opponent, now that both are at their best?

# %%
points = 5.0  # your guess: what LoRA+ gains, in points
judge, rows, judged = yours("7.3"), {}, {}
for kind, tries in kinds.items():
    torch.manual_seed(0)  # the same draws for both
    right = {pair: right_of(pair) for pair in tries}
    chosen_on, judged[kind] = [], []
    for _ in range(200):
        choose = torch.randperm(n) < n // 2  # a random half of the pictures
        best, accuracy = judge(right, choose)
        chosen_on.append(right[best][:, choose].float().mean().item())
        judged[kind].append(accuracy)
    rows[kind] = [f"{sum(each) / len(each):.1%}" for each in (chosen_on, judged[kind])]
columns = ["on the half that chose", "on the other half"]
display(pd.DataFrame(rows, columns).T.rename_axis("accuracy of the best of three"))
fair = 100 * (pd.Series(judged["LoRA+"]) - pd.Series(judged["one rate"]))
display_figure(figures.plot_draws(fair.tolist(), gains[0]))
low, high = fair.quantile([0.05, 0.95])
print(f"LoRA+ gains {fair.mean():+.1f} points; in nine of ten draws {low:+.1f} to {high:+.1f}")
print(f"your guess: {points}")

# %% [markdown]
# Tuned, LoRA+ gains -0.1 points. Nine of ten draws lie within -3.6 to +3.6; that is the luck of the pictures alone, and
# seeds differ by more (50 to 58 right at 0.003). So we see no gain, and three seeds could not show a small one. Both look
# better on the half that chose them: that is the luck you kept out.
#
# Leave the sixteen points out of your paper, and tell the reviewer: "LoRA+ gains 16.0 points over a rate that was too
# low, and -0.1 over a tuned one." A higher rate brings the gain, with or without a ratio.
#
# What stays open: we tried 16 steps, a ratio of ten and one narrow model. In a wide one A catches up at a lower rate,
# and there LoRA+ may help.

# %% [markdown]
# ## Quiz
#
# **1. B has a rate of 0.003. You raise A's from 0.0003 to 0.003. B is still zero: does step 1 change? And step 10?**
#
# <details><summary>Answer</summary>
#
# Step 1 does not (but for weight decay), as A's gradient is zero. In step 10 B is large, so A's step counts.
#
# </details>
#
# **2. A paper compares LoRA at rate η with LoRA+ at η for A and 16 η for B, and LoRA+ wins. What is missing?**
#
# <details><summary>Answer</summary>
#
# LoRA at its best rate, perhaps 4 η (the root of both rates) or 16 η, with several seeds.
#
# </details>
#
# **3. Another paper tunes both on the test pictures, with 16 pairs of rates for LoRA+ and three rates for LoRA. LoRA+
# leads by a point. What goes wrong?**
#
# <details><summary>Answer</summary>
#
# The best of 16 tries is luckier than the best of three, even if all are equally good. And the same pictures choose and
# judge, so this luck stays in the result.
#
# </details>
#
# ## What to remember
#
# - B moves first: while it is zero, A has no gradient.
# - A's step contains both rates and B's only its own, so a higher rate of B makes both steps longer.
# - What LoRA+ gains depends on its opponent's rate. Compare both at their best, after as many tries, on pictures that
#   did not choose.
#
# Next: [lesson 08](08_how_sure.ipynb) says when a difference is more than luck.
