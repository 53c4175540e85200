"""Whether somebody is there to move what a lesson shows."""

from __future__ import annotations

import os

from IPython import get_ipython

STATIC_VARIABLE = "SERIAL_LORA_STATIC"


def is_static() -> bool:
    """Whether panels and progress bars should be still.

    They are where the environment asks for it (`SERIAL_LORA_STATIC=1`), as tests, builders and the
    offline folder do, and where no notebook kernel runs.
    """
    asked = os.environ.get(STATIC_VARIABLE, "").strip().lower()
    if asked:
        return asked not in ("0", "false", "no")
    return getattr(get_ipython(), "kernel", None) is None
