"""What a fit leaves beside its classifier: tables and a picture of its classes, and a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from sklearn import metrics
from torch import Tensor

from serial_lora.files import write_whole
from serial_lora_course.files import expanded, printable
from serial_lora_course.grading.text import no_formula
from serial_lora_course.plots.style import save_figure
from serial_lora_course.work import Job
from serial_lora_course.work.classifier import divided_name

CLASSES_FILE = "classes.csv"
OWN_FONT = "DejaVu Sans"  # matplotlib brings it
CARD = """---
library_name: serial-lora
tags: [serial-lora, image-classification]
---

# {name}

An adapter and a linear head for `{model}`. `serial-lora predict {name} picture.png` says which class a
picture belongs to: {classes}. Model and pictures have licences of their own.

| | |
|---|---|
{rows}
"""


def write_reports(out: Path, class_names: list[str], labels: Tensor, found: Tensor) -> None:
    """Write classes.csv, confusion.csv and confusion.png of labels, true and found, (N,) each."""
    names, known = [no_formula(printable(name)) for name in class_names], range(len(class_names))
    rates = metrics.precision_recall_fscore_support(labels, found, labels=known, zero_division=0)
    columns = ("precision", "recall", "f1-score", "support")
    table = pd.DataFrame(rates, columns, names).T.astype({"support": int}).rename_axis("class")
    matrix = metrics.confusion_matrix(labels, found, labels=known)
    counts = pd.DataFrame(matrix, pd.Index(names, name="true class"), names)
    for name, each in {CLASSES_FILE: table, "confusion.csv": counts}.items():
        write_whole(out / name, each.to_csv(float_format="%.4f").encode())
    figure = Figure(figsize=[3 + 0.4 * len(names)] * 2, layout="constrained")
    names, fonts = drawable(names)
    names = [name.replace("$", r"\$") for name in names]
    shown = metrics.ConfusionMatrixDisplay(matrix, display_labels=names)
    shown.plot(ax=figure.subplots(), xticks_rotation="vertical", colorbar=False, cmap="Blues")
    for label in (*shown.ax_.get_xticklabels(), *shown.ax_.get_yticklabels()):
        label.set_fontfamily(fonts)
    save_figure(figure, out / "confusion.png")


def drawable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names as a figure can show them, and the fonts that have their letters.

    Where no font of this machine has a name's letters, its row in classes.csv stands for it.
    """
    own = _letters(font_manager.findfont(OWN_FONT))
    lacking = {ord(letter) for letter in "".join(names)} - own
    if not lacking:
        return list(names), [OWN_FONT]
    for font in font_manager.fontManager.ttflist:
        if not font.name.startswith("Last Resort") and lacking <= _letters(font.fname):
            return list(names), [OWN_FONT, font.name]
    shown = [
        f"row {row}" if lacking & {*map(ord, name)} else name for row, name in enumerate(names, 1)
    ]
    return shown, [OWN_FONT]


def _letters(file: str) -> set[int]:
    """The code points that a font can draw; none where it cannot be opened."""
    try:
        return {*font_manager.get_font(file).get_charmap()}
    except (OSError, RuntimeError):
        return set()


def in_words(reached: dict[str, Any]) -> dict[str, str]:
    """What a fit reached; a number with a fraction is a share of pictures."""
    kinds = {float: "{:.1%}", int: "{:,}", str: "{}"}
    return {what: kinds[type(value)].format(value) for what, value in reached.items()}


def write_card(job: Job, class_names: list[str], reached: dict[str, Any]) -> None:
    """Write README.md beside the classifier, unless one is there; it names no folder of this machine."""
    path = expanded(job.out) / "README.md"
    library, weights = divided_name(job.model)
    text = CARD.format(
        name=printable(path.resolve().parent.name),
        model=library + Path(weights).name,
        classes=", ".join(map(printable, class_names)),
        rows="\n".join(f"| {what} | {said} |" for what, said in in_words(reached).items()),
    )
    if not path.exists():
        write_whole(path, text.encode())
