"""What lesson 06 measures without a model."""

import torch
from torch import nn

from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l06_sd3 import studio as probes
from serial_lora_course.lessons.l06_sd3 import tables


def test_latents_kept_by_step_meet_others_captions():
    names, kept = list("abcdef"), []

    def by_step(step, positions):
        kept.extend([positions] * (len(kept) < 3))
        return kept[step]

    wrong = probes.dealt(names, by_step).groupby("round")["right"].sum()
    right = probes.dealt(names, lambda _, positions: positions)
    assert wrong[1] == 6 and wrong[2] < 6 and right["right"].all()


class ByKeyword(nn.Module):
    def forward(self, hidden_states):
        return hidden_states


def test_a_hook_by_position_hears_nothing_of_a_call_by_keyword():
    layer = ByKeyword()
    heard = probes.heard_by(layer, lambda: layer(hidden_states=torch.zeros(2, 3)))
    assert heard == {"arguments by position": 0, "hidden_states": (2, 3)}
    assert not layer._forward_pre_hooks


def test_the_records_are_read_as_by_loops():
    results = frame(shipped_records("sd3"))
    falls = tables.falls(results)
    assert falls.iloc[0].tolist() == [1, 1, 1] and (falls.iloc[-1] < 1).all()
    night = tables.by_style(results).set_index("style").loc["night"]
    own = results[(results["dataset"] == "night") & (results["method"] == "serial_lora")]
    own = own[own["amount"] == 100]
    assert night["FID after"] == f"{sum(own['fid']) / len(own):.1f}"
