"""What `python -m tools.test` would run, and that it stops at the first failure, offline."""

from tools import ROOT, notebooks
from tools import test as gate


def test_every_test_and_every_lesson_is_run():
    usual, everything = (" ".join(gate.planned(words)[-1]) for words in ([], ["--all"]))
    assert "-m not slow" in usual and usual.endswith(" tests")
    assert "not slow" not in everything and everything.endswith(" tests")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"{notebooks.JOINED}/{path.name}" in usual
        assert f"notebooks/{path.name}" in everything and f"solutions/{path.name}" in everything
