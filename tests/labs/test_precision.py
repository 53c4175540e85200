"""`auto` settles on the precision that was measured to be faster, and records say which."""

import pytest
import torch
from torch import nn

from serial_lora_course.labs import precision
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.precision import autocast, settle_precision


class Objective(nn.Module):
    """A loss that dawdles in one of the two precisions, and draws random numbers as dropout does."""

    def __init__(self, slow_in: torch.dtype | None, width: int) -> None:
        super().__init__()
        self.layer, self.slow_in, self.calls = nn.Linear(width, width), slow_in, 0

    def forward(self, batch):
        self.calls += 1
        hidden = self.layer(batch)
        if hidden.dtype == self.slow_in:
            for _ in range(50):
                hidden = hidden + torch.rand(256, 256).sum().to(hidden.dtype) * 0
        return hidden.float().square().mean()


@pytest.fixture(autouse=True)
def _forget():
    precision._settled.clear()
    yield
    precision._settled.clear()


def settle(objective: nn.Module, width: int) -> str:
    return settle_precision("auto", objective, lambda: torch.ones(2, width))


@pytest.mark.parametrize(("slow_in", "faster"), [(torch.float32, "bf16"), (torch.bfloat16, "no")])
def test_the_faster_step_decides(monkeypatch, slow_in, faster):
    monkeypatch.setattr(precision, "product_speedup", lambda: 4.0)
    assert settle(Objective(slow_in, 8), 8) == faster


def test_it_is_measured_once_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(precision, "product_speedup", lambda: 4.0)
    objective, another = Objective(None, 8).eval(), Objective(None, 8)
    before, state = objective.layer.weight.clone(), torch.get_rng_state()
    settle(objective, 8)
    calls = objective.calls
    assert (
        settle(another, 8) == settle(objective, 8)
        and objective.calls == calls
        and another.calls == 0
    )
    assert torch.equal(objective.layer.weight, before) and objective.layer.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state) and not objective.training


def test_where_products_are_slower_no_step_is_tried(monkeypatch):
    monkeypatch.setattr(precision, "product_speedup", lambda: 0.1)
    objective = Objective(torch.float32, 8)
    assert settle(objective, 8) == "no" and objective.calls == 0


@pytest.mark.parametrize(("speedup", "enabled"), [(1.5, False), (3.0, True)])
def test_without_training_products_must_be_clearly_faster(monkeypatch, speedup, enabled):
    monkeypatch.setattr(precision, "product_speedup", lambda: speedup)
    assert autocast(torch.device("cpu"), "auto")._enabled == enabled


def test_an_explicit_precision_is_never_measured(monkeypatch):
    monkeypatch.setattr(precision, "product_speedup", lambda: pytest.fail("measured"))
    assert settle_precision("bf16") == "bf16" and settle_precision("no") == "no"


def test_records_say_what_was_used():
    options = {"seeds": 1, "amounts": 1, "epochs": 1, "min_steps": 1, "batch_size": 2}
    (record,) = run_lab("clip", ["nature"], ["serial_lora"], progress=False, **options)
    assert record.settings["precision"] in ("bf16", "no")
