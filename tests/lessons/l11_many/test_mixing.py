"""The average of factors is what it says."""

import torch
from torch import nn

from serial_lora import SerialLoRAConfig, adapter_names, adapters, add_adapter, inject
from serial_lora_course.lessons.l11_many.mixing import average_factors, first_pair


def test_averaged_factors_are_weighted_sums_of_each_matrix():
    model = inject(nn.TransformerEncoderLayer(8, 2, batch_first=True), SerialLoRAConfig(rank=2))
    add_adapter(model, "other", SerialLoRAConfig(rank=2))
    names, found = adapter_names(model), {}
    for name in names:
        pair = first_pair(model, name)
        for matrix in next(iter(adapters(model).values())).parameters():
            nn.init.normal_(matrix)
        found[name] = first_pair(model, name)
        assert not torch.equal(found[name][1], pair[1])
    average_factors(model, dict(zip(names, (0.5, 2.0), strict=True)))
    for matrix, one, other in zip(
        next(iter(adapters(model).values())).parameters(), *found.values(), strict=True
    ):
        torch.testing.assert_close(matrix.detach(), 0.5 * one + 2 * other)
