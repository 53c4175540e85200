"""The tiny classification data sets: Unicode's subgroups as classes, drawn in OpenMoji.

Of every subgroup's concepts four in ten are *hidden*: their OpenMoji drawings, colour and line, are
kept out of the tiny CLIP's pretraining, and they are the test pictures here. The other six in ten
are the pool from which few-shot training pictures are drawn.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from functools import lru_cache

from serial_lora.data.emoji import Concept, emoji_concepts, load_emoji
from serial_lora.errors import SerialLoRAError

HIDDEN_FRACTION = 0.4
TEMPLATE = "a drawing of {}."

# data set -> class name (as it stands in a prompt) -> Unicode subgroups that make it up
EMOJI_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "nature": {
        "a mammal": ("animal-mammal",),
        "a bird": ("animal-bird",),
        "a sea animal": ("animal-marine",),
        "an insect": ("animal-bug",),
        "a reptile": ("animal-reptile", "animal-amphibian"),
        "a flower": ("plant-flower",),
        "a plant": ("plant-other",),
        "the weather": ("sky & weather",),
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
        "a flag": ("country-flag", "subdivision-flag", "flag"),
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
    hidden = set()
    for concepts in by_subgroup.values():
        shuffled = sorted(concepts, key=lambda concept: _lottery(concept.codepoints))
        hidden.update(c.codepoints for c in shuffled[: round(HIDDEN_FRACTION * len(shuffled))])
    return frozenset(hidden)


def _lottery(codepoints: str) -> str:
    return hashlib.sha256(f"hidden:{codepoints}".encode()).hexdigest()
