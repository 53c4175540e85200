"""The study: runs are made once, packed and told; its shipped records say what the course ships."""

import numpy as np
import pandas as pd
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.records import read_records
from serial_lora_course.lessons.l09_trial import tables as shipped
from study import runs as study_runs
from study.plan import MOST_RATES, PLANS, STEP, Question, next_rate
from study.results import Results, run_of
from study.runs import Study, go_on
from study.sets import VALIDATION
from study.tables import Found, answers, arms_table, as_json
from tests.study.halves import PLAN, HalvesStudy

# ------------------------------------------------------------------------------- what is shipped


def test_the_course_ships_what_the_packed_records_say(tmp_path):
    told = as_json([Found(Results(plan, tmp_path)) for plan in PLANS.values()])
    fresh, kept = shipped.Found.of(told), shipped.load_found()
    assert fresh.runs == kept.runs and fresh.units == kept.units
    for mine, theirs in zip(fresh.answers, kept.answers, strict=True):
        assert (mine.lab, mine.asks, mine.verdict) == (theirs.lab, theirs.asks, theirs.verdict)
        assert mine.p == pytest.approx(theirs.p)
        for name in ("like", "these", "groups"):
            one, other = getattr(mine, name), getattr(theirs, name)
            assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert fresh.described.keys() == kept.described.keys()
    for pair, mine in fresh.described.items():
        theirs = kept.described[pair]
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))
    assert fresh.sets.keys() == kept.sets.keys()
    for lab, sets in kept.sets.items():
        pd.testing.assert_frame_equal(fresh.sets[lab], sets)
        for its, one, other in kept.described:
            if its == lab and {one, other} <= {*sets}:
                between = (sets[one] - sets[other]).mean()
                assert between == pytest.approx(kept.described[lab, one, other].mean)
    for lab, arms in kept.arms.items():
        pd.testing.assert_frame_equal(fresh.rates[lab], kept.rates[lab])
        pd.testing.assert_frame_equal(fresh.arms[lab], arms)
        assert set(arms["arm"]) == {arm.name for arm in PLANS[lab].arms}


EARLIER = {("sam", "lora-16"): [0.000333, 0.027]}
"""Rates that were tried before the rule was what it is: docs/study.md tells the change."""


@pytest.mark.parametrize("lab", PLANS)
def test_the_rule_asks_for_the_rates_that_the_shipped_arms_tried(lab, tmp_path):
    results = Results(PLANS[lab], tmp_path)
    base = results.unadapted()
    for arm in PLANS[lab].arms:
        reached = {float(f"{r:.3g}"): score for r, score in results.rates_tried(arm).items()}
        tried = {float(f"{rate:.3g}") for rate in (arm.rate / STEP, arm.rate, arm.rate * STEP)}
        while further := next_rate({rate: reached[rate] for rate in tried}, base):
            tried.add(min(reached, key=lambda rate, at=further: abs(rate / at - 1)))
        assert sorted(set(reached) - tried) == EARLIER.get((lab, arm.name), []), arm.name


# ------------------------------------------------------------------------------------- the loop


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Makes one on a folder and on packed files of its own."""
    monkeypatch.setitem(study_runs.STUDIES, "sam", HalvesStudy)
    return lambda folder="a": Study(PLAN, tmp_path / folder, tmp_path / "packed")


def test_runs_are_made_once_told_packed_and_gone_on_with(study, tmp_path, monkeypatch, capsys):
    made = study()
    assert not list(go_on([made]))
    records = read_records(tmp_path / "a" / "sam.jsonl")
    choosing = [r for r in records if r.dataset.endswith(VALIDATION)]
    assert len(records) == len(capsys.readouterr().out.splitlines())
    assert len(records) - len(choosing) == (1 + 2) * 2
    assert all(made.results.next_rate(arm) is None for arm in PLAN.arms)
    finals = [r for r in records if not r.dataset.endswith(VALIDATION)]
    for record in finals:
        outcomes = made.results.outcomes(run_of(record, PLAN).name)
        assert outcomes["dice"].mean() == pytest.approx(record.measures["dice"])
    with monkeypatch.context() as nothing:
        nothing.setattr(study_runs, "run_one", pytest.fail)
        assert not list(go_on([study()]))
        found = Found(made.results)
        monkeypatch.setattr("study.plan.QUESTIONS", (Question("?", "serial_lora-2", "lora-2"),))
        (answer,) = answers([found])
        dice = {(r.method, r.dataset): r.measures["dice"] for r in finals if r.seed == 1}
        ahead = [100 * (dice["serial_lora", d] - dice["lora", d]) for d in ("one", "two")]
        assert answer.like.mean == pytest.approx(np.mean(ahead)) and answer.p == answer.like.p
        made.results.pack(tmp_path / "packed")
        assert not list(go_on([study("elsewhere")]))
        again = Found(Results(PLAN, tmp_path / "nowhere", tmp_path / "packed"))
        gains = [arms_table(each)["gain"].tolist() for each in (found, again)]
        assert gains[0] == pytest.approx(gains[1], abs=2e-3)


def test_an_arm_that_fails_is_told_and_the_others_are_run(study, tmp_path, monkeypatch):
    whole = study_runs.run_one

    def too_large(lab, method, *arguments, **options):
        if method.name == "lora":
            raise SerialLoRAError("The loss became nan at step 1; use a smaller learning rate.")
        return whole(lab, method, *arguments, **options)

    monkeypatch.setattr(study_runs, "run_one", too_large)
    (told,) = go_on([study()])
    assert told.startswith("sam lora-2: The loss became nan")
    records = read_records(tmp_path / "a" / "sam.jsonl")
    tried = {r.settings["lr"]: r.measures for r in records if r.method == "lora"}
    assert len(tried) == MOST_RATES == len([r for r in records if r.method == "lora"])
    assert {m["dice"] for m in tried.values()} == {0.0} and min(tried) < 1e-5
    assert sum(r.method == "serial_lora" and r.seed < 3 for r in records) == 2 * 2
