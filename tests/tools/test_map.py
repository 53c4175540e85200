"""The picture of the rooms: what counts as an import, which arrows are wrong, when it is stale."""

from pathlib import Path

import pytest

from tools.map import PICTURE, find_problems, main, read_imports, read_picture, without_detours

ROOT = Path(__file__).parents[2]
COURSE = "serial_lora_course"


@pytest.fixture
def checkout(tmp_path):
    """A function that writes files, named as ``serial_lora_course__labs__clip``; their folder."""

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return tmp_path

    return write


def test_every_import_counts_but_those_for_type_checkers(checkout):
    root = checkout(
        serial_lora__a="import math\nimport serial_lora.b",
        serial_lora__b="if TYPE_CHECKING:\n    import serial_lora.a",
        serial_lora_course__labs__one="from serial_lora import a, absent\nfrom . import two",
        serial_lora_course__labs__two="def late():\n    from serial_lora.b import name",
    )
    labs = f"{COURSE}.labs"
    assert read_imports(root) == {
        "serial_lora.a": {"serial_lora.b"},
        "serial_lora.b": set(),
        f"{labs}.one": {"serial_lora.a", f"{labs}.two"},
        f"{labs}.two": {"serial_lora.b"},
    }


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("serial_lora__a", "serial_lora_course__labs__clip"),
        ("serial_lora_course__labs__clip", "serial_lora_course__plots__masks"),
        ("serial_lora_course__data__sets", "serial_lora_course__labs__clip"),
        ("serial_lora_course__models__clip", "serial_lora_course__labs__clip"),
        ("serial_lora_course__labs__clip", "serial_lora_course__cli"),
        ("serial_lora_course__cli", "tools__map"),
    ],
)
def test_an_arrow_may_only_run_down(checkout, lower, upper, capsys):
    name = upper.replace("__", ".")
    root = checkout(**{lower: "", upper: f"import {lower.replace('__', '.')}"})
    assert find_problems(read_imports(root)) == []
    checkout(**{lower: f"def late():\n    import {name}", upper: ""})
    (problem,) = find_problems(read_imports(root))
    assert problem.startswith(f"{lower.replace('__', '.')} -> {name} ")
    assert main([], root) == 1 and problem in capsys.readouterr().err
    assert not (root / PICTURE).exists()


def test_files_may_not_import_in_a_circle(checkout):
    root = checkout(
        serial_lora__a="from serial_lora import b",
        serial_lora__b="from serial_lora.c import x",
        serial_lora__c="def late():\n    import serial_lora.a",
    )
    (problem,) = find_problems(read_imports(root))
    assert all(f"serial_lora.{name}" in problem for name in "abc")


def test_the_picture_is_stale_when_an_arrow_comes_or_goes_and_not_when_lines_do(checkout):
    root = checkout(serial_lora__a="", serial_lora_course__labs__clip="import serial_lora.a")
    assert main(["--check"], root) == 1  # there is none yet
    assert main([], root) == 0 == main(["--check"], root)
    rooms, arrows = read_picture((root / PICTURE).read_text("utf-8"))
    assert (rooms, arrows) == ({"serial_lora", "labs"}, {("labs", "serial_lora")})
    checkout(serial_lora__a="x = 1\n" * 900)
    assert main(["--check"], root) == 0
    checkout(serial_lora_course__labs__clip="")
    assert main(["--check"], root) == 1


def test_arrows_that_follow_from_others_are_left_out():
    chain = {("labs", "models"), ("models", "data"), ("data", "serial_lora")}
    follow = {("labs", "data"), ("labs", "serial_lora"), ("models", "serial_lora")}
    assert without_detours(chain | follow) == chain
    assert without_detours(follow | {("models", "data")}) == follow | {("models", "data")} - {
        ("labs", "serial_lora")
    }
