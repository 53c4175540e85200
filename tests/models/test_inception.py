"""Inception for FID: torch-fidelity's own network, no foreign files, and a way round every lack."""

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
import torchmetrics.image.fid  # noqa: F401 - it looks for torch-fidelity once, the real one

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.inception import FEATURES, load_inception

MODULE = "torch_fidelity.feature_extractor_inceptionv3"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """An empty data folder and an empty cache of torch's hub."""
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


def pretend_fidelity(monkeypatch, url: str) -> None:
    """torch-fidelity as far as it says where the weights are; enough for all that goes wrong."""
    module = ModuleType(MODULE)
    module.URL_INCEPTION_V3 = url
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, MODULE, module)


@pytest.fixture
def url(monkeypatch):
    """An address that cannot be reached, with a file name like the real one's."""
    url = "https://example.org/weights-inception-2015-12-05-6726825d.pth"
    pretend_fidelity(monkeypatch, url)
    return url


def place(tmp_path: Path, url: str) -> Path:
    return tmp_path / "data" / "weights" / url.rsplit("/", 1)[1]


def refusal(*arguments: object) -> str:
    with pytest.raises(SerialLoRAError) as caught:
        load_inception(*arguments)
    said = str(caught.value)
    assert "\n" not in said
    return said


# --- what can be missing -------------------------------------------------------------------------


def test_without_torch_fidelity_one_is_told_to_install_it(monkeypatch):
    for name in ("torch_fidelity", MODULE):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install torch-fidelity" in refusal()


def test_without_a_network_one_is_told_the_address_and_the_place(tmp_path, url):
    said = refusal()
    assert url in said and str(place(tmp_path, url)) in said and "URLError" in said


def test_another_file_than_was_asked_for_is_not_taken(tmp_path, monkeypatch):
    """The hash stands in the file's name, and torch's hub is asked to look at it."""
    served = tmp_path / "weights-00000000.pth"
    torch.save({}, served)
    pretend_fidelity(monkeypatch, served.as_uri())
    assert "could not be fetched (RuntimeError)" in refusal()
    assert not list((tmp_path / "hub").rglob("*.pth"))


# --- files that are not right --------------------------------------------------------------------


def damage(path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    path.write_bytes(path.read_bytes()[:-2000])


def test_damaged_files_are_refused_wherever_they_lie(tmp_path, url, monkeypatch):
    named, placed = tmp_path / "weights.pth", place(tmp_path, url)
    placed.parent.mkdir(parents=True)
    for path, arguments in ((named, (named,)), (placed, ())):
        damage(path)
        assert str(path) in refusal(*arguments)
    placed.unlink()
    digest = hashlib.sha256(named.read_bytes()).hexdigest()[:8]
    pretend_fidelity(monkeypatch, named.rename(tmp_path / f"weights-{digest}.pth").as_uri())
    assert "could not be fetched" in refusal()


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


def test_large_pictures_are_made_smaller_without_aliasing(network):
    """Of a fine chessboard a plain grey remains; without antialiasing it would be black."""
    fine = torch.zeros(1, 3, 598, 598, dtype=torch.uint8)
    fine[..., ::2, ::2] = fine[..., 1::2, 1::2] = 254
    grey, black = (torch.full((1, 3, 299, 299), level, dtype=torch.uint8) for level in (127, 0))
    away = [(network(fine) - network(other)).norm() for other in (grey, black)]
    assert away[0] < 0.1 * away[1]


@pytest.mark.parametrize("kind", ["data root", "hub"])
def test_weights_are_found_where_one_is_told_to_put_them(
    fidelity, good, network, tmp_path, monkeypatch, kind
):
    if kind == "data root":
        path = place(tmp_path, fidelity.URL_INCEPTION_V3)
    else:
        path = tmp_path / "hub" / "hub" / "checkpoints" / Path(fidelity.URL_INCEPTION_V3).name
    path.parent.mkdir(parents=True)
    path.symlink_to(good)
    torch.testing.assert_close(load_inception().fc.weight, network.fc.weight)


@pytest.mark.parametrize("kind", ["lacking", "foreign", "other shape"])
def test_weights_of_something_else_are_refused(fidelity, good, tmp_path, kind):
    tensors = torch.load(good, weights_only=True)
    state = {
        "lacking": {key: tensor for key, tensor in tensors.items() if key != "fc.bias"},
        "foreign": {**tensors, "more": torch.zeros(1)},
        "other shape": {**tensors, "fc.bias": torch.zeros(1000)},
    }[kind]
    path = tmp_path / "other.pth"
    torch.save(state, path)
    said = refusal(path)
    assert "does not hold Inception's weights" in said and fidelity.URL_INCEPTION_V3 in said
