"""Checks of the exercises on SAM: its input frame, the way there and back, a training step, the truth in the box.

Every expected value is segment-anything's, Pillow's or the lab's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np
import torch
from PIL import Image, ImageChops, ImageStat
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torchvision.transforms.functional import to_pil_image

from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora.parameters import adapter_parameters
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise
from serial_lora_course.data.scenes import box_of
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.sam import PreparedExample, SamObjective, prepare
from serial_lora_course.models.sam import build_sam

FRAME = 65  # odd, so that no pixel lies half in and half out


@exercise("5.1", "sizes and boxes equal segment-anything's, for wide, tall and square pictures")
def to_model_frame() -> Iterator[Case]:
    """Sizes and boxes of wide, tall and square pictures, larger and smaller than the frame."""
    sizes = ((97, 160), 128), ((151, 103), 128), ((50, 83), 128), ((64, 64), 32), ((5, 256), 128)
    for (height, width), side in sizes:
        boxes = torch.tensor([[10.0, 4, 60, 31], [0, 0, 20.5, 40], [0, 0, width, height]])
        what = f"a picture {height} high and {width} wide in a frame of {side}"
        size, resize = f"the size of {what}", ResizeLongestSide(side)
        new = resize.get_preprocess_shape(height, width, side)
        moved = resize.apply_boxes_torch(boxes, (height, width))
        yield Case(
            what,
            ((height, width), boxes, side),
            Parts({size: new, f"the boxes of {what}": moved}),
            form="return both: the new size as a tuple, and the boxes",
            tolerance=1e-6,
        )


def unscaled(scene: SegmentationExample) -> PreparedExample:
    """A wrong way there: the boxes stay as they are."""
    return prepare(scene, FRAME)._replace(boxes=torch.as_tensor(scene.boxes))


def back_from(logits: Tensor, cut: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The way back; with the whole square in place of the picture's part it is wrong."""
    return interpolate(logits[..., : cut[0], : cut[1]], tuple(size), mode="bilinear")


TRIPS = {
    "a right trip": (partial(prepare, image_size=FRAME), back_from),
    "unscaled boxes": (unscaled, back_from),
    "padding left on": (
        partial(prepare, image_size=FRAME),
        lambda logits, _, size: back_from(logits, (FRAME, FRAME), size),
    ),
}


@exercise(
    "5.2",
    "masks and errors are right for wide and tall scenes, on a right trip and on two wrong ones",
)
def round_trip() -> Iterator[Case]:
    """Two ellipses in scenes of unlike shapes, larger and smaller than the frame, on every trip."""
    for (trip, (there, back)), (height, width) in product(TRIPS.items(), ((53, 73), (47, 31))):
        y, x = np.mgrid[:height, :width]
        centres = (11, 19), (width - 5, height - 5)  # the second is cut off by the border
        masks = np.stack([((x - u) / 9) ** 2 + ((y - v) / 14) ** 2 < 1 for u, v in centres])
        picture = Image.new("RGB", (width, height))
        scene = SegmentationExample(picture, masks, ("one", "two"), "a scene")
        ready = there(scene)
        high, wide = ready.input_size
        square = torch.full((2, 1, FRAME, FRAME), -0.5)
        square[:, 0, :high, :wide] += ready.truth
        tight = np.stack([box_of(mask) for mask in ready.truth.numpy()])
        what = f"a scene {height} high and {width} wide, {trip}"
        came_back = back(square, (high, wide), (height, width))[:, 0] > 0
        errors = torch.tensor(abs(ready.boxes.numpy() - tight).max(1))
        yield Case(
            what,
            (scene, there, back, FRAME),
            Parts({f"the masks ({what})": came_back, f"the boxes' errors ({what})": errors}),
            form="return both: the masks that came back, and the boxes' errors",
            may_change=True,  # a scene keeps its boxes once it was asked for them
        )


CHANGES = {
    "as it was": lambda picture: picture,
    "with red and blue exchanged": lambda picture: picture.flip(0),
    "mirrored": lambda picture: picture.flip(2),
    "a little darker": lambda picture: picture - picture // 9,
}


@exercise(
    "5.3",
    "the difference is right for pictures that arrive as they were, with red and blue exchanged, "
    "mirrored, and a little darker",
)
def picture_error() -> Iterator[Case]:
    """Noise in wide and tall scenes, larger and smaller than the frame, with every change."""
    for (what, change), (height, width) in product(CHANGES.items(), ((53, 73), (47, 31))):
        noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        picture = Image.fromarray(noise.numpy())
        masks = np.ones((1, height, width), bool)
        scene = SegmentationExample(picture, masks, ("one",), "a scene")

        def there(scene: SegmentationExample, change=change) -> PreparedExample:
            ready = prepare(scene, FRAME)
            return ready._replace(picture=change(ready.picture))

        arrived = to_pil_image(there(scene).picture).resize(picture.size, Image.Resampling.BILINEAR)
        yield Case(
            f"the difference of a picture {height} high and {width} wide that arrives {what}",
            (scene, there),
            float(np.mean(ImageStat.Stat(ImageChops.difference(picture, arrived)).mean)),
            may_change=True,  # a scene keeps its boxes once it was asked for them
        )


