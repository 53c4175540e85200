"""What ships of the SAM lab: weights and reference records, and that they belong together."""

import pytest

from serial_lora_course.data.registry import dataset_names, load_segmentation
from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.labs.sam import SamLab
from serial_lora_course.models.sam import load_sam

SETS, PERCENTS, SEEDS = dataset_names("segmentation"), (20, 50, 100), (1, 2, 3)


@pytest.fixture(scope="module")
def records():
    return shipped_records("sam")


@pytest.fixture(scope="module")
def results(records):
    return frame(records)


def test_every_combination_was_run_once(records):
    found = sorted((r.dataset, r.amount, r.method, r.seed) for r in records)
    wanted = sorted((d, p, m, s) for d in SETS for p in PERCENTS for m in METHODS for s in SEEDS)
    assert found == wanted


@pytest.mark.parametrize("name", ["food", "lines"])
def test_the_shipped_weights_reach_what_the_records_call_not_adapted(records, name):
    measured = SamLab(load_sam("tiny"), load_segmentation(name)).measure_base()
    told = next(record.measures for record in records if record.dataset == name)
    for measure, value in measured.items():
        assert value == pytest.approx(told[measure], abs=2e-3), measure


def test_serial_lora_improves_on_the_unadapted_model_on_every_set(results):
    serial = results[results["method"] == "serial_lora"]
    means = serial.groupby(["dataset", "amount"])[["dice", "base_dice", "box_dice"]].mean()
    assert (means["dice"] > means["base_dice"]).all()
    assert (means["dice"] > means["box_dice"]).all(), "adapted, it also beats filling the box"
