"""The ledger of claims: what the paper says, what its tables say, what is measured here.

Verdicts are computed from the paper's tables and from the shipped records, and written nowhere by
hand.

    ledger()                                   # one Row a claim
    ledger_frame(ledger(), "Rank and budget")  # those of one theme, as a table to show
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from serial_lora.errors import require_choice
from serial_lora_course.claims.comparisons import (
    PLUS,
    SERIAL,
    Asked,
    Comparison,
    comparable_at_every_rank,
    improves_on_the_base,
    sam_lead_here,
    sam_lead_printed,
    sam_plus_best_here,
    sam_plus_best_printed,
)
from serial_lora_course.claims.evidence import MEASURES, Evidence, NoRecords, load_evidence
from serial_lora_course.claims.properties import (
    exact_ratio,
    lower_dice_is_better,
    memory_is_a_quarter,
    number_of_datasets,
    printed_counts,
    printed_ratio,
    printed_units,
    serial_equals_three_pairs,
    spectrum_falls_gradually,
    spectrum_lies_between,
    was_there_before,
)
from serial_lora_course.claims.verdicts import (
    FAILS,
    HOLDS,
    MISSING,
    NOT_SHOWN,
    OPEN,
    UNTESTABLE,
    VERDICTS,
    Finding,
)

Judge = Callable[[Evidence], Finding]


@dataclass(frozen=True)
class Question:
    """What a claim asks of the paper's own tables, and what of our records; see also `Comparison`."""

    tables: Judge
    here: Judge


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        where: section, table or figure of the paper.
        quote: a few of its words.
        says: the claim in our words.
        question: what judges it.
    """

    where: str
    quote: str
    says: str
    question: Question | Comparison


@dataclass(frozen=True)
class Row:
    """A claim with its two findings: by the paper's own tables, and by what is measured here."""

    claim: Claim
    tables: Finding
    here: Finding


def not_shown(says: str) -> Judge:
    """The tables have nothing to say, and why."""
    return lambda evidence: Finding(NOT_SHOWN, says)


def untestable(says: str) -> Judge:
    """Our runs cannot decide it, and why."""
    return lambda evidence: Finding(UNTESTABLE, says)


