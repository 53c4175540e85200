"""What holds in every lab: one run, many runs, records, sweeps, interruptions, refusals."""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

from serial_lora import eject, load_adapter
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import Pictures
from serial_lora_course.labs import grid, training
from serial_lora_course.labs import lab as labs
from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.grid import dry_run
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.training import TrainingConfig
from serial_lora_course.plots.runs import keep_and_draw
from tests.labs.lab_models import a_second_a_step, calls, power_cut, state_of, unchanged
from tests.labs.small_labs import QUICK, small_lab


@pytest.fixture(params=["clip", "sam", "sd3"])
def small(request, monkeypatch, tmp_path):
    return small_lab(request.param, monkeypatch, tmp_path / "models")


def forbid_runs(monkeypatch) -> None:
    """From here on, no run may begin and no base be measured."""

    def fail(*_, **__):
        raise AssertionError("something was run that must not be")

    monkeypatch.setattr(grid, "run_one", fail)
    monkeypatch.setattr(labs.Lab, "base", property(fail))


def interrupted(*_):
    raise KeyboardInterrupt


# --- one run -------------------------------------------------------------------------------------


def test_runs_leave_the_model_as_it_was_and_equal_budget_is_equal(small):
    lab, sizes = small.lab(), {}
    before = state_of(lab.backbone.model)
    for method in ("lora", "serial_lora_plus", "lora_equal_budget"):
        record = run_one(lab, METHODS[method], small.amounts[0], 1)
        assert unchanged(lab.backbone.model, before)
        assert (record.task, record.scale, record.method) == (small.kind.name, "tiny", method)
        assert (record.amount, record.unit) == (small.amounts[0], small.kind.unit)
        assert record.sizes["steps"] == 2 and record.sizes["activation_bytes"] > 0
        assert record.key == lab.key(METHODS[method], small.amounts[0], 1)
        assert lab.base.keys() < record.measures.keys()
        assert all(math.isfinite(value) for value in record.measures.values())
        sizes[method] = record.sizes
    lora, serial, equal = (each["parameters"] for each in sizes.values())
    assert serial == equal == small.blocks * 2 * QUICK["rank"] * small.width
    assert lora == 4 * serial == sizes["serial_lora_plus"]["bytes"]
    assert sizes["serial_lora_plus"]["activation_bytes"] <= sizes["lora"]["activation_bytes"]


def test_a_failed_run_leaves_the_model_as_it_was_and_the_next_one_works(small, monkeypatch):
    lab, method, amount = small.lab(), METHODS["serial_lora"], small.amounts[1]
    before, usual = state_of(lab.backbone.model), lab.config
    lab.config = replace(usual, lr=1e30, min_steps=6)
    with pytest.raises(SerialLoRAError, match="smaller learning rate"):
        run_one(lab, method, amount, 1)
    assert unchanged(lab.backbone.model, before)
    lab.config = usual
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(small.kind, "measure", interrupted)
        run_one(lab, method, amount, 1, keep_adapter=True)
    assert unchanged(lab.backbone.model, before)
    assert math.isfinite(run_one(lab, method, amount, 1).measures["loss"])


def test_another_seed_is_another_run_and_checkpointing_is_not(small):
    lab, method, amount = small.lab(), METHODS["serial_lora_plus"], small.amounts[0]
    one, two = (run_one(lab, method, amount, seed) for seed in (1, 2))
    assert one.measures["loss"] != two.measures["loss"]
    if "gradient_checkpointing" in one.settings:
        lab.config = replace(lab.config, gradient_checkpointing=True)
        checkpointed = run_one(lab, method, amount, 1)
        assert checkpointed.measures == pytest.approx(one.measures, rel=1e-3, abs=1e-4)
        assert checkpointed.sizes["activation_bytes"] < one.sizes["activation_bytes"]


# --- many runs -----------------------------------------------------------------------------------


def test_every_combination_is_run_once(small, tmp_path, monkeypatch):
    out, seen = tmp_path / "new" / "records.jsonl", []
    measured = calls(monkeypatch, small.kind, "measure_base")
    options = dict(methods=["lora", "serial_lora_plus"], ratio=[1, 5], out=out)
    options |= dict(on_record=lambda record, is_new: seen.append(is_new), command="the command")
    first = small.run(["one", "two", "one"], **options)
    assert seen == [True] * 6 and len(measured) == 2  # the unadapted model, once a set
    assert read_records(out) == first and {record.command for record in first} == {"the command"}
    table = frame(first)[["dataset", "method", "ratio"]]
    assert list(table.itertuples(index=False, name=None)) == [
        (dataset, method, ratio)
        for dataset in ("one", "two")
        for method, ratio in (("lora", 1), ("serial_lora_plus", 1), ("serial_lora_plus", 5))
    ]
    assert [path.name for path in out.parent.glob("[!.]*")] == ["records.jsonl"]
    assert first[0].settings["data"] == small.sets["one"].picture_fingerprint()[:16]

    forbid_runs(monkeypatch)
    seen.clear()
    assert small.run(["one", "two"], **options) == first and seen == [False] * 6


