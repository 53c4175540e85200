"""Results as data, and the table made from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measure import PRECISIONS
from benchmarks.subjects import KEYS
from serial_lora_course.files import write_json

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
README = FOLDER / "README.md"
BEGIN = "<!-- begin: made by `python -m benchmarks`, do not edit -->"
END = "<!-- end -->"

PARTS = ("switching", "compiled", "conditions", "learners", "shares", "cluster")
"""What is measured beside the models: lists of rows, each replaced as a whole."""

Results = dict[str, Any]


def load(path: Path = RESULTS) -> Results | None:
    """The stored results, or None before the first measurement."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def merge(old: Results | None, new: Results) -> Results:
    """Put new measurements in place of the old ones of the same model and precision.

    Results of another machine or another torch are dropped: a table names one machine.
    """
    if old is None or _identity(old) != _identity(new):
        return new

    def key(entry: dict[str, Any]) -> tuple[str, str]:
        return entry["model"], entry["precision"]

    merged = {part: old[part] for part in PARTS if part in old} | new
    for part in ("groups", "savings"):
        fresh = {key(entry) for entry in new[part]}
        kept = [entry for entry in old[part] if key(entry) not in fresh]
        merged[part] = sorted(kept + new[part], key=_order)
    return merged


def _identity(results: Results) -> tuple[Any, ...]:
    machine = results["machine"]
    return tuple(machine[name] for name in ("processor", "threads", "torch")) + (results["quick"],)


def _order(entry: dict[str, Any]) -> tuple[int, int]:
    return KEYS.index(entry["model"]), PRECISIONS.index(entry["precision"])


def store(results: Results, path: Path = RESULTS) -> None:
    """Write results as JSON, and the README's table where they are the repository's own."""
    write_json(path, results)
    if path == RESULTS:
        refresh(results)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return [_row(head), _row(rule), *map(_row, rows)]


def _milliseconds(row: dict[str, Any], key: str = "seconds") -> str:
    return f"{1e3 * row[key]:,.0f} ± {1e3 * row[key + '_spread']:,.0f}"


def _size(count: int) -> str:
    if count == 0:
        return "–"
    if count < 1e5:
        return f"{count / 1e3:,.1f} kB"
    return f"{count / 1e6:,.2f} MB" if count < 1e8 else f"{count / 1e6:,.0f} MB"


PEERS = ("lora", "peft")


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _summary(groups: list[dict[str, Any]]) -> list[str]:
    """Every ratio to the floor in one table, and the answers to the three questions."""
    by_method = [{row["method"]: row for row in group["rows"]} for group in groups]
    titles = {"floor_original": "frozen floor, the model's own attention"}
    for rows in by_method:
        for method, row in rows.items():
            if method != "floor":
                titles.setdefault(method, row["title"])
    head = ["step, ratio to the frozen floor"]
    head += [f"{group['model'].upper()} {group['precision']}" for group in groups]
    table = [
        [title, *(f"{rows[method]['ratio']:.2f}" if method in rows else "–" for rows in by_method)]
        for method, title in titles.items()
        if any(method in rows for rows in by_method)
    ]
    serial = [rows["serial_lora"]["ratio"] for rows in by_method]
    peers = [
        rows["serial_lora"]["ratio"] / rows[peer]["ratio"]
        for rows in by_method
        for peer in PEERS
        if peer in rows
    ]
    merged = [group["inference"]["ratio"] for group in groups]
    answers = [f"Serial LoRA's training step takes {_range(serial)} times the frozen floor's"]
    if peers:
        answers.append(f"{_range(peers)} times a peer's")
    answers.append(f"merged inference takes {_range(merged)} times the base's")
    return [*_table(head, table), "", "; ".join(answers) + ".", ""]


