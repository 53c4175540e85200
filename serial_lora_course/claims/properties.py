"""Claims about the adapter and the paper itself: sizes, memory, spectra, data and metric."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from serial_lora.layers import SerialLoRA
from serial_lora_course.claims.audit import audit
from serial_lora_course.claims.evidence import Evidence
from serial_lora_course.claims.paper import paper_facts
from serial_lora_course.claims.verdicts import (
    FAILS,
    HOLDS,
    IN_PART,
    SHARES,
    Finding,
    combined,
    verdict_ahead,
    verdict_by_cells,
)
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.labs.variants import RepAdapter
from serial_lora_course.models.architectures import ARCHITECTURES, BASELINES, size_ratio
from serial_lora_course.study.statistics import Interval

# --------------------------------------------------------------------------- sizes


def printed_ratio(evidence: Evidence) -> Finding:
    """LoRA's printed number of parameters is four times Serial LoRA's."""
    printed = {(row.model, row.method): row.printed for row in audit() if row.unit == "M"}
    ratios = [
        printed[key, "lora"] / printed[key, "serial_lora"]
        for key, item in ARCHITECTURES.items()
        if item.in_paper
    ]
    near = sum(round(ratio, 2) == 4 for ratio in ratios)
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return Finding(verdict_by_cells(near, len(ratios), "all"), f"Table I: ratios {listed}.")


def exact_ratio(evidence: Evidence) -> Finding:
    """LoRA's exact number of parameters is four times Serial LoRA's."""
    exact = [item.lora() / item.serial_lora() for item in ARCHITECTURES.values()]
    count = sum(ratio == 4 for ratio in exact)
    other = BASELINES[1]
    says = (
        f"Exactly 4 on {count} of {len(exact)} real models, at equal rank and against a pair on "
        f"each of q, k, v and out; {float(size_ratio(other.shapes(768), 768)):g} against {other.name}."
    )
    return Finding(verdict_by_cells(count, len(exact), "all"), says)


def printed_units(evidence: Evidence) -> Finding:
    """No printed number of parameters has two units."""
    printed: dict[tuple[str, str, float], set[str]] = {}
    for row in audit():
        printed.setdefault((row.model, row.method, row.printed), set()).add(row.unit)
    twice = [key for key, units in printed.items() if len(units) > 1]
    models = ", ".join(sorted({ARCHITECTURES[key[0]].title.partition(",")[0] for key in twice}))
    says = f"{models or 'No model'}: one figure with two units, parameters and bytes."
    return Finding(FAILS if twice else HOLDS, says)


def printed_counts(evidence: Evidence) -> Finding:
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


def memory_is_a_quarter(evidence: Evidence) -> Finding:
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


# --------------------------------------------------------------------------- inside the adapter


def was_there_before(evidence: Evidence) -> Finding:
    """Serial LoRA computes something else than RepAdapter's attention adapter of 2023."""
    width, rank, tokens = 24, 4, torch.randn(7, 24, generator=torch.Generator().manual_seed(0))
    pair = SerialLoRA(width, rank)
    earlier = RepAdapter(width, rank, groups=1, dropout=0.0, bias=False)
    with torch.no_grad():
        pair.lora_B.normal_(generator=torch.Generator().manual_seed(1))
        earlier.down.weight.copy_(pair.lora_A)
        earlier.up.copy_(pair.lora_B[None])
        apart = float((pair(tokens) - earlier(tokens)).abs().max())
    says = (
        "With one group, no bias and no dropout RepAdapter's attention adapter, in the same place and "
        f"merged into the same weights, is the same function{'' if apart < 1e-5 else f', but for {apart:.0e}'}. "
        "New are the comparison with LoRA at a quarter of its size, SAM and SD3."
    )
    return Finding(FAILS if apart < 1e-5 else HOLDS, says)


def serial_equals_three_pairs(evidence: Evidence) -> Finding:
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


def spectrum_lies_between(evidence: Evidence, needed: float = 0.9) -> Finding:
    """Serial LoRA's singular values lie between the base's and LoRA's, at a share of the indices.

    Asked of both matrices that the paper's figure may show, W + dW and dW, on each model and for
    each serial method: mean over blocks and projections, then an interval over seeds.
    """
    words, verdicts = [], []
    for matrix, measure in (("W + dW", " between"), ("dW", " change_between")):
        cells = []
        for name, by_seed in _by_seed(evidence, measure):
            above = over_seeds(by_seed - needed)
            verdicts.append(verdict_ahead(above))
            cells.append(f"{name} {by_seed.mean():.0%} ± {100 * above.half_width:.0f}")
        words.append(f"{matrix}: {', '.join(cells)}")
    says = f"Share of the indices, {needed:.0%} asked for. {'; '.join(words)}; {_seeds(evidence)}."
    return Finding(combined(verdicts), says)


def spectrum_falls_gradually(evidence: Evidence) -> Finding:
    """Serial LoRA's change has more directions that count: a higher effective rank than LoRA's."""
    cells, verdicts = [], []
    lora = dict(_by_seed(evidence, " effective_rank_lora"))
    for name, serial in _by_seed(evidence, " effective_rank_serial"):
        gain = serial - lora[name]
        verdicts.append(verdict_ahead(over_seeds(gain)))
        cells.append(f"{name} {over_seeds(gain)}")
    says = f"Effective rank of dW, serial minus LoRA: {', '.join(cells)}; {_seeds(evidence)}."
    return Finding(combined(verdicts), says)


def over_seeds(values: pd.Series) -> Interval:
    """The 95% interval for other seeds, of one number a seed."""
    return Interval(float(values.mean()), float(values.sem()), len(values) - 1, len(values))


def _by_seed(evidence: Evidence, measure: str) -> Iterator[tuple[str, pd.Series]]:
    """For each model and serial method, a measure's mean over blocks and projections by seed."""
    runs = evidence.runs("spectra")
    columns = [name for name in runs.columns if name.endswith(measure)]
    values = runs.assign(value=runs[columns].mean(axis=1))
    for (lab, method), part in values.groupby(["lab", "method"], sort=False):
        yield f"{lab.upper()} {METHOD_TITLES[method]}", part.groupby("seed")["value"].mean()


def _seeds(evidence: Evidence) -> str:
    return f"{evidence.runs('spectra')['seed'].nunique()} seeds"


# --------------------------------------------------------------------------- data and metric


def number_of_datasets(evidence: Evidence, claimed: int = 24) -> Finding:
    """As many data sets as claimed stand in the tables."""
    facts = paper_facts()
    found = facts["tabulated_datasets"]
    says = (
        f"{found}: {facts['sd3_datasets']} for SD3, {facts['clip_datasets']} for CLIP, "
        f"{facts['sam_datasets']} for SAM."
    )
    return Finding(HOLDS if found >= claimed else FAILS, says)


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
