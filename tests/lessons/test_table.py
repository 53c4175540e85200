"""The table of lessons: cards and the list."""

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking import lesson_card, lesson_list, lessons


def test_card_and_list_show_the_minutes(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(lessons, "display", lambda thing: shown.append(thing.data))
    monkeypatch.setattr(lessons, "read_measured", lambda: {"02": {"minutes": 35}})
    lesson_card("2")
    lesson_list()
    card, listed = shown
    assert "35 minutes" in card and lessons.find_lesson("02").prerequisites in card
    rows = listed.splitlines()[2:]
    assert len(rows) == len(lessons.LESSONS)
    for lesson, row in zip(lessons.LESSONS, rows, strict=True):
        assert f"({lesson.stem}.ipynb)" in row
        assert row.endswith("| 35 |" if lesson.number == "02" else "| ? |")


def test_unknown_lesson_names_the_known():
    with pytest.raises(SerialLoRAError, match="the lessons are 00"):
        lessons.find_lesson("77")


def test_a_course_without_measurements_is_no_error(tmp_path):
    assert lessons.read_measured(tmp_path / "none.json") == {}
