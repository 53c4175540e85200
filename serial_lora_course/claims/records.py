"""What is measured here to a claim: one function for each kind of claim.

Where `claims_tables` has a function of the same name, it asks the same of the paper's tables; here
the shipped records answer (or, where a claim needs no run, the exact counts). Runs with the same
data set, amount of data and seed saw the same pictures, so methods are compared run by run, and a
difference counts when it is two standard errors away from what it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch

from serial_lora_course.claims.evidence import (
    MEASURES,
    Difference,
    Evidence,
    Pairs,
    compared,
    gains,
    paired,
    summarise,
)
from serial_lora_course.claims.paper import audit
from serial_lora_course.claims.verdicts import (
    FAILS,
    HOLDS,
    IN_PART,
    SHARES,
    UNTESTABLE,
    Finding,
    Part,
    combine_parts,
    combined,
    verdict_ahead,
    verdict_by_cells,
    verdict_comparable,
)
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES, BASELINES

PAPER_METHODS = [name for name in METHOD_TITLES if name != "lora_equal_budget"]
"""The four methods that the paper compares."""


def ahead(
    evidence: Evidence,
    on: Sequence[str],
    pairs: Pairs,
    share: str = "all",
    amounts: Sequence[int] | None = None,
) -> Finding:
    """The first method of each pair is better than the second."""

    def judge(found: Difference, measure: str) -> tuple[str, str]:
        often = SHARES[share](found.above, found.cells)
        return verdict_ahead(found.mean, found.error, often), ""

    return _compare(evidence, on, pairs, share, amounts, judge)


def comparable(evidence: Evidence, on: Sequence[str], pairs: Pairs, share: str = "most") -> Finding:
    """The first method of each pair is not behind the second by more than the margin."""

    def judge(found: Difference, measure: str) -> tuple[str, str]:
        verdict = verdict_comparable(found.mean, found.error, MEASURES[measure].margin)
        behind = verdict_ahead(found.mean, found.error) == FAILS
        return verdict, "behind, but within the margin" if behind and verdict == HOLDS else ""

    return _compare(evidence, on, pairs, share, None, judge)


def _compare(
    evidence: Evidence,
    on: Sequence[str],
    pairs: Pairs,
    share: str,
    amounts: Sequence[int] | None,
    judge: Callable[[Difference, str], tuple[str, str]],
) -> Finding:
    """Every comparison of a claim, each with the verdict and the note that ``judge`` gives it."""
    parts = []
    for label, measure, one, other in compared(on, pairs):
        item = MEASURES[measure]
        found = summarise(paired(evidence.runs(item.task), item, one, other, amounts), item.unit)
        parts.append(Part(label, found, *judge(found, measure)))
    return combine_parts(parts, share)


def best(evidence: Evidence, measure: str, one: str, amounts: Sequence[int], share: str) -> Finding:
    """One method is the best of the paper's four, by its mean over seeds."""
    item = MEASURES[measure]
    runs = evidence.runs(item.task)
    runs = runs[runs["method"].isin(PAPER_METHODS) & runs["shots"].isin(amounts)]
    scores = item.score(runs[item.column]).groupby([runs["dataset"], runs["shots"], runs["method"]])
    cells = scores.mean().unstack("method")
    count = int((cells.idxmax(axis=1) == one).sum())
    seeds = runs["seed"].nunique()
    says = f"Best of the four in {count} of {len(cells)} cells (means over {seeds} seeds)."
    return Finding(verdict_by_cells(count, len(cells), share), says)


def larger_with_few(evidence: Evidence, measure: str, one: str, other: str) -> Finding:
    """The first method's lead is larger with the least data than with the most."""
    item = MEASURES[measure]
    lead = paired(evidence.runs(item.task), item, one, other).unstack("shots")
    few, many = lead[min(lead)], lead[max(lead)]
    change = (few - many).dropna()
    mean, error = change.mean(), change.sem()
    says = (
        f"Lead {few.mean():+.2f} with the least data, {many.mean():+.2f} with the most: changes by "
        f"{mean:+.2f} ± {error:.2f} {item.unit} ({len(change)} pairs)."
    )
    return Finding(verdict_ahead(mean, error), says)


