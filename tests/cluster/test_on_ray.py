"""A grid on Ray's workers, on this machine: equal to one process, whatever dies."""

import os
from dataclasses import replace
from functools import partial

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs import ray_grid
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.ray_grid import on_ray
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.registry import LABS
from tests.labs.fourth_lab import HalvesLab, dies_once_and_fails_once
from tests.labs.lab_models import what_was_found

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
ASKED = ("halves", ["halves"], ["lora", "serial_lora"], [50, 100], 1)
ONE = ("halves", ["halves"], ["lora"], [50], 1)
QUICK = {"min_steps": 3, "precision": "no", "progress": False}
DOING = {"doing": partial(on_ray, None, 1.0, None)}


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason='a cluster needs Ray: pip install ".[cluster]"')
    some = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init("local", num_cpus=2, **some)
    except Exception as error:  # Ray gives its own processes half a minute
        if "timed out" not in str(error):
            raise
        pytest.skip("this machine is too busy for Ray to start")
    yield ray
    ray.shutdown()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(LABS, "halves", ("tests.labs.fourth_lab", "Bright halves of pictures."))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "halves.jsonl"


def found(records):
    return list(map(what_was_found, records))


def test_a_killed_worker_costs_its_own_run_and_a_failed_run_itself(cluster, out, run, monkeypatch):
    fails = partial(dies_once_and_fails_once, out.parent)
    with pytest.raises(SerialLoRAError, match="1 of 4 runs failed.*This one fails"):
        run_lab(*ASKED, out=out, draw=fails, **DOING, **QUICK)
    assert (out.parent / "killed").exists() and len(read_records(out)) == 3

    command = "lab halves --methods lora,serial_lora --percent 50,100 --seeds 1 --min-steps 3"
    words = [*command.split(), "--precision", "no", "--on", "ray", "--out", out]
    code, printed, _ = run(*words)  # goes on
    assert code == 0 and printed.count("already in the records") == 3
    records, alone = read_records(out), run_lab(*ASKED, **QUICK)
    assert len(records) == len(alone)
    assert {r.key: r for r in found(records)} == {r.key: r for r in found(alone)}
    assert records[0].environment["device"] == "CPU, 1 threads"
    assert "--on" not in records[-1].command and "--percent 50,100" in records[-1].command
    names = sorted(path.name for path in out.parent.iterdir())
    assert names == [".halves.jsonl.lock", "halves.jsonl", "killed"]

    monkeypatch.setattr(ray_grid, "_connected", pytest.fail)
    code, printed, _ = run(*words)
    assert code == 0 and printed.count("already in the records") == 4
    assert read_records(out) == records


def test_a_worker_with_other_pictures_is_refused(cluster, out, monkeypatch):
    others = HalvesLab.load_data("halves", "tiny")
    others = replace(others, train=others.test, test=others.train)
    monkeypatch.setattr(HalvesLab, "load_data", staticmethod(lambda *_: others))  # here alone
    with pytest.raises(SerialLoRAError, match="1 of 1 runs failed.*other pictures of halves"):
        run_lab(*ONE, out=out, **DOING, **QUICK)
    assert read_records(out) == []
