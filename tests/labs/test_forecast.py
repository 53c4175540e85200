"""What a command is said to take, before it starts: beside what it then took, and closed forms."""

from dataclasses import replace

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course import cli
from serial_lora_course.labs.forecast import (
    _WORK,
    CARDS,
    NOT_ADAPTED,
    forecast,
    hollow_lab,
    told,
)
from serial_lora_course.labs.registry import LABS, get_lab
from serial_lora_course.models.architectures import ARCHITECTURES
from tests.doors import through_the_door
from tests.labs.small_labs import small_lab


@pytest.mark.parametrize("name", LABS)
def test_what_is_said_of_a_command_is_what_its_records_say_then(name, monkeypatch, tmp_path):
    small, out = small_lab(name, monkeypatch, tmp_path / "models"), tmp_path / "runs.jsonl"
    asked = {k: v for k, v in small.options.items() if k != "weights"}
    methods, amounts = ["lora", "serial_lora"], list(small.amounts)

    def said():
        runs = forecast(name, ["one"], methods, amounts, [1], out=out, card="cpu", **asked)
        return [run for run in runs if run.method != NOT_ADAPTED]

    before = said()
    assert not any(run.done for run in before) and not out.exists()
    records = small.run(methods=methods, amounts=amounts, out=out)
    told_of = {(run.method, run.amount): run for run in before}
    assert len(told_of) == len(records) == 4
    for record in records:
        run = told_of[record.method, record.amount]
        assert (run.steps, run.parameters) == (record.sizes["steps"], record.sizes["parameters"])
        assert run.drawings == record.sizes.get("drawings", 0) and run.seconds > 0
    assert all(run.done for run in said())
    amounts.append(100 if name != "clip" else 3)
    assert [run.done for run in said()].count(False) == (2 if name == "clip" else 0)


def test_the_papers_scale_needs_neither_weights_nor_pictures(monkeypatch):
    for name in LABS:
        monkeypatch.setattr(get_lab(name), "load_backbone", pytest.fail)
        monkeypatch.setattr(get_lab(name), "load_data", pytest.fail)
    asked = (["food101", "eurosat"], ["lora", "serial_lora"], [1, 16], [1, 2, 3], "paper")
    runs = [run for run in forecast("clip", *asked, card="rtx3090") if run.method != NOT_ADAPTED]
    assert len(runs) == 2 * 2 * 2 * 3
    steps = {(run.dataset, run.amount): run.steps for run in runs}
    assert steps["food101", 16] == -(-50 * 16 * 101 // 32) and steps["eurosat", 1] == 50
    sizes = {run.method: run.parameters for run in runs}
    clip = ARCHITECTURES["clip"]
    assert sizes == {"lora": clip.lora(32), "serial_lora": clip.serial_lora(32)}
    faster = forecast("clip", *asked, card="h100")
    assert sum(r.seconds for r in faster) < sum(r.seconds for r in runs)
    assert all(2**30 < run.memory < 24 * 2**30 for run in runs)


def test_products_are_those_that_vit_b_is_known_for():
    lab = hollow_lab(get_lab("clip"), "paper", get_lab("clip").configs["paper"], classes=10)
    picture, _ = _WORK["clip"](lab, lab.backbone.model.requires_grad_(False))
    assert picture.forward == pytest.approx(
        2 * 17.58e9, rel=0.02
    )  # its authors count a pair as one


def test_what_does_not_fit_is_said_and_unknown_cards_are_refused(monkeypatch):
    runs = forecast("clip", ["eurosat"], "lora", scale="paper", card="h100", rank=4)
    first, *_, last = told(runs, "h100")
    assert "assumed" not in first and "LESS" not in last and CARDS["h100"].name in last
    first, *_, last = told([replace(runs[-1], memory=2**37, dataset="flood")], "h100")
    assert "assumed" in first and "LESS" in last
    monkeypatch.setitem(LABS, "own", ("tests.labs.fourth_lab", ""))
    with pytest.raises(SerialLoRAError, match="beforehand"):
        forecast("own", ["human"])
    with pytest.raises(SerialLoRAError, match="card"):
        forecast("sam", ["human"], scale="paper", card="voodoo2")


def test_a_dry_run_writes_nothing(tmp_path):
    out = tmp_path / "runs" / "sam.jsonl"
    words = "lab sam --scale paper --dataset human --methods serial_lora --dry-run --card rtx3090"
    ran = through_the_door(cli.command, *words.split(), "--out", out)
    assert ran.exit_code == 0, ran.output
    said = " ".join(ran.out.split())
    assert "3 runs left and 0 done" in said and "RTX 3090" in said and "GiB" in said
    assert list(tmp_path.iterdir()) == []
