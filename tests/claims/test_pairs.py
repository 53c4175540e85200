"""What lesson 01 says in words, on tables made by hand."""

import pandas as pd

from serial_lora_course.claims import pairs

MISSES = "Serial LoRA at full rank misses"


def test_what_is_never_reached_is_said_with_what_is_missed():
    rows = [{"wish": "shared", "Serial LoRA": 4, MISSES: "0%"}]
    rows += [{"wish": "own", "Serial LoRA": "never", MISSES: "82%"}]
    said = pairs.read_first_ranks(pd.DataFrame(rows))
    assert "“shared” at rank 4" in said and "82% of “own”" in said and "“own” at" not in said


def test_where_all_is_reached_nothing_is_missed():
    said = pairs.read_first_ranks(pd.DataFrame([{"wish": "a", "Serial LoRA": 1, MISSES: "0%"}]))
    assert "“a” at rank 1" in said and "misses nothing" in said


def test_the_largest_step_over_the_smallest_is_of_the_steps_alone():
    row = {
        "W times 1": 0.04,
        "W times 2": 0.01,
        "least loss before": 4.0,
        "largest loss before": 4.0,
    }
    steps = pd.DataFrame([row], index=pd.MultiIndex.from_tuples([("SGD, 0.1", "LoRA")]))
    assert "4.0 for LoRA under SGD" in pairs.read_first_steps(steps)
