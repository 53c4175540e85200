"""What every pretraining run shares: a clock, checkpoints, resume, a curve of measurements."""

from __future__ import annotations

import csv
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from rich.progress import Progress
from safetensors.torch import save_file
from timm.optim import param_groups_weight_decay
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import write_json

FIRST_MEASURE, BETWEEN_MEASURES = 120, 300  # seconds of training


class PretrainingRun(ABC):
    """A run against the clock: minutes of training, measuring not counted.

    A subclass makes its data and calls `set_up` with the model; then it says what one step is, what
    is measured and what is written in the end. ``recipe`` is a dataclass with ``seed`` and ``weight_decay``.
    """

    name: str
    betas = (0.9, 0.98)

    def __init__(self, folder: Path, recipe, minutes: float) -> None:
        self.folder, self.recipe, self.budget = folder, recipe, minutes * 60
        torch.manual_seed(recipe.seed)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SerialLoRAError(
                f"{folder} cannot be made ({error.strerror}); choose another folder with --out."
            ) from error
        self.checkpoint = folder / "checkpoint.pt"
        self.step, self.seconds, self.curve = 0, 0.0, []

    @abstractmethod
    def one_step(self) -> float:
        """Train on one batch; its loss."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """What the model can do now, on pictures that it is not trained on."""

    @abstractmethod
    def write_model(self) -> None:
        """Write the model as it is shipped: config and float16 weights."""

    @abstractmethod
    def card(self) -> dict:
        """What a user of the weights should know, all of it read off this run."""

    def set_up(self, model: nn.Module, *more: nn.Module, average: float | None = None) -> None:
        """Take the model (and parts that are thrown away later), and go on where a run stopped.

        ``average`` is the decay of an exponential moving average of the model's weights, if one is
        to be kept.
        """
        self.model, self.trained = model, nn.ModuleList([model, *more])
        self.average = average and EMAModel(
            model.parameters(), decay=average, use_ema_warmup=True, power=0.75
        )
        self.optimizer = torch.optim.AdamW(
            param_groups_weight_decay(self.trained, self.recipe.weight_decay),
            lr=self.recipe.learning_rate,
            betas=self.betas,
        )
        if self.checkpoint.exists():
            self._resume()

    def run(self) -> None:
        """Train until the minutes are used up, saving and measuring on the way; then export."""
        with Progress() as progress:
            bar = progress.add_task(f"pretraining {self.name}", total=self.budget)
            next_measure = self.seconds + FIRST_MEASURE
            while self.seconds < self.budget:
                started = time.monotonic()
                loss = self.one_step()
                self.step += 1
                self.seconds += time.monotonic() - started
                progress.update(bar, completed=self.seconds, description=f"loss {loss:.3f}")
                if self.seconds > next_measure or self.seconds >= self.budget:
                    next_measure = self.seconds + BETWEEN_MEASURES
                    self._note(loss)
                    self._save()
        self.write_model()
        self._write_curve()
        write_json(self.folder / f"{self.name}.card.json", self.card())

    def set_learning_rate(self, peak: float, done: float, warmup: float) -> None:
        """Linear warm-up, then a cosine to zero; ``done`` runs from 0 to 1."""
        rate = peak * min(1.0, done / warmup + 0.01) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def descend(self, loss: torch.Tensor) -> float:
        """One optimizer step with gradients clipped to norm 1; the loss as a number."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
        self.optimizer.step()
        if self.average:
            self.average.step(self.model.parameters())
        return loss.item()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with its averaged weights, for the length of the block."""
        self.average.store(self.model.parameters())
        self.average.copy_to(self.model.parameters())
        try:
            yield
        finally:
            self.average.restore(self.model.parameters())

    def write_weights(self) -> None:
        """The model's state dict in float16."""
        weights = {k: v.half().contiguous() for k, v in self.model.state_dict().items()}
        save_file(weights, self.folder / f"{self.name}.safetensors")

    def _write_curve(self) -> None:
        """The measurements on the way, one row each."""
        with (self.folder / f"{self.name}.curve.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.curve[-1])
            writer.writeheader()
            writer.writerows(self.curve)

    def facts(self, command: str) -> dict:
        """The part of a card that every model has, read off this run."""
        last, recipe = self.curve[-1], asdict(self.recipe)
        if recipe.get("start"):
            recipe["start"] = Path(recipe["start"]).name  # where it lay is nobody's business
        return {
            "model": self.name,
            "command": f"python data_scripts/pretrain_tiny.py {command}",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "recipe": recipe,
            "minutes": last["minutes"],
            "steps": last["step"],
            "machine": f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}",
        }

    def measured(self) -> dict[str, float]:
        """The last measurement without the columns that only the curve needs."""
        return {k: v for k, v in self.curve[-1].items() if k not in ("minutes", "step", "loss")}

    def _note(self, loss: float) -> None:
        row = {"minutes": round(self.seconds / 60, 2), "step": self.step, "loss": round(loss, 4)}
        self.curve.append(row | self.measure())
        print(json.dumps(self.curve[-1]), flush=True)

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "model": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "average": self.average and self.average.state_dict(),
        }
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.trained.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.curve = state["curve"]
        if self.average:
            self.average.load_state_dict(state["average"])
        print(f"going on from step {self.step}, {self.seconds / 60:.1f} minutes", flush=True)
