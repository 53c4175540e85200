"""The ledger of claims: what the paper says, what its tables say, what is measured here.

Claims stand in ``assets/claims.json``; their verdicts are computed from the paper's tables and from
the shipped records, and written nowhere by hand.

    ledger()                                   # one Row a claim
    ledger_frame(ledger(), "Rank and budget")  # those of one theme, as a table to show

``python -m serial_lora_course.claims.ledger --write CLAIMS.md`` writes the page; ``--check CLAIMS.md`` says
whether it is still what the records give.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from serial_lora.errors import SerialLoRAError
from serial_lora_course.claims import records as claims_records
from serial_lora_course.claims import tables as claims_tables
from serial_lora_course.claims.evidence import MEASURES, Evidence, NoRecords, load_evidence
from serial_lora_course.claims.paper import inconsistency_frame, paper
from serial_lora_course.claims.verdicts import ERRORS, MISSING, VERDICTS, Finding


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        key: a short name, no other claim's.
        theme: the heading it stands under.
        where: section, table or figure of the paper.
        quote: a few of its words.
        says: the claim in our words.
        tables, here: the name of the function that judges it, to its options; one of
            `claims_tables`, one of `claims_records`.
    """

    key: str
    theme: str
    where: str
    quote: str
    says: str
    tables: dict[str, dict[str, Any]]
    here: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """A claim with its two findings: by the paper's own tables, and by what is measured here."""

    claim: Claim
    tables: Finding
    here: Finding


@cache
def paper_claims() -> tuple[Claim, ...]:
    """Every claim of the ledger, in its order."""
    asset = resources.files("serial_lora_course") / "assets" / "claims.json"
    return tuple(Claim(**each) for each in json.loads(asset.read_text(encoding="utf-8"))["claims"])


def themes() -> list[str]:
    """The headings, in the ledger's order."""
    return list(dict.fromkeys(claim.theme for claim in paper_claims()))


def judge(claim: Claim, evidence: Evidence) -> Row:
    """Both findings on one claim; where its records are missing, the second one says so."""
    tables = _find(claims_tables, claim.tables, evidence.paper)
    try:
        here = _find(claims_records, claim.here, evidence)
    except NoRecords as error:
        here = Finding(MISSING, str(error))
    return Row(claim, tables, here)


def _find(functions: ModuleType, test: dict[str, dict[str, Any]], evidence: Any) -> Finding:
    ((name, options),) = test.items()
    function = getattr(functions, name, None)
    if function is None:
        raise SerialLoRAError(
            f"{functions.__name__} has no function {name!r}; correct assets/claims.json."
        )
    return function(evidence, **options)


def ledger(evidence: Evidence | None = None) -> list[Row]:
    """All claims, judged by the given evidence or by what is shipped."""
    evidence = evidence or load_evidence()
    return [judge(claim, evidence) for claim in paper_claims()]


# --------------------------------------------------------------------------- as tables


def ledger_frame(rows: Sequence[Row], theme: str) -> pd.DataFrame:
    """The rows of one theme as a table to show, with Markdown in its cells.

    Raises:
        SerialLoRAError: there is no such theme.
    """
    if theme not in themes():
        raise SerialLoRAError(f"There is no theme {theme!r}; choose from {', '.join(themes())}.")
    return pd.DataFrame(
        [
            {
                "The claim": f"{row.claim.says} “{row.claim.quote}” ({row.claim.where})",
                "The paper's own tables": _cell(row.tables),
                "Measured here": _cell(row.here),
            }
            for row in rows
            if row.claim.theme == theme
        ]
    )


def _cell(finding: Finding) -> str:
    return f"**{finding.verdict}.** {finding.says}"


def counts_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """How often each verdict was given, by the paper's tables and here; the used ones alone."""
    tables = Counter(row.tables.verdict for row in rows)
    here = Counter(row.here.verdict for row in rows)
    return pd.DataFrame(
        [
            {
                "Verdict": verdict,
                "By the paper's own tables": tables[verdict],
                "By what is measured here": here[verdict],
            }
            for verdict in VERDICTS
            if tables[verdict] + here[verdict]
        ]
    )


