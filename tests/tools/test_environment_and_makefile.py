"""A Makefile that says what is missing, and plans what its help promises."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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


def test_make_test_runs_everything():
    planned = run_make("--dry-run", "test", "VENV=v").stdout
    assert planned.splitlines()[-1] == "v/bin/python -m tools.test"
