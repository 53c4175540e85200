"""Where a model keeps its attention: one `AttentionSite` for each block.

Each family of models is one small function that walks a model and yields its sites, listed in
`FAMILIES` after them. To support another family, write one more such function: name the module
that hands the normed tokens to attention, and the weights of q, k, v and out. Add it there, or hand
it to `register_family` from anywhere else, such as a notebook (lesson 10 does).

The libraries are never imported here: a model of theirs can only exist where they already are.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from serial_lora.errors import SerialLoRAError


@dataclass(frozen=True)
class Projection:
    """One of q, k, v, out: `rows` rows of a weight, from row `start` on.

    Attributes:
        module: dotted name of the module that owns the weight.
        parameter: the weight's name in that module.
        start: first row (0, but for k and v in a fused qkv weight).
        rows: number of rows, the projection's outputs.
        columns: number of columns, the projection's inputs.
    """

    module: str
    parameter: str
    start: int
    rows: int
    columns: int

    def weight(self, model: nn.Module) -> nn.Parameter:
        """The whole weight these rows belong to."""
        return getattr(model.get_submodule(self.module), self.parameter)

    @property
    def row_slice(self) -> slice:
        return slice(self.start, self.start + self.rows)


@dataclass(frozen=True)
class AttentionSite:
    """One place where one stream of tokens enters attention.

    Attributes:
        name: dotted name of the transformer block; adapters become its children.
        tower: "image" or "text".
        block: the block's index in its tower, counted from 0.
        width: d, the size of a token.
        entry: dotted name of the module at which the normed tokens can be seen.
        argument: None if they are the entry's output (a norm layer); otherwise the name of the
            entry's keyword argument that carries them (an attention layer).
        stream: "image" or "text" where one block attends over both (SD3), else None.
        suffix: "", "_text" or "_2"; tells the adapters of a block with several sites apart.
        projections: "q", "k", "v" and, where the block has one, "out".
    """

    name: str
    tower: str
    block: int
    width: int
    entry: str
    projections: dict[str, Projection]
    argument: str | None = None
    stream: str | None = None
    suffix: str = ""

    @property
    def label(self) -> str:
        """A name that is unique in the model, such as "transformer_blocks.0_text"."""
        return self.name + self.suffix


def find_attention_sites(
    model: nn.Module,
    towers: Collection[str] | None = None,
    blocks: Collection[int] | None = None,
    stream: str = "image",
) -> list[AttentionSite]:
    """Every place in the model where an adapter can go, in the model's own order.

    Args:
        model: any module that holds blocks of a known family, at any depth.
        towers: "image", "text" or both; None for every tower there is.
        blocks: indices to keep in each tower; None for all.
        stream: tokens of a two-stream transformer (SD3) to keep: "image", "text" or "both".

    Raises:
        SerialLoRAError: if the model is of no known family, or a tower, block or stream that was
            asked for is not there; the sentence lists what is.
    """
    everything = [site for family in FAMILIES for site in family(model)]
    if not everything:
        raise SerialLoRAError(_nothing_found(model))
    _refuse_twice(everything)
    two_streams = any(site.stream for site in everything)
    if stream != "image" and not two_streams:
        raise SerialLoRAError(
            f'stream="{stream}" is for transformers with an image and a text stream (SD3); this '
            "model has one stream of tokens, so leave stream out (towers chooses the tower)."
        )
    sites = [s for s in everything if s.stream is None or stream in (s.stream, "both")]

    there = sorted({site.tower for site in sites})
    missing = sorted(set(towers or ()) - set(there))
    if missing:
        raise SerialLoRAError(
            f"this model has no {' or '.join(missing)} tower to adapt; it has: {', '.join(there)}."
        )
    sites = [site for site in sites if towers is None or site.tower in towers]

    indices = sorted({site.block for site in sites})
    missing_blocks = sorted(set(blocks or ()) - set(indices))
    if missing_blocks:
        raise SerialLoRAError(
            f"this model has no attention block {', '.join(map(str, missing_blocks))}; "
            f"its blocks are {indices[0]} to {indices[-1]}."
        )
    return [site for site in sites if blocks is None or site.block in blocks]


def _refuse_twice(sites: list[AttentionSite]) -> None:
    """Two adapters at one place would both act, without a word."""
    labels = [site.label for site in sites]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise SerialLoRAError(
            f"the attention of {twice} was found twice, so two families claim it; let the function "
            "that you registered pass over blocks that the package knows."
        )


def _nothing_found(model: nn.Module) -> str:
    seen = {type(m).__name__ for m in model.modules() if "attention" in type(m).__name__.lower()}
    has = f"its attention layers are {', '.join(sorted(seen)[:6])}" if seen else "it has none"
    return (
        f"no attention block of a known family was found in {type(model).__name__} ({has}); looked "
        "for the blocks of open_clip, segment-anything, diffusers' SD3 transformer, timm's vision "
        "transformers, and transformers' CLIP, ViT and DINOv2; to support another family, write "
        "one function as in serial_lora/attention.py for register_family (lesson 10 shows how)."
    )


# ------------------------------------------------------------------------------- small helpers


def _loaded(module: str, *names: str) -> tuple[type, ...]:
    """Those classes of a library, or nothing when the library has not been imported."""
    found = sys.modules.get(module)
    return tuple(getattr(found, name) for name in names if hasattr(found, name))


def _instances(model: nn.Module, kinds: tuple[type, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Every module of these classes with its name; a module reached twice comes once."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def _inside(model: nn.Module, name: str, kinds: tuple[type, ...]) -> bool:
    """Whether a module of these classes contains the module of this name."""
    parts = name.split(".")
    return any(
        isinstance(model.get_submodule(".".join(parts[:depth])), kinds)
        for depth in range(len(parts))
    )


def _index(name: str) -> int:
    """A block's position in its tower: the last number in its name."""
    return next((int(part) for part in reversed(name.split(".")) if part.isdigit()), 0)


