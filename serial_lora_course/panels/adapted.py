"""What panels of adapted models share: the learner's own model at any scale, and a slider for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets
from torch import nn

from serial_lora.config import AdapterConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.injection import adapter_parameters, set_scale
from serial_lora.records import adapters, injections
from serial_lora.switches import disabled
from serial_lora_course.models.weights import Backbone

LARGEST_SCALE = 1.5
STEP = 0.05
STILL_SCALES = (0.0, 0.5, 1.0, 1.5)
"""Where the slider of a still form stands, one column each."""


@contextmanager
def at_scale(model: nn.Module, scale: float | None) -> Iterator[nn.Module]:
    """The model in evaluation mode with its adapters at ``scale`` (None: without them).

    When the `with` block ends, by an exception too, every adapter's scale and every module's mode
    are as they were.

    Raises:
        SerialLoRAError: if there are no adapters, they are merged, or the scale is not finite.
    """
    modes = [(module, module.training) for module in model.modules()]
    configs = [(injection, injection.config) for _, injection in injections(model)]
    scales = [(adapter, adapter.scale) for adapter in adapters(model).values()]
    try:
        model.eval()
        if scale is None:
            with disabled(model):
                yield model
        else:
            set_scale(model, scale)
            yield model
    finally:
        for adapter, value in scales:
            adapter.scale = value
        for injection, config in configs:
            injection.config = config
        for module, training in modes:
            module.training = training


def require_adapted(backbone: Any, kind: type[Backbone]) -> None:
    """Refuse at once what would keep a panel from working later.

    Raises:
        SerialLoRAError: no backbone of this kind, no adapters, or merged ones.
    """
    if not isinstance(backbone, kind):
        name = kind.__name__.removesuffix("Backbone")
        raise SerialLoRAError(
            f"a {type(backbone).__name__} is no {name.upper()} backbone; pass what "
            f"load_{name.lower()} returned."
        )
    with at_scale(backbone.model, 0.0):
        pass


def own_config(model: nn.Module) -> AdapterConfig:
    """The configuration of the model's adapters, with the scale that they have now.

    Raises:
        SerialLoRAError: if there are no adapters.
    """
    return injections(model)[0][1].config


def adapter_digest(model: nn.Module) -> bytes:
    """Of the adapters' numbers: it changes when they are trained further or exchanged."""
    digest = hashlib.blake2b()
    for parameter in adapter_parameters(model):
        digest.update(parameter.detach().cpu().numpy())
    return digest.digest()


def scale_slider(model: nn.Module, continuous_update: bool) -> ipywidgets.FloatSlider:
    """A slider that begins at the scale of the model's adapters.

    Args:
        continuous_update: whether the value follows the hand, or comes when it lets go.
    """
    own = own_config(model).scale
    return ipywidgets.FloatSlider(
        min(max(own, 0), LARGEST_SCALE),
        min=0,
        max=LARGEST_SCALE,
        step=STEP,
        description=f"scale (0: no adapter, {own:g}: its own)",
        style={"description_width": "initial"},
        layout={"width": "480px", "max_width": "100%"},
        continuous_update=continuous_update,
    )
