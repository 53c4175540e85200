"""What is told of the study, whatever of it is there."""

import json

import pandas as pd
import pytest

from serial_lora_course.claims import study as words
from serial_lora_course.study.found import COLUMNS, Answer, Found, read_found
from serial_lora_course.study.plan import PLANS
from serial_lora_course.study.statistics import Interval
from tests.figures.test_study import ARMS

UP, AROUND, DOWN = (Interval(mean, 0.1, 11, 12) for mean in (1.0, 0.0, -1.0))
ARMS = ARMS.assign(rate=0.003, **{"change of what it knew": [-2.0, -1.0, -4.0, -3.0, None]})
ASKED = (
    ("sam", "sharing, serial: one above three", UP),
    ("clip", "sharing, serial: one above three", DOWN),
    ("sam", "place: before above after", AROUND),
    ("sd3", "the predecessor: above it", None),
)


KEEPS = "Serial LoRA keeps LoRA's gain at LoRA's rank"


@pytest.fixture
def found(tmp_path):
    """Through the file and back."""
    answers = [
        Answer(lab, asks, "points", 36 if at else 5, 36, at, at, at.p if at else 1.0)
        for lab, asks, at in ASKED
    ]
    little = ARMS.assign(arm=ARMS["arm"] + "-of-20", gain=99.0)
    arms = {"sam": ARMS[[*COLUMNS]], "clip": little[[*COLUMNS]], "sd3": ARMS[[*COLUMNS]][:0]}
    runs = {"sam": (36, 1128), "clip": (36, 1128), "sd3": (5, 108)}
    file = tmp_path / "found.json"
    file.write_text(json.dumps(Found(runs, arms, answers).as_json(), allow_nan=False))
    return read_found(file)


def test_what_each_part_contributes_is_counted_from_verdicts(found):
    said = words.read_parts(found)
    assert "helps in SAM; hurts in CLIP" in said and "open in SAM" in said
    assert "5 of 36 runs" in words.read_predecessor(found)
    read = words.read_questions(found.answers)
    assert "Of 4 questions 3 have all their runs: holds 1, fails 1, open 1" in read
    assert words.read_questions(found.answers[3:]).startswith("None of the 1 questions")


def test_arms_with_less_data_are_on_no_front(found):
    said = words.read_front(found)
    assert "2 of 5 arms" in said and "99" not in said
    assert "Serial LoRA, rank 4 (+3.0) to OFT, blocks of 64 (+5.5)" in said
    assert said.count("no arm has been measured yet") == 2
    forgotten = words.read_forgetting(found)
    assert "between -4.0 (LoRA, rank 16) and -1.0 (Serial LoRA, rank 4)" in forgotten


def test_serial_lora_s_place_is_on_the_front_or_behind_it(found):
    assert "Serial LoRA is on it at rank 4." in words.read_front(found)
    assert "gains +3.0 (against LoRA, rank 16: -2.0 ± 0.4)." in words.read_front(found)
    found.arms["sam"].loc[1, "gain"] = 1.5
    said = words.read_front(found)
    assert "gains +1.5 (against LoRA, rank 16: -2.0 ± 0.4), 0.5 less than LoRA, rank 1" in said


def test_all_arms_are_told_in_a_few_sentences(found):
    """However many arms there are, and however many of them on the front."""
    many = {
        lab: pd.DataFrame(
            {
                **dict.fromkeys(COLUMNS, 1.0),
                "arm": arm.name,
                "title": arm.title("shots"),
                "method": arm.method,
                "parameters": 1000 * place,
                "gain": place / 10,
            }
            for place, arm in enumerate(plan.arms)
        )
        for lab, plan in PLANS.items()
    }
    full = Found(found.runs, many, found.answers)
    for said in (words.read_front(full), words.read_forgetting(full)):
        assert max(len(line.split()) for line in said.splitlines()) < 90
        assert not any(arm.name in said for plan in PLANS.values() for arm in plan.arms)


def test_what_was_reached_stands_beside_aim_and_plan(found):
    asked = [Answer("sam", KEEPS, "points", 36, 36, UP, UP), Answer("sd3", KEEPS, "points", 5, 36)]
    arms = found.arms["sam"].replace("serial_lora-4", "serial_lora-16")
    reached = Found(found.runs, {**found.arms, "sam": arms}, asked)
    said = words.read_aims(reached, {"sam": AROUND, "sd3": DOWN})
    assert "the aim was ±0.25 hundredths of Dice, planned was ±0.22, reached is ±0.40: not" in said
    assert f"itself has ±{UP.half_width:.2f}" in said and "5 of 36 runs are there" in said


def test_groups_of_sets_are_told_beside_their_sets():
    wide = Interval(1.0, 0.2, 5, 6)  # Student's t is 2.571 with 5 degrees of freedom, 2.201 with 11
    across = Interval(1.0, 0.5, 5, 6)
    decided = [
        Answer("clip", asks, "points", 36, 36, UP, UP, UP.p, groups)
        for asks, groups in (("a", wide), ("b", across))
    ]
    said = words.read_groups([*decided, Answer("sd3", "c", "points", 5, 36)])
    assert "CLIP, 6 groups of 12 sets, half-widths 2.34 to 5.84 times as large" in said
    assert "Of the 2 questions decided in these labs, 1 have" in said
    assert words.read_groups([Answer("sd3", "c", "points", 36, 36, UP, UP, UP.p, UP)]).startswith(
        "No"
    )


def test_runs_done_again_stand_beside_the_smallest_decided_difference(found):
    apart = {"one": 0.06, "two": -0.05, "three": 0.02}
    told = {
        "machine": {"processor": "Z80"},
        "lab": "sam",
        "arm": "serial_lora-4",
        "differences": apart,
    }
    said = words.read_repeated(told, found)
    assert "3 of them (SAM, Serial LoRA, rank 4" in said and "on Z80: +0.01 ± 0.14" in said
    assert "by up to 0.06" in said and "decided is 1.00" in said
    nothing = Found(found.runs, found.arms, found.answers[1:])
    assert "decided" not in words.read_repeated(told, nothing)


def test_where_step_times_come_from():
    told = {"machine": {"processor": "Z80"}, "rounds": 5, "reference": "lora-16", "seconds": 0.25}
    said = words.read_step_machines({"sam": told})
    assert "SAM, 5 rounds on Z80" in said and "LoRA, rank 16 being 250 ms" in said
    assert "not measured" in words.read_step_machines({})


def test_arms_that_are_not_finished_are_told(found):
    whole = {lab: pd.DataFrame(index=range(len(plan.arms))) for lab, plan in PLANS.items()}
    assert "5 of 38 in SAM, 5 of 39 in CLIP, 0 of 6 in SD3" in words.read_left(found)
    assert words.read_left(Found(found.runs, whole, found.answers)) == ""


def test_tables_have_a_row_for_everything(found):
    table = words.questions_frame(found.answers)
    assert table["Verdict"].tolist() == ["holds", "fails", "open", "5 of 36 runs"]
    assert table["Sets"].tolist()[:2] == ["12", "12"]  # never 12.0
    assert words.state_frame(found)["Questions answered"].tolist() == ["2 of 2", "1 of 1", "0 of 1"]


def test_more_sets_help_more_than_more_seeds():
    spread = words.Spread(between=1.0, within=1.0, pictures=50)
    table = words.plan_frame(spread, (6, 24), (1, 10))
    assert table.loc[24, "seeds: 1"] < table.loc[6, "seeds: 10"]
    assert "4 times as many sets" in words.read_plan(table)
