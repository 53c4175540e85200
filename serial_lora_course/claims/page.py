"""The whole ledger as one page of Markdown, which `python -m tools.documents` writes."""

from __future__ import annotations

import pandas as pd

from serial_lora_course.claims.audit import inconsistency_frame
from serial_lora_course.claims.evidence import Evidence, load_evidence
from serial_lora_course.claims.ledger import CLAIMS, counts_frame, ledger, ledger_frame
from serial_lora_course.claims.verdicts import UNDECIDED, rules
from serial_lora_course.paper_tables import citation


def claims_page() -> str:
    """The whole ledger as Markdown."""
    rows, about = ledger(), citation()
    parts = [
        "# The paper's claims, one by one",
        f"*{about['title']}* (arXiv:{about['arxiv']}). One row a claim: where it stands, what the "
        "paper's own tables say to it, what this repository's records at tiny scale say, and two "
        "verdicts by the rules at the end. Generated from `serial_lora_course/assets/records` by "
        "`python -m tools.documents`; lesson 13 explains it.",
        markdown_table(counts_frame(rows)),
    ]
    for theme in CLAIMS:
        parts += [f"## {theme}", markdown_table(ledger_frame(rows, theme))]
    parts += [
        "## What does not fit together in the paper",
        markdown_table(inconsistency_frame()),
        "## What the study asks",
        "Its plan, and how it judges, is `docs/study.md`.",
        markdown_table(study_frame(load_evidence())),
        "## The rules",
        "\n".join(f"- {rule}" for rule in rules()),
    ]
    return "\n\n".join(parts) + "\n"


def study_frame(evidence: Evidence) -> pd.DataFrame:
    """Every question of the study, in every lab that asks it."""
    return pd.DataFrame(
        {
            "Question": f"{answer.lab.upper()}: {answer.asks}",
            "Verdict": answer.verdict or UNDECIDED,
            "Found": answer.found,
        }
        for answer in evidence.study
    )


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[str(cell).replace("|", "\\|") for cell in row] for row in table.to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
