"""Claims about one method beside another: what the paper's tables and the records say to them.

The paper's tables print one number a cell and no spread, so there cells are counted. In the records
runs with the same data set, amount of data and seed saw the same pictures, so methods are compared
run by run, and a difference counts where its 95% interval for sets like these leaves out what it is
compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from serial_lora_course.claims.evidence import (
    MEASURES,
    Difference,
    Evidence,
    Measure,
    gains,
    intervals,
    paired,
    printed_scores,
    summarise,
)
from serial_lora_course.claims.verdicts import (
    FAILS,
    HOLDS,
    MISSING,
    NOT_SHOWN,
    SHARES,
    UNFINISHED,
    VERDICT_OF,
    Finding,
    combined,
    verdict_ahead,
    verdict_by_cells,
    verdict_within,
)
from serial_lora_course.labs.methods import METHOD_TITLES

PAPER_METHODS = [name for name in METHOD_TITLES if name != "lora_equal_budget"]
"""The four methods that the paper compares."""

SERIAL = ("serial_lora", "lora")
PLUS = ("serial_lora_plus", "lora_plus")
"""Pairs of methods, of which the first is compared with the second."""


@dataclass(frozen=True)
class Part:
    """One difference behind a finding.

    Attributes:
        label: what distinguishes it from the finding's others; empty, or ending in a blank.
        verdict: one of `VERDICTS`.
        note: what is to be said beside it.
    """

    label: str
    difference: Difference
    verdict: str
    note: str = ""


def combine_parts(parts: Iterable[Part], share: str = "all") -> Finding:
    """The finding of several comparisons, each in words."""
    parts = tuple(parts)
    mixed = len({part.verdict for part in parts}) > 1
    words = []
    for part in parts:
        remarks = [part.verdict] * mixed + [part.note] * bool(part.note)
        words.append(", ".join([f"{part.label}{part.difference}", *remarks]))
    return Finding(combined((part.verdict for part in parts), share), f"{'; '.join(words)}.")


@dataclass(frozen=True)
class Comparison:
    """The first method of each pair is better than the second, or at least comparable.

    Attributes:
        on: names of `MEASURES`.
        pairs: of methods.
        share: how often, a word of `SHARES`: of the cells, or of several comparisons.
        amounts: of data; None for all.
        comparable: whether it is enough not to be behind by more than the measure's margin.
    """

    on: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    share: str = "all"
    amounts: Sequence[int] | None = None
    comparable: bool = False

    def _each(self) -> Iterator[tuple[str, Measure, str, str]]:
        """A label, a measure and two methods for each comparison.

        The label tells it from the others; it is empty where nothing but the unit does.
        """
        measures = [MEASURES[name] for name in self.on]
        several_tasks = len({item.task for item in measures}) > 1
        for item in measures:
            for one, other in self.pairs:
                words = [item.task.upper()] * several_tasks
                if len(self.pairs) > 1:
                    words.append(f"{METHOD_TITLES[one]} against {METHOD_TITLES[other]}")
                yield f"{', '.join(words)} " if words else "", item, one, other

    def tables(self, evidence: Evidence) -> Finding:
        """By the cells of the paper's tables."""
        count = cells = 0
        means = []
        for label, item, one, other in self._each():
            table = printed_scores(evidence.paper, item)
            if not {one, other} <= set(table.columns):
                return Finding(NOT_SHOWN, f"{METHOD_TITLES[other]} is not in them.")
            above = table[one] - table[other]
            if self.amounts is not None:
                above = above[above.index.isin(self.amounts, level="amount")]
            margin = item.margin if item.printed_margin is None else item.printed_margin
            count += int((above >= -margin if self.comparable else above > 0).sum())
            cells += len(above)
            means.append(f"{label}{above.mean():+.2f} {item.printed_unit or item.unit}")
        how = "Not behind by more than the margin" if self.comparable else "Better"
        says = f"{how} in {count} of {cells} cells; mean {'; '.join(means)}."
        return Finding(verdict_by_cells(count, cells, self.share), says)

    def here(self, evidence: Evidence) -> Finding:
        """By the records, run by run."""
        parts = []
        for label, item, one, other in self._each():
            differences = paired(evidence.runs(item.task), item, one, other, self.amounts)
            found = summarise(differences, item.unit)
            note = ""
            if self.comparable:
                verdict = verdict_within(found.decides, item.margin)
                if verdict == HOLDS and verdict_ahead(found.decides) == FAILS:
                    note = "behind, but within the margin"
            else:
                often = SHARES[self.share](found.above, found.cells)
                verdict = verdict_ahead(found.decides, often)
            parts.append(Part(label, found, verdict, note))
        return combine_parts(parts, self.share)


