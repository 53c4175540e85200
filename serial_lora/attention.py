"""Where a model keeps its attention: one `Site` for each block.

Most attention is found by its structure (`serial_lora.structure`); the families here know more than that
and come before it: open_clip has projections that are weights without a layer, segment-anything cuts
windows after its norm, and SD3 has two streams of tokens. Their libraries are never imported: a model
of theirs can only exist where they already are. To support a model that nothing here finds, write one
more function of that kind and hand it to `register_family` (docs/library.md does).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from torch import nn

from serial_lora.config import PLACES
from serial_lora.errors import SerialLoRAError
from serial_lora.feed_forward import blocks_without, feed_forward_sites
from serial_lora.sites import (
    Projection,
    Site,
    child_name,
    index_of,
    linear_projection,
    stacked,
)
from serial_lora.structure import structural_sites, tower_of


def open_clip_sites(model: nn.Module) -> Iterator[Site]:
    """open_clip's own image and text towers.

    `ln_1` and `in_proj_weight` are common to nn.MultiheadAttention and open_clip's own `Attention`.
    """
    blocks = _loaded(
        "open_clip.transformer", "ResidualAttentionBlock", "CustomResidualAttentionBlock"
    )
    modules = dict(model.named_modules())
    for name, block in _instances(model, blocks):
        if hasattr(block, "ln_1_kv"):
            continue  # attends from text to picture: its keys are not the tokens of `ln_1`
        weight = block.attn.in_proj_weight
        whole = Projection(child_name(name, "attn"), "in_proj_weight", 0, *weight.shape)
        yield Site(
            name=name,
            tower=tower_of(modules, name),
            block=index_of(name),
            width=weight.shape[1],
            entry=child_name(name, "ln_1"),
            projections=stacked(whole) | _separate(block, name, out="attn.out_proj"),
        )


def segment_anything_sites(model: nn.Module) -> Iterator[Site]:
    """segment-anything's image encoder, alone or inside `Sam`.

    The entry is `norm1`, before the picture is cut into windows: the zero tokens that pad the last
    windows come later and stay zero, and an adapter need not run on them.
    """
    kinds = _loaded("segment_anything.modeling.image_encoder", "Block")
    for name, block in _instances(model, kinds):
        whole = linear_projection(block, name, "attn.qkv")
        yield Site(
            name=name,
            tower="image",
            block=index_of(name),
            width=whole.columns,
            entry=child_name(name, "norm1"),
            projections=stacked(whole) | _separate(block, name, out="attn.proj"),
        )


def stable_diffusion_3_sites(model: nn.Module) -> Iterator[Site]:
    """diffusers' SD3Transformer2DModel: joint attention over an image and a text stream.

    Stable Diffusion 3.5 has blocks with a second attention over the image stream, which has its
    own norm, so its own site. The last block drops the text stream after attention and has no
    `to_add_out`.
    """
    image = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    text = {"q": "add_q_proj", "k": "add_k_proj", "v": "add_v_proj", "out": "to_add_out"}
    kinds = _loaded("diffusers.models.attention", "JointTransformerBlock")
    for name, block in _instances(model, kinds):
        for layer, stream, suffix, paths in (
            ("attn", "image", "", image),
            ("attn", "text", "_text", text),
            ("attn2", "image", "_2", image),
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
            yield Site(
                name=name,
                tower="image",
                block=index_of(name),
                width=projections["q"].columns,
                entry=None,
                stream=stream,
                suffix=suffix,
                projections=projections,
            )


def _separate(block: nn.Module, name: str, **paths: str) -> dict[str, Projection]:
    return {part: linear_projection(block, name, path) for part, path in paths.items()}


def _loaded(module: str, *names: str) -> tuple[type, ...]:
    """Those classes of a library, or nothing when the library has not been imported."""
    found = sys.modules.get(module)
    return tuple(getattr(found, name) for name in names if hasattr(found, name))


def _instances(model: nn.Module, kinds: tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """Every module of these classes with its name; a module reached twice comes once."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def find_sites(
    model: nn.Module,
    towers: Collection[str] | None = None,
    blocks: Collection[int] | None = None,
    stream: str = "image",
    places: Collection[str] = ("attention",),
) -> list[Site]:
    """Every place in the model where an adapter can go, in the model's own order.

    Args:
        model: any module that holds attention, at any depth.
        towers, blocks, stream, places: which to keep, as in the configurations.

    Raises:
        SerialLoRAError: if the model has no attention that is known, has some that cannot be
            adapted exactly, or a tower, block or stream that was asked for is not there; the
            sentence lists what is.
    """
    known = every_site(model, {"attention", *places})
    attention = [site for site in known if site.place == "attention"]
    if not attention:
        kinds = {type(m).__name__ for m in model.modules()}
        seen = sorted(kind for kind in kinds if "attention" in kind.lower())
        has = f"its attention layers are {', '.join(seen[:6])}" if seen else "none is named so"
        raise SerialLoRAError(
            f"no attention block that can be adapted was found in {type(model).__name__} ({has}); "
            "looked for nn.Linear layers that make q, k and v, for nn.MultiheadAttention, and for the "
            "blocks of open_clip, segment-anything and diffusers' SD3; for another layout write one "
            "function for register_family (docs/library.md shows how)."
        )
    everything = [site for site in known if site.place in places]
    if not all(any(site.place == place for site in everything) for place in places):
        raise SerialLoRAError(
            f"no feed-forward that can be adapted was found in {blocks_without(model, attention)[0]}: "
            "looked for an nn.Linear that widens tokens, or two, and one that narrows them again; adapt "
            "attention alone, or write one function for register_family."
        )
    two_streams = any(site.stream for site in everything)
    if stream != "image" and not two_streams:
        raise SerialLoRAError(
            f'stream="{stream}" is for transformers whose image and text streams are both known (SD3); '
            "of this model one stream is, so leave stream out (towers chooses the tower)."
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
            f"this model has no block {', '.join(map(str, missing_blocks))} to adapt; "
            f"its blocks are {indices[0]} to {indices[-1]}."
        )
    return [site for site in sites if blocks is None or site.block in blocks]


