"""What `load_state_dict` finds under other names.

transformers writes a checkpoint under the hub's names of layers, and its Trainer reads it back by
the model's own, without an error where the two differ: `vit.encoder.layer.0.serial_lora.lora_B` in
the file is `vit.layers.0.serial_lora.lora_B` in the model. A frozen base has its values already;
adapters would stay as they were.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch import nn

from serial_lora.errors import SerialLoRAError, cut
from serial_lora.sites import unwrapped_name
from serial_lora.state import RECORD, Injection

NAME = "serial_lora"


def watch_loading(root: nn.Module) -> None:
    """Have `rename` called before the model loads a state dict."""
    root._load_state_dict_pre_hooks[NAME] = partial(rename, root)  # type: ignore[index]


def unwatch_loading(root: nn.Module) -> None:
    root._load_state_dict_pre_hooks.pop(NAME, None)  # type: ignore[call-overload]


def rename(root: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give what belongs to the active adapter the names that it has in this model.

    Raises:
        SerialLoRAError: the state has adapters, and not one for each place of this model.
    """
    injection: Injection = vars(root)[RECORD]
    ours = {unwrapped_name(name): name for name, _ in root.named_parameters()}
    wanted = [prefix + ours.get(name, name) for name in injection.active_tensors()]
    kinds = {_words(name)[-2:] for name in wanted if name.endswith((".lora_A", ".lora_B"))}
    others = [name for name in state if name.startswith(prefix) and name not in set(wanted)]
    foreign = {name for name in others if _words(name)[-2:] in kinds}
    if not foreign:
        return
    for name in wanted:
        alike = [other for other in others if other in state and _words(other) == _words(name)]
        if name not in state and len(alike) == 1:
            state[name] = state.pop(alike[0])
    odd = [name for name in wanted if name not in state] + sorted(foreign & state.keys())
    if odd:
        raise SerialLoRAError(
            f"{cut(odd[0])} is in the model or in this state dict, and not in both: its adapters "
            "are of another model or other places; use save_adapter and load_adapter."
        )


def _words(name: str) -> tuple[str, ...]:
    """The numbers in a name, and what an adapter and its tensor are called."""
    return (*re.findall(r"\d+", name), *name.split(".")[-2:])
