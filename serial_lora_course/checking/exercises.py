"""The exercises of a lesson, as their cards and cells in the notebook say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serial_lora.errors import SerialLoRAError

if TYPE_CHECKING:
    import nbformat

_CARD = re.compile(
    r"^### Exercise (\d+\.\d+) · .+\n\n.*\n.*\n\| ●+○* \| (●+)○* \| (\d+) \|$",
    re.MULTILINE,
)
CHECK_CALL = re.compile(r'^check\("(\d+\.\d+)"', re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """One exercise card.

    Attributes:
        number: such as ``"2.3"``.
        importance: dots out of five.
        minutes: how long a learner should give it.
        name: what the learner's cell defines, and the check takes.
    """

    number: str
    importance: int
    minutes: int
    name: str


def read_exercises(notebook: nbformat.NotebookNode) -> list[Exercise]:
    """The exercises of a lesson in order, from its source, its solved or its learner's notebook."""
    found = []
    for text, code in zip(notebook.cells, notebook.cells[1:], strict=False):
        card = _CARD.search(text.source) if text.cell_type == "markdown" else None
        if card is None:
            continue
        number, importance, minutes = card.groups()
        call = re.search(rf'^check\("{number}", (\w+)\)', code.source, re.MULTILINE)
        if call is None:
            raise SerialLoRAError(
                f'The cell below the card of exercise {number} has no check("{number}", ...).'
            )
        found.append(Exercise(number, len(importance), int(minutes), call[1]))
    return found
