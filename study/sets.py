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

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from serial_lora_course.data.emoji import ATTRIBUTION, UNSEEN_STYLES, load_emoji
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
    THINGS,
    ScenePictures,
    SceneSet,
    drawings_of,
)
from serial_lora_course.data.style_sets import TINY_STYLES, load_tiny_style
from serial_lora_course.data.subsets import hash_order, with_few_tests
from serial_lora_course.data.types import (
    ClassificationData,
    DividedData,
    Pictures,
    SegmentationData,
)

VALIDATION = "/validation"
Divided = tuple[DividedData, Pictures]
"""A set with its training and test pictures, and its validation pictures."""

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
def _classes(name: str) -> Divided:
    topic, style = name.split("-", 1)
    emoji = load_emoji(style)
    labels: dict[str, dict[int, int]] = {"train": {}, "validation": {}, "test": {}}
    kept = []
    for class_name, subgroups in TOPICS[topic].items():
        members = {
            concept.codepoints: index
            for index, concept in enumerate(emoji.concepts)
            if concept.subgroup in subgroups or concept.group in subgroups
        }
        if len(members) < LEAST_DRAWINGS:
            continue
        order = [list(members.values())[place] for place in hash_order([*members], 1, "study")]
        first = max(LEAST_TRAINING, round(SHARES["train"] * len(order)))
        second = first + max(1, round(SHARES["validation"] * len(order)))
        chosen = order[:first], order[first:second], order[second:]
        for part, indices in zip(labels.values(), chosen, strict=True):
            part |= dict.fromkeys(indices, len(kept))
        kept.append(class_name)
    train, validation, test = (
        emoji_pictures(emoji, list(part), list(part.values())) for part in labels.values()
    )
    data = ClassificationData(
        name=name,
        class_names=kept,
        template=TEMPLATE,
        generic_template=GENERIC_TEMPLATE,
        train=train,
        test=test,
        attribution=ATTRIBUTION[style],
    )
    return data, validation


# ----------------------------------------------------------------------------- segmentation

SCENES = {"train": 120, "validation": 40, "test": 100}
VALIDATION_SHARE = 0.25  # of the drawings that are not test


def _scenes(description: str, *parts: str) -> SceneSet:
    return SceneSet(description, parts, SCENE_SETS["food"].recipe)


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
KEPT_SCENES = SceneSet(
    "what pretraining showed: things as Twemoji draws them",
    THINGS,
    SceneRecipe(objects=(1, 4), sizes=(0.25, 0.6), clutter=0.3),
    style="twemoji",
)


def kept_scenes() -> SegmentationData:
    """Scenes such as the tiny SAM was pretrained on, to see what an adapted one forgot."""
    data, _ = _scenes_of("kept", KEPT_SCENES)
    return replace(data, test=data.test.some(range(40)))


@lru_cache
def _scenes_of(name: str, settings: SceneSet) -> Divided:
    emoji = load_emoji(settings.style, DRAWING_SIZE)
    visible, unseen = kept_apart(emoji, drawings_of(settings)).values()
    names = [emoji.concepts[position].codepoints for position in visible]
    order = [visible[place] for place in hash_order(names, 1, "study")]
    # Concepts with one drawing between them stay on one side.
    files = {emoji.files[position] for position in order[: round(VALIDATION_SHARE * len(order))]}
    validation = {position for position in order if emoji.files[position] in files}
    chosen = {  # the order is part of the fingerprint
        "test": unseen,
        "validation": sorted(validation),
        "train": sorted(set(order) - validation),
    }
    parts = {
        part: ScenePictures(
            f"study/{name}",
            part,
            settings,
            emoji.some(chosen[part]),
            [emoji.concepts[position].name for position in chosen[part]],
            count,
        )
        for part, count in SCENES.items()
    }
    data = SegmentationData(
        name=name,
        train=parts["train"],
        test=parts["test"],
        attribution=ATTRIBUTION[settings.style],
        content=repr((settings, chosen, DRAWING_SIZE)),
    )
    return data, parts["validation"]


# ------------------------------------------------------------------------------------ styles

DRAWN = {"validation": 40, "test": 100}


def _style(name: str) -> Divided:
    data = with_few_tests(load_tiny_style(name), DRAWN["test"])
    order = hash_order([concept.codepoints for concept in data.train.sources], 1, "study")
    validation, train = order[: DRAWN["validation"]], order[DRAWN["validation"] :]
    return replace(data, train=data.train.some(sorted(train))), data.train.some(sorted(validation))


# -------------------------------------------------------------------------------------- all

SETS: dict[str, tuple[Sequence[str], Callable[[str], Divided]]] = {
    "clip": (CLIP_SETS, _classes),
    "sam": (tuple(SAM_SETS), lambda name: _scenes_of(name, SAM_SETS[name])),
    "sd3": (tuple(TINY_STYLES), _style),
}
"""A lab's sets, and what divides one of them."""


def load_set(lab: str, name: str) -> DividedData:
    """One of a lab's sets; with `VALIDATION` behind its name, its validation pictures are test."""
    own = name.removesuffix(VALIDATION)
    _, divide = SETS[lab]
    data, validation = divide(own)
    return data if own == name else replace(data, name=name, test=validation)


def group_of(name: str) -> str:
    """The group of a set: sets of one group show the same concepts, as other designers draw them.

    A classification set's group is its topic; segmentation's outlines are one group, as they show what the
    other sets show, and each other's concepts.
    """
    outlined = name in SAM_SETS and SAM_SETS[name].outlined
    return "outlines" if outlined else name.split("-", 1)[0]
