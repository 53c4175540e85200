"""Inception for FID: torch-fidelity's own network, no foreign files, and a way round every lack."""

from types import ModuleType
from unittest.mock import patch

import pytest
import torch
import torchmetrics.image.fid

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.inception import FEATURES, INCEPTION_FILE, load_inception

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path / "data"))


def refusal(*arguments: object) -> str:
    with pytest.raises(SerialLoRAError) as caught:
        load_inception(*arguments)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_without_torch_fidelity_one_is_told_to_install_it(tmp_path, monkeypatch):
    torch.save({}, tmp_path / "any.pth")
    monkeypatch.setattr(torchmetrics.image.fid, "_TORCH_FIDELITY_AVAILABLE", False)
    assert "pip install torch-fidelity" in refusal(tmp_path / "any.pth")


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert str(path) in refusal(path)


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


def test_weights_are_found_where_they_are_fetched_to(good, network, tmp_path):
    path = tmp_path / "data" / "weights" / INCEPTION_FILE
    path.parent.mkdir(parents=True)
    path.symlink_to(good)
    torch.testing.assert_close(load_inception().fc.weight, network.fc.weight)


@pytest.mark.parametrize("kind", ["lacking", "foreign", "other shape"])
def test_weights_of_something_else_are_refused(good, tmp_path, kind):
    tensors = torch.load(good, weights_only=True)
    state = {
        "lacking": {key: tensor for key, tensor in tensors.items() if key != "fc.bias"},
        "foreign": {**tensors, "more": torch.zeros(1)},
        "other shape": {**tensors, "fc.bias": torch.zeros(1000)},
    }[kind]
    path = tmp_path / "other.pth"
    torch.save(state, path)
    assert "does not hold Inception's weights" in refusal(path)
