# %% [markdown]
# # 07 · LoRA+: whose rate is it?
#
# A reviewer writes: have you tried LoRA+? B gets ten times the learning rate of A, it is one line, and it always helps.
# You try it, and accuracy rises by almost eighteen points. Should it go into your paper?
#
# Perhaps the *ratio* helped. Perhaps any higher *rate* would have. You write that line, derive what a step of A and one
# of B can do, and make the runs that tell the two apart.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import os
from functools import cache

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
# [LoRA+](https://arxiv.org/abs/2402.12354) (Hayou et al., 2024) gives B a larger learning rate than A, by *parameter
# groups*: dictionaries with `params`, `lr` and `weight_decay`, as PyTorch's optimizers take them. If a tensor ends up
# in the wrong group, or in none, you get no error, only a model that learns differently.
# <!-- from arXiv 2402.12354: 2024 -->

# %% [markdown]
# ### Exercise 7.1 · Sort the tensors
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Make LoRA+'s groups. Whatever else is trainable (a new head, say) goes into a third one, with A's rate. Leave out
# an empty group. Names are dotted, such as `visual.blocks.0.pair.lora_A`, and only the *last* part says what a tensor
# is: the check has misleading ones before it.


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

# %% [markdown]
# Test the claim, on the drawings of lesson 04, with four shots of each class.

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


def count_right(tested) -> int:
    """How many test pictures a model names right."""
    scores, truth = classify(tested, data, template)
    return int((scores.argmax(-1) == truth).sum())


# %% [markdown]
# *Slow* has one rate for A and B, *LoRA+* ten times as much for B. Before each step the loop copies the first pair (on
# q) and its gradients.


# %%
@cache  # a run that was made is not made again
def short_run(lr_A: float, lr_B: float, seed: int = 1) -> tuple[int, float, list]:
    """How many are right, the last loss, and A, B and their gradients before each step."""
    torch.manual_seed(seed)
    pictures, labels = shots_of(seed)  # (N, 3, H, W) and (N,)
    orders = [torch.randperm(len(labels)).split(BATCH) for _ in range(STEPS)]
    batches = [some for order in orders for some in order][:STEPS]  # again and again through all
    twin = lesson.twin()  # the model once more, on the same frozen weights
    clip = inject(twin.model, LoRAConfig(config.rank))
    named = dict(clip.named_parameters())
    A, B = (next(p for name, p in named.items() if name.endswith(end)) for end in ("_A", "_B"))
    optimizer = torch.optim.AdamW(groups_of(named, lr_A, lr_B / lr_A, config.weight_decay))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)  # half a cosine, to 0
    seen = []
    for some in batches:
        with lesson.autocast():  # bfloat16 where a GPU has it
            images = clip.encode_image(pictures[some], normalize=True)  # (B, D)
            classes = clip.encode_text(prompts, normalize=True)  # (C, D)
            scores = clip.logit_scale.exp() * images @ classes.T  # (B, C)
            loss = nn.functional.cross_entropy(scores, labels[some])
        optimizer.zero_grad()
        loss.backward()
        seen.append([each.detach().clone() for each in (A, B, A.grad, B.grad)])
        optimizer.step()
        schedule.step()
    return count_right(twin), loss.item(), [*seen, [A.detach(), B.detach()]]


# %%
SMALL, LARGE = config.lr / 10, config.lr
slow, slow_loss, slow_pair = short_run(SMALL, SMALL)
plus, plus_loss, plus_pair = short_run(SMALL, LARGE)
zero_shot, n = count_right(backbone), len(data.test)
table = {
    "rate of A": [f"{SMALL:g}", f"{SMALL:g}", ""],
    "rate of B": [f"{SMALL:g}", f"{LARGE:g}", ""],
    "loss": [f"{slow_loss:.2f}", f"{plus_loss:.2f}", ""],
    f"right of {n}": [slow, plus, zero_shot],
    "accuracy": [f"{right / n:.1%}" for right in (slow, plus, zero_shot)],
}
display(pd.DataFrame(table, ["LoRA, slow", "LoRA+", "zero-shot"]))
print(
    f"rank {config.rank}, {STEPS} steps of AdamW, {SHOTS} shots of each of {len(prompts)} classes, batch "
    f"{BATCH}, weight decay {config.weight_decay}, rates down to 0 by half a cosine, seed 1"
)

