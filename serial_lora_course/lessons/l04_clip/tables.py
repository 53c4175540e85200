"""Tables of lesson 04: prompts, two runs, and the paper's cells beside the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs.clip import picture_features, prompt_scores
from serial_lora_course.labs.methods import METHODS, get_method
from serial_lora_course.labs.records import Record
from serial_lora_course.measures.differences import compare
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.clip import CLIPBackbone
from serial_lora_course.paper_tables import paper_table

PAIRS = (
    ("serial_lora", "lora"),
    ("serial_lora", "lora_equal_budget"),
    ("serial_lora_plus", "lora_plus"),
    ("lora_plus", "lora"),
    ("serial_lora_plus", "serial_lora"),
)
"""Which methods are compared."""


def prompt_accuracies(
    backbone: CLIPBackbone, data: ClassificationData, templates: Sequence[str]
) -> dict[str, float]:
    """Zero-shot accuracy on a data set's test pictures with each prompt, and what helps to judge it."""
    images, labels = picture_features(backbone, data)  # (N, D), (N,)
    row = {
        "classes": len(data.class_names),
        "test pictures": len(labels),
        "by chance": 1 / len(data.class_names),
        "largest class": labels.bincount().max().item() / len(labels),
    }
    for template in templates:
        row[template] = accuracy(prompt_scores(backbone, images, data.prompts(template)), labels)
    return row


def runs_table(records: Mapping[str, Record], zero_shot: str) -> pd.DataFrame:
    """A row a method: its run beside zero-shot accuracy, which is this measure of its record."""
    rows = {}
    for name, record in records.items():
        before, after = record.measures[zero_shot], record.measures["accuracy"]
        rows[get_method(name).label] = {
            "trainable": f"{record.sizes['parameters']:,}",
            "zero-shot": f"{before:.1%}",
            "adapted": f"{after:.1%}",
            "gain in points": f"{100 * (after - before):+.1f}",
            "last loss": f"{record.measures['loss']:.2f}",
            "seconds": f"{record.seconds:.0f}",
        }
    return pd.DataFrame(rows).T.rename_axis("method")


def beside_paper(results: pd.DataFrame) -> pd.DataFrame:
    """Serial LoRA minus LoRA at equal rank in points: the paper's Table III and the records here."""
    paper = paper_table("Table III")
    serial, lora = (
        paper.xs(METHODS[name].label, level="method") for name in ("serial_lora", "lora")
    )
    here = compare(results, "serial_lora", "lora", "accuracy").set_index("amount")
    own = {
        f"{row.Index} shot": f"{100 * row.mean:+.1f} ± {100 * row.sem:.1f}"
        for row in here.itertuples()
    }
    rows = {}
    for shots, row in (serial - lora).iterrows():
        spread = f"{row.min():+.2f} ... {row.max():+.2f}"
        rows[shots] = {"the paper": f"{row.mean():+.2f}", "from ... to": spread}
        rows[shots]["here"] = own.get(shots, "not run")
    return pd.DataFrame(rows).T.rename_axis("shots")
