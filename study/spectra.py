"""The paper's Fig. 3, asked of small models: do Serial LoRA's singular values lie between the base's and LoRA's?

    python -m study.spectra

For CLIP and SAM and three seeds, Serial LoRA and LoRA were trained at one rank, each with and without the
plus. The paper does not say whether its figure shows W + dW or dW, so both are asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.linalg import svdvals

from serial_lora_course.labs.records import Record, read_records
from serial_lora_course.measures.intervals import half_width

SHIPPED = Path(__file__).parent / "results" / "spectra.jsonl"


def compare(W: Tensor, lora: Tensor, serial: Tensor, rank: int) -> dict[str, float]:
    """The measures of one projection, of its base's weight and of both merged weights."""
    before, low, ours = (svdvals(each) for each in (W, lora, serial))
    changes = [svdvals(each - W)[:rank] for each in (lora, serial)]
    inside = (changes[0] < changes[1]) & (changes[1] < before[:rank])
    found = {
        "between": ((ours - before) * (low - ours) > 0).double().mean().item(),
        "change_between": inside.double().mean().item(),
    }
    for name, values in zip(("lora", "serial"), changes, strict=True):
        entropy = torch.special.entr(values / values.sum()).sum()
        found[f"effective_rank_{name}"] = entropy.exp().item()
    return found


def judged(records: Iterable[Record]) -> pd.DataFrame:
    """Mean over blocks and projections, then over seeds, with half of its 95% interval over seeds."""
    rows = []
    for record in records:
        measures = pd.Series(record.measures)
        means = measures.groupby(measures.index.str.rpartition(" ").get_level_values(2)).mean()
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
    print(judged(read_records(SHIPPED)).round(3).to_string())