@dataclass(frozen=True)
class Asked:
    """Questions of the study that a claim stands on, in every lab that asks them; all must hold."""

    asks: Sequence[str]

    def __call__(self, evidence: Evidence) -> Finding:
        found = [answer for answer in evidence.study if answer.asks in self.asks]
        if not found:
            return Finding(MISSING, "The study's records are not there; `make study` makes them.")
        words = "; ".join(
            f"{answer.lab.upper()} ({answer.asks}) {answer}"
            + (f", {VERDICT_OF[answer.verdict]}" if answer.verdict else "")
            for answer in found
        )
        if not all(answer.verdict for answer in found):
            return Finding(UNFINISHED, f"{words}.")
        return Finding(combined(VERDICT_OF[answer.verdict] for answer in found), f"{words}.")


# --------------------------------------------------------------------------- SAM with few pictures


def sam_plus_best_printed(evidence: Evidence) -> Finding:
    """Serial LoRA+ has the best printed Dice of the paper's four with the least data."""
    table = printed_scores(evidence.paper, MEASURES["dice"])
    cells = table.xs(min(table.index.get_level_values("amount")), level="amount")
    return _plus_is_best(cells)


def sam_plus_best_here(evidence: Evidence) -> Finding:
    """Serial LoRA+ has the best mean Dice of the paper's four with the least data."""
    runs = evidence.runs("sam")
    runs = runs[runs["method"].isin(PAPER_METHODS) & (runs["amount"] == runs["amount"].min())]
    cells = runs.groupby(["dataset", "method"])["dice"].mean().unstack("method")
    return _plus_is_best(cells, f" (means over {runs['seed'].nunique()} seeds)")


def _plus_is_best(cells: pd.DataFrame, note: str = "") -> Finding:
    count = int((cells.idxmax(axis=1) == "serial_lora_plus").sum())
    says = f"Best of the four in {count} of {len(cells)} cells{note}."
    return Finding(verdict_by_cells(count, len(cells), "most"), says)


def sam_lead_printed(evidence: Evidence) -> Finding:
    """Serial LoRA's printed lead in Dice is larger with the least data than with the most."""
    table = printed_scores(evidence.paper, MEASURES["dice"])
    lead = (table["serial_lora"] - table["lora"]).unstack("amount")
    few, many = lead[min(lead)], lead[max(lead)]
    count = int((few > many).sum())
    says = (
        f"On {count} of {len(lead)} data sets; mean lead {few.mean():+.2f} with the least data, "
        f"{many.mean():+.2f} with the most."
    )
    return Finding(verdict_by_cells(count, len(lead), "most"), says)


def sam_lead_here(evidence: Evidence) -> Finding:
    """Serial LoRA's lead in Dice is larger with the least data than with the most."""
    item = MEASURES["dice"]
    lead = paired(evidence.runs("sam"), item, *SERIAL).unstack("amount")
    few, many = lead[min(lead)], lead[max(lead)]
    change = (few - many).dropna()
    interval = intervals(change)["like"]
    says = (
        f"Lead {few.mean():+.2f} with the least data, {many.mean():+.2f} with the most: changes by "
        f"{interval} {item.unit} ({interval.count} sets, {len(change)} pairs)."
    )
    return Finding(verdict_ahead(interval), says)


# --------------------------------------------------------------------------- the base, every rank


def improves_on_the_base(evidence: Evidence) -> Finding:
    """Serial LoRA is better than the unadapted model; beside it stands LoRA's gain."""
    parts = []
    for item in (MEASURES["accuracy"], MEASURES["dice"], MEASURES["fid"]):
        runs = evidence.runs(item.task)
        found, lora = (summarise(gains(runs, item, method), item.unit) for method in SERIAL)
        note = f"{found.mean / lora.mean:.0%} of LoRA's gain"
        verdict = verdict_ahead(found.decides)
        parts.append(Part(f"{item.task.upper()} ", found, verdict, note))
    return combine_parts(parts)


def comparable_at_every_rank(evidence: Evidence) -> Finding:
    """Serial LoRA is not behind LoRA by more than the margin in accuracy, at every rank."""
    item = MEASURES["accuracy"]
    by_rank = {
        rank: paired(runs, item, *SERIAL)
        for rank, runs in evidence.runs("clip_rank").groupby("lab_rank")
    }
    found = {rank: summarise(differences, item.unit) for rank, differences in by_rank.items()}
    verdicts = {rank: verdict_within(each.decides, item.margin) for rank, each in found.items()}
    verdict = combined(verdicts.values())
    listed = ", ".join(
        f"rank {rank} {each.interval}"
        + (f" ({verdicts[rank]})" if verdicts[rank] != verdict else "")
        for rank, each in found.items()
    )
    of = summarise(pd.concat(by_rank.values()), item.unit)
    says = f"{listed} {item.unit}; all ranks averaged {of.interval} ({of.size})."
    return Finding(verdict, says[0].upper() + says[1:])
