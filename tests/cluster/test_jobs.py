"""What is sent to workers and comes back, without Ray: everything is pickled on both ways."""

import pickle
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs import ray_grid
from serial_lora_course.labs.grid import Labs, run_lab
from serial_lora_course.labs.ray_workers import Share, _bytes_of, _on_bytes
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.registry import LABS
from tests.labs.lab_models import what_was_found

ASKED = ("halves", ["halves"], ["lora", "serial_lora"], [50, 100], 1)
QUICK = {"min_steps": 3, "progress": False}


def sent(thing):
    return pickle.loads(pickle.dumps(thing))


class OneWorker:
    """In this process, with a lab of its own for each job."""

    def __init__(self, source):
        self.labs = Labs(sent(source))

    def __len__(self):
        return 1

    def answers(self, jobs):
        while job := jobs.take():
            try:
                yield job, sent(sent(job.do)(self.labs.open(job.dataset)))
            except SerialLoRAError as error:
                yield job, error


@contextmanager
def workers(share, source):
    yield OneWorker(source)


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    monkeypatch.setitem(LABS, "halves", ("tests.labs.fourth_lab", "Bright halves of pictures."))
    monkeypatch.setattr(ray_grid, "workers", workers)


def on_worker(*arguments, **options):
    return ray_grid.on_ray(Share(), *arguments, **options)


def test_a_grid_gives_the_records_of_one_process_and_runs_nothing_again(tmp_path, monkeypatch):
    out = tmp_path / "halves.jsonl"
    records = run_lab(*ASKED, out=out, doing=on_worker, **QUICK)
    alone = run_lab(*ASKED, **QUICK)
    assert list(map(what_was_found, records)) == list(map(what_was_found, alone))
    assert read_records(out) == records
    monkeypatch.setattr(ray_grid, "workers", pytest.fail)
    assert run_lab(*ASKED, out=out, doing=on_worker, **QUICK) == records
    assert [path.name for path in tmp_path.iterdir()].count("halves.jsonl") == 1
    assert not list(tmp_path.glob("*unfinished*")) and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
@pytest.mark.parametrize("shape", [(), (0, 4), (3, 5)])
def test_a_tensor_comes_back_as_it_was_on_the_very_bytes(dtype, shape):
    tensor = (
        torch.randint(0, 2, shape).to(dtype).mT if len(shape) > 1 else torch.ones((), dtype=dtype)
    )
    stored = _bytes_of(tensor)
    stored[0].flags.writeable = False  # as Ray's are
    again = _on_bytes(stored)
    assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape) and torch.equal(again, tensor)
    assert not tensor.numel() or again.data_ptr() == stored[0].ctypes.data


def fails_at_half(lab, method, seen, name):
    if name.startswith("halves-50-lora"):
        raise SerialLoRAError("This one fails.")


def test_a_run_that_fails_is_told_and_left_and_the_others_are_recorded(tmp_path):
    out = tmp_path / "halves.jsonl"
    with pytest.raises(SerialLoRAError, match="1 of 4 runs failed.*This one fails"):
        run_lab(*ASKED, out=out, doing=on_worker, draw=fails_at_half, **QUICK)
    assert len(read_records(out)) == 3
    assert len(run_lab(*ASKED, out=out, doing=on_worker, **QUICK)) == len(read_records(out)) == 4


def test_a_worker_with_other_pictures_is_refused(tmp_path, monkeypatch):
    class Other(OneWorker):
        def __init__(self, source):
            super().__init__(source)
            data = self.labs.data("halves")
            self.labs.sets["halves"] = replace(data, train=data.test, test=data.train)

    monkeypatch.setattr(ray_grid, "workers", contextmanager(lambda *_: iter([Other(_[1])])))
    out = tmp_path / "halves.jsonl"
    with pytest.raises(SerialLoRAError, match="4 of 4 runs failed.*other pictures of halves"):
        run_lab(*ASKED, out=out, doing=on_worker, **QUICK)
    assert read_records(out) == []
