# %% [markdown]
# # 06 · Stable Diffusion 3: tuning a style
#
# **What you will be able to do**
#
# - say what SD3's parts do, and take a picture into its latents and back without losing the shift;
# - write rectified flow in a few lines: the path, its velocity, the loss, and a sampler;
# - choose the stream of tokens that is adapted, and count what each choice costs;
# - encode every picture once without giving it another one's caption;
# - guide a model, and say what training must do so that guidance goes on working;
# - tune a style with Serial LoRA and with LoRA, and say what FID, KID and CLIP-Score measure, and
#   what each misses.

# %%
try:
    import serial_lora_course  # before PyTorch, whose waiting threads it lets sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import pandas as pd
import torch
from IPython.display import display
from torch import Tensor, nn

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs.frames import as_text, frame
from serial_lora_course.lessons.l06_sd3 import studio as probes
from serial_lora_course.lessons.l06_sd3 import tables
from serial_lora_course.plots.drawings import plot_drawings
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

lesson_card("06")

# %% [markdown]
# One line decides what the lesson works with. `"tiny"` is a small SD3 and pixel art: nothing to fetch, and
# a laptop will do. `"paper"` is Stable Diffusion 3 medium and Art Nouveau: the cell says what to fetch
# first, which licence that needs, and fits the settings to your GPU. All below follows this line.

# %%
import os

from serial_lora_course.labs.lesson import open_lesson

SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper"
LENGTH = os.environ.get("SERIAL_LORA_LENGTH", "class")  # or "full"; "dry" takes two steps a run
lesson = open_lesson("sd3", SCALE, LENGTH)
print(lesson)

# %% [markdown]
# The next two cells give short names to what was read. The `studio` holds eight test prompts and known
# pictures, encoded, and makes drawings. `tuned("lora")` tunes an SD3 with LoRA the first time it is asked (and
# the same for Serial LoRA), in a copy of the model (a *twin*), on your paths of exercise 6.1 where they are
# right. So after these cells you can start at any section.

# %%
from functools import cache

from serial_lora_course.labs.records import shipped_records

backbone, model, data, config = lesson.backbone, lesson.model, lesson.data, lesson.config
pipeline, judge = backbone.pipeline, lesson.judge  # the judge measures drawings
studio = probes.Studio(lesson)
trial, asked, seeds = studio.trial, studio.asked, studio.seeds  # test prompts, eight of them read
prompts = studio.words  # the eight in words
results = frame(shipped_records("sd3"))  # its column "amount" holds the percentage


# %%
@cache
def tuned(name: str) -> probes.Tuned:
    """A twin of the SD3, tuned by one method, with its record and its drawings."""
    return studio.tune(name, yours("6.1"))


# %% [markdown]
# ## Four parts, and only one of them draws
#
# Stable Diffusion 3 makes a picture from a sentence and from noise. Four parts share the work.
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
# The tiny SD3 is made of diffusers' own classes at small sizes. Its prompts are read by the tiny CLIP of
# lesson 04.

# %%
for name, part in pipeline.components.items():
    if isinstance(part, nn.Module):
        print(f"{name:15} {sum(p.numel() for p in part.parameters()):13,} parameters")
card = lesson.card_of_model  # what the pretraining noted; empty for a published model
for name in "minutes steps measured".split():
    print(f"{name}: {card.get(name, 'not noted')}")

# %% [markdown]
# **What this shows.** The transformer was pretrained for half an hour on Twemoji's drawings and their
# names. Asked for a hundred things, it draws them so that a CLIP finds three quarters of them back
# among the hundred: as many as in Twemoji's own drawings (`retrieval`, and `retrieval, real`). By
# chance it would be one.
#
# Eight of the test prompts, what SD3 draws for each and, at tiny scale, how Twemoji drew the same thing.
# Expect drawings that a person recognises for many of them, not for all.

# %%
guidance = config.guidance  # change this and run again: 1.0
drawn = studio.draw(guidance=guidance)  # uint8, (8, side, side, 3)
display_figure(plot_drawings({"SD3 draws": drawn} | studio.known.beside(prompts), prompts))
print("Pictures of the kind it knows:", studio.known.attribution)

# %% [markdown]
# The tiny model draws from a name alone, in one style: Twemoji's. We want the same things drawn *in another
# style*, from a few hundred pictures of that style and with a small file.
#
# ## Into latents and back
#
# The autoencoder's numbers z come with a mean and a spread of their own. The transformer is made for
# numbers around 0 with a spread of 1, so SD3 moves and stretches them, by two numbers in the autoencoder's
# config:
#
# $$x = (z - \text{shift}) \cdot \text{scale}, \qquad z = x / \text{scale} + \text{shift}$$
#
# Earlier versions of Stable Diffusion had a scale and no shift, so code that was written for them easily
# forgets it. The cell tries four ways on pictures that the model knows: the right one, two that forget a
# step in *both* directions, and one that forgets it on the way back. It measures the latents' mean and
# spread, the round trip (the mean error, in grey levels from 0 to 255), and the transformer's loss on such
# latents. Which of the mistakes will the round trip find?

