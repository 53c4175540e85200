"""What lesson 01 measures and falls back to."""

import torch

from serial_lora_course.labs import pairs


def test_one_zero_matrix_starts_exactly_and_learns():
    table = pairs.four_starts(torch.randn(24, 8), rank=2).set_index(["A starts", "B starts"])
    table = table.astype(float) > 0
    assert table.loc[("random", "zero")].tolist() == [False, False, True]
    assert table.loc[("zero", "random")].tolist() == [False, True, False]
    assert table.loc[("random", "random")].all() and not table.loc[("zero", "zero")].any()


def test_a_wish_is_reached_where_its_miss_is_rounding():
    curves = {"lora": torch.tensor([1.0, 1e-9]), "x": torch.tensor([1.0, 0.5])}
    curves["serial_lora"] = torch.tensor([1.0, 0.25])
    row = pairs.first_ranks({"wish": curves}).iloc[0].tolist()
    assert row == ["wish", 1, "never", "never", "25%"]


def test_a_stronger_pair_loses_more_bits():
    W = torch.randn(48, 16)
    found = [
        pairs.undone(W, A, B, torch.bfloat16)
        for A, B in pairs.pairs_of_growing_strength(W, 4).values()
    ]
    errors, same = zip(*found, strict=True)
    assert errors[0] < errors[2] < errors[3] and same[0] > same[2] > same[3]
