"""All that decides a training on one's own pictures; nothing here loads PyTorch until it is used."""

from __future__ import annotations

from dataclasses import dataclass

from serial_lora_course.labs.config import LabConfig, check_crop, setting


@dataclass(frozen=True)
class Job(LabConfig):
    """Every choice of a training on a folder; the defaults suit some hundred pictures.

    Its settings are the options of ``serial-lora fit``, and run.yaml beside what came of it.
    """

    rank: int = setting(8, "of the pair in front of each block's attention")
    lr: float = 2e-3
    epochs: int = 20
    min_steps: int = 40
    batch_size: int = 32
    weight_decay: float = 1e-2
    dropout: float = 0.1
    pictures: str = setting("", "folder of class folders, or of train and test with such inside")
    model: str = setting("tiny-clip", "timm/NAME, open_clip/NAME:WEIGHTS, a hub name, a folder")
    out: str = setting("my_classifier", "folder for the classifier: new, or this command's own")
    weights: str | None = setting(None, "file in place of the model's own weights")
    image_size: int | None = setting(None, "side of the model's pictures, in place of its own")
    test_fraction: float = setting(0.3, "share of each class to test on", above=0, below=1)
    validation_fraction: float = setting(0.2, "of the rest, to choose by", above=0, below=1)
    patience: int = setting(5, "rounds without a better state before it stops", whole=True, least=1)
    seed: int = setting(1, "of the training; the parts do not depend on it", whole=True, least=0)
    linear_probe: bool = setting(False, "keep a logistic regression on the frozen features")
    crop: float = setting(0.6, "smallest share of the area that a training crop keeps")
    balanced: bool = setting(False, "weigh classes so that small ones count as much as large ones")
    save_every: float = setting(2.0, "seconds between two saves of what an interruption would lose")

    def __post_init__(self) -> None:
        from serial_lora.errors import require_number

        super().__post_init__()
        check_crop(self.crop)
        if self.image_size is not None:
            require_number("image_size", self.image_size, whole=True, least=1)
