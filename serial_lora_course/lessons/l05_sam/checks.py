"""Checks of the exercises on SAM: its input frame, the adapter and the windows, the loss, a training step.

Every expected value is reached another way than in the lesson: with fractions, with one window or one
pixel at a time, with the lab's objective.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor
from torch.nn import functional as F

from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import adapter_parameters, inject
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise
from serial_lora_course.labs.sam import PreparedExample, SamObjective, decode
from serial_lora_course.lessons.l05_sam.blocks import Change, WindowBlock, one_window_at_a_time
from serial_lora_course.models.sam import build_sam

# ----------------------------------------------------------------- 5.1 into the model's frame

BOTH = "return both: the new size as a tuple, and the boxes"


def frame_by_fractions(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) after the longer side became ``side``, rounded to the nearest pixel."""
    return tuple(math.floor(Fraction(edge * side, max(size)) + Fraction(1, 2)) for edge in size)


def frame_with(
    size_of: Callable = lambda size, new, side: new,
    factors: Callable = lambda across, down: (across, down),
    end: Callable = lambda boxes, new, side: boxes,
) -> Callable:
    """A frame with one thing changed."""

    def attempt(size, boxes, side):
        new = tuple(int(edge * side / max(size) + 0.5) for edge in size)
        by = torch.tensor(factors(new[1] / size[1], new[0] / size[0])).repeat(2)
        return size_of(size, new, side), end(boxes * by, new, side)

    return attempt


def boxes_by(factors: Callable) -> Callable:
    """The right size, and boxes multiplied by ``factors(size, side)``."""
    return lambda size, boxes, side: (
        frame_with()(size, boxes, side)[0],
        boxes * torch.tensor(factors(size, side)).repeat(2),
    )


