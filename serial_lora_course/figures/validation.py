"""A training as its validation pictures saw it."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from serial_lora_course.figures.style import BLUE, VERMILION, house_style, with_description


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
