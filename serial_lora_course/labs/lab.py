"""One lab for all: load, prepare, train, measure; and one run of it, which becomes a record.

A lab of its own is a subclass of :class:`Lab` in a file of its own, and a line in
:mod:`serial_lora_course.labs.registry`. Command line, records, sweeps and tables are the same for
all; :mod:`serial_lora_course.labs.grid` does many runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.injection import eject, inject
from serial_lora.parameters import count_parameters
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs.config import SWEPT, LabConfig, swept_configs
from serial_lora_course.labs.device import loader_workers, settle_precision
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.records import Record, environment, run_key, with_unit
from serial_lora_course.labs.report import Report
from serial_lora_course.labs.training import ExampleStream, Opened, train
from serial_lora_course.models.weights import Backbone, weights_fingerprint

Outcomes = Mapping[str, np.ndarray]
"""What a run came to on each test picture, in the data's order, by the name of the measure."""


class Lab(ABC):
    """A task: how to load it, train on it and measure it.

    An object is the task on one data set: what its runs share. Its ``config`` may be changed
    between runs in what nothing was prepared or measured with, the rank and the rates.

    Attributes:
        name: in records and on the command line.
        unit: of the amount of training data, "shots" or "percent".
        amount: so much of it where nothing is said.
        configs: scale -> its settings.
        report: what is told of its records.
        help: option of the command line (scale, dataset, weights) -> what it takes here.
        last_losses: over how many of the last steps a record's loss is the mean.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    amount: ClassVar[int]
    configs: ClassVar[Mapping[str, LabConfig]]
    report: ClassVar[Report]
    help: ClassVar[Mapping[str, str]]
    last_losses: ClassVar[int] = 1

    def __init__(
        self, backbone: Backbone, data: DividedData, config: LabConfig | None = None
    ) -> None:
        """Take a model and a data set; the scale's own settings if others are left out."""
        self.backbone, self.data = backbone, data
        self.config = config or self.configs[backbone.scale]

    # ----------------------------------------------------------------------- what is loaded

    @staticmethod
    @abstractmethod
    def datasets(scale: str) -> Sequence[str]:
        """The data sets' names."""

    @staticmethod
    @abstractmethod
    def load_data(name: str, scale: str) -> DividedData:
        """One of them."""

    @staticmethod
    @abstractmethod
    def load_backbone(config: LabConfig, scale: str, weights: str | Path | None) -> Backbone:
        """The model."""

    @staticmethod
    def load_tools(scale: str) -> dict[str, Any]:
        """What is needed besides, as further arguments of the lab; once for all data sets."""
        return {}

    @classmethod
    def configured(cls, scale: str, **changes: object) -> LabConfig:
        """The scale's settings with some of them changed (None leaves a setting alone)."""
        (config,) = swept_configs(cls.configs, scale, **changes)
        return config

    # ------------------------------------------------------------------- what is trained, on what

    @staticmethod
    @abstractmethod
    def indices(data: DividedData, amount: int, seed: int) -> list[int]:
        """The training pictures of a run, as positions in ``data.train``."""

    @abstractmethod
    def objective(self) -> nn.Module:
        """``forward(batch)`` is the loss; its ``checkpointed`` are blocks that compute twice."""

    @abstractmethod
    def stream(self, indices: Sequence[int], seed: int) -> ExampleStream:
        """The training examples of a run."""

    def adapter_options(self) -> dict[str, Any]:
        """Where the adapter goes, where that is a choice."""
        return {}

    @cached_property
    def train_pictures(self) -> Opened:
        """``data.train``, each picture opened once for all steps and runs where memory allows."""
        return Opened(self.data.train)

    @property
    def precision(self) -> str:
        """What its runs compute in, ``bf16`` or ``no`` (float32)."""
        return settle_precision(self.config.precision, self.backbone.model)

    @property
    def workers(self) -> int:
        """Processes that prepare examples."""
        return loader_workers(self.backbone.scale)

    # --------------------------------------------------------------------------- what is measured

    @abstractmethod
    def measure(self) -> tuple[dict[str, float], Any]:
        """What the model reaches as it is; and what was measured, for whoever draws it."""

    def outcomes(self, seen: Any) -> Outcomes:
        """What is kept of what was measured, where a run is kept."""
        return {}

    def measure_base(self) -> dict[str, float]:
        """What costs no training."""
        return {f"base_{name}": value for name, value in self.measure()[0].items()}

    @cached_property
    def base(self) -> dict[str, float]:
        """What :meth:`measure_base` says, measured once."""
        return self.measure_base()

    def sizes(self, amount: int, seed: int) -> dict[str, int]:
        """What else can be counted of a run."""
        return {}

    # ------------------------------------------------------------------------- what makes a run

    def adapter(self, method: Method) -> AdapterConfig:
        """The adapter that a method means here."""
        config = self.config
        some = {"scale": config.scale_factor, "dropout": config.dropout, "blocks": config.blocks}
        rank, where = method.rank(config.rank), method.parts(config.places)
        return method.kind(rank=rank, **some, **where, **self.adapter_options())

    def networks(self) -> list[nn.Module]:
        """Every network whose weights a record depends on."""
        return [self.backbone.model]

    @cached_property
    def contents(self) -> dict[str, Any]:
        """The model's name, and fingerprints of the pictures and the weights, taken once."""
        pictures = self.data.picture_fingerprint({"train": self.train_pictures})
        return {
            "model_name": self.backbone.name,
            "data": pictures[:16],
            "weights": weights_fingerprint(self.networks()),
        }

    def settings(self, method: Method) -> dict[str, Any]:
        """What a record's key covers beside data set, method, amount, seed and rank."""
        used = self.contents | {"precision": self.precision}
        return self.config.as_settings() | used | method.settings

    def key(self, method: Method, amount: int, seed: int) -> str:
        """The key that the record of a run will have."""
        run = (self.name, self.data.scale, self.data.name, method.name, amount, seed)
        return run_key(*run, method.rank(self.config.rank), self.settings(method))


