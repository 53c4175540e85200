"""Readable JSON files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from serial_lora.files import write_whole


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write ``content`` as readable JSON, as :func:`serial_lora.files.write_whole` writes.

    Raises:
        OSError: it cannot be written.
        TypeError: the content has no form in JSON; nothing is written then.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return write_whole(path, text.encode())
