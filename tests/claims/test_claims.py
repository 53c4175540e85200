"""The ledger of claims: planted records give their verdicts, and the page is not stale."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from serial_lora.errors import SerialLoRAError
from serial_lora_course.claims import (
    ledger as claims,
)
from serial_lora_course.claims import (
    records as claims_records,
)
from serial_lora_course.claims import (
    tables as claims_tables,
)
from serial_lora_course.claims.evidence import (
    MEASURES,
    RECORDS,
    Evidence,
    NoRecords,
    gains,
    load_evidence,
    paired,
    printed_scores,
    run_frame,
    scores,
    summarise,
)
from serial_lora_course.claims.paper import inconsistencies, paper_results
from serial_lora_course.claims.verdicts import (
    FAILS,
    HOLDS,
    IN_PART,
    MISSING,
    NOT_SHOWN,
    OPEN,
    UNTESTABLE,
    VERDICTS,
    combined,
    verdict_ahead,
    verdict_by_cells,
    verdict_comparable,
)
from serial_lora_course.labs.records import Record

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("lora", "serial_lora", "lora_plus", "serial_lora_plus", "lora_equal_budget")
DATASETS, AMOUNTS, SEEDS = ("a", "b", "c"), (1, 4), (1, 2, 3)
BASES = {"accuracy": 0.3, "dice": 0.6, "fid": 30.0, "clip_score": 1.0}
TASKS = {"clip": ["accuracy"], "sam": ["dice"], "sd3": ["fid", "clip_score"]}
BETTER = {"accuracy": 0.03, "dice": 0.03, "fid": -3.0, "clip_score": 0.03}


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
                    row = {"dataset": dataset, "shots": amount, "seed": seed, "method": method}
                    row |= {name: BASES[name] + shift * BETTER[name] for name in BASES}
                    row |= {f"base_{name}": BASES[name] - 9 * BETTER[name] for name in BASES}
                    row["zero_shot_dataset"] = row["base_accuracy"]
                    rows.append(row | {"lab_rank": lab_rank, "lab": "clip"})
    return pd.DataFrame(rows)


def evidence_of(effects: dict[str, float], noise: float = 0.05) -> Evidence:
    runs = planted(effects, noise)
    return Evidence({name: runs for name in ("clip", "sam", "sd3", "clip_rank")}, paper_results())


SERIAL = [["serial_lora", "lora"]]
ALL = list(MEASURES)

# --------------------------------------------------------------------------- the rules


@given(mean=st.floats(-5, 5), error=st.floats(0, 2), margin=st.floats(0.01, 3), often=st.booleans())
def test_rules_are_intervals(mean, error, margin, often):
    low, high = mean - 2 * error, mean + 2 * error
    if min(abs(low), abs(high), abs(low + margin), abs(high + margin)) < 1e-9:
        return  # on the edge rounding decides
    better = HOLDS if low > 0 else FAILS if high < 0 else OPEN
    assert verdict_ahead(mean, error) == better
    assert verdict_ahead(mean, error, often=often) == (
        IN_PART if better == HOLDS and not often else better
    )
    comparable = HOLDS if low > -margin else FAILS if high < -margin else OPEN
    assert verdict_comparable(mean, error, margin) == comparable
    if better == HOLDS:
        assert comparable == HOLDS


def test_a_single_pair_decides_nothing():
    assert verdict_ahead(3.0, math.nan) == OPEN
    assert verdict_comparable(3.0, math.nan, 1.0) == OPEN


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


@pytest.mark.parametrize("share", ["all", "nearly all", "most"])
def test_nothing_at_all_is_no_evidence(share):
    with pytest.raises(SerialLoRAError, match="correct the amounts"):
        verdict_by_cells(0, 0, share)
    with pytest.raises(SerialLoRAError, match="correct the options"):
        combined([], share)
    with pytest.raises(SerialLoRAError, match="correct the amounts"):
        claims_tables.ahead(paper_results(), ["accuracy"], SERIAL, share, amounts=[5])


# --------------------------------------------------------------------------- differences


@pytest.mark.parametrize("name", ALL)
def test_scores_turn_every_measure_the_right_way(name):
    measure, runs = MEASURES[name], planted({"serial_lora": 1})
    table = scores(runs, measure)
    assert (table["serial_lora"] > table["lora"]).mean() > 0.95
    assert (gains(runs, measure, "lora") > 0).all()


def test_fid_is_compared_by_its_ratio():
    runs = planted({})
    runs["fid"] = np.where(runs["method"] == "serial_lora", 9.9, 10.0)
    found = paired(runs, MEASURES["fid"], "serial_lora", "lora")
    np.testing.assert_allclose(found, -100 * math.log(0.99))
    assert found.iloc[0] == pytest.approx(1, abs=0.01)  # a per cent less is a per cent better


def test_a_difference_is_scipys_over_data_sets_and_seeds():
    runs, measure = planted({"serial_lora": 0.3}, noise=1.0), MEASURES["accuracy"]
    found = summarise(paired(runs, measure, "serial_lora", "lora"), measure.unit)
    means = runs.groupby(["method", "dataset", "seed"])["accuracy"].mean()
    test = stats.ttest_rel(100 * means["serial_lora"], 100 * means["lora"])
    assert found.mean / found.error == pytest.approx(test.statistic)
    assert (found.pairs, found.datasets, found.seeds, found.cells) == (9, 3, 3, 6)
    cells = runs.groupby(["method", "dataset", "shots"])["accuracy"].mean()
    assert found.above == int((cells["serial_lora"] > cells["lora"]).sum())
    assert str(found).startswith(f"{found.mean:+.2f} ± {found.error:.2f} points (3 sets x 3 seeds")


def test_amounts_choose_runs():
    runs, measure = planted({"serial_lora": 1}), MEASURES["dice"]
    found = paired(runs, measure, "serial_lora", "lora", [4])
    assert set(found.index.get_level_values("shots")) == {4} and len(found) == 9
    with pytest.raises(SerialLoRAError, match="no run in common with amount 16"):
        paired(runs, measure, "serial_lora", "lora", [16])
    with pytest.raises(SerialLoRAError, match="run both"):
        paired(runs, measure, "serial_lora", "dora")


def test_two_ranks_at_once_are_refused():
    runs = pd.concat([planted({}), planted({}, lab_rank=8)])
    with pytest.raises(SerialLoRAError, match="pick one rank"):
        scores(runs, MEASURES["accuracy"])


def test_one_seed_has_no_error_to_show():
    runs = planted({})
    runs = runs[(runs["seed"] == 1) & (runs["dataset"] == "a")]
    found = summarise(paired(runs, MEASURES["accuracy"], "serial_lora", "lora"), "points")
    assert math.isnan(found.error) and "±" not in str(found) and "1 set x 1 seed" in str(found)


def test_the_papers_cells_are_read_as_printed():
    table = printed_scores(paper_results(), MEASURES["dice"])
    assert table.shape == (15, 4)
    assert table.loc[("flood", 20), "lora"] == pytest.approx(-29.83)
    assert (
        printed_scores(paper_results(), MEASURES["accuracy"]).loc[("eurosat", 16), "lora"] == 92.75
    )


# --------------------------------------------------------------------------- kinds of claims


@pytest.mark.parametrize(
    ("effect", "noise", "better", "comparable"),
    [
        (1.0, 0.02, HOLDS, HOLDS),
        (-2.0, 0.02, FAILS, FAILS),
        (-0.1, 0.01, FAILS, HOLDS),
        (1.0, 3.0, OPEN, OPEN),
    ],
)
def test_planted_differences_give_their_verdicts(effect, noise, better, comparable):
    evidence = evidence_of({"serial_lora": effect}, noise)
    assert claims_records.ahead(evidence, ["accuracy"], SERIAL).verdict == better
    found = claims_records.comparable(evidence, ["accuracy"], SERIAL)
    assert found.verdict == comparable
    assert ("within the margin" in found.says) == (better == FAILS and comparable == HOLDS)


def test_better_on_average_but_not_everywhere_is_in_part():
    runs = planted({"serial_lora": 1}, noise=0.01)
    lost = (runs["dataset"] == "a") & (runs["method"] == "serial_lora") & (runs["shots"] == 1)
    runs.loc[lost, "accuracy"] -= 1.1 * BETTER["accuracy"]
    evidence = Evidence({"clip": runs}, paper_results())
    verdicts = {
        share: claims_records.ahead(evidence, ["accuracy"], SERIAL, share).verdict
        for share in ("all", "nearly all", "most")
    }
    assert verdicts == {"all": IN_PART, "nearly all": IN_PART, "most": HOLDS}


def test_tables_are_counted_cell_by_cell():
    paper = paper_results()
    wide = paper[paper["metric"] == "accuracy_percent"].pivot(
        index=["amount", "dataset"], columns="method", values="value"
    )
    better = int((wide["serial_lora"] > wide["lora"]).sum())
    found = claims_tables.ahead(paper, ["accuracy"], SERIAL)
    assert f"{better} of 12 cells" in found.says and found.verdict == IN_PART
    near = int((wide["serial_lora"] >= wide["lora"] - 1).sum())
    found = claims_tables.comparable(paper, ["accuracy"], SERIAL)
    assert f"{near} of 12 cells" in found.says and found.verdict == HOLDS
    budget = [["serial_lora", "lora_equal_budget"]]
    assert claims_tables.ahead(paper, ["accuracy"], budget).verdict == NOT_SHOWN


def test_less_is_better_in_the_papers_dice_and_fid():
    paper = paper_results().copy()
    lower = paper["metric"].isin(["fid", "dice_as_printed"]) & (paper["method"] == "serial_lora")
    paper.loc[lower, "value"] /= 100
    assert claims_tables.ahead(paper, ["dice", "fid"], SERIAL).verdict == HOLDS


def test_the_best_of_four_and_equal_budget_is_no_fifth():
    evidence = evidence_of({"serial_lora_plus": 1, "lora_equal_budget": 5}, noise=0.01)
    options = {"measure": "dice", "one": "serial_lora_plus", "amounts": [1], "share": "all"}
    found = claims_records.best(evidence, **options)
    assert found.verdict == HOLDS and "3 of 3 cells" in found.says
    assert claims_records.best(evidence, **options | {"one": "lora"}).verdict == FAILS
    paper = paper_results()
    wide = paper[(paper["metric"] == "dice_as_printed") & (paper["amount"] == "20%")]
    smallest = wide.loc[wide.groupby("dataset")["value"].idxmin(), "method"]
    count = int((smallest == "serial_lora_plus").sum())
    found = claims_tables.best(paper, **options | {"amounts": [20]})
    assert f"{count} of {len(smallest)} cells" in found.says


def test_a_lead_that_shrinks_with_data():
    runs = planted({"serial_lora": 0.5}, noise=0.01)
    few = (runs["shots"] == 1) & (runs["method"] == "serial_lora")
    runs.loc[few, "dice"] += BETTER["dice"]
    options = {"measure": "dice", "one": "serial_lora", "other": "lora"}
    here = claims_records.larger_with_few(Evidence({"sam": runs}, paper_results()), **options)
    assert here.verdict == HOLDS and "9 pairs" in here.says
    runs.loc[few, "dice"] -= 2 * BETTER["dice"]
    here = claims_records.larger_with_few(Evidence({"sam": runs}, paper_results()), **options)
    assert here.verdict == FAILS


def test_gains_over_the_unadapted_model():
    options = {"on": ["accuracy", "dice", "fid"], "method": "serial_lora", "beside": "lora"}
    found = claims_records.improves(evidence_of({}, noise=0), **options)
    assert found.verdict == HOLDS and found.says.count("100% of LoRA's gain") == 3
    worse = evidence_of({"serial_lora": -30})
    assert claims_records.improves(worse, **options).verdict == FAILS


def test_every_rank_is_asked():
    runs = pd.concat([planted({"serial_lora": 1}, 0.02, 8), planted({"serial_lora": -2}, 0.02, 32)])
    options = {"measure": "accuracy", "one": "serial_lora", "other": "lora"}
    found = claims_records.at_every_rank(Evidence({"clip_rank": runs}, paper_results()), **options)
    assert found.verdict == FAILS
    assert re.match(r"Rank 8 \+[\d.]+ ± [\d.]+ \(holds\), rank 32 -[\d.]+ ± [\d.]+ p", found.says)
    assert "all ranks averaged -" in found.says and found.says.endswith("(3 sets x 3 seeds).")


def spectra(between: float = 0.4, change_between: float = 0.4, gain: float = 0) -> Evidence:
    random = np.random.default_rng(3)

    def measures() -> dict[str, float]:
        found = {}
        for block in range(3):
            for part in "qkv":
                place = f"image {block} {part}"
                found |= {
                    f"{place} between": between + 0.01 * random.normal(),
                    f"{place} change_between": change_between + 0.01 * random.normal(),
                    f"{place} effective_rank_lora": 8 + 0.1 * random.normal(),
                    f"{place} effective_rank_serial": 8 + gain + 0.1 * random.normal(),
                }
        return found

    records = [
        Record("spectra", "tiny", data, method, 16, seed, 16, measures(), {}, 1.0, {"lab": lab})
        for lab, data in (("clip", "symbols"), ("sam", "food"))
        for method in ("serial_lora", "serial_lora_plus")
        for seed in (1, 2, 3)
    ]
    return Evidence({"spectra": run_frame(records)}, paper_results())


def test_spectra_are_judged_on_each_model_by_seed():
    assert claims_records.spectrum_between(spectra(0.97, 0.97), 0.9).verdict == HOLDS
    found = claims_records.spectrum_between(spectra(0.97, 0.4), 0.9)
    of_weight, of_change = found.says.split("; dW: ")
    assert found.verdict == FAILS
    assert "SAM Serial LoRA+ 97% ± " in of_weight and "SAM Serial LoRA+ 40% ± " in of_change
    found = claims_records.spectrum_decay(spectra(gain=3))
    assert found.verdict == HOLDS and re.search(r"CLIP Serial LoRA \+(2\.9|3\.0)", found.says)
    assert claims_records.spectrum_decay(spectra(gain=-3)).verdict == FAILS


def test_dice_and_iou_decide_which_way_is_better():
    runs = pd.DataFrame({"dice": [0.5, 0.6, 0.7], "iou": [0.3, 0.4, 0.5]})
    runs["one_minus_dice"] = 1 - runs["dice"]
    evidence = Evidence({"sam": runs}, paper_results())
    assert claims_records.lower_dice_is_better(evidence).verdict == FAILS
    evidence = Evidence({"sam": runs.assign(iou=[0.5, 0.4, 0.3])}, paper_results())
    assert claims_records.lower_dice_is_better(evidence).verdict == HOLDS


@pytest.mark.parametrize(
    ("adapter", "kept", "verdict"), [(25, 25, HOLDS), (25, 90, IN_PART), (50, 90, FAILS)]
)
def test_memory_is_asked_for_a_quarter(adapter, kept, verdict):
    runs = pd.DataFrame(
        {
            "method": ["lora", "serial_lora"],
            "bytes": [100, adapter],
            "activation_bytes": [100, kept],
        }
    )
    evidence = Evidence({"sam": runs, "sd3": runs}, paper_results())
    assert claims_records.memory(evidence).verdict == verdict


def test_exact_claims():
    nothing = Evidence({}, paper_results())
    assert claims_records.quarter(nothing).verdict == HOLDS
    assert claims_records.equivalent_form(nothing).verdict == HOLDS
    assert "the same 4 directions" in claims_records.equivalent_form(nothing).says
    assert claims_records.printed_sizes(nothing).verdict == IN_PART
    assert claims_tables.printed_sizes(paper_results()).verdict == FAILS
    assert claims_tables.quarter(paper_results()).verdict == HOLDS
    assert claims_tables.number_of_datasets(paper_results(), 24).verdict == FAILS
    assert claims_tables.number_of_datasets(paper_results(), 13).verdict == HOLDS


# --------------------------------------------------------------------------- the ledger


def test_every_claim_is_judged_with_and_without_records():
    shipped = claims.ledger()
    assert len(shipped) == len(claims.paper_claims()) >= 20
    assert len({row.claim.key for row in shipped}) == len(shipped)
    for row in shipped:
        assert {row.tables.verdict, row.here.verdict} <= set(VERDICTS)
        assert row.tables.verdict not in (OPEN, MISSING, UNTESTABLE)
        assert row.here.verdict != NOT_SHOWN
        assert len(row.claim.quote.split()) <= 20 and row.claim.where
    bare = claims.ledger(Evidence({}, paper_results()))
    for row, full in zip(bare, shipped, strict=True):
        assert row.tables == full.tables
        if row.here != full.here:
            assert row.here.verdict == MISSING and "_tiny.jsonl" in row.here.says
    assert sum(row.here.verdict == MISSING for row in bare) >= 15


def test_no_records_are_missing():
    shipped = load_evidence().records
    assert [name for name in RECORDS if shipped[name].empty] == []


def test_missing_records_are_named():
    with pytest.raises(NoRecords, match="clip_rank_tiny.jsonl"):
        Evidence({}, paper_results()).runs("clip_rank")


def test_a_claim_without_a_function_is_an_error():
    claim = claims.Claim("k", "t", "w", "q", "s", tables={"guess": {}}, here={"quarter": {}})
    with pytest.raises(SerialLoRAError, match="no function 'guess'"):
        claims.judge(claim, load_evidence())


def test_every_row_stands_under_one_theme():
    rows = claims.ledger(Evidence({}, paper_results()))
    assert sum(len(claims.ledger_frame(rows, theme)) for theme in claims.themes()) == len(rows)
    with pytest.raises(SerialLoRAError, match="choose from Size and memory"):
        claims.ledger_frame(rows, "Weather")
    counts = claims.counts_frame(rows)
    assert list(counts.iloc[:, 1:].sum()) == [len(rows), len(rows)]


def test_the_page_holds_everything():
    text = claims.page()
    for claim in claims.paper_claims():
        assert claim.quote in text and claim.where in text
    for entry in inconsistencies():
        assert entry["finding"] in text
    assert "{" not in text and "nan" not in text.split()
    width = {line.count("|") - line.count("\\|") for line in text.split("\n") if line[:1] == "|"}
    assert width == {4}


def test_the_page_in_the_repository_is_not_stale():
    assert claims.main(["--check", str(ROOT / "CLAIMS.md")]) == 0


def test_a_stale_page_is_noticed(tmp_path, capsys):
    page = tmp_path / "CLAIMS.md"
    assert claims.main(["--check", str(page)]) == 2
    assert "name another file" in capsys.readouterr().err
    page.write_text("old", encoding="utf-8")
    assert claims.main(["--check", str(page)]) == 1
    assert "stale" in capsys.readouterr().err
    assert claims.main(["--write", str(page)]) == claims.main(["--check", str(page)]) == 0
    assert claims.main([]) == 0
    assert capsys.readouterr().out == page.read_text(encoding="utf-8")
