"""Small data sets laid out as their publishers lay them out, and pictures for them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image


def picture_bytes(
    seed: int, size: int | tuple[int, int] = 24, kind: str = "JPEG", mode: str = "RGB", **options
) -> bytes:
    """A small picture, square or of (width, height), that differs from seed to seed."""
    width, height = (size, size) if isinstance(size, int) else size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


#: Rectangles of a mask, painted in this order: number, left, top, right, bottom.
Rectangles = list[tuple[int, int, int, int, int]]


def painted(size: tuple[int, int], rectangles: Rectangles) -> np.ndarray:
    """The numbers of a mask, uint8."""
    numbers = np.zeros(size[::-1], np.uint8)
    for number, left, top, right, bottom in rectangles:
        numbers[top:bottom, left:right] = number
    return numbers


def mask_bytes(size: tuple[int, int], rectangles: Rectangles, mode: str = "L") -> bytes:
    """A PNG of numbers: grey values, or places in a palette of other colours (mode "P")."""
    mask = Image.fromarray(painted(size, rectangles))
    if mode == "P":
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    stream = io.BytesIO()
    mask.save(stream, "PNG")
    return stream.getvalue()


def _class_pictures(classes: list[str], count: int, name: str) -> dict[str, bytes]:
    return {
        name.format(class_name=class_name, number=number): picture_bytes(1000 * position + number)
        for position, class_name in enumerate(classes)
        for number in range(1, count + 1)
    }


def caltech101() -> dict[str, bytes]:
    classes = ["BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "accordion", "car_side"]
    below = "caltech101/101_ObjectCategories"
    return _class_pictures(classes, 10, below + "/{class_name}/image_{number:04d}.jpg")


def food101() -> dict[str, bytes]:
    classes = ["apple_pie", "hot_dog"]
    members = _class_pictures(classes, 10, "food-101/images/{class_name}/{number}.jpg")
    for part, numbers in (("train", range(1, 8)), ("test", range(8, 11))):
        lists = {name: [f"{name}/{number}" for number in numbers] for name in classes}
        members[f"food-101/meta/{part}.json"] = json.dumps(lists).encode()
    members["food-101/meta/classes.txt"] = "\n".join(classes).encode()
    return members


def eurosat() -> dict[str, bytes]:
    classes = ["AnnualCrop", "Forest", "SeaLake"]
    return _class_pictures(classes, 10, "eurosat/2750/{class_name}/{class_name}_{number}.jpg")


def dtd() -> dict[str, bytes]:
    classes = ["banded", "polka-dotted"]
    name = "{class_name}/{class_name}_{number:04d}.jpg"
    members = _class_pictures(classes, 9, f"dtd/dtd/images/{name}")
    for part, numbers in (("train", (1, 2, 3)), ("val", (4, 5, 6)), ("test", (7, 8, 9))):
        lines = [name.format(class_name=c, number=n) + "\n" for c in classes for n in numbers]
        members[f"dtd/dtd/labels/{part}1.txt"] = "".join(lines).encode()
    return members


def oxford_pets() -> dict[str, bytes]:
    breeds = ["Abyssinian", "american_bulldog", "Egyptian_Mau"]  # ids in alphabetical order
    members = _class_pictures(breeds, 10, "oxford-iiit-pet/images/{class_name}_{number}.jpg")
    for part, numbers in (("trainval", range(1, 6)), ("test", range(6, 11))):
        lines = [f"{b}_{n} {i} 1 1\n" for i, b in enumerate(breeds, 1) for n in numbers]
        members[f"oxford-iiit-pet/annotations/{part}.txt"] = "".join(lines).encode()
    return members


FOOD_SIZE = (120, 100)
#: Not the official numbers: the list in the archive counts.
FOOD_CLASSES = ("background", "candy", "pie", "ice cream", "other ingredients", "strawberry")
FOOD: dict[str, Rectangles] = {
    "train/00000000": [(3, 10, 20, 50, 60)],
    "train/00000001": [(2, 0, 0, 70, 40), (5, 60, 30, 90, 100)],
    "train/00000002": [(1, 5, 5, 25, 25)],
    "train/00000003": [(3, 0, 0, 9, 9), (3, 100, 80, 120, 100)],
    "train/00000004": [(5, 7, 7, 8, 8), (4, 20, 20, 30, 30)],  # one pixel of strawberry
    "train/00000005": [(2, 1, 2, 30, 40)],
    "test/00000006": [(2, 30, 30, 60, 60), (3, 0, 90, 120, 100)],
    "test/00000007": [(5, 2, 3, 40, 50)],
}


def foodseg103() -> dict[str, bytes]:
    lines = "".join(f"{number}\t{name}\n" for number, name in enumerate(FOOD_CLASSES))
    members = {"FoodSeg103/category_id.txt": lines.encode()}
    for seed, (name, rectangles) in enumerate(FOOD.items()):
        members[f"FoodSeg103/Images/img_dir/{name}.jpg"] = picture_bytes(seed, FOOD_SIZE)
        members[f"FoodSeg103/Images/ann_dir/{name}.png"] = mask_bytes(FOOD_SIZE, rectangles)
    return members


FLOOD_SIZE = (160, 120)
FLOOD: dict[str, Rectangles] = {
    "train/6279": [(9, 0, 0, 160, 120), (1, 10, 10, 40, 50), (3, 0, 60, 160, 80)],
    "train/6280": [(5, 0, 0, 160, 60), (2, 20, 70, 60, 110)],  # a lake, and a dry building
    "train/6281": [(1, 100, 0, 160, 30), (1, 0, 90, 20, 120)],
    "val/6282": [(3, 0, 0, 30, 120)],
    "test/6283": [(3, 20, 0, 50, 120), (7, 30, 30, 40, 40)],
    "test/6284": [(6, 0, 0, 80, 80)],
}


def floodnet() -> dict[str, bytes]:
    members = {}
    for seed, (name, rectangles) in enumerate(FLOOD.items()):
        part, number = name.split("/")
        below = f"FloodNet-Supervised_v1.0/{part}/{part}"
        members[f"{below}-org-img/{number}.jpg"] = picture_bytes(seed, FLOOD_SIZE)
        members[f"{below}-label-img/{number}_lab.png"] = mask_bytes(FLOOD_SIZE, rectangles)
    return members


VOC_SIZE = (120, 90)
#: Name -> rectangles of the objects, and the class of each. 255 is the band round them.
VOC: dict[str, tuple[Rectangles, dict[int, int]]] = {
    "train/2007_000032": (
        [(255, 8, 8, 92, 72), (1, 10, 10, 40, 70), (2, 40, 10, 60, 70), (3, 62, 20, 90, 70)],
        {1: 15, 2: 15, 3: 12},  # two persons who touch, and a dog
    ),
    "train/2007_000039": ([(255, 9, 9, 51, 51), (1, 10, 10, 50, 50)], {1: 6}),
    "train/2008_000042": ([(1, 0, 0, 30, 75), (2, 50, 0, 51, 1)], {1: 15, 2: 15}),  # a speck
    "val/2009_000061": ([(1, 20, 5, 60, 70), (2, 60, 5, 99, 70)], {1: 4, 2: 15}),
    "val/2009_000063": ([(1, 20, 5, 60, 70)], {1: 8}),
}


def voc_person() -> dict[str, bytes]:
    members = {
        "JPEGImages/2011_000001.jpg": picture_bytes(99, VOC_SIZE)  # no mask: not for this task
    }
    for seed, (name, (rectangles, classes)) in enumerate(VOC.items()):
        number = name.split("/")[1]
        painted = [(classes.get(r[0], r[0]), *r[1:]) for r in rectangles]
        members[f"JPEGImages/{number}.jpg"] = picture_bytes(seed, VOC_SIZE)
        members[f"SegmentationClass/{number}.png"] = mask_bytes(VOC_SIZE, painted, "P")
        members[f"SegmentationObject/{number}.png"] = mask_bytes(VOC_SIZE, rectangles, "P")
    for part in ("train", "val"):
        names = [name.split("/")[1] for name in VOC if name.startswith(part)]
        members[f"ImageSets/Segmentation/{part}.txt"] = "".join(f"{n}\n" for n in names).encode()
    return {f"VOCdevkit/VOC2012/{name}": content for name, content in members.items()}


#: Name -> part, style, and what kind of picture the file is.
ARTBENCH: dict[str, tuple[str, str, str]] = {
    "leon-bakst_elisium-1906.jpg": ("train", "art_nouveau", "RGB"),
    "alphonse-mucha_untitled-1896.jpg": ("train", "art_nouveau", "L"),
    "a-y-jackson_algoma-in-november-1935.jpg": ("train", "art_nouveau", "CMYK"),
    "alphonse-mucha_zodiac-1896.jpg": ("test", "art_nouveau", "RGB"),
    "claude-monet_springtime-1.jpg": ("train", "impressionism", "RGB"),
    "claude-monet_water-lilies-1916(1).jpg": ("train", "impressionism", "RGB"),
    "edgar-degas_dancers.jpg": ("test", "impressionism", "RGB"),
    "abraham-storck_italianate-park.jpg": ("test", "baroque", "RGB"),
}


def artbench() -> dict[str, bytes]:
    return {
        f"artbench-10-imagefolder-split/{part}/{style}/{name}": picture_bytes(seed, 32, mode=mode)
        for seed, (name, (part, style, mode)) in enumerate(ARTBENCH.items())
    }


#: Folder in SaRA's archive -> what its metadata say of each picture.
SARA: dict[str, dict[str, str | list[str] | None]] = {
    "BarbieCore": {f"{n}.png": f"a doll  on a  pink sofa {n}" for n in range(10)} | {"10.png": ""},
    "CyberPunk": {f"{n}.png": f"a street at night {n}" for n in range(4)}
    | {"4.png": ["a robot", "a machine"], "5.png": None},
    "Hornify": {"0.png": "a horn"},
}


def sara() -> dict[str, bytes]:
    members = {}
    for folder, captions in SARA.items():
        below = f"SaRA/finetune-dataset/{folder}"
        rows = [{"file_name": name, "text": text} for name, text in captions.items()]
        members[f"{below}/metadata.jsonl"] = "".join(f"{json.dumps(r)}\n" for r in rows).encode()
        for seed, (name, mode) in enumerate(zip(captions, ["RGBA", "P", "L"] * 4, strict=False)):
            members[f"{below}/{name}"] = picture_bytes(seed, (20, 30), "PNG", mode)
        members[f"SaRA/__MACOSX/{folder}/._metadata.jsonl"] = b"left by a Mac"
    return members


#: Data set -> what makes its files: path below the data root -> content.
OFFICIAL = {
    "caltech101": caltech101,
    "food101": food101,
    "eurosat": eurosat,
    "oxford_pets": oxford_pets,
    "dtd": dtd,
    "foodseg103": foodseg103,
    "floodnet": floodnet,
    "voc_person": voc_person,
    "artbench": artbench,
    "sara": sara,
}


def write(root: Path, name: str) -> None:
    """Lay a small data set below a data root, as ``data_scripts/fetch.py`` leaves the official one."""
    for path, content in OFFICIAL[name]().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
