"""What lessons fall back to passes their checks, and the average is what it says."""

import pytest
import torch
from torch import nn

from serial_lora import SerialLoRAConfig, adapter_names, adapters, add_adapter, inject
from serial_lora_course.checking.running import run_check
from serial_lora_course.labs import few_shot, proofs
from serial_lora_course.lessons.l01_maths import pairs
from serial_lora_course.lessons.l03_build import probes
from serial_lora_course.lessons.l05_sam import probes as sam_probes
from serial_lora_course.lessons.l06_sd3 import studio as sd3_probes
from serial_lora_course.lessons.l07_lora_plus import ratios, steps
from serial_lora_course.lessons.l11_many import mixing as many

FALLBACKS = {
    "1.1": pairs.rank_for_miss,
    "1.2": pairs.lora_pairs_of,
    "1.3": pairs.nearest_serial_pair,
    "1.4": pairs.serial_gradient_of_B,
    "3.2": probes.run_adapted,
    "3.3": probes.merge_pair,
    "4.1": few_shot.similarity_scores,
    "4.2": few_shot.zero_shot_accuracy,
    "4.4": few_shot.cut_prompts,
    "4.5": few_shot.lora_rank_within,
    "5.1": steps.change_of_product,
    "5.2": steps.first_adam_step,
    "5.3": steps.plus_groups,
    "5.4": steps.share_left,
    "5.5": ratios.best_ratio,
    "6.1": sam_probes.to_model_frame,
    "6.2": sam_probes.dice_of,
    "6.3": sam_probes.adapted_windows,
    "6.4": sam_probes.add_to_q_and_v,
    "6.5": sam_probes.segmentation_loss,
    "7.1": sd3_probes.flow_path,
    "7.2": sd3_probes.projections_of,
    "7.3": sd3_probes.EncodedOnce,
    "7.4": sd3_probes.guided_velocity,
    "7.5": sd3_probes.clip_scores,
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
