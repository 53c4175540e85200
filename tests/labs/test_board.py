"""The board of a class: everybody's records beside one another, or one sentence why not."""

import json
from dataclasses import asdict, replace

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.board import class_entries
from serial_lora_course.labs.records import append_record
from tests.labs.test_records import RECORD

RUN = replace(
    RECORD,
    measures={"accuracy": 0.5, "zero_shot_dataset": 0.25},
    settings=RECORD.settings | {"weights": "w", "data": "ab", "prompt": "dataset"},
)


def entry(accuracy, parameters, **changes):
    measures = RUN.measures | {"accuracy": accuracy}
    return replace(RUN, measures=measures, sizes={"parameters": parameters}, **changes)


CLASS = {
    "ada": [entry(0.5, 100, rank=4), entry(0.7, 100, rank=4, seed=2), entry(0.65, 900, rank=9)],
    "emmy": [entry(0.6, 100, rank=4, method="lora"), entry(0.3, 50, rank=2)],
    "grace": [entry(0.2, 400, rank=8)],
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": RUN.settings | {"data": "cd"}}, "other pictures"),
        ({"measures": {"dice": 0.9}}, "without an accuracy"),
        ({"sizes": {}}, "number of parameters"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(changes, words):
    with pytest.raises(SerialLoRAError, match=f"grace.*{words}"):
        class_entries(CLASS | {"grace": [replace(RUN, **changes)]})


@pytest.fixture
def runs(tmp_path):
    """A class's folder: two folders, one with the same runs twice, and a file."""
    folder = tmp_path / "runs"
    for learner, own in CLASS.items():
        path = folder / learner / "deep" / "clip.jsonl" if learner != "grace" else None
        for record in own:
            append_record(path or folder / "grace.jsonl", replace(record, command=f"run {learner}"))
    copied = folder / "ada" / "again.jsonl"
    copied.write_bytes((folder / "ada" / "deep" / "clip.jsonl").read_bytes())
    return folder


def test_the_command_prints_the_table_and_the_fronts_commands_and_draws(run, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    picture = runs.parent / "board.svg"
    code, out, _ = run("board", runs, "--out", picture)
    assert code == 0 and picture.read_text().count("<svg") == 1
    for part in ("60.0% ± 10.0%", "without training 25.0%", "emmy: run emmy", "LoRA", "900"):
        assert part in out
    assert "run grace" not in out
    (runs / "grace.jsonl").write_text(json.dumps(asdict(replace(RUN, settings={}))) + "\n")
    before = picture.read_bytes()
    code, out, err = run("board", runs, "--out", picture)
    assert (code, out, err.count("\n")) == (2, "", 1) and "grace" in err
    assert picture.read_bytes() == before
    code, _, err = run("board", runs.parent / "nowhere")
    assert code == 2 and "no record" in err
