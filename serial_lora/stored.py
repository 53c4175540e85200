"""How a base's weight is kept: as a matrix, or in 8 or 4 bits by bitsandbytes or torchao.

Neither library is imported: a layer of theirs can only exist where it already is. Training never reads
a base weight, so adapters need none of this; what merges, compares or takes a base apart does.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def twin(layer: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """The same layer as another class sees it: what one changes, the other has too."""
    other = kind.__new__(kind)
    object.__setattr__(other, "__dict__", vars(layer))
    return other


def own_weight(layer: nn.Module, parameter: str) -> Tensor:
    """The base's own weight, of a layer whose adapted class answers with the merged one too."""
    weight = layer._parameters.get(parameter)
    if weight is not None:
        return weight
    return getattr(twin(layer, getattr(type(layer), "unadapted", type(layer))), parameter)


@dataclass(frozen=True)
class Stored:
    """A weight that is a matrix of floating-point numbers.

    Attributes:
        layer, parameter: the module that has it, and its name there.
    """

    layer: Any
    parameter: str

    quantized = False

    @property
    def weight(self) -> Any:  # of classes of other libraries
        return own_weight(self.layer, self.parameter)

    def parts(self) -> list[Tensor]:
        """The tensors that it consists of, which may be written in place."""
        return [whole(self.weight.detach())]

    def matrix(self, parts: list[Tensor]) -> Tensor:
        """Such tensors as the matrix that they stand for, (outputs, inputs)."""
        return parts[0]

    def rounded(self, matrix: Tensor) -> list[Tensor]:
        """Such tensors for another matrix, as near to it as they come."""
        return [matrix]


class EightBit(Stored):
    """bitsandbytes' Linear8bitLt: whole numbers, and a scale for each row."""

    quantized = True

    def parts(self) -> list[Tensor]:
        scales = self.weight.SCB if self.weight.SCB is not None else self.layer.state.SCB
        return [self.weight.data, scales]

    def matrix(self, parts: list[Tensor]) -> Tensor:
        return _bitsandbytes().int8_vectorwise_dequant(*parts)

    def rounded(self, matrix: Tensor) -> list[Tensor]:
        numbers, scales, _ = _bitsandbytes().int8_vectorwise_quant(matrix.half())
        return [numbers, scales]


class FourBit(Stored):
    """bitsandbytes' Linear4bit: two numbers a byte, scales for blocks, perhaps in 8 bits themselves."""

    quantized = True

    def parts(self) -> list[Tensor]:
        self.layer.state_dict()  # unpacks what `switch` tells of
        return [self.weight.data, *_scales(self.weight.quant_state)]

    def matrix(self, parts: list[Tensor]) -> Tensor:
        state = copy.copy(self.weight.quant_state)
        state.absmax, *nested = parts[1:]
        if nested:
            state.state2 = copy.copy(state.state2)
            state.offset, state.state2.absmax = nested
        return _bitsandbytes().dequantize_4bit(parts[0], state).float()

    def rounded(self, matrix: Tensor) -> list[Tensor]:
        state = self.weight.quant_state
        numbers, other = _bitsandbytes().quantize_4bit(
            matrix.to(state.dtype),
            blocksize=state.blocksize,
            compress_statistics=state.nested,
            quant_type=state.quant_type,
            quant_storage=self.weight.dtype,
        )
        return [numbers, *_scales(other)]


class Int8Tensor(Stored):
    """torchao's weight-only int8, in a plain nn.Linear: whole numbers, scales for groups of them."""

    quantized = True

    def parts(self) -> list[Tensor]:
        return self._parts(self.weight.data)

    def matrix(self, parts: list[Tensor]) -> Tensor:
        names, settings = self.weight.data.__tensor_flatten__()
        kind, tensors = type(self.weight.data), dict(zip(names, parts, strict=True))
        return kind.__tensor_unflatten__(tensors, settings, None, None).dequantize().float()

    def rounded(self, matrix: Tensor) -> list[Tensor]:
        weight, settings = self.weight.data, sys.modules["torchao.quantization"]
        rows, columns = weight.block_size
        group = settings.PerGroup(columns) if rows == 1 else settings.PerTensor()
        return self._parts(type(weight).from_hp(matrix.to(weight.dtype), group))

    @staticmethod
    def _parts(weight: Any) -> list[Tensor]:
        return [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]


class ReadOnly(Stored):
    """Any other tensor of torchao's, such as float8: read for what it stands for, never written."""

    quantized = True

    def matrix(self, parts: list[Tensor]) -> Tensor:
        return parts[0].dequantize().float()


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered where FSDP has spread it over processes: each of them must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def stored(layer: nn.Module, parameter: str) -> Stored:
    """How this module keeps this weight."""
    return kind_of(own_weight(layer, parameter))(layer, parameter)


def is_packed(layer: nn.Module, parameter: str) -> bool:
    """Whether bitsandbytes packs this weight, so that it is no matrix for anybody but its layer."""
    return kind_of(own_weight(layer, parameter)) in (EightBit, FourBit)


def is_quantized(module: nn.Module) -> bool:
    """Whether any weight of the module is kept in 8 or 4 bits."""
    return any(kind_of(parameter).quantized for parameter in module.parameters())


def refuse_without_gradient(model: nn.Module) -> None:
    """Refuse to train where no gradient comes back through a layer, as torchao's that quantize tokens too."""
    for name, layer in model.named_modules():
        weight = layer._parameters.get("weight") if isinstance(layer, nn.Linear) else None
        if weight is None or kind_of(weight) not in (Int8Tensor, ReadOnly):
            continue
        with torch.inference_mode(False), torch.enable_grad():
            tokens = torch.zeros(1, layer.in_features, dtype=weight.dtype, device=weight.device)
            tokens.requires_grad_(True)
            passes = nn.functional.linear(tokens, weight).requires_grad
        if not passes:
            raise SerialLoRAError(
                f"no gradient passes {name}, which quantizes tokens too, so an adapter would not "
                "learn; quantize weights alone, or train it before and load_adapter it here."
            )


def writable(root: nn.Module, key: tuple[str, str]) -> Stored:
    """The weight of this module and name, to be read and written."""
    module, parameter = key
    layer = root.get_submodule(module)
    weight = layer._parameters.get(parameter)
    if weight is not None:
        place = stored(layer, parameter)
        plain = weight.dtype in _TYPES and type(weight.data) is Tensor
        if plain or (place.quantized and not isinstance(place, ReadOnly)):
            return place
    if hasattr(weight, "full_tensor"):
        raise SerialLoRAError(
            f"FSDP has spread {module}.{parameter} over processes, so nothing can be merged into it; "
            "load the saved adapter onto a whole base, and merge there."
        )
    raise SerialLoRAError(
        f"{module}.{parameter} is computed anew from other tensors (weight_norm, spectral_norm, "
        "pruning) or of numbers that cannot be computed with (float8), so nothing can be merged into "
        "it; use the adapters unmerged, or eject them and make it an ordinary parameter first."
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


def kind_of(weight: Tensor) -> type[Stored]:
    name = type(weight).__name__
    if name == "Params4bit" and getattr(weight, "quant_state", None) is not None:
        return FourBit
    if name == "Int8Params" and weight.dtype == torch.int8:
        return EightBit
    kind = type(weight.data)
    if kind.__module__.startswith("torchao."):
        return Int8Tensor if kind.__name__ == "Int8Tensor" else ReadOnly
    return Stored


def _scales(state) -> list[Tensor]:
    return [state.absmax, *([state.offset, state.state2.absmax] if state.nested else ())]


def _bitsandbytes():
    return sys.modules["bitsandbytes"].functional