# %% [markdown]
# From 49% to 67%, for one line; slow has not got beyond zero-shot. (0.003 is the lab's rate, not tuned here.) Is the
# reviewer right? First: why would anybody give two matrices two rates?
#
# ## Who moves first
#
# A pair starts with `A` random and `B` zero. The output depends on the product B A alone, and a step changes both
# factors. With ΔA and ΔB for what the step adds,
#
# $$ (B + \Delta B)(A + \Delta A) - B A \;=\; \underbrace{\Delta B\,A}_{\text{B's part}}
# \;+\; \underbrace{B\,\Delta A}_{\text{A's part}} \;+\; \underbrace{\Delta B\,\Delta A}_{\text{both}} . $$
#
# Which two of the three are zero in step 1, and why? And who will have moved farther after all steps at one rate, A or
# B?

# %%
rows = {}
for step in [step for step in (1, 2, 5, 15) if step <= STEPS]:
    (A, B, *gradients), (new_A, new_B, *_) = slow_pair[step - 1], slow_pair[step]
    step_A, step_B = new_A - A, new_B - B
    parts = step_B @ A, B @ step_A, step_B @ step_A  # (d, d) each
    rows[f"step {step}"] = [f"{each.norm().item():.4f}" for each in (*parts, *gradients)]
columns = ["B's part", "A's part", "both", "A's gradient", "B's gradient"]
display(pd.DataFrame(rows, columns).T)


def moved(history: list) -> dict[str, list[float]]:
    """How far each matrix is from its start, before each step and at the end."""
    start = history[0]
    return {
        name: [(pair[i] - start[i]).norm().item() for pair in history]
        for i, name in enumerate("AB")
    }


display_figure(figures.plot_race({"one rate": moved(slow_pair), "LoRA+": moved(plus_pair)}))

# %% [markdown]
# B starts, and A waits one step: A's gradient has the factor B, and B is zero. From then on the two run side by side.
# Yet B's part of the change stays the largest: A's part also has the factor B, and B is still small.
#
# With LoRA+ (dashed) B's first step is ten times as large. In the end B has gone 0.85, not 0.1.
#
# ### Adam's first step ignores the gradient's size
#
# In step 2 A's gradient is 0.0009, and B's 0.0350. Why do the two run side by side? That is Adam. It divides each
# entry's mean gradient by the root of its mean square.

# %% [markdown]
# ### Exercise 7.2 · Adam's first step
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# In step t Adam updates $m \leftarrow \beta_1 m + (1-\beta_1)\, g$ and $v \leftarrow \beta_2 v + (1-\beta_2)\, g^2$,
# divides them by $1-\beta_1^t$ and $1-\beta_2^t$, and adds $-\text{lr}\cdot \hat m / (\sqrt{\hat v} + \varepsilon)$ to
# the parameter. Return what the *first* step adds. The check compares with `torch.optim.Adam`, and some gradients are
# zero.


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
# With $m = 0$ and $v = 0$ before, and $t = 1$: $m$ is $(1-\beta_1)\, g$, divided by $1-\beta_1$. What is left of it?
#
# </details>
# <details><summary>Hint 2: the root of a square</summary>
#
# $\sqrt{g^2}$ is $|g|$. So $g / (|g| + \varepsilon)$ is the sign of g, up to a tiny ε, and 0 where g is 0.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %% [markdown]
# So the learning rate *is* the size of an entry's first step, unless its gradient is zero, as A's is in step 1, or
# near ε. How far did B's entries go in step 1 of the two runs?

# %%
for name, history in {"one rate": slow_pair, "LoRA+": plus_pair}.items():
    sizes = history[1][1].abs()  # B after step 1, which was zero
    print(f"{name:8}  smallest {sizes.min():.6f}  largest {sizes.max():.6f}")

# %% [markdown]
# Every entry moves by the rate, 0.0003 or 0.003, or a little less, where its gradient is near ε. So a *ratio* of two
# rates has a plain meaning: about how many times larger B's steps are than A's.
#
# ## What a step can do
#
# A step of B's entries and one of A's may be equally large, and still move the *output* unequally. Take one token x:
#
# $$ \underbrace{\Delta B\,(A x)}_{\text{B's step}} \qquad\qquad \underbrace{B\,(\Delta A\, x)}_{\text{A's step}} $$

# %% [markdown]
# ### Exercise 7.3 · How far an output can move
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Every entry of A moves by η, up or down. How far can each output move at most, whatever the signs are? The same for B.
# Derive both on paper: write an output as a sum over entries, and choose each sign so that nothing cancels. (The check
# tries all signs.) Which of your two sums has d terms?


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


check("7.3", reach)

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
# Now measure it. One layer with random entries, one step of your Adam, for A alone and for B alone: how far do the
# outputs really move, on average? B's entries are as large as in our two runs at the end. Set your two guesses first:
# if the layer is eight times as wide, how many times as far do A's and B's steps move the outputs?

