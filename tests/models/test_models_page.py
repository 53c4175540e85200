"""The page on how good the tiny models are holds their cards' numbers."""

import json

import pytest

from serial_lora_course.models.weights import tiny_file
from tools import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
COLUMNS = {"tiny-clip": 1, "tiny-sam": 2, "tiny-sd3": 3}


def cell(row: str, name: str) -> str:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row} |")]
    return line.split("|")[COLUMNS[name] + 1].strip()


@pytest.mark.parametrize("name", COLUMNS)
def test_sizes_and_minutes_are_the_cards(name):
    card = json.loads(tiny_file(f"{name}.card.json").read_text("utf-8"))
    assert cell("parameters", name) == f"{card['parameters']:,}"
    assert cell("minutes on processor threads", name).startswith(f"{card['minutes']:.0f} on ")


def test_what_they_reach_is_what_was_measured():
    clip, sam, sd3 = (
        json.loads(tiny_file(f"{name}.card.json").read_text("utf-8"))["measured"]
        for name in COLUMNS
    )
    zero_shot = [value for name, value in clip.items() if name.startswith("zero-shot")]
    told = (sum(zero_shot) / len(zero_shot), clip["openmoji R@1"])
    reaches = cell("what it reaches", "tiny-clip")
    assert [f"{value:.0%}" in reaches for value in told] == [True, True], told
    of_sam = cell("what it reaches", "tiny-sam")
    assert all(f"{sam[f'twemoji {kind} Dice']:.2f}" in of_sam for kind in ("box", "filled box"))
    of_sd3 = cell("what it reaches", "tiny-sd3")
    assert all(f"{sd3[kind]:.0%}" in of_sd3 for kind in ("retrieval", "retrieval, real"))
