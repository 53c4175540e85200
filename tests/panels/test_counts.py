"""The panel of counts, driven as a learner's hands would drive it."""

import re

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.frontend import is_static
from serial_lora_course.panels.counts import OWN, CountPanel, count_panel


@pytest.fixture
def counts(capture_display):
    """What was shown last: LoRA's and Serial LoRA's parameters, as the table prints them."""

    def read() -> list[int]:
        table = [data["text/markdown"] for data in capture_display if "text/markdown" in data][-1]
        numbers = re.findall(r"x depth \| ([\d,]+)", table)
        return [int(number.replace(",", "")) for number in numbers]

    return read


def test_moving_a_slider_changes_both_counts_at_once(counts):
    panel = CountPanel(rank=32, width=768, depth=12)
    assert counts() == [2_359_296, 589_824]
    panel.rank.value = 16
    assert counts() == [2_359_296 // 2, 589_824 // 2]
    panel.depth.value = 24
    assert counts() == [2_359_296, 589_824]
    panel.width.value = 1536
    assert counts() == [2 * 2_359_296, 2 * 589_824]


def test_the_rank_never_exceeds_the_width(counts):
    panel = CountPanel(rank=200, width=768, depth=2)
    panel.width.value = 64
    assert panel.rank.value == 64
    assert counts() == [8 * 64 * 64 * 2, 2 * 64 * 64 * 2]


def test_every_preset_can_follow_every_other_and_a_moved_slider_takes_its_name_away(counts):
    panel = CountPanel()
    for name in [*panel.preset.options, panel.preset.options[1]]:
        panel.preset.value = name
        assert panel.preset.value == name
        wanted = 8 * panel.width.value * panel.rank.value * panel.depth.value
        assert counts()[0] == wanted
    panel.preset.value = next(name for name in panel.preset.options if name.startswith("SD3"))
    assert (panel.rank.value, panel.width.value, panel.depth.value) == (64, 1536, 24)
    assert counts() == [18_874_368, 4_718_592]
    panel.depth.value = 3
    assert panel.preset.value == OWN


def test_the_still_form_shows_a_table_and_a_described_figure(capture_display, counts):
    assert count_panel(rank=8, width=64, depth=3) is None
    assert counts() == [12_288, 3_072]
    (alt,) = (data["text/plain"] for data in capture_display if "<img " in str(data))
    assert "12,288" in alt and "3,072" in alt


@pytest.mark.parametrize(
    ("value", "still"), [("1", True), ("true", True), ("0", False), ("", True)]
)
def test_the_environment_decides_and_else_whether_a_kernel_runs(monkeypatch, value, still):
    monkeypatch.setenv("SERIAL_LORA_STATIC", value)
    assert is_static() is still


def test_bad_numbers_are_refused_before_anything_is_shown(capture_display):
    for numbers in ((0, 64, 2), (65, 64, 2), (4, 64, 0)):
        with pytest.raises(SerialLoRAError):
            count_panel(*numbers)
    assert capture_display == []
