# %% [markdown]
# # 05 · SAM: masks of a new kind of picture
#
# You cut things out of photographs: a koala, a kettle, a flower, each from whatever it lies on. For a hundred scenes
# the masks are known: which pixels belong to the thing. For the rest there is SAM, the *Segment Anything Model*:
# draw a box around a thing, and it answers with its mask. Meta's SAM learnt that from eleven million photographs. Ours
# is small and learnt it from drawings alone: it has never seen a photographed thing.
# <!-- from Kirillov et al. 2023: eleven million -->
#
# (The scenes are composed: things lie over other photographs, and round patches of these between them, so every mask is
# exact.)
#
# You will build what it takes to change this: the preprocessing, the loss, the training step. Then you look at single
# pictures, and at the end you drag boxes over some.

# %%
try:
    import serial_lora_course  # before PyTorch: it tells idle threads to sleep
except ModuleNotFoundError:
    raise ImportError("The course is not installed: do first what README.md says.") from None

# %%
import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking import check, lesson_card, yours
from serial_lora_course.labs import sam as lab
from serial_lora_course.labs.lesson import open_lesson
from serial_lora_course.plots.masks import plot_masks
from serial_lora_course.plots.style import display_drawing, display_figure

lesson_card("05")

# %%
SCALE = os.environ.get("SERIAL_LORA_SCALE", "tiny")  # or "paper", Meta's ViT-B: docs/scale.md
lesson = open_lesson("sam", SCALE, os.environ.get("SERIAL_LORA_LENGTH", "class"))
model, config, data = lesson.model, lesson.config, lesson.data
tests = [data.test[i] for i in range(len(data.test))]

some = {"most things": max(tests, key=lambda each: len(each.masks)), "the first": tests[0]}
known = [each.masks for each in some.values()]  # (N, H, W), bool
by_sam = [lab.predict_masks(lesson.backbone, each.picture, each.boxes)[0] for each in some.values()]
display_figure(plot_masks(some, {"the true masks": known, "by SAM": by_sam}))
print(f"{len(tests)} scenes to test on")

# %% [markdown]
# A false positive is what SAM marked though it is not part of the thing. This SAM knows only drawings: flat colours,
# clean edges. The orange is nearly that, and is found. The grey rabbit lies on grey coins: SAM loses its rump and legs,
# and takes a coin for rabbit. (No thing and no background of the test is in a training scene.)
#
# ## Three parts
#
# SAM does not name things; it only outlines them. Its **image encoder**, a vision transformer, turns a picture into a
# grid of vectors. The **prompt encoder** turns a box into two tokens, one for each corner. In the **mask decoder**
# grid and tokens attend to each other, and the result is a mask.

# %%
display_drawing("sam_parts")

# %%
sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
for name, size in sizes.items():
    print(f"{name:15} {size:9,} parameters, {size / sum(sizes.values()):.0%}")

# %% [markdown]
# Nine tenths of SAM is the encoder, and it runs *once per picture*. The small decoder only works per box. That is why
# SAM answers so quickly when you draw one box after another.
#
# We adapt the encoder only, as the paper does: what SAM has not learnt is to see photographs.
#
# ## The number to beat
#
# How bad was that mask? The usual measure is the **Dice coefficient** of a found mask A and the true one B: twice the
# pixels that they share, over the pixels of both.
#
# $$\text{Dice}(A, B) = \frac{2\,|A \cap B|}{|A| + |B|}$$
#
# It is 1 for equal masks and 0 for masks without a common pixel. Background that neither mask covers does not count.


# %%
def dice_of(found: Tensor, truth: Tensor) -> Tensor:
    """Of each object, (N,); masks are bool, (N, H, W)."""
    shared = (found & truth).sum((1, 2))
    return 2 * shared / (found.sum((1, 2)) + truth.sum((1, 2)))


def dice_of_tests(found: list) -> np.ndarray:
    """Of each test picture, the mean over its objects."""
    pairs = zip(found, tests, strict=True)
    return np.array(
        [dice_of(torch.as_tensor(f), torch.as_tensor(t.masks)).mean() for f, t in pairs]
    )


# %% [markdown]
# A Dice alone says little. So compare SAM's with that of an answer which never looks at the picture: fill the whole
# box. What do you expect?


