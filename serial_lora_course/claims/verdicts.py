"""The verdicts on a claim, and the rules that turn numbers into one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from serial_lora.errors import SerialLoRAError
from serial_lora_course.claims.evidence import MEASURES
from serial_lora_course.study.statistics import CONFIDENCE, Interval, verdict

HOLDS, IN_PART, FAILS = "holds", "holds in part", "does not hold"
OPEN, UNTESTABLE = "undecided", "not testable here"
NOT_SHOWN, MISSING = "not in its tables", "no records yet"
UNFINISHED = "runs are missing"
VERDICTS = (HOLDS, IN_PART, FAILS, OPEN, UNFINISHED, UNTESTABLE, NOT_SHOWN, MISSING)
"""Every verdict that there is; `NOT_SHOWN` is said of the paper's tables alone."""

VERDICT_OF = {"holds": HOLDS, "fails": FAILS, "open": OPEN}
"""Of an interval beside 0, in the ledger's words."""

SHARES: dict[str, Callable[[int, int], bool]] = {
    "all": lambda count, cells: count == cells,
    "nearly all": lambda count, cells: count >= 0.9 * cells,
    "most": lambda count, cells: 2 * count > cells,
}
"""What a claim's word for "how often" asks of a number of cells."""


@dataclass(frozen=True)
class Finding:
    """A verdict, and in words the numbers that it was computed from."""

    verdict: str
    says: str


def verdict_ahead(interval: Interval | None, often: bool = True) -> str:
    """Of "the first is better": by an interval of scores, more being better; None decides nothing.

    Args:
        often: whether the first is better in as many cells as the claim says.
    """
    found = VERDICT_OF[verdict(interval)] if interval else OPEN
    return IN_PART if found == HOLDS and not often else found


def verdict_within(interval: Interval | None, margin: float) -> str:
    """Of "the first is comparable, or better": not behind by more than the margin."""
    return verdict_ahead(interval and replace(interval, mean=interval.mean + margin))


def verdict_by_cells(count: int, cells: int, share: str) -> str:
    """Of cells without spread: as often as the claim says, or at least in most of them.

    Raises:
        SerialLoRAError: there are no cells, in which everything would hold.
    """
    if not cells:
        raise SerialLoRAError("No cell was counted; correct the claim's amounts.")
    if SHARES[share](count, cells):
        return HOLDS
    return IN_PART if SHARES["most"](count, cells) else FAILS


def combined(verdicts: Iterable[str], share: str = "all") -> str:
    """One verdict for a claim about several things, of which it should hold for a share.

    It holds where it holds for as many as the claim says. It does not where one refutes it, if the
    claim says all, or where none is in its favour. Else it holds in part.

    Raises:
        SerialLoRAError: there are no verdicts, of which everything would hold.
    """
    verdicts = list(verdicts)
    if not verdicts:
        raise SerialLoRAError("Nothing was compared; correct the claim's measures.")
    if SHARES[share](verdicts.count(HOLDS), len(verdicts)):
        return HOLDS
    if FAILS in verdicts and share == "all":
        return FAILS
    if {HOLDS, IN_PART} & set(verdicts):
        return IN_PART
    return FAILS if FAILS in verdicts else OPEN


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
        f"After ± stands half of the {CONFIDENCE:.0%} interval for *sets like these*: the means of data sets are "
        "the sample, with Student's t; in brackets that for *these sets*, where seeds are the sample. Then how "
        "many data sets and seeds, and in how many cells the mean over seeds speaks for the first method.",
        "**Better** holds when the interval for sets like these lies above zero, and does not when it lies "
        "below. Else the runs leave it undecided, which is not the same as equal. Better, but in fewer cells than "
        "the claim says, is in part. One data set has no such interval; there the one for these sets decides.",
        "**Comparable** means not behind by more than a margin: it holds when the whole interval lies above "
        f"minus the margin, and does not when it lies below. The margins are {margins}. They are a choice, and a "
        "difference can be real and within them.",
        "**The study.** Where a row says *sets like these*, it stands on the study of `docs/study.md`: rates "
        "chosen for each method on validation pictures, a 95% t interval over data sets, and Holm's "
        "correction over all its questions. Until all runs of a question's two arms are there, the row "
        "says how many are.",
        "**Style.** SD3's records are judged by the share of drawings that a classifier takes for the "
        "style, where the paper prints CLIP-Score: that one is highest for the model that was not tuned.",
        "**Signs.** Positive speaks for the method named first. FID, where less is better, is "
        "compared by 100 times the logarithm of the ratio, which is the difference in per cent as "
        "long as it is small.",
        "**Several comparisons.** A claim about several holds where it holds for as many as it "
        "says; it does not where one of them refutes a claim about all; else it holds in part.",
        "**Limits.** Ours are small models and drawings, the paper's are large models and "
        "photographs: a verdict here is about the method at this scale. With so many claims, "
        "expect a verdict or two to be luck: only the study's rows are corrected for their number.",
    ]
