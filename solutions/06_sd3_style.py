# %% [markdown]
# # 06 · Stable Diffusion 3: a new style
#
# Ines draws emoji, with black outlines and flat colours. Three hundred are finished, and a customer wants a thousand
# more by Friday. Here is the question of this lesson: **of forty more prompts, how many can a model draw so that we
# see what was asked for, and take it for hers?**
#
# You write the loss and the sampler. You ask in words, then train an adapter: it learns her style and forgets names.
# You find out where in the sampler the names are lost, and mend it there.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import os
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.lessons.l06_sd3.studio import Studio
from serial_lora_course.plots.drawings import Row, draw_rows, plot_drawings
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("06")

# %%
SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper": SD3 medium, and Art Nouveau
lesson = open_lesson("sd3", SCALE, os.environ.get("SERIAL_LORA_LENGTH", "class"))
model, config, device = lesson.model, lesson.config, lesson.device  # the part of SD3 that draws
studio = Studio(lesson)  # many pictures and prompts, made ready for it

shown = [i for i in (0, 3, 6, 12, 18, 24, 25, 36) if i < len(studio.captions)]  # change this
names = [studio.captions[i] for i in shown]
base = studio.stock(studio.asked.rows(shown), shown, config.guidance)
hers = {"Ines": [studio.real[i] for i in shown]}
display_figure(plot_drawings({"SD3": base} | hers, names))

# %% [markdown]
# Above, what the model draws today for eight prompts, chosen because it draws most of them well; below, how Ines draws
# them. It is a small SD3, pretrained on the drawings of three other designers, these very words among them. So it
# knows *what* to draw, and has to learn *how*.
#
# ## What the model paints on
#
# SD3 never sees a pixel or a letter. An autoencoder turns a picture into *latents*, a smaller grid of numbers, and
# back. Text encoders turn a prompt into vectors, one a token, and one *pooled* vector for the whole.

# %%
from serial_lora_course.labs.sd3_pictures import to_square

pipeline = lesson.backbone.pipeline
vae, scaling, offset = (
    pipeline.vae,
    pipeline.vae.config.scaling_factor,
    pipeline.vae.config.shift_factor,
)


@torch.no_grad()
def encode(pixels: Tensor) -> Tensor:
    """Pictures (N, 3, side, side), from -1 to 1, as latents (N, c, h, w)."""
    return (vae.encode(pixels).latent_dist.mode() - offset) * scaling


@torch.no_grad()
def decode(latents: Tensor) -> Tensor:
    """The way back."""
    return vae.decode(latents / scaling + offset).sample


pixels = to_square(hers["Ines"][0], studio.side)[None]  # (1, 3, side, side)
latents = encode(pixels)
options = {"do_classifier_free_guidance": False, "device": "cpu"}
options |= {"max_sequence_length": lesson.backbone.text_tokens}
tokens, _, pooled, _ = pipeline.encode_prompt(names[0], None, None, **options)
print("picture", (*pixels.shape[1:],), "as latents", (*latents.shape[1:],))
print(f"“{names[0]}” as tokens {(*tokens.shape[1:],)} and pooled {(*pooled.shape[1:],)}")
print(
    f"there and back: {127.5 * (decode(latents) - pixels).abs().mean():.1f} of 255 grey levels off"
)

# %% [markdown]
# All that is frozen, and done once. When you read "latents", you can think "picture".
#
# ## A straight line from picture to noise
#
# You cannot show a network a blank page and ask for a cat: there are a million right answers. But you can *spoil* a
# picture with noise, and ask how to undo that. Join a picture x and pure noise n of the same shape by a straight line.
# At the *noise level* σ you are at
#
# $$x_\sigma = (1 - \sigma)\, x + \sigma\, n, \qquad 0 \le \sigma \le 1$$
#
# σ = 0 is the picture, σ = 1 is noise. How fast do you move along the line? Differentiate by σ:
#
# $$v = n - x$$
#
# There is no σ in it, because the line is straight. This *velocity* is what the network has to predict: given a noisy
# picture, its noise level and a sentence, in which direction is the noise? Who knows that can walk the other way, to
# the picture. That is all of *rectified flow*.

