"""`python -m benchmarks`: measure, store results.json, rewrite the table in README.md."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.measure import PRECISIONS, machine
from benchmarks.savings import measure_savings
from benchmarks.steps import measure_group
from benchmarks.subjects import KEYS, subject


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--steps", type=int, help="timed rounds (5; 2 with --quick)")
    parser.add_argument("--only", choices=KEYS, action="append", help="one model; may be repeated")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
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
    path = options.results or (None if options.quick else report.RESULTS)
    stored = report.load(path) if path is not None else None
    results = {"machine": machine(), "quick": options.quick, "groups": [], "savings": []}
    begin = time.perf_counter()
    for key in options.only or KEYS:
        for precision in options.precision or PRECISIONS:
            elapsed = time.perf_counter() - begin
            print(f"[{elapsed:4.0f} s] {key}, {precision}", file=sys.stderr, flush=True)
            torch.manual_seed(0)
            group = measure_group(subject(key, options.quick), precision, rounds)
            results["groups"].append(group)
            results["savings"] += measure_savings(key, options.quick, precision, rounds)
            gc.collect()
            if (
                path is not None
            ):  # after each group, so that a run which is stopped keeps what it has
                report.store(report.merge(stored, results), path)
    print(report.render(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
