"""The study: runs are made once, packed and told; its shipped records say what the course ships."""

import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.records import Kept, read_records
from serial_lora_course.lessons.l09_trial import tables as shipped
from study import runs as study_runs
from study.plan import PLANS, Question, questions_of
from study.results import Results, run_of
from study.runs import Study, chosen_rate, go_on
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
    for lab, arms in kept.arms.items():
        pd.testing.assert_frame_equal(fresh.arms[lab], arms)
        assert set(arms["arm"]) == {arm.name for arm in PLANS[lab].arms}
    assert [a.asks for a in kept.answers if a.lab == "sam"] == [
        question.asks for question in questions_of(PLANS["sam"])
    ]


# ------------------------------------------------------------------------------------- the loop


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Makes one on a folder and on packed files of its own."""
    monkeypatch.setitem(study_runs.STUDIES, "sam", HalvesStudy)
    monkeypatch.setattr("study.results.PACKED", tmp_path / "packed")

    def make(folder="a", packed="packed", plan=PLAN, **options):
        return Study(plan, tmp_path / folder, packed=tmp_path / packed, **options)

    return make


def test_runs_are_made_once_told_packed_and_gone_on_with(study, tmp_path, monkeypatch, capsys):
    assert list(go_on([study(until=0.0)])) and not capsys.readouterr().out
    made = study()
    assert not list(go_on([made]))
    records = read_records(tmp_path / "a" / "sam.jsonl")
    assert len(records) == 2 * 3 + (1 + 2) * 2 == len(capsys.readouterr().out.splitlines())
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


def test_a_rate_that_is_too_large_is_the_worst_try_and_no_end(study, tmp_path, monkeypatch):
    whole = study_runs.run_one

    def too_large(lab, *arguments, **options):
        if lab.config.lr > PLAN.arms[0].rate:
            raise SerialLoRAError("The loss became nan at step 1; use a smaller learning rate.")
        return whole(lab, *arguments, **options)

    monkeypatch.setattr(study_runs, "run_one", too_large)
    made = study()
    assert not list(go_on([made]))
    assert all(chosen_rate(made.results, arm) <= arm.rate for arm in PLAN.arms)


def test_a_run_that_another_process_is_at_is_left_to_it(study, once, tmp_path, monkeypatch):
    theirs = read_records(once / "a" / "sam.jsonl")[0]
    other = Kept(tmp_path / "a" / "sam.jsonl")
    begun, ours = threading.Event(), threading.Event()

    def elsewhere():
        with other.claim(theirs.key):
            begun.set()
            ours.wait(60)
            other.add(theirs.key, theirs)

    whole, made = study_runs.run_one, []

    def counted(lab, *arguments, **options):
        made.append((lab.data.name, lab.config.lr))
        if len(made) == 2:  # all that can be done before the rate is chosen
            ours.set()
        return whole(lab, *arguments, **options)

    monkeypatch.setattr(study_runs, "run_one", counted)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    begun.wait(60)
    assert not list(go_on([study()]))
    thread.join()
    assert len(made) == 11 and (theirs.dataset, theirs.settings["lr"]) not in made[:2]
    assert len(read_records(tmp_path / "a" / "sam.jsonl")) == 12


# -------------------------------------------------------------------------------- damaged files


def npz(file, **arrays):
    np.savez_compressed(file, **arrays)


DAMAGES = {
    "torn": lambda file, kept: file.write_bytes(file.read_bytes()[:99]),
    "pickles": lambda file, kept: npz(file, **dict.fromkeys(kept, np.array([{}], object))),
    "a measure is missing": lambda file, kept: npz(file, other=np.zeros(3)),
}
IN_WHAT_IS_PACKED = {
    "missing": lambda file, kept: file.unlink(),
    "a way out": lambda file, kept: npz(
        file, **kept | {"names": np.char.replace(kept["names"], "base_one", "../base_one")}
    ),
}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study_runs.STUDIES, "sam", HalvesStudy)
        made = Study(PLAN, folder / "a", packed=folder / "packed")
        list(go_on([made]))
    made.results.pack(folder / "packed")
    return folder


@pytest.fixture
def finished(once, tmp_path):
    return shutil.copytree(once, tmp_path / "finished")


@pytest.mark.parametrize("damage", DAMAGES | IN_WHAT_IS_PACKED)
def test_damaged_packed_files_are_named_and_nothing_is_lost(finished, damage):
    file = finished / "packed" / "sam.npz"
    records = (finished / "packed" / "sam.jsonl.xz").read_bytes()
    with np.load(file) as arrays:
        kept = dict(arrays)
    (DAMAGES | IN_WHAT_IS_PACKED)[damage](file, kept)
    with pytest.raises(SerialLoRAError, match="sam.npz is damaged"):
        Results(PLAN, finished / "new", finished / "packed")
    assert (finished / "packed" / "sam.jsonl.xz").read_bytes() == records
    assert not (finished / "new").exists()
