"""Few-shot draws: the same for ever, nested, and told when a class is too small."""

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification import ClassificationData, PictureFiles
from serial_lora_course.data.fewshot import (
    SEEDS,
    SHOTS,
    few_shot_indices,
    few_shot_split,
    hash_order,
    index_path,
    read_index_file,
    write_index_file,
)

NAMES = [f"{name}/{number}.png" for name in ("cat", "dog", "cow") for number in range(20)]
LABELS = [label for label in range(3) for _ in range(20)]


def test_the_draw_is_the_hash_order_written_another_way():
    for shots, seed in ((1, 1), (4, 2), (16, 5)):
        expected = []
        for label in range(3):
            ranked = sorted(
                (hashlib.sha256(f"shots:{seed}:{name}".encode()).hexdigest(), position)
                for position, (name, own) in enumerate(zip(NAMES, LABELS, strict=True))
                if own == label
            )
            expected += [position for _, position in ranked[:shots]]
        assert few_shot_indices(LABELS, shots, seed, NAMES) == expected


def test_a_draw_pinned_for_ever():
    assert few_shot_indices([0] * 10 + [1] * 10, 3, 1) == few_shot_indices(
        [0] * 10 + [1] * 10, 3, 1, [str(position) for position in range(20)]
    )
    assert [NAMES[i] for i in few_shot_indices(LABELS, 1, 1, NAMES)] == [
        "cat/8.png",
        "dog/10.png",
        "cow/1.png",
    ]


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    shots=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_properties(labels, shots, seed):
    names = [f"picture {position}" for position in range(len(labels))]
    drawn = few_shot_indices(labels, shots, seed, names)
    assert len(set(drawn)) == len(drawn)
    available = Counter(labels)
    assert Counter(labels[position] for position in drawn) == {
        label: min(shots, count) for label, count in available.items()
    }
    assert set(drawn) <= set(few_shot_indices(labels, shots + 1, seed, names))  # nested
    backwards = few_shot_indices(labels[::-1], shots, seed, names[::-1])
    assert [names[::-1][position] for position in backwards] == [names[i] for i in drawn]


def test_one_more_picture_changes_at_most_one_shot_of_its_class():
    before = {NAMES[i] for i in few_shot_indices(LABELS, 4, 1, NAMES)}
    names, labels = ["dog/new.png", *NAMES], [1, *LABELS]
    after = {names[i] for i in few_shot_indices(labels, 4, 1, names)}
    assert len(before - after) <= 1
    assert {name for name in before ^ after if not name.startswith("dog")} == set()


def test_seeds_and_purposes_give_other_orders():
    orders = {tuple(hash_order(NAMES, seed, purpose)) for seed in SEEDS for purpose in "ab"}
    assert len(orders) == 2 * len(SEEDS)


@pytest.mark.parametrize("shots", [0, -1, 1.5, True, "4"])
def test_bad_shots(shots):
    with pytest.raises(SerialLoRAError, match="whole number of at least 1"):
        few_shot_indices(LABELS, shots, 1, NAMES)


def test_bad_names():
    with pytest.raises(SerialLoRAError, match="'a' occurs twice"):
        few_shot_indices([0, 0], 1, 1, ["a", "a"])
    with pytest.raises(SerialLoRAError, match="1 picture names for 2 labels"):
        few_shot_indices([0, 0], 1, 1, ["a"])


# --- index files ---------------------------------------------------------------------------------


def make_data(folder, train_names=NAMES, train_labels=LABELS):
    test = PictureFiles(folder, ["cat/test.png", "dog/test.png", "cow/test.png"], [0, 1, 2])
    return ClassificationData(
        name="farm",
        scale="paper",
        class_names=["cat", "dog", "cow"],
        template="a {}.",
        train=PictureFiles(folder, train_names, train_labels),
        test=test,
        folder=folder,
    )


def test_the_file_and_the_rule_agree(tmp_path):
    data = make_data(tmp_path)
    computed = {(k, seed): few_shot_split(data, k, seed) for k in SHOTS for seed in SEEDS}
    path = write_index_file(index_path(data), data)
    assert path == tmp_path / "few_shot.json"
    for (shots, seed), split in computed.items():
        assert few_shot_split(data, shots, seed) == split
        assert split.indices == few_shot_indices(LABELS, shots, seed, NAMES)
    index = read_index_file(path)
    assert tuple(index.order) == SEEDS and index.shots == SHOTS
    assert index.test == data.test.picture_ids
    assert not index.covers(32, 1) and not index.covers(4, 99) and index.covers(3, 1)
    assert len(few_shot_split(data, 20, 99).indices) == 60  # beyond the file: computed


def test_the_file_does_not_depend_on_the_order_of_the_pictures(tmp_path):
    first = write_index_file(tmp_path / "a.json", make_data(tmp_path)).read_bytes()
    reordered = make_data(tmp_path, NAMES[::-1], LABELS[::-1])
    assert write_index_file(tmp_path / "b.json", reordered).read_bytes() == first
    assert write_index_file(tmp_path / "a.json", make_data(tmp_path)).read_bytes() == first


def test_a_class_with_too_few_pictures_gives_all_and_is_reported(tmp_path):
    data = make_data(tmp_path, NAMES[:43], LABELS[:43])  # three cows
    for _ in range(2):  # computed, then read from the file
        split = few_shot_split(data, 16, 1)
        assert split.short_classes == {"cow": 3}
        assert sorted(i for i in split.indices if LABELS[i] == 2) == [40, 41, 42]
        assert few_shot_split(data, 2, 1).short_classes == {}
        write_index_file(index_path(data), data)


def test_a_file_for_other_pictures_is_set_aside_with_a_warning(tmp_path):
    write_index_file(tmp_path / "few_shot.json", make_data(tmp_path), made_with={"font": "15.1"})
    fewer = make_data(tmp_path, NAMES[1:], LABELS[1:])
    message = "slightly other pictures .font 15.1.*few_shot_indices --scale paper --dataset farm"
    with pytest.warns(UserWarning, match=message):
        split = few_shot_split(fewer, 4, 1)
    assert split.indices == few_shot_indices(LABELS[1:], 4, 1, NAMES[1:])


def test_a_test_picture_among_the_shots_is_refused(tmp_path):
    path = write_index_file(tmp_path / "a.json", make_data(tmp_path))
    content = json.loads(path.read_text())
    content["test"].append(content["order"]["3"]["dog"][2])
    path.write_text(json.dumps(content))
    with pytest.raises(SerialLoRAError, match="class 'dog', seed 3, is in the test set too"):
        read_index_file(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "another"}'])
def test_files_that_are_no_index_files(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(SerialLoRAError, match="few-shot index file"):
        read_index_file(tmp_path / "a.json")
    with pytest.raises(SerialLoRAError, match="there is no few-shot index file"):
        read_index_file(tmp_path / "none.json")
