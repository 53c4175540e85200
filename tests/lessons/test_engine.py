"""The engine of the checks: what a learner reads, what every exercise asks for, whose answer is used."""

import os
import warnings

import nbformat
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking import CheckFailed, check, yours
from serial_lora_course.checking import solved as solved_lessons
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.mistake import Exercise
from serial_lora_course.checking.running import EXERCISES, STRICT, TRIED, exercise, find_check


@pytest.fixture(autouse=True)
def two_exercises(monkeypatch):
    """Numbers of a lesson that is none, so that no lesson's own are touched."""
    TRIED.clear()

    @exercise(
        "99.1",
        "triple at two numbers",
        {
            "that is twice the number": lambda number: 2 * number,
            "two more": lambda number: number + 2,
            "nothing comes back from 5 on": lambda number: 3 * number if number < 5 else None,
            "the bits cannot be counted": lambda number: number.bit_counts(),
        },
    )
    def triple():
        for number in (2, 5):
            yield Case(f"triple({number})", (number,), 3 * number)

    @exercise("99.2", "one transpose", {"x came back unchanged": lambda x: x})
    def transpose():
        x = torch.randn(2, 3)
        yield Case("the transpose", (x,), x.T)

    yield
    del EXERCISES["99.1"], EXERCISES["99.2"]
    TRIED.clear()


# ----------------------------------------------------------------------------- what is read


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
        ("99.1", lambda number: 4, "no known mistake"),  # twice 2, and not twice 5
        ("99.1", lambda number: None, "is `return` missing"),
        ("99.1", lambda number: {2: 6}.get(number), "nothing comes back from 5 on"),
        ("99.1", lambda number: number.bit_counts(), "the bits cannot be counted"),
        ("99.1", lambda: 3, "arguments do not match"),
        ("99.1", lambda number: 3.0 * number, "right in value, but a float"),
        ("99.2", lambda x: x.T + 1, "entry 0 of tensor 3x2"),
        ("99.2", lambda x: x.T.double(), "right in value, but of type float64"),
        ("99.2", lambda x: x.T * torch.nan, "the result is nan"),
        ("99.2", lambda x: x.T[:1], "the shapes differ"),
        ("99.2", lambda x: x.mul_(2).T / 2, "changed in place"),
    ],
)
def test_what_a_wrong_answer_is_told(number, attempt, told):
    with pytest.raises(CheckFailed, match=told):
        check(number, attempt)


@pytest.mark.parametrize(
    "slip",
    [
        lambda bools, whole: bools.mean(),
        lambda bools, whole: bools.float() - ~bools - bools.logical_not() - (bools - bools),
        lambda bools, whole: 1 - bools,
        lambda bools, whole: whole.softmax(-1),
        lambda bools, whole: nn.functional.normalize(whole, dim=0),
        lambda bools, whole: torch.linalg.svdvals(whole),
        lambda bools, whole: nn.functional.binary_cross_entropy_with_logits(torch.ones(2), bools),
    ],
)
def test_slips_with_whole_numbers_and_truth_values_are_no_open_exercises(slip):
    """PyTorch raises NotImplementedError for some of them, as a stub does."""
    bools, whole = torch.tensor([True, False]), torch.tensor([[1, 2], [3, 4]])
    with pytest.raises(CheckFailed, match=r"with \.float\(\)"):
        check("99.1", lambda number: slip(bools, whole))


# ------------------------------------------------------------------- where a wrong answer stops


@pytest.mark.parametrize("name", STRICT)
def test_tests_and_graders_are_told_by_an_error(monkeypatch, name):
    monkeypatch.setattr("serial_lora_course.checking.running.get_ipython", lambda: object())
    for each in STRICT:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "1")
    with pytest.raises(CheckFailed):
        check("99.1", lambda number: number * 2)


# ------------------------------------------------------------------------ what is asked of all


def failure_of(attempt, *cases: Case, **mistakes) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        Exercise("99.3", "", lambda: cases, mistakes)(attempt)
    return caught.value


