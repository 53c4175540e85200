"""The numbers of docs/claims.csv, CLAIMS.md and docs/study.md, made again from records, tables and study."""

import csv
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l09_trial.tables import FOUND, load_found
from serial_lora_course.measures.intervals import holm, sets_like_these, these_sets
from serial_lora_course.paper_tables import paper_results
from study.spectra import judged
from tools.numbers import NUMBER, agrees, values

ROOT = Path(__file__).parents[2]
with (ROOT / "docs" / "claims.csv").open(encoding="utf-8", newline="") as file:
    ROWS = {row["quote"]: row for row in csv.DictReader(file)}
RUNS = {name: frame(shipped_records(name)) for name in ("clip", "sam", "sd3", "clip_rank")}
MEASURES = {  # a lab's column, how it becomes a score of which more is better, and the score's unit
    "accuracy": ("clip", lambda value: 100 * value, "points"),
    "dice": ("sam", lambda value: 100 * value, "hundredths of Dice"),
    "fid": ("sd3", lambda value: -100 * np.log(value), "hundredths of log FID"),
    "style_share": ("sd3", lambda value: 100 * value, "points of style share"),
}
BASE = {"accuracy": "zero_shot_dataset", "dice": "base_dice", "fid": "base_fid"}
L, S, LP, SP = "lora", "serial_lora", "lora_plus", "serial_lora_plus"
RUN = ["dataset", "amount", "seed"]


def lead(measure: str, one: str, other: str | None, runs: pd.DataFrame | None = None) -> pd.Series:
    """Score of a method above another, or above the unadapted model, run by run."""
    lab, score, _ = MEASURES[measure]
    runs = RUNS[lab] if runs is None else runs
    if other is None:
        own = runs[runs["method"] == one].set_index(RUN)
        return score(own[measure]) - score(own[BASE[measure]])
    scores = score(runs.pivot(index=RUN, columns="method", values=measure))
    return (scores[one] - scores[other]).dropna()


def intervals(above: pd.Series) -> tuple:
    """For sets like these, and for these sets with other seeds; amounts are averaged first."""
    pairs = above.groupby(["dataset", "seed"]).mean()
    by_set = {name: each.to_numpy()[None] for name, each in pairs.groupby(level="dataset")}
    return sets_like_these(by_set), these_sets(by_set)


def in_words(measure: str, above: pd.Series) -> str:
    like, these = intervals(above)
    cells = above.groupby(["dataset", "amount"]).mean()
    size = f"{like.count} sets x {above.index.get_level_values('seed').nunique()} seeds"
    return (
        f"{like} (these sets ± {these.half_width:.2f}) {MEASURES[measure][2]} "
        f"({size}; {(cells > 0).sum()} of {len(cells)} cells)"
    )


COMPARED = {  # the paper's words -> measure, method, rival
    "demonstrated the effectiveness of our method": [(m, S, None) for m in BASE],
    "achieves comparable performance in most cases": [(m, S, L) for m in MEASURES],
    "the results confirm consistent superiority of our method": [(m, S, L) for m in MEASURES],
    "comparable or even superior accuracy to LoRA and LoRA+": [
        ("accuracy", S, L),
        ("accuracy", SP, LP),
    ],
    "outperform LoRA and LoRA+ in nearly all cases": [("dice", S, L), ("dice", SP, LP)],
    "maintains similar or even improved FID and CLIP-Score across most styles": [
        ("fid", S, L),
        ("style_share", S, L),
    ],
    "outperforms LoRA+ in accuracy across all datasets and shot settings": [("accuracy", SP, LP)],
    "comparable or superior scores in various styles": [
        ("fid", SP, LP),
        ("style_share", SP, LP),
    ],
    "compatibility with existing LoRA improvements": [(m, SP, S) for m in BASE],
}


