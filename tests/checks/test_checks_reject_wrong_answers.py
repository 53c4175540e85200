"""Every check accepts a right answer and names the mistake in wrong ones.

The right answers are written otherwise than the lessons' solutions, which the notebook runs cover.
They stand in ``answers_*.py`` beside this file, with the wrong ones: a mistake and what it is told,
to the answer that makes it.
"""

import importlib
import pkgutil

import pytest
import torch

import tests.checks
from serial_lora_course.checking import CheckFailed, check
from serial_lora_course.checking.mistake import Exercise
from serial_lora_course.checking.running import find_check

torch.set_num_threads(1)

ANSWERS = [
    importlib.import_module(f"tests.checks.{module.name}")
    for module in pkgutil.iter_modules(tests.checks.__path__)
    if module.name.startswith("answers_")
]
RIGHT = {number: answer for each in ANSWERS for number, answer in each.RIGHT.items()}
WRONG = {number: answers for each in ANSWERS for number, answers in each.WRONG.items()}
for number in [
    n for n in RIGHT if isinstance(find_check(n), Exercise)
]:  # their mistakes stand beside them
    del RIGHT[number], WRONG[number]


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
        raise NotImplementedError("Exercise 9: your code goes here")

    check(number, stub)
    assert "waiting for you" in capsys.readouterr().out
