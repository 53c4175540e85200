"""Every pixel of a drawing is shown, two by two."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.drawings import CELL
from serial_lora_course.plots.sd3_runs import ON_A_SHEET, draw_run

SIDE = CELL // 2  # of the tiny model's drawings


def drawings(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def test_a_run_leaves_a_sheet_with_its_first_drawings(tmp_path):
    drawn = drawings(ON_A_SHEET + 3)
    lab = SimpleNamespace(trial=SimpleNamespace(captions=[f"thing {n}" for n in range(len(drawn))]))
    path = draw_run(tmp_path / "runs", lab, None, drawn, "night-100-lora-1")
    with Image.open(path) as sheet:
        assert "“thing 39”" in sheet.text["Description"]
        assert "“thing 40”" not in sheet.text["Description"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SerialLoRAError, match="cannot be used"):
        draw_run(tmp_path / "file", lab, None, drawn, "sheet")
