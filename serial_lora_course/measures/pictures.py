"""Measures of generated pictures, each a pure function of features or of scores.

FID and KID compare two sets of pictures, CLIP-Score a picture with its caption. None of them looks
at a pixel: a network turns pictures and captions into features first, and which network that is
decides what the numbers mean. Numbers made with different features compare with nothing but
themselves; :mod:`serial_lora_course.models.judges` says whose features are used where.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from serial_lora.errors import SerialLoRAError

CLIP_SCORE_SCALE = 2.5  # w of Hessel et al. 2021


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """FID on the given features, in float64; lower is better, never below 0.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)): the Frechet distance of two normal distributions with
    the sets' means m and covariances C (Heusel et al. 2017, eq. 6).

    The fewer pictures, the larger the FID, even of two sets from one source (Binkowski et al. 2018): every
    estimate of a covariance is off, and with fewer pictures than dimensions it is singular, as in all the
    paper's tables: some hundred pictures, Inception's 2048 dimensions. So compare an FID only with others of
    as many pictures, and read it beside :func:`kernel_distance`, which has no such bias.

    Args:
        features, reference: float, (N, d) and (M, d), of generated pictures and of real ones.

    Raises:
        SerialLoRAError: a set of fewer than two pictures, features of different widths, or
            features that are not finite.
    """
    _check(features, reference)
    rows, others = features.detach().cpu().double(), reference.detach().cpu().double()
    shift = rows.mean(0) - others.mean(0)
    rows, others = _centred(rows), _centred(others)
    # The eigenvalues of C C' are the squared singular values of rows @ others^T, a (N, M) matrix
    # that QR makes as small as the features are wide.
    roots = torch.linalg.svdvals(torch.linalg.qr(rows).R @ torch.linalg.qr(others).R.mT)
    squares = shift.square().sum() + rows.square().sum() + others.square().sum() - 2 * roots.sum()
    return max(squares.item(), 0.0)


def _centred(features: Tensor) -> Tensor:
    """The rows (N, d) less their mean, over sqrt(N - 1): their Gram matrix is the covariance."""
    return (features - features.mean(0)) / (len(features) - 1) ** 0.5


def kernel_distance(
    features: Tensor, reference: Tensor, subsets: int = 100, seed: int = 0
) -> float:
    """KID on the given features, in float64; lower is better.

    The squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, estimated without bias
    (Binkowski et al. 2018, section 4): for two independent sets from one source it is 0 on
    average, however few the pictures, and so below 0 about half the time. Sets that show the same
    things are not independent: a perfect copy of the reference is below 0.

    Args:
        features, reference: as for :func:`frechet_distance`, which says what is refused.
        subsets: pairs of random parts, each of half the smaller set, whose mean it is.
        seed: of the choice of parts. torch's own generator stays as it is.
    """
    _check(features, reference)
    size = max(min(len(features), len(reference)) // 2, 2)
    chosen = torch.Generator().manual_seed(seed)
    rows, others = features.detach().cpu().double(), reference.detach().cpu().double()
    found = []
    for _ in range(subsets):
        some_others = others[torch.randperm(len(others), generator=chosen)[:size]]
        some_rows = rows[torch.randperm(len(rows), generator=chosen)[:size]]
        found.append(_squared_discrepancy(some_rows, some_others))
    return torch.stack(found).mean().item()


def _squared_discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """The unbiased estimate for two parts (n, d) of one size: no picture is compared with itself."""
    size = len(one)
    within = sum(
        kernel.sum() - kernel.trace() for kernel in map(_kernel, (one, other), (one, other))
    )
    return within / (size * (size - 1)) - 2 * _kernel(one, other).mean()


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.mT / one.shape[1] + 1) ** 3


def clip_score(image_features: Tensor, text_features: Tensor) -> Tensor:
    """CLIP-Score of each picture and its own caption: 2.5 max(cos, 0), higher is better.

    Hessel et al. 2021, section 3, whose 2.5 brings ViT-B/32's cosines, seldom above 0.4, to a scale
    that looks like 0 to 1. Beware of two other numbers of that name: torchmetrics and many papers print
    100 cos, and some code takes the softmax over a picture's one caption, which is 1 whatever the picture
    shows. The values in the paper's tables resemble 2.5 cos.

    Args:
        image_features, text_features: float, (N, d), of N pictures and of their N captions, from
            one CLIP; of any length, since only their directions count.

    Returns:
        float32, (N,), from 0 to 2.5.
    """
    if image_features.ndim != 2 or image_features.shape != text_features.shape:
        raise SerialLoRAError(
            "Features of N pictures and of their N captions, both (N, d), are needed, not "
            f"{tuple(image_features.shape)} and {tuple(text_features.shape)}."
        )
    cosine = F.cosine_similarity(image_features.float(), text_features.float(), dim=1)
    return CLIP_SCORE_SCALE * cosine.clamp(0, 1)  # rounding can bring a cosine above 1


def _check(features: Tensor, reference: Tensor) -> None:
    matrices = features.ndim == 2 == reference.ndim and features.shape[1] == reference.shape[1]
    if not matrices or min(len(features), len(reference)) < 2:
        raise SerialLoRAError(
            "Features (N, d) and (M, d) of two sets of at least two pictures are needed, not "
            f"{tuple(features.shape)} and {tuple(reference.shape)}."
        )
    if not (features.isfinite().all() and reference.isfinite().all()):
        raise SerialLoRAError(
            "Some features are not finite numbers; look at the pictures that they are of."
        )
