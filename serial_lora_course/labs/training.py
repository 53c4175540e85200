"""The one training loop of the course: Accelerate's, with seeds, progress and resume.

    objective = CLIPObjective(model, ...)          # a module whose forward(batch) is the loss
    stream = PictureStream(pictures, indices, transform, seed=1, batch_size=32, steps=100)
    history = train(objective, stream, TrainingConfig(steps=100, lr=2e-4), save_to="run.pt")

Only tensors that require gradients are trained, saved and restored: with an injected adapter that
is the adapter. Every example is a function of the seed and its position in the stream alone, so an
interrupted run that goes on, and a run spread over several processes, see the same pictures.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, parse_flag_from_env
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora.optim import lora_plus_groups


@dataclass(frozen=True)
class TrainingConfig:
    """How to train, whatever is trained.

    Attributes:
        steps: optimizer steps.
        lr: learning rate of ``lora_A`` (and of everything, with ``ratio`` 1).
        ratio: learning rate of ``lora_B`` over that of ``lora_A``; LoRA+ uses 20.
        weight_decay: AdamW's.
        schedule: ``cosine`` down to ``min_lr``, or ``constant``.
        min_lr: where the cosine ends.
        clip_norm: largest gradient norm, or None.
        accumulation: batches per optimizer step.
        precision: ``bf16`` (autocast; adapters stay float32) or ``no`` (float32).
        seed: of everything random in the loop.
        save_every: steps between two saves of an interrupted run's state.
    """

    steps: int
    lr: float
    ratio: float = 1.0
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    min_lr: float = 1e-6
    clip_norm: float | None = None
    accumulation: int = 1
    precision: str = "bf16"
    seed: int = 1
    save_every: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1 or self.accumulation < 1:
            raise SerialLoRAError("Training needs at least one step and one batch per step.")
        if not (0 < self.lr < math.inf and 0 < self.ratio < math.inf):
            raise SerialLoRAError("Learning rate and LoRA+ ratio must be above zero and finite.")
        if not 0 <= self.weight_decay < math.inf:
            raise SerialLoRAError("The weight decay must be zero or above, and finite.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise SerialLoRAError("The largest gradient norm must be above zero, or None.")
        if self.save_every < 1:
            raise SerialLoRAError("A run's state can be saved every step or less often.")
        if self.schedule not in ("cosine", "constant"):
            raise SerialLoRAError(
                f"There is no schedule {self.schedule!r}; use cosine or constant."
            )
        if self.precision not in ("bf16", "no"):
            raise SerialLoRAError(f"There is no precision {self.precision!r}; use bf16 or no.")


@dataclass
class TrainingHistory:
    """What a run did: one loss per optimizer step, seconds, and the GPU's peak bytes (0 on CPU)."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory: int = 0


class ExampleStream(Dataset):
    """A fixed sequence of training examples: shuffled rounds over a few of them, end to end.

    Item ``position`` is ``transform(example)``. Round after round goes through all ``indices`` in
    a new order; batches are cut from the sequence one after another.

    Args:
        examples: a map-style data set.
        indices: the examples to use, as positions in ``examples``.
        transform: example -> what the model needs of it; whatever it draws from torch's generator
            is reproducible.
        batch_size: examples per optimizer step over all processes; never more than there are.
        steps: optimizer steps the sequence is meant for.
        collate: list of items -> batch; torch's default stacks tensors of one shape.
    """

    def __init__(
        self,
        examples: Sequence[Any],
        indices: Sequence[int],
        transform: Callable[[Any], Any],
        seed: int,
        batch_size: int,
        steps: int,
        collate: Callable[[list], Any] = default_collate,
    ) -> None:
        if not indices:
            raise SerialLoRAError("There is no training picture; check data set and shots.")
        self.examples, self.indices, self.transform = examples, list(indices), transform
        self.seed, self.steps, self.collate = seed, steps, collate
        self.batch_size = min(batch_size, len(self.indices))
        self._rounds: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return self.batch_size * self.steps

    def __getitem__(self, position: int) -> Any:
        round_number, place = divmod(position, len(self.indices))
        example = self.examples[self.indices[self._order(round_number)[place]]]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + position)
            return self._prepare(example)

    def _prepare(self, example: Any) -> Any:
        return self.transform(example)

    def _order(self, round_number: int) -> list[int]:
        if round_number not in self._rounds:
            generator = torch.Generator().manual_seed(self.seed * 7919 + round_number)
            order = torch.randperm(len(self.indices), generator=generator).tolist()
            self._rounds[round_number] = order
        return self._rounds[round_number]


