"""The whole ledger as one page of Markdown, which `python -m tools.documents` writes."""

from __future__ import annotations

import pandas as pd

from serial_lora_course.claims import study as words
from serial_lora_course.claims.audit import inconsistency_frame
from serial_lora_course.claims.ledger import CLAIMS, counts_frame, ledger, ledger_frame
from serial_lora_course.claims.verdicts import rules
from serial_lora_course.figures.study import COSTS
from serial_lora_course.paper_tables import citation
from serial_lora_course.study.found import (
    FRONT,
    INTERVALS,
    read_found,
    read_repeated,
    read_steps,
)
from serial_lora_course.study.plan import PLANS
from serial_lora_course.study.power import planned_interval

WHERE = "[What it says](docs/study.md#what-was-found)."


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
        markdown_table(words.questions_frame(read_found().answers)),
        "## The rules",
        "\n".join(f"- {rule}" for rule in rules()),
    ]
    return "\n\n".join(parts) + "\n"


def front_part() -> str:
    """For README.md: the picture of the fronts that `pack` drew, or that no arm is whole."""
    found, place = read_found(), f"serial_lora_course/assets/study/{FRONT}"
    if not found.comparable:
        return "No arm of the study has all its runs yet."
    alt = "Gain against trained parameters, a picture a lab; the list below says what it shows."
    parts = [
        "How far the study's methods lift small pretrained models above where they were. The line is the "
        "*front*: no other method gains more with as few parameters as one on it has.",
        f"![{alt}]({place})",
        words.read_front(found),
        " ".join(filter(None, [words.read_verdicts(found.answers), words.read_left(found), WHERE])),
    ]
    return "\n\n".join(parts)


def found_page() -> str:
    """What the study found by now, for `docs/study.md`."""
    found = read_found()
    alt = "Every question's 95% interval for sets like these, as in the table above, with 0 marked."
    parts = [
        markdown_table(words.state_frame(found)),
        words.read_questions(found.answers),
        markdown_table(words.questions_frame(found.answers)),
        "### What sharing, place and basis each contribute",
        "Each compared at equal budget, one thing changed.",
        f"![{alt}](../serial_lora_course/assets/study/{INTERVALS})",
        words.read_parts(found),
        "### What the paper adds over RepAdapter",
        "RepAdapter (Luo et al. 2023) put this layer in this place, with biases and B in two groups. The "
        "paper adds the name, the comparison with LoRA at equal rank, SAM and Stable Diffusion 3, and leaves "
        "biases and groups away. Whether leaving them away makes a difference:",
        words.read_predecessor(found),
        "### How sure it is",
        words.read_aims(found, {lab: planned_interval(plan) for lab, plan in PLANS.items()}),
        words.read_groups(found.answers),
        words.read_repeated(read_repeated(), found),
        "### Gain against what it costs",
        "Of the finished arms that had the same amount of data.",
        words.read_fronts(found, COSTS),
        words.read_step_machines(read_steps()),
        "### Forgetting",
        words.read_forgetting(found),
    ]
    return "\n\n".join(parts)


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[str(cell).replace("|", "\\|") for cell in row] for row in table.to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
