"""Dice and its relatives: by hand, by a loop over pixels, by libraries, and by algebra."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from serial_lora.errors import SerialLoRAError
from serial_lora.metrics import accuracy, dice, dice_ce, iou, soft_dice_loss

EMPTY, FULL = np.zeros((2, 3), bool), np.ones((2, 3), bool)


def mask(*rows: str) -> np.ndarray:
    """A mask drawn with # and dots."""
    return np.asarray([[pixel == "#" for pixel in row] for row in rows])


# --- by hand -------------------------------------------------------------------------------------

BY_HAND = [
    # found, truth, Dice, IoU
    (mask("##.", "##."), mask("##.", "##."), 1, 1),
    (mask("##.", "..."), mask("...", "##."), 0, 0),
    (mask("##.", "##."), mask(".##", ".##"), 2 * 2 / (4 + 4), 2 / 6),
    (mask("#..", "..."), mask("###", "###"), 2 * 1 / (1 + 6), 1 / 6),
    (mask("###", "###"), mask("#..", "..."), 2 * 1 / (6 + 1), 1 / 6),
    (mask("##.", "#.."), mask("#..", "##."), 2 * 2 / (3 + 3), 2 / 4),
    (EMPTY, EMPTY, 1, 1),
    (FULL, EMPTY, 0, 0),
    (EMPTY, FULL, 0, 0),
    (mask("#"), mask("#"), 1, 1),
    (mask("#"), mask("."), 0, 0),
]


@pytest.mark.parametrize(("found", "truth", "expected_dice", "expected_iou"), BY_HAND)
def test_masks_by_hand(found, truth, expected_dice, expected_iou):
    assert dice(found, truth).item() == pytest.approx(expected_dice, abs=1e-7)
    assert iou(found, truth).item() == pytest.approx(expected_iou, abs=1e-7)


def test_many_masks_are_scored_one_by_one():
    drawn = [case for case in BY_HAND if case[0].shape == (2, 3)]
    found, truth, by_dice, by_iou = (list(column) for column in zip(*drawn, strict=True))
    stacked = np.stack(found).reshape(3, 3, 2, 3), np.stack(truth).reshape(3, 3, 2, 3)
    for measure, expected in ((dice, by_dice), (iou, by_iou)):
        scores = measure(*stacked)
        assert scores.shape == (3, 3) and scores.dtype == torch.float32
        np.testing.assert_allclose(scores.flatten(), expected, atol=1e-7)


def test_no_masks_have_no_scores():
    nothing = torch.zeros(0, 4, 5, dtype=torch.bool)
    assert dice(nothing, nothing).shape == iou(nothing, nothing).shape == (0,)


def test_areas_beyond_float32_are_exact():
    """Above 2^24 = 4096 x 4096 pixels float32 cannot count by ones."""
    side = 4097
    truth = torch.ones(side, side, dtype=torch.bool)
    found = truth.clone()
    found[0, 0] = False
    area = side * side
    assert iou(found, truth).double().item() == pytest.approx((area - 1) / area, abs=1e-7)
    assert iou(found, truth).item() < 1


# --- written another way -------------------------------------------------------------------------


def pixel_by_pixel(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    both = either = areas = 0
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            a, b = bool(found[row, column]), bool(truth[row, column])
            both, either, areas = both + (a and b), either + (a or b), areas + a + b
    return (2 * both / areas, both / either) if either else (1.0, 1.0)


pairs = array_shapes(min_dims=2, max_dims=2, max_side=7).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@given(pairs)
@settings(deadline=None)
def test_a_loop_over_pixels_says_the_same(pair):
    by_dice, by_iou = pixel_by_pixel(*pair)
    assert dice(*pair).item() == pytest.approx(by_dice, abs=1e-6)
    assert iou(*pair).item() == pytest.approx(by_iou, abs=1e-6)


@given(pairs)
@settings(deadline=None)
def test_iou_is_dice_over_two_minus_dice_and_both_are_symmetric_shares(pair):
    found, truth = pair
    by_dice, by_iou = dice(found, truth).item(), iou(found, truth).item()
    assert by_iou == pytest.approx(by_dice / (2 - by_dice), abs=1e-6)
    assert 0 <= by_iou <= by_dice <= 1
    assert dice(truth, found).item() == by_dice and iou(truth, found).item() == by_iou
    assert (by_dice == 1) == np.array_equal(found, truth)


@given(pairs)
@settings(deadline=None)
def test_torchmetrics_says_the_same_where_it_is_defined(pair):
    found, truth = (torch.from_numpy(array) for array in pair)
    if found.any() or truth.any():
        assert dice(found, truth).item() == pytest.approx(
            binary_f1_score(found.int(), truth.int()).item(), abs=1e-6
        )
        assert iou(found, truth).item() == pytest.approx(
            binary_jaccard_index(found.int(), truth.int()).item(), abs=1e-6
        )


# --- the losses ----------------------------------------------------------------------------------


def plain_dice_ce(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """MONAI's two terms for one mask, pixel by pixel in plain Python."""
    overlap = squares = entropy = 0.0
    for logit, inside in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit))
        overlap += p * inside
        squares += p * p + inside * inside
        entropy -= math.log(p) if inside else math.log(1 - p)
    return 1 - (2 * overlap + 1e-5) / (squares + 1e-5), entropy / logits.size


