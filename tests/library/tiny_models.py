"""Tiny random models of every family, and for each an independent dense reference.

The reference knows nothing of the package: `dense_weights` makes W (I + s B A) (Serial LoRA) or
W + s B A (LoRA) of the weights by hand, with the layers' names spelled out here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from serial_lora import LoRAConfig, SerialLoRAConfig, inject

RANK, SCALE = 4, 0.7
FORWARD = partial(SerialLoRAConfig, places=("feed_forward",))
BOTH = partial(SerialLoRAConfig, places=("attention", "feed_forward"))
EVERY = partial(LoRAConfig, parts=("q", "k", "v", "out", "fc1", "fc2"))
Parts = dict[str, tuple[str, int, int]]  # part: (weight, first row, rows)
Block = tuple[
    str, str, Parts
]  # its name, the suffix of its adapters, and the parts of its attention


@dataclass(frozen=True)
class Tiny:
    """A family's tiny model.

    Attributes:
        constructor: of the model.
        run: model -> outputs as one flat tensor.
        names: every adapted block, or a function that finds them in the model.
        towers: those that it has.
        stream: of tokens, that adapters go to.
        forward: the layers of each block's feed-forward: what reads the tokens, what gates where that
            is a layer of its own, and the last one.
    """

    constructor: Callable[[], nn.Module]
    run: Callable[[nn.Module], Tensor]
    names: list[Block] | Callable[[nn.Module], list[Block]]
    towers: tuple[str, ...] = ("image",)
    stream: str = "image"
    forward: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        return noisy(self.constructor)


def noisy(constructor: Callable[[], nn.Module]) -> nn.Module:
    """The same model each time, every parameter moved a little, so that no bias or gate is zero."""
    torch.manual_seed(0)
    model = constructor()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=_generator(parameter.numel()))
            parameter.add_(0.05 * noise)
    return model.eval()


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=_generator())


def _tokens(vocabulary: int, length: int) -> Tensor:
    return torch.randint(1, vocabulary, (2, length), generator=_generator())


def _fused(block: str, layer: str, out: str, width: int = 32) -> tuple:
    parts = {p: (f"{block}.{layer}", i * width, width) for i, p in enumerate("qkv")}
    return block, "", parts | {"out": (f"{block}.{out}.weight", 0, width)}


def _three_fused(block: str, layer: str, out: str) -> list[tuple]:
    """Three blocks, whose number stands in their name."""
    return [_fused(block.format(i), layer, out) for i in range(3)]


def _separate(block: str, suffix: str, width: int = 32, **layers: str) -> tuple:
    return block, suffix, {p: (f"{block}.{layer}.weight", 0, width) for p, layer in layers.items()}


# ------------------------------------------------------------------------------------ open_clip


def _open_clip(**vision: object) -> nn.Module:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision_config = dict(layers=3, width=32, head_width=8, patch_size=8, image_size=16)
    text_config = dict(context_length=6, vocab_size=40, width=32, heads=4, layers=2)
    return CLIP(32, CLIPVisionCfg(**vision_config | vision), CLIPTextCfg(**text_config))


def _run_open_clip(model: nn.Module) -> Tensor:
    image = model.encode_image(_pictures(16))
    text = model.encode_text(_tokens(40, 6))
    return torch.cat([image.flatten(), text.flatten()])


_CLIP_NAMES = [
    _fused(f"visual.transformer.resblocks.{i}", "attn.in_proj_weight", "attn.out_proj")
    for i in range(3)
] + [_fused(f"transformer.resblocks.{i}", "attn.in_proj_weight", "attn.out_proj") for i in range(2)]

# ------------------------------------------------------------------- segment-anything and timm


def _segment_anything() -> nn.Module:
    from segment_anything.modeling import ImageEncoderViT

    return ImageEncoderViT(
        img_size=40,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=4,
        out_chans=8,
        use_rel_pos=True,
        window_size=3,  # a 5 x 5 grid is padded to 6 x 6
        global_attn_indexes=(2,),
    )


def _timm(**options) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=5, **options
    )


# -------------------------------------------------------------------------------- diffusers SD3


def _sd3(dual: tuple[int, ...] = (), qk_norm: str | None = None) -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=24,
        caption_projection_dim=32,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=8,
        dual_attention_layers=dual,
        qk_norm=qk_norm,
    )


def run_sd3(model: nn.Module) -> Tensor:
    return model(
        hidden_states=torch.randn(2, 4, 8, 8, generator=_generator(1)),
        encoder_hidden_states=torch.randn(2, 5, 24, generator=_generator(2)),
        pooled_projections=torch.randn(2, 16, generator=_generator(3)),
        timestep=torch.tensor([3.0, 700.0]),
        return_dict=False,
    )[0]


def _sd3_image(i: int, attention: str = "attn", suffix: str = "") -> tuple:
    return _separate(
        f"transformer_blocks.{i}",
        suffix,
        q=f"{attention}.to_q",
        k=f"{attention}.to_k",
        v=f"{attention}.to_v",
        out=f"{attention}.to_out.0",
    )


def _sd3_text(i: int, last: bool) -> tuple:
    layers = dict(q="attn.add_q_proj", k="attn.add_k_proj", v="attn.add_v_proj")
    out = {} if last else {"out": "attn.to_add_out"}
    return _separate(f"transformer_blocks.{i}", "_text", **layers, **out)


_SD3_IMAGE = [_sd3_image(i) for i in range(3)]
_SD3_TEXT = [_sd3_text(i, last=i == 2) for i in range(3)]

# --------------------------------------------------------------------------------- transformers

_VISION = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=16,
    patch_size=8,
)
_TEXT = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    vocab_size=40,
    max_position_embeddings=6,
    bos_token_id=0,
    eos_token_id=39,
)


def _hf_clip() -> nn.Module:
    config = dict(text_config=_TEXT, vision_config=_VISION, projection_dim=16)
    return _hf("CLIPModel", "CLIPConfig", config)


def _run_hf_clip(model: nn.Module) -> Tensor:
    output = model(input_ids=_tokens(40, 6), pixel_values=_pictures(16))
    return torch.cat([output.image_embeds.flatten(), output.text_embeds.flatten()])


def _hf(model_class: str, config_class: str, config: dict) -> nn.Module:
    import transformers

    return getattr(transformers, model_class)(getattr(transformers, config_class)(**config))


def _run_hf_vision(model: nn.Module) -> Tensor:
    return model(pixel_values=_pictures(16))[0]


def _hf_blocks(model: nn.Module) -> list[tuple]:
    """transformers names its layers differently from version to version: look at this one's."""
    blocks = [name for name, _ in model.named_modules() if re.search(r"layers?\.\d+$", name)]
    clip = {p: f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")}
    version_5 = {p: f"attention.{p}_proj" for p in "qkv"} | {"out": "attention.o_proj"}
    version_4 = {p[0]: f"attention.attention.{p}" for p in ("query", "key", "value")}
    version_4 |= {"out": "attention.output.dense"}
    known = dict(model.named_modules())
    for layers in (clip, version_5, version_4):
        if f"{blocks[0]}.{layers['q']}" in known:
            return [_separate(name, "", **layers) for name in blocks]
    raise AssertionError("unknown layout")


# ----------------------------------------------------------------------------- plain PyTorch


class PlainAttention(nn.Module):
    """Four linear layers, as lesson 03 writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class PlainBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = PlainAttention()
        self.mlp = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def _plain() -> nn.Module:
    return nn.Sequential(*(PlainBlock() for _ in range(3)))


def _encoder(batch_first: bool, norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        32, 4, 48, dropout=0.0, batch_first=batch_first, norm_first=norm_first, activation="gelu"
    )
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=not norm_first)


def _run_encoder(model: nn.Module) -> Tensor:
    """Without a mask, and with padding at the end, which reads another path in evaluation."""
    x = torch.randn(2, 5, 32, generator=_generator())
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    first = model.layers[0].self_attn.batch_first
    outputs = [model(x if first else x.transpose(0, 1))]
    outputs.append(model(x if first else x.transpose(0, 1), src_key_padding_mask=padding))
    plain, padded = (output if first else output.transpose(0, 1) for output in outputs)
    return torch.cat([plain.flatten(), padded[~padding].flatten()])


def _torchvision() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 8, 3, 4, 32, 48, num_classes=5)


_ENCODER = _three_fused("layers.{}", "self_attn.in_proj_weight", "self_attn.out_proj")
_VIT = _three_fused("blocks.{}", "attn.qkv.weight", "attn.proj")
_PLAIN = [
    _separate(f"{i}", "", **{p: f"attention.{p}" for p in ("q", "k", "v", "out")}) for i in range(3)
]
_TORCHVISION = _three_fused(
    "encoder.layers.encoder_layer_{}", "self_attention.in_proj_weight", "self_attention.out_proj"
)
_BOTH = ("image", "text")
MLP, _C_FC, _FF = ("mlp.fc1", "mlp.fc2"), ("mlp.c_fc", "mlp.c_proj"), ("ff.net.0.proj", "ff.net.2")


def _run_plain(model: nn.Module) -> Tensor:
    return model(torch.randn(2, 5, 32, generator=_generator()))


def _run_pictures(model: nn.Module) -> Tensor:
    return model(_pictures(16))


TINY: dict[str, Tiny] = {
    "plain": Tiny(_plain, _run_plain, _PLAIN, forward=("mlp.0", "mlp.2")),
    "encoder_post_norm": Tiny(
        lambda: _encoder(batch_first=True, norm_first=False),
        _run_encoder,
        _ENCODER,
        forward=("linear1", "linear2"),
    ),
    "encoder_pre_norm_sequence_first": Tiny(
        lambda: _encoder(batch_first=False, norm_first=True),
        _run_encoder,
        _ENCODER,
        forward=("linear1", "linear2"),
    ),
    "torchvision": Tiny(_torchvision, _run_pictures, _TORCHVISION, forward=("mlp.0", "mlp.3")),
    "open_clip": Tiny(_open_clip, _run_open_clip, _CLIP_NAMES, _BOTH, forward=_C_FC),
    "open_clip_own_attention": Tiny(
        lambda: _open_clip(block_type="custom", qk_norm=True),
        _run_open_clip,
        _CLIP_NAMES,
        _BOTH,
        forward=_C_FC,
    ),
    "segment_anything": Tiny(
        _segment_anything,
        lambda model: model(_pictures(40)),
        _VIT,
        forward=("mlp.lin1", "mlp.lin2"),
    ),
    "timm": Tiny(_timm, _run_pictures, _VIT, forward=MLP),
    "sd3_image": Tiny(_sd3, run_sd3, _SD3_IMAGE, forward=_FF),
    "sd35_both": Tiny(
        lambda: _sd3(dual=(0, 1), qk_norm="rms_norm"),
        run_sd3,
        _SD3_IMAGE + _SD3_TEXT + [_sd3_image(i, "attn2", "_2") for i in range(2)],
        stream="both",
        forward=_FF,
    ),
    "hf_clip": Tiny(_hf_clip, _run_hf_clip, _hf_blocks, _BOTH, forward=MLP),
    "hf_vit": Tiny(
        lambda: _hf("ViTModel", "ViTConfig", _VISION), _run_hf_vision, _hf_blocks, forward=MLP
    ),
}


# ------------------------------------------------------------------------ the dense reference


def blocks_of(tiny: Tiny, model: nn.Module) -> list[Block]:
    return tiny.names(model) if callable(tiny.names) else tiny.names


def fill_adapters(model: nn.Module, seed: int = 7, size: float = 0.1) -> nn.Module:
    """Give every B random values, as if it had been trained."""
    generator = _generator(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return model


def adapted(tiny: Tiny, method: type, **options) -> nn.Module:
    """The family's model with adapters of this method, as if they had been trained."""
    return fill_adapters(inject(tiny.build(), method(rank=RANK, stream=tiny.stream, **options)))


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    assert not [name for name in before if not torch.equal(before[name], after[name])]


def feed_forwards(tiny: Tiny, model: nn.Module) -> dict[str, Parts]:
    """The layers of each block's feed-forward, by the name that Serial LoRA's pair there has."""
    weights, found = dict(model.named_parameters()), {}
    for block, suffix, _ in blocks_of(tiny, model):
        layers = tiny.forward
        if suffix == "_text":
            layers = tuple(layer.replace("ff.", "ff_context.") for layer in layers)
        parts = ("fc1", "gate", "fc2") if len(layers) == 3 else ("fc1", "fc2")
        layers = {
            part: f"{block}.{layer}.weight" for part, layer in zip(parts, layers, strict=False)
        }
        # the last text stream of SD3 and second attentions have none
        if layers and layers["fc1"] in weights and suffix != "_2":
            here = {part: (weight, 0, len(weights[weight])) for part, weight in layers.items()}
            found[f"{block}.serial_lora_ff{suffix}"] = here
    return found


def places_of(tiny: Tiny, model: nn.Module) -> dict[str, Parts]:
    """The parts of every place, by the name that Serial LoRA's pair there has."""
    blocks = blocks_of(tiny, model)
    attention = {f"{block}.serial_lora{suffix}": parts for block, suffix, parts in blocks}
    return attention | feed_forwards(tiny, model)


def dense_weights(
    tiny: Tiny, plain: nn.Module, tensors: Mapping[str, Tensor], scale: float = SCALE
) -> dict[str, Tensor]:
    """The weights of a plain model with the change that is made of these pairs, by hand."""
    weights = {key: parameter.detach() for key, parameter in plain.named_parameters()}
    for serial, parts in places_of(tiny, plain).items():
        for part, (weight, first, rows) in parts.items():
            lora = re.sub("serial_lora(_ff)?", f"lora_{part}", serial)
            pair = lora if f"{lora}.lora_A" in tensors else serial
            if f"{pair}.lora_A" not in tensors or (pair == serial and part in ("out", "fc2")):
                continue
            before, here, behind = weights[weight].tensor_split((first, first + rows))
            change = scale * tensors[f"{pair}.lora_B"] @ tensors[f"{pair}.lora_A"]
            here = here + (here @ change if pair == serial else change)
            weights[weight] = torch.cat([before, here, behind])
    return weights


@torch.no_grad()
def write_dense(tiny: Tiny, plain: nn.Module, adapted: nn.Module, scale: float) -> nn.Module:
    """A plain model with the adapted weights written into it."""
    for name, weight in dense_weights(tiny, plain, adapted.state_dict(), scale).items():
        plain.get_parameter(name).copy_(weight)
    return plain
