"""The page about grids past one machine: its sums, beside what they are sums of."""

from dataclasses import replace

import pytest

from serial_lora_course.labs.forecast import NOT_ADAPTED, RunForecast
from serial_lora_course.study.plan import PLANS, TRIED
from tools import scale

RUN = RunForecast(
    dataset="one",
    method="lora",
    rank=4,
    amount=100,
    seed=1,
    done=False,
    steps=50,
    drawings=3,
    tests=0,
    parameters=1000,
    seconds=1800.0,
    memory=2**31,
    disk=3000,
    state=12_000,
)
BASE = replace(RUN, method=NOT_ADAPTED, steps=0, parameters=0, seconds=600.0, disk=0, state=0)


@pytest.fixture
def grid(monkeypatch):
    """Ten runs of half an hour, and the unadapted model once."""
    monkeypatch.setattr(scale, "archives", lambda lab: {"a": 10**9, "b": 0})
    monkeypatch.setattr(scale, "weights_bytes", lambda lab: 5 * 10**8)
    return scale.Grid("ten", ("clip",), (BASE, *[RUN] * 10))


def cells(lines):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_sizes_are_sums_over_the_runs(grid):
    (row,) = cells(scale.sizes_table([grid]))
    assert row[:5] == ["ten", "10", "500", "33", "5.2"]  # 10 x 0.5 hours and 10 minutes
    assert row[5:7] == ["2.0 GiB", "0 MB"] and row[7:] == ["0 MB", "7 MB", "1.5 GB"]
    (row,) = cells(scale.sizes_table([replace(grid, runs=(replace(RUN, parameters=10**9),))]))
    assert row[7] == "4.0 GB"


def test_more_cards_take_less_time_down_to_the_longest_run(grid, monkeypatch):
    monkeypatch.setattr(scale, "overhead", lambda: {"overhead": 0.0, "begin": 0.0})
    monkeypatch.setattr(scale, "SLOW", 0.0)
    rows = cells(scale.cards_table([grid]))
    assert [row[1] for row in rows] == ["1", "8", "64"]
    hours = [float(row[2]) for row in rows]
    assert hours == [5.2, 1.0, 0.5]  # of eight, two do a second run, and one the base before it
    assert [row[-1] for row in rows] == ["1.5 GB", "1.5 GB", "12.0 GB"]
    for *_, owned, spot, kept, anew, _ in rows:
        assert float(owned) == pytest.approx(5.2 / scale.OWNED, rel=0.2)
        assert 0.02 < float(spot) < 0.7  # of 5.2 hours, one loss in 24
        assert float(kept) <= float(anew) <= 0.5
    assert [row[4] for row in rows[:2]] == ["0%", "35%"]  # 5.2 hours of eight times one


def test_the_study_and_the_large_grid_have_as_many_runs_as_their_plans_say(monkeypatch):
    def runs(lab, resolution=None):
        some = [(d, a, s) for d in "abcde" for a in (20, 100) for s in (1, 2, 3)]
        return tuple(replace(RUN, dataset=d, amount=a, seed=s, steps=a) for d, a, s in some)

    monkeypatch.setattr(scale, "paper_runs", runs)
    arms = PLANS["sam"].arms
    expected = sum(TRIED * len(PLANS["sam"].chosen_on) + arm.seeds * 5 for arm in arms)
    found = list(scale.study_runs("sam"))
    assert len(found) == expected and {run.steps for run in found} == {100}
    found = list(scale.many_runs("sam"))
    assert len(found) == 24 * 10 * 3 * 2 and len({run.dataset for run in found}) == 5


@pytest.mark.slow
def test_the_page_is_not_stale():
    assert scale.main(["--check"]) == 0, "run `python -m tools.scale`"
