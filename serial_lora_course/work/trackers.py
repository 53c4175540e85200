"""Where the rounds of a training are logged: nowhere, TensorBoard's files, or trackio's database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from serial_lora.errors import SerialLoRAError, require_choice
from serial_lora_course.files import expanded
from serial_lora_course.work.best import Measured
from serial_lora_course.work.folder import Job

TRACKERS = ("none", "tensorboard", "trackio")


@contextmanager
def tracker(kind: str, job: Job) -> Iterator[Callable[[int, Measured], object]]:
    """A function of step and measurements that logs, for the length of the block.

    Raises:
        SerialLoRAError: no such tracker, or it is not installed.
    """
    require_choice("tracker", kind, TRACKERS)
    if kind != "none" and find_spec(kind) is None:
        raise SerialLoRAError(f"{kind} is not installed here: `pip install {kind}` brings it.")
    if kind == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter  # optional, and slow to load

        folder = expanded(job.out) / "tensorboard"
        with ExitStack() as ended:
            # Made with the first round, since `fit_folder` wants a folder without other files.
            writer = cache(lambda: ended.enter_context(SummaryWriter(folder)))
            yield lambda step, measured: [
                writer().add_scalar(f"validation/{name}", value, step)
                for name, value in measured.items()
            ]
    elif kind == "trackio":
        import trackio  # optional

        trackio.init(project="serial-lora", name=Path(job.out).name, config=asdict(job))
        try:
            yield lambda step, measured: trackio.log(measured, step=step)
        finally:
            trackio.finish()
    else:
        yield lambda step, measured: None
