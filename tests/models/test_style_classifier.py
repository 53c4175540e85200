"""The style classifier: right on drawings it never saw, and not deceived by what only resembles a style."""

import json

import pytest

from data_scripts.pretraining.styles import deceived_shares, held_out_shares
from serial_lora_course.data.style_sets import TINY_STYLES
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.style_classifier import BASE, NO_STYLE, STYLES, style_classifier
from serial_lora_course.models.weights import tiny_file

# A little below what was measured: the card has the numbers.
AT_LEAST = {"twemoji": 0.87, "openmoji": 0.83, "line": 0.88, "night": 0.95, "pixel": 0.95}


@pytest.fixture(scope="module")
def classifier():
    return style_classifier(load_clip("tiny"))


@pytest.fixture(scope="module")
def card():
    return json.loads(tiny_file("tiny-styles.card.json").read_text("utf-8"))


def test_every_style_is_told_from_the_others_on_drawings_never_seen(classifier, card):
    found = held_out_shares(classifier)
    assert tuple(found) == STYLES == (BASE, *TINY_STYLES)
    assert set(classifier.names) == {*STYLES, NO_STYLE}
    assert all(found[name] >= bound for name, bound in AT_LEAST.items()), found
    assert {name: card["measured"][name] for name in STYLES} == pytest.approx(found, abs=0.01)


def test_tiles_bars_and_borrowed_colours_deceive_it_in_less_than_one_case_of_ten(classifier, card):
    deceived = deceived_shares(classifier)
    for deception, shares in deceived.items():
        assert all(share < 0.1 for share in shares.values()), (deception, shares)
        assert card["deceived"][deception] == pytest.approx(shares, abs=0.02)
