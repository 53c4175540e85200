"""The study: its sets, its plan, and runs that are made once."""

import hashlib
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import UNSEEN_STYLES, load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.style_sets import TINY_STYLES
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import read_records
from serial_lora_course.models.weights import tiny_file
from serial_lora_course.study import found as found_module
from serial_lora_course.study import references
from serial_lora_course.study import runs as study_runs
from serial_lora_course.study import steps as study_steps
from serial_lora_course.study.found import Answer, read_found
from serial_lora_course.study.labs import STUDIES, SamStudy, Sd3Study
from serial_lora_course.study.left import forecast_study
from serial_lora_course.study.plan import (
    PLANS,
    STEP,
    TRIED,
    Arm,
    Question,
    first_rates,
    next_rate,
    questions_of,
)
from serial_lora_course.study.power import plan_page
from serial_lora_course.study.repeated import repeat
from serial_lora_course.study.runs import Study, go_on, least_runs, pack, unpack
from serial_lora_course.study.sets import (
    CLIP_SETS,
    SAM_SETS,
    VALIDATION,
    group_of,
    load_classes,
    load_scenes,
    load_study_style,
)
from serial_lora_course.study.statistics import Interval
from serial_lora_course.study.tables import (
    Results,
    answers,
    arms_table,
    choices_table,
    found_in_what_is_packed,
)
from tests.labs.small_labs import small_lab


@pytest.mark.parametrize("name", CLIP_SETS)
def test_a_classification_set_has_three_parts_and_no_drawing_in_two(name):
    data, choosing = load_classes(name), load_classes(name + VALIDATION)
    parts = [data.train.picture_ids, choosing.test.picture_ids, data.test.picture_ids]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert choosing.train.picture_ids == parts[0] and choosing.name != data.name
    assert {*data.train.labels} == {*data.test.labels} == set(range(len(data.class_names)))
    assert min(data.train.labels.count(label) for label in set(data.train.labels)) >= 4
    assert len(parts[2]) > len(parts[0]) + len(parts[1])


def test_no_card_of_a_tiny_model_names_the_study_s_designers():
    for model in ("tiny-clip", "tiny-sam", "tiny-sd3"):
        card = json.dumps(json.loads(tiny_file(f"{model}.card.json").read_text())).lower()
        assert "openmoji" in card or "twemoji" in card
        assert not any(style in card for style in UNSEEN_STYLES)


def test_sets_of_other_groups_show_other_concepts_and_those_of_a_group_share_some():
    shown = {name: set(load_classes(name).test.picture_ids) for name in CLIP_SETS}
    for one, other in combinations(shown, 2):
        alike = group_of(one) == group_of(other)
        assert bool(shown[one] & shown[other]) == alike
    assert len({group_of(name) for name in SAM_SETS}) == len(SAM_SETS) - 3
    assert len({group_of(name) for name in TINY_STYLES}) == len(TINY_STYLES)


@pytest.mark.parametrize("name", ["food", "engraved"])
def test_a_segmentation_set_shows_other_drawings_in_each_part(name):
    data, choosing = load_scenes(name), load_scenes(name + VALIDATION)
    parts = [data.train, choosing.test, data.test]
    shown = [{concept.codepoints for concept in part.concepts} for part in parts]
    assert sum(map(len, shown)) == len(set().union(*shown))
    assert shown[2] <= hidden_codepoints() and not (shown[0] | shown[1]) & hidden_codepoints()
    assert [len(part) for part in parts] == [120, 40, 100]


def test_a_style_s_validation_pictures_train_nothing_and_are_not_tests():
    data, choosing = load_study_style("pixel"), load_study_style("pixel" + VALIDATION)
    parts = [data.train.picture_ids, choosing.test.picture_ids, data.test.picture_ids]
    assert [len(part) for part in parts] == [260, 40, 100]
    assert len(set().union(*parts)) == 400 and choosing.train.picture_ids == parts[0]


