"""The script for CLIP's weights, with a small model in the place of ViT-B/16."""

import copy
import hashlib
import warnings

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from data_scripts import clip_weights
from tests.doors import through_the_door
from tests.labs.lab_models import register_small

FILE_NAME = "small-test-clip-openai.safetensors"


@pytest.fixture(scope="module")
def small_models(tmp_path_factory):
    """Register the small model with QuickGELU and its twin with GELU."""
    folder = tmp_path_factory.mktemp("configs")
    register_small(folder, "small-test-gelu", quick_gelu=False)
    torch.manual_seed(0)
    return open_clip.create_model(register_small(folder, "small-test-clip")).eval()


@pytest.fixture
def small(small_models, monkeypatch):
    """The small model, as if OpenAI had published it."""
    publish(monkeypatch)
    return small_models


def publish(monkeypatch, sha256="0" * 64):
    facts = {"hf_hub": "timm/small/", "url": f"https://openai.example/{sha256}/small.pt"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: facts)


def run(*arguments, model="small-test-clip"):
    return through_the_door(clip_weights.app, *arguments, "--model", model, "--quiet")


@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu", "ViT-B-32-quickgelu"])
def test_addresses_are_those_of_open_clip(name):
    repository = open_clip.get_pretrained_cfg(name, "openai")["hf_hub"].rstrip("/")
    archive = clip_weights.weights_file(name)
    assert archive.urls == (
        f"https://huggingface.co/{repository}/resolve/main/{clip_weights.HUB_FILE}",
    )
    assert archive.file_name == f"{name}-openai.safetensors"


def test_what_openai_did_not_publish_is_refused(tmp_path):
    result = run("--root", tmp_path, model="ViT-Z")
    assert result.exit_code == 2 and "published no weights for 'ViT-Z'" in result.output


def test_fetch_check_and_again(small, server, tmp_path):
    content = save(small.state_dict())
    server.serve(FILE_NAME, content)
    arguments = ("--root", tmp_path, "--base-url", server.url)
    path = tmp_path / "weights" / FILE_NAME
    for _ in range(2):
        result = run(*arguments)
        assert result.exit_code == 0 and f"--weights {path}" in result.output, result.output
        assert path.read_bytes() == content and len(server.files[FILE_NAME].requests) == 1
    path.write_bytes(content[:-4])
    assert run(*arguments).exit_code == 2


def test_check_only(small, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(small.state_dict(), path)
    assert run("--check", path).exit_code == 0
    assert run("--check", tmp_path / "none.safetensors").exit_code == 2
    gelu = run("--check", path, model="small-test-gelu")  # it has no weights: no file tells
    assert gelu.exit_code == 2 and "without QuickGELU" in gelu.output
    save_file({k: torch.full_like(t, torch.nan) for k, t in small.state_dict().items()}, path)
    assert "not finite" in run("--check", path).output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]


@pytest.fixture
def torchscript(small, tmp_path):
    """A TorchScript file like OpenAI's: half precision, and three sizes among the weights."""
    path = tmp_path / "ViT-B-16.pt"
    model = copy.deepcopy(small)
    for name in ("input_resolution", "context_length", "vocab_size"):
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(8))
    mask = model.attn_mask  # OpenAI's is a constant of the script, not a buffer
    del model.attn_mask
    model.attn_mask = mask
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(
            model,
            (torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, dtype=torch.long)),
            check_trace=False,
        )
    torch.jit.save(traced.half(), path)
    return path


def test_convert(small, torchscript, tmp_path, monkeypatch):
    sha256 = hashlib.sha256(torchscript.read_bytes()).hexdigest()
    publish(monkeypatch, sha256)
    destination = tmp_path / "weights" / "out.safetensors"
    clip_weights.convert(torchscript, destination, "small-test-clip")
    converted = load_file(destination)
    assert converted.keys() == small.state_dict().keys()
    for key, tensor in small.state_dict().items():
        assert converted[key].dtype == torch.float32
        assert torch.equal(converted[key], tensor.half().float())
    assert [path.name for path in destination.parent.iterdir()] == ["out.safetensors"]
    with pytest.raises(clip_weights.SerialLoRAError, match="exists already"):
        clip_weights.convert(torchscript, destination, "small-test-clip")


def test_a_file_that_is_not_openais_is_never_opened(torchscript, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("it was opened"))
    result = run("--root", tmp_path, "--convert", torchscript)
    assert result.exit_code == 2 and "was not opened" in result.output
    assert not (tmp_path / "weights").exists()
    missing = run("--root", tmp_path, "--convert", tmp_path / "none.pt")
    assert missing.exit_code == 2 and "https://openai.example/" in missing.output