def test_what_is_kept_of_a_run_tells_its_measures_without_training(small, tmp_path):
    (record,) = small.run(draw=partial(keep_and_draw, tmp_path), precision="no")
    (adapter,), (outcomes,) = (tmp_path.glob(f"*.{end}") for end in ("safetensors", "npz"))
    assert len(list(tmp_path.glob("*.png"))) == (small.kind.name != "clip")
    lab = small.lab(precision="no")
    load_adapter(lab.backbone.model, adapter)
    again, seen = lab.measure()
    eject(lab.backbone.model)
    assert again == {name: pytest.approx(record.measures[name]) for name in again}
    kept = np.load(outcomes)
    assert list(kept) and all(
        np.allclose(kept[name], values, atol=1e-5) for name, values in lab.outcomes(seen).items()
    )


def repainted(lab, part):
    """The same names over other pictures: the last item shows what the second one does."""
    known = lab.data.parts()[part]
    sources = [*known.sources[:-1], known.sources[1]]
    other = Pictures(known.picture_ids, known.read, sources, known.labels)
    lab.data = replace(lab.data, **{part: other})


def reweighted(lab, network):
    with torch.no_grad():
        next(lab.networks()[network].parameters()).view(-1)[-1] += 1e-3


def test_a_key_sees_what_names_do_not_say(small):
    changes = [
        lambda lab: repainted(lab, "train"),
        lambda lab: repainted(lab, "test"),
        lambda lab: reweighted(lab, 0),
        lambda lab: reweighted(lab, -1),
        lambda lab: setattr(lab, "config", replace(lab.config, precision="bf16")),
    ]
    keys = []
    for change in [lambda lab: None, lambda lab: None, *changes]:
        lab = small.lab(precision="no")
        change(lab)
        keys.append(lab.key(METHODS["lora"], small.amounts[0], 1))
    assert keys[0] == keys[1] and keys[0] not in keys[2:]


@dataclass(frozen=True)
class OftenSaved(TrainingConfig):
    save_every: float = 2.0


def test_an_interrupted_lab_goes_on_and_ends_as_if_uninterrupted(small, tmp_path, monkeypatch):
    options = dict(methods=["lora", "serial_lora"], amounts=small.amounts[1:])
    options |= dict(min_steps=6, dropout=0.2)
    monkeypatch.setattr(training, "TrainingConfig", OftenSaved)
    a_second_a_step(monkeypatch)
    whole = small.run(**options)

    out = tmp_path / "records.jsonl"
    with power_cut(small.objective, 6 + 5):
        small.run(out=out, **options)
    assert len(read_records(out)) == 1 and len(list(tmp_path.glob("*unfinished*"))) == 1

    steps = calls(monkeypatch, small.objective, "forward")
    with pytest.raises(KeyboardInterrupt):
        small.run(out=out, draw=interrupted, **options)
    assert len(steps) == 2  # from the state saved at step 4
    assert len(read_records(out)) == 1 and len(list(tmp_path.glob("*unfinished*"))) == 1

    records = small.run(out=out, **options)
    assert len(steps) == 2  # a training is kept until its record is written
    for record, same in zip(records, whole, strict=True):
        assert (record.measures, record.sizes) == (same.measures, same.sizes)
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_dry_run_lists_what_is_left_and_times_a_step_and_writes_nothing(small, tmp_path):
    out, options = tmp_path / "records.jsonl", small.options
    small.run(out=out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    asked = (small.kind.name, ["one", "two"], ["lora", "serial_lora"], small.amounts[:1], [1])
    lines = list(dry_run(*asked, out=out, **options))
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
    listed = [line for line in lines if "seed 1" in line]
    assert [line.partition(" ")[0] for line in listed] == ["one", "two", "two"]
    assert "LoRA, rank" in listed[0] and f"{len(listed)} runs left" in lines[-1]
    done = (small.kind.name, ["one"], ["serial_lora"], small.amounts[:1], [1])
    assert all("0 runs left" in line for line in dry_run(*done, out=out, **options))


# --- what is refused -----------------------------------------------------------------------------

REFUSED = [
    ({"datasets": []}, "empty"),
    ({"methods": ["no such method"]}, "no method"),
    ({"seeds": [0]}, "seeds must be .* at least 1"),
    ({"rank": [4, 1000]}, "rank 1000 is above"),
    ({"rank": [4, 6], "methods": ["lora_equal_budget"]}, "four divides"),
    ({"ratio": [1, 0], "methods": ["lora_plus"]}, "ratio must be .*above 0"),
    ({"ratio": 5}, "no LoRA.* method was chosen"),
    ({"lr": 0.0}, "lr must be .*above 0"),
    ({"precision": "fp8"}, "precision"),
    ({"dropout": 1.0}, "dropout"),
    ({"shots": [4]}, "no setting 'shots'"),
    ({"weights": "no-such-file.safetensors"}, "There is no"),
]
OWN = {
    "clip": [({"towers": ("audio",)}, "audio"), ({"model_name": "no-such-model"}, "no model")],
    "sam": [({"amounts": [101]}, "percent must"), ({"jitter": 0.25}, "jitter")],
    "sd3": [
        ({"stream": "sound"}, "image, text, both"),
        ({"weighting": "cosine"}, "plain, sigma_squared"),
        ({"resolution": 24}, "divisible by 16"),
    ],
}


def test_bad_input_is_refused_before_anything_runs(small, tmp_path, monkeypatch):
    forbid_runs(monkeypatch)
    out = tmp_path / "folder" / "records.jsonl"
    for change, message in REFUSED + OWN[small.kind.name]:
        with pytest.raises(SerialLoRAError, match=message) as caught:
            small.run(out=out, **change)
        assert "\n" not in str(caught.value)
    assert not out.parent.exists()
