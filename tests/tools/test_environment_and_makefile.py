"""One list of dependencies in two files, and a Makefile that says what it offers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serial_lora_course.checks.lessons import LESSONS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pip_lines() -> list[str]:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    return text.partition("- pip:\n")[2].splitlines()


def test_environment_lists_what_pyproject_lists(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda, pip = environment["dependencies"][:-1], environment["dependencies"][-1]["pip"]
    extras = [
        *project["optional-dependencies"]["course"],
        *project["optional-dependencies"]["test"],
    ]
    assert "serial-lora[course]" in extras
    own = [text for text in extras if text != "serial-lora[course]"]
    assert pip == [*project["dependencies"], *own, "-e ."]
    assert [name.partition(">")[0] for name in conda] == ["python", "pip"]
    assert project["requires-python"] in conda[0]
    oldest, beyond = re.search(r">=3\.(\d+),<3\.(\d+)$", conda[0]).groups()
    told = f"Python 3.{oldest} to 3.{int(beyond) - 1}"
    assert told in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_dependency_says_who_needs_it(pip_lines):
    for line in pip_lines:
        assert re.search(r"\S  # \w", line), f"{line.strip()} has no comment"


def test_comments_name_lessons_that_exist(pip_lines):
    lessons = {lesson.number for lesson in LESSONS}
    named = {number for line in pip_lines for number in re.findall(r"\b\d\d\b", line.split("#")[1])}
    assert named and named <= lessons


def test_torch_is_a_range(project):
    (torch,) = [text for text in project["dependencies"] if re.match(r"torch\b", text)]
    assert re.fullmatch(r"torch>=[\d.]+(,<[\d.]+)?", torch), "CPU and CUDA builds alike"


@pytest.fixture(scope="module")
def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def run_make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_make_alone_lists_every_target(makefile):
    phony = re.search(r"\.PHONY: ((?:.|\\\n)*?)\n(?!\t)", makefile)[1].replace("\\\n", " ").split()
    listed = re.findall(r"^make (\S+) +\w", run_make().stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony)
    for name in ("course", "lab", "test", "test-all", "notebooks", "bench", "weights", "clean"):
        assert name in listed


def test_makefile_names_no_machine(makefile):
    text = makefile + (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.)$])/(home|root|tmp|usr|work|opt)\b|https?://", text)


def test_old_and_missing_python_get_one_sentence(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python, sentence in ((old, "needs Python 3.10 or newer"), ("no-python", "No no-python")):
        venv = tmp_path / "venv"
        done = run_make("install", f"PYTHON={python}", f"VENV={venv}")
        assert done.returncode == 2
        assert sentence in done.stdout
        assert not venv.exists()


def test_ci_runs_make_test_and_make_test_runs_everything():
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").endswith("make test\n")
    planned = run_make("--dry-run", "test", "VENV=v").stdout
    assert planned.splitlines()[-1] == "v/bin/python -m tools.test"
