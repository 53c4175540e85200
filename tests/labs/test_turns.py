"""A queue for the one card of a class: one training at a time, and nobody waits without one."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import torch
from filelock import FileLock, Timeout

from serial_lora_course.labs import training, turns
from tests.labs.lab_models import adapted_objective, stream

GPU = torch.device("cuda")  # never touched: it is only asked for its kind


@pytest.fixture
def queue(tmp_path, monkeypatch):
    place = tmp_path / "gpu.lock"
    monkeypatch.setenv(turns.QUEUE, str(place))
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    return place


def test_a_training_waits_for_another_process_and_says_so(queue, capsys):
    code = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('mine', flush=True); sys.stdin.readline()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(queue)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "mine\n"
    begun = threading.Event()

    def train():
        with turns.turn(GPU):
            begun.set()

    waiting = threading.Thread(target=train)
    waiting.start()
    assert not begun.wait(0.5)
    other.communicate("go on\n")
    waiting.join(10)
    assert begun.is_set()
    assert "Somebody else's training" in capsys.readouterr().out


def test_the_card_is_free_again_however_a_training_ends(queue):
    with pytest.raises(KeyboardInterrupt), turns.turn(GPU):
        with pytest.raises(Timeout):
            FileLock(queue).acquire(timeout=0)
        raise KeyboardInterrupt
    FileLock(queue).acquire(timeout=0)


def test_every_training_takes_its_turn(monkeypatch):
    taken = []

    @contextmanager
    def turn(device):
        taken.append(device.type)
        yield

    monkeypatch.setattr(training, "turn", turn)
    config = training.TrainingConfig(steps=2, lr=1e-3)
    history = training.train(adapted_objective(), stream(2), config, progress=False)
    assert taken == ["cpu"] and len(history.losses) == 2
