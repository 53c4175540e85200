"""The probes of lesson 03 on blocks written apart from them, and what the cards show."""

import pytest
import torch

from serial_lora_course.checks import lesson_03, lesson_card, lesson_list, lessons
from serial_lora_course.labs import probes

KINDS = {
    "Faithful": (True, True, 1),
    "Ineffective": (False, True, 1),
    "OnTheStream": (True, False, 1),
    "PairEach": (True, True, 3),
    "SharedPair": (True, True, 1),
}


@pytest.mark.parametrize("name", KINDS)
def test_probes_tell_the_variants_apart(name):
    adapted, x = getattr(lesson_03, name)(), torch.randn(2, 4, 8)
    before = {key: value.clone() for key, value in adapted.state_dict().items()}
    found = (
        probes.reaches_output(adapted, x),
        probes.leaves_stream_alone(adapted, x),
        probes.number_of_pairs(adapted),
    )
    assert found == KINDS[name]
    assert all(torch.equal(value, before[key]) for key, value in adapted.state_dict().items())


def test_table_gives_the_verdict():
    blocks = {name: getattr(lesson_03, name)() for name in KINDS}
    verdicts = probes.probe_table(blocks, torch.randn(1, 3, 8))["Serial LoRA?"]
    assert dict(verdicts) == {
        "Faithful": "yes",
        "Ineffective": "no",
        "OnTheStream": "no",
        "PairEach": "no",
        "SharedPair": "yes",
    }


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr("IPython.display.display", lambda thing: texts.append(thing.data))
    return texts


def test_card_and_list_show_what_was_measured(monkeypatch, shown):
    measured = {"02": {"seconds": 130, "peak_mb": 581, "cores": 2}}
    monkeypatch.setattr(lessons, "read_measured", lambda: measured)
    lesson_card("02")
    lesson_list()
    card, listed = shown
    assert "about 3 minutes" in card and "0.6 GB" in card and "2 CPU cores" in card
    for lesson in lessons.LESSONS:
        assert f"({lesson.stem}.ipynb)" in listed
    assert "not measured yet" in listed


def test_missing_measurements_are_no_error(tmp_path):
    assert lessons.read_measured(tmp_path / "none.json") == {}
