"""A layer's own weight: read as a matrix however it is kept, and whether it can be written.

bitsandbytes and torchao keep weights in 8 or 4 bits. Neither library is imported: a layer of theirs can
only exist where it already is, and it tells its matrix itself, as what it makes of the identity.
Training never reads a base weight, so adapters need none of this; what compares a base or exports does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def own_weight(layer: nn.Module, parameter: str) -> Tensor:
    """The base's own weight, of a layer whose adapted class answers with the merged one too."""
    weight = layer._parameters[parameter]
    assert weight is not None
    return weight


def require_own_weight(name: str, layer: nn.Module, parameter: str) -> None:
    """Refuse a weight that is computed anew at each call, or that accelerate keeps elsewhere."""
    weight = layer._parameters.get(parameter)
    if weight is None:
        raise SerialLoRAError(
            f"{name}.{parameter} is computed anew from other tensors (weight_norm, spectral_norm, "
            "pruning); make it an ordinary parameter first."
        )
    if weight.is_meta and hasattr(layer, "_hf_hook"):
        raise SerialLoRAError(
            f"the weights of {name} are offloaded by accelerate, where adapters would have no values; "
            "load the model without offloading."
        )


def matrix(layer: nn.Module, parameter: str) -> Tensor:
    """The base's own weight as it acts, (outputs, inputs), gathered where FSDP has spread it."""
    weight = own_weight(layer, parameter)
    if not is_quantized(weight):
        return whole(weight.detach())
    kind: Any = getattr(type(layer), "unadapted", type(layer))
    plain = kind.__new__(kind)
    vars(plain).update(vars(layer), _parameters=layer._parameters | {"bias": None})
    dtype = weight.dtype if weight.is_floating_point() else torch.float16
    with torch.no_grad():
        product = kind.forward(
            plain, torch.eye(plain.in_features, dtype=dtype, device=weight.device)
        )
    return product.T.float()


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered where FSDP has spread it over processes: each of them must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def is_quantized(weight: Tensor) -> bool:
    """Whether it is kept in 8 or 4 bits."""
    return is_packed(weight) or type(weight.data).__module__.startswith("torchao.")


def is_packed(weight: Tensor) -> bool:
    """Whether bitsandbytes has packed it, so that it is no matrix for anybody but its layer."""
    eight_bits = type(weight).__name__ == "Int8Params" and weight.dtype == torch.int8
    return eight_bits or getattr(weight, "quant_state", None) is not None


def writable(root: nn.Module, key: tuple[str, str]) -> Tensor:
    """The weight of this module and name, to be read and written in place."""
    module, parameter = key
    weight = own_weight(root.get_submodule(module), parameter)
    if weight.dtype in _TYPES and type(weight.data) is Tensor:
        return weight.detach()
    raise SerialLoRAError(
        f"{module}.{parameter} is kept in few bits or spread by FSDP, so nothing can be merged into it "
        "exactly; use the adapters unmerged, or load the saved ones onto a base with ordinary weights, "
        "and merge there."
    )


def switch(root: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Switch off what gets in the way of adapters; which attributes these are, and what they were.

    bitsandbytes packs 4-bit weights for evaluation, after which no gradient passes; and
    nn.TransformerEncoder packs padded tokens for a shortcut that adapted layers do not take.
    """
    switched: list[tuple[nn.Module, str, Any]] = []
    for layer in root.modules():
        if vars(layer).get("support_avx512bf16_for_cpu"):
            layer.state_dict()  # unpacks
            switched.append((layer, "support_avx512bf16_for_cpu", True))
        if isinstance(layer, nn.TransformerEncoder) and layer.use_nested_tensor:
            switched.append((layer, "use_nested_tensor", True))
    for layer, name, _ in switched:
        setattr(layer, name, False)
    return switched