# %% [markdown]
# ### Exercise 6.1 · The loss
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 7 |
#
# Every picture of a batch has its own noise level. Go to the points at these levels, ask the model for the velocity
# there, and compare it with the true one: the mean squared error over all entries. `velocity(points, sigmas)` is the
# model. The check compares gradients too.


# %% tags=["exercise"]
def flow_loss(velocity: Callable, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """The mean squared error of a model's velocity, one number.

    Args:
        velocity: the model: points (B, c, h, w) and noise levels (B,) -> velocities (B, c, h, w).
        latents, noise: (B, c, h, w).
        sigmas: (B,).
    """
    # BEGIN SOLUTION
    level = sigmas.view(-1, 1, 1, 1)  # (B, 1, 1, 1): one number a picture
    points = (1 - level) * latents + level * noise  # (B, c, h, w)
    return (velocity(points, sigmas) - (noise - latents)).square().mean()
    # END SOLUTION


check("6.1", flow_loss)

# %% [markdown]
# <details><summary>Hint 1: one number a picture</summary>
#
# PyTorch aligns shapes from the right: (B,) meets the *width* of (B, c, h, w). `sigmas.view(-1, 1, 1, 1)` has a
# number for each picture and is broadcast over the rest.
#
# </details>
# <details><summary>Hint 2: three steps</summary>
#
# The points by the first formula; the model's answer there, at `sigmas` as they came; then `.square().mean()` of its
# difference to `noise - latents`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# `velocity_of` turns an SD3 into such a function. Then we measure the loss on pictures that the model was pretrained
# on, and on her drawings. Which will be larger?


# %%
def velocity_of(network: nn.Module, words) -> Callable:
    """points (B, c, h, w), noise levels (B,) or one for all -> the velocities that a network answers.

    Args:
        words: B prompts, read, or one for all.
    """

    def velocity(points: Tensor, sigmas: Tensor | float) -> Tensor:
        levels = torch.as_tensor(sigmas).expand(len(points))  # (B,)
        with lesson.autocast():
            (answer,) = network(
                hidden_states=points.to(device),
                timestep=1000 * levels.to(device),  # SD3 wants σ out of a thousand
                encoder_hidden_states=words.tokens.expand(len(points), -1, -1).to(device),
                pooled_projections=words.pooled.expand(len(points), -1).to(device),
                return_dict=False,
            )
        return answer.float().cpu()

    return velocity


# %%
loss_of, captions = (
    yours("6.1"),
    studio.captions,
)  # all test prompts; no training sees her drawings of them
some = [words for words in captions if words in studio.known] or [*studio.known]
as_many = slice(len(some))
kinds = {
    "pictures that it knows": studio.encode_known(some),
    "her drawings": (studio.style.latents[as_many], studio.style.words.rows(as_many)),
}
for what, (latents, words) in kinds.items():
    torch.manual_seed(0)
    noise, sigmas = torch.randn_like(latents), torch.rand(len(latents))
    with torch.no_grad():
        loss = loss_of(velocity_of(model, words), latents, noise, sigmas)
    print(f"loss on {what}: {loss:.2f}")

# %% [markdown]
# Her drawings cost over three times as much, 0.51 and 0.14: they are new to the model, and perhaps harder.
#
# ## Why drawing takes steps
#
# If the velocity is right, one step is enough: from the point $x_\sigma$ walk back all the way,
# $\hat x = x_\sigma - \sigma \hat v$. Try it on a picture that the model knows, at six noise levels. Below what it is
# given are its guesses: with the picture's own word, without a word, and with a wrong one. Where should they differ?

# %%
word = "cat" if SCALE == "tiny" else "a photo of a cat"  # change this and run again
cat, sigmas = studio.encode_known([word]), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
start, level = studio.noise([5]), sigmas.view(-1, 1, 1, 1)
points = (1 - level) * cat.latents + level * start  # (6, c, h, w)
there = Row("picture to noise", studio.pictures(points), [f"σ = {s:.1f}" for s in sigmas])

three = {"its word": cat.words, "no word": studio.empty, "another word": studio.read(["rocket"])}
guesses = []
for told, words in three.items():
    with torch.no_grad():
        velocities = velocity_of(model, words)(points, sigmas)
    guesses.append(Row(told, studio.pictures(points - level * velocities)))
display_figure(draw_rows([there, *guesses]))

# %% [markdown]
# Follow the guesses with its own word to the right. At σ = 0.6 we see mostly noise, and the model still sees the cat,
# without face and stripes. At σ = 1 only its word is left: the guess is a blurred cat. The loss is squared, so the best
# answer is the *average* of all pictures that are still possible.
#
# Without a word these are all that it has ever seen, and their average is a grey slab. With the wrong word the picture
# wins while anything of it can be seen: at σ = 0.8 the guess is still half a cat. Only at σ = 1 the word decides alone.
#
# So take only a small step. Then the input holds a little of a picture, and the next answer is less of an average. That
# is why drawing takes many steps.

# %% [markdown]
# ### Exercise 6.2 · The sampler
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 6 |
#
# Start at noise. From each level σ go to the next, σ', by
#
# $$x_{\sigma'} = x_\sigma + (\sigma' - \sigma)\, v$$
#
# and ask for the velocity again at every point that you reach. The levels go from 1 down to 0, and their distances
# need not be equal.


# %% tags=["exercise"]
def sample(velocity: Callable, noise: Tensor, levels: list[float]) -> Tensor:
    """From noise to pictures, in steps along the velocity.

    Args:
        velocity: the model: points (B, c, h, w) and one noise level -> velocities (B, c, h, w).
        noise: (B, c, h, w), where to begin.
        levels: from 1 to 0, one more than there are steps.
    """
    # BEGIN SOLUTION
    points = noise
    for here, there in zip(levels[:-1], levels[1:], strict=True):
        points = points + (there - here) * velocity(points, here)
    return points
    # END SOLUTION


check("6.2", sample)

# %% [markdown]
# <details><summary>Hint 1: pairs of levels</summary>
#
# `zip(levels[:-1], levels[1:])` gives the pairs (σ, σ'). The last pair ends at 0, where the drawing is.
#
# </details>
# <details><summary>Hint 2: one step</summary>
#
# `points = points + (there - here) * velocity(points, here)`. Not `+=`, which would change the noise that came in.
#
# </details>
#
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# Run your sampler for the eight prompts, from the same noise as diffusers' own pipeline; and for the cat, where we
# look at every step.

# %%
walk = yours("6.2")
pipeline.scheduler.set_timesteps(config.drawing_steps)  # change this and run again: 3
levels = pipeline.scheduler.sigmas.tolist()
with torch.no_grad():
    mine = walk(velocity_of(model, studio.asked.rows(shown)), studio.noise(shown), levels)
stock = studio.stock(studio.asked.rows(shown), shown, guidance=1.0)
apart = abs(studio.pictures(mine).astype(int) - stock).max()
print(f"largest difference from the stock pipeline: {apart} of 255 grey levels")

velocity, reached, given, guessed = velocity_of(model, cat.words), start, [], []
for here, there in zip(levels[:-1], levels[1:], strict=True):
    with torch.no_grad():
        given.append(studio.pictures(reached)[0])
        guessed.append(studio.pictures(reached - here * velocity(reached, here))[0])
        reached = walk(velocity, reached, [here, there])
rows = []
for five in (slice(step, step + 5) for step in range(0, len(given), 5)):
    rows.append(Row("it is given", given[five], [f"σ = {here:.2f}" for here in levels[:-1][five]]))
    rows.append(Row("it guesses", guessed[five]))
display_figure(draw_rows(rows))

# %% [markdown]
# Not one grey level apart: you have written SD3's sampler. The first guess is the blurred cat from above. Each step goes a
# little way towards the guess, and the model guesses again. In the end both rows show the same drawing: a body, a whole
# tail, and no face.
#
# ## Guidance, and asking in words
#
# Such drawings are soft. **Classifier-free guidance** is the trick that everybody uses: ask twice at every step, once
# with the prompt and once with an *empty* one, and go w times as far in the direction in which the answers differ.
#
# $$v = v_{\text{empty}} + w\,(v_{\text{prompt}} - v_{\text{empty}})$$
#
# And before we train anything, we ask for what we want: in pretraining this model has seen drawings with a black
# outline, called "outlined", so "outlined cat" may bring Ines's outlines.


# %%
from functools import partial


def guided(network: nn.Module, words, w: float = config.guidance) -> Callable:
    """A network's velocity for these words, with guidance."""
    prompted, empty = velocity_of(network, words), velocity_of(network, studio.empty)

    def velocity(points: Tensor, level: float) -> Tensor:
        without = empty(points, level)
        return without + w * (prompted(points, level) - without)

    return velocity


@torch.no_grad()
def draw(ask: Callable, words, seeds: list[int]) -> np.ndarray:
    """Drawings by your sampler: uint8, (N, side, side, 3). `ask` makes a velocity for some words."""
    noise, drawn = studio.noise(seeds), []
    for some in torch.arange(len(seeds)).split(studio.at_once):
        drawn.append(studio.pictures(walk(ask(words.rows(some)), noise[some], levels)))
    return np.concatenate(drawn)


in_words = "outlined {}" if SCALE == "tiny" else "{}, in the style of Art Nouveau"
asked_for = studio.read([in_words.format(caption) for caption in captions])
every, ask = list(range(len(captions))), partial(guided, model)
drawings = {"before": draw(ask, studio.asked, every), "in words": draw(ask, asked_for, every)}
rows = {"w = 1": studio.pictures(mine), f"w = {config.guidance:g}": drawings["before"][shown]}
rows |= {f"w = {config.guidance:g}, in words": drawings["in words"][shown]}
display_figure(plot_drawings(rows | hers, names))

# %% [markdown]
# At w = 1 the clock lacks a hand and the mushroom its red; at w = 3 both are there. One word more brings a thin black
# line, without any training. It does not bring *her* line, which is thicker, nor her flat colours and her yellow. We
# know no word for these: they are what an adapter has to learn.
#
# ## Where the adapter goes
#
# Inside SD3, patches of the picture and words of the prompt run side by side, and meet in attention.

# %%
display_drawing("two_streams")

# %% [markdown]
# We adapt the picture's stream, the default of `inject`: *what* is drawn comes from the words and, we hope, stays.
# (Count later whether it did.)
#
# ## The training loop
#
# Take some of her drawings, sample noise and noise levels, and make a step down your loss: this *is* the run. Her
# captions get the word that worked, so the adapter need not learn again what a word already brings.
#
# Two lines need an explanation. Noise levels come from a normal number put through a sigmoid, so middle levels come up
# most often. There a step teaches most: near pure noise the best guess is an average, and near the picture it is nearly
# the input. And one caption in ten is replaced by the empty sentence, as guidance asks for an answer to that too.

# %%
from serial_lora import LoRAConfig, SerialLoRAConfig, adapter_parameters, inject

shift = pipeline.scheduler.config.shift  # 1 here; SD3's large pictures need more noise: 3
falls = {"cosine": lambda share: (1 + np.cos(np.pi * share)) / 2, "constant": lambda share: 1.0}
remaining = falls[config.schedule]  # of the learning rate, at a share of the run
training_words = studio.read([in_words.format(title) for title in studio.titles])


def noise_levels(count: int) -> Tensor:
    """Noise levels (count,), the middling ones most often."""
    sigmas = torch.sigmoid(torch.randn(count))
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def without_some(words, share: float):
    """Prompts, a share of which is made empty."""
    drop = (torch.rand(len(words)) < share)[:, None]  # (B, 1)
    tokens = torch.where(drop[..., None], studio.empty.tokens, words.tokens)
    return type(words)(tokens, torch.where(drop, studio.empty.pooled, words.pooled))


# %% tags=["idea"]
def tune(network: nn.Module, adapter: SerialLoRAConfig | LoRAConfig, rate: float) -> list[float]:
    """Teach the style to a network through a fresh adapter; the loss at each step."""
    torch.manual_seed(1)  # where the adapter starts
    inject(network, adapter)  # lesson 03: freezes the network, and puts the pairs in
    torch.manual_seed(1)  # again: every adapter gets the same drawings, noise and noise levels
    if config.gradient_checkpointing:  # at the paper's scale, to save memory
        network.enable_gradient_checkpointing()
    pairs = list(adapter_parameters(network))
    optimizer = torch.optim.AdamW(pairs, rate, weight_decay=config.weight_decay)
    latents, losses = studio.style.latents, []
    rounds = [torch.randperm(len(latents)) for _ in range(config.epochs)]
    batches = torch.cat(rounds).split(config.batch_size // config.accumulation)
    for step, some in enumerate(batches, start=1):
        x, prompt = latents[some], without_some(training_words.rows(some), config.text_dropout)
        noise, sigmas = torch.randn_like(x), noise_levels(len(x))
        loss = loss_of(velocity_of(network, prompt), x, noise, sigmas)
        (loss / config.accumulation).backward()
        losses.append(loss.item())
        if step % config.accumulation == 0:  # 1 here; a small card takes a batch in parts
            nn.utils.clip_grad_norm_(pairs, config.clip_norm)
            optimizer.param_groups[0]["lr"] = rate * remaining((step - 1) / len(batches))
            optimizer.step()
            optimizer.zero_grad()
    return losses


# %%
tuned = {}
adapters = {"Serial LoRA": SerialLoRAConfig(config.rank), "LoRA": LoRAConfig(config.rank)}
rates = {"Serial LoRA": 9e-3, "LoRA": 4e-3}  # learning rates, each method's own
if SCALE == "paper":
    rates = dict.fromkeys(rates, config.lr)
print(f"{len(studio.titles)} drawings, {config.epochs} rounds")
for name, adapter in adapters.items():
    tuned[name] = lesson.twin().model  # the same frozen weights, with room for an adapter
    losses = tune(tuned[name], adapter, rates[name])
    count = sum(pair.numel() for pair in adapter_parameters(tuned[name]))
    facts = (
        f"batch {config.batch_size}, {len(losses)} steps, rank {config.rank}, {count:,} parameters"
    )
    falls_by = f"loss {np.mean(losses[:10]):.2f}, at the end {np.mean(losses[-10:]):.2f}"
    print(f"{name}: rate {rates[name]}, {facts}; {falls_by}")

# %% [markdown]
# Each method has its own learning rate. Both tried 0.004 and 0.009 on 41 captions that this lesson does not draw, and
# kept the one with more drawings that pass both tests below: Serial LoRA had 19 and 21, LoRA 22 and 19.
# <!-- from trials: 0.004, 0.009, 41, 19, 21, 22 -->
#
# Now the same prompts in the same words, from the same noise.

# %%
for name, network in tuned.items():
    drawings[name] = draw(partial(guided, network), asked_for, every)
after = {name: drawings[name][shown] for name in ("in words", *tuned)}
display_figure(plot_drawings(after | hers, names))

# %% [markdown]
# Follow a column down. With either adapter the yellow gets purer and the clock's face white. But the mushroom is no
# mushroom any more, the cat loses its coat, the compass breaks, and with Serial LoRA the crying face begins to smile.
#
# ## Who says so?
#
# For all forty we ask networks. **Found**: does CLIP find the drawing's own prompt, among all of them? **Her style**: does
# a classifier take it for hers? And papers report **FID**: how far are the normal distributions of two *sets'* features
# apart? (Smaller is nearer. Ours are CLIP's features, so do not compare with papers.)
#
# Before you trust a measure, try it on something wrong: drawings of hers that nobody asked for, and the model's old
# drawings with a black rim from a filter. Which measure will each of them deceive?

# %%
from scipy.ndimage import binary_dilation

from serial_lora_course.measures.pictures import frechet_distance

rimmed = drawings["before"].copy()  # (N, side, side, 3)
for picture in rimmed:
    thing = (picture < 225).any(-1)  # (side, side): what is not paper
    picture[binary_dilation(thing, iterations=studio.side // 32) & ~thing] = 0
any_of_them = np.random.default_rng(0).permutation(len(lesson.data.train))[: len(captions)]
others = studio.as_drawn([lesson.data.train[int(i)].picture for i in any_of_them])
wrong = {"hers, but others": others, "before, with a rim": rimmed}
display_figure(plot_drawings({name: each[shown] for name, each in wrong.items()}, names))

judge = lesson.judge
style, words = judge.styles.index(lesson.data.name), judge.text_features(captions)


def judged(sets: dict) -> pd.DataFrame:
    """For each set of drawings, one a prompt: how many pass each test, and both; and FID."""
    table = {}
    for name, pictures in sets.items():
        nearest = (judge.clip_features(pictures) @ words.T).argmax(1)  # (N,): the likeliest prompt
        found = nearest == torch.arange(len(captions))
        styled = judge.style_probabilities(pictures).argmax(1) == style  # (N,)
        counts = [int(each.sum()) for each in (found, styled, found & styled)]
        seen = [judge.picture_features(each) for each in (pictures, studio.real)]
        table[name] = [*counts, round(frechet_distance(*seen))]
    columns = ["found", "her style", "both", "FID"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns)


print(f"of {len(captions)} drawings each")
judged(drawings | wrong | {"Ines": studio.real})

# %% [markdown]
# Begin with what is wrong. *Hers, but others* passes "her style" 29 times of 40, and its FID, 40, beats all models:
# neither looks at the prompt, and nothing is found. The rim, which also runs inside clock and compass, passes once:
# black along the edges is not her line. And FID finds what words draw (100) farther from hers than drawings without
# any outline (80), which nobody who looks would say. So we count **both**. (Ines herself has 24 there. The judge is no
# expert either.)
#
# Now the adapters. They bring style: words have 23, Serial LoRA 28, LoRA 32. They cost names: 32 were found in words,
# now 25 and 28. By both, Serial LoRA is behind the one word that needs no training, 17 and 21, and LoRA hardly ahead,
# 23.
#
# ## Where names get lost
#
# The adapter saw three hundred captions. The frozen model knows many more words, and nothing of it was overwritten. So
# why are names gone? Call its answers e (empty) and p (prompt). Tuning changes them by Δe and Δp, and guidance makes of
# that
#
# $$e + \Delta e + w\,(p + \Delta p - e - \Delta e)$$
#
# Multiply out, and sort it into three parts: the frozen model with its own guidance; Δp, once, which was learned for
# this prompt; and a rest. What does the rest mean, and how often does w = 3 count it?

# %% [markdown]
# ### Exercise 6.3 · Two models in one sampler
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●● | 8 |
#
# Write the velocity without the rest, and with a *scale* for Δp: 0 is the frozen model, 1 is what the adapter learned,
# and you may go beyond. You get three answers at the same point.


# %% tags=["exercise"]
def mixed_velocity(
    empty: Tensor, prompted: Tensor, tuned: Tensor, guidance: float, scale: float
) -> Tensor:
    """The frozen model's guided velocity, and what an adapter changes, enlarged by a scale of its own.

    Args:
        empty, prompted: the frozen model's answers without and with the prompt, (B, c, h, w).
        tuned: the tuned model's answer with the prompt.
        guidance: w, for the frozen model.
        scale: for what the adapter learned.
    """
    # BEGIN SOLUTION
    guided = empty + guidance * (prompted - empty)
    return guided + scale * (tuned - prompted)
    # END SOLUTION


check("6.3", mixed_velocity)

# %% [markdown]
# <details><summary>Hint 1: the three parts</summary>
#
# $e + w\,(p - e)$, then $\Delta p$, then the rest, $(w - 1)(\Delta p - \Delta e)$.
#
# </details>
# <details><summary>Hint 2: what the adapter learned</summary>
#
# Δp is `tuned - prompted`. With scale 0 nothing of `tuned` may remain; with scale 1 and guidance 1 nothing else.
#
# </details>
#
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# The rest is $(w - 1)(\Delta p - \Delta e)$: how tuning changed *what a word adds*, counted twice at w = 3. (Style that both
# answers share cancels in it.) If it is the rest that loses the names, your drawings get them back.
#
# Move the slider from the words (0) past what was learned (1). Beside each drawing is hers. At which scale would you
# draw all forty, and how many will then be found? Write both down.

# %%
from serial_lora_course.lessons.l06_sd3.panel import fade_panel

mix = yours("6.3")


def two_models(network: nn.Module, words, scale: float) -> Callable:
    """Your mixture for these words: names from the frozen model, style from a tuned network."""
    empty, prompted = velocity_of(model, studio.empty), velocity_of(model, words)
    learned = velocity_of(network, words)
    three = empty, prompted, learned
    return lambda at, level: mix(*(each(at, level) for each in three), config.guidance, scale)


scales = (0, 0.5, 1, 1.5, 2) if SCALE == "tiny" else (0, 1, 2)
fade = [after["in words"]]
for scale in scales[1:]:
    ask = partial(two_models, tuned["Serial LoRA"], scale=scale)
    fade.append(draw(ask, asked_for.rows(shown), shown))
print("drawn at the scales", *scales)
fade_panel(fade, scales, names, studio.as_drawn(hers["Ines"]))

# %% [markdown]
# At 1 the faces are yellower, and nothing has broken. At 1.5 her yellow has come; the mushroom still is one, and the
# cat's tail gets a gap. At 2 the mushroom melts.
#
# We chose by 80 other captions. In words 33 pass both tests, with Serial LoRA alone 32, and with two models at the
# scales 1, 1.5 and 2 there are 38, 43 and 40. At scale 1 only the rest is gone, and with Serial LoRA 60 are found, 45
# with it. Less guidance is no way out: at w = 2 only 40 are found. LoRA had 33 alone, and 39, 36 and 40.
# <!-- from trials: 80, 33, 32, 1, 1.5, 2, 38, 43, 40, 60, 45, 39, 36 -->
#
# ## All forty

# %%
guess = 25  # yours: how many of Serial LoRA's drawings will be found now?
chosen = {"Serial LoRA": 1.5, "LoRA": 2.0}  # your scales
if SCALE == "paper":
    chosen = dict.fromkeys(chosen, 1.0)
for name, network in tuned.items():
    ask = partial(two_models, network, scale=chosen[name])
    drawings[f"{name}, two models"] = draw(ask, asked_for, every)
last = {name: drawn for name, drawn in drawings.items() if name != "before"}
table = judged(last | {"Ines": studio.real})
print(f"found: {table['found']['Serial LoRA, two models']} of {len(captions)}, your guess {guess}")
table

# %% [markdown]
# With two models 23 of Serial LoRA's forty drawings pass, and 27 of LoRA's; in words it was 21. Ines's own have 24, so
# more than that need not mean better. Names come back, 29 and 30 after 25 and 28, and style stays.
#
# Would other noise say the same? We drew all forty three more times with the same models, and counted both:
#
# | | this run | again | again | again | of 160 |
# |---|---|---|---|---|---|
# | in words | 21 | 15 | 19 | 21 | 76 |
# | Serial LoRA | 17 | 25 | 23 | 24 | 89 |
# | LoRA | 23 | 22 | 22 | 21 | 88 |
# | Serial LoRA, two models | 23 | 25 | 23 | 22 | 93 |
# | LoRA, two models | 27 | 28 | 29 | 24 | 108 |
#
# <!-- from seeds 1000, 2000, 3000 on: 15, 19, 21, 25, 23, 24, 22, 28, 29, 132, 114, 125, 160, 76, 89, 88, 93, 108, 20, 4 -->
# Two models pass more often than words in every column. Serial LoRA alone was unlucky in our run: after 17 come 25, 23
# and 24, and over all four it is only 4 behind its two models. What these give it are names: 125 of 160 are found, 114
# alone, 132 in words. LoRA, with four times the parameters, gains 20 in what passes. One noise is one throw: lesson 08
# asks how many you need.
#
# And a judge is not Ines. So look at what nobody chose: every fourth of the prompts that we have not looked at yet.

# %%
nobody_chose = [i for i in every if i not in shown][1::4]
four = ("in words", "Serial LoRA", "Serial LoRA, two models", "LoRA, two models")
rows = {name: drawings[name][nobody_chose] for name in four}
rows["Ines"] = [studio.real[i] for i in nobody_chose]
display_figure(plot_drawings(rows, [captions[i] for i in nobody_chose]))

# %% [markdown]
# Go from the second row to the third. Potato, glass and tennis ball have the shapes back that they had in words, and
# the face keeps the purer yellow. But face, otter and pushpin were no good in words, and no style mends them: two
# models draw nothing that the first of them does not know.
#
# So Ines asks in words, trains in these words, draws with both models, and looks at each drawing before she signs.
# With a model as small as this one she will still draw many of the thousand herself.
#
# ## Quiz
#
# **1. The velocity along the path is the same at every noise level. Why does the model still need to know the level?**
#
# <details><summary>Answer</summary>
#
# It does not see x and n, only their mix. The same numbers may be a pale picture with little noise, or a strong one with
# much. What has to be removed depends on which it is.
#
# </details>
#
# **2. Somebody tunes with captions only and never shows the empty prompt. At w = 1 the drawings are right, at w =
# 7 they are worse than before. What happened?**
#
# <details><summary>Answer</summary>
#
# Tuning changed the answer to the empty prompt too, without control. The difference of the two answers is no longer due
# to the prompt alone, and w = 7 enlarges all of it.
#
# </details>
#
# **3. A classifier takes 80% of a model's drawings for the style. What do you ask before you are glad?**
#
# <details><summary>Answer</summary>
#
# What it says of wrong drawings, and how many of the 80% show what was asked for: one number does not know both.
#
# </details>
#
# ## What to remember
#
# - Training asks for the velocity n - x at random points of the line; drawing walks back by the answers.
# - Far from the picture the best answer is an average. That is why drawing takes steps.
# - Guidance enlarges what tuning did to a word. So take the names from the model that knows them, and the style from
#   the one that learned it.
# - Count names beside the style, try each measure on something wrong, draw with more than one noise, and look at what
#   nobody chose.
#
# Next: [LoRA+, and whose rate it is](07_lora_plus.ipynb).
#
# <small>Rectified flow: Esser et al. (2024). Guidance: Ho and Salimans (2022). FID: Heusel et al. (2017).
# <!-- from references: 2024, 2022, 2017 --> Pretrained on
# Twemoji (copyright Twitter, Inc. and contributors, CC BY 4.0), Fluent Emoji (Microsoft, MIT) and Noto Emoji (Google,
# OFL 1.1); Ines's drawings are OpenMoji's (openmoji.org, CC BY-SA 4.0). <!-- from licences: 4.0, 1.1 --></small>
