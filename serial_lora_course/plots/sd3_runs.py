"""Pictures of the SD3 lab's runs: the drawings on one sheet, and what lies between noise and drawing.

A latent with noise in it is still a latent, so the autoencoder can show what it holds. That is how
the rows of :func:`serial_lora_course.plots.drawings.draw_rows` are made here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from serial_lora_course.files import refusals_told
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.sd3 import Sd3Lab
from serial_lora_course.plots.drawings import plot_sheet
from serial_lora_course.plots.style import SCREEN_DPI, save_figure

ON_A_SHEET = 40


@refusals_told()
def draw_run(folder: Path, lab: Sd3Lab, method: Method, drawn: np.ndarray, name: str) -> Path:
    """Write the first drawings of a run, each with its prompt, on one sheet.

    Args:
        drawn: uint8, (N, height, width, 3), for the prompts of the lab's trial.
    """
    sheet = plot_sheet(drawn[:ON_A_SHEET], lab.trial.captions[:ON_A_SHEET])
    path = folder / f"{name}.png"
    return save_figure(
        sheet, path, dpi=SCREEN_DPI
    )  # at which each pixel is a whole number of pixels


# ----------------------------------------------------------------------- between noise and drawing