# %%
def by_filling(each) -> Tensor:
    masks = torch.zeros(each.masks.shape, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, each.boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def by_model(backbone) -> list:
    return [lab.predict_masks(backbone, each.picture, each.boxes)[0] for each in tests]


masks_before = by_model(lesson.backbone)
filled, before = dice_of_tests([by_filling(each) for each in tests]), dice_of_tests(masks_before)
print(f"the box filled: {filled.mean():.2f}")
print(f"SAM:            {before.mean():.2f}")

# %% [markdown]
# SAM, with its three million parameters, scores 0.67, and a rectangle that knows only the box 0.66. **Remember the
# rectangle.**
#
# ## Preprocessing
#
# Before you adapt a model, make sure that it sees what you think it sees. SAM takes only squares of one size. A
# picture is scaled until its *longer* side fits, and the rest of the square is filled with zeros, at the bottom or on
# the right. The boxes are given in the picture's own pixels, so they have to be scaled with it.

# %% [markdown]
# ### Exercise 5.1 · Into the model's frame
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●○○○ | ●●●●○ | 8 |
#
# Return the size of the scaled picture, and its boxes in it. Sizes are whole pixels, rounded to the nearest (a half
# goes up). So the two sides are scaled by *nearly* the same factor: scale the boxes by the factor of each side after
# rounding. The padding changes no box: it comes after the last pixel.


# %% tags=["exercise"]
def to_model_frame(
    size: tuple[int, int], boxes: Tensor, side: int
) -> tuple[tuple[int, int], Tensor]:
    """The size of a picture whose longer side became `side`, and its boxes there.

    Args:
        size: (height, width) of the picture.
        boxes: (N, 4), x0, y0, x1, y1 in the picture's pixels.
        side: of the model's square input, in pixels.

    Returns:
        (height, width) after scaling, whole numbers; and the boxes, (N, 4).
    """
    # BEGIN SOLUTION
    factor = side / max(size)
    height, width = (int(edge * factor + 0.5) for edge in size)
    across, down = width / size[1], height / size[0]
    return (height, width), boxes * torch.tensor([across, down, across, down])
    # END SOLUTION


check("5.1", to_model_frame)

# %% [markdown]
# <details><summary>Hint 1: one factor, two sides</summary>
#
# The factor is `side / max(height, width)`. Multiply both sides by it, add one half, and `int(...)`
# cuts off the rest.
#
# </details>
# <details><summary>Hint 2: which number belongs to x?</summary>
#
# x runs along the width, y along the height, and a box is x, y, x, y. Sizes are given as (height,
# width): the other way round. The boxes' factors are new width / old width and new height / old
# height.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_sam_segmentation.ipynb)

# %% [markdown]
# Now prepare a whole scene with it: the picture, the boxes, and the true masks, which training needs at this size too.
# The package's own `lab.prepare` does the same with segment-anything's functions. Do the two agree on every test
# scene?

# %%
frame_of = yours("5.1")
side = model.image_encoder.img_size  # of the square, in pixels


def prepare(each) -> lab.PreparedExample:
    """A scene in SAM's frame: .picture (3, h, w), .boxes (N, 4), .truth (N, h, w)."""
    masks, boxes = torch.as_tensor(each.masks), torch.as_tensor(each.boxes)
    original_size = tuple(masks.shape[1:])  # (H, W)
    (height, width), boxes = frame_of(original_size, boxes, side)
    picture = each.picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    picture = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (3, h, w)
    shares = F.interpolate(masks[:, None].float(), (height, width), mode="bilinear", antialias=True)
    parts = (part.to(model.device) for part in (picture, boxes, shares[:, 0] >= 0.5))
    return lab.PreparedExample(*parts, original_size)


pictures, boxes = 0, 0.0
for each in tests:
    mine, theirs = prepare(each), lab.prepare(each, side)
    pictures += torch.equal(mine.picture.cpu(), theirs.picture)
    boxes = max(boxes, (mine.boxes.cpu() - theirs.boxes).abs().max().item())
print(f"{pictures} of {len(tests)} pictures are equal, and boxes differ by {boxes:.0e} pixels")

# %% [markdown]
# ## Through the model, and back
#
# Now send a scene through the three parts of the drawing. Follow the shapes: one picture goes in, and a mask for each
# of its boxes comes out.

# %%
number = tests.index(some["most things"])
ready = prepare(tests[number])
with torch.no_grad():
    picture = model.preprocess(ready.picture)[None]  # minus the mean colour, padded with zeros
    embedding = model.image_encoder(picture)  # once a picture
    corners, dense = model.prompt_encoder(points=None, boxes=ready.boxes, masks=None)
    logits, _ = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),  # where each vector lies
        sparse_prompt_embeddings=corners,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )  # once a box
    back = model.postprocess_masks(logits, ready.input_size, ready.original_size)
