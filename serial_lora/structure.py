"""What the structure of a model tells of its attention.

An attention module is one with three linear layers for q, k and v that read tokens of one width, or
with one linear layer for all three, or one weight, as nn.MultiheadAttention has. The pair acts on what
those layers read, so it is exact whatever stands before them (norms, windows) and behind (rotary
positions, grouped keys, gates). Attention that reads its keys and values from elsewhere is left alone, and what
only looks like attention, such as a convolution for q, is refused by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.sites import (
    CONTAINERS,
    Projection,
    Site,
    child_name,
    index_of,
    linear_projection,
    stacked,
)

# What layers and modules are called that make q, k, v and out, and that attend elsewhere.
_WORDS = {"queries": "q", "query": "q", "keys": "k", "key": "k", "values": "v", "value": "v"}
_OUT = re.compile(r"^(.*\.)?(to_|w_?)?(o|out|output|proj|dense|c_proj|o_proj|out_proj)(\.0)?$")
_READS = re.compile("(^|_)w?(q|k|v|qk|kv|qkv)(_|$)")
_CROSS = re.compile("cross(?!cov)|pool|encdec|encoder_decoder|enc(oder)?_att|twoway")


def structural_sites(model: nn.Module, known: Collection[Site] = ()) -> list[Site]:
    """Every attention that structure alone tells, but for what the known sites hold already."""
    claimed = {p.module for site in known for p in site.projections.values()}
    claimed |= {module.rpartition(".")[0] for module in claimed}
    modules = dict(model.named_modules())
    found: dict[str, dict[str, Projection]] = {}
    for name, module in modules.items():
        parent = modules[name.rpartition(".")[0]]
        if name in claimed or left_alone(name, module, parent):
            continue
        projections = _projections(name, module, parent)
        if projections:
            found[name] = projections

    # Attention over one number for each place is a gate, unless all of the model is as narrow.
    widest = max((projections["q"].columns for projections in found.values()), default=0)
    found = {name: some for name, some in found.items() if some["q"].columns > 1 or widest == 1}
    times, sites = Counter(map(block_name, found)), []
    for name, projections in found.items():
        block = block_name(name)
        alone = times[block] == 1 and not isinstance(modules[block], CONTAINERS)
        site = Site(
            name=block if alone else name,
            tower=tower_of(modules, name),
            block=index_of(block),
            projections=projections,
            batch_first=getattr(modules[name], "batch_first", True),
        )
        sites.append(site)

    # Blocks are numbered through each tower where numbers come twice, as in stages of a Swin.
    counted = []
    for site in sites:
        tower = [other for other in sites if other.tower == site.tower]
        if len({other.block for other in tower}) < len(tower):
            site = replace(site, block=tower.index(site))
        counted.append(site)
    return counted


def left_alone(name: str, module: nn.Module, parent: nn.Module) -> bool:
    """Whether this attends to tokens from elsewhere."""
    where = " ".join([*name.split(".")[-2:], type(module).__name__, type(parent).__name__])
    cross = getattr(module, "is_cross_attention", False) or _CROSS.search(where.lower())
    decoder = name.endswith("multihead_attn") and hasattr(parent, "self_attn")  # as PyTorch's
    return bool(cross or decoder or hasattr(parent, "ln_1_kv"))  # the last of open_clip's


def _projections(name: str, module: nn.Module, parent: nn.Module) -> dict[str, Projection] | None:
    """What makes q, k, v and out in this module, or None if it is no self-attention."""
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is None:
        return None  # keys and values have widths of their own
    weight = module._parameters.get("in_proj_weight")  # open_clip's own attention has one too
    if weight is not None:
        if getattr(module, "bias_k", None) is not None or getattr(module, "add_zero_attn", False):
            raise SerialLoRAError(
                f"{name or type(module).__name__} adds tokens of its own to keys and values, so it is "
                "not plain self-attention and cannot be adapted."
            )
        whole = Projection(name, "in_proj_weight", 0, *weight.shape)
        return stacked(whole) | {"out": linear_projection(module, name, "out_proj")}
    layers = {
        _letters(child): child
        for child, layer in module.named_children()
        if not isinstance(layer, SerialLoRA | LoRA)
    }
    for key in layers:
        for packs in (("qkv",), ("q", "k", "v"), ("qk", "v"), ("q", "kv")):
            if packs[0] not in key.replace("_", ""):
                continue
            children = [layers.get(key.replace(packs[0], pack), "") for pack in packs]
            if "" in children or not _has_matrix(module, children):
                continue
            found: dict[str, Projection] = {}
            for pack, child in zip(packs, children, strict=True):
                found |= stacked(linear_projection(module, name, child), pack)
            if len({projection.columns for projection in found.values()}) > 1:
                return None  # keys and values have a width of their own: they come from elsewhere
            if packs == ("qkv",):
                _refuse_other_heights(module, found["v"])
            return found | _output(name, module, parent, found)
    return None


def _refuse_other_heights(module: nn.Module, third: Projection) -> None:
    """Refuse a fused layer whose values are not a third of it, as the layer behind them tells."""
    for name, layer in module.named_children():
        behind = isinstance(layer, nn.Linear) and _OUT.match(name)
        if behind and layer.in_features != third.rows:
            raise SerialLoRAError(
                f"{third.module} has {3 * third.rows} rows, which are not q, k and v of one width, since "
                f"{name} reads {layer.in_features}; this model's attention cannot be adapted."
            )


def _letters(name: str) -> str:
    """A layer's name with q, k and v for the words that some libraries write out."""
    name = name.lower()
    for word, letter in _WORDS.items():
        name = name.replace(word, letter)
    return name


