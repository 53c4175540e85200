"""Does a run fit the card? Estimated from the shapes of its tensors, before anything is moved there.

    plan = fit(lab, look_at_card(device))
    plan.config, plan.needed                    # the first choice that fits, and its bytes

Nothing is measured: the model is copied without values, and a step of it computes nothing. Left out
is what shapes do not tell (the driver, the allocator's gaps, what an operation holds while it
runs), so some room is kept free for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from serial_lora.injection import inject
from serial_lora_course.labs.card import GIB, Card, MissingError
from serial_lora_course.labs.config import LabConfig
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.memory import give_shapes, saved_activation_bytes, without_values
from serial_lora_course.labs.methods import METHODS, Method

KEPT_FREE = {"tiny": 0.25 * GIB, "paper": 1.5 * GIB}  # for what shapes do not tell
TRAINED_BYTES = 4 * 4  # for each trained number: itself, its gradient, AdamW's two averages
CLIP_TOKENS = 77

#: Lab -> changes of its settings, each thriftier than the one before; the first that fits is taken.
CHOICES: dict[str, tuple[dict[str, Any], ...]] = {
    "clip": tuple({"accumulation": parts} for parts in (1, 2, 4, 8, 16)),
    "sam": ({"gradient_checkpointing": False}, {"gradient_checkpointing": True}),
    "sd3": (
        {"gradient_checkpointing": False},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "resolution": 256},
    ),
}


@dataclass(frozen=True)
class Plan:
    """Settings that fit.

    Attributes:
        config: the settings.
        chosen: those of them that were chosen to fit.
        needed: bytes on the card, estimated.
    """

    config: LabConfig
    chosen: Mapping[str, Any]
    needed: int


def fit(lab: Lab, card: Card) -> Plan:
    """The first of the lab's choices with which LoRA, the largest method, fits the card.

    At tiny scale everything fits, and the settings stay as they are.

    Raises:
        MissingError: none of them fits.
    """
    tiny = lab.backbone.scale == "tiny"
    for chosen in ({},) if tiny else CHOICES[lab.name]:
        config = replace(lab.config, **chosen)
        needed = step_bytes(lab, config)
        if tiny or needed <= card.free:
            return Plan(config, chosen, needed)
    raise MissingError(
        f"{card}, and the thriftiest setting takes about {needed / GIB:.1f} GiB: shut down other "
        "notebooks and programs that use this memory, or work at tiny scale."
    )


def step_bytes(lab: Lab, config: LabConfig, method: Method = METHODS["lora"]) -> int:
    """Bytes that a training step takes: the frozen model, what is trained, and what is kept for the
    way back; with LoRA, the largest method, unless another is named."""
    frozen = list(lab.backbone.model.parameters())
    # Autocast keeps bfloat16 copies of float32 weights while a step lasts.
    weights = sum(p.nbytes + (2 * p.numel() if p.dtype == torch.float32 else 0) for p in frozen)
    adapted = _adapted_shapes(lab, config, method)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    kept = kept_bytes(lab, config, method)
    return int(weights + trained * TRAINED_BYTES + kept + KEPT_FREE[lab.backbone.scale])


def kept_bytes(lab: Lab, config: LabConfig, method: Method = METHODS["lora"]) -> int:
    """Bytes that a step keeps for the way back, in bfloat16."""
    return _STEPS[lab.name](lab, config, _adapted_shapes(lab, config, method))


def _adapted_shapes(lab: Lab, config: LabConfig, method: Method) -> nn.Module:
    some = {"dropout": config.dropout, "blocks": config.blocks, **lab.adapter_options()}
    adapter = method.config(config.rank, **some)
    return inject(without_values(lab.backbone.model), adapter).train()


def _kept(model: nn.Module, forward: Callable[[], object], checkpointed: list | tuple = ()) -> int:
    """Bytes kept by a forward pass of a model with shapes only, in bfloat16."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            forward()

    return saved_activation_bytes(run, model, checkpointed)


