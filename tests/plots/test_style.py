"""Every figure is described in words wherever it goes, and looks the same each time."""

import base64
import io
import re
from html import unescape

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.methods import METHOD_TITLES, METHODS
from serial_lora_course.lessons.l02_count.figures import plot_counts
from serial_lora_course.plots import style
from serial_lora_course.plots.pictures import show_pictures


def test_every_method_of_the_labs_has_a_look_and_a_title():
    assert set(METHODS) == set(style.METHOD_LOOKS) == set(METHOD_TITLES)
    assert len({look["marker"] for look in style.METHOD_LOOKS.values()}) == len(METHODS)


def image(shown: dict) -> tuple[str, bytes]:
    """The alternative text and the content of an image in HTML."""
    found = re.fullmatch(
        r'<img alt="([^"]*)" src="data:image/[a-z+]+;base64,(.*)">', shown["text/html"]
    )
    return found[1], base64.b64decode(found[2])


def test_a_displayed_figure_carries_its_description(capture_display):
    style.display_figure(plot_counts({'"a" <model>': (8, 2)}))
    (shown,) = capture_display
    alt, png = image(shown)
    assert png.startswith(b"\x89PNG")
    assert '"a" <model>: LoRA 8, Serial LoRA 2' in unescape(alt)
    assert shown["text/plain"] == f"[Figure: {unescape(alt)}]"


def test_a_figure_of_ones_own_needs_a_description(capture_display):
    figure = Figure(figsize=(1, 1))
    with pytest.raises(SerialLoRAError, match="alt="):
        style.display_figure(figure)
    style.display_figure(figure, alt="An empty\n figure.")
    assert len(capture_display) == 1 and style.describe(figure) == "An empty figure."


def test_the_shipped_drawing_is_shown_with_its_description(capture_display):
    style.display_drawing("serial_vs_lora")
    (shown,) = capture_display
    alt, svg = image(shown)
    assert svg == (style.ASSETS / "serial_vs_lora.svg").read_bytes()
    assert "8dr" in alt and "2dr" in alt and alt in shown["text/plain"]


def test_a_large_figure_gets_fewer_colours_and_looks_the_same():
    noise = np.random.default_rng(0).normal(0, 12, (240, 320, 3))
    slopes = np.add.outer(np.linspace(40, 200, 240), np.linspace(0, 40, 320))[..., None]
    figure = show_pictures([np.clip(slopes + noise, 0, 255).astype(np.uint8)] * 2, size=3)
    as_it_was = io.BytesIO()
    with style.house_style():
        figure.savefig(as_it_was, format="png", dpi=style.SCREEN_DPI)
    assert as_it_was.tell() > style.LARGE
    small = style.figure_png(figure)
    assert len(small) < as_it_was.tell() / 2
    with Image.open(io.BytesIO(small)) as picture, Image.open(as_it_was) as whole:
        assert picture.mode == "P" and picture.text["Description"] == figure.alt_text
        pixels = [np.asarray(each.convert("RGB"), float) for each in (picture, whole)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 6


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_saved_figure_is_described_and_the_same_file_every_time(tmp_path, suffix):
    first, second = (
        style.save_figure(plot_counts({"m": (8, 2)}), tmp_path / f"{i}.{suffix}", dpi=50)
        for i in range(2)
    )
    assert first.read_bytes() == second.read_bytes()
    assert b"m: LoRA 8, Serial LoRA 2" in first.read_bytes()


def test_a_figure_is_not_saved_as_something_else(tmp_path):
    with pytest.raises(SerialLoRAError):
        style.save_figure(plot_counts({"m": (8, 2)}), tmp_path / "figure.pdf")
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_matplotlibs_settings_alone():
    def settings():
        return {name: value for name, value in rcParams.items() if name != "backend"}

    before = settings()
    style.figure_png(plot_counts({"m": (8, 2)}))
    assert settings() == before
