"""The README's example with the installed library, and nothing of what the course needs: a script."""

import copy
import re
import sys
from pathlib import Path

import torch

OTHERS = """matplotlib pandas ipywidgets IPython open_clip diffusers transformers timm accelerate scipy
torchmetrics torchvision peft serial_lora_course""".split()
sys.modules.update(dict.fromkeys(OTHERS))  # None: they cannot be imported
README = Path(__file__).parents[2] / "README.md"
TRAINING = """
for _ in range(3):
    optimizer.zero_grad()
    model(tokens).square().mean().backward()
    optimizer.step()
adapted = model(tokens).detach()
"""

torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
fresh, tokens = copy.deepcopy(model), torch.randn(3, 5, 32)
base = fresh(tokens)
example = README.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
(loop,) = re.findall(r"^\.\.\. .*\n", example, re.MULTILINE)
exec(example.replace(loop, TRAINING))

from serial_lora import count_parameters, eject, load_adapter  # noqa: E402

assert count_parameters(model).adapter == 2 * 2 * 32 * 32
assert not torch.allclose(adapted, base, atol=1e-4)  # noqa: F821  (by the loop)
for each in (model, load_adapter(fresh, "pets.safetensors")):  # merged, and loaded
    torch.testing.assert_close(each(tokens), adapted, rtol=1e-4, atol=1e-5)  # noqa: F821
    assert torch.equal(eject(each)(tokens), base)
print("The library works.")
