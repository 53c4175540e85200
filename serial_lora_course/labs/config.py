"""What a run can be told: the settings that every lab has, one by one or several at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from serial_lora_course.labs.training import TrainingConfig

# The library and the loop are imported where they are needed: they load PyTorch, for which a command's
# `--help` need not wait.

SWEPT = ("rank", "lr", "plus_lr")
"""The settings that may have several values in one command."""


def setting(default: Any, help: str, choices: Sequence[str] = (), **bounds: Any) -> Any:
    """A field of a configuration: its default (`MISSING` for none), what it means and may be.

    A subclass that only changes a default inherits the rest.

    Args:
        help: of its option on the command line.
        choices: the names that it is one of; none where it is no such name.
        bounds: of a number, as `require_number` takes them.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "bounds": bounds})


@dataclass(frozen=True)
class LabConfig:
    """The choices that every lab has; printed with each result and kept in its record."""

    rank: int = setting(MISSING, "rank of the adapters (LoRA at equal budget uses a quarter of it)")
    lr: float = setting(MISSING, "learning rate")
    schedule: str = setting("constant", "schedule of the learning rate: constant or cosine")
    plus_lr: float | None = setting(
        None, "learning rate of A in the LoRA+ methods; the same as lr by default"
    )
    epochs: int = setting(1, "epochs over the training pictures", whole=True, least=1)
    min_steps: int = setting(1, "minimum number of optimizer steps", whole=True, least=1)
    batch_size: int = setting(1, "pictures per step", whole=True, least=1)
    weight_decay: float = setting(0.0, "weight decay of AdamW")
    dropout: float = setting(0.0, "dropout on the adapter's input in training")
    scale_factor: float = setting(1.0, "scale: factor of the adapter's contribution")
    blocks: tuple[int, ...] | None = setting(
        None, "blocks to adapt in each tower, counted from 0, separated by commas; all by default"
    )
    places: tuple[str, ...] = setting(
        ("attention",), "attention, feed_forward, or both separated by a comma: what adapters go to"
    )
    precision: str = setting("auto", "bf16, no (float32), or auto: bf16 if the GPU supports it")
    accumulation: int = setting(1, "parts of a batch, whose gradients are added up")

    def __post_init__(self) -> None:
        from serial_lora.config import SerialLoRAConfig
        from serial_lora.errors import require_choice, require_number

        some = {"scale": self.scale_factor, "dropout": self.dropout, "blocks": self.blocks}
        SerialLoRAConfig(self.rank, places=self.places, **some)  # checks them
        for plus in (False, True):  # with lr, and with plus_lr
            self.training(steps=1, plus=plus)
        for name, value in vars(self).items():
            if known := self.of(name, "choices"):
                require_choice(name, value, known)
            if value is not None and (bounds := self.of(name, "bounds")):
                require_number(name, value, **bounds)
        require_number("accumulation", self.accumulation, below=self.batch_size + 1)

    def steps(self, pictures: int) -> int:
        """Optimizer steps for a run on ``pictures`` training pictures."""
        batch = min(self.batch_size, pictures)
        return max(self.min_steps, -(-self.epochs * pictures // batch))

    def training(
        self, steps: int, ratio: float = 1.0, seed: int = 1, plus: bool = False
    ) -> TrainingConfig:
        """What the training loop needs to know: every setting of its own that the lab has too.

        Args:
            plus: whether the run is one of LoRA+, so that A gets ``plus_lr``.
        """
        from serial_lora_course.labs.training import TrainingConfig

        names = {each.name for each in fields(TrainingConfig)}
        chosen = {name: value for name, value in vars(self).items() if name in names}
        lr = self.plus_lr if plus and self.plus_lr is not None else self.lr
        return TrainingConfig(**chosen | {"steps": steps, "lr": lr, "ratio": ratio, "seed": seed})

    def as_settings(self) -> dict[str, Any]:
        """The settings as a record keeps them."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def of(cls, name: str, what: str) -> Any:
        """What `setting` says of a field: its ``help``, ``choices`` or ``bounds``."""
        known = (each.__dict__.get("__dataclass_fields__", {}).get(name) for each in cls.__mro__)
        return next((f.metadata[what] for f in known if f is not None and f.metadata), None)


Config = TypeVar("Config", bound=LabConfig)


def swept_configs(configs: Mapping[str, Config], scale: str, **changes: object) -> list[Config]:
    """The scale's settings with some of them changed, for each combination of several values.

    Args:
        changes: None leaves a setting alone; those in `SWEPT` may have several values.
    """
    from serial_lora.errors import require_choice

    require_choice("scale", scale, configs)
    for name in changes:
        require_choice("setting", name, [each.name for each in fields(configs[scale])])
    values = {
        name: several(name, value) if name in SWEPT else [value]
        for name, value in changes.items()
        if value is not None
    }
    return [
        replace(configs[scale], **dict(zip(values, chosen, strict=True)))
        for chosen in itertools.product(*values.values())
    ]


def several(what: str, value: object) -> list:
    """One value, such as a name, as a list of one; several as they come, without repetitions."""
    from serial_lora.errors import SerialLoRAError

    one = isinstance(value, str) or not isinstance(value, Iterable)
    chosen = [value] if one else list(dict.fromkeys(value))
    if not chosen:
        raise SerialLoRAError(f"There is nothing to run: the list of {what} is empty.")
    return chosen


def check_crop(crop: float) -> None:
    """Refuse what cannot be the smallest share of the area that a training crop keeps."""
    from serial_lora.errors import SerialLoRAError

    if not 0 < crop <= 1:
        raise SerialLoRAError(f"crop is a share of the area, above 0 and at most 1, not {crop}.")
