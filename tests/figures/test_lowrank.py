"""Figures of low rank: layers add up to the picture, curves and arrows are where they belong."""

import torch

from serial_lora_course.lessons.l01_maths.figures import plot_layers, plot_misses, plot_token_moves
from serial_lora_course.measures.lowrank import misses_by_method
from serial_lora_course.plots.style import METHOD_LOOKS


def test_layers_are_drawn_as_they_add_up():
    matrix = torch.rand(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    figure = plot_layers(matrix, count=3)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    layers, sums = pictures[0::2], pictures[1::2]
    assert len(layers) == len(sums) == 3
    _, axes = torch.linalg.eigh(matrix.T @ matrix)  # the best matrix of a rank, in another way
    for i, layer in enumerate(layers):
        assert torch.linalg.matrix_rank(torch.tensor(layer)).item() == 1
        total = torch.tensor(sum(layers[: i + 1])).clamp(0, 1)
        torch.testing.assert_close(torch.tensor(sums[i]), total)
        kept = axes[:, 7 - i :]
        best = (matrix @ kept @ kept.T).clamp(0, 1)
        torch.testing.assert_close(total, best)


def test_misses_are_drawn_where_they_are():
    weights, wanted = (
        {part: torch.randn(8, 8, generator=torch.Generator().manual_seed(i)) for part in "qkv"}
        for i in (0, 50)
    )
    curves = misses_by_method(weights, wanted)
    ranks = [1, 2, 4, 8]
    figure = plot_misses({"one wish": curves, "another": {"noise": curves["lora"]}}, ranks)
    first, second = figure.axes
    for line, curve in zip(first.lines, curves.values(), strict=True):
        assert list(line.get_xdata()) == ranks
        assert list(line.get_ydata()) == [float(curve[rank]) for rank in ranks]
    assert first.lines[0].get_label() == "LoRA" and second.lines[0].get_label() == "noise"
    assert first.lines[0].get_color() == METHOD_LOOKS["lora"]["color"]
    assert len({line.get_color() for line in first.lines}) == 3
    assert second.get_title(loc="left") == "another"
    assert f"{float(curves['lora'][4]):.0%}" in figure.alt_text


def test_moves_are_drawn_from_before_to_after():
    before = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])
    after = before + torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, -0.1]])
    rows = {
        "lora": {"tokens": (before, before), "q": (before, after)},
        "serial_lora": {"tokens": (before, after), "q": (before, after)},
    }
    figure = plot_token_moves(rows, {"lora": "W x + B A x", "serial_lora": "W (x + B A x)"})
    still, moving = figure.axes[:2]
    numbers = [text for text in moving.texts if text.get_text()]
    assert [text.get_text() for text in numbers] == ["1", "2", "3"]
    assert [text.get_position() for text in numbers] == [tuple(p) for p in before.tolist()]
    arrows = [text for text in moving.texts if not text.get_text()]
    assert [list(arrow.xy) for arrow in arrows] == [after[i].tolist() for i in (0, 2)]
    assert not [text for text in still.texts if not text.get_text()]
    assert "nothing moves" in figure.alt_text and "token 1 moves most" in figure.alt_text
