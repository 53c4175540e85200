"""The one training loop of the course: Accelerate's, with seeds, progress and resume.

    objective = CLIPObjective(model, ...)          # a module whose forward(batch) is the loss
    stream = ExampleStream(examples, indices, transform, seed=1, batch_size=32, steps=100)
    history = train(objective, stream, TrainingConfig(steps=100, lr=2e-4), save_to="run.pt")

Only tensors that require gradients are trained, saved and restored: with an injected adapter that
is the adapter. Every example is a function of the seed and its position in the stream alone, so an
interrupted run that goes on, and a run spread over several processes, see the same pictures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from serial_lora.errors import SerialLoRAError, require_choice, require_number
from serial_lora.parameters import lora_plus_groups
from serial_lora.records import records
from serial_lora_course.labs.memory import saved_activations
from serial_lora_course.labs.precision import PRECISIONS, settle_precision
from serial_lora_course.labs.processes import (
    clean_up,
    equal_parts,
    forget_peak_memory,
    make_accelerator,
    peak_memory,
    plain_worker_errors,
    process_state,
    progress_bar,
)
from serial_lora_course.labs.resume import SavedState, TrainingHistory
from serial_lora_course.labs.turns import turn

MOST_STEPS = 10**9


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
            the device is good at (:mod:`serial_lora_course.labs.precision`).
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
        require_number("steps", self.steps, whole=True, least=1, below=MOST_STEPS)
        require_number("accumulation", self.accumulation, whole=True, least=1)
        if not (0 < self.lr < math.inf and 0 < self.ratio < math.inf):
            raise SerialLoRAError("Learning rate and LoRA+ ratio must be above zero and finite.")
        if not 0 <= self.weight_decay < math.inf:
            raise SerialLoRAError("The weight decay must be zero or above, and finite.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise SerialLoRAError("The largest gradient norm must be above zero, or None.")
        if not self.save_every >= 0:
            raise SerialLoRAError("The seconds between two saves of a run's state are 0 or more.")
        require_choice("schedule", self.schedule, ("cosine", "constant"))
        require_choice("precision", self.precision, PRECISIONS)


def train(
    objective: nn.Module,
    stream: ExampleStream,
    config: TrainingConfig,
    save_to: str | Path | None = None,
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
        SerialLoRAError: nothing to train, a batch that the processes cannot share evenly, a state
            file of another run, or a loss that is no longer a number.
    """
    parts = equal_parts(stream.batch_size, config.accumulation)
    config = replace(config, accumulation=parts)
    precision = settle_precision(config.precision, objective)
    accelerator = make_accelerator(precision, config.accumulation)
    torch.manual_seed(config.seed)
    groups = _groups(objective, config)
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    scheduler = LambdaLR(optimizer, [_factor(config, group["lr"]) for group in groups])

    parts = {"optimizer": optimizer, "scheduler": scheduler}
    state = SavedState(objective, parts, f"{config!r} on {stream.identity!r}", save_to)
    history = state.restore()
    history.precision = precision
    batches = stream.batches(len(history.losses), config, workers)
    wrapped, optimizer, scheduler, batches = accelerator.prepare(
        objective, optimizer, scheduler, batches
    )
    first = accelerator.is_main_process
    bar = progress_bar(description, config.steps, len(history.losses), progress)

    checkpointed = getattr(objective, "checkpointed", ())
    objective.train()
    forget_peak_memory(accelerator.device)
    with turn(accelerator.device), bar, clean_up(accelerator, wrapped):
        started, losses, saved = time.monotonic(), [], history.seconds
        computed = time.process_time()
        if history.losses and after_step is not None and after_step(len(history.losses)):
            return history
        for batch in batches:
            with accelerator.accumulate(wrapped):
                if history.activation_bytes:
                    loss = wrapped(batch)
                else:
                    with saved_activations(objective, checkpointed) as kept:
                        loss = wrapped(batch)
                    history.activation_bytes = kept[0]
                losses.append(accelerator.reduce(loss.detach(), "mean").item())
                _refuse_no_number(losses[-1], len(history.losses) + 1)
                accelerator.backward(loss)
                if accelerator.sync_gradients and config.clip_norm is not None:
                    accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if not accelerator.sync_gradients:
                continue  # a part of a batch; the optimizer waits for the others

            history.losses.append(sum(losses) / len(losses))
            history.seconds += time.monotonic() - started
            history.processor_seconds += time.process_time() - computed
            started, computed, losses = time.monotonic(), time.process_time(), []
            history.peak_memory = max(history.peak_memory, peak_memory(accelerator.device))
            bar.set_postfix_str(f"loss {history.losses[-1]:.3f}", refresh=False)
            bar.update()
            due = history.seconds >= saved + config.save_every
            if first and (due or len(history.losses) == config.steps):
                saved = history.seconds
                state.save(history)
            if after_step is not None and after_step(len(history.losses)):
                if first:
                    state.save(history)
                break
    return history


