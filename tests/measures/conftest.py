"""One seed for every test here, and both methods for those that ask."""

from __future__ import annotations

import pytest
import torch

from serial_lora import LoRAConfig, SerialLoRAConfig


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.fixture(params=[SerialLoRAConfig, LoRAConfig], ids=["serial_lora", "lora"])
def method(request) -> type:
    return request.param
