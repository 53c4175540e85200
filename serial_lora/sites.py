"""Where attention is: what a place for an adapter is, and what the structure of a model tells of it.

An attention module is one with three linear layers for q, k and v that read tokens of one width, or
with one linear layer for all three, or nn.MultiheadAttention. The pair acts on what those layers
read, so it is exact whatever stands before them (norms, windows) and behind (rotary positions,
grouped keys, gates). Attention that reads its keys and values from elsewhere is left alone, and what
only looks like attention, such as a convolution for q, is refused by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA

# These run every child that they have, so an adapter may not become one.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Projection:
    """One of q, k, v, out: `rows` rows of a weight, from row `start` on.

    Attributes:
        module, parameter: dotted name of the module that owns the weight, and the weight's name there.
        start: first row (0, but for k and v in a fused qkv weight).
        rows, columns: how many there are, the projection's outputs and inputs.
    """

    module: str
    parameter: str
    start: int
    rows: int
    columns: int

    def weight(self, model: nn.Module) -> nn.Parameter:
        """The whole weight these rows belong to, the base's own."""
        weight = model.get_submodule(self.module)._parameters[self.parameter]
        assert weight is not None
        return weight

    @property
    def row_slice(self) -> slice:
        return slice(self.start, self.start + self.rows)


@dataclass(frozen=True)
class Site:
    """One place where one stream of tokens enters attention, or a feed-forward.

    Attributes:
        name: dotted name of the transformer block; adapters become its children.
        tower: "image" or "text".
        block: the block's index in its tower, counted from 0.
        width: d, the size of a token.
        entry: dotted name of the module whose output the tokens are (a norm layer); None where they
            are taken as q, k and v read them.
        stream: "image" or "text" where one block attends over both (SD3), else None.
        suffix: "", "_text" or "_2"; tells the adapters of a block with several sites apart.
        projections: "q", "k", "v" and, where the block has one, "out"; of a feed-forward "fc1", where a
            layer of its own gates that "gate", and "fc2".
        place: "attention" or "feed_forward".
        batch_first: whether samples are the first dimension of its tokens, or the second.
    """

    name: str
    tower: str
    block: int
    width: int
    entry: str | None
    projections: dict[str, Projection]
    stream: str | None = None
    suffix: str = ""
    place: str = "attention"
    batch_first: bool = True

    @property
    def label(self) -> str:
        """A name that is unique in the model, such as "transformer_blocks.0_text"."""
        return unwrapped_name(self.name) + self._mark + self.suffix

    @property
    def readers(self) -> dict[str, Projection]:
        """The projections that read the tokens."""
        behind = ("out", "fc2")
        return {part: each for part, each in self.projections.items() if part not in behind}

    @property
    def first(self) -> Projection:
        """One that reads the tokens: q, or fc1."""
        return self.projections["q" if self.place == "attention" else "fc1"]

    def pair_name(self, part: str | None = None) -> str:
        """What a pair is called in the block: LoRA's beside a part, or Serial LoRA's one before all."""
        return (f"lora_{part}" if part else f"serial_lora{self._mark}") + self.suffix

    @property
    def _mark(self) -> str:
        return "_ff" if self.place == "feed_forward" else ""


def unwrapped_name(name: str) -> str:
    """A dotted name without the wrappers that torch.compile puts around blocks."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def child_name(name: str, path: str) -> str:
    return f"{name}.{path}" if name else path


def is_inside(name: str, around: str) -> bool:
    """Whether a dotted name is another one, or that of something inside it."""
    return not around or f"{name}.".startswith(f"{around}.")


def linear_projection(block: nn.Module, name: str, path: str) -> Projection:
    """The projection made by a plain linear layer of the block."""
    layer = block.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise SerialLoRAError(
            f"{child_name(name, path)} is a {type(layer).__name__} (of {type(layer).__module__}), not a "
            "plain nn.Linear, so it cannot be adapted exactly; if something wraps it, such as another "
            "adapter, take that off."
        )
    return Projection(child_name(name, path), "weight", 0, layer.out_features, layer.in_features)


def stacked(whole: Projection, parts: str = "qkv") -> dict[str, Projection]:
    """Projections out of one weight that holds them one below the other, all of one height."""
    if whole.rows % len(parts):
        raise SerialLoRAError(
            f"{whole.module} has {whole.rows} rows, which are not {' and '.join(parts)} of one width; "
            "this model's attention cannot be adapted."
        )
    rows = whole.rows // len(parts)
    return {
        part: Projection(whole.module, whole.parameter, place * rows, rows, whole.columns)
        for place, part in enumerate(parts)
    }


def index_of(name: str) -> int:
    """A block's position in its tower: the last number in its name."""
    numbers = [part for part in name.split(".") if part.isdigit()] or re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else 0


# What layers and modules are called that make q, k, v and out, and that attend elsewhere.
_WORDS = {"queries": "q", "query": "q", "keys": "k", "key": "k", "values": "v", "value": "v"}
_OUT = re.compile(r"^(.*\.)?(to_|w_?)?(o|out|output|proj|dense|c_proj|o_proj|out_proj)(\.0)?$")
_READS = re.compile("(^|_)w?(q|k|v|qk|kv|qkv)(_|$)")
_CROSS = re.compile("cross(?!cov)|pool|encdec|encoder_decoder|enc(oder)?_att")
_OWN = ("open_clip", "segment_anything")  # what is not in their families stays as it is


