"""What lesson 07 measures without a model."""

import pytest
import torch
from torch import nn

from serial_lora_course.claims import methods
from serial_lora_course.claims import sd3 as words
from serial_lora_course.claims.paper import paper_facts, paper_table
from serial_lora_course.labs import sd3_probes as probes
from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records


def test_latents_kept_by_step_meet_others_captions():
    names, kept = list("abcdef"), []

    def by_step(step, positions):
        kept.extend([positions] * (len(kept) < 3))
        return kept[step]

    once = probes.EncodedOnce(lambda example: torch.tensor(names.index(example.picture_id)))
    wrong = probes.dealt(names, by_step).groupby("round")["right"].sum()
    right = probes.dealt(names, lambda _, some: once.batch(probes.named_pictures(names, some)))
    assert wrong[1] == 6 and wrong[2] < 6
    assert right["right"].all() and len(once.kept) == 6


class ByKeyword(nn.Module):
    def forward(self, hidden_states):
        return hidden_states


def test_a_hook_by_position_hears_nothing_of_a_call_by_keyword():
    layer = ByKeyword()
    heard = probes.heard_by(layer, lambda: layer(hidden_states=torch.zeros(2, 3)))
    assert heard == {"arguments by position": 0, "hidden_states": (2, 3)}
    assert not layer._forward_pre_hooks


def test_the_records_and_the_paper_are_told_as_they_are():
    results, printed = frame(shipped_records("sd3")), paper_table("Table II")
    facts = paper_facts()
    behind = f"behind LoRA in {facts['serial_behind_fid']} of {facts['fid_cells']}"
    assert behind in words.read_table_ii(printed)
    falls = words.falls(results)
    assert falls.iloc[0].tolist() == [1, 1, 1] and (falls.iloc[-1] < 1).all()
    turned = words.turned(results)
    table = methods.verdicts(turned, ("fid",), [methods.EQUAL_RANK])
    plain = methods.verdicts(results, ("fid",), [methods.EQUAL_RANK])
    assert table["better by"].tolist() == pytest.approx((-plain["better by"]).tolist())
