"""Settings, sweeps of them, methods; and the keys that shipped records have to this day."""

import json
from dataclasses import replace

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.lab_command import options_of
from serial_lora_course.labs.config import SWEPT, swept_configs
from serial_lora_course.labs.frames import swept
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import run_key, shipped_records
from serial_lora_course.labs.registry import LABS, get_lab
from serial_lora_course.models.weights import weights_fingerprint
from tests.guard.test_shipped import HERE
from tests.labs.test_records import RECORD


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


@pytest.mark.parametrize("name", LABS)
def test_the_rate_is_constant_at_the_papers_scale_a_cosine_at_the_tiny_one(name):
    configs = get_lab(name).configs
    assert {scale: c.schedule for scale, c in configs.items()} == {
        "tiny": "cosine",
        "paper": "constant",
    }
    assert "--schedule" in {option.flag for option in options_of(get_lab(name))}
    assert configs["paper"].training(10).schedule == "constant"
    with pytest.raises(SerialLoRAError, match="schedule"):
        replace(configs["tiny"], schedule="linear")


def test_what_differs_between_a_methods_runs_is_swept():
    plus = replace(RECORD, method="lora_plus", settings={"rank": 16, "plus_lr": 4e-4})
    usual = [plus, replace(plus, method="lora", seed=2)]
    usual.append(replace(plus, method="lora_equal_budget", rank=4))
    assert swept(usual) == []
    for change, column in (({"ratio": 5.0}, "ratio"), ({"plus_lr": 1e-3}, "lr")):
        assert swept([*usual, replace(plus, settings=plus.settings | change)]) == [column]
    other = replace(plus, rank=32, method="lora", settings=plus.settings | {"rank": 32})
    assert swept([*usual, other]) == ["lab_rank"]


CONTENTS = ("model_name", "data", "weights", "shift", "text_tokens", "precision")
RATES = ("lr", "plus_lr")  # which a record's command may give
PINNED = json.loads((HERE / "shipped.json").read_text())["pictures"]
TASKS = {"clip": "classification", "sam": "segmentation", "sd3": "style"}


@pytest.mark.parametrize("name", LABS)
def test_shipped_records_are_of_what_is_shipped_and_of_todays_keys(name):
    """Pictures have their fingerprints in tests/guard: one pixel more would be other data."""
    kind = get_lab(name)
    config = kind.configured("tiny")
    data = kind.load_data(next(iter(kind.datasets("tiny"))), "tiny")
    backbone = kind.load_backbone(config, "tiny", "default")
    lab = kind(backbone, data, config, **kind.load_tools("tiny"))
    weights = weights_fingerprint(lab.networks())
    for found in shipped_records(name):
        assert found.settings["weights"] == weights
        assert found.settings["model_name"] == backbone.name
        assert PINNED[f"{TASKS[name]} {found.dataset}"][:16] == found.settings["data"]
        method = METHODS[found.method]
        own = {k: found.settings[k] for k in CONTENTS if k in found.settings}
        asked = found.command.split()
        for rate in RATES:
            if (option := f"--{rate.replace('_', '-')}") in asked:
                own[rate] = float(asked[asked.index(option) + 1])
        run = (name, "tiny", found.dataset, found.method, found.amount, found.seed)
        today = config.as_settings() | own | method.settings
        assert run_key(*run, method.rank(config.rank), today) == found.key
