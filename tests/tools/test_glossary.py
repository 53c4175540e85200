"""GLOSSARY.md: every name in it exists, and every symbol that lessons use is in it."""

import inspect
import pkgutil
import re
from html.entities import name2codepoint
from pathlib import Path

import pytest

from tools import sources

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "GLOSSARY.md").read_text(encoding="utf-8")
SOURCES = sources.find_sources(ROOT)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| Symbol", "| Letter"))
]
NAMES = sorted({name for row in ROWS for name in re.findall(r"`(\w+(?:\.\w+)+)`", row[-1])})
GREEK = re.compile(r"[Α-Ωα-ω]")
ALONE = re.compile(r"(?<![^\W\d_₀-₉])(?:[^\W\d_₀-₉]|∂)(?![^\W\d_₀-₉])")
# Letters that LaTeX spells out, mostly as HTML does; \hat and the like are no letters.
LATEX = {name: chr(code) for name, code in name2codepoint.items() if GREEK.match(chr(code))}
LATEX |= {"varepsilon": "ε", "partial": "∂"}


def symbols() -> set[str]:
    return {part.strip() for row in ROWS for part in row[0].split(",")}


def letters() -> set[str]:
    """Every single letter that some row explains, alone or with an index, and none of a word's."""
    return {letter for symbol in symbols() for letter in ALONE.findall(symbol)}


def exists(name: str) -> bool:
    """Whether a dotted name is there; a field, or what a class gives its objects, counts too."""
    name = name if name.startswith("serial_lora_course.") else f"serial_lora.{name}"
    owner, _, last = name.rpartition(".")
    try:
        found = pkgutil.resolve_name(owner)
    except (ImportError, AttributeError):
        return False
    if hasattr(found, last) or not inspect.isclass(found):
        return hasattr(found, last)
    own = [kind for kind in inspect.getmro(found) if kind.__module__.startswith("serial_lora")]
    return any(
        last in kind.__annotations__ or f"self.{last} =" in inspect.getsource(kind) for kind in own
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name):
    assert exists(name)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_greek_letter_of_a_lesson_is_told(source):
    text = source.read_text(encoding="utf-8")
    used = set(GREEK.findall(text)) | {
        LATEX[command] for command in re.findall(r"\\([A-Za-z]+)", text) if command in LATEX
    }
    assert used <= letters(), f"put into GLOSSARY.md: {sorted(used - letters())}"


def shape_letters(source: Path) -> set[str]:
    """Single letters in comments of code that are shapes, such as ``# (B, N, d)``."""
    item = r"(?:\.\.\.|\d*[A-Za-z]?\w*(?: ?[/*+·-] ?\w+)?)"
    shape = re.compile(rf"\(({item}(?:, ?{item})*,?)\)")
    found = set()
    for cell in sources.read_source(source).cells:
        if cell.cell_type == "code":
            for comment in re.findall(r"#(.*)$", cell.source, re.MULTILINE):
                for inside in shape.findall(comment):
                    if "," in inside:
                        found |= set(re.findall(r"(?<![A-Za-z_])[A-Za-z](?![A-Za-z_])", inside))
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_letter_in_a_shape_is_told(source):
    used = shape_letters(source)
    assert used <= letters(), f"put into GLOSSARY.md: {sorted(used - letters())}"
