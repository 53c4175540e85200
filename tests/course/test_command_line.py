"""The command line: help everywhere, one sentence for a mistake, tables and records."""

import re
import subprocess
import sys

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course import cli, lab_options
from serial_lora_course.labs import lab as labs
from serial_lora_course.labs.clip import zero_shot_of
from serial_lora_course.labs.records import read_records
from tests.labs.small_labs import small_lab

QUICK = ("--min-steps", "2", "--epochs", "1")


@pytest.fixture
def quick(monkeypatch):
    """A wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(
    "command", [(), ("doctor",), ("lab",), ("lab", "clip"), ("lab", "sam"), ("lab", "sd3")]
)
def test_help_everywhere(run, command):
    code, out, err = run(*command, "--help")
    assert code == 0 and "Usage:" in out and not err


@pytest.mark.parametrize(
    ("name", "amount"), [("clip", "--shots"), ("sam", "--percent"), ("sd3", "--percent")]
)
def test_help_names_every_option(run, name, amount):
    _, out, _ = run("lab", name, "--help")
    for option in ("--scale", "--dataset", "--methods", amount, "--seeds", "--rank", "--lr"):
        assert option in out
    assert f"accelerate launch -m serial_lora_course.cli lab {name}" in " ".join(out.split())


def test_it_is_also_a_module():
    command = [sys.executable, "-m", "serial_lora_course.cli", "lab", "no-such-lab"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert "no-such-lab" in done.stderr and "Traceback" not in done.stderr


MISTAKES = [
    (("--dataset", "no-such-set"), "data set"),
    (("--dataset", ","), "at least one name"),
    (("--methods", "no-such-method"), "no method"),
    (("--methods", ""), "at least one name"),
    (("--seeds", "0"), "seeds"),
    (("--seeds", "-3"), "seeds"),
    (("--rank", "0"), "rank"),
    (("--rank", "1000"), "above 192"),
    (("--rank", "6", "--methods", "all"), "four divides"),
    (("--lr", "0"), "rate"),
    (("--lr", "nan"), "rate"),
    (("--epochs", "0"), "epochs"),
    (("--batch-size", "0"), "batch_size"),
    (("--accumulation", "0"), "accumulation"),
    (("--precision", "fp8"), "precision"),
    (("--scale", "huge"), "scale"),
    (("--weights", "no-such-file.safetensors"), "no weights file"),
    (("--rank", "three"), "whole numbers"),
    (("--rank", ","), "whole numbers"),
    (("--ratio", "high"), "must be numbers"),
    (("--ratio", "5"), "add lora_plus or"),
    (("--ratio", "-5", "--methods", "lora_plus"), "above zero"),
    (("--plus-lr", "1e-3,fast"), "must be numbers"),
]
CLIP_MISTAKES = [
    (("--dataset", "food101"), "paper"),
    (("--shots", "many"), "whole numbers"),
    (("--shots", "0"), "1 or more"),
    (("--shots", "-1"), "1 or more"),
    (("--shots", "1.5"), "whole numbers"),
    (("--prompt", "poetic"), "prompt"),
    (("--model-name", "no-such-model"), "no model"),
    (("--model-name", "ViT-B-16"), "QuickGELU"),
]
SAM_MISTAKES = [
    (("--dataset", "icecream"), "data set"),
    (("--percent", "half"), "whole numbers"),
    (("--percent", "0"), "1 or more"),
    (("--percent", "101"), "between 1 and 100"),
    (("--jitter", "0.5"), "below 0.25"),
    (("--jitter", "nan"), "below 0.25"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [(name, *mistake) for name in ("clip", "sam") for mistake in MISTAKES]
    + [("clip", *mistake) for mistake in CLIP_MISTAKES]
    + [("sam", *mistake) for mistake in SAM_MISTAKES],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, tmp_path, name, arguments, message):
    out = tmp_path / "records.jsonl"
    options = ("--dataset", "food", "--seeds", "1", "--out", str(out))
    code, _, err = run("lab", name, *options, *arguments)
    assert code == 2
    assert err.startswith("serial-lora: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments", [("--batch-size", "three"), ("--no-such-option",), ("extra",)]
)
def test_a_usage_mistake_is_told_with_exit_code_2(run, arguments):
    code, _, err = run("lab", "clip", *arguments)
    assert code == 2 and "Error" in err and "Traceback" not in err


def test_an_unknown_command_is_told_with_exit_code_2(run):
    code, _, err = run("lab", "no-such-lab")
    assert code == 2 and "no-such-lab" in err


def folder_with(tmp_path, kind: str):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    if kind == "no classes":
        return folder
    for class_name in ("cat", "dog"):
        (folder / class_name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (number * 40, 0, 0)).save(
                folder / class_name / f"{number}.png"
            )
    if kind == "corrupt picture":
        (folder / "cat" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    if kind == "one picture":
        (folder / "dog" / "1.png").unlink()
        (folder / "dog" / "2.png").unlink()
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no classes", "class folders"),
        ("corrupt picture", "cannot be read"),
        ("one picture", "two pictures"),
    ],
)
def test_a_folder_that_will_not_do_is_told(run, tmp_path, kind, message):
    folder = folder_with(tmp_path, kind)
    code, _, err = run("lab", "clip", "--dataset", str(folder), "--out", str(tmp_path / "r.jsonl"))
    assert code == 2 and message in err and "Traceback" not in err and err.count("\n") == 1


def test_data_that_were_not_fetched_are_told(run, tmp_path):
    code, _, err = run(
        "lab", "clip", "--scale", "paper", "--dataset", "dtd", "--root", str(tmp_path)
    )
    assert code == 2 and "data_scripts" in err and err.count("\n") == 1


def test_a_lab_prints_a_table_and_keeps_records(run, quick, tmp_path, monkeypatch):
    out = tmp_path / "runs" / "records.jsonl"
    arguments = ("--dataset", "food", "--methods", "lora, serial_lora", "--shots", "1")
    arguments = ("lab", "clip", *arguments, "--seeds", "2", *QUICK, "--out", str(out))
    code, printed, _ = run(*arguments)
    assert code == 0
    records = read_records(out)
    assert [(r.method, r.seed) for r in records] == [
        ("lora", 1),
        ("serial_lora", 1),
        ("lora", 2),
        ("serial_lora", 2),
    ]
    assert printed.startswith("Settings: CLIPLabConfig(rank=16")
    assert "already in the records" not in printed
    for column in ("parameters", "bytes", "zero-shot", "adapted", "seeds", "seconds"):
        assert column in printed
    rows = [
        line for line in printed.splitlines() if re.search(r"food .*(Serial )?LoRA .*\d,\d", line)
    ]
    assert len(rows) == 2
    lora, serial = (next(r for r in records if r.method == m) for m in ("lora", "serial_lora"))
    assert f"{serial.sizes['parameters']:,}" in rows[1] and "Serial LoRA" in rows[1]
    assert lora.sizes["parameters"] == 4 * serial.sizes["parameters"]
    assert f"{zero_shot_of(serial):.1%}" in rows[1]
    assert f"Records: {out}" in printed

    command = (
        "serial-lora lab clip --dataset food --methods 'lora, serial_lora' --shots 1 --seeds 2"
    )
    assert {r.command for r in records} == {f"{command} --epochs 1 --min-steps 2"}

    def must_not_run(*_, **__):
        raise AssertionError("a finished record was run again")

    monkeypatch.setattr(labs, "train", must_not_run)
    code, again, _ = run(*arguments)
    assert code == 0 and again.count("already in the records") == 4
    assert read_records(out) == records


def test_the_sam_lab_prints_every_measure_and_keeps_records(run, quick, tmp_path, monkeypatch):
    small, out = small_lab("sam", monkeypatch, tmp_path / "small"), tmp_path / "records.jsonl"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in small.options.items()]
    words += ["--dataset=one", "--percent=50,100", "--seeds=1", f"--out={out}"]
    code, printed, _ = run("lab", "sam", *words, "--pictures", str(tmp_path / "pictures"))
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "one-100-lora-1-rank-4.png",
        "one-100-serial_lora-1-rank-4.png",
        "one-50-lora-1-rank-4.png",
        "one-50-serial_lora-1-rank-4.png",
    ]
    assert code == 0 and printed.startswith("Settings: SamLabConfig(rank=4")
    records = read_records(out)
    assert [(r.amount, r.method) for r in records] == [
        (50, "lora"),
        (50, "serial_lora"),
        (100, "lora"),
        (100, "serial_lora"),
    ]
    assert records[0].sizes["parameters"] == 4 * records[1].sizes["parameters"]
    for column in ("data", "Dice", "1-Dice", "DiceCE", "IoU", "parameters", "seconds"):
        assert column in printed
    rows = [line for line in printed.splitlines() if re.match(r" *one +\d+%", line)]
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        measures = record.measures
        assert measures["one_minus_dice"] == pytest.approx(1 - measures["dice"])
        for name in ("dice", "one_minus_dice", "dice_ce", "iou"):
            assert f"{measures[name]:.3f}" in row, (name, row)
    for words, name in (("box filled in", "box_dice"), ("not adapted", "base_dice")):
        (row,) = (line for line in printed.splitlines() if re.match(f" *one +– +{words}", line))
        assert f"{records[0].measures[name]:.3f}" in row
    most = {
        method: max(r.sizes["activation_bytes"] for r in records if r.method == method)
        for method in ("lora", "serial_lora")
    }
    told = f"LoRA {most['lora'] / 1e6:,.0f} MB, Serial LoRA {most['serial_lora'] / 1e6:,.0f} MB"
    assert f"Activations kept for a backward pass: {told}." in printed


def test_short_classes_are_told_and_lists_are_swept(run, quick, tmp_path):
    folder, out = folder_with(tmp_path, "few"), tmp_path / "r.jsonl"
    options = "--methods serial_lora_plus --shots 4 --seeds 1 --plus-lr 1e-3 --ratio 1,2.5".split()
    options += ["--dataset", str(folder), "--rank", "4, 8", *QUICK, "--towers", "image"]
    options += ["--blocks", "0,1"]
    code, printed, _ = run("lab", "clip", *options, "--out", str(out))
    assert code == 0 and "2 of the classes have fewer pictures" in printed
    records = read_records(out)
    found = [(record.rank, record.ratio, record.lr) for record in records]
    assert found == [(rank, ratio, 1e-3) for rank in (4, 8) for ratio in (1, 2.5)]
    assert all(
        r.settings["towers"] == ["image"] and r.settings["blocks"] == [0, 1] for r in records
    )
    for settings in ("CLIPLabConfig(rank=4,", "CLIPLabConfig(rank=8,"):
        assert f"Settings: {settings}" in printed
    assert "(rank 8, ratio 2.5)" in printed


@pytest.mark.parametrize(
    ("name", "option", "amounts"),
    [("clip", "shots", [1, 4, 16]), ("sam", "percent", [20, 50, 100])],
)
def test_all_stands_for_all_data_sets_and_methods(run, monkeypatch, name, option, amounts):
    from serial_lora_course.data.registry import dataset_names
    from serial_lora_course.labs.methods import METHODS

    task, asked = {"clip": "classification", "sam": "segmentation"}[name], []

    def looks(*arguments, **_):
        asked.extend(arguments[1:5])
        raise SerialLoRAError("Enough seen.")

    monkeypatch.setattr(lab_options, "run_lab", looks)
    several = ",".join(map(str, amounts))
    run("lab", name, "--dataset", "all", "--methods", "all", f"--{option}", several, "--seeds", "3")
    assert asked[:3] == [list(dataset_names(task)), list(METHODS), amounts]
    assert list(asked[3]) == [1, 2, 3]


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_doctors_exit_code_is_its_verdict(run, monkeypatch, ok, code):
    class Report:
        def __str__(self) -> str:
            return "[OK] or [FAIL], as it is"

    report = Report()
    report.ok = ok
    monkeypatch.setattr(cli, "examine", lambda: report)
    assert run("doctor") == (code, "[OK] or [FAIL], as it is\n", "")


def test_the_real_doctor_reports_every_line(run):
    code, out, err = run("doctor")
    assert code in (0, 1) and "Traceback" not in err
    assert "[OK]" in out
    assert (code == 1) == ("[FAIL]" in out)
