"""What `python -m tools.test` would run, and that it stops at the first failure, offline."""

import subprocess
from pathlib import Path

from tools import notebooks
from tools import test as gate

ROOT = Path(__file__).resolve().parents[2]
STEMS = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]


def planned(*arguments: str) -> list[str]:
    return [" ".join(step) for step in gate.planned(list(arguments))]


def test_every_test_and_every_lesson_is_run():
    *_, join, last = planned()
    assert join.endswith("tools.notebooks join")
    assert "not slow" in last and last.endswith(" tests")
    everything = planned("--all")[-1]
    assert "not slow" not in everything and everything.endswith(" tests")
    for stem in STEMS:
        assert f"{notebooks.JOINED}/{stem}.ipynb" in last
        assert f"notebooks/{stem}.ipynb" in everything
        assert f"solutions/{stem}.ipynb" in everything


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
