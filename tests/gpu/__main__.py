"""What the labs take on a GPU that is not there.

    python -m tests.gpu              # computes computed.json anew (minutes), and docs/labs.md's tables
    python -m tests.gpu clip sam     # of these labs alone
    python -m tests.gpu tables       # the tables alone
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serial_lora_course.labs.device import GIB
from serial_lora_course.labs.fit import CHOICES
from tests.gpu.labs import METHODS, looked, step
from tests.gpu.pretended import Taken
from tools import ROOT
from tools.documents import put_between

COMPUTED, PAGE = Path(__file__).with_name("computed.json"), ROOT / "docs" / "labs.md"
TITLES = {"clip": "CLIP", "sam": "SAM", "sd3": "SD3"}
SETTINGS = {lab: [changes for changes, _ in choices] for lab, choices in CHOICES.items()}
SETTINGS["sd3"] += [{"gradient_checkpointing": True, "accumulation": 1}]
THRIFTY = {"clip": {"accumulation": 1}} | {k: {"gradient_checkpointing": True} for k in ("sam", "sd3")}
UNSEEN = 1.5  # GiB, for what shapes do not tell
CARDS = (8, 16, 24, 48, 80)  # GB of 10^9 bytes
#: NVIDIA's data sheets: 10^12 operations a second, of bfloat16 (without sparsity) and of float32.
FIGURES = {"L4": (121, 30.3), "RTX 4090": (165, 82.6), "A100": (312, 19.5), "H100": (989, 67)}
REACHED = 0.3  # of these
#: What a class's run does (`labs.lesson.SETTINGS`): steps of training, and how often it looks how.
RUNS = {
    "clip": ("3,200 pictures, 500 measured", 100, {"measure 128 pictures": 500 / 128}),
    "sam": ("100 pictures, 24 measured", 100, {"measure a picture": 24}),
    "sd3": (
        "75 pictures twice, 16 drawn in 14 steps",
        150,
        {"encode a picture": 75, "draw 4 pictures, a step": 4 * 14, "decode 4 pictures": 4 * (1 - 14)},
    ),
}


def key(lab: str, method: str, changes: dict[str, Any]) -> str:
    return f"{lab}, {method}, {json.dumps(changes)}"


def stored(taken: Taken) -> dict[str, Any]:
    operations = {str(kind).removeprefix("torch."): n for kind, n in taken.operations.items()}
    sizes = {name: getattr(taken, name) for name in ("before", "kept", "peak")}
    return sizes | {"waits": taken.waits.total(), "operations": operations}


def computed(lab: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a lab, under its key."""
    for name, taken in looked(lab).items():
        yield f"{lab}, {name}", stored(taken)
    for changes in SETTINGS[lab]:
        for method in METHODS:
            yield key(lab, method, changes), stored(step(lab, method, **changes))


def tables(rows: dict[str, dict[str, Any]]) -> str:
    """The part of docs/labs.md, in Markdown."""
    steps, looks, fits, runs = [], [], [], []
    for lab, title in TITLES.items():
        for changes in SETTINGS[lab]:
            cells = [f"{title}, {setting(lab, changes)}"]
            cells += [in_parts(rows[key(lab, method, changes)]) for method in METHODS]
            steps.append(cells)
        mine = {name: row for name, row in rows.items() if name.startswith(f"{lab}, ")}
        mine = {name.partition(", ")[2]: row for name, row in mine.items() if "{" not in name}
        looks += [[f"{title}, {name}", f"{row['peak'] / GIB:.2f}"] for name, row in mine.items()]
        step_row = rows[key(lab, "LoRA", THRIFTY[lab])]
        # Text encoders that do not fit read on the CPU.
        peaks = [row["peak"] for name, row in mine.items() if not name.startswith("read")]
        most = max(step_row["peak"], *peaks) / GIB + UNSEEN
        pairs = [f"{int(gigabytes * 1e9 / (most * GIB))}" for gigabytes in CARDS]
        fits.append([f"{title}, {setting(lab, THRIFTY[lab])}", f"{most:.1f}", *pairs])
        what, count, looking = RUNS[lab]
        narrow, wide = (
            sum(n * row["operations"].get(kind, 0) for n, row in parts(step_row, count, mine, looking))
            for kind in ("bfloat16", "float32")
        )
        seconds = [
            f"{(narrow / one + wide / other) / 1e12 / REACHED:.0f}" for one, other in FIGURES.values()
        ]
        told = [f"{(narrow + wide) / 1e12:,.0f}", f"{wide / (narrow + wide):.0%}"]
        runs.append([f"{title}, {what}", *told, *seconds])
    return "\n\n".join(
        (
            table(["a step, GiB: peak (there before + kept)", *METHODS], steps),
            table(["looking, GiB", "peak"], looks),
            table(["pairs at once", "GiB each", *(f"{n} GB" for n in CARDS)], fits),
            table(["a class's run", "10^12 operations", "float32", *(f"{n}, s" for n in FIGURES)], runs),
        )
    )


def parts(step_row, count, mine, looking):
    return [(count, step_row), *((n, mine[name]) for name, n in looking.items())]


def setting(lab: str, changes: dict[str, Any]) -> str:
    """In words."""
    of = changes.get("accumulation", {"sd3": 4}.get(lab, 1))
    at_once = {"clip": 32, "sam": 1, "sd3": 4}[lab] // of
    words = [f"{at_once} picture{'s' * (at_once > 1)}"]
    if lab == "sd3":
        words.append(f"{changes.get('resolution', 512)} pixels")
    if changes.get("gradient_checkpointing"):
        words.append("checkpointing")
    return ", ".join(words)


def in_parts(row: dict[str, Any]) -> str:
    peak, before, kept = (row[name] / GIB for name in ("peak", "before", "kept"))
    return f"{peak:.2f} ({before:.2f} + {kept:.2f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))


def page(rows: dict[str, dict[str, Any]]) -> str:
    """docs/labs.md as it should be."""
    return put_between(PAGE.read_text("utf-8"), "computed", tables(rows))


def main(words: list[str]) -> None:
    rows = json.loads(COMPUTED.read_text("utf-8"))
    for lab in [word for word in words if word in TITLES] if words else TITLES:
        for name, row in computed(lab):
            print(name, in_parts(row), flush=True)
            rows[name] = row
            COMPUTED.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    PAGE.write_text(page(rows), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
