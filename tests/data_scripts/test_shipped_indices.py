"""The few-shot index files in the package: current, complete, and without a test picture."""

import json

import pytest
from typer.testing import CliRunner

from data_scripts import few_shot_indices as script
from serial_lora_course.data.classification import dataset_names, load_classification
from serial_lora_course.data.fewshot import (
    SEEDS,
    SHOTS,
    few_shot_indices,
    few_shot_split,
    index_path,
    read_index_file,
    shipped_index_folder,
)


def test_there_are_at_least_four_sets_of_eight_classes_and_one_file_each():
    names = dataset_names()
    assert len(names) >= 4
    assert sorted(path.stem for path in shipped_index_folder().glob("*.json")) == sorted(names)
    assert all(len(load_classification(name).class_names) >= 8 for name in names)


def made_elsewhere(name):
    """Whether other versions of the emoji packages made the file than are installed here."""
    return read_index_file(shipped_index_folder() / f"{name}.json").made_with != script.versions()


@pytest.mark.parametrize("name", dataset_names())
def test_nearly_all_shots_are_here_whatever_the_versions(name):
    data = load_classification(name)
    index = read_index_file(index_path(data))
    listed = {i for classes in index.order.values() for ids in classes.values() for i in ids}
    assert len(listed.intersection(data.train.picture_ids)) >= 0.9 * len(listed)
    assert not listed.intersection(index.test)


@pytest.mark.parametrize("name", dataset_names())
def test_shipped_files_answer_for_every_draw(name):
    data = load_classification(name)
    index = read_index_file(index_path(data))
    if index.fingerprint != data.fingerprint() and made_elsewhere(name):
        pytest.skip("other versions of the emoji packages draw a slightly other set")
    assert index.fingerprint == data.fingerprint()
    assert tuple(index.order) == SEEDS and index.shots == SHOTS
    assert set(index.test) == set(data.test.picture_ids)
    train = dict(zip(data.train.picture_ids, data.train.labels, strict=True))
    for seed in SEEDS:
        assert list(index.order[seed]) == data.class_names
        for label, picture_ids in enumerate(index.order[seed].values()):
            assert all(train[picture_id] == label for picture_id in picture_ids)
            assert len(picture_ids) == min(max(SHOTS), data.train.labels.count(label))
        for shots in SHOTS:
            split = few_shot_split(data, shots, seed)
            assert split.indices == few_shot_indices(
                data.train.labels, shots, seed, data.train.picture_ids
            )
            assert split.short_classes == {
                class_name: data.train.labels.count(label)
                for label, class_name in enumerate(data.class_names)
                if data.train.labels.count(label) < shots
            }


def test_the_script_finds_the_shipped_files_current():
    if any(made_elsewhere(name) for name in dataset_names()):
        pytest.skip("other versions of the emoji packages may draw a slightly other set")
    result = CliRunner().invoke(script.app, ["--check"])
    assert result.exit_code == 0, result.output


def test_files_are_small():
    sizes = [path.stat().st_size for path in shipped_index_folder().glob("*.json")]
    assert sum(sizes) < 500_000
    for path in shipped_index_folder().glob("*.json"):
        assert json.loads(path.read_text("utf-8"))["rule"]