def middle(boxes, new, side):
    """As if the padding stood on all sides."""
    return boxes + torch.tensor([(side - new[1]) // 2, (side - new[0]) // 2]).repeat(2)


@exercise(
    "5.1",
    "sizes to the pixel and boxes to match, for wide, tall and square pictures",
    {
        "that is a squash: both sides get the same factor, the rest is padding": (
            frame_with(lambda size, new, side: (side, side))
        ),
        "turned round: (height, width), as arrays and tensors have it": (
            frame_with(lambda size, new, side: new[::-1])
        ),
        "the shorter side fills the frame, so the longer one does not fit: divide by the longer": (
            frame_with(lambda size, new, side: tuple(int(e * side / min(size) + 0.5) for e in size))
        ),
        "a half was rounded to the even number, as round() does: here a half goes up": (
            frame_with(lambda size, new, side: tuple(round(e * side / max(size)) for e in size))
        ),
        "a picture that is smaller than the frame is enlarged as well": (
            frame_with(lambda size, new, side: size if max(size) < side else new)
        ),
        "the boxes are where they were: they move with the picture": (
            frame_with(factors=lambda across, down: (1, 1))
        ),
        "x and y are exchanged: in a box x, along the width, comes first": (
            frame_with(factors=lambda across, down: (down, across))
        ),
        "scaled by the factor before rounding: the sides differ a little": (
            boxes_by(lambda size, side: [side / max(size)] * 2)
        ),
        "a box keeps its fractions of a pixel: only the picture's size is rounded": (
            frame_with(end=lambda boxes, new, side: boxes.round()),
            frame_with(end=lambda boxes, new, side: boxes.long()),
        ),
        "moved into the middle: the padding comes after the picture, so nothing is added": (
            frame_with(end=middle)
        ),
        "boxes are cut at the frame's last pixel: an edge may lie on the border": (
            frame_with(end=lambda boxes, new, side: boxes.clamp(max=side - 1))
        ),
    },
)
def to_model_frame() -> Iterator[Case]:
    """Sizes and boxes of wide, tall and square pictures, larger and smaller than the frame."""
    sizes = ((97, 160), 128), ((151, 103), 128), ((50, 83), 128), ((64, 64), 32), ((5, 256), 128)
    for (height, width), side in sizes:
        boxes = torch.tensor(
            [[10.0, 4.0, 60.0, 31.0], [0.0, 0.0, 20.5, 40.0], [0.0, 0.0, width, height]]
        )
        what = f"a picture {height} high and {width} wide in a frame of {side}"
        new = frame_by_fractions((height, width), side)
        down, across = new[0] / height, new[1] / width
        moved = boxes * torch.tensor([across, down, across, down])
        size = f"the size of {what}"
        yield Case(
            what,
            ((height, width), boxes, side),
            Parts({size: new, f"the boxes of {what}": moved}),
            form=BOTH,
            advice={size: "multiply height and width by side / max(height, width), then round"},
            tolerance=1e-6,
        )


# --------------------------------------------------------------- 5.2 the adapter and the windows


def half(
    tokens: Callable = lambda block, adapter, x: adapter(block.norm1(x)),
    inside: Callable = lambda block, adapter, cut: cut,
    stream: Callable = lambda block, adapter, x: x,
    crop: Callable = lambda x, padded: tuple(x.shape[1:3]),
) -> Callable:
    """The half block with one thing changed; ``inside`` acts on the windows, behind the padding."""

    def attempt(block, adapter, x):
        read, window, to = tokens(block, adapter, x), block.window_size, stream(block, adapter, x)
        if window == 0:
            return to + block.attn(inside(block, adapter, read))
        cut, padded = window_partition(read, window)
        attended = block.attn(inside(block, adapter, cut))
        return to + window_unpartition(attended, window, padded, crop(x, padded))

    return attempt


def always_in_windows(block, adapter, x):
    """Windows of side 0 too."""
    cut, padded = window_partition(adapter(block.norm1(x)), block.window_size)
    return x + window_unpartition(block.attn(cut), block.window_size, padded, tuple(x.shape[1:3]))


@exercise(
    "5.2",
    "equal to one window at a time, with and without padding, in a global block too, gradients "
    "included, and with padding that stays zero even for an adapter that has a bias",
    {
        "the adapter is missing": half(lambda block, adapter, x: block.norm1(x)),
        "the adapter sits behind the padding: with a bias its zeros do not stay zero": half(
            lambda block, adapter, x: block.norm1(x), lambda block, adapter, cut: adapter(cut)
        ),
        "the norm comes after the padding, and its bias turns the zeros into tokens": half(
            lambda block, adapter, x: x, lambda block, adapter, cut: adapter(block.norm1(cut))
        ),
        "the adapter is before the norm, not after it": half(
            lambda block, adapter, x: block.norm1(adapter(x))
        ),
        "the adapter changes the stream itself": half(
            lambda block, adapter, x: block.norm1(adapter(x)),
            stream=lambda block, adapter, x: adapter(x),
        ),
        "the adapter is on attention's output: it belongs in front of q, k and v": (
            lambda block, adapter, x: (
                x + adapter(half(lambda b, a, x: b.norm1(x))(block, adapter, x) - x)
            )
        ),
        "x itself is lost: attention's output is added to it": half(
            stream=lambda block, adapter, x: 0
        ),
        "the norm is left out": half(lambda block, adapter, x: adapter(x)),
        "the windows are forgotten: every token attends to the whole picture": (
            lambda block, adapter, x: x + block.attn(adapter(block.norm1(x)))
        ),
        "window_size 0 means no windows: all tokens attend": always_in_windows,
        "window_unpartition's last argument is height and width before the padding, x.shape[1:3]": (
            half(crop=lambda x, padded: padded),
            half(crop=lambda x, padded: tuple(x.shape[2:0:-1])),
            half(crop=lambda x, padded: tuple(x.shape)),
        ),
        "the block's second half is not asked for: norm2 and mlp stay out": (
            lambda block, adapter, x: x + block.mlp(block.norm2(x)),
            lambda block, adapter, x: x + block.mlp(x),
        ),
    },
)
def adapted_windows() -> Iterator[Case]:
    """Windows that fit, windows that need padding, no windows; a pair, and one with a bias."""

    def trainable(block, adapter, x: Tensor) -> dict[str, Tensor]:
        pair = {"lora_A": adapter.lora_A, "lora_B": adapter.lora_B}
        return pair | ({"x": x} if x.requires_grad else {})

    for bias in (False, True):
        for side, size in ((3, (6, 9)), (4, (7, 6)), (0, (5, 4))):
            block, adapter = WindowBlock(6, side), Change(6, bias)
            x = torch.randn(2, *size, 6).requires_grad_(bias)
            where = f"windows of {side}" if side else "a global block"
            kind = "an adapter that has a bias" if bias else "a Serial LoRA pair"
            yield Case(
                f"{where} on {size[0]} x {size[1]} tokens with {kind}",
                (block, adapter, x),
                x + one_window_at_a_time(block.attn, adapter(block.norm1(x)), side),
                leaves=trainable,
            )


# -------------------------------------------------------------------------------- 5.3 the loss


def loss_of_pixels(logits: Tensor, truth: Tensor, smoothing: float = 1e-5) -> Tensor:
    """Soft Dice with squares plus cross-entropy of (N, h, w), one pixel at a time, averaged."""
    losses = []
    for object_logits, object_truth in zip(logits.double(), truth.tolist(), strict=True):
        overlap = area = entropy = 0
        for row, inside in zip(object_logits, object_truth, strict=True):
            for logit, g in zip(row, inside, strict=True):
                p = 1 / (1 + torch.exp(-logit))
                overlap, area = overlap + p * g, area + p * p + g
                entropy = entropy + torch.log1p(torch.exp(-logit if g else logit))
        soft_dice = 1 - (2 * overlap + smoothing) / (area + smoothing)
        losses.append(soft_dice + entropy / object_logits.numel())
    return (sum(losses) / len(losses)).to(logits.dtype)


def soft_dice(x, g, p=torch.sigmoid, power=2, over=(1, 2), above=1e-5, below=1e-5, shared=2):
    """The Dice part with one thing changed."""
    p = p(x)
    areas = (p**power).sum(over) + g.sum(over)
    return 1 - (shared * (p * g).sum(over) + above) / (areas + below)


def entropy(x, g, over="mean", of=lambda x: x):
    """The cross-entropy part with one thing changed."""
    each = F.binary_cross_entropy_with_logits(of(x), g, reduction="none")
    return getattr(each, over)((1, 2))


def by_logarithms(x, g):
    """The cross-entropy written out: 0 * log 0 is not a number."""
    p = x.sigmoid()
    return -(g * p.log() + (1 - g) * (1 - p).log()).mean((1, 2))


def of_probabilities(x, g):
    """The cross-entropy that wants probabilities."""
    return F.binary_cross_entropy(x.sigmoid(), g, reduction="none").mean((1, 2))


def loss_with(
    dice: Callable = soft_dice,
    cross: Callable = entropy,
    join: Callable = lambda dice, cross: (dice + cross).mean(),
) -> Callable:
    """The loss with one part changed."""

    def attempt(logits, truth):
        g = truth.float()
        return join(dice(logits, g), cross(logits, g))

    return attempt


def dice_by(**changed) -> Callable:
    """The loss with one thing in its Dice part changed."""
    return loss_with(lambda x, g: soft_dice(x, g, **changed))


def one_side(over: int) -> Callable:
    """Dice of each row, or of each column."""
    return loss_with(
        lambda x, g: soft_dice(x, g, over=over), join=lambda dice, cross: dice.mean() + cross.mean()
    )


@exercise(
    "5.3",
    "equal to one pixel at a time, for sure logits and for an object that is not there too, and so is "
    "the gradient",
    {
        "sigmoid is taken twice: the cross-entropy takes logits, not probabilities": (
            loss_with(cross=lambda x, g: entropy(x, g, of=torch.sigmoid))
        ),
        "the Dice part counts masks of True and False: that has no gradient, use probabilities": (
            dice_by(p=lambda x: (x > 0).float())
        ),
        "the squares are missing in the denominator": dice_by(power=1),
        "Dice is added, not 1 - Dice: the loss would reward a wrong mask": (
            loss_with(lambda x, g: 1 - soft_dice(x, g))
        ),
        "only the Dice part": loss_with(cross=lambda x, g: 0),
        "only the cross-entropy": loss_with(lambda x, g: 0),
        "the cross-entropy is summed over pixels": (
            loss_with(cross=lambda x, g: entropy(x, g, "sum"))
        ),
        "the 2 above the line is missing": dice_by(shared=1),
        "epsilon is 0.00001, not 1": dice_by(above=1, below=1),
        "epsilon is missing, above the line or below it": (
            dice_by(above=0, below=0),
            dice_by(above=0),
            dice_by(below=0),
        ),
        "the losses of the objects are summed: their mean is wanted": (
            loss_with(join=lambda dice, cross: (dice + cross).sum())
        ),
        "all objects are counted as one, and large ones outweigh small ones: Dice of each": (
            dice_by(over=(0, 1, 2))
        ),
        "the Dice part sums over one side of the picture: over both, dims (1, 2)": (
            one_side(2),
            one_side(1),
        ),
        "that is one loss an object: take the mean over the objects": (
            loss_with(join=lambda dice, cross: dice + cross)
        ),
        "0 * log 0 is not a number: F.binary_cross_entropy_with_logits takes logits of any size": (
            loss_with(cross=by_logarithms)
        ),
        "F.binary_cross_entropy of probabilities gives up at sure logits: take ..._with_logits": (
            loss_with(cross=of_probabilities)
        ),
        "truth is of True and False: make numbers of it first, truth.float()": (
            lambda x, truth: F.binary_cross_entropy_with_logits(x, truth),
            lambda x, truth: 1 - truth,
        ),
        "half precision is too coarse for a loss: keep the kind of numbers that came in": (
            lambda x, truth: loss_with()(x.half(), truth).float(),
            lambda x, truth: loss_with()(x.bfloat16().float(), truth),
        ),
    },
)
def segmentation_loss() -> Iterator[Case]:
    """The value for one object and for several of unlike sizes, and the gradient of every logit."""
    for what, count, height, width in (
        ("one object", 1, 4, 5),
        ("three objects", 3, 5, 4),
        ("two objects, sure of every pixel and wrong in one,", 2, 4, 5),
        ("two objects, one of which is not there,", 2, 4, 5),
    ):
        logits = 2 * torch.randn(count, height, width)
        truth = torch.zeros(count, height, width, dtype=torch.bool)
        for index in range(count):  # objects of 2, 6, 12 pixels: the mean is not the sum's ratio
            truth[index, : index + 1, : 2 + index] = True
        if "sure" in what:
            logits = torch.where(truth, 30.0, -30.0)
            logits[0, 3, 3] = 30.0
        if "not there" in what:
            truth[0], logits[0] = False, -30.0
        logits.requires_grad_()
        yield Case(
            f"the loss of {what} of {height} x {width} pixels",
            (logits, truth),
            loss_of_pixels(logits, truth),
            leaves=lambda logits, _: {"the logits": logits},
        )


# ----------------------------------------------------------------------- 5.4 a training step

SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "width": 16,
    "blocks": 2,
    "heads": 2,
    "window": 3,
    "global_blocks": [1],
    "prompt_width": 16,
    "decoder_heads": 2,
    "decoder_mlp": 16,
}
RATE = 30.0  # of plain gradient descent; a random decoder's gradients are small


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """A loss that is not the lesson's: a step takes the one that it is given."""
    return F.binary_cross_entropy_with_logits(logits, truth.float())


def some_examples(sizes: list[tuple[int, int, int]]) -> list[PreparedExample]:
    """Noise with (height, width, objects), each object a rectangle with its box."""
    batch = []
    for height, width, objects in sizes:
        picture = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        truth, boxes = torch.zeros(objects, height, width, dtype=torch.bool), []
        for index in range(objects):
            x0, y0 = 2 + 5 * index, 1 + 3 * index
            truth[index, y0 : y0 + 9, x0 : x0 + 8] = True
            boxes.append([x0, y0, x0 + 8.0, y0 + 9.0])
        batch.append(PreparedExample(picture, torch.tensor(boxes), truth, (2 * height, 2 * width)))
    return batch


def two_steps(step: Callable) -> Callable:
    """What a step makes of a model: two batches, plain gradient descent."""

    def trained(model: Sam, batches: list) -> tuple[list, dict[str, Tensor]]:
        optimizer = torch.optim.SGD(adapter_parameters(model), lr=RATE)
        losses = [step(model, batch, cross_entropy, optimizer) for batch in batches]
        return losses, dict(model.named_parameters())

    return trained


def by_the_objective(model: Sam, batches: list) -> tuple[list[float], Sam]:
    """The same by the lab's objective, which decodes all boxes at once, and by hand."""
    model, losses = copy.deepcopy(model), []
    objective = SamObjective(model, loss=cross_entropy)
    pairs = list(adapter_parameters(model))
    for batch in batches:
        loss = objective(batch)
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, slope in zip(pairs, torch.autograd.grad(loss, pairs), strict=True):
                parameter -= RATE * slope
    return losses, model


def step_with(
    way_in: Callable = lambda model, picture: model.preprocess(picture),
    encoded: Callable = lambda model, pictures: model.image_encoder(pictures),
    which: Callable = lambda embeddings, index: embeddings[index][None],
    back: Callable = lambda model, logits, each: model.postprocess_masks(
        logits, each.input_size, each.input_size
    ),
    read: Callable = lambda logits: logits[:, 0],
    join: Callable = lambda losses, batch: torch.stack(losses).mean(),
    end: Callable = lambda loss, optimizer: (
        optimizer.zero_grad(),
        loss.backward(),
        optimizer.step(),
    ),
) -> Callable:
    """A training step with one thing changed."""

    def step(model, batch, loss_of, optimizer):
        embeddings = encoded(model, torch.stack([way_in(model, each.picture) for each in batch]))
        losses = []
        for index, each in enumerate(batch):
            logits = decode(model, which(embeddings, index), each.boxes)
            losses.append(loss_of(read(back(model, logits, each)), each.truth))
        loss = join(losses, batch)
        end(loss, optimizer)
        return loss.item()

    return step


def all_at_once(model, batch, loss_of, optimizer):
    """All boxes of the batch in one call."""
    embeddings = model.image_encoder(
        torch.stack([model.preprocess(each.picture) for each in batch])
    )
    return decode(model, embeddings, torch.cat([each.boxes for each in batch]))


def with_padding(model, logits, each):
    """The whole square, squeezed to the picture's size."""
    return model.postprocess_masks(logits, (model.image_encoder.img_size,) * 2, each.input_size)


def unnormalised(model, picture):
    """Padded, and nothing else."""
    height, width = picture.shape[-2:]
    side = model.image_encoder.img_size
    return F.pad(picture.float(), (0, side - width, 0, side - height))


def by_objects(losses, batch):
    """A picture with two objects counts twice."""
    counts = torch.tensor([len(each.boxes) for each in batch])
    return (torch.stack(losses) * counts).sum() / counts.sum()


def picture_by_picture(model, batch, loss_of, optimizer):
    """A step after each picture."""
    return sum(step_with()(model, [each], loss_of, optimizer) for each in batch) / len(batch)


def without_gradients(model, batch, loss_of, optimizer):
    """By segment-anything's own forward pass, which switches them off."""
    return step_with(
        encoded=torch.no_grad()(lambda model, pictures: model.image_encoder(pictures))
    )(model, batch, loss_of, optimizer)


@exercise(
    "5.4",
    "two steps on batches of unlike pictures give the losses and the pairs of the lab's own objective",
    {
        "nothing learns: loss.backward() makes the gradients, and then optimizer.step() uses them": (
            step_with(end=lambda loss, optimizer: (optimizer.zero_grad(), loss.backward())),
            step_with(end=lambda loss, optimizer: optimizer.step()),
            step_with(
                end=lambda loss, optimizer: (
                    loss.backward(),
                    optimizer.zero_grad(),
                    optimizer.step(),
                )
            ),
        ),
        "the last step's gradients are still there: optimizer.zero_grad() before loss.backward()": (
            step_with(end=lambda loss, optimizer: (loss.backward(), optimizer.step()))
        ),
        "the pictures are only padded: model.preprocess subtracts the mean colour before": (
            step_with(unnormalised)
        ),
        "the decoder takes one picture and its boxes: embedding[None], each.boxes": (
            step_with(which=lambda embeddings, index: embeddings),
            step_with(which=lambda embeddings, index: embeddings[index]),
            all_at_once,
        ),
        "the padding is not cut off: postprocess_masks takes each.input_size first": (
            step_with(back=with_padding),
            step_with(
                back=lambda model, logits, each: F.interpolate(
                    logits, each.input_size, mode="bilinear"
                )
            ),
        ),
        "each.truth has the size each.input_size: that is both sizes of postprocess_masks": (
            step_with(
                back=lambda model, logits, each: model.postprocess_masks(
                    logits, each.input_size, each.original_size
                )
            )
        ),
        "the loss takes (N, h, w): leave the channel of the logits out, [:, 0]": (
            step_with(read=lambda logits: logits)
        ),
        "the loss takes logits: no sigmoid before it": (
            step_with(read=lambda logits: logits[:, 0].sigmoid())
        ),
        "the losses of the pictures are summed: their mean is wanted": (
            step_with(join=lambda losses, batch: torch.stack(losses).sum())
        ),
        "only the last picture counts: collect the losses, and take their mean": (
            step_with(join=lambda losses, batch: losses[-1])
        ),
        "a picture with many objects outweighs the others: the mean of the pictures' losses": (
            step_with(join=by_objects)
        ),
        "a step after each picture: one for the batch, from the mean of its losses": (
            picture_by_picture
        ),
        "no gradient reaches the pairs: leave no_grad, Sam.forward and masks of True and False away": (
            without_gradients,
            step_with(read=lambda logits: (logits[:, 0] > 0).float()),
        ),
    },
    through=two_steps,
)
def training_step() -> Iterator[Case]:
    """Two batches of pictures of unlike shapes, with unlike numbers of objects."""
    model = inject(build_sam(**SMALL).eval(), SerialLoRAConfig(rank=2))
    with torch.no_grad():
        for network in model.mask_decoder.output_hypernetworks_mlps:  # masks with contrast
            network.layers[-1].weight.mul_(30)
    for sizes in ([(32, 21, 1), (25, 32, 2)], [(32, 32, 2), (19, 32, 1)]):
        batches = [some_examples(sizes), some_examples(sizes[::-1])]
        losses, after = by_the_objective(model, batches)
        name = next(name for name, _ in model.named_parameters() if name.endswith("lora_B"))
        what = " and ".join(f"{height} x {width} pixels" for height, width, _ in sizes)
        yield Case(
            f"two steps on pictures of {what}",
            (model, batches),
            Parts(
                {
                    f"the losses of two steps on {what}": losses,
                    f"the first pair's B after two steps on {what}": after.get_parameter(
                        name
                    ).detach(),
                }
            ),
            read=lambda result, *_, name=name: [result[0], result[1][name].detach()],
            tolerance=1e-4,
            may_change=True,
        )
