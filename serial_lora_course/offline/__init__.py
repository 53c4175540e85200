"""Blocking the network for lessons and tests; see ``sitecustomize.py`` in this folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent


def offline_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables under which a Python process draws static widgets and has no network.

    Args:
        environment: what to start from; the present environment when left out.
    """
    given = dict(os.environ if environment is None else environment)
    # Absolute, because kernels run in the folder of their notebook.
    paths = map(os.path.abspath, filter(None, given.get("PYTHONPATH", "").split(os.pathsep)))
    path = os.pathsep.join([str(FOLDER), *paths])
    return given | {"PYTHONPATH": path, "SERIAL_LORA_STATIC": "1", "HF_HUB_OFFLINE": "1"}