def improves(evidence: Evidence, on: Sequence[str], method: str, beside: str) -> Finding:
    """A method is better than the unadapted model; another's gain is told beside it."""
    parts = []
    for measure in on:
        item = MEASURES[measure]
        found = summarise(gains(evidence.runs(item.task), item, method), item.unit)
        other = summarise(gains(evidence.runs(item.task), item, beside), item.unit)
        note = f"{found.mean / other.mean:.0%} of {METHOD_TITLES[beside]}'s gain"
        verdict = verdict_ahead(found.mean, found.error)
        parts.append(Part(f"{item.task.upper()} ", found, verdict, note))
    return combine_parts(parts)


def at_every_rank(evidence: Evidence, measure: str, one: str, other: str) -> Finding:
    """The first method is not behind the second by more than the margin, at every rank."""
    item = MEASURES[measure]
    parts, differences = [], []
    for rank, runs in evidence.runs("clip_rank").groupby("lab_rank"):
        differences.append(paired(runs, item, one, other))
        found = summarise(differences[-1], item.unit)
        verdict = verdict_comparable(found.mean, found.error, item.margin)
        parts.append(Part(f"rank {rank} ", found, verdict))
    verdict = combined(part.verdict for part in parts)
    listed = ", ".join(
        f"{part.label}{part.difference.interval}"
        + (f" ({part.verdict})" if part.verdict != verdict else "")
        for part in parts
    )
    of = summarise(pd.concat(differences), item.unit)
    says = f"{listed} {item.unit}; all ranks averaged {of.interval} ({of.size})."
    return Finding(verdict, says[0].upper() + says[1:])


# --------------------------------------------------------------------------- sizes


def quarter(evidence: Evidence) -> Finding:
    """LoRA has four times Serial LoRA's parameters."""
    exact = [item.lora() / item.serial_lora() for item in ARCHITECTURES.values()]
    count = sum(ratio == 4 for ratio in exact)
    other = BASELINES[1]
    says = (
        f"Exactly 4 on {count} of {len(exact)} real models, at equal rank and against a pair on "
        f"each of q, k, v and out; {other.ratio(768, 32):g} against {other.name}."
    )
    return Finding(verdict_by_cells(count, len(exact), "all"), says)


def printed_sizes(evidence: Evidence) -> Finding:
    """The printed numbers of parameters are the exact ones, or at least so in another unit."""
    rows = audit()
    kinds = [row.kind for row in rows]
    right, unit = kinds.count("right"), kinds.count("unit")
    models = sorted({ARCHITECTURES[row.model].title for row in rows if row.kind == "unexplained"})
    says = (
        f"{right} of {len(rows)} figures are exact as printed, {unit} in another unit than the one "
        f"printed; not explained: {', '.join(models) or 'none'}."
    )
    if right == len(rows):
        return Finding(HOLDS, says)
    return Finding(IN_PART if SHARES["most"](right + unit, len(rows)) else FAILS, says)


def memory(evidence: Evidence) -> Finding:
    """Memory falls to a quarter: the adapter's bytes, and what a training step keeps."""
    words, shares = [], []
    for task in ("sam", "sd3"):
        most = evidence.runs(task).groupby("method")[["bytes", "activation_bytes"]].max()
        share = most.loc["serial_lora"] / most.loc["lora"]
        shares += list(share)
        words.append(
            f"{task.upper()}: adapter {share['bytes']:.0%} of LoRA's bytes, activations kept in a "
            f"training step {share['activation_bytes']:.0%}"
        )
    quarters = sum(share <= 0.25 for share in shares)
    verdict = IN_PART if 0 < quarters < len(shares) else HOLDS if quarters else FAILS
    return Finding(verdict, f"{'; '.join(words)}.")


