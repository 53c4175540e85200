"""Pictures, shares of captions, bars of counts and tables show the numbers that they are given."""

import numpy as np
import pandas as pd
import torch
from PIL import Image

from serial_lora_course.lessons.l00_start.figures import plot_shares
from serial_lora_course.lessons.l02_count.figures import plot_counts
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.tables import display_table


def test_pictures_of_every_form_are_shown_alike():
    array = np.linspace(0, 1, 5 * 6 * 3, dtype=np.float32).reshape(5, 6, 3)
    byte = (array * 255).round().astype(np.uint8)
    forms = [Image.fromarray(byte), byte, array, torch.from_numpy(array).permute(2, 0, 1)]
    figure = show_pictures(forms, ["image", "bytes", "floats", "tensor"], columns=2)
    drawn = [np.asarray(axes.images[0].get_array(), dtype=float) for axes in figure.axes]
    for picture in drawn:
        scaled = picture / 255 if picture.max() > 1 else picture
        np.testing.assert_allclose(scaled, array, atol=1 / 255)
    assert "image; bytes; floats; tensor" in figure.alt_text
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    masks = show_pictures([np.eye(4), torch.eye(4).bool()[None], clear]).axes
    assert [axes.images[0].get_array().shape for axes in masks] == [(4, 4), (4, 4), (4, 4, 4)]


def test_shares_print_the_largest_of_each_row_in_bold():
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]])
    figure = plot_shares([np.eye(4)] * 2, ["a cat", "a dog", "a key"], shares)
    texts = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}
    assert set(texts) == {"70%", "20%", "10%", "5%", "15%", "80%"}
    assert {words for words, weight in texts.items() if weight == "bold"} == {"70%", "80%"}
    assert len(figure.axes) == 3 and "a key, 80%" in figure.alt_text


def test_counts_are_written_on_their_bars():
    figure = plot_counts()
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["3,932,160", "983,040", "4,718,592", "1,179,648", "18,874,368", "4,718,592"]
    assert all(word in figure.alt_text for word in words)
    assert [bar.get_width() for bar in plot_counts({"one": (8, 2)}).axes[0].patches] == [8, 2]
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks[:2] == ["0", "5M"]


def test_a_table_has_words_left_and_numbers_right(capture_display):
    frame = pd.DataFrame({"who": ["a|b", "c"], "count": [1234567, 8], "ratio": [4.0, 3.25]})
    frame["as text"] = ["**3.84**", "1,000"]
    display_table(frame)
    (shown,) = capture_display
    assert shown["text/markdown"].splitlines() == [
        "| who | count | ratio | as text |",
        "| :--- | ---: | ---: | ---: |",
        "| a\\|b | 1,234,567 | 4.00 | **3.84** |",
        "| c | 8 | 3.25 | 1,000 |",
    ]
