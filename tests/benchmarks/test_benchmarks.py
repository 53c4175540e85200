"""The benchmark measures what it says."""

import pytest
import torch

from benchmarks.models import SUBJECTS
from benchmarks.steps import FLOOR, contestants, training_step


@pytest.mark.parametrize("key", SUBJECTS)
def test_methods_differ_by_their_adapter_and_nothing_else(key):
    """With its adapter at zero, every contestant gives the base model's output.

    And in the floor gradients flow through every block.
    """
    tiny = SUBJECTS[key](quick=True)
    expected = tiny.forward(tiny.model, tiny.batch)
    entries = contestants(tiny)
    assert len(entries) == 4 + tiny.goes_around
    for entry in entries.values():
        with torch.no_grad():
            for parameter in entry.adapter:
                parameter.zero_()
        torch.testing.assert_close(entry.forward(), expected, atol=2e-5, rtol=1e-4)
    count = {m: sum(p.numel() for p in entry.adapter) for m, entry in entries.items()}
    assert count["LoRA on q, k, v, out"] == 4 * count["Serial LoRA"] > count[FLOOR] == 0
    floor, seen = entries[FLOOR], []

    def watch(module, inputs, output):
        first = output[0] if isinstance(output, tuple) else output
        first.register_hook(lambda gradient: seen.append(gradient.abs().sum().item()))

    tiny.first_norm(floor.model).register_forward_hook(watch)
    training_step(floor.forward, floor.adapter)()
    assert len(seen) == 1 and seen[0] > 0
    assert all(parameter.grad is None for parameter in floor.model.parameters())
