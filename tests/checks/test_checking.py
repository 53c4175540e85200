"""The engine of the checks: what a learner reads, and what every exercise asks for."""

import nbformat
import pytest
import torch
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks import CheckFailed, check, checking, yours
from serial_lora_course.checks.cases import Case, Part, run_cases
from serial_lora_course.checks.checking import exercise, run_check
from serial_lora_course.checks.failing import describe


@pytest.fixture(autouse=True)
def scratch_registry(monkeypatch):
    monkeypatch.setattr(checking, "_REGISTRY", dict(checking._REGISTRY))
    monkeypatch.setattr(checking, "_RIGHT", {})

    @exercise("99.1", "triple at two numbers")
    def triple():
        for number in (2, 5):
            causes = {"that is twice the number": 2 * number, "two more": number + 2}
            yield Case(f"triple({number})", (number,), 3 * number, causes)

    @exercise("99.2", "one transpose")
    def transpose():
        x = torch.randn(2, 3)
        yield Case("the transpose", (x,), x.T, {"x came back unchanged": x})


# ----------------------------------------------------------------------------- what is read


def test_right_says_what_was_verified(capsys):
    check("99.1", lambda number: number * 3)
    said = capsys.readouterr().out
    assert said == "Exercise 99.1 is right. Verified: triple at two numbers.\n"


def test_open_is_friendly_and_goes_on(capsys):
    def attempt(number):
        raise NotImplementedError("Exercise 99.1: your code goes here")

    check("99.1", attempt)
    assert run_check("99.1", attempt) is None
    assert "waiting for you" in capsys.readouterr().out


def test_wrong_tells_expected_got_and_cause():
    with pytest.raises(CheckFailed) as caught:
        check("99.1", lambda number: number * 2)
    assert isinstance(caught.value, AssertionError)
    lines = [
        "Exercise 99.1 is not right yet.",
        "  compared:     triple(2)",
        "  expected:     6",
        "  got:          4",
        "  likely cause: that is twice the number",
    ]
    assert str(caught.value).splitlines() == caught.value._render_traceback_() == lines


@pytest.mark.parametrize(
    ("number", "attempt", "told"),
    [
        ("99.1", lambda number: 0, "none of the usual slips"),
        ("99.1", lambda number: 4, "none of the usual slips"),  # twice 2, and not twice 5
        ("99.1", lambda number: None, "is `return` missing"),
        ("99.1", lambda: 3, "keep the arguments"),
        ("99.1", lambda number: torch.ones(2), "one number is wanted"),
        ("99.1", lambda number: 3.0 * number, "right in value, but a float"),
        ("99.1", lambda number: torch.tensor(3 * number), "right in value, but a Tensor"),
        ("99.1", lambda number: "six", "not a str"),
        ("99.2", lambda x: x, "x came back unchanged"),
        ("99.2", lambda x: x.T + 1, "entry 0 of tensor 3x2"),
        ("99.2", lambda x: x.T.tolist(), "a tensor is wanted, not a list"),
        ("99.2", lambda x: x.T * torch.nan, "not a number"),
        ("99.2", lambda x: x.T[:1], "the shapes differ"),
        ("99.2", lambda x: x.mul_(2).T / 2, "changed in place"),
    ],
)
def test_what_a_wrong_answer_is_told(number, attempt, told):
    with pytest.raises(CheckFailed, match=told):
        check(number, attempt)


def test_code_that_raises_shows_the_learners_own_line():
    def attempt(number):
        return nn.Linear(3, 2)(torch.ones(2, 4))

    with pytest.raises(CheckFailed, match="two matrices do not fit") as caught:
        check("99.1", attempt)
    assert isinstance(caught.value.__cause__, RuntimeError)
    shown = caught.value._render_traceback_()
    assert "return nn.Linear(3, 2)(torch.ones(2, 4))" in shown[0]
    assert shown[1] == "Exercise 99.1 is not right yet."


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"q": torch.ones(6, 6), "k": None}, "{'q': tensor 6x6, 'k': None}"),
        ((torch.ones(2), "a", 1.5), "(tensor 2: [1.0, 1.0], 'a', 1.5)"),
        ([{"a": [torch.ones(3, 3)]}], "[{'a': [tensor 3x3]}]"),
        ((3,), "(3,)"),
        (2 / 3, "0.666667"),
    ],
)
def test_values_are_told_in_short_wherever_they_are(value, said):
    assert describe(value) == said


# ------------------------------------------------------------------- where a wrong answer stops


@pytest.fixture
def in_a_notebook(monkeypatch):
    monkeypatch.setattr(checking, "get_ipython", lambda: object())
    for name in checking.STRICT:
        monkeypatch.delenv(name, raising=False)