def _has_matrix(module: nn.Module, children: list[str]) -> bool:
    """Whether each of these layers has a matrix, as norms of queries and keys have not."""
    layers = [module.get_submodule(child) for child in children]
    return all(any(p.ndim > 1 for p in layer.parameters()) for layer in layers)


def _output(
    name: str, module: nn.Module, parent: nn.Module, read: dict[str, Projection]
) -> dict[str, Projection]:
    """The projection behind attention: in the module itself, else in its neighbour "output"."""
    places = [(name, module)]
    neighbour = getattr(parent, "output", None)
    if isinstance(neighbour, nn.Module) and neighbour is not module:
        places.append((child_name(name.rpartition(".")[0], "output"), neighbour))
    taken = {projection.module for projection in read.values()}
    for where, place in places:
        behind = {
            path: layer.out_features
            for path, layer in place.named_modules()
            if isinstance(layer, nn.Linear)
            and child_name(where, path) not in taken
            and layer.in_features == read["q"].rows
        }
        back = [path for path, outputs in behind.items() if outputs == read["q"].columns]
        named = [path for path in back or behind if _OUT.match(path)]
        if named or len(back) == 1:
            return {"out": linear_projection(place, where, (named or back)[0])}
    return {}


def block_name(name: str) -> str:
    """The block around an attention module: the innermost one with a number, or the module."""
    parts = name.split(".")
    for numbered in (str.isdigit, lambda part: part[-1:].isdigit() and part != parts[-1]):
        for depth in range(len(parts), 0, -1):
            if numbered(parts[depth - 1]):
                wrapped = parts[depth : depth + 1] == ["_orig_mod"]  # by torch.compile
                return ".".join(parts[: depth + wrapped])
    return name


def tower_of(modules: dict[str, nn.Module], name: str) -> str:
    """What the innermost module says that says what it reads, by its name or its class."""
    parts = name.split(".") if name else []
    for depth in range(len(parts), -1, -1):
        inside = ".".join(parts[:depth])
        words = f"{parts[depth - 1] if depth else ''} {type(modules[inside]).__name__}".lower()
        if re.search("(?<!con)text|language", words):
            return "text"
        if re.search("vision|visual|image", words):
            return "image"
    reads_words = any(
        re.search("(^|[._])(word_embeddings|token_embedding|embed_tokens|wte)$", m) for m in modules
    )
    return "text" if reads_words else "image"


def attends(name: str, module: nn.Module) -> bool:
    """Whether it is named attention and has a layer for queries, keys or values."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    words = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    readers = [child for child, _ in module.named_children() if _READS.search(_letters(child))]
    return bool(re.search("attn|attention", words)) and any(
        _has_matrix(module, [child]) for child in readers
    )
