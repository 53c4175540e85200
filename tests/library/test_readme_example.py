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

class Block(nn.Module):
    def __init__(self, width=64, heads=4):
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
    def forward(self, x):
        tokens = self.norm(x)
        q, k, v = (f(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for f in (self.q, self.k, self.v))
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

torch.manual_seed(0)
model = nn.Sequential(Block(), Block())
x = torch.randn(2, 5, 64)
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
assert count_parameters(model).adapter == 2 * 2 * 32 * 64
assert not torch.allclose(adapted, base, atol=1e-4)
assert torch.allclose(model(x), adapted, atol=1e-5)
assert torch.equal(eject(model)(x), base)
"""


def python(program: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def readme_example() -> str:
    """README's first block of Python."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition("```python\n")[2].partition("```")[0]


def test_readmes_example_runs_on_a_plain_model_without_any_other_library(tmp_path):
    lines = readme_example().splitlines(keepends=True)
    (place,) = [number for number, line in enumerate(lines) if line.startswith("...")]
    lines[place] = A_TRAINING_LOOP
    python(WITHOUT_THE_REST + A_PLAIN_MODEL + "".join(lines) + WHAT_HOLDS, tmp_path)
