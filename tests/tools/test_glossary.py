"""GLOSSARY.md: every name in it exists."""

import inspect
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "GLOSSARY.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]
NAMES = {name for row in ROWS for name in re.findall(r"`(\w+(?:\.\w+)+)`", row.split("|")[-2])}


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


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_exists(name):
    assert exists(name)
