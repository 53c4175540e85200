"""Tables of lesson 12: what is found out about each model, and how well its merge is proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from torch import Tensor, nn

from serial_lora.attention import find_attention_sites
from serial_lora_course.labs.own import PictureClassifier
from serial_lora_course.measures.metrics import accuracy


def models_table(model_lines: Mapping[str, Callable[[], nn.Module]]) -> pd.DataFrame:
    """What `PictureClassifier` and the package find out about each model by themselves."""
    rows = []
    for name, model_line in model_lines.items():
        each = PictureClassifier(model_line(), ["one", "two"])
        sites = find_attention_sites(each.model, towers=["image"])
        size, mean = each.preprocessing.size, each.preprocessing.mean[0]
        row = {"model": name, "pictures": f"{size} x {size}", "mean of red": f"{mean:.3f}"}
        row |= {"vector": each.head.in_features, "blocks": len(sites)}
        rows.append(row | {"where q reads them": sites[0].projections["q"].module})
    return pd.DataFrame(rows)


def proof_row(
    adapted: Tensor, from_files: Tensor, merged: Tensor, labels: Sequence[int]
) -> dict[str, str]:
    """How far scores (N, C) that should be equal differ, relative to the largest; and accuracy."""
    size, truth = adapted.abs().max(), adapted.new_tensor(labels).long()
    return {
        "loaded from its files": f"{(from_files - adapted).abs().max() / size:.0e}",
        "merged": f"{(merged - adapted).abs().max() / size:.0e}",
        "accuracy": f"{accuracy(adapted, truth):.1%}",
    }
