"""The teaching side of the project: checks for exercises, lesson cards, notebook building, doctor.

A lesson needs one line::

    from serial_lora.course import check, lesson_card

How lessons are written and built is told in :mod:`serial_lora.course.notebooks`.
"""

from serial_lora.course.checking import CheckFailed, check
from serial_lora.course.lessons import lesson_card, lesson_list

__all__ = ["CheckFailed", "check", "lesson_card", "lesson_list"]
