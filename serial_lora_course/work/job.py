"""All that decides a training on one's own pictures; nothing here loads PyTorch until it is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from serial_lora_course.files import expanded
from serial_lora_course.labs.config import LabConfig, check_crop, setting
from serial_lora_course.options import as_yaml

if TYPE_CHECKING:
    from torch import Tensor, nn

    from serial_lora import SerialLoRAConfig

RUN_FILE = "run.yaml"
BROKEN = (RecursionError, yaml.YAMLError)


@dataclass(frozen=True)
class ClassifyConfig(LabConfig):
    """Every choice of a run; the defaults suit some hundred pictures."""

    rank: int = setting(8, "of the pair in front of each block's attention")
    lr: float = 2e-3
    epochs: int = 20
    min_steps: int = 40
    batch_size: int = 32
    weight_decay: float = 1e-2
    dropout: float = 0.1
    crop: float = setting(0.6, "smallest share of the area that a training crop keeps")
    balanced: bool = setting(False, "weigh classes so that small ones count as much as large ones")
    save_every: float = setting(2.0, "seconds between two saves of what an interruption would lose")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_crop(self.crop)

    def adapter(self) -> SerialLoRAConfig:
        """The adapter to inject: Serial LoRA in the image tower."""
        from serial_lora import SerialLoRAConfig

        return SerialLoRAConfig(self.rank, self.scale_factor, self.dropout, ["image"], self.blocks)

    def class_weights(self, labels: Sequence[int], classes: int) -> Tensor | None:
        """(C,) what a picture of each class counts, so that all classes do alike; None for one each."""
        if not self.balanced:
            return None
        import torch

        counts = torch.tensor(labels).bincount(minlength=classes)
        return len(labels) / (counts.clamp(min=1) * counts.count_nonzero())


@dataclass(frozen=True)
class Job:
    """All that decides a training on a folder; kept as ``run.yaml`` beside what came of it.

    Attributes:
        pictures: folder with one sub-folder per class (or train and test with such inside).
        model: a name that :func:`serial_lora_course.work.vision.load_vision` knows.
        weights: a file in place of the model's own weights.
        out: folder of the classifier.
        test_fraction: share of each class that is tested on; validation_fraction: of the rest,
            share that chooses the best state.
        patience: rounds without a better state after which training stops.
        image_size: side of the model's pictures in pixels; its own if left out.
        linear_probe: the head alone, a logistic regression on the frozen features; no adapter is trained.
        config: how to train.
    """

    pictures: str
    model: str
    out: str
    weights: str | None = None
    test_fraction: float = 0.3
    validation_fraction: float = 0.2
    patience: int = 5
    seed: int = 1
    image_size: int | None = None
    linear_probe: bool = False
    config: ClassifyConfig = field(default_factory=ClassifyConfig)

    def __post_init__(self) -> None:
        from serial_lora.errors import require_number

        for name in ("test_fraction", "validation_fraction"):
            require_number(name, getattr(self, name), above=0, below=1)
        require_number("patience", self.patience, whole=True, least=1)
        require_number("seed", self.seed, whole=True, least=0)
        if self.image_size is not None:
            require_number("image_size", self.image_size, whole=True, least=1)

    def as_yaml(self) -> bytes:
        """Flat, as ``--config`` reads it; settings that are None are left out."""
        whole = asdict(self)
        return as_yaml(whole | whole.pop("config"))

    def load_model(self) -> nn.Module:
        """The vision model, as its library gives it."""
        from serial_lora_course.work.vision import load_vision

        weights = None if self.weights is None else expanded(self.weights)
        return load_vision(self.model, weights, image_size=self.image_size)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Refuse a file of ours that somebody has changed."""
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, LookupError, *BROKEN) as error:
        from serial_lora.errors import SerialLoRAError

        raise SerialLoRAError(
            f"{path} is not what `serial-lora fit` wrote ({error}); delete its folder to train anew."
        ) from error


def read_run(folder: str | Path) -> dict[str, Any]:
    """What the run.yaml of a classifier's folder says of its model, and of where that is from.

    Raises:
        SerialLoRAError: there is none, or it names no model.
    """
    path = expanded(folder) / RUN_FILE
    with readable(path):
        said = yaml.safe_load(path.read_text("utf-8"))
        names = {name: said.get(name, "") for name in ("pictures", "model", "out")}
        names["weights"] = said.get("weights")
        if not names["model"] or not all(isinstance(each, str | None) for each in names.values()):
            raise ValueError("it names no model")
        return names | {"image_size": said.get("image_size")}
