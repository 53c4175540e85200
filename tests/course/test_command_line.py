"""The command line: tables and records, options from a file, what is missing, streams that are closed."""

import subprocess
import sys

import pytest

from serial_lora_course import __main__ as door
from serial_lora_course import lab_command
from serial_lora_course.labs import lab as labs
from serial_lora_course.labs.clip import zero_shot_of
from serial_lora_course.labs.records import read_records

ONE = ("lab", "clip", "--dataset", "food", "--methods", "serial_lora", "--shots", "1")


def test_a_lab_prints_a_table_and_keeps_records(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "runs" / "records.jsonl"
    asked = "lab clip --dataset food --methods lora,serial_lora --shots 1 --seeds 2 --epochs 1"
    words = [*asked.split(), "--min-steps", "2", "--out", out]
    code, printed, _ = run(*words)
    records = read_records(out)
    assert code == 0
    assert [(r.method, r.seed) for r in records] == [
        (method, seed) for seed in (1, 2) for method in ("lora", "serial_lora")
    ]
    assert {r.command for r in records} == {f"serial-lora {asked} --min-steps 2"}
    rows = [("zero-shot", f"{zero_shot_of(records[0]):.1%}")]
    for pair in (records[::2], records[1::2]):  # of a method
        mean = sum(record.measures["accuracy"] for record in pair) / 2
        rows.append((f"{mean:.1%}", f"{pair[0].sizes['parameters']:,}"))
    for row in rows:
        assert any(all(each in line for each in row) for line in printed.splitlines())

    monkeypatch.setattr(labs, "train", pytest.fail)  # nothing is run again
    code, printed, _ = run(*words)
    assert code == 0 and printed.count("already in the records") == 4
    assert read_records(out) == records


def test_a_file_gives_options_and_what_is_typed_after_it_counts_more(tmp_path, run):
    path = tmp_path / "run.txt"
    path.write_text("--rank 0\n")
    assert "rank" in run("lab", "clip", f"@{path}")[2]  # 0 is refused
    path.write_text("--rank 2  # as before\n\n--dataset atlantis\n--blocks 1,2")
    code, said, told = run("lab", "clip", f"@{path}", "--rank", "3")
    assert code == 2 and "rank=3" in said and "blocks=(1, 2)" in said and "atlantis" in told


@pytest.mark.parametrize(
    ("tail", "codes"), [(">&-", "0"), (">/dev/full", "2"), ("| head -c 9", "0")]
)
def test_output_that_nobody_takes_ends_in_a_sentence_at_most(tail, codes):
    command = f'"{sys.executable}" -m serial_lora_course --help {tail}; echo $? >&2'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    *said, code = done.stderr.splitlines()
    assert code == codes and len(said) == (code == "2") and "Traceback" not in done.stderr


BARE = """
import sys
from types import SimpleNamespace
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from serial_lora_course.__main__ import main
main()
"""


def bare(missing: list[str], *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BARE.format(missing=missing), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_with_the_library_alone_the_command_says_what_the_course_needs():
    done = bare(["rich"], "board", "runs")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and '".[course]"' in done.stderr
    assert "fault of the course" in bare(["serial_lora_course.cli"]).stderr


def test_an_old_python_is_told_which_to_take(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit) as ended:
        door.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "Python 3.10" in said and "PYTHON=" in said


def test_who_stops_a_run_reads_how_it_goes_on(run, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(lab_command, "run_lab", stopped)
    code, _, err = run(*ONE)
    assert code == 130 and "goes on" in err
