"""The benchmark measures what it says, and its table is the one its data give."""

import json
import subprocess
import sys
import time

import psutil
import pytest
import torch

from benchmarks import cluster, report, savings, shares
from benchmarks import machine as machine_rows
from benchmarks.__main__ import main
from benchmarks.compiled import measure_compiled
from benchmarks.machine import answer
from benchmarks.measure import PRECISIONS
from benchmarks.savings import measure_savings
from benchmarks.steps import contestants, measure_group, training_step
from benchmarks.subjects import KEYS, subject
from serial_lora_course.labs.grid import Done
from serial_lora_course.labs.timing import interleave, machine
from serial_lora_course.labs.training import TrainingConfig, train
from serial_lora_course.models.clip import encode_prompts
from tests.labs.lab_models import adapted_objective, stream


def made_up_results(**changes):
    row = {"seconds": 1.0, "seconds_spread": 0.01, "saved_bytes": 5_000_000, "adapter_bytes": 0}
    group = {
        "model": "clip",
        "title": "CLIP",
        "precision": "float32",
        "note": "A batch.",
        "rank": 4,
        "rounds": 2,
        "rows": [
            row | {"method": "floor", "title": "frozen floor", "ratio": 1.0},
            row | {"method": "serial_lora", "title": "Serial LoRA", "ratio": 1.04},
        ],
        "inference": {
            "base": 0.5,
            "base_spread": 0.0,
            "merged": 0.5,
            "merged_spread": 0.0,
            "ratio": 1.0,
        },
    }
    return {"machine": machine(), "quick": False, "groups": [group], "savings": []} | changes


# ------------------------------------------------------------------ clocks and scales


def test_every_step_runs_once_a_round_in_turning_order():
    calls = []
    steps = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = interleave(steps, rounds=2, warm_up=1)
    assert "".join(calls) == "abc" + "bca" + "cab"
    assert {len(timing.seconds) for timing in times.values()} == {2}


# ------------------------------------------------------------------ the methods measured


