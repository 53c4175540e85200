"""The library alone: README's example with torch, numpy and safetensors, and nothing loaded else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import serial_lora

ROOT = Path(serial_lora.__file__).parents[1]
HEAVY = (
    "matplotlib pandas ipywidgets IPython open_clip diffusers transformers timm accelerate scipy "
    "torchmetrics torchvision peft serial_lora_course"
).split()

WITHOUT_THE_REST = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}))"  # None: not there

A_PLAIN_MODEL = """
import torch
from torch import nn
from torch.nn import functional as F
from tests.library.tiny_models import PlainBlock
torch.manual_seed(0)
model = nn.Sequential(PlainBlock(), PlainBlock())
x = torch.randn(2, 5, 32)
base = model(x).detach()
"""

A_TRAINING_LOOP = """
for _ in range(3):
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
adapted = model(x).detach()
"""

WHAT_HOLDS = """
from pathlib import Path
from serial_lora import count_parameters, eject
assert Path("pets.safetensors").stat().st_size > 0
assert count_parameters(model).adapter == 2 * 2 * 32 * 32
assert not torch.allclose(adapted, base, atol=1e-4)
assert torch.allclose(model(x), adapted, atol=1e-5)
assert torch.equal(eject(model)(x), base)
"""


def test_readmes_example_runs_on_a_plain_model_without_any_other_library(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]  # the first block of Python
    lines = example.splitlines(keepends=True)
    (place,) = [number for number, line in enumerate(lines) if line.startswith("...")]
    lines[place] = A_TRAINING_LOOP
    program = WITHOUT_THE_REST + A_PLAIN_MODEL + "".join(lines) + WHAT_HOLDS
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
