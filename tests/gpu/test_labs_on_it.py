"""The pretended GPU refuses what a GPU refuses, and the labs train and look on it at the paper's size."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import pytest
import torch
from torch import nn
from torch.utils import backend_registration

from serial_lora_course.labs.device import GIB
from serial_lora_course.labs.fit import CHOICES, LOOKS
from tests.gpu.__main__ import COMPUTED, PAGE, SETTINGS, UNSEEN, label, page
from tests.gpu.labs import METHODS, looked, step
from tests.gpu.pretended import DEVICE, Refused, Taken, pretended_gpu

ROWS = json.loads(COMPUTED.read_text("utf-8"))


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable]:
    """Does work in a process of its own, as the device stays for the life of one."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch has no dummy device that could be taken for a GPU")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield lambda work, *given, **named: pool.submit(work, *given, **named).result()


# -------------------------------------------------------------------------------------- the device


def two_layers(n: int, d: int, h: int) -> tuple[Taken, int]:
    with pretended_gpu() as gpu:
        layers = nn.Linear(d, h, bias=False), nn.ReLU(), nn.Linear(h, d, bias=False)
        model, x = nn.Sequential(*layers).to(DEVICE), torch.empty(n, d).to(DEVICE)
        gpu.begin()
        loss = model(x).sum()
        gpu.taken.kept, forward = gpu.live - gpu.taken.before, gpu.taken.peak
        loss.backward()
        return gpu.taken, forward


def test_memory_is_what_one_counts_by_hand(elsewhere):
    n, d, h = 5, 7, 300
    taken, forward = elsewhere(two_layers, n, d, h)
    assert taken.before == 4 * (2 * d * h + n * d)
    assert taken.kept == 4 * (n * h + 1)  # ReLU's result, and the loss
    assert forward == taken.before + 4 * 2 * n * h  # ReLU's input beside its result
    assert taken.peak >= taken.before + 4 * 2 * d * h  # the gradients


@contextmanager
def tokens_left_behind(objective: nn.Module) -> Iterator[None]:
    tokens = objective.tokens
    del objective.tokens
    objective.tokens = tokens  # no buffer any more, so `.to(device)` passes it by
    yield


def test_a_tensor_on_the_wrong_device_is_refused(elsewhere):
    with pytest.raises(Refused, match="of tensors on cpu and pretended"):
        elsewhere(step, "clip", spoil=tokens_left_behind, model_name="tiny-clip", batch_size=2)


# ---------------------------------------------------------------------------------------- the labs

CASES = [
    pytest.param(
        *(lab, method, changes),
        marks=[pytest.mark.slow] * (lab == "sd3" or method != "Serial LoRA" or number != 1),
        id=f"{lab}, {method}, {label(changes)}",
    )
    for lab, settings in SETTINGS.items()
    for number, changes in enumerate(settings)
    for method in METHODS
]


@pytest.mark.parametrize(("lab", "method", "changes"), CASES)
def test_a_lab_trains(elsewhere, lab, method, changes):
    """Nothing is refused, every pair gets a gradient, and it takes what the tables say."""
    taken = elsewhere(step, lab, method, **changes)
    assert taken.silent == 0
    known = ROWS[lab]["steps"][label(changes)][method]
    assert taken.peak == pytest.approx(known["peak"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("lab", SETTINGS)
def test_a_lab_looks(elsewhere, lab):
    found = {name: taken.peak for name, taken in elsewhere(looked, lab).items()}
    known = {name: row["peak"] for name, row in ROWS[lab]["looks"].items()}
    assert found == pytest.approx(known, rel=0.02)


@pytest.mark.parametrize("lab", CHOICES)
def test_the_table_of_what_fits_says_what_was_computed(lab):
    for changes, needed in CHOICES[lab]:
        peak = ROWS[lab]["steps"][label(changes)]["LoRA"]["peak"] / GIB
        assert needed == pytest.approx(peak + UNSEEN, abs=0.1), changes
    looks = ROWS[lab]["looks"].items()  # text encoders that do not fit read on the CPU
    peak = max(row["peak"] for what, row in looks if not what.startswith("read")) / GIB
    assert LOOKS[lab] == pytest.approx(peak + UNSEEN, abs=0.1)


def test_the_page_shows_what_was_computed():
    assert PAGE.read_text("utf-8") == page(ROWS)