CLAIMS: dict[str, list[Claim]] = {
    "Size and memory": [
        Claim(
            where="Abstract; Table I",
            quote="uses only 1/4 parameters of LoRA",
            says="Serial LoRA trains a quarter of LoRA's parameters.",
            question=Question(printed_ratio, exact_ratio),
        ),
        Claim(
            where="Table I; captions of Tables II-IV",
            quote="Comparison of Parameter Counts Between LoRA and Serial LoRA",
            says="The numbers of parameters are those printed.",
            question=Question(printed_units, printed_counts),
        ),
        Claim(
            where="Section III.A; abstract",
            quote="significantly reducing the model’s memory footprint",
            says="Memory falls as the parameters do, to a quarter.",
            question=Question(
                not_shown("Parameters are called memory; no memory is measured."),
                memory_is_a_quarter,
            ),
        ),
        Claim(
            where="Sections III.A-III.C",
            quote="All experiments run on a single Nvidia RTX 3090 GPU",
            says="Every experiment fits one card of 24 GB.",
            question=Question(
                not_shown("No peak memory is given."),
                untestable("No run at the paper's scale is in our records."),
            ),
        ),
    ],
    "Comparable or better": [
        Claim(
            where="Section IV; Section II.C",
            quote="demonstrated the effectiveness of our method",
            says="Serial LoRA adapts CLIP, SAM and SD3: better than not adapting.",
            question=Question(
                not_shown("The unadapted model is not in them."), improves_on_the_base
            ),
        ),
        Claim(
            where="Abstract; Section I",
            quote="achieves comparable performance in most cases",
            says="With a quarter of the parameters Serial LoRA is comparable with LoRA in most cases.",
            question=Comparison(list(MEASURES), [SERIAL], share="most", comparable=True),
        ),
        Claim(
            where="Abstract",
            quote="the results confirm consistent superiority of our method",
            says="Serial LoRA is consistently better than LoRA.",
            question=Comparison(list(MEASURES), [SERIAL]),
        ),
        Claim(
            where="Section III.B; Table III",
            quote="comparable or even superior accuracy to LoRA and LoRA+",
            says="CLIP: each serial variant is comparable with, or better than, its LoRA counterpart.",
            question=Comparison(["accuracy"], [SERIAL, PLUS], comparable=True),
        ),
        Claim(
            where="Section III.C; Table IV",
            quote="outperform LoRA and LoRA+ in nearly all cases",
            says="SAM: each serial variant is better than its LoRA counterpart in nearly all cases.",
            question=Comparison(["dice"], [SERIAL, PLUS], share="nearly all"),
        ),
        Claim(
            where="Section III.A; Table II",
            quote="maintains similar or even improved FID and CLIP-Score across most styles",
            says="SD3: Serial LoRA's FID and CLIP-Score are similar to LoRA's or better, for most styles.",
            question=Comparison(["fid", "style"], [SERIAL], share="most", comparable=True),
        ),
        Claim(
            where="Section III.A; Fig. 4",
            quote="learn the style accurately while generating images that align well",
            says="SD3: the pictures look right, in style and content.",
            question=Question(
                not_shown("A few pictures, chosen; no human judgement."),
                untestable("It needs people who judge, and the paper's model at 1024 pixels."),
            ),
        ),
    ],
    "Few pictures": [
        Claim(
            where="Section III.B; Table III",
            quote="consistently exhibits marginally improved accuracy across almost all datasets",
            says="CLIP, one shot: Serial LoRA is a little better than LoRA on almost all data sets.",
            question=Comparison(["accuracy"], [SERIAL], share="nearly all", amounts=[1]),
        ),
        Claim(
            where="Section III.C; Table IV",
            quote="achieves state-of-the-art results in few-shot learning involving comparatively fewer samples",
            says="SAM, 20% of the pictures: Serial LoRA+ is the best method.",
            question=Question(sam_plus_best_printed, sam_plus_best_here),
        ),
        Claim(
            where="Section III.C; Table IV",
            quote="superior performance of Serial LoRA under more limited data conditions",
            says="SAM: Serial LoRA's lead over LoRA is larger when there are fewer pictures.",
            question=Question(sam_lead_printed, sam_lead_here),
        ),
    ],
    "LoRA+": [
        Claim(
            where="Section III.B; Table III",
            quote="outperforms LoRA+ in accuracy across all datasets and shot settings",
            says="CLIP: Serial LoRA+ is better than LoRA+ in every cell.",
            question=Comparison(["accuracy"], [PLUS]),
        ),
        Claim(
            where="Section III.A; Table II",
            quote="comparable or superior scores in various styles",
            says="SD3: Serial LoRA+ is comparable with LoRA+ or better, for most styles.",
            question=Comparison(["fid", "style"], [PLUS], share="most", comparable=True),
        ),
        Claim(
            where="Section I; Section IV",
            quote="compatibility with existing LoRA improvements",
            says="LoRA+ can be added to Serial LoRA: Serial LoRA+ is not worse than Serial LoRA.",
            question=Comparison(
                ["accuracy", "dice", "fid"], [("serial_lora_plus", "serial_lora")], comparable=True
            ),
        ),
        Claim(
            where="Section III (implied)",
            quote="within advanced fine-tuning structures",
            says="CLIP: LoRA+ is a stronger baseline than LoRA.",
            question=Comparison(["accuracy"], [("lora_plus", "lora")], share="most"),
        ),
    ],
    "Rank and budget": [
        Claim(
            where="Section III.D; Fig. 5",
            quote="adaptability of the Serial LoRA method under different rank settings",
            says="CLIP: at equal rank Serial LoRA keeps up with LoRA at every rank.",
            question=Question(
                not_shown("Fig. 5 alone, without numbers, shots or spread."),
                comparable_at_every_rank,
            ),
        ),
        Claim(
            where="Section III.B",
            quote="captures parameter commonalities across the attention heads more effectively",
            says="What Serial LoRA reaches is due to sharing, not to its size: it beats LoRA at the same number of parameters.",
            question=Question(
                not_shown("LoRA at equal budget is not in them."),
                Asked(
                    [
                        "more than size: above LoRA with as many parameters",
                        "sharing, serial: one pair above one for each of q, k, v",
                        "sharing, parallel: one A above one for each of q, k, v",
                    ]
                ),
            ),
        ),
    ],
    "Inside the adapter": [
        Claim(
            where="Abstract; Section II.D",
            quote="a novel LoRA variant",
            says="A shared pair in front of attention had not been there before.",
            question=Question(
                not_shown("RepAdapter (Luo et al. 2023, arXiv 2302.08106) is not cited."),
                was_there_before,
            ),
        ),
        Claim(
            where="Section II.D; equations 4 and 5",
            quote="equivalently builds multiple LoRAs",
            says="One shared pair acts as a LoRA pair on each of q, k and v.",
            question=Question(not_shown("Equations 4 and 5."), serial_equals_three_pairs),
        ),
        Claim(
            where="Section II.D; Fig. 3",
            quote="consistent intermediate positioning between the original pre-trained model and standard",
            says="Serial LoRA's singular values lie between the base's and LoRA's.",
            question=Question(
                not_shown("Fig. 3 alone, without numbers; which matrix it shows is not said."),
                spectrum_lies_between,
            ),
        ),
        Claim(
            where="Section II.D; Fig. 3",
            quote="a more gradual decay pattern",
            says="Serial LoRA's singular values fall more gradually than LoRA's.",
            question=Question(
                not_shown("Fig. 3 alone, without numbers."), spectrum_falls_gradually
            ),
        ),
        Claim(
            where="Section II.D",
            quote="likely contributing to its superior performance",
            says="The shape of the spectrum is a cause of the performance.",
            question=Question(
                not_shown("The spectrum is shown, not changed."),
                untestable("It needs runs in which the spectrum alone differs."),
            ),
        ),
    ],
    "Data and metric": [
        Claim(
            where="Abstract; Section I",
            quote="extensive experiments on 24 datasets",
            says="The experiments cover 24 data sets.",
            question=Question(
                number_of_datasets, untestable("It is about the paper's own experiments.")
            ),
        ),
        Claim(
            where="Section III.C",
            quote="a lower score indicates greater accuracy",
            says="A lower Dice means a more accurate mask.",
            question=Question(
                not_shown("No second measure stands beside it."), lower_dice_is_better
            ),
        ),
    ],
}
"""Every claim under its theme, in the ledger's order."""


