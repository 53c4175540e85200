"""Which settings of a lab at the paper's scale fit a GPU: a table of what a step of each takes.

The numbers are the peaks of a whole step (forward, backward, AdamW) with LoRA on attention, in
bfloat16, on a GPU that is only pretended: every tensor that lives at once was counted, with what
autocast copies and the backward pass computes anew. 1.5 GiB come on top for what no tensor tells: CUDA's
own, and memory in pieces too small to use. On a real GPU none has been measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from serial_lora_course.labs.config import LabConfig
from serial_lora_course.labs.device import GIB, MissingError, device_name

#: Lab -> changes of its settings, each thriftier than the one before, and the GiB that a step takes: its
#: peak and those 1.5.
CHOICES: dict[str, tuple[tuple[dict[str, Any], float], ...]] = {
    "clip": (  # of 101 classes, a batch of 32
        ({"accumulation": 1}, 5.1),
        ({"accumulation": 2}, 3.8),
        ({"accumulation": 4}, 3.2),
        ({"accumulation": 8}, 2.9),
        ({"accumulation": 16}, 2.7),
    ),
    "sam": (  # of 3 boxes; four blocks keep their softmax twice, as float32 too
        ({"gradient_checkpointing": False}, 9.4),
        ({"gradient_checkpointing": True}, 4.4),
    ),
    "sd3": (
        ({"gradient_checkpointing": False}, 6.9),
        ({"gradient_checkpointing": True}, 5.8),
        ({"gradient_checkpointing": True, "resolution": 256}, 5.7),
    ),
}

#: Lab -> the GiB that looking at a trained model takes, counted in the same way, and those 1.5: CLIP and SAM
#: measure, SD3 draws four pictures of 512 pixels. `fitted` asks for a step alone.
LOOKS = {"clip": 3.3, "sam": 3.8, "sd3": 7.0}


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