def phrases() -> dict[str, list[str]]:
    """The paper's words -> every number with an interval that is told of them."""
    told = {
        quote: [in_words(m, lead(m, one, other)) for m, one, other in asked]
        for quote, asked in COMPARED.items()
    }
    one_shot = RUNS["clip"][RUNS["clip"]["amount"] == 1]
    words = in_words("accuracy", lead("accuracy", S, L, one_shot))
    told["consistently exhibits marginally improved accuracy across almost all datasets"] = [words]
    few, most = (lead("dice", S, L).xs(amount, level="amount") for amount in (20, 100))
    change = (few - most).rename_axis(["dataset", "seed"])
    like = sets_like_these({n: each.to_numpy()[None] for n, each in change.groupby("dataset")})
    limited = "superior performance of Serial LoRA under more limited data conditions"
    told[limited] = [f"{few.mean():+.2f} with the least", f"{most.mean():+.2f} with the most"]
    told[limited] += [f"by {like} hundredths of Dice"]
    ranks = dict(list(RUNS["clip_rank"].groupby("lab_rank")))
    by_rank = {rank: lead("accuracy", S, L, runs) for rank, runs in ranks.items()}
    several = "adaptability of the Serial LoRA method under different rank settings"
    for rank, above in (by_rank | {"averaged": pd.concat(by_rank.values())}).items():
        like, these = intervals(above)
        of = rank if rank == "averaged" else f"ank {rank}"
        told.setdefault(several, []).append(f"{of} {like} (these sets ± {these.half_width:.2f})")
    sharing = "captures parameter commonalities across the attention heads more effectively"
    told[sharing] = [
        f"{a.lab.upper()} ({a.asks}) {a.like} {a.unit} (95% interval for sets like these, of which "
        f"there are {a.like.count}; for these sets {a.these}), {a.verdict}"
        for a in load_found().answers
        if a.asks.startswith(("more than size", "sharing"))
    ]
    spectra = judged()
    names = [f"{lab.upper()} {METHOD_TITLES[method]}" for lab, method in spectra.index]
    told[
        "consistent intermediate positioning between the original pre-trained model and standard"
    ] = [
        f"{name} {mean:.0%} ± {100 * half:.0f}"
        for asked in ("W + dW between", "dW between")
        for name, mean, half in zip(names, spectra[asked], spectra[f"{asked} ±"], strict=True)
    ]
    told["a more gradual decay pattern"] = [
        f"{name} {mean:+.2f} ± {half:.2f}"
        for name, mean, half in zip(names, spectra["erank"], spectra["erank ±"], strict=True)
    ]
    return told


TOLD = phrases()


def test_every_number_with_an_interval_is_what_the_records_say():
    for quote, row in ROWS.items():
        left = row["measured_here_numbers"]
        for phrase in TOLD.get(quote, ()):
            assert phrase in left, (quote, phrase)
            left = left.replace(phrase, "", 1)
        assert "±" not in left, (quote, left)
    assert set(TOLD) <= set(ROWS)


def test_what_is_open_is_so_after_holms_correction_of_a_claims_comparisons():
    asked = COMPARED[quote := "the results confirm consistent superiority of our method"]
    like = [intervals(lead(*each))[0] for each in asked]
    clear = [p < 0.05 for p in holm([each.p for each in like])]
    expected = [
        "fails" if ok and each.high < 0 else "open" for ok, each in zip(clear, like, strict=True)
    ]
    found = re.findall(r"cells\), (\w+)", ROWS[quote]["measured_here_numbers"])
    assert found == expected == ["open", "fails", "open", "open"]


def test_memory_and_metric():
    told = ROWS["significantly reducing the model’s memory footprint"]["measured_here_numbers"]
    for lab in ("sam", "sd3"):
        kept = RUNS[lab].pivot(index=RUN, columns="method", values="activation_bytes")
        sizes = RUNS[lab].groupby("method")["bytes"].max()
        share = f"{sizes[S] / sizes[L]:.0%} of LoRA's bytes"
        assert (
            f"{share}, activations kept in a training step {(kept[S] / kept[L]).mean():.0%}" in told
        )
    agreement = RUNS["sam"]["dice"].corr(RUNS["sam"]["iou"], method="spearman")
    told = ROWS["a lower score indicates greater accuracy"]["measured_here_numbers"]
    assert f"Over {len(RUNS['sam'])} runs" in told and f"{agreement:+.2f} with IoU" in told