# %%
vae = pipeline.vae
scale, shift = vae.config.scaling_factor, vae.config.shift_factor  # change this and run again
z = studio.raw_latents()  # (N, channels, h, w)
ways = {  # what the transformer gets, what the decoder gets
    "as SD3 does it": ((z - shift) * scale, z),
    "no shift, both ways": (z * scale, z),
    "no scale, both ways": (z - shift, z),
    "no shift on the way back": ((z - shift) * scale, z - shift),
}
trips = pd.DataFrame({what: studio.trip(*each) for what, each in ways.items()}).T
digits = {"mean": "{:+.2f}", "spread": "{:.2f}", "round trip": "{:.1f}", "loss": "{:.3f}"}
display_table(as_text(trips, digits).rename_axis("way").reset_index())

# %% [markdown]
# **What this shows.** Forget the shift, and the loss is four times as large; forget the scale, and it
# is twenty times. The round trip looks perfect in both cases: 4.4 grey levels, as if nothing had
# happened. In SD3 medium the shift is smaller (0.09 of the latents' spread, here 0.22), and even
# easier to miss.
#
# A mistake that is made *twice* cancels in the round trip. But the transformer lives in between, and an adapter
# trained on such latents would use its rank to undo the shift. So test both: that pictures come back, and that
# latents have mean 0 and spread 1. No drawing of this model can be more exact than the right round trip.
#
# ## A straight line from picture to noise
#
# How does one learn to draw? By learning to undo. Take a picture's latent x and pure noise n of the same
# shape, and join them by a straight line. At the *noise level* σ the point is
#
# $$x_\sigma = (1 - \sigma)\, x + \sigma\, n, \qquad 0 \le \sigma \le 1$$
#
# so σ = 0 is the picture and σ = 1 is noise. How fast does the point change along the line? The derivative
# with respect to σ does not depend on σ:
#
# $$v = \frac{d x_\sigma}{d\sigma} = n - x$$
#
# This *velocity* is what the transformer is asked for, when it is shown the point, the prompt and σ. That
# is all of *rectified flow*.

# %% [markdown]
# ### Exercise 6.1 · The path and its velocity
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●● | 8 |
#
# Every picture of a batch has a noise level of its own. Mind the shapes: `sigmas` is (B,), and with four
# latents that are four numbers wide PyTorch broadcasts it *along the wrong dimension*, without an error.
# The check compares with one picture at a time, and the velocity with finite differences.


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


check("6.1", flow_path)

# %% [markdown]
# <details><summary>Hint 1: one number a picture</summary>
#
# PyTorch aligns shapes from the right: (B,) meets the *width* of (B, c, h, w).
# `sigmas.view(-1, 1, 1, 1)` has a number for each picture and is broadcast over the rest.
#
# </details>
# <details><summary>Hint 2: the way and its speed</summary>
#
# The first formula above gives the points. For the velocity there is no σ: it is where the path ends
# minus where it begins, and it begins at the picture. Return both, the points first.
#
# </details>
#
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# Once v is known, we can draw in steps: start at noise, σ = 1, and go towards σ = 0,
#
# $$x_{\sigma'} = x_\sigma + (\sigma' - \sigma)\, v$$
#
# With the *true* velocity of one picture a single step would do. But at σ = 1 the model sees noise only, and
# its best answer points to the middle of all pictures that fit the prompt. After a small step it sees a
# little more, and asks again. The next cell is a whole sampler, with the scheduler's levels. Expect the
# pictures of the *stock* pipeline (diffusers' own, unchanged), equal or nearly so.

# %%
from itertools import pairwise

steps = config.drawing_steps  # change this and run again: 3
velocity_of = studio.velocity_of(asked)  # latents, level -> v
pipeline.scheduler.set_timesteps(steps)
latents = studio.noise()  # (8, c, h, w)
for sigma, following in pairwise(pipeline.scheduler.sigmas.tolist()):  # from 1 to 0
    latents = latents + (following - sigma) * velocity_of(latents, sigma)
by_hand, stock = studio.decode(latents), studio.draw(guidance=1.0)
apart = abs(by_hand.astype(int) - stock).max()
print(f"largest difference from the stock pipeline's drawings: {apart} of 255 grey levels")

# %% [markdown]
# Both ways in pictures. Above, a picture that the model knows on its straight line to noise; below, the
# sampler's way from noise to a drawing, at tiny scale for the same words. The points between are decoded as
# they are.

# %%
from serial_lora_course.lessons.l06_sd3.figures import noise_row, sampler_row
from serial_lora_course.plots.drawings import draw_rows

word, seed = prompts[2], seeds[2]  # change this and run again
picture = studio.known.pictures.get(word, studio.known.examples[0].picture)
after = [config.drawing_steps * part // 5 for part in range(6)]  # steps
rows = [
    noise_row(backbone, picture, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], seed, config),
    sampler_row(backbone, word, after, seed, config),
]
display_figure(draw_rows(rows))

# %% [markdown]
# The upper row is known for every training picture: that is why training is cheap. Pick a
# level, mix, ask for the velocity, compare. The lower row is what the model makes of it: first where things
# are, then what they are, last the edges.
#
# ## Which noise levels?
#
# At σ near 0 the picture is nearly finished, and at σ near 1 nothing can be seen. So SD3 draws its training
# levels from a *logit-normal* distribution: a normal number, put through the sigmoid. And a **shift** moves
# levels towards 1 for large pictures: the more pixels show the same thing, the more noise it takes to hide
# it. SD3 medium has shift 3, the tiny one has none.

