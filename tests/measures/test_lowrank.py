"""What ranks miss, against approximations that are really made."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora_course.measures.lowrank import (
    ONE_ROW_SPACE,
    misses_by_method,
    tail_misses,
)

PARTS = ("q", "k", "v")
seeds = st.integers(0, 10_000)
few = settings(max_examples=25, deadline=None)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def three(seed: int, width: int) -> dict[str, torch.Tensor]:
    return {part: draw(seed + i, width, width) for i, part in enumerate(PARTS)}


def cut(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The best matrix of that rank, by an eigenbasis of its rows."""
    _, axes = torch.linalg.eigh(matrix.T @ matrix)
    kept = axes[:, len(axes) - rank :]
    return matrix @ kept @ kept.T


# ------------------------------------------------------------------------------- misses


@few
@given(seeds, st.integers(1, 7), st.integers(1, 7))
def test_tail_misses_are_those_of_real_approximations(seed, rows, columns):
    matrix = draw(seed, rows, columns)
    misses = tail_misses(matrix.float())
    assert len(misses) == min(rows, columns) + 1 and misses[0] == 1 and misses[-1] == 0
    for rank in range(len(misses)):
        made = (matrix - cut(matrix, rank)).norm() / matrix.norm()
        assert misses[rank].item() == pytest.approx(made.item(), abs=1e-5)


@few
@given(seeds, st.integers(2, 6))
def test_misses_by_method_are_those_of_real_changes(seed, width):
    weights, wanted = three(seed, width), three(seed + 50, width)
    stacked = torch.cat([wanted[part] for part in PARTS])
    tall = torch.cat([weights[part] for part in PARTS])
    met = tall @ torch.linalg.lstsq(tall, stacked).solution
    misses = misses_by_method(weights, wanted)
    for rank in range(width + 1):
        best = {
            "lora": torch.cat([cut(wanted[part], rank) for part in PARTS]),
            ONE_ROW_SPACE: cut(stacked, rank),
            "serial_lora": cut(met, rank),
        }
        for family, change in best.items():
            made = (stacked - change).norm() / stacked.norm()
            assert misses[family][rank].item() == pytest.approx(made.item(), abs=1e-6)


def test_q_alone_is_out_of_reach_at_any_rank():
    weights = three(0, 6)
    wanted = {part: (part == "q") * draw(3, 6, 1) @ draw(4, 1, 6) for part in PARTS}
    misses = misses_by_method(weights, wanted)
    assert misses["lora"][1] < 1e-6 and misses[ONE_ROW_SPACE][1] < 1e-6
    assert misses["serial_lora"][-1] > 0.3
    # What is at right angles to all columns of the stacked weights cannot be met at all.
    basis, _ = torch.linalg.qr(torch.cat(list(weights.values())), "complete")
    outside = dict(zip(PARTS, basis[:, 6:12].split(6), strict=True))
    torch.testing.assert_close(
        misses_by_method(weights, outside)["serial_lora"], torch.ones(7, dtype=torch.float64)
    )
