"""One list of dependencies in two files, and a Makefile that says what is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_conda_brings_python_and_pip_the_rest(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, rest = environment["dependencies"]
    assert (pip, rest) == ("pip", {"pip": ["-e .[course]"]})
    assert project["optional-dependencies"]["test"][0] == "serial-lora[course]"
    oldest, beyond = re.fullmatch(r"python>=3\.(\d+),<3\.(\d+)", python).groups()
    assert project["requires-python"] == f">=3.{oldest}"
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python 3.{oldest} to 3.{int(beyond) - 1}" in page


def run_make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


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
