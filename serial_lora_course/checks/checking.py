"""Registering the checks of lessons that are not yet in their folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from serial_lora_course.checking.running import EXERCISES
from serial_lora_course.checks.cases import run_cases


def exercise(number: str, verified: str = "") -> Callable[[Callable], Callable]:
    """Register the decorated function as the check of an exercise, such as ``"2.3"``."""

    def register(function: Callable) -> Callable:
        EXERCISES[number] = partial(run_cases, function, verified) if verified else function
        return function

    return register
