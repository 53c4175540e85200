"""The tiny segmentation sets: things laid over photographs, five kinds of drawings as the paper has five.

The tiny SAM was pretrained on Twemoji, so every drawing here is in a hand it has not seen. Training
scenes are made of concepts that pretraining knew (in Twemoji) over the "train" photographs. Test
scenes are made of hidden concepts (see :mod:`serial_lora_course.data.emoji_sets`) over the "test"
photographs: neither the thing nor what is behind it was ever in a training scene, of pretraining or
of adapting. A sixth set, ``photographs``, shows photographs of things in place of drawings
(:mod:`serial_lora_course.data.photographs`); those of its test are in no training scene either.

Scene ``i`` of a part follows from the set's name, the part and ``i`` alone, is made when it is
first asked for, and then kept. Sizes vary, are often odd and hardly ever square, so that resizing
and padding are part of the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes

from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.data.emoji_sets import kept_apart
from serial_lora_course.data.photographs import PHOTOGRAPHS, cut_out, photographed_things
from serial_lora_course.data.photographs import kept_apart as things_apart
from serial_lora_course.data.scenes import (
    OPAQUE,
    WEATHER,
    SceneRecipe,
    compose,
    photographs,
)
from serial_lora_course.data.scenes import PHOTOGRAPHS as BACKGROUNDS
from serial_lora_course.data.subsets import hash_order
from serial_lora_course.data.types import Pictures, SegmentationData, SegmentationExample

DRAWING_SIZE = 72  # as in pretraining
PHOTOGRAPH_SIZE = 112
TESTED = 0.35  # share of the photographed things that are kept for the test
PICTURES = {"train": 120, "test": 60}
# Of the emoji: what stands for pretraining's drawings where it is asked what an adapted SAM forgot.
THINGS = ("Food & Drink", "Animals & Nature", "Travel & Places", "Objects", "Smileys & Emotion")
LONGER_SIDE = (128, 160)  # pixels
SHORTEST_SIDE = 96
OUTLINES = ("openmoji-line", "noto-mono", "symbola", "unifont")  # whose inside counts too
HOLLOW = 1.8  # a line drawing is used if its inside and ink are this many times its ink


@dataclass(frozen=True)
class SceneSet:
    """What is particular to one set."""

    description: str
    parts: tuple[str, ...]  # Unicode groups or subgroups that its drawings come from
    recipe: SceneRecipe  # how scenes are composed; each has a size of its own
    style: str = "openmoji"  # of the drawings
    most_per_part: int = 1000  # drawings of a subgroup (there are 259 flags)
    weather: tuple[str, ...] = ()  # kinds, one of which lies over each scene
    fading: float = 0.0  # 0 leaves the photographs as they are, 1 makes them white

    @property
    def outlined(self) -> bool:
        """Whether a mask is all that lies inside a drawing's lines."""
        return self.style in OUTLINES


#: How hard a set is stands here and nowhere else.
SCENE_SETS: dict[str, SceneSet] = {
    "food": SceneSet(
        description="things to eat and to drink, as OpenMoji draws them",
        parts=("Food & Drink",),
        recipe=SceneRecipe(objects=(1, 4), sizes=(0.25, 0.6), clutter=0.3),
    ),
    "people": SceneSet(
        description="persons, hands and families, as OpenMoji draws them",
        parts=("People & Body",),
        recipe=SceneRecipe(objects=(1, 4), sizes=(0.3, 0.65), clutter=0.3),
    ),
    "animals": SceneSet(
        description="animals and plants, as OpenMoji draws them",
        parts=("Animals & Nature",),
        recipe=SceneRecipe(objects=(1, 4), sizes=(0.25, 0.6), clutter=0.3),
    ),
    "weather": SceneSet(
        description="OpenMoji's buildings and flags behind fog, rain or snow",
        parts=("place-building", "place-religious", "place-other", "flag", "country-flag"),
        recipe=SceneRecipe(objects=(1, 4), sizes=(0.3, 0.65), clutter=0.3),
        most_per_part=70,
        weather=("fog", "rain", "snow"),
    ),
    # Inside an outline is mostly the photograph: colour and texture do not tell object from ground.
    "lines": SceneSet(
        description="OpenMoji's outlines without colour; the mask is all that lies inside",
        parts=("Food & Drink", "Animals & Nature", "Travel & Places", "Activities", "Objects"),
        # One outline seen through another does not tell which is in front: little may be covered.
        recipe=SceneRecipe(objects=(1, 3), sizes=(0.3, 0.65), clutter=0.3, least_visible=0.85),
        style="openmoji-line",
        fading=0.35,
    ),
}


PHOTOGRAPHED = SceneSet(
    description="photographs of things, cut out by hand",
    parts=(),
    recipe=SceneRecipe(objects=(1, 3), sizes=(0.45, 0.85), turn=15.0, clutter=0.3),
    style=PHOTOGRAPHS,
)


