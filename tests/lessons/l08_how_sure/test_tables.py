"""The tables of lesson 09 against scipy's own tests and planted records."""

import numpy as np
import pandas as pd
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


def planted(mean: float) -> pd.DataFrame:
    """A sweep of two ranks, three methods, two sets and three seeds; Serial LoRA is ahead by a mean."""
    chance = np.random.default_rng(0)
    rows = []
    for rank in (4, 8):
        for dataset in ("food", "travel"):
            for seed in (1, 2, 3):
                level = chance.normal(0.5, 0.1)
                for method in ("lora", "serial_lora", "lora_equal_budget"):
                    ahead = mean * (method == "serial_lora") + chance.normal(0, 1e-3)
                    row = {"dataset": dataset, "seed": seed, "amount": 16, "lab_rank": rank}
                    own = rank // 4 if method == "lora_equal_budget" else rank
                    row |= {"method": method, "rank": own, "parameters": 1000 * own}
                    rows.append(row | {"accuracy": level + ahead})
    return pd.DataFrame(rows)


def test_a_planted_lead_has_a_star_at_every_rank():
    table = tables.sweep_table(planted(0.05))
    assert table.shape == (2, 2) and table.map(lambda text: text.endswith("*")).all(axis=None)


def test_the_chosen_rank_is_the_functions():
    table = tables.chosen_table(planted(0.0), min)
    assert table.set_index("method")["rank by the rule"].to_dict() == {
        "LoRA": 4,
        "Serial LoRA": 4,
        "LoRA at equal budget": 1,
    }
    kept = tables.chosen_table(planted(0.0), lambda runs: max(runs, key=lambda r: sum(runs[r])))
    assert (kept["rank by the rule"] == kept["best rank"]).all()


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
