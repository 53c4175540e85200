"""The script for SD3's weights, with a small SD3 on a hub of this machine."""

import hashlib
import json
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from data_scripts import sd3_weights
from data_scripts.sd3_weights import HUB_REPOSITORY
from serial_lora_course.models.sd3 import load_sd3
from tests.doors import through_the_door
from tests.models.sd3_models import leave_out_t5, official_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENS = {"token-of-one-who-accepted": 200, "token-of-one-who-did-not": 403}


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A small SD3 in the layout of the hub's, with what lies beside it there. Read only."""
    folder = official_folder(tmp_path_factory.mktemp("official") / "sd3")
    (folder / "README.md").write_text("Stable Diffusion 3 medium")
    (folder / "mmdit.png").write_bytes(b"a picture")
    for name in ("text_encoder/model.fp16.safetensors", "text_encoder_3/model.fp16.safetensors"):
        shutil.copy(folder / name.replace(".fp16", ""), folder / name)
    return folder


@pytest.fixture
def hub(official, monkeypatch, tmp_path):
    """Answers as the hub does for one gated repository.

    Its `files` lie there (path -> bytes), `fetched` are those asked for, in order, and to those
    in `broken` it has no answer.
    """
    files = {p.relative_to(official).as_posix(): p for p in official.rglob("*") if p.is_file()}
    hub = SimpleNamespace(fetched=[], broken=set())
    hub.files = {name: path.read_bytes() for name, path in files.items()}

    def asked_for(path: str) -> bytes:
        if path.startswith(f"/api/models/{HUB_REPOSITORY}/tree/"):
            kept = ({"path": n, "size": len(c), "oid": digest(c)} for n, c in hub.files.items())
            return json.dumps([{"type": "file"} | each for each in kept]).encode()
        facts = {"id": HUB_REPOSITORY, "sha": COMMIT, "gated": "auto", "siblings": []}
        return json.dumps(facts).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            name = path.partition(f"/{HUB_REPOSITORY}/resolve/{COMMIT}/")[2]
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status = TOKENS.get(token, 401) if name else 200
            headers, content = {} if status == 200 else {"X-Error-Code": "GatedRepo"}, b""
            if not name:
                content = asked_for(path)
            elif status == 200 and (name not in hub.files or name in hub.broken):
                status, headers = 404, {"X-Error-Code": "EntryNotFound"}
            elif status == 200:
                content = hub.files[name]
                hub.fetched += [name] * (self.command == "GET")
            if status == 200:
                headers = {"ETag": f'"{digest(content)}"', "X-Repo-Commit": COMMIT}
            self.send_response(status)
            for header, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(content if self.command == "GET" else b"")

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "token-of-one-who-accepted")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield hub
        server.shutdown()


def run(*arguments):
    return through_the_door(sd3_weights.app, *arguments, "--quiet")


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_fetch_check_and_again(hub, official, tmp_path, monkeypatch):
    arguments = ("--root", tmp_path, "--endpoint", hub.url)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "weights" / "sd3"
    assert f"{folder} holds sd3-2x16 with T5" in result.output
    assert f"--weights {folder}" in result.output
    wanted = {name for name in names(official) if "fp16" not in name} - {"README.md", "mmdit.png"}
    assert names(folder) == wanted == set(hub.fetched)
    assert all((folder / name).read_bytes() == (official / name).read_bytes() for name in wanted)
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "sd3"]

    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path))
    weights = load_file(official / "transformer" / "diffusion_pytorch_model.safetensors")
    state = load_sd3("paper").model.state_dict()  # found where the script puts it
    assert all(torch.equal(state[key], weights[key].bfloat16()) for key in weights)

    fetched = len(hub.fetched)
    assert run(*arguments).exit_code == 0 and len(hub.fetched) == fetched


def test_without_t5(hub, tmp_path):
    arguments = ("--root", tmp_path, "--endpoint", hub.url)
    result = run(*arguments, "--without-t5")
    folder = tmp_path / "weights" / "sd3"
    assert result.exit_code == 0, result.output
    assert "without T5" in result.output
    assert not any("_3" in name for name in [*names(folder), *hub.fetched])
    assert load_sd3("paper", folder).pipeline.text_encoder_3 is None
    assert run(*arguments, "--without-t5").exit_code == 0
    other = run(*arguments)
    assert other.exit_code == 2 and "was fetched without T5; move it away" in other.output


@pytest.mark.parametrize(
    "token, status",
    [(None, 401), ("token-that-nobody-has", 401), ("token-of-one-who-did-not", 403)],
)
def test_the_licence_is_asked_for_with_the_steps(hub, tmp_path, monkeypatch, token, status):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    result = run("--root", tmp_path, "--endpoint", hub.url)
    assert result.exit_code == 2
    (said,) = result.output.strip().splitlines()
    for part in (f"answers {status}", "accept it at", HUB_REPOSITORY, "hf auth login", "--weights"):
        assert part in said
    assert not (tmp_path / "weights" / "sd3").exists() and hub.fetched == []


def test_an_interrupted_download_goes_on(hub, tmp_path):
    last = "transformer/diffusion_pytorch_model.safetensors"
    hub.broken.add(last)
    arguments = ("--root", tmp_path, "--endpoint", hub.url)
    first = run(*arguments)
    assert first.exit_code == 2 and "the hub answers 404" in first.output
    assert not (tmp_path / "weights" / "sd3").exists()
    begun = set(hub.fetched)
    away = run("--root", tmp_path, "--endpoint", "http://127.0.0.1:9")  # half a folder is no folder
    assert away.exit_code == 2 and "cannot be reached" in away.output
    hub.broken.clear()
    hub.fetched.clear()
    assert run(*arguments).exit_code == 0
    assert last in hub.fetched and not begun & set(hub.fetched)


def not_finite(content: bytes, folder: Path) -> bytes:
    path = folder / "weights.safetensors"
    path.write_bytes(content)
    tensors = load_file(path)
    first = sorted(tensors)[0]
    save_file({**tensors, first: torch.full_like(tensors[first], float("nan"))}, path)
    return path.read_bytes()


WRONG = {
    "another pipeline": (
        "model_index.json",
        lambda content, _: b'{"_class_name": "StableDiffusionXLPipeline"}',
        "StableDiffusionXLPipeline",
    ),
    "not finite": ("vae/diffusion_pytorch_model.safetensors", not_finite, "not finite"),
}


@pytest.mark.parametrize("name, spoil, reason", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_good_is_not_kept(hub, tmp_path, name, spoil, reason):
    hub.files[name] = spoil(hub.files[name], tmp_path)
    result = run("--root", tmp_path, "--endpoint", hub.url)
    assert result.exit_code == 2 and reason in result.output, result.output
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [".lock"]


def test_check_only_and_a_folder_put_there_by_hand(official, tmp_path):
    assert run("--check", official).exit_code == 0
    missing = run("--check", tmp_path / "none")
    assert missing.exit_code == 2 and "There is no folder" in missing.output
    by_hand = tmp_path / "weights" / "sd3"
    shutil.copytree(official, by_hand)
    assert run("--root", tmp_path).exit_code == 0  # without a hub
    leave_out_t5(by_hand)
    assert run("--root", tmp_path, "--without-t5").exit_code == 0
    shutil.rmtree(by_hand / "transformer")
    lacking = run("--root", tmp_path)
    assert lacking.exit_code == 2 and "lacks its part transformer" in lacking.output
    assert by_hand.is_dir()
