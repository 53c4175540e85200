"""A grid on Ray's workers, on this machine: equal to one process, whatever dies."""

import math
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs import ray_grid
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.ray_grid import Share, on_ray
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.registry import LABS
from tests.labs.fourth_lab import HalvesLab
from tests.labs.lab_models import what_was_found

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
ASKED = ("halves", ["halves"], ["lora", "serial_lora"], [50, 100], 1)
QUICK = {"min_steps": 3, "precision": "no", "progress": False}


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


@pytest.fixture(scope="module")
def alone():
    """The same runs in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LABS, "halves", ("tests.labs.fourth_lab", ""))
        return run_lab(*ASKED, **QUICK)


def same(records, alone):
    return list(map(what_was_found, records)) == list(map(what_was_found, alone))


def in_the_file(out, alone):
    return sorted(r.key for r in read_records(out)) == sorted(r.key for r in alone)


def test_a_command_gives_the_records_of_one_process_and_runs_nothing_again(
    cluster, out, alone, run, monkeypatch
):
    command = "lab halves --methods lora,serial_lora --percent 50,100 --seeds 1 --min-steps 3"
    words = [*command.split(), "--precision", "no", "--on", "ray", "--out", out]
    code, printed, _ = run(*words)
    assert code == 0 and "already" not in printed
    records = read_records(out)
    assert same(sorted(records, key=lambda r: r.key), sorted(alone, key=lambda r: r.key))
    assert {r.environment["device"] for r in records} == {"CPU, 1 threads"}
    assert "--on" not in records[0].command and "--percent 50,100" in records[0].command
    monkeypatch.setattr(ray_grid, "_connected", pytest.fail)
    code, printed, _ = run(*words)
    assert code == 0 and printed.count("already in the records") == 4
    assert read_records(out) == records


def dies_once_and_fails_once(folder: Path, lab, method, seen, name):
    """In a worker, when a run was measured: the first kills it, and one never gets its record."""
    if name.startswith("halves-50-lora"):
        raise SerialLoRAError("This one fails.")
    try:
        (folder / "killed").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_costs_its_own_run_and_a_failed_run_itself(cluster, out, alone):
    fails = partial(dies_once_and_fails_once, out.parent)
    with pytest.raises(SerialLoRAError, match="1 of 4 runs failed.*This one fails"):
        run_lab(*ASKED, out=out, doing=partial(on_ray, Share()), draw=fails, **QUICK)
    assert (out.parent / "killed").exists() and len(read_records(out)) == 3
    records = run_lab(*ASKED, out=out, **QUICK)  # goes on here
    assert same(records, alone) and in_the_file(out, alone)
    names = sorted(path.name for path in out.parent.iterdir())
    assert names == [".halves.jsonl.lock", "halves.jsonl", "killed"]


def test_a_stopped_grid_goes_on(cluster, out, alone):
    doing, seen = partial(on_ray, Share()), []

    def stops(record, is_new):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_lab(*ASKED, out=out, doing=doing, on_record=stops, **QUICK)
    assert len(read_records(out)) == 1
    told = {"on_record": lambda record, is_new: seen.append(is_new)}
    records = run_lab(*ASKED, out=out, doing=doing, **told, **QUICK)
    assert sorted(seen) == [False, True, True, True]
    assert same(records, alone) and in_the_file(out, alone)


def test_a_worker_with_other_pictures_is_refused(cluster, out, monkeypatch):
    others = HalvesLab.load_data("halves", "tiny", None)
    others = replace(others, train=others.test, test=others.train)
    monkeypatch.setattr(HalvesLab, "load_data", staticmethod(lambda *_: others))  # here alone
    with pytest.raises(SerialLoRAError, match="4 of 4 runs failed.*other pictures of halves"):
        run_lab(*ASKED, out=out, doing=partial(on_ray, Share()), **QUICK)
    assert read_records(out) == []


def test_more_than_any_machine_has_is_refused(cluster, out):
    with pytest.raises(SerialLoRAError, match="no machine"):
        run_lab(*ASKED, out=out, doing=partial(on_ray, Share(cpus=1000.0)), **QUICK)


def test_what_no_cluster_can_give_is_refused():
    assert Share.named("ray", 0.5, None, None) == Share(cpus=0.5)
    assert Share.named("ray:head:6379", 4.0, 0.5, 8.0).address == "head:6379"
    for asked in (("dask", 1.0, None, None), ("ray", 0.0, None, None), ("ray", 1.0, -1.0, None)):
        with pytest.raises(SerialLoRAError):
            Share.named(*asked)
    with pytest.raises(SerialLoRAError, match="memory"):
        Share(memory=math.nan)