class ScenePictures(Pictures):
    """Scenes of one part of a set; each is made once, when it is first asked for.

    Args:
        name: of the set.
        part: such as "train"; test scenes alone lie over the photographs held out.
        settings: what is particular to the set.
        drawings: uint8 (N, size, size, 4), what is laid over the photographs.
        names: (N,) what each shows.
        count: how many scenes.
    """

    def __init__(
        self,
        name: str,
        part: str,
        settings: SceneSet,
        drawings: np.ndarray,
        names: Sequence[str],
        count: int,
    ) -> None:
        self.part, self.settings = part, settings
        self.drawings, self.names = drawings, names
        self.outlines = _filled(self.drawings[..., 3]) if settings.outlined else None
        super().__init__([f"{name}/{part}/{i:03d}" for i in range(count)], cache(self._make))

    def _make(self, picture_id: str) -> SegmentationExample:
        settings = self.settings
        chance = np.random.default_rng(list(hashlib.sha256(picture_id.encode()).digest()))
        height, width = _size(chance)
        scene = compose(
            self.drawings,
            _faded("test" if self.part == "test" else "train", settings.fading),
            chance,
            replace(settings.recipe, height=height, width=width),
            self.outlines,
        )
        picture = scene.picture
        if settings.weather:
            kind = settings.weather[chance.integers(len(settings.weather))]
            picture = WEATHER[kind](picture, chance)
        names = tuple(self.names[index] for index in scene.drawings)
        return SegmentationExample(Image.fromarray(picture), scene.masks, names, picture_id)


def _size(chance: np.random.Generator) -> tuple[int, int]:
    """Height and width, lying or standing."""
    longer = int(chance.integers(LONGER_SIDE[0], LONGER_SIDE[1] + 1))
    shorter = int(chance.integers(SHORTEST_SIDE, longer + 1))
    return (longer, shorter) if chance.random() < 0.5 else (shorter, longer)


@lru_cache
def _faded(part: str, fading: float) -> tuple[np.ndarray, ...]:
    """The photographs of a part, nearer to white."""
    if not fading:
        return photographs(part)
    values = np.round(np.arange(256) * (1 - fading) + 255 * fading).astype(np.uint8)
    return tuple(values[photograph] for photograph in photographs(part))


Shown = tuple[list[str], list[str], np.ndarray]
"""What identifies each of N things, what it is called, and how it looks, uint8 (N, size, size, 4)."""


@lru_cache
def load_scene_set(name: str) -> SegmentationData:
    """One tiny set, a key of :data:`SCENE_SETS`."""
    settings = SCENE_SETS[name]
    emoji = load_emoji(settings.style, DRAWING_SIZE)
    shown = {
        part: (
            [emoji.concepts[i].codepoints for i in positions],
            [emoji.concepts[i].name for i in positions],
            emoji.some(positions),
        )
        for part, positions in kept_apart(emoji, drawings_of(settings)).items()
    }
    return _scenes(name, settings, shown)


@lru_cache
def load_photograph_scenes(name: str = PHOTOGRAPHS) -> SegmentationData:
    """Photographs of things laid over photographs; a third of the things are kept for the test."""
    things = photographed_things()
    test, train = things_apart(things, round(len(things) * TESTED))
    shown = {
        part: (
            [thing.file for thing in chosen],
            [thing.name for thing in chosen],
            np.stack([cut_out(thing.file, PHOTOGRAPH_SIZE) for thing in chosen]),
        )
        for part, chosen in {"train": train, "test": test}.items()
    }
    return _scenes(name, PHOTOGRAPHED, shown)


def _scenes(name: str, settings: SceneSet, shown: dict[str, Shown]) -> SegmentationData:
    """A set whose scenes show, in each part, some things and no others."""
    train, test = (
        ScenePictures(name, part, settings, drawings, names, PICTURES[part])
        for part, (_, names, drawings) in shown.items()
    )
    drawn = {part: identities for part, (identities, _, _) in shown.items()}
    size = train.drawings.shape[1]
    return SegmentationData(
        name=name,
        scale="tiny",
        train=train,
        test=test,
        attribution=ATTRIBUTION[settings.style],
        content=repr((settings, drawn, BACKGROUNDS, size, LONGER_SIDE, SHORTEST_SIDE)),
    )


def _filled(alpha: np.ndarray) -> np.ndarray:
    """Line drawings with all filled that no way from the border reaches: uint8 (N, size, size)."""
    # A structure one drawing deep keeps the drawings of the stack apart.
    inside = binary_fill_holes(alpha >= OPAQUE, np.ones((1, 3, 3), bool))
    return np.where(inside, np.uint8(255), alpha)


def drawings_of(settings: SceneSet) -> list[int]:
    """Positions of the drawings that a set may show, in their style."""
    emoji = load_emoji(settings.style, DRAWING_SIZE)
    by_subgroup: dict[str, list[int]] = {}
    for position, concept in enumerate(emoji.concepts):
        wanted = concept.group in settings.parts or concept.subgroup in settings.parts
        if wanted and (not settings.outlined or _is_hollow(*emoji.some([position]))):
            by_subgroup.setdefault(concept.subgroup, []).append(position)
    found = []
    for positions in by_subgroup.values():
        order = hash_order([emoji.concepts[p].codepoints for p in positions], 0, "scenes")
        found += sorted(positions[i] for i in order[: settings.most_per_part])
    return found


def _is_hollow(drawing: np.ndarray) -> bool:
    alpha = drawing[None, ..., 3]
    return (_filled(alpha) >= OPAQUE).sum() >= HOLLOW * (alpha >= OPAQUE).sum()
