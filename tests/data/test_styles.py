"""The tiny styles: the same things in four looks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from serial_lora_course.data import style_sets
from serial_lora_course.data.emoji import Concept, load_emoji
from serial_lora_course.data.registry import load_style
from serial_lora_course.data.renderings import CELLS, GLOW
from serial_lora_course.data.style_sets import (
    ARCADE,
    LAMPLIGHT,
    PICTURES,
    SIZE,
    TINY_STYLES,
    caption,
    load_tiny_style,
    render,
    things,
)
from serial_lora_course.data.types import StyleExample

EVERY_STYLE = pytest.mark.parametrize("name", list(TINY_STYLES))
LOOKED_AT = slice(None, None, 25)


def rgb(*colours: str) -> np.ndarray:
    return np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in colours], np.uint8)


def twemoji(*names: str) -> np.ndarray:
    emoji = load_emoji("twemoji", SIZE)
    return emoji.pictures[[emoji.names.index(name) for name in names]]


def examples_of(name: str, part: str = "train") -> list[StyleExample]:
    pictures = getattr(load_style(name), part)
    return [pictures[index] for index in range(len(pictures))[LOOKED_AT]]


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


@EVERY_STYLE
def test_examples_are_pictures_with_the_name_of_what_they_show(name):
    data = load_style(name)
    assert data.description and data.attribution and data.split and data.scale == "tiny"
    for part in (data.train, data.test):
        assert len({caption(concept) for concept in part.concepts}) == len(part)
        for index in range(len(part))[LOOKED_AT]:
            example = part[index]
            assert example.picture.size == (SIZE, SIZE) and example.picture.mode == "RGB"
            assert example.caption == caption(part.concepts[index])
            assert example.picture_id == part.picture_ids[index]
    assert data.train[-1].picture_id == data.train.picture_ids[-1]
    for index in (len(data.train), -len(data.train) - 1):
        with pytest.raises(IndexError):
            data.train[index]


def test_styles_are_told_apart_and_colours_are_part_of_what_a_style_is(monkeypatch):
    assert len({load_style(name).fingerprint() for name in TINY_STYLES}) == len(TINY_STYLES)
    ids = [picture_id for name in TINY_STYLES for picture_id in load_style(name).train.picture_ids]
    assert len(set(ids)) == len(ids)  # a cache keyed by them cannot mix two styles up
    paler = replace(TINY_STYLES["night"], colours=(*LAMPLIGHT[:-1], "ffffff"))
    monkeypatch.setitem(TINY_STYLES, "night", paler)
    changed = load_tiny_style.__wrapped__("night").fingerprint()
    assert changed != load_style("night").fingerprint()


# --- after dark ----------------------------------------------------------------------------------


def along(ramp: np.ndarray) -> np.ndarray:
    """Points close together on the polyline through some colours."""
    shares = np.linspace(0, 1, 100)[:, None]
    steps = [a * (1 - shares) + b * shares for a, b in zip(ramp, ramp[1:], strict=False)]
    return np.concatenate(steps)


def test_night_takes_its_colours_from_the_ramp_and_the_sky():
    ramp, sky = rgb(*LAMPLIGHT[2:]).astype(float), rgb(*LAMPLIGHT[:2]).astype(float)
    drawings = twemoji("red apple", "octopus", "black heart", "crescent moon", "newspaper")
    for drawing in drawings:
        picture = render("night", drawing).astype(float)
        for inside, points in (
            (drawing[..., 3] == 255, along(ramp)),
            (drawing[..., 3] == 0, along(np.stack([sky[0], sky[0] + GLOW[1] * sky[1]]))),
        ):
            away = np.abs(picture[inside][:, None] - points).max(-1).min(-1)
            assert inside.any() and away.max() <= 2
        assert np.abs(picture[0, 0] - sky[0]).max() < 40  # the glow has all but faded


# --- pixel art -----------------------------------------------------------------------------------


def cells_of(picture: np.ndarray) -> np.ndarray:
    """The colours of the cells, (16, 16, 3), after making sure that there are cells."""
    side = len(picture) // CELLS
    cells = picture[::side, ::side]
    assert np.array_equal(np.kron(cells, np.ones((side, side, 1), np.uint8)), picture)
    return cells


def test_pixel_art_has_cells_of_the_palette_and_a_line_round_everything():
    """Beyond the outermost paper there is the line, so paper floods up to it and no further."""
    paper, line = (tuple(colour) for colour in rgb(*ARCADE[:2]))
    palette = {tuple(colour) for colour in rgb(*ARCADE)}
    for example in examples_of("pixel"):
        cells = cells_of(np.asarray(example.picture))
        assert {tuple(cell) for row in cells for cell in row} <= palette
        sheet = (cells == paper).all(-1)
        edge = np.zeros_like(sheet)
        edge[[0, -1]] = edge[:, [0, -1]] = True
        outside = ndimage.binary_propagation(sheet & edge, mask=sheet)
        beside = ndimage.binary_dilation(outside) | edge
        assert {tuple(cell) for cell in cells[beside]} <= {paper, line}
