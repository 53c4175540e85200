"""Where data lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from serial_lora_course.files import expanded


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds every downloaded or built data set; it need not exist yet.

    ``root`` if given, else the environment variable ``SERIAL_LORA_DATA``, else the user's data
    folder of this platform (``~/.local/share/serial-lora`` on Linux).
    """
    chosen = root or os.environ.get("SERIAL_LORA_DATA")
    if chosen:
        return expanded(chosen).absolute()
    return Path(platformdirs.user_data_dir("serial-lora", appauthor=False))
