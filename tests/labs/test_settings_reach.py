"""Every setting of a lab changes what a run does.

A setting that is lost on its way (a jitter that is always 0, a weighting that nobody asks for) leaves all
shapes and errors as they are, and the runs go on.
"""

import pytest
import torch

from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.measures.flow import shift_sigmas
from tests.labs.small_labs import small_lab

SHARED = {
    "rank": 2,
    "lr": 0.05,
    "scale_factor": 0.3,
    "dropout": 0.5,
    "batch_size": 3,
    "weight_decay": 0.9,
}
CHANGES = {
    "clip": SHARED | {"prompt": "generic", "towers": ("image",)},
    "sam": SHARED | {"jitter": 0.2, "blocks": (0,), "places": ("attention", "feed_forward")},
    "sd3": SHARED
    | {
        "weighting": "sigma_squared",
        "text_dropout": 0.9,
        "stream": "text",
        "clip_norm": 1e-9,  # below Adam's epsilon, so that it is seen
        "schedule": "constant",
    },
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_changes_the_run(name, monkeypatch, tmp_path):
    small = small_lab(name, monkeypatch, tmp_path)
    usual = {"min_steps": 4, "lr": 0.02, "dropout": 0.0}

    def loss(**changes) -> float:
        lab = small.lab(**usual | changes)
        torch.manual_seed(5)
        lab.base = {}  # which nobody asks for
        return run_one(lab, METHODS["serial_lora"], small.amounts[1], 1).measures["loss"]

    before = loss()
    assert loss() == before
    same = [
        setting for setting, value in CHANGES[name].items() if loss(**{setting: value}) == before
    ]
    assert same == []


def test_noise_levels_of_training_are_shifted_as_the_scheduler_says(monkeypatch, tmp_path):
    lab = small_lab("sd3", monkeypatch, tmp_path).lab()
    indices = lab.indices(lab.data, 100, 1)
    plain = lab.stream(indices, 1)[0].sigma
    lab.backbone.pipeline.scheduler.register_to_config(shift=3.0)
    assert lab.stream(indices, 1)[0].sigma == pytest.approx(shift_sigmas(plain, 3.0))
