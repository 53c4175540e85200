"""Inception for FID is torch-fidelity's own network."""

from types import ModuleType
from unittest.mock import patch

import pytest
import torch

from serial_lora_course.models.inception import FEATURES, load_inception


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


def test_features_are_torch_fidelitys_own(tmp_path):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    file = tmp_path / "good.pth"
    torch.save(random_state(fidelity), file)
    theirs = fidelity.FeatureExtractorInceptionV3("theirs", [str(FEATURES)], str(file))
    # Their resizing is another one, so at the size where none is needed.
    pictures = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    found = load_inception(file)(pictures)
    assert found.shape == (2, FEATURES) and found.dtype == torch.float32 and found.std() > 0.01
    torch.testing.assert_close(found, theirs(pictures)[0])
