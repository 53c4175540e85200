"""What the labs take on a GPU that is not there: computed.json, and the tables of docs/labs.md.

python -m tests.gpu                 # all anew (minutes)
python -m tests.gpu --only clip     # this lab
python -m tests.gpu --tables        # no lab, the tables alone
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from serial_lora_course.door import enter
from serial_lora_course.labs.device import GIB
from serial_lora_course.labs.fit import CHOICES
from tests.gpu.labs import METHODS, looked, step
from tests.gpu.pretended import Taken
from tools import ROOT
from tools.documents import put_between

COMPUTED, PAGE = Path(__file__).with_name("computed.json"), ROOT / "docs" / "labs.md"
SETTINGS = {lab: [changes for changes, _ in choices] for lab, choices in CHOICES.items()}
SETTINGS["sd3"].append({"gradient_checkpointing": True, "accumulation": 1})
UNSEEN = 1.5  # GiB, for what shapes do not tell
CARDS = (8, 16, 24, 48, 80)  # GB of 10^9 bytes
#: Of NVIDIA's data sheets, from memory: 10^12 operations a second, in bfloat16 (dense) and in float32.
FIGURES = {"L4": (121, 30.3), "RTX 4090": (165, 82.6), "A100": (312, 19.5), "H100": (989, 67)}
REACHED = 0.3
#: A class's run: the paper's setting for one GPU, steps of training with it, and how often what is looked at.
RUNS = {
    "clip": ({"accumulation": 1}, 100, {"measure 128 pictures": 4}),
    "sam": ({"gradient_checkpointing": True}, 100, {"measure a picture": 24}),
    "sd3": (
        {"gradient_checkpointing": True},
        150,
        # In 14 steps; every two of them are counted with a decoding.
        {"encode a picture": 75, "draw 4 pictures in 2 steps": 28, "decode 4 pictures": 4 - 28},
    ),
}


def label(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def stored(taken: Taken) -> dict[str, Any]:
    operations = {str(kind).removeprefix("torch."): n for kind, n in taken.operations.items()}
    sizes = {name: getattr(taken, name) for name in ("before", "kept", "peak")}
    return sizes | {"waits": taken.waits.total(), "operations": operations}


def computed(lab: str) -> dict[str, Any]:
    looks = {name: stored(taken) for name, taken in looked(lab).items()}
    steps = {
        label(changes): {method: stored(step(lab, method, **changes)) for method in METHODS}
        for changes in SETTINGS[lab]
    }
    return {"looks": looks, "steps": steps}


def tables(rows: dict[str, Any]) -> str:
    """The part of docs/labs.md, in Markdown."""
    steps, looks, fits, runs = [], [], [], []
    for lab, (usual, count, often) in RUNS.items():
        made, seen, name = rows[lab]["steps"], rows[lab]["looks"], lab.upper()
        for setting, taken in made.items():
            steps.append([f"{name}, {setting}", *(in_parts(taken[method]) for method in METHODS)])
        looks += [[f"{name}, {what}", f"{row['peak'] / GIB:.2f}"] for what, row in seen.items()]
        trained = made[label(usual)]["LoRA"]
        # Text encoders that do not fit compute on the CPU.
        peaks = [row["peak"] for what, row in seen.items() if not what.startswith("read")]
        each = max(trained["peak"], *peaks) / GIB + UNSEEN
        pairs = [str(int(size * 1e9 / GIB / each)) for size in CARDS]
        fits.append([f"{name}, {label(usual)}", f"{each:.1f}", *pairs])
        total = Counter()
        for n, row in [(count, trained), *((n, seen[what]) for what, n in often.items())]:
            total.update({kind: n * done / 1e12 for kind, done in row["operations"].items()})
        seconds = [
            f"{(total['bfloat16'] / narrow + total['float32'] / wide) / REACHED:.0f}"
            for narrow, wide in FIGURES.values()
        ]
        runs.append([name, f"{total['bfloat16']:,.0f}", f"{total['float32']:,.0f}", *seconds])
    return "\n\n".join(
        [
            table(["A step of training, GiB", *METHODS], steps),
            table(["Looking at a model", "GiB"], looks),
            table(["Pairs at once", "GiB each", *(f"{size} GB" for size in CARDS)], fits),
            table(["A class's run", "bfloat16", "float32", *(f"{n}, s" for n in FIGURES)], runs),
        ]
    )


def in_parts(row: dict[str, Any]) -> str:
    peak, before, kept = (row[name] / GIB for name in ("peak", "before", "kept"))
    return f"{peak:.2f} ({before:.2f} + {kept:.2f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))


def page(rows: dict[str, Any]) -> str:
    """docs/labs.md as it should be."""
    return put_between(PAGE.read_text("utf-8"), "computed", tables(rows))


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--only", choices=RUNS, action="append", help="a lab; may be repeated")
    parser.add_argument("--tables", action="store_true", help="compute nothing, write the tables")
    options = parser.parse_args(words)
    rows = json.loads(COMPUTED.read_text("utf-8"))
    for lab in [] if options.tables else options.only or RUNS:
        rows[lab] = computed(lab)
        COMPUTED.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    PAGE.write_text(page(rows), "utf-8")


if __name__ == "__main__":
    enter("tests.gpu", main)
