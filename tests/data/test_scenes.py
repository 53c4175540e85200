"""Scenes: masks are what can be seen, and boxes are tight."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from serial_lora_course.data import scenes
from serial_lora_course.data.scenes import SceneRecipe, box_of


@given(array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(lambda s: arrays(bool, s)))
def test_a_box_is_the_tightest_round_its_mask(mask):
    inside = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    expected = (0, 0, 0, 0)
    if inside:
        xs, ys = zip(*inside, strict=True)
        expected = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
    assert box_of(mask).tolist() == list(expected) and box_of(mask).dtype == np.float32


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
