"""The paper's Fig. 3, asked of small models: do Serial LoRA's singular values lie between the base's and LoRA's?

    python -m study.spectra

For CLIP and SAM and three seeds, Serial LoRA and LoRA were trained at one rank, each with and without the
plus. The paper does not say whether its figure shows W + dW or dW, so both are asked. For each projection,
its name in front, a record has the share of singular values for which that holds, ``between`` for the merged
weights and ``change_between`` for the first r of dW, and the effective rank of both dW (e to the entropy of
the shares that its first r singular values have in their sum).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from serial_lora_course.labs.records import read_records
from serial_lora_course.measures.intervals import half_width

SHIPPED = Path(__file__).parent / "results" / "spectra.jsonl"


def judged() -> pd.DataFrame:
    """Mean over blocks and projections, then over seeds, with half of its 95% interval over seeds."""
    rows = []
    for record in read_records(SHIPPED):
        means = pd.Series(record.measures).groupby(lambda name: name.rpartition(" ")[2]).mean()
        rows.append(
            {
                "lab": record.settings["lab"],
                "method": record.method,
                "W + dW between": means["between"],
                "dW between": means["change_between"],
                "erank": means["effective_rank_serial"] - means["effective_rank_lora"],
            }
        )
    groups = pd.DataFrame(rows).groupby(["lab", "method"], sort=False)
    half = groups.sem().apply(lambda error: half_width(error, groups.size() - 1))
    return pd.concat([groups.mean(), half.add_suffix(" ±")], axis=1)


if __name__ == "__main__":
    print(judged().round(3).to_string())
