"""The one training loop of the course: AdamW, with seeds, accumulation, progress and resume.

    objective = CLIPObjective(model, ...)          # a module whose forward(batch) is the loss
    stream = ExampleStream(examples, indices, transform, seed=1, batch_size=32, steps=100)
    history = train(objective, stream, TrainingConfig(steps=100, lr=2e-4), save_to=Path("run.pt"))

Only tensors that require gradients are trained, saved and restored: with an injected adapter that
is the adapter. Every example is a function of the seed and its position in the stream alone, so an
interrupted run that goes on sees the same pictures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate
from tqdm.auto import tqdm

from serial_lora.errors import SerialLoRAError, require_choice, require_number
from serial_lora.parameters import lora_plus_groups
from serial_lora.state import records
from serial_lora_course.labs.device import PRECISIONS, autocast, settle_precision, this_device, turn
from serial_lora_course.labs.memory import saved_activations
from serial_lora_course.labs.resume import SavedState, TrainingHistory

LEFT_FREE = 0.125  # of the machine's memory, by pictures that are kept


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
        accumulation: parts that a batch is computed in, or somewhat more where they do not divide it.
        precision: ``bf16`` (autocast; adapters stay float32), ``no`` (float32), or ``auto`` for what
            the device is good at (:mod:`serial_lora_course.labs.device`).
        seed: of everything random in the loop.
        save_every: seconds of training between two saves of an interrupted run's state; 0 saves
            it after every step.
    """

    steps: int
    lr: float
    ratio: float = 1.0
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    min_lr: float = 1e-6
    clip_norm: float | None = None
    accumulation: int = 1
    precision: str = "auto"
    seed: int = 1
    save_every: float = 30.0

    def __post_init__(self) -> None:
        require_number("steps", self.steps, whole=True, least=1, below=10**9)
        require_number("accumulation", self.accumulation, whole=True, least=1)
        require_number("lr", self.lr, above=0)
        require_number("ratio", self.ratio, above=0)
        require_number("weight_decay", self.weight_decay, least=0)
        require_number("save_every", self.save_every, least=0)
        if self.clip_norm is not None:
            require_number("clip_norm", self.clip_norm, above=0)
        require_choice("schedule", self.schedule, ("cosine", "constant"))
        require_choice("precision", self.precision, PRECISIONS)


def train(
    objective: nn.Module,
    stream: ExampleStream,
    config: TrainingConfig,
    save_to: Path | None = None,
    description: str = "training",
    progress: bool | None = None,
    workers: int = 0,
    after_step: Callable[[int], bool] | None = None,
) -> TrainingHistory:
    """Minimise ``objective(batch)`` over the stream; the objective's model is changed in place.

    Args:
        objective: module whose ``forward(batch)`` returns the mean loss of a batch, a scalar; its
            ``checkpointed``, if it has that, are the blocks under gradient checkpointing.
        stream: the examples; a batch is what its ``collate`` makes of them.
        save_to: file that keeps the state. If it exists the run goes on from there. It stays when
            the run is finished, until its owner has kept what the run was for and deletes it.
        progress: show a bar; by default in a terminal only.
        workers: processes that prepare examples.
        after_step: called with the number of steps done, and at once for those of a saved state; where
            it says True, training ends there.

    Raises:
        SerialLoRAError: nothing to train, a state file of another run, or a loss that is no longer a
            number.
    """
    device, precision = this_device(), settle_precision(config.precision, objective)
    torch.manual_seed(config.seed)
    objective.to(device)
    optimizer = torch.optim.AdamW(_groups(objective, config))
    rates = [group["lr"] for group in optimizer.param_groups]
    state = SavedState(objective, optimizer, f"{config!r} on {stream.identity!r}", save_to)
    history = state.restore()
    parts = stream.parts(config.accumulation)
    batches = stream.batches(len(history.losses), parts, workers)

    objective.train()
    bar = progress_bar(description, config.steps, len(history.losses), progress)
    try:
        with turn(device), bar, plain_worker_errors():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            started, losses, saved = time.monotonic(), [], history.seconds
            if history.losses and after_step is not None and after_step(len(history.losses)):
                return history
            for batch in batches:
                known = history.activation_bytes
                counted = nullcontext([known]) if known else saved_activations(objective)
                with autocast(device, precision), counted as kept:
                    loss = objective(send_to_device(batch, device))
                history.activation_bytes = kept[0]
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):  # before such gradients reach the adapter
                    raise SerialLoRAError(
                        f"The loss became {losses[-1]} at step {len(history.losses) + 1}; use a "
                        "smaller learning rate."
                    )
                (loss.float() / parts).backward()
                if len(losses) < parts:
                    continue
                if config.clip_norm is not None:
                    nn.utils.clip_grad_norm_(objective.parameters(), config.clip_norm)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = learning_rate(config, rate, len(history.losses))
                optimizer.step()
                optimizer.zero_grad()

                history.losses.append(sum(losses) / parts)
                history.seconds += time.monotonic() - started
                started, losses, done = time.monotonic(), [], len(history.losses)
                if device.type == "cuda":
                    peak = torch.cuda.max_memory_allocated(device)
                    history.peak_memory = max(history.peak_memory, peak)
                bar.set_postfix_str(f"loss {history.losses[-1]:.3f}", refresh=False)
                bar.update()
                if history.seconds >= saved + config.save_every or done == config.steps:
                    saved = history.seconds
                    state.save(history)
                if after_step is not None and after_step(done):
                    state.save(history)
                    break
    finally:  # an objective that can be measured or trained again
        objective.zero_grad(set_to_none=True)
        objective.eval()
    return history


