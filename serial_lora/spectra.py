"""Inside an adapter: singular values, effective rank, and angles between what adapters learned.

Both methods change a projection W by a product of two thin matrices,

    LoRA          dW = (scale B_p) A_p         p in q, k, v, out
    Serial LoRA   dW = (scale W_p B) A         p in q, k, v: one A for all three

so all that is said of dW here comes from the factors, through a small (r, r) problem, and is exact.
W + dW has no such shape and takes a dense decomposition. Numbers are computed in float64, as a
spectrum spans many orders of magnitude and rounding would be its floor.

    changes = weight_changes(model)      # of a model with adapters, merged or not
    spectra_table(changes)               # one row a block and projection
    spectra_frame(changes)               # one row a singular value
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.linalg import subspace_angles
from torch import Tensor, nn

from serial_lora.attention import AttentionSite
from serial_lora.errors import SerialLoRAError
from serial_lora.hooks import Injection, injections, refuse_without_values
from serial_lora.merging import base_weight, change_factors, changed_parts

WEIGHT, ADAPTED, CHANGE = "W", "W + dW", "dW"
"""The three matrices of a projection whose spectra are compared."""

# ------------------------------------------------------------------------- what an adapter changes


@dataclass(frozen=True)
class WeightChange:
    """What an adapter does to one projection: W becomes W + left @ right.

    Attributes:
        tower, block: as in :class:`serial_lora.attention.AttentionSite`.
        site: the site's label, unique in the model.
        projection: "q", "k", "v" or "out".
        weight: W, (outputs, inputs), float64.
        left, right: (outputs, r) and (r, inputs), float64; the scale is in ``left``.

    All three are on the CPU, and copies: they stay when the model is trained on or merged.
    """

    tower: str
    block: int
    site: str
    projection: str
    weight: Tensor
    left: Tensor
    right: Tensor

    @property
    def change(self) -> Tensor:
        """dW as a dense matrix, (outputs, inputs)."""
        return self.left @ self.right

    @property
    def adapted(self) -> Tensor:
        """W + dW, (outputs, inputs)."""
        return self.weight + self.change


@torch.no_grad()
def weight_changes(model: nn.Module) -> list[WeightChange]:
    """What the adapters change, in the model's order: one entry a block and projection.

    Args:
        model: a model of any known family with adapters in it, merged or not. It is not changed.

    Raises:
        SerialLoRAError: there are no adapters, or the model is on the meta device.
    """
    refuse_without_values(model)
    return [
        _read_change(root, injection, site, part)
        for root, injection in injections(model)
        for site in injection.sites
        for part in changed_parts(site, injection.config)
    ]


def _read_change(
    root: nn.Module, injection: Injection, site: AttentionSite, part: str
) -> WeightChange:
    weight = base_weight(root, injection, site.projections[part])
    factors = change_factors(root, injection, site, part, torch.float64)
    weight, left, right = (
        tensor.detach().to("cpu", torch.float64, copy=True) for tensor in (weight, *factors)
    )
    return WeightChange(site.tower, site.block, site.label, part, weight, left, right)


# -------------------------------------------------------------------------------- singular values


def singular_values(matrix: Tensor) -> Tensor:
    """Of a dense matrix (m, n): min(m, n) values, the largest first."""
    return torch.linalg.svdvals(matrix)


def product_svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin SVD of ``left @ right`` without forming it.

    With QR on both sides, left = Q_l R_l and right^T = Q_r R_r, the product is
    Q_l (R_l R_r^T) Q_r^T. Orthonormal factors leave singular values alone, so an (r, r) matrix has
    them all: O((m + n) r^2) instead of O(m n min(m, n)). It is QR before SVD, on both sides (Golub
    and Van Loan, Matrix Computations).

    Args:
        left, right: (m, r) and (r, n).

    Returns:
        U (m, k), the singular values (k,), largest first, and Vh (k, n), with k = min(m, r, n). The
        product's other singular values are zero.
    """
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.mT)
    u, values, vh = torch.linalg.svd(r_left @ r_right.mT, full_matrices=False)
    return q_left @ u, values, vh @ q_right.mT


def product_singular_values(left: Tensor, right: Tensor) -> Tensor:
    """The singular values of ``left @ right``, largest first; see :func:`product_svd`."""
    return torch.linalg.svdvals(torch.linalg.qr(left).R @ torch.linalg.qr(right.mT).R.mT)


