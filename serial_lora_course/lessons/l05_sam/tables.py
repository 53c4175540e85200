"""Tables of lesson 05: set by set, and the paper's Dice beside the records."""

from __future__ import annotations

import pandas as pd

from serial_lora_course.measures.differences import compare
from serial_lora_course.paper_tables import paper_table

EQUAL_RANK = ("serial_lora", "lora")
PAIRS = (
    EQUAL_RANK,
    ("serial_lora", "lora_equal_budget"),
    ("serial_lora_plus", "lora_plus"),
    ("serial_lora_plus", "serial_lora"),
)
"""Which methods are compared, each on the same pictures as the other."""


def by_set(results: pd.DataFrame) -> pd.DataFrame:
    """Each set without its training and with Serial LoRA on all of it, from the smallest gain to the largest."""
    serial = results["method"] == "serial_lora"
    most = results[serial & (results["amount"] == results["amount"].max())]
    table = most.groupby("dataset")[["box_dice", "base_dice", "dice"]].mean()
    table.columns = ["box filled", "not adapted", "Serial LoRA"]
    table["gain"] = table["Serial LoRA"] - table["not adapted"]
    table["above the box"] = table["Serial LoRA"] - table["box filled"]
    return table.sort_values("gain")


def beside_the_paper(results: pd.DataFrame) -> pd.DataFrame:
    """How much better Serial LoRA is than LoRA at equal rank, in the paper and in the records."""
    printed = paper_table("Table IV")
    serial, lora = (printed.xs(name, level="method") for name in ("Serial LoRA", "LoRA"))
    ours = compare(results, *EQUAL_RANK, "dice").set_index("amount")
    rows = {}
    for amount, row in (lora - serial).iterrows():  # lower is better there
        here = ours.reindex([int(amount.rstrip("%"))]).iloc[0]
        rows[amount] = {
            "the paper": f"{row.mean():+.3f}",
            "from ... to": f"{row.min():+.3f} ... {row.max():+.3f}",
            "ours, tiny scale": f"{here['mean']:+.4f} ± {here['sem']:.4f}",
        }
    return pd.DataFrame(rows).T.rename_axis("amount")
