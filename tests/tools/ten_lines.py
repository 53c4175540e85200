"""Train, save, load and merge with the library as it is installed, and nothing of the course: a script."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from serial_lora import (
    SerialLoRAConfig,
    inject,
    load_adapter,
    lora_plus_groups,
    merge,
    save_adapter,
)


def base() -> torch.nn.Module:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


model, tokens = base(), torch.randn(3, 5, 32)
before = model(tokens)
inject(model, SerialLoRAConfig(rank=4))
optimizer = torch.optim.AdamW(lora_plus_groups(model, lr=1e-2, ratio=16))
for _ in range(3):
    optimizer.zero_grad()
    model(tokens).pow(2).mean().backward()
    optimizer.step()
adapted = model(tokens)
assert not torch.allclose(adapted, before)

other = base()
with TemporaryDirectory() as folder:
    save_adapter(model, Path(folder, "pairs.safetensors"))
    load_adapter(other, Path(folder, "pairs.safetensors"))
merge(other)
torch.testing.assert_close(other(tokens), adapted, rtol=1e-4, atol=1e-5)
assert not [name for name in sys.modules if name.startswith("serial_lora_course")]
print("The library works.")
