"""The paper's tables as data, and the audit: arithmetic done again, from a second reading."""

import json
from dataclasses import asdict
from importlib import import_module, resources

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.methods import LORA_PLUS_RATIO
from serial_lora_course.lessons.l02_count.tables import audit
from serial_lora_course.models.architectures import ARCHITECTURES
from serial_lora_course.paper_tables import paper_table

EXACT = {
    "clip": {"lora": 3_932_160, "serial_lora": 983_040},
    "sam": {"lora": 4_718_592, "serial_lora": 1_179_648},
    "sd3": {"lora": 18_874_368, "serial_lora": 4_718_592},
}

# --------------------------------------------------------------------------- the tables


@pytest.mark.parametrize(
    ("where", "row", "column", "value"),
    [
        ("Table II", ("50%", "Serial LoRA+"), ("art_nouveau", "clip_score"), 0.6884),
        ("Table II", ("100%", "LoRA"), ("impressionism", "fid"), 73.50),
        ("Table III", ("1 shot", "LoRA+"), "eurosat", 59.45),
        ("Table III", ("16 shot", "Serial LoRA"), "food101", 86.98),
        ("Table IV", ("20%", "LoRA+"), "strawberry", 0.4512),
        ("Table IV", ("100%", "Serial LoRA"), "human", 0.0439),
    ],
)
def test_cells_read_off_the_paper(where, row, column, value):
    assert paper_table(where).loc[row, column] == value
    with pytest.raises(SerialLoRAError, match="Table II, Table III, Table IV"):
        paper_table("Table V")


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


# --------------------------------------------------------------------------- the audit


def test_the_printed_counts_are_read_as_by_hand():
    rows = {(row.model, row.method, row.unit): row for row in audit()}
    for (model, method, _), row in rows.items():
        assert row.exact == EXACT[model][method]
    for method, millions in (("lora", 3.84), ("serial_lora", 0.96)):
        clip = rows["clip", method, "M"]
        assert clip.exact == millions * 1024 * 1000
        assert (clip.kind, clip.matches) == (
            "right in another unit",
            ("units of 1024 x 1000 parameters",),
        )
        sam = rows["sam", method, "M"]
        assert (sam.kind, sam.matches) == ("right in another unit", ("float32 bytes in MB",))
        assert f"{4 * sam.exact / 1e6:.2f}" == f"{sam.printed}"
        assert rows["sam", method, "MB"].kind == "right"
        sd3 = rows["sd3", method, "M"]
        assert (sd3.kind, sd3.matches) == ("not explained", ())
        # The unexplained figures fit one formula, for both methods at once.
        fit = (2 * 64 + 3) * 1536 * 24 * (4 if method == "lora" else 1)
        assert round(fit / 1e6, 2) == sd3.printed
        assert sd3.printed / (sd3.exact / 1e6) == pytest.approx(1.024, abs=5e-4)
