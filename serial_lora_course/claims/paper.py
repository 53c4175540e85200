"""The paper's tables as data, and what its printed counts are worth beside the exact ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from serial_lora.counting import BYTES_PER_FLOAT32
from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES, Architecture

# --------------------------------------------------------------------------- the paper as data


@cache
def _asset(name: str) -> dict[str, Any]:
    asset = resources.files("serial_lora_course") / "assets" / name
    return json.loads(asset.read_text(encoding="utf-8"))


def paper() -> dict[str, Any]:
    """The paper's title, authors, venue, year and arXiv number."""
    return dict(_asset("paper_tables.json")["paper"])


def paper_settings() -> pd.DataFrame:
    """The hyper-parameters that the paper states, one row a model."""
    return pd.DataFrame(_asset("paper_tables.json")["settings"])


def paper_results() -> pd.DataFrame:
    """Tables II-IV in long form.

    Columns: where, model, dataset, method, amount, metric, better ("higher" or "lower", as the
    paper says), value. Nothing is corrected.
    """
    return pd.DataFrame(_asset("paper_tables.json")["results"])


def paper_table(where: str) -> pd.DataFrame:
    """One of "Table II", "Table III" and "Table IV", laid out as the paper lays it out."""
    results = paper_results()
    rows = results[results["where"] == where]
    if rows.empty:
        known = ", ".join(sorted(set(results["where"])))
        raise SerialLoRAError(f"there is no {where!r} among the results; choose one of {known}.")
    columns = ["dataset"] if rows["metric"].nunique() == 1 else ["dataset", "metric"]
    order = [tuple(pair) for pair in rows[["amount", "method"]].drop_duplicates().to_numpy()]
    wide = rows.pivot(index=["amount", "method"], columns=columns, values="value").loc[order]
    named = [(amount, METHOD_TITLES[method]) for amount, method in wide.index]
    wide.index = pd.MultiIndex.from_tuples(named, names=["amount", "method"])
    return wide


# --------------------------------------------------------------------------- the audit

READINGS: dict[str, Callable[[int], float]] = {
    "millions of parameters": lambda n: n / 1e6,
    "units of 1024 x 1000 parameters": lambda n: n / (1024 * 1000),
    "units of 1024 x 1024 parameters": lambda n: n / 1024**2,
    "float32 bytes in MB": lambda n: 4 * n / 1e6,
    "float32 bytes in MiB": lambda n: 4 * n / 1024**2,
    "bfloat16 bytes in MB": lambda n: 2 * n / 1e6,
    "bfloat16 bytes in MiB": lambda n: 2 * n / 1024**2,
}
"""Every unit in which a count could plausibly have been printed."""

_EXPECTED_READING = {"M": "millions of parameters", "MB": "float32 bytes in MB"}


@dataclass(frozen=True)
class AuditRow:
    """One printed figure beside the exact count.

    Attributes:
        model, method: as in `ARCHITECTURES` and the paper.
        exact: the closed form's count.
        printed, unit, where: what the paper prints, and where.
        readings: the exact count in every unit of `READINGS`.
        matches: the units in which it rounds to the printed figure.
        kind: "right", "unit" (right number, wrong unit) or "unexplained".
        verdict: that, in a sentence made from the numbers.
    """

    model: str
    method: str
    exact: int
    printed: float
    unit: str
    where: str
    readings: dict[str, float] = field(repr=False)
    matches: tuple[str, ...]
    kind: str
    verdict: str


def _decimals(printed: float) -> int:
    return len(repr(printed).partition(".")[2])


def _rounds_to(value: float, printed: float) -> bool:
    """Whether `value`, rounded to the digits printed, is the printed figure."""
    return abs(value - printed) <= 0.5 * 10 ** -max(2, _decimals(printed)) + 1e-12


def _numeric_fit(item: Architecture, method: str) -> int:
    """(2 * rank + 3) * width for every pair: fits SD3's figures; nothing in the method says so."""
    pairs = 4 if method == "lora" else 1
    return sum((2 * item.rank + 3) * t.width * t.depth * pairs for t in item.towers)


