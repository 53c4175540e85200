"""Every figure refuses data that do not fit, in one sentence, before it draws anything."""

import numpy as np
import pandas as pd
import pytest
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.lessons.l00_start.figures import plot_shares
from serial_lora_course.lessons.l01_maths.figures import plot_layers, plot_misses
from serial_lora_course.lessons.l05_sam.figures import plot_dice_per_picture
from serial_lora_course.lessons.l06_sd3.figures import PathRow, plot_flow_path
from serial_lora_course.lessons.l07_lora_plus.figures import plot_ratio_sweep
from serial_lora_course.lessons.l08_how_sure.figures import plot_rank_sweep
from serial_lora_course.lessons.l10_inside.figures import plot_depth, plot_spectra
from serial_lora_course.plots.drawings import plot_drawings, plot_sheet
from serial_lora_course.plots.masks import compare_masks, overlay, pick_best_median_worst
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.tables import require_columns, require_shares

PICTURES = np.zeros((3, 4, 4))
MASK = np.eye(4, dtype=bool)
TWO = np.stack([MASK] * 2)
LOGITS = np.where(MASK, 3.0, -3.0)
SPECTRA = pd.DataFrame({"tower": ["image"], "block": [0]})
RUNS = pd.DataFrame({"dataset": ["food"], "method": ["lora"], "seed": [1], "lr": [1.0]})


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (require_columns, [RUNS, ["seed", "ratio"]]),
        (require_columns, [RUNS[:0], ["seed"]]),
        (require_shares, [[0.5, 1.5], "Dice"]),
        (require_shares, [[np.nan], "Dice"]),
        (require_shares, [[], "Dice"]),
        (show_pictures, [[]]),
        (show_pictures, [PICTURES, ["one"]]),
        (show_pictures, [[np.zeros((2, 3, 4, 4))]]),
        (plot_shares, [PICTURES[:2], ["a cat"], np.ones((2, 2))]),
        (plot_drawings, [{}, ["key"]]),
        (plot_drawings, [{"a": []}, []]),
        (plot_drawings, [{"real": PICTURES[:2], "LoRA": PICTURES}, ["key", "fox"]]),
        (plot_sheet, [[], []]),
        (plot_sheet, [PICTURES, ["a", "b"]]),
        (plot_sheet, [PICTURES, ["a", "b", "c", "d"]]),
        (plot_flow_path, [[]]),
        (plot_flow_path, [[PathRow("a", [], [])]]),
        (plot_flow_path, [[PathRow("a", PICTURES[:2], [0, 0.5, 1])]]),
        (plot_layers, [torch.ones(6, 8), 7]),
        (plot_misses, [{}, (1,)]),
        (plot_misses, [{"wish": {"lora": torch.ones(9)}}, (0, 1)]),
        (plot_misses, [{"wish": {"lora": torch.ones(9)}}, (1, 9)]),
        (compare_masks, [MASK, MASK[:-1]]),
        (compare_masks, [MASK, TWO]),
        (compare_masks, [TWO, MASK]),
        (compare_masks, [MASK[0], MASK[0]]),
        (compare_masks, [MASK[None, None], MASK[None, None]]),
        (compare_masks, [MASK, LOGITS]),
        (compare_masks, [MASK, np.full((4, 4), np.nan)]),
        (overlay, [PICTURES[0, :-1], MASK, MASK]),
        (pick_best_median_worst, [[]]),
        (pick_best_median_worst, [[0.5, np.nan]]),
        (plot_dice_per_picture, [{}]),
        (plot_dice_per_picture, [{"a": [0.5], "b": [0.5, 0.6]}]),
        (plot_dice_per_picture, [{"a": [0.5, 50.0]}]),
        (plot_spectra, [{}]),
        (plot_spectra, [{"lora": SPECTRA.assign(tower="text")}]),
        (plot_spectra, [{"lora": SPECTRA, "serial_lora": SPECTRA.assign(block=1)}]),
        (plot_depth, [SPECTRA, "effective_rank", "effective rank"]),
        (plot_ratio_sweep, [RUNS]),
        (plot_rank_sweep, [RUNS]),
    ],
)
def test_what_does_not_fit_is_refused(function, arguments):
    with pytest.raises(SerialLoRAError):
        function(*arguments)
