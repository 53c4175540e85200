"""The rules of verdicts, as intervals and counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from serial_lora.errors import SerialLoRAError
from serial_lora_course.claims.verdicts import (
    FAILS,
    HOLDS,
    IN_PART,
    OPEN,
    SHARES,
    combined,
    verdict_ahead,
    verdict_by_cells,
    verdict_within,
)
from serial_lora_course.study.statistics import Interval


@given(mean=st.floats(-5, 5), error=st.floats(0, 2), margin=st.floats(0.01, 3), often=st.booleans())
def test_rules_are_intervals(mean, error, margin, often):
    interval = Interval(mean, error, 5, 6)
    low, high = stats.t.interval(0.95, 5, mean, error) if error else (mean, mean)
    if min(abs(low), abs(high), abs(low + margin), abs(high + margin)) < 1e-9:
        return  # on the edge rounding decides
    better = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    assert verdict_ahead(interval) == better
    assert verdict_ahead(interval, often=often) == (
        IN_PART if better == HOLDS and not often else better
    )
    comparable = HOLDS if low > -margin else FAILS if high < -margin else OPEN
    assert verdict_within(interval, margin) == comparable
    if better == HOLDS:
        assert comparable == HOLDS


def test_a_single_pair_decides_nothing():
    assert verdict_ahead(None) == verdict_within(None, 1.0) == OPEN


@pytest.mark.parametrize(
    ("count", "cells", "share", "verdict"),
    [
        (12, 12, "all", HOLDS),
        (11, 12, "all", IN_PART),
        (6, 12, "all", FAILS),
        (9, 10, "nearly all", HOLDS),
        (8, 10, "nearly all", IN_PART),
        (5, 10, "nearly all", FAILS),
        (7, 12, "most", HOLDS),
        (6, 12, "most", FAILS),
    ],
)
def test_cells_are_counted_as_the_claim_says(count, cells, share, verdict):
    assert verdict_by_cells(count, cells, share) == verdict


@pytest.mark.parametrize(
    ("verdicts", "share", "one"),
    [
        ([HOLDS, HOLDS], "all", HOLDS),
        ([HOLDS, OPEN], "all", IN_PART),
        ([HOLDS, FAILS], "all", FAILS),
        ([HOLDS, FAILS], "most", IN_PART),
        ([HOLDS, HOLDS, FAILS], "most", HOLDS),
        ([OPEN, OPEN], "all", OPEN),
        ([OPEN, FAILS], "most", FAILS),
        ([IN_PART, OPEN], "most", IN_PART),
        ([IN_PART, FAILS], "all", FAILS),
    ],
)
def test_several_comparisons_give_one_verdict(verdicts, share, one):
    assert combined(verdicts, share) == one
    assert combined(iter(verdicts[::-1]), share) == one


@pytest.mark.parametrize("share", SHARES)
def test_nothing_at_all_is_no_evidence(share):
    with pytest.raises(SerialLoRAError, match="amounts"):
        verdict_by_cells(0, 0, share)
    with pytest.raises(SerialLoRAError, match="measures"):
        combined([], share)
