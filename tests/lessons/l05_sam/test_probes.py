"""What lesson 05 measures."""

import numpy as np
import pytest
import torch
from torch import nn

from serial_lora.layers import LoRA
from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l05_sam import probes, tables


def test_a_token_sees_its_own_window():
    seen = probes.seen_by((5, 2), window=4, grid=6)
    assert torch.nonzero(seen).tolist() == [[y, x] for y in (4, 5) for x in range(4)]
    assert probes.seen_by((5, 2), window=0, grid=6).all()


class Doubled(nn.Module):
    """Adds both changes to the frozen layer's output, in place or not."""

    in_place = True

    def __init__(self, qkv, rank):
        super().__init__()
        self.qkv, d = qkv, qkv.in_features
        self.pair_q, self.pair_v = LoRA(d, d, rank), LoRA(d, d, rank)

    def forward(self, x):
        change = torch.cat([self.pair_q(x), torch.zeros_like(x), self.pair_v(x)], -1)
        qkv = self.qkv(x)
        return qkv.add_(change) if self.in_place else qkv + change


class OutOfPlace(Doubled):
    in_place = False


def test_an_edit_in_place_hides_from_a_probe_and_is_made_twice():
    edited, mended = (list(probes.symptoms(kind).values()) for kind in (Doubled, OutOfPlace))
    assert edited[0] == "0.00" and float(edited[2]) == pytest.approx(2 * float(edited[1]), abs=0.02)
    assert mended[0] == mended[1] == mended[2] != "0.00"
    assert mended[3] == "(1, 16, 48)"


def test_the_records_are_counted_as_by_loops():
    results = frame(shipped_records("sam"))
    table = tables.by_set(results)
    some = results[(results["amount"] == 100) & (results["method"] == "serial_lora")]
    food = some[some["dataset"] == "food"]
    assert table.loc["food", "gain"] == pytest.approx(np.mean(food["dice"] - food["base_dice"]))
