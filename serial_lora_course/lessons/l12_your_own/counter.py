"""Photographs of things, laid on a counter and filmed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from scipy.ndimage import binary_dilation

from serial_lora_course.data.photographs import cut_out, photographed_things

SIZE = 112  # pixels
FRAMES = {"a": (-6, 0.85), "b": (-2, 0.95), "c": (2, 1.05), "d": (6, 1.15)}  # tilt, light
NOISE = 4  # of the camera, in each pixel and colour, of 255
SEVERAL = ("two ", "some ", "a pair of")  # these show more than one thing
Boxes = list[tuple[int, int, int]]  # left, top, side


@cache
def photographs() -> dict[str, Image.Image]:
    """The photographs of one thing each, by name, such as "zebu 1"; transparent beside the thing."""
    shown: Counter[str] = Counter()
    found = {}
    for thing in photographed_things():
        if thing.kind and not thing.name.startswith(SEVERAL):
            name = thing.name.removeprefix("a ").removeprefix("an ").removeprefix("the ")
            shown[name] += 1
            found[f"{name} {shown[name]}"] = Image.fromarray(cut_out(thing.file, SIZE), "RGBA")
    return dict(sorted(found.items()))


def white(_: random.Random) -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE), "white")


def wood(chance: random.Random) -> Image.Image:
    """28 stripes that are more or less brown; in half of all cases they stand upright."""
    shades = np.array([[0.75 + 0.25 * chance.random()] for _ in range(28)])
    stripes = (shades * [245, 215, 180]).astype(np.uint8)[:, None]  # (28, 1, 3)
    grain = Image.fromarray(stripes).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return grain.rotate(90) if chance.random() < 0.5 else grain


def placed(thing: Image.Image, box: tuple[int, int, int]) -> np.ndarray:
    """Which pixels of the sheet a thing in its box covers: (112, 112)."""
    (left, top, side), covered = box, np.zeros((SIZE, SIZE), bool)
    alpha = np.asarray(thing.getchannel("A").resize((side, side)))
    covered[top : top + side, left : left + side] = alpha > 127
    return covered


def in_quarters(things: list, chance: random.Random) -> Boxes:
    """Each thing lies in a quarter of its own."""
    boxes, half = [], SIZE // 2
    for quarter in chance.sample(range(4), len(things)):
        side = chance.randint(28, 40)
        left, top = chance.randint(0, half - side), chance.randint(0, half - side)
        boxes.append((quarter % 2 * half + left, quarter // 2 * half + top, side))
    return boxes


def touching(things: list, chance: random.Random) -> Boxes:
    """Each thing meets one of those before it, and at most 20 of its pixels lie over them."""
    boxes, taken = [], np.zeros((SIZE, SIZE), bool)
    while len(boxes) < len(things):
        side = chance.randint(28, 40)
        box = chance.randint(0, SIZE - side), chance.randint(0, SIZE - side), side
        new = placed(things[len(boxes)], box)
        meets = (new & binary_dilation(taken)).any()
        if not boxes or (meets and (new & taken).sum() <= 20):
            boxes.append(box)
            taken |= new
    return boxes


def frame(
    shown: Sequence[Image.Image], boxes: Boxes, ground: Image.Image, letter: str
) -> Image.Image:
    """A picture of things in their boxes on a ground, with the tilt and the light of that letter, and noise."""
    things, (tilt, light) = Image.new("RGBA", ground.size), FRAMES[letter]
    for picture, (left, top, side) in zip(shown, boxes, strict=True):
        things.alpha_composite(picture.resize((side, side)), (left, top))
    page = ground.convert("RGBA")
    page.alpha_composite(things.rotate(tilt, Image.Resampling.BICUBIC))
    lit = np.asarray(ImageEnhance.Brightness(page.convert("RGB")).enhance(light))
    chance = np.random.default_rng([*np.ravel(boxes).tolist(), ord(letter)])
    return Image.fromarray(np.uint8((lit + chance.normal(0, NOISE, lit.shape)).clip(0, 255)))


def lay(
    names: Sequence[str], layout: Callable, ground: Callable, draw: int
) -> tuple[list[Image.Image], list[int]]:
    """A user's sheets: different things of these names, the same in every layout, and how many there are.

    There are 30 sheets of each number from one to four; one thing alone does not touch.
    """
    taken, pages, numbers = photographs(), [], []
    for i in range(120):
        number, chance = i % 4 + 1, random.Random(f"{draw} {i}")
        if number > 1 or layout is not touching:
            shown = [taken[f"{name} 1"] for name in chance.sample(names, number)]
            boxes = layout(shown, chance)
            pages.append(frame(shown, boxes, ground(chance), "abcd"[i // 4 % 4]))
            numbers.append(number)
    return pages, numbers


def film(
    folder: Path, ways: Sequence[tuple[Callable, Callable]], others: Sequence[str] = ()
) -> None:
    """Lay each thing down, one to four in number, and take four frames, in sub-folders by number.

    Args:
        ways: pairs of a layout, (things, chance) to boxes, and a ground; the sheets of a number use
            them in turn, so that no ground tells the number.
        others: what lies beside the thing; without them it lies there several times.
    """
    chance, taken = random.Random(0), photographs()
    things, turns = sorted({name.rpartition(" ")[0] for name in taken}), Counter[int]()
    for name, picture in taken.items():
        number = things.index(name.rpartition(" ")[0]) % 4 + 1
        layout, ground = ways[turns[number] % len(ways)]
        turns[number] += 1
        shown = [picture] * number
        if others:
            shown[1:] = [taken[f"{other} 1"] for other in chance.sample(others, number - 1)]
        boxes, under = layout(shown, chance), ground(chance)
        place = folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for letter in FRAMES:
            frame(shown, boxes, under, letter).save(place / f"{name}{letter}.png")
