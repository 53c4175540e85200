"""What was typed to break the command line, by kind: one sentence, exit code 2, no file changed."""

import errno
import os
import re
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serial_lora import SerialLoRAConfig, inject
from serial_lora_course import cli, doctor
from serial_lora_course.work.classifier import PictureClassifier, load_vision, save_classifier
from tests.doors import through_the_door

QUICK = "--methods serial_lora --shots 1 --seeds 1 --min-steps 1 --epochs 1".split()
LONG = "x" * 5000


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


def saved(folder: Path) -> str:
    classifier = PictureClassifier(load_vision("tiny-clip"), ["cat", "dog"])
    inject(classifier, SerialLoRAConfig(rank=2), also_train=["head"])
    return str(save_classifier(classifier, folder / "saved").parent)


def lab(*words: object) -> list[object]:
    return ["lab", "clip", "--dataset", "food", *QUICK, "--out", "new.jsonl", *words]


ASKED: dict[str, Callable[[Path], list[str]]] = {
    "a folder with a long name": lambda f: lab("--dataset", f"{f}/{LONG}"),
    "a model that is nowhere": lambda f: lab("--model-name", "hf-hub:nobody/nothing"),
    "a full device as records": lambda f: lab("--out", "/dev/full"),
    "a pipe as records": lambda f: lab("--out", fifo(f)),
    "a pipe as data": lambda f: lab("--dataset", fifo(f)),
    "a class that is no text": lambda f: lab("--dataset", data(f / "a", b"c\xff", b"dog")),
    "codes for the terminal": lambda f: lab("--dataset", "a\nb\x1b[31m/c"),
    "a model with a long name": lambda f: ["fit", data(f), "--model", LONG],
    "no number": lambda f: ["fit", data(f), "--test-fraction=.nan"],
    "a file as a folder": lambda f: [
        "merge",
        saved(f),
        "--out",
        data(f / "data") + "/cat/0.png/new",
    ],
    "a device as an adapter": lambda f: ["show", "/dev/zero"],
}
MISTAKES = {  # what a lab itself refuses is in tests/labs/test_labs.py
    "lab clip --dataset no-such-set --out new.jsonl": "data set",
    "lab clip --dataset food --seeds -3 --out new.jsonl": "seeds",
    "lab clip --rank three": "--rank: invalid whole numbers separated by commas",
    "lab clip --no-such-option": "--no-such-option",
    "lab clip extra": "extra",
    "lab clip @nowhere.txt": "nowhere.txt",
    "lab clip --scale paper --dataset food101 --out new.jsonl": "data_scripts",
    "fit data --model timm/nothing": "model",
    "fit data --rank 2,3": "rank",
    "fit data --plus-lr 1": "plus-lr",
    "predict nowhere data": "no adapter file",
    "predict nowhere nothing": "no pictures",
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*words: object) -> str:
    """What is said of a command, which must change nothing in the folder that this process is in."""
    before = contents(Path.cwd())
    ran = through_the_door(cli.command, *words)
    assert ran.exit_code == 2, ran.output  # 1 is the guard's, for what nobody foresaw
    assert before.items() <= contents(Path.cwd()).items()
    assert "Traceback" not in ran.out and re.fullmatch(r"(test|serial-lora): .*\n", ran.err), ran
    return ran.err


@pytest.mark.parametrize("what", ASKED)
def test_an_attack_is_refused_in_one_sentence_and_nothing_changes(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(*ASKED[what](tmp_path))


@pytest.mark.parametrize(("line", "noun"), MISTAKES.items())
def test_the_sentence_of_a_mistake_names_it(line, noun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERIAL_LORA_DATA", "nowhere")
    data(tmp_path / "data")
    Path("nothing").mkdir()
    assert noun in refused(*line.split())
    assert not Path("new.jsonl").exists()


# ------------------------------------------------------------------------------------- the door


def test_a_note_is_told_whatever_the_environment_says_of_warnings():
    with warnings.catch_warnings(action="ignore"):  # as PYTHONWARNINGS=ignore
        ran = through_the_door(lambda words: [warnings.warn(w, stacklevel=1) for w in words], "odd")
    assert ran.err == "test: note: odd\n"


def test_ctrl_c_while_a_package_loads_is_ctrl_c_whatever_the_package_makes_of_it():
    def loading(_):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ImportError("numpy.core.multiarray failed to import")  # as packages in C do

    # A job in the background of a shell ignores Ctrl-C, and so would this one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ran = through_the_door(loading)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert ran.exit_code == 130 and "not foreseen" not in ran.err


REFUSED_BY_THE_SYSTEM = {
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    "a quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
    "a limit of size": (OSError(errno.EFBIG, "File too large"), "the disk is full"),
    "no rights": (PermissionError(errno.EACCES, "Permission denied", "mine.csv"), "mine.csv"),
    "no such file": (FileNotFoundError(errno.ENOENT, "No such file", "mine.csv"), "mine.csv"),
}


@pytest.mark.parametrize("what", REFUSED_BY_THE_SYSTEM)
def test_what_the_system_refuses_is_one_sentence(what, capfd):  # a full disk closes descriptor 1
    error, said = REFUSED_BY_THE_SYSTEM[what]

    def command(_):
        raise error

    ran = through_the_door(command)
    assert ran.exit_code == 2 and ran.out == ""
    assert re.fullmatch(rf"test: .*{said}.*\n", ran.err) and error.strerror in ran.err


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
    assert ran.out.count("pets, [raw] :cat:") == 3  # the line of the run, the table, the last line
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
