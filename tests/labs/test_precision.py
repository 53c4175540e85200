"""One rule for the precision: bfloat16 where a GPU has it natively, float32 elsewhere, or what is asked for."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from serial_lora_course.labs import precision
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.precision import autocast, settle_precision
from serial_lora_course.labs.registry import LABS

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "native", "expected"),
    [("cpu", True, "no"), ("mps", True, "no"), ("cuda", True, "bf16"), ("cuda", False, "no")],
)
def test_auto_is_bfloat16_only_where_a_gpu_has_it(monkeypatch, device, native, expected):
    here = SimpleNamespace(device=torch.device(device))
    monkeypatch.setattr(precision, "process_state", lambda: here)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert settle_precision("auto") == settle_precision("auto", nn.Linear(2, 2)) == expected
    assert settle_precision("bf16") == "bf16" and settle_precision("no") == "no"


def test_weights_in_bfloat16_compute_in_bfloat16(monkeypatch):
    monkeypatch.setattr(
        precision, "process_state", lambda: SimpleNamespace(device=torch.device("cpu"))
    )
    half, single = nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2)
    assert autocast(CPU, "auto", half)._enabled and not autocast(CPU, "auto", single)._enabled
    assert autocast(CPU, "bf16")._enabled and not autocast(CPU, "no", half)._enabled


def test_records_say_what_was_used(monkeypatch):
    monkeypatch.setitem(LABS, "halves", ("tests.labs.fourth_lab", "Bright halves of pictures."))
    for asked, used in ((None, "no"), ("auto", "no"), ("bf16", "bf16")):
        asked = dict(precision=asked, progress=False, min_steps=2)
        (record,) = run_lab("halves", ["halves"], ["serial_lora"], 50, 1, **asked)
        if asked["precision"] != "auto" or not torch.cuda.is_available():
            assert record.settings["precision"] == used