def rules() -> list[str]:
    """The rules that verdicts are given by, in words."""
    margins = ", ".join(f"{item.margin:.1f} {item.unit}" for item in MEASURES.values())
    return [
        "**Tables.** The paper prints one number a cell (a data set and an amount of data) and no "
        "spread, so cells are counted. *Nearly all* asks for nine in ten, *most* for more than "
        "half. A claim that is true in most cells, but not in as many as it says, holds in part.",
        "**Pairs.** Our runs with the same data set, amount of data and seed saw the same "
        "pictures, so methods are compared run by run. Amounts are averaged first, since a seed's "
        "small training sets lie inside its large ones: a pair is one data set and one seed. "
        "After ± stands the standard error over pairs; in brackets, how many data sets and seeds, "
        "and in how many cells the mean over seeds speaks for the first method.",
        f"**Better** holds when the mean difference is more than {ERRORS:g} standard errors above "
        f"zero, and does not when it is more than {ERRORS:g} below. In between the runs do not "
        "tell the methods apart, which is not the same as equal. Better, but in fewer cells than "
        "the claim says, is in part.",
        f"**Comparable** means not behind by more than a margin: it holds when even {ERRORS:g} "
        f"standard errors below the mean the first is behind by less, and does not when {ERRORS:g} "
        f"above the mean it is behind by more. The margins are {margins}. They are a choice, and a "
        "difference can be real and within them.",
        "**Signs.** Positive speaks for the method named first. FID, where less is better, is "
        "compared by 100 times the logarithm of the ratio, which is the difference in per cent as "
        "long as it is small.",
        "**Several comparisons.** A claim about several holds where it holds for as many as it "
        "says; it does not where one of them refutes a claim about all; else it holds in part.",
        "**Limits.** Ours are small models and drawings, the paper's are large models and "
        "photographs: a verdict here is about the method at this scale. With so many claims and "
        "two standard errors, expect a verdict or two to be luck, and more where a row stands on "
        "few pairs.",
    ]


def page() -> str:
    """The whole ledger as Markdown."""
    rows, about = ledger(), paper()
    parts = [
        "# The paper's claims, one by one",
        f"*{about['title']}* (arXiv:{about['arxiv']}). One row a claim: where it stands, what the "
        "paper's own tables say to it, what this repository's records at tiny scale say, and two "
        "verdicts by the rules at the end. Generated from `serial_lora_course/assets/records` by "
        "`python -m serial_lora_course.claims.ledger --write CLAIMS.md`; lesson 09 explains it.",
        markdown_table(counts_frame(rows)),
    ]
    for theme in themes():
        parts += [f"## {theme}", markdown_table(ledger_frame(rows, theme))]
    parts += [
        "## What does not fit together in the paper",
        markdown_table(_inconsistencies()),
        "## The rules",
        "\n".join(f"- {rule}" for rule in rules()),
    ]
    return "\n\n".join(parts) + "\n"


def _inconsistencies() -> pd.DataFrame:
    names = {"where": "Where", "says": "The paper says", "finding": "What we find"}
    return inconsistency_frame().rename(columns=names)


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[str(cell).replace("|", "\\|") for cell in row] for row in table.to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --------------------------------------------------------------------------- command line


def main(arguments: list[str] | None = None) -> int:
    """Print the ledger, write it, or check a written one; 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m serial_lora_course.claims.ledger")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the ledger to this file")
    parser.add_argument("--check", type=Path, metavar="PAGE", help="exit with 1 if it is stale")
    options = parser.parse_args(arguments)
    wanted = page()
    try:
        if options.write:
            options.write.write_text(wanted, encoding="utf-8")
        elif options.check is None:
            print(wanted, end="")
        elif options.check.read_text(encoding="utf-8") != wanted:
            print(
                f"The ledger {options.check} is stale: run "
                f"`python -m serial_lora_course.claims.ledger --write {options.check}`.",
                file=sys.stderr,
            )
            return 1
    except OSError as error:
        print(
            f"The ledger {error.filename} cannot be read or written ({error.strerror}); name "
            "another file.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
