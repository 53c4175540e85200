"""Low rank, computed: what each rank misses.

A *miss* is a distance in Frobenius norm, as a share of the size of what is being approximated:
0 is reached, 1 is no better than nothing. All of it is closed form; nothing here is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from serial_lora.errors import SerialLoRAError

ONE_ROW_SPACE = "one row space for q, k and v"
"""A method between the two: one A for all three, and a free B for each; 4 d r parameters."""


def tail_misses(matrix: Tensor) -> Tensor:
    """What the best approximation of each rank misses (Eckart and Young): float64, (k + 1,).

    Entry r is the share of the matrix (m, n) that is missing at rank r, from 1 at rank 0 down to 0
    at the full rank k = min(m, n): the root of the sum of the squared singular values behind r.

    Raises:
        SerialLoRAError: the matrix is zero or holds values that are not finite.
    """
    tails = _tails(finite_matrix(matrix))
    return tails / _not_zero(tails[0])


def misses_by_method(
    weights: Mapping[str, Tensor], changes: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What the closest change of each method misses of a wanted change, at every rank.

    Three families, each within the one above it:

    - ``lora``: a pair for each projection, B_p A_p;
    - `ONE_ROW_SPACE`: one A for all, B_p A;
    - ``serial_lora``: W_p B A, so A and B are shared.

    Args:
        weights: part ("q", "k", "v") to its frozen weight (d, d), not all of them singular.
        changes: the same parts to what should be added to each.

    Returns:
        family to a float64 tensor (d + 1,), the miss of all parts together at ranks 0 to d.

    Raises:
        SerialLoRAError: parts or shapes differ, or a weight is not square.
    """
    _check_parts(weights, changes)
    stacked = torch.cat([finite_matrix(changes[part]) for part in weights])  # (3 d, d)
    whole = _not_zero(stacked.norm())
    each = torch.stack([_tails(finite_matrix(change)) for change in changes.values()])  # (3, d + 1)
    basis, _ = torch.linalg.qr(torch.cat([finite_matrix(w) for w in weights.values()]))  # (3 d, d)
    inside = basis.T @ stacked  # (d, d), in the columns that the weights reach together
    outside = stacked - basis @ inside
    tails = {
        "lora": each.square().sum(0).sqrt(),
        ONE_ROW_SPACE: _tails(stacked),
        "serial_lora": (_tails(inside).square() + outside.square().sum()).sqrt(),
    }
    return {family: tail / whole for family, tail in tails.items()}


def _tails(matrix: Tensor) -> Tensor:
    """Norms of what the best approximations of rank 0, 1, ... leave out: (k + 1,), the last 0."""
    squares = torch.linalg.svdvals(matrix).square()
    behind = squares.flip(0).cumsum(0).flip(0)  # what is left from each value on
    return torch.cat([behind, behind.new_zeros(1)]).sqrt()


def _not_zero(norm: Tensor) -> Tensor:
    if not norm > 0:
        raise SerialLoRAError("a matrix of zeros has nothing to miss; pass one that is not zero.")
    return norm


def finite_matrix(matrix: Tensor) -> Tensor:
    """The matrix (m, n) in float64, detached.

    Raises:
        SerialLoRAError: it has other dimensions, or values that are not finite.
    """
    if matrix.ndim != 2 or not matrix.isfinite().all():
        raise SerialLoRAError(
            f"a matrix of finite numbers is wanted, not one of shape {tuple(matrix.shape)} with "
            "nan, inf or other dimensions."
        )
    return matrix.detach().double()


def _check_parts(weights: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> None:
    shapes = {part: tuple(w.shape) for part, w in weights.items()}
    wanted = {part: tuple(c.shape) for part, c in changes.items()}
    if not shapes or shapes != wanted or len({*shapes.values()}) > 1:
        raise SerialLoRAError(
            f"the weights {shapes} and the changes {wanted} need the same parts and one shape."
        )
    rows, columns = next(iter(shapes.values()))
    if rows != columns:
        raise SerialLoRAError(f"the weights must be square, not {rows} x {columns}.")
