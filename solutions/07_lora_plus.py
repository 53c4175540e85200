# %% [markdown]
# # 07 · LoRA+: whose rate is it?
#
# A reviewer writes: have you tried LoRA+? B gets ten times the learning rate of A, it is one line, and it always helps.
# You try it, and accuracy rises by more than twenty points. Should it go into your paper?
#
# You write that line, find out why B moves first and what the right ratio hangs on, and make the runs that show whether
# the ratio pays.

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
# [LoRA+](https://arxiv.org/abs/2402.12354) (Hayou et al., 2024) gives B a larger learning rate than A, by
# *parameter groups*: dictionaries with `params`, `lr` and `weight_decay`, as PyTorch's optimizers take them. If a tensor
# ends up in the wrong group, or in none, you get no error, only a model that learns differently.
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
# Test the claim, on the drawings of lesson 04, with four shots of each class, all in one batch.

# %%
data, backbone, config, groups_of = lesson.data, lesson.backbone, lesson.config, yours("7.1")
template = data.template if config.prompt == "dataset" else data.generic_template
prompts = backbone.tokenizer(data.prompts(template)).to(lesson.device)  # (C, context length)
SHOTS, SEEDS, STEPS = min(4, lesson.amount), (1, 2, 3), min(25, config.min_steps)


@cache
def batch(seed: int) -> tuple[Tensor, Tensor]:
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
    pictures, labels = batch(seed)  # (N, 3, H, W) and (N,)
    twin = lesson.twin()  # the model once more, on the same frozen weights
    clip = inject(twin.model, LoRAConfig(config.rank))
    named = dict(clip.named_parameters())
    A, B = (next(p for name, p in named.items() if name.endswith(end)) for end in ("_A", "_B"))
    optimizer = torch.optim.AdamW(groups_of(named, lr_A, lr_B / lr_A, config.weight_decay))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)  # half a cosine, to 0
    seen = []
    for _ in range(STEPS):
        with lesson.autocast():  # bfloat16 where a GPU has it
            images = clip.encode_image(pictures, normalize=True)  # (N, D)
            classes = clip.encode_text(prompts, normalize=True)  # (C, D)
            scores = clip.logit_scale.exp() * images @ classes.T  # (N, C)
            loss = nn.functional.cross_entropy(scores, labels)
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
    f"rank {config.rank}, {STEPS} steps of AdamW on {SHOTS} shots of each of {len(prompts)} classes in "
    f"one batch, weight decay {config.weight_decay}, rates down to 0 by half a cosine, seed 1"
)

# %% [markdown]
# From 53% to 75%, for one line, where zero-shot has 49%. (0.003 is the lab's rate, not tuned here.) Is the reviewer
# right? First: why would anybody give two matrices two rates?
#
# ## Who moves first
#
# A pair starts with `A` random and `B` zero. The output depends on the product B A alone, and a step changes both
# factors. With ΔA and ΔB for what the step adds,
#
# $$ (B + \Delta B)(A + \Delta A) - B A \;=\; \underbrace{\Delta B\,A}_{\text{B's part}}
# \;+\; \underbrace{B\,\Delta A}_{\text{A's part}} \;+\; \underbrace{\Delta B\,\Delta A}_{\text{both}} . $$
#
# Which two of the three are zero in step 1, and why? And who will have moved farther after twenty-five steps at one
# rate, A or B?

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
# With LoRA+ (dashed) B's first step is ten times as large, and in the end B has gone 1.4, not 0.21. (All lines flatten:
# the loop lowers the rates.)
#
# ### Adam's first step ignores the gradient's size
#
# In step 2 A's gradient is 0.0013, and B's 0.0358. Why do the two run side by side? That is Adam. It divides each
# entry's mean gradient by the root of its mean square.

# %% [markdown]
# ### Exercise 7.2 · Adam's first step
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 10 |
#
# In step t Adam updates $m \leftarrow \beta_1 m + (1-\beta_1)\, g$ and $v \leftarrow \beta_2 v + (1-\beta_2)\, g^2$, divides
# them by $1-\beta_1^t$ and $1-\beta_2^t$, and adds $-\text{lr}\cdot \hat m / (\sqrt{\hat v} + \varepsilon)$ to the parameter.
# Return what the *first* step adds. The check compares with `torch.optim.Adam`, and some gradients are zero.


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
# rates has a plain meaning: about how many times larger B's steps are than A's. Which ratio would be right?
#
# ## Which ratio?
#
# Take one token x, and one Adam step: every entry moves by the rate η.
#
# - **B's step**, $\Delta B\,(A x)$: an output entry sums r numbers of ordinary size, times η, whatever the width d.
# - **A's step**, $B\,(\Delta A\, x)$: each entry of $\Delta A\, x$ sums *d* terms $\eta\,|x_j|$. They do not cancel, as the
#   signs of A's gradient follow those of x. So it grows like d; and it has the factor B.
#
# Measure it. One random layer W with a pair beside it: how far does one step of your Adam, for A alone or for B alone,
# move the output, compared with its size? B's entries are as large as in our two runs at the end.

