"""The sentences of lesson 04 count what is planted."""

import pytest
import torch

from serial_lora_course.claims import few_shot
from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records

LABELS = torch.tensor([0, 0, 1, 1, 1])
BEFORE, AFTER = torch.tensor([0, 1, 1, 0, 0]), torch.tensor([1, 0, 1, 1, 0])


def test_changes_are_counted():
    said = few_shot.read_changes(LABELS, BEFORE, AFTER)
    assert "Of 5 test pictures, 1 were right and stayed right, 2 turned from wrong" in said
    assert "1 from right to wrong, and 1 were wrong before and after" in said
    right = {"one": BEFORE == LABELS, "other": AFTER == LABELS}
    said = few_shot.read_two_runs(right)
    assert "one only: 1 of 5" in said and "other only: 2" in said and "probability 1.00" in said


@pytest.mark.parametrize(("lead", "significant"), [(5, False), (6, True)])
def test_two_runs_are_compared_by_the_pictures_on_which_they_differ(lead, significant):
    """All of n pictures on one side: chance gives that with probability 2 / 2^n."""
    one, other = torch.zeros(2, 40, dtype=torch.bool)
    one[:lead] = True
    said = few_shot.read_two_runs({"one": one, "other": other})
    assert f"probability {2 / 2**lead:.2f}" in said
    assert ("not significant" not in said) == significant
    assert "probability 1.00" in few_shot.read_two_runs({"one": one, "other": one})


def test_differences_and_cells_are_those_of_the_records():
    results = frame(shipped_records("clip"))
    table = few_shot.differences(results)
    for row in table.itertuples():
        assert row.sample == "6 sets"  # so Student's quantile has 5 degrees of freedom, 2.571
        assert (row.verdict == "not significant") == (abs(row.mean) <= 2.571 * row.sem)
    clear = int((table["verdict"] != "not significant").sum())
    assert f"{clear or 'none'} " in few_shot.read_differences(table)
    means = results.groupby(["method", "dataset", "amount"])["accuracy"].mean()
    ahead = sum(means["serial_lora"][cell] > means["lora"][cell] for cell in means["lora"].index)
    assert f"above LoRA's in {ahead} of" in few_shot.read_cells(results)


@pytest.mark.parametrize("column", ["the paper", "here"])
def test_the_paper_stands_beside_the_records(column):
    table = few_shot.beside_paper(frame(shipped_records("clip")))
    assert (
        list(table.index) == ["1 shot", "4 shot", "16 shot"] and table[column].ne("not run").all()
    )
