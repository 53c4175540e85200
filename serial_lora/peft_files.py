"""An ordinary LoRA in the files of PEFT: this library's adapters written as one, and one of PEFT's read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serial_lora.attention import every_site
from serial_lora.config import LoRAConfig
from serial_lora.errors import SerialLoRAError, cut, reading, require_finite, writing
from serial_lora.injection import eject, inject, unwrapped
from serial_lora.layers import wide
from serial_lora.merging import base_weight, refuse_shared
from serial_lora.sites import unwrapped_name
from serial_lora.state import Injection, injected, plain_context
from serial_lora.tensor_files import bytes_of, read_tensors, write_whole
from serial_lora.values import Pair, put_in, ready_to_change, require_fitting

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."  # of every name in PEFT's file
# With these options it still is pairs beside layers; any other that is set may be something else.
_STILL_PAIRS = """auto_mapping base_model_name_or_path corda_config ensure_weight_tying
eva_config exclude_modules fan_in_fan_out inference_mode init_lora_weights layers_pattern
layers_to_transform loftq_config lora_alpha lora_dropout lora_ga_config megatron_core modules_to_save
peft_type peft_version qalora_group_size r revision runtime_config target_modules task_type
use_rslora""".split()
_CHANGED_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""Starts that take something out of the base's weights; PEFT can convert such an adapter as it saves."""


# ------------------------------------------------------------------------------------------ to PEFT


def to_peft(model: nn.Module, folder: str | Path | None = None) -> dict[str, Tensor]:
    """The adapters as an ordinary LoRA that PEFT loads, with the same outputs.

    Serial LoRA's change to a projection is (scale W_p B) A: a LoRA with the shared A and a B of its
    own. A fused qkv weight gets one pair, its B stacked. LoRA's q, k and v pairs on a fused weight
    become one pair of three times the rank. What learned beside the adapters goes with them, as PEFT's
    `modules_to_save`.

    Args:
        folder: where to write adapter_config.json and adapter_model.safetensors for
            `PeftModel.from_pretrained`; None writes nothing.

    Returns:
        The tensors of adapter_model.safetensors, on the CPU, those of pairs in float32.

    Raises:
        SerialLoRAError: if PEFT has no layer that acts in the model's attention (nn.MultiheadAttention,
            nn.TransformerEncoderLayer, weights that the model reads itself), or a file cannot be written.
    """
    root, injection = injected(model)
    layers, beside = _lora_layers(root, injection), injection.learned()
    own = {adapted.name: adapted.own for adapted in injection.adapted}
    refuse_shared(root, own | beside)  # PEFT copies modules to save
    tensors = {
        f"{_PREFIX}{layer}.{name}.weight": tensor
        for layer, pair in layers.items()
        for name, tensor in zip(("lora_A", "lora_B"), pair, strict=True)
    }
    for name, tensor in injection.active_tensors().items():
        if name in beside:
            tensors[_PREFIX + name] = tensor.detach().cpu().clone()
    require_finite(tensors, "exported")
    if folder is not None:
        config = json.dumps(_peft_config(root, injection, layers), indent=2).encode()
        with writing(folder):
            # A full disk is met before anything of an older export goes.
            waiting = write_whole(Path(folder, f"{_CONFIG}.new"), config)
            try:
                write_whole(Path(folder, _WEIGHTS), bytes_of(tensors, {"format": "pt"}))
            except BaseException:
                waiting.unlink()
                raise
            waiting.replace(Path(folder, _CONFIG))
    return tensors


def _lora_layers(root: nn.Module, injection: Injection) -> dict[str, Pair]:
    """For every layer that an adapter changes its pair, scale within, by PEFT's name for the layer."""
    layers: dict[str, Pair] = {}
    for adapted in injection.adapted:
        name, layer = adapted.name, adapted.layer
        around = root.get_submodule(name.rpartition(".")[0])
        passed = isinstance(around, nn.MultiheadAttention | nn.TransformerEncoderLayer)
        passed |= adapted.read and not adapted.called
        if passed or not isinstance(layer, nn.Linear):
            raise SerialLoRAError(
                f"PEFT has no LoRA layer that acts for {name}, a {type(layer).__name__} in a "
                f"{type(around).__name__}; call eject(model, keep_merged=True) and save the whole "
                "model instead."
            )
        first, second = [], []
        with plain_context(root):
            base = wide(base_weight(root, injection, (name, adapted.parameter)))
            for pair, start, rows in adapted.by_rows(adapted.pairs, len(base)):
                left, right = pair.factors(base.narrow(0, start, rows))
                first.append(right)
                second.append(F.pad(left, (0, 0, start, len(base) - start - rows)))
            A, B = torch.cat(first).float().cpu(), torch.cat(second, dim=1).float().cpu()
        layers[unwrapped_name(name)] = A, B
    return layers


def _peft_config(
    root: nn.Module, injection: Injection, layers: Mapping[str, Pair]
) -> dict[str, Any]:
    ranks = {name: len(first) for name, (first, _) in layers.items()}
    rank = min(ranks.values())
    others = {name: other for name, other in ranks.items() if other != rank}
    return {  # and what PEFT takes where nothing is said
        "peft_type": "LORA",
        "base_model_name_or_path": str(getattr(root, "name_or_path", None) or "") or None,
        "modules_to_save": [unwrapped_name(name) for name in injection.also_train] or None,
        "r": rank,
        "lora_alpha": rank,  # PEFT multiplies by lora_alpha / r: by one
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": list(ranks),
    }


# ---------------------------------------------------------------------------------------- from PEFT


