"""What a sweep over rates and ratios says, on sweeps whose answer is known."""

import numpy as np
import pandas as pd
from scipy import stats

from serial_lora_course.lessons.l07_lora_plus import ratios


def sweep(points, method="lora_plus", seeds=3):
    """Runs of a function of lr, ratio and seed."""
    cells = [
        (lr, ratio, seed) for lr in (0.1, 1.0) for ratio in (1.0, 10.0) for seed in range(seeds)
    ]
    rows = [
        {
            "method": method,
            "dataset": "d",
            "lr": lr,
            "ratio": r,
            "seed": s,
            "points": points(lr, r, s),
        }
        for lr, r, s in cells
    ]
    return pd.DataFrame(rows)


def best_of(points):
    best = max(points, key=lambda ratio: np.mean(points[ratio]))
    differences = np.subtract(points[best], points[1.0])
    mean, error = differences.mean(), stats.sem(differences)
    half = stats.t.ppf(0.975, len(differences) - 1) * error
    return best, mean, half, abs(mean) > half


def test_a_gain_that_only_the_rate_of_b_brings_is_not_the_ratios():
    runs = sweep(lambda lr, ratio, seed: 50 + 10 * (lr * ratio == 1) + seed)
    usual = ratios.beside_ratio_one(runs, best_of)
    assert usual["best ratio"].tolist() == ["10", "1"]
    assert usual["gain"].str.split(" ").str[0].tolist() == ["+10.0", "+0.0"]
    isolated = ratios.at_one_rate_of_b(runs)
    assert isolated[["rate of B", "A at"]].values.tolist() == [["1", "0.1"]]
    assert isolated["gain"].tolist() == ["+0.0 ± 0.0"]
    assert ratios.chosen_on_other_seeds(runs)["gain"].tolist() == ["+0.0 ± 0.0"]


def test_nobody_is_measured_on_the_run_that_chose():
    lucky = sweep(
        lambda lr, ratio, seed: 50.0 + 30 * (ratio == 10 and lr == [0.1, 1.0][seed]), seeds=2
    )
    chosen = ratios.chosen_on_other_seeds(lucky)
    assert chosen["gain"].tolist() == ["+0.0 ± 0.0"] and set(chosen["significant"]) == {"no"}
