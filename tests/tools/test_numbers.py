"""The check that a lesson's text tells numbers which an output above it shows."""

import time

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.numbers import unshown_numbers


def lesson(text, printed="", below=""):
    shown, later = (new_output("stream", name="stdout", text=each) for each in (printed, below))
    first, last = new_code_cell("rank = 16", outputs=[shown]), new_code_cell("", outputs=[later])
    return new_notebook(cells=[first, new_markdown_cell(text), last])


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("It is right on 84% of them.", "accuracy 0.836"),
        ("It is right on 83.6%.", "83.6%"),
        ("Dice rose to 0.83.", "Dice 0.8349"),
        ("All 1,884 drawings.", "1884 drawings"),
        ("The error is 3e-07.", "2.9e-07"),
        ("At rank 16 all three agree, as lesson 08 and exercise 12.3 say.", ""),
        ("## Quiz\n\n**1. With 25 seeds, is it 97% sure?**", ""),
        ("Stable Diffusion 3, without weights.", ""),
        ("See [the paper](https://example.org/2024/77) and `width = 64`, or $x^{12}$.", ""),
        ("The paper has 92.5. <!-- from the paper, Table II: 92.5 -->", ""),
    ],
)
def test_a_number_that_is_shown_passes(text, printed):
    assert unshown_numbers(lesson(text, printed)) == []


@pytest.mark.parametrize(
    ("text", "printed", "below"),
    [
        ("It is right on 85% of them.", "accuracy 0.836", ""),
        ("Dice rose to 0.84.", "Dice 0.8349", ""),
        ("LoRA+ won by 31 points.", "1 point, 310 pictures", ""),
        ("The gain is 12.4.", "", "the gain is 12.4"),
        ("The error is 3e-07.", "3e-06", ""),
        ("It takes 1e999999999 steps.", "1e99", ""),
        ("The error is 1e-999999999.", "1e-99", ""),
        ("It takes 32 pictures.", "float32, 1,4,16", ""),
        ("## Rank 77\n\nThe gain is 12.4.", "", ""),
        ("## Quiz\n\n**1. With 25?**\n\n## What to remember\n\nIt was 31%.", "", ""),
    ],
)
def test_a_wrong_number_is_caught(text, printed, below):
    assert len(unshown_numbers(lesson(text, printed, below=below))) == 1


def test_the_code_that_a_text_leads_to_and_a_pictures_alternative_text_count():
    batch, few = new_markdown_cell("In batches of 32:"), new_markdown_cell("It has 61.")
    code, nothing = new_code_cell("size = 32"), new_code_cell("")
    page = '<img alt="61 of 73 right"/>'
    shown, lines = (
        new_code_cell("", outputs=[new_output("display_data", data={"text/html": each})])
        for each in (page, [page])
    )
    for cells, wrong in (
        ([batch, code], 0),
        ([batch, nothing, code], 1),
        ([shown, few], 0),
        ([lines, few], 0),
    ):
        assert len(unshown_numbers(new_notebook(cells=cells))) == wrong


def test_what_is_folded_is_not_read_and_what_is_never_closed_is_read_in_time():
    begun = time.process_time()
    assert unshown_numbers(lesson("<details>77</details>\n" * 9)) == []
    assert len(unshown_numbers(lesson("<details>\n" * 10_000 + "It is 77."))) == 1
    assert time.process_time() - begun < 10  # a search from each to the end takes minutes
