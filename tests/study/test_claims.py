"""The numbers of docs/claims.csv, CLAIMS.md and docs/study.md, made again from records and study."""

import csv
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from serial_lora_course.labs.frames import frame, separate_sets
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l09_trial.tables import FOUND, load_found
from serial_lora_course.measures.intervals import holm, sets_like_these, these_sets
from study.plan import CORNERS, LATER
from study.spectra import judged
from tools.numbers import NUMBER, agrees, values

ROOT = Path(__file__).parents[2]
with (ROOT / "docs" / "claims.csv").open(encoding="utf-8", newline="") as file:
    ROWS = {row["quote"]: row for row in csv.DictReader(file)}
RUNS = {
    name: separate_sets(frame(shipped_records(name)))
    for name in ("clip", "sam", "sd3", "clip_rank")
}
MEASURES = {  # a lab's column, how it becomes a score of which more is better, and the score's unit
    "accuracy": ("clip", lambda value: 100 * value, "points"),
    "dice": ("sam", lambda value: 100 * value, "hundredths of Dice"),
    "fid": ("sd3", lambda value: -100 * np.log(value), "hundredths of log FID"),
    "style_share": ("sd3", lambda value: 100 * value, "points of style share"),
}
BASE = {"accuracy": "zero_shot_dataset", "dice": "base_dice", "fid": "base_fid"}
L, S, LP, SP = "lora", "serial_lora", "lora_plus", "serial_lora_plus"
RUN = ["dataset", "amount", "seed"]
SUPERIOR = "the results confirm consistent superiority of our method"
COMPARED = {  # the paper's words, from their beginning -> measures, a method and its rival, in pairs
    "demonstrated the effectiveness": (BASE, [(S, None)]),
    "achieves comparable performance": (MEASURES, [(S, L)]),
    SUPERIOR: (MEASURES, [(S, L)]),
    "comparable or even superior accuracy": (["accuracy"], [(S, L), (SP, LP)]),
    "outperform LoRA and LoRA+": (["dice"], [(S, L), (SP, LP)]),
    "maintains similar or even improved FID": (["fid", "style_share"], [(S, L)]),
    "outperforms LoRA+ in accuracy": (["accuracy"], [(SP, LP)]),
    "comparable or superior scores": (["fid", "style_share"], [(SP, LP)]),
    "compatibility with existing": (BASE, [(SP, S)]),
}


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


def in_short(above: pd.Series) -> str:
    like, these = intervals(above)
    return f"{like} (these sets ± {these.half_width:.2f})"


def in_words(measure: str, above: pd.Series) -> str:
    cells = above.groupby(["dataset", "amount"]).mean()
    sets, seeds = (above.index.get_level_values(name).nunique() for name in ("dataset", "seed"))
    size = f"{sets} sets x {seeds} seeds; {(cells > 0).sum()} of {len(cells)} cells"
    return f"{in_short(above)} {MEASURES[measure][2]} ({size})"


def phrases() -> dict[str, list[str]]:
    """The paper's words, from their beginning -> every number with an interval that is told of them."""
    told = {
        words: [in_words(m, lead(m, *pair)) for m in measures for pair in pairs]
        for words, (measures, pairs) in COMPARED.items()
    }
    one_shot = RUNS["clip"][RUNS["clip"]["amount"] == 1]
    told["consistently exhibits"] = [in_words("accuracy", lead("accuracy", S, L, one_shot))]
    few, most = (lead("dice", S, L).xs(amount, level="amount") for amount in (20, 100))
    like = sets_like_these({n: e.to_numpy()[None] for n, e in (few - most).groupby("dataset")})
    ends = f"Lead {few.mean():+.2f} with the least data, {most.mean():+.2f} with the most"
    told["superior performance of Serial LoRA under"] = [f"{ends}: changes by {like} hundredths"]
    ranks = {r: lead("accuracy", S, L, own) for r, own in RUNS["clip_rank"].groupby("lab_rank")}
    told["adaptability"] = [f"ank {rank} {in_short(above)}" for rank, above in ranks.items()]
    told["adaptability"].append(f"all ranks averaged {in_short(pd.concat(ranks.values()))}")
    told["captures parameter"] = [
        f"{a.lab.upper()} ({a.asks}) {a.like} {a.unit} (95% interval for sets like these, of which "
        f"there are {a.like.count}; for these sets {a.these}), {a.verdict}"
        for a in load_found().answers
        if a.asks.startswith(("more than size", "sharing"))
    ]
    spectra = judged()
    names = [f"{lab.upper()} {METHOD_TITLES[method]}" for lab, method in spectra.index]
    between, gradual = "consistent intermediate", "a more gradual decay"
    for name, (_, row) in zip(names, spectra.iterrows(), strict=True):
        for asked in ("W + dW between", "dW between"):
            share = f"{name} {row[asked]:.0%} ± {100 * row[f'{asked} ±']:.0f}"
            told.setdefault(between, []).append(share)
        told.setdefault(gradual, []).append(f"{name} {row['erank']:+.2f} ± {row['erank ±']:.2f}")
    return told


