"""A training as its validation pictures saw it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.data.pictures import read_picture
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import BLUE, VERMILION, house_style, with_description


def plot_validation(rounds: Mapping[int, Mapping[str, float]], best: int) -> Figure:
    """Loss and accuracy on the validation pictures after each round, and the state that was kept.

    Args:
        rounds: step -> ``loss`` and ``accuracy`` (between 0 and 1).
        best: the step whose state was kept.
    """
    steps = sorted(rounds)
    with house_style():
        figure = Figure(figsize=(8, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        panels = ((left, "loss", BLUE, 1), (right, "accuracy", VERMILION, 100))
        for axes, name, colour, unit in panels:
            axes.plot(steps, [unit * rounds[step][name] for step in steps], "o-", color=colour)
            axes.axvline(best, color=colour, linestyle=":")
            axes.set(xlabel="step", title=f"validation {name}" + (" (%)" if unit > 1 else ""))
            axes.annotate(
                "kept",
                (best, 1 if name == "loss" else 0),  # where the curve is not
                (3, -3 if name == "loss" else 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=90,
                ha="left",
                va="top" if name == "loss" else "bottom",
            )
    first, last, kept = (rounds[step]["loss"] for step in (steps[0], steps[-1], best))
    return with_description(
        figure,
        f"Validation loss over {steps[-1]} steps: {first:.2f} after step {steps[0]}, lowest at step "
        f"{best} with {kept:.2f}, {last:.2f} at the end. Accuracy at the step that was kept: "
        f"{rounds[best]['accuracy']:.0%}.",
    )


def show_handled(folder: Path, facts: pd.DataFrame) -> Figure:
    """The unusual files of a folder as a model will see them.

    Args:
        facts: what `serial_lora_course.data.folder.examine_folder` says of each file.

    Raises:
        SerialLoRAError: no file is unusual.
    """
    unusual = facts["mode"].ne("RGB") | facts["file"].str.endswith(".jpg")
    handled = facts[facts["usable"] & unusual]
    seen = [read_picture(folder / name, upright=True) for name in handled["file"]]
    titles = [
        f"{Path(row.file).stem.replace('_', ' ')}\n{row.remark.partition(':')[0]}\n"
        f"{row.mode} -> {picture.mode}"
        for row, picture in zip(handled.itertuples(), seen, strict=True)
    ]
    words = "; ".join(title.replace("\n", ", ") for title in titles)
    figure = show_pictures(seen, titles, size=2.0)
    return with_description(figure, f"Pictures of unusual files, all read as RGB: {words}.")
