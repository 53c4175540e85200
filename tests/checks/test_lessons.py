"""The table of lessons: cards, the list, minutes and memory in words."""

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks import lesson_card, lesson_list, lessons


def test_card_and_list_show_what_was_measured(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(lessons, "display", lambda thing: shown.append(thing.data))
    facts = {"peak_mb": 581, "cores": 2, "instructions": "AVX512"}
    measured = {"02": {"seconds": 130, "avx2_seconds": 190} | facts}
    monkeypatch.setattr(lessons, "read_measured", lambda: measured)
    lesson_card("02")
    lesson_list()
    card, listed = shown
    assert "| Time to run, 2 CPU cores, AVX512 | about 3 minutes |" in card and "0.6 GB" in card
    assert "| The same with AVX2 alone | about 4 minutes |" in card
    assert lessons.say_machine({"cores": 8}) == "8 CPU cores"
    for lesson in lessons.LESSONS:
        assert f"({lesson.stem}.ipynb)" in listed
    assert "not measured yet" in listed


def test_missing_measurements_are_no_error(tmp_path):
    assert lessons.read_measured(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (4, "less than 1 minute"),
        (60, "less than 1 minute"),
        (60.5, "about 2 minutes"),
        (61, "about 2 minutes"),
        (120, "about 2 minutes"),
        (120.4, "about 3 minutes"),
    ],
)
def test_minutes_are_rounded_up(seconds, said):
    assert lessons.say_minutes({"seconds": seconds}) == said


def test_unknown_lesson_names_the_known():
    with pytest.raises(SerialLoRAError, match="the lessons are 00"):
        lessons.find_lesson("77")
    assert lessons.say_minutes(None) == lessons.say_memory(None) == "not measured yet"
    assert lessons.say_memory({"peak_mb": 581}) == "0.6 GB"
