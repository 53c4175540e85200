"""What the tests of pretraining share."""

from itertools import count
from types import SimpleNamespace

import pytest

from data_scripts.pretraining import loop


@pytest.fixture
def clock(monkeypatch):
    """Every step of a pretraining takes one second, and it is measured every two or three."""
    ticks = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    monkeypatch.setattr(loop, "FIRST_MEASURE", 1.5)
    monkeypatch.setattr(loop, "BETWEEN_MEASURES", 2.5)
