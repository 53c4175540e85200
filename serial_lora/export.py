"""Adapters as an ordinary LoRA, in the files that PEFT and diffusers load."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, require_finite, writing
from serial_lora.merging import change_factors, refuse_shared, refuse_sharers
from serial_lora.sites import Site, unwrapped_name
from serial_lora.state import Injection, changed_parts, plain_context, with_values
from serial_lora.tensor_files import bytes_of, write_whole
from serial_lora.values import Pair

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PLAIN = {"format": "pt"}
_INSIDE = ".base_layer"  # what stands in the names of layers inside a layer of PEFT's


def to_peft(model: nn.Module, folder: str | Path | None = None) -> dict[str, Tensor]:
    """The adapters as an ordinary LoRA that PEFT loads, with the same outputs.

    Serial LoRA's change to a projection is (scale W_p B) A: a LoRA with the shared A and a B of its
    own. A fused qkv weight gets one pair, its B stacked. LoRA's q, k and v pairs on a fused weight
    become one pair of three times the rank. LoRA on nn.MultiheadAttention cannot be exported. What
    learned beside the adapters goes with them, as PEFT's `modules_to_save`.

    Args:
        folder: where to write adapter_config.json and adapter_model.safetensors for
            `PeftModel.from_pretrained`; None writes nothing.

    Returns:
        The tensors of adapter_model.safetensors, on the CPU, those of pairs in float32.

    Raises:
        SerialLoRAError: if the model has no adapters, PEFT has no layer for its attention, or a
            file cannot be written.
    """
    root, injection = with_values(model)
    layers, beside = _lora_layers(root, injection), injection.learned()
    refuse_shared(root, beside)  # PEFT copies modules to save
    blocks = [root.get_submodule(site.name) for site in injection.sites]
    if any(isinstance(block, nn.TransformerEncoderLayer) for block in blocks):
        warnings.warn(
            "in evaluation nn.TransformerEncoderLayer goes past PEFT's layers, so call "
            "torch.backends.mha.set_fastpath_enabled(False) where you load this.",
            stacklevel=2,
        )
    tensors = _named("base_model.model", layers) | {
        f"base_model.model.{name}": tensor.detach().cpu().clone()
        for name, tensor in injection.active_tensors().items()
        if name in beside
    }
    require_finite(tensors, "exported")
    if folder is not None:
        config = _peft_config(layers) | {
            "base_model_name_or_path": str(getattr(root, "name_or_path", None) or "") or None,
            "modules_to_save": [unwrapped_name(name) for name in injection.also_train] or None,
        }
        with writing(folder):
            _write_folder(Path(folder), config, tensors)
    return tensors


def to_diffusers(model: nn.Module, folder: str | Path | None = None) -> dict[str, Tensor]:
    """An SD3 transformer's adapters as diffusers loads them, with the same pictures.

    Args:
        folder: where to write pytorch_lora_weights.safetensors, for
            `pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")`;
            None writes nothing.

    Returns:
        The tensors of that file, for `pipeline.load_lora_weights(tensors)` or
        `transformer.load_lora_adapter(tensors)`.

    Raises:
        SerialLoRAError: if the model has no adapters or is not an SD3 transformer, modules learned
            beside them, which diffusers does not load, or the file cannot be written.
    """
    root, injection = with_values(model)
    if not any(site.stream for site in injection.sites):
        raise SerialLoRAError("only an SD3 transformer's adapters go to diffusers; use to_peft.")
    if injection.also_train:
        raise SerialLoRAError(
            f"{next(iter(injection.also_train))} learned beside the adapters, and diffusers loads pairs "
            "alone; use to_peft, whose folder PEFT loads with it."
        )
    tensors = _named("transformer", _lora_layers(root, injection))
    require_finite(tensors, "exported")
    if folder is not None:
        path = Path(folder) / "pytorch_lora_weights.safetensors"
        with writing(path):
            write_whole(path, bytes_of(tensors, _PLAIN))
    return tensors


def _named(root: str, layers: Mapping[str, Pair]) -> dict[str, Tensor]:
    return {
        f"{root}.{layer}.{name}.weight": tensor
        for layer, pair in layers.items()
        for name, tensor in zip(("lora_A", "lora_B"), pair, strict=True)
    }


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
            if injection.config.method == LoRAConfig.method and any(
                isinstance(each, nn.MultiheadAttention) for each in (module, around)
            ):
                raise SerialLoRAError(
                    "PEFT's layer for nn.MultiheadAttention adds LoRA to the output projection twice, "
                    "and one for that projection alone does not act (seen in version 0.21); call "
                    "eject(model, keep_merged=True) and save the whole model instead."
                )
            if isinstance(module, nn.MultiheadAttention):
                rank, out = injection.config.rank, site.projections["out"]
                # PEFT insists on having a pair there
                nothing = (torch.zeros(rank, out.columns), torch.zeros(out.rows, rank))
                layers[f"{unwrapped_name(layer)}{_INSIDE}.out_proj"] = nothing
            elif not isinstance(module, nn.Linear) or _is_read(injection, module):
                raise SerialLoRAError(
                    f"PEFT has no LoRA layer that acts for {layer}, a {type(module).__name__}; "
                    "call eject(model, keep_merged=True) and save the whole model instead."
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


def _write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """What PEFT loads as an adapter.

    The configuration is away while the files change places: whoever reads meanwhile, or after a kill,
    finds the old files, the new ones, or no adapter, and never new ones with an old one.
    """
    files = {_WEIGHTS: bytes_of(tensors, _PLAIN), _CONFIG: json.dumps(config, indent=2).encode()}
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as aside:
        for name, content in files.items():
            write_whole(Path(aside, name), content)
        Path(folder, _CONFIG).unlink(missing_ok=True)
        for name in files:
            os.replace(Path(aside, name), Path(folder, name))


def _peft_config(layers: Mapping[str, Pair]) -> dict[str, Any]:
    ranks = {name: len(first) for name, (first, _) in layers.items() if _INSIDE not in name}
    rank = min(ranks.values())
    others = {name: other for name, other in ranks.items() if other != rank}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,  # or what the model knows
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


def _is_read(injection: Injection, layer: nn.Module) -> bool:
    """Whether the model hands on the weight of this layer and does not call it, where PEFT's is dead."""
    return any(a.read and not a.called for a in injection.adapted if a.layer is layer)
