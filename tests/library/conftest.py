"""Every test here runs once for each family of models and, where it says so, each method."""

from __future__ import annotations

import pytest
import torch

from serial_lora import LoRAConfig, SerialLoRAConfig
from tests.library.tiny_models import TINY, Tiny


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    torch.manual_seed(0)


@pytest.fixture(params=list(TINY))
def tiny(request) -> Tiny:
    return TINY[request.param]


@pytest.fixture(params=[SerialLoRAConfig, LoRAConfig], ids=["serial_lora", "lora"])
def method(request) -> type:
    return request.param
