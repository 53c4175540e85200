"""What lesson 10 falls back to passes its checks."""

import pytest

from serial_lora_course.checks.checking import run_check
from serial_lora_course.labs import many


@pytest.mark.parametrize(
    ("number", "answer"),
    [("10.1", many.add_pairs), ("10.2", many.chain_pairs), ("10.3", many.adapt_each)],
)
def test_it_passes(number, answer):
    assert run_check(number, answer)
