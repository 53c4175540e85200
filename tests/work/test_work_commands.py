"""The commands for one's own pictures, as somebody types them."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import huggingface_hub
import pytest

from serial_lora_course.work import card
from serial_lora_course.work.commands import picture_files
from serial_lora_course.work.folder import Reached


@pytest.fixture
def fitted(job, pictures, weights, tmp_path, run):
    words = ["fit", pictures, "--model", job.model, "--weights", weights, "--out", job.out]
    words += ["--rank", 2, "--epochs", 2, "--min-steps", 1, "--precision", "no"]
    code, said, _ = run(*words, "--license", "mit")
    assert code == 0 and "logistic regression" in said
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
    assert run("merge", fitted, "--out", tmp_path / "merged")[0] == 0
    with monkeypatch.context() as patch:  # what a file holds is told without its model
        patch.setattr("serial_lora_course.work.vision.load_vision", pytest.fail)
        code, said, _ = run("show", fitted)
    assert code == 0 and "rank 2" in said and "timm/test_vit" in said

    card_text = (fitted / "README.md").read_text()
    assert weights.name in card_text  # and no folder of this machine
    assert not any(str(each) in card_text for each in (weights.parent, pictures.parent, tmp_path))
    facts = huggingface_hub.ModelCard.load(fitted / "README.md").data
    reached = json.loads((fitted / "reached.json").read_text())
    assert facts.license == "mit" and facts.library_name == "serial-lora"
    assert facts.eval_results[0].metric_value == round(reached["test"], 4)

    (fitted / "README.md").write_text(card_text + "My own words.")
    again = run("fit", "--config", fitted / "run.yaml")
    assert again[0] == 0 and "validation loss" not in again[1] and "README.md is kept" in again[2]
    assert (fitted / "README.md").read_text().endswith("My own words.")


@pytest.mark.parametrize(
    ("words", "noun"),
    [
        (("fit", "{pictures}", "--model", "timm/nothing"), "model"),
        (("fit", "{pictures}", "--rank", "2,3"), "rank"),
        (("fit", "{pictures}", "--plus-lr", "1"), "plus-lr"),
    ],
)
def test_mistakes_are_one_sentence(words, noun, pictures, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, told = run(*[word.format(pictures=pictures) for word in words])
    assert code == 2 and noun in told and "Traceback" not in told


def test_what_is_no_picture_of_a_folder_is_passed_over(tmp_path):
    for name in (".hidden.png", "inside/b.JPG", "a.png", "notes.txt", "phone.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="phone.heic"):
        found = list(picture_files([tmp_path, tmp_path / "a.png"]))
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


def test_what_is_asked_first_waits_for_no_model_library(fitted):
    program = (
        "import sys\n"
        "from serial_lora_course.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*({'timm', 'transformers', 'torch'} & {*sys.modules}), file=sys.stderr)\n"
    )
    asked = [[["show", str(fitted)], {"torch"}]]
    asked += [[[name, "--help"], set()] for name in ("fit", "predict", "merge")]
    for words, loaded in asked:
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and {*done.stderr.split()} == loaded