passed = {"picture": picture, "embedding": embedding, "corners": corners}
for name, tensor in (passed | {"logits": logits, "back": back}).items():
    print(f"{name:10} {tuple(tensor.shape)}")

# %% [markdown]
# A **logit** above 0 means "this pixel belongs to the object". The decoder answers on a coarse grid.
# `postprocess_masks` brings the answer back in three steps: scale it up to the square, *cut the padding off*, and
# scale the rest to the picture's own size.
#
# Here are three common mistakes: the boxes stay in the picture's pixels; x and y are exchanged; the padding is not
# cut off. Which of them will raise an error?


# %%
@torch.no_grad()
def four_ways(each) -> dict[str, Tensor]:
    """Masks (N, H, W), bool, in the picture's own pixels; one embedding answers all."""
    ready = prepare(each)
    embedding = model.image_encoder(model.preprocess(ready.picture)[None])

    def answer(boxes: Tensor, input_size: tuple[int, int] = ready.input_size) -> Tensor:
        logits = lab.decode(model, embedding, boxes)  # prompt encoder and decoder, as above
        return (model.postprocess_masks(logits, input_size, ready.original_size)[:, 0] > 0).cpu()

    return {
        "right": answer(ready.boxes),
        "boxes not scaled": answer(torch.as_tensor(each.boxes, device=model.device)),
        "x and y exchanged": answer(ready.boxes[:, [1, 0, 3, 2]]),
        "padding not cut off": answer(ready.boxes, (side, side)),
    }


found = [four_ways(each) for each in tests]
for name in found[0]:
    print(f"{name:20} Dice {dice_of_tests([masks[name] for masks in found]).mean():.2f}")
shown = {name: [masks] for name, masks in found[number].items()}
display_figure(plot_masks({"most things": tests[number]}, shown))

# %% [markdown]
# None of them. You get masks, but with a lower Dice. It is below the filled box's 0.66: that is how you could notice.
#
# Somebody with the third bug could start at 0.52, train the model until it makes up for the bug, and publish the gain.
# So test pre- and postprocessing alone, before any training, on pictures that are not square. In the last picture
# above, a Dice of 0.78 in place of 0.91 says that something is wrong. Only the mask says what: all of it is squeezed
# upwards.
#
# ## Windows, and zeros that must stay zero
#
# In lesson 03 the adapter went after the norm, before q, k and v. But SAM has something in between.
#
# Attention compares every token with every other, and SAM ViT-B has 4,096 of them. So most of its blocks attend
# within **windows**: the grid of tokens is cut into squares, and a token attends only to its own square. In a few
# **global** blocks every token attends to all others. Now the grid is 64 tokens wide, and windows of 14 do not fit.
# So SAM adds *zero tokens* at the bottom and on the right until they do. Should the pair come before this padding, or
# after? <!-- from segment-anything, build_sam.py: 4,096, 64, 14 -->

# %% [markdown]
# ### Exercise 5.2 · Through the windows
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●○○ | 10 |
#
# Write the attention half of a SAM block with an adapter in it. Use two functions of segment-anything:
#
# - `window_partition(tokens, window_size)` returns the windows (N, window_size, window_size, d), padded,
#   and the padded height and width;
# - `window_unpartition(windows, window_size, padded, (H, W))` puts them together again and cuts the
#   padding off.
#
# A global block has `window_size` 0 and attends to the whole picture. The check also tries an adapter *with a bias*:
# even then, the added zeros must still be zeros when attention reads them.


# %% tags=["exercise"]
from segment_anything.modeling.image_encoder import window_partition, window_unpartition


def adapted_windows(block: nn.Module, adapter: nn.Module, x: Tensor) -> Tensor:
    """x plus the attention of a SAM block that reads adapted tokens.

    Args:
        block: has `norm1`, `window_size`, and `attn`, which takes windows or a whole picture,
            (N, height, width, d) -> the same shape.
        adapter: (..., d) -> (..., d).
        x: (B, H, W, d), the residual stream.

    Returns:
        (B, H, W, d).
    """
    # BEGIN SOLUTION
    tokens = adapter(block.norm1(x))  # (B, H, W, d), before any padding
    if block.window_size == 0:
        return x + block.attn(tokens)
    windows, padded = window_partition(tokens, block.window_size)
    attended = block.attn(windows)  # (N, window, window, d)
    return x + window_unpartition(attended, block.window_size, padded, tuple(x.shape[1:3]))
    # END SOLUTION


