"""README.md and INSTRUCTORS.md: their generated tables, and the commands that they name."""

import re
import shlex
from pathlib import Path

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course import cli
from serial_lora_course.checking.lessons import LESSONS
from tools import documents

ROOT = Path(__file__).resolve().parents[2]


def test_memory_is_rounded_up_and_the_class_gets_as_much_for_each():
    measured = {"02": {"seconds": 61, "peak_mb": 1001, "minutes": 30}, "03": {"peak_mb": 581}}
    rows = documents.lesson_table(measured).splitlines()[2:]
    assert len(rows) == len(LESSONS)
    assert "| 30 | 2 min | 1.1 GB |" in rows[2] and "| 0.6 GB |" in rows[3]
    assert "1.1 GB" in documents.class_memory(measured)
    assert "27 GB" in documents.class_memory(measured)  # 24 times 1.1


def test_a_stale_page_is_found_and_mended(tmp_path, monkeypatch):
    page = "before\n<!-- {0}: begin -->\nyesterday\n<!-- {0}: end -->\nafter\n"
    (tmp_path / "README.md").write_text(page.format("lessons"), encoding="utf-8")
    (tmp_path / "INSTRUCTORS.md").write_text(page.format("memory"), encoding="utf-8")
    assert [each.split()[0] for each in documents.stale_pages(tmp_path)] == [
        "README.md",
        "INSTRUCTORS.md",
    ]
    documents.write_pages(tmp_path)
    assert documents.stale_pages(tmp_path) == []
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "yesterday" not in text
    (tmp_path / "README.md").write_text("nothing here", encoding="utf-8")
    with pytest.raises(SerialLoRAError, match="two lines"):
        documents.write_pages(tmp_path)


def parse(line: str) -> None:
    """Parse a command line of serial-lora as the program does, and run nothing."""
    cli.understood(shlex.split(line))


@pytest.mark.parametrize("page", ["README.md", "INSTRUCTORS.md"])
def test_commands_on_the_pages_are_understood(page):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ *(?:flock \S+ )?serial-lora (.+?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        parse(line)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert f"\n{target}: " in makefile, target


def test_the_courses_own_commands_are_understood():
    for command in cli.course_commands("nature", "lines", "night"):
        parse(shlex.join(command))
