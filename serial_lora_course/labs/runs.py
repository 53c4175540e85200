"""What every lab shares: its settings, one run's adapter, and many runs with their records.

A lab brings a backbone, data, a loss and measures; this module never asks which.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.injection import eject, inject
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs.methods import Method, get_method
from serial_lora_course.labs.records import (
    Record,
    append_record,
    read_records,
    require_writable,
    run_key,
)
from serial_lora_course.labs.training import TrainingConfig, check_shares, process_state


@dataclass(frozen=True)
class LabConfig:
    """The choices that every lab has; printed with each result and kept in its record.

    Attributes:
        rank: r of Serial LoRA and of LoRA (LoRA at equal budget takes a quarter of it).
        lr, weight_decay, precision, accumulation: as in
            :class:`serial_lora_course.labs.training.TrainingConfig`.
        plus_lr: rate of A in the two LoRA+ methods; None for ``lr``, as in the paper.
        epochs: rounds over the training pictures; a run is never shorter than ``min_steps``
            optimizer steps.
        dropout, scale_factor: of the adapter.
    """

    rank: int
    lr: float
    plus_lr: float | None = None
    epochs: int = 1
    min_steps: int = 1
    batch_size: int = 1
    weight_decay: float = 0.0
    dropout: float = 0.0
    scale_factor: float = 1.0
    precision: str = "bf16"
    accumulation: int = 1

    def __post_init__(self) -> None:
        SerialLoRAConfig(self.rank, self.scale_factor, self.dropout)  # checks them
        for ratio in (1.0, 2.0):  # of plain methods, with lr, and of LoRA+, with plus_lr
            self.training(steps=1, ratio=ratio)
        for what in ("epochs", "min_steps", "batch_size"):
            if getattr(self, what) < 1:
                raise SerialLoRAError(f"{what} must be 1 or more, not {getattr(self, what)}.")

    def steps(self, pictures: int) -> int:
        """Optimizer steps for a run on ``pictures`` training pictures."""
        batch = min(self.batch_size, pictures)
        return max(self.min_steps, math.ceil(self.epochs * pictures / batch))

    def training(
        self, steps: int, ratio: float = 1.0, seed: int = 1, plus: bool | None = None
    ) -> TrainingConfig:
        """What the training loop needs to know of it.

        Args:
            plus: whether the run is one of LoRA+, so that A gets ``plus_lr``; None for "where the
                ratio is not 1".
        """
        plus = ratio != 1 if plus is None else plus
        lr = self.plus_lr if plus and self.plus_lr is not None else self.lr
        return TrainingConfig(
            steps=steps,
            lr=lr,
            ratio=ratio,
            weight_decay=self.weight_decay,
            precision=self.precision,
            accumulation=self.accumulation,
            seed=seed,
        )


Config = TypeVar("Config", bound=LabConfig)


def changed_config(configs: Mapping[str, Config], scale: str, **changes: object) -> Config:
    """The scale's settings with some of them changed (None leaves a setting alone).

    Raises:
        SerialLoRAError: no such scale or setting, or a setting out of its range.
    """
    if scale not in configs:
        raise SerialLoRAError(f"There is no scale {scale!r}; choose tiny or paper.")
    known = [field.name for field in fields(configs[scale])]
    for name in changes:
        if name not in known:
            raise SerialLoRAError(f"There is no setting {name!r}; choose from {', '.join(known)}.")
    return replace(configs[scale], **{k: v for k, v in changes.items() if v is not None})


def swept_configs(
    configs: Mapping[str, Config], scale: str, swept: Mapping[str, object], **changes: object
) -> list[Config]:
    """The scale's settings for each combination of some that have several values.

    Args:
        swept: name of a setting -> one value, several, or None for the scale's own.
        changes: as in :func:`changed_config`.

    Raises:
        SerialLoRAError: as :func:`changed_config`, or a setting has an empty list of values.
    """
    values = {name: several(value) for name, value in swept.items()}
    check_choices(**values)
    return [
        changed_config(configs, scale, **dict(zip(values, chosen, strict=True)), **changes)
        for chosen in itertools.product(*values.values())
    ]


def several(value: object) -> list:
    """One value, such as a name, as a list of one; several as they come, without repetitions."""
    one = isinstance(value, str) or not isinstance(value, Iterable)
    return [value] if one else list(dict.fromkeys(value))


def chosen_methods(
    names: Iterable[str], rank: int, ratios: float | Iterable[float] | None = None
) -> list[Method]:
    """The methods of these names, each checked to have a share of the lab's rank.

    Args:
        ratios: rates of B over that of A; each LoRA+ method comes once for each. None for 20.

    Raises:
        SerialLoRAError: no such method, a rank that it cannot share, ratios that none takes.
    """
    methods = [get_method(name) for name in names]
    for method in methods:
        method.rank(rank)
    if ratios is None:
        return methods
    ratios = [float(ratio) for ratio in several(ratios)]
    check_choices(ratios=ratios)
    if not any(method.plus for method in methods):
        raise SerialLoRAError(
            "The ratio is LoRA+'s, and no LoRA+ method was chosen; add lora_plus or "
            "serial_lora_plus to the methods."
        )
    return list(dict.fromkeys(method.with_ratio(ratio) for method in methods for ratio in ratios))


def check_choices(**choices: Sequence) -> None:
    """Refuse an empty list of anything, and numbers below 1."""
    for what, chosen in choices.items():
        if not chosen:
            raise SerialLoRAError(f"There is nothing to run: the list of {what} is empty.")
        for number in chosen:
            if isinstance(number, int) and number < 1:
                raise SerialLoRAError(f"The {what} must be 1 or more, not {number}.")


def check_crop(crop: float) -> None:
    """Refuse what cannot be the smallest share of the area that a training crop keeps."""
    if not 0 < crop <= 1:
        raise SerialLoRAError(f"crop is a share of the area, above 0 and at most 1, not {crop}.")


def check_batches(pictures: Iterable[int], config: LabConfig) -> None:
    """Refuse batches that the running processes cannot share evenly.

    Args:
        pictures: number of training pictures of each run.
    """
    for number in pictures:
        check_shares(min(config.batch_size, number), config.accumulation)


def check_subsets(
    sets: Iterable[DividedData], percent: Sequence[int], seeds: Sequence[int], config: LabConfig
) -> None:
    """:func:`check_batches` for shares of the training pictures of some data sets.

    Raises:
        SerialLoRAError: as there, or a share that is not between 1 and 100.
    """
    subsets = (
        training_subset(data, share, seed) for data in sets for share in percent for seed in seeds
    )
    check_batches(map(len, subsets), config)


def run_settings(backbone: Any, data: Any, config: LabConfig) -> dict:
    """What a record's key covers beside data set, method, amount, seed and rank.

    Args:
        backbone: with the ``name`` of its model; data: with a ``fingerprint()``.
    """
    return asdict(config) | {"model_name": backbone.name, "data": data.fingerprint()[:16]}


def loader_workers(scale: str) -> int:
    """Processes that prepare pictures; the tiny ones are prepared faster than they are sent."""
    return 0 if scale == "tiny" else min(4, os.cpu_count() or 1)


@contextmanager
def adapted(
    model: nn.Module, adapter: AdapterConfig, seed: int, keep: bool = False
) -> Iterator[None]:
    """A model with a fresh adapter for the length of the block.

    Args:
        seed: of the adapter's random start.
        keep: leave the adapter in, unless the block fails.

    Raises:
        SerialLoRAError: the adapter does not fit; the model is as it was then.
    """
    torch.manual_seed(seed)
    inject(model, adapter)
    try:
        yield
    except BaseException:
        eject(model)
        raise
    if not keep:
        eject(model)


@dataclass(frozen=True)
class Plan:
    """Every combination that a lab was asked for.

    Attributes:
        task: the lab's name in records.
        sets: data sets, with ``name`` and ``scale``.
        amounts: how much training data, in the lab's unit (shots or percent).
        rank: the lab's rank, of which each method takes its share.
    """

    task: str
    sets: Sequence[Any]
    methods: Sequence[Method]
    amounts: Sequence[int]
    seeds: Sequence[int]
    rank: int


def run_plan(
    plan: Plan,
    settings: Callable[[Any], dict],
    measure_base: Callable[[Any], Any],
    run: Callable[..., Record],
    out: Path | None,
    on_record: Callable[[Record, bool], None] | None,
) -> list[Record]:
    """Run what ``out`` does not hold yet; the records of the whole plan, old ones included.

    Args:
        settings: data set -> what a record's key covers beside the combination itself.
        measure_base: data set -> what the unadapted model reaches, measured once and only if a
            run needs it.
        run: (data set, method, amount, seed, base, file of an unfinished run) -> record.
        out: JSONL file of records; None keeps them in memory only.
        on_record: called with each record and whether it is new.

    Raises:
        SerialLoRAError: ``out`` cannot be read or written; nothing has been run then.
    """
    finished = {record.key: record for record in (read_records(out) if out else [])}
    if out is not None and is_first_process():
        require_writable(out)
    records = []
    for data in plan.sets:
        base = None
        for amount, seed, method in itertools.product(plan.amounts, plan.seeds, plan.methods):
            key = run_key(
                plan.task,
                data.scale,
                data.name,
                method.name,
                amount,
                seed,
                method.rank(plan.rank),
                settings(data) | method.settings,
            )
            record, is_new = finished.get(key), key not in finished
            if is_new:
                base = base or measure_base(data)
                unfinished = out.with_name(f"{out.stem}-unfinished-{key}.pt") if out else None
                record = run(data, method, amount, seed, base, unfinished)
                _keep(record, out)
            if on_record:
                on_record(record, is_new)
            records.append(record)
    return records


def _keep(record: Record, out: Path | None) -> None:
    if out is not None and is_first_process():
        append_record(out, record)


def lab_device() -> torch.device:
    """Where this process computes."""
    return process_state().device


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes: always, unless there are several."""
    return process_state().is_main_process