# %%
from diffusers import FlowMatchEulerDiscreteScheduler

from serial_lora_course.lessons.l06_sd3.figures import plot_sigmas
from serial_lora_course.measures.flow import sample_sigmas

official = FlowMatchEulerDiscreteScheduler(shift=3.0)  # as SD3 medium's; change this and run again
shifts = {SCALE: pipeline.scheduler.config.shift, "SD3 medium": official.config.shift}
drawn_levels = {f"{n}, shift {s:g}": sample_sigmas(20_000, shift=s) for n, s in shifts.items()}
display_figure(plot_sigmas(drawn_levels))
different = len(official.sigmas.bfloat16().unique())
print(f"in the middle of the official list: {official.sigmas[500]:.2f}")
print(f"in bfloat16 its {len(official.sigmas)} levels are {different} different numbers")

# %% [markdown]
# **What this shows.** The official list has 0.75 in its middle, where you might expect a half: large
# pictures need more noise to be hidden. And in bfloat16 two thirds of its levels fall together, so
# levels stay in float32.
#
# Those are two traps. A scheduler's sigmas are shifted *already*: whoever shifts them again trains at levels
# that drawing hardly uses. And bfloat16 rounds several levels to the same number, so they are kept in
# float32.
#
# ## The loss
#
# The mean squared error between the model's velocity and the true one. Written out with your function;
# `StyleObjective` is the same as a module for the training loop.

# %%
path_of = yours("6.1")
levels = studio.levels  # σ of each picture; change this and run again: studio.levels / 4
batch = studio.batch(studio.encoded, levels)
points, target = path_of(batch.latent, batch.noise, batch.sigma)  # (B, c, h, w) each
predicted = studio.answer(points, batch.sigma, batch.tokens, batch.pooled)
by_hand = (predicted - target).square().mean()
print(f"by hand {by_hand:.6f}, StyleObjective {studio.loss(batch):.6f}")

pictures = points - batch.sigma.view(-1, 1, 1, 1) * predicted
print(f"comparing pictures instead of velocities {(pictures - batch.latent).square().mean():.6f}")

# %% [markdown]
# The second number is what the published training script for SD3 minimises. By default
# (`precondition_outputs=1`) it turns the answer into a *picture*, $\hat x = x_\sigma - \sigma \hat v$, and
# compares pictures. That is the same error times σ²:
#
# $$\hat x - x = (x_\sigma - \sigma \hat v) - (x_\sigma - \sigma v) = -\sigma\,(\hat v - v)$$
#
# Where does the loss come from at each noise level? The two right columns are its shares.

# %%
by_level = studio.loss_by_level()
shares = dict.fromkeys(["how often", "plain", "σ² weighted"], "{:.0%}")
display_table(as_text(by_level, shares | {"error": "{:.2f}"}).reset_index())

# %% [markdown]
# **What this shows.** The plain loss cares most for little noise: the last fifth before the picture
# is a quarter of it, though it comes up in one case of twelve. Weighted by σ², nearly nothing is left
# of it, and what decides the drawing's shape, much noise, counts.
#
# With σ², levels near the picture hardly count, and they are where edges and textures are
# drawn: for a *style* they matter. Neither choice is wrong, but whoever compares two results should know
# which loss each was trained with. The paper does not say; the lab's default is plain.

# %% [markdown]
# ## Two streams and one attention
#
# The transformer is a stack of blocks over two kinds of tokens. The latents are cut into patches, one *image
# token* each; the prompt's vectors are the *text tokens*. They run side by side as two **streams**, each with
# its own norms, its own q, k, v and output projections, and its own feed-forward layers. They meet at one
# place: **attention**, where every token attends to all tokens of both kinds. The last block needs an image
# and no text: its text tokens are read, and have no output projection.
#
# Where does an adapter find the tokens? Not at the norm as in lessons 04 and 05: these norms return several
# tensors. Attention is called *by keyword*, with the normed tokens of both streams. Two hooks listen at one
# attention layer, one for arguments by position (the usual kind) and one for keywords. Expect the first to
# hear nothing.

# %%
attention = model.transformer_blocks[0].attn  # change this and run again: the last block
batch = studio.batch(studio.encoded, studio.levels)
for what, heard in probes.heard_by(attention, lambda: studio.loss(batch)).items():
    print(f"{what}: {heard}")

# %% [markdown]
# A hook on arguments by position would adapt nothing, silently. And a text token is as wide
# as an image token: an adapter that is put on the wrong stream fits, runs and trains. So count.

# %% [markdown]
# ### Exercise 6.2 · The layers of a stream
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


check("6.2", projections_of)

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
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# Now what each choice costs, on the lesson's model and at the paper's scale (built with shapes only). A
# *place* is where one stream enters attention in one block: one pair of Serial LoRA. A *layer*, by your
# function, gets one pair of LoRA.

# %%
layers_of = yours("6.2")

# %% tags=["nbval-check-output"]
from serial_lora_course.labs.sd3 import PAPER
from serial_lora_course.models.architectures import ARCHITECTURES

medium = ARCHITECTURES["sd3"].on_meta()
models = {SCALE: (model, config.rank), "paper": (medium, PAPER.rank)}
costs = probes.stream_costs(models, layers_of)
display_table(costs)

