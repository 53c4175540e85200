"""What is painted is what a loop over pixels says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serial_lora_course.plots.masks import AGREED, FALSE_POSITIVE, MISSED, NOTHING, compare_masks


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
