"""The panel of the study's front, driven as a learner's hands would drive it."""

import pytest

from serial_lora_course.panels import fronts
from tests.figures.test_study import ARMS

LABS = {"sam": ARMS, "clip": ARMS.assign(parameters=ARMS["parameters"] * 10)}
UNITS = {"sam": "hundredths of Dice", "clip": "points"}


@pytest.fixture
def words(capture_display):
    """What was shown last, in words."""
    return lambda: [d["text/plain"] for d in capture_display if "<img " in str(d)][-1]


def test_the_slider_allows_more_and_every_choice_has_its_own_costs(words):
    panel = fronts.FrontPanel(LABS, UNITS)
    panel.most.index = 0
    assert "Up to 10 trained parameters: best is Serial LoRA, rank 4" in words()
    panel.most.index = len(panel.most.options) - 1
    assert "best is OFT, blocks of 64, +5.5 hundredths of Dice" in words()
    panel.lab.value = "clip"
    assert [cost for _, cost in panel.most.options] == [100, 400, 900, 1000]
    panel.cost.value = "step time"
    assert "processor time of a step" in words() and "points" in words()


def test_the_still_form_shows_each_lab_and_an_unfinished_study_says_so(capture_display, capsys):
    assert fronts.front_panel(LABS | {"sd3": ARMS[:0]}, UNITS) is None
    assert (
        sum("<img " in str(data) for data in capture_display) == 3
    )  # of the first lab, by each cost
    fronts.front_panel({"sam": ARMS[:0]}, UNITS)
    assert "No arm" in capsys.readouterr().out
