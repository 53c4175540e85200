"""What the tests of counts and pictures share."""

import pytest
from IPython.core.formatters import DisplayFormatter


@pytest.fixture
def capture_display(monkeypatch):
    """Collect what IPython would show, as a list of MIME dictionaries."""
    shown = []

    def display(*objects, raw=False, metadata=None, **_):
        for item in objects:
            data = item if raw else DisplayFormatter().format(item)[0]
            shown.append(data | ({"metadata": metadata} if metadata else {}))

    monkeypatch.setattr("IPython.display.display", display)
    return shown
