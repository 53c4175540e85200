"""Which settings of a lab at the paper's scale fit a GPU: a table of what a step of each takes.

The numbers were counted once, from the shapes of a step's tensors with LoRA, the largest method, in
bfloat16: the frozen weights with their bfloat16 copies, what is trained with its gradient and AdamW's
averages, what is kept for the way back, and 1.5 GiB for what shapes do not tell. On the CPU a full-size
step was seen to keep as much as was counted; on a GPU none has been measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serial_lora_course.labs.config import LabConfig
from serial_lora_course.labs.device import GIB, MissingError, device_name

#: Lab -> changes of its settings, each thriftier than the one before, and the GiB that a step takes.
CHOICES: dict[str, tuple[tuple[dict[str, Any], float], ...]] = {
    "clip": (  # of 101 classes; with 10 it is 0.4 less
        ({"accumulation": 1}, 6.1),
        ({"accumulation": 2}, 4.4),
        ({"accumulation": 4}, 3.6),
        ({"accumulation": 8}, 3.2),
        ({"accumulation": 16}, 3.0),
    ),
    "sam": (({"gradient_checkpointing": False}, 8.0), ({"gradient_checkpointing": True}, 3.5)),
    "sd3": (
        ({"gradient_checkpointing": False}, 6.6),
        ({"gradient_checkpointing": True}, 5.7),
        ({"gradient_checkpointing": True, "resolution": 256}, 5.6),
    ),
}


def fitted(lab: str, scale: str, config: LabConfig, free: int) -> LabConfig:
    """The settings with the first of a lab's choices that fits so many free bytes.

    At tiny scale everything fits.

    Raises:
        MissingError: none of them does.
    """
    if scale == "tiny":
        return config
    for chosen, needed in CHOICES[lab]:
        if needed * GIB <= free:
            return replace(config, **chosen)
    raise MissingError(
        f"{device_name()} has {free / GIB:.1f} GiB to fill, and the thriftiest setting takes about "
        f"{needed:.1f} GiB: shut down other notebooks and programs that use this memory, or work at "
        "tiny scale."
    )
