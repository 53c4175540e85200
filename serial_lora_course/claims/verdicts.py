"""The verdicts on a claim, and the rules that turn numbers into one of them.

`claims_tables` and `claims_records` bring the numbers, and wherever runs or cells are compared the
rules here decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serial_lora.errors import SerialLoRAError
from serial_lora_course.claims.evidence import Difference

HOLDS, IN_PART, FAILS = "holds", "holds in part", "does not hold"
OPEN, UNTESTABLE = "not told apart", "not testable here"
NOT_SHOWN, MISSING = "not in its tables", "no records yet"
VERDICTS = (HOLDS, IN_PART, FAILS, OPEN, UNTESTABLE, NOT_SHOWN, MISSING)
"""Every verdict that there is; `NOT_SHOWN` is said of the paper's tables alone."""

ERRORS = 2.0
"""How many standard errors a difference must be away from what it is compared with."""

SHARES: dict[str, Callable[[int, int], bool]] = {
    "all": lambda count, cells: count == cells,
    "nearly all": lambda count, cells: count >= 0.9 * cells,
    "most": lambda count, cells: 2 * count > cells,
}
"""What a claim's word for "how often" asks of a number of cells."""


@dataclass(frozen=True)
class Part:
    """One comparison behind a finding: two methods on one measure, as a difference.

    Attributes:
        label: what tells it from the finding's others; empty, or ending in a blank.
        verdict: one of `VERDICTS`.
        note: what is to be said beside it.
    """

    label: str
    difference: Difference
    verdict: str
    note: str = ""

    def words(self, with_verdict: bool) -> str:
        """The difference, and what is to be said of it."""
        said = [self.verdict] * with_verdict + [self.note] * bool(self.note)
        return ", ".join([f"{self.label}{self.difference}", *said])


@dataclass(frozen=True)
class Finding:
    """A verdict, and in words the numbers that it was computed from."""

    verdict: str
    says: str


def verdict_ahead(mean: float, error: float, often: bool = True) -> str:
    """Of "the first is better": by the mean difference and its standard error.

    Args:
        mean, error: of scores, more being better; an error of nan decides nothing.
        often: whether the first is better in as many cells as the claim says.
    """
    if mean > ERRORS * error:
        return HOLDS if often else IN_PART
    return FAILS if mean < -ERRORS * error else OPEN


def verdict_comparable(mean: float, error: float, margin: float) -> str:
    """Of "the first is comparable, or better": not behind by more than the margin."""
    if mean - ERRORS * error > -margin:
        return HOLDS
    return FAILS if mean + ERRORS * error < -margin else OPEN


def verdict_by_cells(count: int, cells: int, share: str) -> str:
    """Of cells without spread: as often as the claim says, or at least in most of them.

    Raises:
        SerialLoRAError: there are no cells, in which everything would hold.
    """
    if not cells:
        raise SerialLoRAError("No cell was counted; correct the amounts in assets/claims.json.")
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
        raise SerialLoRAError("Nothing was compared; correct the options in assets/claims.json.")
    if SHARES[share](verdicts.count(HOLDS), len(verdicts)):
        return HOLDS
    if FAILS in verdicts and share == "all":
        return FAILS
    if {HOLDS, IN_PART} & set(verdicts):
        return IN_PART
    return FAILS if FAILS in verdicts else OPEN


def combine_parts(parts: Iterable[Part], share: str = "all") -> Finding:
    """The finding of several comparisons, each in words."""
    parts = tuple(parts)
    mixed = len({part.verdict for part in parts}) > 1
    says = "; ".join(part.words(mixed) for part in parts)
    return Finding(combined((part.verdict for part in parts), share), f"{says}.")