def test_a_style_is_measured_by_the_chance_of_each_drawing(monkeypatch, tmp_path):
    small = small_lab("sd3", monkeypatch, tmp_path / "models")
    plain = small.lab()
    judge = plain.judge
    judge.styles = ("light", "one")
    monkeypatch.setattr(
        type(judge),
        "style_probabilities",
        lambda self, pictures: torch.stack(
            [1 - (dark := self.picture_features(pictures).mean(1) / 255), dark], dim=1
        ),
        raising=False,
    )
    data = replace(plain.data, name="one" + VALIDATION)
    lab = Sd3Study(plain.backbone, data, plain.config, judge=judge)
    reached, seen = lab.measure()
    assert seen["style_share"].tolist() == (seen["style_probability"] > 0.5).tolist()
    assert reached["style_probability"] == pytest.approx(seen["style_probability"].mean(), abs=1e-3)
    assert set(lab.measure_base()) == {f"base_{name}" for name in reached}


def test_an_unknown_set_or_lab_is_refused():
    for load in (load_classes, load_scenes, load_study_style):
        with pytest.raises(SerialLoRAError, match="no set"):
            load("fruit/validation")
    with pytest.raises(SerialLoRAError, match="no lab"):
        study_runs.studies(["sam", "dino"])


SHIPPED = {
    "symbola": "eccca3cefcdb2b0b15667bcd6d2266777116fab140c6cb3c128530a1a4d9c369",
    "unifont": "63c6060022c74b99a76e6a21b98b3d18dd9ba2f751648cfb24b0b0103bfd8f54",
}


def test_unseen_designers_draw_what_they_are_asked_for():
    for style in UNSEEN_STYLES:
        emoji = load_emoji(style)
        assert hashlib.sha256(emoji.pictures.tobytes()).hexdigest() == SHIPPED[style]
        assert len(emoji) > 1100 and emoji.pictures[..., :3].max() == 0  # one ink
        assert "shovel" not in emoji.names  # Unicode 16: a box with a number


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_names_what_there_is_and_treats_methods_alike(name):
    plan, kind = PLANS[name], STUDIES[name]
    assert len({arm.name for arm in plan.arms}) == len(plan.arms)
    assert {get_method(arm.method).name for arm in plan.arms} >= {
        "lora",
        "serial_lora",
        "repadapter",
    }
    assert set(plan.chosen_on) <= set(kind.datasets("tiny"))
    assert len(kind.datasets("tiny")) >= (4 if name == "sd3" else 10)
    assert {len(first_rates(arm)) for arm in plan.arms} == {TRIED}
    config = kind.configs["tiny"]
    assert {config.steps(pictures) for pictures in (8, 24, 40, 120)} == {config.min_steps}


def test_the_written_plan_prints_what_the_command_does():
    written = Path("docs/study.md").read_text("utf-8")
    assert plan_page() in written
    for plan in PLANS.values():
        assert {q.asks for q in questions_of(plan)} <= {
            line.strip("- .") for line in written.split("\n")
        }


@pytest.mark.parametrize("name", PLANS)
def test_every_arm_has_a_title_of_its_own_in_words(name):
    plan, unit = PLANS[name], STUDIES[name].unit
    titles = {arm.title(unit) for arm in plan.arms}
    assert len(titles) == len(plan.arms) and not any("_" in title for title in titles)
    assert plan.reference in {arm.name for arm in plan.arms}
    assert Arm("oft", 4).title(unit) == "OFT, blocks of 4"
    assert Arm("ln_bias", 1).title(unit) == "LayerNorm and biases"
    assert Arm("lora", 16, amount=1).title("shots") == "LoRA, rank 16, 1 shot"


def test_rates_are_looked_for_until_the_best_is_not_at_an_edge():
    def tried(best):
        scores = {}
        waiting = first_rates(Arm("lora", 4, 1.0))
        while waiting:
            scores |= {rate: -abs(np.log(rate / best)) for rate in waiting}
            further = next_rate(scores)
            waiting = [] if further is None else [further]
        return scores

    assert len(tried(1.0)) == TRIED
    for best in (STEP**4, STEP**-3):
        scores = tried(best)
        found = max(scores, key=scores.get)
        assert found == pytest.approx(best) and min(scores) < found < max(scores)
    assert len(tried(STEP**50)) == 9  # it ends all the same


