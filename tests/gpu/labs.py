"""The labs at the paper's size on a pretended GPU: steps of training, and what only looks at a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora_course.labs import clip, sam, sd3, sd3_pictures, training
from serial_lora_course.labs.config import LabConfig
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.labs.sam_inputs import PreparedExample
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.judges import PAPER_CLIP, Judge
from serial_lora_course.models.sam import load_sam
from serial_lora_course.models.sd3 import Sd3Backbone
from tests.gpu.pretended import DEVICE, KIND, Taken, pretended_gpu
from tests.models import sd3_models
from tests.models.architectures import ARCHITECTURES

#: What is put into a model. One more here is tested with every lab, and has a column in the tables.
METHODS: dict[str, Callable[..., Any]] = {
    "LoRA": LoRAConfig,
    "Serial LoRA": SerialLoRAConfig,
    "LoRA, both places": partial(LoRAConfig, parts=("q", "k", "v", "out", "fc1", "fc2")),
    "Serial LoRA, both places": partial(SerialLoRAConfig, places=("attention", "feed_forward")),
}
CLASSES, BOXES = 101, 3  # CLIP's prompts; the boxes on each of SAM's pictures
WHOLE = {"clip": 9, "sam": BOXES, "sd3": 0}  # read: the longest prompt's last position; boxes

# ------------------------------------------------------- objectives, each with n examples for it


def of_clip(config: LabConfig, n: int) -> tuple[nn.Module, Any]:
    model = load_clip("paper", config.model_name, None).model
    tokens = torch.empty(CLASSES, model.context_length, dtype=torch.long)
    pictures = torch.empty(n, 3, *model.visual.image_size)
    return clip.CLIPObjective(model, tokens), (pictures, torch.empty(n, dtype=torch.long))


def of_sam(config: LabConfig, n: int) -> tuple[nn.Module, Any]:
    model = load_sam("paper", None).model
    return sam.SamObjective(model, config.gradient_checkpointing), [photograph()] * n


def photograph() -> PreparedExample:
    picture = torch.empty(3, 768, 1024, dtype=torch.uint8)
    truth = torch.empty(BOXES, 768, 1024, dtype=torch.bool)
    return PreparedExample(picture, torch.empty(BOXES, 4), truth, (480, 640))


def of_sd3(config: LabConfig, n: int) -> tuple[nn.Module, Any]:
    side, read = config.resolution // 8, prompts(n)
    latent, noise = torch.empty(n, 16, side, side), torch.empty(n, 16, side, side)
    batch = sd3.TrainingExample(latent, read.tokens, read.pooled, noise, torch.empty(n))
    return sd3.StyleObjective(transformer(), "plain", config.gradient_checkpointing), batch


def transformer() -> nn.Module:
    """As `load_sd3` opens it."""
    return ARCHITECTURES["sd3"].build().bfloat16().eval()


def prompts(n: int) -> sd3.Prompts:
    tokens = torch.empty(n, 77 + 77, 4096, dtype=torch.bfloat16)
    return sd3.Prompts(tokens, torch.empty(n, 2048, dtype=torch.bfloat16))


def step(
    lab: str,
    method: str = "Serial LoRA",
    spoil: Callable[[nn.Module], AbstractContextManager] = nullcontext,
    **changes: Any,
) -> Taken:
    """What the second of two steps of the real training loop takes.

    Args:
        spoil: puts something wrong into the objective.
        changes: of the lab's settings; of a batch in several parts, one part is a step here.
    """
    config = replace(get_lab(lab).configs["paper"], precision="bf16", **changes)
    made = {"clip": of_clip, "sam": of_sam, "sd3": of_sd3}[lab]
    with warnings.catch_warnings(), pretended_gpu(WHOLE[lab]) as gpu, ExitStack() as stack:
        warnings.simplefilter("ignore")  # weights that were never trained look so
        stack.enter_context(patch.object(training, "this_device", lambda: torch.device(DEVICE)))
        objective, batch = made(config, config.batch_size // config.accumulation)
        inject(objective.model, METHODS[method](rank=config.rank, dropout=config.dropout))
        stack.enter_context(spoil(objective))

        def look_back(*_: Any) -> None:
            gpu.taken.kept = gpu.live - gpu.taken.before

        def look_for_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            learning = [p for group in optimizer.param_groups for p in group["params"]]
            gpu.taken.silent = sum(p.grad is None for p in learning)

        objective.register_forward_pre_hook(lambda *_: gpu.begin())
        objective.register_forward_hook(look_back)
        stack.callback(register_optimizer_step_pre_hook(look_for_gradients).remove)
        twice = {"parts": lambda wanted: 1, "batches": lambda *wanted: [batch, batch]}
        training.train(objective, SimpleNamespace(identity=(), **twice), config.training(steps=2))
        return gpu.taken


# --------------------------------------------------------------------------- what is only looked at

Looks = tuple[nn.Module, dict[str, Callable[[], Any]]]
"""A model, and by their names the ways in which a lab looks at it."""


def at_clip() -> Looks:
    backbone = replace(load_clip("paper", weights=None), test_transform=lambda picture: picture)
    test = [(torch.empty(3, 224, 224), 0)] * 128
    data = SimpleNamespace(test=test, prompts=lambda template: [""] * CLASSES)
    return backbone.model, {"measure 128 pictures": lambda: clip.classify(backbone, data, "")}


def at_sam() -> Looks:
    backbone, boxes = load_sam("paper", None), np.array([[10, 20, 300, 400]] * BOXES)
    seen = SimpleNamespace(masks=np.zeros((BOXES, 480, 640), bool), boxes=boxes)

    def measure() -> None:
        with torch.autocast(KIND, torch.bfloat16):  # as `SamLab.measure`
            sam.picture_scores(backbone, None, [(photograph(), seen)])

    return backbone.model, {"measure a picture": measure}


def at_sd3() -> Looks:
    backbone, judge, picture = sd3_backbone(), Judge(), Image.new("RGB", (600, 500))
    way_in = partial(torch.empty, 3, 224, 224)
    judge.clip = replace(load_clip("paper", PAPER_CLIP, None), test_transform=lambda _: way_in())
    judge.clip.model.to(DEVICE)
    draw = partial(sd3_pictures.draw, backbone, prompts(4), range(4), empty=prompts(1))
    decode = partial(sd3_pictures.decode_latents, backbone)
    return backbone.model, {
        "read 4 prompts": lambda: sd3_pictures.read_prompts(backbone, ["a cat"] * 4),
        "encode a picture": lambda: sd3_pictures.encode_pictures(backbone, [picture], 512),
        "draw 4 pictures in 2 steps": lambda: draw(steps=2, guidance=7.0, resolution=512),
        "decode 4 pictures": lambda: decode(torch.empty(4, 16, 64, 64)),
        "judge 4 pictures": lambda: judge.clip_scores([picture] * 4, ["a cat"] * 4),
    }


def sd3_backbone() -> Sd3Backbone:
    """SD3 medium with all its parts, as their configurations on the hub say, and the tests' tokenizers."""
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "projection_dim": 1280}
    sizes |= {"num_hidden_layers": 32, "num_attention_heads": 20}
    smaller = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768}
    clips = CLIPTextConfig(num_attention_heads=12, **smaller), CLIPTextConfig(**sizes)
    wide = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    encoders = [CLIPTextModelWithProjection(each) for each in clips]
    encoders.append(T5EncoderModel(T5Config(**wide, feed_forward_proj="gated-gelu")))
    widths = {"block_out_channels": (128, 256, 512, 512), "norm_num_groups": 32}
    latents = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
    autoencoder = sd3_models.autoencoder_of(4, layers_per_block=2, **widths, **latents)
    pipeline = sd3_models.official_pipeline(
        transformer(), AutoencoderKL(**autoencoder).eval(), *(e.bfloat16().eval() for e in encoders)
    )
    pipeline.set_progress_bar_config(disable=True)
    return Sd3Backbone(pipeline.transformer, "sd3-medium", "paper", pipeline, 77)


def looked(lab: str) -> dict[str, Taken]:
    """What each way to look at a model takes."""
    tokens = partial(torch.empty, CLASSES, 77, dtype=torch.long)
    room = {"free_memory": lambda device: 2**40, "release_memory": lambda device: None}
    with (
        pretended_gpu(WHOLE[lab]) as gpu,
        patch.multiple(sd3_pictures, **room),
        ExitStack() as stack,
    ):
        for kind in (clip, sam):
            stack.enter_context(patch.object(kind, "loader_workers", lambda scale: 0))
        stack.enter_context(patch.object(clip, "prompt_tokens", lambda *given: tokens()))
        model, ways = {"clip": at_clip, "sam": at_sam, "sd3": at_sd3}[lab]()
        inject(model, SerialLoRAConfig(rank=32)).to(DEVICE)
        taken = {}
        for name, look in ways.items():
            gpu.begin()
            look()
            taken[name] = gpu.taken
    return taken
