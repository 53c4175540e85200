"""Every figure is described in words wherever it goes, and looks the same each time."""

import pytest

from serial_lora_course.lessons.l02_count.figures import plot_quarter
from serial_lora_course.plots import style


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_saved_figure_is_described_and_the_same_file_every_time(tmp_path, suffix):
    first, second = (
        style.save_figure(plot_quarter(width=8, rank=1), tmp_path / f"{i}.{suffix}", dpi=50)
        for i in range(2)
    )
    assert first.read_bytes() == second.read_bytes()
    assert (
        b"Serial LoRA has one such pair, in front of q, k and v: 16 numbers" in first.read_bytes()
    )
