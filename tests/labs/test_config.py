"""Settings, sweeps of them, methods; and the keys that shipped records have to this day."""

import pytest

from serial_lora_course.labs.config import SWEPT, swept_configs
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import run_key, shipped_records
from serial_lora_course.labs.registry import LABS, get_lab
from tests.guard.test_shipped import needs_pinned_scenes


@pytest.mark.parametrize("name", LABS)
def test_configs_are_the_product_of_what_is_swept(name):
    configs = get_lab(name).configs
    both = swept_configs(configs, "tiny", rank=[4, 8], plus_lr=(1e-3, 1e-2), epochs=3)
    assert [(c.rank, c.plus_lr) for c in both] == [(4, 1e-3), (4, 1e-2), (8, 1e-3), (8, 1e-2)]
    assert {c.epochs for c in both} == {3}
    rates = swept_configs(configs, "paper", lr=[1.5e-5, 4e-4])
    assert [c.lr for c in rates] == [1.5e-5, 4e-4]
    assert swept_configs(configs, "tiny", **dict.fromkeys(SWEPT)) == [configs["tiny"]]
    for field in vars(configs["paper"]):
        assert configs["paper"].of(field, "help")


CONTENTS = ("model_name", "data", "weights", "shift", "text_tokens", "precision")


@pytest.mark.parametrize("name", LABS)
def test_shipped_records_are_recognised(name):
    """The keys that their commands would give today, against the keys of the files."""
    config = get_lab(name).configured("tiny")
    for found in shipped_records(name):
        method = METHODS[found.method]
        own = {k: found.settings[k] for k in CONTENTS if k in found.settings}
        run = (name, "tiny", found.dataset, found.method, found.amount, found.seed)
        today = config.as_settings() | own | method.settings
        assert run_key(*run, method.rank(config.rank), today) == found.key


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("clip", "food"), *(("sam", name) for name in ("people", "weather", "lines"))]
    + [("sd3", name) for name in ("line", "night", "pixel")],
)
def test_shipped_records_name_the_shipped_weights_and_pictures(name, dataset):
    """So a picture that is drawn otherwise, by one pixel, is other data than the records'."""
    if name == "sam":
        needs_pinned_scenes()
    kind = get_lab(name)
    config = kind.configured("tiny")
    data, backbone = (
        kind.load_data(dataset, "tiny", None),
        kind.load_backbone(config, "tiny", "default"),
    )
    contents = kind(backbone, data, config, **kind.load_tools("tiny")).contents
    some = [r for r in shipped_records(name) if r.dataset == dataset]
    assert some and all(contents.items() <= record.settings.items() for record in some)
