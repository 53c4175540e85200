"""The Inception network whose features an FID is made of, unless something else is said.

Numbers compare only if everybody uses one and the same network: the TensorFlow graph of December
2015, with its own padding, pooling and 1,008 classes, which torch-fidelity carries over. The
torchvision network of the same name gives other numbers.
"""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.weights import read_state_dict, require_finite, weights_path

FEATURES = 2048  # the last pooling layer's, the standard for FID


def load_inception(weights: str | Path | None = None) -> nn.Module:
    """The network as torchmetrics sets it up, in evaluation mode.

    It takes pictures of any size, uint8 (N, 3, height, width), brings them to 299 x 299 with
    antialiasing ("clean FID", Parmar et al. 2022), and returns features (N, 2048).

    Args:
        weights: torch-fidelity's own file; None for the copy below the data root's ``weights``, or
            else through torch's hub, which keeps what it fetches.

    Raises:
        SerialLoRAError: torch-fidelity is not installed, its weights are out of reach, or the file
            is damaged or another network's.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3 as url
    except ImportError as error:
        raise SerialLoRAError(
            "FID at paper scale needs Inception as torch-fidelity carries it; run: "
            "pip install torch-fidelity, then start Python again."
        ) from error
    from torchmetrics.image.fid import FrechetInceptionDistance  # half a second, for this alone

    place = weights_path(PurePosixPath(url).name)
    if weights is None and place.is_file():
        weights = place
    state = _fetch(url, place) if weights is None else read_state_dict(Path(weights))
    # torch-fidelity runs whatever code a file holds, so it gets a file made here: tensors alone.
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    try:
        metric = FrechetInceptionDistance(FEATURES, feature_extractor_weights_path=safe)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise SerialLoRAError(
            f"{weights or url} does not hold Inception's weights; fetch {url} again."
        ) from error
    require_finite(metric.inception, weights or place)
    return metric.inception


def _fetch(url: str, place: Path) -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:  # no network, no space, another file than was asked for
        raise SerialLoRAError(
            f"Inception's weights could not be fetched ({type(error).__name__}); where there is a "
            f"network, download {url}, and put the file at {place}."
        ) from error
