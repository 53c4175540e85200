"""Processes, devices and precision, as Accelerate settles them; needed to train on several GPUs.

Nothing here is needed to understand the training loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, parse_flag_from_env
from torch import nn
from tqdm.auto import tqdm

from serial_lora.errors import SerialLoRAError
from serial_lora_course.threads import share_of_cores


def process_state() -> PartialState:
    """Which process this is, of how many, and its device.

    Accelerate settles this once per process, and without the argument it would settle that
    processes which `accelerate launch` put on the CPU know nothing of each other.

    Raises:
        SerialLoRAError: the environment speaks of several processes, and not of how they meet.
    """
    try:
        return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    except ValueError as error:
        raise SerialLoRAError(
            f"WORLD_SIZE says that there are several processes, and not how they meet ({error}); "
            "unset it, or start them with accelerate launch."
        ) from error


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes: always, unless there are several."""
    return process_state().is_main_process


def loader_workers(scale: str) -> int:
    """Processes that prepare pictures: one for each core that training leaves, up to 16.

    The tiny pictures are prepared faster than they are sent.
    """
    if scale == "tiny":
        return 0
    cores = share_of_cores() or os.cpu_count() or 1
    return min(16, max(1, cores // process_state().num_processes - 1))


def require_even_shares(batch_size: int) -> None:
    """Refuse a batch that the running processes cannot share evenly."""
    processes = process_state().num_processes
    if batch_size % processes:
        raise SerialLoRAError(
            f"A batch of {batch_size} cannot be shared evenly by {processes} processes; choose a "
            "batch size that they divide."
        )


def equal_parts(batch_size: int, accumulation: int) -> int:
    """In how many parts a batch is computed: as many as asked for, or the next number that divides it.

    Raises:
        SerialLoRAError: as :func:`require_even_shares`.
    """
    require_even_shares(batch_size)
    share = batch_size // process_state().num_processes
    wanted = min(accumulation, share)
    return next(parts for parts in range(wanted, share + 1) if share % parts == 0)


def make_accelerator(precision: str, accumulation: int) -> Accelerator:
    """Accelerate's view of the machine, for one training."""
    # Accelerate keeps one precision per Python process; a notebook may well train in both.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=accumulation,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=True,
    )


@contextmanager
def clean_up(accelerator: Accelerator, wrapped: nn.Module) -> Iterator[None]:
    """However a training ends, leave an objective that can be measured or trained again."""
    try:
        with plain_worker_errors():
            yield
    finally:
        # Accelerate puts its autocast around forward for good; a later run may want float32.
        objective = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        objective.zero_grad(set_to_none=True)
        objective.eval()
        if accelerator.device.type != "cpu":
            accelerator.free_memory()  # waits for Python's collector, which a CPU need not


@contextmanager
def plain_worker_errors() -> Iterator[None]:
    """Turn an error out of a loader's worker, which arrives with its traceback, into one sentence.

    Torch raises the error's own type again, with the worker's whole traceback as its text.
    """
    try:
        yield
    except SerialLoRAError as error:
        sentence = str(error).rstrip().rpartition("SerialLoRAError: ")[2]
        if sentence == str(error):
            raise
        raise SerialLoRAError(sentence) from None


def progress_bar(what: str, total: int, done: int = 0, shown: bool | None = None) -> tqdm:
    """Of so much, so much of it done; in the first process only.

    Args:
        shown: None for "in a terminal only".
    """
    hidden = (None if shown is None else not shown) if is_first_process() else True
    return tqdm(desc=what, total=total, initial=done, disable=hidden, leave=False)


def forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes on the GPU at most since they were forgotten; 0 on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
