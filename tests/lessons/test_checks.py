"""Every check accepts right answers, refuses each known mistake, and names it.

Mistakes stand beside the exercises, in ``serial_lora_course/lessons/*/mistakes.yaml``; right answers are
the solved lessons' own, and those below in other words.
"""

from inspect import signature

import pytest
import torch
from torch import nn

from serial_lora_course.checking import CheckFailed, check
from serial_lora_course.checking.exercises import CHECK_CALL
from serial_lora_course.checking.running import EXERCISES, find_check, run_check
from serial_lora_course.checking.solved import solved
from tests.lessons.right_answers import RIGHT
from tools import ROOT

torch.set_num_threads(1)

NUMBERS = [
    number
    for source in sorted(ROOT.glob("solutions/*.py"))
    for number in CHECK_CALL.findall(source.read_text(encoding="utf-8"))
]
TABLES = {number: find_check(number) for number in NUMBERS}


def padded(number: str) -> str:
    """Such as 02.1, so that ``-k 02`` finds the exercises of a lesson."""
    return number.zfill(4)


each_exercise = pytest.mark.parametrize("number", TABLES, ids=padded)


@each_exercise
def test_the_solved_lesson_passes(number, capsys):
    check(number, solved(number))
    assert f"Exercise {number} is right. Verified: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        pytest.param(n, answer, id=f"{padded(n)}-{i}")
        for n in RIGHT
        for i, answer in enumerate(RIGHT[n])
    ],
)
def test_a_right_answer_in_other_words_passes(number, answer):
    assert run_check(number, answer)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        pytest.param(number, cause, id=f"{padded(number)} {cause[:40]}")
        for number, table in TABLES.items()
        for cause in table.mistakes
    ],
)
def test_a_mistake_is_refused_by_its_name(number, cause):
    for mistake in TABLES[number].wrong_answers(cause):
        with pytest.raises(CheckFailed) as caught:
            check(number, mistake)
        failure = caught.value
        assert cause in (failure.causes or [failure.advice])
        assert len(failure.causes) <= 1, failure.causes
        assert str(failure).startswith(f"Exercise {number} is not right yet")


@each_exercise
def test_only_the_courses_own_stub_is_open(number, capsys):
    def stub(*arguments, **keywords):
        raise NotImplementedError(f"Exercise {number}: your code goes here")

    check(number, stub)
    assert "waiting for you" in capsys.readouterr().out

    def slip(*arguments, **keywords):
        return torch.tensor([True, False]).mean()  # PyTorch raises NotImplementedError here

    with pytest.raises(CheckFailed, match="float"):
        check(number, slip)


@each_exercise
def test_what_every_exercise_asks_for(number):
    """Of the solved answer: the kind of numbers kept, gradients flowing, and nothing changed in place."""
    right, table = solved(number), TABLES[number]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cases = list(table.cases())
    if isinstance(right, type) or cases[0].read:
        return
    if isinstance(cases[0].expected, torch.Tensor) and cases[0].expected.dtype == torch.float32:
        with pytest.raises(CheckFailed, match="float64"):
            check(number, lambda *given: right(*given).double())
    if cases[0].leaves:
        with pytest.raises(CheckFailed, match="gradient"):
            check(number, lambda *given: right(*given).detach())
    given = zip(cases[0].arguments, signature(right).parameters, strict=False)
    tensors = [index for index, (value, _) in enumerate(given) if holds_numbers(value)]
    for index in tensors:

        def meddler(*given, index=index):
            result = right(*given)
            meddle(given[index])
            return result

        with pytest.raises(CheckFailed, match="changed"):
            check(number, meddler)


def holds_numbers(value) -> bool:
    return isinstance(value, (list, dict, nn.Module)) or (
        isinstance(value, torch.Tensor) and value.numel() > 0
    )


@torch.no_grad()
def meddle(value) -> None:
    """Change an argument in place."""
    if isinstance(value, torch.Tensor):
        value.copy_(value + 1 if value.is_floating_point() else value.roll(1, -1))
    elif isinstance(value, nn.Module):
        next(value.parameters()).add_(1)
    else:
        value.clear()


def test_every_exercise_of_the_lessons_has_a_check_with_many_mistakes():
    assert set(NUMBERS) == {number for number in EXERCISES if not number.startswith("99.")}
    assert NUMBERS == sorted(NUMBERS, key=lambda n: [int(part) for part in n.split(".")])
    for table in TABLES.values():
        assert len(table.mistakes) >= 6
        assert all(15 < len(cause) < 200 for cause in table.mistakes)
