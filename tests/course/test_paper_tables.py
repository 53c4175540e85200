"""The paper's tables as data."""

import json
from dataclasses import asdict
from importlib import import_module, resources

import pytest

from serial_lora_course.labs.methods import LORA_PLUS_RATIO
from serial_lora_course.paper_tables import paper_results
from tests.models.architectures import ARCHITECTURES


@pytest.mark.parametrize(
    ("where", "amount", "method", "dataset", "metric", "value"),
    [
        ("Table II", "50%", "serial_lora_plus", "art_nouveau", "clip_score", 0.6884),
        ("Table II", "100%", "lora", "impressionism", "fid", 73.50),
        ("Table III", "1 shot", "lora_plus", "eurosat", "accuracy_percent", 59.45),
        ("Table III", "16 shot", "serial_lora", "food101", "accuracy_percent", 86.98),
        ("Table IV", "20%", "lora_plus", "strawberry", "dice_as_printed", 0.4512),
        ("Table IV", "100%", "serial_lora", "human", "dice_as_printed", 0.0439),
    ],
)
def test_cells_read_off_the_paper(where, amount, method, dataset, metric, value):
    names = ["where", "amount", "method", "dataset", "metric"]
    cells = paper_results().set_index(names)["value"]
    assert cells[where, amount, method, dataset, metric] == value


@pytest.mark.parametrize("model", ["clip", "sam", "sd3"])
def test_labs_run_with_the_papers_settings(model):
    asset = resources.files("serial_lora_course") / "assets" / "paper_tables.json"
    stated = {row["model"]: row for row in json.loads(asset.read_text("utf-8"))["settings"]}[model]
    ours = asdict(import_module(f"serial_lora_course.labs.{model}").PAPER)
    ours |= {"lora_plus_ratio": LORA_PLUS_RATIO}
    same = ("rank", "lr", "epochs", "dropout", "guidance", "lora_plus_ratio")
    assert {name: ours[name] for name in same if name in stated} == {
        name: stated[name] for name in same if name in stated
    }
    assert ARCHITECTURES[model].rank == stated["rank"]


def test_lesson_02_says_right_what_the_papers_units_are():
    asset = resources.files("serial_lora_course") / "assets" / "paper_tables.json"
    for row in json.loads(asset.read_text("utf-8"))["parameters"]:
        item = ARCHITECTURES[row["model"]]
        count = {"lora": item.lora, "serial_lora": item.serial_lora}[row["method"]]()
        if row["model"] == "sam":  # megabytes of float32, whatever is written
            assert round(4 * count / 1e6, 2) == row["printed"]
        elif row["model"] == "clip":
            assert row["printed"] * 1024 * 1000 == count
