"""The script for SAM's weights, with a small SAM in the place of ViT-B."""

import io
import json
from dataclasses import replace

import pytest
import torch
from segment_anything import sam_model_registry

from data_scripts import sam_weights
from data_scripts.fetching.download import FileFacts
from serial_lora_course.models.sam import PAPER_FILE, load_sam
from tests.doors import through_the_door
from tests.models.sam_models import small_sam


def saved(state) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def expect(monkeypatch, facts):
    """Let the script take a file with other facts than those of Meta's."""
    official = sam_weights.weights_file()
    monkeypatch.setattr(sam_weights, "weights_file", lambda: replace(official, facts=facts))


@pytest.fixture
def small(monkeypatch):
    """A small model's state dict; the script expects its shapes, and no facts."""
    monkeypatch.setitem(sam_model_registry, "vit_b", small_sam)
    expect(monkeypatch, FileFacts())
    return small_sam().state_dict()


def run(*arguments):
    return through_the_door(sam_weights.app, *arguments, "--quiet")


def test_the_name_holds_the_first_digits_of_the_md5():
    archive = sam_weights.weights_file()
    digits = archive.file_name.removesuffix(".pth").rpartition("_")[2]
    assert len(digits) == 6 and archive.facts.md5.startswith(digits)
    (url,) = archive.urls
    assert archive.file_name == PAPER_FILE and url.endswith(f"/{PAPER_FILE}")


def test_fetch_check_and_again(small, server, tmp_path, monkeypatch):
    content = saved(small)
    server.serve(PAPER_FILE, content, stop_after=[len(content) // 2])
    arguments = ("--root", tmp_path, "--base-url", server.url)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    path = tmp_path / "weights" / PAPER_FILE
    assert f"--weights {path}" in result.output and path.read_bytes() == content
    recorded = json.loads((tmp_path / "sam_weights.sources.json").read_text())["archives"]
    assert recorded[PAPER_FILE] == FileFacts.of(path).known()
    requests = server.files[PAPER_FILE].requests
    assert len(requests) == 2 and requests[1].startswith("bytes=")  # went on where it stopped
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path))
    filled = load_sam("paper").model.state_dict()
    assert all(torch.equal(filled[key], small[key]) for key in small)

    assert run(*arguments).exit_code == 0 and len(requests) == 2
    expect(monkeypatch, FileFacts(sha256="0" * 64))  # the right shapes, but not Meta's numbers
    other = run(*arguments)
    assert other.exit_code == 2 and "not the expected file: its sha256" in other.output
    assert path.read_bytes() == content


WRONG = {  # as examples of all that `load_weights` refuses
    "another size": (
        lambda state: saved(small_sam(width=1024, heads=16).state_dict()),
        "holds vit_l, another size of SAM",
    ),
    "web page": (lambda state: b"<html>Please log in</html>", "is a web page"),
    "not finite": (
        lambda state: saved({key: torch.full_like(t, float("nan")) for key, t in state.items()}),
        "not finite",
    ),
}


@pytest.mark.parametrize("make, reason", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_refused_with_the_reason(small, server, tmp_path, make, reason):
    """A download is not kept then; a file put there by hand, or only checked, is left alone."""
    content = make(small)
    server.serve(PAPER_FILE, content)
    arguments = ("--root", tmp_path, "--base-url", server.url)
    fetched = run(*arguments)
    assert fetched.exit_code == 2 and reason in fetched.output, fetched.output
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [".lock"]
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]

    path = tmp_path / "weights" / PAPER_FILE
    path.write_bytes(content)
    for result in (run(*arguments), run("--check", path)):
        assert result.exit_code == 2 and reason in result.output
    assert path.read_bytes() == content
    assert len(server.files[PAPER_FILE].requests) == 1
