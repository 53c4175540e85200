"""What the study found, in tables and in words: for lesson 11 and for `docs/study.md`.

All is computed from what is packed, whatever is there by then: a question or an arm whose runs are not all
there says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from serial_lora_course.labs.frames import on_front
from serial_lora_course.study.found import Answer, Found
from serial_lora_course.study.plan import PLANS, UNITS, LabPlan, questions_of
from serial_lora_course.study.statistics import Interval, Spread, sets_like_these, verdict

PARTS = {
    "sharing": "one pair or one A for q, k and v, in place of one for each",
    "place": "in front of attention, in place of in front of the feed-forward layer",
    "basis": "the change goes through W, in place of a random matrix",
    "form": "a change in front of W, in place of one beside it",
    "blocks": "the last half of the blocks, in place of the first",
}
"""How the questions about what works begin, and what each compares."""
PREDECESSOR = "the predecessor"
SERIAL = "serial_lora"
KEEPS = "Serial LoRA keeps"
AIMS = (
    "Half-widths of the 95% interval, for sets like these, of Serial LoRA minus LoRA at LoRA's rank. The "
    "question asks for nine tenths of LoRA's gain; so a tenth of that gain, which differs between sets, is "
    "in its own interval too."
)
FORGETTING = "A rank correlation below 0 says: those that gain more forget more."


def interval_over_sets(differences: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Mean and half-width of the 95% interval for sets like these, of one difference a seed in each set."""
    found = sets_like_these({name: np.asarray(each) for name, each in differences.items()})
    return found.mean, found.half_width


def front_of(costs: Sequence[float], gains: Sequence[float]) -> set[int]:
    """The positions that no other one beats: at most its cost, and at least its gain."""
    table = pd.DataFrame({"cost": costs, "gain": gains})
    return set(on_front(table, "gain", "cost").index)


