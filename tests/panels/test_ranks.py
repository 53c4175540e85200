"""The panel of ranks, driven as a learner's hands would drive it."""

import pytest
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.panels.ranks import RankPanel, rank_panel


@pytest.fixture
def words(capture_display):
    """What was shown last, in words."""
    return lambda: [d["text/plain"] for d in capture_display if "<img " in str(d)][-1]


MATRICES = {"steep": torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0])), "small": torch.eye(2)}


def test_the_slider_keeps_so_many_values(words):
    panel = RankPanel(MATRICES, rank=1)
    assert "misses 60%" in words()
    panel.rank.value = 2
    assert "the first 2 of them" in words() and "misses 0%" in words()


def test_the_rank_never_exceeds_the_matrix(words):
    panel = RankPanel(MATRICES, rank=4)
    panel.name.value = "small"
    assert panel.rank.value == 2 and words().startswith("[Figure: small, 2 by 2")


def test_the_still_form_shows_each_matrix(capture_display):
    assert rank_panel(MATRICES, 1) is None
    assert sum("<img " in str(data) for data in capture_display) == 2
    with pytest.raises(SerialLoRAError, match="2 layers"):
        rank_panel(MATRICES, 3)
