"""What is generated in documents: tables about lessons, and where the project lies in public.

A generated part stands between two lines, ``<!-- name: begin -->`` and ``<!-- name: end -->``. The
address is written by hand in one line, `Repository` in serial_lora/pyproject.toml, and put wherever
else it is named. `tools.notebooks` writes and compares them.
"""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.lessons import LESSONS, read_measured

CLASS = 30  # learners, for whom a machine is sized
LIBRARY = "serial_lora/pyproject.toml"
NAMING = (LIBRARY, "serial_lora/README.md", "README.md", "classroom/README.md", "CITATION.cff")
ADDRESS = re.compile(r"https://github\.com/[\w-]+/[\w.-]*\w")  # these files name no other


def lesson_table() -> str:
    """Every lesson with links to its notebook and to the solved one."""
    lines = ["| Lesson | What you build | Minutes |", "| --- | --- | ---: |"]
    for lesson in LESSONS:
        name = f"{lesson.stem}.ipynb"
        linked = f"[{lesson.number} {lesson.title}](notebooks/{name}) ([solved](solutions/{name}))"
        lines.append(f"| {linked} | {lesson.builds} | {lesson.minutes} |")
    return "\n".join(lines)


def what_learners_can() -> str:
    """Every lesson with what one can do afterwards, and its minutes."""
    lines = ["| Lesson | Minutes | Afterwards a learner can |", "| --- | ---: | --- |"]
    for each in LESSONS:
        can = "; ".join(each.can)
        lines.append(f"| {each.number} {each.title} | {each.minutes} | {can} |")
    return "\n".join(lines)


def class_memory(measured: dict[str, dict]) -> str:
    """What a class's machine needs, by lessons' peak memory in GB (10^9 bytes)."""
    most = math.ceil(max(known.get("peak_mb", 0) for known in measured.values()) / 100) / 10
    return (
        f"No lesson takes more than {most:.1f} GB, so a class of {CLASS} on one machine needs "
        f"{math.ceil(CLASS * most)} GB, besides what the system and JupyterLab take."
    )


def put_between(text: str, name: str, part: str) -> str:
    """Return a page with ``part`` in the place of what stands between the two lines of ``name``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SerialLoRAError(f"The page needs the two lines {begin} and {end}.")
    return f"{head}{begin}\n{part}\n{end}{tail}"


def address(root: Path) -> str:
    """Where the project lies in public, or ``https://github.com/OWNER/NAME`` while it does not."""
    facts = tomllib.loads((root / LIBRARY).read_text(encoding="utf-8"))
    return facts["project"]["urls"]["Repository"]


def public_address(root: Path) -> str:
    """The address, or nothing while the project lies nowhere."""
    return "" if "/OWNER/" in (lies := address(root)) else lies


def pages(root: Path) -> dict[Path, str]:
    """Every document with a generated part, and the text that it should have."""
    written = {page: (root / page).read_text("utf-8") for page in (*NAMING, "INSTRUCTORS.md")}
    for page, name, part in (
        ("README.md", "lessons", lesson_table()),
        ("INSTRUCTORS.md", "memory", class_memory(read_measured())),
        ("INSTRUCTORS.md", "afterwards", what_learners_can()),
    ):
        written[page] = put_between(written[page], name, part)
    for page in NAMING:
        written[page] = ADDRESS.sub(address(root), written[page])
    return {root / page: text for page, text in written.items()}


def stale_pages(root: Path) -> list[str]:
    """A sentence for each page that is not what the measurements say."""
    return [
        f"{path.relative_to(root)} is stale: run `python -m tools.notebooks build --text`"
        for path, text in pages(root).items()
        if path.read_text(encoding="utf-8") != text
    ]
