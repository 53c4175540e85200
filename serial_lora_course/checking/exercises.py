"""The exercises of a lesson, as their cards and cells in the notebook say."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serial_lora.errors import SerialLoRAError

if TYPE_CHECKING:
    import nbformat

_CARD = re.compile(
    r"^### Exercise (?P<number>\d+\.\d+) · (?P<title>.+)\n\n.*\n.*\n"
    r"\| ●+○* \| (?P<importance>●+)○* \| (?P<minutes>\d+) \|$",
    re.MULTILINE,
)
CHECK_CALL = re.compile(r'^check\("(\d+\.\d+)"', re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """One exercise card.

    Attributes:
        number: such as ``"2.3"``.
        title: its heading.
        importance: dots out of five.
        minutes: how long a learner should give it.
        names: what the learner's cell defines, in the order in which the check takes them.
    """

    number: str
    title: str
    importance: int
    minutes: int
    names: tuple[str, ...]


def read_exercises(notebook: nbformat.NotebookNode) -> list[Exercise]:
    """The exercises of a lesson in order, from its source, its solved or its learner's notebook.

    Raises:
        SerialLoRAError: a card without a check in the cell below it.
    """
    found = []
    for text, code in zip(notebook.cells, notebook.cells[1:], strict=False):
        card = _CARD.search(text.source) if text.cell_type == "markdown" else None
        if card is None:
            continue
        names = _checked_names(card["number"], code.source)
        found.append(
            Exercise(
                card["number"],
                card["title"].strip(),
                len(card["importance"]),
                int(card["minutes"]),
                names,
            )
        )
    return found


def _checked_names(number: str, source: str) -> tuple[str, ...]:
    """The names in ``check("2.3", name, ...)``, called outside any function."""
    for node in ast.parse(source).body:
        call = node.value if isinstance(node, ast.Expr) else None
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id == "check"
            and isinstance(call.args[0], ast.Constant)
            and call.args[0].value == number
        ):
            return tuple(argument.id for argument in call.args[1:])
    raise SerialLoRAError(f'The cell below the card of exercise {number} has no check("{number}").')
