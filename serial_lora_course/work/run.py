"""What a classifier's folder says of its model; nothing here loads PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from serial_lora_course.files import expanded

RUN_FILE = "run.yaml"
BROKEN = (RecursionError, yaml.YAMLError)


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