def test_other_cases_decide_between_mistakes():
    cases = [Case("2", (2,), 6), Case("3", (3,), 9)]
    mistakes = {"twice": lambda n: 2 * n, "squared": lambda n: n * n, "plus": lambda n: n + 2}
    assert failure_of(lambda n: n + n, *cases, **mistakes).causes == ["twice"]
    assert failure_of(lambda n: n**2, *cases, **mistakes).causes == ["squared"]
    assert failure_of(lambda n: 4, *cases, **mistakes).causes == []
    assert failure_of(lambda n: 4, *cases, twice=mistakes["twice"]).causes == []  # by chance
    both = failure_of(lambda n: 4, cases[0], **mistakes).cause
    assert both == "possibly: twice; or: squared; or: plus"


def test_warnings_are_shown_of_the_learners_own_lines_only(recwarn):
    def warned(n, word):
        warnings.warn(word, stacklevel=1)
        return 2 * n

    mistakes = {"twice": lambda n: warned(n, "of a mistake"), "plus": lambda n: n + 2}
    failure = failure_of(lambda n: warned(n, "of the answer"), Case("2", (2,), 6), **mistakes)
    assert "twice" in failure.causes
    assert {str(each.message) for each in recwarn} == {"of the answer"}


def test_each_of_several_things_is_judged_by_itself():
    case = Case("both", (2, 3), Parts({"the sum": 5, "the product": 6}))
    twice = {"the product twice": lambda a, b: (a * b, a * b)}
    assert failure_of(lambda a, b: (6, 6), case, **twice).cause == "the product twice"
    assert failure_of(lambda a, b: (a + b, 7), case).what == "the product"
    mixed = failure_of(
        lambda a, b: (a * b, a - b), case, Case("other", (3, 4), case.expected), **twice
    )
    assert mixed.cause == "the product twice"  # whatever the second is
    assert failure_of(lambda a, b: torch.tensor(6), case).cause == "return 2 things"
    assert failure_of(lambda a, b: a + b, case).cause == "return 2 things"


@pytest.mark.parametrize(
    ("attempt", "cause"),
    [
        (lambda layer, x: layer(x).detach(), "no gradient reaches x and the weight"),
        (lambda layer, x: layer(x.detach()), "x gets no gradient"),
        (lambda layer, x: x @ layer.weight.detach().T, "the weight gets no gradient"),
        (lambda layer, x: layer(x) + x.sum() - x.sum().detach(), "part of the path from x"),
        (lambda layer, x: (y := layer(x)).detach() + (y - y.detach()).flip(1), "part of the path"),
    ],
)
def test_gradients_are_asked_for(attempt, cause):
    layer, x = nn.Linear(2, 2, bias=False), torch.randn(3, 2, requires_grad=True)

    def leaves(layer, x):
        return {"x": x, "the weight": layer.weight}

    case = Case("a layer", (layer, x), layer(x), leaves=leaves)
    assert (
        Exercise("99.3", "fine", lambda: [case], {})(lambda layer, x: x @ layer.weight.T) == "fine"
    )
    assert cause in failure_of(attempt, case).cause
    assert failure_of(attempt, case, own=attempt).cause == "own"


def few_shot_loss(clip, pictures, labels, prompts):
    seen, said = F.normalize(clip.encode_image(pictures)), F.normalize(clip.encode_text(prompts))
    return F.cross_entropy(clip.logit_scale.exp() * seen @ said.T, labels)


def test_an_answer_that_turns_gradients_off_is_told_and_undone():
    def attempt(x):
        torch.set_grad_enabled(False)
        return 2 * x

    assert "off for the whole notebook" in failure_of(attempt, Case("twice", (1.0,), 2.0)).cause
    assert torch.is_grad_enabled()
    with torch.no_grad():  # a cell above the check turned them off
        check("4.3", few_shot_loss)


class Odd:
    """What can be asked nothing."""

    __repr__ = __eq__ = lambda *_: 1 / 0
    shape = property(__repr__)