def _child(name: str, path: str) -> str:
    return f"{name}.{path}" if name else path


def _linear(block: nn.Module, name: str, path: str) -> Projection:
    """The projection made by a plain linear layer of the block."""
    layer = block.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise SerialLoRAError(
            f"{_child(name, path)} is a {type(layer).__name__}, not a plain nn.Linear; take other "
            "adapters out of the model, or use it unquantized."
        )
    return Projection(_child(name, path), "weight", 0, layer.out_features, layer.in_features)


def _separate(block: nn.Module, name: str, **paths: str) -> dict[str, Projection]:
    return {part: _linear(block, name, path) for part, path in paths.items()}


def _fused(whole: Projection) -> dict[str, Projection]:
    """q, k and v out of one weight that holds all three, one below the other."""
    rows = whole.rows // 3
    return {
        part: Projection(whole.module, whole.parameter, third * rows, rows, whole.columns)
        for third, part in enumerate("qkv")
    }


# -------------------------------------------------------------------------------- the families


def open_clip_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """open_clip's own image and text towers.

    A block's attention is nn.MultiheadAttention or open_clip's own `Attention`, depending on the
    version and the model; `ln_1` and `in_proj_weight` are common to both.
    """
    blocks = _loaded(
        "open_clip.transformer", "ResidualAttentionBlock", "CustomResidualAttentionBlock"
    )
    image = _loaded("open_clip.transformer", "VisionTransformer")
    text = _loaded("open_clip.transformer", "TextTransformer", "MultimodalTransformer")
    text += _loaded("open_clip.model", "CLIP")
    for name, block in _instances(model, blocks):
        if hasattr(block, "ln_1_kv"):
            continue  # attends from text to picture: its keys are not the tokens of `ln_1`
        attention, attention_name = block.attn, _child(name, "attn")
        weight = attention.in_proj_weight
        plain = getattr(attention, "bias_k", None) is None
        if weight is None or not plain or getattr(attention, "add_zero_attn", False):
            raise SerialLoRAError(
                f"{attention_name} is not plain self-attention (it has widths of its own for keys "
                "and values, or extra tokens), so this model cannot be adapted."
            )
        whole = Projection(attention_name, "in_proj_weight", 0, *weight.shape)
        is_text = not _inside(model, name, image) and _inside(model, name, text)
        yield AttentionSite(
            name=name,
            tower="text" if is_text else "image",
            block=_index(name),
            width=weight.shape[1],
            entry=_child(name, "ln_1"),
            projections=_fused(whole) | _separate(block, name, out="attn.out_proj"),
        )


