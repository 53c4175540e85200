"""Blocks with their adapters, and two models' scores against each other."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon
from torch import Tensor, nn

from serial_lora_course.lessons.l03_build.wiring import ELSEWHERE, places_of
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

STREAM, ROWS = 150, {"q": 104, "k": 64, "v": 24}  # heights in the drawing of a block
PAIRS = {"1": (30, STREAM), "2": (60, 107), "3": (138, 64), "5": (330, 107), "6": (360, STREAM)}
PAIRS |= {name: (182, height) for name, height in ROWS.items()}
LINES = [  # through these points, and the places whose pair changes what runs there
    ([(6, STREAM), (30, STREAM)], ""),
    ([(30, STREAM), (321, STREAM)], "1"),
    ([(339, STREAM), (360, STREAM)], "123qkv5"),
    ([(360, STREAM), (388, STREAM)], "123qkv56"),
    ([(60, STREAM), (60, 107)], "1"),
    ([(60, 107), (60, 64), (71, 64)], "12"),
    ([(116, 64), (138, 64)], "12"),
    ([(138, 64), (160, 64)], "123"),
    *(([(160, 64), (160, y), (182, y)], "123") for y in ROWS.values()),
    *(([(182, y), (202, y)], "123" + name) for name, y in ROWS.items()),
    *(([(228, y), (240, y)], "123" + name) for name, y in ROWS.items()),
    ([(274, 64), (288, 64)], "123qkv"),
    ([(314, 64), (330, 64), (330, 107)], "123qkv"),
    ([(330, 107), (330, 141)], "123qkv5"),
]
HEADS = {(388, STREAM), (71, 64), (288, 64), (330, 141)}  # where arrows end
HEADS |= {(x, y) for x in (202, 240) for y in ROWS.values()}
FROZEN, EDGE = "#e3e7ec", "#8a94a3"  # as in the drawings of the course


def plot_wirings(
    blocks: Mapping[str, tuple[nn.Module, Mapping[str, bool | None]]], x: Tensor
) -> Figure:
    """Each block, drawn with its pairs where a run of it calls them, over what was found.

    Args:
        blocks: title -> the adapted block, and sentences that hold or not, or have no mark: None.
        x: (B, N, d), for the run.
    """
    told = []
    high = -(-len(blocks) // 3)
    with styled_figure(9.3, 2.4 * high) as figure:
        figure.get_layout_engine().set(wspace=0.06, hspace=0.03)
        panels = figure.subplots(high, 3, squeeze=False).flatten()
        for axes in panels:
            axes.set_axis_off()
        for axes, (title, (adapted, answers)) in zip(panels, blocks.items(), strict=False):
            places = places_of(adapted, x)
            where = _in_words(places)
            axes.set(xlim=(0, 394), ylim=(-85, 172), aspect="equal")
            axes.set_title(title, pad=2)
            axes.set_title(where, pad=2, loc="right", fontsize=10, weight="normal", color=QUIET)
            _draw_block(axes, places)
            for row, (sentence, holds) in enumerate(answers.items()):
                y, look = -14 - 21 * row, {"va": "center", "fontsize": 10}
                if holds is not None:
                    mark, colour = ("✓", GREEN) if holds else ("✗", INK)
                    axes.text(94, y, mark, ha="center", color=colour, **look | {"fontsize": 12})
                axes.text(108, y, sentence, color=QUIET if holds is False else INK, **look)
            said = (
                sentence if holds is None else f"{sentence}: {'yes' if holds else 'no'}"
                for sentence, holds in answers.items()
            )
            told.append(f"{title}, {where}; {'; '.join(said)}.")
    return with_description(figure, f"Blocks and their pairs. {' '.join(told)}")


def _in_words(places: set[str]) -> str:
    if places <= {ELSEWHERE}:
        return "called elsewhere" if places else "never called"
    paths = [name for name in ROWS if name in places]
    fourth = [f"4 ({', '.join(paths)})" if len(paths) < 3 else "4"] if paths else []
    return f"place {' and '.join(sorted([*places - {*ROWS}, *fourth]))}"


def _draw_block(axes: Axes, places: set[str]) -> None:
    """The attention half of a block; what the pairs change is in their colour."""
    for points, changed_by in LINES:
        colour = VERMILION if places & {*changed_by} else INK
        end, before = points[-1], points[-2]
        wide = 2 if colour == VERMILION else 1.4
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=wide, solid_capstyle="round")
        if end in HEADS:
            dx, dy = (0, 8) if before[0] == end[0] else (8, 0)
            side = [
                (end[0] - dx - dy / 2, end[1] - dy - dx / 2),
                (end[0] - dx + dy / 2, end[1] - dy + dx / 2),
            ]
            axes.add_patch(Polygon([end, *side], color=colour, linewidth=0))
    _box(axes, "norm", (71, 116), (48, 80), "white")
    for name, y in ROWS.items():
        _box(axes, f"$W_{name}$", (202, 228), (y - 15, y + 15), FROZEN)
    _box(axes, "attention", (240, 274), (9, 119), "white", rotation=90)
    _box(axes, "$W_o$", (288, 314), (49, 79), FROZEN)
    axes.add_patch(Circle((330, STREAM), 9, facecolor="white", edgecolor=INK, linewidth=1.3))
    axes.plot([325, 335], [STREAM, STREAM], color=INK, linewidth=1.3)
    axes.plot([330, 330], [STREAM - 5, STREAM + 5], color=INK, linewidth=1.3)
    for place in places - {ELSEWHERE}:
        _draw_pair(axes, *PAIRS[place], upright=place in "25")
    if places <= {ELSEWHERE}:  # beside the path, and hollow
        _draw_pair(axes, 93, 18, filled=False)


def _box(axes: Axes, name: str, x: tuple, y: tuple, colour: str, rotation: int = 0) -> None:
    look = {"boxstyle": "round,pad=0,rounding_size=4", "facecolor": colour, "edgecolor": EDGE}
    axes.add_patch(FancyBboxPatch((x[0], y[0]), x[1] - x[0], y[1] - y[0], zorder=3, **look))
    place = {"ha": "center", "va": "center", "fontsize": 8.5, "zorder": 4, "rotation": rotation}
    axes.text(sum(x) / 2, sum(y) / 2, name, **place)


def _draw_pair(
    axes: Axes, x: float, y: float, *, upright: bool = False, filled: bool = True
) -> None:
    """A narrows, B widens: two trapezoids, small side to small side."""
    for side in (-1, 1):
        corners = [(14 * side, -13), (14 * side, 13), (side, 6), (side, -6)]
        turned = [(y, x) for x, y in corners] if upright else corners
        look = {"facecolor": VERMILION if filled else "white", "edgecolor": VERMILION}
        placed = [(x + dx, y + dy) for dx, dy in turned]
        axes.add_patch(Polygon(placed, linewidth=0 if filled else 1.2, zorder=5, **look))


def plot_agreement(scores: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """What two models say of the same pictures: a panel for each pair, a dot for each picture and class.

    Args:
        scores: title -> the adapted model's scores, and those of its merged copy, of one shape.
    """
    told = []
    with styled_figure(3.8 * len(scores), 3.6) as figure:
        panels = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, (adapted, merged)) in zip(panels, scores.items(), strict=True):
            axes.axline((0, 0), slope=1, color=QUIET, linewidth=1, zorder=0)
            axes.scatter(adapted.flatten(), merged.flatten(), s=5, color=BLUE, linewidths=0)
            axes.set_title(title)
            axes.set_xlabel("score by the adapter")
            told.append(f"{title}: up to {(adapted - merged).abs().max():.1g} apart")
        panels[0].set_ylabel("score after the merge")
    return with_description(figure, f"Scores before and after a merge. {'; '.join(told)}.")
