"""What was typed to break the command line, by kind: one sentence, exit code 2, no file changed."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serial_lora import SerialLoRAConfig, inject
from serial_lora_course import cli, doctor
from serial_lora_course.work.classifier import PictureClassifier, load_vision, save_classifier
from tests.doors import as_nobody, through_the_door

QUICK = "--methods serial_lora --shots 1 --seeds 1 --min-steps 1 --epochs 1".split()
LONG = "x" * 5000
PAPER = ("--scale", "paper", "--dataset", "food101", "--root")


def data(folder: Path, *classes: str | bytes) -> str:
    """A folder of two small classes, or of these."""
    for name in classes or ("cat", "dog"):
        (folder / os.fsdecode(name)).mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGB", (8, 8), (number * 40, len(name), 0))
            with open(folder / os.fsdecode(name) / f"{number}.png", "wb") as file:
                picture.save(file, "PNG")
    return str(folder)


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo")
    return str(folder / "fifo")


def yaml(folder: Path, content: str | bytes) -> list[str]:
    (folder / "run.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    return ["fit", data(folder / "data"), "--config", str(folder / "run.yaml")]


def saved(folder: Path) -> str:
    classifier = PictureClassifier(load_vision("tiny-clip"), ["cat", "dog"])
    inject(classifier, SerialLoRAConfig(rank=2), also_train=["head"])
    return str(save_classifier(classifier, folder / "saved").parent)


LAB: dict[str, Callable[[Path], list[str]]] = {  # behind `lab clip`
    "a folder with a long name": lambda f: [*PAPER, f"{f}/{LONG}"],
    "a model that is nowhere": lambda f: ["--model-name", "hf-hub:nobody/nothing"],
    "a full device as records": lambda f: ["--out", "/dev/full"],
    "a pipe as records": lambda f: ["--out", fifo(f)],
    "a pipe as data": lambda f: ["--dataset", fifo(f)],
    "a class that is no text": lambda f: ["--dataset", data(f / "a", b"c\xff", b"dog")],
    "codes for the terminal": lambda f: ["--dataset", "a\nb\x1b[31m/c"],
}
AT_WORK: dict[str, Callable[[Path], list[str]]] = {
    "a model with a long name": lambda f: ["fit", data(f), "--model", LONG],
    "no number": lambda f: ["fit", data(f), "--test-fraction=.nan"],
    "a device as options": lambda f: ["fit", data(f), "--config", "/dev/zero"],
    "a file as a folder": lambda f: ["merge", saved(f), "--out", data(f / "data") + "/cat/0.png"],
    "a device as an adapter": lambda f: ["show", "/dev/zero"],
    "no YAML": lambda f: yaml(f, "["),
    "options that call": lambda f: yaml(f, "lr: !!python/name:os.system"),
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, *words: object) -> None:
    """It must end with exit code 2 (1 is the guard's, for what nobody foresaw), and change nothing."""
    before = contents(folder)
    ran = through_the_door(cli.command, *words)
    assert ran.exit_code == 2 and "Traceback" not in ran.output, ran.output
    assert before.items() <= contents(folder).items()
    assert re.fullmatch(r"(test|serial-lora): .*\n", ran.err), ran.err


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported(tmp_path_factory):
    """By root, since another user may not be allowed to read the interpreter's own files."""
    assert through_the_door(cli.command, "fit", "--help").exit_code == 0
    out = tmp_path_factory.mktemp("first") / "records.jsonl"
    ran = through_the_door(cli.command, "lab", "clip", "--dataset", "food", *QUICK, "--out", out)
    assert ran.exit_code == 0, ran.output


@pytest.mark.parametrize("what", LAB)
def test_one_sentence(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "food", *QUICK, "--out", tmp_path / "new.jsonl", *LAB[what](tmp_path)]
    refused(tmp_path, "lab", "clip", *words)


@pytest.mark.parametrize("what", AT_WORK)
def test_one_sentence_at_work(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, *AT_WORK[what](tmp_path))


# ---------------------------------------------------------------------------- without rights


def closed(option: str, place: Path, rights: int = 0o000) -> list[str]:
    """An option that names a closed place."""
    place.chmod(rights)
    return [option, str(place)]


def inside(folder: Path, rights: int, *parts: str) -> list[str]:
    """Data of which a part is closed."""
    found = data(folder / "data")
    closed("", folder.joinpath("data", *parts), rights)
    return ["--dataset", found]


def one_file(folder: Path, option: str, text: str = "") -> list[str]:
    (folder / "file.jsonl").write_text(text)
    return closed(option, folder / "file.jsonl")


RIGHTS = {
    "a class that can be listed": lambda f: inside(f, 0o744, "cat"),
    "the records' folder": lambda f: ["--out", str(f / "records.jsonl")],
    "the records": lambda f: one_file(f, "--out", "no record"),
    "the weights": lambda f: one_file(f, "--weights"),
}


@pytest.mark.parametrize("what", RIGHTS)
def test_permission_denied(what, tmp_path):
    words = RIGHTS[what](tmp_path)
    with as_nobody(tmp_path):
        ran = through_the_door(cli.command, "lab", "clip", "--dataset", "food", *QUICK, *words)
    assert ran.exit_code == 2 and ran.err.startswith("test: "), ran.output
    assert ran.err.count("\n") == 1


# -------------------------------------------------------------------------------- held, and odd


def test_odd_names_are_printed_as_they_are_and_odd_pictures_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "[" / "b]" / "pets, [raw] :cat:"
    data(folder)
    Image.new("RGB", (65_000, 1)).save(folder / "cat" / "long.png")
    Image.fromarray(np.ones((8, 8), np.float32)).save(folder / "cat" / "floats.tiff")
    (folder / "cat" / "phone.heic").write_bytes(b"a picture of another kind")
    (folder / "cat" / "linked.png").symlink_to(os.devnull)
    out = folder.parent / os.fsdecode(b"run[old]\xff.jsonl")
    words = [*QUICK, "--dataset", folder, "--out", out]
    ran = through_the_door(cli.command, "lab", "clip", *words)
    assert ran.exit_code == 0, ran.output
    assert (
        ran.out.count("pets, [raw] :cat:") == 3
    )  # in the line of the run, the table, the last line
    assert "phone.heic" in ran.err
    assert ran.out.endswith("Records: " + str(out).replace("\udcff", "\\udcff") + "\n")


def test_what_nobody_foresaw_is_one_sentence_and_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(doctor, "doctor", lambda: [][0])
    ran = through_the_door(cli.command, "doctor")
    (said,) = ran.output.splitlines()
    (kept,) = tmp_path.iterdir()
    assert ran.exit_code == 1 and "IndexError" in said and str(kept) in said
    assert "Traceback" in kept.read_text() and "doctor" in kept.read_text()
    shown = through_the_door(cli.command, "doctor", "--debug")
    assert shown.exit_code == 1 and "Traceback" in shown.output
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    without = through_the_door(cli.command, "doctor")
    assert without.exit_code == 1 and "--debug" in without.output
