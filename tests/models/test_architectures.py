"""Formula and injected tensors give one number on real models, built on the meta device."""

import pytest
import torch

from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.injection import eject, inject
from serial_lora.parameters import count_parameters
from tests.models.architectures import ARCHITECTURES

PAPER_COUNTS = {
    "clip": (3_932_160, 983_040),
    "sam": (4_718_592, 1_179_648),
    "sd3": (18_874_368, 4_718_592),
}


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_the_formula_counts_what_is_injected(key):
    item, counts = ARCHITECTURES[key], []
    model = item.on_meta()
    for kind, formula in ((LoRAConfig, item.lora), (SerialLoRAConfig, item.serial_lora)):
        with torch.device("meta"):
            inject(model, kind(rank=item.rank))
        counts.append(count_parameters(model).adapter)
        assert counts[-1] == formula()
        eject(model)
    assert counts[0] == 4 * counts[1]
    if key in PAPER_COUNTS:
        assert tuple(counts) == PAPER_COUNTS[key]


def test_both_streams_of_sd3():
    """Eight projections a block, but the last block has no text output: 24 * 8 - 1 pairs."""
    model = ARCHITECTURES["sd3"].on_meta()
    for kind, pairs in ((LoRAConfig, 24 * 8 - 1), (SerialLoRAConfig, 24 * 2)):
        with torch.device("meta"):
            inject(model, kind(rank=64, stream="both"))
        assert count_parameters(model).adapter == pairs * 2 * 1536 * 64
        eject(model)
