"""When two results are one: what must not pass for equal, and what may."""

from fractions import Fraction
from math import nan

import pytest
import torch

from serial_lora_course.checking.comparing import same

HOLE = torch.tensor([nan, 1.0])


@pytest.mark.parametrize(
    ("got", "value", "expected"),
    [
        (HOLE, HOLE.clone(), True),
        (HOLE, torch.tensor([0.0, 1.0]), False),
        (torch.tensor([0.0, 1.0]), HOLE, False),
        (nan, 0.0, False),
        ([1, 2, 3], [1, 2], False),
        ([1], [1, 2], False),
        ((1.0, torch.ones(2)), [1, torch.ones(2) + 1e-6], True),
        (torch.zeros(2, 1), torch.zeros(2), False),
        (torch.tensor([1.0, 1.0002]), torch.ones(2), False),
        (torch.tensor([1e6 + 1.0, 1.0]), torch.tensor([1e6, 0.0]), True),  # of the largest entry
        (Fraction(1, 3), Fraction(333_333, 1_000_000), False),
    ],
)
def test_what_is_the_same(got, value, expected):
    assert same(got, value, 1e-5) is expected