check("5.2", adapted_windows)

# %% [markdown]
# <details><summary>Hint 1: the block without an adapter</summary>
#
# Norm; if there are windows, partition; attention; if there are windows, unpartition; add x. You need
# one more call.
#
# </details>
# <details><summary>Hint 2: where the call goes</summary>
#
# Before `window_partition`: then the adapter sees the picture's tokens and no others. Height and width
# for `window_unpartition` are those of x, `x.shape[1:3]`.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_sam_segmentation.ipynb)

# %% [markdown]
# Does it matter? Put an adapter after the padding (hatched) on purpose, in a block with ViT-B's windows: once without a
# bias, as a pair is, and once with one. Then run your function in all blocks of our SAM: does it give what `inject`
# gives?

# %%
from segment_anything.modeling.image_encoder import Block

from serial_lora_course.lessons.l05_sam.figures import plot_token_errors

half_block = yours("5.2")
torch.manual_seed(0)
block = Block(dim=64, num_heads=2, use_rel_pos=True, window_size=14, input_size=(64, 64)).eval()
x, errors = torch.randn(1, 64, 64, 64), {}  # (B, H, W, d)
with torch.no_grad():
    windows, padded = window_partition(block.norm1(x), 14)  # (25, 14, 14, d)
    for name, bias in (("without a bias", False), ("with a bias", True)):
        adapter = nn.Linear(64, 64, bias=bias)  # x + B A x is such a map
        late = x + window_unpartition(block.attn(adapter(windows)), 14, padded, (64, 64))
        errors[name] = (late - half_block(block, adapter, x)).norm(dim=-1)[0].numpy()  # (H, W)
display_figure(plot_token_errors(errors, window=14))
for name, error in errors.items():
    print(f"{name:15} {(error > 1e-4).sum():4} of {error.size} tokens wrong")

# %%
from serial_lora import SerialLoRAConfig, inject

torch.manual_seed(0)
adapted, encoder = lesson.twin().model, model.image_encoder  # a copy with the same weights
inject(adapted, SerialLoRAConfig(rank=config.rank))
pairs = [part for part in adapted.modules() if hasattr(part, "lora_B")]  # one a block
with torch.no_grad():
    tokens = encoder.patch_embed(picture) + encoder.pos_embed  # (1, grid, grid, d)
    for block, one in zip(encoder.blocks, pairs, strict=True):
        nn.init.normal_(one.lora_B, std=0.02)  # as if trained
        tokens = half_block(block, one, tokens)
        tokens = tokens + block.mlp(block.norm2(tokens))
    by_hand = encoder.neck(tokens.permute(0, 3, 1, 2))  # (1, c, grid, grid)
    injected = adapted.image_encoder(picture)
print(f"yours and inject's: {(by_hand - injected).abs().max():.0e} apart")
print(f"SAM's and inject's: {(embedding - injected).abs().max():.0e} apart")
print(
    f"windows of {[block.window_size for block in encoder.blocks]} on a grid of {tokens.shape[1]}"
)

# %% [markdown]
# Without a bias zeros stay zero. With one they are no longer the zeros that SAM learnt to see there: 960 of 4096 come
# out wrong, without an error. Our small SAM's windows of 8 fit its grid of 16, so here nothing is padded.
#
# ## A loss with a gradient
#
# Dice of a mask has no gradient: change a logit a little, and no pixel of the mask changes. So training
# takes the **soft** Dice, of probabilities p instead of yes and no, and adds cross-entropy:
#
# $$\text{loss} = \underbrace{1 - \frac{2\sum p\,g + \epsilon}{\sum p^2 + \sum g^2 + \epsilon}}_{\text{soft Dice loss}}
# \;+\; \underbrace{\frac{1}{\text{pixels}}\sum \text{BCE}(p, g)}_{\text{cross-entropy}},
# \qquad p = \sigma(\text{logit})$$
#
# with the truth g and ε = 0.00001. Soft Dice measures the object as a whole, and a small object counts as much as a
# large one. Cross-entropy still pulls at a pixel that is confidently wrong, where soft Dice is flat.

