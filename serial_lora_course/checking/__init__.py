"""The checks of the exercises: cases, mistakes, messages, and the answers that lessons go on with.

A lesson needs one line::

    from serial_lora_course.checking import check, lesson_card, yours

The exercises themselves are in ``serial_lora_course/lessons/lNN_name/checks.py``.
"""

from serial_lora_course.checking.lessons import lesson_card
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import check
from serial_lora_course.checking.yours import yours

__all__ = ["CheckFailed", "check", "lesson_card", "yours"]
