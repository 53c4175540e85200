"""What is no number of an adapter's parameters."""

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.counts import pair_count, serial_lora_count


def test_a_rank_above_the_smaller_side_is_refused():
    with pytest.raises(SerialLoRAError, match="smaller rank"):
        serial_lora_count(width=64, depth=1, rank=65)
    with pytest.raises(SerialLoRAError, match="smaller rank"):
        pair_count(64, 16, 17)
    assert pair_count(64, 16, 16) == 16 * 80
