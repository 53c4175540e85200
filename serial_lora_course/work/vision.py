"""Vision models by name, from timm, open_clip, transformers or this course.

load_vision("timm/vit_small_patch14_dinov2")
load_vision("open_clip/ViT-B-16-quickgelu:openai")
load_vision("facebook/dinov2-small")            # transformers: a name on the hub, or a folder
load_vision("tiny-clip")                        # comes with the course
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import timm
import torch
from torch import nn
from transformers import AutoModel

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.clip import TINY_MODEL, load_clip
from serial_lora_course.models.weights import load_weights


def load_vision(
    name: str, weights: Path | None = None, seed: int = 0, image_size: int | None = None
) -> nn.Module:
    """A vision model in evaluation mode, with its library's pretrained weights.

    Args:
        name: as above. A folder is one that transformers' ``save_pretrained`` wrote.
        weights: a file of timm's or open_clip's model, with its classifier or without, in place of
            what the library would fetch.
        seed: of layers that a checkpoint lacks; they are the same each time.
        image_size: side of the pictures, in place of the model's own, in pixels.

    Raises:
        SerialLoRAError: no such model, or its weights cannot be had.
    """
    if name == TINY_MODEL:
        return load_clip("tiny", weights="default" if weights is None else weights).model
    library, _, rest = name.partition("/")
    torch.manual_seed(seed)
    try:
        if library == "timm":
            model = timm.create_model(rest, pretrained=weights is None, num_classes=0)
        elif library == "open_clip":
            architecture, _, tag = rest.partition(":")
            pretrained = tag or None if weights is None else None
            model = open_clip.create_model(
                architecture, pretrained=pretrained, force_image_size=image_size
            )
        elif weights is not None:
            raise SerialLoRAError(
                f"--weights goes with a model of timm or open_clip; for {name} give the folder "
                "that transformers saved as the model's name."
            )
        else:
            model = AutoModel.from_pretrained(name)
    except SerialLoRAError:
        raise
    except Exception as error:  # each library raises kinds of its own, and the hub's on top
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SerialLoRAError(
            f"the model {name!r} cannot be loaded ({reason}); check the name "
            "(timm/NAME, open_clip/NAME:WEIGHTS, a name on the hub, a folder, or tiny-clip) and "
            "whether its weights are on this machine or can be fetched."
        ) from error
    if weights is not None:
        classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
        load_weights(
            model, weights, passed_over=(classifier,) if isinstance(classifier, str) else classifier
        )
    if image_size is not None and library == "timm" and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=image_size)
    return model.eval()