def every_site(model: nn.Module, places: Collection[str] = tuple(PLACES)) -> list[Site]:
    """Those of all towers, blocks and streams, attention first; empty if there is none."""
    known = [site for family in FAMILIES for site in family(model)]
    known += structural_sites(model, known)
    if "feed_forward" in places:
        known += feed_forward_sites(model, known)
    return sorted((s for s in known if s.place in places), key=lambda s: s.place != "attention")


Family = Callable[[nn.Module], Iterable[Site]]

FAMILIES: list[Family] = [open_clip_sites, segment_anything_sites, stable_diffusion_3_sites]


def register_family(family: Family) -> Family:
    """Have the package look for one more family of models, from now on in this process.

    What the function yields is checked each time it is used: the modules it names exist, and the
    rows it names are in their weights. Whether the tokens go where it says, only a comparison with
    dense W (I + B A) can tell.

    Args:
        family: model -> its sites; nothing for a model that is not of the family. One of the same
            name that was registered before is replaced, so a notebook's cell can be run again.

    Returns:
        The same function, so that this can stand above it as a decorator.
    """
    name = family.__name__

    @functools.wraps(family)
    def checked(model: nn.Module) -> Iterator[Site]:
        for site in family(model):
            _refuse_misnamed(model, site, name)
            yield site

    FAMILIES[:] = [known for known in FAMILIES if known.__name__ != name] + [checked]
    return family


def _refuse_misnamed(model: nn.Module, site: Site, family: str) -> None:
    """Refuse a site that names what the model does not have."""
    modules = dict(model.named_modules(remove_duplicate=False))  # a shared one under each name
    wrong = [part for part in PLACES[site.place][:-1] if part not in site.projections]
    wrong += [name for name in (site.name, site.entry or "") if name not in modules]
    for part, projection in site.projections.items():
        layer: Any = modules.get(projection.module)
        weight: Any = getattr(layer, "_parameters", {}).get(projection.parameter)
        fits = isinstance(weight, nn.Parameter)
        if fits:  # a layer knows its size, the weight in it may be packed
            linear = isinstance(layer, nn.Linear)
            rows, columns = (layer.out_features, layer.in_features) if linear else weight.shape
            fits = 0 <= projection.start <= rows - projection.rows and columns == projection.columns
        if not fits or (part in site.readers and projection.columns != site.width):
            wrong.append(f"{part} ({projection.module}.{projection.parameter})")
    if wrong:
        raise SerialLoRAError(
            f"{family} yields a site at {site.label} whose {wrong[0]} is not in the model, or of "
            "another size; compare it with named_modules()."
        )