def _group(group: dict[str, Any]) -> list[str]:
    head = ["method", "step, ms", "ratio to floor", "saved activations", "adapter"]
    rows = [
        [
            f"**{row['title']}**" if row["method"] == "serial_lora" else row["title"],
            _milliseconds(row),
            f"{row['ratio']:.2f}",
            _size(row["saved_bytes"]),
            _size(row["adapter_bytes"]),
        ]
        for row in group["rows"]
    ]
    inference = group["inference"]
    return [
        f"### {group['title']}, {group['precision']}",
        "",
        f"{group['note']} Rank {group['rank']}; rounds: {group['rounds']}.",
        "",
        *_table(head, rows),
        "",
        f"Inference without gradients: base {_milliseconds(inference, 'base')} ms, merged "
        f"{_milliseconds(inference, 'merged')} ms, ratio {inference['ratio']:.2f}.",
        "",
    ]


def _savings(entries: list[dict[str, Any]]) -> list[str]:
    head = ["what is left out", "full, ms", "cut, ms", "ratio", "largest difference"]
    rows = [
        [
            f"{entry['model'].upper()}: {entry['title']} ({entry['precision']})",
            _milliseconds(entry, "full"),
            _milliseconds(entry, "cut"),
            f"{entry['ratio']:.2f}",
            f"{entry['difference']:.0e}",
        ]
        for entry in entries
    ]
    return [
        "### Exact savings",
        "",
        "The same training step with work left out that cannot change its result. The last column "
        "is the largest difference between the two steps' outputs and adapter gradients, relative "
        "to the largest entry and computed in float32.",
        "",
        *_table(head, rows),
        "",
    ]


def _switching(rows: list[dict[str, Any]]) -> list[str]:
    head = ["two adapters on SAM's encoder", "one switch, ms", "ratio to PEFT"]
    head += ["bytes of an adapter", "programs compiled for 4 switches"]
    table = [
        [row["title"], f"{1e3 * row['seconds']:.2f} ± {1e3 * row['seconds_spread']:.2f}"]
        + [f"{row['ratio']:.2f}", _size(row["adapter_bytes"]), str(row["graphs"])]
        for row in rows
    ]
    return [
        "### From one adapter to another",
        "",
        "`activate` copies the values of an adapter into the model's pairs, and those that were "
        "there out of them; PEFT's `set_adapter` goes through its layers and sets their names.",
        "",
        *_table(head, table),
        "",
    ]


def _compiled(rows: list[dict[str, Any]]) -> list[str]:
    head = ["training step of SAM's encoder, compiled", "eager, ms", "compiled, ms"]
    head += ["compiled / eager", "ratio to the compiled floor", "programs", "more of them for"]
    table = [
        [row["title"], _milliseconds(row, "eager"), _milliseconds(row)]
        + [f"{row['to_eager']:.2f}", f"{row['ratio']:.2f}", str(row["graphs"])]
        + [
            f"4 switches and scales: {row['graphs_changed']}; `disabled`: {row['graphs_disabled']}"
            if "graphs_changed" in row
            else "–"
        ]
        for row in rows
    ]
    return [
        "### As torch.compile makes it",
        "",
        "`torch.compile(model.forward, fullgraph=True)` with the default back end, float32. "
        "`disabled` has one program of its own, the base.",
        "",
        *_table(head, table),
        "",
    ]


def _conditions(rows: list[dict[str, Any]]) -> list[str]:
    floor = rows[0]["float32"]  # idle, PyTorch's own waiting
    head = ["machine", "how threads wait", "float32, ms", "bfloat16, ms", "bfloat16 / float32"]
    head += ["float32 / idle", "`auto` takes", "`auto` / the better"]
    table = [
        [
            row["state"],
            row["waiting"],
            _milliseconds(row, "float32"),
            _milliseconds(row, "bfloat16"),
        ]
        + [f"{row['ratio']:.2f}", f"{row['float32'] / floor:.2f}", row["chosen"]]
        + [f"{row[row['chosen']] / min(row['float32'], row['bfloat16']):.2f}"]
        for row in rows
    ]
    return [
        "### The same step on other machines",
        "",
        "Forward and backward of one step of the tiny CLIP lab (batch 32, rank 16), each row in a "
        "process of its own with its own environment. PyTorch's threads spin while they wait for "
        "one another, the course's sleep soon (`serial_lora_course/threads.py`). A neighbour is a "
        "process that never rests; with one on every core, half of the machine is left.",
        "",
        *_table(head, table),
        "",
    ]


