"""What every pretraining run shares: steps that go on after a stop, an average of the weights, a card."""

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

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import write_json
from serial_lora_course.models.weights import tiny_file

KEEP_EVERY = 180  # seconds between two files of an unfinished run
OF_ONE_RUN = ("history", "looked_at", "sheet")  # what people noted in a card


class PretrainingRun(ABC):
    """A run of some thousand steps, which may be stopped at any moment and goes on from its file.

    A subclass makes its data and calls `set_up` with the model; then it says what one step is, and
    what is measured and written in the end. What a step does depends on its number and the seed
    alone.

    Attributes:
        name: of the model.
        recipe: a dataclass with ``steps``, ``seed``, ``learning_rate``, ``weight_decay``,
            ``warmup`` and ``decay``.
        asked: the words of the command line.
    """

    name: str
    betas = (0.9, 0.98)

    def __init__(self, folder: Path, recipe, asked: str) -> None:
        self.folder, self.recipe, self.asked = folder, recipe, asked
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
        self.optimizer = self.make_optimizer()
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW for everything, unless a subclass knows better."""
        groups = param_groups_weight_decay(self.trained, self.recipe.weight_decay)
        rate = self.recipe.learning_rate
        return torch.optim.AdamW(groups, lr=rate, betas=self.betas, fused=True)

    def run(self) -> None:
        """Train to the last step, from where an earlier call stopped; then write model and card."""
        self.go_on()
        kept = time.monotonic()
        with tqdm(total=self.recipe.steps, initial=self.step, desc=self.name) as bar:
            while self.step < self.recipe.steps:
                started = time.monotonic()
                self.set_learning_rate()
                loss = self.one_step()
                self.step += 1
                self.seconds += time.monotonic() - started
                bar.set_postfix(loss=f"{loss:.3f}")
                bar.update()
                if time.monotonic() - kept > KEEP_EVERY:
                    self.keep()
                    kept = time.monotonic()
        self.write_model()
        write_json(self.folder / f"{self.name}.card.json", self.card())
        self.unfinished.unlink(missing_ok=True)

    @property
    def unfinished(self) -> Path:
        """The file of a run that has not come to its end."""
        return self.folder / f"{self.name}.unfinished.pt"

    def keep(self) -> None:
        """Write all that the next step needs; whoever is killed here still has the last file."""
        state = {
            "recipe": json.loads(json.dumps(asdict(self.recipe))),
            "step": self.step,
            "seconds": self.seconds,
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }
        written = self.unfinished.with_suffix(".part")
        torch.save(state, written)
        written.replace(self.unfinished)

    def go_on(self) -> None:
        """Take up an unfinished run of this folder, if there is one.

        Raises:
            SerialLoRAError: it has another recipe.
        """
        if not self.unfinished.exists():
            return
        state = torch.load(self.unfinished, weights_only=True)
        if state["recipe"] != json.loads(json.dumps(asdict(self.recipe))):
            raise SerialLoRAError(
                f"{self.unfinished} is of another recipe; give its options again, or another --out."
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])

    @property
    def ending(self) -> float:
        """How much of the last part, in which the rate falls, is done: 0 before it, 1 at the end."""
        done = self.step / self.recipe.steps
        return max(0.0, (done - 1) / self.recipe.decay + 1)

    def set_learning_rate(self) -> None:
        """Linear warm-up, a constant rate, and a cosine to zero over the last part."""
        recipe = self.recipe
        warm = min(1.0, (self.step + 1) / recipe.warmup)
        falling = 0.5 + 0.5 * math.cos(math.pi * self.ending)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warm * falling

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
        return card | {
            "model": self.name,
            "command": f"python data_scripts/pretrain_tiny.py {self.asked}",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "recipe": asdict(self.recipe),
            "minutes": round(self.seconds / 60, 2),
            "steps": self.step,
            "machine": f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}",
            "measured": {"what": card["measured"]["what"], **self.measure()},
        }
