"""What the study found, in tables and in words: for lesson 11 and for `docs/study.md`.

All is computed from what is packed, whatever is there by then: a question or an arm whose runs are not all
there says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from serial_lora_course.labs.frames import on_front
from serial_lora_course.study.found import Answer, Found
from serial_lora_course.study.plan import PLANS, UNITS
from serial_lora_course.study.statistics import Spread, sets_like_these, verdict

PARTS = {
    "sharing": "one pair or one A for q, k and v, in place of one for each",
    "place": "in front of attention, in place of in front of the feed-forward layer",
    "basis": "the change goes through W, in place of a random matrix",
    "form": "a change in front of W, in place of one beside it",
    "blocks": "the last half of the blocks, in place of the first",
}
"""How the questions about what works begin, and what each compares."""
ELDER = "the elder"
SERIAL = "serial_lora"


def interval_over_sets(differences: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Mean and half-width of the 95% interval for sets like these, of one difference a seed in each set."""
    found = sets_like_these({name: np.asarray(each) for name, each in differences.items()})
    return found.mean, found.half_width


def front_of(costs: Sequence[float], gains: Sequence[float]) -> set[int]:
    """The positions that no other one beats: at most its cost, and at least its gain."""
    table = pd.DataFrame({"cost": costs, "gain": gains})
    return set(on_front(table, "gain", "cost").index)


def false_alarms(
    records: Sequence[Mapping[str, Sequence[float]]],
    interval: Callable[[Mapping[str, Sequence[float]]], tuple[float, float]],
) -> float:
    """In which share of made-up records an interval (mean, half-width) leaves 0 outside."""
    return float(np.mean([abs(mean) > half for mean, half in map(interval, records)]))


# --------------------------------------------------------------------------------- what is there


def state_frame(found: Found) -> pd.DataFrame:
    """How much of the plan is there, a row a lab."""
    return pd.DataFrame(
        {
            "Lab": lab.upper(),
            "Runs there": f"{done:,} of at least {needed:,}",
            "Arms finished": f"{len(found.arms[lab])} of {len(PLANS[lab].arms)}",
            "Questions answered": f"{sum(bool(a.like) for a in asked)} of {len(asked)}",
        }
        for lab, (done, needed) in found.runs.items()
        for asked in [[answer for answer in found.answers if answer.lab == lab]]
    )


def questions_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """A row a question and lab: both intervals, the number of sets, Holm's p, and the verdict."""
    return pd.DataFrame(
        {
            "Lab": answer.lab.upper(),
            "Question": answer.asks,
            "For sets like these": answer.like and f"{answer.like} {answer.unit}",
            "For these sets": answer.these and str(answer.these),
            "Sets": answer.like and str(answer.like.count),
            "p, Holm": answer.like and f"{answer.p:.3f}",
            "Verdict": answer.verdict or f"{answer.done} of {answer.needed} runs",
        }
        for answer in answers
    ).fillna("")


def about(found: Found, start: str) -> list[Answer]:
    """The answers to the questions that begin so."""
    return [answer for answer in found.answers if answer.asks.startswith(start)]


# --------------------------------------------------------------------------------------- in words


def read_questions(answers: Sequence[Answer]) -> str:
    """How many questions have which verdict, and what intervals alone would have said."""
    known = [answer for answer in answers if answer.like]
    if not known:
        return f"None of the {len(answers)} questions has all its runs yet, so none is answered."
    counts = Counter(answer.verdict for answer in known)
    said = ", ".join(f"{counts[word]} {word}" for word in ("holds", "fails", "open"))
    like = sum(verdict(answer.like) != "open" for answer in known)
    these = sum(verdict(answer.these) != "open" for answer in known)
    return (
        f"Of {len(answers)} questions {len(known)} have all their runs: {said}. Without Holm's correction "
        f"{like} would be decided, and the intervals for these sets alone lie on one side of 0 in {these}."
    )


def read_parts(found: Found) -> str:
    """What sharing, place, basis, form and blocks each contribute, as a list in Markdown."""
    lines = []
    for part, compares in PARTS.items():
        asked = about(found, part)
        lines.append(f"- **{part.capitalize()}** ({compares}): {_contributes(asked)}")
        lines += [f"  - {_one(answer)}" for answer in asked]
    return "\n".join(lines)


