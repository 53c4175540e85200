"""A late learner can start at any section: it needs the opening cells and nothing in between."""

import builtins
import symtable

from tests.lessons.test_structure import each_lesson
from tools import sources

GIVEN = {*dir(builtins), "get_ipython"}


def names_of(code: str) -> tuple[set[str], set[str]]:
    """The names that a cell defines, and those that it looks up outside its functions' own."""
    defined, used = set(), set()

    def walk(table: symtable.SymbolTable, top: bool) -> None:
        for symbol in table.get_symbols():
            if top and (symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()):
                defined.add(symbol.get_name())
            if symbol.is_referenced() and (top or symbol.is_global()):
                used.add(symbol.get_name())
        for child in table.get_children():
            walk(child, top=False)

    walk(symtable.symtable(code, "cell", "exec"), top=True)
    return defined, used


def sections_of(cells) -> list[tuple[str, list[str]]]:
    """The code of each section under its ``## `` heading; the opening cells come first."""
    sections = [("opening", [])]
    for cell in cells:
        if cell.cell_type == "code":
            sections[-1][1].append(cell.source)
        else:
            headings = [line for line in cell.source.splitlines() if line.startswith("## ")]
            sections += [(heading, []) for heading in headings]
    return sections


def missing_names(code: list[str], given: set[str]) -> set[str]:
    """What cells use before anything has defined it, ``given`` aside."""
    known, missing = set(given), set()
    for cell in code:
        defined, used = names_of(cell)
        missing |= used - known - defined
        known |= defined
    return missing


@each_lesson
def test_every_section_needs_the_opening_alone(source):
    (_, opening), *sections = sections_of(sources.read_source(source).cells)
    given = GIVEN.union(*(names_of(cell)[0] for cell in opening))
    assert missing_names(opening, GIVEN) == set()
    found = {heading: missing_names(code, given) for heading, code in sections}
    assert {heading: names for heading, names in found.items() if names} == {}
