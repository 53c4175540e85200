"""What every pretraining run shares: a clock, an average of the weights, float16 files, a card."""

from __future__ import annotations

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
from safetensors.torch import save_file
from timm.optim import param_groups_weight_decay
from torch import nn
from tqdm import tqdm

from serial_lora_course.files import write_json
from serial_lora_course.models.weights import tiny_file

OF_ONE_RUN = ("history", "looked_at", "sheet")  # what people noted in a card


class PretrainingRun(ABC):
    """A run against the clock.

    A subclass makes its data and calls `set_up` with the model; then it says what one step is, and
    what is measured and written in the end.

    Attributes:
        name: of the model.
        recipe: a dataclass with ``seed``, ``learning_rate``, ``weight_decay`` and ``warmup``.
        asked: the words of the command line.
    """

    name: str
    betas = (0.9, 0.98)

    def __init__(self, folder: Path, recipe, minutes: float, asked: str) -> None:
        self.folder, self.recipe, self.budget, self.asked = folder, recipe, minutes * 60, asked
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)

    @abstractmethod
    def one_step(self) -> float:
        """Train on one batch; its loss."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """What the model can do, on pictures that it is not trained on."""

    @abstractmethod
    def write_model(self) -> None:
        """Write the model as it is shipped: config and float16 weights."""

    def set_up(self, model: nn.Module, *more: nn.Module, average: float | None = None) -> None:
        """Take the model, and parts that are thrown away later.

        ``average`` is the decay of an exponential moving average of the model's weights, if one is
        to be kept.
        """
        self.model, self.trained = model, nn.ModuleList([model, *more])
        self.average = average and EMAModel(
            model.parameters(), decay=average, use_ema_warmup=True, power=0.75
        )
        groups = param_groups_weight_decay(self.trained, self.recipe.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.learning_rate, betas=self.betas)

    def run(self) -> None:
        """Train until the minutes are used up; then write model and card."""
        with tqdm(total=round(self.budget), desc=f"pretraining {self.name}", unit="s") as bar:
            while self.seconds < self.budget:
                started = time.monotonic()
                loss = self.one_step()
                self.step += 1
                self.seconds += time.monotonic() - started
                bar.set_postfix(step=self.step, loss=f"{loss:.3f}")
                bar.update(min(round(self.seconds), bar.total) - bar.n)
        self.write_model()
        write_json(self.folder / f"{self.name}.card.json", self.card())

    def set_learning_rate(self, peak: float, done: float) -> None:
        """Linear warm-up, then a cosine to zero; ``done`` runs from 0 to 1."""
        warm = min(1.0, done / self.recipe.warmup + 0.01)
        for group in self.optimizer.param_groups:
            group["lr"] = peak * warm * (0.5 + 0.5 * math.cos(math.pi * done))

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

    def shipped_card(self) -> dict:
        """The card of the model that the package carries; the words of a new one are the same."""
        return json.loads(tiny_file(f"{self.name}.card.json").read_text("utf-8"))

    def card(self) -> dict:
        """What a user of the weights should know, every number of a run read off this one."""
        card = {k: v for k, v in self.shipped_card().items() if k not in OF_ONE_RUN}
        recipe = asdict(self.recipe)
        if recipe.get("start"):
            recipe["start"] = Path(recipe["start"]).name  # where it lay is nobody's business
        return card | {
            "model": self.name,
            "command": f"python data_scripts/pretrain_tiny.py {self.asked}",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "recipe": recipe,
            "minutes": round(self.seconds / 60, 2),
            "steps": self.step,
            "machine": f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}",
            "measured": {"what": card["measured"]["what"], **self.measure()},
        }