def learning_rate(config: TrainingConfig, rate: float, step: int) -> float:
    """Of a group whose rate is the given one, at a step counted from 0."""
    if config.schedule == "constant":
        return rate
    floor = min(config.min_lr / rate, 1.0)
    return rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def _groups(objective: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """LoRA's A and B apart; a part of a model that learns without `inject` is one group."""
    parameters = list(objective.parameters())
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if not records(objective) and 0 < len(learning) < len(parameters):
        return [{"params": learning, "lr": config.lr, "weight_decay": config.weight_decay}]
    return lora_plus_groups(
        objective, lr=config.lr, ratio=config.ratio, weight_decay=config.weight_decay
    )


def progress_bar(what: str, total: int, done: int = 0, shown: bool | None = None) -> tqdm:
    """Of so much, so much of it done; where ``shown`` is None, in a terminal only."""
    hidden = None if shown is None else not shown
    return tqdm(desc=what, total=total, initial=done, disable=hidden, leave=False)


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


# ------------------------------------------------------------------------------------- examples


class ExampleStream(Dataset):
    """A fixed sequence of training examples: shuffled rounds over a few of them, end to end.

    Item ``position`` is ``transform(example)``. Round after round goes through all ``indices`` in
    a new order; batches are cut from the sequence one after another.

    Args:
        examples: a map-style data set.
        indices: the examples to use, as positions in ``examples``.
        transform: example -> what the model needs of it; whatever it draws from torch's generator
            is reproducible.
        batch_size: examples per optimizer step; never more than there are.
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
        self._round, self._places = -1, []

    @property
    def identity(self) -> tuple:
        """What decides which examples come when."""
        return self.indices, self.seed, self.batch_size

    def parts(self, wanted: int) -> int:
        """In how many a batch is computed: as many as wanted, or the next number that divides it."""
        most = self.batch_size
        return next(n for n in range(min(wanted, most), most + 1) if most % n == 0)

    def batches(self, done: int = 0, parts: int = 1, workers: int = 0) -> DataLoader:
        """The batches, or equal parts of them, that are left when so many steps are done."""
        left = range(done * self.batch_size, len(self))
        # A loader draws a number whenever it starts; not from the generator that dropout draws from.
        return DataLoader(
            Subset(self, left),
            batch_size=self.batch_size // parts,
            num_workers=workers,
            generator=torch.Generator(),
            collate_fn=self.collate,
        )

    def __len__(self) -> int:
        return self.batch_size * self.steps

    def __getitem__(self, position: int) -> Any:
        round_number, place = divmod(position, len(self.indices))
        example = self.examples[self.indices[self._order(round_number)[place]]]
        with torch.random.fork_rng(devices=()):  # a GPU's generator drives the model's dropout
            torch.default_generator.manual_seed(self.seed * 1_000_003 + position)
            return self.transform(example)

    def _order(self, round_number: int) -> list[int]:
        if self._round != round_number:
            generator = torch.Generator().manual_seed(self.seed * 7919 + round_number)
            self._places = torch.randperm(len(self.indices), generator=generator).tolist()
            self._round = round_number
        return self._places


class Opened(Dataset):
    """A map-style data set whose items are made once, and kept while memory is left."""

    def __init__(self, examples: Sequence[Any]) -> None:
        self.examples, self.kept = examples, {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        if index in self.kept:
            return self.kept[index]
        item, memory = self.examples[index], psutil.virtual_memory()
        if memory.available > LEFT_FREE * memory.total:
            self.kept[index] = item
        return item


@dataclass(frozen=True)
class Made(Dataset):
    """A map-style data set, each item through a transform."""

    examples: Sequence[Any]
    transform: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.examples[index])


@dataclass(frozen=True)
class OnPicture:
    """A transform of (picture, label) that changes the picture alone."""

    transform: Callable[[Any], Any]

    def __call__(self, example: tuple[Any, int]) -> tuple[Any, int]:
        picture, label = example
        return self.transform(picture), label


def batches_of(
    examples: Sequence[Any],
    transform: Callable[[Any], Any],
    batch_size: int,
    workers: int = 0,
    collate: Callable[[list], Any] = default_collate,
) -> Iterator[Any]:
    """All examples in order, each through a transform; an error of a worker is one sentence."""
    made = Made(examples, transform)
    with plain_worker_errors():
        yield from DataLoader(made, batch_size, num_workers=workers, collate_fn=collate)
