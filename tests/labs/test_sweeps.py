"""Sweeps of rank, ratio and rate: what runs, what records say of it, what the tables show."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from rich.console import Console

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs import clip as lab
from serial_lora_course.labs.frames import describe_records, frame, swept
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import Record, read_records, run_key, shipped_records
from serial_lora_course.labs.report import results_table, run_line
from serial_lora_course.labs.runs import chosen_methods, several, swept_configs
from tests.labs.lab_models import register_small, weights_file
from tests.labs.test_clip_lab import Coloured

QUICK = {"min_steps": 2, "epochs": 1, "batch_size": 4}


@pytest.fixture(scope="module")
def small_lab(tmp_path_factory):
    """Options of `run_lab` for a small random model on three plain colours."""
    folder = tmp_path_factory.mktemp("sweeps")
    name = register_small(folder / "configs", "small-sweep-clip")
    pictures = Coloured([4, 4, 4], "own")
    for index, label in enumerate(pictures.labels):
        place = folder / "colours" / ("red", "green", "blue")[label]
        place.mkdir(parents=True, exist_ok=True)
        pictures[index][0].save(place / f"{index}.png")
    options = dict(datasets=[str(folder / "colours")], shots=[1], seeds=[1], model_name=name)
    return options | QUICK | {"weights": weights_file(folder / "weights.safetensors", name)}


def record(**changes) -> Record:
    fixed = dict(
        task="clip",
        scale="tiny",
        dataset="food",
        method="lora_plus",
        amount=4,
        unit="shots",
        seed=1,
        rank=16,
        measures={"accuracy": 0.5, "zero_shot_dataset": 0.25},
        seconds=1.0,
        sizes={"parameters": 4096, "bytes": 16384},
        settings={"rank": 16, "lr": 3e-3, "plus_lr": 4e-4, "prompt": "dataset", "data": "ab"},
    )
    return Record(**(fixed | changes))


def with_settings(**changes) -> Record:
    return record(settings=record().settings | changes)


# --- what runs -----------------------------------------------------------------------------------


def test_every_rank_ratio_and_rate_is_run_and_told_apart(small_lab, tmp_path):
    out = tmp_path / "records.jsonl"
    options = small_lab | dict(
        methods=["lora", "serial_lora_plus"], rank=[4, 8], ratio=[1, 5, 20], plus_lr=[1e-3, 1e-2]
    )
    records = lab.run_lab(out=out, **options)
    table = frame(records)
    plus = table[table["method"] == "serial_lora_plus"]
    assert set(zip(plus["rank"], plus["ratio"], plus["lr"], strict=True)) == {
        (rank, ratio, lr) for rank in (4, 8) for ratio in (1, 5, 20) for lr in (1e-3, 1e-2)
    }
    plain = table[table["method"] == "lora"]  # has no plus, so neither ratio nor its rate
    assert list(plain["rank"]) == [4, 8] and set(plain["ratio"]) == {1}
    assert set(plain["lr"]) == {lab.TINY.lr}
    assert len({r.key for r in records}) == len(records) == 14 and read_records(out) == records

    seen = []
    again = lab.run_lab(out=out, on_record=lambda record, is_new: seen.append(is_new), **options)
    assert again == records and seen == [False] * 14


def test_the_rates_are_the_ones_that_train(small_lab, monkeypatch):
    trained, real = [], lab.train

    def watched(objective, stream, config, *rest):
        trained.append((config.lr, config.ratio))
        return real(objective, stream, config, *rest)

    monkeypatch.setattr(lab, "train", watched)
    options = small_lab | dict(ratio=[1, 5], lr=0.1, plus_lr=0.01)
    lab.run_lab(methods=["lora", "lora_plus"], **options)
    assert trained == [(0.1, 1), (0.01, 1), (0.01, 5)]


def test_a_ratio_of_one_is_plain_lora_at_that_rate(small_lab):
    (plus,) = lab.run_lab(methods=["lora_plus"], ratio=1, plus_lr=0.02, **small_lab)
    (plain,) = lab.run_lab(methods=["lora"], lr=0.02, **small_lab)
    assert plus.measures == plain.measures and plus.key != plain.key


def test_a_larger_ratio_moves_b_and_only_b_further(small_lab):
    """After one step, at which the gradient of A is zero: B is proportional to the ratio."""
    from serial_lora import adapters
    from serial_lora.injection import eject

    model = lab.load_clip("tiny", small_lab["model_name"], small_lab["weights"])
    data = lab.load_classification(small_lab["datasets"][0])
    config = lab.lab_config("tiny", rank=4, dropout=0.0, plus_lr=1e-4, **QUICK | {"min_steps": 1})
    found = {}
    for ratio in (1, 8):
        method = METHODS["serial_lora_plus"].with_ratio(ratio)
        lab.run_one(model, data, method, 1, 1, replace(config, batch_size=4), keep_adapter=True)
        found[ratio] = [
            (p.lora_A.clone(), p.lora_B.clone()) for p in adapters(model.model).values()
        ]
        eject(model.model)
    for (one_A, one_B), (eight_A, eight_B) in zip(found[1], found[8], strict=True):
        torch.testing.assert_close(one_A, eight_A)
        torch.testing.assert_close(8 * one_B, eight_B)
        assert one_B.abs().max() > 0


def test_one_number_works_as_a_list_of_one(small_lab):
    alone = lab.run_lab(methods=["serial_lora"], rank=4, **small_lab)
    assert alone == [
        replace(found, seconds=mine.seconds)
        for found, mine in zip(
            lab.run_lab(methods=["serial_lora"], rank=[4, 4], **small_lab), alone, strict=True
        )
    ]


def test_a_name_is_one_value_and_no_list_of_letters():
    assert several("food") == ["food"]
    assert several(("food", "nature", "food")) == ["food", "nature"]


def test_the_base_is_measured_once_for_all_ranks(small_lab, monkeypatch):
    measured, real = [], lab.zero_shot
    monkeypatch.setattr(lab, "zero_shot", lambda *a: measured.append(a) or real(*a))
    lab.run_lab(methods=["serial_lora"], rank=[2, 4], **small_lab)
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": [4, 6]}, "four divides"),
        ({"rank": [4, 1000]}, "rank 1000 is above 16"),
        ({"rank": [4, 0]}, "rank must be 1 or more"),
        ({"rank": []}, "list of rank is empty"),
        ({"ratio": []}, "list of ratios is empty"),
        ({"ratio": [1, 0]}, "above zero, not 0"),
        ({"ratio": [float("nan")]}, "finite"),
        ({"ratio": [float("inf")]}, "finite"),
        ({"ratio": 5, "methods": ["lora", "lora_equal_budget"]}, "no LoRA.* method was chosen"),
        ({"plus_lr": []}, "list of plus_lr is empty"),
        ({"plus_lr": [1e-3, 0.0]}, "rate"),
        ({"plus_lr": [-1e-3]}, "rate"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(small_lab, monkeypatch, changes, message):
    def must_not_run(*_, **__):
        raise AssertionError("something was run before the refusal")

    monkeypatch.setattr(lab, "run_one", must_not_run)
    monkeypatch.setattr(lab, "zero_shot", must_not_run)
    options = {"methods": ["serial_lora_plus", "lora_equal_budget"], "rank": 4} | changes
    with pytest.raises(SerialLoRAError, match=message):
        lab.run_lab(**small_lab | options)


def test_methods_come_once_for_each_ratio_in_order():
    names = ["lora", "lora_plus", "serial_lora_plus"]
    found = [(m.name, m.ratio) for m in chosen_methods(names, 16, [1, 20.0, 1])]
    assert found == [
        ("lora", 1),
        ("lora_plus", 1),
        ("lora_plus", 20),
        ("serial_lora_plus", 1),
        ("serial_lora_plus", 20),
    ]
    assert chosen_methods(names, 16) == [METHODS[name] for name in names]


def test_configs_are_the_product_of_what_is_swept():
    both = swept_configs(lab.CONFIGS, "tiny", {"rank": [4, 8], "plus_lr": (1e-3, 1e-2)}, epochs=3)
    assert [(c.rank, c.plus_lr) for c in both] == [(4, 1e-3), (4, 1e-2), (8, 1e-3), (8, 1e-2)]
    assert {c.epochs for c in both} == {3}
    assert swept_configs(lab.CONFIGS, "tiny", {"rank": None, "plus_lr": None}) == [lab.TINY]


# --- what records say ----------------------------------------------------------------------------


def test_a_method_at_its_usual_ratio_has_the_key_it_always_had():
    for name, method in METHODS.items():
        usual = method.with_ratio(20 if name.endswith("plus") else 5)
        assert usual == method and usual.settings == {}
    assert METHODS["lora_plus"].with_ratio(5).settings == {"ratio": 5.0}


def test_shipped_records_are_still_recognised():
    """The keys that a run of today would have, against the keys of the files."""
    records = shipped_records("clip")
    assert len(records) > 200
    for found in records[:: len(records) // 40]:
        method = METHODS[found.method]
        config = lab.lab_config("tiny")
        today = json.loads(json.dumps(asdict(config)))
        today |= {k: found.settings[k] for k in ("data", "model_name")} | method.settings
        key = run_key(
            "clip",
            "tiny",
            found.dataset,
            found.method,
            found.amount,
            found.seed,
            method.rank(config.rank),
            today,
        )
        assert key == found.key


def test_a_frame_tells_rank_ratio_and_rate_of_old_records_too():
    table = frame(shipped_records("clip")).set_index("method")
    assert set(table["lab_rank"]) == {16}
    assert set(table.loc["lora_equal_budget", "rank"]) == {4}
    for name, ratio, lr in (("lora", 1, 3e-3), ("serial_lora_plus", 20, 4e-4)):
        assert set(table.loc[name, "ratio"]) == {ratio} and set(table.loc[name, "lr"]) == {lr}
    sam = frame(shipped_records("sam"))
    assert set(sam["ratio"]) == {1, 20} and sam["lr"].notna().all()


def test_what_differs_between_a_methods_runs_is_swept():
    usual = [record(), record(method="lora", seed=2), record(method="lora_equal_budget", rank=4)]
    assert swept(usual) == []
    assert swept([*usual, with_settings(ratio=5.0)]) == ["ratio"]
    assert swept([*usual, with_settings(plus_lr=1e-3)]) == ["lr"]
    other = replace(with_settings(rank=32), rank=32, method="lora")
    assert swept([*usual, other]) == ["lab_rank"]


def test_what_was_swept_is_no_shared_setting():
    records = [
        replace(with_settings(plus_lr=lr, ratio=ratio), method=method)
        for method in ("lora_plus", "serial_lora_plus")
        for lr in (1e-3, 3e-4)
        for ratio in (1.0, 5.0)
    ]
    lines = describe_records(records).splitlines()
    assert lines[1] == "command: not noted"
    settings = json.loads(lines[3])  # one line for all: what was swept is told above
    assert settings == {"rank": 16, "prompt": "dataset"} and len(lines) == 5


@pytest.mark.parametrize(("plus_lr", "told"), [(4e-4, False), (None, True)])
def test_the_rate_of_runs_is_told_unless_none_used_it(plus_lr, told):
    """LoRA+ without a rate of its own, as at paper scale, trains A with ``lr``."""
    lines = describe_records([with_settings(plus_lr=plus_lr)])
    assert ("lr" in json.loads(lines.splitlines()[3])) == told


def test_the_sweeps_records_are_found_by_name(tmp_path, monkeypatch):
    from serial_lora_course.labs import records as results

    folder = tmp_path / "assets" / "records"
    folder.mkdir(parents=True)
    line = json.dumps(asdict(with_settings(ratio=5.0)))
    (folder / "clip_ratio_tiny.jsonl").write_text(line + "\n")
    monkeypatch.setattr(results, "files", lambda package: tmp_path)
    assert shipped_records("clip_ratio") == [with_settings(ratio=5.0)]
    assert shipped_records("clip_rank") == []


# --- what is shown -------------------------------------------------------------------------------


def shown(records) -> list[str]:
    console = Console(width=180)
    with console.capture() as printed:
        console.print(results_table(records))
    return printed.get().splitlines()


def test_the_table_has_a_row_for_each_rank_and_ratio():
    records = [
        replace(with_settings(ratio=ratio, rank=rank), rank=rank, seed=seed)
        for ratio in (1.0, 5.0)
        for rank in (4, 64)
        for seed in (1, 2)
    ]
    table = shown(records)
    rows = [line.split() for line in table if line.strip().startswith("food")]
    assert [row[3:5] for row in rows] == [["4", "1"], ["64", "1"], ["4", "5"], ["64", "5"]]
    (heading,) = (line for line in table if "data set" in line)
    assert "rank" in heading and "ratio" in heading and "rate of A" not in heading


def test_the_table_of_no_sweep_is_as_it_was():
    table = "".join(shown([record(), record(method="lora", rank=16)]))
    assert not any(word in table for word in ("rank", "ratio", "rate of A"))


def test_a_runs_line_tells_its_rank_and_ratio():
    assert "LoRA+ (rank 16, ratio 5): 50.0%" in run_line(with_settings(ratio=5.0), is_new=True)
    assert "LoRA (rank 8): 50.0%" in run_line(record(method="lora", rank=8), is_new=True)


def test_the_command_takes_lists(small_lab, run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(lab.CONFIGS, "tiny", replace(lab.TINY, **QUICK))
    out = tmp_path / "records.jsonl"
    code, printed, _ = run(
        "lab",
        "clip",
        "--dataset",
        small_lab["datasets"][0],
        "--methods",
        "serial_lora_plus",
        "--shots",
        "1",
        "--seeds",
        "1",
        "--rank",
        "4, 8",
        "--ratio",
        "1,2.5",
        "--plus-lr",
        "1e-3",
        "--model-name",
        small_lab["model_name"],
        "--weights",
        str(small_lab["weights"]),
        "--out",
        str(out),
    )
    assert code == 0
    found = [(r.rank, r.ratio, r.lr) for r in read_records(out)]
    assert found == [(4, 1, 1e-3), (4, 2.5, 1e-3), (8, 1, 1e-3), (8, 2.5, 1e-3)]
    for settings in ("CLIPLabConfig(rank=4,", "CLIPLabConfig(rank=8,"):
        assert f"Settings: {settings}" in printed
    assert "(rank 8, ratio 2.5)" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rank", "three"), "whole numbers"),
        (("--rank", "4,4.5"), "whole numbers"),
        (("--rank", ","), "whole numbers"),
        (("--ratio", "high"), "must be numbers"),
        (("--ratio", "5"), "add lora_plus or"),
        (("--ratio", "-5", "--methods", "lora_plus"), "above zero"),
        (("--plus-lr", "1e-3,fast"), "must be numbers"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, tmp_path, arguments, message):
    out = tmp_path / "records.jsonl"
    code, _, err = run("lab", "clip", "--dataset", "food", "--out", str(out), *arguments)
    assert code == 2 and err.startswith("serial-lora: ") and message in err
    assert err.count("\n") == 1 and not out.exists()
