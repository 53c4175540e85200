"""What was typed to break the command line, by kind: one sentence, exit code 2, no file changed."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from benchmarks import __main__ as benchmarks
from data_scripts import fetch
from serial_lora import SerialLoRAConfig, SerialLoRAError, inject, load_adapter, save_adapter
from serial_lora_course import cli
from serial_lora_course.data.example_folder import write_example_folder
from serial_lora_course.data.folder import examine_folder, load_folder
from serial_lora_course.labs import records as kept_records
from serial_lora_course.labs.own import (
    ADAPTER_FILE,
    PictureClassifier,
    load_classifier,
    save_classifier,
)
from serial_lora_course.labs.records import Record, append_record, read_records
from serial_lora_course.lessons.l10_inside import runs as spectra
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.sam import load_sam
from serial_lora_course.models.sd3 import load_sd3
from tests.doors import as_nobody, through_the_door
from tests.labs.lab_models import small_clip
from tools import notebooks
from tools import test as gate

QUICK = "--methods serial_lora --shots 1 --seeds 1 --min-steps 1 --epochs 1".split()
FIRST: dict = {}  # the record of a run in this process, filled in before the tests
LONG = "x" * 5000
DEEP = "[" * 50_000 + "]" * 50_000


def data(folder: Path, *classes: str | bytes) -> str:
    """A folder of two small classes, or of these."""
    for name in classes or ("cat", "dog"):
        (folder / os.fsdecode(name)).mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGB", (8, 8), (number * 40, len(name), 0))
            with open(folder / os.fsdecode(name) / f"{number}.png", "wb") as file:
                picture.save(file, "PNG")
    return str(folder)


def record_file(folder: Path, **changes: object) -> list[str]:
    """The command whose run is in the file already, with something else in its place."""
    path = folder / "records.jsonl"
    path.write_text(json.dumps(FIRST | changes).replace('"DEEP"', DEEP) + "\n")
    return ["--out", str(path)]


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo")
    return str(folder / "fifo")


def picture_that_is(folder: Path, *places: str, make: Callable[[Path], object]) -> str:
    found = data(folder)
    for place in places:
        make(folder / place)
    return found


PAPER = ("--scale", "paper", "--dataset", "dtd", "--root")
TYPED: dict[str, list[Callable[[Path], list[str]]]] = {
    "homes of nobody": [
        lambda f: ["--dataset", "~nosuchuser/x"],
        lambda f: [*PAPER, "~nosuchuser/x"],
        lambda f: ["--weights", "~nosuchuser/x.safetensors"],
    ],
    "names that are too long": [
        lambda f: ["--dataset", LONG],
        lambda f: ["--dataset", f"{f}/{LONG}"],
        lambda f: [*PAPER, f"{f}/{LONG}"],
        lambda f: ["--out", f"{f}/{LONG}"],
        lambda f: ["--weights", f"{f}/{LONG}"],
        lambda f: ["--model-name", LONG],
    ],
    "models that are nowhere": [
        lambda f, name=name: ["--model-name", name]
        for name in ("hf-hub:nobody/nothing", "hf-hub:", "local-dir:/nothing", "local-dir:", "")
    ],
    "numbers that are too large": [
        lambda f, option=option, value=value: ["--methods=serial_lora_plus", option, value]
        for option in ("--seeds", "--epochs", "--min-steps", "--accumulation", "--rank", "--blocks")
        for value in ("1000000000", "1" + "0" * 400)
        if option not in ("--epochs", "--min-steps") or len(value) > 10  # which would run for years
    ]
    + [
        lambda f, option=option: ["--methods=serial_lora_plus", option, "1e308"]
        for option in ("--ratio", "--plus-lr", "--dropout", "--crop")
    ],
    "what is no file": [
        lambda f, place=place: ["--out", place]
        for place in ("/proc/x.jsonl", "/proc/self/status", "/sys/x.jsonl", "", ".")
        + ("/dev/full", "/dev/null", "/dev/zero", "/dev/stdin")
    ]
    + [
        lambda f: ["--out", fifo(f)],
        lambda f: ["--weights", fifo(f)],
        lambda f: [*PAPER, fifo(f)],
        lambda f: ["--dataset", fifo(f)],
        lambda f: ["--weights", "/dev/zero"],
        lambda f: ["--weights", "/proc/self/mem"],
        lambda f: ["--dataset", "/dev"],
    ],
    "records of other kinds": [
        lambda f, changes=changes: record_file(f, **changes)
        for changes in (
            {"measures": {}},
            {"measures": {"accuracy": "high"}},
            {"measures": None},
            {"sizes": None},
            {"sizes": {"parameters": None}},
            {"settings": None},
            {"settings": {"deep": "DEEP"}},
            {"seconds": "long"},
            {"seconds": 10**400},
            {"amount": [16]},
            {"seed": True},
            {"more": 1},
        )
    ],
    "names that are no text": [
        lambda f: ["--dataset", data(f / "a", b"c\xff", b"dog")],
        lambda f: ["--dataset", os.fsdecode(b"/no\xff")],
        lambda f: ["--weights", os.fsdecode(b"/no\xff")],
        lambda f: ["--prompt", os.fsdecode(b"\xff")],
        lambda f: [
            "--dataset",
            picture_that_is(
                f, os.fsdecode(b"cat/\xff.png"), make=lambda p: p.write_bytes(b"a picture")
            ),
        ],
    ],
    "classes that a prompt cannot tell": [
        lambda f: ["--dataset", data(f, " ", "dog")],
        lambda f: ["--dataset", data(f, "x " * 100 + "a", "x " * 100 + "b")],
        lambda f: ["--dataset", f"{data(f, 'train/a', 'Train/a', 'test/a')}"],
        lambda f: ["--dataset", "[/b]"],
        lambda f: ["--dataset", "a\nb\x1b[31m/c"],
    ],
}


def yaml(folder: Path, content: str | bytes) -> list[str]:
    (folder / "run.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    return ["fit", data(folder / "data"), "--config", str(folder / "run.yaml")]


def saved(folder: Path, name: str = "head.safetensors", content: bytes | None = None) -> str:
    place = save_classifier(classifier(), folder / "saved")
    (place / "run.yaml").write_text("model: tiny-clip")
    if content is not None:
        (place / name).write_bytes(content)
    return str(place)


AT_WORK = {
    "homes of nobody": [
        lambda f: ["fit", "~nosuchuser/x"],
        lambda f: ["predict", "~nosuchuser/x", "a.png"],
        lambda f: ["merge", "~nosuchuser/x"],
        lambda f: ["show", "~nosuchuser/x"],
        lambda f: ["fit", data(f), "--config", "~nosuchuser/run.yaml"],
    ],
    "names that are too long": [
        lambda f: ["fit", f"{f}/{LONG}"],
        lambda f: ["fit", data(f), "--out", LONG],
        lambda f: ["fit", data(f), "--model", LONG],
        lambda f: ["fit", data(f), "--weights", LONG],
        lambda f: ["predict", LONG, data(f)],
        lambda f: ["predict", "c", LONG],
        lambda f: ["merge", LONG],
        lambda f: ["show", LONG],
    ],
    "numbers that are no use": [
        lambda f, words=words: ["fit", data(f), *words.split()]
        for words in ("--seed=-1", f"--seed={10**400}", "--test-fraction=nan", "--patience=0")
        + (f"--epochs={10**400}", "--lr=1e308", "--rank=1000000", "--crop=2")
    ],
    "what is no file": [
        lambda f: ["fit", data(f), "--out", "/proc/x"],
        lambda f: ["fit", data(f), "--out", "/dev/full"],
        lambda f: ["fit", data(f), "--config", fifo(f)],
        lambda f: ["fit", data(f), "--config", "/dev/zero"],
        lambda f: ["fit", fifo(f)],
        lambda f: ["predict", saved(f), fifo(f)],
        lambda f: ["predict", fifo(f), data(f)],
        lambda f: ["predict", saved(f), str(Path(data(f / "data")) / "cat"), "--out", "/proc/x"],
        lambda f: ["merge", fifo(f)],
        lambda f: ["merge", saved(f), "--out", data(f / "data")],
        lambda f: ["show", fifo(f)],
        lambda f: ["show", "/dev/zero"],
        lambda f: ["show", "/proc/self/mem"],
    ],
    "options that are no options": [
        lambda f, text=text: yaml(f, text)
        for text in ("", "a", "[", DEEP, "lr: {a: 1}", "no: such", "1: 2", "lr: [[1], 2]")
        + ("date: 2001-99-99", "&a [*a, *a]", "lr: fast", b"\xff", "lr: !!python/name:os.system")
    ],
    "classifiers that are none": [
        lambda f: ["predict", str(f), "a.png"],
        lambda f: ["predict", saved(f, content=b"no"), data(f / "data")],
        lambda f: ["predict", saved(f, "run.yaml", b"model: [1"), data(f / "data")],
        lambda f: ["predict", saved(f, "run.yaml", b"model: no-such"), data(f / "data")],
        lambda f: ["merge", saved(f, "adapter.safetensors", b"no")],
        lambda f: ["show", saved(f, "adapter.safetensors", b"no")],
        lambda f: ["predict", saved(f), "no_such_picture.png"],
    ],
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, words: list[str]) -> None:
    """It must end with exit code 2 (1 is the guard's, for what nobody foresaw) in one line."""
    before = contents(folder)
    ran = through_the_door(cli.command, *words)
    assert ran.exit_code == 2 and "Traceback" not in ran.output
    assert re.fullmatch(r"test: .*\n|Usage: (.*\n){4}", ran.err), ran.err
    assert before.items() <= contents(folder).items()


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported(tmp_path_factory):
    """By root, since another user may not be allowed to read the interpreter's own files."""
    assert through_the_door(cli.command, "fit", "--help").exit_code == 0
    out = tmp_path_factory.mktemp("first") / "records.jsonl"
    ran = through_the_door(cli.command, "lab", "clip", "--dataset", "food", *QUICK, "--out", out)
    assert ran.exit_code == 0
    FIRST.update(json.loads(out.read_text()))


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, number) for kind, typed in TYPED.items() for number in range(len(typed))],
)
def test_one_sentence(kind, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lab = ["lab", "clip", "--dataset", "food", *QUICK, "--out", tmp_path / "new" / "records.jsonl"]
    refused(tmp_path, [*lab, *TYPED[kind][number](tmp_path)])


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, number) for kind, typed in AT_WORK.items() for number in range(len(typed))],
)
def test_one_sentence_at_work(kind, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, AT_WORK[kind][number](tmp_path))


