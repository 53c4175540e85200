"""Adapters as an ordinary LoRA, in the files that PEFT loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.config import SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, require_finite, writing
from serial_lora.merging import change_factors, refuse_shared, refuse_sharers
from serial_lora.sites import Site, unwrapped_name
from serial_lora.state import Injection, changed_parts, plain_context, with_values
from serial_lora.tensor_files import bytes_of, write_whole
from serial_lora.values import Pair

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


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
        SerialLoRAError: if the model has no adapters, PEFT has no layer that acts in its attention
            (nn.MultiheadAttention, nn.TransformerEncoderLayer, weights that the model reads itself), or
            a file cannot be written.
    """
    root, injection = with_values(model)
    layers, beside = _lora_layers(root, injection), injection.learned()
    refuse_shared(root, beside)  # PEFT copies modules to save
    tensors = {
        f"base_model.model.{layer}.{name}.weight": tensor
        for layer, pair in layers.items()
        for name, tensor in zip(("lora_A", "lora_B"), pair, strict=True)
    }
    for name, tensor in injection.active_tensors().items():
        if name in beside:
            tensors[f"base_model.model.{name}"] = tensor.detach().cpu().clone()
    require_finite(tensors, "exported")
    if folder is not None:
        config = _peft_config(root, injection, layers)
        with writing(folder):
            # A full disk is met before anything of an older export goes.
            waiting = write_whole(
                Path(folder, f"{_CONFIG}.new"), json.dumps(config, indent=2).encode()
            )
            try:
                write_whole(Path(folder, _WEIGHTS), bytes_of(tensors, {"format": "pt"}))
            except BaseException:
                waiting.unlink()
                raise
            waiting.replace(Path(folder, _CONFIG))
    return tensors


def _lora_layers(root: nn.Module, injection: Injection) -> dict[str, Pair]:
    """For every layer that an adapter changes its pair, scale within, by PEFT's name for the layer."""
    refuse_sharers(root, injection)
    layers: dict[str, Pair] = {}
    for site in injection.sites:
        by_layer: dict[str, list[str]] = {}
        for part, projection in changed_parts(site, injection.config).items():
            by_layer.setdefault(projection.module, []).append(part)
        for layer, parts in by_layer.items():
            module, around = map(root.get_submodule, (layer, layer.rpartition(".")[0]))
            passed = isinstance(around, nn.MultiheadAttention | nn.TransformerEncoderLayer)
            here = [adapted for adapted in injection.adapted if adapted.layer is module]
            passed |= any(adapted.read and not adapted.called for adapted in here)
            if passed or not isinstance(module, nn.Linear):
                raise SerialLoRAError(
                    f"PEFT has no LoRA layer that acts for {layer}, a {type(module).__name__} in a "
                    f"{type(around).__name__}; call eject(model, keep_merged=True) and save the whole "
                    "model instead."
                )
            layers[unwrapped_name(layer)] = _pair(root, injection, site, parts)
    return layers


def _pair(root: nn.Module, injection: Injection, site: Site, parts: list[str]) -> Pair:
    """One pair for the given parts of one weight: A, (r, inputs), and B, (outputs, r)."""
    with plain_context(root):
        factors = [change_factors(root, injection, site, part) for part in parts]
        lefts, rights = zip(*factors, strict=True)
        if injection.config.method == SerialLoRAConfig.method:
            first, second = rights[0].clone(), torch.cat(lefts)  # all parts share one A
        else:
            first = torch.cat(rights)
            projections = [site.projections[part] for part in parts]
            rows = root.get_submodule(projections[0].module).out_features
            second = lefts[0].new_zeros(rows, len(first))
            columns = second.split([left.shape[1] for left in lefts], dim=1)
            for projection, column, left in zip(projections, columns, lefts, strict=True):
                column[projection.row_slice] = left
        return first.float().cpu(), second.float().cpu()


def _peft_config(
    root: nn.Module, injection: Injection, layers: Mapping[str, Pair]
) -> dict[str, Any]:
    ranks = {name: len(first) for name, (first, _) in layers.items()}
    rank = min(ranks.values())
    others = {name: other for name, other in ranks.items() if other != rank}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(getattr(root, "name_or_path", None) or "") or None,
        "modules_to_save": [unwrapped_name(name) for name in injection.also_train] or None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,  # PEFT multiplies by lora_alpha / r: by one
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": list(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
    }
