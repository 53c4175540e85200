"""What the labs' tests share."""

import pytest

from serial_lora_course.labs import lab


@pytest.fixture(autouse=True)
def no_base_is_known(monkeypatch):
    """No test takes the base of another for its own."""
    monkeypatch.setattr(lab, "_measured", {})
