"""What the paper's own tables say to a claim: one function for each kind of claim.

A table prints one number a cell and no spread, so claims are judged by counting cells. Each
function takes the tables and what the claim names, and returns a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from serial_lora_course.claims.evidence import MEASURES, Pairs, compared, printed_scores
from serial_lora_course.claims.paper import audit, paper_facts
from serial_lora_course.claims.verdicts import FAILS, HOLDS, NOT_SHOWN, Finding, verdict_by_cells
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES


def ahead(
    paper: pd.DataFrame,
    on: Sequence[str],
    pairs: Pairs,
    share: str = "all",
    amounts: Sequence[int] | None = None,
) -> Finding:
    """The first method of each pair is better than the second."""
    return _count(paper, on, pairs, share, amounts, "Better", lambda above, margin: above > 0)


def comparable(
    paper: pd.DataFrame, on: Sequence[str], pairs: Pairs, share: str = "most"
) -> Finding:
    """The first method of each pair is not behind the second by more than the margin."""
    how = "Not behind by more than the margin"
    return _count(paper, on, pairs, share, None, how, lambda above, margin: above >= -margin)


def _count(paper, on, pairs, share, amounts, how: str, counts: Callable) -> Finding:
    count = cells = 0
    means = []
    for label, measure, one, other in compared(on, pairs):
        item = MEASURES[measure]
        table = printed_scores(paper, item)
        if not {one, other} <= set(table.columns):
            return Finding(NOT_SHOWN, f"{METHOD_TITLES[other]} is not in them.")
        above = table[one] - table[other]
        if amounts is not None:
            above = above[above.index.isin(amounts, level="shots")]
        count += int(counts(above, item.margin).sum())
        cells += len(above)
        means.append(f"{label}{above.mean():+.2f} {item.unit}")
    says = f"{how} in {count} of {cells} cells; mean {'; '.join(means)}."
    return Finding(verdict_by_cells(count, cells, share), says)


def best(
    paper: pd.DataFrame, measure: str, one: str, amounts: Sequence[int], share: str
) -> Finding:
    """One method is the best of the paper's four."""
    table = printed_scores(paper, MEASURES[measure])
    cells = table[table.index.isin(amounts, level="shots")]
    count = int((cells.idxmax(axis=1) == one).sum())
    says = f"Best of the four in {count} of {len(cells)} cells."
    return Finding(verdict_by_cells(count, len(cells), share), says)


def larger_with_few(paper: pd.DataFrame, measure: str, one: str, other: str) -> Finding:
    """The first method's lead is larger with the least data than with the most."""
    table = printed_scores(paper, MEASURES[measure])
    lead = (table[one] - table[other]).unstack("shots")
    few, many = lead[min(lead)], lead[max(lead)]
    count = int((few > many).sum())
    says = (
        f"On {count} of {len(lead)} data sets; mean lead {few.mean():+.2f} with the least data, "
        f"{many.mean():+.2f} with the most."
    )
    return Finding(verdict_by_cells(count, len(lead), "most"), says)


def quarter(paper: pd.DataFrame) -> Finding:
    """LoRA has four times Serial LoRA's parameters."""
    printed = {(row.model, row.method): row.printed for row in audit() if row.unit == "M"}
    ratios = [
        printed[key, "lora"] / printed[key, "serial_lora"]
        for key, item in ARCHITECTURES.items()
        if item.in_paper
    ]
    near = sum(round(ratio, 2) == 4 for ratio in ratios)
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return Finding(verdict_by_cells(near, len(ratios), "all"), f"Table I: ratios {listed}.")


def printed_sizes(paper: pd.DataFrame) -> Finding:
    """The printed numbers of parameters are the exact ones."""
    printed: dict[tuple[str, str, float], set[str]] = {}
    for row in audit():
        printed.setdefault((row.model, row.method, row.printed), set()).add(row.unit)
    twice = [key for key, units in printed.items() if len(units) > 1]
    models = ", ".join(sorted({ARCHITECTURES[key[0]].title.partition(",")[0] for key in twice}))
    says = f"{models or 'No model'}: one figure with two units, parameters and bytes."
    return Finding(FAILS if twice else HOLDS, says)


def number_of_datasets(paper: pd.DataFrame, claimed: int) -> Finding:
    """As many data sets as claimed stand in the tables."""
    facts = paper_facts()
    found = facts["tabulated_datasets"]
    says = (
        f"{found}: {facts['sd3_datasets']} for SD3, {facts['clip_datasets']} for CLIP, "
        f"{facts['sam_datasets']} for SAM."
    )
    return Finding(HOLDS if found >= claimed else FAILS, says)


def not_shown(paper: pd.DataFrame, says: str) -> Finding:
    """The tables have nothing to say, and why."""
    return Finding(NOT_SHOWN, says)