def test_in_a_notebook_a_wrong_answer_is_red_and_the_notebook_goes_on(in_a_notebook, capsys):
    check("99.1", lambda number: number * 2)
    said = capsys.readouterr().out
    assert said.startswith("\x1b[31mExercise 99.1 is not right yet.\n") and said.endswith(
        "\x1b[0m\n"
    )
    assert "that is twice the number" in said


@pytest.mark.parametrize("name", checking.STRICT)
def test_tests_and_graders_are_told_by_an_error(in_a_notebook, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(CheckFailed):
        check("99.1", lambda number: number * 2)


# ------------------------------------------------------------------------ what is asked of all


def failure_of(attempt, *cases: Case) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        run_cases(lambda: cases, "", attempt)
    return caught.value


def test_other_cases_decide_between_causes():
    cases = [
        Case("2", (2,), 6, {"twice": 4, "squared": 4, "plus 2": 4}),
        Case("3", (3,), 9, {"twice": 6, "squared": 9, "plus 2": 5}),
    ]
    assert failure_of(lambda n: 2 * n, *cases).cause == "twice"
    assert failure_of(lambda n: n * n, *cases).cause == "squared"
    both = failure_of(lambda n: 4, cases[0]).cause
    assert both == "possibly: twice; or: squared; or: plus 2"


def test_a_cause_may_need_what_some_inputs_have():
    wide = torch.ones(2, 3)
    case = Case("the sum", (wide,), 6.0, {"of the square": lambda: (wide @ wide).sum(), "none": 0})
    assert failure_of(lambda x: 0.0, case).cause == "none"


def test_each_of_several_things_has_its_own_causes():
    parts = [Part("the sum", 5, {"that is the product": 6}), Part("the product", 6)]
    case = Case("both", (2, 3), parts)
    assert failure_of(lambda a, b: (a * b, a * b), case).cause == "that is the product"
    assert failure_of(lambda a, b: (a + b, 7), case).what == "the product"
    assert failure_of(lambda a, b: a + b, case).cause == "return 2 things"


@pytest.mark.parametrize(
    ("attempt", "cause"),
    [
        (lambda layer, x: layer(x).detach(), "no gradient reaches x and the weight"),
        (lambda layer, x: layer(x.detach()), "x gets no gradient"),
        (lambda layer, x: x @ layer.weight.detach().T, "the weight gets no gradient"),
    ],
)
def test_gradients_are_asked_for(attempt, cause):
    layer, x = nn.Linear(2, 2, bias=False), torch.randn(3, 2, requires_grad=True)

    def leaves(layer, x):
        return {"x": x, "the weight": layer.weight}

    case = Case("a layer", (layer, x), layer(x), leaves=leaves)
    assert run_cases(lambda: [case], "fine", lambda layer, x: x @ layer.weight.T) == "fine"
    assert cause in failure_of(attempt, case).cause


def test_a_graph_that_is_gone_is_told_and_no_crash():
    def attempt(x):
        result = x * x
        result.sum().backward()
        return result

    x = torch.randn(3, requires_grad=True)
    case = Case("a square", (x,), x * x, leaves=lambda x: {"x": x})
    assert failure_of(attempt, case).what == "the gradients of x"


def test_hooks_that_stay_are_a_change():
    def attempt(layer):
        layer.register_forward_hook(lambda *_: None)
        return 1

    assert "by a hook" in failure_of(attempt, Case("one", (nn.Linear(1, 1),), 1)).cause


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


# --------------------------------------------------------------------- the learner's own is used


def tripled(number):
    return 3 * number


def test_what_passed_is_used_until_it_no_longer_does(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert yours("99.1", tripled) is tripled
    assert "package's own" in capsys.readouterr().out
    right = lambda number: number + number + number  # noqa: E731
    check("99.1", right)
    assert yours("99.1", tripled) is right
    with pytest.raises(CheckFailed):
        check("99.1", lambda number: number)
    assert yours("99.1", tripled) is tripled


@pytest.mark.parametrize(
    ("body", "used"),
    [
        ("return 3 * x", True),
        ("return 2 * x", False),
        ("raise NotImplementedError()", False),
        ("return undefined * x", False),
        ("not python at all", False),
    ],
)
def test_an_answer_of_another_lesson_is_read_from_its_notebook(monkeypatch, tmp_path, body, used):
    monkeypatch.chdir(tmp_path)
    code = f'def mine(x):\n    {body}\n\n\ncheck("99.1", mine)'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, "99_a_copy.ipynb")
    assert (yours("99.1", tripled) is not tripled) == used
