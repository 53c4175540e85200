"""What a process computes on: precision, memory, a queue for a class's card, and settings that fit."""

import math
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from torch import nn

from serial_lora_course.labs import device, fit, sd3_pictures
from serial_lora_course.labs.device import GIB, MissingError, autocast, settle_precision
from serial_lora_course.labs.registry import LABS, get_lab

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # never touched: it is only asked for its kind


@pytest.mark.parametrize(
    ("kind", "native", "expected"),
    [("cpu", True, "no"), ("mps", True, "no"), ("cuda", True, "bf16"), ("cuda", False, "no")],
)
def test_auto_is_bfloat16_only_where_a_gpu_or_the_weights_have_it(
    monkeypatch, kind, native, expected
):
    monkeypatch.setattr(device, "this_device", lambda: torch.device(kind))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert settle_precision("auto") == settle_precision("auto", nn.Linear(2, 2)) == expected
    assert settle_precision("bf16") == "bf16" and settle_precision("no") == "no"
    half = nn.Linear(2, 2).bfloat16()
    assert autocast(CPU, "auto", half)._enabled and not autocast(CPU, "no", half)._enabled


@pytest.mark.parametrize(
    ("share", "expected"),
    [("1", 50 + 20 - 12), ("0.25", 25 - 12), ("0.1", 0)],  # what others leave; the share; nothing
)
def test_a_process_fills_its_share_of_a_gpu_and_no_more(monkeypatch, share, expected):
    shares: list[float] = []
    answers = SimpleNamespace(
        mem_get_info=lambda device: (50, 100),
        memory_allocated=lambda device: 12,
        memory_reserved=lambda device: 20,
        set_per_process_memory_fraction=lambda share, device: shares.append(share),
    )
    monkeypatch.setattr(torch, "cuda", answers)
    monkeypatch.setenv(device.SHARE, share)
    assert device.free_memory(GPU) == expected
    assert shares == [float(share)]


def test_text_encoders_that_do_not_fit_stay_on_the_cpu(monkeypatch):
    monkeypatch.setattr(sd3_pictures, "free_memory", lambda device: 7)
    backbone, encoder = SimpleNamespace(model=SimpleNamespace(device=GPU)), nn.Linear(2, 1)
    with sd3_pictures.on_device(backbone, encoder, None) as chosen:
        assert chosen == encoder.weight.device == CPU


def test_a_training_waits_for_another_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(device.QUEUE, str(tmp_path / "gpu.lock"))
    monkeypatch.setattr(device, "PATIENCE", 0.05)
    begun = threading.Event()

    def train():
        with device.turn(GPU):
            begun.set()

    with FileLock(tmp_path / "gpu.lock"):
        waiting = threading.Thread(target=train)
        waiting.start()
        assert not begun.wait(0.3)
    waiting.join(10)
    assert begun.is_set()
    assert "Somebody else's training" in capsys.readouterr().out


@pytest.mark.parametrize("lab", LABS)
def test_less_memory_means_a_thriftier_setting_and_at_last_a_sentence(lab):
    config, choices = get_lab(lab).configs["paper"], fit.CHOICES[lab]
    needs = [needed for _, needed in choices]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) == len(needs)
    for chosen, needed in choices:
        found = fit.fitted(lab, "paper", config, math.ceil(needed * GIB))
        assert found == replace(config, **chosen)
    with pytest.raises(MissingError, match="GiB to fill"):
        fit.fitted(lab, "paper", config, int(needs[-1] * GIB) - 1)
    assert fit.fitted(lab, "tiny", config, 0) is config
