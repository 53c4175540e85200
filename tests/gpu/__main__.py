"""What the labs take on a GPU that is not there: computed.json, and the tables of docs/labs.md.

python -m tests.gpu                 # all anew (minutes)
python -m tests.gpu --only clip     # this lab
python -m tests.gpu --tables        # no lab, the tables alone
"""

from __future__ import annotations

import argparse
import json
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


def label(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def stored(taken: Taken) -> dict[str, int]:
    return {name: getattr(taken, name) for name in ("before", "kept", "peak")}


def computed(lab: str) -> dict[str, Any]:
    looks = {name: stored(taken) for name, taken in looked(lab).items()}
    steps = {
        label(changes): {method: stored(step(lab, method, **changes)) for method in METHODS}
        for changes in SETTINGS[lab]
    }
    return {"looks": looks, "steps": steps}


def tables(rows: dict[str, Any]) -> str:
    """The part of docs/labs.md, in Markdown."""
    steps, looks = [], []
    for lab, taken in rows.items():
        for setting, of in taken["steps"].items():
            steps.append(
                [f"{lab.upper()}, {setting}", *(in_parts(of[method]) for method in METHODS)]
            )
        for what, row in taken["looks"].items():
            looks.append([f"{lab.upper()}, {what}", f"{row['peak'] / GIB:.2f}"])
    head = ["A step of training, GiB", *METHODS]
    return f"{table(head, steps)}\n\n{table(['Looking at a model', 'GiB'], looks)}"


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
    parser.add_argument("--only", choices=SETTINGS, action="append", help="a lab; may be repeated")
    parser.add_argument("--tables", action="store_true", help="compute nothing, write the tables")
    options = parser.parse_args(words)
    rows = json.loads(COMPUTED.read_text("utf-8"))
    for lab in [] if options.tables else options.only or SETTINGS:
        rows[lab] = computed(lab)
        COMPUTED.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    PAGE.write_text(page(rows), "utf-8")


if __name__ == "__main__":
    enter("tests.gpu", main)
