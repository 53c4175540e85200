"""The best state of a training by its validation pictures, and when to stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import Pictures
from serial_lora_course.files import write_json
from serial_lora_course.labs.own import PictureClassifier, encode, save_classifier
from serial_lora_course.measures.metrics import accuracy

HISTORY_FILE = "validation.json"
Measured = dict[str, float]
"""``loss``, the mean cross-entropy, and ``accuracy`` on the validation pictures."""


@dataclass
class KeepBest:
    """Measures every so many steps, saves what is best so far, and says when to stop.

    For ``train(after_step=...)``. The loss decides, since few pictures have few different accuracies.
    What was measured is in ``validation.json`` beside the saved classifier, so an interrupted training
    goes on with it.

    Attributes:
        every: steps between two measurements.
        patience: measurements in a row without a new best after which training stops.
        tell: called with the step and what was measured.
        measured: step -> what was measured.
    """

    classifier: PictureClassifier
    pictures: Pictures
    folder: Path
    steps: int
    every: int
    patience: int
    tell: Callable[[int, Measured], object] = lambda step, measured: None
    measured: dict[int, Measured] = field(init=False)

    def __post_init__(self) -> None:
        path = self.folder / HISTORY_FILE
        try:
            kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
            self.measured = {int(step): dict(values) for step, values in kept.items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise SerialLoRAError(f"{path} cannot be read ({error}); delete it.") from error

    @property
    def best_step(self) -> int:
        """The first step with the lowest loss."""
        return min(self.measured, key=lambda step: (self.measured[step]["loss"], step))

    def __call__(self, step: int) -> bool:
        """Measure if it is time; True when training should stop."""
        if step % self.every and step != self.steps:
            return False
        with torch.random.fork_rng():  # a loader draws a number, and the training must not miss it
            _, scores, labels = encode(self.classifier, self.pictures)
        self.classifier.train()
        loss = torch.nn.functional.cross_entropy(scores, labels).item()
        earlier = {s: values for s, values in self.measured.items() if s < step}
        self.measured = earlier | {step: {"loss": loss, "accuracy": accuracy(scores, labels)}}
        if self.best_step == step:
            save_classifier(self.classifier, self.folder)
        write_json(self.folder / HISTORY_FILE, self.measured)
        self.tell(step, self.measured[step])
        return sum(s > self.best_step for s in self.measured) >= self.patience