def structural_sites(model: nn.Module, known: Collection[Site] = ()) -> list[Site]:
    """Every attention that structure alone tells, but for what the known sites hold already."""
    claimed = {p.module for site in known for p in site.projections.values()}
    claimed |= {module.rpartition(".")[0] for module in claimed}
    modules = dict(model.named_modules())
    found: dict[str, dict[str, Projection]] = {}
    for name, module in modules.items():
        parent = modules[name.rpartition(".")[0]]
        if name in claimed or _left_alone(name, module, parent):
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
            tower=_tower(modules, name),
            block=index_of(block),
            width=projections["q"].columns,
            entry=None,
            projections=projections,
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


def _left_alone(name: str, module: nn.Module, parent: nn.Module) -> bool:
    """Whether this attends to tokens from elsewhere, or belongs to a library with a family."""
    owners = {type(m).__module__.partition(".")[0] for m in (module, parent)}
    where = " ".join([*name.split(".")[-2:], type(module).__name__, type(parent).__name__])
    cross = getattr(module, "is_cross_attention", False) or _CROSS.search(where.lower())
    decoder = name.endswith("multihead_attn") and hasattr(parent, "self_attn")  # as PyTorch's
    return bool(cross or decoder or not owners.isdisjoint(_OWN))


def _projections(name: str, module: nn.Module, parent: nn.Module) -> dict[str, Projection] | None:
    """What makes q, k, v and out in this module, or None if it is no self-attention."""
    if isinstance(module, nn.MultiheadAttention):
        if module.in_proj_weight is None:
            return None  # keys and values have widths of their own
        if module.bias_k is not None or module.add_zero_attn:
            raise SerialLoRAError(
                f"{name or type(module).__name__} adds tokens of its own to keys and values, so it is "
                "not plain self-attention and cannot be adapted."
            )
        whole = Projection(name, "in_proj_weight", 0, *module.in_proj_weight.shape)
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
                _refuse_other_heights(module, found)
            return found | _output(name, module, parent, found)
    return None


def _refuse_other_heights(module: nn.Module, found: dict[str, Projection]) -> None:
    """Refuse a fused layer whose values are not a third of it, as the layer behind them tells."""
    for name, layer in module.named_children():
        behind = isinstance(layer, nn.Linear) and _OUT.match(name)
        if behind and layer.in_features != found["v"].rows:
            raise SerialLoRAError(
                f"{found['v'].module} has {3 * found['v'].rows} rows, which are not q, k and v of one "
                f"width, since {name} reads {layer.in_features}; this model's attention cannot be "
                "adapted."
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


def _tower(modules: dict[str, nn.Module], name: str) -> str:
    """What the innermost module says that says what it reads, by its name or its class."""
    parts = name.split(".") if name else []
    for depth in range(len(parts), -1, -1):
        inside = ".".join(parts[:depth])
        words = f"{parts[depth - 1] if depth else ''} {type(modules[inside]).__name__}".lower()
        if re.search("(?<!con)text|language", words):
            return "text"
        if re.search("vision|visual|image", words):
            return "image"
    reads_words = any(re.search("(^|[._])(word_embeddings|embed_tokens|wte)$", m) for m in modules)
    return "text" if reads_words else "image"


def without_sites(
    model: nn.Module, sites: Collection[Site], towers: Collection[str] | None
) -> list[str]:
    """What one would expect an adapter in and finds no site: "visual (ModifiedResNet)".

    That is a tower or decoder none of whose parts has a site, and attention of a kind that is not
    known beside some that is. Attention to tokens from elsewhere is left alone on purpose.
    """
    modules = dict(model.named_modules())
    inside = [site.name for site in sites]
    inside += [p.module for site in sites for p in site.projections.values()]
    reached = {name.rsplit(".", up)[0] for name in inside for up in range(name.count(".") + 1)}
    left = {name: module for name, module in modules.items() if name not in reached}
    missed = [] if towers else [name for name, module in left.items() if _is_tower(name, module)]
    for name, module in left.items():
        below = any(name.startswith(f"{tower}.") for tower in missed)
        asked = towers is None or _tower(modules, name) in towers
        parent = modules[name.rpartition(".")[0]]
        if asked and not below and attends(name, module) and not _left_alone(name, module, parent):
            missed.append(name)
    return [f"{name} ({type(modules[name]).__name__})" for name in missed]


def _is_tower(name: str, module: nn.Module) -> bool:
    """A child of the model that is named as a tower or decoder and has several layers."""
    words = f"{name} {type(module).__name__}".lower()
    if not name or "." in name or type(module).__module__.partition(".")[0] == "segment_anything":
        return False  # SAM's mask decoder is left as it is
    layers = [m for m in module.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    named = re.search("visual|vision|image|text|language|decoder", words)
    return len(layers) > 3 and bool(named) and not re.search("embed|projection|neck", words)


def attends(name: str, module: nn.Module) -> bool:
    """Whether it is named attention and has a layer for queries, keys or values."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    words = f"{name.rpartition('.')[2]} {type(module).__name__}".lower()
    readers = [child for child, _ in module.named_children() if _READS.search(_letters(child))]
    return bool(re.search("attn|attention", words)) and any(
        _has_matrix(module, [child]) for child in readers
    )
