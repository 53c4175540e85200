"""The paper's printed parameter counts beside the exact ones, in every unit that they may have been printed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES
from serial_lora_course.paper_tables import printed_parameters

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
NAMED = {"M": "millions of parameters", "MB": "float32 bytes in MB"}
"""What the unit beside a printed figure says."""


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
        model = ARCHITECTURES[self.model]
        return {"lora": model.lora, "serial_lora": model.serial_lora}[self.method]()

    @property
    def readings(self) -> dict[str, float]:
        """The exact count in every unit of `READINGS`."""
        return {name: reading(self.exact) for name, reading in READINGS.items()}

    @property
    def matches(self) -> tuple[str, ...]:
        """The units in which the exact count rounds to the printed figure, which has two digits."""
        near = {name: abs(value - self.printed) for name, value in self.readings.items()}
        return tuple(name for name, apart in near.items() if apart <= 0.005 + 1e-12)

    @property
    def kind(self) -> str:
        """Whether number and unit are right, or the number in another unit, or neither."""
        if NAMED[self.unit] in self.matches:
            return "right"
        return "right in another unit" if self.matches else "not explained"


def audit() -> list[PrintedCount]:
    """Every parameter figure that the paper prints."""
    return [PrintedCount(**row) for row in printed_parameters().to_dict("records")]


def _shown(row: PrintedCount) -> dict[str, str]:
    return {
        "model": ARCHITECTURES[row.model].title.partition(",")[0],
        "method": METHOD_TITLES[row.method],
        "where": row.where,
        "printed": f"{row.printed:.2f} {row.unit}",
    }


def audit_frame() -> pd.DataFrame:
    """Each figure with the exact count, the units that give its digits, and whether that is the unit printed."""
    return pd.DataFrame(
        _shown(row)
        | {"exact count": row.exact, "matches as": "; ".join(row.matches), "figure": row.kind}
        for row in audit()
    )


def readings_frame() -> pd.DataFrame:
    """Each figure with the exact count in every unit, as text with the printed digits; matches are bold."""
    return pd.DataFrame(
        _shown(row)
        | {
            name: f"**{value:.2f}**" if name in row.matches else f"{value:.2f}"
            for name, value in row.readings.items()
        }
        for row in audit()
    )
