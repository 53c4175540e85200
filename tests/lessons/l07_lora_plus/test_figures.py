"""Only what ran on every data set is averaged."""

import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora_course.lessons.l07_lora_plus.figures import average_over_datasets


@given(st.lists(st.booleans(), min_size=12, max_size=12).filter(any))
@settings(deadline=None, max_examples=30)
def test_only_what_ran_on_every_data_set_is_averaged(kept):
    cells = [(d, r, s) for d in ("food", "nature") for r in (1, 4) for s in (1, 2, 3)]
    runs = pd.DataFrame(cells, columns=["dataset", "ratio", "seed"])
    runs["accuracy"] = np.random.default_rng(3).uniform(size=12)
    runs = runs[kept]
    expected = {}
    for row in runs.to_dict("records"):
        expected.setdefault((row["ratio"], row["seed"]), []).append(row["accuracy"])
    wanted = runs["dataset"].nunique()
    expected = {k: statistics.mean(v) for k, v in expected.items() if len(v) == wanted}
    table = average_over_datasets(runs, ["ratio", "seed"], ["accuracy"])
    found = table.set_index(["ratio", "seed"])["accuracy"].to_dict()
    assert found == pytest.approx(expected)
