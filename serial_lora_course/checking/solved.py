"""The answer to an exercise for the cells that build on it: the learner's, or the solved lesson's."""

from __future__ import annotations

import ast
import copy
import math
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import torch

from serial_lora_course.checking.exercises import CHECK_CALL
from serial_lora_course.checking.lessons import find_lesson
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import TRIED, run_check

INSTEAD = "The solved lesson's answer stands in."
PACKAGE = Path(__file__).resolve().parents[1]
SOLVED = (PACKAGE / "solved", PACKAGE.parent / "solutions")  # of a wheel, of a checkout


def yours(number: str) -> Any:
    """The learner's answer to an exercise where it is right, else the solved lesson's.

    An answer that no check of this kernel has seen is read from the learner's notebook of that lesson,
    where it lies beside the one that runs. One line says where the solved lesson's answer stands in.

    Args:
        number: of an exercise, such as ``"3.1"``.
    """
    if number not in TRIED and (notebook := Path(f"{stem_of(number)}.ipynb")).is_file():
        answer, trouble = answer_in(notebook, number)
    else:
        answer = TRIED.get(number)
        trouble = f"Your answer to exercise {number} did not pass its check." * (number in TRIED)
    if answer is not None:
        return answer
    print(trouble or f"Exercise {number} is not solved yet.", INSTEAD)
    return solved(number)


def stem_of(number: str) -> str:
    """The file name of the lesson that an exercise belongs to, without its ending."""
    return find_lesson(number.partition(".")[0]).stem


def answer_in(notebook: Path, number: str) -> tuple[Any, str]:
    """The right answer to an exercise in a notebook, or None and what is the matter with it."""
    where = f"Your answer to exercise {number} in {notebook}"
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        codes = [cell.source for cell in cells if cell.cell_type == "code"]
        answer = defined(codes, number, notebook.name)
        return (answer, "") if run_check(number, answer) is not None else (None, "")
    except CheckFailed as failure:
        error: BaseException | None = failure.__cause__
        trouble = f"{where} did not pass its check."
    except Exception as other:  # no notebook, no such cell, no Python: the lesson goes on
        error, trouble = other, f"{where} cannot be read ({type(other).__name__})."
    name = error.name if isinstance(error, NameError) else None
    if name and any(re.search(rf"\b{name}\b", code) and number not in code for code in codes):
        trouble = (
            f"{where} uses `{name}` of another cell of that notebook: "
            "define or import it in the exercise's own cell."
        )
    return None, trouble


def defined(codes: list[str], number: str, name: str) -> Callable:
    """What the cell of an exercise gives to its check, run by itself but for the imports of its lesson."""
    code = next((c for c in codes if number in CHECK_CALL.findall(c)), None)
    if code is None:
        raise LookupError(f"no cell checks exercise {number}")
    found: list[Any] = []
    names = {"check": None, "torch": torch, "nn": torch.nn, "__name__": Path(name).stem}
    names |= {"F": torch.nn.functional, "Tensor": torch.Tensor, "math": math, "copy": copy}
    exec(imports_for(code, codes, names), names)
    names["check"] = lambda _, answer: found.append(answer)  # after imports that bring the real one
    exec(compile(code, name, "exec"), names)  # the learner's own, as the kernel ran it
    return found[0]


def imports_for(code: str, codes: list[str], given: Collection[str]) -> str:
    """The import lines of a lesson whose names a cell uses, beside those that are given."""
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    used -= set(given)
    lines = []
    for other in codes:
        with suppress(SyntaxError):  # a line for IPython, or unfinished
            for node in ast.parse(other).body:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = {(each.asname or each.name).partition(".")[0] for each in node.names}
                    lines += [ast.unparse(node)] if names & used else []
    return "\n".join(lines)


@cache
def solved(number: str) -> Callable:
    """The answer in the source of the solved lesson."""
    name = f"{stem_of(number)}.py"
    source = next(folder / name for folder in SOLVED if (folder / name).is_file())
    codes = re.split(r"^# %%.*$", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return defined(codes, number, name)
