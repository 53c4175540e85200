"""A queue for the one card of a class: one training at a time, and nobody waits without one."""

import subprocess
import sys
import threading

import pytest
import torch

from serial_lora_course.labs import turns

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
