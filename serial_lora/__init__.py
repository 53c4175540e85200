"""Serial LoRA, from scratch: one low-rank pair in front of the attention of every block.

One evening's reading, in this order: layers and config (the maths; what to put in); sites,
structure, families and attention (where attention is); packed, handles, records, hooks and attaching
(how tokens reach an adapter); merging, also and injection (into the weights, into the model, and out
again); named and switches (several adapters, none, one for each sample); fingerprints, files and
export; optim and counting, each for itself. peft is the same method as one of PEFT's, and imported only
by who wants that.
"""

from serial_lora.attention import register_family
from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.counting import count_parameters
from serial_lora.errors import SerialLoRAError
from serial_lora.export import to_diffusers, to_peft
from serial_lora.files import LIBRARY_VERSION, load_adapter, save_adapter
from serial_lora.injection import adapter_parameters, eject, inject, set_scale
from serial_lora.merging import merge, unmerge
from serial_lora.named import (
    activate,
    adapter_names,
    add_adapter,
    chain,
    combine,
    remove_adapter,
)
from serial_lora.optim import lora_plus_groups
from serial_lora.records import adapters
from serial_lora.switches import disabled, per_sample

__version__ = LIBRARY_VERSION

__all__ = [
    "LoRAConfig",
    "SerialLoRAConfig",
    "SerialLoRAError",
    "activate",
    "adapter_names",
    "adapter_parameters",
    "adapters",
    "add_adapter",
    "chain",
    "combine",
    "count_parameters",
    "disabled",
    "eject",
    "inject",
    "load_adapter",
    "lora_plus_groups",
    "merge",
    "per_sample",
    "register_family",
    "remove_adapter",
    "save_adapter",
    "set_scale",
    "to_diffusers",
    "to_peft",
    "unmerge",
]
