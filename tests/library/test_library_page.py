"""The code of docs/library.md runs, in the page's order, and does what it says."""

from __future__ import annotations

import re
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
    rest = (code for code in snippets() if "my_sites" not in code)
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