def false_positives(
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


def read_left(found: Found) -> str:
    """Which labs have arms whose runs are not all there: a sentence, or nothing."""
    arms = {lab: (len(found.arms[lab]), len(plan.arms)) for lab, plan in PLANS.items()}
    left = [
        f"{done} of {all_} in {lab.upper()}" for lab, (done, all_) in arms.items() if done < all_
    ]
    return f"Arms finished by now: {', '.join(left)}; a front may still move." if left else ""


def questions_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """A row a question and lab: both intervals, the number of sets, Holm's p, and the verdict."""
    return pd.DataFrame(
        {
            "Lab": answer.lab.upper(),
            "Question": answer.asks,
            "For sets like these": answer.like and f"{answer.like} {answer.unit}",
            "For these sets": answer.these and str(answer.these),
            "Sets": answer.like and str(answer.like.count),
            "p, Holm": answer.like and ("< 0.001" if answer.p < 0.001 else f"{answer.p:.3f}"),
            "Verdict": answer.verdict or f"{answer.done} of {answer.needed} runs",
        }
        for answer in answers
    ).fillna("")


def about(found: Found, start: str) -> list[Answer]:
    """The answers to the questions that begin so."""
    return [answer for answer in found.answers if answer.asks.startswith(start)]


# --------------------------------------------------------------------------------------- in words


def read_verdicts(answers: Sequence[Answer]) -> str:
    """How many questions are answered, and with which verdicts: a sentence."""
    known = [answer for answer in answers if answer.like]
    if not known:
        return f"None of the {len(answers)} questions has all its runs yet, so none is answered."
    counts = Counter(answer.verdict for answer in known)
    said = ", ".join(f"{word} {counts[word]}" for word in ("holds", "fails", "open"))
    there = "all" if len(known) == len(answers) else f"{len(known)}"
    return f"Of {len(answers)} questions {there} have all their runs: {said}."


def read_questions(answers: Sequence[Answer]) -> str:
    """The same, and what intervals alone would have said."""
    known = [answer for answer in answers if answer.like]
    if not known:
        return read_verdicts(answers)
    like = sum(verdict(answer.like) != "open" for answer in known)
    these = sum(verdict(answer.these) != "open" for answer in known)
    return (
        f"{read_verdicts(answers)} Without Holm's correction {like} would be decided, and the intervals "
        f"for these sets alone lie on one side of 0 in {these}."
    )


def read_parts(found: Found) -> str:
    """In which labs sharing, place, basis, form and blocks help or hurt, as a list in Markdown."""
    return "\n".join(
        f"- **{part.capitalize()}** ({compares}): {_contributes(about(found, part))}."
        for part, compares in PARTS.items()
    )


def _contributes(answers: Sequence[Answer]) -> str:
    words = {"holds": "helps", "fails": "hurts", "open": "open", "": "runs are missing"}
    where: dict[str, Counter] = {}
    for answer in answers:
        where.setdefault(words[answer.verdict], Counter())[answer.lab.upper()] += 1
    return "; ".join(
        f"{word} in "
        + ", ".join(
            lab if count == 1 else f"{lab} ({count} questions)" for lab, count in labs.items()
        )
        for word, labs in where.items()
    )


def read_predecessor(found: Found) -> str:
    """Serial LoRA beside RepAdapter in the same place, a sentence a lab."""
    return "\n".join(f"- {_one(answer)}" for answer in about(found, PREDECESSOR))


def _one(answer: Answer) -> str:
    said = f"**{answer.verdict}**, " if answer.verdict else ""
    return f"{answer.lab.upper()}, {answer.asks.partition(': ')[2]}: {said}{answer}."


def read_front(found: Found, cost: str = "parameters") -> str:
    """Where Serial LoRA stands among the finished arms of each lab, at a cost: two or three sentences each."""
    lines = []
    for lab, arms in found.arms.items():
        arms = found.comparable.get(lab, arms[:0]).dropna(subset=[cost])
        said = _stands(arms, cost, PLANS[lab]) if len(arms) else "no arm has been measured yet."
        lines.append(f"- **{lab.upper()}**: {said}")
    return "\n".join(lines)


def read_fronts(found: Found, costs: Mapping[str, str]) -> str:
    """The same by several costs, those that were measured.

    Args:
        costs: column -> what it is, in words.
    """
    there = pd.concat(found.arms.values())
    return "\n\n".join(
        f"By {what}:\n\n{read_front(found, cost)}"
        for cost, what in costs.items()
        if there[cost].notna().any()
    )


def _stands(arms: pd.DataFrame, cost: str, plan: LabPlan) -> str:
    front, serial = on_front(arms, "gain", cost), arms[arms["method"] == SERIAL]
    ends = " to ".join(f"{arm['title']} ({arm['gain']:+.1f})" for _, arm in _ends(front).iterrows())
    said = f"on the front, in {plan.unit}: {len(front)} of {len(arms)} arms, "
    said += f"{'from ' * (len(front) > 1)}{ends}."
    if serial.empty:
        return f"{said} Serial LoRA is not among the finished ones."
    own, on = serial.loc[serial["gain"].idxmax()], front[front["method"] == SERIAL]
    where = f"is on it at {'; '.join(map(_size, on['title']))}" if len(on) else "is not on it"
    said += (
        f" Serial LoRA {where}. Its best arm, at {_size(own['title'])}, gains {own['gain']:+.1f}"
    )
    if not np.isnan(own["above LoRA"]):
        said += f" (against {_reference(plan)}: {own['above LoRA']:+.1f} ± "
        said += f"{own['above LoRA, half-width']:.1f})"
    better = front[(front[cost] <= own[cost]) & (front["gain"] > own["gain"])]
    if len(better):
        least = better.iloc[-1]
        said += (
            f", {least['gain'] - own['gain']:.1f} less than {least['title']}, which costs no more"
        )
    return f"{said}."


def _ends(front: pd.DataFrame) -> pd.DataFrame:
    return front.iloc[[0, -1]] if len(front) > 1 else front


def _size(title: str) -> str:
    return title.partition(", ")[2]


def _reference(plan: LabPlan) -> str:
    return next(arm for arm in plan.arms if arm.name == plan.reference).title(unit="")


def read_forgetting(found: Found) -> str:
    """What the finished arms lose of what the model knew: least, most, LoRA and Serial LoRA."""
    lines = []
    for lab, arms in found.arms.items():
        finished = found.comparable.get(lab, arms)
        arms = finished.dropna(subset=["change of what it knew"])
        if arms.empty:
            why = "no arm has all its runs yet" if finished.empty else "not measured in this lab"
            lines.append(f"- **{lab.upper()}**: {why}.")
            continue
        arms = arms.sort_values("change of what it knew")
        change, serial = arms["change of what it knew"], arms[arms["method"] == SERIAL]
        ends = " and ".join(
            f"{arm['change of what it knew']:+.1f} ({arm['title']})"
            for _, arm in _ends(arms).iterrows()
        )
        said = f"{len(arms)} arms, between {ends} {UNITS[lab]}."
        if len(serial):
            own = serial["change of what it knew"]
            span = [f"{value:+.1f}" for value in (own.min(), own.max())]
            said += f" Serial LoRA: {' to '.join(dict.fromkeys(span))}."
        if len(arms) > 2:
            together = change.rank().corr(arms["gain"].rank())
            said += f" Rank correlation with the gain: {together:+.2f}."
        lines.append(f"- **{lab.upper()}**: {said}")
    return "\n".join([*lines, "", FORGETTING])


def read_step_machines(steps: Mapping[str, Any]) -> str:
    """Where step times were measured, as `serial_lora_course.study.found.read_steps` gives them."""
    if not steps:
        return "Step times are not measured yet."
    said = [
        f"{lab.upper()}, {told['rounds']} rounds on {told['machine']['processor']}, one step of "
        f"{_reference(PLANS[lab])} being {1000 * told['seconds']:.0f} ms"
        for lab, told in steps.items()
    ]
    return f"Step times: {'; '.join(said)}."


def read_groups(answers: Sequence[Answer]) -> str:
    """What becomes of the intervals where sets that show the same concepts count as one."""
    answered = [
        answer for answer in answers if answer.like and answer.groups.count < answer.like.count
    ]
    if not answered:
        return "No question is answered by sets of which some show the same concepts."
    said = []
    for lab in dict.fromkeys(answer.lab for answer in answered):
        own = [answer for answer in answered if answer.lab == lab]
        wider = [answer.groups.half_width / answer.like.half_width for answer in own]
        said.append(
            f"{lab.upper()}, {own[0].groups.count} groups of {own[0].like.count} sets, half-widths "
            f"{min(wider):.2f} to {max(wider):.2f} times as large"
        )
    decided = [answer for answer in answered if answer.verdict in ("holds", "fails")]
    still = sum(verdict(answer.groups) == answer.verdict for answer in decided)
    return (
        "Sets are not wholly independent: CLIP's are six topics by two designers, and four of SAM's are outlines "
        "of things that other sets show too. With those that show the same concepts counted as one: "
        f"{'; '.join(said)}. Of the {len(decided)} questions decided in these labs, {still} have an interval on "
        "the same side of 0 then."
    )


def read_repeated(repeated: Mapping[str, Any], found: Found) -> str:
    """How far runs came out from the same runs done again, beside the smallest difference decided.

    Args:
        repeated: as `python -m serial_lora_course.study repeat` stored it.
    """
    plan = PLANS[repeated["lab"]]
    apart = {name: np.array([value]) for name, value in repeated["differences"].items()}
    title = found.arms[plan.lab].set_index("arm").at[repeated["arm"], "title"]
    said = (
        f"The runs were done on machines with different processors, which round differently. {len(apart)} of "
        f"them ({plan.lab.upper()}, {title}, the first seed of each set) were done again on "
        f"{repeated['machine']['processor']}: {sets_like_these(apart)} {plan.unit} apart on average (95% "
        f"interval), single sets by up to {max(map(abs, repeated['differences'].values())):.2f}"
    )
    decided = [
        abs(answer.like.mean)
        for answer in found.answers
        if answer.lab == plan.lab and answer.verdict in ("holds", "fails")
    ]
    if decided:
        said += (
            f"; the smallest difference in {plan.lab.upper()} that is decided is {min(decided):.2f}"
        )
    return f"{said}. `python -m serial_lora_course.study repeat` does it."


def read_aims(found: Found, planned: Mapping[str, Interval]) -> str:
    """Beside the aim of each lab, the half-width that was planned and the one that was reached.

    Args:
        planned: lab -> its interval, as `serial_lora_course.study.power.planned_interval` has it.
    """
    lines = []
    for answer in about(found, KEEPS):
        plan, arms = PLANS[answer.lab], found.arms[answer.lab].set_index("arm")
        said = f"the aim was ±{plan.aim:g} {plan.unit}, planned was ±{planned[answer.lab].half_width:.2f}"
        one = next(q.one for q in questions_of(plan) if q.asks == answer.asks)
        if answer.like is None:
            said += f"; {answer.done} of {answer.needed} runs are there"
        else:
            reached = arms.at[one, "above LoRA, half-width"]
            said += (
                f", reached is ±{reached:.2f}: {'within' if reached <= plan.aim else 'not within'} the "
                f"aim. The question itself has ±{answer.like.half_width:.2f}"
            )
        lines.append(f"- **{answer.lab.upper()}**: {said}.")
    return "\n".join([AIMS, "", *lines])


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
