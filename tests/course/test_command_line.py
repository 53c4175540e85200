"""The command line: help everywhere, one sentence for a mistake, tables and records."""

import re
import subprocess
import sys

import pytest
from PIL import Image

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


def test_who_stops_a_command_reads_how_it_goes_on(run, monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "examine", stopped)
    code, out, err = run("doctor")
    assert code == 130 and not out and "goes on" in err


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


MISTAKES = [  # of what is typed; what a lab itself refuses is in tests/labs/test_labs.py
    (("--dataset", "no-such-set"), "data set"),
    (("--dataset", ","), "at least one name"),
    (("--methods", ""), "at least one name"),
    (("--seeds", "-3"), "seeds"),
    (("--rank", "three"), "whole numbers"),
    (("--rank", ","), "whole numbers"),
    (("--ratio", "high"), "must be numbers"),
    (("--plus-lr", "1e-3,fast"), "must be numbers"),
    (("--shots", "1.5"), "whole numbers"),
    (("--model-name", "ViT-B-16"), "QuickGELU"),
    (("--scale", "paper", "--dataset", "dtd", "--root", "nowhere"), "data_scripts"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, tmp_path, arguments, message):
    out = tmp_path / "records.jsonl"
    code, _, err = run("lab", "clip", "--dataset", "food", "--out", str(out), *arguments)
    assert code == 2
    assert err.startswith("serial-lora: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments", ["clip --batch-size three", "clip --no-such-option", "clip extra", "no-such-lab"]
)
def test_a_usage_mistake_is_told_with_exit_code_2(run, arguments):
    code, _, err = run("lab", *arguments.split())
    assert code == 2 and "Error" in err and "Traceback" not in err


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


def test_the_sam_lab_keeps_records_and_pictures(run, quick, tmp_path, monkeypatch):
    small, out = small_lab("sam", monkeypatch, tmp_path / "small"), tmp_path / "records.jsonl"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in small.options.items()]
    words += ["--dataset=one", "--percent=50,100", "--seeds=1", f"--out={out}"]
    code, printed, _ = run("lab", "sam", *words, "--pictures", str(tmp_path / "pictures"))
    assert code == 0 and printed.startswith("Settings: SamLabConfig(rank=4")
    runs = {f"one-{r.amount}-{r.method}-1-rank-4.png": r for r in read_records(out)}
    assert len(runs) == 4 and {p.name for p in (tmp_path / "pictures").iterdir()} == set(runs)
    assert all(f"{record.measures['dice']:.3f}" in printed for record in runs.values())
    most = max(r.sizes["activation_bytes"] for r in runs.values() if r.method == "lora")
    assert f"for a backward pass: LoRA {most / 1e6:,.0f} MB, Serial LoRA " in printed


def test_short_classes_are_told_and_lists_are_swept(run, quick, tmp_path):
    folder, out = tmp_path / "pictures", tmp_path / "r.jsonl"
    for place in ("cat/0", "cat/1", "cat/2", "dog/0", "dog/1", "dog/2"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shade = (40 * int(place[-1]), 0, 0)
        Image.new("RGB", (8, 8), shade).save(folder / f"{place}.png")
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
