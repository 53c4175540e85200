"""How long a grid takes, beside closed forms; and what is said of one that is running."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.progress import GridProgress
from serial_lora_course.labs.ray_workers import Share
from serial_lora_course.labs.schedule import Troubles, simulate

SECONDS = st.lists(st.floats(0.1, 100), min_size=1, max_size=30)


def random():
    return np.random.default_rng(1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SECONDS, st.integers(1, 8), st.floats(0, 9))
def test_without_trouble_a_grid_ends_within_grahams_bounds(runs, workers, overhead):
    """The first free worker takes the next run: at most the longest one later than evenly shared."""
    troubles = Troubles(overhead=overhead, begin=7)
    found = simulate(runs, workers, random(), troubles)
    each = [seconds + overhead for seconds in runs]
    even, last = sum(each) / workers, found.seconds - 7
    assert max(even, max(each)) - 1e-6 <= last <= even + (1 - 1 / workers) * max(each) + 1e-6
    assert found.lost_workers == found.wasted == 0
    used = min(workers, len(runs))
    assert found.idle == pytest.approx(1 - sum(each) / (used * found.seconds))
    assert simulate(runs, 1, random()).seconds == pytest.approx(sum(runs))


@pytest.mark.parametrize("begin", [0.0, 2.0])
def test_runs_that_begin_again_take_as_long_as_the_formula_says(begin):
    """Of a run of length L on workers that live for M on average: (exp(L / M) - 1) (M + begin)."""
    length, life, runs = 3.0, 4.0, 20_000
    found = simulate([length] * runs, 1, random(), Troubles(begin=begin, life=life))
    expected = (math.exp(length / life) - 1) * (life + begin)
    assert found.seconds / runs == pytest.approx(expected, rel=0.02)
    assert found.lost_workers / runs == pytest.approx(math.exp(length / life) - 1, rel=0.03)


def test_what_is_saved_is_not_lost_and_what_is_slow_takes_longer():
    runs, saved = [10.0] * 2000, (math.inf, 5.0, 1.0, 0.1)
    found = [simulate(runs, 4, random(), Troubles(life=15.0, saved=each)) for each in saved]
    assert all(one.wasted > 1.5 * other.wasted for one, other in pairwise(found))
    slow = simulate(runs, 1, random(), Troubles(slow=0.1, slower=3.0))
    assert slow.seconds == pytest.approx(sum(runs) * (1 + 0.1 * 2), rel=0.03)


def test_progress_says_nothing_early_and_then_what_the_runs_so_far_took():
    progress = GridProgress([("one", 10)] * 8 + [("two", 20)] * 4)
    progress.ended(0)  # its record was there
    for place in (1, 2):
        progress.ended(place, 30.0, workers=2)
    assert progress.seconds_left() is None and "too early" in str(progress)
    progress.ended(3, 30.0, workers=2)
    # Four of 30 seconds and, while nothing else is known of set two, four of 60, two at once.
    assert progress.seconds_left() == pytest.approx((180, 180)) and progress.is_long
    assert str(progress).startswith("4 of 12 runs, 2 at once; 3.0 minutes left")
    progress.ended(8, 20.0, workers=2)  # a step of set two is three times as fast
    assert progress.seconds_left() == pytest.approx((100, 100))
    progress.ended(4, 60.0, workers=2)
    low, high = progress.seconds_left()  # three of 30 or 60 seconds, then three of 20
    assert 80 <= low < high <= 120


def test_what_no_cluster_can_give_is_refused():
    assert Share.named("ray", 0.5, None, None) == Share(cpus=0.5)
    assert Share.named("ray:head:6379", 4.0, 0.5, 8.0).address == "head:6379"
    assert Share(cpus=0.5).threads == 1 and Share(cpus=3.0).threads == 3
    for asked in (("dask", 1.0, None, None), ("ray", 0.0, None, None), ("ray", 1.0, -1.0, None)):
        with pytest.raises(SerialLoRAError):
            Share.named(*asked)
    with pytest.raises(SerialLoRAError, match="memory"):
        Share(memory=math.nan)
