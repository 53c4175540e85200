"""What the SD3 of each scale is measured on before it is tuned: captioned pictures of a known kind."""

import numpy as np
import pytest

from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.style_sets import SIZE, caption
from serial_lora_course.lessons.l06_sd3.known_pictures import known_pictures


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_examples_are_captioned_by_what_they_show(scale):
    known = known_pictures(scale)
    assert len({example.picture_id for example in known.examples}) == len(known.examples) > 3
    for example in known.examples:
        (beside,) = known.beside([example.caption])[known.name]
        assert np.array_equal(beside, example.picture) and example.picture.mode == "RGB"


def test_twemoji_stands_beside_a_caption_that_it_drew_and_nothing_beside_others():
    emoji = load_emoji("twemoji", SIZE)
    known, words = known_pictures("tiny"), caption(emoji.concepts[7])
    assert np.array_equal(known.beside([words])["Twemoji"][0], emoji.picture(7))
    assert known.beside([words, "a thing that nobody drew"]) == {}
