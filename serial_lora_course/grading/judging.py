"""Inside the kernel that runs a learner's notebook: put what a cell defined to its check.

``grade.py`` runs these functions in cells of its own, between the learner's. The verdict comes
from the course's check on the learner's object; what the learner's cell printed plays no part.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from IPython.core.getipython import get_ipython

from serial_lora_course.checks.checking import find_check, run_check
from serial_lora_course.checks.failing import CheckFailed

MIME = "application/x-serial-lora-verdict+json"
PASSED, WRONG, OPEN, ABSENT = "passed", "wrong", "open", "absent"
_MISSING = object()
_before: dict[str, Any] = {}
LONGEST = 300  # characters of one text


def start(numbers: Sequence[str]) -> None:
    """Load the checks before any line of the learner's runs; tell which protection is in force."""
    for number in numbers:
        find_check(number)
    _tell(protection=getattr(sys, "_serial_lora_confined", ""))


def remember(names: Sequence[str]) -> None:
    """Keep what these names mean now, to see afterwards that a cell has defined them anew."""
    _before.update({name: _user_names().get(name, _MISSING) for name in names})


def judge(number: str, names: Sequence[str], failed: bool) -> None:
    """Put what the learner's cells defined under ``names`` to the check of one exercise.

    ``failed`` says that the cell ended with an error: a name that means what it meant before was
    not reached then.
    """
    objects = [_user_names().get(name, _MISSING) for name in names]
    was = [_before.get(name, _MISSING) for name in names]
    pairs = zip(objects, was, strict=True)
    if any(new is _MISSING or (failed and new is old) for new, old in pairs):
        _tell(result=ABSENT)
        return
    try:
        verified = run_check(number, *objects)
    except CheckFailed as failure:
        seen = f"{failure.what}: expected {failure.expected}, got {failure.got}"
        _tell(result=WRONG, why=failure.cause, seen=seen)
    except KeyboardInterrupt:
        raise  # it took too long, and is told as that
    except BaseException as error:  # sys.exit() in a learner's function is no reason to stop
        _tell(result=WRONG, why=f"it raised {type(error).__name__}: {error}")
    else:
        _tell(result=OPEN if verified is None else PASSED, why=verified or "")


def _user_names() -> dict[str, Any]:
    return get_ipython().user_ns


def _tell(**facts: str) -> None:
    short = {key: " ".join(str(text).split())[:LONGEST] for key, text in facts.items()}
    get_ipython().display_pub.publish(data={MIME: short})
