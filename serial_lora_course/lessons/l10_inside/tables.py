"""What adapters changed, as tables: spectra, their measures, and the paper's claim about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.spectra import (
    ADAPTED,
    CHANGE,
    WEIGHT,
    WeightChange,
    change_spectra,
    effective_rank,
    learned_directions,
    numerical_rank,
    overlap,
    principal_angles,
    product_singular_values,
    share_along_base,
    singular_values,
    stable_rank,
)

EffectiveRank = Callable[[torch.Tensor], float]
Between = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]


def spectra_frame(changes: Sequence[WeightChange]) -> pd.DataFrame:
    """Every singular value of W, W + dW and dW, one a row.

    Returns:
        Columns tower, block, site, projection, matrix ("W", "W + dW" or "dW"), index (from 1), value.
        dW has at most r rows; its other singular values are zero.
    """
    parts = []
    for change in changes:
        for matrix, values in change_spectra(change).items():
            column = {"index": range(1, len(values) + 1), "value": values.numpy()}
            parts.append(pd.DataFrame(_place(change) | {"matrix": matrix} | column))
    return pd.concat(parts, ignore_index=True)


def spectra_table(
    changes: Sequence[WeightChange], effective: EffectiveRank = effective_rank
) -> pd.DataFrame:
    """What the spectra of each block and projection say in a few numbers.

    Args:
        effective: the effective rank of singular values.

    Returns:
        One row a change: tower, block, site, projection, then ``rank``, ``effective_rank`` and
        ``stable_rank`` of dW, its ``size`` |dW| / |W| in the Frobenius norm, its ``largest``
        singular value over W's, and ``effective_rank_before`` and ``_after`` of W and of W + dW.
    """
    return pd.DataFrame([_place(change) | _measures(change, effective) for change in changes])


def _place(change: WeightChange) -> dict[str, object]:
    names = ("tower", "block", "site", "projection")
    return {name: getattr(change, name) for name in names}


def _measures(change: WeightChange, effective: EffectiveRank) -> dict[str, float]:
    values = change_spectra(change)
    small, base = values[CHANGE], values[WEIGHT]
    return {
        "rank": numerical_rank(small, max(change.weight.shape)),
        "effective_rank": effective(small),
        "stable_rank": stable_rank(small),
        "size": float(small.norm() / base.norm()),
        "largest": float(small.max() / base.max()),
        "effective_rank_before": effective(base),
        "effective_rank_after": effective(values[ADAPTED]),
    }


def bounds_hold(change: WeightChange, rank: int, multiplied: bool) -> dict[str, bool]:
    """Whether the singular values of W + dW stay within what theorems allow, at every index.

    Interlacing and Weyl's bound for what is added; with ``multiplied`` also Ostrowski's, for
    W (I + B A). Up to rounding.
    """
    before, after = singular_values(change.weight), singular_values(change.adapted)  # (d,), (d,)
    slack = 1e-12 * before[0]
    largest = product_singular_values(change.left, change.right)[0]
    held = {
        "interlacing": (after[rank:] <= before[:-rank] + slack).all()
        and (before[rank:] <= after[:-rank] + slack).all(),
        "added": ((after - before).abs() <= largest + slack).all(),
    }
    if multiplied:
        factor = torch.linalg.solve(change.weight, change.adapted)  # (d, d): I + B A
        most, least = singular_values(factor)[[0, -1]]
        inside = (after <= most * before + slack) & (after >= least * before - slack)
        held["multiplied"] = inside.all()
    return {name: bool(value) for name, value in held.items()}


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
    lora: Sequence[WeightChange],
    serial: Sequence[WeightChange],
    directions: int = 4,
    between: Between = share_between,
) -> pd.DataFrame:
    """What the paper says of Fig. 3, measured for each block and projection that both adapt.

    "Intermediate positioning between the original pre-trained model and standard LoRA, and a more
    gradual decay" (section II-D) does not say of which matrix, so both are asked.

    Args:
        lora, serial: the changes of two adapters of one base, by the two methods.
        directions: how many of the strongest directions are compared; all where there are fewer.
        between: as :func:`share_between`.

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
        [_place(own) | _positions(partner, own, directions, between) for partner, own in pairs]
    )


def _positions(
    lora: WeightChange, serial: WeightChange, directions: int, between: Between
) -> dict[str, float]:
    ours, theirs = change_spectra(serial), change_spectra(lora)
    base, low, small = ours[WEIGHT], theirs[CHANGE], ours[CHANGE]
    rank = min(len(low), len(small))
    inside = (low[:rank] < small[:rank]) & (small[:rank] < base[:rank])
    moved, moved_by_lora = ((spectra[ADAPTED] - base).abs() for spectra in (ours, theirs))
    spaces = [learned_directions(change, min(directions, rank)) for change in (lora, serial)]
    reads, writes = (overlap(principal_angles(*bases)) for bases in zip(*spaces, strict=True))
    return {
        "between": between(base, ours[ADAPTED], theirs[ADAPTED]),
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
