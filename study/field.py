"""What the field offers beside Serial LoRA: PEFT's own classes, and norms and biases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import peft
import torch
from torch import Tensor, nn

from serial_lora import LoRAConfig, eject, inject
from serial_lora.layers import LoRA
from serial_lora.sites import Site
from study.variants import StudyAdapter

PEFT: dict[str, Callable[[int], peft.PeftConfig]] = {
    "dora": lambda size: peft.LoraConfig(r=size, lora_alpha=size, use_dora=True),
    "vera": lambda size: peft.VeraConfig(r=size),
    "hra": lambda size: peft.HRAConfig(r=size),
    "oft": lambda size: peft.OFTConfig(r=0, oft_block_size=size),
    "miss": lambda size: peft.MissConfig(r=size),
    "fourierft": lambda size: peft.FourierFTConfig(n_frequency=size, init_weights=True),
    "randlora": lambda size: peft.RandLoraConfig(r=size),
}
"""By size: a rank, a side of blocks, a number of frequencies. Fresh, each gives what the base gives."""


class ByPeft(LoRA):
    """A pair whose place PEFT's layer has taken: its answer minus the frozen layer's own."""

    def delta(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out), in float32: the difference of two near answers."""
        tokens = x.float().flatten(0, -2)  # in four dimensions OFT would take them for a picture's
        with torch.autocast(x.device.type, enabled=False):
            change = self.layer(tokens) - self.layer.get_base_layer()(tokens)
        return change.unflatten(0, x.shape[:-1])


def put_in_peft(
    model: nn.Module, sites: Iterable[Site], config: StudyAdapter, undo: ExitStack
) -> None:
    """Put one of `PEFT` on q, k, v and out, until ``undo`` closes.

    PEFT is shown the projections alone, each a layer of its own, all at once: some of its methods share
    matrices among them. A bias is no part of the change, so the layers have none.
    """
    names, layers = [], nn.ModuleDict()
    for site in sites:
        for part, projection in site.projections.items():
            weight = projection.weight(model)[projection.row_slice].detach().float().clone()
            layer = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
            layer.weight = nn.Parameter(weight, requires_grad=False)
            layers[f"layer{len(layers)}"] = layer
            names.append((site.name, f"lora_{part}{site.suffix}"))
    where = {"towers": config.towers, "blocks": config.blocks, "stream": config.stream}
    inject(model, LoRAConfig(rank=1, **where))
    undo.callback(eject, model)
    asked = PEFT[config.method](config.rank)
    asked.target_modules = set(layers)
    peft.get_peft_model(layers, asked)
    for (block, name), layer in zip(names, layers.values(), strict=True):
        pair = getattr(model.get_submodule(block), name)
        pair.requires_grad_(False)  # its own two factors are not asked
        pair.__class__, pair.layer = ByPeft, layer


def ln_bias(model: nn.Module, sites: Iterable[Site], config: StudyAdapter, undo: ExitStack) -> None:
    """No adapter at all: the adapted blocks' own norms and biases learn, and are put back."""
    for name in dict.fromkeys(site.name for site in sites):
        for parameter in model.get_submodule(name).parameters():
            if parameter.ndim == 1:  # of a norm, or a bias
                undo.callback(parameter.data.copy_, parameter.detach().clone())
                parameter.requires_grad_(True)


FIELD = dict.fromkeys(PEFT, put_in_peft) | {"ln_bias": ln_bias}
"""What puts each method into a frozen model, until a stack closes."""
