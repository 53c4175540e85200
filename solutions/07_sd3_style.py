# %% [markdown]
# # 07 · Stable Diffusion 3: tuning a style
#
# **What you will be able to do**
#
# - say what SD3's parts do, and take a picture into its latents and back without losing the shift;
# - write rectified flow in a few lines: the path, its velocity, the loss, and a sampler;
# - choose the stream of tokens that is adapted, and count what each choice costs;
# - encode every picture once without dealing it another one's caption;
# - guide a model, and say what training must do so that guidance goes on working;
# - tune a style with Serial LoRA and with LoRA, and read FID, KID and CLIP-Score for what they say.

# %% tags=["setup"]
# Where the course is missing, its folder around this notebook is installed; nothing is downgraded.
import os
import subprocess
import sys
from importlib import metadata, util

if util.find_spec("serial_lora_course") is None:
    project = "../pyproject.toml"
    if not os.path.isfile(project) or b'name = "serial-lora"' not in open(project, "rb").read():
        raise FileNotFoundError("Get the course's whole folder, and open this in its notebooks/.")
    frozen = ("torch", "torchvision", "torchaudio", "numpy")
    with open("already_installed.txt", "w") as constraints:
        for name, version in {(d.metadata["Name"], d.version) for d in metadata.distributions()}:
            keep = f"=={version}" if name in frozen else f">={version.split('+')[0]}"
            print(f"{name}{keep}", file=constraints)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "already_installed.txt"]
    subprocess.run([*pip, "..[course]"], check=True)

# %%
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import Tensor, nn

from serial_lora.flow import TRAIN_TIMESTEPS, sample_sigmas
from serial_lora_course.checks import check, lesson_card
from serial_lora_course.claims.paper import paper_facts
from serial_lora_course.claims.sentences import read_sd3, read_styles
from serial_lora_course.data.known_pictures import known_pictures
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import StyleExample
from serial_lora_course.figures.drawings import plot_drawings
from serial_lora_course.figures.style import display_figure
from serial_lora_course.frontend import is_static
from serial_lora_course.labs import sd3 as lab
from serial_lora_course.labs.frames import as_text, frame
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.labs.methods import METHODS, get_method
from serial_lora_course.labs.records import Record, shipped_records
from serial_lora_course.labs.sd3_drawings import starting_noise
from serial_lora_course.labs.sd3_inputs import EncodedPicture, TrainingExample, encode_style
from serial_lora_course.models.picture_metrics import frechet_distance, kernel_distance
from serial_lora_course.models.sd3 import Sd3Backbone

torch.manual_seed(0)
lesson_card("07")

# %% [markdown]
# One line decides what the lesson works with. `"tiny"` is a small SD3 and pixel art: nothing to fetch, and
# a laptop will do. `"paper"` is Stable Diffusion 3 medium and Art Nouveau: the cell says what to fetch
# first, which licence that needs, and fits the settings to your GPU. All below follows this line.

# %%
import os

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run
lesson = open_lesson("sd3", SCALE, LENGTH)
print(lesson)

# %% [markdown]
# The next four cells give short names to what was read, and prepare: the test prompts, a judge that
# measures drawings, the records of many runs, and some pictures of the kind that the model was pretrained
# on, encoded. What takes longer is only named here: `halves_apart`, `encoded_style`, `untuned` and `tuned`
# do their work the first time they are asked, and remember what came out. By far the longest is
# `tuned("lora")`, which tunes an SD3 with LoRA, and the same for Serial LoRA. The model itself stays as it
# is: each adapter goes into a *twin* of it, which shares the frozen weights and so takes no memory of its
# own.
#
# So after these cells you can start at any section. One that needs a tuned SD3 waits for it, once.

# %%
device, backbone, model = lesson.device, lesson.backbone, lesson.model
pipeline, judge = backbone.pipeline, lesson.judge  # the judge measures drawings
data, config = lesson.data, lesson.config  # the style to learn, and the settings of a run
side = config.resolution  # of a picture, in pixels

