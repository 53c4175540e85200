"""At work: adapt any vision model to a folder of pictures, ask it, merge it, hand it on."""

from dataclasses import dataclass

from serial_lora_course.labs.config import LabConfig, check_crop, setting
from serial_lora_course.options import Option, settings_of


@dataclass(frozen=True)
class Job(LabConfig):
    """Every choice of a training on a folder: the options of `fit`, which suit some hundred pictures."""

    rank: int = setting(8, "rank of the pair in front of each block's attention, or feed-forward")
    lr: float = 2e-3
    schedule: str = "cosine"
    epochs: int = 20
    min_steps: int = 40
    batch_size: int = 32
    weight_decay: float = 1e-2
    dropout: float = 0.1
    pictures: str = setting("", "folder with one folder per class, alone or inside train and test")
    model: str = setting(
        "tiny-clip",
        "timm/NAME, timm/local-dir:FOLDER, open_clip/NAME:WEIGHTS, a hub name, a folder",
    )
    out: str = setting("my_classifier", "folder for the classifier: new, or written by fit")
    image_size: int | None = setting(None, "model's input size, in pixels", whole=True, least=1)
    test_fraction: float = setting(0.3, "share of each class for testing", above=0, below=1)
    validation_fraction: float = setting(0.2, "share of the rest for validation", above=0, below=1)
    groups: str | None = setting(None, "regex: pictures with the same match stay together")
    patience: int = setting(5, "epochs without improvement before it stops", whole=True, least=1)
    seed: int = setting(1, "seed of the training, not of the split", whole=True, least=0)
    linear_probe: bool = setting(False, "logistic regression on frozen features, no adapter")
    crop: float = setting(0.6, "minimum share of the picture's area in a training crop")
    balanced: bool = setting(False, "weight classes so that small ones count as much as large ones")
    save_every: float = setting(2.0, "seconds between two checkpoints")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_crop(self.crop)


def fit_options() -> list[Option]:
    """The options of ``serial-lora fit``: a `Job`'s, with one rate for A and B."""
    pictures = Option("pictures", str, Job.of("pictures", "help"), required=True)
    others = [each for each in settings_of({"": Job}) if each.name not in ("pictures", "plus_lr")]
    return [pictures, *others]