def from_peft(model: nn.Module, folder: str | Path) -> nn.Module:
    """Put a LoRA that PEFT saved into a plain model, with the same outputs, as `inject` would.

    PEFT is not needed for it. A pair beside a fused qkv weight becomes one for each of q, k and v, which
    begin with the same A. A place that the file leaves out has a fresh pair, which changes nothing. The
    base is not compared: PEFT does not describe its weights.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.

    Raises:
        SerialLoRAError: a file is missing or damaged, or the adapter is more than pairs of one rank
            beside linear layers of attention and feed-forward that this model has.
    """
    with reading(folder):
        path, config = Path(folder, _WEIGHTS), Path(folder, _CONFIG)
    with reading(config):
        options = json.loads(config.read_bytes())
        options["peft_type"]
    _refuse_more(config, options)
    with reading(config):
        rank, saved = options["r"], tuple(f".{m}" for m in options.get("modules_to_save") or ())
        scale = float(options["lora_alpha"]) / rank ** (0.5 if options.get("use_rslora") else 1)
    _, tensors = read_tensors(path)
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    there = (unwrapped_name(name) for name, _ in unwrapped(model).named_modules())
    heads = [name for name in there if f".{name}".endswith(saved)]  # as PEFT names what learned
    inside = tuple(f"{head}." for head in heads)
    beside = {name: tensor for name, tensor in tensors.items() if name.startswith(inside)}
    pairs = _pairs(path, {name: t for name, t in tensors.items() if name not in beside})

    inject(model, LoRAConfig(rank, scale, **_where(path, model, pairs)), heads)
    try:
        root, injection = ready_to_change(model)
        ours = _by_our_names(path, injection, pairs) | beside
        require_fitting(path, ours, injection, injection.config.rank)
        with plain_context(root):
            put_in(injection, injection.config, ours)
    except BaseException:
        eject(model)
        raise
    return model


def _refuse_more(config: Path, options: Mapping[str, Any]) -> None:
    """Refuse what PEFT's configuration says is not just pairs beside layers."""
    nothing: tuple = (None, False, [], {}, "none")
    more = [name for name in options if name not in _STILL_PAIRS and options[name] not in nothing]
    if str(options.get("init_lora_weights")).startswith(_CHANGED_BASE):
        more.append("init_lora_weights")
    if options["peft_type"] != "LORA":
        more.append("peft_type")
    if more:
        raise SerialLoRAError(
            f"{config} has {cut(f'{more[-1]}={options[more[-1]]!r}')}, with which it is more than pairs "
            "of one rank beside the layers of its base; use PEFT for it, or train it without that."
        )


def _pairs(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Pair]:
    """A and B of each layer, by the layer's name; refuse any other tensor."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(.*?)\.lora_([AB])\.weight", name)
        if not found or ".base_layer" in name or tensor.ndim != 2:
            raise SerialLoRAError(
                f"{path} has {cut(name)}, which is no pair beside a linear layer; use PEFT for it."
            )
        layers.setdefault(found[1], {})[found[2]] = tensor.float()
    for name, pair in layers.items():
        if set(pair) != {"A", "B"} or len(pair["A"]) != pair["B"].shape[1]:
            raise SerialLoRAError(
                f"{path} has half of the pair of {cut(name)}; save the adapter again."
            )
    return {name: (pair["A"], pair["B"]) for name, pair in layers.items()}


def _where(path: Path, model: nn.Module, pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """The places of these pairs; refuse those beside layers where no adapter can go."""
    sites = every_site(unwrapped(model))
    layers = [
        (site, part, unwrapped_name(projection.module))
        for site in sites
        for part, projection in site.projections.items()
        if projection.parameter == "weight"
    ]
    here = [(site, part) for site, part, layer in layers if layer in pairs]
    others = sorted(set(pairs) - {layer for *_, layer in layers})
    if others or not here:
        raise SerialLoRAError(
            f"{path} adapts {cut(others[0]) if others else 'nothing'}, and only layers of attention and of "
            "feed-forwards that this model has can be adapted here; use PEFT for it."
        )

    def some(what: str) -> tuple | None:
        """The towers or blocks that are meant; None for all."""
        values, all_values = {getattr(s, what) for s, _ in here}, {getattr(s, what) for s in sites}
        return None if values == all_values else tuple(values)

    streams = {site.stream for site, _ in here if site.stream}
    return {
        "towers": some("tower"),
        "blocks": some("block"),
        "stream": "both" if len(streams) > 1 else next(iter(streams), "image"),
        "parts": {"fc1" if part == "gate" else part for _, part in here},
    }


def _by_our_names(path: Path, injection: Injection, pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
    """The values of every pair in the model, by the names in our files."""
    places = {pair: place for place, pair in injection.pairs.items()}
    tensors: dict[str, Tensor] = {}
    for adapted in injection.adapted:
        layer, outputs = unwrapped_name(adapted.name), adapted.layer.out_features
        saved = pairs.get(layer)
        if saved and len(saved[1]) != outputs:
            raise SerialLoRAError(
                f"the pair of {layer} in {path} has {len(saved[1])} outputs, not {outputs}; open "
                "another base."
            )
        for fresh, start, rows in adapted.by_rows(adapted.pairs, 0):
            A, B = saved or (fresh.lora_A.detach(), torch.zeros(outputs, fresh.lora_B.shape[1]))
            tensors[f"{places[fresh]}.lora_A"] = A
            tensors[f"{places[fresh]}.lora_B"] = B[start : start + rows]
    return tensors