def _twin(key: str, printed: float) -> str:
    """A remark when the printed figure is another model's exact count in millions."""
    for other, item in ARCHITECTURES.items():
        if other == key or not item.in_paper:
            continue
        for method, count in (("LoRA", item.lora()), ("Serial LoRA", item.serial_lora())):
            if _rounds_to(count / 1e6, printed):
                return f" (The same digits are {method}'s exact count on {item.title}: {count:,}.)"
    return ""


def _judge(key: str, method: str, exact: int, row: dict[str, Any]) -> tuple[str, str]:
    """Kind and verdict of one printed figure."""
    printed, unit = row["printed"], row["unit"]
    matches = [name for name, reading in READINGS.items() if _rounds_to(reading(exact), printed)]
    if _EXPECTED_READING[unit] in matches:
        return "right", f"Right as printed: {exact:,} parameters are {printed} {unit}."
    if matches:
        reading = matches[0]
        return "unit", (
            f"The number is right and its unit is not: {exact:,} parameters are "
            f"{READINGS[_EXPECTED_READING[unit]](exact):.2f} {unit}; "
            f"counted as {reading} they are {printed}." + _twin(key, printed)
        )
    value = READINGS[_EXPECTED_READING[unit]](exact)
    verdict = (
        f"Not explained: {exact:,} parameters are {value:.2f} {unit}; "
        f"the paper prints {printed} ({printed / value - 1:+.1%})."
    )
    fit = _numeric_fit(ARCHITECTURES[key], method)
    if _rounds_to(fit / 1e6, printed):
        verdict += (
            f" (2r + 3) d a pair gives {fit:,} and would fit, but nothing in the method "
            "holds three further vectors."
        )
    return "unexplained", verdict


def audit() -> list[AuditRow]:
    """Every parameter figure that the paper prints, beside the exact count and a verdict.

    The verdicts are computed: a figure is compared with the exact count in each unit of
    `READINGS`, at the digits printed.
    """
    rows = []
    for row in _asset("paper_tables.json")["parameters"]:
        item = ARCHITECTURES[row["model"]]
        exact = item.lora() if row["method"] == "lora" else item.serial_lora()
        readings = {name: reading(exact) for name, reading in READINGS.items()}
        kind, verdict = _judge(row["model"], row["method"], exact, row)
        rows.append(
            AuditRow(
                **row,
                exact=exact,
                readings=readings,
                matches=tuple(n for n, v in readings.items() if _rounds_to(v, row["printed"])),
                kind=kind,
                verdict=verdict,
            )
        )
    return rows


def audit_frame() -> pd.DataFrame:
    """`audit` as a table to show."""
    return pd.DataFrame(
        [
            {
                "model": ARCHITECTURES[row.model].title,
                "method": METHOD_TITLES[row.method],
                "exact count": row.exact,
                "printed": f"{row.printed:.2f}{row.unit}",
                "where": row.where,
                "matches as": "; ".join(row.matches) or "none tried",
                "verdict": row.verdict,
            }
            for row in audit()
        ]
    )


def readings_frame(mark: bool = False) -> pd.DataFrame:
    """The exact counts in every plausible unit, beside the printed figure; one row a figure.

    Args:
        mark: whether to give text for a Markdown table, at the digits that the paper prints, with
            every reading in bold that rounds to the printed figure.
    """
    rows = []
    for row in audit():
        readings = {name: round(value, 3) for name, value in row.readings.items()}
        if mark:
            readings = {
                name: f"**{value:.2f}**" if name in row.matches else f"{value:.2f}"
                for name, value in row.readings.items()
            }
        name = ARCHITECTURES[row.model].title.partition(",")[0] if mark else row.model
        place = {"where": row.where} if mark else {}
        printed = f"{row.printed:.2f} {row.unit}" if mark else f"{row.printed:.2f}{row.unit}"
        rows.append(
            {"model": name, "method": METHOD_TITLES[row.method], **place, "printed": printed}
            | readings
        )
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


