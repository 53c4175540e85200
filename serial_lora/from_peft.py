"""A LoRA that PEFT has saved as an adapter of this library: the way back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.attention import every_site
from serial_lora.config import LoRAConfig
from serial_lora.errors import SerialLoRAError, cut, reading
from serial_lora.injection import eject, inject, unwrapped
from serial_lora.sites import unwrapped_name
from serial_lora.state import Injection, plain_context
from serial_lora.tensor_files import read_tensors
from serial_lora.values import Pair, put_in, ready_to_change, require_fitting

_PREFIX = "base_model.model."
# With these options it still is pairs beside layers; any other that is set may be something else.
_STILL_PAIRS = """alpha_pattern auto_mapping base_model_name_or_path corda_config ensure_weight_tying
eva_config exclude_modules fan_in_fan_out inference_mode init_lora_weights layers_pattern
layers_to_transform loftq_config lora_alpha lora_dropout lora_ga_config megatron_core modules_to_save
peft_type peft_version qalora_group_size r rank_pattern revision runtime_config target_modules task_type
use_rslora""".split()
_CHANGED_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""Starts that take something out of the base's weights; PEFT can convert such an adapter as it saves."""


def from_peft(model: nn.Module, folder: str | Path) -> nn.Module:
    """Put a LoRA that PEFT saved into a plain model, with the same outputs, as `inject` would.

    PEFT is not needed for it. A pair beside a fused qkv weight becomes one for each of q, k and v, which
    begin with the same A. Where layers have ranks of their own, the smaller ones are filled up as a fresh
    pair is, which changes nothing; so has a place that the file leaves out a fresh pair. The base is not
    compared: PEFT does not describe its weights.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors; or the path of the latter.

    Raises:
        SerialLoRAError: a file is missing or damaged, or the adapter is more than pairs beside linear
            layers of attention and feed-forward that this model has. The model is as it was.
    """
    with reading(folder):
        folder = Path(folder)
        folder = folder.parent if folder.suffix == ".safetensors" else folder
    with reading(folder / "adapter_config.json"):
        options = json.loads((folder / "adapter_config.json").read_bytes())
        options["peft_type"]
        saved = list(options.get("modules_to_save") or ())
    path = folder / "adapter_model.safetensors"
    _refuse_more(folder, options)
    _, tensors = read_tensors(path)
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    ends = tuple(f".{name}" for name in saved)  # by which PEFT names the modules that learned
    there = (unwrapped_name(name) for name, _ in unwrapped(model).named_modules())
    heads = [name for name in there if f".{name}".endswith(ends)]
    inside = tuple(f"{head}." for head in heads)
    beside = {name: tensor for name, tensor in tensors.items() if name.startswith(inside)}
    pairs = _pairs(path, {name: t for name, t in tensors.items() if name not in beside})
    pairs, scale = _one_scale(folder, options, pairs)
    config = LoRAConfig(scale=scale, **_where(path, model, pairs))

    inject(model, config, heads)
    try:
        root, injection = ready_to_change(model)
        ours = _by_our_names(path, injection, pairs) | beside
        require_fitting(path, ours, injection, config.rank)
        with plain_context(root):
            put_in(injection, config, ours)
    except BaseException:
        eject(model)
        raise
    return model


def _refuse_more(folder: Path, options: Mapping[str, Any]) -> None:
    """Refuse what PEFT's configuration says is not just pairs beside layers."""
    if options["peft_type"] != "LORA":
        raise SerialLoRAError(
            f"{folder} is of PEFT's method {cut(options['peft_type'])}, not of LoRA; use PEFT for it."
        )
    nothing: tuple = (None, False, [], {}, "none")
    more = [name for name in options if name not in _STILL_PAIRS and options[name] not in nothing]
    start = str(options.get("init_lora_weights"))
    if start.startswith(_CHANGED_BASE):
        more.append("init_lora_weights")
    if more:
        raise SerialLoRAError(
            f"{folder} has {cut(f'{more[0]}={options[more[0]]!r}')}, with which it is more than pairs beside "
            "the layers of its base; use PEFT for it, or train it without that."
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


def _one_scale(
    folder: Path, options: Mapping[str, Any], pairs: Mapping[str, Pair]
) -> tuple[dict[str, Pair], float]:
    """The pairs, and what all are multiplied by; where PEFT has several scales, they are within B."""
    alphas, root = options.get("alpha_pattern") or {}, 0.5 if options.get("use_rslora") else 1.0
    scales = {}
    with reading(folder / "adapter_config.json"):
        for layer, (A, _) in pairs.items():
            own = (p for p in alphas if re.match(rf"(.*\.)?({p})$", layer))  # as PEFT compares
            alpha = alphas.get(next(own, None), options["lora_alpha"])
            scales[layer] = float(alpha) / len(A) ** root
    if len(set(scales.values())) == 1:
        return dict(pairs), next(iter(scales.values()))
    return {layer: (A, scales[layer] * B) for layer, (A, B) in pairs.items()}, 1.0


def _where(path: Path, model: nn.Module, pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """Rank and places of these pairs; refuse those beside layers where no adapter can go."""
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
        "rank": max(len(A) for A, _ in pairs.values()),
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
        layer = unwrapped_name(adapted.name)
        saved = pairs.get(layer)
        if saved:
            there = saved[0].shape[1], len(saved[1])
            here = adapted.layer.in_features, adapted.layer.out_features
            if there != here:
                raise SerialLoRAError(
                    f"the pair of {layer} in {path} has {there[0]} inputs and {there[1]} outputs, "
                    f"not {here[0]} and {here[1]}; open another base."
                )
        for fresh, start, rows in adapted.by_rows(adapted.pairs, 0):
            A, B = fresh.lora_A.detach().clone(), torch.zeros_like(fresh.lora_B)
            if saved:
                rank = len(saved[0])
                A[:rank], B[:, :rank] = saved[0], saved[1][start : start + rows]
            tensors |= {f"{places[fresh]}.lora_A": A, f"{places[fresh]}.lora_B": B}
    return tensors