# %% [markdown]
# **What this shows.** The paper prints 19.32M for LoRA and 4.83M for Serial LoRA. At its scale the
# streams of image and of text both come near, and the two together are twice as many. Nearest is the
# image stream, and even that is 2.4% off.
#
# The paper does not say which stream it adapts. The training script of that time listed `to_q`, `to_k`, `to_v`
# and `to_out.0`. There is a reason, too: *what* is drawn comes in with the text tokens, and should not change;
# *how* it looks is made in the image tokens. So the package adapts the image stream unless it is told
# otherwise. And only there is "a quarter" of LoRA's parameters exact.
#
# ## Once, and under its name
#
# In tuning, text encoders and autoencoder stay frozen. What they say of a picture and its caption is computed
# once and kept: that saves most of the time and, at the paper's scale, most of the memory. Here is how it goes
# wrong. A loop over rounds shuffles the pictures. In the first round it keeps the latents of each step in a
# list; later it takes them out of the list, step by step. Captions come along with the shuffled pictures. (The
# published script for SD3 has an option that does this.) Six pictures that are nothing but their numbers:

# %%
names = ["cat", "clock", "pepper", "owl", "rain", "bus"]  # picture i shows names[i]
kept = []


def by_step(step: int, positions: Tensor) -> Tensor:
    """The latents of a step: encoded in the first round, taken from the list in the others."""
    if len(kept) < len(names) // 2:  # change this and run again: True
        kept.append(positions)  # stands for encode(pictures[positions])
        return positions
    return kept[step]


dealt = probes.dealt(names, by_step)
display_table(dealt[dealt["round"] == 2])
print("right captions by round:", dealt.groupby("round")["right"].sum().to_dict(), "of", len(names))

# %% [markdown]
# No error, the right shapes, the right number of pictures. Would the loss show it? The cell measures
# it with every picture's own caption and with another picture's, on pictures of the kind that the model was
# pretrained on, and on pictures of the new style. Where do you expect the larger difference?

# %%
count = len(studio.encoded)
new = studio.encode([data.train[index] for index in range(0, len(data.train), 5)][:count])
kinds = {"known pictures": studio.encoded, "the new style": new}
mixed = pd.DataFrame({what: studio.wrong_captions(each) for what, each in kinds.items()}).T
forms = {"own captions": "{:.3f}", "another's": "{:.3f}"}
forms |= {"difference": "{:+.1%}", "by the noise alone": "± {:.1%}"}
display_table(as_text(mixed, forms).rename_axis("pictures").reset_index())

# %% [markdown]
# **What this shows.** On pictures that the model knows, a wrong caption makes the loss twelve times
# as large: nobody could miss it. On the new style it is a third larger, and there is nothing to compare it
# with.
#
# In tuning the model meets pictures that it does *not* know: the second row. There you have no right number to
# compare with. The loss will fall with wrong captions as well, since a style can be learnt without them. What
# is lost is that drawings follow the prompt. So keep what was computed under the *name* of the picture.

# %% [markdown]
# ### Exercise 6.3 · Encoded once
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 12 |
#
# Write a cache. It gets a function that encodes one example, and must call it once for each picture, however
# often and in whatever order batches ask for it. Each example has a `picture_id`, which is unique and does not
# change. Beware of what else could serve as a key: examples are made anew at every access, and two pictures may
# share one caption, or look alike. The check feeds shuffled orders, parts and repetitions, and counts the
# calls.


# %% tags=["exercise"]
from collections.abc import Callable, Sequence

from serial_lora_course.data.types import StyleExample


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


check("6.3", EncodedOnce)

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
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# Your class on the same six pictures:

# %%
Once = yours("6.3")
names = ["cat", "clock", "pepper", "owl", "rain", "bus"]
six = Once(lambda example: torch.tensor(names.index(example.picture_id)))
found = probes.dealt(names, lambda _, some: six.batch(probes.named_pictures(names, some)))
print("right captions by round:", found.groupby("round")["right"].sum().to_dict(), "of", len(names))

# %% [markdown]
# The package's `encode_style` keeps latent and prompt of each picture under its id. What is this lesson's
# style, and what does that save?

# %%
style, seconds = studio.encoded_style
kept = sum(tensor.nbytes for each in style.values() for tensor in each)
rounds = config.steps(len(style)) * config.batch_size / len(style)
print(f"{len(style)} pictures with captions: {seconds:.1f} s, {kept / 1e6:.0f} MB, once")
print(f"computed in every step of a run: {rounds:.0f} times as many seconds")
print(f"{data.name}: {data.description}. {data.attribution}")

