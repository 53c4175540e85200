"""Where a model keeps its attention: one `Site` for each block.

Most attention is found by its structure (`serial_lora.structure`). A family is a function that knows more
than that and comes before it, as SD3's does here, which has two streams of tokens. To support a model that
nothing here finds, write one more function of that kind and hand it to `register_family` (docs/library.md
does).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from torch import nn

from serial_lora.config import PLACES
from serial_lora.errors import SerialLoRAError
from serial_lora.feed_forward import blocks_without, feed_forward_sites
from serial_lora.sites import Site, index_of, linear_projection
from serial_lora.structure import structural_sites


def stable_diffusion_3_sites(model: nn.Module) -> Iterator[Site]:
    """diffusers' SD3Transformer2DModel: joint attention over an image and a text stream.

    Stable Diffusion 3.5 has blocks with a second attention over the image stream, which has its
    own norm, so its own site. The last block drops the text stream after attention and has no
    `to_add_out`.
    """
    image = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    text = {"q": "add_q_proj", "k": "add_k_proj", "v": "add_v_proj", "out": "to_add_out"}
    for name, block in model.named_modules():
        if type(block).__name__ != "JointTransformerBlock":
            continue
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
            projections = {
                part: linear_projection(block, name, f"{layer}.{path}")
                for part, path in paths.items()
                if getattr(attention, path.split(".")[0], None) is not None
            }
            yield Site(name, "image", index_of(name), projections, stream, suffix)


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
        raise SerialLoRAError(
            f"no attention block that can be adapted was found in {type(model).__name__}: looked for "
            "nn.Linear layers that make q, k and v, for nn.MultiheadAttention, and for the blocks of "
            "diffusers' SD3; for another layout write one function for register_family "
            "(docs/library.md shows how)."
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

    for what, asked in (("tower", towers), ("block", blocks)):
        there = sorted({getattr(site, what) for site in sites})
        missing = [each for each in asked or () if each not in there]
        if missing:
            raise SerialLoRAError(
                f"this model has no {what} {missing[0]} to adapt; it has: {', '.join(map(str, there))}."
            )
        sites = [site for site in sites if asked is None or getattr(site, what) in asked]
    return sites


def every_site(model: nn.Module, places: Collection[str] = tuple(PLACES)) -> list[Site]:
    """Those of all towers, blocks and streams, attention first; empty if there is none."""
    known = [site for family in FAMILIES for site in family(model)]
    known += structural_sites(model, known)
    if "feed_forward" in places:
        known += feed_forward_sites(model, known)
    return sorted((s for s in known if s.place in places), key=lambda s: s.place != "attention")


Family = Callable[[nn.Module], Iterable[Site]]

FAMILIES: list[Family] = [stable_diffusion_3_sites]


def register_family(family: Family) -> Family:
    """Have the package look for one more family of models, from now on in this process.

    Args:
        family: model -> its sites; nothing for a model that is not of the family. One of the same
            name that was registered before is replaced, so a notebook's cell can be run again.

    Returns:
        The same function, so that this can stand above it as a decorator.
    """
    FAMILIES[:] = [known for known in FAMILIES if known.__name__ != family.__name__] + [family]
    return family