class PictureStream(ExampleStream):
    """An :class:`ExampleStream` of (picture, label), of which the picture alone is transformed.

    Item ``position`` is ``(transform(picture), label)``.
    """

    def _prepare(self, example: tuple[Any, int]) -> tuple[Tensor, int]:
        picture, label = example
        return self.transform(picture), label


def train(
    objective: nn.Module,
    stream: ExampleStream,
    config: TrainingConfig,
    save_to: str | Path | None = None,
    description: str = "training",
    progress: bool | None = None,
    workers: int = 0,
) -> TrainingHistory:
    """Minimise ``objective(batch)`` over the stream; the objective's model is changed in place.

    Args:
        objective: module whose ``forward(batch)`` returns the mean loss of a batch, a scalar.
        stream: the examples; a batch is what its ``collate`` makes of them.
        save_to: file that keeps the state of an unfinished run. If it exists the run goes on from
            there; when the run is finished the file is removed.
        progress: show a bar; by default in a terminal or notebook only.
        workers: processes that prepare examples.

    Raises:
        SerialLoRAError: nothing to train, a batch that the processes cannot share evenly, a state
            file of another run, or a loss that is no longer a number.
    """
    accelerator = _accelerator(config)
    check_shares(stream.batch_size, config.accumulation)
    torch.manual_seed(config.seed)
    groups = lora_plus_groups(
        objective, lr=config.lr, ratio=config.ratio, weight_decay=config.weight_decay
    )
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, [_schedule(config, group["lr"]) for group in optimizer.param_groups]
    )
    run = _Run(objective, optimizer, scheduler, config, stream, save_to)
    done = run.restore()

    micro_batch = stream.batch_size // config.accumulation
    rest = Subset(stream, range(done * stream.batch_size, config.steps * stream.batch_size))
    # A loader draws a number whenever it starts; not from the generator that dropout draws from.
    loader = DataLoader(
        rest,
        batch_size=micro_batch,
        num_workers=workers,
        generator=torch.Generator(),
        collate_fn=stream.collate,
    )
    objective.train()
    wrapped, optimizer, scheduler, loader = accelerator.prepare(
        objective, optimizer, scheduler, loader
    )
    _forget_peak_memory(accelerator.device)
    watched = progress if accelerator.is_main_process else False
    with (
        _bar(description, config.steps, done, watched) as tick,
        _clean_up(accelerator, wrapped),
        plain_worker_errors(),
    ):
        started = time.monotonic()
        losses = []
        for batch in loader:
            with accelerator.accumulate(wrapped):
                loss = wrapped(batch)
                losses.append(accelerator.reduce(loss.detach(), "mean").item())
                run.refuse_no_number(losses[-1])
                accelerator.backward(loss)
                if accelerator.sync_gradients and config.clip_norm is not None:
                    accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if not accelerator.sync_gradients:
                continue
            run.finish_step(sum(losses) / len(losses), time.monotonic() - started)
            started, losses = time.monotonic(), []
            tick(run.history.losses[-1])
            if accelerator.is_main_process:
                run.save_sometimes()
    run.history.peak_memory = _peak_memory(accelerator.device)
    if accelerator.is_main_process:
        run.forget()
    return run.history