# %%
adam_step = yours("7.2")


def effect_of_a_step(width: int, size_B: float) -> tuple[float, float]:
    """How far a step of A, and a step of B, moves the output, relative to its size."""
    rank, lr = 8, 1e-3
    torch.manual_seed(width)
    W = torch.randn(width, width) / width**0.5  # keeps entries at ordinary size
    A = (torch.randn(rank, width) / width**0.5).requires_grad_()
    B = (torch.randn(width, rank) * size_B).requires_grad_()
    x, wanted = torch.randn(2, 16, width)  # 16 tokens, and what the layer should make of them

    def output(A: Tensor, B: Tensor) -> Tensor:
        return x @ (W + B @ A).T  # (16, d)

    before = output(A, B)
    (before - wanted).square().mean().backward()
    stepped = output(A + adam_step(A.grad, lr), B), output(A, B + adam_step(B.grad, lr))
    return tuple(((after - before).norm() / before.norm()).item() for after in stepped)


own = slow_pair[0][0].shape[1]
widths = sorted({64, 128, 256, 512, 1024, 2048, own})
small, large = (pair[-1][1].square().mean().sqrt().item() for pair in (slow_pair, plus_pair))
sizes = {  # of B's entries
    f"B's entries as slow left them: {small:.4f}": small,
    f"as LoRA+ left them: {large:.4f}": large,
}
effects = {name: [effect_of_a_step(w, size) for w in widths] for name, size in sizes.items()}
display_figure(figures.plot_widths(widths, effects, own))

# %% [markdown]
# Double the width, and a step of A (blue) moves the output about twice as far; a step of B, as far as before. A larger
# B (right) lifts A's line too. At our width and one rate for both, a step of A does 0.13 times what one of B does
# where slow ends, and 0.87 times where LoRA+ ends. On a model several times as wide A's would do more than B's, and
# there LoRA+ holds A's rate back. So no ratio is right everywhere.
#
# The Serial LoRA paper takes twenty; LoRA+'s authors suggest about 16.
# <!-- from arXiv 2402.12354: 16 -->
#
# ## Whose rate is it?
#
# Your LoRA+ differs from slow in *one* thing: B's rate is ten times larger. Is that a ratio, or a rate? Two matrices
# at two rates make four runs. Slow has 39 right, LoRA+ 55. Write down what you expect of A alone fast, and of both.
# (In the left picture a rate ten times as large multiplies 0.13 by ten.)

# %% [markdown]
# ### Exercise 7.3 · The runs that are missing
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Make the four runs, each once. Then a fair test: how many pictures is LoRA+ ahead of the better run whose A and B have
# one rate? The check's runs are invented.


# %% tags=["exercise"]
def fair_test(run, small: float, large: float) -> tuple[dict[str, int], int]:
    """Two matrices at two rates: what is right in each run, and what the ratio brings.

    Args:
        run: `run(lr_A, lr_B)` trains a new adapter; how many pictures it names right.
        small: the lower rate.
        large: the higher rate.

    Returns:
        What each run names right, by the names slow, LoRA+, A fast and both fast.
        How far LoRA+ is ahead of the better run that has one rate for A and B.
    """
    # BEGIN SOLUTION
    right = {
        "slow": run(small, small),
        "LoRA+": run(small, large),
        "A fast": run(large, small),
        "both fast": run(large, large),
    }
    one_rate = max(right["slow"], right["both fast"])
    return right, right["LoRA+"] - one_rate
    # END SOLUTION


check("7.3", fair_test)

# %% [markdown]
# <details><summary>Hint 1: which rate comes first?</summary>
#
# A's, then B's. LoRA+ raises B's alone.
#
# </details>
# <details><summary>Hint 2: LoRA+'s rivals</summary>
#
# Two of the four runs have one rate: slow, and both fast. Either may be the better one. Your dictionary has both.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_lora_plus.ipynb)

