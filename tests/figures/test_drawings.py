"""Figures of drawings: every pixel where it belongs, every word in the description."""

import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from serial_lora_course.lessons.l06_sd3.figures import PathRow, plot_flow_path
from serial_lora_course.plots import style
from serial_lora_course.plots.drawings import CELL, plot_drawings, plot_sheet

SIDE = CELL // 2  # of the tiny model's drawings


def flat_drawings(count: int, seed: int = 0) -> np.ndarray:
    """Pictures of sixteen by sixteen cells of few colours, as pixel art is."""
    cells = np.random.default_rng(seed).integers(0, 4, (count, 16, 16))
    colours = np.array([[255, 255, 255], [27, 26, 46], [240, 101, 95], [88, 176, 240]], np.uint8)
    return np.kron(colours[cells], np.ones((1, SIDE // 16, SIDE // 16, 1), np.uint8))


def drawn_pixels(figure) -> np.ndarray:
    """The figure as a notebook shows it, before it is given fewer colours."""
    buffer = io.BytesIO()
    with style.house_style():
        figure.savefig(buffer, format="png", dpi=style.SCREEN_DPI)
    return np.asarray(Image.open(buffer).convert("RGB"))


def pixels_of(axes, whole: np.ndarray) -> np.ndarray:
    """The part of the figure's pixels that an axes covers."""
    height, width = whole.shape[:2]
    box = axes.get_position().bounds
    left, bottom, wide, high = (round(b * n) for b, n in zip(box, (width, height) * 2, strict=True))
    return whole[height - bottom - high : height - bottom, left : left + wide]


def words_of(figure) -> list[tuple[str, object]]:
    """Every text that is drawn, with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    renderer = canvas.get_renderer()
    return [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]


def assert_legible(figure) -> None:
    """No word touches another one, a picture, or the edge."""
    words = words_of(figure)
    whole = figure.bbox
    pictures = [axes.get_window_extent() for axes in figure.axes]
    for i, (text, box) in enumerate(words):
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= whole.x1 and box.y1 <= whole.y1, text
        assert not any(box.overlaps(other) for other in pictures), text
        assert not any(box.overlaps(other) for _, other in words[i + 1 :]), text


LONG = "smiling face with open mouth and smiling eyes in front of a waxing gibbous moon at night"

# --------------------------------------------------------------------------------- the grid


def test_each_model_has_a_row_and_each_prompt_a_column():
    drawn = flat_drawings(6).reshape(2, 3, SIDE, SIDE, 3)
    rows = {"not adapted": drawn[0], "Serial LoRA": list(torch.from_numpy(drawn[1]))}
    figure = plot_drawings(rows, ["fox face", "key", "rocket"])
    grid = np.asarray(figure.axes).reshape(2, 3)
    assert [axes.get_title() for axes in grid[0]] == ["fox face", "key", "rocket"]
    assert [axes.get_ylabel().replace("\n", " ") for axes in grid[:, 0]] == list(rows)
    whole = drawn_pixels(figure)
    for row, column in np.ndindex(2, 3):
        expected = drawn[row, column].repeat(2, axis=0).repeat(2, axis=1)
        assert np.array_equal(pixels_of(grid[row, column], whole), expected)


# -------------------------------------------------------------------------------- the sheet


@settings(max_examples=6, deadline=None)
@given(count=st.integers(1, 7), columns=st.integers(1, 4), data=st.data())
def test_a_sheet_is_read_row_by_row(count, columns, data):
    drawn = flat_drawings(count)
    captions = data.draw(
        st.lists(st.sampled_from(["key", LONG, "top hat"]), min_size=count, max_size=count)
    )
    figure = plot_sheet(drawn, captions, columns)
    shown = figure.axes
    assert len(shown) == count
    whole = drawn_pixels(figure)
    places = []
    for axes, picture, caption in zip(shown, drawn, captions, strict=True):
        expected = picture.repeat(2, axis=0).repeat(2, axis=1)
        assert np.array_equal(pixels_of(axes, whole), expected)
        assert caption.startswith(axes.get_xlabel().replace("\n", " ").removesuffix(" …"))
        left, bottom, *_ = axes.get_position().bounds
        places.append((round(-bottom, 6), left))
    assert places == sorted(places)
    assert len({place for place, _ in places}) == -(-count // columns)
    assert_legible(figure)
    assert figure.alt_text.count("“") == count


# ------------------------------------------------------------------------- noise and the way back


def test_every_picture_of_a_path_says_how_much_noise_it_has():
    out = PathRow("picture to noise", flat_drawings(3), torch.tensor([0, 0.25, 1]))
    back = PathRow("noise to drawing", flat_drawings(4, seed=1), [1, 0.7, 0.331, 0], [0, 9, 19, 28])
    figure = plot_flow_path([out, back])
    assert [axes.get_xlabel() for axes in figure.axes] == [
        *("σ = 0.00", "σ = 0.25", "σ = 1.00", "after 0: σ = 1.00"),
        *("after 9: σ = 0.70", "after 19: σ = 0.33", "after 28: σ = 0.00"),
    ]
    whole = drawn_pixels(figure)
    pictures = [*out.pictures, *back.pictures]
    for axes, picture in zip(figure.axes, pictures, strict=True):
        assert np.array_equal(pixels_of(axes, whole), picture.repeat(2, axis=0).repeat(2, axis=1))
    assert_legible(figure)
    assert all(words in figure.alt_text for words in [*out.captions, *back.captions])
