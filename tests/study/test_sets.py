"""The study's pictures are what they were when its runs were made, and so are the parts that they lie in."""

from pathlib import Path

import pytest

from study.labs import STUDIES
from study.plan import PLANS
from study.results import Results
from tests.guard.test_shipped import needs_pinned_scenes


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
