"""The study's data sets, each with training, validation and test pictures.

Rates are chosen on the validation pictures and the study ends on the test pictures: a set is loaded
as ``"food"`` with its test pictures for test, or as ``"food/validation"`` with its validation pictures
in their place. Which drawing goes where follows from its code points alone.

The classification sets are six topics in the hands of two designers whom no tiny model has seen in
pretraining. A segmentation set's test picture is a scene: drawings that no training or validation scene
shows, over photographs that none lies over. A style's validation pictures are some of its training pictures,
and train nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from serial_lora.errors import require_choice
from serial_lora_course.data.emoji import ATTRIBUTION, UNSEEN_STYLES, Concept, load_emoji
from serial_lora_course.data.emoji_sets import (
    EMOJI_SETS,
    GENERIC_TEMPLATE,
    TEMPLATE,
    emoji_pictures,
    kept_apart,
)
from serial_lora_course.data.scenes import SceneRecipe
from serial_lora_course.data.segmentation_sets import (
    DRAWING_SIZE,
    SCENE_SETS,
    ScenePictures,
    SceneSet,
    drawings_of,
)
from serial_lora_course.data.style_sets import TINY_STYLES, load_tiny_style
from serial_lora_course.data.subsets import hash_order, with_few_tests
from serial_lora_course.data.types import ClassificationData, SegmentationData, StyleData

VALIDATION = "/validation"

# --------------------------------------------------------------------------- classification

SHARES = {"train": 0.25, "validation": 0.15}  # of a class's drawings; the rest is test
LEAST_DRAWINGS = 8  # of a class
LEAST_TRAINING = 4  # pictures of a class: so many shots can be asked for

PEOPLE: dict[str, tuple[str, ...]] = {
    "a smiling face": ("face-smiling", "face-affection", "face-tongue"),
    "a sad face": ("face-concerned", "face-negative", "face-unwell"),
    "a sleepy face": ("face-neutral-skeptical", "face-sleepy", "face-hand"),
    "a cat face": ("cat-face", "monkey-face"),
    "a hand": (
        "hand-fingers-open",
        "hand-fingers-partial",
        "hand-single-finger",
        "hand-fingers-closed",
        "hands",
        "hand-prop",
    ),
    "a part of the body": ("body-parts",),
    "a person": ("person", "person-gesture"),
    "a person at work": ("person-role", "person-fantasy"),
    "a sport": ("person-sport", "person-activity"),
}
TOPICS = {name: EMOJI_SETS[name] for name in ("nature", "food", "travel", "objects", "symbols")}
TOPICS["people"] = PEOPLE
CLIP_SETS = tuple(f"{topic}-{style}" for style in UNSEEN_STYLES for topic in TOPICS)


@lru_cache
def load_classes(name: str) -> ClassificationData:
    """One of `CLIP_SETS`, or the same with `VALIDATION` behind it."""
    name, last = _asked(name, CLIP_SETS)
    topic, style = name.split("-", 1)
    emoji = load_emoji(style)
    parts: dict[str, tuple[list[int], list[int]]] = {}
    kept = []
    for class_name, subgroups in TOPICS[topic].items():
        members = [i for i, c in enumerate(emoji.concepts) if _belongs(c, subgroups)]
        if len(members) < LEAST_DRAWINGS:
            continue
        for part, chosen in _divided(members, [emoji.concepts[i].codepoints for i in members]):
            indices, labels = parts.setdefault(part, ([], []))
            indices += chosen
            labels += [len(kept)] * len(chosen)
        kept.append(class_name)
    return ClassificationData(
        name=name + (VALIDATION if last == "validation" else ""),
        class_names=kept,
        template=TEMPLATE,
        generic_template=GENERIC_TEMPLATE,
        train=emoji_pictures(emoji, *parts["train"]),
        test=emoji_pictures(emoji, *parts[last]),
        attribution=ATTRIBUTION[style],
    )


def _belongs(concept: Concept, parts: Sequence[str]) -> bool:
    return concept.subgroup in parts or concept.group in parts


def _divided(members: list[int], names: list[str]) -> list[tuple[str, list[int]]]:
    """Training, validation and test drawings of one class."""
    order = [members[place] for place in hash_order(names, 1, "study")]
    first = max(LEAST_TRAINING, round(SHARES["train"] * len(order)))
    second = first + max(1, round(SHARES["validation"] * len(order)))
    return [
        ("train", order[:first]),
        ("validation", order[first:second]),
        ("test", order[second:]),
    ]


# ----------------------------------------------------------------------------- segmentation

SCENES = {"train": 120, "validation": 40, "test": 100}
VALIDATION_SHARE = 0.25  # of the drawings that are not test


def _scenes(description: str, *parts: str, **options: object) -> SceneSet:
    return SceneSet(description, parts, **{"recipe": SCENE_SETS["food"].recipe} | options)


SAM_SETS: dict[str, SceneSet] = {
    **SCENE_SETS,
    "places": _scenes("places and vehicles, as OpenMoji draws them", "Travel & Places"),
    "objects": _scenes("objects, as OpenMoji draws them", "Objects"),
    "faces": _scenes("faces and hearts, as OpenMoji draws them", "Smileys & Emotion"),
    "signs": _scenes("symbols and games, as OpenMoji draws them", "Symbols", "Activities"),
    **{
        name: replace(
            SCENE_SETS["lines"],
            style=style,
            description=f"{style}'s outlines; the mask is all inside",
        )
        for name, style in (("ink", "noto-mono"), ("engraved", "symbola"), ("dots", "unifont"))
    },
}
OUTLINES = ("lines", "ink", "engraved", "dots")
KEPT_SCENES = SceneSet(
    "what pretraining showed: things as Twemoji draws them",
    ("Food & Drink", "Animals & Nature", "Travel & Places", "Objects", "Smileys & Emotion"),
    SceneRecipe(objects=(1, 4), sizes=(0.25, 0.6), clutter=0.3),
    style="twemoji",
)


@lru_cache
def load_scenes(name: str) -> SegmentationData:
    """One of `SAM_SETS`, or the same with `VALIDATION` behind it."""
    name, last = _asked(name, tuple(SAM_SETS))
    return _scene_data(name, SAM_SETS[name], last)


@lru_cache
def kept_scenes() -> SegmentationData:
    """Scenes such as the tiny SAM was pretrained on, to see what an adapted one forgot."""
    return _scene_data("kept", KEPT_SCENES, "test", count=40)


def _scene_data(name: str, settings: SceneSet, last: str, count: int = 0) -> SegmentationData:
    chosen = _choose(settings)
    counts = SCENES | {last: count or SCENES[last]}
    parts = {
        part: ScenePictures(f"study/{name}", part, settings, chosen[part], counts[part])
        for part in ("train", last)
    }
    return SegmentationData(
        name=name + (VALIDATION if last == "validation" else ""),
        train=parts["train"],
        test=parts[last],
        attribution=ATTRIBUTION[settings.style],
        content=repr((settings, chosen, DRAWING_SIZE)),
    )


def _choose(settings: SceneSet) -> dict[str, list[int]]:
    emoji = load_emoji(settings.style, DRAWING_SIZE)
    visible, unseen = kept_apart(emoji, drawings_of(settings)).values()
    names = [emoji.concepts[position].codepoints for position in visible]
    order = [visible[place] for place in hash_order(names, 1, "study")]
    count = round(VALIDATION_SHARE * len(order))
    # Concepts with one drawing between them stay on one side.
    files = {emoji.files[position] for position in order[:count]}
    validation = [position for position in order if emoji.files[position] in files]
    return {  # the order is part of the fingerprint
        "test": unseen,
        "validation": sorted(validation),
        "train": sorted(set(order) - set(validation)),
    }


# ------------------------------------------------------------------------------------ styles

SD3_SETS = tuple(TINY_STYLES)
DRAWN = {"validation": 40, "test": 100}


@lru_cache
def load_study_style(name: str) -> StyleData:
    """One of `SD3_SETS`, or the same with `VALIDATION` behind it.

    Validation pictures are taken from the style's training pictures; what is left trains.
    """
    name, last = _asked(name, SD3_SETS)
    data = load_tiny_style(name)
    order = hash_order([concept.codepoints for concept in data.train.sources], 1, "study")
    chosen = sorted(order[: DRAWN["validation"]])
    parts = {
        "train": data.train.some(sorted(order[DRAWN["validation"] :])),
        "validation": data.train.some(chosen),
        "test": with_few_tests(data, DRAWN["test"]).test,
    }
    return replace(
        data,
        name=name + (VALIDATION if last == "validation" else ""),
        train=parts["train"],
        test=parts[last],
    )


def _asked(name: str, known: Sequence[str]) -> tuple[str, str]:
    """A set's own name, and the part that is to be measured on."""
    own = name.removesuffix(VALIDATION)
    require_choice("set in the study", own, known)
    return own, "test" if own == name else "validation"


def group_of(name: str) -> str:
    """The group of a set: sets of one group show the same concepts, as other designers draw them.

    A classification set's group is its topic; segmentation's outlines are one group, as they show what the
    other sets show, and each other's concepts.
    """
    return "outlines" if name in OUTLINES else name.split("-", 1)[0]