def fill(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels of each box, by their coordinates, bool, (N, height, width)."""
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])
    x0, y0, x1, y1 = (edge[:, None, None] for edge in boxes.long().T)
    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)


@exercise(
    "5.5", "the shares are right for wide and tall scenes, on a right trip and on two wrong ones"
)
def truth_in_box() -> Iterator[Case]:
    """Two ellipses in scenes of unlike shapes; the reference counts among each thing's own pixels."""
    for (trip, (there, back)), (height, width) in product(TRIPS.items(), ((53, 93), (67, 31))):
        y, x = np.mgrid[:height, :width]
        centres = (11, 17), (width - 9, height - 12)
        masks = np.stack([((x - u) / 8) ** 2 + ((y - v) / 13) ** 2 < 1 for u, v in centres])
        scene = SegmentationExample(Image.new("RGB", (width, height)), masks, ("a", "b"), "a scene")
        ready = there(scene)
        square = fill(ready.boxes, (FRAME, FRAME))[:, None].float() - 0.5
        arrived = back(square, ready.input_size, (height, width))[:, 0].numpy() > 0
        shares = [found[mask].mean() for found, mask in zip(arrived, masks, strict=True)]
        yield Case(
            f"a scene {height} high and {width} wide, {trip}",
            (scene, there, back, fill, FRAME),
            torch.tensor(np.array(shares)).float(),
            form="return a share for each object, (N,)",
            tolerance=1e-6,
            may_change=True,  # a scene keeps its boxes once it was asked for them
        )


LEFT = "what is left after the steps"


def some_examples(sizes: list[tuple[int, int, int]]) -> list[PreparedExample]:
    """Noise with (height, width, objects), each object a rectangle with its box."""
    batch = []
    for height, width, objects in sizes:
        picture = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        corners = [(2 + 5 * index, 1 + 3 * index) for index in range(objects)]
        boxes = torch.tensor([[x, y, x + 8.0, y + 9.0] for x, y in corners])
        truth = torch.zeros(objects, height, width, dtype=torch.bool)
        for mask, (x, y) in zip(truth, corners, strict=True):
            mask[y : y + 9, x : x + 8] = True
        batch.append(PreparedExample(picture, boxes, truth, (2 * height, 2 * width)))
    return batch


def two_steps(step: Callable) -> Callable:
    """The losses of two batches under plain gradient descent, by a loss that is not the lesson's.

    A random decoder's gradients are small: the loss is a hundredfold, so that clipping would be seen.
    """

    def train(model: Sam, batches: list) -> list[float]:
        optimizer = torch.optim.SGD(adapter_parameters(model), lr=0.3)
        entropy = binary_cross_entropy_with_logits
        loss = lambda logits, truth: 100 * entropy(logits, truth.float())  # noqa: E731
        return [step(model, batch, loss, optimizer) for batch in batches]

    return train


def step_by_the_lab(model: Sam, batch: list, loss_of: Callable, optimizer) -> float:
    """By the lab's objective, which decodes the boxes of all pictures at once."""
    loss = SamObjective(model, loss=loss_of)(batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def left_as(model: Sam, batches: list) -> str:
    """What a step should leave as it is."""
    learn = sum(parameter.requires_grad for parameter in model.parameters())
    mode = "train" if model.training else "eval"
    return f"{learn} tensors that learn, {mode} mode, batches of {[*map(len, batches)]}"


def first_B(model: Sam) -> Tensor:
    """B of the first pair."""
    return next(p for name, p in model.named_parameters() if name.endswith("lora_B")).detach()


@exercise(
    "5.4",
    "two steps on batches of different pictures give the same losses and pairs as the lab's own code, "
    "and leave all else as it was",
    through=two_steps,
)
def training_step() -> Iterator[Case]:
    """Two batches of pictures of unlike shapes, with unlike numbers of objects."""
    sam = build_sam(
        image_size=32,
        patch_size=8,
        width=16,
        blocks=2,
        heads=2,
        window=3,
        global_blocks=[1],
        prompt_width=16,
        decoder_heads=2,
        decoder_mlp=16,
    )
    model = inject(sam.eval(), SerialLoRAConfig(rank=2))
    for network in model.mask_decoder.output_hypernetworks_mlps:  # masks with contrast
        network.layers[-1].weight.data *= 30
    for sizes in ([(32, 21, 1), (25, 32, 2)], [(32, 32, 2), (19, 32, 1)]):
        batches, trained = [some_examples(sizes), some_examples(sizes[::-1])], copy.deepcopy(model)
        losses = two_steps(step_by_the_lab)(trained, batches)
        what = " and ".join(f"{height} x {width} pixels" for height, width, _ in sizes)
        B = f"the first pair's B after two steps on {what}"
        values = {B: first_B(trained), f"the losses of two steps on {what}": losses}
        yield Case(
            f"two steps on pictures of {what}",
            (model, batches),
            Parts(values | {LEFT: left_as(model, batches)}),
            read=lambda losses, model, batches: [first_B(model), losses, left_as(model, batches)],
            advice={LEFT: "leave the batch, the model's mode and what is frozen as they are"},
            tolerance=1e-4,
            may_change=True,
        )
