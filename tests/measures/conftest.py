"""One seed for every test here."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)