@pytest.mark.parametrize("key", KEYS)
def test_methods_differ_by_their_adapter_and_nothing_else(key):
    """With its adapter at zero, every contestant gives the base model's output.

    And in the floor gradients flow through every block.
    """
    tiny = subject(key, quick=True)
    base, batch = tiny.build().requires_grad_(False), tiny.inputs()
    expected = tiny.forward(base, batch)
    entries = {entry.method: entry for entry in contestants(tiny, base)}
    assert {"floor", "serial_lora", "lora", "peft"} <= set(entries)
    for entry in entries.values():
        with torch.no_grad():
            for parameter in entry.adapter:
                parameter.zero_()
        torch.testing.assert_close(entry.forward(batch), expected, atol=2e-5, rtol=1e-4)
    assert entries["lora"].adapter_bytes == 4 * entries["serial_lora"].adapter_bytes
    floor, seen = entries["floor"], []
    assert floor.adapter_bytes == 0

    def watch(module, inputs, output):
        first = output[0] if isinstance(output, tuple) else output
        first.register_hook(lambda gradient: seen.append(gradient.abs().sum().item()))

    tiny.first_norm(floor.model).register_forward_hook(watch)
    training_step(lambda: floor.forward(batch), floor.adapter, "float32")()
    assert len(seen) == 1 and seen[0] > 0
    assert all(parameter.grad is None for parameter in floor.model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_group_has_every_row(precision):
    group = measure_group(subject("clip", quick=True), precision, rounds=1)
    rows = {row["method"]: row for row in group["rows"]}
    assert list(rows) == ["floor", "floor_original", "serial_lora", "lora", "peft"]
    assert rows["floor"]["ratio"] == 1
    assert rows["serial_lora"]["adapter_bytes"] == 4 * (2 * 64 * 4 * 2)
    assert 0 < rows["floor"]["saved_bytes"] <= rows["serial_lora"]["saved_bytes"]
    assert rows["serial_lora"]["saved_bytes"] < rows["lora"]["saved_bytes"]
    assert group["inference"]["ratio"] > 0


@pytest.mark.slow
def test_the_compiled_step_is_made_once_and_the_base_once():
    rows = {row["method"]: row for row in measure_compiled(quick=True, rounds=1)}
    assert list(rows) == ["floor", "serial_lora", "lora"]
    assert rows["floor"]["graphs"] == rows["floor"]["ratio"] == 1
    for row in (rows["serial_lora"], rows["lora"]):
        assert (row["graphs"], row["graphs_changed"], row["graphs_disabled"]) == (1, 0, 1)
    table = report.render(made_up_results(compiled=list(rows.values())))
    assert table.count("4 switches and scales: 0; `disabled`: 1") == 2


# ------------------------------------------------------------------ exact savings


def test_savings_change_no_output_and_no_gradient():
    rows = [
        row for key in KEYS for row in measure_savings(key, True, precision="float32", rounds=1)
    ]
    assert [row["model"] for row in rows] == ["clip", "clip", "clip", "sam"]
    assert "cut at 8 tokens instead of 77" in rows[0]["title"]
    for row in rows:
        assert row["difference"] < 1e-4, row["title"]


def test_a_step_that_differs_is_seen(monkeypatch):
    """One token too few changes the longest prompt's features, and the difference says so."""

    def cut_too_short(model, tokens):
        longest = tokens.argmax(dim=-1).max()
        shorter = tokens.clone()
        shorter[:, longest] = 0
        return encode_prompts(model, shorter)

    monkeypatch.setattr(savings, "encode_prompts", cut_too_short)
    prompts_cut, *_ = measure_savings("clip", True, precision="float32", rounds=1)
    assert prompts_cut["difference"] > 1e-2


# ------------------------------------------------------------------ other machines, whole runs


def test_a_process_says_what_a_step_costs_and_what_a_lab_would_choose(capsys):
    machine_rows.main(["step", "--quick", "--rounds", "1"])
    row = json.loads(capsys.readouterr().out)
    assert row["float32"] > 0 and row["ratio"] == pytest.approx(row["bfloat16"] / row["float32"])
    assert row["chosen"] in PRECISIONS


def test_each_condition_has_an_environment_of_its_own(monkeypatch):
    """Of the variables that matter, a process sees its row's alone; a neighbour runs beside it."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = "import json, os, psutil; print(json.dumps([dict(os.environ), len(psutil.Process()"
    code += ".parent().children())]))"
    real = subprocess.Popen

    def process(command, **options):
        mine = "benchmarks.machine" in command
        return real([sys.executable, "-c", code] if mine else command, **options)

    monkeypatch.setattr(machine_rows.subprocess, "Popen", process)
    monkeypatch.setattr(machine_rows, "answer", lambda p: {"saw": answer(p)})
    rows = machine_rows.measure_conditions(quick=True, rounds=1)
    assert len(rows) == 10
    tried = machine_rows.measure_conditions(quick=True, rounds=1, spins=[4321])
    assert [row["saw"][0].get("GOMP_SPINCOUNT") for row in tried][3::4] == ["4321", "4321"]
    for row in rows:
        environment, running = row["saw"]
        assert "OMP_NUM_THREADS" not in environment
        assert environment.get("OMP_WAIT_POLICY") == (
            "passive" if "passive" in row["waiting"] else None
        )
        assert ("GOMP_SPINCOUNT" in environment) == (row["waiting"] == "the course's")
        assert ("ATEN_CPU_CAPABILITY" in environment) == ("AVX2" in row["state"])
        assert (running > 1) == ("neighbour" in row["state"])
    assert not [child for child in psutil.Process().children() if child.status() == "running"]


def test_a_class_is_measured_one_after_another_and_at_once(monkeypatch):
    running, most = [], []

    def start(words, settings, quick):
        running.append(settings)
        most.append(len(running))
        return settings

    monkeypatch.setattr(machine_rows, "start", start)
    monkeypatch.setattr(
        machine_rows, "answer", lambda settings: {"peak_bytes": running.pop() and 10**8}
    )
    rows = machine_rows.measure_class(quick=True)
    assert most == [1, 1, 1, 2, 1, 2] and [row["learners"] for row in rows] == [2, 2, 2]
    assert rows[0]["ratio"] == 1 and {row["peak_bytes"] for row in rows} == {10**8}


def test_what_is_no_training_is_the_rest(monkeypatch):
    def run_lab(*words, **options):
        shares.sd3.encode_style()
        objective = adapted_objective()
        objective(stream(1).first_part(TrainingConfig(steps=1, lr=1e-3)))  # no training
        time.sleep(0.5)
        train(objective, stream(3), TrainingConfig(steps=3, lr=1e-3))
        return [objective]

    monkeypatch.setattr(shares, "run_lab", run_lab)
    monkeypatch.setattr(shares.sd3, "encode_style", lambda: time.sleep(0.2))
    row = shares.measure_share("clip", quick=True)
    assert 0 < row["training"] <= row["seconds"] - 0.7 and row["loading"] > 0
    assert 0.2 <= row["once"] < row["seconds"] - row["training"] - 0.5
    assert row["further"] == pytest.approx(1 - row["training"] / (row["seconds"] - row["once"]))
    assert row["rest"] == pytest.approx(1 - row["training"] / row["seconds"])


def test_what_a_run_costs_besides_is_what_is_left_of_the_workers_time():
    """Two workers from second 4 to second 10, with three runs of three seconds: one second each."""
    done = [Done(place, None, True, seconds=3.0, workers=2) for place in range(3)]
    row = cluster._row([7.0, 7.5, 10.0], done)
    assert (row["begin"], row["own"], row["overhead"]) == (4.0, 3.0, 1.0)


@pytest.mark.slow
@pytest.mark.skipif(not cluster.is_installed(), reason='pip install ".[cluster]"')
def test_a_grid_is_measured_alone_and_on_workers(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setattr(cluster.os, "cpu_count", lambda: 2)
    alone, one, two = cluster.measure_cluster(quick=True)
    assert (alone["workers"], one["workers"], two["workers"]) == (1, 1, 2) and alone["ratio"] == 1
    assert all(
        row["equal"] and row["runs"] == 4 and row["overhead"] > 0 for row in (alone, one, two)
    )
    assert one["begin"] > alone["begin"]


# ------------------------------------------------------------------ results and table


def test_the_readme_shows_the_stored_results():
    text = report.README.read_text(encoding="utf-8")
    start, end = text.index(report.BEGIN), text.index(report.END) + len(report.END)
    assert text[start:end] == report.render(report.load())


def test_the_table_is_made_from_the_numbers_and_replaces_the_old_one(tmp_path):
    results = made_up_results()
    group = results["groups"][0]
    group["rows"].append(group["rows"][1] | {"method": "peft", "title": "PEFT", "ratio": 1.3})
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    report.refresh(results, readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| **Serial LoRA** | 1,000 ± 10 | 1.04 | 5.00 MB | – |" in text
    assert "step takes 1.04 times the frozen floor's; 0.80 times a peer's" in text
    assert "merged inference takes 1.00 times the base's." in text


def test_new_measurements_replace_old_ones_of_the_same_kind_and_machine():
    old = made_up_results()
    sam = old["groups"][0] | {"model": "sam"}
    merged = report.merge(old, made_up_results(groups=[sam | {"rank": 64}]))
    assert [(g["model"], g["rank"]) for g in merged["groups"]] == [("clip", 4), ("sam", 64)]
    again = report.merge(merged, made_up_results(groups=[sam | {"rank": 8}]))
    assert [(g["model"], g["rank"]) for g in again["groups"]] == [("clip", 4), ("sam", 8)]
    elsewhere = made_up_results(machine=machine() | {"processor": "another"})
    new = made_up_results(groups=[])
    assert report.merge(elsewhere, new) == report.merge(None, new) == new
    other_parts = report.merge(
        made_up_results(conditions=[1], shares=[2]), made_up_results(shares=[])
    )
    assert (other_parts["conditions"], other_parts["shares"]) == ([1], [])


def test_the_command_measures_stores_and_prints(tmp_path, capsys):
    path = tmp_path / "results.json"
    words = ["--quick", "--only", "sd3", "--precision", "float32", "--steps", "1"]
    assert main([*words, "--results", str(path)]) == 0
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert [group["model"] for group in stored["groups"]] == ["sd3"]
    printed = capsys.readouterr().out
    assert printed.strip() == report.render(stored)
    assert "SD3 medium" in printed and stored["machine"]["torch"] in printed
