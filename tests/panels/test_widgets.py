"""The panel, driven as a learner's hands would drive it."""

import re

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.frontend import is_static
from serial_lora_course.panels.counts import CountPanel, count_panel, count_table


def shown_counts(panel: CountPanel) -> list[int]:
    """The parameter counts as the panel's HTML prints them."""
    found = re.findall(r"([\d,]+) parameters</td>", panel.result.value)
    return [int(number.replace(",", "")) for number in found]


def shown_ratio(panel: CountPanel) -> float:
    return float(re.search(r"<b>([\d.]+)</b> times", panel.result.value).group(1))


def test_moving_a_slider_changes_both_counts_at_once():
    panel = CountPanel(rank=32, width=768, depth=12)
    assert shown_counts(panel) == [2_359_296, 589_824]
    panel.rank.value = 16
    assert shown_counts(panel) == [2_359_296 // 2, 589_824 // 2]
    panel.depth.value = 24
    assert shown_counts(panel) == [2_359_296, 589_824]
    panel.width.value = 1536
    assert shown_counts(panel) == [2 * 2_359_296, 2 * 589_824]
    assert shown_ratio(panel) == 4


def test_the_rank_never_exceeds_the_width():
    panel = CountPanel(rank=200, width=768, depth=2)
    panel.width.value = 64
    assert panel.rank.value == 64
    assert shown_counts(panel) == [8 * 64 * 64 * 2, 2 * 64 * 64 * 2]


def test_a_preset_fills_the_sliders_and_moving_one_leaves_the_preset():
    panel = CountPanel()
    name = next(option for option in panel.preset.options if option.startswith("SD3"))
    panel.preset.value = name
    assert (panel.rank.value, panel.width.value, panel.depth.value) == (64, 1536, 24)
    assert shown_counts(panel) == [18_874_368, 4_718_592]
    assert panel.preset.value == name
    panel.depth.value = 3
    assert panel.preset.value == "your own"


def test_every_preset_can_follow_every_other():
    panel = CountPanel()
    for name in [*panel.preset.options, *reversed(panel.preset.options)]:
        panel.preset.value = name
        assert panel.preset.value == name
        wanted = 8 * panel.width.value * panel.rank.value * panel.depth.value
        assert shown_counts(panel)[0] == wanted


def test_the_table_has_bytes_and_ratio():
    table = count_table(rank=4, width=64, depth=2)
    assert list(table["parameters"]) == [4096, 1024]
    assert list(table["float32 bytes"]) == [16384, 4096]
    assert list(table["ratio"]) == [4, 1]


def test_the_still_form_shows_a_table_and_a_described_figure(capture_display):
    assert count_panel(rank=8, width=64, depth=3, static=True) is None
    kinds = [set(data) for data in capture_display]
    assert any("image/png" in kind for kind in kinds)
    words = " ".join(str(value) for data in capture_display for value in data.values())
    assert "12,288" in words and "3,072" in words
    assert not any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds)


@pytest.mark.parametrize(("value", "still"), [("1", True), ("true", True), ("0", False)])
def test_the_environment_decides(monkeypatch, value, still):
    monkeypatch.setenv("SERIAL_LORA_STATIC", value)
    assert is_static() is still


def test_without_a_kernel_the_panel_is_still(monkeypatch):
    monkeypatch.delenv("SERIAL_LORA_STATIC", raising=False)
    assert is_static()


def test_a_live_panel_comes_back_for_the_learner_to_use(monkeypatch, capture_display):
    monkeypatch.setenv("SERIAL_LORA_STATIC", "0")
    panel = count_panel(rank=8, width=64, depth=3)
    panel.rank.value = 16
    assert shown_counts(panel) == [8 * 64 * 16 * 3, 2 * 64 * 16 * 3]


def test_bad_numbers_are_refused_before_anything_is_shown(capture_display):
    for numbers in ((0, 64, 2), (65, 64, 2), (4, 64, 0)):
        with pytest.raises(SerialLoRAError):
            count_panel(*numbers)
    assert capture_display == []
