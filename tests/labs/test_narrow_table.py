"""The tables that close the labs, in a terminal of eighty columns: no number may be cut."""

import io

import pytest
from rich.console import Console

from serial_lora_course.labs.records import Record
from serial_lora_course.labs.report import results_table


def printed(records, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(results_table(records))
    text = out.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_of_the_clip_lab_is_cut(width):
    records = [
        Record(
            "clip",
            "paper",
            "oxford_pets",
            method,
            16,
            "shots",
            seed,
            32,
            {"accuracy": 0.9 + seed / 100, "zero_shot_generic": 0.885},
            {"parameters": 3932160, "bytes": 15728640},
            123.4,
            {"prompt": "generic"},
        )
        for method in ("serial_lora_plus", "lora_equal_budget")
        for seed in (1, 2, 3)
    ]
    text = printed(records, width)
    for number in ("3,932,160", "15,728,640", "88.5%", "92.0%", "123"):
        assert text.count(number) == 2, text
    assert "89.07%" in text  # what the paper's Table III prints for Serial LoRA+ on Pets, 16 shots


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_of_the_sam_lab_is_cut(width):
    records = [
        Record(
            "sam",
            "paper",
            "strawberry",
            method,
            100,
            "percent",
            seed,
            64,
            {
                "dice": 0.9 + seed / 100,
                "one_minus_dice": 0.1 - seed / 100,
                "dice_ce": 0.2346,
                "iou": 0.8766,
                "base_dice": 0.7777,
                "box_dice": 0.6543,
            },
            {"parameters": 4718592, "bytes": 18874368},
            123.4,
        )
        for method in ("serial_lora_plus", "lora")
        for seed in (1, 2, 3)
    ]
    text = printed(records, width)
    for number in ("4,718,592", "0.920", "0.080", "0.235", "0.877", "123"):
        assert text.count(number) == 2, (number, text)
    for number in ("0.654", "0.346", "0.778", "0.222"):  # the box and the base, each told once
        assert text.count(number) == 1, (number, text)
    assert "0.1140" in text  # what the paper's Table IV prints for LoRA on strawberries, all data
