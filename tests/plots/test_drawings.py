"""Every pixel of a drawing is shown, two by two."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots import style
from serial_lora_course.plots.drawings import CELL, plot_drawings, plot_sheet
from serial_lora_course.plots.sd3_runs import ON_A_SHEET, draw_run

SIDE = CELL // 2  # of the tiny model's drawings


def drawings(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def assert_shown(figure, pictures) -> None:
    """The figure as a notebook shows it, before it is given fewer colours, has those pixels."""
    buffer = io.BytesIO()
    with style.house_style():
        figure.savefig(buffer, format="png", dpi=style.SCREEN_DPI)
    whole = np.asarray(Image.open(buffer).convert("RGB"))
    height, width = whole.shape[:2]
    for axes, picture in zip(figure.axes, pictures, strict=True):
        box = zip(axes.get_position().bounds, (width, height) * 2, strict=True)
        left, bottom, wide, high = (round(share * size) for share, size in box)
        seen = whole[height - bottom - high : height - bottom, left : left + wide]
        assert np.array_equal(seen, picture.repeat(2, axis=0).repeat(2, axis=1))


def test_each_model_has_a_row_and_each_prompt_a_column():
    drawn = drawings(6).reshape(2, 3, SIDE, SIDE, 3)
    rows = {"not adapted": drawn[0], "Serial LoRA": list(torch.from_numpy(drawn[1]))}
    figure = plot_drawings(rows, ["fox face", "key", "rocket in front of a waxing gibbous moon"])
    assert_shown(figure, drawn.reshape(6, SIDE, SIDE, 3))
    places = [axes.get_position() for axes in figure.axes]
    assert places[0].y0 == places[2].y0 > places[3].y0 and places[0].x0 == places[3].x0


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_sheet_is_read_row_by_row(count):
    figure = plot_sheet(drawings(count), ["key"] * count, columns=3)
    assert_shown(figure, drawings(count))
    bounds = [axes.get_position().bounds for axes in figure.axes]
    places = [(round(-bottom, 6), left) for left, bottom, *_ in bounds]
    assert places == sorted(places) and len({y for y, _ in places}) == -(-count // 3)


def test_pictures_and_captions_are_as_many():
    for pictures, captions in ((drawings(2), ["key"]), (drawings(0), [])):
        with pytest.raises(SerialLoRAError):
            plot_drawings({"one": pictures}, captions)


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
