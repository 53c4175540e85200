"""What is no number of an adapter's parameters."""

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.counts import lora_count, pair_count, serial_lora_count


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "8", None])
def test_a_number_that_is_no_size_is_refused(bad):
    for call in (
        lambda: serial_lora_count(bad, 2, 2),
        lambda: serial_lora_count(8, bad, 2),
        lambda: lora_count(8, 2, bad),
    ):
        with pytest.raises(SerialLoRAError, match="at least 1"):
            call()


def test_a_rank_above_the_smaller_side_is_refused():
    with pytest.raises(SerialLoRAError, match="smaller rank"):
        serial_lora_count(width=64, depth=1, rank=65)
    with pytest.raises(SerialLoRAError, match="smaller rank"):
        pair_count(64, 16, 17)
    assert pair_count(64, 16, 16) == 16 * 80