def equivalent_form(evidence: Evidence) -> Finding:
    """W (I + B A) is W + (W B) A: a LoRA pair for each projection, all with one A."""
    generator = torch.Generator().manual_seed(0)
    rank, width = 4, 24

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a, b, worst, changes = draw(rank, width), draw(width, rank), 0.0, []
    for weight in draw(3, width, width):
        serial = weight @ (torch.eye(width, dtype=torch.float64) + b @ a)
        worst = max(worst, float((serial - (weight + (weight @ b) @ a)).abs().max()))
        changes.append(serial - weight)
    reads = int(torch.linalg.matrix_rank(torch.cat(changes)))
    says = (
        f"An identity{'' if worst < 1e-12 else f', broken by {worst:.0e}'}. With one A, q, k and v "
        f"read the same {reads} directions at r = {rank}; three free pairs read up to {3 * rank}."
    )
    return Finding(HOLDS if worst < 1e-12 else FAILS, says)


# --------------------------------------------------------------------------- spectra


def spectrum_between(evidence: Evidence, needed: float) -> Finding:
    """Serial LoRA's singular values lie between the base's and LoRA's, at a share of the indices.

    Asked of both matrices that the paper's figure may show, W + dW and dW, on each model and for
    each serial method: mean over blocks and projections, then mean and error over seeds.
    """
    words, verdicts = [], []
    for matrix, measure in (("W + dW", " between"), ("dW", " change_between")):
        cells = []
        for name, by_seed in _by_seed(evidence, measure):
            mean, error = by_seed.mean(), by_seed.sem()
            verdicts.append(verdict_ahead(mean - needed, error))
            cells.append(f"{name} {mean:.0%} ± {100 * error:.0f}")
        words.append(f"{matrix}: {', '.join(cells)}")
    says = f"Share of the indices, {needed:.0%} asked for. {'; '.join(words)}; {_seeds(evidence)}."
    return Finding(combined(verdicts), says)


def spectrum_decay(evidence: Evidence) -> Finding:
    """Serial LoRA's change has more directions that count: a higher effective rank than LoRA's."""
    cells, verdicts = [], []
    lora = dict(_by_seed(evidence, " effective_rank_lora"))
    for name, serial in _by_seed(evidence, " effective_rank_serial"):
        gain = serial - lora[name]
        verdicts.append(verdict_ahead(gain.mean(), gain.sem()))
        cells.append(f"{name} {gain.mean():+.2f} ± {gain.sem():.2f}")
    says = f"Effective rank of dW, serial minus LoRA: {', '.join(cells)}; {_seeds(evidence)}."
    return Finding(combined(verdicts), says)


def _by_seed(evidence: Evidence, measure: str) -> Iterator[tuple[str, pd.Series]]:
    """For each model and serial method, a measure's mean over blocks and projections by seed."""
    runs = evidence.runs("spectra")
    columns = [name for name in runs.columns if name.endswith(measure)]
    values = runs.assign(value=runs[columns].mean(axis=1))
    for (lab, method), part in values.groupby(["lab", "method"], sort=False):
        yield f"{lab.upper()} {METHOD_TITLES[method]}", part.groupby("seed")["value"].mean()


def _seeds(evidence: Evidence) -> str:
    return f"{evidence.runs('spectra')['seed'].nunique()} seeds"


# --------------------------------------------------------------------------- other claims


def lower_dice_is_better(evidence: Evidence) -> Finding:
    """A lower Dice means a more accurate mask: Dice falls where IoU rises."""
    runs = evidence.runs("sam")
    dice, loss = (
        float(runs[column].corr(runs["iou"], method="spearman"))
        for column in ("dice", "one_minus_dice")
    )
    says = (
        f"Over {len(runs)} runs Dice has rank correlation {dice:+.2f} with IoU; 1 - Dice, which is "
        f"a loss, {loss:+.2f}."
    )
    return Finding(HOLDS if dice < 0 else FAILS, says)


def untestable(evidence: Evidence, says: str) -> Finding:
    """Our runs cannot decide it, and why."""
    return Finding(UNTESTABLE, says)
