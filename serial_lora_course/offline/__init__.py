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
    result = dict(os.environ if environment is None else environment)
    # Absolute, because kernels run in the folder of their notebook.
    given = [
        os.path.abspath(path) for path in result.get("PYTHONPATH", "").split(os.pathsep) if path
    ]
    paths = [str(FOLDER), *given]
    result["PYTHONPATH"] = os.pathsep.join(paths)
    result["SERIAL_LORA_STATIC"] = "1"
    result["HF_HUB_OFFLINE"] = "1"
    return result


def block_network() -> None:
    """Block the network in this process, for good: only loopback addresses stay reachable."""
    from serial_lora_course.offline import sitecustomize

    sitecustomize.block_network()
