"""The answers of the solved lessons, as they stand in ``solutions/``, or with a part of one replaced."""

from __future__ import annotations

import ast
import copy
import io
import linecache
import math
import re
from collections.abc import Callable, Collection
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from serial_lora_course.checking.exercises import CHECK_CALL
from serial_lora_course.checking.lessons import find_lesson

SOLVED = Path(__file__).resolve().parents[2] / "solutions"
ANSWER = re.compile(r"# BEGIN SOLUTION\n.*# END SOLUTION", re.DOTALL)


@cache
def solved(number: str, edit: tuple[str, ...] = ()) -> Callable:
    """The answer in the source of the solved lesson.

    Args:
        number: of an exercise, such as ``"3.1"``.
        edit: what is replaced in that answer, and by what: old, new, old, new ...

    Raises:
        LookupError: an old part does not stand exactly once in the answer.
    """
    name = f"{find_lesson(number.partition('.')[0]).stem}.py"
    source = (SOLVED / name).read_text(encoding="utf-8")
    codes = re.split(r"^# %%.*$", source, flags=re.MULTILINE)
    if edit:
        codes = [edited(c, edit) if number in CHECK_CALL.findall(c) else c for c in codes]
    return defined(codes, number, name, yours=solved)


def edited(code: str, edit: tuple[str, ...]) -> str:
    """The code of an exercise's cell, in whose answer all old parts are replaced at once."""
    answer = ANSWER.search(code)[0]
    new = dict(zip(edit[::2], edit[1::2], strict=True))
    for old in new:
        if (times := answer.count(old)) != 1:
            raise LookupError(f"{old!r} stands {times} times in\n{answer}")
    changed = re.sub("|".join(map(re.escape, new)), lambda found: new[found[0]], answer)
    return code.replace(answer, changed)


def defined(codes: list[str], number: str, name: str, **given: Any) -> Callable:
    """What the cell of an exercise gives to its check, run by itself but for the imports of its lesson
    and the names that are given."""
    code = next((c for c in codes if number in CHECK_CALL.findall(c)), None)
    if code is None:
        raise LookupError(f"no cell checks exercise {number}")
    found: list[Any] = []
    names = {"check": None, "torch": torch, "nn": torch.nn, "__name__": Path(name).stem}
    names |= {"F": torch.nn.functional, "Tensor": torch.Tensor, "math": math, "copy": copy} | given
    exec(imports_for(code, codes, names), names)
    names["check"] = lambda _, answer: found.append(answer)  # after imports that bring the real one
    linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name  # for tracebacks
    exec(compile(code, name, "exec"), names)  # the learner's own, as the kernel ran it
    return found[0]


def cells_before(number: str, line: str) -> dict[str, Any]:
    """What a solved lesson's own cells leave behind, name -> value, run up to a line; nothing is printed.

    Raises:
        ValueError: no line of the lesson begins like this.
    """
    source = (SOLVED / f"{find_lesson(number).stem}.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "lesson"}
    with redirect_stdout(io.StringIO()):
        exec(source[: source.index(f"\n{line}")], names)
    return names


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
