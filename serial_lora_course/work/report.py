"""How well each class is known: tables and a picture beside a classifier, made by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, classification_report, confusion_matrix

from serial_lora.files import write_whole
from serial_lora_course.files import printable
from serial_lora_course.grading.text import no_formula
from serial_lora_course.plots.style import save_figure

CLASSES_FILE, CONFUSION_FILE = "classes.csv", "confusion.csv"


def write_reports(
    out: Path, class_names: Sequence[str], labels: np.ndarray, found: np.ndarray
) -> None:
    """Write classes.csv, confusion.csv and confusion.png.

    Args:
        labels, found: (N,) the true class of each picture, and the one that it was given.
    """
    known, names = range(len(class_names)), [no_formula(printable(name)) for name in class_names]
    options = dict(labels=known, target_names=names, output_dict=True, zero_division=0)
    shares = classification_report(labels, found, **options)
    table = pd.DataFrame({name: shares[name] for name in names}).T.astype({"support": int})
    matrix = confusion_matrix(labels, found, labels=known)
    of = pd.Index(names, name="true class")
    tables = {CLASSES_FILE: table, CONFUSION_FILE: pd.DataFrame(matrix, of, names)}
    for name, each in tables.items():
        write_whole(out / name, each.to_csv(float_format="%.4f").encode())
    side = 3 + 0.4 * len(names)
    figure = Figure(figsize=(side, side), layout="constrained")
    drawn = ConfusionMatrixDisplay(
        matrix, display_labels=[name.replace("$", r"\$") for name in names]
    )
    drawn.plot(ax=figure.subplots(), xticks_rotation="vertical", colorbar=False, cmap="Blues")
    save_figure(figure, out / "confusion.png")


def read_classes(out: Path) -> pd.DataFrame | None:
    """``precision``, ``recall``, ``f1-score`` and ``support`` of each class, if they are there."""
    path = out / CLASSES_FILE
    return pd.read_csv(path, index_col=0) if path.exists() else None
