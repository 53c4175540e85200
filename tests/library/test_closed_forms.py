"""The formulas, the counter-examples and the paper's tables; no model is built here."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serial_lora import counting
from serial_lora.counting import lora_count, pair_count, serial_lora_count
from serial_lora.errors import SerialLoRAError
from serial_lora_course.claims import paper as tables
from serial_lora_course.claims.paper import (
    audit,
    audit_frame,
    inconsistencies,
    inconsistency_frame,
    paper,
    paper_results,
    paper_settings,
    paper_table,
    readings_frame,
)
from serial_lora_course.models import architectures
from serial_lora_course.models.architectures import ARCHITECTURES, BASELINES, Tower, ratio_frame

PAPER_COUNTS = {
    "clip": (3_932_160, 983_040),
    "sam": (4_718_592, 1_179_648),
    "sd3": (18_874_368, 4_718_592),
}

sizes = st.tuples(st.integers(1, 4096), st.integers(1, 64)).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(1, pair[0]))
)


@given(sizes)
def test_formulas_equal_matrices_counted_one_by_one(size):
    width, depth, rank = size
    serial = lora = 0
    for _ in range(depth):
        shapes = [(rank, width), (width, rank)]
        serial += sum(math.prod(shape) for shape in shapes)
        for _projection in ("q", "k", "v", "out"):
            lora += sum(math.prod(shape) for shape in shapes)
    assert serial_lora_count(width, depth, rank) == serial
    assert lora_count(width, depth, rank) == lora
    assert lora == 4 * serial


@pytest.mark.parametrize(("key", "counts"), PAPER_COUNTS.items())
def test_the_papers_models(key, counts):
    item = ARCHITECTURES[key]
    assert (item.lora(), item.serial_lora()) == counts
    assert item.lora(rank=1) * item.rank == item.lora()


def test_towers_of_different_widths_add_up():
    towers = Tower("image", 768, 12), Tower("text", 512, 12)
    assert sum(tower.serial_lora(32) for tower in towers) == 2 * 32 * 12 * (768 + 512)


@pytest.mark.parametrize(
    ("baseline", "ratio"), list(zip(BASELINES, (4, 3, 2, 2, 3, 3.25, 3), strict=True))
)
def test_the_ratio_depends_on_where_lora_sits(baseline, ratio):
    assert baseline.ratio(width=768, rank=32) == ratio


def test_only_the_papers_placement_at_equal_rank_gives_four():
    frame = ratio_frame(width=768, rank=32)
    assert list(frame["ratio"] == 4) == [True] + [False] * (len(frame) - 1)
    assert frame["ratio"].iloc[-1] == 1  # a quarter of the rank is an equal budget


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "8", None])
def test_a_number_that_is_no_size_is_refused(bad):
    for call in (
        lambda: serial_lora_count(bad, 2, 2),
        lambda: serial_lora_count(8, bad, 2),
        lambda: lora_count(8, 2, bad),
    ):
        with pytest.raises(SerialLoRAError, match="at least 1"):
            call()


def test_a_rank_above_the_smaller_side_is_refused():
    with pytest.raises(SerialLoRAError, match="smaller rank"):
        serial_lora_count(width=64, depth=1, rank=65)
    with pytest.raises(SerialLoRAError, match="smaller rank"):
        pair_count(64, 16, 17)
    assert pair_count(64, 16, 16) == 16 * 80


def test_an_unknown_architecture_lists_the_known_ones():
    with pytest.raises(SerialLoRAError, match="clip, sam, sd3"):
        architectures.architecture("clap")
    assert architectures.architecture("sam") is ARCHITECTURES["sam"]


# ------------------------------------------------------------------ the audit


def test_every_printed_figure_has_the_expected_verdict():
    kinds = {(row.model, row.unit): set() for row in audit()}
    for row in audit():
        kinds[row.model, row.unit].add(row.kind)
    assert kinds == {
        ("clip", "M"): {"unit"},
        ("sam", "M"): {"unit"},
        ("sam", "MB"): {"right"},
        ("sd3", "M"): {"unexplained"},
    }


def test_the_audit_is_arithmetic_done_again():
    rows = {(row.model, row.method, row.unit): row for row in audit()}
    for (model, method, _), row in rows.items():
        assert row.exact == PAPER_COUNTS[model][method == "serial_lora"]
    clip = rows["clip", "lora", "M"]
    assert clip.exact == 3.84 * 1024 * 1000
    assert clip.matches == ("units of 1024 x 1000 parameters",)
    assert rows["clip", "serial_lora", "M"].exact == 0.96 * 1024 * 1000
    sam = rows["sam", "lora", "M"]
    assert sam.matches == ("float32 bytes in MB",)
    assert f"{4 * sam.exact / 1e6:.2f}" == "18.87"
    assert f"{ARCHITECTURES['sd3'].lora():,}" in sam.verdict  # the same digits elsewhere
    sd3 = rows["sd3", "lora", "M"]
    assert sd3.matches == ()
    assert "+2.4%" in sd3.verdict
    # The unexplained figures fit one formula, for both methods at once.
    assert round((2 * 64 + 3) * 1536 * 24 * 4 / 1e6, 2) == sd3.printed
    assert round((2 * 64 + 3) * 1536 * 24 / 1e6, 2) == rows["sd3", "serial_lora", "M"].printed
    assert f"{(2 * 64 + 3) * 1536 * 24 * 4:,}" in sd3.verdict


def test_a_right_figure_would_be_called_right(monkeypatch):
    """The verdicts follow the data, so changed data change them."""
    row = {"model": "clip", "method": "lora", "printed": 3.93, "unit": "M", "where": "a test"}
    monkeypatch.setattr(counting, "_asset", lambda name: {"parameters": [row]})
    (judged,) = audit()
    assert judged.kind == "right" and "3,932,160" in judged.verdict


def test_the_audit_tables_show_every_row():
    assert len(audit_frame()) == len(audit()) == 8
    assert set(readings_frame().columns) >= set(tables.READINGS)
    assert not audit_frame().isna().any().any()


# ------------------------------------------------------------------ the paper's tables


def test_the_papers_tables_are_complete():
    results = paper_results()
    sizes = results.groupby("where").size().to_dict()
    assert sizes == {"Table II": 3 * 4 * 4 * 2, "Table III": 3 * 4 * 4, "Table IV": 3 * 4 * 5}
    assert not results.duplicated(["where", "dataset", "method", "amount", "metric"]).any()
    assert set(results["better"]) == {"higher", "lower"}
    assert results["value"].gt(0).all()


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


def test_rows_come_in_the_papers_order():
    methods = ["LoRA", "Serial LoRA", "LoRA+", "Serial LoRA+"]
    table = paper_table("Table III")
    assert list(table.index) == [(a, m) for a in ("1 shot", "4 shot", "16 shot") for m in methods]


def test_an_unknown_table_lists_the_known_ones():
    with pytest.raises(SerialLoRAError, match="Table II, Table III, Table IV"):
        paper_table("Table V")


def test_settings_and_citation():
    settings = paper_settings().set_index("model")
    assert settings["rank"].to_dict() == {key: ARCHITECTURES[key].rank for key in PAPER_COUNTS}
    assert settings.loc["clip", "lr"] == 2e-4
    assert len(paper()["authors"]) == 10


def test_inconsistencies_are_sentences_with_their_numbers_filled_in():
    entries = inconsistencies()
    assert len({entry["key"] for entry in entries}) == len(entries) >= 18
    for entry in entries:
        assert set(entry) == {"key", "kind", "where", "says", "finding"}
        assert "{" not in entry["says"] + entry["finding"]
        assert entry["finding"].endswith(".")
    assert len(inconsistency_frame()) == len(entries)


def test_computed_facts_against_a_second_reading_of_the_tables():
    clip, dice = paper_table("Table III"), paper_table("Table IV")
    facts = tables.paper_facts()
    worse = clip.xs("LoRA+", level="method") < clip.xs("LoRA", level="method")
    assert facts["lora_plus_below"] == worse.to_numpy().sum() == 9
    best = dice.loc["20%"].idxmin()
    assert facts["serial_plus_best_20"] == (best == "Serial LoRA+").sum() == 1
    assert facts["tabulated_datasets"] == 13
    text = {entry["key"]: entry["finding"] for entry in inconsistencies()}
    assert "84.08, 79.44, 77.98" in text["lora-plus-clip"]
    assert "18,874,368 bytes" in text["sam-unit"]
