"""When two results are one: what must not pass for equal, and what may."""

from fractions import Fraction
from math import nan

import pytest
import torch

from serial_lora_course.checking.comparing import same

HOLE = torch.tensor([nan, 1.0])


@pytest.mark.parametrize(
    ("got", "value"),
    [
        (HOLE, torch.tensor([0.0, 1.0])),
        (torch.tensor([0.0, 1.0]), HOLE),
        (nan, 0.0),
        ([1, 2, 3], [1, 2]),
        ([1], [1, 2]),
        (torch.zeros(2, 1), torch.zeros(2)),
        (torch.tensor([1.0, 1.0002]), torch.ones(2)),
        (1.0002, 1.0),
        (Fraction(1, 3), Fraction(333_333, 1_000_000)),
        ({1, 2}, {1, 2, 3}),
    ],
)
def test_what_is_not_the_same(got, value):
    assert not same(got, value, 1e-5)


@pytest.mark.parametrize(
    ("got", "value"),
    [
        (HOLE, HOLE.clone()),
        ((1.0, torch.ones(2)), [1, torch.ones(2) + 1e-6]),
        (1_000_001.0, 1_000_000.0),
        (torch.tensor([1e6 + 1.0, 1.0]), torch.tensor([1e6, 0.0])),  # of the largest entry
    ],
)
def test_what_is_the_same(got, value):
    assert same(got, value, 1e-5)
