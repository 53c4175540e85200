"""Adapters into the weights and out of them again: merge, unmerge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.hooks import Injection, attach, detach, injections, refuse_without_values
from serial_lora.sites import AttentionSite, Projection, shared_weights


def merge(model: nn.Module) -> nn.Module:
    """Fold the adapters into the base's weights: the same outputs at the base's speed.

    Serial LoRA turns each of W_q, W_k, W_v into W (I + scale * B A); LoRA turns each projection
    into W + scale * B A. Computed in float32 whatever the base's type, and rounded once. The
    original weights are kept, so that `unmerge` and `eject` bring back every bit. Merging a merged
    model does nothing.

    The state dict of a merged model holds the merged weights *and* the adapters: save one with
    `save_adapter`, or call `eject(model, keep_merged=True)` for a plain model to save whole. Load
    other weights before merging: `unmerge` brings back those that were there.

    Returns:
        The same model.

    Raises:
        SerialLoRAError: if there are no adapters, a merged weight would not be finite, or blocks
            share weights but not adapters. The model is then as it was.
    """
    found = [(root, i) for root, i in injections(model) if i.originals is None]
    refuse_when_disabled(found)
    plans = [(root, injection, _merged_weights(root, injection)) for root, injection in found]
    for root, injection, merged in plans:
        injection.originals = {key: weight_at(root, key).detach().clone() for key in merged}
        detach(injection)
        write_weights(root, merged)
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Take merged adapters out of the weights, bit for bit; does nothing if none are merged.

    Raises:
        SerialLoRAError: if there are no adapters.
    """
    found = [(root, i) for root, i in injections(model) if i.originals is not None]
    refuse_when_disabled(found)
    for root, injection in found:
        write_weights(root, injection.originals)
        injection.originals = None
        attach(root, injection)
    return model


def base_weight(root: nn.Module, injection: Injection, projection: Projection) -> Tensor:
    """The base's own rows for a projection, (rows, columns), even while adapters are merged."""
    key = (projection.module, projection.parameter)
    kept = None if injection.disabled else (injection.originals or {}).get(key)
    whole = weight_at(root, key).detach() if kept is None else kept
    return whole[projection.row_slice]


def change_factors(
    root: nn.Module,
    injection: Injection,
    site: AttentionSite,
    part: str,
    least: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """What an adapter adds to the weight of one projection, as the two factors of a product.

    LoRA's are s B_p and A_p, Serial LoRA's s W_p B and A (the paper's equations 4 and 5).

    Args:
        least: the number type of both, unless that of what they are made from is wider: LoRA's
            own tensors, or the base's weight for Serial LoRA.

    Returns:
        (rows, rank) and (rank, columns); the scale is in the first.
    """
    block = root.get_submodule(site.name)
    if injection.config.method == LoRAConfig.method:
        lora = block.get_submodule(f"lora_{part}{site.suffix}")
        return lora.scale * wide(lora.lora_B, least), wide(lora.lora_A, least)
    serial = block.get_submodule(f"serial_lora{site.suffix}")
    weight = wide(base_weight(root, injection, site.projections[part]), least)
    left = serial.scale * (weight @ serial.lora_B.to(weight.dtype))
    return left, serial.lora_A.to(weight.dtype)


def wide(tensor: Tensor, least: torch.dtype = torch.float32) -> Tensor:
    """The tensor in at least this number type, or in its own if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, least))


def changed_parts(site: AttentionSite, config: AdapterConfig) -> dict[str, Projection]:
    """The projections an adapter acts on: all of them for LoRA, but not out for Serial LoRA."""
    serial = config.method == SerialLoRAConfig.method
    return {
        part: projection
        for part, projection in site.projections.items()
        if not (serial and part == "out")
    }


@torch.no_grad()
def _merged_weights(root: nn.Module, injection: Injection) -> dict[tuple[str, str], Tensor]:
    refuse_without_values(root)
    if shared_weights(root, injection.sites):
        raise SerialLoRAError(
            "blocks of this model share their attention weights but have an adapter each, so there "
            "is no one weight to merge into; use the adapters unmerged."
        )
    merged: dict[tuple[str, str], Tensor] = {}
    for site in injection.sites:
        for part, projection in changed_parts(site, injection.config).items():
            key = (projection.module, projection.parameter)
            whole = merged.setdefault(key, weight_at(root, key).detach().clone())
            rows = whole[projection.row_slice]
            left, right = change_factors(root, injection, site, part)
            rows.copy_(wide(rows) + left @ right)
    broken = [module for (module, _), weight in merged.items() if not weight.isfinite().all()]
    if broken:
        raise SerialLoRAError(
            f"merging would put values that are not finite into {broken[0]}; the adapter has "
            "diverged, or the base's number type is too narrow: nothing was merged."
        )
    return merged


def weight_at(root: nn.Module, key: tuple[str, str]) -> nn.Parameter:
    module, parameter = key
    return getattr(root.get_submodule(module), parameter)


@torch.no_grad()
def write_weights(root: nn.Module, weights: dict[tuple[str, str], Tensor]) -> None:
    for key, values in weights.items():
        weight_at(root, key).copy_(values)


def refuse_when_disabled(found: list[tuple[nn.Module, Injection]]) -> None:
    if any(injection.disabled for _, injection in found):
        raise SerialLoRAError("the adapters are disabled; leave the disabled(model) block first.")
