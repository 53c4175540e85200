"""The commands for one's own pictures, as somebody types them; options from a file; the hub."""

import csv
import json
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml

from serial_lora.errors import SerialLoRAError
from serial_lora_course.work import card
from serial_lora_course.work.folder import Reached
from serial_lora_course.work.trackers import tracker
from serial_lora_course.work_commands import _picture_files


@pytest.fixture
def fitted(job, pictures, weights, tmp_path, run):
    words = ["fit", pictures, "--model", job.model, "--weights", weights, "--out", job.out]
    words += ["--rank", 2, "--epochs", 2, "--min-steps", 1, "--precision", "no"]
    code, said, _ = run(*words, "--license", "mit")
    assert code == 0 and "test pictures are right" in said
    return tmp_path / "classifier"


def test_fit_ask_merge_show(fitted, pictures, weights, tmp_path, run, monkeypatch):
    rows = tmp_path / "new" / "rows.csv"
    monkeypatch.setenv("COLUMNS", "40")
    code, said, _ = run("predict", fitted, pictures / "red", "--top", 2, "--out", rows)
    table = list(csv.DictReader(rows.open()))
    assert code == 0 and len(table) == len(said.splitlines()) == 8 and said.count("%") == 16
    for row in table:
        assert sum(float(row[name]) for name in ("red", "green", "blue")) == pytest.approx(
            1, abs=1e-4
        )
    assert run("merge", fitted, "--out", tmp_path / "m.safetensors")[0] == 0
    with monkeypatch.context() as patch:  # what a file holds is told without its model
        patch.setattr("serial_lora_course.work.folder.load_vision", pytest.fail)
        code, said, _ = run("show", fitted)
    assert code == 0 and "rank 2" in said and "timm/test_vit" in said

    card_text = (fitted / "README.md").read_text()
    assert weights.name in card_text  # and no folder of this machine
    assert not any(str(each) in card_text for each in (weights.parent, pictures.parent, tmp_path))
    facts = huggingface_hub.ModelCard.load(fitted / "README.md").data
    reached = json.loads((fitted / "reached.json").read_text())
    assert facts.license == "mit" and facts.library_name == "serial-lora"
    assert facts.eval_results[0].metric_value == round(reached["test"], 4)

    again = run("fit", "--config", fitted / "run.yaml")
    assert again[0] == 0 and "step" not in again[1].split("test pictures")[0]


@pytest.mark.parametrize(
    ("words", "noun"),
    [
        (("fit", "{pictures}", "--model", "timm/nothing"), "model"),
        (("fit", "{pictures}", "--track", "paper"), "tracker"),
        (("fit", "{pictures}", "--rank", "2,3"), "rank"),
        (("fit", "{pictures}", "--plus-lr", "1"), "plus-lr"),
    ],
)
def test_mistakes_are_one_sentence(words, noun, pictures, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, told = run(*[word.format(pictures=pictures) for word in words])
    assert code == 2 and noun in told and "Traceback" not in told


# ----------------------------------------------------------------------------- options from a file


@pytest.mark.parametrize("command", [["lab", "clip"], ["lab", "sam"], ["fit", "x"], ["course"]])
def test_a_config_with_an_unknown_option_is_refused(command, tmp_path, run):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 1\n")
    code, _, told = run(*command, "--config", path)
    assert code == 2 and "learning_rate" in told


def test_a_file_gives_options_and_what_is_typed_counts_more(tmp_path, run):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"rank": 0, "blocks": [1, 2], "dataset": "nature"}))
    assert "rank" in run("lab", "clip", f"--config={path}")[2]  # 0 is refused
    path.write_text(yaml.safe_dump({"rank": 2, "dataset": "atlantis", "blocks": [1, 2]}))
    code, said, told = run("lab", "clip", "--config", path, "--rank", "3")
    assert code == 2 and "rank=3" in said and "blocks=(1, 2)" in said and "atlantis" in told


