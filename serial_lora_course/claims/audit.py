"""The paper against itself: its printed counts beside exact ones, and what does not fit together.

Numbers in the sentences are computed from the paper's own tables and the exact counts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from serial_lora.counting import BYTES_PER_FLOAT32
from serial_lora_course.claims.paper import paper_facts
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES, Architecture
from serial_lora_course.paper_tables import printed_parameters

# --------------------------------------------------------------------------- printed counts

READINGS: dict[str, Callable[[int], float]] = {
    "millions of parameters": lambda n: n / 1e6,
    "units of 1024 x 1000 parameters": lambda n: n / (1024 * 1000),
    "units of 1024 x 1024 parameters": lambda n: n / 1024**2,
    "float32 bytes in MB": lambda n: 4 * n / 1e6,
    "float32 bytes in MiB": lambda n: 4 * n / 1024**2,
    "bfloat16 bytes in MB": lambda n: 2 * n / 1e6,
    "bfloat16 bytes in MiB": lambda n: 2 * n / 1024**2,
}
"""Every unit in which a count could plausibly have been printed."""

_EXPECTED_READING = {"M": "millions of parameters", "MB": "float32 bytes in MB"}


@dataclass(frozen=True)
class PrintedCount:
    """One parameter figure of the paper, beside the exact count.

    Attributes:
        model, method: as in `ARCHITECTURES` and the paper.
        printed, unit, where: what the paper prints ("M" or "MB"), and where.
    """

    model: str
    method: str
    printed: float
    unit: str
    where: str

    @property
    def exact(self) -> int:
        """The closed form's count."""
        return _exact(ARCHITECTURES[self.model])[self.method]

    @property
    def readings(self) -> dict[str, float]:
        """The exact count in every unit of `READINGS`."""
        return {name: reading(self.exact) for name, reading in READINGS.items()}

    @property
    def matches(self) -> tuple[str, ...]:
        """The units in which the exact count rounds to the printed figure."""
        return tuple(name for name, value in self.readings.items() if self._is_printed(value))

    @property
    def kind(self) -> str:
        """ "right", "unit" (right number, wrong unit) or "unexplained"."""
        if _EXPECTED_READING[self.unit] in self.matches:
            return "right"
        return "unit" if self.matches else "unexplained"

    @property
    def verdict(self) -> str:
        """The kind in a sentence made from the numbers."""
        exact, printed, unit = self.exact, self.printed, self.unit
        value = self.readings[_EXPECTED_READING[unit]]
        if self.kind == "right":
            return f"Right as printed: {exact:,} parameters are {printed} {unit}."
        if self.kind == "unit":
            return (
                f"The number is right and its unit is not: {exact:,} parameters are {value:.2f} "
                f"{unit}; counted as {self.matches[0]} they are {printed}.{self._twin()}"
            )
        return (
            f"Not explained: {exact:,} parameters are {value:.2f} {unit}; the paper prints "
            f"{printed} ({printed / value - 1:+.1%}).{self._numeric_fit()}"
        )

    def _is_printed(self, value: float) -> bool:
        """Whether a value, rounded to the two digits that the paper prints, is this figure."""
        return abs(value - self.printed) <= 0.005 + 1e-12

    def _twin(self) -> str:
        """A remark when the printed figure is another model's exact count in millions."""
        for key, item in ARCHITECTURES.items():
            for method, count in _exact(item).items():
                if key != self.model and item.in_paper and self._is_printed(count / 1e6):
                    title = METHOD_TITLES[method]
                    return (
                        f" (The same digits are {title}'s exact count on {item.title}: {count:,}.)"
                    )
        return ""

    def _numeric_fit(self) -> str:
        """A remark when three more vectors a pair would give the figure, as they do for SD3."""
        item = ARCHITECTURES[self.model]
        pairs = 4 if self.method == "lora" else 1
        fit = sum((2 * item.rank + 3) * t.width * t.depth * pairs for t in item.towers)
        if not self._is_printed(fit / 1e6):
            return ""
        return (
            f" (2r + 3) d a pair gives {fit:,} and would fit, but nothing in the method holds three "
            "further vectors."
        )


def _exact(item: Architecture) -> dict[str, int]:
    return {"lora": item.lora(), "serial_lora": item.serial_lora()}


def audit() -> list[PrintedCount]:
    """Every parameter figure that the paper prints, beside the exact count and a verdict."""
    return [PrintedCount(**row) for row in printed_parameters().to_dict("records")]


def audit_frame() -> pd.DataFrame:
    """`audit` as a table to show."""
    return pd.DataFrame(
        [
            {
                "model": ARCHITECTURES[row.model].title,
                "method": METHOD_TITLES[row.method],
                "exact count": row.exact,
                "printed": f"{row.printed:.2f}{row.unit}",
                "where": row.where,
                "matches as": "; ".join(row.matches) or "none tried",
                "verdict": row.verdict,
            }
            for row in audit()
        ]
    )


def readings_frame() -> pd.DataFrame:
    """The exact counts in every plausible unit, as text for a Markdown table; one row a figure.

    Numbers have the digits that the paper prints; those that round to the printed figure are bold.
    """
    return pd.DataFrame(
        [
            {
                "model": ARCHITECTURES[row.model].title.partition(",")[0],
                "method": METHOD_TITLES[row.method],
                "where": row.where,
                "printed": f"{row.printed:.2f} {row.unit}",
            }
            | {
                name: f"**{value:.2f}**" if name in row.matches else f"{value:.2f}"
                for name, value in row.readings.items()
            }
            for row in audit()
        ]
    )


# --------------------------------------------------------------------------- inconsistencies


def inconsistency_frame() -> pd.DataFrame:
    """What the paper prints that does not fit together, with its numbers, as a table to show.

    The sentences stand in ``assets/inconsistencies.tsv``, where names in braces are numbers of
    `paper_facts` and of the exact counts.
    """
    table = files("serial_lora_course") / "assets" / "inconsistencies.tsv"
    rows = pd.read_csv(io.StringIO(table.read_text("utf-8")), sep="\t", quoting=csv.QUOTE_NONE)
    facts = paper_facts() | _counts()
    names = {"where": "Where", "says": "The paper says", "finding": "What we find"}
    return rows.map(lambda text: text.format(**facts)).rename(columns=names)


def _counts() -> dict[str, float]:
    """The exact counts of the paper's models, and what would explain SD3's."""
    counts: dict[str, float] = {
        f"{model}_{method}": count
        for model, item in ARCHITECTURES.items()
        for method, count in _exact(item).items()
    }
    sd3 = ARCHITECTURES["sd3"]
    more = sum(3 * tower.width * tower.depth for tower in sd3.towers)  # in each pair
    printed = float(paper_facts()["sd3_lora_printed"])
    return counts | {
        "sam_lora_bytes": counts["sam_lora"] * BYTES_PER_FLOAT32,
        "sam_depth": ARCHITECTURES["sam"].towers[0].depth,
        "sd3_excess": printed * 1e6 / counts["sd3_lora"] - 1,
        "sd3_lora_and_more": counts["sd3_lora"] + 4 * more,
        "sd3_serial_lora_and_more": counts["sd3_serial_lora"] + more,
    }