# ------------------------------------------------------------------------------ one number for many


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007).

    Between 1 (one direction does it all) and the number of values (all alike); 0 if all are zero.
    Multiplying all values by one factor changes nothing.
    """
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def stable_rank(values: Tensor) -> float:
    """Squared Frobenius norm over squared largest singular value (Rudelson and Vershynin 2007).

    At most the rank, and small singular values hardly count; 0 if all are zero.
    """
    largest = float(values.max())
    return float(((values / largest) ** 2).sum()) if largest else 0.0


def numerical_rank(values: Tensor, size: int, eps: float | None = None) -> int:
    """How many singular values are above the rounding of the largest one.

    Args:
        values: singular values of a matrix.
        size: the larger side of the matrix; with eps and the largest value it makes the threshold
            that numpy, torch and MATLAB use.
        eps: the relative rounding of the matrix's entries; that of the values' type if left out.
            Give float32's for a matrix that was rounded to float32 on its way.
    """
    eps = torch.finfo(values.dtype).eps if eps is None else eps
    return int((values > values.max() * size * eps).sum())


# ------------------------------------------------------------------------- angles between subspaces


def principal_angles(one: Tensor, other: Tensor) -> np.ndarray:
    """Principal angles in degrees between two column spaces, the smallest first.

    scipy computes them as Knyazev and Argentati (2002) do, exact for small angles too, where the
    arccosine of Bjorck and Golub (1973) is not.

    Args:
        one, other: (n, p) and (n, q) of full column rank; the columns need not be orthonormal.

    Returns:
        min(p, q) angles: all 0 if one space lies in the other, all 90 if they are orthogonal.
    """
    if one.shape[0] != other.shape[0]:
        raise SerialLoRAError(
            f"subspaces of R^{one.shape[0]} and R^{other.shape[0]} have no angle; compare columns "
            "of one length (transpose for row spaces)."
        )
    return np.rad2deg(subspace_angles(_array(one), _array(other)))[::-1]


def overlap(angles: np.ndarray) -> float:
    """Mean squared cosine of principal angles: 1 for the same subspace, 0 for orthogonal ones.

    The LoRA paper's subspace similarity (Hu et al. 2022, section 7.2).
    """
    return float(np.mean(np.cos(np.deg2rad(angles)) ** 2))


def chance_overlap(one: int, other: int, width: int) -> float:
    """The expected :func:`overlap` of random subspaces of dimensions ``one`` and ``other``.

    A fixed unit vector has on average the share other / width of its squared length in a uniformly
    random subspace of dimension ``other`` of R^width.
    """
    return max(one, other) / width


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def learned_directions(change: WeightChange, number: int | None = None) -> tuple[Tensor, Tensor]:
    """Where dW reads from and where it writes to, as orthonormal columns, strongest first.

    Args:
        number: how many directions; all r of them when left out.

    Returns:
        Inputs that dW reads (inputs, number), which span its row space, and outputs that it writes
        (outputs, number), which span its column space.

    Raises:
        SerialLoRAError: dW has fewer directions than ``number``; those beyond are arbitrary.
    """
    u, values, vh = product_svd(change.left, change.right)
    rank = numerical_rank(values, max(u.shape[0], vh.shape[1]))
    number = rank if number is None else number
    if not 1 <= number <= rank:
        raise SerialLoRAError(
            f"the change of {change.projection} in {change.site} has rank {rank}, so it has no "
            f"{number or 'learned'} directions; train the adapter or ask for fewer."
        )
    return vh[:number].mT, u[:, :number]


def share_along_base(change: WeightChange, number: int) -> tuple[float, float]:
    """How much of dW lies along the strongest directions of W itself.

    A random change has number / inputs and number / outputs. The LoRA paper asks in this way how a
    learned dW lies beside its W (Hu et al. 2022, section 7.3).

    Args:
        number: how many of W's strongest singular directions.

    Returns:
        The shares of the squared Frobenius norm of dW that read from W's ``number`` strongest
        inputs, and that write to W's ``number`` strongest outputs; 0 if dW is zero.
    """
    u, _, vh = torch.linalg.svd(change.weight, full_matrices=False)
    total = float(product_singular_values(change.left, change.right).square().sum())
    if total == 0:
        return 0.0, 0.0
    reads = change.left @ (change.right @ vh[:number].mT)  # (outputs, number)
    writes = (u[:, :number].mT @ change.left) @ change.right  # (number, inputs)
    return float(reads.square().sum()) / total, float(writes.square().sum()) / total


# ------------------------------------------------------------------------------------------ tables


def spectra_frame(changes: Sequence[WeightChange]) -> pd.DataFrame:
    """Every singular value of W, W + dW and dW, one a row.

    Returns:
        Columns tower, block, site, projection, matrix ("W", "W + dW" or "dW"), index (counted from
        1) and value. dW has at most r rows; its other singular values are zero.
    """
    parts = []
    for change in changes:
        for matrix, values in _spectra(change).items():
            column = {"index": range(1, len(values) + 1), "value": _array(values)}
            parts.append(pd.DataFrame(_place(change) | {"matrix": matrix} | column))
    return pd.concat(parts, ignore_index=True)


def spectra_table(changes: Sequence[WeightChange]) -> pd.DataFrame:
    """What the spectra of each block and projection say in a few numbers.

    Returns:
        One row a change: tower, block, site, projection, then ``rank``, ``effective_rank`` and
        ``stable_rank`` of dW, its ``size`` |dW| / |W| in the Frobenius norm, its ``largest``
        singular value over W's, and ``effective_rank_before`` and ``_after`` of W and of W + dW.
    """
    return pd.DataFrame([_place(change) | _measures(change) for change in changes])


def _place(change: WeightChange) -> dict[str, object]:
    names = ("tower", "block", "site", "projection")
    return {name: getattr(change, name) for name in names}


def _spectra(change: WeightChange) -> dict[str, Tensor]:
    return {
        WEIGHT: singular_values(change.weight),
        ADAPTED: singular_values(change.adapted),
        CHANGE: product_singular_values(change.left, change.right),
    }


def _measures(change: WeightChange) -> dict[str, float]:
    values = _spectra(change)
    small, base = values[CHANGE], values[WEIGHT]
    return {
        "rank": numerical_rank(small, max(change.weight.shape)),
        "effective_rank": effective_rank(small),
        "stable_rank": stable_rank(small),
        "size": float(small.norm() / base.norm()),
        "largest": float(small.max() / base.max()),
        "effective_rank_before": effective_rank(base),
        "effective_rank_after": effective_rank(values[ADAPTED]),
    }


# --------------------------------------------------------------------- the paper's claim, measured


def share_between(one: Sequence, middle: Sequence, other: Sequence) -> float:
    """Share of the indices at which ``middle`` lies strictly between the other two.

    Which of the outer two is above does not matter, and may differ from index to index. Two
    independent random steps of one size, from ``one`` to ``middle`` and from ``one`` to ``other``,
    give a quarter: half the time to the same side, and then half the time the shorter.

    Args:
        one, middle, other: (n,) each, in the same order, such as three spectra.
    """
    one, middle, other = (np.asarray(values, dtype=float) for values in (one, middle, other))
    return float(np.mean((middle - one) * (other - middle) > 0))


def claim_table(
    lora: Sequence[WeightChange], serial: Sequence[WeightChange], directions: int = 4
) -> pd.DataFrame:
    """What the paper says of Fig. 3, measured for each block and projection that both adapt.

    "Intermediate positioning between the original pre-trained model and standard LoRA, and a more
    gradual decay" (section II-D) does not say of which matrix, so both are asked.

    Args:
        lora, serial: the changes of two adapters of one base, by the two methods.
        directions: how many of the strongest directions are compared; all where there are fewer.

    Returns:
        One row a block and projection, with tower, block, site, projection, and

        - ``between``: share of the indices at which the singular value of Serial LoRA's W + dW is
          between those of W and of LoRA's W + dW; ``nearer``: share at which it is nearer to W's;
        - ``change_between``: share of the first r indices at which the singular value of Serial
          LoRA's dW is above that of LoRA's dW and below W's;
        - ``effective_rank_lora``, ``effective_rank_serial``: of dW, whose decay they measure;
        - ``size_lora``, ``size_serial``: |dW| / |W|;
        - ``along_lora``, ``along_serial``: share of dW that writes to the r strongest outputs of W;
        - ``reads``, ``writes``: overlap of the strongest inputs and outputs of the two dW. Adapters
          of one seed start the first pair of both from the same A, and overlap more there.

    Raises:
        SerialLoRAError: the two do not belong to one base, or one has learned fewer directions
            than are compared (a fresh adapter has learned none).
    """
    partners = {(change.site, change.projection): change for change in lora}
    pairs = [(partners.get((own.site, own.projection)), own) for own in serial]
    if not pairs or any(
        partner is None or not torch.equal(partner.weight, own.weight) for partner, own in pairs
    ):
        raise SerialLoRAError(
            "the two adapters do not belong to one base; compare adapters of the same model, with "
            "the same towers and blocks."
        )
    return pd.DataFrame(
        [_place(own) | _positions(partner, own, directions) for partner, own in pairs]
    )


def _positions(lora: WeightChange, serial: WeightChange, directions: int) -> dict[str, float]:
    ours, theirs = _spectra(serial), _spectra(lora)
    base, low, small = ours[WEIGHT], theirs[CHANGE], ours[CHANGE]
    rank = min(len(low), len(small))
    inside = (low[:rank] < small[:rank]) & (small[:rank] < base[:rank])
    moved, moved_by_lora = ((spectra[ADAPTED] - base).abs() for spectra in (ours, theirs))
    spaces = [learned_directions(change, min(directions, rank)) for change in (lora, serial)]
    reads, writes = (overlap(principal_angles(*bases)) for bases in zip(*spaces, strict=True))
    return {
        "between": share_between(base, ours[ADAPTED], theirs[ADAPTED]),
        "nearer": float((moved < moved_by_lora).double().mean()),
        "change_between": float(inside.double().mean()),
        "effective_rank_lora": effective_rank(low),
        "effective_rank_serial": effective_rank(small),
        "size_lora": float(low.norm() / base.norm()),
        "size_serial": float(small.norm() / base.norm()),
        "along_lora": share_along_base(lora, rank)[1],
        "along_serial": share_along_base(serial, rank)[1],
        "reads": reads,
        "writes": writes,
    }