@given(
    array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
        lambda shape: st.tuples(
            arrays(np.float64, shape, elements=st.floats(-12, 12)), arrays(bool, shape)
        )
    )
)
@settings(deadline=None)
def test_losses_pixel_by_pixel(pair):
    logits, truth = torch.from_numpy(pair[0]), torch.from_numpy(pair[1])
    overlap_term, entropy_term = plain_dice_ce(*pair)
    assert soft_dice_loss(logits, truth).item() == pytest.approx(overlap_term, abs=1e-9)
    assert dice_ce(logits, truth).item() == pytest.approx(overlap_term + entropy_term, abs=1e-9)


def test_losses_by_hand():
    even = torch.zeros(2, 2)  # p = 1/2 everywhere
    half = torch.tensor([[True, True], [False, False]])
    # overlap 2 * 1/2 = 1, squares 4 * 1/4 = 1, truth 2
    expected = 1 - (2 * 1 + 1e-5) / (1 + 2 + 1e-5)
    assert soft_dice_loss(even, half).item() == pytest.approx(expected, abs=1e-7)
    assert dice_ce(even, half).item() == pytest.approx(expected + math.log(2), abs=1e-6)


@pytest.mark.parametrize("truth", [torch.zeros(3, 4), torch.ones(3, 4)])
def test_a_sure_right_answer_costs_nothing_and_a_sure_wrong_one_much(truth):
    sure = 60 * (2 * truth - 1)
    assert dice_ce(sure, truth.bool()).item() == pytest.approx(0, abs=1e-6)
    assert dice_ce(-sure, truth.bool()).item() == pytest.approx(1 + 60, abs=1e-3)


def test_an_empty_truth_gives_finite_gradients():
    for fill in (-80.0, 0.0, 80.0):
        logits = torch.full((5, 6), fill, requires_grad=True)
        dice_ce(logits, torch.zeros(5, 6, dtype=torch.bool)).backward()
        assert torch.isfinite(logits.grad).all()


def test_a_hard_soft_dice_is_one_minus_dice():
    generator = torch.Generator().manual_seed(3)
    found, truth = (torch.rand(6, 9, 11, generator=generator) < 0.4 for _ in range(2))
    certain = torch.where(found, 100.0, -100.0)
    torch.testing.assert_close(soft_dice_loss(certain, truth), 1 - dice(found, truth))


def test_each_mask_has_a_loss_of_its_own():
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(2, 3, 5, 7, generator=generator)
    truth = torch.rand(2, 3, 5, 7, generator=generator) < 0.5
    losses = dice_ce(logits, truth)
    assert losses.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert losses[i, j].item() == pytest.approx(
                dice_ce(logits[i, j], truth[i, j]).item(), abs=1e-6
            )


def test_the_loss_falls_along_its_gradient():
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    truth = torch.eye(8) > 0
    loss = dice_ce(logits, truth)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert dice_ce(logits - 0.5 * gradient, truth) < loss


def test_accuracy_is_the_share_of_right_answers():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    assert accuracy(scores, torch.tensor([1, 0, 0, 1])) == 0.75


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [dice, iou])
@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        (EMPTY, np.zeros((3, 2), bool), "one shape"),
        (EMPTY[None], EMPTY, "one shape"),  # would be stretched over many
        (np.zeros(4, bool), np.zeros(4, bool), "height, width"),
        (EMPTY.astype(np.uint8), EMPTY, "bool"),
        (EMPTY, EMPTY.astype(float), "threshold"),
    ],
)
def test_what_is_no_pair_of_masks_is_refused(measure, found, truth, message):
    with pytest.raises(SerialLoRAError, match=message):
        measure(found, truth)


@pytest.mark.parametrize("loss", [soft_dice_loss, dice_ce])
def test_losses_refuse_a_truth_of_another_shape_or_kind(loss):
    logits = torch.zeros(3, 4, 5)
    with pytest.raises(SerialLoRAError, match="one shape"):
        loss(logits, torch.zeros(4, 5, dtype=torch.bool))  # would be stretched over three
    with pytest.raises(SerialLoRAError, match="bool"):
        loss(logits, torch.full((3, 4, 5), 255, dtype=torch.uint8))
