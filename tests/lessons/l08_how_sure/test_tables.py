"""The tables of lesson 08 against scipy's own tests and planted records."""

import numpy as np
import pytest
from scipy import stats

from serial_lora_course.lessons.l08_how_sure import tables
from serial_lora_course.lessons.l08_how_sure.evidence import (
    MEASURES,
    intervals,
    load_evidence,
    paired,
)

HOLDS = "holds"

EVIDENCE = load_evidence()


def paired_error(one, other):
    sets = (one - other).mean(dim=1).numpy()
    return sets.mean(), stats.sem(sets)


def say_comparable(mean, error, count, margin):
    low, high = stats.t.interval(0.95, count - 1, mean, error)
    return HOLDS if low > -margin else "does not hold" if high < -margin else "undecided"


def sign_test(wins, losses):
    return stats.binomtest(wins, wins + losses).pvalue


def test_errors_are_those_of_scipys_paired_and_unpaired_tests():
    runs, points = EVIDENCE.runs("clip"), MEASURES["accuracy"]
    table = tables.error_table(runs, points, paired_error)
    wide = 100 * runs.pivot(
        index=["dataset", "amount", "seed"], columns="method", values="accuracy"
    )
    wide = wide[["serial_lora", "lora"]].dropna()
    draws, sets = wide.groupby(["dataset", "seed"]).mean(), wide.groupby("dataset").mean()
    for row, each in ((1, wide), (2, draws), (3, sets)):
        interval = stats.ttest_rel(*each.to_numpy().T).confidence_interval(0.95)
        found = table.iloc[row]
        assert found["count"] == len(each)
        assert found["mean"] - found["half"] == pytest.approx(interval.low)
        assert found["mean"] + found["half"] == pytest.approx(interval.high)
    interval = stats.ttest_ind(*wide.to_numpy().T).confidence_interval(0.95)
    assert table["half"].iloc[0] == pytest.approx((interval.high - interval.low) / 2)
    difference = draws["serial_lora"] - draws["lora"]
    model = [values.var(ddof=1) for _, values in difference.groupby("dataset")]  # one way
    assert table["error"].iloc[4] == pytest.approx(np.sqrt(np.mean(model) / len(draws)))
    each = paired(runs, points, "serial_lora", "lora").groupby(["dataset", "seed"]).mean()
    assert table["half"].iloc[3:].tolist() == pytest.approx(
        [interval.half_width for interval in intervals(each).values()]
    )


def test_margins_hold_from_where_the_verdict_turns():
    given = []

    def say(*found):
        given.append(found[:3])
        return say_comparable(*found)

    table = tables.margin_table(EVIDENCE, "lora", say)
    for found, row in zip(given, table.itertuples(), strict=True):
        bar = row[-1]  # "holds from"
        assert say_comparable(*found, bar + 1e-6) == HOLDS
        assert bar == 0 or say_comparable(*found, bar - 1e-6) != HOLDS


def test_signs_count_cells_and_data_sets():
    table = tables.signs_table(EVIDENCE, sign_test)
    row = table.loc[("CLIP accuracy", "the paper")]
    wins, losses = map(int, row["cells"].split(" to "))
    assert row["p, cells"] == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert row["least p"] == pytest.approx(2 * 0.5**4)
