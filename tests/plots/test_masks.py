"""What is painted is what a loop over pixels says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.masks import (
    AGREED,
    COLOURS,
    FALSE_POSITIVE,
    MISSED,
    NOTHING,
    STRENGTH,
    OverlayRow,
    compare_masks,
    overlay,
    pick_best_median_worst,
    plot_overlays,
)

TRUTH = np.zeros((12, 15), bool)
TRUTH[3:9, 4:11] = True
FOUND = np.roll(TRUTH, (1, 2), (0, 1))
GROUND = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)


def pixel_kind(truths, founds) -> int:
    """The worst that any object says of a pixel: false positive, then missed, then agreed."""
    pairs = list(zip(truths, founds, strict=True))
    if any(found and not truth for truth, found in pairs):
        return FALSE_POSITIVE
    if any(truth and not found for truth, found in pairs):
        return MISSED
    return AGREED if any(truth and found for truth, found in pairs) else NOTHING


@given(st.integers(1, 3).flatmap(lambda n: st.tuples(*[arrays(bool, (n, 4, 5))] * 2)))
@settings(deadline=None)
def test_a_loop_over_pixels_says_the_same(pair):
    truth, found = pair
    kinds = compare_masks(truth, found)
    for row, column in np.ndindex(4, 5):
        assert kinds[row, column] == pixel_kind(truth[:, row, column], found[:, row, column])


def test_an_overlay_colours_each_kind_of_pixel():
    sheet = overlay(GROUND, TRUTH, FOUND, contour=False)
    grey = np.asarray(Image.fromarray(GROUND).convert("L")).astype(float)
    for place in np.ndindex(TRUTH.shape):
        kind, g = pixel_kind([TRUTH[place]], [FOUND[place]]), grey[place]
        paint = np.multiply(255, to_rgb(COLOURS.get(kind, "black")))
        expected = [g] * 3 if kind == NOTHING else STRENGTH * paint + (1 - STRENGTH) * g
        np.testing.assert_allclose(sheet[place], expected, atol=0.51)
    unknown = overlay(GROUND, None, FOUND)
    assert np.array_equal(unknown, overlay(GROUND, FOUND, FOUND, contour=False))


def test_the_true_outline_is_white_and_one_pixel_wide():
    rim = TRUTH.copy()
    rim[4:8, 5:10] = False
    assert np.array_equal((overlay(GROUND * 0, TRUTH, FOUND) == 255).all(2), rim)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_best_median_and_worst_are_what_they_are_called(scores):
    picked = pick_best_median_worst(scores)
    falling = sorted(scores, reverse=True)
    wanted = [falling[0], falling[(len(scores) - 1) // 2], falling[-1]]
    assert [scores[index] for index in picked.values()] == wanted


def test_rows_show_picture_truth_and_every_prediction():
    found = {"before": TRUTH, "after": FOUND}
    figure = plot_overlays([OverlayRow("best", GROUND, found, TRUTH, [4, 3, 11, 9])])
    picture, truth, before, after = figure.axes
    expected = 2 * (5 * 5) / (6 * 7 * 2)  # both have rows 4 to 8, columns 6 to 10
    assert (before.get_xlabel(), after.get_xlabel()) == ("Dice 1.00", f"Dice {expected:.2f}")
    assert np.array_equal(after.images[0].get_array(), overlay(GROUND, TRUTH, FOUND))
    assert np.array_equal(truth.images[0].get_array(), overlay(GROUND, TRUTH, TRUTH))
    # imshow puts a pixel's centre at its index, so its edges lie half a pixel off.
    boxes = [p.get_bbox().extents for p in picture.patches if isinstance(p, Rectangle)]
    np.testing.assert_allclose(boxes, [[3.5, 2.5, 10.5, 8.5]] * 2)


@pytest.mark.parametrize("found", [FOUND[:5], 3.0 * FOUND, np.stack([FOUND, FOUND])])
def test_what_is_no_mask_of_the_picture_is_refused(found):
    with pytest.raises(SerialLoRAError):
        overlay(GROUND, TRUTH, found)
