"""Wrong pictures: each keeps what it says that it keeps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serial_lora_course.measures.deceptions import in_colours_of, in_tiles, under_bars


def random_pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (count, 16, 16, 3), np.uint8)


@given(count=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 9))
def test_tiles_are_the_pictures_own_in_another_order(count, seed):
    pictures, side = random_pictures(3, seed), 16 // count

    def tiles(picture):
        starts = range(0, 16, side)
        return sorted(picture[r : r + side, c : c + side].tobytes() for r in starts for c in starts)

    mixed = in_tiles(pictures, count, np.random.default_rng(seed))
    for before, after in zip(pictures, mixed, strict=True):
        assert tiles(before) == tiles(after)
    assert (mixed == pictures).all() == (count == 1)


@given(width=st.integers(1, 3), seed=st.integers(0, 9))
def test_bars_are_black_and_leave_the_rest_alone(width, seed):
    pictures = random_pictures(4, seed)
    original = pictures.copy()
    barred = under_bars(pictures, width, 5, np.random.default_rng(seed))
    assert (pictures == original).all()
    for before, after in zip(pictures, barred, strict=True):
        black = (after == 0).all(2)
        assert (before[~black] == after[~black]).all()
        lying, upright = black.all(1), black.all(0)
        assert lying.any() != upright.any()
        assert (black == (lying[:, None] | upright)).all()


@given(seed=st.integers(0, 9))
def test_colours_are_the_others_and_keep_their_order(seed):
    pictures, other = random_pictures(3, seed) // 2, random_pictures(1, seed + 100)
    recoloured = in_colours_of(pictures, other, np.random.default_rng(seed))
    assert recoloured.shape == pictures.shape and recoloured.dtype == np.uint8
    for own, picture in zip(recoloured.reshape(3, -1, 3), pictures.reshape(3, -1, 3), strict=True):
        for before, after, channel in zip(picture.T, own.T, other.reshape(-1, 3).T, strict=True):
            ranked = after[before.argsort(kind="stable")].astype(int)
            assert (np.diff(ranked) >= 0).all()
            assert len(np.unique(np.stack([before, after]), axis=1).T) == len(np.unique(before))
            assert abs(after.mean() - channel.mean()) < 8  # of 255; before it was some 64