def test_where_every_rate_breaks_the_model_smaller_ones_are_tried():
    broken = {0.01: 0.12, 0.03: 0.13, 0.09: 0.12}
    assert next_rate(broken) is None
    assert next_rate(broken, unadapted=0.24) == pytest.approx(0.01 / STEP)
    assert next_rate(broken, unadapted=0.125) is None
    assert next_rate(broken | {0.001: 0.3}, unadapted=0.24) == pytest.approx(0.001 / STEP)
    assert next_rate({10.0**-n: 0.1 for n in range(9)}, unadapted=0.24) is None


@pytest.fixture
def small_study(monkeypatch, tmp_path):
    """The SAM study on two small sets, of two arms."""
    small = small_lab("sam", monkeypatch, tmp_path / "models")
    config = replace(small.lab().config, min_steps=2, precision="no")
    sets = {"one": small.sets["one"], "two": small.sets["two"]}
    sets |= {
        name + VALIDATION: replace(data, name=name + VALIDATION) for name, data in sets.items()
    }
    monkeypatch.setattr(SamStudy, "configs", {"tiny": config})
    monkeypatch.setattr(SamStudy, "datasets", staticmethod(lambda scale: ("one", "two")))
    monkeypatch.setattr(SamStudy, "load_data", staticmethod(lambda name, *_: sets[name]))
    weights = small.options["weights"]
    monkeypatch.setattr(
        SamStudy,
        "load_backbone",
        staticmethod(lambda *_: small.kind.load_backbone(config, "tiny", weights)),
    )
    monkeypatch.setattr("serial_lora_course.study.labs.kept_scenes", lambda: sets["two"])
    monkeypatch.setattr(study_runs, "PACKED", tmp_path / "packed")
    arms = (Arm("lora_tied", 2, seeds=1), Arm("serial_lora", 4, seeds=2))
    return replace(PLANS["sam"], arms=arms, chosen_on=("one",), amount=50), tmp_path


def test_a_study_is_run_once_told_packed_and_gone_on_with_elsewhere(small_study, monkeypatch):
    plan, folder = small_study
    told = []
    assert not go_on([Study(plan, folder / "a", until=0.0, told=told.append)]) and not told
    study = Study(plan, folder / "a", told=told.append)
    left = forecast_study(study)
    assert len(left) == least_runs(plan) and not any(run.done for run in left)
    assert go_on([study]) == [study]
    assert all(run.done for run in forecast_study(study))
    assert len(told) >= least_runs(plan) == 2 * TRIED * 1 + (1 + 2) * 2
    assert go_on([Study(plan, folder / "a", told=pytest.fail)])

    records = [r for r in read_records(folder / "a" / "sam.jsonl") if VALIDATION not in r.dataset]
    assert (
        len(records) == 6
        and len({r.settings["lr"] for r in records if r.method == "lora_tied"}) == 1
    )
    for record in records:
        name = study_runs.run_of(record, plan).name
        outcomes = study.outcomes(name)
        assert outcomes["dice"].mean() == pytest.approx(record.measures["dice"], abs=1e-6)
        assert outcomes["kept_dice"].mean() == pytest.approx(record.measures["kept_dice"], abs=1e-6)
        kept = load_file(folder / "a" / "sam" / f"{name}.safetensors")
        assert sum(tensor.numel() for tensor in kept.values()) == record.sizes["parameters"]
    assert study.outcomes("base_one")["dice"].mean() == pytest.approx(
        records[0].measures["base_dice"]
    )

    results = Results.of(study)
    assert set(results.rates) == {"lora_tied-2", "serial_lora-4"}
    arms = arms_table(results).set_index("arm")
    serial = [r for r in records if r.method == "serial_lora"]
    gained = 100 * np.mean([r.measures["dice"] - r.measures["base_dice"] for r in serial])
    assert arms.loc["serial_lora-4", "gain"] == pytest.approx(gained, abs=1e-4)
    assert arms.loc["serial_lora-4", "title"] == "Serial LoRA, rank 4"
    assert arms.loc["serial_lora-4", "parameters"] == serial[0].sizes["parameters"]
    asked = (
        Question("?", "serial_lora-4", "lora_tied-2"),
        Question("!", "serial_lora-4", "lora-16"),
    )
    monkeypatch.setattr("serial_lora_course.study.plan.QUESTIONS", asked)
    (answer,) = answers([results])
    dice = {(r.method, r.dataset): r.measures["dice"] for r in records if r.seed == 1}
    ahead = [100 * (dice["serial_lora", d] - dice["lora_tied", d]) for d in ("one", "two")]
    assert answer.like.mean == pytest.approx(np.mean(ahead), abs=1e-3)
    assert f"{np.mean(ahead):+.2f}" in str(answer) and answer.p == answer.like.p
    assert answer.done == answer.needed == least_runs(plan)
    assert answer.verdict == ("open" if answer.p > 0.05 else answer.verdict) != ""
    assert choices_table(study)["sets"].eq(1).all()
    assert len(choices_table(study)) >= 2 * TRIED

    pack(plan, folder / "a", folder / "packed")
    unpack(plan, folder / "b", folder / "packed")
    elsewhere = Study(plan, folder / "b", told=pytest.fail)
    assert go_on([elsewhere])
    for record in records:
        name = study_runs.run_of(record, plan).name
        assert elsewhere.outcomes(name)["dice"] == pytest.approx(
            study.outcomes(name)["dice"], abs=1e-5
        )
    again = arms_table(Results.of(elsewhere))
    assert again["gain"].tolist() == pytest.approx(arms["gain"].tolist(), abs=2e-3)
    (folder / "packed" / "sam.npz").write_bytes(b"damaged")
    with pytest.raises(SerialLoRAError, match="damaged"):
        unpack(plan, folder / "c", folder / "packed")


