"""The Inception network whose features an FID is made of, unless something else is said.

Numbers compare only if everybody uses one and the same network: the TensorFlow graph of December
2015, with its own padding, pooling and 1,008 classes, which torch-fidelity carries over. The
torchvision network of the same name gives other numbers.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.weights import fetched, read_state_dict, require_finite

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity publishes it
FEATURES = 2048  # the last pooling layer's, the standard for FID


def load_inception(weights: str | Path | None = None) -> nn.Module:
    """The network as torchmetrics sets it up, in evaluation mode.

    It takes pictures of any size, uint8 (N, 3, height, width), brings them to 299 x 299 with
    antialiasing ("clean FID", Parmar et al. 2022), and returns features (N, 2048).

    Args:
        weights: torch-fidelity's own file; None for the one that was fetched.
    """
    path = fetched(INCEPTION_FILE, "inception") if weights is None else Path(weights)
    # torch-fidelity runs whatever code a file holds, so it gets a file made here: tensors alone.
    safe = io.BytesIO()
    torch.save(read_state_dict(path), safe)
    safe.seek(0)
    from torchmetrics.image.fid import FrechetInceptionDistance  # half a second, for this alone

    try:
        metric = FrechetInceptionDistance(FEATURES, feature_extractor_weights_path=safe)
    except ModuleNotFoundError as error:
        raise SerialLoRAError(
            "FID at paper scale needs Inception as torch-fidelity carries it; run: "
            "pip install torch-fidelity, then start Python again."
        ) from error
    except (RuntimeError, TypeError, AttributeError) as error:
        raise SerialLoRAError(
            f"{path} does not hold Inception's weights; delete it and fetch it again."
        ) from error
    require_finite(metric.inception, path)
    return metric.inception
