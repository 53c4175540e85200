"""One training at a time on a card that a class shares: a queue, for a card that is not divided.

The class server sets ``SERIAL_LORA_GPU_QUEUE=/srv/class/gpu.lock``, and every training of a notebook
or a lab waits for that file's lock. Where it is not set nobody waits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from filelock import FileLock, Timeout

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.card import release_memory
from serial_lora_course.labs.processes import is_first_process

QUEUE = "SERIAL_LORA_GPU_QUEUE"
PATIENCE = 2  # seconds until a word is said
EVERYBODY = 0o666  # learners have accounts of their own, and each must be able to take the lock


@contextmanager
def turn(device: torch.device) -> Iterator[None]:
    """Have the card alone for the length of the block; its memory is given back afterwards.

    Of a training on several GPUs the first process waits, and the others for it.

    Raises:
        SerialLoRAError: the lock cannot be taken at all.
    """
    place = os.environ.get(QUEUE)
    if not place or device.type == "cpu" or not is_first_process():
        yield
        return
    lock = FileLock(place, mode=EVERYBODY)
    try:
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            print("Somebody else's training is on the GPU; this one begins when that has ended.")
            lock.acquire()
    except OSError as error:
        raise SerialLoRAError(
            f"The queue for the GPU, {place}, cannot be used ({error.strerror}); ask whoever set {QUEUE}."
        ) from error
    try:
        yield
    finally:
        release_memory(device)
        lock.release()
