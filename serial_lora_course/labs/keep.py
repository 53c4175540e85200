"""What else may be kept of a run: the trained tensors, and what each test picture came to.

With both, and the data, everything can be measured anew without training.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor, nn

from serial_lora.files import write_whole
from serial_lora_course.files import refusals_told

Outcomes = Mapping[str, np.ndarray]
"""What a run came to on each test picture, in the data's order, by the name of the measure."""


@refusals_told()
def require_folder(folder: Path) -> None:
    """Make the folder, before hours go into what it is to hold.

    Raises:
        SerialLoRAError: there can be no such folder, or nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@refusals_told()
def keep_run(folder: Path, lab: Any, method: Any, seen: Any, name: str) -> None:
    """A `Draw` that draws nothing: ``name.safetensors`` and ``name.npz`` in a folder."""
    keep_trained(folder / f"{name}.safetensors", trained_of(lab.backbone.model))
    keep_outcomes(folder / f"{name}.npz", lab.outcomes(seen))


def trained_of(model: nn.Module) -> dict[str, Tensor]:
    """What learns in a model, as it is now."""
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters() if p.requires_grad}


def keep_trained(file: Path, trained: Mapping[str, Tensor]) -> None:
    """Write trained tensors, whole or not at all."""
    write_whole(file, save(dict(trained)))


def keep_outcomes(file: Path, outcomes: Outcomes) -> None:
    """Write what a run came to, whole or not at all."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **outcomes)
    write_whole(file, stream.getvalue())
