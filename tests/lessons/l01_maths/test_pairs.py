"""What lesson 01 measures."""

import torch

from serial_lora_course.lessons.l01_maths import pairs


def test_a_wish_is_reached_where_its_miss_is_rounding():
    curves = {"lora": torch.tensor([1.0, 1e-9]), "x": torch.tensor([1.0, 0.5])}
    curves["serial_lora"] = torch.tensor([1.0, 0.25])
    row = pairs.first_ranks({"wish": curves}).iloc[0].tolist()
    assert row == ["wish", 1, "never", "never", "25%"]
