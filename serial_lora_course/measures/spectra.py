"""Inside an adapter: singular values, effective rank, and angles between what adapters learned.

Both methods change a projection W by a product of two thin matrices,

    LoRA          dW = (scale B_p) A_p         p in q, k, v, out
    Serial LoRA   dW = (scale W_p B) A         p in q, k, v: one A for all three

so all that is said of dW here comes from the factors, through a small (r, r) problem, and is exact.
W + dW has no such shape and takes a dense decomposition. Numbers are computed in float64, as a
spectrum spans many orders of magnitude and rounding would be its floor.

    for change in weight_changes(model):  # of a model with adapters, merged or not
        print(change.site, change.projection, effective_rank(change_spectra(change)[CHANGE]))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError
from serial_lora.merging import base_weight, change_factors
from serial_lora.records import changed_parts, injections, refuse_without_values

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
    changes = []
    for root, injection in injections(model):
        for site in injection.sites:
            for part, projection in changed_parts(site, injection.config).items():
                weight = base_weight(root, injection, projection)
                factors = change_factors(root, injection, site, part, torch.float64)
                copies = [t.to("cpu", torch.float64, copy=True) for t in (weight, *factors)]
                changes.append(WeightChange(site.tower, site.block, site.label, part, *copies))
    return changes


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


def change_spectra(change: WeightChange) -> dict[str, Tensor]:
    """The singular values of W, W + dW and dW, largest first; of dW the r that are not zero."""
    return {
        WEIGHT: singular_values(change.weight),
        ADAPTED: singular_values(change.adapted),
        CHANGE: product_singular_values(change.left, change.right),
    }


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


def principal_angles(one: Tensor, other: Tensor) -> Tensor:
    """Principal angles in degrees between two column spaces, the smallest first.

    From the cosines and the sines alike (Knyazev and Argentati 2002): the arccosine alone (Bjorck and
    Golub 1973) loses small angles to rounding.

    Args:
        one, other: (n, p) and (n, q) of full column rank; the columns need not be orthonormal.

    Returns:
        min(p, q) angles: all 0 if one space lies in the other, all 90 if they are orthogonal.

    Raises:
        SerialLoRAError: the columns have different lengths.
    """
    if one.shape[0] != other.shape[0]:
        raise SerialLoRAError(
            f"subspaces of R^{one.shape[0]} and R^{other.shape[0]} have no angle; compare columns "
            "of one length (transpose for row spaces)."
        )
    large, small = sorted((one.detach(), other.detach()), key=lambda basis: -basis.shape[1])
    large, small = torch.linalg.qr(large).Q, torch.linalg.qr(small).Q
    shared = large.mT @ small  # what of the small space lies in the large one
    cosines = torch.linalg.svdvals(shared)
    sines = torch.linalg.svdvals(small - large @ shared).flip(0)
    return torch.rad2deg(torch.atan2(sines, cosines))


def overlap(angles: Tensor) -> float:
    """Mean squared cosine of principal angles: 1 for the same subspace, 0 for orthogonal ones.

    The LoRA paper's subspace similarity (Hu et al. 2022, section 7.2).
    """
    return float(torch.deg2rad(angles).cos().square().mean())


def expected_overlap(one: int, other: int, width: int) -> float:
    """The expected :func:`overlap` of random subspaces of dimensions ``one`` and ``other``.

    A fixed unit vector has on average the share other / width of its squared length in a uniformly
    random subspace of dimension ``other`` of R^width.
    """
    return max(one, other) / width


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