def _contributes(answers: Sequence[Answer]) -> str:
    words = {"holds": "helps", "fails": "hurts", "open": "open", "": "runs are missing"}
    counts = Counter(words[answer.verdict] for answer in answers)
    said = ", ".join(f"{word} in {count}" for word, count in counts.items())
    return f"{said}, of {len(answers)}."


def read_elder(found: Found) -> str:
    """Serial LoRA beside RepAdapter in the same place, a sentence a lab."""
    return "\n".join(f"- {_one(answer)}" for answer in about(found, ELDER))


def _one(answer: Answer) -> str:
    said = f"**{answer.verdict}**, " if answer.verdict else ""
    return f"{answer.lab.upper()}, {answer.asks.partition(': ')[2]}: {said}{answer}."


def read_front(found: Found, cost: str = "parameters") -> str:
    """Where Serial LoRA stands among the finished arms of each lab, at a cost."""
    lines = []
    for lab in found.runs:
        arms = found.comparable.get(lab)
        said = "no arm has all its runs yet." if arms is None else _stands(arms, cost, UNITS[lab])
        lines.append(f"- **{lab.upper()}**: {said}")
    return "\n".join(lines)


def _stands(arms: pd.DataFrame, cost: str, unit: str) -> str:
    arms = arms.dropna(subset=[cost])
    front = on_front(arms, "gain", cost)
    listed = ", ".join(f"{row.arm} ({row.gain:+.1f})" for row in front.itertuples())
    said = [f"finished arms: {len(arms)}; on the front, in {unit}: {listed}"]
    for arm in (arm for arm in arms["arm"] if _is_serial(arm) and arm not in set(front["arm"])):
        own = arms.set_index("arm").loc[arm]
        better = front[(front[cost] <= own[cost]) & (front["gain"] >= own["gain"])].iloc[-1]
        gap, half = better["gain"] - own["gain"], own["half-width"]
        said.append(f"{arm} ({own['gain']:+.1f} ± {half:.1f}) is {gap:.1f} behind {better['arm']}")
    return "; ".join(said) + "."


def _is_serial(arm: str) -> bool:
    return arm.split("-")[0] == SERIAL


def read_forgetting(found: Found) -> str:
    """What the finished arms lose of what the model knew, least and most, and Serial LoRA's place."""
    lines = []
    for lab in found.runs:
        arms = found.comparable.get(lab, found.arms[lab]).set_index("arm")
        change = arms["change of what it knew"].dropna().sort_values()
        if change.empty:
            lines.append(f"- **{lab.upper()}**: not measured, or no arm has all its runs yet.")
            continue
        said = [f"from {change.iloc[0]:+.1f} ({change.index[0]})"]
        said += [f"to {change.iloc[-1]:+.1f} ({change.index[-1]})"]
        said += [f"{arm} {change[arm]:+.1f}" for arm in change.index if _is_serial(arm)]
        together = change.rank().corr(arms["gain"].rank())
        rank = f". Rank correlation with the gain: {together:+.2f}" if len(change) > 2 else ""
        lines.append(
            f"- **{lab.upper()}**, in {UNITS[lab]}, finished arms: {len(change)}: {', '.join(said)}{rank}."
        )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------ the planning


def plan_frame(spread: Spread, sets: Sequence[int], seeds: Sequence[int]) -> pd.DataFrame:
    """The half-width of the 95% interval that a study is planned with: sets (rows), seeds (columns)."""
    return pd.DataFrame(
        {
            f"seeds: {few}": {
                many: spread.planned(many, few, spread.pictures).half_width for many in sets
            }
            for few in seeds
        }
    ).rename_axis("sets")


def read_plan(table: pd.DataFrame) -> str:
    """What more sets and what more seeds bring."""
    sets = table.iloc[0, 0] / table.iloc[-1, 0]
    seeds = table.iloc[0, 0] / table.iloc[0, -1]
    more_sets = table.index[-1] / table.index[0]
    more_seeds = int(table.columns[-1].split()[-1]) / int(table.columns[0].split()[-1])
    return (
        f"{more_sets:g} times as many sets make the interval {sets:.1f} times narrower; {more_seeds:g} times "
        f"as many seeds on the same sets, {seeds:.1f} times."
    )
