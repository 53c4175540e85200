"""What is told of records: a line for each run, the table, the paper beside it, in narrow terminals."""

from dataclasses import replace

import pytest
from rich.console import Console

from serial_lora_course.labs.frames import frame, swept
from serial_lora_course.labs.records import Record, shipped_records
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.labs.report import results_table, run_line
from serial_lora_course.paper_tables import paper_results

CLIP = Record(
    task="clip",
    scale="tiny",
    dataset="food",
    method="lora_plus",
    amount=4,
    unit="shots",
    seed=1,
    rank=16,
    measures={"accuracy": 0.5, "zero_shot_dataset": 0.25, "zero_shot_generic": 0.2},
    sizes={"parameters": 4096, "bytes": 16384},
    seconds=1.0,
    settings={"rank": 16, "lr": 3e-3, "plus_lr": 4e-4, "prompt": "dataset", "data": "ab"},
)
SAM = replace(
    CLIP,
    task="sam",
    scale="paper",
    dataset="strawberry",
    amount=100,
    unit="percent",
    rank=64,
    measures={
        "dice": 0.9,
        "dice_ce": 0.2346,
        "iou": 0.8766,
        "base_dice": 0.7777,
        "box_dice": 0.6543,
    },
    sizes={"parameters": 4718592, "bytes": 18874368, "activation_bytes": 7_000_000},
)
SD3 = replace(
    SAM,
    task="sd3",
    scale="tiny",
    dataset="line",
    method="serial_lora",
    amount=50,
    rank=16,
    measures={
        "fid": 98.76,
        "kid": 0.02,
        "clip_score": 0.81,
        "style_share": 0.625,
        "base_fid": 201.5,
        "base_clip_score": 0.84,
        "base_style_share": 0.0,
        "real_fid": 12.3,
    },
    sizes={"parameters": 30720, "activation_bytes": 5_000_000},
)


def with_settings(**changes) -> Record:
    return replace(CLIP, settings=CLIP.settings | changes)


def shown(records, width=180) -> str:
    """The table; not a number of it is cut off."""
    console = Console(width=width)
    with console.capture() as printed:
        report = get_lab(records[0].task).report
        console.print(results_table(report, records, paper_results()))
    text = printed.get()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    return text


def line(record, is_new=True) -> str:
    return run_line(get_lab(record.task).report, record, is_new)


# --- lines ---------------------------------------------------------------------------------------


def test_a_run_is_one_line_with_what_it_reached():
    for part in ("line, 50%, seed 1", "Serial LoRA", "FID 98.76", "201.5", "0.810", "0.840"):
        assert part in line(SD3)
    assert "already in the records" in line(SD3, is_new=False)
    assert "LoRA+ (rank 16, ratio 5): 50.0%" in line(with_settings(ratio=5.0))
    assert "food, 4 shots, seed 1, LoRA (rank 8): 50.0%" in line(
        replace(CLIP, method="lora", rank=8)
    )
    short = replace(CLIP, sizes={"short_classes": 2})
    assert "2 of the classes have fewer pictures" in line(short)


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_is_cut_in_a_narrow_terminal(width):
    clip = replace(CLIP, scale="paper", dataset="oxford_pets", amount=16, seconds=123.4)
    clip = replace(clip, settings=clip.settings | {"prompt": "generic"})
    clip = replace(clip, sizes={"parameters": 3932160, "bytes": 15728640})
    runs = [
        replace(each, method=method, seed=seed, measures=each.measures | {name: 0.9 + seed / 100})
        for each, name, methods in (
            (clip, "accuracy", ("serial_lora_plus", "lora_equal_budget")),
            (replace(SAM, seconds=123.4), "dice", ("serial_lora_plus", "lora")),
        )
        for method in methods
        for seed in (1, 2, 3)
    ]
    text = shown(runs[:6], width)
    for number in ("3,932,160", "15,728,640", "20.0%", "92.0%", "123"):
        assert text.count(number) == 2, text
    assert "89.07%" in text  # what the paper's Table III prints for Serial LoRA+ on Pets, 16 shots
    text = shown(runs[6:], width)
    for number in ("4,718,592", "0.920", "0.080", "0.235", "0.877", "123"):
        assert text.count(number) == 2, (number, text)
    for number in ("0.654", "0.346", "0.778", "0.222"):  # the box and the base, each told once
        assert text.count(number) == 1, (number, text)
    assert "0.1140" in text  # what the paper's Table IV prints for LoRA on strawberries, all data


def test_the_table_has_what_costs_no_training_and_the_spread():
    table = shown([SD3, replace(SD3, seed=2, measures=SD3.measures | {"fid": 90.76})])
    for part in ("real pictures", "not adapted", "12.3", "201.5", "94.76 ± 4", "62%", "30,720"):
        assert part in table
    assert "paper" not in table
    closing = get_lab("sd3").report.closing([SD3, replace(SD3, method="lora")])
    assert "Serial LoRA 5 MB, LoRA 5 MB" in closing
    assert not get_lab("clip").report.closing([CLIP])


def test_the_table_has_a_row_for_each_rank_and_ratio_of_a_sweep():
    records = [
        replace(with_settings(ratio=ratio, rank=rank), rank=rank, seed=seed)
        for ratio in (1.0, 5.0)
        for rank in (4, 64)
        for seed in (1, 2)
    ]
    table = shown(records).splitlines()
    rows = [row.split() for row in table if row.strip().startswith("food")]
    assert [row[3:5] for row in rows] == [["4", "1"], ["64", "1"], ["4", "5"], ["64", "5"]]
    (heading,) = (row for row in table if "data set" in row)
    assert "rank" in heading and "ratio" in heading and "rate of A" not in heading
    plain = shown([CLIP, replace(CLIP, method="lora")])
    assert not any(word in plain for word in ("rank", "ratio", "rate of A"))


# --- what was swept ------------------------------------------------------------------------------


def test_what_differs_between_a_methods_runs_is_swept():
    usual = [CLIP, replace(CLIP, method="lora", seed=2)]
    usual.append(replace(CLIP, method="lora_equal_budget", rank=4))
    assert swept(usual) == []
    assert swept([*usual, with_settings(ratio=5.0)]) == ["ratio"]
    assert swept([*usual, with_settings(plus_lr=1e-3)]) == ["lr"]
    other = replace(with_settings(rank=32), rank=32, method="lora")
    assert swept([*usual, other]) == ["lab_rank"]


def test_a_frame_tells_rank_ratio_and_rate_of_old_records_too():
    table = frame(shipped_records("clip")).set_index("method")
    assert set(table["lab_rank"]) == {16}
    assert set(table.loc["lora_equal_budget", "rank"]) == {4}
    for name, ratio, lr in (("lora", 1, 3e-3), ("serial_lora_plus", 20, 4e-4)):
        assert set(table.loc[name, "ratio"]) == {ratio} and set(table.loc[name, "lr"]) == {lr}
    sam = frame(shipped_records("sam"))
    assert set(sam["ratio"]) == {1, 20} and sam["lr"].notna().all()
