"""Pictures of masks: every pixel what a loop says it is, every figure described in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from serial_lora_course.lessons.l05_sam.figures import plot_dice_per_picture, plot_windows
from serial_lora_course.plots.masks import (
    AGREED,
    COLOURS,
    FALSE_POSITIVE,
    MISSED,
    NOTHING,
    STRENGTH,
    WORDS,
    OverlayRow,
    compare_masks,
    overlay,
    pick_best_median_worst,
    plot_overlays,
)
from serial_lora_course.plots.style import describe

TRUTH = np.zeros((12, 15), bool)
TRUTH[3:9, 4:11] = True
FOUND = np.roll(TRUTH, (1, 2), (0, 1))
GROUND = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)


# --- what each pixel is --------------------------------------------------------------------------


def pixel_kind(truths, founds) -> int:
    """The worst that any object says of a pixel: false positive, then missed, then agreed."""
    pairs = list(zip(truths, founds, strict=True))
    if any(found and not truth for truth, found in pairs):
        return FALSE_POSITIVE
    if any(truth and not found for truth, found in pairs):
        return MISSED
    return AGREED if any(truth and found for truth, found in pairs) else NOTHING


@given(
    st.integers(1, 3).flatmap(
        lambda objects: st.tuples(arrays(bool, (objects, 4, 5)), arrays(bool, (objects, 4, 5)))
    )
)
@settings(deadline=None)
def test_a_loop_over_pixels_says_the_same(pair):
    truth, found = pair
    kinds = compare_masks(truth, found)
    assert kinds.shape == (4, 5) and kinds.dtype == np.uint8
    for row in range(4):
        for column in range(5):
            assert kinds[row, column] == pixel_kind(truth[:, row, column], found[:, row, column])


# --- overlays ------------------------------------------------------------------------------------


def painted(grey: float, colour: str) -> list[float]:
    return [STRENGTH * 255 * c + (1 - STRENGTH) * grey for c in to_rgb(colour)]


def test_an_overlay_colours_each_kind_of_pixel():
    sheet = overlay(GROUND, TRUTH, FOUND, contour=False)
    grey = np.asarray(Image.fromarray(GROUND).convert("L")).astype(float)
    for row, column in np.ndindex(TRUTH.shape):
        kind = pixel_kind([TRUTH[row, column]], [FOUND[row, column]])
        g = grey[row, column]
        expected = [g] * 3 if kind == NOTHING else painted(g, COLOURS[kind])
        np.testing.assert_allclose(sheet[row, column], expected, atol=0.51)
    np.testing.assert_allclose(  # without a truth, all that was found has the colour of agreement
        overlay(GROUND, None, FOUND), overlay(GROUND, FOUND, FOUND, contour=False)
    )


def test_the_colours_differ_in_lightness_too():
    """Whoever cannot tell hues apart can still tell the three kinds apart."""
    weights = np.asarray([0.2126, 0.7152, 0.0722])
    lightness = sorted(float(weights @ to_rgb(colour)) for colour in COLOURS.values())
    assert len(set(COLOURS.values())) == 3 and np.diff(lightness).min() > 0.05
    assert set(WORDS) == set(COLOURS)


def test_the_true_outline_is_white_and_one_pixel_wide():
    sheet = overlay(GROUND * 0, TRUTH, FOUND)
    white = (sheet == 255).all(2)
    rim = TRUTH.copy()
    rim[4:8, 5:10] = False
    assert np.array_equal(white, rim)
    assert np.array_equal(
        overlay(GROUND, TRUTH, FOUND)[~rim], overlay(GROUND, TRUTH, FOUND, False)[~rim]
    )


# --- which pictures ------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_best_median_and_worst_are_what_they_are_called(scores):
    picked = pick_best_median_worst(scores)
    assert list(picked) == ["best", "median", "worst"]
    found = {title: scores[index] for title, index in picked.items()}
    falling = sorted(scores, reverse=True)
    assert found["best"] == falling[0] and found["worst"] == falling[-1]
    assert found["median"] == falling[(len(scores) - 1) // 2]
    if len(scores) > 2:
        assert len(set(picked.values())) == 3


# --- figures -------------------------------------------------------------------------------------


def row(title="best", **changes) -> OverlayRow:
    given = dict(title=title, picture=GROUND, found={"before": TRUTH, "after": FOUND}, truth=TRUTH)
    return OverlayRow(**given | {"boxes": [4, 3, 11, 9]} | changes)


def test_rows_show_picture_truth_and_every_prediction():
    figure = plot_overlays([row(), row("worst", boxes=None)])
    grid = np.asarray(figure.axes).reshape(2, 4)
    assert [axes.get_title() for axes in grid[0]] == ["picture", "truth", "before", "after"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["best", "worst"]
    overlap = 5 * 5  # rows 4 to 8, columns 6 to 10
    expected = 2 * overlap / (6 * 7 * 2)
    assert [axes.get_xlabel() for axes in grid[0, 2:]] == ["Dice 1.00", f"Dice {expected:.2f}"]
    shown = grid[0, 3].images[0].get_array()
    assert np.array_equal(shown, overlay(GROUND, TRUTH, FOUND))
    assert np.array_equal(grid[0, 1].images[0].get_array(), overlay(GROUND, TRUTH, TRUTH))
    assert figure.alt_text.count(f"before: 1.00, after: {expected:.2f}") == 2


def test_a_box_is_drawn_at_its_pixels_edges():
    figure = plot_overlays([row(boxes=[[4, 3, 11, 9], [0, 0, 15, 12]])])
    boxes = [p.get_bbox().extents for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    # imshow puts a pixel's centre at its index, so its edges lie half a pixel off.
    expected = [[3.5, 2.5, 10.5, 8.5]] * 2 + [[-0.5, -0.5, 14.5, 11.5]] * 2
    np.testing.assert_allclose(boxes, expected)


SCORES = {"unadapted": [0.2, 0.5, 0.9, 0.4], "serial_lora": [0.3, 0.5, 0.8, 0.7]}


def test_every_picture_is_drawn_before_and_after():
    figure = plot_dice_per_picture(SCORES)
    strip, pairs = figure.axes
    heights = [np.asarray(points.get_offsets())[:, 1].tolist() for points in strip.collections]
    assert heights == list(SCORES.values())
    medians = [line.get_ydata()[0] for line in strip.lines]
    assert medians == pytest.approx([np.median(values) for values in SCORES.values()])
    drawn = {tuple(pair) for points in pairs.collections for pair in points.get_offsets().tolist()}
    assert drawn == set(zip(*SCORES.values(), strict=True))
    assert [text.get_text() for text in pairs.texts] == ["better: 2\nworse (×): 1"]
    assert "median 0.60, worst 0.30, better on 2 and worse on 1" in figure.alt_text
    assert len(plot_dice_per_picture({"unadapted": [0.4]}).axes) == 1


def test_what_a_token_does_not_see_is_veiled():
    seen = {
        "a window": np.kron([[0, 1], [0, 0]], np.ones((2, 2))) > 0,
        "all": np.ones((4, 4), bool),
    }
    figure = plot_windows(np.zeros((8, 8, 3)), seen, (0, 3))
    veils = [axes.images[1].get_array()[..., 3] for axes in figure.axes]
    assert (veils[0] > 0).sum() == 12 and not veils[1].any()
    assert "a window, 4 of 16; all, 16 of 16" in describe(figure)