def odd_error():
    raise type("Odd", (ValueError,), {"__str__": lambda self: 1 / 0})


ITSELF = []
ITSELF.append(ITSELF)
ODD = {
    "complex": lambda: torch.ones(2, 3, dtype=torch.complex64),
    "meta": lambda: torch.ones(2, 3, device="meta"),
    "itself": lambda: ITSELF,
    "long": lambda: 10**5000,
    "text": lambda: "x" * 10**6,
    "odd": Odd,
    "odd error": odd_error,
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("number", ["99.1", "99.2", "1.1", "4.4", "7.1", "12.1"])
def test_nothing_that_an_answer_returns_breaks_the_check(number, name):
    with pytest.raises(CheckFailed) as caught:
        check(number, lambda *_: ODD[name]())
    assert len(str(caught.value)) < 3000


STAYS = {
    "a hook": lambda model: model[0].register_forward_hook(lambda *_: None),
    "the mode": lambda model: model.eval(),
    "the mode of a part": lambda model: model[0].eval(),
    "frozen": lambda model: model[0].requires_grad_(False),
    "a gradient": lambda model: model(torch.ones(1, 2)).sum().backward(),
    "a weight": lambda model: nn.init.zeros_(model[0].weight),
}


@pytest.mark.parametrize("what", STAYS)
def test_whatever_stays_of_an_answer_in_a_model_is_a_change(what):
    def attempt(model):
        STAYS[what](model)
        return 1

    case = Case("one", (nn.Sequential(nn.Linear(2, 2)),), 1)
    assert "hooks" in failure_of(attempt, case).cause  # the sentence lists what can stay


def test_checks_leave_the_random_numbers_alone():
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    check("99.2", lambda x: x.T)
    assert torch.equal(first, torch.rand(1))


# ------------------------------------------------------------------- numbers, loops, the stub


@pytest.mark.parametrize("call", [lambda n: check(n, print), yours])
@pytest.mark.parametrize("number", [2.1, "2.9", "2", "99.5"])
def test_a_number_that_there_is_not_is_one_line(call, number):
    with pytest.raises(SerialLoRAError) as caught:
        call(number)
    assert len(caught.value._render_traceback_()) == 1


def test_a_loop_that_is_interrupted_is_one_line():
    def endless(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        check("99.1", endless)
    (line,) = caught.value._render_traceback_()
    assert "raise KeyboardInterrupt" in line and "99.1" in line


def test_code_beside_the_stubs_line_is_told_so(capsys):
    def below(number):
        """Triple."""
        raise NotImplementedError("Exercise 99.1: your code goes here")
        return 3 * number

    def above(number):
        result = 3 * number  # noqa: F841
        raise NotImplementedError("Exercise 99.1: your code goes here")

    for attempt in (below, above):
        with pytest.raises(CheckFailed, match="the line `raise"):
            check("99.1", attempt)

    class Layer(nn.Module):
        def __init__(self, *_):
            super().__init__()
            raise NotImplementedError("Exercise 99.1: your code goes here")

    check("99.1", Layer)
    assert "waiting for you" in capsys.readouterr().out


# ---------------------------------------------------------------- where no known mistake fits


def test_the_smallest_case_is_worked_by_both():
    def counted(shapes, rank):
        both = [inputs + outputs for inputs, outputs in shapes]
        return rank * sum(both) + 1

    with pytest.raises(CheckFailed) as caught:
        check("2.1", counted)
    lines = [line.split(" = ", 1) for line in caught.value.worked[1:]]
    told = {words.split()[-1]: text for words, text in lines}
    shapes, rank = eval(told["shapes"]), int(told["rank"])
    given = [case.arguments for case in find_check("2.1").cases()]
    digits = [sum(letter.isdigit() for letter in str(each)) for each in given]
    assert (shapes, rank) == given[digits.index(min(digits))]
    both = [inputs + outputs for inputs, outputs in shapes]
    assert told["both"] == str(both) and told["sizes"] == str([rank * each for each in both])
    assert told["result"] == str(rank * sum(both) + 1)
    with pytest.raises(CheckFailed) as caught:
        check("2.1", lambda shapes, rank: sum(rank * inputs for inputs, _ in shapes))
    assert caught.value.causes and not caught.value.worked


# --------------------------------------------------------------------- whose answer is used


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def is_solved(answer) -> bool:
    return answer.__code__.co_filename == "02_parameter_count.py"


def test_what_passed_is_used_until_it_no_longer_does(capsys):
    def right(shapes, rank):
        return rank * sum(map(sum, shapes))

    assert is_solved(yours("2.1"))
    assert "not solved yet" in capsys.readouterr().out
    check("2.1", right)
    capsys.readouterr()
    assert yours("2.1") is right
    assert capsys.readouterr().out == ""  # all is well: nothing is said
    with pytest.raises(CheckFailed):
        check("2.1", lambda shapes, rank: 0)
    assert is_solved(yours("2.1"))
    assert "did not pass its check" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return rank * sum(map(sum, shapes))", ""),
        ("return math.prod((rank, sum(map(sum, shapes))))", ""),
        ("return int(rank * np.sum(shapes))", ""),  # numpy is imported elsewhere
        ("return helper(shapes, rank)", "uses `helper` of another cell"),
        ("return unheard(rank)", "did not pass its check"),
        ("return 2 * rank", "did not pass its check"),
        ('raise NotImplementedError("Exercise 2.1: your code goes here")', "is not solved yet"),
        ("not python at all", "cannot be read (SyntaxError)"),
    ],
)
def test_an_answer_is_read_from_the_notebook_of_its_lesson(capsys, body, said):
    helper = "def helper(shapes, rank):\n    return rank * sum(map(sum, shapes))"
    answer = f'def lora_parameters(shapes, rank):\n    {body}\n\n\ncheck("2.1", lora_parameters)'
    codes = ["%matplotlib inline", "import numpy as np", helper, answer]
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, codes)])
    nbformat.write(notebook, "02_parameter_count.ipynb")
    assert is_solved(yours("2.1")) == bool(said)
    out = capsys.readouterr().out
    assert said in out and len(out.splitlines()) == bool(said)


