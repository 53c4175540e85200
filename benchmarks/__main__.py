"""`python -m benchmarks`: measure, store results.json, rewrite the tables in README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.savings import measure_savings
from benchmarks.shares import measure_shares
from benchmarks.steps import measure_steps
from benchmarks.switching import measure_switching
from serial_lora.files import write_whole
from serial_lora_course.door import enter
from tools.documents import put_between

README, RESULTS = (Path(__file__).with_name(name) for name in ("README.md", "results.json"))
PARTS = {
    "steps": measure_steps,
    "savings": measure_savings,
    "switching": measure_switching,
    "shares": measure_shares,
}


def main(words: list[str] | None = None) -> int:
    """Run the parts that the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="tiny models; stores nothing")
    options = parser.parse_args(words)
    known, here = json.loads(RESULTS.read_text(encoding="utf-8")), {"machine": machine()}
    comparable = not options.quick and known["machine"] == here["machine"] | {
        "date": known["machine"]["date"]
    }
    results = known | here if comparable else here
    for part in options.only or PARTS:
        print(f"{part} ...", file=sys.stderr, flush=True)
        torch.manual_seed(0)
        results[part] = PARTS[part](options.quick)
        if not options.quick:  # at once, so that a run which is stopped keeps it
            write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
            page = put_between(README.read_text(encoding="utf-8"), "results", render(results))
            write_whole(README, page.encode())
    print(render(results))
    return 0


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def render(results: dict[str, Any]) -> str:
    """All tables, in Markdown: a row's keys are the columns."""
    facts = results["machine"]
    text = (
        f"Measured on {facts['processor']} ({facts['cores']} cores, {facts['instructions']}), "
        f"PyTorch {facts['torch']}, Python {facts['python']}, {facts['date']}."
    )
    for part in PARTS:
        if rows := results.get(part, []):
            columns = list(rows[0])
            cells = [[shown(row.get(column, "")) for column in columns] for row in rows]
            lines = [columns, ["---"] * len(columns), *cells]
            text += f"\n\n### {part.capitalize()}\n\n"
            text += "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text


def shown(value: str | float) -> str:
    """A cell: three digits or so of a number."""
    if isinstance(value, str):
        return value
    if 0 < value < 0.01:
        return f"{value:.0e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    enter("benchmarks", main)
