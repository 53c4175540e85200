"""What `python -m tools.test` would run, and that it stops at the first failure, offline."""

import subprocess

from tools import ROOT, notebooks
from tools import test as gate


def test_every_test_and_every_lesson_is_run():
    usual, everything = (" ".join(gate.planned(words)[-1]) for words in ([], ["--all"]))
    assert "-m not slow" in usual and usual.endswith(" tests")
    assert "not slow" not in everything and everything.endswith(" tests")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"{notebooks.JOINED}/{path.name}" in usual
        assert f"notebooks/{path.name}" in everything and f"solutions/{path.name}" in everything


def test_the_first_failure_ends_the_run_and_everything_is_offline(monkeypatch, capsys):
    seen = []

    def run(command, cwd, env):
        seen.append((command, cwd, env))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    assert gate.main(["--lint"]) == 3
    ((command, folder, environment),) = seen
    assert "ruff" in command and folder == ROOT
    assert environment["HF_HUB_OFFLINE"] == environment["OMP_NUM_THREADS"] == "1"
    assert "offline" in environment["PYTHONPATH"]
