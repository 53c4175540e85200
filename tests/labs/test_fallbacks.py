"""What lessons 04 and 09 to 12 fall back to passes their checks, and the average is what it says."""

import pytest
import torch
from torch import nn

from serial_lora import SerialLoRAConfig, adapter_names, adapters, add_adapter, inject
from serial_lora_course.checks.checking import run_check
from serial_lora_course.claims import choosing
from serial_lora_course.claims.verdicts import verdict_comparable
from serial_lora_course.labs import few_shot, many, proofs

FALLBACKS = {
    "4.1": few_shot.similarity_scores,
    "4.2": few_shot.zero_shot_accuracy,
    "4.4": few_shot.cut_prompts,
    "4.5": few_shot.lora_rank_within,
    "9.1": choosing.matching_rank,
    "9.2": choosing.one_error_rank,
    "9.3": choosing.paired_error,
    "9.4": choosing.sign_test,
    "9.5": verdict_comparable,
    "10.1": many.add_pairs,
    "10.2": many.chain_pairs,
    "10.3": many.adapt_each,
    "12.1": proofs.split_by_object,
    "12.2": proofs.merge_is_proved,
    "12.3": proofs.ordinary_pair,
    "12.4": proofs.parallel_sites,
}


@pytest.mark.parametrize(("number", "answer"), FALLBACKS.items(), ids=FALLBACKS)
def test_it_passes(number, answer):
    assert run_check(number, answer)


def test_averaged_factors_are_weighted_sums_of_each_matrix():
    model = inject(nn.TransformerEncoderLayer(8, 2, batch_first=True), SerialLoRAConfig(rank=2))
    add_adapter(model, "other", SerialLoRAConfig(rank=2))
    names, found = adapter_names(model), {}
    for name in names:
        pair = many.first_pair(model, name)
        for matrix in next(iter(adapters(model).values())).parameters():
            nn.init.normal_(matrix)
        found[name] = many.first_pair(model, name)
        assert not torch.equal(found[name][1], pair[1])
    many.average_factors(model, dict(zip(names, (0.5, 2.0), strict=True)))
    for matrix, one, other in zip(
        next(iter(adapters(model).values())).parameters(), *found.values(), strict=True
    ):
        torch.testing.assert_close(matrix.detach(), 0.5 * one + 2 * other)