def judge(claim: Claim, evidence: Evidence) -> Row:
    """Both findings on one claim; where its records are missing, the second one says so."""
    tables = claim.question.tables(evidence)
    try:
        here = claim.question.here(evidence)
    except NoRecords as error:
        here = Finding(MISSING, str(error))
    return Row(claim, tables, here)


def ledger(evidence: Evidence | None = None) -> list[Row]:
    """All claims, judged by the given evidence or by what is shipped."""
    evidence = evidence or load_evidence()
    return [judge(claim, evidence) for claims in CLAIMS.values() for claim in claims]


# --------------------------------------------------------------------------- as tables


def ledger_frame(rows: Sequence[Row], theme: str) -> pd.DataFrame:
    """The rows of one theme as a table to show, with Markdown in its cells.

    Raises:
        SerialLoRAError: there is no such theme.
    """
    require_choice("theme", theme, CLAIMS)
    return pd.DataFrame(
        [
            {
                "The claim": f"{row.claim.says} “{row.claim.quote}” ({row.claim.where})",
                "The paper's own tables": _cell(row.tables),
                "Measured here": _cell(row.here),
            }
            for row in rows
            if row.claim in CLAIMS[theme]
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


def read_ledger(rows: Sequence[Row]) -> str:
    """Which claims hold by both legs, by one, and by neither, as a list in Markdown."""
    groups: dict[str, list[Row]] = {
        "hold in the paper's tables and here": [],
        "hold in the paper's tables, and our runs leave them undecided": [],
        "do not hold by the paper's own tables": [],
        "do not hold here": [],
    }
    both, open_here, not_printed, not_here = groups.values()
    for row in rows:
        tables, here = row.tables.verdict, row.here.verdict
        both += [row] * (tables == here == HOLDS)
        open_here += [row] * (tables == HOLDS and here == OPEN)
        not_printed += [row] * (tables == FAILS)
        not_here += [row] * (here == FAILS)
    lines = []
    for title, found in groups.items():
        lines.append(f"- **{len(found)} of {len(rows)} {title}**")
        lines += [f"  - {row.claim.says}" for row in found]
    return "\n".join(lines)
