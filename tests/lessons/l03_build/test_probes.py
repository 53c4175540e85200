"""The probes of lesson 03 on blocks written apart from them."""

import pytest
import torch

from serial_lora_course.lessons.l03_build import blocks as made
from serial_lora_course.lessons.l03_build import probes

KINDS = {  # has an effect, leaves the stream alone, pairs
    "Faithful": (True, True, 1),
    "Ineffective": (False, True, 1),
    "OnTheStream": (True, False, 1),
    "PairEach": (True, True, 3),
    "SharedPair": (True, True, 1),
}


@pytest.mark.parametrize("name", KINDS)
def test_probes_tell_the_variants_apart(name):
    adapted, x = getattr(made, name)(), torch.randn(2, 4, 8)
    before = {key: value.clone() for key, value in adapted.state_dict().items()}
    found = (
        probes.reaches_output(adapted, x),
        probes.leaves_stream_alone(adapted, x),
        probes.number_of_pairs(adapted),
    )
    assert found == KINDS[name]
    assert all(torch.equal(value, before[key]) for key, value in adapted.state_dict().items())
