"""The documents for people: generated tables, and where their links and commands lead."""

import inspect
import pkgutil
import re
import shlex
from pathlib import Path

from data_scripts.sources import SOURCES
from serial_lora_course import cli
from serial_lora_course.checking.lessons import LESSONS
from serial_lora_course.checking.running import find_check
from tools import ROOT, documents


def parse(line: str) -> None:
    """Parse a command line of serial-lora as the program does, and run nothing."""
    cli.understood(shlex.split(line))


def pages() -> dict[Path, str]:
    """The documents for people, code blocks and all."""
    there = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[bc]*/README.md")]
    return {path: path.read_text(encoding="utf-8") for path in there}


def anchors(text: str) -> set[str]:
    """What a page's headings are called in a link, as GitHub and MyST have it."""
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_to_files_and_headings():
    found = 0
    for path, text in pages().items():
        prose = re.sub(r"^ {4}.*", "", text, flags=re.MULTILINE)
        for link in re.findall(r"\]\(([^)\s]+)\)", prose):
            name, _, heading = link.partition("#")
            if "://" in link:
                continue
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), f"{path.name} links to {link}"
            if heading:
                assert heading in anchors(target.read_text("utf-8")), f"{path.name}: {link}"
            found += 1
    assert found > 50


def test_the_address_is_put_wherever_the_project_is_named(monkeypatch):
    assert documents.stale_pages(ROOT) == []
    monkeypatch.setattr(documents, "address", lambda root: "https://github.com/ada/course")
    texts = {
        path.relative_to(ROOT).as_posix(): text for path, text in documents.pages(ROOT).items()
    }
    assert "git clone https://github.com/ada/course serial-lora\n" in texts["README.md"]
    assert "git clone https://github.com/ada/course /srv" in texts["classroom/README.md"]
    assert "repository-code: https://github.com/ada/course\n" in texts["CITATION.cff"]
    assert 'Issues = "https://github.com/ada/course/issues"' in texts[documents.LIBRARY]
    assert not [
        name for name, text in texts.items() if "OWNER" in text.replace("is OWNER/NAME", "")
    ]


def test_commands_on_the_pages_are_understood():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = 0
    for line in cli.COURSE:
        parse(line)
    for path, text in pages().items():
        text = text.replace("\\\n", " ")
        for line in re.findall(r"^ *serial-lora (.+?)(?: +#.*| &)?$", text, re.MULTILINE):
            parse(line)
            found += 1
        for target in re.findall(r"(?:^ *|`)make ([a-z-]+)", text, re.MULTILINE):
            assert f"\n{target}: " in makefile, f"{path.name}: make {target}"
        for module in re.findall(r"python -m ((?:tools|study|benchmarks|serial_lora)[\w.]*)", text):
            file = ROOT / module.replace(".", "/")
            assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), module
        for line in re.findall(r"^python data_scripts/fetch\.py ([^#\n]+)", text, re.MULTILINE):
            names = shlex.split(line.partition(" --")[0])
            assert names and set(names) <= set(SOURCES), f"{path.name}: {line}"
    assert found > 15


def test_the_instructors_plans_name_exercises_that_exist():
    text = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \|(.*)$", text, re.MULTILINE)
    hard = re.findall(r"^- \*\*(\d\d)\*\*: ", text, re.MULTILINE)
    assert [number for number, _ in rows] == [lesson.number for lesson in LESSONS] == hard
    assert all(len(set(lesson.can)) == 3 for lesson in LESSONS)  # "after this lesson you can ..."
    named = {number for _, plan in rows for number in re.findall(r"\d+\.\d", plan)}
    assert named and all(map(find_check, named))


def exists(name: str) -> bool:
    """Whether a dotted name is there; a field, or what a class gives its objects, counts too."""
    name = name if name.startswith("serial_lora_course.") else f"serial_lora.{name}"
    owner, _, last = name.rpartition(".")
    found = pkgutil.resolve_name(owner)
    kinds = found.__mro__ if inspect.isclass(found) else ()
    own = [inspect.getsource(kind) for kind in kinds if kind.__module__.startswith("serial_lora")]
    field = rf"^ +({last}:|self\.{last} =)"
    return hasattr(found, last) or any(re.search(field, text, re.MULTILINE) for text in own)


def test_every_name_of_the_glossary_exists():
    rows = re.findall(r"^\|.*$", (ROOT / "GLOSSARY.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+(?:\.\w+)+)`", row.split("|")[-2])}
    assert len(named) > 10 and not [name for name in sorted(named) if not exists(name)]
