"""A grid on a Ray cluster of two nodes, both on this machine: equal to one process, whatever dies."""

import os
import signal
import time
from functools import cached_property, partial
from pathlib import Path

import pytest
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs import ray_grid
from serial_lora_course.labs.grid import Source, run_lab
from serial_lora_course.labs.ray_grid import on_ray
from serial_lora_course.labs.ray_workers import Job, Share, workers
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.registry import LABS
from tests.labs.fourth_lab import HalvesLab
from tests.labs.lab_models import what_was_found

# Ray then keeps to this machine's own address, and reports nothing.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
ray = pytest.importorskip("ray", reason='a cluster needs Ray: pip install ".[cluster]"')
pytestmark = pytest.mark.slow

ASKED = ("halves", ["halves"], ["lora", "serial_lora"], [50, 100], 1)
# On a busy machine `auto` may be settled otherwise the second time, and keys cover what it is.
QUICK = {"min_steps": 3, "precision": "no", "progress": False}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        made.add_node(num_cpus=1, include_dashboard=False)
        made.add_node(num_cpus=1)
    except Exception as error:  # Ray gives its own processes half a minute
        if "timed out during startup" not in str(error):
            raise
        made.shutdown()
        pytest.skip("this machine is too busy for Ray to start")
    ray.init(made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


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
    monkeypatch.setattr(ray_grid, "workers", pytest.fail)
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


def test_a_lost_worker_costs_its_run_and_a_failed_run_itself(cluster, out, alone):
    doing = partial(on_ray, Share())
    with (
        pytest.warns(UserWarning, match="a worker was lost"),
        pytest.raises(SerialLoRAError, match="1 of 4 runs failed.*This one fails"),
    ):
        run_lab(
            *ASKED,
            out=out,
            doing=doing,
            draw=partial(dies_once_and_fails_once, out.parent),
            **QUICK,
        )
    assert (out.parent / "killed").exists() and len(read_records(out)) == 3
    records = run_lab(*ASKED, out=out, **QUICK)  # goes on here
    assert same(records, alone) and in_the_file(out, alone)
    assert sorted(p.name for p in out.parent.iterdir()) == [
        ".halves.jsonl.lock",
        "halves.jsonl",
        "killed",
    ]


class Drawn(HalvesLab):
    """No two processes that prepare it come to the same."""

    prepared = ("noise",)

    @cached_property
    def noise(self):
        generator = torch.Generator()
        generator.seed()
        return torch.randn(200_000, generator=generator).bfloat16()


class Listed(list):
    def take(self):
        return self.pop() if self else None


def what_it_has(folder: Path, workers: int, lab) -> tuple[int, str, str, float]:
    """In a worker, when all have begun: process, machine, kind of its memory, what it works with."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 300
    while len(list(folder.iterdir())) < workers and time.monotonic() < end:
        time.sleep(0.1)
    place = lab.noise.data_ptr()
    for span, kind, *_ in map(str.split, Path("/proc/self/maps").read_text().splitlines()):
        low, high = (int(edge, 16) for edge in span.split("-"))
        if low <= place < high:
            node = ray.get_runtime_context().get_node_id()
            return os.getpid(), node, kind, lab.noise.float().sum().item()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's maps of memory")
def test_a_machine_prepares_once_and_its_workers_share_the_memory(cluster, tmp_path):
    jobs = Listed([Job("halves", partial(what_it_has, tmp_path, 3))] * 3)
    source = Source(Drawn, HalvesLab.configs["tiny"], "tiny")
    with workers(Share(cpus=0.5, gpus=0.0), source) as found:
        processes, nodes, kinds, values = zip(*(a for _, a in found.answers(jobs)), strict=True)
    assert len(set(processes)) == 3 > len(set(nodes)) == len(set(values))
    assert {kind[-1] for kind in kinds} == {"s"}  # shared


def test_a_stopped_grid_goes_on_and_outlives_a_node(cluster, out, alone):
    doing = partial(on_ray, Share())

    def stops(record, is_new):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_lab(*ASKED, out=out, doing=doing, on_record=stops, **QUICK)
    assert len(read_records(out)) == 1
    nodes, seen = list(cluster.worker_nodes), []

    def unplugs(record, is_new):
        seen.append(is_new)
        if sum(seen) == 1:
            cluster.remove_node(nodes.pop())

    records = run_lab(*ASKED, out=out, doing=doing, on_record=unplugs, **QUICK)
    assert sorted(seen) == [False, True, True, True] and not nodes
    assert same(records, alone) and in_the_file(out, alone)
