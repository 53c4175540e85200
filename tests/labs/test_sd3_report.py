"""What the SD3 lab tells of its records: a line for each run, the table, the paper beside it."""

from dataclasses import replace

import pytest
from rich.console import Console

from serial_lora_course.labs.records import Record
from serial_lora_course.labs.report import closing_line, results_table, run_line

MEASURES = {
    "fid": 98.76,
    "kid": 0.02,
    "kid_std": 0.01,
    "clip_score": 0.81,
    "clip_error": 0.01,
    "style_share": 0.625,
    "base_fid": 201.5,
    "base_kid": 0.2,
    "base_clip_score": 0.84,
    "base_style_share": 0.0,
    "real_fid": 12.3,
    "real_kid": 0.001,
}
RUN = Record(
    task="sd3",
    scale="tiny",
    dataset="line",
    method="serial_lora",
    amount=50,
    unit="percent",
    seed=1,
    rank=16,
    measures=MEASURES,
    sizes={"parameters": 30720, "activation_bytes": 5_000_000},
    seconds=12.3,
)


def shown(records, width=160) -> str:
    console = Console(width=width, record=True, quiet=False, file=None)
    with console.capture() as printed:
        console.print(results_table(records))
    return printed.get()


def test_a_run_is_one_line_with_where_it_came_from():
    line = run_line(RUN, is_new=True)
    for part in ("line, 50%, seed 1", "Serial LoRA", "FID 98.76", "201.5", "0.810", "0.840"):
        assert part in line
    assert "already in the records" in run_line(RUN, is_new=False)


def test_the_table_has_what_costs_no_training_and_the_spread():
    table = shown([RUN, replace(RUN, seed=2, measures=MEASURES | {"fid": 90.76})])
    rows = {row.split("  ")[0].strip(): row for row in table.splitlines()}
    assert "real pictures" in table and "not adapted" in table and rows
    for part in ("12.3", "201.5", "94.76 ± 4", "62%", "30,720", "lower is better"):
        assert part in table
    assert "paper" not in table


@pytest.mark.parametrize(("amount", "printed"), [(20, "193.66 / 0.8302"), (100, "117.93 / 0.8302")])
def test_the_papers_two_numbers_stand_beside_ours(amount, printed):
    run = replace(RUN, scale="paper", dataset="barbie", amount=amount)
    assert printed in shown([run])


def test_a_style_that_the_paper_has_not_gets_a_dash():
    assert "–" in shown([replace(RUN, scale="paper", dataset="watercolour")])


def test_memory_is_told_below():
    assert closing_line([RUN]) == "Activations kept for a backward pass: Serial LoRA 5 MB."
