"""The benchmark measures what it says, and its tables are those that its data give."""

import json
import time

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import savings, shares
from benchmarks.measure import interleave
from benchmarks.models import SUBJECTS
from benchmarks.steps import FLOOR, OWN, contestants, measure_steps, training_step
from serial_lora_course.labs.training import TrainingConfig, train
from serial_lora_course.models.clip import encode_prompts
from tests.labs.lab_models import adapted_objective, stream


def test_every_step_runs_once_a_round_in_turning_order():
    calls = []
    steps = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = interleave(steps, rounds=2, warm_up=1)
    assert "".join(calls) == "abc" + "bca" + "cab"
    assert {len(seconds) for seconds in times.values()} == {2}


@pytest.mark.parametrize("key", SUBJECTS)
def test_methods_differ_by_their_adapter_and_nothing_else(key):
    """With its adapter at zero, every contestant gives the base model's output.

    And in the floor gradients flow through every block.
    """
    tiny = SUBJECTS[key](quick=True)
    expected = tiny.forward(tiny.model, tiny.batch)
    entries = contestants(tiny)
    assert len(entries) == 4 + tiny.goes_around
    for entry in entries.values():
        with torch.no_grad():
            for parameter in entry.adapter:
                parameter.zero_()
        torch.testing.assert_close(entry.forward(tiny.batch), expected, atol=2e-5, rtol=1e-4)
    count = {m: sum(p.numel() for p in entry.adapter) for m, entry in entries.items()}
    assert count["LoRA on q, k, v, out"] == 4 * count["Serial LoRA"] > count[FLOOR] == 0
    floor, seen = entries[FLOOR], []

    def watch(module, inputs, output):
        first = output[0] if isinstance(output, tuple) else output
        first.register_hook(lambda gradient: seen.append(gradient.abs().sum().item()))

    tiny.first_norm(floor.model).register_forward_hook(watch)
    training_step(lambda: floor.forward(tiny.batch), floor.adapter)()
    assert len(seen) == 1 and seen[0] > 0
    assert all(parameter.grad is None for parameter in floor.model.parameters())


def test_steps_have_every_row():
    rows = {row["method"]: row for row in measure_steps("clip", True, "float32", rounds=2)}
    assert list(rows)[:3] == [FLOOR, OWN, "Serial LoRA"] and len(rows) == 6
    assert rows[FLOOR]["ratio to the floor"] == 1
    assert rows["Serial LoRA"]["adapter, MB"] == 4 * (2 * 64 * 4 * 2) / 1e6
    kept = [rows[method]["kept, MB"] for method in (FLOOR, "Serial LoRA", "LoRA on q, k, v, out")]
    assert 0 < kept[0] <= kept[1] < kept[2]


def test_savings_change_no_output_and_no_gradient(monkeypatch):
    """One token too few changes the longest prompt's features, and the difference says so."""
    (row,) = savings.measure_savings(quick=True, rounds=2)
    assert row["largest difference"] < 1e-4

    def cut_too_short(model, tokens):
        shorter = tokens.clone()
        shorter[:, tokens.argmax(dim=-1).max()] = 0
        return encode_prompts(model, shorter)

    monkeypatch.setattr(savings, "encode_prompts", cut_too_short)
    (row,) = savings.measure_savings(quick=True, rounds=2)
    assert row["largest difference"] > 1e-2


def test_what_is_no_training_is_the_rest(monkeypatch):
    def run_lab(*words, **options):
        objective = adapted_objective()
        objective(stream(1).first_part(TrainingConfig(steps=1, lr=1e-3)))  # no training
        time.sleep(0.5)
        train(objective, stream(3), TrainingConfig(steps=3, lr=1e-3))
        return [objective]

    monkeypatch.setattr(shares, "run_lab", run_lab)
    row = shares.measure_share("clip", quick=True)
    assert 0.5 / row["seconds"] <= row["not training"] < 1


def test_the_readme_shows_the_stored_results():
    stored = json.loads(command.RESULTS.read_text(encoding="utf-8"))
    assert command.render(stored) in command.README.read_text(encoding="utf-8")


def test_the_command_measures_stores_and_prints(tmp_path, monkeypatch, capsys):
    """On another machine than the stored results came from, these do not stay beside the new ones."""
    readme, results = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text("<!-- results: begin -->\n<!-- results: end -->\n", encoding="utf-8")
    results.write_text('{"machine": {"date": "", "torch": "1.0"}, "steps": []}', encoding="utf-8")
    monkeypatch.setattr(command, "README", readme)
    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setattr(command, "PARTS", {"switching": lambda quick, rounds: [{"ms": 1234.5}]})
    assert command.main(["--rounds", "2"]) == 0
    stored = json.loads(results.read_text(encoding="utf-8"))
    assert stored.keys() == {"machine", "switching"}
    printed = capsys.readouterr().out.strip()
    assert printed == command.render(stored) and printed in readme.read_text(encoding="utf-8")
    assert "| 1,234 |" in printed and stored["machine"]["torch"] == torch.__version__