def _learners(rows: list[dict[str, Any]]) -> list[str]:
    head = [f"{rows[0]['learners']} learners", "seconds", "ratio", "peak memory of a learner"]
    table = [
        [row["title"], f"{row['seconds']:.0f}", f"{row['ratio']:.2f}", _size(row["peak_bytes"])]
        for row in rows
    ]
    return [
        "### A class on one machine",
        "",
        "Each learner is a process that loads the tiny CLIP lab and trains it at four shots.",
        "",
        *_table(head, table),
        "",
    ]


def _shares(rows: list[dict[str, Any]]) -> list[str]:
    head = ["lab", "runs", "seconds", "training", "once", "not training", "in further runs"]
    head += ["aim: at most", "imports before"]
    table = [
        [row["lab"], row["run"], *(f"{row[name]:.1f}" for name in ("seconds", "training", "once"))]
        + [
            *(f"{row[name]:.0%}" for name in ("rest", "further", "at_most")),
            f"{row['loading']:.1f}",
        ]
        for row in rows
    ]
    return [
        "### What is not training",
        "",
        "The first runs of each tiny lab on a data set, from the first line after its imports to "
        "its records. Training is forward and backward passes and the optimizer's steps; the rest "
        "is data, measuring the base and the adapted model, drawing and saving. Once for a data set, "
        "and no more in further runs, the base is measured, the precision chosen, and SD3's "
        "pictures encoded.",
        "",
        *_table(head, table),
        "",
    ]


def _cluster(rows: list[dict[str, Any]]) -> list[str]:
    head = [
        f"{rows[0]['runs']} runs of {rows[0]['own']:.1f} s",
        "workers",
        "all, s",
        "before the first, s",
    ]
    head += ["beside a run's own, s", "runs an hour, ratio", "the same measures"]
    table = [
        [row["title"], str(row["workers"])]
        + [f"{row[name]:.1f}" for name in ("seconds", "begin")]
        + [f"{row['overhead']:.2f}", f"{row['ratio']:.2f}", "yes" if row["equal"] else "NO"]
        for row in rows
    ]
    return [
        "### A grid of runs on a cluster",
        "",
        "The tiny CLIP lab, one data set at four shots, each run on one thread. Before the first run a "
        "process loads data and model and measures the unadapted one; workers start Python first. "
        "Beside a run's own seconds are sending it, its record, and workers that wait for the last.",
        "",
        *_table(head, table),
        "",
    ]


def render(results: Results) -> str:
    """The generated part of the README, markers included."""
    machine = results["machine"]
    lines = [
        f"Measured on {machine['processor']} ({machine['cores']} cores, {machine['threads']} "
        f"threads, {machine['instructions']}), torch {machine['torch']}, Python "
        f"{machine['python']}, {machine['system']}, {machine['date']}."
        + (" Tiny models, to try the benchmark itself." if results["quick"] else ""),
        "",
    ]
    if results["groups"]:
        lines += _summary(results["groups"])
    for group in results["groups"]:
        lines += _group(group)
    if results["savings"]:
        lines += _savings(results["savings"])
    writers = (_switching, _compiled, _conditions, _learners, _shares, _cluster)
    for part, write in zip(PARTS, writers, strict=True):
        if results.get(part):
            lines += write(results[part])
    return "\n".join([BEGIN, "", *lines, END])


def refresh(results: Results, readme: Path = README) -> None:
    """Put the table of `results` between the README's markers."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + render(results) + after, encoding="utf-8")
