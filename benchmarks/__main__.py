"""`python -m benchmarks`: measure, store results.json, rewrite the table in README.md."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks import cluster, report
from benchmarks.compiled import measure_compiled
from benchmarks.machine import measure_class, measure_conditions, measure_shares
from benchmarks.measure import PRECISIONS
from benchmarks.savings import measure_savings
from benchmarks.steps import measure_group
from benchmarks.subjects import KEYS, subject
from benchmarks.switching import measure_switching
from serial_lora_course.door import enter
from serial_lora_course.labs.timing import machine


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--steps", type=int, help="timed rounds (5; 2 with --quick)")
    parser.add_argument(
        "--only",
        choices=(*KEYS, *report.PARTS),
        action="append",
        help="one model, or one of the other parts; may be repeated",
    )
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    parser.add_argument(
        "--spins", type=int, nargs="+", default=(), help="counts to try among the conditions"
    )
    parser.add_argument("--threads", type=int, help="torch's threads (its own choice)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny models, to try the benchmark; stores nothing"
    )
    parser.add_argument("--results", type=Path, help="where to store the results")
    options = parser.parse_args(words)
    for name in ("steps", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(words: list[str] | None = None) -> int:
    """Run the benchmark as the command line asks; returns the exit code."""
    options = _arguments(words)
    if options.threads:
        torch.set_num_threads(options.threads)
    rounds = options.steps or (2 if options.quick else 5)
    tried = options.quick or options.spins  # what is tried is no result
    path = options.results or (None if tried else report.RESULTS)
    stored = report.load(path) if path is not None else None
    results = {"machine": machine(), "quick": options.quick, "groups": [], "savings": []}
    begin, chosen = time.perf_counter(), options.only or [*KEYS, *report.PARTS]
    if not options.only and not cluster.is_installed():
        chosen.remove("cluster")

    def done(what: str) -> None:
        """Store what there is, so that a run which is stopped keeps it."""
        elapsed = time.perf_counter() - begin
        print(f"[{elapsed:4.0f} s] {what}", file=sys.stderr, flush=True)
        if path is not None:
            report.store(report.merge(stored, results), path)

    for key in KEYS:
        for precision in (options.precision or PRECISIONS) if key in chosen else ():
            torch.manual_seed(0)
            group = measure_group(subject(key, options.quick), precision, rounds)
            results["groups"].append(group)
            results["savings"] += measure_savings(key, options.quick, precision, rounds)
            gc.collect()
            done(f"{key}, {precision}")
    for part, measure in (
        ("switching", partial(measure_switching, options.quick, rounds)),
        ("compiled", partial(measure_compiled, options.quick, rounds)),
        ("conditions", partial(measure_conditions, options.quick, rounds, options.spins)),
        ("learners", partial(measure_class, options.quick)),
        ("shares", partial(measure_shares, options.quick)),
        ("cluster", partial(cluster.measure_cluster, options.quick)),
    ):
        if part in chosen:
            results[part] = measure()
            done(part)
    print(report.render(results))
    return 0


if __name__ == "__main__":
    enter("benchmarks", main)
