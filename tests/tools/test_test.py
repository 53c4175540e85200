"""What `python -m tools.test` would run, and that it stops at the first failure, offline."""

import subprocess
from pathlib import Path

import pytest

from tests.doors import through_the_door
from tools import notebooks
from tools import test as gate

ROOT = Path(__file__).resolve().parents[2]


def planned(*arguments: str) -> list[str]:
    return [" ".join(step) for step in gate.planned(list(arguments))]


def test_without_options_everything_but_the_slow_tests_runs():
    every = planned()
    assert [step.split()[0] for step in every] == [
        "ruff",
        "ruff",
        "pytest",
        "tools.notebooks",
        "pytest",
    ]
    assert "not slow" in every[2] and every[2].endswith(" tests")
    assert "not slow" not in planned("--all")[2]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"{notebooks.JOINED}/{path.name}" in every[-1]
        assert f"notebooks/{path.name} " in f"{planned('--all')[-1]} "
        assert f"solutions/{path.name} " in f"{planned('--all')[-1]} "


def test_options_choose_parts():
    assert len(planned("--lint")) == 2
    assert planned("--library")[0].endswith("tests/library")
    (first_five,) = planned("--lessons", "00-04")
    assert first_five.count(".ipynb") == 10 and "notebooks/04_" in first_five
    (one,) = planned("--lessons", "06")
    assert one.count(".ipynb") == 2
    assert planned("--lessons") == planned("--all")[-1:]


@pytest.mark.parametrize("lessons", ["77", "98-99", "x"])
def test_a_lesson_that_is_not_there(lessons):
    ran = through_the_door(gate.main, "--lessons", lessons)
    assert ran.exit_code == 2 and lessons in ran.output


def test_the_first_failure_ends_the_run_and_everything_is_offline(monkeypatch, capsys):
    seen = []

    def run(command, cwd, env):
        seen.append((command, cwd, env))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    assert gate.main(["--lint"]) == 3
    ((command, folder, environment),) = seen
    assert command[1:4] == ["-m", "ruff", "check"] and folder == ROOT
    assert environment["HF_HUB_OFFLINE"] == environment["OMP_NUM_THREADS"] == "1"
    assert "offline" in environment["PYTHONPATH"]
