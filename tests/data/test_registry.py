"""One table of data sets: the names of each task at each scale, and what an unknown one brings."""

import pytest

from serial_lora_course.data.registry import (
    DATASETS,
    dataset_names,
    load_classification,
    load_segmentation,
    load_style,
)
from serial_lora_course.paper_tables import paper_results

LOADERS = {
    "classification": load_classification,
    "segmentation": load_segmentation,
    "style": load_style,
}


@pytest.mark.parametrize(
    "task, table", [("classification", "III"), ("segmentation", "IV"), ("style", "II")]
)
def test_names_are_the_papers_and_there_are_at_least_as_many_tiny_ones(task, table):
    rows = paper_results().to_dict("records")
    printed = {row["dataset"] for row in rows if row["where"] == f"Table {table}"}
    paper = dataset_names(task, "paper")
    assert set(paper) >= printed if task == "classification" else set(paper) == printed
    assert len(dataset_names(task)) >= len(printed)


@pytest.mark.parametrize("task", DATASETS)
def test_every_tiny_set_loads_and_is_told_apart(task):
    loaded = [LOADERS[task](name) for name in dataset_names(task)]
    assert [data.name for data in loaded] == list(dataset_names(task))
    assert len({data.fingerprint() for data in loaded}) == len(loaded)
    assert all(data.scale == "tiny" and data.split for data in loaded)
