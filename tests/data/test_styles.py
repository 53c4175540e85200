"""The tiny styles: the same things in four looks."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from serial_lora_course.data import style_sets
from serial_lora_course.data.emoji import Concept, load_emoji
from serial_lora_course.data.registry import load_style
from serial_lora_course.data.style_sets import (
    LAMPLIGHT,
    PICTURES,
    SIZE,
    TINY_STYLES,
    load_tiny_style,
    things,
)

# --- what trains, and what is held out -----------------------------------------------------------


def test_the_things_are_the_same_in_every_style_and_known_to_the_base():
    known = {concept.codepoints for concept in load_emoji("twemoji", SIZE).concepts}
    for part, count in PICTURES.items():
        seen = {tuple(getattr(load_style(name), part).concepts) for name in TINY_STYLES}
        (concepts,) = seen
        assert len(concepts) == count and set(concepts) <= set(things())
        assert {concept.codepoints for concept in concepts} <= known


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), count=st.integers(1, 120))
def test_groups_of_any_size_are_taken_at_an_equal_pace(sizes, count):
    concepts = [
        Concept(f"{group}-{number}", "", str(group), "")
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    kept = style_sets._from_every_group(concepts, count)
    assert len(kept) == len(set(kept)) == min(count, len(concepts))
    assert list(kept) == [concept for concept in concepts if concept in set(kept)]
    taken = Counter(concept.group for concept in kept)
    for group, size in enumerate(sizes):
        share = size * min(1, count / len(concepts))
        assert abs(taken[str(group)] - share) <= 0.5 + size * len(sizes) / (2 * len(concepts))


def test_styles_are_told_apart_and_colours_are_part_of_what_a_style_is(monkeypatch):
    assert len({load_style(name).fingerprint() for name in TINY_STYLES}) == len(TINY_STYLES)
    ids = [picture_id for name in TINY_STYLES for picture_id in load_style(name).train.picture_ids]
    assert len(set(ids)) == len(ids)  # a cache keyed by them cannot mix two styles up
    paler = replace(TINY_STYLES["night"], colours=(*LAMPLIGHT[:-1], "ffffff"))
    monkeypatch.setitem(TINY_STYLES, "night", paler)
    changed = load_tiny_style.__wrapped__("night").fingerprint()
    assert changed != load_style("night").fingerprint()
