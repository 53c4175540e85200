"""Pictures of sweeps: what is drawn is what the runs say, and the words say it too."""

import itertools
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.lessons.l07_lora_plus.figures import plot_ratio_sweep
from serial_lora_course.lessons.l08_how_sure.figures import plot_rank_sweep
from serial_lora_course.plots.results import average_over_datasets
from serial_lora_course.plots.style import describe

DATASETS = ("food", "nature")
RATES, RATIOS = (1e-3, 1e-2), (1.0, 4.0, 10.0)


def runs_of(rows: list[tuple], columns: list[str]) -> pd.DataFrame:
    """Runs on both data sets, accuracies drawn at random."""
    chance = np.random.default_rng(3)
    table = [(dataset, *row, chance.uniform(0.3, 0.9)) for dataset in DATASETS for row in rows]
    names = ["dataset", "method", "seed", *columns, "accuracy"]
    return pd.DataFrame(table, columns=names).assign(zero_shot_dataset=0.25)


def ratio_runs(methods=("lora_plus", "serial_lora_plus")) -> pd.DataFrame:
    return runs_of(list(itertools.product(methods, (1, 2, 3), RATES, RATIOS)), ["lr", "ratio"])


def rank_runs() -> pd.DataFrame:
    per_rank = {"lora": (1, 8), "serial_lora": (1, 2), "lora_equal_budget": (0.25, 8)}
    rows = [
        (method, seed, int(rank * share), int(1000 * rank * share * per))
        for (method, (share, per)), seed, rank in itertools.product(
            per_rank.items(), (1, 2), (4, 8, 16)
        )
    ]
    return runs_of(rows, ["rank", "parameters"])


def mean_of(runs: pd.DataFrame, **wanted) -> tuple[float, float, float]:
    """Mean, lowest and highest over seeds of the average over data sets, in per cent."""
    rows = [r for r in runs.to_dict("records") if all(r[k] == v for k, v in wanted.items())]
    by_seed = [
        100 * statistics.mean(r["accuracy"] for r in rows if r["seed"] == seed)
        for seed in {r["seed"] for r in rows}
    ]
    return statistics.mean(by_seed), min(by_seed), max(by_seed)


def bars(axes) -> list[tuple[np.ndarray, np.ndarray, list]]:
    """x, y and the ends of the bars of every line with error bars."""
    return [
        (*line.lines[0].get_data(), line.lines[2][0].get_segments()) for line in axes.containers
    ]


def test_every_cell_of_the_grid_is_drawn_at_bs_rate_with_its_spread():
    runs = ratio_runs()
    figure = plot_ratio_sweep(runs)
    for axes, method in zip(figure.axes, ("lora_plus", "serial_lora_plus"), strict=True):
        assert axes.get_title(loc="left") == METHOD_TITLES[method]
        assert list(axes.lines[0].get_ydata()) == [25, 25]  # zero-shot accuracy
        for (x, y, ends), lr in zip(bars(axes), RATES, strict=True):
            assert list(x) == pytest.approx([lr * ratio for ratio in RATIOS])
            for ratio, height, segment in zip(RATIOS, y, ends, strict=True):
                mean, low, high = mean_of(runs, method=method, lr=lr, ratio=ratio)
                assert height == pytest.approx(mean)
                assert [point[1] for point in segment] == pytest.approx([low, high])


def test_a_sweep_of_ranks_is_drawn_twice_at_rank_and_at_budget():
    runs = rank_runs()
    figure = plot_rank_sweep(runs)
    methods = ("lora", "serial_lora", "lora_equal_budget")
    for axes, column in zip(figure.axes, ("rank", "parameters"), strict=True):
        for step, ((x, y, _), method) in enumerate(zip(bars(axes), methods, strict=True)):
            places = sorted(runs.loc[runs["method"] == method, column].unique())
            assert list(x) == pytest.approx([place * 1.03**step for place in places])
            for place, height in zip(places, y, strict=True):
                assert height == pytest.approx(
                    mean_of(runs, **{"method": method, column: place})[0]
                )
        low, high = axes.get_ylim()
        spread = 100 * (runs["accuracy"].max() - runs["accuracy"].min())
        assert high - low < 1.2 * spread  # nothing but the runs sets the axis
    said = describe(figure)
    assert "Zero-shot 25.0%" in said and "25.0%" in figure.get_supxlabel()
    assert f"8 {mean_of(runs, method='serial_lora', rank=8)[0]:.1f}%" in said


@given(st.lists(st.booleans(), min_size=12, max_size=12).filter(any))
@settings(deadline=None, max_examples=30)
def test_only_what_ran_on_every_data_set_is_averaged(kept):
    runs = ratio_runs(["lora_plus"])[lambda table: table["lr"] == RATES[0]]
    runs = runs[runs["ratio"] < 10].reset_index(drop=True)  # 2 ratios, 2 data sets, 3 seeds
    runs = runs[kept]
    expected = {}
    for row in runs.to_dict("records"):
        expected.setdefault((row["ratio"], row["seed"]), []).append(row["accuracy"])
    wanted = runs["dataset"].nunique()
    expected = {k: statistics.mean(v) for k, v in expected.items() if len(v) == wanted}
    table = average_over_datasets(runs, ["ratio", "seed"], ["accuracy"])
    found = table.set_index(["ratio", "seed"])["accuracy"].to_dict()
    assert found == pytest.approx(expected)
