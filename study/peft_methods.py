"""Methods of the field by PEFT's own code, on q, k, v and out of every adapted block.

PEFT is shown those layers alone, as a model of its own, and never the model: what it makes of a layer
takes the layer's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import peft
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError
from study.opened import replace

# The size is each method's own: a rank, a side of its blocks, a number of frequencies. A fresh layer
# of each gives what the base gives; FourierFT's starts elsewhere unless it is told so.
PEFT_METHODS: dict[str, Callable[[int], peft.PeftConfig]] = {
    "dora": lambda size: peft.LoraConfig(r=size, lora_alpha=size, use_dora=True),
    "vera": lambda size: peft.VeraConfig(r=size),
    "hra": lambda size: peft.HRAConfig(r=size),
    "oft": lambda size: peft.OFTConfig(r=0, oft_block_size=size),
    "miss": lambda size: peft.MissConfig(r=size),
    "fourierft": lambda size: peft.FourierFTConfig(n_frequency=size, init_weights=True),
    "randlora": lambda size: peft.RandLoraConfig(r=size),
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
        SerialLoRAError: PEFT refuses the size.
    """
    paths = {name.replace(".", "-"): name for site in opened.values() for name in site.values()}
    layers = nn.ModuleDict({key: model.get_submodule(name) for key, name in paths.items()})
    try:
        config = PEFT_METHODS[kind](size)
        config.target_modules = set(layers)
        peft.get_peft_model(layers, config)
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
