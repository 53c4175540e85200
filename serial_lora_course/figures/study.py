"""The study's front: what each method gains for its number of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.figures.style import QUIET, house_style, method_look, with_description
from serial_lora_course.figures.tables import require_columns
from serial_lora_course.labs.frames import on_front

COLUMNS = ("arm", "method", "parameters", "gain", "half-width")


def plot_front(labs: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> Figure:
    """Gain against parameters, a picture a lab; a line joins the arms that no other one beats.

    Args:
        labs: lab -> its arms, as :func:`serial_lora_course.study.tables.arms_table` gives them.
        units: lab -> the unit of its gain.

    Raises:
        SerialLoRAError: a column is missing, or a table is empty.
    """
    words = []
    with house_style():
        figure, axes = plt.subplots(
            1, len(labs), figsize=(6.4 * len(labs), 4.4), squeeze=False, layout="constrained"
        )
        for axis, (lab, arms) in zip(axes[0], labs.items(), strict=True):
            require_columns(arms, COLUMNS)
            front = on_front(arms, "gain")
            axis.plot(front["parameters"], front["gain"], color=QUIET, zorder=1)
            for row in arms.itertuples():
                look = method_look(row.arm.split("-")[0])
                spread = arms.loc[row.Index, "half-width"]
                axis.errorbar(
                    row.parameters, row.gain, spread, color=look["color"], marker=look["marker"]
                )
                axis.annotate(
                    row.arm, (row.parameters, row.gain), (4, 4), textcoords="offset points", size=7
                )
            axis.set(
                xscale="log",
                title=lab.upper(),
                xlabel="trained parameters",
                ylabel=f"gain over the unadapted model, {units[lab]}",
            )
            words.append(
                f"{lab.upper()}: {len(arms)} arms; on the front, from the smallest: "
                + ", ".join(f"{row.arm} {row.gain:+.1f}" for row in front.itertuples())
            )
        plt.close(figure)
    told = "Gain against trained parameters, with 95% intervals over sets. " + ". ".join(words)
    return with_description(figure, f"{told}.")