def test_every_number_with_an_interval_is_what_the_records_say():
    told = phrases()
    for quote, row in ROWS.items():
        left = row["measured_here_numbers"]
        for words in [words for words in told if quote.startswith(words)]:
            for phrase in told.pop(words):
                assert phrase in left, (quote, phrase)
                left = left.replace(phrase, "", 1)
        assert "±" not in left, (quote, left)
    assert not told


def test_what_is_open_is_so_after_holms_correction_of_a_claims_comparisons():
    like = [intervals(lead(measure, S, L))[0] for measure in MEASURES]
    clear = [p < 0.05 for p in holm([each.p for each in like])]
    expected = ["fails" if clear[i] and each.high < 0 else "open" for i, each in enumerate(like)]
    found = re.findall(r"cells\), (\w+)", ROWS[SUPERIOR]["measured_here_numbers"])
    assert found == expected == ["open", "fails", "open", "open"]


def test_activations_that_a_step_keeps():
    told = ROWS["significantly reducing the model’s memory footprint"]["measured_here_numbers"]
    for lab in ("sam", "sd3"):
        kept = RUNS[lab].pivot(index=RUN, columns="method", values="activation_bytes")
        assert f"activations kept in a training step {(kept[S] / kept[L]).mean():.0%}" in told


def unheld(text: str, shown: set[Decimal]) -> list[str]:
    """Numbers of two digits and more, decimals and percentages that nothing shows."""
    text = re.sub(r"\([^()]*(?:Section|Table|Fig|abstract|equation)[^()]*\)|\]\([^)]*\)", " ", text)
    written = [number for number in NUMBER.findall(text) if len(number) > 1]
    return [number for number in written if not any(agrees(number, value) for value in shown)]


def between(name: str, start: str, end: str) -> str:
    text = (ROOT / name).read_text("utf-8")
    return text[text.index(start) : text.index(end)]


def test_the_numbers_of_the_claims_page_stand_in_the_csv_or_are_made_here():
    shown = {v for row in ROWS.values() for cell in row.values() for v in values(cell)}
    styles = RUNS["sd3"].groupby("method")["style_share"].mean()
    fid = 1 - np.exp(-lead("fid", S, None).mean() / 100)
    shown |= {Decimal(str(each)) for each in (styles[S], styles[L], fid, 2023)}
    shown |= {Decimal(str(abs(like.mean))) for like in load_found().described.values()}
    assert unheld(between("CLAIMS.md", "| What the paper says", "A ± gives half"), shown) == []


def test_the_numbers_of_what_was_found_are_those_of_the_study():
    told = between("docs/study.md", "## What was found", "![Every question's")
    told += between("README.md", "## How good is it?", "![How far each method")
    found = load_found()
    numbers = [abs(float(v)) for v in re.findall(r"-?\d+\.\d+", FOUND.read_text("utf-8"))]
    numbers += [half for a in found.answers for half in (a.like.half_width, a.these.half_width)]
    numbers += [like.half_width for like in found.described.values()]
    three, three_W, one, one_W = (found.sets["sam"][arm] for arm in CORNERS)
    more = sets_like_these(
        {n: np.array([v]) for n, v in ((one_W - one) - (three_W - three)).items()}
    )
    numbers += [abs(more.mean), more.half_width]
    even, uneven = (found.sets["sam"][f"{method}-{size}"] for method, size in LATER)
    more = sets_like_these({n: np.array([v]) for n, v in ((one_W - even) - (uneven - one)).items()})
    numbers += [abs(more.mean), more.half_width]
    sam, gains = found.whole("sam"), found.whole("clip")["gain"]
    numbers += [len(found.answers), len(sam), len(gains), (gains > gains.max() - 2).sum(), 2023]
    for lab in found.arms:
        kept = found.arms[lab]["activations, MB"]
        numbers.append(kept[1] / kept[0])  # Serial LoRA's, at LoRA's rank
    assert unheld(told, {Decimal(repr(float(number))) for number in numbers}) == []
    assert (sam["above LoRA"] > sam["above LoRA, half-width"]).sum() == 9 and "Nine arms" in told
    clear = [answer.lab for answer in found.answers if answer.verdict != "open"]
    assert clear == 4 * ["sam"]