def long(folder: Path) -> str:
    return f"{folder}/{LONG}"


def a_file(folder: Path) -> str:
    (folder / "file").write_text("mine")
    return str(folder / "file")


PLACES = [fifo, long, a_file, lambda f: "/proc/x", lambda f: "/dev/full", lambda f: "~nosuchuser/x"]
DOORS = {
    "fetch": lambda place: (fetch.main, "sam", "--root", place, "--quiet"),
    "benchmarks": lambda place: (benchmarks.main, "--only", place),
    "spectra": lambda place: (spectra.main, "--out", place, "--seeds", "0"),
    "notebooks": lambda place: (notebooks.main, "build", place),
    "tests": lambda place: (gate.main, "--lessons", place),
}


@pytest.mark.parametrize("place", range(len(PLACES)))
@pytest.mark.parametrize("door", DOORS)
def test_one_sentence_at_the_other_doors(door, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = DOORS[door](PLACES[place](tmp_path))
    before = contents(tmp_path)
    ran = through_the_door(*words)
    assert ran.exit_code == 2 and "Traceback" not in ran.output, ran.output
    assert before.items() <= contents(tmp_path).items()


# ---------------------------------------------------------------------------- without rights


def closed(place: Path, rights: int = 0o000) -> None:
    place.chmod(rights)


def class_folder(folder, rights):
    found = data(folder / "data")
    closed(folder / "data" / "cat", rights)
    return ["--dataset", found]


def whole_folder(folder, rights):
    found = data(folder / "data")
    closed(folder / "data", rights)
    return ["--dataset", found]


def parent(folder, option, name):
    data(folder / "parent" / name)
    closed(folder / "parent")
    words = ("--scale", "paper", "--dataset", "dtd") if option == "--root" else ()
    return [*words, option, str(folder / "parent" / name)]


def one_picture(folder, rights):
    found = data(folder / "data")
    closed(folder / "data" / "cat" / "0.png", rights)
    return ["--dataset", found]


def one_file(folder, option, name, text=""):
    (folder / "open").mkdir()
    (folder / "open" / name).write_text(text)
    closed(folder / "open" / name)
    (folder / "open").chmod(0o777)
    return [option, str(folder / "open" / name.removeprefix(".").removesuffix(".lock"))]


RIGHTS = {
    "a class that can be listed": lambda f: class_folder(f, 0o744),
    "a class": lambda f: class_folder(f, 0o700),
    "the data that can be listed": lambda f: whole_folder(f, 0o744),
    "the data": lambda f: whole_folder(f, 0o700),
    "the data's parent": lambda f: parent(f, "--dataset", "data"),
    "a picture": lambda f: one_picture(f, 0o600),
    "the records' folder": lambda f: ["--out", str(f / "records.jsonl")],
    "the records' parent": lambda f: parent(f, "--out", "records.jsonl"),
    "the records": lambda f: one_file(f, "--out", "r.jsonl", "no record"),
    "the records' lock": lambda f: one_file(f, "--out", ".r.jsonl.lock"),
    "the root": lambda f: parent(f, "--root", "data"),
    "the weights": lambda f: one_file(f, "--weights", "w.safetensors"),
    "the weights' parent": lambda f: parent(f, "--weights", "w.safetensors"),
}


@pytest.mark.parametrize("what", RIGHTS)
def test_permission_denied(what, tmp_path):
    words = RIGHTS[what](tmp_path)
    with as_nobody(tmp_path):
        ran = through_the_door(cli.command, "lab", "clip", "--dataset", "food", *QUICK, *words)
    assert ran.exit_code == 2 and ran.err.startswith("test: "), ran.output
    assert ran.err.count("\n") == 1


def test_permission_denied_at_work(tmp_path):
    found = data(tmp_path / "data")
    with as_nobody(tmp_path):
        ran = through_the_door(cli.command, "fit", found, "--out", tmp_path / "new")
    assert ran.exit_code == 2 and str(tmp_path / "new") in ran.err and ran.err.count("\n") == 1


def classifier() -> PictureClassifier:
    return PictureClassifier(inject(small_clip(), SerialLoRAConfig(rank=2)), ["cat", "dog"])


IN_PYTHON = {
    "save_adapter": lambda place: save_adapter(classifier().model, place / "new.safetensors"),
    "load_adapter": lambda place: load_adapter(small_clip(), place / ADAPTER_FILE),
    "save_classifier": lambda place: save_classifier(classifier(), place),
    "load_classifier": lambda place: load_classifier(small_clip(), place),
    "load_folder": load_folder,
    "examine_folder": examine_folder,
    "read_records": lambda place: read_records(place / "records.jsonl"),
    "append_record": lambda place: append_record(place / "records.jsonl", Record(**FIRST)),
    "write_example_folder": write_example_folder,
    "load_clip": lambda place: load_clip(weights=place / "w.safetensors"),
    "load_sam": lambda place: load_sam(weights=place / "w.safetensors"),
    "load_sd3": lambda place: load_sd3(weights=place),
}


@pytest.mark.parametrize("rights", [0o000, 0o444], ids=["closed", "can be listed"])
@pytest.mark.parametrize("function", IN_PYTHON)
def test_permission_denied_in_python(function, rights, tmp_path):
    place = save_classifier(classifier(), tmp_path / "place")
    data(place)
    place.chmod(rights)
    with as_nobody(tmp_path), pytest.raises(SerialLoRAError, match="place"):
        IN_PYTHON[function](place)


# -------------------------------------------------------------------------------- held, and odd


def test_a_lock_that_somebody_holds_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_records, "LOCK_SECONDS", (0, 0.1))
    with FileLock(tmp_path / ".r.jsonl.lock"):
        ran = through_the_door(cli.command, "lab", "clip", *QUICK, "--out", tmp_path / "r.jsonl")
    waiting, said = ran.err.splitlines()
    assert ran.exit_code == 2 and "waiting" in waiting and "Another run" in said
    assert not (tmp_path / "r.jsonl").exists()


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
    assert ran.out.count("pets, [raw] :cat:") == 2  # in the line of the run, in the table
    assert "phone.heic" in ran.err
    assert ran.out.endswith("Records: " + str(out).replace("\udcff", "\\udcff") + "\n")


def test_what_nobody_foresaw_is_one_sentence_and_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "examine", lambda: [][0])
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
