"""Serial LoRA, from scratch: one low-rank pair in front of the attention of every block.

One evening's reading, in this order: layers and config (the maths; what to put in); sites, structure,
attention and feed_forward (where that is); state (what a model carries of its adapters); adapted and
packed (how tokens reach an adapter); merging (into the weights); injection and left_out (into the
model, and out again); values, several and overrides (more than one adapter, none, one for each sample);
tensor_files, files and peft_files; parameters. peft is the same method as one of PEFT's, and
imported only by who wants that. errors serves all.
"""

from serial_lora.attention import register_family
from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.files import LIBRARY_VERSION, load_adapter, save_adapter
from serial_lora.injection import eject, inject, set_scale
from serial_lora.merging import merge, unmerge
from serial_lora.overrides import disabled, per_sample
from serial_lora.parameters import adapter_parameters, count_parameters, lora_plus_groups
from serial_lora.peft_files import from_peft, to_peft
from serial_lora.several import activate, adapter_names, add_adapter, combine, remove_adapter
from serial_lora.state import adapters

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
    "combine",
    "count_parameters",
    "disabled",
    "eject",
    "from_peft",
    "inject",
    "load_adapter",
    "lora_plus_groups",
    "merge",
    "per_sample",
    "register_family",
    "remove_adapter",
    "save_adapter",
    "set_scale",
    "to_peft",
    "unmerge",
]
