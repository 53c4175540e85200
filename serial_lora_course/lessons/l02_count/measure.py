"""The real models without weights, a step of CLIP, and the most that a call has allocated."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import pandas as pd
import torch
from diffusers import SD3Transformer2DModel
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from segment_anything import sam_model_registry
from torch import Tensor, nn

WIDTH = 768  # of a block of CLIP for pictures
MODELS: dict[str, Callable[[], nn.Module]] = {
    "CLIP": lambda: open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu")),
    "SAM": sam_model_registry["vit_b"],
    "SD3": lambda: SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    ),
    "block": partial(ResidualAttentionBlock, WIDTH, 12, act_layer=QuickGELU),  # CLIP's, of pictures
}
#: What is kept -> the operations in autograd that keep it.
KEEPERS = {
    "norms:\ninputs": ("NativeLayerNorm",),
    "attention:\nq, k, v, output": ("ScaledDotProduct",),
    "activation function:\nh and the sigmoid": ("Mul", "Sigmoid"),
    "matrices that learn:\ninputs": ("Addmm", "Mm"),
}
BETWEEN = "between A and B"


def clip_loss(clip: nn.Module, pictures: int = 1) -> Tensor:
    """One number, of random pictures and as many captions of zeros."""
    captions = torch.zeros(pictures, 77, dtype=torch.long)
    picture, caption, _ = clip(torch.rand(pictures, 3, 224, 224), captions)
    return (picture * caption).sum()


def in_parts(table: pd.DataFrame) -> dict[str, float]:
    """The widths of the notebook's table, summed by what keeps them."""
    found = dict.fromkeys([*KEEPERS, BETWEEN], 0.0)
    others = [*KEEPERS][1]  # attention, which a machine may compute in several operations
    for operation, _, shape, widths in table.itertuples(index=False):
        parts = (part for part, known in KEEPERS.items() if operation.startswith(known))
        thin = operation.startswith("Mm") and shape[-1] < WIDTH
        found[BETWEEN if thin else next(parts, others)] += widths
    return found


def adam_step(model: nn.Module) -> None:
    """CLIP's step with one picture, from the meta device; sizes count, so all numbers are zeros."""
    learn = [p for p in model.to_empty(device="cpu").parameters() if p.requires_grad]
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.zero_()
    adam = torch.optim.Adam(learn)
    for p in learn:
        p.grad = torch.zeros_like(p)
    adam.step()  # it makes the moments
    adam.zero_grad()
    clip_loss(model).backward()
    adam.step()


def with_peak(run: Callable[[], int]) -> tuple[int, int]:
    """What `run()` returns, and the most bytes that it had allocated at once, by PyTorch's profiler."""
    gc.collect()  # a model of before may still be there
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it writes of its start and its end
    with torch.profiler.profile(profile_memory=True) as profile:
        result = run()
    with TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    return result, max(accumulate(change for _, change in changes))
