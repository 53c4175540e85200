"""The paper's tables to show, and the numbers of theirs that lessons quote."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from serial_lora.errors import require_choice
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.paper_tables import paper_results, printed_parameters


def paper_table(where: str) -> pd.DataFrame:
    """One of "Table II", "Table III" and "Table IV", laid out as the paper lays it out."""
    results = paper_results()
    require_choice("table of results", where, sorted(set(results["where"])))
    rows = results[results["where"] == where]
    columns = ["dataset"] if rows["metric"].nunique() == 1 else ["dataset", "metric"]
    order = [tuple(pair) for pair in rows[["amount", "method"]].drop_duplicates().to_numpy()]
    wide = rows.pivot(index=["amount", "method"], columns=columns, values="value").loc[order]
    named = [(amount, METHOD_TITLES[method]) for amount, method in wide.index]
    wide.index = pd.MultiIndex.from_tuples(named, names=["amount", "method"])
    return wide


def paper_facts() -> dict[str, Any]:
    """Numbers about the paper's tables that lessons and the audit quote, computed."""
    results, sizes = paper_results(), printed_parameters()
    datasets = results.groupby("model")["dataset"].nunique()
    clip, dice, fid = _cells("accuracy_percent"), _cells("dice_as_printed"), _cells("fid")
    facts: dict[str, Any] = {
        "tabulated_datasets": int(datasets.sum()),
        "pie_full_lora": f"{dice.loc[('100%', 'pie'), 'lora']:.4f}",
        "serial_plus_best_20": int((dice.loc["20%"].idxmin(axis=1) == "serial_lora_plus").sum()),
        "lora_plus_below": int((clip["lora_plus"] < clip["lora"]).sum()),
        "serial_behind_clip": int((clip["serial_lora"] < clip["lora"]).sum()),
        "serial_behind_sam": int((dice["serial_lora"] > dice["lora"]).sum()),
        "serial_behind_fid": int((fid["serial_lora"] > fid["lora"]).sum()),
        "clip_cells": len(clip),
        "sam_cells": len(dice),
        "fid_cells": len(fid),
        "eurosat_serial": clip.loc[("16 shot", "eurosat"), "serial_lora"],
        "eurosat_lora": clip.loc[("16 shot", "eurosat"), "lora"],
        "food_lora_plus": _row(clip["lora_plus"], "food101", ("1 shot", "4 shot", "16 shot")),
        "flood_lora": _row(dice["lora"], "flood", ("20%", "50%", "100%")),
    }
    facts |= {f"{model}_datasets": int(count) for model, count in datasets.items()}
    for row in sizes[sizes["unit"] == "M"].itertuples():
        short = {"lora": "lora", "serial_lora": "serial"}[row.method]
        facts[f"{row.model}_{short}_printed"] = f"{row.printed:.2f}"
    return facts


def _cells(metric: str) -> pd.DataFrame:
    """One metric of the paper: rows (amount, dataset), one column a method."""
    results = paper_results()
    rows = results[results["metric"] == metric]
    return rows.pivot(index=["amount", "dataset"], columns="method", values="value")


def _row(cells: pd.Series, dataset: str, amounts: Iterable[str]) -> str:
    return ", ".join(f"{cells[amount, dataset]:g}" for amount in amounts)