trial = lab.prepare_trial(backbone, judge, data, count=lesson.tests)  # test prompts, read
count = len(trial.captions)
picked = list(range(count // 8 // 2, count, max(1, count // 8)))[:8]  # eight, for looking
words, asked = [trial.captions[index] for index in picked], trial.prompts.rows(picked)
seeds = picked  # of the noise that their drawings start from

columns = {"fid": "FID", "kid": "KID", "clip_score": "CLIP-Score", "style_share": "in the style"}
formats = {"FID": "{:.1f}", "KID": "{:.3f}", "CLIP-Score": "{:.3f}", "in the style": "{:.0%}"}
shipped = shipped_records("sd3")
results = frame(shipped)  # its column "amount" holds the percentage

# %%
known = known_pictures(SCALE)  # such as were seen in pretraining
encoded = list(encode_style(backbone, known.examples, side).values())  # latent and prompt of each
levels = sample_sigmas(len(encoded), generator=torch.Generator().manual_seed(0))
objective = lab.StyleObjective(model)  # the loss of a batch


def as_batch(encoded: Sequence[EncodedPicture], sigmas: Tensor, seed: int = 0) -> TrainingExample:
    """Encoded pictures with noise, so much of it each, where the transformer is."""
    latents, tokens, pooled = (torch.stack(part) for part in zip(*encoded, strict=True))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    return TrainingExample(*(part.to(device) for part in (latents, tokens, pooled, noise, sigmas)))


def draw(sd3: Sd3Backbone, some: int = 8, guidance: float = config.guidance) -> np.ndarray:
    """What a model draws for the first of the eight prompts: uint8, (some, side, side, 3)."""
    how = seeds[:some], config.drawing_steps, guidance, side, trial.empty
    return lab.draw(sd3, asked.rows(slice(some)), *how)


# %%
@cache
def halves_apart() -> pd.DataFrame:
    """FID and KID of N real pictures of the style beside N others, for some N; mean of draws."""
    most = min(200, len(data.train), len(data.test))
    real, reference = (
        judge.picture_features([part[i].picture for i in range(most)])
        for part in (data.train, data.test)
    )  # (N, d) each
    rng, rows = torch.Generator().manual_seed(0), {}
    for count in (most // 8, most // 4, most // 2, most):
        pairs = [
            [half[torch.randperm(most, generator=rng)[:count]] for half in (real, reference)]
            for _ in range(1 if count == most else 8)
        ]  # of all there is only one draw
        fids = torch.tensor([frechet_distance(one, other) for one, other in pairs])
        kids = torch.tensor([kernel_distance(one, other)[0] for one, other in pairs])
        spread = kids.std() if len(pairs) > 1 else torch.tensor(torch.nan)
        measures = {"FID": fids.mean(), "KID": kids.mean(), "± over draws": spread}
        rows[count] = {name: value.item() for name, value in measures.items()}
    return pd.DataFrame(rows).T.rename_axis("pictures on each side")


# %%
class Tuned(NamedTuple):
    """An SD3 with its adapter, the record of the run, and drawings for the eight prompts."""

    backbone: Sd3Backbone
    record: Record
    drawings: np.ndarray  # (8, side, side, 3)


@cache
def encoded_style() -> tuple[dict[str, EncodedPicture], float]:
    """The training pictures of a run with their captions, encoded; the seconds it took."""
    started = time.perf_counter()
    chosen = training_subset(data, lesson.amount, 1)
    style = encode_style(backbone, [data.train[index] for index in chosen], side)
    return style, time.perf_counter() - started


@cache
def untuned() -> tuple[np.ndarray, dict[str, float]]:
    """What SD3, not adapted, draws for the test prompts, (N, side, side, 3), and its scores."""
    drawings = lesson.lab(trial=trial).draw()
    return drawings, lab.score_pictures(drawings, trial, judge, data.name)


@cache
def tuned(name: str) -> Tuned:
    """A twin of the SD3, tuned by one method on a part of the training pictures."""
    own = lesson.twin()
    base = {f"base_{measure}": value for measure, value in untuned()[1].items()}
    task = lesson.lab(own, base=base, trial=trial, encoded=encoded_style()[0])
    settings = {"progress": not is_static(), "keep_adapter": True}
    record = run_one(task, get_method(name), lesson.amount, 1, **settings)
    return Tuned(own, record, draw(own))


# %% [markdown]
# ## Four parts, and only one of them draws
#
# Stable Diffusion 3 makes a picture of a sentence and of noise. Four parts share the work.
#
# - The **text encoders** read the prompt. SD3 medium has three, two of them text towers of CLIPs as in
#   lesson 04. They give a vector for each token, and one *pooled* vector for the whole sentence.
# - The **transformer** draws. It gets a picture full of noise, the prompt, and how much noise there is,
#   and answers in which direction to go. It is asked ten to a few dozen times for each picture, and it is
#   the part that gets adapters.
# - The **autoencoder** turns pixels into a smaller grid of numbers, the *latents*, and back again. The
#   transformer never sees a pixel.
# - The **scheduler** has no weights. It says how large the steps are.
#
# The tiny SD3 is made of diffusers' own classes at small sizes, pretrained by this project on Twemoji's
# drawings and their names. Its prompts are read by the tiny CLIP of lesson 04, once with its whole text
# tower and once with the same tower cut short. The paper's is SD3 medium. The cell says which of them you
# have, and reads all numbers from the model and from the card that its pretraining wrote.

# %%
for name, part in pipeline.components.items():
    if isinstance(part, nn.Module):
        print(f"{name:15} {sum(p.numel() for p in part.parameters()):13,} parameters")
display(Markdown(read_sd3(backbone, lesson.card_of_model)))

# %% [markdown]
# Look first. Eight prompts, picked blindly (at equal distances among the test prompts), what SD3
# draws for each, and, at tiny scale, how Twemoji drew the same thing. Expect drawings that a person recognises for many
# of them, not for all. `seeds` says which noise each drawing starts from; the same seed gives the same
# picture.

# %%
drawn = draw(backbone)  # uint8, (8, side, side, 3)
display_figure(plot_drawings({"SD3 draws": drawn} | known.beside(words), words))
print("Pictures of the kind it knows:", known.attribution)

# %% [markdown]
# **What this shows.** The tiny model draws from a name alone, in one hand: Twemoji's. Its transformer has
# never seen another. That is the starting point of this lesson. We want the same things drawn *in another style*,
# from a few hundred pictures of that style and with a small file.
#
# ## Into latents and back
#
# The autoencoder's numbers z come with a mean and a spread of their own. The transformer is made for
# numbers around 0 with a spread of 1, so SD3 moves and stretches them, by two numbers that stand in the
# autoencoder's config:
#
# $$x = (z - \text{shift}) \cdot \text{scale}, \qquad z = x / \text{scale} + \text{shift}$$
#
# Earlier versions of Stable Diffusion had a scale and no shift, so code that was carried over forgets it
# easily. What happens then? The cell tries four ways on pictures that the model knows: the right one, two that
# forget a step in *both* directions, and one that forgets it on the way back. Besides the latents' mean
# and spread it measures the round trip (the mean error in grey levels of 255), and how wrong the
# transformer is on such latents (its loss, to be explained below). Before you run it: which of the
# mistakes will the round trip find?

# %%
from serial_lora_course.labs.sd3_inputs import on_device, to_square

vae = pipeline.vae
scale, shift = vae.config.scaling_factor, vae.config.shift_factor
pixels = torch.stack([to_square(each.picture, side) for each in known.examples])  # (N, 3, s, s)


@torch.no_grad()
def each_through(layer: Callable, tensors: Tensor) -> Tensor:
    """What a part of the autoencoder makes of some tensors, one by one: (N, ...)."""
    with on_device(backbone, vae) as where:
        return torch.cat([layer(each[None].to(where)).cpu() for each in tensors])


z = each_through(lambda x: vae.encode(x).latent_dist.mode(), pixels)  # (N, channels, h, w)

# %%
ways = {
    "as SD3 does it": ((z - shift) * scale, z),
    "no shift, both ways": (z * scale, z),
    "no scale, both ways": (z - shift, z),
    "no shift on the way back": ((z - shift) * scale, z - shift),
}
rows = {}
for what, (latents, decoded) in ways.items():  # what the transformer gets, what the decoder gets
    back = each_through(lambda x: vae.decode(x).sample, decoded).clamp(-1, 1)
    batch = as_batch(encoded, levels)._replace(latent=latents.to(device))
    with torch.no_grad(), lesson.autocast():
        rows[what] = {
            "mean": latents.mean().item(),
            "spread": latents.std().item(),
            "round trip": 127.5 * (back - pixels).abs().mean().item(),
            "loss": objective(batch).item(),
        }
trips = pd.DataFrame(rows).T
digits = {"mean": "{:+.2f}", "spread": "{:.2f}", "round trip": "{:.1f}", "loss": "{:.3f}"}
display(as_text(trips, digits))
rise = trips["loss"] / trips.loc["as SD3 does it", "loss"] - 1
official_shift, official_scale = 0.0609, 1.5305  # in the config of SD3 medium's autoencoder
display(
    Markdown(
        f"Without the shift the loss is {rise['no shift, both ways']:+.0%}, without the scale "
        f"{rise['no scale, both ways']:+.0%}. The shift moves latents by {abs(shift * scale):.2f} of their "
        f"spread here, and by {official_shift * official_scale:.2f} in SD3 medium."
    )
)

# %% [markdown]
# **What this shows.** A mistake that is made *twice* cancels in the round trip: the picture comes back as
# good as ever. But the transformer lives in between, and gets latents that it was not made for. Training
# an adapter on them would spend itself on undoing the shift. So test both: that pictures come back, and
# that latents have mean 0 and spread 1. The round trip itself is not free either: its error is the best
# that any drawing of this model can be.
#
# ## A straight line from picture to noise
#
# How does one learn to draw? By learning to undo. Take a picture's latent x and pure noise n of the same
# shape, and join them by a straight line. At the *noise level* σ the point is
#
# $$x_\sigma = (1 - \sigma)\, x + \sigma\, n, \qquad 0 \le \sigma \le 1$$
#
# so σ = 0 is the picture and σ = 1 is noise. Now move along the line. How fast does the point change? The
# derivative with respect to σ does not depend on σ at all:
#
# $$v = \frac{d x_\sigma}{d\sigma} = n - x$$
#
# This *velocity* is what the transformer is asked for, when it is shown the point, the prompt and σ. That
# is all of *rectified flow*. Earlier diffusion models used curved paths and asked for the noise.

# %% [markdown]
# ### Exercise 7.1 · The path and its velocity
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Every picture of a batch has a noise level of its own. Mind the shapes: `sigmas` is (B,), and a batch of
# four latents that are four numbers wide will take it without complaint *in the wrong direction*. The
# check compares with one picture at a time, and the velocity with finite differences.


# %% tags=["exercise"]
def flow_path(latents: Tensor, noise: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Points on the straight paths from pictures to noise, and the velocity there.

    Args:
        latents, noise: (B, c, h, w).
        sigmas: (B,), the noise level of each picture, 0 to 1.

    Returns:
        The points and the velocities, (B, c, h, w) each.
    """
    # BEGIN SOLUTION
    level = sigmas.view(-1, 1, 1, 1)  # (B, 1, 1, 1): one number a picture
    points = (1 - level) * latents + level * noise  # (B, c, h, w)
    return points, noise - latents
    # END SOLUTION


check("7.1", flow_path)

# %% [markdown]
# <details><summary>Hint 1: one number a picture</summary>
#
# PyTorch lines shapes up from the right: (B,) meets the *width* of (B, c, h, w).
# `sigmas.view(-1, 1, 1, 1)` has a number for each picture and stretches over the rest.
#
# </details>
# <details><summary>Hint 2: the way and its speed</summary>
#
# The first formula above gives the points. For the velocity there is no σ: it is where the path ends
# minus where it begins, and it begins at the picture. Return both, the points first.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_sd3_style.ipynb)

# %% [markdown]
# Once somebody tells us v, drawing is walking: start at noise, σ = 1, and take steps towards σ = 0,
#
# $$x_{\sigma'} = x_\sigma + (\sigma' - \sigma)\, v$$
#
# With the *true* velocity of one picture a single step would do, since the line is straight. But at σ = 1
# the model sees noise only. It cannot know which picture the noise belongs to, and its best answer points
# to the middle of all pictures that fit the prompt. After a small step it sees a little more, and asks
# again. The next cell is a whole sampler. Its levels are the scheduler's. Expect the pictures of the
# stock pipeline, to the grey level or nearly so.

# %%
from serial_lora_course.figures.sd3_runs import noise_row, sampler_row
from serial_lora_course.labs.sd3_inputs import Prompts, decode_latents


@torch.no_grad()
def walk(prompts: Prompts, noise: Tensor, sigmas: Tensor) -> list[Tensor]:
    """The latents at every level, from noise (B, c, h, w) at sigmas[0] on; without guidance."""
    way, thousandths = [noise.to(device)], TRAIN_TIMESTEPS * sigmas.to(device)
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        with lesson.autocast():
            (v,) = model(
                hidden_states=way[-1],
                timestep=thousandths[step].expand(len(noise)),
                encoder_hidden_states=prompts.tokens.to(device),
                pooled_projections=prompts.pooled.to(device),
                return_dict=False,
            )
        way.append(way[-1] + (following - sigma).item() * v)
    return way


pipeline.scheduler.set_timesteps(config.drawing_steps)
way = walk(
    asked,
    starting_noise(backbone, seeds, side),
    pipeline.scheduler.sigmas,
)  # one level more than steps, from 1 to 0
by_hand = decode_latents(backbone, way[-1].cpu())  # uint8, (8, side, side, 3)
how = seeds, config.drawing_steps, 1.0, side, trial.empty, lesson.precision
stock = lab.draw(backbone, asked, *how)
print(
    "largest difference from the stock pipeline's drawings, of 255 grey levels:",
    abs(by_hand.astype(int) - stock).max(),
)

# %% [markdown]
# Both ways in pictures. Above, a picture that the model knows on its straight line to noise; below, the
# sampler's way from noise to a drawing of its own, at tiny scale for the same words. What is on the way is decoded as
# it is.

# %%
from serial_lora_course.figures.drawings import plot_flow_path

word, seed = words[2], seeds[2]
picture = known.pictures.get(word, known.examples[0].picture)
after = [config.drawing_steps * part // 5 for part in range(6)]  # steps
rows = [
    noise_row(backbone, picture, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], seed, config),
    sampler_row(backbone, word, after, seed, config),
]
display_figure(plot_flow_path(rows))

# %% [markdown]
# **What this shows.** The upper row is known for every training picture: that is why training is cheap.
# Pick a level, mix, ask for the velocity, compare; no chain of steps is needed. The lower row is what the
# model makes of it: first where things are, then what they are, last the edges.
#
# ## Which noise levels?
#
# At σ near 0 the picture is as good as finished, and at σ near 1 nothing can be seen. Most is to be
# learnt in between. SD3 therefore draws its training levels from a *logit-normal* distribution: a normal
# number, put through the sigmoid. And a **shift** moves levels towards 1 for large pictures: the more
# pixels show the same thing, the more noise it takes to hide it. SD3 medium has shift 3, the tiny one has
# none. Expect two hills.

# %%
from diffusers import FlowMatchEulerDiscreteScheduler

from serial_lora_course.figures.drawings import plot_sigmas

official = FlowMatchEulerDiscreteScheduler(shift=3.0)  # as SD3 medium's
shifts = {SCALE: pipeline.scheduler.config.shift, "SD3 medium": official.config.shift}
rng = torch.Generator().manual_seed(0)
display_figure(
    plot_sigmas(
        {
            f"{name}, shift {amount:g}": sample_sigmas(20_000, shift=amount, generator=rng)
            for name, amount in shifts.items()
        }
    )
)
print(
    f"in the middle of the official scheduler's list stands {official.sigmas[500]:.2f}, not 0.5;",
    f"rounded to bfloat16, its {len(official.sigmas)} levels are only",
    f"{len(official.sigmas.bfloat16().unique())} different numbers",
)

# %% [markdown]
# **What this shows.** The two printed facts are two traps. A scheduler's sigmas are shifted *already*, so
# whoever reads them there and shifts again trains at levels that drawing hardly visits. And levels lie
# so close to one another that bfloat16 rounds several to the same number, so they are kept in float32.
#
# ## The loss
#
# The mean squared error between the model's velocity and the true one. Written out here once, with the
# functions of the package, which do what you wrote; `StyleObjective` is the same as a module for the
# training loop.

# %%
from serial_lora.flow import add_noise, flow_loss, velocity

batch = as_batch(encoded, levels)
with torch.no_grad(), lesson.autocast():
    (predicted,) = model(
        hidden_states=add_noise(batch.latent, batch.noise, batch.sigma),
        timestep=TRAIN_TIMESTEPS * batch.sigma,
        encoder_hidden_states=batch.tokens,
        pooled_projections=batch.pooled,
        return_dict=False,
    )
    target = velocity(batch.latent, batch.noise)  # (B, c, h, w)
    by_hand = (predicted - target).square().mean()
    print(
        f"by hand {by_hand:.6f}, flow_loss {flow_loss(predicted, target, batch.sigma):.6f},",
        f"StyleObjective {objective(batch):.6f}",
    )

# %% [markdown]
# The published training script for SD3 says the same and does something else. By default
# (`precondition_outputs=1`) it turns the answer into a *picture*, $\hat x = x_\sigma - \sigma \hat v$,
# and compares pictures. Put in what you know, and that is the same error times σ²:
#
# $$\hat x - x = (x_\sigma - \sigma \hat v) - (x_\sigma - \sigma v) = -\sigma\,(\hat v - v)$$
#
# The cell checks that with numbers, and then looks where the loss comes from at each noise level.

# %%
noisy, level = add_noise(batch.latent, batch.noise, batch.sigma), batch.sigma.view(-1, 1, 1, 1)
pictures_compared = ((noisy - level * predicted) - batch.latent).square().mean()
weighted = flow_loss(predicted, target, batch.sigma, "sigma_squared")
print(
    f"comparing pictures {pictures_compared:.6f}, comparing velocities times sigma² {weighted:.6f}"
)

bounds = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
many = sample_sigmas(100_000, generator=torch.Generator().manual_seed(1))
rows = {}
for low, high in zip(bounds[:-1], bounds[1:], strict=True):
    middle = torch.full((len(encoded),), (low + high) / 2)
    with torch.no_grad(), lesson.autocast():
        error = objective(as_batch(encoded, middle)).item()
    often = ((many >= low) & (many < high)).float().mean().item()
    rows[f"{low:.1f} to {high:.1f}"] = {
        "how often": often,
        "error": error,
        "plain": often * error,
        "σ² weighted": often * error * ((low + high) / 2) ** 2,
    }
by_level = pd.DataFrame(rows).T.rename_axis("noise level")
shares = ["plain", "σ² weighted"]
by_level[shares] /= by_level[shares].sum()
as_text(by_level, {"how often": "{:.0%}", "error": "{:.2f}"} | dict.fromkeys(shares, "{:.0%}"))

# %% [markdown]
# **What this shows.** The two right columns are shares of the loss. With σ², levels near the picture
# hardly count, and they are where edges and textures are drawn: for a *style* they matter. Neither choice
# is wrong, but whoever compares two results should know which loss each was trained with. The paper does
# not say; the lab's default is plain, and `--weighting sigma_squared` does as the script does.

# %% [markdown]
# ## Two streams and one attention
#
# Inside, the transformer is a stack of blocks over two kinds of tokens. The latents are cut into patches,
# one *image token* each; the prompt's vectors are the *text tokens*. SD3 lets them run side by side as
# two **streams**. Each has its own norms, its own q, k, v and output projections, and its own
# feed-forward layers. They meet at one place: **attention**. There the q, k and v of both streams are put
# in one row, every token attends to all tokens of both kinds, and the answers part again. Noise level and
# pooled prompt reach every block through its norms. The last block needs an image and no text: its text
# tokens are read, and then nobody wants them any more, so they have no output projection.
#
# Where does an adapter find the tokens? Not at the norm as in lessons 04 and 06: these norms return
# several tensors. Attention is called *by keyword*, with the normed tokens of both streams. Two hooks
# listen at one attention layer. The first is the usual kind. Expect it to hear nothing.

# %%
from serial_lora.attention import find_attention_sites

heard = {}
attention = model.transformer_blocks[0].attn
hooks = [
    attention.register_forward_pre_hook(
        lambda layer, positional: heard.update({"arguments by position": len(positional)})
    ),
    attention.register_forward_pre_hook(
        lambda layer, positional, named: heard.update(
            {k: tuple(v.shape) for k, v in named.items()}
        ),
        with_kwargs=True,
    ),
]
with torch.no_grad(), lesson.autocast():
    objective(as_batch(encoded, levels))
for hook in hooks:
    hook.remove()
print(heard)

# %% [markdown]
# **What this shows.** A hook on arguments by position would adapt nothing, silently. And look at the two
# shapes: a text token is as wide as an image token. An adapter that is put on the wrong stream fits, runs
# and trains. Nothing but your own counting will tell you. So count.

# %% [markdown]
# ### Exercise 7.2 · The layers of a stream
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●○ | 12 |
#
# LoRA stands beside q, k, v and out. Return the dotted names of these layers for one stream, over all
# blocks. In block 0 the image stream's are `transformer_blocks.0.attn.` and then `to_q`, `to_k`, `to_v`,
# `to_out.0`; the text stream's `add_q_proj`, `add_k_proj`, `add_v_proj`, `to_add_out`. The order does not
# matter. The check uses transformers of several depths, and one block of each is not like the others.


# %% tags=["exercise"]
def projections_of(transformer: nn.Module, stream: str) -> list[str]:
    """Names of the linear layers that read or write a stream's tokens in attention.

    Args:
        transformer: an SD3 transformer; its blocks are in `transformer.transformer_blocks`.
        stream: "image", "text" or "both".
    """
    # BEGIN SOLUTION
    image = ["to_q", "to_k", "to_v", "to_out.0"]
    text = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
    wanted = {"image": image, "text": text, "both": image + text}[stream]
    there = {name for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear)}
    names = [
        f"transformer_blocks.{index}.attn.{layer}"
        for index in range(len(transformer.transformer_blocks))
        for layer in wanted
    ]
    return [name for name in names if name in there]
    # END SOLUTION


check("7.2", projections_of)

# %% [markdown]
# <details><summary>Hint 1: blocks and names</summary>
#
# `len(transformer.transformer_blocks)` says how many blocks there are. For each of them and each layer of
# the stream, put a name together with an f-string.
#
# </details>
# <details><summary>Hint 2: what is not there</summary>
#
# The last block has no `to_add_out`. Either leave it out there, or keep only names that
# `dict(transformer.named_modules())` knows.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_sd3_style.ipynb)

# %% [markdown]
# Now what each choice costs, on the tiny model and at the paper's scale (built with shapes only). A
# *place* is where one stream enters attention in one block: one pair of Serial LoRA. A *layer* gets one
# pair of LoRA.

# %% tags=["nbval-check-output"]
from serial_lora import LoRAConfig, SerialLoRAConfig
from serial_lora.config import STREAMS
from serial_lora.counting import enumerate_count
from serial_lora_course.models.architectures import ARCHITECTURES

rows, medium = [], ARCHITECTURES["sd3"].on_meta()
models = {SCALE: (model, config.rank), "paper": (medium, lab.PAPER.rank)}
for scale, (transformer, rank) in models.items():
    for stream in STREAMS:
        sites = find_attention_sites(transformer, stream=stream)
        rows.append(
            {
                "scale": scale,
                "rank": rank,
                "stream": stream,
                "places": len(sites),
                "layers": sum(len(site.projections) for site in sites),
                "Serial LoRA": enumerate_count(transformer, SerialLoRAConfig(rank, stream=stream)),
                "LoRA": enumerate_count(transformer, LoRAConfig(rank, stream=stream)),
            }
        )
costs = pd.DataFrame(rows).set_index(["scale", "rank", "stream"])
costs["LoRA / Serial LoRA"] = costs["LoRA"] / costs["Serial LoRA"]
as_text(costs, dict.fromkeys(["Serial LoRA", "LoRA"], "{:,}") | {"LoRA / Serial LoRA": "{:.2f}"})

# %%
facts = paper_facts()
at_paper = costs.loc["paper"].droplevel("rank")
lora_printed = float(facts["sd3_lora_printed"]) * 1e6
off = {stream: lora_printed / count - 1 for stream, count in at_paper["LoRA"].items()}
nearest = min(off, key=lambda stream: abs(off[stream]))
display(
    Markdown(
        f"The paper prints {facts['sd3_lora_printed']}M for LoRA and {facts['sd3_serial_printed']}M for Serial "
        f"LoRA. Against the exact counts of LoRA that is "
        + ", ".join(f"{value:+.0%} ({stream})" for stream, value in off.items())
        + f". Nearest is the stream “{nearest}”, and even that is {off[nearest]:+.1%} off: lesson 02 looked for "
        "a reading that explains it and found none."
    )
)

# %% [markdown]
# **What this shows.** The paper does not say which stream it adapts. Its numbers come nearest to the image stream,
# and so did the training script of that time: its list of layers had `to_q`, `to_k`, `to_v` and
# `to_out.0`. There is a reason, too. What is asked for comes in with the text tokens, and that shall
# stay; *how* it looks is made of image tokens. So the package adapts the image stream unless it is told
# otherwise. And "a quarter" holds exactly in the image stream only: where the text stream takes part,
# LoRA has one layer less.
#
# ## Once, and under its name
#
# In tuning, text encoders and autoencoder stay frozen. Whatever they say of a picture and its caption,
# they would say again in the next round. So it is computed once and kept: that is most of the time and,
# at the paper's scale, most of the memory. Nothing is easier, and here is how it goes wrong. A loop over
# rounds shuffles the pictures. In the first round it keeps the latents of each step in a list; from the
# second round on it takes them out of the list, step by step. Captions come along with the shuffled
# pictures. (The published script for SD3 has an option that does this.) The cell does it with six
# pictures that are nothing but their numbers.

# %%
names = ["cat", "clock", "pepper", "owl", "rain", "bus"]  # picture i shows names[i]
shuffle = torch.Generator().manual_seed(0)
kept, rows = [], []
for round_number in (1, 2, 3):
    for step, positions in enumerate(torch.randperm(6, generator=shuffle).split(2)):
        if round_number == 1:
            kept.append(positions)  # stands for encode(pictures[positions])
        latents = kept[step]
        for picture, position in zip(latents.tolist(), positions.tolist(), strict=True):
            rows.append(
                {
                    "round": f"round {round_number}",
                    "latent of": names[picture],
                    "caption": names[position],
                }
            )
dealt = pd.DataFrame(rows)
dealt["right"] = dealt["latent of"] == dealt["caption"]
display(
    dealt.groupby("round")["right"]
    .agg(["sum", "count"])
    .rename(columns={"sum": "right captions", "count": "pictures"})
)
dealt[dealt["round"] == "round 2"].drop(columns=["round", "right"]).set_index("latent of").T

# %% [markdown]
# No error, the right shapes, the right number of pictures. Would the loss give it away? The cell measures
# it with every picture's own caption and with another picture's, twice: on pictures of the kind that the
# model was pretrained on, and on pictures of the new style, which (at tiny scale) it has never seen. Where
# do you expect the larger difference?


# %%
def exchanged(encoded: list[EncodedPicture]) -> list[EncodedPicture]:
    """Every picture with the caption of the next one."""
    following = encoded[1:] + encoded[:1]
    return [
        mine._replace(tokens=other.tokens, pooled=other.pooled)
        for mine, other in zip(encoded, following, strict=True)
    ]


new = [data.train[index] for index in range(0, len(data.train), 5)][: len(encoded)]
kinds = {
    "known pictures": encoded,
    "the new style": list(encode_style(backbone, new, side).values()),
}
rows = {}
for what, pictures in kinds.items():
    with torch.no_grad(), lesson.autocast():
        own, other = (
            torch.stack([objective(as_batch(each, levels[: len(each)], seed)) for seed in range(3)])
            for each in (pictures, exchanged(pictures))
        )
    rows[what] = {
        "own captions": own.mean().item(),
        "another's": other.mean().item(),
        "difference": (other.mean() / own.mean() - 1).item(),
        "by the noise alone": (own.std() / own.mean()).item(),
    }
mixed = pd.DataFrame(rows).T
as_text(
    mixed,
    dict.fromkeys(mixed.columns[:2], "{:.3f}")
    | {"difference": "{:+.1%}", "by the noise alone": "± {:.1%}"},
)

# %% [markdown]
# **What this shows.** A model that knows the pictures notices a wrong caption. In tuning it meets
# pictures that it does *not* know: the second row. There most of the loss is the style, and nobody has
# the right number to compare with. The loss will fall with wrong captions as well, since a style can be
# learnt without them. What is unlearnt meanwhile is to listen to the prompt. The cure costs nothing: keep
# what was computed under the *name* of the picture, not under the step or the position at which it
# happened to come.

# %% [markdown]
# ### Exercise 7.3 · Encoded once
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Write a cache. It gets a function that encodes one example, and must call it once for each picture,
# however often and in whatever order batches ask for it. Each example has a `picture_id`, which is unique
# and does not change. Beware of what else could serve as a key: examples are made anew at every access,
# and two pictures may share one caption. The check feeds shuffled orders, parts and repetitions, and
# counts the calls.


# %% tags=["exercise"]
class EncodedOnce:
    """Encodes each picture once, and finds the answer again by the picture's name.

    Args:
        encode: what is computed for an example, a tensor.
    """

    def __init__(self, encode: Callable[[StyleExample], Tensor]):
        # BEGIN SOLUTION
        self.encode = encode
        self.kept: dict[str, Tensor] = {}
        # END SOLUTION

    def batch(self, examples: Sequence[StyleExample]) -> Tensor:
        """What `encode` says of each example, in the order of the examples: (B, ...)."""
        # BEGIN SOLUTION
        for example in examples:
            if example.picture_id not in self.kept:
                self.kept[example.picture_id] = self.encode(example)
        return torch.stack([self.kept[example.picture_id] for example in examples])
        # END SOLUTION


check("7.3", EncodedOnce)

# %% [markdown]
# <details><summary>Hint 1: a dictionary</summary>
#
# Keep a dictionary from `picture_id` to tensor. In `batch`, look whether the id is in it; if not, encode
# and put it there.
#
# </details>
# <details><summary>Hint 2: the answer</summary>
#
# `torch.stack([...])` over the *examples*, not over the dictionary: then the order is the batch's, and a
# picture that is asked for twice comes twice. `stack` makes a new tensor, so what is kept stays
# untouched.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_sd3_style.ipynb)

# %% [markdown]
# The package's `encode_style` encodes many pictures and returns a dictionary from id to latent and
# prompt. `encoded_style()`, from the opening, calls it for the style of this lesson: what is it, and what
# does it save?

# %%
style, seconds = encoded_style()
kept = sum(tensor.nbytes for each in style.values() for tensor in each)
rounds = config.steps(len(style)) * config.batch_size / len(style)
print(
    f"{len(style)} pictures with their captions: {seconds:.1f} s and {kept / 1e6:.0f} MB;",
    f"computed in every step, it would be {rounds:.0f} times the seconds in one run",
)
print(f"{data.name}: {data.description}. {data.attribution}")

shown = [data.train[len(data.train) * place // 16] for place in range(1, 16, 2)]  # eight
captions = [each.caption for each in shown]
to_learn = {"to learn from": [each.picture for each in shown]}
display_figure(plot_drawings(to_learn | known.beside(captions), captions))

# %% [markdown]
# **What this shows.** The captions say what is to be seen and *not in which style*. So a model that draws
# in this style for such a caption has learnt it from the pictures. The things of the test prompts are not
# among the training pictures: tuning must carry the style over to things it was never shown in it.
#
# ## Guidance
#
# Ask a picture model for "a guitar", and it gives something guitar-like. **Classifier-free guidance**
# makes it try harder. At every step the model is asked twice, with the prompt and with an *empty* prompt,
# and the difference is stretched:
#
# $$v = v_{\text{empty}} + w\,(v_{\text{prompt}} - v_{\text{empty}})$$
#
# At w = 0 the prompt plays no part, at w = 1 it is the plain answer, and more than 1 goes *past* it: away
# from what would be drawn without the prompt. The paper draws with w = 7, this lesson with less, since
# the model is small.

# %% [markdown]
# ### Exercise 7.4 · Guidance
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●○○○○ | ●●●●○ | 5 |
#
# Another convention is in use, in which 0 is the plain answer: mind which one a paper means. Here it is
# the formula above.


# %% tags=["exercise"]
def guided_velocity(empty: Tensor, prompted: Tensor, guidance: float) -> Tensor:
    """The velocity that the sampler follows.

    Args:
        empty, prompted: the model's answers without and with the prompt, (B, c, h, w).
        guidance: w; 0 is the empty prompt's answer, 1 is the prompt's.
    """
    # BEGIN SOLUTION
    return empty + guidance * (prompted - empty)
    # END SOLUTION


check("7.4", guided_velocity)

# %% [markdown]
# <details><summary>Hint 1: where to begin</summary>
#
# Begin at the empty prompt's answer and go w times the way to the prompt's.
#
# </details>
# <details><summary>Hint 2: try the ends</summary>
#
# With guidance 0 only `empty` may remain, with guidance 1 only `prompted`. A formula that divides cannot
# go past `prompted`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_sd3_style.ipynb)

# %% [markdown]
# The same prompts and the same noise at four guidances. Expect soft drawings above, clearer ones in the
# middle, and overdone ones below, with hard lines.

# %%
guidances = (1.0, 3.0, 5.0, 9.0)
strip = {f"w = {w:g}": draw(backbone, 6, guidance=w) for w in guidances}
display_figure(plot_drawings(strip, words[:6]))

# %% [markdown]
# **What this shows.** Guidance trades variety and softness for obedience, and there is no best value:
# what looks clearer is further from what the model has learnt. It costs two calls a step instead of one.
# And it has a condition that concerns *training*: the model must be able to answer the empty prompt.
# Whoever tunes with captions only trains the prompted answer and leaves the empty one to chance. Then the
# difference between the two, which guidance stretches, need not be about the prompt any more. So now and
# then, in about one case of ten here, a training picture gets the empty prompt for its caption: **text
# dropout**. One example as the training loop gets it, and how many of all lose their caption:

# %%
style, _ = encoded_style()
task = lesson.lab(trial=trial, encoded=style)
stream = task.stream(training_subset(data, lesson.amount, 1), seed=1)
everything = [stream[position] for position in range(stream.steps * stream.batch_size)]
dropped = sum(bool((example.tokens == trial.empty.tokens[0]).all()) for example in everything)
example = everything[0]
for name, part in zip(example._fields, example, strict=True):
    print(f"{name:7} {tuple(part.shape)}")
print(
    f"{stream.steps} steps of {stream.batch_size}; without their caption: {dropped / len(everything):.1%}"
)

# %% [markdown]
# **What this shows.** Latent, prompt, noise, level: that is all the transformer meets. An example keeps
# its noise and its place in the order through the seed alone, so a run can be repeated and two methods
# see the same batches.
#
# ## How good is a style?
#
# Accuracy has a right answer for each picture, Dice has a true mask. A drawing has neither. So three
# kinds of numbers are in use, and each sees one side.
#
# - **FID** asks: do the drawings, *as a crowd*, look like real pictures of the style? Every picture
#   becomes a vector of features, by a network that was trained for something else. Each of the two crowds
#   is summed up by mean μ and covariance Σ, and FID is the distance of the two:
#   $\;|\mu_1 - \mu_2|^2 + \operatorname{tr}\big(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\big)$.
#   Lower is better.
# - **KID** asks the same without assuming that crowds are round: it compares all pairs of pictures by a
#   kernel. Its expected value does not depend on how many pictures there are. Lower is better, and it may
#   fall a little below 0.
# - **CLIP-Score** asks: does each drawing show *what its prompt says*? The cosine of CLIP's two vectors,
#   made 0 where it is negative, times 2.5. Higher is better. It knows nothing of the style.
#
# FID is usually computed on features of Inception, a classifier of photographs, and so it is at the paper's
# scale. At tiny scale it is the tiny CLIP's image tower, which knows drawings: FID and KID *on tiny-CLIP
# features*, not to be compared with anybody else's. As a fourth number, a **style classifier** says of each
# drawing which of the scale's styles it is in, or whether it is still as the model used to draw.

# %% [markdown]
# ### Exercise 7.5 · CLIP-Score by hand
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 6 |
#
# Picture i belongs to caption i, so N pictures have N scores. The features come as the towers made them,
# of any length. The check includes pairs that point away from each other.


# %% tags=["exercise"]
def clip_scores(image_features: Tensor, text_features: Tensor) -> Tensor:
    """2.5 max(cos, 0) of every picture with its own caption.

    Args:
        image_features, text_features: (N, d), not normalised.

    Returns:
        (N,).
    """
    # BEGIN SOLUTION
    cosines = torch.cosine_similarity(image_features, text_features, dim=-1)  # (N,)
    return 2.5 * cosines.clamp(min=0)
    # END SOLUTION


check("7.5", clip_scores)

# %% [markdown]
# <details><summary>Hint 1: pairs, not a table</summary>
#
# A product `image_features @ text_features.T` compares every picture with every caption. Here only pairs
# count: `torch.cosine_similarity(a, b, dim=-1)` gives one number for each pair of rows.
#
# </details>
# <details><summary>Hint 2: from cosine to score</summary>
#
# `.clamp(min=0)` makes negative numbers 0. Then times 2.5. No softmax: a score is no probability.
#
# </details>
#
# Solution: [the solved lesson](../solutions/07_sd3_style.ipynb)

# %% [markdown]
# A warning from published code. The paper takes its measures from an earlier work. That work's script
# puts *one* picture and *one* caption through CLIP, and takes the softmax over the captions. What is a
# softmax over a single number? The cell makes the eight drawings of the first section once more, and scores
# them with their own prompts and with each other's.

# %%
drawn = draw(backbone)  # uint8, (8, side, side, 3)
captions = {"its own prompt": words, "another's prompt": words[1:] + words[:1]}
rows = {}
for what, prompts in captions.items():
    scores = judge.clip_scores(drawn, prompts)  # (8,), 2.5 max(cos, 0)
    of_one = (100 * scores / 2.5)[:, None].softmax(-1)  # (8, 1): softmax over a row of one score
    rows[what] = {"CLIP-Score": scores.mean().item(), "softmax over one": of_one.mean().item()}
pd.DataFrame(rows).T.map("{:.2f}".format)

# %% [markdown]
# **What this shows.** Softmax over one number is 1, whatever the picture. A measure that cannot be bad
# cannot be good. Before you trust a measure, show it something wrong.
#
# That is what the next cell does with all of them. Four "models" that need no training answer the test
# prompts: SD3 as it is; a cheat that hands out *training pictures*, whatever was asked for; one that
# draws the *same* picture every time; and the held-out pictures themselves. Before you run it: which
# measure will each cheat deceive?

# %%
held_out = [data.test[index].picture for index in trial.seeds]
cheat = [data.train[index].picture for index in range(len(held_out))]
others = {
    "training pictures": cheat,
    "one picture": [held_out[0]] * len(held_out),
    "the held-out pictures": held_out,
}
scores = {"SD3, not adapted": untuned()[1]}  # drawn and scored when first asked
scores |= {
    name: lab.score_pictures(pictures, trial, judge, data.name) for name, pictures in others.items()
}
as_text(pd.DataFrame(scores).T.rename(columns=columns)[list(formats)], formats)

# %% [markdown]
# **What this shows.** FID and KID do not know what was asked for: handing out training pictures is nearly
# as good as it gets. CLIP-Score does not know which style was meant: look at what it gives the real
# pictures beside SD3's drawings. It is only as good as the CLIP that computes it, and the tiny one has
# seen few styles. The style classifier falls for any picture in the style. So read them together, and
# look at the drawings.
#
# ## How many pictures?
#
# One thing about FID is easily overlooked. It needs a covariance, which has d · (d + 1) / 2 different
# numbers, from N pictures. With few pictures that estimate is poor, and the error does not average out:
# it makes FID *larger*. Take two halves of one style, real pictures both. Nothing could be more alike.
# What do FID and KID say with few and with many pictures on each side? `halves_apart`, in the opening,
# draws so many from each half by lot, eight times (all of them only once), and takes the mean.

# %%
by_count = halves_apart()
display(
    as_text(by_count, {"FID": "{:.1f}"} | dict.fromkeys(by_count.columns[1:], "{:.3f}")).replace(
        "nan", "–"
    )
)
left = by_count["FID"].iloc[-1] / by_count["FID"].iloc[0]
dimensions = trial.reference.shape[1]
inception, in_paper = (
    2048,
    {"Barbie": 315, "Cyberpunk": 439, "Art Nouveau": 1500, "Impressionism": 1500},
)
display(
    Markdown(
        f"From {by_count.index[0]} to {by_count.index[-1]} pictures FID falls to {left:.0%} of what it was, and no "
        f"model has become better: there is none. The features here have {dimensions} dimensions. Inception's "
        f"have {inception:,}, so a covariance without gaps takes more pictures than that; the paper's sets have "
        f"{min(in_paper.values()):,} to {max(in_paper.values()):,}."
    )
)

# %% [markdown]
# **What this shows.** FIDs can be compared only at equal numbers of pictures, and even then small
# differences say little. In this course's records the number is always the same, and KID stands beside it.
#
# ## One run
#
# Now tune. At tiny scale the style is `pixel`: Twemoji as pixel art. `run_one` injects, trains with the loss
# above, draws the test prompts, and measures. `tuned`, in the opening, calls it. Once with LoRA and once
# with Serial LoRA, at equal rank, on the same batches, each in a twin of the model. At class length a part
# of the training pictures and of the test prompts has to do. So these FIDs compare with each other, not
# with those of the records below. The length is one word of the opening, `LENGTH`. First the settings, and
# how long it will take: the cell times one step. What do you expect: which of the four measures will move
# most, and which might get *worse*?

# %%
print(config)
print(lesson.how_long(lesson.lab(trial=trial, encoded=encoded_style()[0])))

# %%
records = {"lora": tuned("lora").record}

# %%
records["serial_lora"] = tuned("serial_lora").record

# %%
base_drawings, base_scores = untuned()
held_out = [data.test[index].picture for index in trial.seeds]
rows = {"not adapted": base_scores}
rows |= {get_method(name).label: record.measures | record.sizes for name, record in records.items()}
rows["held-out pictures"] = lab.score_pictures(held_out, trial, judge, data.name)
shown = pd.DataFrame(rows).T.rename(columns=columns)[["parameters", *formats]]
display(as_text(shown, formats | {"parameters": "{:,.0f}"}).replace("nan", "–"))
serial, lora = (records[name].measures for name in ("serial_lora", "lora"))
error = (serial["clip_error"] ** 2 + serial["base_clip_error"] ** 2) ** 0.5
change, real_score = (
    serial["clip_score"] - serial["base_clip_score"],
    rows["held-out pictures"]["clip_score"],
)
display(
    Markdown(
        f"{records['serial_lora'].sizes['steps']} steps on {records['serial_lora'].sizes['training_pictures']} pictures, "
        f"{records['serial_lora'].seconds:.0f} s. FID to the style went from {serial['base_fid']:.1f} to "
        f"{serial['fid']:.1f} with Serial LoRA and to {lora['fid']:.1f} with LoRA. The classifier takes "
        f"{serial['style_share']:.0%} of Serial LoRA's drawings for the style, {lora['style_share']:.0%} of LoRA's, "
        f"and took {serial['base_style_share']:.0%} before.\n\n"
        f"Serial LoRA's CLIP-Score went from {serial['base_clip_score']:.3f} to {serial['clip_score']:.3f} (the "
        f"standard error of the change is {error:.3f}); the style's own pictures have {real_score:.3f}. "
        + (
            "That is no change that these pictures could tell."
            if abs(change) <= 2 * error
            else "The prompts are followed more closely, in the tiny CLIP's eyes."
            if change > 0
            else "A fall, but not below the real pictures: the tiny CLIP reads this style less well, so its score cannot "
            "tell style from neglect."
            if serial["clip_score"] > real_score
            else "A fall, and below the real pictures: the prompts are followed less."
        )
    )
)

# %% [markdown]
# Look. The same eight prompts and the same noise in every row, and below them the pictures that nobody
# drew for this: the style's own, never seen in training.

# %%
rows_of_drawings = {"not adapted": base_drawings[picked]}
rows_of_drawings |= {get_method(name).label: tuned(name).drawings for name in records}
rows_of_drawings["real"] = [held_out[index] for index in picked]
display_figure(plot_drawings(rows_of_drawings, words))
print(data.attribution)
grey = {
    name: torch.as_tensor(rows_of_drawings[name]).float()
    for name in ("not adapted", "LoRA", "Serial LoRA")
}
for one, other in (
    ("LoRA", "not adapted"),
    ("Serial LoRA", "not adapted"),
    ("Serial LoRA", "LoRA"),
):
    apart = (grey[one] - grey[other]).abs().mean()
    print(f"mean difference of {one} from {other}: {apart:.0f} grey levels of 255")

# %% [markdown]
# **What this shows.** Follow one column. What is drawn, and where, is a matter of the noise and the
# prompt, and mostly stays; outlines and colours change. What is fine suffers most: look whether every face
# still is one. Where the base drew something unclear, the style does not make it clear. And compare the
# three differences: whether two methods have learnt the *same* is another question than whether their FIDs
# are equal.
#
# ## Turn it yourself
#
# The panel draws one prompt for *your* scale of the adapter and *your* guidance. Scale 0 is the base, 1
# is as trained. Try these:
#
# - scale 0.5: is it half a style? and 1.5: is it more of it, or something else?
# - guidance 1 at scale 1, then guidance 3: what of the picture belongs to the prompt, and what to the
#   style?
# - a prompt of your own words: what does the model make of a thing it has never drawn?
#
# Where nobody can turn anything (a page without a running notebook), the panel stands still and shows a
# strip of scales and guidances.

# %%
from serial_lora_course.panels.drawings import drawing_panel

own = tuned("serial_lora").backbone
panel = drawing_panel(own, words, seed=seeds[0], judge=judge, config=config)

# %% [markdown]
# **What this shows.** The adapter is a direction, and the scale is how far to go in it, as in lesson 06.
# Guidance stretches another direction. The two are not independent: a strong guidance stretches what the
# adapter has changed in the prompted answer as well.
#
# ## Adapters travel
#
# Nobody should need this course's package to use a file that was made with it. `to_peft` writes the
# adapter as an ordinary LoRA: a pair for q, k and v each, with A shared and W B for its B (lesson 03). A
# *stock* pipeline loads that with diffusers' own `load_lora_weights`, and from the same prompts and the
# same noise it must draw the same pictures. So must the model after `merge`. Expect next to no
# difference: sums are rounded in another order, and no more.

# %%
import tempfile
from pathlib import Path

from diffusers import StableDiffusion3Pipeline
from diffusers.utils import logging

from serial_lora import merge, save_adapter, to_peft, unmerge
from serial_lora_course.labs.sd3_drawings import without_text_encoders
from serial_lora_course.labs.sd3_inputs import decode_latents

adapted = tuned("serial_lora").backbone.model
read = {
    "prompt_embeds": asked.tokens,
    "pooled_prompt_embeds": asked.pooled,
    "negative_prompt_embeds": trial.empty.tokens.expand(len(words), -1, -1),
    "negative_pooled_prompt_embeds": trial.empty.pooled.expand(len(words), -1),
    "latents": starting_noise(backbone, seeds, side),
}


def stock_drawings(stock: StableDiffusion3Pipeline) -> Tensor:
    """What a pipeline draws when it is called as anybody would: (8, side, side, 3), 0 to 255."""
    with torch.no_grad(), lesson.autocast():
        latents = stock(
            **{name: tensor.to(device) for name, tensor in read.items()},
            num_inference_steps=config.drawing_steps,
            guidance_scale=config.guidance,
            output_type="latent",
        ).images
    return torch.as_tensor(decode_latents(backbone, latents)).float()


# %%
with tempfile.TemporaryDirectory() as folder:
    file = save_adapter(adapted, Path(folder, "mine.safetensors"))
    to_peft(adapted, folder)
    exported = Path(folder, "pytorch_lora_weights.safetensors")
    print(
        f"{file.stat().st_size:,} bytes as Serial LoRA, {exported.stat().st_size:,} as an ordinary LoRA"
    )
    stock = without_text_encoders(lesson.twin().pipeline)  # the prompts are read already
    logging.set_verbosity_error()  # else it mentions that the file has nothing for text encoders
    stock.load_lora_weights(folder, weight_name=exported.name)
    logging.set_verbosity_warning()
print("loaded into a", f"{type(stock).__module__.partition('.')[0]}.{type(stock).__name__}")

# %%
loaded = stock_drawings(stock)
stock.unload_lora_weights()
unadapted = stock_drawings(stock)
stock.transformer = adapted  # from here on the transformer that was tuned, adapter and all
with_hook = stock_drawings(stock)
merge(adapted)
merged = stock_drawings(stock)
unmerge(adapted)  # as the other sections know it
for what, pictures in (
    ("the stock pipeline with the exported file", loaded),
    ("merged", merged),
    ("the stock pipeline without any file", unadapted),
):
    differences = (pictures - with_hook).abs()
    print(
        f"{what}: mean difference {differences.mean():.4f}, largest {differences.max():.2f} of 255"
    )

# %% [markdown]
# **What this shows.** Two ways to the same pictures, and for comparison how far the base is from them.
# The exported file is larger, because a shared pair has to be written once for each projection: what is
# stored once in Serial LoRA is stored three times in LoRA's own format.

# %% [markdown]
# ## The records
#
# One run on one style is for looking. The course ships the records of many, at tiny scale: all four styles, three
# amounts of training pictures, all methods, made by the lab's own command.

# %%
from serial_lora_course.figures.results import plot_fid_by_percent
from serial_lora_course.labs.frames import describe_records, methods_table

print(describe_records(shipped))

# %% [markdown]
# First every style without its training: the unadapted model, and *real* pictures of the style (as many
# training pictures in place of drawings: about as near as one can come). Then what Serial LoRA made of it
# with all training pictures, the mean over seeds. The last columns ask how much of the way it went, and
# what became of the prompt.

# %%
most = int(results["amount"].max())
serial = results[(results["amount"] == most) & (results["method"] == "serial_lora")]
by_style = serial.groupby("dataset", sort=False).mean(numeric_only=True)
gained, possible = (by_style["base_fid"] - by_style[name] for name in ("fid", "real_fid"))
by_style["way"] = gained / possible
titles = {
    "base_fid": ("FID before", "{:.1f}"),
    "fid": ("FID after", "{:.1f}"),
    "real_fid": ("FID of real pictures", "{:.1f}"),
    "way": ("of the way", "{:.0%}"),
    "base_style_share": ("in style before", "{:.0%}"),
    "style_share": ("in style after", "{:.0%}"),
    "base_clip_score": ("CLIP-Score before", "{:.3f}"),
    "clip_score": ("CLIP-Score after", "{:.3f}"),
}
shown = by_style[list(titles)].set_axis([title for title, _ in titles.values()], axis="columns")
display(as_text(shown, dict(titles.values())))
display(Markdown(read_styles(by_style, most)))

# %% [markdown]
# Now all methods: the mean over the four styles and, where there are several seeds, after ± the spread
# (standard deviation) over seeds.
# Of FID lower is better, of CLIP-Score higher. Look along a row first: what do more pictures bring, and the
# steps that come with them? (A run goes over its pictures a fixed number of times, so more of them are more
# steps as well.) Then down a column. The style with the largest FIDs weighs most in such a mean, so the
# figure takes the styles apart. Where there are several seeds, each run is a small point in it, and a band
# runs from the best of them to the worst.

# %%
percents = {amount: f"{amount}%" for amount in results["amount"].unique()}
for measure, form in (("fid", "{:.1f}"), ("clip_score", "{:.3f}")):
    both = f"{form} ± {form}" if results["seed"].nunique() > 1 else form
    table = methods_table(
        results, measure, lambda mean, spread, both=both: both.format(mean, spread)
    )
    display(
        Markdown(f"**{columns[measure]}**, by share of the training pictures:"),
        table.rename(columns=percents),
    )

# %%
display_figure(plot_fid_by_percent(results))

# %% [markdown]
# ## Serial LoRA and LoRA, pair by pair
#
# As in lessons 04 and 06: runs with the same style, amount and seed saw the same pictures, so we average
# their *differences*, and call one method *ahead* only where the mean is more than two standard errors
# from zero. For FID and KID less is better, so their sign is turned first: positive numbers are in favour
# of the first method.

# %%
from serial_lora_course.labs.frames import paired_difference

turned = results.assign(fid=-results["fid"], kid=-results["kid"])
pairs = [
    ("serial_lora", "lora"),
    ("serial_lora", "lora_equal_budget"),
    ("serial_lora_plus", "lora_plus"),
    ("serial_lora_plus", "serial_lora"),
]
pairs = [pair for pair in pairs if set(pair) <= set(results["method"])]
verdicts = pd.concat(
    [
        paired_difference(turned, *pair, measure).assign(measure=columns[measure])
        for pair in pairs
        for measure in ("fid", "kid", "clip_score")
    ],
    ignore_index=True,
)
verdicts = verdicts.rename(
    columns={"amount": "percent", "mean": "better by", "sem": "standard error", "count": "runs"}
).set_index(["methods", "measure", "percent"])
as_text(verdicts, {"better by": "{:+.3f}", "standard error": "{:.3f}"})

# %%
for what, (one, other) in (("equal rank", pairs[0]), ("equal budget", pairs[1])):
    mine = verdicts.loc[f"{METHODS[one].label} against {METHODS[other].label}"].reset_index()
    lines = []
    for measure, part in mine.groupby("measure", sort=False):
        said = "; ".join(
            f"{verdict} with {', '.join(f'{percent}%' for percent in group['percent'])}"
            for verdict, group in part.groupby("verdict", sort=False)
        )
        lines.append(f"{measure}: {said}")
    cells = turned.groupby(["dataset", "amount", "method"])["fid"].mean().unstack("method")
    above = int((cells[one] > cells[other]).sum())
    display(
        Markdown(
            f"- **At {what}**, against {METHODS[other].label}. {'. '.join(lines)}. By FID, Serial LoRA's mean over "
            f"seeds is nearer to the style in {above} of {len(cells)} cells."
        )
    )
most = int(results["amount"].max())
at_most = results[results["amount"] == most]
gained = (at_most["base_fid"] - at_most["fid"]).groupby(at_most["method"]).mean()
parameters = at_most.groupby("method")["parameters"].first()
display(
    Markdown(
        f"With {most}% of the pictures Serial LoRA lowers FID by {gained['serial_lora'] / gained['lora']:.0%} of "
        f"what LoRA does, with {parameters['serial_lora'] / parameters['lora']:.0%} of its parameters; LoRA at the "
        f"same number of parameters by {gained['lora_equal_budget'] / gained['lora']:.0%} of it."
    )
)

# %% [markdown]
# **What this shows.** Read the verdicts with their limits: one tiny model, one set of two hundred
# prompts, few seeds, one learning rate for both methods (lesson 04 shows why that is not the same
# treatment). Styles with large FIDs have large differences, too, and they make the standard error large:
# a method may be nearer in most cells and still not be told apart. And three measures can give three
# verdicts: being nearer to the style and keeping to the prompt are different things, and one may be paid
# for with the other.
#
# ## The paper's table
#
# Table II at the paper's scale: SD3 medium, four styles, FID (lower is better) and CLIP-Score (higher is
# better).

# %%
from serial_lora_course.claims.paper import paper_table

printed = paper_table("Table II")
display(printed)

# %%
facts = paper_facts()
fid = printed.xs("fid", axis=1, level="metric")
clip = printed.xs("clip_score", axis=1, level="metric")
lowest, highest = clip.min().min(), clip.max().max()
fall = fid.loc["20%"].mean().mean() - fid.loc["100%"].mean().mean()
between = (fid.groupby(level="amount").max() - fid.groupby(level="amount").min()).mean().mean()
serial_cells, lora_cells = (fid.xs(name, level="method") for name in ("Serial LoRA", "LoRA"))
display(
    Markdown(
        f"- From 20% to 100% of the pictures FID falls by {fall:.0f} on average, for all methods alike. Between the "
        f"best and the worst of the four methods in one cell lie {between:.1f} on average. The amount of data moves "
        f"FID {fall / between:.0f} times as far as the choice of method.\n"
        f"- Serial LoRA is behind LoRA in {facts['serial_behind_fid']} of {facts['fid_cells']} FID cells, and on "
        f"average over all of them its FID minus LoRA's is {(serial_cells - lora_cells).mean().mean():+.2f}.\n"
        f"- CLIP-Scores lie between {lowest:.2f} and {highest:.2f}. As 2.5 times a cosine that is a cosine of "
        f"{lowest / 2.5:.2f} to {highest / 2.5:.2f}, which is usual for CLIP ViT-B. As a bare cosine it would be "
        "unheard of, and a softmax over one number would be 1 everywhere. The paper does not say which it is."
    )
)

# %% [markdown]
# What can that steep fall mean? More training pictures give a better style: that is one reading. There is
# another. The paper does not say how many pictures were drawn, nor whether the real pictures of a 20%
# cell were all of them or the same 20%. FID of fewer pictures is larger, as you saw *without any model*.
# Where the number of pictures changes along a table, part of the fall comes for free, and the numbers
# cannot tell which part. KID would. The cell puts our records beside it, in which the number of drawings
# and of real pictures is the same everywhere.

# %%
ours = results.groupby(["method", "amount"])[["fid", "kid"]].mean()
steps = pd.DataFrame(
    {
        "the paper, FID": {
            amount: fid.loc[amount].mean().mean() for amount in ("20%", "50%", "100%")
        },
        **{
            f"ours, {name.upper()}": {
                f"{shots}%": ours[name].xs(shots, level="amount").mean() for shots in (20, 50, 100)
            }
            for name in ("fid", "kid")
        },
    }
).loc[["20%", "50%", "100%"]]
relative, by_count = steps / steps.iloc[0], halves_apart()
display(
    as_text(relative, dict.fromkeys(relative, "{:.0%}")).rename_axis("of the training pictures")
)
display(
    Markdown(
        f"In the paper FID at 100% is {relative['the paper, FID'].iloc[-1]:.0%} of that at 20%. In our records, "
        "where drawings and real pictures are as many everywhere, it is "
        f"{relative['ours, FID'].iloc[-1]:.0%}, and KID "
        f"{relative['ours, KID'].iloc[-1]:.0%}. For two halves of *real* pictures, where FID is nothing but the error "
        f"of few pictures, it went to {by_count['FID'].iloc[-1] / by_count['FID'].iloc[1]:.0%} with four times as many."
    )
)

# %% [markdown]
# What else to know before quoting the table: the findings of this project's audit of the paper that
# concern SD3. The numbers in them are computed from the paper's tables.

# %%
from serial_lora_course.claims.audit import inconsistencies

about_sd3 = {
    "sd3-count",
    "dataset-count",
    "eight-each",
    "artbench-link",
    "consistent-superiority",
    "memory-words",
    "no-spread",
}
findings = [entry for entry in inconsistencies() if entry.key in about_sd3]
display(
    Markdown(
        "\n".join(
            ["| Where | The paper says | What we find |", "|---|---|---|"]
            + [f"| {entry.where} | {entry.says} | {entry.finding} |" for entry in findings]
        )
    )
)

# %% [markdown]
# **What this shows, and what it does not.** Model, pictures and features are others, so our fall does not
# refute theirs. And more training pictures are more steps in our records, as with the paper's ten epochs:
# which of the two brings a style nearer, neither table can tell. The claim that matters is another one, and
# the table supports it: between Serial LoRA and LoRA the differences are small against everything else in
# it. One number a cell, no seeds: which of these differences are real cannot be seen. And the table has no
# unadapted model, so it does not show how far either method *moved*.
#
# ## At the paper's scale
#
# The code is the same, the settings are not: one word in the opening, `SCALE = "paper"`, and this notebook
# runs on SD3 medium. Where the settings differ:

# %%
from dataclasses import asdict

both = pd.DataFrame({scale: asdict(lab.Sd3Lab.configs[scale]) for scale in ("tiny", "paper")})
both.loc[[name for name in both.index if both.loc[name, "tiny"] != both.loc[name, "paper"]]]

# %% [markdown]
# SD3 medium is *gated*: the hub gives it to those who have accepted its licence and are logged in. On a
# machine with a GPU and a network, in a terminal:
#
# ```
# hf auth login                                # after accepting the licence on the model's page
# python data_scripts/sd3_weights.py           # SD3 medium; --without-t5 for less than half of it
# python data_scripts/artbench.py              # Art Nouveau, Impressionism, titles as captions
# python data_scripts/sara.py                  # Barbie, Cyberpunk
# serial-lora lab sd3 --scale paper --dataset art_nouveau --percent 20,50,100 --seeds 3
# serial-lora lab sd3 --scale paper --dataset all --methods all --percent 100 --resolution 1024
# accelerate launch -m serial_lora_course.cli lab sd3 --scale paper --dataset barbie,cyberpunk
# ```
#
# Every script resumes, verifies, and says by hand what cannot be fetched; `--help` names its licence. A
# run whose record is in the file named by `--out` is not run again.
#
# Does it fit a card? The next table is *estimated from shapes*, for one picture: the parts of the model
# are built without values and counted, and so is what a step keeps on blocks of full width. Nothing of it
# was measured on a GPU, and it leaves out what shapes do not tell: the driver, gaps in the memory, and
# what an operation holds for a moment. Expect the weights to be the largest part, and most of them to be
# the text encoders'.

# %%
from serial_lora_course.labs.memory_sd3 import memory_frame, parts_frame, quantized_frame

display(as_text(parts_frame(), {"parameters": "{:,}", "GiB": "{:.2f}"}).set_index("part"))
few_bits = quantized_frame().set_index("part")
display(as_text(few_bits, dict.fromkeys(few_bits, "{:.2f} GiB")))
memory = memory_frame(rank=lab.PAPER.rank)
memory["method"] = memory["method"].map(lambda name: METHODS[name].label)
memory = memory.set_index(["pixels", "method"])
yes = {True: "yes", False: "no"}
memory[["cached", "checkpointing"]] = memory[["cached", "checkpointing"]].replace(yes)
as_text(memory, dict.fromkeys(["model", "adapter", "activations", "total"], "{:.2f} GiB"))

# %% [markdown]
# **What this shows.** Three savings, of very different size. Caching latents and prompts (and sending
# text encoders and autoencoder away) is the largest by far: that is what lets SD3 medium be tuned on one
# card. Checkpointing is the second. Bits are the third: T5 in 8 of them where it stays loaded, the frozen
# transformer in 4, since an adapter's training reads what its layers answer and never their weights. (This
# lesson's runs use neither: they send T5 away, or leave it to the CPU where it does not fit.) The adapter's own numbers, with gradients and optimizer, are small
# beside both: Serial LoRA's saving is real in the *file* and in the number of things to learn, and is not
# what makes a run fit.
#
# ## Leave the machine as you found it
#
# A notebook that stays open holds its models, and on a GPU the next one may find no room. The last cell
# forgets the tuned twins and what else was remembered, and takes the model off the card. It has no adapter
# to take out, since both went into twins.

# %%
from serial_lora import adapters

for remembered in (tuned, untuned, encoded_style, halves_apart):
    remembered.cache_clear()
for name in "style everything base_drawings panel own adapted stock task".split():
    globals().pop(name, None)  # a section that was left out has made nothing to drop
print("adapters left in the model:", len(adapters(model)))
lesson.close()

# %% [markdown]
# ## Quiz
#
# **1. A training script encodes pictures and decodes drawings without the autoencoder's shift. Its author
# checks that pictures survive the round trip, and they do. What is wrong all the same?**
#
# <details><summary>Answer</summary>
#
# The two mistakes cancel in the round trip and nowhere else. In between stands the transformer, which was
# pretrained on latents with mean 0, and now meets latents that are all off by a constant. Look at the
# latents' mean and spread as well, or at the unadapted model's loss on pictures that it knows.
#
# </details>
#
# **2. A report halves its FID by tuning on twice as many pictures; drawings and real pictures were
# doubled, too. What can be concluded?**
#
# <details><summary>Answer</summary>
#
# Little. FID falls with the number of pictures on both sides even when nothing improves. Keep the number
# of drawings and of reference pictures fixed while the training set grows, or give KID.
#
# </details>
#
# **3. After tuning with captions only, without ever showing the empty prompt, drawings at guidance 1 look
# right, and at guidance 7 they look worse than before tuning. What may have happened?**
#
# <details><summary>Answer</summary>
#
# Guidance stretches the difference between the prompted and the empty answer. Tuning has trained the
# first, and the second came along as it happened. What the difference holds now is no longer the prompt
# alone, and at 7 it is stretched a good deal. Text dropout trains both answers.
#
# </details>

# %% [markdown]
# ## Key points
#
# - SD3 draws in latents: (z - shift) · scale on the way in, and back on the way out. A mistake made twice
#   is invisible in the round trip.
# - Rectified flow: a straight line from picture to noise, its velocity n - x, and a mean squared error.
#   Drawing is walking back along the model's answers.
# - Attention is where the streams meet; it is called by keyword. Serial LoRA adapts the image stream, one
#   pair a block.
# - Encode once, and keep it under the picture's name. By step or position it comes back with the wrong
#   caption, silently.
# - Guidance needs an answer to the empty prompt, so training drops a caption now and then.
# - FID and KID see the crowd and not the prompt, CLIP-Score the prompt and not the style. FID falls with
#   the number of pictures. Look at the drawings.
#
# ## Where the paper says it
#
# "Serial Low-rank Adaptation of Vision Transformer": section III-A, Table II and Fig. 4 for Stable
# Diffusion 3 (rank 64, learning rate 1.5e-5, ten epochs, 28 steps at 1024 pixels, guidance 7, bfloat16),
# Table I for the sizes. Stream, batch, optimizer, loss weighting, text dropout, number of drawings and
# seeds are not stated; the paper-scale settings take them from diffusers' training script. SD3 and its
# rectified flow are Esser et al., "Scaling Rectified Flow Transformers" (2024); guidance is Ho and
# Salimans (2022); FID is Heusel et al. (2017), KID Bińkowski et al. (2018), CLIP-Score Hessel et al.
# (2021).
#
# The tiny SD3 was pretrained on Twemoji (copyright Twitter, Inc. and contributors, CC BY 4.0), and the
# lesson's styles are made from Twemoji and from OpenMoji (openmoji.org, CC BY-SA 4.0); `DATA_LICENSES.md`
# says which and how.
