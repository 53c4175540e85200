"""What lesson 07 measures."""

import pytest
import torch

from serial_lora_course.lessons.l07_lora_plus import steps


def parts(A, B, step_A, step_B):
    return step_B @ A, B @ step_A, step_B @ step_A


def test_only_b_moves_in_the_first_step():
    table = steps.watch_steps(lambda A, B: torch.optim.SGD([A, B], lr=0.1), parts, (1, 2))
    first, second = table.iloc[0], table.iloc[1]
    assert first[["size of ΔA", "B ΔA", "ΔB ΔA"]].tolist() == [0, 0, 0]
    assert first["size of ΔB"] > 0 and second["size of ΔA"] > 0
    assert second["loss before"] < first["loss before"]


def test_the_ratio_multiplies_bs_part_alone():
    one, ten = (steps.one_step_at(ratio, 0.01, parts) for ratio in (1, 10))
    assert ten["B's part"] == pytest.approx(10 * one["B's part"], rel=1e-4)
    assert ten["A's part"] == one["A's part"]


def test_a_step_of_b_does_the_same_at_every_width():
    effects = [steps.effect_of_steps(False, width) for width in (64, 256)]
    assert effects[1]["A"] > 2.5 * effects[0]["A"]
    assert effects[1]["B"] == pytest.approx(effects[0]["B"], rel=0.3)
