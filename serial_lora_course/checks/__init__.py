"""The checks of lessons that are not yet in their folders; see :mod:`serial_lora_course.checking`."""

from serial_lora_course.checking import CheckFailed, check, lesson_card, lesson_list, yours

__all__ = ["CheckFailed", "check", "lesson_card", "lesson_list", "yours"]
