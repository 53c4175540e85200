"""Adapters into the weights and out of them again: merge, unmerge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from serial_lora.adapted import attach, detach
from serial_lora.errors import SerialLoRAError, require_finite
from serial_lora.layers import wide
from serial_lora.sites import own_weight
from serial_lora.state import Injection, injected, plain_context


def merge(model: nn.Module) -> nn.Module:
    """Fold the adapters into the base's weights: the same outputs at the base's speed.

    Serial LoRA turns each of W_q, W_k, W_v into W (I + scale * B A); LoRA turns each projection
    into W + scale * B A. Computed in float32 whatever the base's type, and rounded once. The
    original weights are kept, so that `unmerge` and `eject` bring back every bit. Merging a merged
    model does nothing. The state dict of a merged model holds the merged weights *and* the adapters:
    `eject(model, keep_merged=True)` leaves a plain model to save whole.

    Raises:
        SerialLoRAError: if another layer shares a weight, or a merged one would not be finite.
    """
    root, injection = injected(model)
    injection.refuse_inside()
    if injection.merged:
        return model
    with plain_context(root):
        refuse_shared(root, {adapted.name: adapted.own for adapted in injection.adapted})
        originals, merged = {}, {}
        for adapted in injection.adapted:
            key = adapted.name, adapted.parameter
            originals[key] = adapted.own.detach().clone()
            changed = adapted.changed(wide(originals[key]), adapted.pairs)
            merged[key] = changed.to(originals[key].dtype)
        require_finite({adapted: weight for (adapted, _), weight in merged.items()}, "merged")
        try:
            write_weights(root, merged)
        except BaseException:
            write_weights(root, originals)
            raise
        detach(injection)
        injection.originals = originals
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Take merged adapters out of the weights, bit for bit; does nothing if none are merged."""
    root, injection = injected(model)
    injection.refuse_inside()
    if injection.merged:
        with plain_context(root):
            write_weights(root, injection.originals or {})
        injection.originals = None
        attach(root, injection)
    return model


def base_weight(root: nn.Module, injection: Injection, key: tuple[str, str]) -> Tensor:
    """The base's own weight, even while adapters are merged."""
    kept = (injection.originals or {}).get(key)
    return own_weight(root.get_submodule(key[0]), key[1]).detach() if kept is None else kept


def refuse_shared(root: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that serve other layers too."""
    everywhere = Counter(_memory(p) for m in root.modules() for p in m.parameters(recurse=False))
    for name, weight in weights.items():
        if everywhere[_memory(weight)] > 1:
            raise SerialLoRAError(
                f"{name} shares a weight with another layer, for which a merged or exported adapter "
                "would be wrong; use the adapters unmerged, with save_adapter."
            )


def _memory(parameter: Tensor) -> int:
    """What two parameters have in common that are changed together, whatever their names."""
    plain = type(parameter.data) is Tensor and parameter.numel()
    return parameter.data_ptr() if plain else id(parameter)


@torch.no_grad()
def write_weights(root: nn.Module, weights: Mapping[tuple[str, str], Tensor]) -> None:
    """These values into the weights, in place."""
    for (module, parameter), value in weights.items():
        own_weight(root.get_submodule(module), parameter).copy_(value)