def process_state() -> PartialState:
    """Which process this is, of how many, and its device.

    Accelerate settles this once per process, and without the argument it would settle that
    processes which `accelerate launch` put on the CPU know nothing of each other.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def check_shares(batch_size: int, accumulation: int) -> None:
    """Refuse a batch that the running processes and its parts cannot share evenly."""
    processes = process_state().num_processes
    if batch_size % (processes * accumulation):
        raise SerialLoRAError(
            f"A batch of {batch_size} cannot be shared evenly by {processes} processes and "
            f"{accumulation} parts; choose a batch size that both divide."
        )


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


@contextmanager
def _clean_up(accelerator: Accelerator, wrapped: nn.Module) -> Iterator[None]:
    """However the run ends, leave an objective that can be measured or trained again."""
    try:
        yield
    finally:
        # Accelerate puts its autocast around forward for good; a later run may want float32.
        objective = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        objective.zero_grad(set_to_none=True)
        objective.eval()
        accelerator.free_memory()


def _accelerator(config: TrainingConfig) -> Accelerator:
    # Accelerate keeps one precision per Python process; a notebook may well train in both.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulation,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        step_scheduler_with_optimizer=True,
    )


def _schedule(config: TrainingConfig, lr: float) -> Callable[[int], float]:
    if config.schedule == "constant":
        return lambda step: 1.0
    floor = min(config.min_lr / lr, 1.0)
    return lambda step: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / config.steps))


class _Run:
    """The state of a run and the file it is kept in."""

    def __init__(self, objective, optimizer, scheduler, config, stream, save_to) -> None:
        self.tensors = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        self.optimizer, self.scheduler, self.config = optimizer, scheduler, config
        pictures = (stream.indices, stream.seed, stream.batch_size)
        self.identity = f"{config!r} on {pictures!r}"
        self.file = None if save_to is None else Path(save_to)
        self.history = TrainingHistory()

    def refuse_no_number(self, loss: float) -> None:
        """Asked before the gradients of such a loss reach the adapter."""
        if not math.isfinite(loss):
            raise SerialLoRAError(
                f"The loss became {loss} at step {len(self.history.losses) + 1}; "
                "use a smaller learning rate."
            )

    def finish_step(self, loss: float, seconds: float) -> None:
        self.history.losses.append(loss)
        self.history.seconds += seconds

    def save_sometimes(self) -> None:
        done = len(self.history.losses)
        if self.file is None or done % self.config.save_every or done == self.config.steps:
            return
        state = {
            "run": self.identity,
            "tensors": {name: tensor.detach().cpu() for name, tensor in self.tensors.items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": torch.get_rng_state(),
            "random_on_gpu": _gpu_random_state(),
            "losses": self.history.losses,
            "seconds": self.history.seconds,
        }
        content = io.BytesIO()
        torch.save(state, content)
        try:
            write_whole(self.file, content.getvalue())
        except OSError as error:
            raise SerialLoRAError(
                f"The state of the run cannot be saved to {self.file} ({error}); free some space "
                "or choose another folder. Finished runs are kept."
            ) from error

    def restore(self) -> int:
        """Load the state of an interrupted run, if there is one; the number of steps done."""
        if self.file is None or not self.file.exists():
            return 0
        try:
            state = torch.load(self.file, weights_only=True, map_location="cpu")
        except Exception as error:
            raise SerialLoRAError(
                f"The saved state {self.file} cannot be read; delete it to start this run anew."
            ) from error
        if not self._fits(state):
            raise SerialLoRAError(
                f"The saved state {self.file} belongs to a run with other settings; delete it or "
                "choose another output folder."
            )
        with torch.no_grad():
            for name, tensor in state["tensors"].items():
                self.tensors[name].copy_(tensor)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["random"])
        if state["random_on_gpu"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random_on_gpu"])
        self.history = TrainingHistory(list(state["losses"]), state["seconds"])
        return len(self.history.losses)

    def _fits(self, state: object) -> bool:
        if not isinstance(state, dict) or state.get("run") != self.identity:
            return False
        shapes = {name: tensor.shape for name, tensor in state["tensors"].items()}
        return shapes == {name: tensor.shape for name, tensor in self.tensors.items()}

    def forget(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)


class _bar:
    """A progress bar with the loss; silent where nobody watches."""

    def __init__(self, description: str, steps: int, done: int, wanted: bool | None) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal or console.is_jupyter if wanted is None else wanted
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
            transient=True,
        )
        self.task = self.progress.add_task(description, total=steps, completed=done, loss="")

    def __enter__(self) -> Callable[[float], None]:
        self.progress.start()
        return lambda loss: self.progress.update(self.task, advance=1, loss=f"{loss:.3f}")

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


def _gpu_random_state() -> Tensor | None:
    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
