"""The paper's Fig. 3 on small models: by loops, once each, and as CLAIMS.md quotes it."""

import numpy as np
import pytest
import torch

from serial_lora_course.labs.records import read_records
from study import spectra


def test_measures_by_loops():
    torch.manual_seed(0)
    base, lora, serial = (torch.randn(6, 6).double() for _ in range(3))
    found = spectra.compare(base, lora, serial, rank=3)
    W, one, other = (each.numpy() for each in (base, lora, serial))
    values = zip(*(np.linalg.svd(each)[1] for each in (W, other, one)), strict=True)
    inside = [low < middle < high or low > middle > high for low, middle, high in values]
    assert found["between"] == pytest.approx(np.mean(inside), rel=1e-4)
    low, small, whole = (np.linalg.svd(each)[1] for each in (one - W, other - W, W))
    order = [a < b < c for a, b, c in zip(low[:3], small[:3], whole[:3], strict=True)]
    assert found["change_between"] == pytest.approx(np.mean(order), rel=1e-4)
    shares = low[:3] / low[:3].sum()
    entropy = -sum(share * np.log(share) for share in shares)
    assert found["effective_rank_lora"] == pytest.approx(np.exp(entropy), rel=1e-4)


def test_the_shipped_runs_say_what_is_quoted():
    told = spectra.judged(read_records(spectra.SHIPPED)).xs("serial_lora", level="method")
    assert told["W + dW between"].round(2).tolist() == [0.3, 0.36]
    assert told["erank"].round(2).tolist() == [-1.3, -2.55]
    assert told["erank ±"].round(2).tolist() == [0.98, 0.49]
