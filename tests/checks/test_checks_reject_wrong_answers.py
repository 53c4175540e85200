"""Every check accepts a right answer and names the mistake in wrong ones.

The right answers are written otherwise than the lessons' solutions, which the notebook runs cover.
They stand in ``answers_*.py`` beside this file, with the wrong ones: a mistake and what it is told,
to the answer that makes it.
"""

import importlib
import pkgutil
from collections import Counter

import pytest
import torch

import tests.checks
from serial_lora_course import checks
from serial_lora_course.checks import CheckFailed, check, checking

torch.set_num_threads(1)

ANSWERS = [
    importlib.import_module(f"tests.checks.{module.name}")
    for module in pkgutil.iter_modules(tests.checks.__path__)
    if module.name.startswith("answers_")
]
RIGHT = {number: answer for each in ANSWERS for number, answer in each.RIGHT.items()}
WRONG = {number: answers for each in ANSWERS for number, answers in each.WRONG.items()}


def padded(number: str) -> str:
    """Such as 02.1, so that ``-k 02`` finds the exercises of a lesson."""
    return number.zfill(4)


each_exercise = pytest.mark.parametrize("number", RIGHT, ids=padded)


@each_exercise
def test_a_right_answer_passes(number, capsys):
    check(number, RIGHT[number])
    assert f"Exercise {number} is right. Verified: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "mistake", "cause"),
    [
        pytest.param(number, *mistake, id=f"{padded(number)} {mistake[0]}")
        for number in WRONG
        for mistake in WRONG[number]
    ],
)
def test_a_wrong_answer_is_rejected_by_name(number, mistake, cause):
    with pytest.raises(CheckFailed, match=cause) as caught:
        check(number, WRONG[number][mistake, cause])
    assert f"Exercise {number} is not right yet" in str(caught.value)
    for part in ("compared:", "expected:", "got:", "likely cause:"):
        assert part in str(caught.value)


@each_exercise
def test_nothing_is_no_answer(number):
    with pytest.raises(CheckFailed, match="return|inherit from nn.Module|keep the class"):
        check(number, lambda *arguments, **keywords: None)


@each_exercise
def test_an_open_exercise_stops_nothing(number, capsys):
    def stub(*arguments, **keywords):
        raise NotImplementedError

    check(number, stub)
    assert "waiting for you" in capsys.readouterr().out


def registered() -> set[str]:
    for module in pkgutil.iter_modules(checks.__path__):
        importlib.import_module(f"serial_lora_course.checks.{module.name}")
    return {number for number in checking._REGISTRY if not number.startswith("99.")}


def test_every_check_has_its_answers():
    assert registered() == set(RIGHT) == set(WRONG)
    assert all(len(mistakes) >= 6 for mistakes in WRONG.values())
    assert min(Counter(number.partition(".")[0] for number in RIGHT).values()) >= 3
