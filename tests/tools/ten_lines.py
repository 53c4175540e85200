"""Train, save, load and merge with the installed library and nothing of the course: a script."""

import copy
import sys

import torch

from serial_lora import (
    SerialLoRAConfig,
    inject,
    load_adapter,
    lora_plus_groups,
    merge,
    save_adapter,
)

layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
fresh, tokens = copy.deepcopy(model), torch.randn(3, 5, 32)
inject(model, SerialLoRAConfig(rank=4))
optimizer = torch.optim.AdamW(lora_plus_groups(model, lr=1e-2, ratio=16))
for _ in range(3):
    optimizer.zero_grad()
    model(tokens).pow(2).mean().backward()
    optimizer.step()
assert not torch.allclose(model(tokens), fresh(tokens))
save_adapter(model, "pairs.safetensors")
load_adapter(fresh, "pairs.safetensors")
merge(fresh)
torch.testing.assert_close(fresh(tokens), model(tokens), rtol=1e-4, atol=1e-5)
assert not [name for name in sys.modules if name.startswith("serial_lora_course")]
print("The library works.")
