"""Measures, each a pure function of tensors.

Masks are compared one by one: the last two dimensions are a mask's height and width, and whatever
comes before them comes back as the shape of the result. An empty mask is an answer too, so the
ratios are defined where they would be 0/0: nothing found where there is nothing is perfect (1);
something found where there is nothing, or nothing where there is something, is 0.
"""

from __future__ import annotations

import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from serial_lora.errors import SerialLoRAError

DICE_SMOOTHING = 1e-5  # MONAI's


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of ``scores`` (N, classes) whose largest entry is at ``labels`` (N,)."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise SerialLoRAError(
            "Scores (N, classes) and labels (N,) of at least one picture are needed, not "
            f"{tuple(scores.shape)} and {tuple(labels.shape)}."
        )
    return (scores.argmax(dim=1) == labels).float().mean().item()


def dice(found: Tensor | ndarray, truth: Tensor | ndarray) -> Tensor:
    """Dice coefficient 2 |A and B| / (|A| + |B|) of each pair of masks, higher is better.

    Args:
        found, truth: bool, (..., height, width).

    Returns:
        float32, (...); of two empty masks 1, of one empty mask 0.
    """
    overlap, found_area, truth_area = _areas(found, truth)
    return _ratio(2 * overlap, found_area + truth_area)


def iou(found: Tensor | ndarray, truth: Tensor | ndarray) -> Tensor:
    """Intersection over union |A and B| / |A or B| of each pair of masks, higher is better.

    Always IoU = Dice / (2 - Dice). Arguments and result as for :func:`dice`.
    """
    overlap, found_area, truth_area = _areas(found, truth)
    return _ratio(overlap, found_area + truth_area - overlap)


def soft_dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - 2 sum(p g) / (sum(p^2) + sum(g^2)), with p = sigmoid(logits) and g the truth.

    The squares in the denominator are V-Net's (Milletari et al. 2016, eq. 1), and what Sam_LoRA
    trains with. 1e-5 above and below, as in MONAI, keeps an empty truth from dividing by zero.

    Args:
        logits: float, (..., height, width).
        truth: bool or float from 0 to 1, of the same shape.

    Returns:
        float, (...): each mask's own loss.
    """
    _require_truth(logits, truth)
    inside, truth = logits.sigmoid(), truth.to(logits.dtype)
    overlap = (inside * truth).sum((-2, -1))
    area = inside.square().sum((-2, -1)) + truth.square().sum((-2, -1))
    return 1 - (2 * overlap + DICE_SMOOTHING) / (area + DICE_SMOOTHING)


def dice_ce(logits: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice loss plus binary cross-entropy on logits, lower is better, never below 0.

    MONAI's ``DiceCELoss(sigmoid=True, squared_pred=True)``, which Sam_LoRA trains with and prints
    under the name "Mean dice score"; the paper's "Dice, lower is better" may well be this.

    Arguments and result as for :func:`soft_dice_loss`; cross-entropy is the mean over a mask's pixels.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(
        logits, truth.to(logits.dtype), reduction="none"
    )
    return soft_dice_loss(logits, truth) + cross_entropy.mean((-2, -1))


def _require_truth(logits: Tensor, truth: Tensor) -> None:
    """Refuse what broadcasting or a cast would silently make another loss of."""
    is_truth = truth.dtype == torch.bool or truth.is_floating_point()
    if logits.shape != truth.shape or logits.ndim < 2 or not is_truth:
        raise SerialLoRAError(
            "Logits and truth of one shape (..., height, width) are needed, the truth bool or float from 0 "
            f"to 1, not {tuple(logits.shape)} and {tuple(truth.shape)} of {truth.dtype}."
        )


def _areas(found: Tensor | ndarray, truth: Tensor | ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels in both, in ``found`` and in ``truth``, as float64 (whole numbers stay exact)."""
    found, truth = torch.as_tensor(found), torch.as_tensor(truth)
    are_masks = found.dtype == truth.dtype == torch.bool
    if found.shape != truth.shape or found.ndim < 2 or not are_masks:
        raise SerialLoRAError(
            "Two bool masks of one shape (..., height, width) are needed to compare them, not "
            f"{tuple(found.shape)} of {found.dtype} and {tuple(truth.shape)} of {truth.dtype}; compare "
            "other values with a threshold first."
        )
    return tuple(mask.sum((-2, -1), dtype=torch.float64) for mask in (found & truth, found, truth))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below == 0, 1.0, above / below.clamp(min=1)).float()