def test_step_times_are_ratios_to_the_reference_s_in_the_same_round(small_study, monkeypatch):
    plan, _ = small_study
    plan = replace(plan, reference="serial_lora-4")
    clock = [0.0]
    taken = {"serial_lora": 2.0, "lora_tied": 3.0}

    def ticking(objective, stream, training, progress, after_step):
        """Every step takes its method's seconds, the first one a hundred more, whichever round it is."""
        kind = (
            "serial_lora"
            if any(n.endswith("serial_lora") for n, _ in objective.named_modules())
            else "lora_tied"
        )
        clock[0] += 100 * (1 + clock[0])
        while not after_step(0):
            clock[0] += taken[kind]

    monkeypatch.setattr(study_steps, "train", ticking)
    monkeypatch.setattr(study_steps.time, "process_time", lambda: clock[0])
    said = []
    told = study_steps.measure_steps(plan, plan.arms, 3, 2, said.append)
    assert told["ratios"] == {"serial_lora-4": 1.0, "lora_tied-2": 1.5}
    assert len(said) == told["rounds"] == 3 and told["seconds"] == 2.0
    assert told["machine"]["processor"]


def test_the_study_s_own_loop_is_timed(small_study):
    plan, _ = small_study
    plan = replace(plan, reference="serial_lora-4")
    told = study_steps.measure_steps(plan, plan.arms, 1, 1, lambda line: None)
    assert told["ratios"]["serial_lora-4"] == 1.0 and 0 < told["ratios"]["lora_tied-2"]


def test_a_run_done_again_is_compared_with_its_record(small_study):
    plan, folder = small_study
    study, [arm, other] = Study(plan, folder / "a", told=lambda line: None), plan.arms
    study.do_arm(arm)
    off = study.done.copy()
    for name, record in off.items():
        measures = {**record.measures, "dice": record.measures["dice"] - 0.02}
        study.done[name] = replace(record, measures=measures)
    said, before = [], (folder / "a" / "sam.jsonl").read_bytes()
    told = repeat(study, arm, said.append)
    assert told["differences"] == pytest.approx({"one": 2.0, "two": 2.0}, abs=1e-3)
    assert len(said) == 2 and told["machine"]["processor"]
    assert (folder / "a" / "sam.jsonl").read_bytes() == before
    with pytest.raises(SerialLoRAError, match="not all there"):
        repeat(study, other, said.append)


