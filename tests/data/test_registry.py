"""One table of data sets: the names of each task at each scale, and what an unknown one brings."""

import pytest

from serial_lora.errors import SerialLoRAError
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


@pytest.mark.parametrize("task", DATASETS)
def test_unknown_names_and_scales_are_answered_with_those_there_are(task):
    for scale in ("tiny", "paper"):
        known = ", ".join(dataset_names(task, scale))
        with pytest.raises(SerialLoRAError, match=f"'cifar'.*{known}"):
            LOADERS[task]("cifar", scale)
    with pytest.raises(SerialLoRAError, match='with scale "paper"'):
        LOADERS[task](dataset_names(task, "paper")[0])
    for ask in (lambda: dataset_names(task, "huge"), lambda: LOADERS[task]("x", "huge")):
        with pytest.raises(SerialLoRAError, match="tiny, paper"):
            ask()


@pytest.mark.parametrize("task", DATASETS)
def test_data_that_are_not_there_name_the_command(task, tmp_path):
    for name in dataset_names(task, "paper"):
        with pytest.raises(SerialLoRAError, match=r"python data_scripts/fetch.py \w+ --root"):
            LOADERS[task](name, "paper", tmp_path)
    assert list(tmp_path.iterdir()) == []  # torchvision's Caltech101 would make a folder