def segment_anything_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """segment-anything's image encoder, alone or inside `Sam`.

    The entry is `norm1`, before the picture is cut into windows: the zero tokens that pad the last
    windows come later and stay zero.
    """
    for name, block in _instances(
        model, _loaded("segment_anything.modeling.image_encoder", "Block")
    ):
        yield _fused_qkv_site(name, block)


def timm_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """timm's VisionTransformer with its standard block, alone or as an open_clip image tower."""
    standard = _loaded("timm.layers.attention", "Attention")
    for name, block in _instances(model, _loaded("timm.models.vision_transformer", "Block")):
        attention = block.attn
        gated = getattr(attention, "gate", None) is not None
        if not isinstance(attention, standard) or gated:
            what = "gated attention" if gated else type(attention).__name__
            raise SerialLoRAError(
                f"{_child(name, 'attn')} is {what}; of timm's vision transformers only those with "
                "the standard fused qkv attention can be adapted."
            )
        yield _fused_qkv_site(name, block)


def _fused_qkv_site(name: str, block: nn.Module) -> AttentionSite:
    """A pre-norm block with norm1, attn.qkv and attn.proj."""
    whole = _linear(block, name, "attn.qkv")
    return AttentionSite(
        name=name,
        tower="image",
        block=_index(name),
        width=whole.columns,
        entry=_child(name, "norm1"),
        projections=_fused(whole) | _separate(block, name, out="attn.proj"),
    )


def stable_diffusion_3_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """diffusers' SD3Transformer2DModel: joint attention over an image and a text stream.

    Tokens are caught as keyword arguments of the attention layer. Stable Diffusion 3.5 has blocks
    with a second attention over the image stream, which has its own norm, so its own site. The
    last block drops the text stream after attention and has no `to_add_out`.
    """
    image = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    text = {"q": "add_q_proj", "k": "add_k_proj", "v": "add_v_proj", "out": "to_add_out"}
    kinds = _loaded("diffusers.models.attention", "JointTransformerBlock")
    for name, block in _instances(model, kinds):
        for layer, stream, argument, suffix, paths in (
            ("attn", "image", "hidden_states", "", image),
            ("attn", "text", "encoder_hidden_states", "_text", text),
            ("attn2", "image", "hidden_states", "_2", image),
        ):
            attention = getattr(block, layer, None)
            if attention is None:
                continue
            if getattr(attention, "fused_projections", False):
                raise SerialLoRAError(
                    "the transformer's projections are fused; call unfuse_qkv_projections() first."
                )
            here = {
                part: f"{layer}.{path}"
                for part, path in paths.items()
                if getattr(attention, path.split(".")[0], None) is not None
            }
            projections = _separate(block, name, **here)
            yield AttentionSite(
                name=name,
                tower="image",
                block=_index(name),
                width=projections["q"].columns,
                entry=_child(name, layer),
                argument=argument,
                stream=stream,
                suffix=suffix,
                projections=projections,
            )


def transformers_clip_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """transformers' CLIPModel, CLIPVisionModel, CLIPTextModel and what is built on them."""
    kinds = _loaded("transformers.models.clip.modeling_clip", "CLIPEncoderLayer")
    for name, block in _instances(model, kinds):
        kind = getattr(block.self_attn.config, "model_type", "")
        yield _separate_site(
            name,
            block,
            norm="layer_norm1",
            tower="text" if "text" in kind else "image",
            q="self_attn.q_proj",
            k="self_attn.k_proj",
            v="self_attn.v_proj",
            out="self_attn.out_proj",
        )