# --------------------------------------------------------------------------- inconsistencies


def _cells(metric: str) -> pd.DataFrame:
    """One metric of the paper: rows (amount, dataset), one column a method."""
    results = paper_results()
    rows = results[results["metric"] == metric]
    return rows.pivot(index=["amount", "dataset"], columns="method", values="value")


def _series(metric: str, method: str, dataset: str, amounts: Iterable[str]) -> str:
    cells = _cells(metric)
    return ", ".join(f"{cells.loc[(amount, dataset), method]:g}" for amount in amounts)


def paper_facts() -> dict[str, Any]:
    """Numbers about the paper's tables that the prose of `inconsistencies` needs, computed."""
    results = paper_results()
    datasets = results.groupby("model")["dataset"].nunique()
    clip, dice, fid = _cells("accuracy_percent"), _cells("dice_as_printed"), _cells("fid")
    printed = {(r.model, r.method, r.unit): r.printed for r in audit()}
    sd3 = ARCHITECTURES["sd3"]
    fifth = dice.loc["20%"]
    facts: dict[str, Any] = {
        "tabulated_datasets": int(datasets.sum()),
        "sam_blocks": ARCHITECTURES["sam"].towers[0].depth,
        "sd3_excess": printed["sd3", "lora", "M"] * 1e6 / sd3.lora() - 1,
        "sam_lora_bytes": ARCHITECTURES["sam"].lora() * BYTES_PER_FLOAT32,
        "pie_full_lora": f"{dice.loc[('100%', 'pie'), 'lora']:.4f} (LoRA, pie, all data)",
        "serial_plus_best_20": int((fifth.idxmin(axis=1) == "serial_lora_plus").sum()),
        "lora_plus_below": int((clip["lora_plus"] < clip["lora"]).sum()),
        "serial_behind_clip": int((clip["serial_lora"] < clip["lora"]).sum()),
        "serial_behind_sam": int((dice["serial_lora"] > dice["lora"]).sum()),
        "serial_behind_fid": int((fid["serial_lora"] > fid["lora"]).sum()),
        "clip_cells": len(clip),
        "sam_cells": len(dice),
        "fid_cells": len(fid),
        "eurosat_serial": clip.loc[("16 shot", "eurosat"), "serial_lora"],
        "eurosat_lora": clip.loc[("16 shot", "eurosat"), "lora"],
        "food_lora_plus": _series(
            "accuracy_percent", "lora_plus", "food101", ("1 shot", "4 shot", "16 shot")
        ),
        "flood_lora": _series("dice_as_printed", "lora", "flood", ("20%", "50%", "100%")),
    }
    for key in ("clip", "sam", "sd3"):
        facts[f"{key}_datasets"] = int(datasets[key])
        facts[f"{key}_lora"] = ARCHITECTURES[key].lora()
        facts[f"{key}_serial"] = ARCHITECTURES[key].serial_lora()
        facts[f"{key}_lora_printed"] = f"{printed[key, 'lora', 'M']:.2f}"
        facts[f"{key}_serial_printed"] = f"{printed[key, 'serial_lora', 'M']:.2f}"
    return facts


def inconsistencies() -> list[dict[str, str]]:
    """What the paper prints that does not fit together.

    Each entry has `key`, `kind` (unit, count, metric, data, figure, claim or method), `where` in
    the paper, what it `says` (in our words) and the `finding`. Numbers in the sentences are
    computed from the paper's own tables and the exact counts.
    """
    facts = paper_facts()
    return [
        {name: text.format(**facts) for name, text in entry.items()}
        for entry in _asset("audit.json")["inconsistencies"]
    ]


def inconsistency_frame() -> pd.DataFrame:
    """`inconsistencies` as a table to show."""
    return pd.DataFrame(inconsistencies())[["where", "says", "finding"]]
