"""The tiny classification data sets: Unicode's subgroups as classes, drawn in OpenMoji.

Of every subgroup's concepts four in ten are *hidden*: their OpenMoji drawings, colour and line, are
kept out of the tiny CLIP's pretraining, and they are the test pictures here. The other six in ten
are the pool from which few-shot training pictures are drawn.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from serial_lora_course.data.emoji import ATTRIBUTION, Concept, EmojiSet, emoji_concepts, load_emoji
from serial_lora_course.data.types import ClassificationData, Pictures

HIDDEN_FRACTION = 0.4
TEMPLATE = "a drawing of {}."
GENERIC_TEMPLATE = "a photo of {}."  # class names carry their own articles

# data set -> class name (as it stands in a prompt) -> Unicode subgroups or groups that make it up
EMOJI_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "nature": {
        "a mammal": ("animal-mammal",),
        "a bird": ("animal-bird",),
        "a sea animal": ("animal-marine",),
        "an insect": ("animal-bug",),
        "a reptile": ("animal-reptile", "animal-amphibian"),
        "a flower": ("plant-flower",),
        "a plant": ("plant-other",),
        "the sky": ("sky & weather",),
    },
    "food": {
        "a fruit": ("food-fruit",),
        "a vegetable": ("food-vegetable",),
        "a prepared meal": ("food-prepared",),
        "asian food": ("food-asian",),
        "a sweet": ("food-sweet",),
        "a drink": ("drink",),
        "tableware": ("dishware",),
        "a household item": ("household",),
    },
    "travel": {
        "a road vehicle": ("transport-ground",),
        "an aircraft": ("transport-air",),
        "a boat": ("transport-water",),
        "a building": ("place-building", "place-religious"),
        "a landscape": ("place-geographic",),
        "a clock": ("time",),
        "a traffic sign": ("transport-sign", "warning"),
        "a sight": ("place-other", "place-map"),
    },
    "objects": {
        "clothing": ("clothing",),
        "a tool": ("tool",),
        "office supplies": ("office", "writing"),
        "a book or paper": ("book-paper",),
        "a camera or lamp": ("light & video",),
        "a computer or telephone": ("computer", "phone"),
        "mail": ("mail",),
        "a musical instrument": ("musical-instrument",),
        "money": ("money",),
        "sports equipment": ("sport",),
    },
    "symbols": {
        "an arrow": ("arrow",),
        "letters": ("alphanum",),
        "a geometric shape": ("geometric",),
        "a player button": ("av-symbol",),
        "a zodiac sign": ("zodiac",),
        "a religious symbol": ("religion",),
        "a number key": ("keycap",),
        "a heart": ("heart",),
    },
    "everything": {
        "a face": ("Smileys & Emotion",),
        "a person": ("People & Body",),
        "an animal or plant": ("Animals & Nature",),
        "food": ("Food & Drink",),
        "a place": ("Travel & Places",),
        "an activity": ("Activities",),
        "an object": ("Objects",),
        "a symbol": ("Symbols",),
        "a flag": ("Flags",),
    },
}


@lru_cache
def hidden_codepoints() -> frozenset[str]:
    """Concepts whose OpenMoji drawings no pretraining may see, as code points.

    The choice depends on each concept's own code points alone, so it never changes with the order
    or the size of the list.
    """
    by_subgroup: dict[str, list[Concept]] = defaultdict(list)
    for concept in emoji_concepts():
        by_subgroup[concept.subgroup].append(concept)

    def lottery(concept: Concept) -> str:
        return hashlib.sha256(f"hidden:{concept.codepoints}".encode()).hexdigest()

    hidden = set()
    for concepts in by_subgroup.values():
        shuffled = sorted(concepts, key=lottery)
        hidden.update(c.codepoints for c in shuffled[: round(HIDDEN_FRACTION * len(shuffled))])
    return frozenset(hidden)


def unseen_drawings(emoji: EmojiSet) -> frozenset[int]:
    """Positions of the hidden concepts whose drawing no visible concept shares.

    A few concepts have one drawing between them, as Norway's and Svalbard's flags do; where one of
    the two is visible, pretraining has seen the drawing of the other.
    """
    hidden = hidden_codepoints()
    is_hidden = [concept.codepoints in hidden for concept in emoji.concepts]
    shown = {file for file, unseen in zip(emoji.files, is_hidden, strict=True) if not unseen}
    return frozenset(i for i, file in enumerate(emoji.files) if is_hidden[i] and file not in shown)


def kept_apart(emoji: EmojiSet, positions: Iterable[int]) -> dict[str, list[int]]:
    """Those of the drawings that are there to train on, and those to test on."""
    hidden, unseen = hidden_codepoints(), unseen_drawings(emoji)
    chosen: dict[str, list[int]] = {"train": [], "test": []}
    for position in positions:
        if emoji.concepts[position].codepoints not in hidden:
            chosen["train"].append(position)
        elif position in unseen:
            chosen["test"].append(position)
    return chosen


def emoji_pictures(emoji: EmojiSet, indices: list[int], labels: list[int]) -> Pictures:
    """Some drawings with labels, on white paper."""
    names = [emoji.concepts[index].codepoints for index in indices]
    return Pictures(names, emoji.picture, indices, labels)


def load_emoji_set(name: str, size: int = 64, drawn_by: str = "openmoji") -> ClassificationData:
    """One tiny data set, a key of :data:`EMOJI_SETS`, in one designer's drawings."""
    emoji = load_emoji(drawn_by, size)
    label_of = {part: i for i, parts in enumerate(EMOJI_SETS[name].values()) for part in parts}
    labels = {
        index: label_of.get(concept.subgroup, label_of.get(concept.group))
        for index, concept in enumerate(emoji.concepts)
    }
    parts = kept_apart(emoji, (index for index, label in labels.items() if label is not None))
    train, test = (
        emoji_pictures(emoji, indices, [labels[index] for index in indices])
        for indices in parts.values()
    )
    return ClassificationData(
        name=name,
        class_names=list(EMOJI_SETS[name]),
        template=TEMPLATE,
        generic_template=GENERIC_TEMPLATE,
        train=train,
        test=test,
        scale="tiny",
        attribution=ATTRIBUTION[drawn_by],
    )
