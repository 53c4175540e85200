"""Where adapters read and where they write, compared: with themselves, each other and their base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from torch import Tensor

from serial_lora_course.measures.spectra import (
    WeightChange,
    expected_overlap,
    learned_directions,
    overlap,
    principal_angles,
    share_along_base,
    singular_values,
)

SIDES = ("reads", "writes")
Angles = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Sequence[WeightChange], Sequence[WeightChange]]


def within_blocks(
    changes: Sequence[WeightChange], angles_of: Angles = principal_angles
) -> pd.DataFrame:
    """What q has in common with k and v of its block: a row for reads, a row for writes."""
    found: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
    for _, block in groupby(changes, lambda change: change.site):
        parts = {change.projection: learned_directions(change) for change in block}
        for index, side in enumerate(SIDES):
            found[side] += [angles_of(parts["q"][index], parts[p][index]) for p in "kv"]
    width, rank = changes[0].left.shape
    chance = expected_overlap(rank, rank, width)
    rows = {
        side: {
            "smallest angle, degrees": f"{min(each.min().item() for each in angles):.2g}",
            "largest angle, degrees": f"{max(each.max().item() for each in angles):.2g}",
            "overlap": f"{np.mean([overlap(each) for each in angles]):.3f}",
            "by chance": f"{chance:.3f}",
        }
        for side, angles in found.items()
    }
    return pd.DataFrame(rows).T.rename_axis("q beside k and v")


def overlaps_frame(
    comparisons: Mapping[str, Pair], top: int, angles_of: Angles = principal_angles
) -> pd.DataFrame:
    """How far the strongest directions of adapters agree, block by block and projection by projection.

    Args:
        comparisons: what to call each -> the changes of two adapters of one base.
        top: how many directions.

    Returns:
        Columns comparison, what ("reads" or "writes"), tower, block, overlap.
    """
    rows = []
    for name, (ones, others) in comparisons.items():
        for one, other in zip(ones, others, strict=True):
            spaces = zip(learned_directions(one, top), learned_directions(other, top), strict=True)
            for side, pair in zip(SIDES, spaces, strict=True):
                place = {"what": side, "tower": one.tower, "block": one.block}
                rows.append({"comparison": name} | place | {"overlap": overlap(angles_of(*pair))})
    return pd.DataFrame(rows)


def along_frame(changes: Sequence[WeightChange], directions: int) -> pd.DataFrame:
    """Which share of dW lies along W's strongest inputs and outputs: a row a projection."""
    rows = [
        {"projection": c.projection}
        | dict(zip(SIDES, share_along_base(c, directions), strict=True))
        for c in changes
    ]
    return pd.DataFrame(rows).groupby("projection", sort=False).mean()


def passed_by_chance(changes: Sequence[WeightChange], directions: int) -> float:
    """The share along W's strongest outputs of W B A with a random B A, on average over the blocks."""
    squares = [singular_values(change.weight).square() for change in changes]  # (d,) each
    return float(np.mean([(each[:directions].sum() / each.sum()).item() for each in squares]))
