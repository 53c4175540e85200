"""The code of docs/library.md and of the README runs, in the page's order, and does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import serial_lora
from serial_lora import attention
from tests.library.more_models import three
from tests.library.test_dense import assert_reversible, assert_values
from tests.library.tiny_models import TINY, Tiny, _separate, fill_adapters


class MyBlock(nn.Module):
    """Attention under names that nobody could guess."""

    def __init__(self) -> None:
        super().__init__()
        self.calm = nn.LayerNorm(16)
        self.ask, self.offer, self.carry, self.gather = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        tokens = self.calm(x)
        q, k, v = self.ask(tokens), self.offer(tokens), self.carry(tokens)
        return x + self.gather(nn.functional.scaled_dot_product_attention(q, k, v))


ROOT = Path(serial_lora.__file__).parents[1]


def snippets() -> list[str]:
    return re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text("utf-8"), re.S
    )


def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    build, generator = TINY["timm"].build, torch.Generator().manual_seed(0)
    pictures = torch.randn(3, 3, 16, 16, generator=generator)
    names = {
        "model": build(),
        "fresh_model": build(),
        "fresh": serial_lora.inject(build(), serial_lora.SerialLoRAConfig(16)),
        "batches": [(pictures, torch.tensor([0, 1, 2]))] * 3,
        "three_pictures": pictures,
        "backbone": build(),
        "same_backbone": build(),
        "third_backbone": build(),
    }
    snow = fill_adapters(serial_lora.inject(build(), serial_lora.SerialLoRAConfig(4)))
    serial_lora.save_adapter(snow, "snow.safetensors")
    base = build()(pictures)
    rest = (code for code in snippets() if "torchao" not in code and "my_sites" not in code)
    ten, back, several, off, with_peft, as_lora = rest

    exec(ten, names)
    adapted = names["model"](pictures).detach()
    assert (adapted - base).abs().max() > 1e-3
    exec(back, names)
    torch.testing.assert_close(names["fresh_model"](pictures), adapted, rtol=1e-4, atol=1e-5)
    exec(several, names)
    assert capsys.readouterr().out.startswith("['night'")
    torch.testing.assert_close(names["answers"][1], snow(pictures)[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(names["answers"][2], base[2], rtol=1e-4, atol=1e-5)
    exec(off, names)
    torch.testing.assert_close(names["base_answers"], base, rtol=1e-5, atol=1e-6)
    assert torch.equal(names["model"](pictures), base)

    exec(with_peft, names)
    exec(as_lora, names)
    torch.testing.assert_close(names["plain"](pictures), base, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(names["lora"](pictures), adapted, rtol=1e-4, atol=1e-5)


def test_the_part_on_bases_in_few_bits_runs(tmp_path, monkeypatch):
    pytest.importorskip("torchao", reason="torchao comes with pip install '.[quantized]'")
    monkeypatch.chdir(tmp_path)
    names = {"model_in_bits": TINY["timm"].build(), "same_model_in_floats": TINY["timm"].build()}
    names |= vars(serial_lora)
    (code,) = (code for code in snippets() if "torchao" in code)
    exec(code, names)


def test_the_part_on_a_family_of_ones_own_runs_and_is_exact(method, monkeypatch, tmp_path):
    monkeypatch.setattr(attention, "FAMILIES", list(attention.FAMILIES))
    names = {"MyBlock": MyBlock, "my_model": nn.Sequential(MyBlock())}
    names |= vars(serial_lora)
    with pytest.raises(serial_lora.SerialLoRAError, match="docs/library.md"):
        serial_lora.inject(nn.Sequential(MyBlock()), serial_lora.SerialLoRAConfig(2))
    (code,) = (code for code in snippets() if "my_sites" in code)
    exec(code, names)
    assert serial_lora.adapters(names["my_model"])
    layers = dict(q="ask", k="offer", v="carry", out="gather")
    blocks = [_separate(f"{number}", "", 16, **layers) for number in range(3)]
    tokens = torch.randn(2, 5, 16)
    tiny = Tiny(lambda: three(MyBlock), lambda model: model(tokens), blocks)
    assert_values(tiny, method(4))
    with torch.no_grad():
        assert_reversible(tiny, method(4), tmp_path)


# What the README's example needs: torch, numpy and safetensors, and nothing loaded else.
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
    text = (ROOT / "README.md").read_text("utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]  # the first block of Python
    lines = example.splitlines(keepends=True)
    (place,) = [number for number, line in enumerate(lines) if line.startswith("...")]
    lines[place] = A_TRAINING_LOOP
    program = WITHOUT_THE_REST + A_PLAIN_MODEL + "".join(lines) + WHAT_HOLDS
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
