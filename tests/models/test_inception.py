"""Inception for FID: torch-fidelity's own network, no foreign files, and a way round every lack."""

from types import ModuleType
from unittest.mock import patch

import pytest
import torch

from serial_lora_course.models.inception import FEATURES, load_inception

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


# --- the network itself, where torch-fidelity is installed ---------------------------------------


def random_state(fidelity: ModuleType) -> dict[str, torch.Tensor]:
    """Weights in torch-fidelity's layout, of a size that keeps the features from fading away."""
    torch.manual_seed(0)
    network = fidelity.FeatureExtractorInceptionV3
    fetch = patch.object(fidelity, "load_state_dict_from_url")
    with fetch, patch.object(network, "load_state_dict"):
        state = network("random", [str(FEATURES)]).state_dict()
    return {
        key: tensor * 6**0.5 if key.endswith("conv.weight") else tensor
        for key, tensor in state.items()
    }


@pytest.fixture(scope="module")
def fidelity():
    return pytest.importorskip(MODULE)


@pytest.fixture(scope="module")
def good(fidelity, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "good.pth"
    torch.save(random_state(fidelity), path)
    return path


@pytest.fixture(scope="module")
def network(good):
    return load_inception(good)


def noise(side: int) -> torch.Tensor:
    chance = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=chance)


def test_features_are_torch_fidelitys_own(fidelity, good, network):
    theirs = fidelity.FeatureExtractorInceptionV3("theirs", [str(FEATURES)], str(good))
    pictures = noise(299)  # their resizing is another one, so at the size where none is needed
    found = network(pictures)
    assert found.shape == (2, FEATURES) and found.dtype == torch.float32 and found.std() > 0.01
    torch.testing.assert_close(found, theirs(pictures)[0])
