"""Numbers in a lesson's text, held against the outputs and the code above them.

A decimal, a percentage, or a whole number of two digits and more has to stand in an output or in the code of
a cell above the text, or in the code that the text leads to, rounded to as many digits as the text gives. What
comes from elsewhere names its source, in a comment that readers do not see:
``<!-- from the paper, Table II: 84.9, 2024 -->``. A quiz invents its cases, and is free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from nbformat import NotebookNode

from tools.sources import FOLDED

NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?%?(?!\w)")
UNREAD = re.compile(
    rf"(?s){FOLDED}|<!--.*?-->|```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$|\]\([^)]*\)"
    r"|(?m:^\|[^\n]*●[^\n]*$)|(?m:^#[^\n]*$)"
    r"|(?i:lessons?|exercises?|tables?|figures?|sections?|equations?|python|ViT-\w/)"
    r"\s?[\d.]+(?:(?:,| and| to| or)+ \d[\d.]*)*"
)
QUIZ = "## Quiz"
SOURCE = re.compile(r"<!-- from [^:]+: (.*?)-->", re.DOTALL)


def unshown_numbers(solved: NotebookNode) -> list[str]:
    """Each number of the text that nothing above it shows, with the line that it stands in."""
    shown: set[Decimal] = set()
    missing = []
    quiz = False
    for cell, below in zip(solved.cells, [*solved.cells[1:], None], strict=True):
        if cell.cell_type == "code":
            shown |= set(values(cell.source))
            for output in cell.outputs:
                shown |= set(values(text_of(output)))
            continue
        told = set(values(" ".join(SOURCE.findall(cell.source))))
        if below is not None and below.cell_type == "code":
            told |= set(values(below.source))
        for line in UNREAD.sub(heading_or_space, cell.source).splitlines():
            quiz = line == QUIZ or (quiz and not line.startswith("## "))
            for written in NUMBER.findall(line):
                small = len(written) == 1  # a count that a reader checks by looking
                if quiz or small or any(agrees(written, v) for v in shown | told):
                    continue
                missing.append(f"{written} in “{line.strip()}”")
    return missing


def heading_or_space(unread: re.Match) -> str:
    """What stands in place of what is not read; a section's heading stays, without its numbers."""
    if not unread[0].startswith("## "):
        return " "
    return QUIZ if unread[0].strip() == QUIZ else "## "


def text_of(output: NotebookNode) -> str:
    """What a reader sees of an output, pictures' alternative text with it."""
    data = output.get("data", {})
    page = data.get("text/html") or data.get("text/markdown") or data.get("text/plain") or ""
    page = "".join(page)  # a notebook's file may hold its lines
    alternative = " ".join(re.findall(r'alt="([^"]*)"', page))
    return f"{output.get('text', '')} {re.sub(r'(?s)<style.*?</style>|<[^>]*>', ' ', page)} {alternative}"


def values(text: str) -> Iterator[Decimal]:
    """The numbers in a text; a percentage is a share too."""
    for written in re.findall(r"(?<![\w.])\d+(?:[,_]\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?%?", text):
        value = Decimal(re.sub("[,_%]", "", written))
        yield value
        if written.endswith("%"):
            yield value / 100


def agrees(written: str, value: Decimal) -> bool:
    """Whether a number as it is written in the text is this value, rounded."""
    number = Decimal(re.sub("[,%]", "", written))
    if abs(number.adjusted()) > 20:  # beyond what can be rounded
        return number == value
    step = Decimal(1).scaleb(number.as_tuple().exponent)
    candidates = (value, value * 100) if written.endswith("%") else (value,)
    for candidate in candidates:
        if candidate.adjusted() > 20:
            continue
        for rounding in (ROUND_HALF_EVEN, ROUND_HALF_UP):
            if candidate.quantize(step, rounding) == number:
                return True
    return False
