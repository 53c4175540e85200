"""What `load_state_dict` finds under other names.

transformers writes a checkpoint under the hub's names of layers, and its Trainer reads it back by
the model's own, without an error where the two differ: `vit.encoder.layer.0.serial_lora.lora_B` in
the file is `vit.layers.0.serial_lora.lora_B` in the model. A frozen base has its values already;
adapters would stay as they were.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from serial_lora.errors import SerialLoRAError, cut
from serial_lora.sites import unwrapped_name
from serial_lora.state import RECORD, Injection


def rename(root: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state dict is loaded: give the active adapter's tensors the names that they have here.

    Raises:
        SerialLoRAError: the state has adapters, and not one for each place of this model.
    """
    if not any(name.endswith(".lora_B") for name in state):
        return  # a base's
    injection: Injection = vars(root)[RECORD]
    ours = {unwrapped_name(name): name for name, _ in root.named_parameters()}
    wanted = {prefix + ours.get(name, name): None for name in injection.active_tensors()}
    others = [name for name in state if name.startswith(prefix) and name not in wanted]
    for name in wanted:
        if name not in state:
            alike = [each for each in others if each in state and _words(each) == _words(name)]
            if len(alike) != 1:
                raise SerialLoRAError(
                    f"{cut(name)} is not in this state dict, whose adapters are of another model or "
                    "other places; use save_adapter and load_adapter."
                )
            state[name] = state.pop(alike[0])


def _words(name: str) -> tuple[str, ...]:
    """The numbers in a name, and what an adapter and its tensor are called."""
    return (*re.findall(r"\d+", name), *name.split(".")[-2:])
