"""torch.compile with its default back end, in one graph: outputs, gradients and how often it compiles."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from serial_lora import SerialLoRAConfig, activate, adapter_parameters, disabled, set_scale
from tests.library.test_named_adapters import run_image_tower, two_adapters
from tests.library.tiny_models import TINY


@pytest.mark.slow
@pytest.mark.parametrize("name", ["open_clip", "segment_anything", "sd3_image", "timm"])
def test_trains_and_infers_as_eager_code_does(name):
    """Trained and read: two programs, and none more for another adapter, scale or no adapter at all.

    `disabled` has a program of its own, once: the base, at the base's speed.
    """
    torch.compiler.reset()
    counters.clear()
    tiny = TINY[name]
    run = run_image_tower if name == "open_clip" else tiny.run
    model = two_adapters(tiny, SerialLoRAConfig)[0].train()
    eager = copy.deepcopy(model)
    method = "encode_image" if name == "open_clip" else "forward"
    setattr(model, method, torch.compile(getattr(model, method), fullgraph=True))

    def same_gradients():
        pairs = []
        for each in (model, eager):
            output = run(each)
            loss, parameters = output.square().mean(), list(adapter_parameters(each))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)  # the text tower's
            pairs.append([output.detach(), *(g for g in gradients if g is not None)])
        for ours, theirs in zip(*pairs, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)

    def same_outputs():
        with torch.no_grad():
            torch.testing.assert_close(run(model), run(eager), rtol=1e-4, atol=5e-5)

    same_gradients()
    same_outputs()
    made = counters["stats"]["unique_graphs"]
    for other, scale in (("a", 0.3), ("b", 2.0), ("a", 0.0)):
        for each in (model, eager):
            set_scale(activate(each, other), scale)
        same_gradients()
        same_outputs()
    assert counters["stats"]["unique_graphs"] == made == 2
    for _ in range(3):
        with disabled(model), disabled(eager):
            same_outputs()
        same_outputs()
    assert counters["stats"]["unique_graphs"] == made + 1
