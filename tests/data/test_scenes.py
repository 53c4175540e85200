"""Scenes: masks that are what can be seen, boxes that are tight, the same scene every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.datasets import load_sample_image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import scenes
from serial_lora_course.data.photographs import PHOTOGRAPHS, photographs
from serial_lora_course.data.scenes import SceneRecipe, box_of, compose

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def disc(colour=RED, hole: float = 0.0) -> np.ndarray:
    """A disc, or a ring, of one opaque colour: (48, 48, 4)."""
    rows, columns = np.mgrid[:48, :48] - 23.5
    radius = np.hypot(rows, columns)
    drawing = np.zeros((48, 48, 4), np.uint8)
    drawing[..., :3] = colour
    drawing[(radius <= 22) & (radius >= hole), 3] = 255
    return drawing


GREY = [np.full((90, 120, 3), 100, np.uint8)]
NOISE = [np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)]
DRAWINGS = np.stack([disc(RED), disc(GREEN), disc(BLUE), disc(RED, hole=12)])


def scene(seed=0, drawings=DRAWINGS, ground=NOISE, recipe=None, outlines=None):
    return compose(drawings, ground, np.random.default_rng(seed), recipe, outlines)


# --- boxes ---------------------------------------------------------------------------------------


@given(array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(lambda s: arrays(bool, s)))
def test_a_box_is_the_tightest_round_its_mask(mask):
    inside = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    expected = (0, 0, 0, 0)
    if inside:
        xs, ys = zip(*inside, strict=True)
        expected = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
    assert box_of(mask).tolist() == list(expected) and box_of(mask).dtype == np.float32


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_mask_is_where_its_drawing_is_seen(seed):
    one = SceneRecipe(height=71, width=83, objects=(1, 1), clutter=0.0)
    made = scene(seed, ground=GREY, recipe=one)
    # Of ground 100 under an alpha of half, 50 is left in a channel that the drawing leaves at 0.
    colour = DRAWINGS[made.drawings[0]][24, 2, :3]
    absent = np.asarray(colour).argmin()
    left = made.picture[..., absent]
    assert made.masks[0][left < 45].all() and not made.masks[0][left > 55].any()
    assert np.abs(made.picture[~made.masks[0]].astype(int).mean(0) - 100).max() < 8


@given(arrays(bool, (4, 6, 7)), st.floats(0.0, 1.0), st.integers(0, 9))
@settings(deadline=None)
def test_what_is_visible_is_what_no_later_layer_covers(whole, share, pixels):
    recipe = SceneRecipe(least_visible=share, least_pixels=pixels)
    masks, kept = scenes._visible(whole, recipe)
    expected = []
    for layer in range(4):
        seen = {
            (y, x)
            for y in range(6)
            for x in range(7)
            if whole[layer, y, x] and not any(whole[above, y, x] for above in range(layer + 1, 4))
        }
        area = int(whole[layer].sum())
        if len(seen) >= pixels and len(seen) >= share * area:
            expected.append(seen)
    assert kept.sum() == len(expected)
    assert [{tuple(pixel) for pixel in np.argwhere(mask).tolist()} for mask in masks] == expected


# --- chance --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drawings", "recipe"),
    [
        (np.zeros((3, 48, 48, 4), np.uint8), None),  # nothing is drawn
        (DRAWINGS, SceneRecipe(height=32, width=32, least_pixels=2000)),  # more than there are
        (DRAWINGS, SceneRecipe(least_visible=1.1)),
    ],
)
def test_a_recipe_that_leaves_nothing_to_find_is_refused(drawings, recipe):
    with pytest.raises(SerialLoRAError, match="100 scenes"):
        scene(0, drawings, recipe=recipe)


# --- photographs ---------------------------------------------------------------------------------


def test_photographs_are_real_pictures_and_none_is_in_both_splits():
    found = {split: photographs(split) for split in PHOTOGRAPHS}
    pictures = [picture for pictures in found.values() for picture in pictures]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 20
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert min(picture.shape[:2]) >= 128 and picture.std() > 5
    china = found["test"][PHOTOGRAPHS["test"].index("china")]
    assert np.array_equal(china, load_sample_image("china.jpg"))
    with pytest.raises(SerialLoRAError, match="train, test"):
        photographs("validation")
