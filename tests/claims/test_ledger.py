"""The ledger of claims: planted records give their verdicts, and every claim is judged."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from serial_lora.errors import SerialLoRAError
from serial_lora_course.claims import comparisons, properties
from serial_lora_course.claims.comparisons import SERIAL, Comparison
from serial_lora_course.claims.evidence import (
    MEASURES,
    RECORDS,
    Evidence,
    gains,
    load_evidence,
    paired,
    printed_scores,
    run_frame,
    scores,
    summarise,
)
from serial_lora_course.claims.ledger import CLAIMS, counts_frame, ledger, ledger_frame
from serial_lora_course.claims.verdicts import (
    FAILS,
    HOLDS,
    IN_PART,
    MISSING,
    NOT_SHOWN,
    OPEN,
    UNFINISHED,
    UNTESTABLE,
    VERDICTS,
)
from serial_lora_course.labs.records import Record
from serial_lora_course.paper_tables import paper_results
from serial_lora_course.study.found import Answer
from serial_lora_course.study.statistics import Interval

METHODS = ("lora", "serial_lora", "lora_plus", "serial_lora_plus", "lora_equal_budget")
DATASETS, AMOUNTS, SEEDS = ("a", "b", "c"), (1, 4), (1, 2, 3)
BASES = {"accuracy": 0.3, "dice": 0.6, "fid": 30.0, "style_share": 0.5}
BETTER = {"accuracy": 0.03, "dice": 0.03, "fid": -3.0, "style_share": 0.03}


def planted(effects: dict[str, float], noise: float = 0.05, lab_rank: int = 16) -> pd.DataFrame:
    """Runs of every method, better than LoRA by the given numbers of steps of `BETTER`."""
    random = np.random.default_rng(7)
    rows = []
    for dataset in DATASETS:
        for amount in AMOUNTS:
            for seed in SEEDS:
                luck = random.normal()
                for method in METHODS:
                    shift = 2 + effects.get(method, 0) + noise * random.normal() + luck
                    row = {"dataset": dataset, "amount": amount, "seed": seed, "method": method}
                    row |= {name: BASES[name] + shift * BETTER[name] for name in BASES}
                    row |= {f"base_{name}": BASES[name] - 9 * BETTER[name] for name in BASES}
                    row["zero_shot_dataset"] = row["base_accuracy"]
                    rows.append(row | {"lab_rank": lab_rank, "lab": "clip"})
    return pd.DataFrame(rows)


def evidence_of(runs: pd.DataFrame) -> Evidence:
    return Evidence(dict.fromkeys(("clip", "sam", "sd3", "clip_rank"), runs), paper_results())


PAPER = Evidence({}, paper_results())

# --------------------------------------------------------------------------- differences


@pytest.mark.parametrize("name", MEASURES)
def test_scores_turn_every_measure_the_right_way(name):
    measure, runs = MEASURES[name], planted({"serial_lora": 1})
    table = scores(runs, measure)
    assert (table["serial_lora"] > table["lora"]).mean() > 0.95
    assert (gains(runs, measure, "lora") > 0).all()


def test_a_difference_is_scipys_over_data_sets_and_seeds():
    runs, measure = planted({"serial_lora": 0.3}, noise=1.0), MEASURES["accuracy"]
    found = summarise(paired(runs, measure, *SERIAL), measure.unit)
    means = runs.groupby(["method", "dataset", "seed"])["accuracy"].mean()
    test = stats.ttest_rel(100 * means["serial_lora"], 100 * means["lora"])
    assert found.mean / found.error == pytest.approx(test.statistic)
    assert (found.pairs, found.datasets, found.seeds, found.cells) == (9, 3, 3, 6)
    cells = runs.groupby(["method", "dataset", "amount"])["accuracy"].mean()
    assert found.above == int((cells["serial_lora"] > cells["lora"]).sum())
    by_set = means.groupby(["method", "dataset"]).mean()
    like = stats.ttest_rel(100 * by_set["serial_lora"], 100 * by_set["lora"]).confidence_interval()
    assert (found.like.low, found.like.high) == pytest.approx((like.low, like.high))
    within = (100 * (means["serial_lora"] - means["lora"])).groupby("dataset").var() / 3
    assert found.these.error == pytest.approx(math.sqrt(within.sum()) / 3)
    assert f"± {found.like.half_width:.2f} (these sets ± " in str(found)
    assert "points (3 sets x 3 seeds" in str(found)
    one = summarise(paired(runs, measure, *SERIAL).loc[["a"], :, [1]], "points")
    assert math.isnan(one.error) and "±" not in str(one) and "1 set x 1 seed" in str(one)


def test_amounts_choose_runs():
    runs, measure = planted({"serial_lora": 1}), MEASURES["dice"]
    found = paired(runs, measure, *SERIAL, [4])
    assert set(found.index.get_level_values("amount")) == {4} and len(found) == 9
    with pytest.raises(SerialLoRAError, match="run both"):
        paired(runs, measure, *SERIAL, [16])
    with pytest.raises(SerialLoRAError, match="one rank"):
        paired(pd.concat([runs, planted({}, lab_rank=8)]), measure, *SERIAL)


def test_the_papers_cells_are_read_as_printed():
    table = printed_scores(paper_results(), MEASURES["dice"])
    assert table.shape == (15, 4)
    assert table.loc[("flood", 20), "lora"] == pytest.approx(-29.83)
    table = printed_scores(paper_results(), MEASURES["accuracy"])
    assert table.loc[("eurosat", 16), "lora"] == 92.75


# --------------------------------------------------------------------------- comparisons


@pytest.mark.parametrize(
    ("effect", "noise", "better", "comparable"),
    [
        (1.0, 0.02, HOLDS, HOLDS),
        (-2.0, 0.02, FAILS, FAILS),
        (-0.1, 0.01, FAILS, HOLDS),
        (1.0, 1.5, OPEN, OPEN),
    ],
)
def test_planted_differences_give_their_verdicts(effect, noise, better, comparable):
    evidence = evidence_of(planted({"serial_lora": effect}, noise))
    assert Comparison(["accuracy"], [SERIAL]).here(evidence).verdict == better
    found = Comparison(["accuracy"], [SERIAL], comparable=True).here(evidence)
    assert found.verdict == comparable
    assert ("within the margin" in found.says) == (better == FAILS and comparable == HOLDS)


def test_tables_are_counted_cell_by_cell():
    paper = paper_results()
    wide = paper[paper["metric"] == "accuracy_percent"].pivot(
        index=["amount", "dataset"], columns="method", values="value"
    )
    better = int((wide["serial_lora"] > wide["lora"]).sum())
    found = Comparison(["accuracy"], [SERIAL]).tables(PAPER)
    assert f"{better} of 12 cells" in found.says and found.verdict == IN_PART
    near = int((wide["serial_lora"] >= wide["lora"] - 1).sum())
    found = Comparison(["accuracy"], [SERIAL], "most", comparable=True).tables(PAPER)
    assert f"{near} of 12 cells" in found.says and found.verdict == HOLDS
    budget = [("serial_lora", "lora_equal_budget")]
    assert Comparison(["accuracy"], budget).tables(PAPER).verdict == NOT_SHOWN


def test_the_best_of_four_and_equal_budget_is_no_fifth():
    runs = planted({"serial_lora_plus": 1, "lora_equal_budget": 5}, noise=0.01)
    found = comparisons.sam_plus_best_here(evidence_of(runs))
    assert found.verdict == HOLDS and "3 of 3 cells" in found.says
    runs = planted({"lora": 1}, noise=0.01)
    assert comparisons.sam_plus_best_here(evidence_of(runs)).verdict == FAILS
    paper = paper_results()
    wide = paper[(paper["metric"] == "dice_as_printed") & (paper["amount"] == "20%")]
    smallest = wide.loc[wide.groupby("dataset")["value"].idxmin(), "method"]
    count = int((smallest == "serial_lora_plus").sum())
    assert f"{count} of {len(smallest)} cells" in comparisons.sam_plus_best_printed(PAPER).says


@pytest.mark.parametrize(("sign", "verdict"), [(1, HOLDS), (-1, FAILS)])
def test_a_lead_that_changes_with_data(sign, verdict):
    runs = planted({"serial_lora": 0.5}, noise=0.01)
    few = (runs["amount"] == 1) & (runs["method"] == "serial_lora")
    runs.loc[few, "dice"] += sign * BETTER["dice"]
    found = comparisons.sam_lead_here(evidence_of(runs))
    assert found.verdict == verdict and "9 pairs" in found.says


def test_every_rank_is_asked():
    runs = pd.concat([planted({"serial_lora": 1}, 0.02, 8), planted({"serial_lora": -2}, 0.02, 32)])
    found = comparisons.comparable_at_every_rank(evidence_of(runs))
    assert found.verdict == FAILS
    assert found.says.startswith("Rank 8 +") and "(holds), rank 32 -" in found.says
    assert "all ranks averaged -" in found.says and found.says.endswith("(3 sets x 3 seeds).")


def test_the_study_decides_when_all_its_runs_are_there():
    def found(**verdicts: str):
        means = {"holds": 1.0, "fails": -1.0, "open": 0.0}
        answers = [
            Answer(lab, "above?", "points", 36, 36, at := Interval(means[v], 0.1, 11, 12), at, at.p)
            if v
            else Answer(lab, "above?", "points", 17, 36)
            for lab, v in verdicts.items()
        ]
        return comparisons.Asked(["above?"])(Evidence({}, None, answers))

    half = found(sam="holds", clip="")
    assert half.verdict == UNFINISHED and "17 of 36 runs" in half.says
    assert found(sam="holds", clip="holds").verdict == HOLDS
    assert found(sam="holds", clip="fails").verdict == FAILS
    assert found(sam="open").verdict == OPEN and found().verdict == MISSING


# --------------------------------------------------------------------------- properties


def spectra(between: float = 0.4, change_between: float = 0.4, gain: float = 0) -> Evidence:
    random = np.random.default_rng(3)

    def measures() -> dict[str, float]:
        means = {
            "between": between,
            "change_between": change_between,
            "effective_rank_lora": 8,
            "effective_rank_serial": 8 + gain,
        }
        return {
            f"image {block} {part} {name}": mean + 0.01 * random.normal()
            for block in range(3)
            for part in "qkv"
            for name, mean in means.items()
        }

    def record(lab: str, dataset: str, method: str, seed: int) -> Record:
        settings = {"lab": lab}
        return Record(
            *("spectra", "tiny", dataset, method, 16, "shots", seed, 16),
            measures(),
            {},
            1.0,
            settings,
        )

    records = [
        record(lab, dataset, method, seed)
        for lab, dataset in (("clip", "symbols"), ("sam", "food"))
        for method in ("serial_lora", "serial_lora_plus")
        for seed in (1, 2, 3)
    ]
    return Evidence({"spectra": run_frame(records)}, paper_results())


def test_spectra_are_judged_on_each_model_by_seed():
    assert properties.spectrum_lies_between(spectra(0.97, 0.97)).verdict == HOLDS
    found = properties.spectrum_lies_between(spectra(0.97, 0.4))
    of_weight, of_change = found.says.split("; dW: ")
    assert found.verdict == FAILS
    assert "SAM Serial LoRA+ 97% ± " in of_weight and "SAM Serial LoRA+ 40% ± " in of_change
    found = properties.spectrum_falls_gradually(spectra(gain=3))
    assert found.verdict == HOLDS and "CLIP Serial LoRA +3.00 ± " in found.says
    assert properties.spectrum_falls_gradually(spectra(gain=-3)).verdict == FAILS


@pytest.mark.parametrize(("iou", "verdict"), [([0.3, 0.4, 0.5], FAILS), ([0.5, 0.4, 0.3], HOLDS)])
def test_dice_and_iou_decide_which_way_is_better(iou, verdict):
    runs = pd.DataFrame({"dice": [0.5, 0.6, 0.7], "iou": iou, "one_minus_dice": [0.5, 0.4, 0.3]})
    assert properties.lower_dice_is_better(evidence_of(runs)).verdict == verdict


@pytest.mark.parametrize(
    ("adapter", "kept", "verdict"), [(25, 25, HOLDS), (25, 90, IN_PART), (50, 90, FAILS)]
)
def test_memory_is_asked_for_a_quarter(adapter, kept, verdict):
    methods = ["lora", "serial_lora"]
    runs = {"method": methods, "bytes": [100, adapter], "activation_bytes": [100, kept]}
    evidence = evidence_of(pd.DataFrame(runs))
    assert properties.memory_is_a_quarter(evidence).verdict == verdict


def test_exact_claims():
    assert properties.exact_ratio(PAPER).verdict == HOLDS
    assert properties.printed_ratio(PAPER).verdict == HOLDS
    assert properties.printed_counts(PAPER).verdict == IN_PART
    assert properties.printed_units(PAPER).verdict == FAILS
    found = properties.serial_equals_three_pairs(PAPER)
    assert found.verdict == HOLDS and "the same 4 directions" in found.says
    assert properties.number_of_datasets(PAPER).verdict == FAILS
    assert properties.number_of_datasets(PAPER, claimed=13).verdict == HOLDS


# --------------------------------------------------------------------------- the ledger


def test_every_claim_is_judged_with_and_without_records():
    shipped, bare = ledger(), ledger(PAPER)
    assert [name for name in RECORDS if load_evidence().records[name].empty] == []
    assert len({row.claim.says for row in shipped}) == len(shipped) >= 20
    for row, without in zip(shipped, bare, strict=True):
        assert {row.tables.verdict, row.here.verdict} <= set(VERDICTS)
        assert row.tables.verdict not in (OPEN, MISSING, UNTESTABLE)
        assert row.here.verdict not in (NOT_SHOWN, MISSING)
        assert len(row.claim.quote.split()) <= 20 and row.claim.where
        assert without.tables == row.tables
        if without.here != row.here:
            assert without.here.verdict == MISSING and "records" in without.here.says
    assert sum(row.here.verdict == MISSING for row in bare) >= 15


def test_every_row_stands_under_one_theme():
    rows = ledger(PAPER)
    assert sum(len(ledger_frame(rows, theme)) for theme in CLAIMS) == len(rows)
    with pytest.raises(SerialLoRAError, match="Size and memory"):
        ledger_frame(rows, "Weather")
    assert list(counts_frame(rows).iloc[:, 1:].sum()) == [len(rows), len(rows)]
