"""On a full disk nothing is reported as done, and nothing that was there is lost."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from serial_lora import SerialLoRAConfig, inject, save_adapter
from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import write_json
from serial_lora_course.labs.records import append_record
from serial_lora_course.labs.resume import SavedState, TrainingHistory
from serial_lora_course.plots.style import save_figure
from tests.labs.test_records import RECORD
from tests.library.tiny_models import TINY

resource = pytest.importorskip("resource")  # Windows has no such limits


@contextmanager
def full_after(size: int):
    """In the block, the system writes so many bytes of a file and then refuses."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def adapter(path, version):
    model = TINY["timm"].build()
    torch.manual_seed(version)
    save_adapter(inject(model, SerialLoRAConfig(rank=2)), path)


def training_state(path, version):
    objective = torch.nn.Linear(100, version)
    SavedState(objective, torch.optim.AdamW(objective.parameters()), "run", path).save(
        TrainingHistory()
    )


def drawing(path, version):
    figure = Figure()
    figure.subplots().imshow(np.random.default_rng(version).random((40, 40)))
    save_figure(figure, path)


WRITERS = {
    "r.jsonl": lambda path, version: append_record(path, replace(RECORD, seed=version)),
    "adapter.safetensors": adapter,
    "state.pt": training_state,
    "run.png": drawing,
    "run.svg": drawing,
    "card.json": lambda path, version: write_json(path, [version] * 100),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_and_the_old_files_stay(tmp_path, name):
    def files():
        found = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in found if path.suffix != ".lock"}

    WRITERS[name](tmp_path / name, 1)
    before = files()
    for size in (0, 100, max(map(len, before.values())) // 2):
        with full_after(size), pytest.raises((SerialLoRAError, OSError)):
            WRITERS[name](tmp_path / name, 2)
        assert files() == before
    WRITERS[name](tmp_path / name, 2)
    assert files().keys() == before.keys() and files() != before
