"""Settings, sweeps of them, methods; and the keys that shipped records have to this day."""

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.config import SWEPT, several, swept_configs
from serial_lora_course.labs.methods import METHODS, with_ratios
from serial_lora_course.labs.records import run_key, shipped_records
from serial_lora_course.labs.registry import LABS, get_lab


def test_a_name_is_one_value_and_no_list_of_letters():
    assert several("food") == ["food"]
    assert several(("food", "nature", "food")) == ["food", "nature"]


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


def test_blocks_are_in_the_settings_only_where_some_are_chosen():
    """So that runs which adapt them all have the keys they had before there was a choice."""
    configs = get_lab("clip").configs
    (some,) = swept_configs(configs, "tiny", blocks=(2, 3))
    assert "blocks" not in configs["tiny"].as_settings()
    assert some.as_settings()["blocks"] == [2, 3]
    with pytest.raises(SerialLoRAError, match="blocks"):
        swept_configs(configs, "tiny", blocks=(-1,))


def test_methods_are_the_papers_four_and_one_at_equal_budget():
    names = ["lora", "serial_lora", "lora_plus", "serial_lora_plus", "lora_equal_budget"]
    assert list(METHODS) == names
    assert [METHODS[name].ratio for name in names] == [1, 1, 20, 20, 1]
    assert METHODS["lora_equal_budget"].rank(32) == 8


def test_methods_come_once_for_each_ratio_in_order():
    methods = [METHODS[name] for name in ("lora", "lora_plus", "serial_lora_plus")]
    found = [(m.name, m.ratio) for m in with_ratios(methods, [1, 20.0, 1])]
    assert found == [
        ("lora", 1),
        ("lora_plus", 1),
        ("lora_plus", 20),
        ("serial_lora_plus", 1),
        ("serial_lora_plus", 20),
    ]
    for ratio in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SerialLoRAError, match="ratio"):
            with_ratios(methods, [ratio])


def test_a_method_at_its_usual_ratio_has_the_key_it_always_had():
    for name, method in METHODS.items():
        usual = method.with_ratio(20 if name.endswith("plus") else 5)
        assert usual == method and usual.settings == {}
    assert METHODS["lora_plus"].with_ratio(5).settings == {"ratio": 5.0}


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
    kind = get_lab(name)
    config = kind.configured("tiny")
    data, backbone = (
        kind.load_data(dataset, "tiny", None),
        kind.load_backbone(config, "tiny", "default"),
    )
    contents = kind(backbone, data, config, **kind.load_tools("tiny")).contents
    some = [r for r in shipped_records(name) if r.dataset == dataset]
    assert some and all(contents.items() <= record.settings.items() for record in some)
