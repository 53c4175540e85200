"""Methods of the field by PEFT's own code, on q, k, v and out of every adapted block.

PEFT is shown those layers alone, as a model of its own, and never the model: what it makes of a layer
takes the layer's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from peft import (
    FourierFTConfig,
    HRAConfig,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PeftConfig,
    RandLoraConfig,
    VeraConfig,
    get_peft_model,
)
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.opened import replace

# The size is each method's own: a rank, a side of its blocks, a number of frequencies. A fresh layer
# of each gives what the base gives; FourierFT's starts elsewhere unless it is told so.
PEFT_METHODS: dict[str, Callable[[int], PeftConfig]] = {
    "dora": lambda size: LoraConfig(r=size, lora_alpha=size, use_dora=True),
    "vera": lambda size: VeraConfig(r=size),
    "hra": lambda size: HRAConfig(r=size),
    "oft": lambda size: OFTConfig(r=0, oft_block_size=size),
    "miss": lambda size: MissConfig(r=size),
    "fourierft": lambda size: FourierFTConfig(n_frequency=size, init_weights=True),
    "randlora": lambda size: RandLoraConfig(r=size),
}


def put_in_peft(
    kind: str,
    size: int,
    model: nn.Module,
    opened: Mapping[str, Mapping[str, str]],
    undo: ExitStack,
) -> None:
    """Put one of `PEFT_METHODS` on layers of a model, until ``undo`` closes.

    Raises:
        SerialLoRAError: PEFT has no such method here, or refuses the size.
    """
    paths = {name.replace(".", "-"): name for site in opened.values() for name in site.values()}
    layers = nn.ModuleDict({key: model.get_submodule(name) for key, name in paths.items()})
    try:
        config = PEFT_METHODS[kind](size)
        config.target_modules = set(layers)
        get_peft_model(layers, config)
    except KeyError as error:
        raise SerialLoRAError(f"PEFT's {kind} is not among {', '.join(PEFT_METHODS)}.") from error
    except (ValueError, AssertionError) as error:
        raise SerialLoRAError(f"PEFT refuses {kind} of size {size}: {error}") from error
    for key, name in paths.items():
        replace(model, name, Rows(layers[key]), undo)


class Rows(nn.Module):
    """A layer that is shown tokens (N, d), in however many dimensions they come.

    SAM's come in four, which PEFT's OFT takes for those of a picture.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(tokens.flatten(0, -2)).unflatten(0, tokens.shape[:-1])
