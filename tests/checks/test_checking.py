"""The words a learner reads: open, right, wrong with a cause, broken code."""

import pytest
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks import CheckFailed, check, checking
from serial_lora_course.checks.checking import call, exercise, require_close, require_equal


@pytest.fixture(autouse=True)
def scratch_registry(monkeypatch):
    monkeypatch.setattr(checking, "_REGISTRY", dict(checking._REGISTRY))

    @exercise("99.1")
    def triple_is_right(attempt):
        for number in (2, 5):
            require_equal(
                f"triple({number})",
                call(attempt, number),
                3 * number,
                {"that is twice the number": 2 * number},
            )
        return "triple at two numbers"

    @exercise("99.2")
    def transpose_is_right(attempt):
        x = torch.randn(2, 3)
        require_close("the transpose", call(attempt, x), x.T, {"x came back unchanged": x})
        return "one transpose"


def test_right_says_what_was_verified(capsys):
    check("99.1", lambda number: number * 3)
    said = capsys.readouterr().out
    assert said == "Exercise 99.1 is right. Verified: triple at two numbers.\n"


def test_open_is_friendly_and_goes_on(capsys):
    def attempt(number):
        raise NotImplementedError("Exercise 99.1: your code goes here")

    assert check("99.1", attempt) is None
    assert checking.run_check("99.1", attempt) is None
    assert "waiting for you" in capsys.readouterr().out


def test_wrong_tells_expected_got_and_cause():
    with pytest.raises(CheckFailed) as caught:
        check("99.1", lambda number: number * 2)
    assert isinstance(caught.value, AssertionError)
    assert str(caught.value).splitlines() == [
        "Exercise 99.1 is not right yet.",
        "  compared:     triple(2)",
        "  expected:     6",
        "  got:          4",
        "  likely cause: that is twice the number",
    ]


def test_unknown_mistake_gets_the_general_advice():
    with pytest.raises(CheckFailed, match="none of the usual slips"):
        check("99.1", lambda number: 0)


def test_forgotten_return():
    with pytest.raises(CheckFailed, match="is `return` missing"):
        check("99.1", lambda number: None)


def test_code_that_raises_keeps_its_traceback():
    def attempt(number):
        return torch.ones(2, 3) @ torch.ones(2, 3)

    with pytest.raises(CheckFailed, match="two matrices do not fit") as caught:
        check("99.1", attempt)
    assert isinstance(caught.value.__cause__, RuntimeError)
    shown = "\n".join(caught.value._render_traceback_())
    assert "return torch.ones(2, 3) @ torch.ones(2, 3)" in shown
    assert "Exercise 99.1 is not right yet." in shown


def test_changed_signature():
    with pytest.raises(CheckFailed, match="keep the arguments"):
        check("99.1", lambda: 3)


def test_tensor_shape_and_value_are_told():
    with pytest.raises(CheckFailed, match="x came back unchanged"):
        check("99.2", lambda x: x)
    with pytest.raises(CheckFailed, match="entry 0 of tensor 3x2"):
        check("99.2", lambda x: x.T + 1)
    with pytest.raises(CheckFailed, match="a tensor is wanted, not a list"):
        check("99.2", lambda x: x.T.tolist())


def test_nan_is_never_right():
    with pytest.raises(CheckFailed, match="got: +nan"):
        check("99.2", lambda x: x.T * torch.nan)


def test_checks_leave_the_random_numbers_alone():
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    check("99.2", lambda x: x.T)
    assert torch.equal(first, torch.rand(1))


def test_unknown_exercise_names_the_known_ones():
    with pytest.raises(SerialLoRAError, match="lesson 99 has 99.1, 99.2"):
        check("99.7", print)
    with pytest.raises(SerialLoRAError, match="no exercise 'seven'"):
        check("seven", print)


def test_one_check_an_exercise():
    other = type(checking.find_check("99.1"))(
        (lambda attempt: "x").__code__, {"__name__": "elsewhere"}
    )
    with pytest.raises(SerialLoRAError, match="two checks"):
        exercise("99.1")(other)


def test_ipython_shows_the_message_alone():
    with pytest.raises(CheckFailed) as caught:
        check("99.1", lambda number: number * 2)
    lines = caught.value._render_traceback_()
    assert lines[0].startswith("Exercise 99.1") and len(lines) == 5


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"q": torch.ones(6, 6), "k": None}, "{'q': tensor 6x6, 'k': None}"),
        ((torch.ones(2), "a", 1.5), "(tensor 2: [1.0, 1.0], 'a', 1.5)"),
        ([{"a": [torch.ones(3, 3)]}], "[{'a': [tensor 3x3]}]"),
        ((3,), "(3,)"),
    ],
)
def test_tensors_are_told_in_short_wherever_they_are(value, said):
    assert checking.describe(value) == said
