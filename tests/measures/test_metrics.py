"""Accuracy, Dice and its relatives: by a loop over pixels, and by algebra."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.metrics import accuracy, dice, dice_ce, iou, soft_dice_loss

EMPTY = np.zeros((2, 3), bool)


def test_accuracy_counts_the_rows_whose_largest_entry_is_the_label():
    scores = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 3
    right = sum(
        row.index(max(row)) == label
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    )
    assert 0 < right < 40 and accuracy(scores, labels) == pytest.approx(right / 40)


def test_areas_beyond_float32_are_exact():
    """Above 2^24 = 4096 x 4096 pixels float32 cannot count by ones."""
    side = 4097
    truth = torch.ones(side, side, dtype=torch.bool)
    found = truth.clone()
    found[0, 0] = False
    area = side * side
    assert iou(found, truth).double().item() == pytest.approx((area - 1) / area, abs=1e-7)
    assert iou(found, truth).item() < 1


def pixel_by_pixel(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    both = either = areas = 0
    for a, b in zip(found.flatten().tolist(), truth.flatten().tolist(), strict=True):
        both, either, areas = both + (a and b), either + (a or b), areas + a + b
    return (2 * both / areas, both / either) if either else (1.0, 1.0)


pairs = array_shapes(min_dims=2, max_dims=2, max_side=7).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@given(pairs)
@settings(deadline=None)
def test_a_loop_over_pixels_says_the_same(pair):
    found, truth = (torch.from_numpy(array) for array in pair)
    by_dice, by_iou = dice(found, truth).item(), iou(found, truth).item()
    assert (by_dice, by_iou) == pytest.approx(pixel_by_pixel(*pair), abs=1e-6)
    assert by_iou == pytest.approx(by_dice / (2 - by_dice), abs=1e-6)
    assert 0 <= by_iou <= by_dice <= 1 and (by_dice == 1) == np.array_equal(*pair)
    assert dice(truth, found).item() == by_dice and iou(truth, found).item() == by_iou


def plain_dice_ce(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """MONAI's two terms for one mask, pixel by pixel in plain Python."""
    overlap = squares = entropy = 0.0
    for logit, inside in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        overlap += p * inside
        squares += p * p + inside * inside
        entropy -= inside * math.log(p) + (1 - inside) * math.log(1 - p)
    return 1 - (2 * overlap + 1e-5) / (squares + 1e-5), entropy / logits.size


@given(
    array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
        lambda shape: st.tuples(
            arrays(np.float64, shape, elements=st.floats(-12, 12)),
            arrays(bool, shape) | arrays(np.float64, shape, elements=st.floats(0, 1)),
        )
    )
)
@settings(deadline=None)
def test_losses_pixel_by_pixel(pair):
    logits, truth = torch.from_numpy(pair[0]), torch.from_numpy(pair[1])
    overlap_term, entropy_term = plain_dice_ce(*pair)
    assert soft_dice_loss(logits, truth).item() == pytest.approx(overlap_term, abs=1e-9)
    assert dice_ce(logits, truth).item() == pytest.approx(overlap_term + entropy_term, abs=1e-9)


LOGITS = torch.zeros(3, 4, 5)
REFUSED = [
    # what, its arguments, the noun that matters
    *((measure, EMPTY, np.zeros((3, 2), bool), "shape") for measure in (dice, iou)),
    *((measure, EMPTY[None], EMPTY, "shape") for measure in (dice, iou)),  # would be stretched
    *((measure, EMPTY, EMPTY.astype(float), "bool") for measure in (dice, iou)),
    *((loss, LOGITS, LOGITS.byte() + 255, "bool") for loss in (soft_dice_loss, dice_ce)),
    (accuracy, torch.zeros(3, 2), torch.zeros(3, 1), "labels"),
]


@pytest.mark.parametrize(("measure", "found", "truth", "noun"), REFUSED)
def test_what_would_quietly_be_another_measure_is_refused(measure, found, truth, noun):
    with pytest.raises(SerialLoRAError, match=noun):
        measure(found, truth)
