"""The table that closes a lab, in a terminal of eighty columns: no number may be cut."""

import io

import pytest
from rich.console import Console

from serial_lora.cli import results_table
from serial_lora.results import Record


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_is_cut(width):
    records = [
        Record(
            "clip", "paper", "oxford_pets", method, 16, seed, 32,
            {"accuracy": 0.9 + seed / 100, "zero_shot_generic": 0.885},
            {"parameters": 3932160, "bytes": 15728640}, 123.4, {"prompt": "generic"},
        )
        for method in ("serial_lora_plus", "lora_equal_budget")
        for seed in (1, 2, 3)
    ]  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=width).print(results_table(records))
    text = out.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for number in ("3,932,160", "15,728,640", "88.5%", "92.0%", "123"):
        assert text.count(number) == 2, text
    assert "89.07%" in text  # what the paper's Table III prints for Serial LoRA+ on Pets, 16 shots
