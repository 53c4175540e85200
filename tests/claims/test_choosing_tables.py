"""The tables of lesson 09 against scipy's own tests and planted records."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from serial_lora_course.claims import choosing, choosing_tables
from serial_lora_course.lessons.l08_how_sure.evidence import (
    MEASURES,
    intervals,
    load_evidence,
    paired,
)

HOLDS, FAILS = "holds", "does not hold"

EVIDENCE = load_evidence()


def test_errors_are_those_of_scipys_paired_and_unpaired_tests():
    runs, points = EVIDENCE.runs("clip"), MEASURES["accuracy"]
    table = choosing_tables.error_table(runs, points, choosing.paired_error)
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
    sweep = planted(0.05)
    table = choosing_tables.sweep_table(sweep)
    assert len(table) == 4 and table["significant"].all() and table["mean"].between(4, 6).all()
    assert choosing_tables.show_sweep(table).map(lambda text: text.endswith("*")).all(axis=None)
    assert "4 are significant" in choosing_tables.read_sweep(sweep, table)


def test_stars_follow_the_interval_over_sets():
    sweep = planted(0.0)
    run = choosing_tables.sweep_table(sweep).iloc[0]
    ranked = sweep[sweep["lab_rank"] == run["rank"]]
    wide = ranked.pivot(index=["dataset", "seed"], columns="method", values="accuracy")
    sets = 100 * wide.groupby("dataset").mean()
    interval = stats.ttest_rel(sets["serial_lora"], sets["lora"]).confidence_interval(0.95)
    assert (run["mean"] - run["half"], run["mean"] + run["half"]) == pytest.approx(tuple(interval))
    assert run["sample"] == "2 sets"
    alone = choosing_tables.sweep_table(sweep[sweep["dataset"] == "food"])
    assert (alone["sample"] == "3 seeds").all()


def test_power_is_the_first_number_of_sets_whose_interval_is_small_enough():
    words = choosing_tables.read_power(0.3, 0.5, 1.0, (2.0, 0.5))
    counts = [int(count) for count in re.findall(r"(\d+) for", words)]
    for size, count in zip((2.0, 0.5), counts, strict=True):
        halves = [stats.t.ppf(0.975, n - 1) / np.sqrt(n) for n in (count - 1, count)]
        assert halves[1] <= size < halves[0]
    assert "not significant" in words


def test_the_chosen_rank_is_the_functions():
    table = choosing_tables.chosen_table(planted(0.0), min)
    assert table.set_index("method")["rank by the rule"].to_dict() == {
        "LoRA": 4,
        "Serial LoRA": 4,
        "LoRA at equal budget": 1,
    }
    kept = choosing_tables.chosen_table(
        planted(0.0), lambda runs: max(runs, key=lambda r: sum(runs[r]))
    )
    assert (kept["rank by the rule"] == kept["best rank"]).all()
    assert "keeps the best rank of every method" in choosing_tables.read_choice(kept)


def test_margins_hold_from_where_the_verdict_turns():
    given = []

    def say(*found):
        given.append(found[:3])
        return choosing.say_comparable(*found)

    table = choosing_tables.margin_table(EVIDENCE, "lora", say)
    for found, (name, row) in zip(given, table.iterrows(), strict=True):
        bar = row["holds from"]
        assert choosing.say_comparable(*found, bar + 1e-6) == HOLDS
        assert bar == 0 or choosing.say_comparable(*found, bar - 1e-6) != HOLDS
        assert (name in choosing_tables.read_holds_from(table).split(" holds.")[0]) == (
            row["comparable"] == HOLDS
        )
    words = choosing_tables.read_margins({"it": table.assign(comparable=FAILS)})
    assert words.startswith("- **Not behind it") and FAILS in words


def test_signs_count_cells_and_data_sets():
    table = choosing_tables.signs_table(EVIDENCE, choosing.sign_test)
    row = table.loc[("CLIP accuracy", "the paper")]
    wins, losses = map(int, row["cells"].split(" to "))
    assert row["p, cells"] == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert row["least p"] == pytest.approx(2 * 0.5**4)
