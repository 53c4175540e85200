"""The board of a class as a picture: accuracy against trained parameters, and who is on the front."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.labs.board import shown, title_of, untrained
from serial_lora_course.labs.frames import on_front
from serial_lora_course.plots.style import (
    DASHED,
    QUIET,
    method_look,
    styled_figure,
    with_description,
)


def plot_board(entries: pd.DataFrame) -> Figure:
    """Every entry as a point; names beside those of the table; the front as a line of steps.

    Args:
        entries: as :func:`serial_lora_course.labs.board.class_entries` gives them.
    """
    front = on_front(entries, "accuracy")
    with styled_figure(8.6, 5.2) as figure:
        axes = figure.subplots()
        axes.axhline(100 * untrained(entries), color=QUIET, linestyle=DASHED, label="not trained")
        steps = {"color": QUIET, "drawstyle": "steps-post", "label": "front"}
        axes.plot(front["parameters"], 100 * front["accuracy"], zorder=1, **steps)
        for method, own in entries.groupby("method"):
            look = method_look(method) | {"linestyle": ""}
            axes.plot(own["parameters"], 100 * own["accuracy"], alpha=0.8, **look)
        for row in shown(entries).itertuples():
            place = (row.parameters, 100 * row.accuracy)
            note = {"textcoords": "offset points", "parse_math": False}  # a name may hold a $
            axes.annotate(row.learner, place, (5, 5), size=9, **note)
        axes.set(xscale="log", xlabel="trained parameters", ylabel="accuracy (%), mean over seeds")
        axes.margins(x=0.12)  # names need some room
        axes.set_title(title_of(entries), parse_math=False)
        figure.legend(loc="outside upper right", ncols=4)
    told = "; ".join(
        f"{row.learner} {row.accuracy:.1%} with {row.parameters:,}" for row in front.itertuples()
    )
    alt = f"Accuracy against trained parameters: {title_of(entries)}. On the front, from the fewest: {told}."
    return with_description(figure, alt)