def test_what_was_not_timed_has_no_step_time(monkeypatch, tmp_path):
    monkeypatch.setattr(found_module, "PACKED", tmp_path)
    arms = pd.DataFrame({"arm": ["lora-16", "oft-4"]}, columns=found_module.COLUMNS)
    assert found_module.with_step_times("sam", arms)["step time"].isna().all()
    stored = {"sam": {"ratios": {"lora-16": 1.0}}}
    (tmp_path / found_module.STEPS).write_text(json.dumps(stored))
    assert found_module.with_step_times("sam", arms)["step time"].fillna(-1).tolist() == [1.0, -1]


def test_a_lab_that_has_tried_rates_alone_is_packed_too(tmp_path):
    plan = PLANS["sam"]
    unpack(plan, tmp_path)
    lines = (tmp_path / "sam.jsonl").read_text().splitlines(keepends=True)
    tries = [line for line in lines if json.loads(line)["dataset"].endswith(VALIDATION)]
    (tmp_path / "tries").mkdir()
    (tmp_path / "tries" / "sam.jsonl").write_text("".join(tries))
    pack(plan, tmp_path / "tries", tmp_path / "packed")
    unpack(plan, tmp_path / "again", tmp_path / "packed")
    assert len(read_records(tmp_path / "again" / "sam.jsonl")) == len(tries) > 0


def test_the_ledger_reads_what_the_packed_records_say():
    written, found = read_found(), found_in_what_is_packed()
    assert written.runs == found.runs
    assert [str(answer) for answer in written.answers] == [str(answer) for answer in found.answers]
    for lab, arms in found.arms.items():
        pd.testing.assert_frame_equal(written.arms[lab], arms, check_dtype=False)


def test_what_holm_takes_back_is_open_though_its_interval_is_above_zero():
    above = Interval(mean=0.25, error=0.1, freedom=11, count=12)
    sure = Answer("sam", "?", "points", 36, 36, above, above, above.p)
    assert above.low > 0 and sure.verdict == "holds"
    assert replace(sure, p=0.2).verdict == "open" and replace(sure, like=None).verdict == ""


def test_a_rate_that_is_too_large_is_the_worst_try_and_no_end(small_study, monkeypatch):
    plan, folder = small_study

    def too_large(*_, **__):
        raise SerialLoRAError("The loss became nan at step 1; use a smaller learning rate.")

    monkeypatch.setattr(study_runs, "run_one", too_large)
    plan = replace(plan, arms=plan.arms[:1])
    assert go_on([Study(plan, folder, told=lambda line: None)])
    records = read_records(folder / "sam.jsonl")
    assert all(record.measures == {"dice": 0.0, "diverged": 1.0} for record in records)
    assert len(records) >= least_runs(plan)
    monkeypatch.setattr(study_runs, "run_one", pytest.fail)
    assert go_on([Study(plan, folder, told=pytest.fail)])


def test_two_processes_share_a_study(small_study):
    """A run that another is at is left to it; its record, once there, counts as anybody's."""
    plan, folder = small_study
    plan = replace(plan, arms=plan.arms[:1])
    one, other = (Study(plan, folder, told=lambda line: None) for _ in range(2))
    theirs = other.take()
    mine = one.take()
    assert mine.about[0] != theirs.about[0] and len(one) == len(other) - 1 == TRIED - 2
    one.ended(mine, mine.do(one.lab(mine.dataset)))
    one.do_arm(plan.arms[0])
    assert not one.is_whole() and len(one.done) == TRIED - 1
    other.ended(theirs, theirs.do(other.lab(theirs.dataset)))
    assert one.waited() and go_on([one]) and not one.elsewhere
    assert len(read_records(folder / "sam.jsonl")) == len(one.done)


def test_the_linear_probe_learns_from_the_shots_alone(monkeypatch):
    asked = []

    def features(backbone, data):
        asked.append(data.name)
        corners = [np.eye(10)[labels] for labels in (data.train.labels, data.test.labels)]
        return (corners[0], np.array(data.train.labels)), (corners[1], np.array(data.test.labels))

    monkeypatch.setattr(references, "_features", features)
    table = references.probe_table(None, seeds=1)
    assert table["accuracy"].eq(1).all() and table["dataset"].tolist() == list(CLIP_SETS)
    tried = {name for name in asked if name.endswith(VALIDATION)}
    assert tried == {name + VALIDATION for name in PLANS["clip"].chosen_on}