# ------------------------------------------------------------------------------------- the hub


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that takes a repository and a commit; what it was sent."""
    sent = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            sent.append((self.path, body))
            if self.path.endswith("/create"):
                answer = {"url": f"{address}/me/colours", "name": "me/colours"}
            elif "/preupload/" in self.path:
                names = [each["path"] for each in json.loads(body)["files"]]
                answer = {
                    "files": [
                        {"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names
                    ]
                }
            else:
                answer = {"commitUrl": f"{address}/me/colours/commit/1", "commitOid": "1" * 40}
            self._answer(answer)

        def do_GET(self):
            self._answer({"id": "me/colours", "siblings": [], "sha": "0" * 40, "tags": []})

        def _answer(self, content):
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(card, "HfApi", lambda: huggingface_hub.HfApi(address, token="hf_x"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield sent
    server.shutdown()


def test_the_hub_gets_adapter_head_and_card_and_no_path_of_this_machine(fitted, hub):
    card.push_to_hub(fitted, "me/colours")
    commit = next(body for path, body in hub if "/commit/" in path)
    lines = [json.loads(line) for line in commit.splitlines()]
    names = {line["value"]["path"] for line in lines if line["key"] == "file"}
    assert names == {"adapter.safetensors", "head.safetensors", "README.md"}
    assert "private" in hub[0][1]


@pytest.mark.parametrize("offline", [True, False])
def test_no_hub_is_one_sentence(offline, tmp_path, monkeypatch):
    nobody = "http://127.0.0.1:9"  # refuses to be called
    monkeypatch.setattr(card, "HfApi", lambda: huggingface_hub.HfApi(nobody, token="hf_x"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(SerialLoRAError, match="could not be sent"):
        card.push_to_hub(tmp_path, "me/colours")


def test_what_is_no_picture_of_a_folder_is_passed_over(tmp_path):
    for name in (".hidden.png", "inside/b.JPG", "a.png", "notes.txt", "phone.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="phone.heic"):
        found = list(_picture_files([tmp_path, tmp_path / "a.png"]))
    assert found == [tmp_path / name for name in ("a.png", "inside/b.JPG", "a.png")]


@pytest.mark.parametrize(
    ("model", "named"),
    [("tiny-clip", None), ("timm/vit", None), ("a/folder", None), ("me/vit", "me/vit")],
)
def test_only_a_model_of_the_hub_is_named_as_the_base(model, named, job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "folder").mkdir(parents=True)
    reached = Reached("", ["a", "b"], {"test": 4}, "half", 1, 1, 1.0, 1.0, 0.5, 0.5, 0.5, 1, 1)
    card.write_card(replace(job, model=model), reached)
    assert huggingface_hub.ModelCard.load(f"{job.out}/README.md").data.base_model == named


def test_tensorboard_gets_the_rounds(pictures, weights, tmp_path, run, monkeypatch):
    rounds = []

    class Writer(ExitStack):
        def __init__(self, folder):
            super().__init__()
            folder.mkdir(parents=True)

        def add_scalar(self, name, value, step):
            rounds.append((name, step))

    there = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", there)
    monkeypatch.setattr("serial_lora_course.work.trackers.find_spec", lambda name: True)
    words = ["fit", pictures, "--model", "timm/test_vit", "--weights", weights, "--rank", 2]
    words += ["--epochs", 2, "--min-steps", 1, "--precision", "no", "--track", "tensorboard"]
    code, _, told = run(*words, "--out", tmp_path / "logged")
    assert code == 0, told
    assert [step for name, step in rounds if name == "validation/loss"] == [1, 2]
    assert (tmp_path / "logged" / "tensorboard").is_dir()


def test_a_tracker_that_is_not_installed_is_named(job, monkeypatch):
    monkeypatch.setattr("serial_lora_course.work.trackers.find_spec", lambda name: None)
    with pytest.raises(SerialLoRAError, match="trackio"), tracker("trackio", job):
        pass
