"""Adapters as an ordinary LoRA, in the files that PEFT loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError, require_finite, writing
from serial_lora.layers import wide
from serial_lora.merging import base_weight, refuse_shared, refuse_sharers
from serial_lora.sites import unwrapped_name
from serial_lora.state import Injection, injected, plain_context
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
    root, injection = injected(model)
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
        with plain_context(root):
            base = wide(base_weight(root, injection, (name, adapted.parameter)))
            parts = adapted.by_rows(adapted.pairs, len(base))
            factors = [pair.factors(base.narrow(0, start, rows)) for pair, start, rows in parts]
            columns = [
                F.pad(left, (0, 0, start, len(base) - start - rows))
                for (left, _), (_, start, rows) in zip(factors, parts, strict=True)
            ]
            first, second = torch.cat([right for _, right in factors]), torch.cat(columns, dim=1)
        layers[unwrapped_name(name)] = first.float().cpu(), second.float().cpu()
    return layers


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
