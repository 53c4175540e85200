"""Intervals: what they cover on made-up records whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.intervals import (
    Interval,
    holm,
    sets_like_these,
    these_sets,
    verdict,
)
from study.tables import kept_gain


def made_up(chance, sets=6, seeds=3, pictures=40, between=1.0, by_seed=0.2):
    """Differences of two equal methods: a part of each set, picture, seed, and of the rest."""
    return {
        f"set {name}": between * chance.normal()
        + chance.normal(size=(1, pictures))
        + by_seed * chance.normal(size=(seeds, 1))
        + chance.normal(size=(seeds, pictures))
        for name in range(sets)
    }


def test_false_positives_come_at_the_stated_rate():
    chance = np.random.default_rng(1)
    found = [sets_like_these(made_up(chance)).p < 0.05 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.02)


def test_few_sets_get_the_quantile_of_students_t():
    found = sets_like_these({"a": np.ones((1, 5)), "b": 3 * np.ones((1, 5))})
    expected = stats.t.interval(0.95, 1, loc=2, scale=1)
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.p == pytest.approx(stats.ttest_1samp([1, 3], 0).pvalue)
    with pytest.raises(SerialLoRAError, match="two"):
        sets_like_these({"a": np.ones((1, 5))})


@pytest.mark.parametrize("by_seed", [0.2, 1.0])
def test_the_variance_for_these_sets_is_that_of_drawing_anew(by_seed):
    """And an interval by it is wrong as often as it says, whether pictures or seeds vary most."""
    chance = np.random.default_rng(4)
    estimated, means, wrong = [], [], []
    for _ in range(2000):
        outcomes = made_up(chance, sets=2, between=0.0, seeds=4, pictures=12, by_seed=by_seed)
        found = these_sets(outcomes)
        estimated.append(found.error**2)
        means.append(found.mean)
        wrong.append(found.p < 0.05)
    assert np.mean(estimated) == pytest.approx(np.var(means), rel=0.1)
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.02)


def test_two_sets_of_unlike_spread_and_size_are_welchs_test():
    chance = np.random.default_rng(5)
    one, other = chance.normal(0.4, 1.0, 30), chance.normal(0.2, 5.0, 6)
    found = these_sets({"one": one[None], "other": other[None]})
    welch = stats.ttest_ind(one, -other, equal_var=False)  # whether the two means add up to 0
    assert (found.p, found.freedom) == pytest.approx((welch.pvalue, welch.df))


def test_holm_on_an_example_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_method_that_keeps_nine_tenths_of_the_gain_is_on_the_border():
    base, lora = np.array([0.2, 0.5]), np.array([[0.6, 0.9]])
    assert kept_gain(base + 0.9 * (lora - base), lora, base) == pytest.approx(np.zeros((1, 2)))
    assert (kept_gain(lora, lora, base) > 0).all()
    assert [verdict(Interval(mean, 0.1, 9, 10)) for mean in (1, 0, -1)] == [
        "holds",
        "open",
        "fails",
    ]
    assert verdict(Interval(0.0, 0.0, 9, 10)) == "open"  # of two methods that never differ
    assert [Interval(mean, 0.0, 9, 10).p for mean in (0.0, 1.0)] == [1, 0]