def test_a_duplicate_of_a_notebook_is_known_by_its_heading(capsys):
    stub = 'raise NotImplementedError("Exercise 2.1: your code goes here")'
    bodies = {
        "02_parameter_count": stub,
        "older": "return sum(rank * sum(each) for each in shapes)",
        "02_parameter_count-Copy1": "return rank * sum(map(sum, shapes))",
        "mine": "return 0",
        "03_build_serial_lora": "not a lesson at all",
    }
    for age, (name, body) in enumerate(bodies.items()):
        answer = f'def f(shapes, rank):\n    {body}\n\n\ncheck("2.1", f)'
        lesson = "03 · Build" if name.startswith("03") else "02 · The count"
        cells = [nbformat.v4.new_markdown_cell(f"# {lesson}"), nbformat.v4.new_code_cell(answer)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), f"{name}.ipynb")
        os.utime(f"{name}.ipynb", (age, age))
    for newest in ("02_parameter_count-Copy1.ipynb", "older.ipynb"):
        answer = yours("2.1")
        assert answer([(1, 2)], 3) == 9 and answer.__code__.co_filename == newest
        assert capsys.readouterr().out == ""
        os.remove(newest)
    assert is_solved(yours("2.1"))
    assert "mine.ipynb did not pass its check" in capsys.readouterr().out


def test_a_solved_lesson_is_run_up_to_a_line_and_prints_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(solved_lessons, "SOLVED", tmp_path)
    source = "# %% [markdown]\n# # 06\n\n# %%\nfirst = 2 * 3\nprint(first)\nsecond = 1\n"
    (tmp_path / "06_sd3_style.py").write_text(source, encoding="utf-8")
    names = solved_lessons.cells_before("06", "second =")
    assert names["first"] == 6 and "second" not in names
    assert not capsys.readouterr().out
    with pytest.raises(ValueError):
        solved_lessons.cells_before("06", "third =")