# %%
guess_A = 1  # your guess: of how many times as far a step of A moves the outputs
guess_B = 1  # your guess: the same of B
adam_step, most = yours("7.2"), yours("7.3")


def effects(width: int, size_B: float, draws: int = 8) -> list[float]:
    """How far a step of A, and of B, moves an output on average; and the most it could."""
    torch.manual_seed(width)
    found = torch.zeros(4)
    for _ in range(draws):
        A = torch.randn(config.rank, width) / width**0.5  # A x has ordinary entries
        B = torch.randn(width, config.rank) * size_B
        x, g = torch.randn(2, width)  # a token, and the loss's gradient at the outputs
        step_A = adam_step(torch.outer(B.T @ g, x), LARGE)  # of the gradient by the chain rule
        step_B = adam_step(torch.outer(g, A @ x), LARGE)
        moves = (B @ (step_A @ x), step_B @ (A @ x), *most(x, A, B, LARGE))  # (d,) each
        found += torch.stack([each.abs().mean() for each in moves]) / draws
    return found.tolist()


own = slow_pair[0][0].shape[1]
widths = sorted({64, 128, 256, 512, 1024, 2048, own})
small, large = (pair[-1][1].square().mean().sqrt().item() for pair in (slow_pair, plus_pair))
sizes = {
    f"B's entries as slow left them: {small:.4f}": small,
    f"as LoRA+ left them: {large:.4f}": large,
}
measured = {name: [effects(width, size) for width in widths] for name, size in sizes.items()}
display_figure(figures.plot_widths(widths, measured, own))
narrow, wide = effects(256, large), effects(2048, large)
for name, before, after, guess in zip("AB", narrow, wide, (guess_A, guess_B), strict=False):
    print(f"{name}: {after / before:.1f} times as far at width 2048 as at 256; your guess: {guess}")

# %% [markdown]
# Eight times the width, and a step of A (blue) moves an output 7.8 times as far: your sum has d terms. A step of B
# moves it as far as ever, and reaches its bound (dotted): it has signs of its own for each output. A has the same for
# all, and stays below. If B is larger (right), A's line rises too.
#
# This is the argument for LoRA+. On a wide model A's steps are the larger ones, so A decides how high *one* rate may
# be, and B, which could go faster, waits. But ours is not wide: at one rate, a step of A does 0.072 times what one of
# B does beside slow's B, and 0.59 times beside LoRA+'s. No ratio makes them equal at every width. (LoRA+'s authors
# suggest about 16, the Serial LoRA paper takes twenty.)
# <!-- from arXiv 2402.12354: 16 -->
#
# ## Whose rate is it?
#
# Your LoRA+ differs from slow in *one* thing: B's rate is ten times larger. Is that a ratio, or a rate? Make every run
# with three rates of A and three of B, up to ten times the lab's. On the diagonal A and B have one rate, to its right B
# is faster (LoRA+), above it A is.
#
# Set `EXPECTED`: how many of the 73 will the run name right in which both are fastest?

# %%
EXPECTED, RATES = 60, (SMALL, LARGE, 10 * LARGE)
right = {
    (lr_A, lr_B): [short_run(lr_A, lr_B, seed)[0] for seed in SEEDS]
    for lr_A in RATES
    for lr_B in RATES
}
told = f"right of {n}, mean of seeds {SEEDS}; framed: one rate for both; zero-shot {zero_shot}"
display_figure(figures.plot_rates(right, told, zero_shot))
kinds = {
    "one rate for both": [(a, b) for a, b in right if a == b],
    "B faster: LoRA+": [(a, b) for a, b in right if a < b],
    "A faster": [(a, b) for a, b in right if a > b],
}
best = {kind: max(pairs, key=lambda pair: sum(right[pair])) for kind, pairs in kinds.items()}
display(
    pd.DataFrame(
        {f"seed {seed}": [right[pair][i] for pair in best.values()] for i, seed in enumerate(SEEDS)}
        | {"rate of A": [f"{a:g}" for a, _ in best.values()]}
        | {"rate of B": [f"{b:g}" for _, b in best.values()]},
        [f"{kind}, best of 3" for kind in best],
    )
)
print(f"both fastest: {right[RATES[-1], RATES[-1]]}; expected: {EXPECTED}")

