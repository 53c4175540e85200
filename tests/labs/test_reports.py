"""What records tell of a sweep."""

from dataclasses import replace

from serial_lora_course.labs.frames import frame, swept
from serial_lora_course.labs.records import Record, shipped_records

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


def with_settings(**changes) -> Record:
    return replace(CLIP, settings=CLIP.settings | changes)


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
