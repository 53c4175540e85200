"""README.md and INSTRUCTORS.md: their generated tables, and the commands that they name."""

import re
import shlex
from pathlib import Path

import pytest

from serial_lora_course import cli

ROOT = Path(__file__).resolve().parents[2]


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