# %% [markdown]
# Bottom row: B's rate alone takes slow from 36.0 to 53.3. Left column: A's alone takes it to 52.3 (at 0.003 only to
# 40.3, as A's steps do little at our width). One rate of 0.003 for both does it too, 54.7. So it was the *rate*,
# whoever had it. With three tries for each side, LoRA+ is one picture behind the best single rate in every seed. Had
# you published the first table, you would have presented a larger learning rate under another name.
#
# Upper right the model falls below zero-shot, in every seed. A at 0.03 is fine beside a slower B, and B beside a
# slower A; together they break, probably as a step of each has the other as a factor, and both have grown. Beside a B
# so fast, A must be slower: *there* a ratio is needed, though here it wins nothing over 0.003 for both.
#
# ## Does the ratio pay?
#
# That was one task, and 73 pictures chose the rates. Now let both sides choose theirs on validation pictures. [The
# study](../docs/study.md) of lesson 09 did so, on four sets, for LoRA, and for LoRA+ with A at a twentieth of B's
# rate. Then both were tested at their best rates, on twelve sets. (Rank 16, 60 steps, batch 4 on SAM, 32 on CLIP.)
# <!-- from docs/study.md: 60 -->
# <!-- from serial_lora_course/labs/clip.py: 32 -->

# %%
from serial_lora_course.labs.methods import LORA_PLUS_RATIO
from serial_lora_course.lessons.l09_trial.tables import load_found

study, searches = load_found(), {}
for lab in ("sam", "clip"):
    rates, arms = study.rates[lab], study.whole(lab).sort_values("gain", ascending=False)
    plus = rates["lora_plus-16"].dropna()
    plus.index *= LORA_PLUS_RATIO  # A's rates, now B's
    lines = {"LoRA: A at B's rate": rates["lora-16"].dropna(), "LoRA+: A at a twentieth": plus}
    searches[f"{lab.upper()}, on validation pictures"] = lines
    place = list(arms["arm"]).index("lora_plus-16")
    arm = arms.iloc[place]
    both, of_B = rates["lora-16"].idxmax(), plus.idxmax()
    print(
        f"{lab.upper()}: best rates on validation pictures: LoRA {both:g}; LoRA+ {of_B:g} for B, "
        f"{of_B / LORA_PLUS_RATIO:g} for A"
    )
    print(
        f"{lab.upper()}: LoRA+ {arm['above LoRA']:+.2f} ± {arm['above LoRA, half-width']:.2f} "
        f"{study.units[lab]} above LoRA on the test; place {place + 1} of {len(arms)}"
    )
display_figure(
    figures.plot_search(searches, ["Dice, hundredths", "probability of the right class, %"])
)

# %% [markdown]
# In both pictures LoRA+ peaks at a larger rate of B. On SAM one sees why: at the largest rate LoRA breaks; about
# there, with A at a twentieth, LoRA+ is at its best. So A could probably go no faster beside so fast a B. (A alone
# fast the study has not tried.) That is what a ratio is for, and here LoRA+ is 0.85 ± 0.36 above LoRA, second of 34
# ways to adapt. On CLIP it is the first of 34, and still +0.47 ± 1.95 leaves it open. (One seed of LoRA+, and nothing
# corrects for looking at so many.)
#
# So use LoRA+ *second*. First find the best single rate. If larger ones break, give A a smaller one and B a larger one,
# and compare with the single rate at its best, on validation pictures.

# %% [markdown]
# ## Quiz
#
# **1. B is zero, and the first step of Adam has a rate of 0.01 for both. How far does an entry of A move? And one of
# B?**
#
# <details><summary>Answer</summary>
#
# A: not at all, as its gradient is exactly zero. (AdamW's decay still shrinks it, by the share rate times decay.) An
# entry of B: by 0.01, up or down, unless its gradient is near ε.
#
# </details>
#
# **2. You reuse one rate for A and B on a model four times as wide. Whose steps now do more, and what are two ways
# to correct that?**
#
# <details><summary>Answer</summary>
#
# A's: the effect of its step grows with the width. Divide both rates by four, which makes B slow; or A's alone, which
# means a ratio four times as large.
#
# </details>
#
# **3. A paper compares LoRA at rate η with LoRA+ at η for A and 16 η for B, and LoRA+ wins. What is missing?**
#
# <details><summary>Answer</summary>
#
# LoRA with both at 16 η, with A alone at 16 η, and with both at a few rates between; and several seeds.
#
# </details>
#
# ## What to remember
#
# - B moves first: while it is zero, A has no gradient.
# - Under Adam the rate is the size of B's first step. What A's step does to the output is a sum of d terms, and grows with
#   B; what B's does is a sum of r.
# - A new ratio is also a new rate: try the larger rate for A, for B, and for both. Two fast ones may break:
#   there a ratio can pay.
#
# Next: [lesson 08](08_how_sure.ipynb) says when a difference is more than luck.
