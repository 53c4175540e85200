"""The real models without weights, what autograd keeps by operation, and the most that a call has allocated."""

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
import torch
from diffusers import SD3Transformer2DModel
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from segment_anything import sam_model_registry
from torch import Tensor, nn

from serial_lora_course.models.sd3 import load_sd3

MODELS: dict[str, Callable[[], nn.Module]] = {
    "CLIP": lambda: open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu")),
    "SAM": sam_model_registry["vit_b"],
    "SD3": lambda: SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    ),
    "small SD3": lambda: load_sd3("tiny").model,
    "block": partial(ResidualAttentionBlock, 768, 12, act_layer=QuickGELU),  # CLIP's, of pictures
}
#: What is kept -> the operations in autograd that keep it, in the order in which they are asked.
KEEPERS = {
    "norms": ("NativeLayerNorm",),
    "attention": ("ScaledDotProduct",),
    "activation function": ("Mul", "Sigmoid"),
    "inputs of what learns": ("Addmm", "Mm"),
}
BETWEEN = "between A and B"


def picture_loss(sd3: nn.Module) -> Tensor:
    """The mean square of what SD3 makes of noise, with a prompt of noise."""
    known, draw = sd3.config, partial(torch.randn, generator=torch.Generator().manual_seed(0))
    picture = draw(1, known.in_channels, known.sample_size, known.sample_size)
    words, pooled = draw(1, 7, known.joint_attention_dim), draw(1, known.pooled_projection_dim)
    return sd3(picture, words, pooled, torch.tensor([500])).sample.square().mean()


def clip_loss(clip: nn.Module, pictures: int = 1) -> Tensor:
    """One number, of random pictures and as many captions of zeros."""
    captions = torch.zeros(pictures, 77, dtype=torch.long)
    picture, caption, _ = clip(torch.rand(pictures, 3, 224, 224), captions)
    return (picture * caption).sum()


def by_operation(output: Tensor, model: nn.Module) -> dict[str, float]:
    """What the graph behind `output` keeps, by the operation, in sizes of `output`; the model's own left out."""
    seen = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    nodes = [output.grad_fn]
    for node in nodes:  # grows while it is read
        nodes += [next_ for next_, _ in node.next_functions if next_ and next_ not in nodes]
    found = dict.fromkeys([*KEEPERS, BETWEEN], 0.0)
    for what, operations in KEEPERS.items():
        for node in (node for node in nodes if node.name().startswith(operations)):
            values = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
            for value in (v for v in values if isinstance(v, Tensor) and v.numel() > 1):
                storage = value.untyped_storage()
                thin = operations[-1] == "Mm" and value.shape[-1] < output.shape[-1]
                size = 0 if storage.data_ptr() in seen else storage.nbytes()
                found[BETWEEN if thin else what] += size / output.nbytes
                seen.add(storage.data_ptr())
    return found


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
