"""Where the feed-forward layers are: beside the attention of each block.

A feed-forward widens each token and brings it back to its width, and its layers are known by their
shapes: one linear layer from d to h numbers and one from h to d (an MLP), two from d to h (a gated one),
or one from d to 2 h (a gated one whose two layers are one weight). They are looked for in blocks whose
attention is known, so a head or an embedding is not taken for one. The pair acts on what the first
layers read, and on nothing else that reads the same norm, such as attention in a parallel block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from torch import nn

from serial_lora.sites import CONTAINERS, Projection, Site, is_inside
from serial_lora.structure import attends, block_name

Modules = Mapping[str, nn.Module]
Projections = dict[str, Projection]  # "fc1", "gate" where that is a layer of its own, and "fc2"


def feed_forward_sites(model: nn.Module, known: Collection[Site]) -> Iterator[Site]:
    """Every feed-forward in the blocks of the known attention, but for those that are known.

    Where a block is cut into numbered parts (T5, timm's parallel blocks) and the part with the attention
    has none, they are in its other parts.
    """
    modules = dict(model.named_modules())
    taken = {p.module for site in known for p in site.projections.values()}
    blocks: dict[str, list[Site]] = {}
    for site in known:
        if site.place == "attention":
            blocks.setdefault(_block(site), []).append(site)
    elsewhere = {*blocks, *(name for name, module in modules.items() if attends(name, module))}
    times: Counter[tuple[str, str]] = Counter()
    for block, attention in blocks.items():
        behind = {site.projections.get("out", site.first).rows for site in attention}
        widths = {site.width for site in attention} | behind
        for around in (block, _around(block)):
            found = _inside(modules, around, widths, elsewhere - {around}, taken)
            if found:
                break
        taken |= {p.module for projections in found.values() for p in projections.values()}
        for name, projections in found.items():
            width = projections["fc1"].columns
            beside = next((site for site in attention if site.width == width), attention[0])
            is_text = "context" in name.removeprefix(around)  # as diffusers calls the text stream's
            if is_text and beside.stream is None:
                continue  # its attention is not adapted either
            stream = "_text" if is_text else ""
            times[around, stream] += 1
            again = f"_{times[around, stream]}" if times[around, stream] > 1 else ""
            yield replace(
                beside,
                name=name if isinstance(modules[around], CONTAINERS) else around,
                projections=projections,
                stream=beside.stream and ("text" if is_text else "image"),
                suffix=stream + again,
                place="feed_forward",
            )


def blocks_without(model: nn.Module, sites: Collection[Site]) -> list[str]:
    """The blocks of these sites' attention with none of their feed-forwards: "layers.0 (Block)"."""
    modules = dict(model.named_modules())
    first = {modules[site.first.module] for site in sites if site.place == "feed_forward"}
    missed = []
    for block in dict.fromkeys(_block(site) for site in sites if site.place == "attention"):
        inside = [*modules[block].modules(), *modules[_around(block)].modules()]
        if first.isdisjoint(inside):  # modules, since blocks may share one
            missed.append(f"{block} ({type(modules[block]).__name__})")
    return missed


def _block(site: Site) -> str:
    """The block around an attention, which has layers for q, k and v, or one weight for them."""
    module = site.first.module
    return block_name(module.rpartition(".")[0] if site.first.parameter == "weight" else module)


def _around(block: str) -> str:
    """The numbered module around a block, or the block; of attention without a number its parent."""
    parent = block.rpartition(".")[0]
    if not block[-1:].isdigit():
        return parent
    above = block_name(parent)
    return above if above[-1:].isdigit() else block


def _inside(
    modules: Modules,
    block: str,
    widths: Collection[int],
    apart: Collection[str],
    taken: Collection[str],
) -> dict[str, Projections]:
    """What has the shapes of a feed-forward in a block, but for what is apart or taken."""
    apart = [each for each in apart if is_inside(each, block)]
    layers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Linear)
        and name not in taken
        and is_inside(name, block)
        and not any(is_inside(name, each) for each in apart)
    }
    found = {}
    for name in reversed([each for each in modules if is_inside(each, block)]):  # innermost first
        below = {path: layer for path, layer in layers.items() if is_inside(path, name)}
        projections = _by_shapes(below, widths)
        if projections:
            found[name] = projections
            for projection in projections.values():
                del layers[projection.module]
    return dict(reversed(found.items()))


def _by_shapes(layers: dict[str, nn.Linear], widths: Collection[int]) -> Projections | None:
    """Which of these layers are a feed-forward of tokens of such a width; the last of them decides."""
    for name in reversed(layers):
        hidden, width = layers[name].in_features, layers[name].out_features
        if hidden < width or width not in widths:
            continue  # a bottleneck, as in squeeze and excitation
        others = {path: layer for path, layer in layers.items() if path != name}
        sizes = {path: (layer.in_features, layer.out_features) for path, layer in others.items()}
        plain = [path for path, size in sizes.items() if size == (width, hidden)]
        fused = [path for path, size in sizes.items() if size == (width, 2 * hidden)]
        rivals = [path for path, size in sizes.items() if size == (hidden, width)]
        if len(plain) == 1 or (len(plain) == 2 and not rivals):
            first = plain
        elif not plain and len(fused) == 1:
            first = fused
        else:
            continue
        parts = dict(zip(("fc1", "gate"), reversed(first), strict=False)) | {"fc2": name}
        return {
            part: Projection(path, "weight", 0, layers[path].out_features, layers[path].in_features)
            for part, path in parts.items()
        }
    return None