def clip_shapes(lab: Lab, model: nn.Module, pictures: int, classes: int) -> tuple[tuple, ...]:
    """Of so many pictures, of so many prompts as long as the longest, and of the prompts' mask."""
    side, width = model.visual.image_size[0], model.ln_final.weight.shape[0]
    length = int(lab.backbone.tokenizer(lab.data.prompts()).argmax(-1).max()) + 1
    return (pictures, 3, side, side), (classes, length, width), (length, length)


def sd3_inputs(model: nn.Module, count: int, side: int, text_tokens: int) -> dict[str, Tensor]:
    """So many latents of a side, each with its prompt, as the transformer gets them; without values."""
    shape = model.config
    return {
        "hidden_states": torch.empty(count, shape.in_channels, side, side),
        "encoder_hidden_states": torch.empty(
            count, CLIP_TOKENS + text_tokens, shape.joint_attention_dim
        ),
        "pooled_projections": torch.empty(count, shape.pooled_projection_dim),
        "timestep": torch.empty(count),
    }


def _clip(lab: Lab, config: LabConfig, model: nn.Module) -> int:
    count, classes = -(-config.batch_size // config.accumulation), len(lab.data.prompts())
    shapes = clip_shapes(lab, model, count, classes)
    with FakeTensorMode(allow_non_fake_inputs=True):
        give_shapes(model)
        pictures, prompts, mask = map(torch.empty, shapes)
        return _kept(
            model,
            lambda: (model.encode_image(pictures), model.transformer(prompts, attn_mask=mask)),
        )


def _sam(lab: Lab, config: LabConfig, model: nn.Module) -> int:
    from serial_lora_course.labs.sam import encode

    encoder = model.image_encoder
    side, grid, width = encoder.img_size, *encoder.pos_embed.shape[2:]
    count = config.batch_size // config.accumulation

    def softmax(blocks: list[nn.Module]) -> int:
        """What autocast on a GPU keeps in float32 as well, of blocks that attend to everything."""
        heads = sum(block.attn.num_heads for block in blocks if not block.window_size)
        return 4 * count * heads * grid**4

    with FakeTensorMode(allow_non_fake_inputs=True):
        give_shapes(model)
        pictures = torch.empty(count, 3, side, side)
        if not config.gradient_checkpointing:
            return _kept(model, lambda: encode(model, pictures)) + softmax(list(encoder.blocks))
        tokens = torch.empty(count, grid, grid, width, requires_grad=True)
        one_of_each = {block.window_size: block for block in encoder.blocks}.values()
        anew = [_kept(model, partial(block, tokens)) + softmax([block]) for block in one_of_each]
        inputs = _kept(model, lambda: encode(model, pictures, True), list(encoder.blocks))
        return inputs + max(anew)  # one block at a time is computed anew


def _sd3(lab: Lab, config: LabConfig, model: nn.Module) -> int:
    side = config.resolution // lab.backbone.pipeline.vae_scale_factor
    shape = config.batch_size // config.accumulation, side, lab.backbone.text_tokens
    kept = sd3_kept(model, *shape)
    if not config.gradient_checkpointing:
        return kept
    # One block at a time is computed anew.
    return sd3_kept(model, *shape, checkpointing=True) + kept // len(model.transformer_blocks)


def sd3_kept(
    model: nn.Module, count: int, side: int, text_tokens: int, checkpointing: bool = False
) -> int:
    """Bytes that an SD3 transformer without values keeps for the way back."""
    if checkpointing:
        model.enable_gradient_checkpointing()
    with FakeTensorMode(allow_non_fake_inputs=True):
        give_shapes(model)
        inputs = sd3_inputs(model, count, side, text_tokens)
        blocks = list(model.transformer_blocks) if checkpointing else ()
        return _kept(model, lambda: model(**inputs, return_dict=False), blocks)


_STEPS: dict[str, Callable[[Lab, LabConfig, nn.Module], int]] = {
    "clip": _clip,
    "sam": _sam,
    "sd3": _sd3,
}
