"""Pictures and tables show what they are given."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.tables import display_table, require_columns


def test_pictures_of_every_form_are_shown_alike():
    array = np.linspace(0, 1, 5 * 6 * 3, dtype=np.float32).reshape(5, 6, 3)
    byte = (array * 255).round().astype(np.uint8)
    forms = [Image.fromarray(byte), byte, array, torch.from_numpy(array).permute(2, 0, 1)]
    figure = show_pictures(forms, ["image", "bytes", "floats", "tensor"], columns=2)
    for axes in figure.axes:
        picture = np.asarray(axes.images[0].get_array(), dtype=float)
        scaled = picture / 255 if picture.max() > 1 else picture
        np.testing.assert_allclose(scaled, array, atol=1 / 255)
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    masks = show_pictures([np.eye(4), torch.eye(4).bool()[None], clear]).axes
    assert [axes.images[0].get_array().shape for axes in masks] == [(4, 4), (4, 4), (4, 4, 4)]


@pytest.mark.parametrize("arguments", [([],), ([np.eye(4)], ["one", "two"]), ([np.zeros(4)],)])
def test_what_cannot_be_shown_is_refused(arguments):
    with pytest.raises(SerialLoRAError):
        show_pictures(*arguments)


def test_a_table_has_words_left_and_numbers_right(capture_display):
    frame = pd.DataFrame({"who": ["a|b", "c"], "count": [1234567, 8], "ratio": [4.0, 3.25]})
    display_table(frame)
    (shown,) = capture_display
    assert shown["text/markdown"].splitlines()[1:] == [
        "| :--- | ---: | ---: |",
        "| a\\|b | 1,234,567 | 4.00 |",
        "| c | 8 | 3.25 |",
    ]


def test_a_table_that_lacks_a_column_is_refused():
    for frame in (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [], "b": []})):
        with pytest.raises(SerialLoRAError, match="a, b"):
            require_columns(frame, ["a", "b"])
