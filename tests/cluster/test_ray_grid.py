"""What is sent to workers and comes back, without Ray."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs import ray_grid
from serial_lora_course.labs.grid import Labs, run_lab
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.registry import LABS
from tests.cluster.pretend_ray import PretendRay
from tests.labs.lab_models import what_was_found

ASKED = ("halves", ["halves"], ["lora", "serial_lora"], [50, 100], 1)
QUICK = {"min_steps": 3, "progress": False}


@pytest.fixture
def on_ray(monkeypatch):
    """Runs on workers that are none; the answers of so many of them are lost."""
    monkeypatch.setitem(LABS, "halves", ("tests.labs.fourth_lab", "Bright halves of pictures."))

    def doing(*arguments, lost=0, cpus=1.0, **options):
        ray = PretendRay(lost)

        @contextmanager
        def connected(address):
            yield ray
            assert ray.killed in (1, 2)  # no more than there are runs

        monkeypatch.setattr(ray_grid, "_connected", connected)
        yield from ray_grid.on_ray(ray_grid.Share(cpus=cpus), *arguments, **options)

    return doing


def test_a_grid_gives_the_records_of_one_process_and_runs_nothing_again(
    on_ray, tmp_path, monkeypatch
):
    out = tmp_path / "halves.jsonl"
    records = run_lab(*ASKED, out=out, doing=on_ray, **QUICK)
    alone = run_lab(*ASKED, **QUICK)
    assert list(map(what_was_found, records)) == list(map(what_was_found, alone))
    assert {r.key for r in read_records(out)} == {r.key for r in records}
    monkeypatch.setattr(ray_grid, "_start", pytest.fail)
    assert run_lab(*ASKED, out=out, doing=on_ray, **QUICK) == records
    assert not list(tmp_path.glob("*unfinished*")) and len(list(tmp_path.iterdir())) == 2


def fails_at_half(lab, method, seen, name):
    if name.startswith("halves-50-lora"):
        raise SerialLoRAError("This one fails.")


def test_a_run_that_fails_or_is_lost_is_told_and_the_others_are_recorded(on_ray, tmp_path):
    out = tmp_path / "halves.jsonl"
    with pytest.raises(SerialLoRAError, match="1 of 4 runs failed.*This one fails"):
        run_lab(*ASKED, out=out, doing=on_ray, draw=fails_at_half, **QUICK)
    assert len(read_records(out)) == 3
    with pytest.raises(SerialLoRAError, match="1 of 4 runs failed.*workers were lost"):
        run_lab(*ASKED, out=out, doing=partial(on_ray, lost=1), **QUICK)
    assert len(run_lab(*ASKED, out=out, doing=on_ray, **QUICK)) == len(read_records(out)) == 4


def test_a_worker_with_other_pictures_is_refused(on_ray, tmp_path, monkeypatch):
    class Other(Labs):
        def data(self, name):
            data = super().data(name)
            return replace(data, train=data.test, test=data.train)

    monkeypatch.setattr(ray_grid, "Labs", Other)
    out = tmp_path / "halves.jsonl"
    with pytest.raises(SerialLoRAError, match="4 of 4 runs failed.*other pictures of halves"):
        run_lab(*ASKED, out=out, doing=on_ray, **QUICK)
    assert read_records(out) == []


def test_a_share_that_no_machine_has_is_refused(on_ray, tmp_path):
    with pytest.raises(SerialLoRAError, match="no machine"):
        run_lab(*ASKED, out=tmp_path / "r", doing=partial(on_ray, cpus=1000.0), **QUICK)