# %% [markdown]
# ### Exercise 5.3 · The loss
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●○○ | ●●●●● | 10 |
#
# Each object has its own loss, and the picture's loss is their mean. `F.binary_cross_entropy_with_logits` takes
# *logits* and does the sigmoid itself.


# %% tags=["exercise"]
def segmentation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice plus cross-entropy, the mean over a picture's objects.

    Args:
        logits: (N, H, W), one mask for each of N objects.
        truth: bool, (N, H, W).

    Returns:
        A scalar that gradients can flow back from.
    """
    # BEGIN SOLUTION
    p, g = logits.sigmoid(), truth.float()  # (N, H, W)
    overlap = (p * g).sum((1, 2))  # (N,)
    areas = p.square().sum((1, 2)) + g.square().sum((1, 2))  # (N,)
    soft_dice = 1 - (2 * overlap + 1e-5) / (areas + 1e-5)  # (N,)
    entropy = F.binary_cross_entropy_with_logits(logits, g, reduction="none").mean((1, 2))  # (N,)
    return (soft_dice + entropy).mean()
    # END SOLUTION


check("5.3", segmentation_loss)

# %% [markdown]
# <details><summary>Hint 1: one sigmoid</summary>
#
# `p = logits.sigmoid()` is for the Dice part. The cross-entropy gets `logits` and the truth as floats.
#
# </details>
# <details><summary>Hint 2: sums and means</summary>
#
# Sum over height and width only, `.sum((1, 2))`, so that N values remain. For the cross-entropy
# `reduction="none"` and `.mean((1, 2))`. The mean over the N objects comes last.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_sam_segmentation.ipynb)

# %% [markdown]
# ## One training step
#
# Three facts about SAM decide how to put everything together:
#
# - `Sam.forward` switches gradients off, as it was not written for training. So call the parts yourself, as above.
# - The encoder takes a batch of pictures. The decoder takes *one* picture and all of its boxes. If there is only
#   one box, it accepts several pictures without an error.
# - The true masks of a prepared scene have the scaled picture's size, `each.input_size`, without padding.

# %% [markdown]
# ### Exercise 5.4 · The training step
#
# | Difficulty | Importance | Minutes |
# |---|---|---|
# | ●●●●○ | ●●●●● | 20 |
#
# Write one whole step: encode the batch once, decode picture by picture, bring each picture's logits to the size of
# its truth, take the mean of the pictures' losses, and let the optimizer make one step. You have `model.preprocess`,
# `model.image_encoder`, `lab.decode` and `model.postprocess_masks`.


# %% tags=["exercise"]
def training_step(model: nn.Module, batch: list, loss_of, optimizer) -> float:
    """One step of the optimizer on a batch; returns the loss before it, a plain number.

    Args:
        model: a SAM, with pairs that learn in its image encoder.
        batch: prepared scenes, each with .picture, .boxes, .truth and .input_size.
        loss_of: logits (N, h, w) and truth (N, h, w) of one picture -> its loss.
        optimizer: of the pairs.
    """
    # BEGIN SOLUTION
    pictures = torch.stack([model.preprocess(each.picture) for each in batch])  # (B, 3, S, S)
    embeddings = model.image_encoder(pictures)  # (B, c, grid, grid)
    losses = []
    for embedding, each in zip(embeddings, batch, strict=True):
        logits = lab.decode(model, embedding[None], each.boxes)  # (N, 1, h, w)
        logits = model.postprocess_masks(logits, each.input_size, each.input_size)[:, 0]
        losses.append(loss_of(logits, each.truth))
    loss = torch.stack(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    # END SOLUTION


check("5.4", training_step)

# %% [markdown]
# <details><summary>Hint 1: six lines forward</summary>
#
# `torch.stack` the preprocessed pictures and encode them. Then a loop over embeddings and scenes:
# `lab.decode(model, embedding[None], each.boxes)` gives (N, 1, h, w); `postprocess_masks` wants two sizes,
# the one to cut at and the one to end with, and here both are `each.input_size`; `[:, 0]` makes it
# (N, h, w) for the loss.
#
# </details>
# <details><summary>Hint 2: four lines back</summary>
#
# `torch.stack(losses).mean()`, then `optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`, in this order.
# Return `loss.item()`, so that nobody keeps the graph.
#
# </details>
#
# Solution: [the solved lesson](../solutions/05_sam_segmentation.ipynb)

# %% [markdown]
# ## The run
#
# What is left is the loop, and here is all of it: epochs over the training scenes, each in a new order; boxes moved a
# little at random, since nobody draws a perfect box; AdamW, with a learning rate that falls to zero along a cosine.
# Each method gets the rate that did best for it, of three or more, in [the study](../docs/study.md). A run takes less
# than a minute on two free cores.

# %%
from torch.optim.lr_scheduler import CosineAnnealingLR

from serial_lora import LoRAConfig, adapter_parameters
from serial_lora_course.labs.sam_inputs import jitter_boxes
from serial_lora_course.lessons.l05_sam.memory import save_memory

loss_of, step = yours("5.3"), yours("5.4")
chosen = torch.tensor(lesson.kind.indices(data, lesson.amount, 1))  # of the training scenes


def adapt(adapter, lr: float):
    """A SAM with that adapter, trained at that rate."""
    tuned = lesson.twin()
    torch.manual_seed(1)
    inject(tuned.model, adapter)
    torch.manual_seed(1)  # again: how many numbers A drew must not change the order of the scenes
    if SCALE == "paper":
        save_memory(tuned.model.image_encoder, lesson.autocast())  # bfloat16 where a GPU has it
    optimizer = torch.optim.AdamW(adapter_parameters(tuned.model), lr=lr, weight_decay=0)
    orders = [chosen[torch.randperm(len(chosen))] for _ in range(config.epochs)]
    epochs = [order.split(config.batch_size) for order in orders]
    slower = CosineAnnealingLR(optimizer, sum(map(len, epochs)))
    for number, batches in enumerate(epochs, start=1):
        losses = []
        for some in batches:
            batch = [jitter_boxes(prepare(data.train[i]), config.jitter) for i in some.tolist()]
            losses.append(step(tuned.model, batch, loss_of, optimizer))
            slower.step()
        print(f"epoch {number}, {number * len(batches)} steps: mean loss {np.mean(losses):.3f}")
    return tuned


# %% [markdown]
# Before you run it: on how many of the test pictures will the mask get *worse*?

# %%
print(f"rank {config.rank}, rate {config.lr}, {config.epochs} epochs of {len(chosen)} scenes")
print(f"in batches of {config.batch_size}, boxes' edges moved by some {config.jitter} of a side")
serial = adapt(SerialLoRAConfig(rank=config.rank), config.lr)
masks_after = by_model(serial)
after = dice_of_tests(masks_after)
learnt = sum(p.numel() for p in adapter_parameters(serial.model))
print(f"{learnt:,} parameters trained, {learnt / sum(sizes.values()):.1%} of the model")
print(
    f"Dice: the box filled {filled.mean():.2f}, SAM {before.mean():.2f}, adapted {after.mean():.2f}"
)

# %% [markdown]
# From 0.67 to 0.75, with pairs of 1.1% of the model's size, on things and five backgrounds that it has never seen, in
# one run. On average SAM is now well above the rectangle.
#
# ## Look at single pictures
#
# A mean does not show what happened to single pictures. So here is every test picture: on the left its Dice minus
# that of its own filled box, on the right before against after. Above the line is better.

# %%
from serial_lora_course.lessons.l05_sam.figures import plot_dice_per_picture

display_figure(plot_dice_per_picture({"not adapted": before, "Serial LoRA": after}, filled))
gains = after - before
print(f"gains from {gains.min():+.3f} to {gains.max():+.3f}")

# %% [markdown]
# 44 of 60 get better and 16 get worse, one by 0.084. Before, 22 were below their own rectangle; now 9 are.
# Look at the masks at both ends. First the two pictures that gained most.


# %%
def show_before_and_after(numbers) -> None:
    some = {f"scene {n}": tests[n] for n in numbers}
    masks = {"not adapted": masks_before, "Serial LoRA": masks_after}
    display_figure(plot_masks(some, {name: [m[n] for n in numbers] for name, m in masks.items()}))


order = np.argsort(-gains)  # from the largest gain to the largest loss
show_before_and_after(order[:2])

# %% [markdown]
# Of the chicken SAM had found little more than the white neck, a part of one colour, and of the dark woodlouse next to
# nothing. After 50 steps it finds most of both, but with the woodlouse it marks much of the tower. Now the picture that
# lost most, and the one with the lowest Dice after training.

# %%
show_before_and_after([order[-1], after.argmin()])

# %% [markdown]
# More of what lies below the beaver is marked than before. Of the mallet, dark on a dark sky, the handle is found now,
# and much of the sky is still marked. One scene gained 0.65, one lost 0.08, one is left at 0.28, and a mean of 0.75
# shows nothing of it. Would you use it on your own pictures? Perhaps; but look at every mask.
#
# ## LoRA through the same loop
#
# The loop takes any adapter. LoRA has one pair each for q, k, v and the output: at a quarter of the rank it is as large
# as Serial LoRA. Scenes, order, boxes and steps stay; its own best rate is three times as high. Which of the two cuts
# out better?

# %%
quarter, faster = config.rank // 4, config.lr * (3 if SCALE == "tiny" else 1)
lora, small = adapt(LoRAConfig(rank=quarter), faster), f"LoRA, rank {quarter}"
after_lora = dice_of_tests(by_model(lora))
display_figure(plot_dice_per_picture({"Serial LoRA": after, small: after_lora}, filled))
for name, sam, rate, dice in (
    ("Serial LoRA", serial, config.lr, after),
    (small, lora, faster, after_lora),
):
    learnt = sum(p.numel() for p in adapter_parameters(sam.model))
    print(f"{name:12} {learnt:7,} parameters, rate {rate:g}, Dice {dice.mean():.3f}")

# %% [markdown]
# At equal size the means are level, both 0.754, though LoRA is ahead on 35 of 60 scenes. But two runs cannot say which
# is better, and 60 scenes on only five photographs are not 60 independent draws. Lesson 08 judges such differences, and
# lesson 09 puts both beside other ways.
#
# ## Drag a box
#
# Every box so far was drawn around a thing. Drag one over any of the three panels; the masks follow your pointer. Try
#
# - a box that is far too large, and one that cuts the thing in half: which model suffers more?
# - a box around two things, or around nothing at all;
# - scale 0.5: is the mask halfway between the two? And a scale above 1?
#
# The first scene is the one that gained most, the second the one that lost most. (Without a kernel you see three such
# boxes over the first.)

# %%
from serial_lora_course.lessons.l05_sam.panel import mask_panel

panel = mask_panel(serial, [tests[n] for n in (order[0], order[-1], *order[1:-1:6])])

# %% [markdown]
# With the whole picture as their box, both models lose the chicken. Cut in half, the adapted one finds some of that
# half: Dice 0.34 in place of 0.06, against the whole chicken. Around nothing but sky and a mast, both mark nearly the
# whole box: neither tells you that there is nothing.
#
# ## Quiz
#
# **1. A report adapts SAM to photographs and gives a mean Dice of 0.66, without further numbers. Is that good?**
#
# <details><summary>Answer</summary>
#
# On these photographs, a filled box scores that too. You need that number, and the unadapted model's, on the same
# pictures.
#
# </details>
#
# **2. You hand the mask decoder the embeddings of four pictures and one box. What happens?**
#
# <details><summary>Answer</summary>
#
# No error: the box is used for each of the four pictures, and four masks come back, of which at most one is
# meant. Decode picture by picture.
#
# </details>
#
# **3. The mean Dice of your masks rose by 0.1. Name two things to look at before you tell anybody.**
#
# <details><summary>Answer</summary>
#
# The filled box's Dice on the same pictures, and the masks of the pictures that lost most. Better still, test pre- and
# postprocessing too: the gain may only make up for a bug of your own.
#
# </details>
#
# ## What to remember
#
# - SAM encodes once per picture and decodes once per box. The encoder is the part to adapt.
# - Pre- and postprocessing fail without an error. Test them alone, before you train.
# - A Dice says little without the filled box's.
# - The zeros that pad SAM's windows must stay zeros: an adapter comes before the padding, or has no bias.
# - Look at single masks. Some get worse while the mean gets better, here 16 of 60.
#
# Next: [lesson 06](06_sd3_style.ipynb), where the same small pairs change how Stable Diffusion 3 draws.
#
# The things are stamps of Tux Paint (its contributors, GPL-2 or later), over photographs that come with scikit-image
# and scikit-learn; the small SAM learnt from Twemoji (copyright Twitter, Inc. and contributors, CC BY 4.0).
# `DATA_LICENSES.md` says more. SAM is Kirillov et al. (2023), Dice as a loss Milletari et al., V-Net (2016).
# <!-- from the two papers: 2023, 2016 -->
