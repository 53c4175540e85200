"""The teaching side of the project: checks for exercises, lesson cards, notebook building, doctor.

A lesson needs one line::

    from serial_lora_course.checks import check, lesson_card

How lessons are written and built is told in :mod:`tools.notebooks`.
"""

from serial_lora_course.checks.checking import check, yours
from serial_lora_course.checks.failing import CheckFailed
from serial_lora_course.checks.lessons import lesson_card, lesson_list

__all__ = ["CheckFailed", "check", "lesson_card", "lesson_list", "yours"]