def _groups(objective: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """LoRA's A and B apart; a part of a model that learns without `inject` is one group."""
    parameters = list(objective.parameters())
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if not records(objective) and 0 < len(learning) < len(parameters):
        return [{"params": learning, "lr": config.lr, "weight_decay": config.weight_decay}]
    return lora_plus_groups(
        objective, lr=config.lr, ratio=config.ratio, weight_decay=config.weight_decay
    )


def _factor(config: TrainingConfig, lr: float) -> Callable[[int], float]:
    """Step -> what the learning rate is multiplied by."""
    if config.schedule == "constant":
        return lambda step: 1.0
    floor = min(config.min_lr / lr, 1.0)
    return lambda step: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _refuse_no_number(loss: float, step: int) -> None:
    """Asked before the gradients of such a loss reach the adapter."""
    if not math.isfinite(loss):
        raise SerialLoRAError(
            f"The loss became {loss} at step {step}; use a smaller learning rate."
        )


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

    @property
    def identity(self) -> tuple:
        """What decides which examples come when."""
        return self.indices, self.seed, self.batch_size

    def batches(self, done: int, config: TrainingConfig, workers: int = 0) -> DataLoader:
        """The batches of a training of which so many steps are done, or the parts of them."""
        left = range(done * self.batch_size, config.steps * self.batch_size)
        # A loader draws a number whenever it starts; not from the generator that dropout draws from.
        return DataLoader(
            Subset(self, left),
            batch_size=self.batch_size // config.accumulation,
            num_workers=workers,
            generator=torch.Generator(),
            collate_fn=self.collate,
        )

    def first_part(self, config: TrainingConfig) -> Any:
        """What one process computes at once of the first batch: all that others leave of it."""
        share = self.batch_size // (config.accumulation * process_state().num_processes)
        return self.collate([self[position] for position in range(share)])

    def __len__(self) -> int:
        return self.batch_size * self.steps

    def __getitem__(self, position: int) -> Any:
        round_number, place = divmod(position, len(self.indices))
        example = self.examples[self.indices[self._order(round_number)[place]]]
        generator = torch.default_generator  # the CPU's alone: a GPU's drives the model's dropout
        state = generator.get_state()
        try:
            generator.manual_seed(self.seed * 1_000_003 + position)
            return self.transform(example)
        finally:
            generator.set_state(state)

    def _order(self, round_number: int) -> list[int]:
        if round_number not in self._rounds:
            generator = torch.Generator().manual_seed(self.seed * 7919 + round_number)
            order = torch.randperm(len(self.indices), generator=generator).tolist()
            self._rounds[round_number] = order
        return self._rounds[round_number]


class Opened(Dataset):
    """A map-style data set whose items are made once and kept, as far as memory allows.

    Args:
        limit: bytes of pictures and tensors that are kept at most; None for a quarter of the memory
            that is free now. Each process of a loader keeps its share.
    """

    def __init__(self, examples: Sequence[Any], limit: int | None = None, workers: int = 0) -> None:
        free = psutil.virtual_memory().available // process_state().num_processes
        self.examples, self.kept = examples, {}
        self.left = (free // 4 if limit is None else limit) // max(1, workers)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        if index in self.kept:
            return self.kept[index]
        item = self.examples[index]
        size = _picture_bytes(item)
        if size <= self.left:
            self.kept[index] = item
            self.left -= size
        return item


def _picture_bytes(item: Any) -> int:
    """Of what an item holds: the picture, in RGB, and arrays."""
    if isinstance(item, Image.Image):
        return 3 * item.width * item.height
    parts = item if isinstance(item, tuple) else vars(item).values() if is_dataclass(item) else ()
    return getattr(item, "nbytes", 0) + sum(map(_picture_bytes, parts))


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
    through = partial(_through, transform, collate)  # a worker must be able to read it
    with plain_worker_errors():
        yield from DataLoader(examples, batch_size, num_workers=workers, collate_fn=through)


def _through(transform: Callable[[Any], Any], collate: Callable[[list], Any], some: list) -> Any:
    return collate([transform(example) for example in some])
