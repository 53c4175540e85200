"""GLOSSARY.md: every name in it exists, and every symbol that lessons use is in it."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

from tools import notebooks

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "GLOSSARY.md").read_text(encoding="utf-8")
SOURCES = notebooks.find_sources(ROOT)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| Symbol", "| Letter"))
]
NAMES = sorted({name for row in ROWS for name in re.findall(r"`(\w+(?:\.\w+)+)`", row[-1])})
GREEK = re.compile(r"[Α-Ωα-ω]")
ALONE = re.compile(r"(?<![^\W\d_₀-₉])(?:[^\W\d_₀-₉]|∂)(?![^\W\d_₀-₉])")
# Letters that LaTeX spells out; \hat and the like are no letters.
LATEX = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "varepsilon": "ε",
    "eta": "η",
    "theta": "θ",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "nu": "ν",
    "rho": "ρ",
    "sigma": "σ",
    "tau": "τ",
    "phi": "φ",
    "omega": "ω",
    "Delta": "Δ",
    "Sigma": "Σ",
    "Lambda": "Λ",
    "partial": "∂",
}


def symbols() -> set[str]:
    return {part.strip() for row in ROWS for part in row[0].split(",")}


def letters() -> set[str]:
    """Every single letter that some row explains, alone or with an index, and none of a word's."""
    return {letter for symbol in symbols() for letter in ALONE.findall(symbol)}


def resolve(name: str) -> None:
    """Walk from ``serial_lora`` down a dotted name; a field or what __init__ sets counts too."""
    parts = name.split(".")
    root = [] if parts[0] == "serial_lora_course" else ["serial_lora"]
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(root + parts[:length]))
        except ModuleNotFoundError:
            continue
        break
    else:
        raise AssertionError(f"no module in {name}")
    for part in parts[length:]:
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        assert inspect.isclass(found), f"{name}: {found} has no {part}"
        fields = dataclasses.fields(found) if dataclasses.is_dataclass(found) else ()
        own = [c for c in inspect.getmro(found) if c.__module__.startswith("serial_lora")]
        set_by = "".join(map(inspect.getsource, own))
        known = part in {field.name for field in fields} or f"self.{part} =" in set_by
        assert known, f"{name}: {found} has no {part}"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name):
    resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "layers.SerialLoRA.lora_C",
        "flow.no_such",
        "no_such.thing",
        "serial_lora_course.labs.records.Record.shot",
    ],
)
def test_a_wrong_name_would_be_found(name):
    with pytest.raises(AssertionError):
        resolve(name)


def test_rows_are_whole():
    assert len(ROWS) > 50 and len(NAMES) > 30
    for row in ROWS:
        assert len(row) in (2, 4, 5), row
        assert row[0] and any(len(cell) > 3 for cell in row[1:]), row


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_greek_letter_of_a_lesson_is_told(source):
    text = source.read_text(encoding="utf-8")
    used = set(GREEK.findall(text)) | {
        LATEX[command] for command in re.findall(r"\\([A-Za-z]+)", text) if command in LATEX
    }
    assert used <= letters(), f"put into GLOSSARY.md: {sorted(used - letters())}"


def test_letters_of_words_are_not_told():
    assert ALONE.findall("numel(), A_p, β₁, 8 d r, BA, x′") == ["A", "p", "β", "d", "r", "x"]


def shape_letters(source: Path) -> set[str]:
    """Single letters in comments of code that are shapes, such as ``# (B, N, d)``."""
    item = r"(?:\.\.\.|\d*[A-Za-z]?\w*(?: ?[/*+·-] ?\w+)?)"
    shape = re.compile(rf"\(({item}(?:, ?{item})*,?)\)")
    found = set()
    for cell in notebooks.read_source(source).cells:
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


def test_shape_letters_are_found_at_all():
    everything = set().union(*map(shape_letters, SOURCES))
    assert {"B", "N", "d", "r", "C"} <= everything