def transformers_vit_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """transformers' ViT and DINOv2; their attention was laid out differently before version 5."""
    norms = {
        "layernorm_before": _loaded("transformers.models.vit.modeling_vit", "ViTLayer"),
        "norm1": _loaded("transformers.models.dinov2.modeling_dinov2", "Dinov2Layer"),
    }
    version_5 = dict(q="attention.q_proj", k="attention.k_proj", v="attention.v_proj")
    version_4 = dict(
        q="attention.attention.query", k="attention.attention.key", v="attention.attention.value"
    )
    for norm, kinds in norms.items():
        for name, block in _instances(model, kinds):
            if hasattr(block.attention, "q_proj"):
                paths = version_5 | {"out": "attention.o_proj"}
            else:
                paths = version_4 | {"out": "attention.output.dense"}
            yield _separate_site(name, block, norm=norm, tower="image", **paths)


def _separate_site(
    name: str, block: nn.Module, norm: str, tower: str, **paths: str
) -> AttentionSite:
    """A pre-norm block with four linear layers."""
    projections = _separate(block, name, **paths)
    return AttentionSite(
        name=name,
        tower=tower,
        block=_index(name),
        width=projections["q"].columns,
        entry=_child(name, norm),
        projections=projections,
    )


Family = Callable[[nn.Module], Iterable[AttentionSite]]

FAMILIES: list[Family] = [
    open_clip_sites,
    segment_anything_sites,
    timm_sites,
    stable_diffusion_3_sites,
    transformers_clip_sites,
    transformers_vit_sites,
]
_BUILT_IN = tuple(FAMILIES)


def register_family(family: Family) -> Family:
    """Have the package look for one more family of models, from now on in this process.

    What the function yields is checked each time it is used: the modules it names exist, and the
    rows it names are in their weights. Whether the tokens go where it says, only a comparison with
    dense W (I + B A) can tell.

    Args:
        family: model -> its sites; nothing for a model that is not of the family. A function of
            the same name that was registered before is replaced, so a notebook's cell can be run
            again.

    Returns:
        The same function, so that this can stand above it as a decorator.

    Raises:
        SerialLoRAError: it is no function, or has the name of one of the package's own.
    """
    name = getattr(family, "__name__", None)
    if not callable(family) or name is None:
        raise SerialLoRAError("register_family needs a function that takes a model.")
    if any(name == known.__name__ for known in _BUILT_IN):
        raise SerialLoRAError(f"{name} is one of the package's own families; name yours otherwise.")

    @functools.wraps(family)
    def checked(model: nn.Module) -> Iterator[AttentionSite]:
        for site in family(model):
            _refuse_misnamed(model, site, name)
            yield site

    FAMILIES[:] = [known for known in FAMILIES if known.__name__ != name] + [checked]
    return family


def _refuse_misnamed(model: nn.Module, site: AttentionSite, family: str) -> None:
    """Refuse a site that names what the model does not have."""
    modules = dict(model.named_modules(remove_duplicate=False))  # a shared one under each name
    wrong = [part for part in "qkv" if part not in site.projections]
    wrong += [name for name in (site.name, site.entry) if name not in modules]
    for part, projection in site.projections.items():
        weight = getattr(modules.get(projection.module), projection.parameter, None)
        fits = isinstance(weight, nn.Parameter) and weight[projection.row_slice].shape == (
            projection.rows,
            projection.columns,
        )
        if not fits or (part != "out" and projection.columns != site.width):
            wrong.append(f"{part} ({projection.module}.{projection.parameter})")
    if wrong:
        raise SerialLoRAError(
            f"{family} yields a site at {site.label} whose {wrong[0]} is not in the model, or of "
            "another size; compare it with named_modules()."
        )


def shared_weights(model: nn.Module, sites: list[AttentionSite]) -> bool:
    """Whether one weight serves as a projection at two sites."""
    places = [
        (id(projection.weight(model)), projection.start)
        for site in sites
        for projection in site.projections.values()
    ]
    return len(places) != len(set(places))


def attention_layers(model: nn.Module, site: AttentionSite) -> list[nn.Module]:
    """The layers whose own raw parameters hold a projection (not nn.Linear layers)."""
    owners = dict.fromkeys(projection.module for projection in site.projections.values())
    layers = [model.get_submodule(name) for name in owners]
    return [layer for layer in layers if not isinstance(layer, nn.Linear)]