@pytest.mark.parametrize(
    ("quote", "pairs", "margins"),
    [
        ("achieves comparable performance in most cases", [(S, L)], (1, 1, 5)),
        ("the results confirm consistent superiority of our method", [(S, L)], (0, 0, 0)),
        ("comparable or even superior accuracy to LoRA and LoRA+", [(S, L), (SP, LP)], (1,)),
        ("outperform LoRA and LoRA+ in nearly all cases", [(S, L), (SP, LP)], (None, 0)),
        ("outperforms LoRA+ in accuracy across all datasets and shot settings", [(SP, LP)], (0,)),
        ("compatibility with existing LoRA improvements", [(SP, S)], (1, 1, 5)),
    ],
)
def test_the_cells_of_the_papers_tables(quote, pairs, margins):
    table = paper_results().pivot(index=["metric", "dataset", "amount"], columns="method")["value"]
    scores = {
        "accuracy_percent": table.loc["accuracy_percent"],
        "dice_as_printed": -100 * table.loc["dice_as_printed"],
        "fid": -100 * np.log(table.loc["fid"]),
    }
    good = cells = 0
    for score, margin in zip(scores.values(), margins, strict=False):
        for one, other in pairs if margin is not None else ():
            above = score[one] - score[other]
            good += int((above > 0).sum() if margin == 0 else (above >= -margin).sum())
            cells += len(above)
    if "accuracy" not in quote and quote.startswith(("achieves", "the results")):
        above = 100 * (table.loc["clip_score", S] - table.loc["clip_score", L])
        good += int((above > 0).sum() if margins[0] == 0 else (above >= -1).sum())
        cells += len(above)
    assert f" {good} of {cells} cells" in ROWS[quote]["paper_tables_numbers"]


# ------------------------------------------------------------------------------------ the pages


def unheld(text: str, shown: set[Decimal]) -> list[str]:
    """Numbers of two digits and more, decimals and percentages that nothing shows."""
    text = re.sub(r"\([^()]*(?:Section|Table|Fig|abstract|equation)[^()]*\)|\]\([^)]*\)", " ", text)
    return [
        number
        for number in NUMBER.findall(text)
        if len(number) > 1 and not any(agrees(number, value) for value in shown)
    ]


def test_the_numbers_of_the_claims_page_stand_in_the_csv_or_are_made_here():
    page = (ROOT / "CLAIMS.md").read_text("utf-8")
    table = page[page.index("| What the paper says") : page.index("A ± gives half")]
    shown = {v for row in ROWS.values() for cell in row.values() for v in values(cell)}
    styles = RUNS["sd3"].groupby("method")["style_share"].mean()
    fid = 1 - np.exp(-lead("fid", S, None).mean() / 100)
    shown |= {Decimal(str(each)) for each in (styles[S], styles[L], fid, 2302.08106, 2023)}
    assert unheld(table, shown) == []


def test_the_numbers_of_what_was_found_are_those_of_the_study():
    page = (ROOT / "docs" / "study.md").read_text("utf-8")
    told = page[page.index("## What was found") : page.index("![Every question's")]
    readme = (ROOT / "README.md").read_text("utf-8")
    readme = readme[readme.index("## How good is it?") : readme.index("![How far each method")]
    found = load_found()
    arms = {lab: found.arms[lab].set_index("arm") for lab in found.arms}
    numbers = [abs(v) for v in map(float, re.findall(r"-?\d+\.\d+", FOUND.read_text("utf-8")))]
    numbers += [half for a in found.answers for half in (a.like.half_width, a.these.half_width)]
    numbers += [
        len(found.answers),
        len(found.whole("sam")),
        len(found.whole("clip")),
        2023,
        2302.08106,
    ]
    gains = found.whole("clip")["gain"]
    numbers.append(int((gains > gains.max() - 2).sum()))
    for lab, one, other in (
        ("sam", "serial_lora-16", "lora-16"),
        ("clip", "serial_lora-16", "lora-16"),
        ("sd3", "serial_lora-12", "lora-12"),
    ):
        kept = arms[lab]["activations, MB"]
        numbers.append(kept[one] / kept[other])
    assert unheld(told + readme, {Decimal(repr(float(v))) for v in numbers}) == []
    sam = found.whole("sam")
    clearly = sam[sam["above LoRA"] > sam["above LoRA, half-width"]]
    assert len(clearly) == 9 and "Nine arms lie" in told
    assert sum(answer.verdict != "open" for answer in found.answers) == 4
    assert {a.lab for a in found.answers if a.verdict != "open"} == {"sam"}