shown = [data.train[len(data.train) * place // 16] for place in range(1, 16, 2)]  # eight
captions = [each.caption for each in shown]
to_learn = {"to learn from": [each.picture for each in shown]}
display_figure(plot_drawings(to_learn | studio.known.beside(captions), captions))

# %% [markdown]
# The captions say what is to be seen and *not in which style*. So a model that draws
# in this style for such a caption has learnt it from the pictures. The things of the test prompts are not
# among the training pictures.
#
# ## Guidance
#
# **Classifier-free guidance** makes the model follow the prompt more. At every step it is asked twice, with
# the prompt and with an *empty* prompt, and the difference is stretched:
#
# $$v = v_{\text{empty}} + w\,(v_{\text{prompt}} - v_{\text{empty}})$$
#
# At w = 0 the prompt plays no part, at w = 1 it is the plain answer, and more than 1 goes *past* it: away
# from what would be drawn without the prompt. The paper draws with w = 7, this lesson with less, since
# the model is small.

# %% [markdown]
# ### Exercise 6.4 · Guidance
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


check("6.4", guided_velocity)

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
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# A sampler with your function: the same prompts and the same noise at four guidances. Expect soft drawings
# above, clearer ones in the middle, and exaggerated ones below, with hard lines.

# %%
from itertools import pairwise

guide = yours("6.4")
prompted, empty = studio.velocity_of(asked.rows(slice(6))), studio.velocity_of(trial.empty)
pipeline.scheduler.set_timesteps(config.drawing_steps)
strip = {}
for w in (1.0, 3.0, 5.0, 9.0):  # change this and run again
    latents = studio.noise(6)
    for sigma, following in pairwise(pipeline.scheduler.sigmas.tolist()):
        v = guide(empty(latents, sigma), prompted(latents, sigma), w)
        latents = latents + (following - sigma) * v
    strip[f"w = {w:g}"] = studio.decode(latents)
display_figure(plot_drawings(strip, prompts[:6]))

# %% [markdown]
# With more guidance drawings follow the prompt more and vary less, and each step costs two calls instead of
# one. And it has a condition that concerns *training*: the model must be able to answer the empty prompt.
# Whoever tunes with captions only leaves that answer to chance; then the difference that guidance stretches
# need not be about the prompt any more. So in about one case of ten a training picture gets the empty prompt as
# its caption: **text dropout**. One example of the training loop, and how many lose their caption:

# %%
from serial_lora_course.data.subsets import training_subset

dropout = config.text_dropout  # change this and run again: 0.5
changed = lesson.configured(text_dropout=dropout)
task = lesson.lab(config=changed, trial=trial, encoded=studio.encoded_style[0])
stream = task.stream(training_subset(data, lesson.amount, 1), seed=1)
everything = [stream[position] for position in range(stream.steps * stream.batch_size)]
dropped = sum(bool((each.tokens == trial.empty.tokens[0]).all()) for each in everything)
print({name: tuple(part.shape) for name, part in everything[0]._asdict().items()})
print(f"{stream.steps} steps of {stream.batch_size} pictures:", end=" ")
print(f"{dropped / len(everything):.1%} lose their caption")

# %% [markdown]
# Latent, prompt, noise, level: that is all the transformer meets. Noise and order follow
# from the seed, so two methods see the same batches.
#
# ## How good is a style?
#
# A drawing has no right answer. Three kinds of numbers are in use, and each sees one side.
#
# - **FID** asks: do the drawings, *as a set*, look like real pictures of the style? Every picture
#   becomes a vector of features, by a network that was trained for something else. Each of the two sets
#   is summed up by mean μ and covariance Σ, and FID is the distance of the two:
#   $\;|\mu_1 - \mu_2|^2 + \operatorname{tr}\big(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\big)$.
#   Lower is better.
# - **KID** asks the same without assuming a normal distribution: it compares all pairs of pictures by a
#   kernel. Its expected value does not depend on how many pictures there are. Lower is better, and it may
#   fall a little below 0.
# - **CLIP-Score** asks: does each drawing show *what its prompt says*? The cosine of CLIP's two vectors,
#   made 0 where it is negative, times 2.5. Higher is better. It knows nothing of the style.
#
# At the paper's scale FID takes the features of Inception, a classifier of photographs; at tiny scale those of
# the tiny CLIP's image tower: FID and KID *on tiny-CLIP features*, not to be compared with anybody else's. As
# a fourth number, a **style classifier** says of each drawing which style it is in.

# %% [markdown]
# ### Exercise 6.5 · CLIP-Score by hand
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


check("6.5", clip_scores)

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
# Solution: [the solved lesson](../solutions/06_sd3_style.ipynb)

# %% [markdown]
# A warning from published code. The paper takes its measures from an earlier work, whose script puts *one*
# picture and *one* caption through CLIP, and takes the softmax over the captions. The cell scores the eight
# drawings with their own prompts and with each other's, by your function and by that.

# %%
score_of = yours("6.5")
features = judge.clip_features(studio.draw())  # (8, d)
captions = {"its own prompt": prompts, "another's prompt": prompts[1:] + prompts[:1]}
rows = {}
# change this and run again: captions["a photo"] = ["a photo"] * len(prompts)
for what, said in captions.items():
    scores = score_of(features, judge.text_features(said))  # (8,)
    of_one = (100 * scores / 2.5)[:, None].softmax(-1)  # (8, 1): softmax over a row of one score
    rows[what] = {"CLIP-Score": scores.mean().item(), "softmax over one": of_one.mean().item()}
table = pd.DataFrame(rows).T
display_table(table.map("{:.2f}".format).rename_axis("scored with").reset_index())

# %% [markdown]
# **What this shows.** CLIP-Score falls by more than half when the prompts are exchanged. The softmax
# over one number is 1, whatever you draw.
#
# Softmax over one number is 1, whatever the picture. Before you trust a measure, show it
# something wrong.
#
# That is what the next cell does with all of them. Four "models" that need no training answer the test
# prompts: SD3 as it is; one that returns *training pictures*, whatever was asked for; one that draws the
# *same* picture every time; and the held-out pictures themselves. Which measure will each deceive?

# %%
held_out = studio.held_out
others = {
    "training pictures": [data.train[index].picture for index in range(len(held_out))],
    "one picture": [held_out[0]] * len(held_out),
    "the held-out pictures": held_out,
}
scores = {"SD3, not adapted": studio.untuned[1]}  # drawn and scored when first asked
scores |= {name: studio.score(pictures) for name, pictures in others.items()}
table = pd.DataFrame(scores).T.rename(columns=tables.COLUMNS)[list(tables.FORMATS)]
display_table(as_text(table, tables.FORMATS).rename_axis("answers").reset_index())

# %% [markdown]
# **What this shows.** Each measure has its fool. Training pictures, returned whatever the prompt,
# beat the model's FID by far, and their CLIP-Score gives them away. One picture drawn every time is
# in the style in all cases, and its FID says that something is wrong. Look at all of them.
#
# FID and KID do not know what was asked for. CLIP-Score does not know which style was meant, and it is only as
# good as the CLIP that computes it. The style classifier accepts any picture in the style. So read them
# together, and look at the drawings.
#
# ## How many pictures?
#
# FID needs a covariance, which has d · (d + 1) / 2 different numbers, from N pictures. With few pictures that
# estimate is poor, and the error makes FID *larger*. Take two halves of one style, real pictures both. What do
# FID and KID say with few and with many pictures on each side? `studio.halves_apart` takes that many from each
# half at random, eight times (once where it takes all), and returns the mean.

# %%
by_count = studio.halves_apart  # change this and run again: studio.halves_apart.iloc[::2]
forms = {"FID": "{:.1f}", "KID": "{:.3f}", "± over draws": "{:.3f}"}
display_table(as_text(by_count, forms).replace("nan", "–").reset_index())
print(f"features have {trial.reference.shape[1]} dimensions")

# %% [markdown]
# **What this shows.** FID falls to a sixth from 25 pictures to 200, and no model has become better:
# there is none. It is the number of pictures alone. KID stays about zero. These features have 192
# dimensions; Inception's have 2,048, so a covariance without gaps takes more pictures than that, and
# the paper's sets have 315 to 1,500.
#
# So FIDs can be compared only at equal numbers of pictures. In this course's records the number is always the
# same, and KID stands beside it.
#
# ## One run
#
# Now tune, at tiny scale to `pixel`: Twemoji as pixel art. One run with LoRA and one with Serial LoRA, at equal
# rank, on the same batches. At class length they use only a part of the training pictures and of the test
# prompts, so these FIDs cannot be compared with those of the records below. Which of the four measures will
# move most, and which might get *worse*?

# %%
# change LENGTH in the opening and run again: "full"
print(lesson.how_long(lesson.lab(trial=trial, encoded=studio.encoded_style[0])))

# %%
records = {name: tuned(name).record for name in ("lora", "serial_lora")}
rows = {"not adapted": studio.untuned[1]}
rows |= {tables.LABELS[name]: each.measures | each.sizes for name, each in records.items()}
rows["held-out pictures"] = studio.score(studio.held_out)
shown = pd.DataFrame(rows).T.rename(columns=tables.COLUMNS)[["parameters", *tables.FORMATS]]
shown = as_text(shown, tables.FORMATS | {"parameters": "{:,.0f}"}).replace("nan", "–")
display_table(shown.rename_axis("model").reset_index())

# %% [markdown]
# **What this shows.** FID to the style is halved by both, and the classifier takes a third of LoRA's
# drawings for pixel art, of Serial LoRA's fewer. CLIP-Score fell, but real pixel art scores just as
# low: this CLIP cannot read pixel art, so the score cannot tell style from neglect of the prompt.
#
# The same eight prompts and the same noise in every row, and below them the style's own pictures, never seen
# in training.

# %%
drawings = {"not adapted": studio.untuned[0][studio.picked]}
drawings |= {tables.LABELS[name]: tuned(name).drawings for name in ("lora", "serial_lora")}
real = {"real": [studio.held_out[index] for index in studio.picked]}
display_figure(plot_drawings(drawings | real, prompts))
print(data.attribution)

# %% [markdown]
# Follow one column. What is drawn, and where, comes from the noise and the prompt, and mostly stays;
# outlines and colours change. Fine detail suffers most: check whether every face is still a face.
#
# ## Move scale and guidance yourself
#
# The panel draws one prompt for *your* scale of the adapter and *your* guidance. Scale 0 is the base, 1 is as
# trained. **Change this and run again:**
#
# - scale 0.5: is it half a style? and 1.5: is it more of it, or something else?
# - guidance 1 at scale 1, then guidance 3: what belongs to the prompt, and what to the style?
# - a prompt of your own words: what does the model make of a thing it has never drawn?
#
# Without a running notebook, the panel shows a strip of scales and guidances.

# %%
from serial_lora_course.lessons.l06_sd3.panel import drawing_panel

own = tuned("serial_lora").backbone
panel = drawing_panel(own, prompts, seed=seeds[0], judge=judge, config=config)

# %% [markdown]
# The adapter is a direction, and the scale is how far to go in it. Guidance stretches
# another direction, and with it what the adapter has changed in the prompted answer.
#
# ## Export to a stock pipeline
#
# `to_peft` writes the adapter as an ordinary LoRA: a pair for q, k and v each, with A shared and W B as its B
# (lesson 03). A *stock* pipeline loads that with diffusers' own `load_lora_weights`, and from the same prompts
# and the same noise it must draw the same pictures. So must the model after `merge`. Expect next to no
# difference.

# %%
import tempfile

from diffusers.utils import logging

from serial_lora import merge, save_adapter, to_peft, unmerge
from serial_lora_course.labs.sd3_drawings import without_text_encoders

adapted = tuned("serial_lora").backbone.model  # change this and run again: "lora"
stock = without_text_encoders(lesson.twin().pipeline)  # the prompts are read already
logging.set_verbosity_error()  # else it mentions that the file has nothing for text encoders
with tempfile.TemporaryDirectory() as folder:
    print(f"{save_adapter(adapted, f'{folder}/mine.safetensors').stat().st_size:,} bytes as it is")
    to_peft(adapted, folder)
    stock.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")

# %%
drawn = {"the stock pipeline with the exported file": studio.stock_drawings(stock)}
stock.unload_lora_weights()
bare = studio.stock_drawings(stock)
stock.transformer = adapted  # from here on the transformer that was tuned, adapter and all
with_hook = studio.stock_drawings(stock)
merge(adapted)
drawn["merged"] = studio.stock_drawings(stock)
unmerge(adapted)  # as the other sections know it
drawn["the stock pipeline without any file"] = bare
apart = {what: f"{(each - with_hook).abs().mean():.4f}" for what, each in drawn.items()}
for what, difference in apart.items():
    print(f"{what}: {difference} grey levels from the adapted model's drawings, on average")

# %% [markdown]
# **What this shows.** The exported file draws what the adapter draws, in diffusers' own pipeline, and
# so do the merged weights. Without any file the drawings are other ones.
#
# So there are two ways to the same pictures, and the third number says how large a difference is.

# %% [markdown]
# ## The records
#
# The course ships the records of many runs at tiny scale: all four styles, three amounts of training
# pictures, all methods, made by the lab's own command.

# %%
from serial_lora_course.labs.frames import describe_records

print(describe_records(shipped_records("sd3")))

# %% [markdown]
# Every style with all training pictures, the mean over seeds: the unadapted model, Serial LoRA, and *real*
# pictures of the style (training pictures in place of drawings: about as near as one can come).

# %%
display_table(tables.by_style(results))

# %% [markdown]
# **What this shows.** On all four styles FID ends far below the unadapted model's: two thirds to six
# sevenths of the way to real pictures of the style. `openmoji` and `night` are in the style most of
# the time. CLIP-Score falls, for `night` to less than a third: its pictures are dark, and this CLIP
# sees little in them.
#
# All methods by FID: the mean over the four styles, and after ± the standard deviation over seeds. Along a row:
# what do more pictures bring, and the steps that come with them? The style with the largest FIDs weighs most in
# such a mean, so the figure shows each style by itself.

# %%
from serial_lora_course.labs.frames import methods_table
from serial_lora_course.plots.results import plot_fid_by_percent

measure, form = "fid", "{:.1f} ± {:.1f}"  # change this and run again: "clip_score" with .3f
table = methods_table(results, measure, form.format)
display_table(table.rename(columns="{}".format).rename_axis("method").reset_index())
display_figure(plot_fid_by_percent(results))

# %% [markdown]
# ## Serial LoRA and LoRA, pair by pair
#
# As in lessons 04 and 05: runs with the same style, amount and seed saw the same pictures, so we average
# their *differences*, and call one method *ahead* where the 95% confidence interval over the styles is above
# zero: with so few styles that takes a large difference.
# For FID and KID less is better, so their sign is turned: positive numbers favour the first method.

# %%
from serial_lora_course.labs.frames import compare_methods

turned = results.assign(fid=-results["fid"], kid=-results["kid"])  # so that more is better
measure = "fid"  # change this and run again: "kid", "clip_score"
table = compare_methods(turned, tables.PAIRS, measure)
display_table(as_text(table, {"mean": "{:+.3f}", "sem": "{:.3f}"}))

most = results[results["amount"] == 100]
gain = (most["base_fid"] - most["fid"]).groupby(most["method"]).mean()
for method in ("serial_lora", "lora_equal_budget"):
    print(f"{method} has {gain[method] / gain['lora']:.0%} of LoRA's gain")

# %% [markdown]
# **What this shows.** With four styles nothing is significant, though Serial LoRA's mean FID is worse
# than LoRA's at every amount. With all pictures it has 95% of LoRA's gain, with a quarter of the
# parameters; and a LoRA of that size has 94%.
#
# The limits: one tiny model, few seeds, one learning rate for both methods. And three measures can give three
# verdicts: being nearer to the style and keeping to the prompt are different things.
#
# ## The paper's table
#
# Table II at the paper's scale: SD3 medium, four styles, FID (lower is better) and CLIP-Score (higher is
# better).

# %%
from serial_lora_course.paper_tables import paper_table

printed = paper_table("Table II")
display(printed)

# %% [markdown]
# **What this shows.** Read down a column: with five times the pictures FID falls by half, whatever
# the method. Read across the methods of one amount: they differ by a point or two. The amount of data
# moves FID some forty times as far as the choice of method. Serial LoRA is behind LoRA in seven of
# twelve cells.
#
# CLIP-Scores lie between 0.66 and 0.83. As 2.5 times a cosine that is 0.26 to 0.33, which is usual
# for CLIP ViT-B; a bare cosine would not be so high, and a softmax over one number would be 1
# everywhere. The paper does not say which it is.
#
# Does this fall of FID mean that more training pictures give a better style? There is another reading. The
# paper does not say how many pictures were drawn, nor with how many real ones they were compared in a 20%
# cell, and FID of fewer pictures is larger. The printed numbers cannot decide it; KID could. Our records,
# in which both numbers are the same everywhere:

# %%
some = results  # change this and run again: results[results["dataset"] != "night"]
relative = tables.falls(some)
display_table(relative.map("{:.0%}".format).reset_index())

# %% [markdown]
# **What this shows.** In the paper, and in our records, FID with all pictures is a little more than
# half of what it is with a fifth of them. How much of the paper's fall is just that FID is smaller
# with more pictures? Two halves of *real* pictures, above, fall as far with no model at all. In our
# records drawings and real pictures are as many everywhere, so there it is the model.
#
# Model, pictures and features differ, so our fall does not refute theirs. Without an unadapted model the paper's
# table does not show how far either method *moved*. ([`CLAIMS.md`](../CLAIMS.md) goes through all of the
# paper.)
#
# ## At the paper's scale
#
# One word in the opening, `SCALE = "paper"`, and this notebook runs on SD3 medium: its first cell says whether a
# step fits the card. SD3 medium is *gated*: the hub gives it to those who have accepted its licence and are
# logged in. On a machine with a GPU and a network, in a terminal:
#
# ```
# hf auth login                                # after accepting the licence on the model's page
# python data_scripts/fetch.py sd3             # SD3 medium; --without-t5 for less than half of it
# python data_scripts/fetch.py artbench        # Art Nouveau, Impressionism, titles as captions
# python data_scripts/fetch.py sara            # Barbie, Cyberpunk
# serial-lora lab sd3 --scale paper --dataset art_nouveau --percent 20,50,100 --seeds 3
# serial-lora lab sd3 --scale paper --dataset all --methods all --percent 100 --resolution 1024
# accelerate launch -m serial_lora_course.cli lab sd3 --scale paper --dataset barbie,cyberpunk
# ```
#
# Every script resumes, verifies, and says what must be fetched by hand; `--help` names its licence.
#
# Does it fit a card? The numbers were *counted once, from shapes*, for one picture and Serial LoRA of rank 64.
# They leave out the driver, gaps in the memory, and what an operation holds for a moment.
#
# | part | parameters | GiB |
# |---|---:|---:|
# | transformer | 2,028,328,000 | 3.78 |
# | CLIP ViT-L text encoder | 123,650,304 | 0.23 |
# | OpenCLIP ViT-bigG text encoder | 694,659,840 | 1.29 |
# | T5 v1.1 XXL encoder | 4,762,310,656 | 8.87 |
# | autoencoder, in float32 | 83,819,683 | 0.31 |
#
# | a step, GiB | 512 pixels | 1024 pixels |
# |---|---:|---:|
# | everything loaded | 15.45 | 17.78 |
# | T5 in 8 bits | 12.08 | 14.41 |
# | latents and prompts cached, encoders sent away | 4.74 | 7.08 |
# | and gradient checkpointing | 3.97 | 4.29 |
# | and the transformer in 4 bits | 1.26 | 1.57 |
#
# At 1,024 pixels a step takes 17.8 GiB with all parts loaded. Keep latents and prompts, and T5 need not stay:
# 7.1. With checkpointing 4.3: a small card will do.
#
# Caching latents and prompts (and sending text encoders and autoencoder away) is the largest saving by far:
# that is what lets SD3 medium be tuned on one card. Checkpointing is the second. Fewer bits are the third: 8
# for T5 where it stays loaded, 4 for the frozen transformer, since an adapter's training reads what its
# layers answer and never their weights. (This lesson's runs use neither: they send T5 away, or leave it to
# the CPU where it does not fit.) The adapter's own numbers, with gradients and optimizer, are small beside
# all three.
#
# ## Leave the machine as you found it
#
# The last cell forgets the tuned twins and what else was remembered, and takes the model off the card. It has
# no adapter to take out, since both went into twins.

# %%
from serial_lora import adapters

tuned.cache_clear()
studio.forget()
for name in "style everything drawings panel own adapted stock task".split():
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
# first, and has changed the second without control. What the difference holds now is no longer the
# prompt alone, and at 7 it is stretched far. Text dropout trains both answers.
#
# </details>

# %% [markdown]
# ## Key points
#
# - SD3 draws in latents: (z - shift) · scale on the way in, and back on the way out. A mistake made twice
#   is invisible in the round trip.
# - Rectified flow: a straight line from picture to noise, its velocity n - x, and a mean squared error.
#   Drawing goes back in steps along the model's answers.
# - Attention is where the streams meet; it is called by keyword. Serial LoRA adapts the image stream, one
#   pair a block.
# - Encode once, and keep it under the picture's name. By step or position it comes back with the wrong
#   caption, silently.
# - Guidance needs an answer to the empty prompt, so training drops some captions.
# - FID and KID see the set and not the prompt, CLIP-Score the prompt and not the style. FID falls with
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
