"""What the lessons work with at either scale, and what is chosen to fit the card."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from serial_lora_course.labs import card, fit, sd3_inputs
from serial_lora_course.labs.card import GIB, Card, MissingError, look_at_card
from serial_lora_course.labs.registry import LABS, get_lab

# --- the card ------------------------------------------------------------------------------------


def pretend_cuda(monkeypatch, free: int, total: int, used: int, reserved: int) -> list[float]:
    """A GPU, as far as its memory is asked for; returns the shares that are set."""
    shares: list[float] = []
    answers = SimpleNamespace(
        mem_get_info=lambda device: (free, total),
        memory_allocated=lambda device: used,
        memory_reserved=lambda device: reserved,
        set_per_process_memory_fraction=lambda share, device: shares.append(share),
    )
    monkeypatch.setattr(card.torch, "cuda", answers)
    monkeypatch.setattr(card, "device_name", lambda: "a GPU")
    return shares


@pytest.mark.parametrize(
    ("share", "expected"),
    [("1", 50 + 20 - 12), ("0.25", 25 - 12), ("0.1", 0)],  # what others leave; the share; nothing
)
def test_a_process_fills_its_share_of_a_gpu_and_no_more(monkeypatch, share, expected):
    shares = pretend_cuda(monkeypatch, free=50, total=100, used=12, reserved=20)
    monkeypatch.setenv(card.SHARE, share)
    assert look_at_card(torch.device("cuda")).free == expected
    assert shares == [float(share)]


def test_text_encoders_that_do_not_fit_stay_on_the_cpu(monkeypatch):
    monkeypatch.setattr(sd3_inputs, "look_at_card", lambda device: Card("a GPU", 7))
    backbone = SimpleNamespace(model=SimpleNamespace(device=torch.device("cuda")))
    encoder = torch.nn.Linear(2, 1)
    with sd3_inputs.on_device(backbone, encoder, None) as device:
        assert device == encoder.weight.device == torch.device("cpu")


# --- what fits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS)
def test_less_memory_means_a_thriftier_setting_and_at_last_a_sentence(lab):
    config, choices = get_lab(lab).configs["paper"], fit.CHOICES[lab]
    needs = [needed for _, needed in choices]
    assert needs == sorted(needs, reverse=True) and len(set(needs)) == len(needs)
    for chosen, needed in choices:
        plan = fit.fit(lab, "paper", config, Card("a GPU", math.ceil(needed * GIB)))
        assert (plan.chosen, plan.needed) == (chosen, needed)
        assert plan.config == replace(config, **chosen)
    with pytest.raises(MissingError, match="a GPU"):
        fit.fit(lab, "paper", config, Card("a GPU", int(needs[-1] * GIB) - 1))
    assert fit.fit(lab, "tiny", config, Card("a GPU", 0)).config is config