Draw = Callable[[Lab, Method, Any, str], object]
"""Draws a run that was just measured: lab, method, what was measured, and a name for the file. The
adapter is still in the model."""


def run_one(
    lab: Lab,
    method: Method,
    amount: int,
    seed: int,
    *,
    save_to: Path | None = None,
    progress: bool | None = None,
    keep_adapter: bool = False,
    draw: Draw | None = None,
    command: str = "",
) -> Record:
    """Adapt, measure, and (unless ``keep_adapter``) leave the model as it was.

    Args:
        amount: of training data, in the lab's unit.
        save_to, progress: as in :func:`serial_lora_course.labs.training.train`.
        command: the command line that asked for it.

    Raises:
        SerialLoRAError: a setting that does not fit this model or these data.
    """
    model, data = lab.backbone.model, lab.data
    settings, base, where = lab.settings(method), lab.base, environment()
    indices = lab.indices(data, amount, seed)
    stream = lab.stream(indices, seed)
    config = replace(lab.config, precision=lab.precision)
    training = config.training(stream.steps, method.ratio, seed, method.plus)
    adapter = lab.adapter(method)
    with adapted(model, adapter, seed, keep_adapter):
        objective = lab.objective()
        title = f"{data.name} · {method.label} · {with_unit(amount, lab.unit)} · seed {seed}"
        history = train(objective, stream, training, save_to, title, progress, lab.workers)
        count = count_parameters(model)
        reached, seen = lab.measure()
        if draw is not None:
            draw(lab, method, seen, _file_name(lab, method, amount, seed))
    loss = float(np.mean(history.losses[-lab.last_losses :]))
    return Record(
        task=lab.name,
        scale=data.scale,
        dataset=data.name,
        method=method.name,
        amount=amount,
        unit=lab.unit,
        seed=seed,
        rank=adapter.rank,
        measures={**reached, **base, "loss": loss},
        sizes={
            "parameters": count.trainable,
            "bytes": 4 * count.trainable,  # of float32
            "activation_bytes": history.activation_bytes,
            "peak_memory": history.peak_memory,
            "steps": stream.steps,
            "training_pictures": len(indices),
            **lab.sizes(amount, seed),
        },
        seconds=round(history.seconds, 2),
        settings=settings,
        environment=where,
        command=command,
    )


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
    with ExitStack() as undo:
        if isinstance(adapter, SerialLoRAConfig | LoRAConfig):
            inject(model, adapter)
            undo.callback(eject, model)
        else:  # one that `inject` does not know
            adapter.put_in(model, undo)
        yield
        if keep:
            undo.pop_all()


def _file_name(lab: Lab, method: Method, amount: int, seed: int) -> str:
    """Of what is kept of a run; what a sweep changes is in it, so that no run draws over another."""
    usual = lab.configs.get(lab.backbone.scale, lab.config)
    changed = {k: v for k in SWEPT if (v := getattr(lab.config, k)) != getattr(usual, k)}
    swept = "".join(f"-{name}-{value:g}" for name, value in (changed | method.settings).items())
    return f"{lab.data.name}-{amount}-{method.name}-{seed}{swept}"
