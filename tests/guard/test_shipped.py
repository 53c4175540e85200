"""What the course ships stays what it is: pictures, weights, records, and adapter files of today's format.

``shipped.json`` holds the fingerprints. Hidden concepts, weights and every record hang on the pictures, so
a difference here is a mistake, unless the thing was made anew on purpose: then write the file anew with
``python -m tests.guard.test_shipped`` and say so in the commit.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from serial_lora import load_adapter
from serial_lora_course.data.registry import (
    dataset_names,
    load_classification,
    load_segmentation,
    load_style,
)
from tests.library.tiny_models import PlainBlock

HERE = Path(__file__).parent
ASSETS = HERE.parents[1] / "serial_lora_course" / "assets"
LOADERS = {
    "classification": load_classification,
    "segmentation": load_segmentation,
    "style": load_style,
}
SETS = [f"{task} {name}" for task in LOADERS for name in dataset_names(task)]


def shipped_files() -> dict[str, str]:
    """SHA-256 of every drawing, weight and record, by its path in the assets."""
    folders = ("drawings/*.zip", "weights/**/*.safetensors", "records/*.jsonl", "*.tsv")
    paths = sorted(path for pattern in folders for path in ASSETS.glob(pattern))
    return {
        path.relative_to(ASSETS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def pictures_of(named: str) -> str:
    """The fingerprint of every picture, mask and caption of a tiny data set."""
    task, name = named.split(" ", 1)
    return LOADERS[task](name).picture_fingerprint()


def two_blocks() -> torch.nn.Module:
    """The base of the adapter file: two blocks of width 32, their weights by a formula."""
    model = torch.nn.Sequential(PlainBlock(), PlainBlock())
    with torch.no_grad():
        for index, weight in enumerate(model.parameters()):
            places = torch.arange(weight.numel(), dtype=torch.float64).reshape(weight.shape)
            weight.copy_(torch.sin(places * 0.37 + index) / 8)
    return model.eval()


def tokens() -> torch.Tensor:
    """Two samples of five tokens: (2, 5, 32)."""
    return torch.cos(torch.arange(320, dtype=torch.float64) * 0.11).float().reshape(2, 5, 32)


@pytest.mark.parametrize("path", sorted(json.loads((HERE / "shipped.json").read_text())["files"]))
def test_a_shipped_file_is_what_it_was(path):
    content = (ASSETS / path).read_bytes()
    expected = json.loads((HERE / "shipped.json").read_text())["files"][path]
    assert hashlib.sha256(content).hexdigest() == expected


def needs_pinned_scenes() -> None:
    """Skip where scenes are other ones: Pillow turns and scales them, and its release 13 made the records'."""
    if version("pillow").split(".")[0] != "13":
        pytest.skip("another Pillow rounds a pixel of a scene otherwise")


@pytest.mark.parametrize("named", SETS)
def test_tiny_pictures_are_what_they_were(named):
    if named.startswith("segmentation"):
        needs_pinned_scenes()
    assert pictures_of(named) == json.loads((HERE / "shipped.json").read_text())["pictures"][named]


def test_an_adapter_file_of_today_loads_and_means_what_it_meant():
    model = two_blocks()
    before = model(tokens())
    load_adapter(model, HERE / "adapter.safetensors")
    expected = load_file(HERE / "outputs.safetensors")["outputs"]
    found = model(tokens())
    assert (expected - before).abs().max() > 0.01
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def _write() -> None:
    table = {"files": shipped_files(), "pictures": {named: pictures_of(named) for named in SETS}}
    (HERE / "shipped.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    _write()
