"""The study by command: ``python -m study run|spectra|tables|pack``; see docs/study.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from serial_lora.files import write_whole
from serial_lora_course.door import enter
from serial_lora_course.labs.frames import on_front
from serial_lora_course.lessons.l09_trial import tables as shipped
from serial_lora_course.plots.style import save_figure
from study.figures import plot_answers, plot_front
from study.plan import PLANS
from study.results import PACKED, Results
from study.runs import Study, go_on
from study.spectra import compare
from study.tables import Found, as_json


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 where runs are missing at the end."""
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__)
    parser.add_argument("command", choices=("run", "spectra", "tables", "pack"))
    parser.add_argument("--out", type=Path, default=Path("runs") / "study", help="a folder of runs")
    asked = parser.parse_args(arguments)
    if asked.command == "run":
        missing = list(go_on(Study(plan, asked.out) for plan in PLANS.values()))
        print("\n".join(missing) or "Every run is there.")
        return int(bool(missing))
    if asked.command == "spectra":
        print(compare(asked.out / "spectra.jsonl").round(3).to_string())
        return 0
    results = [Results(plan, asked.out) for plan in PLANS.values()]
    if asked.command == "tables":
        found = shipped.Found.of(as_json([Found(each) for each in results]))
        write_tables(found, results, asked.out)
    else:
        pack(results)
    return 0


def write_tables(found: shipped.Found, several: Sequence[Results], out: Path) -> None:
    """Print questions, arms and rates, and write them as CSV files."""
    questions = [
        {
            "Lab": answer.lab.upper(),
            "Question": answer.asks,
            "For sets like these": f"{answer.like} {answer.unit}",
            "For these sets": str(answer.these),
            "Sets": answer.like.count,
            "p, Holm": "< 0.001" if answer.p < 0.001 else f"{answer.p:.3f}",
            "Verdict": answer.verdict,
        }
        for answer in found.answers
    ]
    pages = {"questions": pd.DataFrame(questions)}
    for results in several:
        plan = results.plan
        rates = [(a.name, *tried) for a in plan.arms for tried in results.rates_tried(a).items()]
        pages[f"{plan.lab}_arms"] = found.arms[plan.lab]
        pages[f"{plan.lab}_rates"] = pd.DataFrame(rates, columns=["arm", "rate", "reached"])
    out.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        page.to_csv(out / f"{name}.csv", index=False)
        with pd.option_context("display.width", 200, "display.max_columns", None):
            print(f"\n{name}\n{page.round(3).to_string(index=False)}")


def pack(several: Sequence[Results]) -> None:
    """Compress records and outcomes, and write what the course ships, out of what was packed."""
    for results in several:
        results.pack()
    packed = [Results(results.plan, PACKED) for results in several]
    told = as_json([Found(each) for each in packed])
    found, folder = shipped.Found.of(told), shipped.FOUND.parent
    write_whole(shipped.FOUND, (json.dumps(told, indent=1) + "\n").encode())
    save_figure(plot_answers(found.answers), folder / "answers.png", dpi=120)
    arms = found.whole("sam")
    unbeaten = on_front(arms, "above LoRA").index
    save_figure(plot_front(arms, unbeaten, found.units["sam"]), folder / "front.png", dpi=160)


if __name__ == "__main__":
    enter("study", main)
