"""The commands for one's own pictures, as somebody types them."""

import csv
import json
import shlex
import shutil

import huggingface_hub
import pytest
from safetensors.torch import load_file

from serial_lora_course.options import read, said
from serial_lora_course.work import Job, fit_options
from serial_lora_course.work import classifier as work
from serial_lora_course.work.commands import fit_command

ANSWERS = 8


@pytest.fixture
def words(job, pictures):
    words = ["fit", pictures, "--model", job.model, "--out", job.out]
    return [*words, "--rank", 2, "--epochs", 2, "--min-steps", 1, "--precision", "no"]


@pytest.fixture
def fitted(words, tmp_path, run):
    code, told, _ = run(*words)
    assert code == 0 and "logistic regression" in told and "precision" in told
    return tmp_path / "classifier"


def test_fit_ask_merge_show(fitted, pictures, weights, tmp_path, run, monkeypatch):
    rows = tmp_path / "new" / "rows.csv"
    asked = shutil.copytree(pictures / "red", tmp_path / "asked")
    whole = (asked / "3.png").read_bytes()
    (asked / "3.png").write_bytes(whole[: len(whole) // 2])
    for name in (".hidden.png", "notes.txt", "phone.heic"):
        (asked / name).touch()
    words = ("predict", fitted, asked, pictures / "red" / "3.png", "--top", 2, "--out", rows)
    code, said, told = run(*words)
    assert code == 2 and "3.png" in told and "phone.heic" in told  # the others are answered
    table = list(csv.DictReader(rows.open()))
    answered = [row["picture"].rsplit("/")[-1] for row in table]
    assert answered == [*(f"{n}.png" for n in range(8)), "3.png"]
    assert len(said.splitlines()) == 8 and said.count("%") == 16
    for row in table:
        shares = [row[name] for name in ("red", "green", "blue")]
        assert shares == [""] * 3 or sum(map(float, shares)) == pytest.approx(1, abs=1e-4)
    assert [row["red"] for row in table].index("") == 3

    merge = ("merge", fitted, "--out", tmp_path / "merged")
    with monkeypatch.context() as patch:
        distilled = work.open_classifier(fitted)
        distilled.vision.head = ("head", "head_dist")
        patch.setattr(work, "open_classifier", lambda folder: distilled)
        assert "two heads" in run(*merge)[2]
    assert not (tmp_path / "merged").exists() and run(*merge)[0] == 0
    assert sorted(path.name for path in tmp_path.glob("*merge*")) == ["merged"]
    assert "is there already" in run(*merge)[2]
    code, said, _ = run("show", fitted)
    assert (
        code == 0
        and "attention blocks" in said
        and "rank 2" in said
        and "timm/local-dir:" in said
        and '"green"' in said
    )

    card = (fitted / "README.md").read_text()  # names no folder of this machine
    assert not any(str(each) in card for each in (weights.parent, pictures.parent, tmp_path))
    assert huggingface_hub.ModelCard.load(fitted / "README.md").data.library_name == "serial-lora"
    reached = json.loads((fitted / "record.json").read_text())["reached"]
    assert f"| test accuracy | {reached['test accuracy']:.1%} |" in card

    (fitted / "README.md").write_text(card + "My own words.")
    again = run("fit", f"@{fitted}/run.txt")
    assert again[0] == 0 and "step 1 of" not in again[1]
    assert (fitted / "README.md").read_text().endswith("My own words.")


def test_both_places_can_be_asked_for(words, tmp_path, run):
    assert run(*words, "--places", "attention,feed_forward")[0] == 0
    saved = tmp_path / "classifier"
    assert "feed_forward" in (saved / "run.txt").read_text()
    assert "attention and feed-forward blocks" in run("show", saved)[1]
    assert any("serial_lora_ff" in name for name in load_file(saved / "adapter.safetensors"))
    code, _, told = run(*words, "--places", "mlp")
    assert code == 2 and "attention, feed_forward" in told


def test_a_value_that_begins_with_a_hyphen_is_read_back(tmp_path):
    job = Job(pictures="pets", groups=r"-(\d+)")
    lines = list(said(fit_options(), job.as_settings()))
    (tmp_path / "run.txt").write_text("".join(f"{shlex.join(line)}\n" for line in lines))
    found = read(fit_command(), "fit", [f"@{tmp_path}/run.txt"])
    assert found["groups"] == job.groups and found["pictures"] == "pets"
