"""The README's example of a model in plain PyTorch runs as it stands, and learns."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AFTERWARDS = """
import sys
from serial_lora import disabled, unmerge

assert not {"matplotlib", "pandas", "transformers", "serial_lora_course"} & set(sys.modules)
merged = model(x)
torch.testing.assert_close(unmerge(model)(x), merged, atol=1e-4, rtol=1e-4)
with disabled(model):
    assert (model(x) - target).square().mean() > loss
"""


def test_the_example_runs_with_the_library_alone():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n((?:(?!```).)*class Block.*?)```", readme, re.DOTALL)
    command = [sys.executable, "-c", example + AFTERWARDS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
