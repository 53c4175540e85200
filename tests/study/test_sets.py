"""The study's sets: parts that share nothing, and pictures that are what they were when the runs were made."""

from pathlib import Path

import pytest

from serial_lora_course.data.emoji import emoji_concepts
from serial_lora_course.data.emoji_sets import hidden_codepoints
from study.labs import STUDIES
from study.plan import PLANS
from study.results import Results
from study.sets import CLIP_SETS, VALIDATION, load_set
from tests.guard.test_shipped import needs_pinned_scenes


@pytest.mark.parametrize("name", CLIP_SETS)
def test_a_classification_set_has_three_parts_and_no_drawing_in_two(name):
    data, choosing = load_set("clip", name), load_set("clip", name + VALIDATION)
    parts = [data.train.picture_ids, choosing.test.picture_ids, data.test.picture_ids]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert choosing.train.picture_ids == parts[0] and choosing.name != data.name
    assert {*data.train.labels} == {*data.test.labels} == set(range(len(data.class_names)))
    assert min(data.train.labels.count(label) for label in set(data.train.labels)) >= 4
    assert len(parts[2]) > len(parts[0]) + len(parts[1])


@pytest.mark.parametrize("name", ["food", "engraved"])
def test_a_segmentation_set_shows_other_drawings_in_each_part(name):
    data, choosing = load_set("sam", name), load_set("sam", name + VALIDATION)
    parts = [data.train, choosing.test, data.test]
    shown = [set(part.names) for part in parts]
    assert sum(map(len, shown)) == len(set().union(*shown))
    hidden = {c.name for c in emoji_concepts() if c.codepoints in hidden_codepoints()}
    assert shown[2] <= hidden and not (shown[0] | shown[1]) & hidden
    assert [len(part) for part in parts] == [120, 40, 100]


@pytest.mark.parametrize(
    ("lab", "name"), [("clip", "food-unifont"), ("sam", "engraved"), ("sd3", "pixel")]
)
def test_pictures_are_those_that_the_records_are_of(lab, name):
    if lab == "sam":
        needs_pinned_scenes()
    data = STUDIES[lab].load_data(name)
    records = Results(PLANS[lab], Path("nowhere")).records.values()
    assert {r.settings["data"] for r in records if r.dataset == name} == {
        data.picture_fingerprint()[:16]
    }