# %%
fair = yours("7.3")
tests = [
    fair(lambda lr_A, lr_B, i=seed: short_run(lr_A, lr_B, i)[0], SMALL, LARGE) for seed in SEEDS
]
told = f"slow {SMALL:g}, fast {LARGE:g}, {STEPS} steps, {SHOTS} shots, right of {n}, zero-shot {zero_shot}"
display_figure(figures.plot_four_runs([right for right, _ in tests], told, zero_shot))
ahead = ", ".join(f"{lead:+}" for _, lead in tests)
print(f"LoRA+ is {ahead} pictures ahead of the better run with one rate (seeds {SEEDS})")

# %% [markdown]
# A fast B alone brings 15.3 pictures, a fast A alone 7.0: it was B's rate above all. A's counts too, as the left
# picture says: ten times 0.13 is more than one step of B. And A need not be slow: both fast brings 16.3, and in the
# fair test LoRA+ is ahead by -1, +1 and -3. In three seeds one sees no gain from the ratio. Had you published the
# first table, you would have presented a larger learning rate under another name.
#
# ## More rates
#
# Two rates are few. The course ships a sweep: three rates of A, each with six ratios, on another task of nine broad
# classes. If B's rate decides, then runs with the same A (left) should differ widely, and runs with the same B (right)
# should agree.

# %%
from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records

runs = frame(shipped_records("clip_ratio"))
display_figure(figures.plot_sweep(runs))

cells = 100 * runs.groupby(["method", "lr", "ratio"])["accuracy"].agg(["mean", "min", "max"])
first, apart = runs.iloc[0], (cells["max"] - cells["min"]).max()
print(
    f"rank {first['rank']}, {first['steps']} steps, {first['amount']} shots, "
    f"{runs['seed'].nunique()} seeds, which are up to {apart:.1f} points apart"
)
for method, name in {"lora_plus": "LoRA", "serial_lora_plus": "Serial LoRA"}.items():
    means = cells["mean"][method]
    one_rate = means.xs(1, level="ratio", drop_level=False)
    for way, of in {"with one rate": one_rate, "of all": means}.items():
        lr, ratio = of.idxmax()
        print(
            f"{name}, best {way} ({len(of)}): {of.max():.1f}% with A at {lr:g}, B at {lr * ratio:g}"
        )

# %% [markdown]
# They do. With one rate of A, accuracy spans about four points or more. By B's rate it is one curve, give or take two
# points; only LoRA's fast A (0.003) lies below the others. (At B's largest rate both methods fall out of the picture.)
#
# *One* rate of 0.001 reaches 52.6 and 51.5, two rates 53.4 and 53.8. But that is the best of 3 beside the best of 18,
# chosen by the test pictures, with seeds up to 9.3 points apart: it may be luck.
#
# ## Does the ratio pay?
#
# Let both sides choose their rates, on validation pictures. [The study](../docs/study.md) of lesson 09 did so, on four
# sets, for LoRA, and for LoRA+ with A at a twentieth of B's rate. Then both were tested at their best rates, on twelve
# sets. (Rank 16, 60 steps.)
# <!-- from docs/study.md: 60 -->

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
    print(
        f"{lab.upper()}: LoRA+ {arm['above LoRA']:+.2f} ± {arm['above LoRA, half-width']:.2f} "
        f"{study.units[lab]} above LoRA on the test; place {place + 1} of {len(arms)}"
    )
display_figure(
    figures.plot_search(searches, ["Dice, hundredths", "probability of the right class, %"])
)

# %% [markdown]
# In both pictures LoRA+ peaks at a larger rate of B. On SAM one sees why: with 0.027 for both, LoRA breaks; with 0.024
# for B alone, LoRA+ is at its best. So it was probably A that could go no faster. (A alone fast, the run that would
# show it, the study has not.) That is what a ratio is for, and on SAM it pays: 0.85 ± 0.36, second of 34 ways to
# adapt. On CLIP it is the first of 27, and still +0.47 ± 1.95 leaves it open. (One seed of LoRA+, and nothing corrects
# for looking at so many.)
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
# - Under Adam the rate is the size of B's first step. What A's step does grows with the width and with B; what B's
#   does, with neither.
# - A new ratio is also a new rate: try the larger rate for A, for B, and for both. A ratio pays where a fast B is good
#   and a fast A breaks.
#
# Next: [lesson 08](08_how_sure.ipynb) says when a difference is more than luck.
